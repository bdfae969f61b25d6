//! The binary where its surroundings are hostile: full disks, readers that leave, terminals that close, threads and
//! directories that are not to be had, and addresses of something else.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn tidegate(line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(line).stdin(Stdio::null());
    command
}

/// Where nothing can be written.
fn full() -> File {
    File::options().write(true).open("/dev/full").expect("every Linux has it")
}

/// A pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[track_caller]
fn ends(command: &mut Command, expected: i32, words: &[&str]) -> Output {
    let output = command.output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(expected), "{command:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{command:?} does not say {word:?}: {said}");
    }
    output
}

/// A role at work; killed if the test fails.
struct Role {
    child: Child,
    ready: String,
}

impl Role {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut ready).expect("text");
        Self { child, ready }
    }

    fn jobmanager(dir: &Path) -> Command {
        let mut command = tidegate(&["jobmanager", "--rpc", "127.0.0.1:0", "--rest", "127.0.0.1:0", "--dir"]);
        command.arg(dir);
        command
    }

    /// What stands behind `name=` in the line that says it is ready.
    fn says(&self, name: &str) -> &str {
        let word = self.ready.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.unwrap_or_else(|| panic!("no {name} in {:?}", self.ready))
    }

    fn tell(&self, signal: Signal) {
        tell(&self.child, signal);
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().expect("it is a child").code()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill(); // It may have ended.
        let _ = self.child.wait();
    }
}

fn tell(child: &Child, signal: Signal) {
    let id = Pid::from_raw(child.id() as i32).expect("ids of processes are positive");
    kill_process(id, signal).expect("it is a child");
}

const ANSWERS: [&[&str]; 5] =
    [&["--help"], &["jobs"], &["jobs", "--json"], &["plan", "--process", "taskmanager"], &["config"]];

#[test]
fn an_answer_that_cannot_be_written_is_74() {
    for line in ANSWERS {
        ends(tidegate(line).stdout(full()), 74, &["error: cannot write the answer to stdout: No space left"]);
    }
}

