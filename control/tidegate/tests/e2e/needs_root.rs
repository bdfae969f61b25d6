//! Faults that only root can make: sockets killed by the kernel, a network that falls silent, an unprivileged user, a
//! control group with little memory.
//!
//! `cargo xtask faults` runs them. Each asks first for what it needs and prints `skipped: …` where that is missing.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::demo;
use crate::kills::all_segments_free;
use crate::plans::Ledger;
use crate::support::cgroup::Cgroup;
use crate::support::cluster::{Cluster, SLOTS};
use crate::support::job::Job;
use crate::support::namespaces::{Namespaces, run};
use crate::support::output::{Watch, check};
use crate::support::process::{Process, TIDEGATE};
use crate::support::random::Random;
use crate::support::{SOON, WHOLE_JOB, input, oracle, sockets, wait_for};

/// Why the test cannot run here; nothing when it can.
fn missing(tools: &[&[&str]]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".into());
    }
    tools.iter().find_map(|tool| run(tool).err())
}

/// Prints why a test does not run, and ends it.
macro_rules! skip_without {
    ($($tool:expr),*) => {
        if let Some(reason) = missing(&[$($tool),*]) {
            println!("skipped: {reason}");
            return;
        }
    };
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are UTF-8")
}

#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn a_connection_killed_by_the_kernel_is_survived() {
    skip_without!(&["ss", "-K", "src", "127.255.255.254"]);
    let mut random = Random::announced("killed connections");
    let mut cluster = Cluster::start(2, &["--transport", "tcp"]);
    let output = cluster.output("out");
    let mut watch = Watch::start(&output, oracle::delays(&input::flights_text()));
    let flights = input::flights();
    let flags = ["--input", path(&flights), "--output", path(&output), "--rate", "60000"];
    let mut job = Job::submit(&mut cluster, "delays", 4, &flags);
    for _ in 0..3 {
        job.wait_running(&cluster, SOON);
        let before = wait_for("a checkpoint", SOON, || {
            job.checkpoints(&cluster).filter(|checkpoints| checkpoints.completed() > checkpoints.restored())
        });
        let [one, two] = [0, 1].map(|at| cluster.taskmanagers[at].id());
        let ends = sockets::between(one, two);
        assert!(!ends.is_empty(), "two TaskManagers that share a job have a connection");
        // The kernel resets the connection, in the middle of whatever it carries.
        let (local, remote) = random.pick(&ends).addresses();
        run(&["ss", "-K", "src", &local, "dst", &remote]).expect("it worked a moment ago");
        wait_for("the job to be restored", SOON, || {
            let now = job.checkpoints(&cluster)?;
            (now.restore() != before.restore() && now.restored() >= before.newest()).then_some(())
        });
        watch.check();
    }
    job.finish(&cluster, WHOLE_JOB);
    watch.finish();
    all_segments_free(&cluster);
    cluster.stop();
}

#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn a_taskmanager_behind_a_silent_network_is_given_up_and_taken_back() {
    skip_without!(&["ip", "netns", "list"]);
    let network = match Namespaces::new() {
        Ok(network) => network,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    // Two hosts: the JobManager and a TaskManager on one, another TaskManager on the other. This thread, and with
    // it every process that it starts, is on the first host, except where it says otherwise.
    network.enter_first();
    let mut cluster = Cluster::start_at(network.first_address(), &[]);
    cluster.start_taskmanager_at(network.first_address());
    network.enter_second();
    cluster.start_taskmanager_at(network.second_address());
    network.enter_first();
    cluster.wait_slots(2 * SLOTS);

    let output = cluster.output("out");
    let mut watch = Watch::start(&output, oracle::delays(&input::flights_text()));
    let flights = input::flights();
    let flags = ["--input", path(&flights), "--output", path(&output), "--rate", "40000"];
    let mut job = Job::submit(&mut cluster, "delays", 4, &flags);
    job.wait_running(&cluster, SOON);
    let before = wait_for("a checkpoint", SOON, || {
        job.checkpoints(&cluster).filter(|checkpoints| checkpoints.completed() > 0)
    });
    network.cut();
    // Nobody says goodbye; only the missing heartbeats tell.
    wait_for("the TaskManager to be given up", SOON, || {
        (cluster.get("/overview")?["slots-total"].as_u64()? == SLOTS as u64).then_some(())
    });
    network.heal();
    wait_for("the job to be restored", SOON, || {
        let now = job.checkpoints(&cluster)?;
        (now.restore() != before.restore() && now.restored() >= before.newest()).then_some(())
    });
    watch.check();
    job.finish(&cluster, WHOLE_JOB);
    watch.finish();
    all_segments_free(&cluster);
    cluster.stop();
}

