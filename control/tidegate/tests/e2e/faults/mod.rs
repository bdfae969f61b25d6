//! Real processes hurt in the ways of a catalogue. `cargo xtask faults --list` shows it: an id for each fault, its test, how
//! often the fault strikes, and what cannot be tried on this machine.
//!
//! | file | faults |
//! |---|---|
//! | `processes.rs` | killed, all at once, stopped and continued, told to end |
//! | `steps.rs` | the JobManager killed at each step of a checkpoint |
//! | `network.rs` | hosts cut off, one way or both, from some or all; slow links |
//! | `wires.rs` | connections reset, chopped up, or never read from |
//! | `disks.rs` | full, failing, without power |
//! | `calls.rs` | each call to the system, on the way to memory, rings, sockets, clocks and threads |
//! | `damaged.rs` | checkpoints cut, changed, gone, exchanged |
//! | `users.rs` | functions that fail in every way, jobs cancelled in full flow |
//! | `limits.rs` | too few descriptors, control groups too small, odd folders and clocks |
//!
//! Most run the job of `ledger.rs`: those pass when every record came out once, in order, and nothing is left over
//! ([`trial::Trial::finish`]). What is refused before a job runs (groups too small, odd folders) is judged by its words. Many
//! need root, all of them a few minutes together, which is why only `cargo xtask faults` runs them; with `--long` each strikes
//! as often as a release needs. Ids that are missing here are faults of what Tidegate does not have (savepoints, leases, TLS,
//! an object store) or are tried by the simulation and the fuzzers.

mod calls;
mod damaged;
mod disks;
mod ledger;
mod limits;
mod network;
mod processes;
mod steps;
mod trial;
mod users;
mod wires;

/// How often a fault strikes: normally, and with `--long`.
fn times(normal: usize, long: usize) -> usize {
    let asked = std::env::var("TIDEGATE_FAULTS_LONG").is_ok_and(|value| value == "1");
    if asked { long } else { normal }
}

/// So many strikes in rounds of at most `most` each. A job waits longer before each restart, so a long test begins anew.
fn rounds(strikes: usize, most: usize) -> impl Iterator<Item = usize> {
    (0..strikes).step_by(most).map(move |done| most.min(strikes - done))
}

/// Prints why a test does not run, and ends it.
macro_rules! skip_unless {
    ($able:expr) => {
        match $able {
            Ok(able) => able,
            Err(reason) => {
                println!("skipped: {reason}");
                return;
            }
        }
    };
}
use skip_unless;

fn root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err("needs root".to_owned()) }
}
