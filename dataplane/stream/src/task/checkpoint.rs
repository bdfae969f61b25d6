//! A task's part in checkpoints: events on their way out, the cut, the snapshot written piece by piece.
//!
//! Works on the task's state. Always: the barrier is on all partitions before the state is cut, and the state is cut before
//! the gate resumes.

use crate::error::TaskError;
use crate::files::FileTarget;
use crate::limits::SNAPSHOT_STEP_BYTES;
use crate::slot::message::{AttemptId, SlotEvent, TaskId};
use crate::slot::snapshot::{OperatorSnapshot, TaskSnapshot};
use crate::stage::{CutCx, SnapshotCx, Wait};
use crate::state::Progress;
use crate::task::{Phase, Sending, Snapshot, Task, TaskCx};

impl Task {
    /// A source's turn to take a checkpoint; nothing may be pending.
    pub(super) fn take_trigger(&mut self) {
        if let Some(checkpoint) = self.trigger.take() {
            self.begin(checkpoint, false);
        }
    }

    /// Starts checkpoint `checkpoint` at this point of the stream.
    pub(super) fn begin(&mut self, checkpoint: u64, aligned: bool) {
        let sending = if checkpoint <= self.void {
            Sending::AbortMarker { checkpoint, aligned }
        } else {
            Sending::Barrier(checkpoint)
        };
        self.sending = Some(sending);
    }

    /// Sends what is on its way out. False if it has to wait.
    pub(super) fn send(&mut self, cx: &mut TaskCx<'_>) -> Result<bool, TaskError> {
        while let Some(sending) = self.sending {
            if !cx.ports.events(&self.seed.partitions, sending.event()) {
                self.wait = self.wait.or(Wait::OUTPUT);
                return Ok(false);
            }
            self.sending = None;
            self.poked = true;
            self.sent(sending, cx)?;
        }
        Ok(true)
    }

    fn sent(&mut self, sending: Sending, cx: &mut TaskCx<'_>) -> Result<(), TaskError> {
        match sending {
            Sending::Barrier(checkpoint) => self.cut(checkpoint, cx)?,
            Sending::AbortMarker { checkpoint, aligned } => {
                self.passed = self.passed.max(checkpoint);
                if aligned {
                    self.resume(checkpoint, cx);
                }
                self.decline(
                    checkpoint,
                    "it was aborted upstream or by the JobManager".to_owned(),
                    cx.events,
                );
            }
            Sending::EndOfData => {
                self.phase = Phase::Lingering;
                self.report(cx.events, || SlotEvent::EndOfData {
                    attempt: self.seed.attempt,
                    task: self.seed.id,
                });
            }
            Sending::EndOfPartition => self.phase = Phase::Draining,
        }
        Ok(())
    }

    fn resume(&mut self, checkpoint: u64, cx: &mut TaskCx<'_>) {
        if let Some(gate) = self.seed.gate {
            cx.ports.input(gate).resume(checkpoint);
        }
    }

    /// The barrier has left: marks the state and lets the gate go on.
    fn cut(&mut self, checkpoint: u64, cx: &mut TaskCx<'_>) -> Result<(), TaskError> {
        self.passed = checkpoint;
        self.heap.at_checkpoint();
        if let Some(older) = self.snapshot.take() {
            self.seed.body.abort(older.checkpoint, cx.files);
            let reason = format!("checkpoint {checkpoint} overtook it");
            self.decline(older.checkpoint, reason, cx.events);
        }
        let (TaskId { vertex, subtask }, AttemptId { job, attempt }) = (self.seed.id, self.seed.attempt);
        let target = |operator| FileTarget::Snapshot { job, checkpoint, attempt, vertex, subtask, operator };
        self.seed.body.cut(&mut CutCx { checkpoint, target: &target, files: &mut *cx.files })?;
        self.resume(checkpoint, cx);
        let finished = self.phase == Phase::Lingering;
        let alignment_ns = std::mem::take(&mut self.alignment_ns);
        self.snapshot = Some(Snapshot { checkpoint, parts: Vec::new(), finished, alignment_ns });
        Ok(())
    }

    pub(super) fn step_snapshot(&mut self, cx: &mut TaskCx<'_>) -> Result<(), TaskError> {
        let Some(snapshot) = &mut self.snapshot else { return Ok(()) };
        let progress = self.seed.body.snapshot(&mut SnapshotCx {
            checkpoint: snapshot.checkpoint,
            budget: SNAPSHOT_STEP_BYTES,
            files: &mut *cx.files,
            parts: &mut snapshot.parts,
        })?;
        match progress {
            Progress::Working => self.poked = true,
            Progress::Waiting => self.wait = self.wait.or(Wait::SINK),
            Progress::Done => self.acknowledge(cx.events),
            Progress::Declined(reason) => {
                let checkpoint = snapshot.checkpoint;
                self.snapshot = None;
                self.seed.body.abort(checkpoint, cx.files);
                self.decline(checkpoint, reason, cx.events);
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, events: &mut Vec<SlotEvent>) {
        let Some(snapshot) = self.snapshot.take() else { return };
        let bytes = snapshot.parts.iter().map(OperatorSnapshot::bytes).sum();
        self.report(events, || SlotEvent::Acknowledge {
            attempt: self.seed.attempt,
            task: self.seed.id,
            checkpoint: snapshot.checkpoint,
            snapshot: TaskSnapshot {
                operators: snapshot.parts.clone(),
                finished: snapshot.finished,
                alignment_ns: snapshot.alignment_ns,
                bytes,
            },
        });
    }

    fn decline(&mut self, checkpoint: u64, reason: String, events: &mut Vec<SlotEvent>) {
        self.report(events, || SlotEvent::Decline {
            attempt: self.seed.attempt,
            task: self.seed.id,
            checkpoint,
            reason: reason.clone(),
        });
    }
}
