//! Every key of the memory plan: its type, its default in both profiles, and what it means. Stateless.
//!
//! Names, types and defaults are Flink's where Flink has the key; keys that only the native profile knows say so. The
//! older spellings of the Flink.NET documents are aliases.
//!
//! Always: a key is listed once; no alias is a key; each key and alias has an environment variable of its own; the
//! default of a key can be read as the key's type.

use super::Profile;
use super::fraction;
use super::weights::Weights;
use crate::MemorySize;

/// `taskmanager.memory.process.size`
pub const TM_PROCESS: &str = "taskmanager.memory.process.size";
/// `taskmanager.memory.flink.size`
pub const TM_FLINK: &str = "taskmanager.memory.flink.size";
/// `taskmanager.memory.framework.heap.size`
pub const TM_FRAMEWORK_HEAP: &str = "taskmanager.memory.framework.heap.size";
/// `taskmanager.memory.framework.off-heap.size`
pub const TM_FRAMEWORK_OFF_HEAP: &str = "taskmanager.memory.framework.off-heap.size";
/// `taskmanager.memory.framework.off-heap.batch-shuffle.size`
pub const TM_BATCH_SHUFFLE: &str = "taskmanager.memory.framework.off-heap.batch-shuffle.size";
/// `taskmanager.memory.task.heap.size`
pub const TM_TASK_HEAP: &str = "taskmanager.memory.task.heap.size";
/// `taskmanager.memory.task.heap.min`
pub const TM_TASK_HEAP_MIN: &str = "taskmanager.memory.task.heap.min";
/// `taskmanager.memory.task.off-heap.size`
pub const TM_TASK_OFF_HEAP: &str = "taskmanager.memory.task.off-heap.size";
/// `taskmanager.memory.managed.size`
pub const TM_MANAGED: &str = "taskmanager.memory.managed.size";
/// `taskmanager.memory.managed.fraction`
pub const TM_MANAGED_FRACTION: &str = "taskmanager.memory.managed.fraction";
/// `taskmanager.memory.managed.consumer-weights`
pub const TM_WEIGHTS: &str = "taskmanager.memory.managed.consumer-weights";
/// `taskmanager.memory.network.min`
pub const TM_NETWORK_MIN: &str = "taskmanager.memory.network.min";
/// `taskmanager.memory.network.max`
pub const TM_NETWORK_MAX: &str = "taskmanager.memory.network.max";
/// `taskmanager.memory.network.fraction`
pub const TM_NETWORK_FRACTION: &str = "taskmanager.memory.network.fraction";
/// `taskmanager.memory.jvm-metaspace.size`
pub const TM_METASPACE: &str = "taskmanager.memory.jvm-metaspace.size";
/// `taskmanager.memory.jvm-overhead.min`
pub const TM_OVERHEAD_MIN: &str = "taskmanager.memory.jvm-overhead.min";
/// `taskmanager.memory.jvm-overhead.max`
pub const TM_OVERHEAD_MAX: &str = "taskmanager.memory.jvm-overhead.max";
/// `taskmanager.memory.jvm-overhead.fraction`
pub const TM_OVERHEAD_FRACTION: &str = "taskmanager.memory.jvm-overhead.fraction";
/// `taskmanager.memory.segment-size`
pub const TM_SEGMENT: &str = "taskmanager.memory.segment-size";
/// `taskmanager.memory.min-segment-size`
pub const TM_SEGMENT_MIN: &str = "taskmanager.memory.min-segment-size";
/// `taskmanager.memory.starting-segment-size`
pub const TM_SEGMENT_START: &str = "taskmanager.memory.starting-segment-size";
/// `taskmanager.numberOfTaskSlots`
pub const TM_SLOTS: &str = "taskmanager.numberOfTaskSlots";
/// `taskmanager.network.links-per-slot`
pub const TM_LINKS: &str = "taskmanager.network.links-per-slot";
/// `taskmanager.network.max-record-size`
pub const TM_RECORD: &str = "taskmanager.network.max-record-size";
/// `jobmanager.memory.process.size`
pub const JM_PROCESS: &str = "jobmanager.memory.process.size";
/// `jobmanager.memory.flink.size`
pub const JM_FLINK: &str = "jobmanager.memory.flink.size";
/// `jobmanager.memory.heap.size`
pub const JM_HEAP: &str = "jobmanager.memory.heap.size";
/// `jobmanager.memory.off-heap.size`
pub const JM_OFF_HEAP: &str = "jobmanager.memory.off-heap.size";
/// `jobmanager.memory.enable-jvm-direct-memory-limit`
pub const JM_DIRECT_LIMIT: &str = "jobmanager.memory.enable-jvm-direct-memory-limit";
/// `jobmanager.memory.network.size`
pub const JM_NETWORK: &str = "jobmanager.memory.network.size";
/// `jobmanager.memory.checkpoint-metadata.size`
pub const JM_METADATA: &str = "jobmanager.memory.checkpoint-metadata.size";
/// `jobmanager.memory.jvm-metaspace.size`
pub const JM_METASPACE: &str = "jobmanager.memory.jvm-metaspace.size";
/// `jobmanager.memory.jvm-overhead.min`
pub const JM_OVERHEAD_MIN: &str = "jobmanager.memory.jvm-overhead.min";
/// `jobmanager.memory.jvm-overhead.max`
pub const JM_OVERHEAD_MAX: &str = "jobmanager.memory.jvm-overhead.max";
/// `jobmanager.memory.jvm-overhead.fraction`
pub const JM_OVERHEAD_FRACTION: &str = "jobmanager.memory.jvm-overhead.fraction";

