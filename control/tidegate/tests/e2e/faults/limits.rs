//! Hosts that give too little: descriptors, memory, writable folders, time that begins at zero.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::ledger::{Size, binary};
use super::trial::Trial;
use super::{root, skip_unless, times};
use crate::support::cgroup::Cgroup;
use crate::support::cluster::Cluster;
use crate::support::http;
use crate::support::input;
use crate::support::namespaces::run;
use crate::support::process::{Process, TIDEGATE, tidegate};
use crate::support::volume::{Memory, with_own_mounts};
use crate::support::{SOON, wait_for};

/// Exit codes of the binary that scripts rely on.
const REFUSED: i32 = 2;

/// A process may have no more descriptors than it has; gives what it might have before.
fn no_more_descriptors(process: &Process) -> Rlimit {
    let id = Pid::from_raw(process.id() as i32).expect("a child has an id");
    let (current, maximum) = (Some(process.descriptors().len() as u64), getrlimit(Resource::Nofile).maximum);
    prlimit(Some(id), Resource::Nofile, Rlimit { current, maximum }).expect("root may")
}

fn descriptors_again(process: &Process, before: Rlimit) {
    let id = Pid::from_raw(process.id() as i32).expect("a child has an id");
    prlimit(Some(id), Resource::Nofile, before).expect("root may");
}

/// Processor time of a process up to now.
fn processor_time(process: &Process) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).expect("it runs");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(10 * ticks)
}

/// F42: the JobManager, then a TaskManager, has no descriptor left, while others connect and a job is to begin. Nobody spins,
/// and all goes on when there are some again.
#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn no_descriptor_is_left() {
    const STRANGERS: usize = 40;
    const SHORT: Duration = Duration::from_secs(4);
    skip_unless!(root());
    for _ in 0..times(1, 20) {
        let cluster = Cluster::of(binary, 2, &["--transport", "tcp"]);
        let jobmanager = cluster.jobmanager.as_ref().expect("it runs");
        let list = cluster.get("/taskmanagers").expect("the JobManager is there");
        let taskmanager = &cluster.taskmanagers[0];
        let one = list["taskmanagers"].as_array().expect("a list").iter();
        let mut one = one.filter(|one| one["pid"].as_u64() == Some(u64::from(taskmanager.id())));
        let port = one.next().expect("it is registered")["dataPort"].as_u64().expect("a number") as u16;
        let data = ([127, 0, 0, 1], port).into();
        for (process, ports) in [(jobmanager, vec![cluster.rest, cluster.rpc]), (taskmanager, vec![data])] {
            let before = no_more_descriptors(process);
            let strangers: Vec<TcpStream> = ports
                .iter()
                .flat_map(|port| (0..STRANGERS).map(|_| TcpStream::connect(*port).expect("it listens")))
                .collect();
            let (start, used) = (Instant::now(), processor_time(process));
            std::thread::sleep(SHORT);
            let used = processor_time(process) - used;
            let share = 100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64();
            println!("{}: {share:.1} % of a processor without descriptors", process.name);
            descriptors_again(process, before);
            drop(strangers);
            assert!(share < 5.0, "{}: {share:.1} % of a processor", process.name);
        }
        wait_for("the JobManager to answer", SOON, || http::get(cluster.rest, "/overview").ok());
        // Now a job is to begin there.
        let before = no_more_descriptors(&cluster.taskmanagers[0]);
        let mut trial = Trial::start(cluster, Size::default());
        wait_for("the want of descriptors to be named", SOON, || {
            trial.job.exceptions(&trial.cluster).contains("Too many open files").then_some(())
        });
        descriptors_again(&trial.cluster.taskmanagers[0], before);
        trial.ready();
        trial.finish();
    }
}

/// F44: control groups with less memory than the plan has. A TaskManager refuses to start, with the number.
#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn a_taskmanager_refuses_a_control_group_that_is_too_small() {
    skip_unless!(root());
    for part in 1..=10 {
        let bytes = part * (48 << 20);
        let group = skip_unless!(Cgroup::with_memory(bytes));
        let mut command = Command::new(TIDEGATE);
        command.args(["taskmanager", "--jobmanager", "127.0.0.1:1", "--slots", "1"]);
        command.args(["-D", "taskmanager.memory.process.size=512m"]);
        group.hold(&mut command);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut process = Process::start_command("taskmanager", folder.path(), command);
        let status = process.wait(SOON);
        let said = process.errors();
        assert_eq!(status.code(), Some(REFUSED), "{bytes}: {said}");
        for words in ["536870912", &bytes.to_string()] {
            assert!(said.contains(words), "{words:?} in {said}");
        }
    }
}

