//! Sinks: where records leave a job, and how they become visible exactly once.
//!
//! A `Sink` is a description, cloned into every subtask; its `SinkWriter` lives in one task. Two phases: at the
//! barrier the writer cuts what it has (`cut`), then it is asked until its files are safe (`prepare_commit`); the
//! committables travel in the checkpoint, and whoever completes it renames the files. Always: an item written
//! before `cut(n)` is in a committable of a checkpoint ≤ n, one written after it is not.

use tidegate_graph::{PENDING, PendingFolder};

use crate::context::{RuntimeContext, Waker};
use crate::error::TaskError;
use crate::files::{FileEvent, Files};

/// A sink, as a job describes it. `In` is what its writer sees: a value or an archived view.
pub trait Sink<In: ?Sized>: Clone + Send + 'static {
    /// One instance of it.
    type Writer: SinkWriter<In>;

    /// The folders that its files go to; none if it writes no files. They are checked when the job is submitted, and other
    /// attempts are kept out of them. Given for change: a path becomes plain, and absolute if the job's folder is known,
    /// before the sink is used.
    fn outputs(&mut self) -> Vec<&mut String>;

    /// Makes the writer of one subtask. Called on the slot thread: must not block.
    fn open(&self, context: &SinkContext<'_>) -> Result<Self::Writer, TaskError>;
}

/// What a sink learns when a subtask of it is opened.
pub struct SinkContext<'a> {
    /// Subtask, parallelism, epoch, attempt, counters.
    pub runtime: &'a RuntimeContext,
    /// Inline states to go on from, as `Prepared::Ready` carried them; as with source positions.
    pub states: &'a [Vec<u8>],
    /// Wakes this task after `ready` said no for a reason other than file buffers.
    pub waker: Waker,
}

impl SinkContext<'_> {
    /// The folder under the sink's output folder that only this attempt writes to:
    /// `_pending/<job>-e<epoch>-a<attempt>`.
    pub fn pending_folder(&self) -> String {
        let RuntimeContext { job, epoch, attempt, .. } = *self.runtime;
        format!("{PENDING}/{}", PendingFolder { job, epoch, attempt })
    }
}

/// A file that waits for its checkpoint: renamed from `pending` to `target` once that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committable {
    /// Where it is.
    pub pending: String,
    /// Where it belongs.
    pub target: String,
    /// Its length in bytes.
    pub len: u64,
    /// xxh3 (64 bit) of its bytes.
    pub hash: u64,
}

/// The answer of `SinkWriter::prepare_commit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// Files are still being written or synced: ask again after the next file event (or wake).
    Pending,
    /// All is safe.
    Ready {
        /// What to hand to `Sink::open` after a restore, at most `INLINE_STATE_MAX` bytes.
        state: Vec<u8>,
        /// What to rename when the checkpoint is complete.
        committables: Vec<Committable>,
    },
}

/// One instance of a sink.
pub trait SinkWriter<In: ?Sized>: Send + 'static {
    /// Whether one worst-case item (`SINK_ITEM_MAX` bytes for file sinks) can be written now. Called before every
    /// item, so keep the common path to a compare. If false, the task parks until a file buffer is free or the
    /// waker is called.
    fn ready(&mut self, files: &mut dyn Files) -> bool;

    /// Writes one item; only called after `ready` said yes.
    fn write(&mut self, item: &In, files: &mut dyn Files) -> Result<(), TaskError>;

    /// The barrier of `checkpoint`: what was written until now belongs to it, what follows does not.
    fn cut(&mut self, checkpoint: u64, files: &mut dyn Files) -> Result<(), TaskError>;

    /// What `checkpoint` has to remember of this writer. Asked after `cut` until it is `Ready`; called once more
    /// after each file event.
    fn prepare_commit(&mut self, checkpoint: u64, files: &mut dyn Files) -> Result<Prepared, TaskError>;

    /// Something happened to a file; not necessarily one of this writer's.
    fn file_event(&mut self, event: &FileEvent) -> Result<(), TaskError> {
        let _ = event;
        Ok(())
    }

    /// That checkpoint is complete and its files are committed.
    fn notify(&mut self, checkpoint: u64) {
        let _ = checkpoint;
    }

    /// That checkpoint will never complete: what was cut for it belongs to the next one.
    fn abort(&mut self, checkpoint: u64) {
        let _ = checkpoint;
    }

    /// The task ends (finished, cancelled or failed, even by a panic): give files and buffers back.
    fn close(&mut self, files: &mut dyn Files) {
        let _ = files;
    }
}
