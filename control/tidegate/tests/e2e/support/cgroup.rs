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
