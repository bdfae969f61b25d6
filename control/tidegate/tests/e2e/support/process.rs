//! One child process of the test: started, listened to, looked at in `/proc`, and ended by its own id.
//!
//! A [`Process`] owns its child: when it is dropped the child is dead and waited for. Everything the child prints
//! goes to a file of the test's folder as well, and the end of that file to the terminal when the test fails.

use std::fs::{DirEntry, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::engine::applied;
use super::wait_for;

/// The binary under test.
pub const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");

/// A binary with every role: its command for these arguments.
pub type Program = fn(&[String]) -> Command;

/// The one that ships.
pub fn product(arguments: &[String]) -> Command {
    let mut command = Command::new(TIDEGATE);
    command.args(applied(arguments));
    command
}

pub struct Process {
    pub name: String,
    child: Child,
    logs: [PathBuf; 2],
    lines: Arc<Mutex<Vec<String>>>,
    pump: Option<JoinHandle<()>>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts the binary with its output in `folder/name.out` and `folder/name.err`.
    pub fn start(name: &str, folder: &Path, arguments: &[String]) -> Self {
        Self::start_command(name, folder, product(arguments))
    }

    pub fn start_command(name: &str, folder: &Path, mut command: Command) -> Self {
        let logs = [folder.join(format!("{name}.out")), folder.join(format!("{name}.err"))];
        let error_log = File::create(&logs[1]).expect("the folder of the test can be written");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(error_log)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} could not be started: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut log = File::create(&logs[0]).expect("the folder of the test can be written");
        let into = Arc::clone(&lines);
        let pump = std::thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let _ = writeln!(log, "{line}");
                into.lock().expect("the pump does not panic").push(line);
            }
        });
        Self { name: name.to_owned(), child, logs, lines, pump: Some(pump), status: None }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The lines printed to stdout up to now.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("the pump does not panic").clone()
    }

    /// What was printed to stderr up to now.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.logs[1]).unwrap_or_default()).into_owned()
    }

    /// Waits for a line of stdout for which `pick` gives a value; panics when the process ends without one.
    pub fn wait_line<T>(&mut self, what: &str, limit: Duration, pick: impl Fn(&str) -> Option<T>) -> T {
        let what = format!("{what} from {}", self.name);
        wait_for(&what, limit, || {
            let ended = self.has_ended();
            let found = self.lines().iter().find_map(|line| pick(line));
            assert!(
                found.is_some() || !ended,
                "{} ended before it printed {what}: {}",
                self.name,
                self.tail()
            );
            found
        })
    }

    /// Whether it has ended; when it has, everything it printed has been read.
    pub fn has_ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("the child is ours");
        }
        if self.status.is_some()
            && let Some(pump) = self.pump.take()
        {
            pump.join().expect("the pump does not panic");
        }
        self.status.is_some()
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait_for(&format!("the end of {}", self.name), limit, || self.has_ended().then_some(()));
        self.status.expect("it has ended")
    }

    /// `kill -9`, and waits until the kernel has taken the process down.
    pub fn kill(&mut self) {
        if !self.has_ended() {
            self.child.kill().expect("the child is ours");
            self.status = Some(self.child.wait().expect("the child is ours"));
            self.has_ended();
        }
    }

    /// Asks it to end, as an operator would.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.id() as i32).expect("a child has an id");
        kill_process(id, signal).expect("the child is ours");
    }

    /// Open descriptors and threads.
    pub fn footprint(&self) -> Footprint {
        Footprint { descriptors: self.descriptors().len(), threads: self.threads().len() }
    }

    /// What its open descriptors are.
    pub fn descriptors(&self) -> Vec<String> {
        let link = |entry: DirEntry| Some(std::fs::read_link(entry.path()).ok()?.display().to_string());
        self.entries("fd").filter_map(link).collect()
    }

    /// The names of its threads, without the workers that the kernel keeps for each io_uring as it likes.
    pub fn threads(&self) -> Vec<String> {
        let name = |entry: DirEntry| std::fs::read_to_string(entry.path().join("comm")).ok();
        let names = self.entries("task").filter_map(name).map(|name| name.trim_end().to_owned());
        names.filter(|name| !name.starts_with("iou-wrk-")).collect()
    }

    fn entries(&self, what: &str) -> impl Iterator<Item = DirEntry> {
        std::fs::read_dir(format!("/proc/{}/{what}", self.id())).into_iter().flatten().flatten()
    }

    /// The last lines of both logs.
    pub fn tail(&self) -> String {
        let mut text = String::new();
        for log in &self.logs {
            let content = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = content.lines().collect();
            let from = lines.len().saturating_sub(60);
            if !lines.is_empty() {
                text.push_str(&format!("\n---- {} ----\n{}\n", log.display(), lines[from..].join("\n")));
            }
        }
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
        self.kill();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    pub descriptors: usize,
    pub threads: usize,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the binary to its end.
pub fn tidegate(folder: &Path, limit: Duration, arguments: &[&str]) -> Finished {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    run(product, folder, limit, &arguments)
}

/// Runs a binary to its end.
pub fn run(program: Program, folder: &Path, limit: Duration, arguments: &[String]) -> Finished {
    let name = format!("cli-{}", arguments.first().map_or("", String::as_str));
    let mut process = Process::start_command(&name, folder, program(arguments));
    let status = process.wait(limit);
    Finished { status, stdout: process.lines().join("\n"), stderr: process.errors() }
}
