//! A control group of our own with a limit of memory, of whichever version this machine has.
//!
//! It is gone when the value is dropped.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// Needs root; an error says what was refused.
    pub fn with_memory(bytes: u64) -> Result<Self, String> {
        let versions = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        let mut refused = String::new();
        for (mount, limit) in versions {
            let folder = Path::new(mount).join(format!("tidegate-{}", std::process::id()));
            if let Err(error) = fs::create_dir(&folder) {
                refused = format!("no control group {}: {error}", folder.display());
                continue;
            }
            let made = Self { folder };
            match fs::write(made.folder.join(limit), bytes.to_string()) {
                Ok(()) => return Ok(made),
                Err(error) => refused = format!("no {limit} below {mount}: {error}"),
            }
        }
        Err(refused)
    }

    /// Whether the kernel has ended a process of it for want of memory, and what it says of the group's use, for people.
    pub fn killed(&self) -> (bool, String) {
        let mut text = String::new();
        for file in [
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "memory.max_usage_in_bytes",
            "memory.failcnt",
            "memory.oom_control",
            "memory.max",
            "memory.current",
            "memory.peak",
            "memory.events",
        ] {
            // Each version has its own files.
            if let Ok(content) = fs::read_to_string(self.folder.join(file)) {
                text.push_str(&format!("{file}: {}\n", content.trim_end().replace('\n', ", ")));
            }
        }
        let kills = text.split([':', ',', '\n']).filter_map(|part| part.trim().strip_prefix("oom_kill "));
        let killed = kills.map(|count| count.parse::<u64>().expect("a count")).sum::<u64>() > 0;
        assert!(text.contains("oom_kill "), "a kernel that does not count what it kills: {text}");
        (killed, text)
    }

    /// Lets `command` start inside.
    pub fn hold(&self, command: &mut Command) {
        let members = fs::OpenOptions::new().write(true).open(self.folder.join("cgroup.procs"));
        let members = members.expect("a control group has members");
        let join = move || rustix::io::write(&members, b"0").map(drop).map_err(std::io::Error::from);
        // SAFETY: between fork and exec there is one system call, and nothing allocates.
        unsafe { command.pre_exec(join) };
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder); // Refused while it has members, which is for the test to see to.
    }
}
