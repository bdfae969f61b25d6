//! A cluster of real processes on loopback: one JobManager, any number of TaskManagers with two slots each.
//!
//! The JobManager's ports are fixed for the life of a cluster, so that one that was killed comes back where the
//! TaskManagers look for it; they lie below the range from which the kernel takes the ports of outgoing
//! connections, so nobody else gets them meanwhile.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::cgroup::Cgroup;
use super::process::{Finished, Process, Program, product, run};
use super::{SOON, wait_for};
use super::{engine, http};

/// Slots of each TaskManager.
pub const SLOTS: usize = 2;

pub struct Cluster {
    program: Program,
    folder: TempDir,
    /// Where the JobManager's directory and outputs lie, if not in the folder.
    data: Option<PathBuf>,
    pub rpc: SocketAddr,
    pub rest: SocketAddr,
    /// Nothing while it is down.
    pub jobmanager: Option<Process>,
    /// In the order in which they were started.
    pub taskmanagers: Vec<Process>,
    /// Slots of every TaskManager.
    pub slots: usize,
    /// Further flags of every TaskManager that is started from now on.
    pub flags: Vec<String>,
    started: u32,
}

impl Cluster {
    /// A JobManager and `taskmanagers` TaskManagers, registered.
    pub fn start(taskmanagers: usize, flags: &[&str]) -> Self {
        Self::of(product, taskmanagers, flags)
    }

    /// As `start`, of another binary than the one that ships.
    pub fn of(program: Program, taskmanagers: usize, flags: &[&str]) -> Self {
        Self::make(program, Ipv4Addr::LOCALHOST.into(), None, flags).filled(taskmanagers)
    }

    /// As `of`, with the JobManager's directory and all outputs in a folder of somebody else's.
    pub fn of_in(program: Program, data: &Path, taskmanagers: usize, flags: &[&str]) -> Self {
        Self::make(program, Ipv4Addr::LOCALHOST.into(), Some(data.to_owned()), flags).filled(taskmanagers)
    }

    fn filled(mut self, taskmanagers: usize) -> Self {
        for _ in 0..taskmanagers {
            self.start_taskmanager();
        }
        self.wait_slots(taskmanagers * SLOTS);
        self
    }

    /// A JobManager without TaskManagers, which listens at another address of this host than loopback.
    pub fn start_at(host: IpAddr, flags: &[&str]) -> Self {
        Self::of_at(product, host, flags)
    }

    /// As `start_at`, of another binary than the one that ships.
    pub fn of_at(program: Program, host: IpAddr, flags: &[&str]) -> Self {
        Self::make(program, host, None, flags)
    }

    fn make(program: Program, host: IpAddr, data: Option<PathBuf>, flags: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("tidegate-e2e-").tempdir().expect("a temporary folder");
        let mut cluster = Self {
            program,
            folder,
            data,
            rpc: free_address_at(host),
            rest: free_address_at(host),
            jobmanager: None,
            taskmanagers: Vec::new(),
            slots: SLOTS,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            started: 0,
        };
        cluster.start_jobmanager();
        cluster
    }

    /// The folder of this test: logs, inputs, outputs and the JobManager's directory.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The JobManager's own directory.
    pub fn directory(&self) -> PathBuf {
        self.data().join("jobmanager")
    }

    fn data(&self) -> &Path {
        self.data.as_deref().unwrap_or(self.folder())
    }

    /// A place for the output of a job; the job makes it.
    pub fn output(&self, name: &str) -> PathBuf {
        self.data().join("output").join(name)
    }

    pub fn start_jobmanager(&mut self) {
        let mut process = self.spawn_jobmanager();
        process.wait_line("`ready`", SOON, |line| line.starts_with("ready").then_some(()));
        self.jobmanager = Some(process);
    }

    /// A JobManager that is on its way.
    pub fn spawn_jobmanager(&mut self) -> Process {
        assert!(self.jobmanager.is_none(), "there is a JobManager already");
        let arguments = [
            "jobmanager".to_owned(),
            "--rpc".to_owned(),
            self.rpc.to_string(),
            "--rest".to_owned(),
            self.rest.to_string(),
            "--dir".to_owned(),
            self.directory().display().to_string(),
        ];
        self.run("jobmanager", &arguments)
    }

    /// Starts a fresh TaskManager and returns its place; it may not be registered yet.
    pub fn start_taskmanager(&mut self) -> usize {
        self.start_taskmanager_at(Ipv4Addr::LOCALHOST.into())
    }

    pub fn start_taskmanager_at(&mut self, host: IpAddr) -> usize {
        self.start_taskmanager_in(host, None)
    }

    /// Starts a TaskManager inside a control group.
    pub fn start_taskmanager_in(&mut self, host: IpAddr, group: Option<&Cgroup>) -> usize {
        let mut arguments = vec![
            "taskmanager".to_owned(),
            "--jobmanager".to_owned(),
            self.rpc.to_string(),
            "--slots".to_owned(),
            self.slots.to_string(),
            "--data".to_owned(),
            SocketAddr::from((host, 0)).to_string(),
        ];
        // Several of them share this machine, and kills and starts are many.
        if !self.flags.iter().any(|flag| flag.starts_with("taskmanager.memory.")) {
            arguments.extend(["-D", "taskmanager.memory.process.size=512m"].map(str::to_owned));
        }
        arguments.extend(self.flags.iter().cloned());
        let name = self.next_name("taskmanager");
        let mut command = (self.program)(&arguments);
        if let Some(group) = group {
            group.hold(&mut command);
        }
        self.taskmanagers.push(Process::start_command(&name, self.folder(), command));
        self.taskmanagers.len() - 1
    }

