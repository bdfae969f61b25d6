//! What a completed checkpoint is, on disk: one self-contained object that names every other.
//!
//! Values only; nobody changes one after it is published. Always: a decoded `Metadata` belongs to the job and
//! id under whose name it was read; every object and slice has a length and an XXH3-64 hash; the group slices of
//! an object fill it without a gap and name each group once. The encoding is an rkyv archive behind [`crate::frame`]'s header.

use crate::frame::{Damage, FrameKind, open, seal};
use crate::limits::{INLINE_STATE_BYTES_MAX, METADATA_BYTES_MAX};
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeSet;
use tidegate_graph::{PendingFolder, is_plain_path};

/// One parallel instance of a vertex.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    /// Id of the vertex.
    pub vertex: u32,
    /// Index of the subtask.
    pub subtask: u32,
}

/// How barriers met.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// Tasks waited for the barrier on every channel; no data in flight is part of the checkpoint.
    Aligned,
}

/// A completed checkpoint.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The job.
    pub job: u128,
    /// Leadership under which it was taken.
    pub epoch: u64,
    /// Attempt that took it.
    pub attempt: u32,
    /// Its number; larger than every earlier one of the job.
    pub id: u64,
    /// Checkpoint that the attempt was restored from.
    pub base: Option<u64>,
    /// Name of the job.
    pub job_name: String,
    /// Arguments of the job.
    pub args: Vec<String>,
    /// Parallelism asked for.
    pub parallelism: u32,
    /// Fingerprint of the graph.
    pub graph_fingerprint: u64,
    /// Fingerprint of the executable.
    pub binary_fingerprint: u64,
    /// When it was triggered, in milliseconds since 1970.
    pub triggered_ms: u64,
    /// When the last acknowledgement came, in milliseconds since 1970.
    pub completed_ms: u64,
    /// How barriers met.
    pub alignment: Alignment,
    /// Nothing follows: every task had seen the end of its input.
    pub last: bool,
    /// The operators of the graph.
    pub operators: Vec<OperatorInfo>,
    /// One part for each task.
    pub tasks: Vec<TaskPart>,
}

/// An operator of the graph.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct OperatorInfo {
    /// Stable id.
    pub operator: u64,
    /// Name, for people.
    pub name: String,
    /// Its vertex.
    pub vertex: u32,
    /// Subtasks.
    pub parallelism: u32,
    /// Key groups.
    pub max_parallelism: u32,
}

/// What one task contributed.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct TaskPart {
    /// The task.
    pub task: Task,
    /// It had seen the end of its input and flushed.
    pub finished: bool,
    /// From the first barrier to the last, in nanoseconds.
    pub alignment_ns: u64,
    /// Bytes of state, inline ones included.
    pub bytes: u64,
    /// Its operators.
    pub operators: Vec<OperatorPart>,
}

/// State of one operator of one task.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct OperatorPart {
    /// Stable id.
    pub operator: u64,
    /// Small state that travels itself.
    pub inline: Vec<u8>,
    /// The state object, if any.
    pub object: Option<Object>,
    /// Key groups within the object; see [`GroupSlice`].
    pub groups: Vec<GroupSlice>,
    /// Output files that become visible with the checkpoint.
    pub committables: Vec<Committable>,
    /// Fingerprint of the state's schema.
    pub schema: u64,
}

/// A state object in the store.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Path relative to the store, with `/`.
    pub path: String,
    /// Length in bytes.
    pub len: u64,
    /// XXH3-64 of all bytes.
    pub hash: u64,
}

/// One key group within an object.
///
/// The slices of an object name each group at most once and, by offset, follow each other from its first byte to
/// its last. Their order says nothing: a group that records touch while a snapshot is under way is written before
/// its turn.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSlice {
    /// The key group.
    pub group: u32,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// XXH3-64 of the slice.
    pub hash: u64,
}

