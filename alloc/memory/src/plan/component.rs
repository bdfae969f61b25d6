//! A component of a process: how many bytes, by which rule, from which inputs. Stateless.
//!
//! Always: a component carries every input its number depends on; the parts of a sum or remainder are those it was computed
//! from.

use std::fmt;

use serde::Serialize;

use super::Process;
use super::keys;
use super::origin::Input;
use crate::MemorySize;

/// Which component. The names in JSON are those of Flink's REST API where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Name {
    /// TaskManager: heap of the runtime.
    FrameworkHeap,
    /// TaskManager: heap of user code.
    TaskHeap,
    /// TaskManager: off-heap memory of the runtime.
    FrameworkOffHeap,
    /// TaskManager: off-heap memory of user code.
    TaskOffHeap,
    /// TaskManager: the arena. JobManager, natively: control messages.
    NetworkMemory,
    /// TaskManager: keyed state, sorting, caches, spill.
    ManagedMemory,
    /// Metaspace of a JVM.
    JvmMetaspace,
    /// What is in the process but in no other component.
    JvmOverhead,
    /// JobManager: heap.
    Heap,
    /// JobManager: memory outside the heap.
    OffHeap,
    /// JobManager, natively: checkpoint metadata; a part of the off-heap memory.
    CheckpointMetadata,
    /// The process without metaspace and overhead.
    TotalFlinkMemory,
    /// All of it.
    TotalProcessMemory,
}

impl Name {
    /// The name in JSON.
    pub const fn json(self) -> &'static str {
        match self {
            Self::FrameworkHeap => "frameworkHeap",
            Self::TaskHeap => "taskHeap",
            Self::FrameworkOffHeap => "frameworkOffHeap",
            Self::TaskOffHeap => "taskOffHeap",
            Self::NetworkMemory => "networkMemory",
            Self::ManagedMemory => "managedMemory",
            Self::JvmMetaspace => "jvmMetaspace",
            Self::JvmOverhead => "jvmOverhead",
            Self::Heap => "heap",
            Self::OffHeap => "offHeap",
            Self::CheckpointMetadata => "checkpointMetadata",
            Self::TotalFlinkMemory => "totalFlinkMemory",
            Self::TotalProcessMemory => "totalProcessMemory",
        }
    }

    /// For people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::FrameworkHeap => "framework heap",
            Self::TaskHeap => "task heap",
            Self::FrameworkOffHeap => "framework off-heap",
            Self::TaskOffHeap => "task off-heap",
            Self::NetworkMemory => "network",
            Self::ManagedMemory => "managed",
            Self::JvmMetaspace => "metaspace",
            Self::JvmOverhead => "overhead",
            Self::Heap => "heap",
            Self::OffHeap => "off-heap",
            Self::CheckpointMetadata => "checkpoint metadata",
            Self::TotalFlinkMemory => "total flink memory",
            Self::TotalProcessMemory => "total process memory",
        }
    }

    /// The key that sets the component, if one does.
    pub const fn key(self, process: Process) -> Option<&'static str> {
        Some(match (process, self) {
            (Process::TaskManager, Self::FrameworkHeap) => keys::TM_FRAMEWORK_HEAP,
            (Process::TaskManager, Self::TaskHeap) => keys::TM_TASK_HEAP,
            (Process::TaskManager, Self::FrameworkOffHeap) => keys::TM_FRAMEWORK_OFF_HEAP,
            (Process::TaskManager, Self::TaskOffHeap) => keys::TM_TASK_OFF_HEAP,
            (Process::TaskManager, Self::ManagedMemory) => keys::TM_MANAGED,
            (Process::TaskManager, Self::JvmMetaspace) => keys::TM_METASPACE,
            (Process::TaskManager, Self::TotalFlinkMemory) => keys::TM_FLINK,
            (Process::TaskManager, Self::TotalProcessMemory) => keys::TM_PROCESS,
            (Process::JobManager, Self::Heap) => keys::JM_HEAP,
            (Process::JobManager, Self::OffHeap) => keys::JM_OFF_HEAP,
            (Process::JobManager, Self::NetworkMemory) => keys::JM_NETWORK,
            (Process::JobManager, Self::CheckpointMetadata) => keys::JM_METADATA,
            (Process::JobManager, Self::JvmMetaspace) => keys::JM_METASPACE,
            (Process::JobManager, Self::TotalFlinkMemory) => keys::JM_FLINK,
            (Process::JobManager, Self::TotalProcessMemory) => keys::JM_PROCESS,
            _ => return None,
        })
    }
}

/// One number of a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Which component.
    pub component: Name,
    /// Its bytes.
    pub bytes: u64,
}

/// What a fraction came to after its bounds were applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Bound {
    /// It was within them.
    Within,
    /// It was less than the least.
    RaisedToMin,
    /// It was more than the most.
    LoweredToMax,
}

