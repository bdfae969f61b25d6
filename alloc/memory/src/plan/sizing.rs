//! How large a JobManager should be: heap, network and checkpoint metadata from jobs, graphs and retained checkpoints.
//! Stateless.
//!
//! The rule is linear. It starts from the least heap that no plan is warned about; what a job and a subtask add is two to six
//! times what was measured in a JobManager whose jobs had three checkpoints each (`sizing` in the end-to-end tests prints it
//! anew), in bytes:
//!
//! | jobs | subtasks of each | heap | its peak |
//! |---|---|---|---|
//! | 0 | - | 353,841 | 353,913 |
//! | 1 | 2 | 390,196 | 404,201 |
//! | 10 | 2 | 462,179 | 480,083 |
//! | 100 | 2 | 1,418,864 | 1,688,486 |
//! | 10 | 20 | 534,734 | 569,919 |
//!
//! which is 10.4 KiB for a job with its checkpoints and 0.4 KiB for a subtask. Network and metadata are from the limits of
//! the control protocol and from the format of checkpoints.
//!
//! Always: a larger load never needs less; sums saturate.

use std::str::FromStr;

use serde::Serialize;

use super::keys;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What a JobManager has to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Jobs at once.
    pub jobs: u64,
    /// Parallel instances of all vertices of a job.
    pub subtasks_per_job: u64,
    /// Operators of a job that have state.
    pub stateful_operators_per_job: u64,
    /// Key groups of a stateful operator.
    pub key_groups: u64,
    /// Completed checkpoints kept for each job.
    pub retained_checkpoints: u64,
    /// TaskManagers connected.
    pub taskmanagers: u64,
}

/// The names of a load's parts, in the order of its fields.
const PARTS: [&str; 6] =
    ["jobs", "subtasks", "stateful-operators", "key-groups", "retained-checkpoints", "taskmanagers"];

/// A text that is no load.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no load: expected NAME=COUNT, separated by commas, of {names}", names = PARTS.join(", "))]
pub struct LoadError {
    found: String,
}

impl FromStr for Load {
    type Err = LoadError;

    /// `jobs=100,subtasks=40`; what is not named is as by default.
    fn from_str(text: &str) -> Result<Self, LoadError> {
        let mut load = Self::default();
        for part in text.split(',') {
            let error = || LoadError { found: part.to_owned() };
            let (name, count) = part.split_once('=').ok_or_else(error)?;
            let place = PARTS.iter().position(|part| *part == name.trim()).ok_or_else(error)?;
            let fields = [
                &mut load.jobs,
                &mut load.subtasks_per_job,
                &mut load.stateful_operators_per_job,
                &mut load.key_groups,
                &mut load.retained_checkpoints,
                &mut load.taskmanagers,
            ];
            *fields[place] = count.trim().parse().map_err(|_| error())?;
        }
        Ok(load)
    }
}

impl Default for Load {
    /// One job of a hundred subtasks.
    fn default() -> Self {
        Self {
            jobs: 1,
            subtasks_per_job: 100,
            stateful_operators_per_job: 4,
            key_groups: 128,
            retained_checkpoints: 3,
            taskmanagers: 4,
        }
    }
}

/// The constants of the rule, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadCosts {
    /// Heap of a JobManager without jobs, answers to clients among it.
    pub idle: u64,
    /// Heap of a job: graph, coordinator, exceptions.
    pub job: u64,
    /// Heap of a subtask: state machine, counters, last report.
    pub subtask: u64,
    /// Heap of a retained checkpoint: its entry and statistics.
    pub checkpoint: u64,
    /// Control messages of a TaskManager under way, both directions; one may have 32 MiB, most have some KiB.
    pub taskmanager_network: u64,
    /// Control messages besides: REST, and the largest single message.
    pub network_idle: u64,
    /// Metadata of a key group of an operator: 28 bytes in the format.
    pub key_group: u64,
    /// Metadata of a subtask's inline state: source positions, sink counters.
    pub inline_state: u64,
    /// Copies of metadata that exist while a checkpoint is completed: decoded and encoded.
    pub metadata_copies: u64,
}

impl Default for LoadCosts {
    fn default() -> Self {
        Self {
            idle: 32 * MIB,
            job: 24 * KIB,
            subtask: 2 * KIB,
            checkpoint: 4 * KIB,
            taskmanager_network: 512 * KIB,
            network_idle: 32 * MIB,
            key_group: 28,
            inline_state: 4 * KIB,
            metadata_copies: 2,
        }
    }
}

/// What a JobManager needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobManagerNeed {
    /// Heap.
    pub heap: u64,
    /// Control messages.
    pub network: u64,
    /// Checkpoint metadata.
    pub checkpoint_metadata: u64,
}

impl JobManagerNeed {
    /// As values of the configuration; with them a plan derives its totals.
    pub fn values(&self) -> Vec<(&'static str, String)> {
        vec![
            (keys::JM_HEAP, format!("{}b", self.heap)),
            (keys::JM_NETWORK, format!("{}b", self.network)),
            (keys::JM_METADATA, format!("{}b", self.checkpoint_metadata)),
        ]
    }
}