/// What the value of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes: a whole number and a unit.
    Size,
    /// A number from 0 to below 1.
    Fraction,
    /// A whole number.
    Count,
    /// `CONSUMER:weight` pairs.
    Weights,
    /// `true` or `false`.
    Switch,
    /// A time: a whole number and a unit.
    Duration,
    /// Any text.
    Text,
}

impl Kind {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Fraction => "fraction",
            Self::Count => "whole number",
            Self::Weights => "weights",
            Self::Switch => "true or false",
            Self::Duration => "time",
            Self::Text => "text",
        }
    }

    /// Whether a text can be read as such a value. Times are for the parts of a process that have them to read.
    pub fn accepts(self, text: &str) -> bool {
        match self {
            Self::Size => text.parse::<MemorySize>().is_ok(),
            Self::Fraction => fraction::parse(text).is_some_and(|value| (0.0..1.0).contains(&value)),
            Self::Count => text.parse::<u32>().is_ok_and(|count| count >= 1),
            Self::Weights => Weights::parse(text).is_ok(),
            Self::Switch => matches!(text.trim().to_ascii_lowercase().as_str(), "true" | "false"),
            Self::Duration | Self::Text => true,
        }
    }
}

/// What holds where a key is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Nothing: the plan derives a value or does without.
    None,
    /// This text.
    Text(&'static str),
    /// A number computed from slots, links or the load; the text says how.
    Stated(&'static str),
}

/// In which profile a key has a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In both.
    Both,
    /// In the profile `flink`; the native one warns that it has no effect.
    Flink,
    /// In the native profile; the profile `flink` warns that it has no effect.
    Native,
}

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The key.
    pub key: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// Where it has a meaning.
    pub scope: Scope,
    /// What holds by default in the profile `flink`.
    pub flink: Preset,
    /// What holds by default in the native profile.
    pub native: Preset,
    /// What it means.
    pub meaning: &'static str,
}

impl Known {
    /// Whether the key means something in `profile`.
    pub const fn applies(&self, profile: Profile) -> bool {
        !matches!((self.scope, profile), (Scope::Flink, Profile::Native) | (Scope::Native, Profile::Flink))
    }

    /// What holds where the key is not set.
    pub const fn preset(&self, profile: Profile) -> Preset {
        match profile {
            Profile::Flink => self.flink,
            Profile::Native => self.native,
        }
    }

    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        variable(self.key)
    }
}

