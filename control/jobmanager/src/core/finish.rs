//! Failing, stopping, restarting, cancelling, finishing: every way an attempt or a job ends.
//!
//! Always: what is pending is void from the moment an attempt fails; nothing new begins before every slot of
//! the old attempt is closed or lost; FINISHED is on disk before any task is told, and seen by people only when
//! nothing of the job is left.

use super::job::{Attempt, Cx, Job, Phase, SlotPhase, Then};
use super::saver::Goal;
use super::{Action, Level};
use crate::limits::CANCEL_TIMEOUT_MS;
use crate::record::JobState;
use std::collections::BTreeSet;
use tidegate_checkpoint as ckpt;
use tidegate_graph::SlotId;
use tidegate_rpc::{Fault, FaultKind, TaskId, TaskState, ToTaskManager};

impl Job {
    /// A TaskManager says that a task or link failed.
    pub(super) fn failed(
        &mut self,
        cx: &mut Cx<'_>,
        number: u32,
        slot: SlotId,
        task: Option<TaskId>,
        fault: Fault,
    ) {
        if self.attempt.as_ref().is_none_or(|attempt| attempt.number != number) {
            return;
        }
        if let Some(task) = task.and_then(|id| self.task_mut(id)) {
            task.state = TaskState::Failed;
            task.ended_ms = Some(cx.now_ms);
        }
        let name = match fault.kind {
            FaultKind::Task => "TaskFailed",
            FaultKind::Link => "LinkFailed",
            FaultKind::State => "StateFailed",
            FaultKind::Resources => "ResourcesMissing",
            FaultKind::Permanent => "TaskFailedForGood",
        };
        let (kind, cause) = (fault.kind, self.blame(fault, slot));
        self.fail(cx, kind, name, cause, task, Some(slot));
        self.save_if_due(cx);
    }

    /// What is said of a fault. State that a TaskManager cannot read was whole when the JobManager chose it, and is
    /// read whole again before the next attempt, so the TaskManager is named and the checkpoint is left alone.
    pub(super) fn blame(&self, fault: Fault, slot: SlotId) -> String {
        let restored = self.point.as_ref().and_then(|point| point.checkpoint.as_ref());
        match restored.filter(|_| fault.kind == FaultKind::State && self.phase != Phase::Running) {
            Some(metadata) => format!(
                "{}; the JobManager had read checkpoint {} whole, so look at TaskManager {:016x} and its way to \
                 the store",
                fault.cause, metadata.id, slot.taskmanager
            ),
            None => fault.cause,
        }
    }

    /// A TaskManager is gone with everything in it.
    pub(super) fn lost(&mut self, cx: &mut Cx<'_>, taskmanager: u64, text: &str) {
        let Some(attempt) = &mut self.attempt else { return };
        let mut hit = None;
        for (slot, phase) in attempt.slots.iter_mut().filter(|(slot, _)| slot.taskmanager == taskmanager) {
            if *phase != SlotPhase::Closed {
                *phase = SlotPhase::Closed;
                hit = Some(*slot);
            }
        }
        if hit.is_some() {
            self.fail(cx, FaultKind::Resources, "TaskManagerLost", text.to_owned(), None, hit);
            self.proceed_if_closed(cx);
            self.save_if_due(cx);
        }
    }

    /// A TaskManager is about to leave.
    pub(super) fn left(&mut self, cx: &mut Cx<'_>, taskmanager: u64, fault: &Fault) {
        let Some(attempt) = &self.attempt else { return };
        let hit = attempt
            .slots
            .iter()
            .find(|(slot, phase)| slot.taskmanager == taskmanager && **phase != SlotPhase::Closed);
        if let Some((slot, _)) = hit {
            let slot = Some(*slot);
            self.fail(cx, fault.kind, "TaskManagerLeft", fault.cause.clone(), None, slot);
            self.save_if_due(cx);
        }
    }

    /// The attempt, or the try to begin one, has failed.
    pub(super) fn fail(
        &mut self,
        cx: &mut Cx<'_>,
        kind: FaultKind,
        name: &str,
        text: String,
        task: Option<TaskId>,
        slot: Option<SlotId>,
    ) {
        let then = if kind == FaultKind::Permanent { Then::Fail } else { Then::Restart };
        match self.phase {
            Phase::Preparing { .. } | Phase::Running => {
                self.exception(cx, name, text, task, slot);
                self.stop(cx, then);
            }
            Phase::Choosing => {
                self.exception(cx, name, text, task, slot);
                self.schedule_restart(cx.now_ms);
                match then {
                    Then::Restart => self.retry_choice(cx),
                    _ => self.fail_for_good(cx),
                }
            }
            // The tasks that go down with a failed one say so, too; only worse news counts.
            Phase::Stopping { then: Then::Restart, deadline_ms } if then == Then::Fail => {
                self.exception(cx, name, text, task, slot);
                self.phase = Phase::Stopping { then, deadline_ms };
                self.record.state = JobState::Failing;
                self.saver.touch();
            }
            _ => {}
        }
    }

