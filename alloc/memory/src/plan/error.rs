//! Why a plan is refused. Stateless.
//!
//! The codes E1 to E13 are those of the reference on Flink's memory model, E14 is our own; a code names a meaning, not a text.
//!
//! Always: a refusal names the process, what was found and what would have been right; a proposed change has been tried and
//! makes the plan hold.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::component::{Name, Part, human};
use super::keys;
use super::origin::Input;
use super::{Process, Profile};
use crate::SizeError;
use crate::limits::{
    NATIVE_RECORD_BYTES_MAX, NATIVE_SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_PER_EXCHANGE_MIN,
};

/// A refused plan.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanError {
    /// Whose.
    pub process: Process,
    /// By which model.
    pub profile: Profile,
    /// Why.
    pub reason: Reason,
    /// What was summed up, where the reason is a sum.
    pub parts: Vec<Part>,
    /// The values that led here.
    pub inputs: Vec<Input>,
    /// Changes of one value that make the plan hold, the smallest first. Empty where there is none.
    pub changes: Vec<Change>,
    /// Where no single change helps: two that do together.
    pub together: Vec<Change>,
}

/// A value that would make the plan hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Of which key.
    pub key: &'static str,
    /// As it is now; `None` if it is not set.
    pub from: Option<String>,
    /// As it should be; `None`: remove it.
    pub to: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            Some(to) => write!(f, "{} = {to}", self.key)?,
            None => write!(f, "remove {}", self.key)?,
        }
        match &self.from {
            Some(from) => write!(f, " (now {from})"),
            None => Ok(()),
        }
    }
}

/// Why.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// E1: none of the sizes is set that a plan can start from.
    NothingConfigured,
    /// E2: a least size above the most, or a fraction that is none.
    Inconsistent {
        /// Of which component.
        component: Name,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
        /// The fraction.
        fraction: f64,
    },
    /// E3: metaspace and overhead are more than the process.
    NoRoomForFlink {
        /// Both.
        sum: u128,
        /// The process.
        process: u64,
    },
    /// E4: flink memory and metaspace are more than the process.
    ProcessTooSmall {
        /// Both.
        sum: u128,
        /// The process; the largest size if none is configured.
        process: u64,
    },
    /// E5: what is left for the overhead is out of its range.
    OverheadOutOfRange {
        /// What is left.
        derived: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// E6: the parts are more than flink memory.
    PartsExceedFlink {
        /// All of them.
        sum: u128,
        /// Flink memory; the largest size if it is not known.
        flink: u64,
    },
    /// E6, natively: what is left for the task heap is less than its minimum.
    TaskHeapBelowMin {
        /// What is left.
        found: u64,
        /// The minimum.
        min: u64,
    },
    /// E7: what is left for the network is out of its range.
    NetworkOutOfRange {
        /// What is left.
        derived: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// E8: the parts are not the configured total.
    PartsDoNotAddUp {
        /// The parts.
        sum: u128,
        /// Which total.
        total: Name,
        /// Its configured size.
        configured: u64,
    },
    /// E9: heap and off-heap of a JobManager do not fit its flink memory.
    JobManagerParts {
        /// Heap; `None` where it is the remainder.
        heap: Option<u64>,
        /// Off-heap; `None` where it is the remainder.
        off_heap: Option<u64>,
        /// Flink memory.
        flink: u64,
    },
    /// E9, natively: network and checkpoint metadata are not the off-heap memory.
    JobManagerOffHeap {
        /// Both.
        sum: u128,
        /// The off-heap memory.
        off_heap: u64,
    },
    /// E10: a worker was given a plan that is not final.
    NotResolved {
        /// The key that is missing, or `None` where the bounds of the network differ.
        missing: Option<&'static str>,
    },
    /// E11: a value cannot be read.
    Unreadable {
        /// The key.
        key: &'static str,
        /// Why.
        why: Unreadable,
    },
    /// E12: a weight is negative.
    NegativeWeight {
        /// Whose.
        consumer: String,
        /// The weight.
        weight: i64,
    },
    /// E13: no network buffer can have this size.
    SegmentSize {
        /// What was asked for.
        found: u64,
        /// Buffers that it would make, where those are too many.
        buffers: Option<u64>,
    },
    /// E14: there is no room for records of this size.
    RecordSize {
        /// What was asked for.
        found: u64,
        /// Segments that a region for one takes, and those of a slot; `None` where no slot could have so large a record.
        room: Option<(u64, u64)>,
    },
}

/// Why a value cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Unreadable {
    /// It is no size.
    Size(SizeError),
    /// It is no number.
    Fraction,
    /// It is no whole number from 1 up to the bound.
    Count {
        /// The bound.
        max: u64,
    },
    /// It is no list of weights.
    Weights(String),
}

