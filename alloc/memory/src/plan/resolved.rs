//! A resolved plan: every component in bytes, with its reasons, and the forms it is handed on in. Stateless.
//!
//! Always: parts add up to totals, checked when the plan is made; resolving the settings that a plan gives out gives the
//! same bytes again.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::component::{Component, Name, Part};
use super::keys;
use super::settings::Settings;
use super::warning::Warning;
use super::weights::{Consumer, Weights};
use super::{PlanError, Process, Profile, Request, Shape, resolve};

/// The plan of a process.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Of a TaskManager.
    TaskManager(TaskManagerPlan),
    /// Of a JobManager.
    JobManager(JobManagerPlan),
}

/// The plan of a TaskManager.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskManagerPlan {
    /// By which model.
    pub profile: Profile,
    /// Heap of the runtime.
    pub framework_heap: Component,
    /// Heap of user code.
    pub task_heap: Component,
    /// Off-heap memory of the runtime.
    pub framework_off_heap: Component,
    /// Off-heap memory of user code.
    pub task_off_heap: Component,
    /// The arena.
    pub network: Component,
    /// Keyed state, sorting, caches, spill.
    pub managed: Component,
    /// Metaspace of a JVM; zero natively.
    pub metaspace: Component,
    /// Everything else in the process.
    pub overhead: Component,
    /// The six components inside.
    pub total_flink: Component,
    /// All of it.
    pub total_process: Component,
    /// Slots, links and segments.
    pub shape: Shape,
    /// Largest record in bytes, where that is more than a segment; else zero. Regions for such records are part of the network
    /// memory: a slot sets one aside for each edge of a job into it from other TaskManagers, and out of it.
    pub record_max: u64,
    /// Least task heap the plan was allowed to come to; zero in the profile `flink`.
    pub task_heap_min: u64,
    /// How managed memory is shared.
    pub weights: Weights,
    /// What is odd.
    pub warnings: Vec<Warning>,
}

/// The plan of a JobManager.
#[derive(Clone, Debug, PartialEq)]
pub struct JobManagerPlan {
    /// By which model.
    pub profile: Profile,
    /// Heap.
    pub heap: Component,
    /// Memory outside the heap.
    pub off_heap: Component,
    /// Part of the off-heap memory for control messages; natively only.
    pub network: Option<Component>,
    /// Part of the off-heap memory for checkpoint metadata; natively only.
    pub checkpoint_metadata: Option<Component>,
    /// Metaspace of a JVM; zero natively.
    pub metaspace: Component,
    /// Whether a JVM limits its direct memory to the off-heap memory.
    pub direct_memory_limited: bool,
    /// Everything else in the process.
    pub overhead: Component,
    /// Heap and off-heap.
    pub total_flink: Component,
    /// All of it.
    pub total_process: Component,
    /// What is odd.
    pub warnings: Vec<Warning>,
}

