//! A cluster of this binary's own processes for one benchmark: a JobManager and two TaskManagers with a slot each.
//!
//! Owns its children: they end with it, by their ids.

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// First arguments that make this binary a role of a cluster.
pub const ROLES: [&str; 2] = ["jobmanager", "taskmanager"];
/// Names the core that a child pins itself to.
const CORE: &str = "TIDEGATE_BENCH_CORE";
/// How long a process may take to be ready, and the cluster to be whole.
const READY_WAIT: Duration = Duration::from_secs(30);

/// Pins this process, before it starts a thread, to the core its parent chose.
pub fn pin_as_told() {
    let Some(core) = std::env::var(CORE).ok().and_then(|core| core.parse().ok()) else { return };
    if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        eprintln!("warning: can't pin to core {core}");
    }
}

/// One process.
pub struct Process {
    child: Child,
    /// `name=address` pairs of its ready line.
    pub addresses: HashMap<String, String>,
}

impl Process {
    fn start(
        role: &str,
        arguments: &[String],
        core: Option<usize>,
        log: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(role)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(log)?);
        if let Some(core) = core {
            command.env(CORE, core.to_string());
        }
        let mut child = command.spawn()?;
        let out = child.stdout.take().ok_or("the child has no stdout")?;
        let mut lines = BufReader::new(out).lines();
        let ready = lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("ready"));
        let Some(ready) = ready else {
            let _ = child.kill();
            let log = std::fs::read_to_string(log).unwrap_or_default();
            return Err(format!("the {role} did not start:\n{log}").into());
        };
        // Whatever else it prints is read, so that it never blocks.
        std::thread::spawn(move || lines.for_each(drop));
        let pairs = ready.split_whitespace().filter_map(|word| word.split_once('='));
        let addresses = pairs.map(|(name, address)| (name.to_owned(), address.to_owned())).collect();
        Ok(Self { child, addresses })
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// User and system time it has used, seconds.
    pub fn cpu_seconds(&self) -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        // The name in brackets may hold spaces; the fields after it are fixed. Fields 14 and 15 are ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        Some(ticks / 100.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; either way it is reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A JobManager and two TaskManagers.
pub struct Cluster {
    /// The TaskManagers.
    pub workers: Vec<Process>,
    jobmanager: Process,
}

impl Cluster {
    /// Starts the processes, the TaskManagers pinned to `cores`, and waits until both have registered.
    pub fn start(dir: &Path, cores: [usize; 2], worker_flags: &[String]) -> Result<Self, Box<dyn Error>> {
        let flags = ["--rpc", "127.0.0.1:0", "--rest", "127.0.0.1:0", "--dir"].map(str::to_owned);
        let mut arguments = flags.to_vec();
        arguments.push(dir.join("jobmanager").display().to_string());
        let jobmanager = Process::start("jobmanager", &arguments, None, &dir.join("jobmanager.log"))?;
        let rpc = jobmanager.addresses.get("rpc").ok_or("the JobManager printed no rpc address")?.clone();
        let mut cluster = Self { workers: Vec::new(), jobmanager };
        for core in cores {
            let mut arguments =
                vec!["--jobmanager".to_owned(), rpc.clone(), "--slots".to_owned(), "1".to_owned()];
            arguments.extend_from_slice(worker_flags);
            let log = dir.join(format!("taskmanager-{core}.log"));
            cluster.workers.push(Process::start("taskmanager", &arguments, Some(core), &log)?);
        }
        let start = Instant::now();
        while cluster.get("/taskmanagers")?["taskmanagers"].as_array().map_or(0, Vec::len) < cores.len() {
            if start.elapsed() > READY_WAIT {
                return Err("the TaskManagers did not register in time".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(cluster)
    }

    fn url(&self, path: &str) -> Result<String, Box<dyn Error>> {
        let rest = self.jobmanager.addresses.get("rest").ok_or("the JobManager printed no rest address")?;
        Ok(format!("{rest}{path}"))
    }

    /// GET of the JobManager's REST.
    pub fn get(&self, path: &str) -> Result<Value, Box<dyn Error>> {
        let text = ureq::get(self.url(path)?).call()?.body_mut().read_to_string()?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Submits a job and returns its id.
    pub fn submit(&self, job: &str, args: &[String]) -> Result<String, Box<dyn Error>> {
        let body = serde_json::json!({ "job": job, "args": args, "parallelism": 1 });
        let text = ureq::post(self.url("/jobs")?)
            .header("content-type", "application/json")
            .send(body.to_string())?
            .body_mut()
            .read_to_string()?;
        let answer: Value = serde_json::from_str(&text)?;
        Ok(answer["jobid"].as_str().ok_or("the submission was not answered with a job id")?.to_owned())
    }
}
