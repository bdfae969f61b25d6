//! Measures what the constants of `alloc/memory/src/plan/{sizing,native}.rs` say: a JobManager's heap at 1, 10 and 100 jobs,
//! and what a TaskManager's code, threads and links take. Prints; it fails only if nothing could be measured.
//!
//! ```text
//! cargo test -p tidegate --test e2e -- sizing --ignored --nocapture --test-threads=1
//! ```

use serde_json::Value;

use crate::plans::Ledger;
use crate::support::cluster::Cluster;
use crate::support::process::Process;
use crate::support::{SOON, WHOLE_JOB, wait_for};

/// Slots of each of the two TaskManagers that run all jobs.
const SLOTS: usize = 50;

fn cluster() -> Cluster {
    let flags = ["-D", "taskmanager.memory.process.size=2g", "-D", "taskmanager.network.links-per-slot=20"];
    let mut cluster = Cluster::start(0, &flags);
    cluster.slots = SLOTS;
    for _ in 0..2 {
        cluster.start_taskmanager();
    }
    // So many rings take the kernel a while.
    for process in &mut cluster.taskmanagers {
        process.wait_line("`ready`", WHOLE_JOB, |line| line.starts_with("ready").then_some(()));
    }
    cluster.wait_slots(2 * SLOTS);
    cluster
}

/// Submits `jobs` jobs of two vertices, and waits until each retains what is retained of checkpoints: three.
fn submit(cluster: &Cluster, jobs: usize, parallelism: usize) {
    let parallelism = parallelism.to_string();
    let job = ["keyed-sum", "--parallelism", &parallelism, "--checkpoint-interval", "1s", "--"];
    let flags = ["--records", "1000000000", "--keys", "1000", "--rate", "10"];
    for _ in 0..jobs {
        let done = cluster.submit(&[job.as_slice(), &flags].concat(), SOON);
        assert!(done.status.success(), "{done:?}");
    }
    wait_for("three checkpoints of each job", WHOLE_JOB, || {
        let overview = cluster.get("/jobs/overview")?;
        let mut all = overview["jobs"].as_array()?.iter();
        all.all(|job| {
            let id = job["jid"].as_str().unwrap_or_default();
            let taken = cluster.get(&format!("/jobs/{id}/checkpoints"));
            taken.is_some_and(|taken| taken["latest"]["completed"]["id"].as_u64() >= Some(3))
        })
        .then_some(())
    });
}

/// The JobManager's heap: the least of some readings, without what is under way; and the peak of all time.
fn heap(cluster: &Cluster, what: &str) -> u64 {
    let readings = (0..20).filter_map(|_| cluster.get("/jobmanager"));
    let memory: Vec<Value> = readings.map(|one| one["metrics"]["memory"].clone()).collect();
    let of = |one: &Value, component: &str, level: &str| one[component][level].as_u64();
    let least =
        memory.iter().filter_map(|one| of(one, "totalFlinkMemory", "used")).min().expect("it answers");
    let last = memory.last().expect("it answers");
    println!(
        "{what:<34} heap {least:>10} peak {:>10} resident {:>10}",
        of(last, "totalFlinkMemory", "peak").unwrap_or(0),
        of(last, "totalProcessMemory", "used").unwrap_or(0),
    );
    least
}

#[test]
#[ignore = "measures, and prints what it finds"]
fn a_jobmanager_of_many_jobs() {
    let few = cluster();
    let idle = heap(&few, "no job");
    submit(&few, 1, 1);
    heap(&few, "1 job of 2 subtasks");
    submit(&few, 9, 1);
    let ten = heap(&few, "10 jobs of 2 subtasks");
    submit(&few, 90, 1);
    let hundred = heap(&few, "100 jobs of 2 subtasks");
    let process = &few.taskmanagers[0];
    println!("{}", mappings(process));
    drop(few);

    let wide = cluster();
    submit(&wide, 10, 10);
    let ten_wide = heap(&wide, "10 jobs of 20 subtasks");
    drop(wide);

    let job = (hundred.saturating_sub(ten)) / 90;
    let subtask = ten_wide.saturating_sub(ten) / (10 * 18);
    println!("idle {idle}, a job of 2 subtasks {job}, a subtask {subtask} bytes");
    assert!(job > 0 && subtask > 0);
}

#[test]
#[ignore = "measures, and prints what it finds"]
fn what_a_link_takes() {
    // Two TaskManagers of 8 slots: 8 links out and 8 in for each slot, 128 in each process, or none at all.
    let mut held = [0; 2];
    for (held, rebalanced) in held.iter_mut().zip([false, true]) {
        let flags = ["-D", "taskmanager.memory.process.size=1g"];
        let mut cluster = Cluster::start(0, &flags);
        cluster.slots = 8;
        let taskmanagers = if rebalanced { 2 } else { 1 };
        for _ in 0..taskmanagers {
            cluster.start_taskmanager();
        }
        cluster.wait_slots(8 * taskmanagers);
        submit(&cluster, 1, 8 * taskmanagers);
        let process = cluster.taskmanagers[0].id();
        let ledger = Ledger::of(&cluster, process).expect("it is known");
        let [heap, off_heap] = ["frameworkHeap", "frameworkOffHeap"].map(|name| ledger.line(name)[1]);
        println!("{taskmanagers} TaskManagers: framework heap {heap}, off-heap {off_heap}");
        println!("{}", mappings(&cluster.taskmanagers[0]));
        *held = heap + off_heap;
    }
    println!("a link takes {} bytes", held[1].saturating_sub(held[0]) / 128);
}

/// What is resident of the binary, and of its threads' stacks.
fn mappings(process: &Process) -> String {
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", process.id())).expect("the child is ours");
    let binary = std::fs::read_link(format!("/proc/{}/exe", process.id())).expect("the child is ours");
    let binary = binary.display().to_string();
    let (mut code, mut stacks) = (0, Vec::new());
    let (mut of_binary, mut nameless, mut size) = (false, false, 0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (Some(first), second) = (words.next(), words.next()) else { continue };
        let kib = || second.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        match first {
            "Size:" => size = kib(),
            "Rss:" if of_binary => code += kib(),
            // A stack of 2 MiB, with or without its guard.
            "Rss:" if nameless && (2040..=2056).contains(&size) => stacks.push(kib()),
            _ if !first.ends_with(':') => {
                (of_binary, nameless) = (line.ends_with(&binary), line.split_whitespace().count() == 5);
            }
            _ => {}
        }
    }
    stacks.sort_unstable();
    let (count, all) = (stacks.len(), stacks.iter().sum::<u64>());
    let most = stacks.last().copied().unwrap_or(0);
    format!(
        "{}: code {code} KiB resident; {} threads, {count} stacks with {all} KiB resident, the most {most} KiB",
        process.name,
        process.threads().len()
    )
}