#[test]
fn an_answer_that_nobody_reads_to_its_end_is_a_success() {
    for line in ANSWERS {
        let output = ends(tidegate(line).stdout(unread()), 0, &[]);
        assert!(output.stderr.is_empty(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn words_that_cannot_be_written_change_no_exit_code() {
    let run = ["run", "keyed-sum", "--", "--records", "1000", "--keys", "10"];
    for stderr in [|| Stdio::from(full()), unread] {
        ends(tidegate(&["run", "no-such-job"]).stderr(stderr()), 2, &[]);
        ends(tidegate(&["fly"]).stderr(stderr()), 64, &[]);
        ends(tidegate(&run).env("TIDEGATE_LOG", "debug").stderr(stderr()), 0, &[]);
        ends(tidegate(&run).env("TIDEGATE_LOG", "no=such=filter").stderr(stderr()), 0, &[]);
    }
}

#[test]
fn roles_work_where_their_logs_cannot_be_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut jobmanager = Role::start(
        Role::jobmanager(&folder.path().join("jobmanager")).env("TIDEGATE_LOG", "debug").stderr(full()),
    );
    let rpc = jobmanager.says("rpc").to_owned();
    let mut taskmanager = Role::start(
        tidegate(&["taskmanager", "--jobmanager", &rpc]).env("TIDEGATE_LOG", "debug").stderr(unread()),
    );
    let rest = jobmanager.says("rest").to_owned();
    // Refused for want of slots until the TaskManager has registered.
    let line =
        ["submit", "keyed-sum", "--wait", "--jobmanager", &rest, "--", "--records", "1000", "--keys", "10"];
    while tidegate(&line).output().expect("the binary runs").status.code() == Some(2) {}
    ends(&mut tidegate(&line), 0, &["FINISHED"]);
    for role in [&mut taskmanager, &mut jobmanager] {
        role.tell(Signal::TERM);
        assert_eq!(role.code(), Some(0));
    }
}

#[test]
fn a_role_serves_where_its_first_line_cannot_be_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Role::jobmanager(&folder.path().join("jobmanager"));
    let mut child = command.stdout(full()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let said = stderr.lines().map_while(Result::ok).find(|line| line.contains("cannot write the answer"));
    assert!(
        said.is_some_and(|line| line.contains("ready rpc=127.0.0.1:")),
        "it says where it is all the same"
    );
    tell(&child, Signal::TERM);
    assert_eq!(child.wait().expect("it is a child").code(), Some(0));
}

#[test]
fn a_terminal_that_closes_ends_run_and_roles_in_order() {
    if ignores_hangups("self") {
        println!("skipped: this was started with hangups ignored (nohup), and so would be what it starts");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut jobmanager = Role::start(&mut Role::jobmanager(&folder.path().join("jobmanager")));
    jobmanager.tell(Signal::HUP);
    assert_eq!(jobmanager.code(), Some(0));

    let temporary = folder.path().join("temporary");
    std::fs::create_dir(&temporary).expect("a folder");
    let files = || std::fs::read_dir(&temporary).expect("a folder").count();
    let line = ["run", "keyed-sum", "--", "--records", "1000000000000", "--keys", "10"];
    let mut run =
        tidegate(&line).env("TMPDIR", &temporary).stderr(unread()).spawn().expect("the binary runs");
    while files() == 0 {
        assert_eq!(run.try_wait().expect("it is a child"), None);
        std::thread::yield_now();
    }
    // The kernel and the shell both say so.
    tell(&run, Signal::HUP);
    tell(&run, Signal::HUP);
    assert_eq!(run.wait().expect("it is a child").code(), Some(130));
    assert_eq!(files(), 0, "it takes its directory away");
}

/// Whether the process `id` of /proc ignores SIGHUP.
fn ignores_hangups(id: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a mask");
    u64::from_str_radix(ignored.trim(), 16).expect("a mask") & 1 == 1
}

#[test]
fn nohup_is_respected() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("sh");
    let line = "trap '' HUP; exec \"$0\" jobmanager --rpc 127.0.0.1:0 --rest 127.0.0.1:0 --dir \"$1\"";
    command.args(["-c", line, env!("CARGO_BIN_EXE_tidegate")]).arg(folder.path().join("jobmanager"));
    let mut jobmanager = Role::start(&mut command);
    assert!(ignores_hangups(&jobmanager.child.id().to_string()));
    jobmanager.tell(Signal::TERM);
    assert_eq!(jobmanager.code(), Some(0));
}

#[test]
fn an_address_that_cannot_be_dialled_is_64() {
    for address in ["foo", "", "http://127.0.0.1:6123", "127.0.0.1:0"] {
        ends(&mut tidegate(&["taskmanager", "--jobmanager", address]), 64, &["--jobmanager", "HOST:PORT"]);
    }
}

#[test]
fn a_taskmanager_says_what_it_was_pointed_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let jobmanager = Role::start(&mut Role::jobmanager(&folder.path().join("jobmanager")));
    let other = Role::start(&mut tidegate(&["taskmanager", "--jobmanager", jobmanager.says("rpc")]));
    let rest = jobmanager.says("rest").trim_start_matches("http://");
    for (address, advice) in [(other.says("data"), "--rpc"), (rest, "give the --rpc address")] {
        let mut lost = tidegate(&["taskmanager", "--jobmanager", address]);
        let mut lost = lost.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let stderr = BufReader::new(lost.stderr.take().expect("stderr is piped"));
        let mut lines = stderr.lines().map_while(Result::ok);
        let words = format!("what listens at {address} does not speak the JobManager's protocol");
        let said = lines.find(|line| line.contains(&words)).expect("it says what is there");
        assert!(said.contains(advice), "{said}");
        tell(&lost, Signal::TERM);
        assert_eq!(lost.wait().expect("it is a child").code(), Some(0));
    }
}

#[test]
fn too_many_segments_are_64_and_the_flag_is_named() {
    let words = ["--segments", "32768 segments of 32768 bytes", "found 4000000000"];
    ends(&mut tidegate(&["taskmanager", "--segments", "4000000000"]), 64, &words);
    let line = ["run", "keyed-sum", "--segments", "4000000000", "--", "--records", "1", "--keys", "1"];
    ends(&mut tidegate(&line), 64, &words);
}

#[test]
fn no_temporary_directory_is_74_and_tmpdir_is_named() {
    let line = ["run", "keyed-sum", "--", "--records", "1", "--keys", "1"];
    for line in [&line[..], &["demo"]] {
        ends(tidegate(line).env("TMPDIR", "/no/such/place"), 74, &["TMPDIR", "/no/such/place"]);
    }
}

#[test]
fn no_thread_is_71_and_no_panic() {
    // More than any address space: threads are refused as they are beyond a limit of processes.
    let stack = (1_u64 << 47).to_string();
    let run = ["run", "keyed-sum", "--", "--records", "1", "--keys", "1"];
    for line in [&["list"][..], &["submit", "wordcount"], &run, &["demo"]] {
        let output = ends(tidegate(line).env("RUST_MIN_STACK", &stack), 71, &["error: cannot"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{line:?}: {said}");
    }
}
