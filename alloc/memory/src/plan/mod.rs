//! The memory plan: how a process divides its memory, resolved before anything starts.
//!
//! Settings in, a plan or a refusal out; nothing here opens a file, asks the host or reads the environment. [`Settings`]
//! holds the layers of the configuration, [`resolve`] derives every component from them and says why it has the size it
//! has, [`Plan`] is handed on as final bytes, and [`PlanError`] names the sum that does not hold and the smallest change
//! that would.
//!
//! Two profiles share one derivation. `flink` is Flink 2.2's model to the byte, for comparing and moving configurations;
//! the native one has no JVM, states the runtime's own needs from slots and links, and refuses what leaves no task heap.
//!
//! ```
//! use tidegate_memory::plan::{Plan, Process, Profile, Request, Settings, resolve};
//! let mut settings = Settings::new();
//! settings.add_define("taskmanager.memory.process.size=1728m")?;
//! let plan = resolve(&Request::new(Process::TaskManager, Profile::Flink, &settings))?;
//! let Plan::TaskManager(plan) = plan else { unreachable!("a TaskManager was asked for") };
//! assert_eq!((plan.task_heap.bytes, plan.network_buffers()), (402_653_174, 4096));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Always: no input panics; process = flink + metaspace + overhead and flink = the sum of its parts, in every plan that is
//! returned; resolving a plan's final values gives the plan again.

#![forbid(unsafe_code)]

pub mod buffers;
mod change;
mod component;
mod error;
pub mod fit;
mod fraction;
mod frame;
mod inspect;
mod jobmanager;
pub mod keys;
mod native;
mod origin;
mod reader;
mod record;
pub mod render;
mod resolved;
mod settings;
pub mod sizing;
mod taskmanager;
mod text;
mod warning;
mod weights;
mod worker;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

pub use self::component::{Bound, Component, Cost, Name, Part, Rule};
pub use self::error::{Change, PlanError, Reason, Unreadable};
pub use self::native::{NativeCosts, default_process_size};
pub use self::origin::{Input, Origin};
use self::reader::Reader;
pub use self::resolved::{JobManagerPlan, PerSlot, Plan, Shares, TaskManagerPlan};
pub use self::settings::{ConfigError, Listed, Setting, Settings, Unknown};
pub use self::text::{Entry, Syntax, SyntaxError, entries};
pub use self::warning::Warning;
use self::weights::WeightsError;
pub use self::weights::{Consumer, Weights};
pub use self::worker::accept_final;
use crate::MemorySize;
use crate::limits::{NATIVE_LINKS_MAX, NATIVE_SEGMENT_BYTES_MAX, NATIVE_SLOTS_MAX, SEGMENT_BYTES_MIN};

/// Which process a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Process {
    /// A TaskManager.
    TaskManager,
    /// A JobManager.
    JobManager,
}

impl Process {
    /// For people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::TaskManager => "TaskManager",
            Self::JobManager => "JobManager",
        }
    }

    /// What all its keys begin with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::TaskManager => "taskmanager.",
            Self::JobManager => "jobmanager.",
        }
    }
}

/// By which model a plan is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Flink 2.2's, to the byte.
    Flink,
    /// Ours: no JVM, stated needs, a least task heap.
    #[default]
    Native,
}

/// A name that is not one of the expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found `{found}`")]
pub struct UnknownName {
    expected: &'static str,
    found: String,
}

impl FromStr for Process {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text {
            "taskmanager" => Ok(Self::TaskManager),
            "jobmanager" => Ok(Self::JobManager),
            _ => Err(UnknownName {
                expected: "taskmanager or jobmanager",
                found: text.chars().take(64).collect(),
            }),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TaskManager => "taskmanager",
            Self::JobManager => "jobmanager",
        })
    }
}

impl FromStr for Profile {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text {
            "flink" => Ok(Self::Flink),
            "native" => Ok(Self::Native),
            _ => Err(UnknownName { expected: "flink or native", found: text.chars().take(64).collect() }),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flink => "flink",
            Self::Native => "native",
        })
    }
}

/// Slots, links and segments of a TaskManager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// At least 1.
    pub slots: u32,
    /// Connections to other slots, each slot. Natively only.
    pub links: u32,
    /// Bytes of a network buffer.
    pub segment: u64,
}

