//! What a TaskManager uses of its plan, component by component; and that a job its slots have no room for is refused.

use std::time::Duration;

use serde_json::Value;

use crate::support::cluster::{Cluster, SLOTS};
use crate::support::job::Job;
use crate::support::{SOON, WHOLE_JOB, wait_for};

const GIB: u64 = 1 << 30;
/// As many records as nobody waits for, and keys that fill some 30 MiB of managed memory.
const RECORDS: &str = "1000000000000";
const KEYS: &str = "500000";

/// What the ledger of a TaskManager says.
pub struct Ledger(pub Value);

impl Ledger {
    /// Of the TaskManager with this process id, once the JobManager was told.
    pub fn of(cluster: &Cluster, process: u32) -> Option<Self> {
        let all = cluster.get("/taskmanagers")?;
        let mut all = all["taskmanagers"].as_array()?.iter();
        let one = all.find(|one| one["pid"].as_u64() == Some(u64::from(process)))?;
        cluster.get(&format!("/taskmanagers/{}", one["id"].as_str()?)).map(Self)
    }

    pub fn line(&self, component: &str) -> [u64; 3] {
        let line = &self.0["metrics"]["memory"][component];
        ["configured", "used", "peak"]
            .map(|what| line[what].as_u64().unwrap_or_else(|| panic!("{component}: {line}")))
    }

    /// Each component as `configured used peak`.
    pub fn table(&self) -> String {
        let components = self.0["metrics"]["memory"].as_object().expect("the ledger is an object");
        let mut text = format!("{:<20} {:>12} {:>12} {:>12}\n", "bytes of", "configured", "used", "peak");
        for name in components.keys() {
            let [configured, used, peak] = self.line(name);
            text.push_str(&format!("{name:<20} {configured:>12} {used:>12} {peak:>12}\n"));
        }
        text
    }

    /// Nothing is over its plan, and the network is there to the last whole segment of each slot.
    pub fn holds(&self) {
        self.holds_besides(&[]);
    }

    /// As `holds`, without looking at some components.
    pub fn holds_besides(&self, others: &[&str]) {
        let components = self.0["metrics"]["memory"].as_object().expect("the ledger is an object").keys();
        for name in components.filter(|name| !others.contains(&name.as_str())) {
            let [configured, _, peak] = self.line(name);
            assert!(peak <= configured, "{name} is over its plan:\n{}", self.table());
        }
        let number = |value: &Value| value.as_u64().expect("a number");
        let (segment, slots) = (number(&self.0["segmentSize"]), number(&self.0["slotsNumber"]));
        let [network, ..] = self.line("networkMemory");
        let each = network / slots / segment;
        assert_eq!(number(&self.0["segmentsPerSlot"]), each);
        assert_eq!(number(&self.0["metrics"]["segmentsTotal"]), each * slots);
        assert!(
            network - each * slots * segment < slots * segment,
            "less than a segment of each slot is left over"
        );
    }
}

fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("the kernel tells");
    let line =
        text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).expect("it tells what is free");
    line.trim().strip_suffix(" kB").and_then(|kib| kib.parse::<u64>().ok()).expect("in KiB") << 10
}

#[test]
fn what_a_taskmanager_really_uses_is_within_its_plan_at_one_four_and_sixteen_gibibytes() {
    for size in [1, 4, 16] {
        if available() < size * GIB + GIB {
            println!("skipped: {size}g, this machine has {} MiB available", available() >> 20);
            continue;
        }
        let plan = format!("taskmanager.memory.process.size={size}g");
        let mut cluster = Cluster::start(0, &["-D", &plan]);
        cluster.start_taskmanager();
        // The kernel clears the whole network memory of the process first, which takes a while where that is much.
        cluster.taskmanagers[0]
            .wait_line("`ready`", WHOLE_JOB, |line| line.starts_with("ready").then_some(()));
        cluster.wait_slots(SLOTS);
        let flags = ["--records", RECORDS, "--keys", KEYS];
        let mut job = Job::submit(&mut cluster, "keyed-sum", SLOTS as u32, &flags);
        let process = cluster.taskmanagers[0].id();
        wait_for("state, and a checkpoint of it", WHOLE_JOB, || {
            let state = Ledger::of(&cluster, process)?.line("managedMemory")[1];
            let size = job.checkpoints(&cluster)?.state_size();
            (state > 16 << 20 && size > 8 << 20).then_some(())
        });
        let ledger = Ledger::of(&cluster, process).expect("it was there a moment ago");
        println!("{size} GiB\n{}", cluster.status_memory());
        ledger.holds();
        let [total, ..] = ledger.line("totalProcessMemory");
        assert_eq!(total, size * GIB);
        assert!(cluster.cancel(&job.id).status.success());
        job.wait(SOON);
        cluster.stop();
    }
}

#[test]
fn a_job_with_more_links_than_slots_have_room_for_is_refused_by_key() {
    // Three TaskManagers of two slots: each slot has four others elsewhere, there and back.
    const WEIGHTS: &str = "taskmanager.memory.managed.consumer-weights";
    let weights = format!("{WEIGHTS}=OPERATOR:1,STATE_BACKEND:9");
    let links = "taskmanager.network.links-per-slot=4";
    let flags = ["-D", links, "-D", "taskmanager.memory.process.size=256m", "-D", &weights];
    let cluster = Cluster::start(3, &flags);
    let submit = |parallelism| {
        let line = ["keyed-sum", "--parallelism", parallelism, "--", "--records", "10", "--keys", "10"];
        cluster.submit(&line, Duration::from_secs(60))
    };
    let refused = submit("6");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    for words in [
        "not enough links to slots of other TaskManagers",
        "needs 8, available 4",
        "edge \"pairs -> sum",
        "asks for most of them: 8",
        "raise taskmanager.network.links-per-slot",
    ] {
        assert!(refused.stderr.contains(words), "{words:?} in {refused:?}");
    }
    let fits = submit("3");
    assert!(fits.status.success(), "two slots elsewhere, there and back, are four links: {fits:?}");

    // A plan fitted to what runs keeps the links and the weights.
    let fitted: Value = serde_json::from_str(&cluster.plan_fitted()).expect("an object");
    assert_eq!(fitted["fit"]["values"]["taskmanager.network.links-per-slot"], "4", "{fitted:#}");
    assert_eq!(fitted["fit"]["values"][WEIGHTS], "OPERATOR:1,STATE_BACKEND:9", "{fitted:#}");
    cluster.stop();
}
