//! Whole jobs in one thread: slots without sockets, files in memory, a JobManager that does what it is told.
//!
//! For tests of jobs and connectors, and for the examples in this crate's documentation. Time is a counter, so the same
//! calls give the same run. What is real: the job, the tasks, the slot loop, the exchange (its local channels), barriers,
//! snapshots, restores, commits. Always: after a run ends, every segment is free again, or the run is an error.

mod collect;
mod files;
mod harness;
mod items;
mod manager;
mod ring;

pub use collect::{Collect, collect};
pub use files::{MemoryFiles, Store};
pub use harness::{Harness, Setup};
pub use items::{Items, items};
pub use manager::{ManagedJob, Manager};
pub use ring::{QuietBell, QuietRing};

use tidegate_record::Key;

use crate::args::Args;
use crate::job::{Job, JobResult};
use crate::state::{Cell, KeyedState, Spot, Spots};

/// Where the key of this hash is, or would be; the error is its group, if that is another subtask's.
pub fn seek<K: Key, C: Cell>(state: &KeyedState<K, C>, hash: u64) -> Result<Spot, u32> {
    let mut spots = Spots::default();
    state.seek(&[hash], &mut spots)?;
    Ok(spots.iter(&[hash], 0).next().expect("invariant: a hash has a spot"))
}

/// Runs a job with parallelism 1 to its end.
///
/// # Errors
/// Why it could not be built, or what failed, in words.
pub fn run(
    job: impl Fn(&mut Job, &Args) -> JobResult + Send + Sync + 'static,
    args: &[&str],
) -> Result<Harness, String> {
    let mut harness = Harness::start(Setup::new(job).args(args))?;
    harness.finish()?;
    Ok(harness)
}
