//! What a run found, as a table for people and as one line of JSON for programs.

use std::collections::BTreeMap;
use std::error::Error;

use serde::Serialize;
use serde_json::Value;

use crate::cluster::Cluster;

/// What the data plane did, over both TaskManagers and the whole run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Traffic {
    /// Payload bytes copied beyond the one serialising store: what fell into staging.
    pub payload_bytes_copied: u64,
    /// Send operations.
    pub send_ops: u64,
    /// Receive operations.
    pub receive_ops: u64,
    /// The ring's driver.
    pub driver: String,
    /// How payloads were sent.
    pub send_mode: String,
}

impl Traffic {
    /// Asks the JobManager what the TaskManagers reported last.
    pub fn of(cluster: &Cluster) -> Result<Self, Box<dyn Error>> {
        let mut traffic = Self::default();
        let list = cluster.get("/taskmanagers")?;
        for worker in list["taskmanagers"].as_array().ok_or("no list of TaskManagers")? {
            let id = worker["id"].as_str().ok_or("a TaskManager without an id")?;
            let detail = cluster.get(&format!("/taskmanagers/{id}"))?;
            for slot in detail["slots"].as_array().ok_or("a TaskManager without slots")? {
                let number = |value: &Value| value.as_u64().unwrap_or_default();
                traffic.payload_bytes_copied += number(&slot["payloadBytesCopied"]);
                traffic.send_ops += number(&slot["sendOps"]);
                traffic.receive_ops += number(&slot["receiveOps"]);
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            traffic.driver = text(&detail["driver"]);
            traffic.send_mode = text(&detail["sendMode"]);
        }
        Ok(traffic)
    }
}

/// A finished run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The two TaskManager processes: source, sum.
    pub pids: Vec<u32>,
    /// Records measured.
    pub records_received: u64,
    /// Records before them.
    pub warm_up_records: u64,
    /// All sums added up, warm-up included, modulo 2^64.
    pub checksum: u64,
    /// What the checksum must be.
    #[serde(rename = "checksum_expected")]
    pub expected: u64,
    /// From the end of the warm-up to the last record, at the receiver.
    pub seconds: f64,
    /// Records measured per second.
    pub records_per_second: f64,
    /// Payload bytes per second.
    pub bytes_per_second: f64,
    /// User and system time per process over the whole job.
    pub cpu_seconds: BTreeMap<String, f64>,
    /// Heap allocations of the two slot threads after the warm-up.
    pub heap_allocations: u64,
    /// What the data plane did.
    #[serde(flatten)]
    pub traffic: Traffic,
}

impl Report {
    /// True if every record arrived.
    pub fn right(&self) -> bool {
        self.checksum == self.expected
    }

    /// Prints it.
    pub fn print(&self, json: bool) {
        if json {
            match serde_json::to_string(self) {
                Ok(line) => println!("{line}"),
                Err(error) => eprintln!("error: {error}"),
            }
            return;
        }
        let rows = [
            ("records", format!("{} after {} of warm-up", self.records_received, self.warm_up_records)),
            ("seconds", format!("{:.2}", self.seconds)),
            ("records/s", format!("{:.1} M", self.records_per_second / 1e6)),
            ("payload", format!("{:.2} GB/s", self.bytes_per_second / 1e9)),
            (
                "cpu seconds",
                self.cpu_seconds.values().map(|s| format!("{s:.2}")).collect::<Vec<_>>().join(" and "),
            ),
            ("heap allocations", self.heap_allocations.to_string()),
            ("payload bytes copied", self.traffic.payload_bytes_copied.to_string()),
            ("send and receive ops", format!("{} and {}", self.traffic.send_ops, self.traffic.receive_ops)),
            ("driver", format!("{}, {}", self.traffic.driver, self.traffic.send_mode)),
            ("checksum", if self.right() { "right".to_owned() } else { "WRONG".to_owned() }),
        ];
        for (name, value) in rows {
            println!("{name:>22}  {value}");
        }
    }
}
