//! The processes of the demo.
//!
//! Owner of the state: [`Cluster`] owns its children and ends them when it is dropped.
//!
//! Always true: each child follows this process, so even `kill -9` of the demo leaves none behind; a child is ended by its
//! own handle, never by name.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::exit::{Exit, Failure};
use crate::limits::{CHILD_STOP_MAX, START_MAX};

/// A JobManager and its TaskManagers.
pub(super) struct Cluster {
    /// The JobManager's REST address.
    pub rest: String,
    /// TaskManagers first: they leave before the JobManager does.
    children: Vec<Role>,
}

struct Role {
    name: String,
    log: PathBuf,
    child: Child,
}

/// Sizes that leave room for everything else on a laptop.
const JOBMANAGER_SIZE: &str = "jobmanager.memory.process.size=256m";
const TASKMANAGER_SIZE: &str = "taskmanager.memory.process.size=512m";

impl Cluster {
    /// Starts all of them and waits until each says that it is ready.
    pub(super) fn start(
        folder: &Path,
        taskmanagers: u32,
        slots: u32,
        engine: &[String],
    ) -> Result<Self, Failure> {
        let directory = folder.join("jobmanager");
        let any = "127.0.0.1:0";
        let folder_of_jobs = directory.display().to_string();
        let line =
            ["jobmanager", "--rpc", any, "--rest", any, "--dir", &folder_of_jobs, "-D", JOBMANAGER_SIZE];
        let (jobmanager, ready) = Role::start("jobmanager", folder, &line)?;
        let mut cluster = Self { rest: String::new(), children: vec![jobmanager] };
        let word = |name: &str| ready.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned);
        let (Some(rpc), Some(rest)) = (word("rpc="), word("rest=")) else {
            return Err(Failure::new(Exit::Internal, format!("the JobManager said {ready:?}")));
        };
        cluster.rest = rest;
        for number in 1..=taskmanagers {
            let slots = slots.to_string();
            let role = ["taskmanager", "--jobmanager", &rpc, "--slots", &slots, "-D", TASKMANAGER_SIZE];
            let line: Vec<&str> = role.into_iter().chain(engine.iter().map(String::as_str)).collect();
            let (taskmanager, _) = Role::start(&format!("taskmanager-{number}"), folder, &line)?;
            cluster.children.insert(0, taskmanager);
        }
        Ok(cluster)
    }

    /// Ids of the processes, the JobManager's first.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.children.iter().rev().map(|role| role.child.id()).collect()
    }

    /// Which child ended by itself, if one did.
    pub(super) fn gone(&mut self) -> Option<String> {
        self.children.iter_mut().find_map(|role| {
            let status = role.child.try_wait().ok().flatten()?;
            Some(format!("{} ended with {status}; see {}", role.name, role.log.display()))
        })
    }

    /// Asks each to leave, and checks that it does so in order.
    pub(super) fn stop(mut self) -> Result<(), Failure> {
        for role in std::mem::take(&mut self.children) {
            role.stop()?;
        }
        Ok(())
    }
}

impl Role {
    /// Starts this binary in a role; gives its `ready` line.
    fn start(name: &str, folder: &Path, line: &[&str]) -> Result<(Self, String), Failure> {
        let failed =
            |error: std::io::Error| Failure::new(Exit::System, format!("cannot start {name}: {error}"));
        let log = folder.join(format!("{name}.log"));
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .args(line)
            .args(["--parent", &std::process::id().to_string()])
            .process_group(0) // Ctrl-C is for the demo, which ends the job before its processes.
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        let output = child.stdout.take().expect("invariant: stdout is piped");
        let mut role = Self { name: name.to_owned(), log, child };
        // A thread of its own reads the pipe, so that a child which says nothing does not hold the demo up.
        let (sender, lines) = channel();
        let read = move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        };
        std::thread::Builder::new().name("child-output".to_owned()).spawn(read).map_err(failed)?;
        match lines.recv_timeout(START_MAX) {
            Ok(line) if line.starts_with("ready") => Ok((role, line)),
            _ => {
                let _ = role.child.kill();
                let _ = role.child.wait();
                let said = std::fs::read_to_string(&role.log).unwrap_or_default();
                let failure = Failure::new(Exit::Internal, format!("{name} did not become ready"));
                Err(Failure { details: said.lines().map(str::to_owned).collect(), ..failure })
            }
        }
    }

    fn stop(mut self) -> Result<(), Failure> {
        self.terminate();
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    let line = format!("{} ended with {status}; see {}", self.name, self.log.display());
                    return Err(Failure::new(Exit::Internal, line));
                }
                _ if start.elapsed() > CHILD_STOP_MAX => {
                    let line = format!(
                        "{} did not leave in time and was killed; see {}",
                        self.name,
                        self.log.display()
                    );
                    return Err(Failure::new(Exit::Internal, line)); // Dropping kills it.
                }
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn terminate(&self) {
        if let Some(id) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(id, Signal::TERM); // It may have ended a moment ago.
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
