//! What tasks hand in for a checkpoint, and what they are restored from.
//!
//! Plain data, made by tasks, carried by the control plane. Always: the group slices of one operator ascend by group,
//! do not overlap and lie anywhere in the file; a file is named only after its receipt came.

use bytes::Bytes;

use crate::files::FileReceipt;
use crate::sink::Committable;

/// Everything one task has to remember for a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskSnapshot {
    /// Per operator with state; others are left out.
    pub operators: Vec<OperatorSnapshot>,
    /// All input was taken in and everything was emitted. A task restored from this must be told so
    /// (`TaskRestore::finished`), or it emits its last results twice.
    pub finished: bool,
    /// How long the gate waited between the first and the last barrier, in nanoseconds.
    pub alignment_ns: u64,
    /// State bytes written for this snapshot.
    pub bytes: u64,
}

/// What one operator instance has to remember.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorSnapshot {
    /// The operator's stable id.
    pub operator: u64,
    /// Source position or sink state, at most `INLINE_STATE_MAX` bytes; comes back as `StatePayload::meta`.
    pub inline: Vec<u8>,
    /// The keyed state's file; none if there is no state.
    pub file: Option<FileReceipt>,
    /// Where each non-empty key group lies in the file; sorted by group, not by place.
    pub groups: Vec<GroupSlice>,
    /// Files that become visible with the checkpoint.
    pub committables: Vec<Committable>,
    /// Fingerprint of key and state type; 0 without keyed state.
    pub schema: u64,
}

impl OperatorSnapshot {
    /// State bytes of it.
    pub fn bytes(&self) -> u64 {
        self.inline.len() as u64 + self.file.as_ref().map_or(0, |file| file.len)
    }
}

/// One key group in a state file. A slice can be read back alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSlice {
    /// The key group.
    pub group: u32,
    /// Where it starts in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// xxh3 (64 bit) of its bytes.
    pub hash: u64,
}

/// What a task goes on from. The bytes were fetched and verified already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskRestore {
    /// The checkpoint.
    pub checkpoint: u64,
    /// `TaskSnapshot::finished` of the subtask.
    pub finished: bool,
    /// Per operator with state.
    pub operators: Vec<OperatorRestore>,
}

/// What one operator instance goes on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorRestore {
    /// The operator's stable id.
    pub operator: u64,
    /// `OperatorSnapshot::schema`.
    pub schema: u64,
    /// One per earlier instance that is of interest to this one.
    pub payloads: Vec<StatePayload>,
}

/// State of one earlier instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatePayload {
    /// `OperatorSnapshot::inline`.
    pub meta: Vec<u8>,
    /// Group slices one behind the other, in any order: a whole state file or some slices of it.
    pub bytes: Bytes,
    /// Take only these groups (first, last) of `bytes`; none: all that the instance owns.
    pub groups: Option<(u32, u32)>,
}