#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn an_ordinary_user_with_little_locked_memory_gets_the_same_figures() {
    skip_without!(&["prlimit", "--version"]);
    const NOBODY: u32 = 65534;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open_to_all = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open_to_all).expect("the folder is ours");
    // The build folder may be closed to others.
    let binary = folder.path().join("tidegate");
    std::fs::copy(TIDEGATE, &binary).expect("the binary can be read");
    let flights = folder.path().join("flights.csv.gz");
    std::fs::copy(input::flights(), &flights).expect("the data can be read");
    let as_nobody = |name: &str, locked: u64, arguments: &[&str]| {
        let mut command = Command::new("prlimit");
        command.arg(format!("--memlock={locked}:{locked}")).arg(&binary).args(arguments);
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        let mut process = Process::start_command(name, folder.path(), command);
        let status = process.wait(WHOLE_JOB);
        (status, process)
    };
    let expected = oracle::delays(&input::flights_text());
    // An output folder belongs to one job: each run has its own.
    let output = folder.path().join("output");
    let job =
        |output| ["run", "delays", "--parallelism", "4", "--", "--input", path(&flights), "--output", output];
    let (status, process) = as_nobody("delays", 8 << 20, &job(path(&output)));
    assert!(status.success(), "{status}{}", process.tail());
    check(&output, expected.clone());

    let work = folder.path().join("demo");
    let (status, process) = as_nobody("demo", 8 << 20, &["demo", "--json", "--dir", path(&work)]);
    assert!(status.success(), "{status}{}", process.tail());
    demo::agrees(&process.lines().join("\n"));

    // Far too little for its rings: it says what is missing, if it does not find another way.
    let output = folder.path().join("poor");
    let (status, process) = as_nobody("poor", 64 << 10, &job(path(&output)));
    let said = process.errors();
    assert!(status.success() || said.contains("RLIMIT_MEMLOCK is 65536 bytes"), "{status}: {said}");
    if status.success() {
        check(&output, expected);
    }
}

#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn a_plan_over_the_control_group_is_refused_by_doctor() {
    skip_without!();
    let group = match Cgroup::with_memory(256 << 20) {
        Ok(group) => group,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let doctor = |size: &str| {
        let mut command = Command::new(TIDEGATE);
        command.args(["doctor", "-D", &format!("taskmanager.memory.process.size={size}")]);
        group.hold(&mut command);
        let output = command.output().expect("the binary runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = doctor("1g");
    assert_eq!(code, Some(2), "{said}");
    for words in [
        "error    cgroup memory       256.000mb (268435456 bytes)",
        "total process memory               1073741824",
        "missing                             805306368",
        "set taskmanager.memory.process.size to 268435456b or less",
    ] {
        assert!(said.contains(words), "{words:?} in\n{said}");
    }
    let (_, said) = doctor("256m");
    assert!(said.contains("ok       cgroup memory       256.000mb"), "{said}");
}

/// How long a TaskManager runs at its limit; two minutes with `TIDEGATE_FAULTS_LONG=1`.
fn pressed_for() -> Duration {
    let long = std::env::var("TIDEGATE_FAULTS_LONG").is_ok_and(|value| value == "1");
    Duration::from_secs(if long { 120 } else { 20 })
}

#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn a_taskmanager_under_back_pressure_stays_within_a_control_group_of_its_plan() {
    skip_without!();
    const PLAN: u64 = 256 << 20;
    // Tables that take some 45 % of managed memory: each of four slots has a quarter of the keys.
    const KEYS: &str = "2800000";
    let group = match Cgroup::with_memory(PLAN) {
        Ok(group) => group,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let size = format!("taskmanager.memory.process.size={PLAN}b");
    let mut cluster = Cluster::start(0, &["-D", &size]);
    cluster.start_taskmanager_in(Ipv4Addr::LOCALHOST.into(), Some(&group));
    cluster.start_taskmanager();
    cluster.wait_slots(2 * SLOTS);
    // Nobody limits the sources: they are faster than sums are made, and wait for credit.
    let flags = ["--records", "1000000000000", "--keys", KEYS];
    let mut job = Job::submit(&mut cluster, "keyed-sum", 2 * SLOTS as u32, &flags);
    let process = cluster.taskmanagers[0].id();
    wait_for("state that fills more than a third of managed memory", WHOLE_JOB, || {
        let [configured, used, _] = Ledger::of(&cluster, process)?.line("managedMemory");
        (3 * used > configured).then_some(())
    });
    let pressed = |job: &Job| job.metric_of(&cluster, "pairs", "accumulated-backpressured-time").unwrap_or(0);
    let waited = pressed(&job);
    let (start, before) = (Instant::now(), job.checkpoints(&cluster).map_or(0, |now| now.completed()));
    wait_for("the time to pass", pressed_for() + SOON, || {
        assert_eq!(job.attempts(&cluster).unwrap_or(1), 1, "{}", job.exceptions(&cluster));
        (start.elapsed() >= pressed_for()).then_some(())
    });
    let after = job.checkpoints(&cluster).map_or(0, |now| now.completed());
    let ledger = Ledger::of(&cluster, process).expect("it is still there");
    let (killed, said) = group.killed();
    let waited = Duration::from_millis(pressed(&job) - waited) / 2 / SLOTS as u32;
    println!(
        "{:?}, of which a source waited {waited:?} for room; {} checkpoints\n{}",
        pressed_for(),
        after - before,
        ledger.table()
    );
    assert!(waited > pressed_for() / 5, "the sources are ahead of the sums");
    println!("{said}{}", cluster.status_memory());
    assert!(!killed && !cluster.taskmanagers[0].has_ended(), "{said}");
    assert!(after > before, "checkpoints go on");
    // Overhead is what is resident besides, and so has what the allocator keeps for a while of tables that have grown: in a
    // plan this small that comes near to its part, and at times above. The group limits the sum.
    ledger.holds_besides(&["jvmOverhead"]);
    assert!(cluster.cancel(&job.id).status.success());
    job.wait(SOON);
    cluster.stop();
}