impl TaskManagerPlan {
    /// The native plan of a TaskManager with these values over the defaults, whatever the host has. For tests and programs
    /// that have no configuration of their own.
    ///
    /// # Errors
    /// As [`resolve`]: they make no plan.
    pub fn native(values: &[(&'static str, &str)]) -> Result<Self, PlanError> {
        match native(Process::TaskManager, values)? {
            Plan::TaskManager(plan) => Ok(plan),
            Plan::JobManager(_) => unreachable!("a plan is of the process it was asked for"),
        }
    }
}

impl JobManagerPlan {
    /// As [`TaskManagerPlan::native`], of a JobManager.
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn native(values: &[(&'static str, &str)]) -> Result<Self, PlanError> {
        match native(Process::JobManager, values)? {
            Plan::JobManager(plan) => Ok(plan),
            Plan::TaskManager(_) => unreachable!("a plan is of the process it was asked for"),
        }
    }
}

fn native(process: Process, values: &[(&'static str, &str)]) -> Result<Plan, PlanError> {
    let values = values.iter();
    let settings = values.fold(Settings::new(), |settings, (key, value)| settings.with(key, *value));
    resolve(&Request::new(process, Profile::Native, &settings))
}

/// What one slot gets: each resource divided by the slots, whole bytes; the remainder is not used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PerSlot {
    /// Heap of user code.
    pub task_heap: u64,
    /// Off-heap memory of user code.
    pub task_off_heap: u64,
    /// Network memory.
    pub network_memory: u64,
    /// Managed memory.
    pub managed_memory: u64,
    /// Whole network buffers.
    pub network_buffers: u64,
    /// Share of each consumer in the slot's managed memory where all are present.
    pub consumers: Shares,
}

/// A share for each kind of consumer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shares {
    /// Operators.
    pub operator: f64,
    /// Keyed state.
    pub state_backend: f64,
    /// Python.
    pub python: f64,
}

impl TaskManagerPlan {
    /// Network buffers: whole segments in the network memory.
    pub fn network_buffers(&self) -> u64 {
        self.network.bytes.checked_div(self.shape.segment).unwrap_or(0)
    }

    /// What one slot gets.
    pub fn per_slot(&self) -> PerSlot {
        let slots = u64::from(self.shape.slots).max(1);
        let share = |consumer| self.weights.share(consumer, &Consumer::ALL);
        PerSlot {
            task_heap: self.task_heap.bytes / slots,
            task_off_heap: self.task_off_heap.bytes / slots,
            network_memory: self.network.bytes / slots,
            managed_memory: self.managed.bytes / slots,
            network_buffers: self.network_buffers() / slots,
            consumers: Shares {
                operator: share(Consumer::Operator),
                state_backend: share(Consumer::StateBackend),
                python: share(Consumer::Python),
            },
        }
    }

    /// Share of `consumer` in a slot's managed memory where the kinds in `present` are, and its bytes.
    pub fn managed_share(&self, consumer: Consumer, present: &[Consumer]) -> (f64, u64) {
        let managed = self.per_slot().managed_memory;
        (self.weights.share(consumer, present), self.weights.bytes(consumer, present, managed))
    }
}

impl Plan {
    /// Whose.
    pub const fn process(&self) -> Process {
        match self {
            Self::TaskManager(_) => Process::TaskManager,
            Self::JobManager(_) => Process::JobManager,
        }
    }

    /// By which model.
    pub const fn profile(&self) -> Profile {
        match self {
            Self::TaskManager(plan) => plan.profile,
            Self::JobManager(plan) => plan.profile,
        }
    }

    /// What is odd about it.
    pub fn warnings(&self) -> &[Warning] {
        match self {
            Self::TaskManager(plan) => &plan.warnings,
            Self::JobManager(plan) => &plan.warnings,
        }
    }

    /// Every component, the order that of Flink's REST; totals last.
    pub fn components(&self) -> Vec<(Name, &Component)> {
        match self {
            Self::TaskManager(plan) => vec![
                (Name::FrameworkHeap, &plan.framework_heap),
                (Name::TaskHeap, &plan.task_heap),
                (Name::FrameworkOffHeap, &plan.framework_off_heap),
                (Name::TaskOffHeap, &plan.task_off_heap),
                (Name::NetworkMemory, &plan.network),
                (Name::ManagedMemory, &plan.managed),
                (Name::JvmMetaspace, &plan.metaspace),
                (Name::JvmOverhead, &plan.overhead),
                (Name::TotalFlinkMemory, &plan.total_flink),
                (Name::TotalProcessMemory, &plan.total_process),
            ],
            Self::JobManager(plan) => vec![
                (Name::Heap, &plan.heap),
                (Name::OffHeap, &plan.off_heap),
                (Name::JvmMetaspace, &plan.metaspace),
                (Name::JvmOverhead, &plan.overhead),
                (Name::TotalFlinkMemory, &plan.total_flink),
                (Name::TotalProcessMemory, &plan.total_process),
            ],
        }
    }

    /// Parts of the off-heap memory of a native JobManager.
    pub fn off_heap_parts(&self) -> Vec<(Name, &Component)> {
        let Self::JobManager(plan) = self else { return Vec::new() };
        let network = plan.network.as_ref().map(|part| (Name::NetworkMemory, part));
        let metadata = plan.checkpoint_metadata.as_ref().map(|part| (Name::CheckpointMetadata, part));
        network.into_iter().chain(metadata).collect()
    }

    /// The components that are in no other: together they are the process.
    pub fn leaves(&self) -> Vec<Part> {
        let totals = [Name::TotalFlinkMemory, Name::TotalProcessMemory];
        let components = self.components().into_iter().filter(|(name, _)| !totals.contains(name));
        components.map(|(component, of)| Part { component, bytes: of.bytes }).collect()
    }

    /// Total process memory.
    pub const fn total_process(&self) -> u64 {
        match self {
            Self::TaskManager(plan) => plan.total_process.bytes,
            Self::JobManager(plan) => plan.total_process.bytes,
        }
    }

    /// The plan as final values, for a worker that must not derive it again: every size in bytes, ranges pinned.
    pub fn final_values(&self) -> Vec<(&'static str, String)> {
        let size = |component: &Component| format!("{}b", component.bytes);
        let native = self.profile() == Profile::Native;
        let mut values = match self {
            Self::TaskManager(plan) => vec![
                (keys::TM_FRAMEWORK_HEAP, size(&plan.framework_heap)),
                (keys::TM_FRAMEWORK_OFF_HEAP, size(&plan.framework_off_heap)),
                (keys::TM_TASK_HEAP, size(&plan.task_heap)),
                (keys::TM_TASK_OFF_HEAP, size(&plan.task_off_heap)),
                (keys::TM_NETWORK_MIN, size(&plan.network)),
                (keys::TM_NETWORK_MAX, size(&plan.network)),
                (keys::TM_MANAGED, size(&plan.managed)),
                (keys::TM_OVERHEAD_MIN, size(&plan.overhead)),
                (keys::TM_OVERHEAD_MAX, size(&plan.overhead)),
                (keys::TM_METASPACE, size(&plan.metaspace)),
                (keys::TM_SLOTS, plan.shape.slots.to_string()),
                (keys::TM_SEGMENT, format!("{}b", plan.shape.segment)),
                (keys::TM_WEIGHTS, plan.weights.to_string()),
            ],
            Self::JobManager(plan) => vec![
                (keys::JM_HEAP, size(&plan.heap)),
                (keys::JM_OFF_HEAP, size(&plan.off_heap)),
                (keys::JM_OVERHEAD_MIN, size(&plan.overhead)),
                (keys::JM_OVERHEAD_MAX, size(&plan.overhead)),
                (keys::JM_METASPACE, size(&plan.metaspace)),
            ],
        };
        if native {
            values.retain(|(key, _)| !matches!(*key, keys::TM_METASPACE | keys::JM_METASPACE));
        }
        match self {
            Self::TaskManager(plan) if native => {
                values.push((keys::TM_TASK_HEAP_MIN, format!("{}b", plan.task_heap_min)));
                values.push((keys::TM_LINKS, plan.shape.links.to_string()));
                values.push((keys::TM_RECORD, format!("{}b", plan.record_max)));
            }
            _ => {}
        }
        for (name, component) in self.off_heap_parts() {
            if let Some(key) = name.key(Process::JobManager) {
                values.push((key, size(component)));
            }
        }
        values
    }

    /// [`final_values`](Self::final_values) as a configuration of its own.
    pub fn final_settings(&self) -> Settings {
        let values = self.final_values().into_iter();
        values.fold(Settings::new(), |settings, (key, value)| settings.with(key, value))
    }

    /// The parameters a JVM would be started with: `-Xmx` and so on. Profile `flink` only.
    pub fn jvm_parameters(&self) -> Option<String> {
        if self.profile() == Profile::Native {
            return None;
        }
        // Sums of parts of a total that fits.
        let (heap, direct, metaspace) = match self {
            Self::TaskManager(plan) => (
                plan.framework_heap.bytes.saturating_add(plan.task_heap.bytes),
                plan.framework_off_heap
                    .bytes
                    .saturating_add(plan.task_off_heap.bytes)
                    .saturating_add(plan.network.bytes),
                plan.metaspace.bytes,
            ),
            Self::JobManager(plan) => (plan.heap.bytes, plan.off_heap.bytes, plan.metaspace.bytes),
        };
        let direct = match self {
            Self::JobManager(plan) if !plan.direct_memory_limited => String::new(),
            _ => format!(" -XX:MaxDirectMemorySize={direct}"),
        };
        Some(format!("-Xmx{heap} -Xms{heap}{direct} -XX:MaxMetaspaceSize={metaspace}"))
    }

    /// The form in which a plan is printed as JSON, with rule and inputs of every component under `explain`.
    pub fn explained(&self) -> impl Serialize + '_ {
        Json { plan: self, explain: true }
    }
}

/// Components at the top level, in bytes, under the names of Flink's REST API; then `networkBuffers`, `segmentSize`,
/// `slots` and `perSlot` of a TaskManager, the parts of the off-heap memory of a native JobManager, `process`, `profile` and
/// `warnings`.
impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Json { plan: self, explain: false }.serialize(serializer)
    }
}

struct Json<'a> {
    plan: &'a Plan,
    explain: bool,
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let all: Vec<_> = self.plan.components().into_iter().chain(self.plan.off_heap_parts()).collect();
        for (name, component) in &all {
            map.serialize_entry(name.json(), &component.bytes)?;
        }
        if let Plan::TaskManager(plan) = self.plan {
            map.serialize_entry("networkBuffers", &plan.network_buffers())?;
            map.serialize_entry("segmentSize", &plan.shape.segment)?;
            map.serialize_entry("slots", &plan.shape.slots)?;
            map.serialize_entry("perSlot", &plan.per_slot())?;
        }
        map.serialize_entry("process", &self.plan.process())?;
        map.serialize_entry("profile", &self.plan.profile())?;
        map.serialize_entry("warnings", self.plan.warnings())?;
        if self.explain {
            let reasons: std::collections::BTreeMap<&str, &Component> =
                all.iter().map(|(name, component)| (name.json(), *component)).collect();
            map.serialize_entry("explain", &reasons)?;
        }
        map.end()
    }
}