    /// Fixes when the next attempt may begin.
    fn schedule_restart(&mut self, now_ms: u64) {
        let policy = self.restart_policy;
        let healthy = self.running_since_ms.take().is_some_and(|since| now_ms - since >= policy.reset_ms);
        let delay_ms = policy.delay_ms(if healthy { None } else { self.backoff_ms });
        self.backoff_ms = Some(delay_ms);
        self.not_before_ms = now_ms + delay_ms;
    }

    /// No restore point could be read; the same attempt tries again after the delay.
    fn retry_choice(&mut self, cx: &mut Cx<'_>) {
        self.phase = Phase::Waiting { not_before_ms: self.not_before_ms };
        self.point = None;
        self.waiting_for = None;
        self.saver.touch();
        self.save_if_due(cx);
    }

    fn fail_for_good(&mut self, cx: &mut Cx<'_>) {
        self.record.state = JobState::Failing;
        self.saver.touch();
        self.clean(cx, JobState::Failed);
    }

    /// Stops the attempt in all slots that are still open.
    pub(super) fn stop(&mut self, cx: &mut Cx<'_>, then: Then) {
        self.coordinate(cx, ckpt::Input::Stop);
        if then == Then::Restart {
            self.schedule_restart(cx.now_ms);
        }
        self.phase = Phase::Stopping { then, deadline_ms: cx.now_ms + CANCEL_TIMEOUT_MS };
        self.record.state = match then {
            Then::Restart => JobState::Restarting,
            Then::Fail => JobState::Failing,
            Then::Cancel => JobState::Cancelling,
        };
        self.set_tasks(cx.now_ms, TaskState::Canceling);
        self.saver.touch();
        self.cancel_slots(cx);
        self.proceed_if_closed(cx);
    }

    fn cancel_slots(&self, cx: &mut Cx<'_>) {
        let Some(attempt) = &self.attempt else { return };
        let (job, number) = (self.id, attempt.number);
        for taskmanager in open_taskmanagers(attempt) {
            cx.send(taskmanager, ToTaskManager::Cancel { job, attempt: number });
        }
    }

    /// A slot is free again.
    pub(super) fn closed(&mut self, cx: &mut Cx<'_>, number: u32, slot: SlotId) {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.number == number) else { return };
        let Some(phase) = attempt.slots.get_mut(&slot) else { return };
        *phase = SlotPhase::Closed;
        if matches!(self.phase, Phase::Running | Phase::Preparing { .. }) {
            let text = "a slot closed while the job was running".to_owned();
            self.fail(cx, FaultKind::Resources, "SlotClosed", text, None, Some(slot));
        }
        self.proceed_if_closed(cx);
        self.save_if_due(cx);
    }

    fn proceed_if_closed(&mut self, cx: &mut Cx<'_>) {
        let closed = |attempt: &Attempt| attempt.slots.values().all(|phase| *phase == SlotPhase::Closed);
        if self.attempt.as_ref().is_some_and(|attempt| !closed(attempt)) {
            return;
        }
        match self.phase {
            Phase::Stopping { then, .. } => {
                self.attempt = None;
                self.set_tasks(cx.now_ms, TaskState::Canceled);
                match then {
                    Then::Restart => {
                        self.record.restarts += 1;
                        self.begin_attempt(cx);
                    }
                    Then::Fail => self.clean(cx, JobState::Failed),
                    Then::Cancel => self.clean(cx, JobState::Canceled),
                }
            }
            Phase::Closing { .. } => {
                self.attempt = None;
                self.set_tasks(cx.now_ms, TaskState::Finished);
                self.clean(cx, JobState::Finished);
            }
            _ => {}
        }
    }

    /// Gives up on slots that do not answer.
    pub(super) fn check_deadlines(&mut self, cx: &mut Cx<'_>) {
        match self.phase {
            Phase::Preparing { deadline_ms } if deadline_ms <= cx.now_ms => {
                let text = "not every slot was prepared in time".to_owned();
                self.fail(cx, FaultKind::Resources, "PrepareTimeout", text, None, None);
            }
            Phase::Closing { deadline_ms } if deadline_ms <= cx.now_ms => {
                // The output is committed; what hangs is only stopped.
                self.cancel_slots(cx);
                self.abandon_slots(cx);
            }
            Phase::Stopping { deadline_ms, .. } if deadline_ms <= cx.now_ms => self.abandon_slots(cx),
            Phase::Waiting { not_before_ms } if not_before_ms <= cx.now_ms && self.point.is_none() => {
                self.phase = Phase::Choosing;
                self.coordinate(cx, ckpt::Input::Restore { attempt: self.record.attempt });
            }
            _ => {}
        }
    }

    /// A TaskManager whose slots hang must end itself; its slots stay taken until it says otherwise, and its
    /// output is fenced like that of a dead one.
    fn abandon_slots(&mut self, cx: &mut Cx<'_>) {
        let Some(attempt) = &mut self.attempt else { return };
        for taskmanager in open_taskmanagers(attempt) {
            cx.actions.push(Action::Log(
                Level::Error,
                format!(
                    "TaskManager {taskmanager:016x} did not close its slots within {CANCEL_TIMEOUT_MS} ms"
                ),
            ));
        }
        attempt.slots.values_mut().for_each(|phase| *phase = SlotPhase::Closed);
        self.proceed_if_closed(cx);
    }

