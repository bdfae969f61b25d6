//! `doctor` as scripts see it, in surroundings that a process can make for its children: limits, a seccomp filter, a
//! namespace of users. What only root can change is in `e2e/needs_root.rs`, and the rest is made of files in the module's
//! own tests.

#[path = "e2e/support/seccomp.rs"]
#[allow(dead_code, reason = "other tests run with io_uring allowed")]
mod seccomp;

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::Value;

/// `tidegate doctor` with a plan that every host can hold, and `line` on top of it.
fn doctor(line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["doctor", "-D", "taskmanager.memory.process.size=256m", "--json"]).args(line);
    command
}

/// Lets `command` start with this limit.
fn limited(mut command: Command, resource: Resource, limit: u64) -> Command {
    let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
    // SAFETY: between fork and exec there is one system call, and nothing allocates.
    unsafe { command.pre_exec(move || setrlimit(resource, limit).map_err(io::Error::from)) };
    command
}

/// Lets `command` start with root's rights over nothing: CAP_IPC_LOCK does not count there.
fn in_a_namespace_of_users(mut command: Command) -> Command {
    let enter = || {
        // SAFETY: a call without pointers.
        let failed = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
        if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec there is one system call, and nothing allocates.
    unsafe { command.pre_exec(enter) };
    command
}

fn report(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// The check called `name`.
#[track_caller]
fn check(output: &Output, name: &str) -> Value {
    let report = report(output);
    let checks = report["checks"].as_array().expect("a list");
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {report}")).clone()
}

/// What the check called `name` says: its level, and each of `words` in what it found or advises.
#[track_caller]
fn says(output: &Output, name: &str, level: &str, words: &[&str]) {
    let check = check(output, name);
    assert_eq!(check["level"], level, "{check}");
    for word in words {
        assert!(check.to_string().contains(word), "{word:?} in {check}");
    }
}

#[track_caller]
fn refused(output: &Output, names: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said, format!("error: a TaskManager would not start on this host: {names}\n"));
}

#[test]
fn a_host_is_told_to_people_and_programs() {
    let output = doctor(&["--driver", "epoll"]).output().expect("the binary runs");
    let report = report(&output);
    assert_eq!(output.status.code(), Some(if report["level"] == "error" { 2 } else { 0 }), "{report}");
    assert_eq!(report["totalProcessMemory"], 256 << 20);
    let mut people = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    people.args(["doctor", "--process", "jobmanager", "-D", "jobmanager.memory.process.size=256m"]);
    let output = people.output().expect("the binary runs");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("cgroup memory") && table.contains("errors: "), "{table}");
    assert!(!table.contains("io_uring"), "a JobManager needs none: {table}");
}

#[test]
fn few_descriptors_are_told_and_too_few_refused() {
    let with = |limit| limited(doctor(&[]), Resource::Nofile, limit).output().expect("the binary runs");
    says(&with(100), "file descriptors", "warning", &["RLIMIT_NOFILE is 100, at most 100", "ulimit -n"]);
    let output = with(40);
    says(&output, "file descriptors", "error", &["RLIMIT_NOFILE is 40"]);
    refused(&output, "file descriptors");
}

#[test]
fn locked_memory_is_a_ladder_and_an_error_only_where_it_is_demanded() {
    let with = |limit, line: &[&str]| {
        let command = limited(doctor(line), Resource::Memlock, limit);
        in_a_namespace_of_users(command).output()
    };
    let output = match with(8 << 20, &[]) {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: no namespace of users with 8 MiB of locked memory here: {error}");
            return;
        }
    };
    if tidegate_ring::probe().io_uring.is_err() {
        println!("skipped: there is no io_uring here to lock memory for");
        return;
    }
    let name = "locked memory";
    says(&output, name, "warning", &["8.000mb", "stay unregistered", "CAP_IPC_LOCK"]);
    assert_eq!(output.status.code(), Some(0));
    let with = |limit, line: &[&str]| with(limit, line).expect("it worked a moment ago");
    let few = ["-D", "taskmanager.memory.network.min=4m", "-D", "taskmanager.memory.network.max=4m"];
    says(&with(8 << 20, &few), name, "ok", &["segments are registered"]);
    // Not even the small ring fits that the host is asked with.
    let nothing = with(0, &[]);
    says(&nothing, name, "warning", &["runs on epoll"]);
    says(&nothing, "io_uring", "warning", &["RLIMIT_MEMLOCK", "epoll"]);
    let output = with(8 << 20, &["--register", "required"]);
    says(&output, name, "error", &["registration is required"]);
    refused(&output, name);
    refused(&with(0, &["--driver", "io_uring"]), "io_uring, locked memory");
    says(&with(0, &["--driver", "epoll"]), name, "ok", &["epoll"]);
}

#[test]
fn a_seccomp_filter_is_named() {
    // The filter is the thread's own, and inherited by the processes that it starts.
    let test = || {
        seccomp::confine(seccomp::IoUring::Forbidden);
        let output = doctor(&[]).output().expect("the binary runs");
        says(&output, "io_uring", "warning", &["container: a seccomp profile", "epoll", "seccomp: a filter"]);
        says(&output, "locked memory", "ok", &["io_uring cannot be used"]);
        let output = doctor(&["--driver", "io_uring"]).output().expect("the binary runs");
        says(&output, "io_uring", "error", &["container: a seccomp profile"]);
        refused(&output, "io_uring");
    };
    std::thread::spawn(test).join().expect("the test on its thread");
}

#[test]
fn more_than_the_machine_has_is_refused_with_the_sum() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["doctor", "-D", "taskmanager.memory.process.size=1000t"]);
    let output = command.output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
    let table = String::from_utf8_lossy(&output.stdout);
    for words in ["error    machine memory", "total process memory", "missing", "to do: "] {
        assert!(table.contains(words), "{words} in\n{table}");
    }
}

#[test]
fn one_core_for_two_slots_is_a_warning() {
    let mut command = doctor(&["--slots", "2"]);
    let mut one = rustix::thread::CpuSet::new();
    let mine = rustix::thread::sched_getaffinity(None).expect("the kernel tells");
    let first = (0..rustix::thread::CpuSet::MAX_CPU).find(|core| mine.is_set(*core)).expect("there is one");
    one.set(first);
    let pin = move || rustix::thread::sched_setaffinity(None, &one).map_err(io::Error::from);
    // SAFETY: between fork and exec there is one system call, and nothing allocates.
    unsafe { command.pre_exec(pin) };
    let output = command.output().expect("the binary runs");
    says(&output, "cores", "warning", &["taskmanager.numberOfTaskSlots to 1"]);
}

#[test]
fn what_no_plan_holds_is_refused_as_plan_refuses_it() {
    let output = doctor(&["--slots", "65"]).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(report(&output)["error"]["code"], "E11");
    let output = doctor(&["--process", "jobmanager", "--slots", "2"]).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(64));
}