    pub fn kill_jobmanager(&mut self) {
        self.jobmanager.take().expect("there is a JobManager").kill();
    }

    pub fn kill_taskmanager(&mut self, place: usize) {
        self.taskmanagers.remove(place).kill();
    }

    /// One `GET`; `None` while nobody answers.
    pub fn get(&self, path: &str) -> Option<Value> {
        let answer = http::get(self.rest, path).ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// Waits until exactly so many slots are registered, by TaskManagers that run as they were told to.
    pub fn wait_slots(&self, slots: usize) {
        let list = wait_for(&format!("{slots} slots"), SOON, || {
            let overview = self.get("/overview")?;
            if overview["slots-total"].as_u64()? != slots as u64 {
                return None;
            }
            self.get("/taskmanagers")
        });
        let arguments = engine::applied(&[&["taskmanager".to_owned()], self.flags.as_slice()].concat());
        for taskmanager in list["taskmanagers"].as_array().expect("a list") {
            engine::check(&arguments, taskmanager);
        }
    }

    /// `tidegate submit JOB --jobmanager … ARGUMENTS`, run to its end.
    pub fn submit(&self, arguments: &[&str], limit: Duration) -> Finished {
        let url = self.url();
        let line =
            ["submit", "--jobmanager", &url].into_iter().chain(arguments.iter().copied()).map(str::to_owned);
        run(self.program, self.folder(), limit, &line.collect::<Vec<_>>())
    }

    /// `tidegate cancel JOB --jobmanager …`.
    pub fn cancel(&self, job: &str) -> Finished {
        run(
            self.program,
            self.folder(),
            SOON,
            &["cancel", "--jobmanager", &self.url(), job].map(str::to_owned),
        )
    }

    /// `tidegate status --memory`: what it prints.
    pub fn status_memory(&self) -> String {
        let line = ["status", "--memory", "--jobmanager", &self.url()].map(str::to_owned);
        run(self.program, self.folder(), SOON, &line).stdout
    }

    /// `tidegate plan --process taskmanager --json --fit …`, fitted to what runs.
    pub fn plan_fitted(&self) -> String {
        let line = ["plan", "--process", "taskmanager", "--json", "--fit", &self.url()].map(str::to_owned);
        run(self.program, self.folder(), SOON, &line).stdout
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.rest)
    }

    /// Starts `tidegate submit JOB --wait …`; the caller waits for it.
    pub fn submit_waiting(&mut self, arguments: &[&str]) -> Process {
        let url = self.url();
        let mut line = vec!["submit", "--wait", "--jobmanager", &url];
        line.extend(arguments);
        let line: Vec<String> = line.into_iter().map(str::to_owned).collect();
        self.run("submit", &line)
    }

    fn run(&mut self, role: &str, arguments: &[String]) -> Process {
        let name = self.next_name(role);
        Process::start_command(&name, self.folder(), (self.program)(arguments))
    }

    /// Everything ends by itself after SIGTERM, with status 0.
    pub fn stop(mut self) {
        for process in &self.taskmanagers {
            process.terminate();
        }
        for process in &mut self.taskmanagers {
            let status = process.wait(SOON);
            assert!(status.success(), "{} ended with {status} after SIGTERM{}", process.name, process.tail());
        }
        let mut jobmanager = self.jobmanager.take().expect("there is a JobManager");
        jobmanager.terminate();
        let status = jobmanager.wait(SOON);
        assert!(
            status.success(),
            "{} ended with {status} after SIGTERM{}",
            jobmanager.name,
            jobmanager.tail()
        );
        let left = [processes_of(self.folder()), processes_of(self.data())].concat();
        assert!(left.is_empty(), "processes are left: {left:?}");
    }

    fn next_name(&mut self, role: &str) -> String {
        self.started += 1;
        format!("{:02}-{role}", self.started)
    }
}

/// Where the command line of a process of the ledger job is: this test program runs as one.
pub const LEDGER: &str = "TIDEGATE_E2E_LEDGER";

/// Command lines of processes that name the folder.
pub fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            // The ledger's processes are told there what they are.
            let ledger =
                environment.split(|byte| *byte == 0).find(|word| word.starts_with(LEDGER.as_bytes()));
            let words = [&line[..], ledger.unwrap_or_default()].join(&0);
            Some(String::from_utf8_lossy(&words).replace('\0', " "))
        })
        .filter(|line| line.contains(&folder))
        .collect()
}

/// An address on loopback that nobody listens at, outside the kernel's range for outgoing connections.
pub fn free_address() -> SocketAddr {
    free_address_at(Ipv4Addr::LOCALHOST.into())
}

fn free_address_at(host: IpAddr) -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 1000) as u16 * 10;
    for _ in 0..10_000 {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let address = SocketAddr::from((host, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port between 20000 and 30000")
}
