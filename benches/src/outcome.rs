//! What a run found, as a table for people and as one line of JSON for programs. Owns no state.
//!
//! Always: an outcome that is printed has the right sums.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::meter::{self, SOURCE_FILE, SUM_FILE, Side, TOTALS_FILE, Totals};
use crate::pairs::Effort;
use crate::work::Work;

/// What the data plane did, over both TaskManagers and the whole run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Traffic {
    /// Payload bytes copied beyond the one serialising store: what fell into staging.
    pub payload_bytes_copied: u64,
    /// Send operations.
    pub send_ops: u64,
    /// Receive operations.
    pub receive_ops: u64,
    /// Calls into the kernel at both ends, and the bytes that they sent and received: each counted at either end.
    pub enters: u64,
    pub wire_bytes: u64,
    /// Bytes through shared memory, counted at both ends.
    pub shared_memory_bytes: u64,
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
                traffic.enters += number(&slot["enters"]);
                traffic.wire_bytes += number(&slot["bytes"]);
                traffic.shared_memory_bytes += number(&slot["sharedMemoryBytes"]);
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            traffic.driver = text(&detail["driver"]);
            traffic.send_mode = text(&detail["sendMode"]);
        }
        Ok(traffic)
    }
}

/// What only one of the benchmarks has to say about a run.
pub trait Details: Serialize {
    /// As lines of a table.
    fn lines(&self) -> Vec<(&'static str, String)>;

    /// What the engine did for it, if there was one.
    fn effort(&self) -> Option<Effort> {
        None
    }
}

impl Traffic {
    /// Bytes that crossed the network: each was sent and received.
    fn moved(&self) -> f64 {
        self.wire_bytes.max(2) as f64 / 2.0
    }

    /// Calls of both ends for each 64 KiB that crossed.
    fn enters_per_64k(&self) -> f64 {
        self.enters as f64 * 65_536.0 / self.moved()
    }
}

impl Details for Traffic {
    fn effort(&self) -> Option<Effort> {
        let copied_part = self.payload_bytes_copied as f64 / self.moved();
        Some(Effort { copied_part, enters_per_64k: self.enters_per_64k() })
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        vec![
            ("payload bytes copied", self.payload_bytes_copied.to_string()),
            ("send and receive ops", format!("{} and {}", self.send_ops, self.receive_ops)),
            ("calls per 64 KiB moved", format!("{:.2} of both ends", self.enters_per_64k())),
            ("bytes through shared memory", self.shared_memory_bytes.to_string()),
            ("driver", format!("{}, {}", self.driver, self.send_mode)),
        ]
    }
}

/// A finished run.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome<D> {
    /// What moved.
    pub shape: &'static str,
    /// The processes: source, sum; or the one that is both.
    pub pids: Vec<u32>,
    /// Records measured.
    pub records_received: u64,
    /// Records before them.
    pub warm_up_records: u64,
    /// All sums added up, warm-up included, modulo 2^64.
    pub checksum: u64,
    /// What the checksum must be.
    pub checksum_expected: u64,
    /// From the end of the warm-up to the last record, at the receiver.
    pub seconds: f64,
    /// Records measured per second.
    pub records_per_second: f64,
    /// Payload bytes per second.
    pub bytes_per_second: f64,
    /// User and system time per process over the whole run.
    pub cpu_seconds: BTreeMap<String, f64>,
    /// Heap allocations of the two ends' threads after the warm-up.
    pub heap_allocations: u64,
    /// What only this benchmark knows.
    #[serde(flatten)]
    pub details: D,
}

impl<D: Details> Outcome<D> {
    /// Reads what the two ends left in `dir`. `cpu` has the processes and the time each has used.
    ///
    /// # Errors
    /// A result is missing, or its number is not what the work says.
    pub fn collect(dir: &Path, work: &Work, cpu: &[(u32, f64)], details: D) -> Result<Self, Box<dyn Error>> {
        let source: Side = meter::read(&dir.join(SOURCE_FILE))?;
        let sum: Side = meter::read(&dir.join(SUM_FILE))?;
        let totals: Totals = meter::read(&dir.join(TOTALS_FILE))?;
        let expected = work.expected();
        if totals.results != expected.results {
            return Err(format!(
                "{} keys or records were summed, expected {}",
                totals.results, expected.results
            )
            .into());
        }
        let records_per_second = sum.records as f64 / sum.seconds;
        Ok(Self {
            shape: work.shape.name(),
            pids: cpu.iter().map(|&(pid, _)| pid).collect(),
            records_received: sum.records,
            warm_up_records: work.all() - sum.records,
            checksum: totals.checksum,
            checksum_expected: expected.checksum,
            seconds: sum.seconds,
            records_per_second,
            bytes_per_second: records_per_second * work.wire_bytes(),
            cpu_seconds: cpu.iter().map(|&(pid, seconds)| (pid.to_string(), seconds)).collect(),
            heap_allocations: source.heap_allocations + sum.heap_allocations,
            details,
        })
    }

    /// Processor time of the processes that move the records, per record, nanoseconds; the warm-up counts as well.
    pub fn cpu_ns_per_record(&self) -> f64 {
        self.cpu_seconds.values().sum::<f64>() * 1e9 / (self.records_received + self.warm_up_records) as f64
    }

    /// The same for each process; that of one alone counts for both.
    pub fn ends_ns(&self) -> [f64; 2] {
        let records = (self.records_received + self.warm_up_records) as f64;
        let of = |pid: &u32| self.cpu_seconds.get(&pid.to_string()).map_or(0.0, |s| s * 1e9 / records);
        match self.pids.as_slice() {
            [one] => [of(one) / 2.0; 2],
            [first, second, ..] => [of(first), of(second)],
            [] => [0.0; 2],
        }
    }

    /// This, if the sums are right.
    ///
    /// # Errors
    /// They are not.
    pub fn checked(self) -> Result<Self, Box<dyn Error>> {
        if self.checksum == self.checksum_expected {
            return Ok(self);
        }
        Err(format!("the checksum is {}, the closed form {}", self.checksum, self.checksum_expected).into())
    }

    /// Prints it.
    pub fn print(&self, json: bool) {
        if json {
            print_json(self);
            return;
        }
        let mut rows = vec![
            ("records", format!("{} after {} of warm-up", self.records_received, self.warm_up_records)),
            ("seconds", format!("{:.2}", self.seconds)),
            ("records/s", format!("{:.1} M", self.records_per_second / 1e6)),
            ("payload", format!("{:.2} GB/s", self.bytes_per_second / 1e9)),
            (
                "cpu seconds",
                self.cpu_seconds.values().map(|s| format!("{s:.2}")).collect::<Vec<_>>().join(" and "),
            ),
            ("heap allocations", self.heap_allocations.to_string()),
        ];
        rows.extend(self.details.lines());
        rows.push(("checksum", "right".to_owned()));
        for (name, value) in rows {
            println!("{name:>22}  {value}");
        }
    }
}

/// One line for programs.
pub fn print_json<T: Serialize>(value: &T) {
    match serde_json::to_string(value) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("error: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_was_sent_and_received_has_moved_once() {
        let sent_and_received = 2 * 4 * 65_536;
        let traffic = Traffic {
            enters: 6,
            wire_bytes: sent_and_received,
            payload_bytes_copied: 65_536,
            ..Traffic::default()
        };
        assert_eq!(traffic.effort(), Some(Effort { copied_part: 0.25, enters_per_64k: 1.5 }));
    }
}
