//! Sources: where records enter a job, and how a position is remembered.
//!
//! A `Source` is a description, cloned into every subtask; its `SourceReader` lives in one task and is called by
//! the slot thread, so it never blocks: what must block goes through `pool`. Always: `position` describes exactly
//! the items that `next` has returned, no more and no less.

use crate::context::{RuntimeContext, Waker};
use crate::error::TaskError;
use crate::pool::ReaderPool;

/// A source, as a job describes it.
pub trait Source: Clone + Send + 'static {
    /// What it yields; functions see `&Item`.
    type Item: 'static;
    /// One instance of it.
    type Reader: SourceReader<Item = Self::Item>;

    /// Makes the reader of one subtask. Called on the slot thread: must not block (open files in the pool).
    fn open(&self, context: &SourceContext<'_>) -> Result<Self::Reader, TaskError>;
}

/// What a source learns when a subtask of it is opened.
pub struct SourceContext<'a> {
    /// Subtask, parallelism, attempt, counters.
    pub runtime: &'a RuntimeContext,
    /// Positions to go on from, as `SourceReader::position` wrote them: none on a fresh start, one after a
    /// restore, several (or none, see `runtime.restored`) after a restore with another parallelism.
    pub positions: &'a [Vec<u8>],
    /// Threads for what must block.
    pub pool: &'a ReaderPool,
    /// Wakes this task after `Next::Wait(Pause::External)`.
    pub waker: Waker,
}

/// What a reader has to say.
#[derive(Debug)]
pub enum Next<'a, T> {
    /// The next item.
    Item(&'a T),
    /// Nothing now.
    Wait(Pause),
    /// Nothing any more. Asked again, the reader answers the same.
    End,
}

/// What a reader waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Its waker.
    External,
    /// A time on the slot's monotonic clock, in nanoseconds. It is stepped then, or a wake-up of its thread later.
    Until(u64),
    /// The same without that wake-up: the slot does not sleep any more shortly before
    /// ([`PUNCTUAL_LEAD_NS`](crate::limits::PUNCTUAL_LEAD_NS)), which costs that much processor time each time, whatever
    /// [`Spin`](crate::slot::Spin) says. For who keeps a schedule. As exact as the slot is idle: another task's step is not
    /// interrupted.
    Punctual(u64),
}

/// One instance of a source.
pub trait SourceReader: Send + 'static {
    /// What it yields.
    type Item: 'static;

    /// The next item, or why there is none. `now_ns` is the slot's clock, read once per quantum.
    fn next(&mut self, now_ns: u64) -> Result<Next<'_, Self::Item>, TaskError>;

    /// Appends the position behind the last item returned, at most `INLINE_STATE_MAX` bytes.
    fn position(&self, out: &mut Vec<u8>) -> Result<(), TaskError>;

    /// That checkpoint is complete: what lies before its position is never asked for again.
    fn notify(&mut self, checkpoint: u64) {
        let _ = checkpoint;
    }

    /// The task ends (finished, cancelled or failed, even by a panic).
    fn close(&mut self) {}
}