/// The need of a load, each part rounded up to whole MiB:
///
/// - heap = idle + jobs × (job + subtasks × subtask + retained × checkpoint)
/// - network = idle + TaskManagers × their messages
/// - checkpoint metadata = jobs × copies × (stateful operators × key groups × 28 + subtasks × inline state)
///
/// Only the metadata of the checkpoint being completed is in memory; retained ones are files.
pub fn jobmanager(load: &Load, costs: &LoadCosts) -> JobManagerNeed {
    let times = |a: u64, b: u64| a.saturating_mul(b);
    let job = costs
        .job
        .saturating_add(times(load.subtasks_per_job, costs.subtask))
        .saturating_add(times(load.retained_checkpoints, costs.checkpoint));
    let key_groups = times(times(load.stateful_operators_per_job, load.key_groups), costs.key_group);
    let metadata = key_groups.saturating_add(times(load.subtasks_per_job, costs.inline_state));
    JobManagerNeed {
        heap: mebibytes(costs.idle.saturating_add(times(load.jobs, job))),
        network: mebibytes(
            costs.network_idle.saturating_add(times(load.taskmanagers, costs.taskmanager_network)),
        ),
        checkpoint_metadata: mebibytes(times(load.jobs, times(costs.metadata_copies, metadata))),
    }
}

/// Rounded up to whole MiB, below 2^63.
pub(super) fn mebibytes(bytes: u64) -> u64 {
    const MOST: u64 = (1 << 63) - MIB;
    bytes.min(MOST).next_multiple_of(MIB).max(MIB)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Process, Profile, Request, Settings, resolve};
    use proptest::prelude::*;

    #[test]
    fn one_ten_and_a_hundred_jobs() {
        let of = |jobs| jobmanager(&Load { jobs, ..Load::default() }, &LoadCosts::default());
        assert_eq!([1, 10, 100].map(|jobs| of(jobs).heap >> 20), [33, 35, 56]);
        assert_eq!([1, 10, 100].map(|jobs| of(jobs).checkpoint_metadata >> 20), [1, 9, 81]);
        assert_eq!(of(1).network >> 20, 34);
    }

    #[test]
    fn a_load_is_read_part_by_part() {
        let load: Load = "jobs=100, taskmanagers=8".parse().expect("a load");
        assert_eq!(load, Load { jobs: 100, taskmanagers: 8, ..Load::default() });
        for text in ["", "jobs", "jobs=", "jobs=-1", "slots=3", "jobs=1,,"] {
            let error = text.parse::<Load>().expect_err(text);
            assert!(error.to_string().contains("stateful-operators"), "{error}");
        }
    }

    #[test]
    fn what_was_measured_is_within_the_rule() {
        // Without what a JobManager has at all, and with so many jobs that whole MiB do not hide anything.
        let costs = LoadCosts { idle: 0, ..LoadCosts::default() };
        let of = |jobs, subtasks_per_job| {
            jobmanager(&Load { jobs, subtasks_per_job, ..Load::default() }, &costs).heap
        };
        let job = (1_688_486 - 480_083) / 90;
        assert!((2 * job..=5 * job).contains(&(of(100_000, 2) / 100_000)));
        let subtask = (534_734 - 462_179) / 180;
        assert!((2 * subtask..=6 * subtask).contains(&((of(100_000, 20) - of(100_000, 2)) / 1_800_000)));
        assert!(LoadCosts::default().idle > 2 * 353_913);
    }

    #[test]
    fn a_need_is_a_plan() {
        let need = jobmanager(&Load::default(), &LoadCosts::default());
        let settings = need
            .values()
            .into_iter()
            .fold(Settings::new(), |settings, (key, value)| settings.with(key, value));
        let plan = resolve(&Request::new(Process::JobManager, Profile::Native, &settings)).expect("it holds");
        assert_eq!(plan.leaves()[0].bytes, need.heap);
        assert_eq!(plan.leaves()[1].bytes, need.network + need.checkpoint_metadata);
    }

    proptest! {
        #[test]
        fn more_never_needs_less(load: [u64; 6], more: [u64; 6]) {
            let of = |load: [u64; 6]| {
                let [jobs, subtasks_per_job, stateful_operators_per_job, key_groups, retained_checkpoints, taskmanagers] = load;
                let load = Load {
                    jobs, subtasks_per_job, stateful_operators_per_job, key_groups, retained_checkpoints, taskmanagers,
                };
                jobmanager(&load, &LoadCosts::default())
            };
            let (less, more) = (of(load), of(std::array::from_fn(|i| load[i].saturating_add(more[i]))));
            prop_assert!(less.heap <= more.heap && less.network <= more.network);
            prop_assert!(less.checkpoint_metadata <= more.checkpoint_metadata && more.heap < 1 << 63);
        }
    }
}
