//! A tighter plan from the peaks of a run. Stateless: peaks in, a proposal out, resolved and therefore one that holds.
//!
//! Every component that has a peak gets it with headroom; one without keeps its size. A component that came near its end is
//! raised, so that a proposal never makes a working job fail.
//!
//! Always: a proposed component is at least its peak; the proposal is a plan of the same process, profile and shape.

use serde::{Deserialize, Serialize};

use super::component::Name;
use super::error::PlanError;
use super::keys;
use super::reader::SIZE_MAX;
use super::sizing::mebibytes;
use super::{Plan, Process, Request, Settings, resolve};
use crate::limits::SEGMENTS_PER_EXCHANGE_MIN;

/// The most that each component had in use at once, in bytes; `None` where it was not measured. For a JobManager, heap and
/// off-heap are those of the process, and the others are left out. In JSON, the names that a
/// plan has there are read too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Peaks {
    /// Heap of the runtime.
    pub framework_heap: Option<u64>,
    /// Heap of user code, all tasks together; of a JobManager: its heap.
    #[serde(alias = "heap")]
    pub task_heap: Option<u64>,
    /// Off-heap memory of the runtime; of a JobManager: all its off-heap memory.
    #[serde(alias = "offHeap")]
    pub framework_off_heap: Option<u64>,
    /// Off-heap memory of user code.
    pub task_off_heap: Option<u64>,
    /// Network segments in use, times their size.
    #[serde(alias = "networkMemory")]
    pub network: Option<u64>,
    /// Managed memory reserved.
    #[serde(alias = "managedMemory")]
    pub managed: Option<u64>,
    /// Resident set of the process.
    pub resident: Option<u64>,
}

/// How much more than a peak a component gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headroom {
    /// Percent of the peak.
    pub percent: u64,
    /// Least bytes.
    pub least: u64,
}

impl Default for Headroom {
    /// A quarter, at least 8 MiB.
    fn default() -> Self {
        Self { percent: 25, least: 8 << 20 }
    }
}

impl Headroom {
    fn over(&self, peak: u64) -> u64 {
        let more = (u128::from(peak) * u128::from(self.percent) / 100).max(u128::from(self.least));
        let size = u64::try_from(u128::from(peak) + more).unwrap_or(SIZE_MAX).min(SIZE_MAX);
        mebibytes(size)
    }
}

/// One component, before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fitted {
    /// Which.
    pub component: Name,
    /// Its peak, if measured.
    pub peak: Option<u64>,
    /// Bytes in the plan of the run.
    pub from: u64,
    /// Bytes in the proposal.
    pub to: u64,
}

/// A proposed plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// It.
    pub plan: Plan,
    /// Each component, before and after.
    pub components: Vec<Fitted>,
    /// As values of the configuration, which give the plan.
    pub values: Vec<(&'static str, String)>,
}

impl Proposal {
    /// Bytes of the process that are saved; negative if the run needs more than it had.
    pub fn saved(&self) -> i64 {
        let totals = self.components.iter().find(|fitted| fitted.component == Name::TotalProcessMemory);
        // Sizes are below 2^63.
        totals.map_or(0, |total| total.from as i64 - total.to as i64)
    }
}

/// Proposes a plan for what ran under `plan` with these peaks. `request` gives costs and host; its settings are not used.
///
/// # Errors
/// The proposal does not hold, which needs peaks near 2^63.
pub fn fit(
    request: &Request<'_>,
    plan: &Plan,
    peaks: &Peaks,
    headroom: &Headroom,
) -> Result<Proposal, PlanError> {
    let mut values = plan.final_values();
    let mut peak_of: Vec<(Name, u64)> = Vec::new();
    let mut set = |keys: &[&str], name: Name, size: u64, peak: u64| {
        peak_of.push((name, peak));
        for (key, value) in &mut values {
            if keys.contains(key) {
                *value = format!("{size}b");
            }
        }
    };
    match plan {
        Plan::TaskManager(plan) => {
            let sizes = [
                (peaks.framework_heap, keys::TM_FRAMEWORK_HEAP, Name::FrameworkHeap),
                (peaks.framework_off_heap, keys::TM_FRAMEWORK_OFF_HEAP, Name::FrameworkOffHeap),
                (peaks.managed, keys::TM_MANAGED, Name::ManagedMemory),
            ];
            for (peak, key, name) in sizes {
                if let Some(peak) = peak {
                    set(&[key], name, headroom.over(peak), peak);
                }
            }
            if let Some(peak) = peaks.task_heap {
                let size = headroom.over(peak).max(plan.task_heap_min);
                set(&[keys::TM_TASK_HEAP], Name::TaskHeap, size, peak);
            }
            if let Some(peak) = peaks.task_off_heap {
                // A component that nobody uses stays at nothing.
                let size = if peak == 0 { 0 } else { headroom.over(peak) };
                set(&[keys::TM_TASK_OFF_HEAP], Name::TaskOffHeap, size, peak);
            }
            if let Some(peak) = peaks.network {
                let slots = u64::from(plan.shape.slots).saturating_mul(plan.shape.segment);
                let least = slots.saturating_mul(SEGMENTS_PER_EXCHANGE_MIN);
                let size = headroom.over(peak).max(least);
                let whole = size.checked_next_multiple_of(slots.max(1)).unwrap_or(SIZE_MAX).min(SIZE_MAX);
                set(&[keys::TM_NETWORK_MIN, keys::TM_NETWORK_MAX], Name::NetworkMemory, whole, peak);
            }
        }
        Plan::JobManager(plan) => {
            if let Some(peak) = peaks.task_heap {
                set(&[keys::JM_HEAP], Name::Heap, headroom.over(peak), peak);
            }
            if let Some(peak) = peaks.framework_off_heap {
                let size = headroom.over(peak);
                set(&[keys::JM_OFF_HEAP], Name::OffHeap, size, peak);
                if plan.network.is_some() {
                    // Its parts share the new size by default.
                    values.retain(|(key, _)| !matches!(*key, keys::JM_NETWORK | keys::JM_METADATA));
                }
            }
        }
    }
    let overhead = overhead(plan, peaks, headroom);
    let (min, max) = match plan.process() {
        Process::TaskManager => (keys::TM_OVERHEAD_MIN, keys::TM_OVERHEAD_MAX),
        Process::JobManager => (keys::JM_OVERHEAD_MIN, keys::JM_OVERHEAD_MAX),
    };
    if let Some((size, _)) = overhead {
        for (key, value) in &mut values {
            if *key == min || *key == max {
                *value = format!("{size}b");
            }
        }
    }
    if let Some((_, peak)) = overhead {
        peak_of.push((Name::JvmOverhead, peak));
    }
    let settings =
        values.iter().fold(Settings::new(), |settings, (key, value)| settings.with(key, value.clone()));
    let proposed = resolve(&Request {
        process: plan.process(),
        profile: plan.profile(),
        settings: &settings,
        costs: request.costs.clone(),
        host_bytes: request.host_bytes,
    })?;
    let pairs = plan.components().into_iter().zip(proposed.components());
    let components = pairs
        .map(|((component, before), (_, after))| Fitted {
            component,
            peak: peak_of.iter().find(|(name, _)| *name == component).map(|(_, peak)| *peak),
            from: before.bytes,
            to: after.bytes,
        })
        .collect();
    Ok(Proposal { plan: proposed, components, values })
}