/// An output file that becomes visible when its checkpoint completes.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Committable {
    /// Where it lies: `OUT/_pending/<job>-e<epoch>-a<attempt>/<file>`.
    pub pending: String,
    /// Where it belongs, below `OUT`.
    pub target: String,
    /// Length in bytes.
    pub len: u64,
    /// XXH3-64 of the file.
    pub hash: u64,
}

/// The output files of one checkpoint, kept beside its metadata so that they can be taken back even when the
/// metadata is damaged.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// The job.
    pub job: u128,
    /// Leadership under which the checkpoint was taken.
    pub epoch: u64,
    /// The checkpoint.
    pub id: u64,
    /// The files.
    pub files: Vec<Committable>,
}

impl Metadata {
    /// The bytes of the `_metadata` object.
    ///
    /// # Errors
    /// [`Damage::Content`] if it exceeds [`METADATA_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, Damage> {
        let body = rkyv::to_bytes::<rkyv::rancor::Error>(self).map_err(content)?;
        sized(FrameKind::Metadata, &body)
    }

    /// Reads a `_metadata` object of this job and id.
    ///
    /// # Errors
    /// [`Damage`], also when the content belongs to another job or checkpoint (a swapped file).
    pub fn decode(job: u128, id: u64, bytes: &[u8]) -> Result<Self, Damage> {
        let body = open(FrameKind::Metadata, bytes)?;
        let metadata: Metadata = rkyv::from_bytes::<_, rkyv::rancor::Error>(body).map_err(content)?;
        if (metadata.job, metadata.id) != (job, id) {
            return Err(Damage::Content(format!(
                "this is checkpoint {} of job {:032x}, expected {id} of {job:032x}: the file was swapped",
                metadata.id, metadata.job
            )));
        }
        Ok(metadata)
    }

    /// All state objects, each once.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.parts().filter_map(|part| part.object.as_ref())
    }

    /// All output files, in the order of tasks and operators.
    pub fn committables(&self) -> Vec<Committable> {
        self.parts().flat_map(|part| part.committables.iter().cloned()).collect()
    }

    /// Bytes of state of all tasks, as far as a number goes: each is what a TaskManager says.
    pub fn bytes(&self) -> u64 {
        self.tasks.iter().fold(0, |all, part| all.saturating_add(part.bytes))
    }

    fn parts(&self) -> impl Iterator<Item = &OperatorPart> {
        self.tasks.iter().flat_map(|task| task.operators.iter())
    }
}

impl Outputs {
    /// The bytes of the `_outputs` object.
    ///
    /// # Errors
    /// [`Damage::Content`] if it exceeds [`METADATA_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, Damage> {
        let body = rkyv::to_bytes::<rkyv::rancor::Error>(self).map_err(content)?;
        sized(FrameKind::Outputs, &body)
    }

    /// Reads an `_outputs` object of this job and checkpoint.
    ///
    /// # Errors
    /// [`Damage`].
    pub fn decode(job: u128, id: u64, bytes: &[u8]) -> Result<Self, Damage> {
        let body = open(FrameKind::Outputs, bytes)?;
        let outputs: Outputs = rkyv::from_bytes::<_, rkyv::rancor::Error>(body).map_err(content)?;
        if (outputs.job, outputs.id) != (job, id) {
            return Err(Damage::Content(format!("outputs of checkpoint {}, expected {id}", outputs.id)));
        }
        Ok(outputs)
    }
}

impl TaskPart {
    /// Checks what a TaskManager says about its part of checkpoint `id` before it counts. `known` are the
    /// operators of the job.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the acknowledgement.
    pub fn check(&self, job: u128, id: u64, known: &[OperatorInfo]) -> Result<(), String> {
        for part in &self.operators {
            let info = known.iter().find(|info| info.operator == part.operator);
            part.check(job, id, info).map_err(|e| format!("operator {:016x}: {e}", part.operator))?;
        }
        Ok(())
    }
}

