//! The body of a task: head and tail, with the chain in it, behind one dynamic call per quantum.
//!
//! `Pipeline` is compiled once per vertex of a job, so everything inside a quantum is static. It owns the operators of
//! one subtask; when it steps is decided by `task`.

use tidegate_exchange::{GateId, PartitionId};
use tidegate_graph::Partitioner;

use crate::chain::Out;
use crate::context::{Cx, OpenCx};
use crate::error::TaskError;
use crate::files::{FileEvent, Files};
use crate::head::{Head, Ran, StepCx};
use crate::stage::{CutCx, SnapshotCx, Stage};
use crate::state::Progress;
use crate::tail::Tail;

/// What a task is built from: where its ports are and which subtask it is.
#[derive(Clone, Debug)]
pub struct Site {
    /// Which subtask.
    pub subtask: u32,
    /// Out of how many.
    pub parallelism: u32,
    /// Number of key groups of the job.
    pub max_parallelism: u32,
    /// The gate, unless the task is a source.
    pub gate: Option<GateId>,
    /// The edges out of the vertex.
    pub outputs: Vec<OutputSite>,
}

/// One edge out of a task.
#[derive(Clone, Copy, Debug)]
pub struct OutputSite {
    /// The edge's position in the graph.
    pub edge: u32,
    /// Where the task writes.
    pub partition: PartitionId,
    /// How records find their channel.
    pub partitioner: Partitioner,
    /// Parallelism of the consumer.
    pub consumers: u32,
}

impl Site {
    /// The gate of a task that has one.
    pub fn gate(&self) -> GateId {
        self.gate.expect("invariant: a vertex that is fed by edges has a gate")
    }

    /// The output along `edge`.
    pub fn output(&self, edge: u32) -> OutputSite {
        let found = self.outputs.iter().find(|output| output.edge == edge);
        *found.expect("invariant: a task's tails write to edges of its vertex")
    }
}

/// A task's operators, as the task driver sees them.
pub trait Body: Stage + Send {
    /// Reads back about `budget` bytes of state; true once all is read.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn restore(&mut self, budget: u64) -> Result<bool, TaskError>;

    /// Takes in items until the quantum ends.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn run(&mut self, step: &mut StepCx<'_>) -> Result<Ran, TaskError>;

    /// Whether anything is left from items taken in: then no barrier may be placed.
    fn pending(&self) -> bool;

    /// Pulls out what is pending; `Ran::End` once nothing is.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn settle(&mut self, step: &mut StepCx<'_>) -> Result<Ran, TaskError>;

    /// The input has ended: emits what is left to say; `Ran::End` once all is said.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn finish(&mut self, step: &mut StepCx<'_>) -> Result<Ran, TaskError>;

    /// Items that left the chain so far.
    fn emitted(&self) -> u64;
}

/// A head and a tail (which has the chain in it).
pub struct Pipeline<H, T> {
    head: H,
    tail: T,
    /// The first quantum has begun.
    begun: bool,
}

impl<H, T> Pipeline<H, T> {
    /// Puts the two together.
    pub fn new(head: H, tail: T) -> Self {
        Pipeline { head, tail, begun: false }
    }
}

impl<H: Head, T: Tail<H::Item>> Stage for Pipeline<H, T> {
    fn open(&mut self, cx: &mut OpenCx<'_>) -> Result<(), TaskError> {
        self.head.open(cx)?;
        self.tail.open(cx)
    }

    fn cut(&mut self, cx: &mut CutCx<'_>) -> Result<(), TaskError> {
        self.head.cut(cx)?;
        self.tail.cut(cx)
    }

    fn snapshot(&mut self, cx: &mut SnapshotCx<'_>) -> Result<Progress, TaskError> {
        Ok(self.head.snapshot(cx)?.and(self.tail.snapshot(cx)?))
    }

    fn file_event(&mut self, event: &FileEvent) -> Result<(), TaskError> {
        self.head.file_event(event)?;
        self.tail.file_event(event)
    }

    fn notify(&mut self, checkpoint: u64) {
        self.head.notify(checkpoint);
        self.tail.notify(checkpoint);
    }

    fn abort(&mut self, checkpoint: u64, files: &mut dyn Files) {
        self.head.abort(checkpoint, files);
        self.tail.abort(checkpoint, files);
    }

    fn close(&mut self, files: &mut dyn Files) {
        self.head.close(files);
        self.tail.close(files);
    }
}

impl<H: Head, T: Tail<H::Item>> Body for Pipeline<H, T> {
    fn restore(&mut self, budget: u64) -> Result<bool, TaskError> {
        self.head.restore(budget)
    }

    fn run(&mut self, step: &mut StepCx<'_>) -> Result<Ran, TaskError> {
        if !std::mem::replace(&mut self.begun, true) {
            // Sinks begin their output when they are first asked, and the first item may come hours later: an output that
            // cannot be written is found now.
            let _ =
                self.tail.bind(step.ports).ready(&mut Cx { now_ns: step.now_ns, files: &mut *step.files });
        }
        self.head.run(&mut self.tail, step)
    }

    fn pending(&self) -> bool {
        self.head.pending() || self.tail.pending()
    }

    fn settle(&mut self, step: &mut StepCx<'_>) -> Result<Ran, TaskError> {
        self.head.settle(&mut self.tail, step)
    }

    fn finish(&mut self, step: &mut StepCx<'_>) -> Result<Ran, TaskError> {
        self.head.finish(&mut self.tail, step)
    }

    fn emitted(&self) -> u64 {
        self.tail.emitted()
    }
}
