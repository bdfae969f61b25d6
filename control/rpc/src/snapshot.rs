//! A task's part of a checkpoint as it travels: names, lengths and hashes, never the state itself.
//!
//! Hashes are XXH3-64. Paths of state objects are relative to the checkpoint store and use `/`; paths of
//! committables are absolute. Always: `inline` is at most `limits::INLINE_STATE_BYTES_MAX`; group slices are
//! sorted by group, do not overlap and lie within the file, there in any order.

use serde::{Deserialize, Serialize};

/// Everything one task contributes to a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSnapshot {
    /// Its operators, in chain order.
    pub operators: Vec<OperatorSnapshot>,
    /// The task had seen all of its input (end of data) and flushed it when it took this snapshot: a
    /// checkpoint in which every task says so is the last one.
    pub finished: bool,
    /// From the first barrier to the last, in nanoseconds.
    pub alignment_ns: u64,
    /// Bytes of state written, inline ones included.
    pub bytes: u64,
}

/// One operator's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorSnapshot {
    /// Stable id of the operator.
    pub operator: u64,
    /// Small state that travels itself (source positions).
    pub inline: Vec<u8>,
    /// The state object, if there is any.
    pub file: Option<FileReceipt>,
    /// Key groups within the object, sorted by group; a state is written while records change it, so offsets need not
    /// ascend with them.
    pub groups: Vec<GroupSlice>,
    /// Output files to be made visible when the checkpoint completes.
    pub committables: Vec<Committable>,
    /// Fingerprint of the state's schema.
    pub schema: u64,
}

/// An object that is on disk, synced, its directory too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReceipt {
    /// Path relative to the checkpoint store.
    pub path: String,
    /// Length in bytes.
    pub len: u64,
    /// XXH3-64 of the whole object.
    pub hash: u64,
}

/// One key group within a state object.
///
/// The slices of an object name each group at most once and, by offset, follow each other from its first byte to
/// its last. Their order says nothing: a group that records touch while a snapshot is under way is written before
/// its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSlice {
    /// The key group.
    pub group: u32,
    /// First byte in the object.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// XXH3-64 of the slice.
    pub hash: u64,
}

/// An output file that is complete and synced but not yet visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committable {
    /// Where it lies: `OUT/_pending/<job>-e<epoch>-a<attempt>/<file>`, absolute.
    pub pending: String,
    /// Where it belongs: `OUT/…/part-<subtask>-<counter>.csv`, absolute, in the same output directory.
    pub target: String,
    /// Length in bytes.
    pub len: u64,
    /// XXH3-64 of the file.
    pub hash: u64,
}