impl OperatorPart {
    fn check(&self, job: u128, id: u64, info: Option<&OperatorInfo>) -> Result<(), String> {
        if self.inline.len() > INLINE_STATE_BYTES_MAX {
            return Err(format!(
                "inline state of {} bytes, at most {INLINE_STATE_BYTES_MAX} allowed",
                self.inline.len()
            ));
        }
        let len = self.object.as_ref().map_or(0, |object| object.len);
        if let Some(object) = &self.object {
            let prefix = format!("{}/", crate::layout::checkpoint_dir(job, id));
            if !object.path.starts_with(&prefix) || !is_plain_path(&object.path) {
                return Err(format!("object {:?} does not lie in {prefix}", object.path));
            }
        }
        check_slices(&self.groups, len, info.map_or(u32::MAX, |info| info.max_parallelism))?;
        self.committables.iter().try_for_each(|file| file.check(job))
    }
}

impl Committable {
    /// Output directory that the file belongs to: what stands before `/_pending/`.
    pub fn root(&self) -> Option<&str> {
        self.pending.rsplit_once("/_pending/").map(|(root, _)| root).filter(|root| !root.is_empty())
    }

    /// Checks the shape of both paths of a file of `job`.
    ///
    /// # Errors
    /// A sentence naming the path.
    pub fn check(&self, job: u128) -> Result<(), String> {
        let root =
            self.root().ok_or_else(|| format!("pending file {:?} is not below _pending", self.pending))?;
        let rest = &self.pending[root.len() + "/_pending/".len()..];
        let in_attempt = rest.split_once('/').is_some_and(|(dir, file)| {
            PendingFolder::parse(dir).is_some_and(|dir| dir.job == job) && !file.is_empty()
        });
        if !in_attempt {
            return Err(format!(
                "pending file {:?} is not in a directory of the job's attempts",
                self.pending
            ));
        }
        if let Some(path) = [&self.pending, &self.target].into_iter().find(|path| !is_plain_path(path)) {
            return Err(format!(
                "output file {path:?} has an empty, `.` or `..` component; give a plain path"
            ));
        }
        let below = self.target.strip_prefix(root).and_then(|rest| rest.strip_prefix('/'));
        if below.is_none_or(|rest| rest.is_empty() || rest.starts_with("_pending/")) {
            return Err(format!("target {:?} does not lie in {root:?}", self.target));
        }
        Ok(())
    }
}

/// The rule at [`GroupSlice`], for an object of `len` bytes and key groups below `groups`.
fn check_slices(slices: &[GroupSlice], len: u64, groups: u32) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    if let Some(slice) = slices.iter().find(|slice| slice.group >= groups || !seen.insert(slice.group)) {
        return Err(format!("key group {} is not below {groups}, or has two slices", slice.group));
    }
    let mut by_offset: Vec<&GroupSlice> = slices.iter().collect();
    by_offset.sort_unstable_by_key(|slice| (slice.offset, slice.len));
    let mut end = 0u64;
    for slice in by_offset {
        if slice.offset != end {
            let (group, at) = (slice.group, slice.offset);
            return Err(format!("key group {group} begins at byte {at}, expected {end}"));
        }
        end = end
            .checked_add(slice.len)
            .filter(|end| *end <= len)
            .ok_or_else(|| format!("key group {} lies outside its object of {len} bytes", slice.group))?;
    }
    if !slices.is_empty() && end != len {
        return Err(format!("the key groups end at byte {end} of an object of {len} bytes"));
    }
    Ok(())
}

fn sized(kind: FrameKind, body: &[u8]) -> Result<Vec<u8>, Damage> {
    if body.len() > METADATA_BYTES_MAX {
        return Err(Damage::Content(format!("{} bytes, at most {METADATA_BYTES_MAX} allowed", body.len())));
    }
    Ok(seal(kind, body))
}

fn content(error: rkyv::rancor::Error) -> Damage {
    Damage::Content(error.to_string())
}
