//! What is odd about a plan that holds: what Flink accepts in silence, and keys that do nothing. Stateless.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::component::human;
use super::keys;
use super::origin::Origin;

/// Something to look at.
#[derive(Clone, Debug, PartialEq)]
pub enum Warning {
    /// The task heap cannot hold a job.
    TinyTaskHeap {
        /// It.
        bytes: u64,
        /// What is recommended at least.
        recommended: u64,
    },
    /// The heap of a JobManager is below what is recommended.
    TinyHeap {
        /// It.
        bytes: u64,
        /// What is recommended at least.
        recommended: u64,
    },
    /// The network is what other settings leave, and not the fraction that it would be otherwise.
    NetworkIsRemainder {
        /// It.
        bytes: u64,
        /// What the fraction would give, within its bounds.
        by_fraction: u64,
    },
    /// The overhead is what other settings leave, and not the fraction that was configured.
    OverheadIsRemainder {
        /// It.
        bytes: u64,
        /// What the fraction would give.
        by_fraction: u64,
    },
    /// A slot has fewer network buffers than one exchange between two slots needs.
    FewBuffers {
        /// Buffers of a slot.
        buffers: u64,
        /// What is needed at least.
        needed: u64,
    },
    /// A metaspace is configured, but there is no JVM.
    MetaspaceWithoutJvm {
        /// As it was written.
        value: String,
        /// Where.
        origin: Origin,
    },
    /// A key is set, but nothing depends on it.
    WithoutEffect {
        /// The key.
        key: &'static str,
        /// Where.
        origin: Origin,
        /// Why.
        why: &'static str,
    },
    /// A value that nothing read cannot be read.
    Malformed {
        /// The key.
        key: &'static str,
        /// Where.
        origin: Origin,
        /// What is expected.
        expected: &'static str,
    },
    /// A configured component is less than what the runtime is known to need.
    BelowStated {
        /// Which, for people.
        component: &'static str,
        /// Its bytes.
        bytes: u64,
        /// What is needed.
        stated: u64,
    },
    /// The network memory of a slot is more than a ring can register.
    LargeShard {
        /// Bytes of a slot.
        bytes: u64,
        /// What can be registered.
        most: u64,
    },
    /// Batch shuffles read through more memory than the framework's off-heap component has.
    BatchShuffleTooLarge {
        /// The memory of batch shuffles.
        bytes: u64,
        /// The component.
        framework_off_heap: u64,
    },
    /// A weight for a kind of consumer that does not exist.
    UnknownConsumer {
        /// Its name.
        name: String,
    },
}

impl Warning {
    /// A name for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TinyTaskHeap { .. } => "tiny-task-heap",
            Self::TinyHeap { .. } => "tiny-heap",
            Self::NetworkIsRemainder { .. } => "network-is-remainder",
            Self::OverheadIsRemainder { .. } => "overhead-is-remainder",
            Self::FewBuffers { .. } => "few-buffers",
            Self::MetaspaceWithoutJvm { .. } => "metaspace-without-jvm",
            Self::WithoutEffect { .. } => "without-effect",
            Self::Malformed { .. } => "malformed",
            Self::BelowStated { .. } => "below-stated",
            Self::LargeShard { .. } => "large-shard",
            Self::BatchShuffleTooLarge { .. } => "batch-shuffle-too-large",
            Self::UnknownConsumer { .. } => "unknown-consumer",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TinyTaskHeap { bytes, recommended } => write!(
                f,
                "the task heap is {}, which no job fits in; give it {} or more",
                human(*bytes),
                human(*recommended)
            ),
            Self::TinyHeap { bytes, recommended } => {
                write!(f, "the heap is {}, expected {} or more", human(*bytes), human(*recommended))
            }
            Self::NetworkIsRemainder { bytes, by_fraction } => write!(
                f,
                "the task heap is configured, so the network gets what is left, {}, instead of {} by its fraction; pin it \
                 with {} and {} if that is not meant",
                human(*bytes),
                human(*by_fraction),
                keys::TM_NETWORK_MIN,
                keys::TM_NETWORK_MAX
            ),
            Self::OverheadIsRemainder { bytes, by_fraction } => write!(
                f,
                "process and flink memory are configured, so the overhead is what is left, {}, instead of {} by its \
                 fraction",
                human(*bytes),
                human(*by_fraction)
            ),
            Self::FewBuffers { buffers, needed } => write!(
                f,
                "a slot has {buffers} network buffers, and the smallest exchange needs {needed}; raise {}",
                keys::TM_NETWORK_MIN
            ),
            Self::MetaspaceWithoutJvm { value, origin } => {
                write!(
                    f,
                    "a metaspace of {value} ({origin}) is configured, but there is no JVM; it is ignored"
                )
            }
            Self::WithoutEffect { key, origin, why } => write!(f, "{key} ({origin}) has no effect: {why}"),
            Self::Malformed { key, origin, expected } => {
                write!(f, "{key} ({origin}) was not needed, but is no {expected}")
            }
            Self::BelowStated { component, bytes, stated } => write!(
                f,
                "{component} is {}, but the runtime needs {} with these slots and links",
                human(*bytes),
                human(*stated)
            ),
            Self::LargeShard { bytes, most } => write!(
                f,
                "each slot gets {} of network memory, but at most {} can be registered; use more slots or lower {}",
                human(*bytes),
                human(*most),
                keys::TM_NETWORK_MAX
            ),
            Self::BatchShuffleTooLarge { bytes, framework_off_heap } => write!(
                f,
                "{} is {}, which must be less than the framework's off-heap memory, {}",
                keys::TM_BATCH_SHUFFLE,
                human(*bytes),
                human(*framework_off_heap)
            ),
            Self::UnknownConsumer { name } => {
                write!(
                    f,
                    "{} has a weight for {name}, which is no consumer of managed memory",
                    keys::TM_WEIGHTS
                )
            }
        }
    }
}

/// `code` and `message`.
impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Warning", 2)?;
        object.serialize_field("code", self.code())?;
        object.serialize_field("message", &self.to_string())?;
        object.end()
    }
}