impl Reason {
    /// `E1` to `E14`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NothingConfigured => "E1",
            Self::Inconsistent { .. } => "E2",
            Self::NoRoomForFlink { .. } => "E3",
            Self::ProcessTooSmall { .. } => "E4",
            Self::OverheadOutOfRange { .. } => "E5",
            Self::PartsExceedFlink { .. } | Self::TaskHeapBelowMin { .. } => "E6",
            Self::NetworkOutOfRange { .. } => "E7",
            Self::PartsDoNotAddUp { .. } => "E8",
            Self::JobManagerParts { .. } | Self::JobManagerOffHeap { .. } => "E9",
            Self::NotResolved { .. } => "E10",
            Self::Unreadable { .. } => "E11",
            Self::NegativeWeight { .. } => "E12",
            Self::SegmentSize { .. } => "E13",
            Self::RecordSize { .. } => "E14",
        }
    }
}

impl PlanError {
    /// `E1` to `E14`.
    pub const fn code(&self) -> &'static str {
        self.reason.code()
    }

    /// Whose plan, what was found and what would be right; without the parts, origins and changes that [`Display`] adds.
    ///
    /// [`Display`]: fmt::Display
    pub fn sentence(&self) -> String {
        format!("{} memory configuration failed: {}", self.process.title(), self.found())
    }

    fn found(&self) -> String {
        match &self.reason {
            Reason::NothingConfigured => {
                let parts = match self.process {
                    Process::TaskManager => format!("{} and {}", keys::TM_TASK_HEAP, keys::TM_MANAGED),
                    Process::JobManager => keys::JM_HEAP.to_owned(),
                };
                let (flink, process) = match self.process {
                    Process::TaskManager => (keys::TM_FLINK, keys::TM_PROCESS),
                    Process::JobManager => (keys::JM_FLINK, keys::JM_PROCESS),
                };
                format!("no size is configured to start from; expected one of {process}, {flink}, or {parts}")
            }
            Reason::Inconsistent { component, min, max, fraction } => {
                let problem = if min > max {
                    "its least is above its most"
                } else {
                    "its fraction is not from 0 to below 1"
                };
                let (min, max, title) = (human(*min), human(*max), component.title());
                format!(
                    "{title} is configured inconsistently: {problem} (fraction {fraction}, least {min}, most {max})"
                )
            }
            Reason::NoRoomForFlink { sum, process } => format!(
                "metaspace and overhead need {}, but total process memory is {}",
                wide(*sum),
                human(*process)
            ),
            Reason::ProcessTooSmall { sum, process } => format!(
                "total flink memory and metaspace need {}, but total process memory is {}",
                wide(*sum),
                human(*process)
            ),
            Reason::OverheadOutOfRange { derived, min, max } => format!(
                "process and flink memory are both configured, which leaves {} for the overhead, expected {} to {}",
                human(*derived),
                human(*min),
                human(*max)
            ),
            Reason::PartsExceedFlink { sum, flink } => {
                format!("the parts need {}, but total flink memory is {}", wide(*sum), human(*flink))
            }
            Reason::TaskHeapBelowMin { found, min } => format!(
                "the other parts leave {} for the task heap, expected at least {} ({})",
                human(*found),
                human(*min),
                keys::TM_TASK_HEAP_MIN
            ),
            Reason::NetworkOutOfRange { derived, min, max } => format!(
                "the other parts are configured, so the network gets the remainder of total flink memory: {}, expected \
                 {} to {}",
                human(*derived),
                human(*min),
                human(*max)
            ),
            Reason::PartsDoNotAddUp { sum, total, configured } => format!(
                "the parts add up to {}, but {} is configured as {}",
                wide(*sum),
                total.title(),
                human(*configured)
            ),
            Reason::JobManagerParts { heap: Some(heap), off_heap: Some(off_heap), flink } => format!(
                "heap {} and off-heap {} must be total flink memory together, which is {}",
                human(*heap),
                human(*off_heap),
                human(*flink)
            ),
            Reason::JobManagerParts { heap: Some(heap), flink, .. } => {
                format!("heap {} is more than total flink memory {}", human(*heap), human(*flink))
            }
            Reason::JobManagerParts { off_heap, flink, .. } => format!(
                "off-heap {} leaves no heap of total flink memory {}",
                human(off_heap.unwrap_or_default()),
                human(*flink)
            ),
            Reason::JobManagerOffHeap { sum, off_heap } => format!(
                "network and checkpoint metadata are {} together, but off-heap memory is {}",
                wide(*sum),
                human(*off_heap)
            ),
            Reason::NotResolved { missing: Some(key) } => {
                format!(
                    "the plan is not final: {key} is not set; start workers with the values of a resolved plan"
                )
            }
            Reason::NotResolved { missing: None } => format!(
                "the plan is not final: {} and {} differ; start workers with the values of a resolved plan",
                keys::TM_NETWORK_MIN,
                keys::TM_NETWORK_MAX
            ),
            Reason::Unreadable { key, why } => match why {
                Unreadable::Size(error) => format!("{key} cannot be read: {error}"),
                Unreadable::Fraction => {
                    format!("{key} cannot be read: expected a number from 0 to below 1, such as 0.4")
                }
                Unreadable::Count { max } => {
                    format!("{key} cannot be read: expected a whole number from 1 to {max}")
                }
                Unreadable::Weights(why) => format!(
                    "{key} cannot be read: {why}; expected pairs such as OPERATOR:70,STATE_BACKEND:70,PYTHON:30"
                ),
            },
            Reason::NegativeWeight { consumer, weight } => {
                format!("the weight of {consumer} is {weight}, expected 0 or more ({})", keys::TM_WEIGHTS)
            }
            Reason::SegmentSize { found, buffers: Some(buffers) } => format!(
                "network memory in segments of {found} bytes would be {buffers} buffers, expected at most {}; raise {}",
                i32::MAX,
                keys::TM_SEGMENT
            ),
            Reason::RecordSize { found, room: Some((region, buffers)) } => format!(
                "{} is {found} bytes: 2 regions of {region} buffers and {SEGMENTS_PER_EXCHANGE_MIN} more are {} buffers, and a \
                 slot has {buffers}",
                keys::TM_RECORD,
                2 * region + SEGMENTS_PER_EXCHANGE_MIN
            ),
            Reason::RecordSize { found, room: None } => {
                format!("{} is {found} bytes, expected at most {NATIVE_RECORD_BYTES_MAX}", keys::TM_RECORD)
            }
            Reason::SegmentSize { found, buffers: None } => {
                let bound = match self.profile {
                    Profile::Flink => "at least",
                    Profile::Native => "1 MiB or less and at least",
                };
                format!(
                    "{} is {found} bytes, expected a power of two of {bound} {SEGMENT_BYTES_MIN}",
                    keys::TM_SEGMENT
                )
            }
        }
    }
}