/// What a plan is made from.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// For which process.
    pub process: Process,
    /// By which model.
    pub profile: Profile,
    /// The configuration.
    pub settings: &'a Settings,
    /// What the runtime itself needs, in the native profile.
    pub costs: NativeCosts,
    /// Memory of the host or its control group, for the native default of the process size; `None` if unknown.
    pub host_bytes: Option<u64>,
}

impl<'a> Request<'a> {
    /// With default costs and an unknown host.
    pub fn new(process: Process, profile: Profile, settings: &'a Settings) -> Self {
        Self { process, profile, settings, costs: NativeCosts::default(), host_bytes: None }
    }
}

/// Resolves a plan.
///
/// # Errors
/// No plan holds with these settings: which rule was broken, the sum that broke it, and changes that were tried and help.
pub fn resolve(request: &Request<'_>) -> Result<Plan, PlanError> {
    derive(request).map_err(|mut refusal| {
        refusal.changes = change::smallest(request, &refusal);
        if refusal.changes.is_empty() {
            refusal.together = change::pair(request);
        }
        refusal
    })
}

/// [`resolve`] without the search for a change.
fn derive(request: &Request<'_>) -> Result<Plan, PlanError> {
    match request.process {
        Process::TaskManager => taskmanager(request).map(Plan::TaskManager),
        Process::JobManager => jobmanager(request).map(Plan::JobManager),
    }
}

fn taskmanager(request: &Request<'_>) -> Result<TaskManagerPlan, PlanError> {
    let mut reader = reader(request);
    let (derived, shape) = match request.profile {
        // Natively the needs of the runtime follow from the shape.
        Profile::Native => {
            let shape = shape(&reader)?;
            let process = default_process_size(request.process, request.host_bytes);
            let total = starting_size(request.settings, request.process).unwrap_or(process);
            let most = configured_size(request.settings, keys::TM_OVERHEAD_MAX);
            reader.stated = request.costs.stated(request.process, &shape, total, process, most);
            let unit = shape.segment.saturating_mul(u64::from(shape.slots)).max(1);
            (taskmanager::derive(&reader, unit)?, shape)
        }
        Profile::Flink => {
            let derived = taskmanager::derive(&reader, 1)?;
            (derived, shape(&reader)?)
        }
    };
    let buffers = derived.network.bytes.checked_div(shape.segment).unwrap_or(0);
    if i32::try_from(buffers).is_err() {
        let reason = Reason::SegmentSize { found: shape.segment, buffers: Some(buffers) };
        return Err(reader.refuse(reason, derived.network.inputs));
    }
    let weights = read_weights(&reader)?;
    let record_max = match request.profile {
        Profile::Flink => 0,
        Profile::Native => record::record_max(&reader, &shape, derived.network.bytes)?,
    };
    let task_heap_min = match request.profile {
        Profile::Flink => 0,
        Profile::Native => reader.size(keys::TM_TASK_HEAP_MIN)?.bytes,
    };
    let taskmanager::Derived { framework_heap, task_heap, framework_off_heap, task_off_heap, .. } = derived;
    let frame::Frame { metaspace, overhead, flink, process } = derived.frame;
    let mut plan = TaskManagerPlan {
        profile: request.profile,
        framework_heap,
        task_heap,
        framework_off_heap,
        task_off_heap,
        network: derived.network,
        managed: derived.managed,
        metaspace,
        overhead,
        total_flink: flink,
        total_process: process,
        shape,
        record_max,
        task_heap_min,
        weights,
        warnings: Vec::new(),
    };
    debug_assert!(adds_up(&Plan::TaskManager(plan.clone())));
    plan.warnings = inspect::taskmanager(request, &reader, &plan);
    Ok(plan)
}