/// The environment variable of a key: `TIDEGATE_`, then the key in capitals, with `_` for `.` and `-` and between the words
/// of a name written like `numberOfTaskSlots`.
pub fn variable(key: &str) -> String {
    let mut name = String::from("TIDEGATE_");
    let mut low = false;
    for character in key.chars() {
        if character.is_ascii_uppercase() && low {
            name.push('_');
        }
        low = character.is_ascii_lowercase() || character.is_ascii_digit();
        name.push(if matches!(character, '.' | '-') { '_' } else { character.to_ascii_uppercase() });
    }
    name
}

/// A spelling of the Flink.NET documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The spelling.
    pub spelled: &'static str,
    /// The keys that get its value.
    pub keys: &'static [&'static str],
    /// Why these.
    pub why: &'static str,
}

/// Every alias.
pub const ALIASES: &[Alias] = &[
    Alias {
        spelled: "taskmanager.process.memory.size",
        keys: &[TM_PROCESS],
        why: "the whole process, what a pod requests; only the order of the words differs",
    },
    Alias {
        spelled: "taskmanager.heap.memory.size",
        keys: &[TM_TASK_HEAP],
        why: "the documents mean the memory of user code; the framework's heap has an alias of its own",
    },
    Alias {
        spelled: "taskmanager.network.memory.size",
        keys: &[TM_NETWORK_MIN, TM_NETWORK_MAX],
        why: "an exact size: equal bounds pin the network memory",
    },
    Alias {
        spelled: "taskmanager.state.memory.size",
        keys: &[TM_MANAGED],
        why: "the memory of operator state is what Flink calls managed memory",
    },
    Alias {
        spelled: "taskmanager.framework.memory.size",
        keys: &[TM_FRAMEWORK_HEAP],
        why: "the runtime's own objects; off-heap buffers keep their default, which is stated from slots and links",
    },
    Alias {
        spelled: "jobmanager.process.memory.size",
        keys: &[JM_PROCESS],
        why: "the whole process, what a pod requests; only the order of the words differs",
    },
    Alias {
        spelled: "jobmanager.heap.memory.size",
        keys: &[JM_HEAP],
        why: "the same component; only the order of the words differs",
    },
    Alias {
        spelled: "jobmanager.offheap.memory.size",
        keys: &[JM_OFF_HEAP],
        why: "the same component; only the order of the words differs",
    },
    Alias {
        spelled: "jobmanager.network.memory.size",
        keys: &[JM_NETWORK],
        why: "the part of the off-heap memory that control messages use; Flink's JobManager has no such component",
    },
];

const fn key(
    key: &'static str,
    kind: Kind,
    scope: Scope,
    (flink, native): (Preset, Preset),
    meaning: &'static str,
) -> Known {
    Known { key, kind, scope, flink, native, meaning }
}

const fn same(text: &'static str) -> (Preset, Preset) {
    (Preset::Text(text), Preset::Text(text))
}

const fn differ(flink: &'static str, native: &'static str) -> (Preset, Preset) {
    (Preset::Text(flink), Preset::Text(native))
}

const NONE: (Preset, Preset) = (Preset::None, Preset::None);