/// F62: outputs and directories where nothing can be written: refused by name when a job is submitted or a JobManager starts,
/// not at the first checkpoint. A symbolic link to a folder is as good as the folder.
#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn folders_that_cannot_be_used_are_refused_at_once() {
    skip_unless!(root());
    with_own_mounts(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        let memory = Memory::mount(&at("read-only"), 1 << 20);
        run(&["mount", "-o", "remount,ro", text(memory.place())]).expect("root may");
        std::fs::write(at("file"), "").expect("the folder can be written");
        for (link, to) in [("dangling", "nowhere"), ("loop", "loop"), ("good", "folder")] {
            std::os::unix::fs::symlink(at(to), at(link)).expect("the folder can be written");
        }
        std::fs::create_dir(at("folder")).expect("the folder can be written");
        let cluster = Cluster::start(1, &[]);
        let flights = input::some_flights(folder.path(), 1_000);
        let submit = |output: &Path| {
            let line = ["flights-clean", "--wait", "--", "--input", text(&flights), "--output", text(output)];
            cluster.submit(&line, SOON)
        };
        for bad in ["read-only", "read-only/below", "file", "file/below", "dangling", "loop/below"] {
            let output = at(bad);
            let finished = submit(&output);
            assert_eq!(finished.status.code(), Some(REFUSED), "{bad}: {finished:#?}");
            let name = text(&at(bad.split('/').next().unwrap_or(bad))).to_owned();
            assert!(finished.stderr.contains(&name), "{bad}: {finished:#?}");
            let directory = at(bad);
            let line =
                ["jobmanager", "--rpc", "127.0.0.1:0", "--rest", "127.0.0.1:0", "--dir", text(&directory)];
            let refused = tidegate(folder.path(), SOON, &line);
            assert!(!refused.status.success() && refused.stderr.contains(&name), "{bad}: {refused:#?}");
            assert!(!refused.stderr.contains("panicked"), "{refused:#?}");
        }
        let jobs = cluster.get("/jobs/overview").expect("the JobManager is there");
        assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(0), "what is refused is no job: {jobs}");
        for good in ["folder", "good/below", "missing/below"] {
            let finished = submit(&at(good));
            assert!(finished.status.success(), "{good}: {finished:#?}");
        }
        cluster.stop();
    });
}

/// The binary with a clock that began long ago: the 32 bits of its milliseconds run over a few seconds after it starts.
fn long_ago(arguments: &[String]) -> Command {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec;
    let offset = (i64::from(u32::MAX) / 1_000 - now - 4).to_string();
    let inner = binary(arguments);
    let mut command = Command::new("unshare");
    command.args(["--time", "--monotonic", &offset, "--boottime", &offset]).arg(inner.get_program());
    command.args(inner.get_args());
    inner.get_envs().for_each(|(name, value)| {
        command.env(name, value.unwrap_or_default());
    });
    command
}

/// F63: the monotonic clocks of all processes run over 32 bits of milliseconds, each at a moment of its own, while a job runs
/// (the wall clock is the whole machine's, so the simulation turns that one). Nobody is given up for it.
#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn clocks_run_over_while_a_job_runs() {
    skip_unless!(root().and_then(|()| run(&["unshare", "--time", "--monotonic", "1", "true"])));
    for _ in 0..times(1, 10) {
        let mut trial = Trial::start(Cluster::of(long_ago, 2, &[]), Size::default());
        let before = trial.ready();
        let clock = |id: &str| std::fs::read_link(format!("/proc/{id}/ns/time")).expect("it runs");
        for process in trial.cluster.taskmanagers.iter().chain(&trial.cluster.jobmanager) {
            assert_ne!(clock(&process.id().to_string()), clock("self"), "{} has our clock", process.name);
        }
        let start = Instant::now();
        wait_for("all clocks to have run over", SOON, || (start.elapsed().as_secs() >= 6).then_some(()));
        trial.goes_on(SOON);
        assert_eq!(trial.now().attempt, before.attempt, "{}", trial.job.exceptions(&trial.cluster));
        trial.finish();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are UTF-8")
}
