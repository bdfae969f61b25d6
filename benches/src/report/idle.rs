//! What costs something while nothing flows: a TaskManager without a job, and a channel of many. No state.

use std::error::Error;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{QUICK_SECONDS, Turns};
use crate::cluster::Cluster;
use crate::exchange::cases::idle_channel_bytes;
use crate::pairs::spread;
use crate::process::Process;
use crate::shuffle::Engine;
use crate::table::Table;

/// How long a TaskManager is left alone before it is looked at.
const SETTLES: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    /// Per cent of a core that a registered TaskManager without a job takes: median, least, greatest.
    pub cpu_percent: [f64; 3],
    /// Bytes of heap that one of 10,000 channels takes, both sides together.
    pub channel_bytes: f64,
}

/// Measures both.
///
/// # Errors
/// A cluster did not start, or the kernel does not say what a process has used.
pub fn measure(turns: Turns) -> Result<Idle, Box<dyn Error>> {
    let channel_bytes = idle_channel_bytes(turns.cores)?;
    eprintln!("an idle channel: {channel_bytes:.0} bytes");
    let dir = tempfile::tempdir()?;
    let cluster = Engine::default().start(dir.path(), turns.cores, 0)?;
    let (rounds, seconds) = if turns.quick { (1, QUICK_SECONDS) } else { (turns.rounds, turns.seconds) };
    std::thread::sleep(if turns.quick { Duration::ZERO } else { SETTLES });
    let mut percent = Vec::new();
    for _ in 0..rounds {
        let (before, start) = (run_ns(&cluster)?, Instant::now());
        std::thread::sleep(Duration::from_secs_f64(seconds));
        let spent = run_ns(&cluster)?.saturating_sub(before) as f64;
        percent.push(100.0 * spent / start.elapsed().as_nanos() as f64 / cluster.workers.len() as f64);
    }
    let cpu_percent = spread(&percent);
    eprintln!("an idle TaskManager: {:.3} % of a core", cpu_percent[0]);
    Ok(Idle { cpu_percent, channel_bytes })
}

/// Nanoseconds that all threads of the TaskManagers have run; `stat` counts in hundredths of a second, which is too coarse.
fn run_ns(cluster: &Cluster) -> Result<u64, Box<dyn Error>> {
    cluster.workers.iter().map(Process::pid).map(process_ns).sum()
}

fn process_ns(pid: u32) -> Result<u64, Box<dyn Error>> {
    let mut ns = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the list and the look.
        let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        ns += text.split(' ').next().ok_or("the kernel keeps no schedstat")?.parse::<u64>()?;
    }
    Ok(ns)
}

impl Idle {
    /// As a table.
    pub fn table(&self) -> Table {
        let [median, least, most] = self.cpu_percent;
        let mut table = Table::new(["idle", "takes", "spread"]);
        table.row([
            "a TaskManager without a job".to_owned(),
            format!("{median:.3} % of a core"),
            format!("{least:.3} to {most:.3}"),
        ]);
        table.row([
            "one of 10,000 channels, both sides".to_owned(),
            format!("{:.0} bytes of heap", self.channel_bytes),
        ]);
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_has_run() {
        let before = process_ns(std::process::id()).unwrap();
        // However little of a processor it gets meanwhile.
        let start = Instant::now();
        while process_ns(std::process::id()).unwrap() == before {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "it ran for a minute, and nothing was counted"
            );
        }
        assert!(process_ns(std::process::id()).unwrap() > before);
        assert!(process_ns(u32::MAX).is_err());
    }
}