/// The overhead and its peak: what was resident beyond all measured components. Known only if all were measured.
fn overhead(plan: &Plan, peaks: &Peaks, headroom: &Headroom) -> Option<(u64, u64)> {
    let measured = match plan {
        Plan::TaskManager(_) => vec![
            peaks.framework_heap?,
            peaks.task_heap?,
            peaks.framework_off_heap?,
            peaks.task_off_heap?,
            peaks.managed?,
        ],
        Plan::JobManager(_) => vec![peaks.task_heap?, peaks.framework_off_heap?],
    };
    // The arena is resident as a whole, used or not.
    let arena = match plan {
        Plan::TaskManager(plan) => plan.network.bytes,
        Plan::JobManager(_) => 0,
    };
    let used = measured.into_iter().fold(arena, u64::saturating_add);
    let beyond = peaks.resident?.saturating_sub(used);
    // Peaks of components need not coincide, so the difference is only a lower bound: never below half of the present.
    let present = plan.components().into_iter().find(|(name, _)| *name == Name::JvmOverhead)?.1.bytes;
    Some((headroom.over(beyond).max(mebibytes(present / 2)), beyond))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Profile;
    use proptest::prelude::*;

    fn plan(process: Process, profile: Profile, define: &str) -> Plan {
        let mut settings = Settings::new();
        settings.add_define(define).expect("a pair");
        resolve(&Request::new(process, profile, &settings)).expect("it holds")
    }

    fn propose(plan: &Plan, peaks: &Peaks) -> Proposal {
        let settings = Settings::new();
        let request = Request::new(plan.process(), plan.profile(), &settings);
        fit(&request, plan, peaks, &Headroom::default()).expect("small peaks fit")
    }

    #[test]
    fn a_small_run_gets_a_small_plan() {
        const MIB: u64 = 1 << 20;
        let plan = plan(Process::TaskManager, Profile::Native, "taskmanager.memory.process.size=4g");
        let peaks = Peaks {
            framework_heap: Some(8 * MIB),
            task_heap: Some(100 * MIB),
            framework_off_heap: Some(10 * MIB),
            task_off_heap: Some(0),
            network: Some(40 * MIB),
            managed: Some(200 * MIB),
            resident: Some(900 * MIB),
        };
        let proposal = propose(&plan, &peaks);
        let Plan::TaskManager(fitted) = &proposal.plan else { panic!("of the same process") };
        assert_eq!((fitted.task_heap.bytes, fitted.managed.bytes), (125 * MIB, 250 * MIB));
        assert_eq!((fitted.network.bytes, fitted.task_off_heap.bytes), (50 * MIB, 0));
        assert!(proposal.saved() > 3000 * MIB as i64, "{}", proposal.saved());
        let again = propose(&proposal.plan, &Peaks::default());
        assert_eq!(again.saved(), 0, "without peaks nothing changes");
    }

    #[test]
    fn a_run_at_its_end_gets_more() {
        let plan = plan(Process::JobManager, Profile::Native, "jobmanager.memory.process.size=512m");
        let heap = plan.leaves()[0].bytes;
        let proposal = propose(&plan, &Peaks { task_heap: Some(heap), ..Peaks::default() });
        assert!(proposal.saved() < 0);
    }

    proptest! {
        #[test]
        fn no_component_is_below_its_peak(
            peaks: [Option<u32>; 7], native: bool, manager: bool,
        ) {
            let profile = if native { Profile::Native } else { Profile::Flink };
            let (process, define) = if manager {
                (Process::TaskManager, "taskmanager.memory.process.size=2g")
            } else {
                (Process::JobManager, "jobmanager.memory.process.size=2g")
            };
            let [framework_heap, task_heap, framework_off_heap, task_off_heap, network, managed, resident] =
                peaks.map(|peak| peak.map(u64::from));
            let peaks = Peaks {
                framework_heap, task_heap, framework_off_heap, task_off_heap, network, managed, resident,
            };
            for fitted in propose(&plan(process, profile, define), &peaks).components {
                prop_assert!(fitted.peak.is_none_or(|peak| fitted.to >= peak), "{:?}", fitted);
            }
        }
    }
}