const _: () = assert!(NATIVE_SEGMENT_BYTES_MAX == 1 << 20, "the message above says so");

/// One sentence: whose plan, what was found and expected, and the smallest change that helps.
impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())?;
        if !self.parts.is_empty() {
            f.write_str(". Parts:")?;
            for (index, part) in self.parts.iter().enumerate() {
                let separator = if index == 0 { "" } else { "," };
                write!(f, "{separator} {} {}", part.component.title(), human(part.bytes))?;
            }
        }
        for (index, input) in self.inputs.iter().enumerate() {
            let lead = if index == 0 { ". From: " } else { ", " };
            write!(f, "{lead}{input}")?;
        }
        if let Some(change) = self.changes.first() {
            write!(f, ". The smallest change that fits: {change}")?;
        }
        match self.together.as_slice() {
            [first, second] => write!(f, ". Two changes that fit: {first}, and {second}"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for PlanError {}

/// The form in which a refusal is printed as JSON: `code`, `message`, `parts` (bytes by component), `inputs`, `changes`,
/// `together`.
impl Serialize for PlanError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("PlanError", 6)?;
        object.serialize_field("code", self.code())?;
        object.serialize_field("message", &self.to_string())?;
        object.serialize_field("parts", &ByName(&self.parts))?;
        object.serialize_field("inputs", &self.inputs)?;
        object.serialize_field("changes", &self.changes)?;
        object.serialize_field("together", &self.together)?;
        object.end()
    }
}

struct ByName<'a>(&'a [Part]);

impl Serialize for ByName<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|part| (part.component.json(), part.bytes)))
    }
}

/// A sum that may be larger than any size.
fn wide(bytes: u128) -> String {
    u64::try_from(bytes).map_or_else(|_| format!("{bytes} bytes"), human)
}