/// One item of a stated cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// What costs.
    pub what: &'static str,
    /// How many of it.
    pub count: u64,
    /// Bytes of each.
    pub each: u64,
}

/// How a number came to be.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "rule", rename_all = "camelCase")]
pub enum Rule {
    /// The input says so.
    Configured,
    /// Nothing says otherwise.
    Default,
    /// There is no JVM.
    NoJvm,
    /// The sum of what the runtime needs, rounded up to whole MiB.
    Stated {
        /// The items.
        costs: Vec<Cost>,
    },
    /// A fraction of a known total, within bounds.
    Fraction {
        /// Of which.
        of: Name,
        /// Its bytes.
        base: u64,
        /// As a double.
        fraction: f64,
        /// Before the bounds.
        product: u64,
        /// What they did.
        bound: Bound,
        /// The result was rounded down to a multiple of this.
        #[serde(skip_serializing_if = "Option::is_none")]
        multiple_of: Option<u64>,
    },
    /// A fraction of a total that is not known yet: f/(1-f) of the other parts, within bounds.
    Inverse {
        /// The other parts together.
        base: u64,
        /// As a double.
        fraction: f64,
        /// Before the bounds.
        product: u64,
        /// What they did.
        bound: Bound,
        /// The result was rounded down to a multiple of this.
        #[serde(skip_serializing_if = "Option::is_none")]
        multiple_of: Option<u64>,
    },
    /// Half of another component, where that is too small for the default.
    Half {
        /// Of which.
        of: Name,
        /// Its bytes.
        total: u64,
    },
    /// What the other parts leave of a total.
    Remainder {
        /// Of which.
        of: Name,
        /// Its bytes.
        total: u64,
        /// The others.
        minus: Vec<Part>,
    },
    /// The sum of the parts.
    Sum {
        /// Which.
        of: Vec<Part>,
    },
}

/// A component with its reasons.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Component {
    /// How many bytes; below 2^63.
    pub bytes: u64,
    /// How they came to be.
    #[serde(flatten)]
    pub rule: Rule,
    /// From what.
    pub inputs: Vec<Input>,
}

impl Component {
    /// The size in short, for people.
    pub fn human(&self) -> String {
        human(self.bytes)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured => f.write_str("as configured"),
            Self::Default => f.write_str("default"),
            Self::NoJvm => f.write_str("none: this process has no JVM"),
            Self::Stated { costs } => {
                f.write_str("what the runtime needs:")?;
                for (index, cost) in costs.iter().enumerate() {
                    let separator = if index == 0 { "" } else { " +" };
                    write!(f, "{separator} {} {} × {}", cost.what, cost.count, short(cost.each))?;
                }
                Ok(())
            }
            Self::Fraction { of, base, fraction, product, bound, multiple_of } => {
                write!(f, "{fraction} of {} ({base}) = {product}{}", of.title(), applied(*bound))?;
                multiple(f, *multiple_of)
            }
            Self::Inverse { base, fraction, product, bound, multiple_of } => {
                write!(
                    f,
                    "{fraction} / (1 - {fraction}) of the other parts ({base}) = {product}{}",
                    applied(*bound)
                )?;
                multiple(f, *multiple_of)
            }
            Self::Half { of, total } => write!(f, "half of {} ({total})", of.title()),
            Self::Remainder { of, total, minus } => {
                write!(f, "what is left of {} ({total})", of.title())?;
                for Part { component, bytes } in minus {
                    write!(f, " - {} {bytes}", component.title())?;
                }
                Ok(())
            }
            Self::Sum { of } => {
                for (index, Part { component, bytes }) in of.iter().enumerate() {
                    let separator = if index == 0 { "" } else { " + " };
                    write!(f, "{separator}{} {bytes}", component.title())?;
                }
                Ok(())
            }
        }
    }
}

fn multiple(f: &mut fmt::Formatter<'_>, of: Option<u64>) -> fmt::Result {
    match of {
        Some(unit) => write!(f, ", rounded down to whole segments for each slot ({unit})"),
        None => Ok(()),
    }
}

const fn applied(bound: Bound) -> &'static str {
    match bound {
        Bound::Within => "",
        Bound::RaisedToMin => ", raised to the least allowed",
        Bound::LoweredToMax => ", lowered to the most allowed",
    }
}

/// A size for people: exact where it is short, else with three decimals.
pub(super) fn human(bytes: u64) -> String {
    match MemorySize::from_bytes(bytes) {
        Ok(size) => size.human(),
        Err(_) => format!("{bytes} bytes"),
    }
}

/// A size in short: without the exact bytes.
pub(super) fn short(bytes: u64) -> String {
    let human = human(bytes);
    human.split(" (").next().unwrap_or(&human).to_owned()
}