/// Every key of the plan, TaskManager first, from the whole to its parts.
pub const KEYS: &[Known] = &[
    key(
        TM_PROCESS,
        Kind::Size,
        Scope::Both,
        (
            Preset::None,
            Preset::Stated("4g, or less where the host is small, unless flink.size or the parts are set"),
        ),
        "Total process memory of a TaskManager: the memory of its pod.",
    ),
    key(
        TM_FLINK,
        Kind::Size,
        Scope::Both,
        NONE,
        "Total flink memory of a TaskManager: the process without metaspace and overhead.",
    ),
    key(
        TM_FRAMEWORK_HEAP,
        Kind::Size,
        Scope::Both,
        differ("128m", "32m"),
        "Heap of the runtime itself: tables, metrics, messages.",
    ),
    key(
        TM_FRAMEWORK_OFF_HEAP,
        Kind::Size,
        Scope::Both,
        (
            Preset::Text("128m"),
            Preset::Stated("rings, links, staging and file buffers, control messages, from slots and links"),
        ),
        "Off-heap memory of the runtime itself: rings, manifests, staging and control buffers.",
    ),
    key(
        TM_BATCH_SHUFFLE,
        Kind::Size,
        Scope::Flink,
        same("64m"),
        "Part of the framework's off-heap memory that batch shuffles read through.",
    ),
    key(
        TM_TASK_HEAP,
        Kind::Size,
        Scope::Both,
        NONE,
        "Heap of user code. Unset: what the other parts leave. Set: the network gets the remainder.",
    ),
    key(
        TM_TASK_HEAP_MIN,
        Kind::Size,
        Scope::Native,
        (Preset::None, Preset::Stated("8 MiB a slot, at least 16 MiB")),
        "Least task heap that a plan may come to; less is refused.",
    ),
    key(
        TM_TASK_OFF_HEAP,
        Kind::Size,
        Scope::Both,
        same("0b"),
        "Memory outside the heap that user code asks its context for.",
    ),
    key(
        TM_MANAGED,
        Kind::Size,
        Scope::Both,
        NONE,
        "Managed memory: keyed state, sorting, caches, spill. Wins over the fraction.",
    ),
    key(
        TM_MANAGED_FRACTION,
        Kind::Fraction,
        Scope::Both,
        same("0.4"),
        "Managed memory as a fraction of total flink memory.",
    ),
    key(
        TM_WEIGHTS,
        Kind::Weights,
        Scope::Both,
        same("OPERATOR:70,STATE_BACKEND:70,PYTHON:30"),
        "How the kinds of consumers that are present in a slot share its managed memory.",
    ),
    key(
        TM_NETWORK_MIN,
        Kind::Size,
        Scope::Both,
        differ("64m", "16m"),
        "Least network memory: the arena that records travel in.",
    ),
    key(
        TM_NETWORK_MAX,
        Kind::Size,
        Scope::Both,
        (
            Preset::Text("9223372036854775807b"),
            Preset::Stated("1 GiB a slot, the most that one registered shard may have"),
        ),
        "Most network memory. Equal to the least, it pins the size.",
    ),
    key(
        TM_NETWORK_FRACTION,
        Kind::Fraction,
        Scope::Both,
        same("0.1"),
        "Network memory as a fraction of total flink memory.",
    ),
    key(
        TM_METASPACE,
        Kind::Size,
        Scope::Flink,
        differ("256m", "0b"),
        "Metaspace of the JVM. There is none in a native process.",
    ),
    key(
        TM_OVERHEAD_MIN,
        Kind::Size,
        Scope::Both,
        (Preset::Text("192m"), Preset::Stated("code, stacks, sockets and allocator slack, at least 64 MiB")),
        "Least overhead: what is in the process but in none of its heaps and buffers.",
    ),
    key(
        TM_OVERHEAD_MAX,
        Kind::Size,
        Scope::Both,
        (Preset::Text("1g"), Preset::Stated("1 GiB, or the least where that is more")),
        "Most overhead.",
    ),
    key(
        TM_OVERHEAD_FRACTION,
        Kind::Fraction,
        Scope::Both,
        same("0.1"),
        "Overhead as a fraction of total process memory.",
    ),
    key(
        TM_SEGMENT,
        Kind::Size,
        Scope::Both,
        same("32k"),
        "Size of a network buffer: a power of two of at least 4 KiB (natively at most 1 MiB).",
    ),
    key(
        TM_SEGMENT_MIN,
        Kind::Size,
        Scope::Flink,
        same("256b"),
        "Least bytes that debloating leaves of a buffer.",
    ),
    key(
        TM_SEGMENT_START,
        Kind::Size,
        Scope::Flink,
        same("1024b"),
        "Bytes of a buffer that debloating begins with.",
    ),
    key(
        TM_SLOTS,
        Kind::Count,
        Scope::Both,
        same("1"),
        "Slots of a TaskManager; each resource is divided evenly between them.",
    ),
    key(
        TM_LINKS,
        Kind::Count,
        Scope::Native,
        (Preset::None, Preset::Text("32")),
        "Connections to other slots that the plan provides for, each slot.",
    ),
    key(
        TM_RECORD,
        Kind::Size,
        Scope::Native,
        (
            Preset::None,
            Preset::Stated("a 64th of a slot's network memory, as a power of two of at most 16 MiB"),
        ),
        "Largest record. What is above a segment takes a region of that size for each edge into and out of a slot.",
    ),
    key(
        JM_PROCESS,
        Kind::Size,
        Scope::Both,
        (
            Preset::None,
            Preset::Stated("1600m, or less where the host is small, unless flink.size or heap.size is set"),
        ),
        "Total process memory of a JobManager: the memory of its pod.",
    ),
    key(
        JM_FLINK,
        Kind::Size,
        Scope::Both,
        NONE,
        "Total flink memory of a JobManager: the process without metaspace and overhead.",
    ),
    key(
        JM_HEAP,
        Kind::Size,
        Scope::Both,
        NONE,
        "Heap of the JobManager: job graphs, subtasks, checkpoints under way.",
    ),
    key(
        JM_OFF_HEAP,
        Kind::Size,
        Scope::Both,
        (Preset::Text("128m"), Preset::Stated("network and checkpoint metadata together")),
        "Memory of the JobManager outside its heap.",
    ),
    key(
        JM_DIRECT_LIMIT,
        Kind::Switch,
        Scope::Flink,
        same("false"),
        "Whether a JVM limits its direct memory to the off-heap size.",
    ),
    key(
        JM_NETWORK,
        Kind::Size,
        Scope::Native,
        (Preset::None, Preset::Text("64m")),
        "Part of the off-heap memory for control messages to and from TaskManagers and clients.",
    ),
    key(
        JM_METADATA,
        Kind::Size,
        Scope::Native,
        (Preset::None, Preset::Text("64m")),
        "Part of the off-heap memory for checkpoint metadata while it is written and read.",
    ),
    key(
        JM_METASPACE,
        Kind::Size,
        Scope::Flink,
        differ("256m", "0b"),
        "Metaspace of the JVM. There is none in a native process.",
    ),
    key(
        JM_OVERHEAD_MIN,
        Kind::Size,
        Scope::Both,
        (Preset::Text("192m"), Preset::Stated("code, stacks, sockets and allocator slack, at least 64 MiB")),
        "Least overhead: what is in the process but in none of its heaps and buffers.",
    ),
    key(
        JM_OVERHEAD_MAX,
        Kind::Size,
        Scope::Both,
        (Preset::Text("1g"), Preset::Stated("1 GiB, or the least where that is more")),
        "Most overhead.",
    ),
    key(
        JM_OVERHEAD_FRACTION,
        Kind::Fraction,
        Scope::Both,
        same("0.1"),
        "Overhead as a fraction of total process memory.",
    ),
];

/// The entry of a key; the plan itself reads only keys that are listed.
pub(super) fn known(key: &str) -> Option<&'static Known> {
    KEYS.iter().find(|known| known.key == key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_aliases_and_variables_are_unique() {
        let keys = KEYS.iter().map(|known| known.key);
        let names: Vec<&str> = keys.chain(ALIASES.iter().map(|alias| alias.spelled)).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        let variables: BTreeSet<String> = names.iter().map(|name| variable(name)).collect();
        assert_eq!(variables.len(), names.len());
        assert!(ALIASES.iter().all(|alias| alias.keys.iter().all(|key| known(key).is_some())));
        assert_eq!(variable(TM_SLOTS), "TIDEGATE_TASKMANAGER_NUMBER_OF_TASK_SLOTS");
        assert_eq!(variable(TM_FRAMEWORK_OFF_HEAP), "TIDEGATE_TASKMANAGER_MEMORY_FRAMEWORK_OFF_HEAP_SIZE");
    }

    #[test]
    fn defaults_can_be_read() {
        for known in KEYS {
            for preset in [known.flink, known.native] {
                let Preset::Text(text) = preset else { continue };
                assert!(known.kind.accepts(text), "{} = {text}", known.key);
            }
        }
    }
}