fn jobmanager(request: &Request<'_>) -> Result<JobManagerPlan, PlanError> {
    let mut reader = reader(request);
    if request.profile == Profile::Native {
        let shape = Shape { slots: 0, links: 0, segment: SEGMENT_BYTES_MIN };
        let process = default_process_size(request.process, request.host_bytes);
        let total = starting_size(request.settings, request.process).unwrap_or(process);
        let most = configured_size(request.settings, keys::JM_OVERHEAD_MAX);
        reader.stated = request.costs.stated(request.process, &shape, total, process, most);
        // The off-heap memory is its parts, unless it is configured itself.
        let (network, metadata) = (reader.size(keys::JM_NETWORK)?, reader.size(keys::JM_METADATA)?);
        let bytes = network.bytes.saturating_add(metadata.bytes).min(MemorySize::MAX.bytes());
        let costs = vec![
            Cost { what: "network", count: 1, each: network.bytes },
            Cost { what: "checkpoint metadata", count: 1, each: metadata.bytes },
        ];
        reader.stated.insert(keys::JM_OFF_HEAP, reader::Stated { bytes, needed: bytes, costs });
    }
    let derived = jobmanager::derive(&reader)?;
    let frame::Frame { metaspace, overhead, flink, process } = derived.frame;
    let (network, checkpoint_metadata) = derived.off_heap_parts.unzip();
    let limited = request.settings.get(keys::JM_DIRECT_LIMIT);
    let mut plan = JobManagerPlan {
        profile: request.profile,
        heap: derived.heap,
        off_heap: derived.off_heap,
        network,
        checkpoint_metadata,
        metaspace,
        direct_memory_limited: limited
            .is_some_and(|setting| setting.value.trim().eq_ignore_ascii_case("true")),
        overhead,
        total_flink: flink,
        total_process: process,
        warnings: Vec::new(),
    };
    debug_assert!(adds_up(&Plan::JobManager(plan.clone())));
    plan.warnings = inspect::jobmanager(request, &reader, &plan);
    Ok(plan)
}

fn reader<'a>(request: &Request<'a>) -> Reader<'a> {
    Reader {
        process: request.process,
        profile: request.profile,
        settings: request.settings,
        stated: std::collections::BTreeMap::new(),
    }
}

/// The size that a plan is about, as far as it is configured: what the allocator's slack is stated from.
fn starting_size(settings: &Settings, process: Process) -> Option<u64> {
    let sizes = match process {
        Process::TaskManager => [keys::TM_PROCESS, keys::TM_FLINK, keys::TM_TASK_HEAP],
        Process::JobManager => [keys::JM_PROCESS, keys::JM_FLINK, keys::JM_HEAP],
    };
    sizes.into_iter().find_map(|key| configured_size(settings, key))
}

/// A configured size, if it can be read; whether it has to be is for the derivation to say.
fn configured_size(settings: &Settings, key: &str) -> Option<u64> {
    settings.get(key)?.value.parse::<MemorySize>().ok().map(MemorySize::bytes)
}

fn shape(reader: &Reader<'_>) -> Result<Shape, PlanError> {
    let native = reader.profile == Profile::Native;
    let slots = reader.count(keys::TM_SLOTS, if native { NATIVE_SLOTS_MAX } else { i32::MAX as u64 })?;
    let links = if native { reader.count(keys::TM_LINKS, NATIVE_LINKS_MAX)? } else { 0 };
    let segment = reader.size(keys::TM_SEGMENT)?;
    let most = if native { NATIVE_SEGMENT_BYTES_MAX } else { i32::MAX as u64 };
    let found = segment.bytes;
    if found.is_power_of_two() && (SEGMENT_BYTES_MIN..=most).contains(&found) {
        Ok(Shape { slots, links, segment: found })
    } else {
        Err(reader.refuse(Reason::SegmentSize { found, buffers: None }, vec![segment.input]))
    }
}

fn read_weights(reader: &Reader<'_>) -> Result<Weights, PlanError> {
    let key = keys::TM_WEIGHTS;
    Weights::parse(&reader.whole_text(key)).map_err(|error| {
        let inputs = reader.settings.input(key).into_iter().collect();
        let unreadable = |why: String| Reason::Unreadable { key, why: Unreadable::Weights(why) };
        let reason = match error {
            WeightsError::Negative { consumer, found } => Reason::NegativeWeight { consumer, weight: found },
            WeightsError::NotAPair(pair) => unreadable(format!("`{pair}` has no colon")),
            WeightsError::NotANumber { consumer, found } => {
                unreadable(format!("the weight of {consumer} is `{found}`, no whole number"))
            }
            WeightsError::Twice(consumer) => unreadable(format!("{consumer} has two weights")),
        };
        reader.refuse(reason, inputs)
    })
}

fn adds_up(plan: &Plan) -> bool {
    let leaves: u128 = plan.leaves().iter().map(|part| u128::from(part.bytes)).sum();
    leaves == u128::from(plan.total_process())
}
