//! Stages of a task: what takes part in its life and its checkpoints, and what a task may wait for.
//!
//! Owns no state. Always: `cut` is followed by `snapshot` until it says something other than `Working` or `Waiting`, or by
//! `abort`; a stage adds its part to a snapshot exactly once.

use crate::context::OpenCx;
use crate::error::TaskError;
use crate::files::{FileEvent, FileTarget, Files};
use crate::slot::snapshot::OperatorSnapshot;
use crate::state::Progress;

/// What a task waits for; it is stepped again when any of it happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// Something to read at the gate.
    pub input: bool,
    /// Room in every partition.
    pub output: bool,
    /// File buffers, or a file event.
    pub memory: bool,
    /// The task's waker.
    pub external: bool,
    /// A time of the slot's clock.
    pub until_ns: Option<u64>,
    /// From this time on its slot does not sleep, so that a time that is waited for is met.
    pub awake_ns: Option<u64>,
}

impl Wait {
    /// For input.
    pub const INPUT: Wait = Wait { input: true, ..Wait::NOTHING };
    /// For output.
    pub const OUTPUT: Wait = Wait { output: true, ..Wait::NOTHING };
    /// For file buffers and file events.
    pub const MEMORY: Wait = Wait { memory: true, ..Wait::NOTHING };
    /// For what a sink waits for.
    pub const SINK: Wait = Wait { memory: true, external: true, ..Wait::NOTHING };
    /// For a command only.
    pub const NOTHING: Wait =
        Wait { input: false, output: false, memory: false, external: false, until_ns: None, awake_ns: None };

    /// For any of both.
    #[must_use]
    pub fn or(self, other: Wait) -> Wait {
        let earlier = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        Wait {
            input: self.input || other.input,
            output: self.output || other.output,
            memory: self.memory || other.memory,
            external: self.external || other.external,
            until_ns: earlier(self.until_ns, other.until_ns),
            awake_ns: earlier(self.awake_ns, other.awake_ns),
        }
    }
}

/// Takes part in checkpoints: heads and tails of tasks.
pub trait Stage {
    /// Opens functions, readers and writers, and takes the state to go on from.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn open(&mut self, cx: &mut OpenCx<'_>) -> Result<(), TaskError> {
        let _ = cx;
        Ok(())
    }

    /// The barrier was sent: what is here now is the snapshot.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn cut(&mut self, cx: &mut CutCx<'_>) -> Result<(), TaskError> {
        let _ = cx;
        Ok(())
    }

    /// Goes on with the snapshot of the last cut; adds its part once, when it says `Done` for the first time.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn snapshot(&mut self, cx: &mut SnapshotCx<'_>) -> Result<Progress, TaskError> {
        let _ = cx;
        Ok(Progress::Done)
    }

    /// Something happened to a file.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn file_event(&mut self, event: &FileEvent) -> Result<(), TaskError> {
        let _ = event;
        Ok(())
    }

    /// The checkpoint is complete and committed.
    fn notify(&mut self, checkpoint: u64) {
        let _ = checkpoint;
    }

    /// The checkpoint will not complete.
    fn abort(&mut self, checkpoint: u64, files: &mut dyn Files) {
        let _ = (checkpoint, files);
    }

    /// The task ends.
    fn close(&mut self, files: &mut dyn Files) {
        let _ = files;
    }
}

/// Where and when a snapshot is cut.
pub struct CutCx<'a> {
    /// The checkpoint.
    pub checkpoint: u64,
    /// Names the state file of an operator.
    pub target: &'a dyn Fn(u64) -> FileTarget,
    /// The files thread.
    pub files: &'a mut dyn Files,
}

/// A step of a snapshot.
pub struct SnapshotCx<'a> {
    /// The checkpoint.
    pub checkpoint: u64,
    /// Bytes that this step may write.
    pub budget: u64,
    /// The files thread.
    pub files: &'a mut dyn Files,
    /// Where finished parts go.
    pub parts: &'a mut Vec<OperatorSnapshot>,
}
