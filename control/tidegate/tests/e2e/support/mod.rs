//! What the end-to-end tests share: processes, a cluster of them, its REST interface, oracles, readers, faults.
//!
//! Nothing here looks into a process of the product other than through what it offers to everybody: its command
//! line, the lines it prints, its REST interface, the files it writes, and what the kernel says in `/proc`.

pub mod calls;
pub mod cgroup;
pub mod cluster;
pub mod engine;
pub mod hosts;
pub mod http;
pub mod input;
pub mod job;
pub mod namespaces;
pub mod oracle;
pub mod output;
pub mod process;
pub mod proxy;
pub mod random;
pub mod seccomp;
pub mod sockets;
pub mod volume;

use std::time::{Duration, Instant};

/// How long anything that should be quick may take on a machine that is busy with other things.
pub const SOON: Duration = Duration::from_secs(30);

/// How long a whole job of these tests may take.
pub const WHOLE_JOB: Duration = Duration::from_secs(150);

/// Calls `attempt` until it gives a value; panics with `what` when `limit` has passed without one.
pub fn wait_for<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Calls `attempt` until it is true or `limit` has passed; says which.
pub fn wait_within(limit: Duration, mut attempt: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !attempt() {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}
