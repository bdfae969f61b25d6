//! What the report says about where it ran. Read once, from the kernel and from git; what cannot be read is left out.

use std::error::Error;
use std::fs;
use std::process::Command;

use serde::Serialize;

use crate::table::Table;

/// The machine, and the commit that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Name of the processor.
    pub processor: Option<String>,
    /// Cores this process may use.
    pub cores: usize,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// Congestion control of TCP.
    pub congestion: Option<String>,
    /// Transparent huge pages.
    pub huge_pages: Option<String>,
    /// Load averages over 1, 5 and 15 minutes before the first run; what is not 0 disturbs.
    pub load: Option<String>,
    /// The commit, if git is there.
    pub commit: Option<String>,
    /// Whether this is a build with optimisations.
    pub optimised: bool,
}

impl Machine {
    /// This one, now.
    ///
    /// # Errors
    /// The kernel does not say how many cores there are.
    pub fn here() -> Result<Self, Box<dyn Error>> {
        let word = |path: &str| Some(fs::read_to_string(path).ok()?.trim().to_owned());
        Ok(Self {
            processor: word("/proc/cpuinfo").as_deref().and_then(processor),
            cores: std::thread::available_parallelism()?.get(),
            kernel: word("/proc/sys/kernel/osrelease"),
            congestion: word("/proc/sys/net/ipv4/tcp_congestion_control"),
            huge_pages: word("/sys/kernel/mm/transparent_hugepage/enabled").as_deref().and_then(chosen),
            load: word("/proc/loadavg").map(|text| text.split(' ').take(3).collect::<Vec<_>>().join(" ")),
            commit: commit(),
            optimised: !cfg!(debug_assertions),
        })
    }

    /// As a table.
    pub fn table(&self) -> Table {
        let rows = [
            ("processor", self.processor.clone()),
            ("cores", Some(self.cores.to_string())),
            ("kernel", self.kernel.clone()),
            ("congestion control", self.congestion.clone()),
            ("transparent huge pages", self.huge_pages.clone()),
            ("load averages before", self.load.clone()),
            ("commit", self.commit.clone()),
            ("build", Some(if self.optimised { "release" } else { "debug" }.to_owned())),
        ];
        let mut table = Table::new(["what", "is"]);
        for (name, value) in rows {
            table.row([name.to_owned(), value.unwrap_or_else(|| "unknown".to_owned())]);
        }
        table
    }
}

fn processor(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The choice in brackets.
fn chosen(text: &str) -> Option<String> {
    Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
}

fn commit() -> Option<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_understood() {
        assert_eq!(processor("processor : 0\nmodel name\t: A B (R) 3\n").as_deref(), Some("A B (R) 3"));
        assert_eq!(processor("nothing"), None);
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("never"), None);
    }
}