    /// Somebody wants the job cancelled.
    pub(super) fn cancel(&mut self, cx: &mut Cx<'_>) {
        match self.phase {
            Phase::Preparing { .. } | Phase::Running => self.stop(cx, Then::Cancel),
            Phase::Stopping { then: Then::Restart, deadline_ms } => {
                self.phase = Phase::Stopping { then: Then::Cancel, deadline_ms };
                self.record.state = JobState::Cancelling;
                self.saver.touch();
            }
            Phase::SavingAttempt | Phase::Choosing | Phase::Waiting { .. } => {
                self.record.state = JobState::Cancelling;
                self.saver.give_up();
                self.saver.touch();
                self.set_tasks(cx.now_ms, TaskState::Canceled);
                self.clean(cx, JobState::Canceled);
            }
            // Acted on when the record is there.
            Phase::Submitting => self.record.state = JobState::Cancelling,
            // It ends anyhow.
            _ => {}
        }
        self.save_if_due(cx);
    }

    /// A checkpoint is durable and committed.
    pub(super) fn completed(&mut self, cx: &mut Cx<'_>, attempt: u32, checkpoint: u64, last: bool) {
        if last {
            return self.finish(cx);
        }
        let job = self.id;
        self.tell_all(cx, || ToTaskManager::CheckpointComplete { job, attempt, checkpoint, last: false });
    }

    /// Everything is committed: first that becomes a fact on disk, then tasks are told.
    pub(super) fn finish(&mut self, cx: &mut Cx<'_>) {
        self.record.state = JobState::Finished;
        self.record.ended_ms = Some(cx.now_ms);
        self.phase = Phase::SavingFinished;
        self.saver.require(Goal::Finished);
        self.save_if_due(cx);
    }

    pub(super) fn tell_finished(&mut self, cx: &mut Cx<'_>) {
        self.phase = Phase::Closing { deadline_ms: cx.now_ms + CANCEL_TIMEOUT_MS };
        let newest = self.coordinator.stats().latest_completed.as_ref().map(|entry| entry.id);
        if let (Some(attempt), Some(checkpoint)) = (&self.attempt, newest) {
            let (job, attempt) = (self.id, attempt.number);
            self.tell_all(cx, || ToTaskManager::CheckpointComplete { job, attempt, checkpoint, last: true });
        }
        self.proceed_if_closed(cx);
    }

    /// No task runs any more: nothing pending may stay.
    pub(super) fn clean(&mut self, cx: &mut Cx<'_>, state: JobState) {
        // Cancelled before it was taken: it was written down, and that is all that was asked for.
        self.answer_submitted(cx, &Ok(self.id));
        self.phase = Phase::Cleaning { state };
        self.coordinate(cx, ckpt::Input::End { attempt: self.record.attempt });
    }

    pub(super) fn cleaned(&mut self, cx: &mut Cx<'_>, leftover: Option<String>) {
        let Phase::Cleaning { state } = self.phase else { return };
        self.record.cleaned = leftover.is_none();
        if let Some(reason) = leftover {
            let text = format!(
                "the output is not complete or not clean: {reason}; the next start of the JobManager tries again"
            );
            self.exception(cx, "LeftoverOutput", text, None, None);
        }
        self.record.state = state;
        self.record.ended_ms = self.record.ended_ms.or(Some(cx.now_ms));
        self.phase = Phase::SavingEnd { state };
        self.saver.require(Goal::End);
        self.save_if_due(cx);
    }

    pub(super) fn end(&mut self, cx: &mut Cx<'_>, state: JobState) {
        self.phase = Phase::Over;
        self.attempt = None;
        self.point = None;
        let task = match state {
            JobState::Finished => TaskState::Finished,
            _ => TaskState::Canceled,
        };
        self.set_tasks(cx.now_ms, task);
        cx.log(Level::Info, format!("job {} ({}) is {state}", self.id, self.record.request.job));
        self.forget(cx, state);
    }

    /// The end is on disk. Checkpoints of a job that failed stay, and so do those that tell of missing output.
    pub(super) fn forget(&mut self, cx: &mut Cx<'_>, state: JobState) {
        if state != JobState::Failed && self.record.cleaned {
            self.coordinate(cx, ckpt::Input::Forget);
        }
        cx.actions.push(Action::Over { job: self.id });
    }

    /// The first record could not be written: the job never was.
    pub(super) fn refuse_unsaved(&mut self, cx: &mut Cx<'_>, text: String) {
        if self.phase == Phase::Submitting {
            self.answer_submitted(cx, &Err(super::Rejection::new(507, text)));
        }
    }
}

/// TaskManagers with a slot of the attempt that is not closed.
fn open_taskmanagers(attempt: &Attempt) -> BTreeSet<u64> {
    attempt
        .slots
        .iter()
        .filter(|(_, phase)| **phase != SlotPhase::Closed)
        .map(|(slot, _)| slot.taskmanager)
        .collect()
}
