//! One child of a benchmark: this binary in another role.
//!
//! Owns the child: it ends with its owner, by its id. Always: what a child prints is read, so that it never blocks.

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Names the core that a child pins itself to.
const CORE: &str = "TIDEGATE_BENCH_CORE";
/// How often a child's state is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Pins this process, before it starts a thread, to the core its parent chose.
pub fn pin_as_told() {
    let Some(core) = std::env::var(CORE).ok().and_then(|core| core.parse().ok()) else { return };
    pin(core);
}

/// Pins this thread, and those it starts from now on.
pub fn pin(core: usize) {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        eprintln!("warning: can't pin to core {core}");
    }
}

/// A running child.
pub struct Process {
    child: Child,
    role: String,
    log: PathBuf,
    /// `name=address` pairs of its ready line.
    pub addresses: HashMap<String, String>,
}

impl Process {
    /// Starts a role and waits for its line `ready`.
    ///
    /// # Errors
    /// It did not start; its log is in the message.
    pub fn start(
        role: &str,
        arguments: &[String],
        core: Option<usize>,
        log: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        Self::start_with(role, arguments, core, log, None)
    }

    /// The same, with a variable set in its environment.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(
        role: &str,
        arguments: &[String],
        core: Option<usize>,
        log: &Path,
        variable: Option<&str>,
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
        if let Some(variable) = variable {
            command.env(variable, "1");
        }
        let mut child = command.spawn()?;
        let out = child.stdout.take().ok_or("the child has no stdout")?;
        let mut process =
            Self { child, role: role.to_owned(), log: log.to_owned(), addresses: HashMap::new() };
        let mut lines = BufReader::new(out).lines();
        let ready = lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("ready"));
        let Some(ready) = ready else { return Err(process.failed("did not start")) };
        std::thread::spawn(move || lines.for_each(drop));
        let pairs = ready.split_whitespace().filter_map(|word| word.split_once('='));
        process.addresses = pairs.map(|(name, address)| (name.to_owned(), address.to_owned())).collect();
        Ok(process)
    }

    fn failed(&self, how: &str) -> Box<dyn Error> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        format!("the {} {how}:\n{log}", self.role).into()
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An address it printed.
    ///
    /// # Errors
    /// It printed none of this name.
    pub fn address(&self, name: &str) -> Result<&str, Box<dyn Error>> {
        let address =
            self.addresses.get(name).ok_or_else(|| self.failed(&format!("printed no {name} address")))?;
        Ok(address)
    }

    /// User and system time it has used, seconds.
    pub fn cpu_seconds(&self) -> Option<f64> {
        self.stat().map(|(_, seconds)| seconds)
    }

    /// Its state, and user and system time in seconds. A process that has ended but was not reaped still has both.
    fn stat(&self) -> Option<(String, f64)> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        // The name in brackets may hold spaces; the fields after it are fixed. Fields 14 and 15 are ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        Some(((*fields.first()?).to_owned(), ticks / 100.0))
    }

    /// Waits for its end; gives the processor time it has used, seconds.
    ///
    /// # Errors
    /// It failed, or did not end in time.
    pub fn wait(&mut self, at_most: Duration) -> Result<f64, Box<dyn Error>> {
        let start = Instant::now();
        loop {
            let (state, seconds) = self.stat().ok_or_else(|| self.failed("is gone"))?;
            if state == "Z" {
                let status = self.child.wait()?;
                return if status.success() { Ok(seconds) } else { Err(self.failed("failed")) };
            }
            if start.elapsed() > at_most {
                return Err(self.failed("takes too long"));
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; either way it is reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
