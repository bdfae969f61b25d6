//! One job: its phase, its attempt, its coordinator, its record.
//!
//! The phases, in the order of a good life: `Submitting` → `SavingAttempt` → `Choosing` → `Waiting` →
//! `Preparing` → `Running` → `SavingFinished` → `Closing` → `Cleaning` → `SavingEnd` → `Over`. A failure leads
//! from `Preparing` or `Running` to `Stopping` and from there to `SavingAttempt` (restart) or `Cleaning` (for
//! good); a cancel does the latter from anywhere before `SavingFinished`.
//!
//! A failure of one task, link or TaskManager restarts the whole job, even one whose graph falls into parts that
//! share no edge: all sinks commit with one checkpoint of the job, and one attempt is what fences its output, so the
//! job is the region.
//!
//! Always: the attempt in the record is on disk before its restore point is chosen; an attempt exists from
//! `Preparing` to the last `Closed`.

use super::registry::Registry;
use super::saver::{Goal, Saver};
use super::{Action, CoreConfig, Level, Rejection};
use crate::limits::SAVE_RETRY_MS;
use crate::record::{JobRecord, JobState, RestoredRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidegate_checkpoint as ckpt;
use tidegate_checkpoint::{Coordinator, RestorePoint};
use tidegate_graph::{JobGraph, SlotId};
use tidegate_rpc::{FaultKind, JobId, TaskId, TaskMetrics, TaskState};

/// What a job sees of the core while it works.
pub(super) struct Cx<'a> {
    pub(super) config: &'a CoreConfig,
    pub(super) registry: &'a mut Registry,
    pub(super) others: &'a BTreeMap<JobId, Job>,
    pub(super) actions: &'a mut Vec<Action>,
    pub(super) now_ms: u64,
}

impl Cx<'_> {
    pub(super) fn log(&mut self, level: Level, text: String) {
        self.actions.push(Action::Log(level, text));
    }

    /// Sends to a TaskManager if it is still there.
    pub(super) fn send(&mut self, taskmanager: u64, message: tidegate_rpc::ToTaskManager) {
        if let Some(conn) = self.registry.connection_of(taskmanager) {
            self.actions.push(Action::Send { conn, message: Box::new(message) });
        }
    }
}

/// What follows when all slots of the attempt are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Then {
    Restart,
    Fail,
    Cancel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first record is being written; the tickets are answered once it is, and this leader known to lead still.
    Submitting,
    /// The number of the next attempt is being written.
    SavingAttempt,
    /// The coordinator chooses the restore point.
    Choosing,
    /// For the time and for slots.
    Waiting {
        not_before_ms: u64,
    },
    /// `Prepare` is out.
    Preparing {
        deadline_ms: u64,
    },
    /// `Start` is out.
    Running,
    /// `Cancel` is out.
    Stopping {
        then: Then,
        deadline_ms: u64,
    },
    /// The last checkpoint is committed; FINISHED is being written.
    SavingFinished,
    /// Tasks know and end.
    Closing {
        deadline_ms: u64,
    },
    /// The coordinator removes what is pending.
    Cleaning {
        state: JobState,
    },
    /// The end is being written.
    SavingEnd {
        state: JobState,
    },
    Over,
}

/// How far a slot of the attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotPhase {
    Preparing,
    Prepared,
    Closed,
}

/// The slots of an attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) slots: BTreeMap<SlotId, SlotPhase>,
    pub(super) outputs: BTreeSet<String>,
    /// `Start` is out.
    pub(super) started: bool,
    /// Every task has been seen running.
    pub(super) all_running: bool,
}

/// One task as people see it.
#[derive(Clone, Debug)]
pub(crate) struct TaskInfo {
    pub(crate) id: TaskId,
    pub(crate) state: TaskState,
    pub(crate) slot: Option<SlotId>,
    pub(crate) host: String,
    pub(crate) started_ms: Option<u64>,
    pub(crate) ended_ms: Option<u64>,
    pub(crate) metrics: Option<TaskMetrics>,
}

/// One job.
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) rank: u64,
    pub(crate) record: JobRecord,
    pub(crate) graph: Arc<JobGraph>,
    pub(crate) coordinator: Coordinator,
    pub(crate) tasks: Vec<TaskInfo>,
    pub(super) latencies: super::latency::JobLatencies,
    pub(super) phase: Phase,
    /// Whoever submitted it and has no answer yet: more than one if the request was repeated.
    pub(super) tickets: Vec<u64>,
    pub(super) saver: Saver,
    pub(super) attempt: Option<Attempt>,
    pub(super) point: Option<RestorePoint>,
    /// Last restart delay, for the next one.
    pub(super) backoff_ms: Option<u64>,
    /// No restart before this.
    pub(super) not_before_ms: u64,
    /// Since when all tasks run.
    pub(super) running_since_ms: Option<u64>,
    /// Tasks of the attempt that reported the end of data before all tasks ran.
    pub(super) ended_early: Vec<TaskId>,
    /// Why it waits, for people.
    pub(crate) waiting_for: Option<String>,
    pub(super) restart_policy: crate::config::RestartPolicy,
    /// It cannot go on under this binary, and why. It waits for another one or to be cancelled.
    pub(super) broken: Option<String>,
}

impl Job {
    /// Takes up a recovered job where its record says it was.
    pub(super) fn resume(&mut self, cx: &mut Cx<'_>) {
        match self.record.state {
            state if state.is_over() && self.record.cleaned => {
                self.mark_tasks_over(state);
                self.forget(cx, state);
            }
            JobState::Finished => self.clean(cx, JobState::Finished),
            JobState::Failing | JobState::Failed => self.clean(cx, JobState::Failed),
            JobState::Cancelling | JobState::Canceled => self.clean(cx, JobState::Canceled),
            _ if self.broken.is_some() => {
                // Another binary may be right tomorrow; until then nothing of the job is touched.
                self.record.state = JobState::Restarting;
                self.waiting_for = self.broken.clone();
                let reason = self.broken.clone().unwrap_or_default();
                self.exception(cx, "RecoveryFailed", reason, None, None);
                self.phase = Phase::Waiting { not_before_ms: u64::MAX };
            }
            _ => {
                self.record.state = JobState::Restarting;
                cx.log(
                    Level::Info,
                    format!("job {} ({}) is taken up again", self.id, self.record.request.job),
                );
                self.begin_attempt(cx);
            }
        }
        self.save_if_due(cx);
    }

    /// State as people see it.
    pub(crate) fn state(&self) -> JobState {
        match self.phase {
            Phase::Submitting => JobState::Initializing,
            Phase::SavingAttempt | Phase::Choosing | Phase::Waiting { .. } | Phase::Preparing { .. } => {
                if self.record.attempt > 1 || self.broken.is_some() {
                    JobState::Restarting
                } else {
                    JobState::Created
                }
            }
            Phase::Running | Phase::SavingFinished | Phase::Closing { .. } => JobState::Running,
            Phase::Stopping { then, .. } => match then {
                Then::Restart => JobState::Restarting,
                Then::Fail => JobState::Failing,
                Then::Cancel => JobState::Cancelling,
            },
            Phase::Cleaning { state } | Phase::SavingEnd { state } => match state {
                JobState::Failed => JobState::Failing,
                JobState::Canceled => JobState::Cancelling,
                _ => JobState::Running,
            },
            Phase::Over => self.record.state,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Nobody was told yet that it exists.
    pub(super) fn is_being_submitted(&self) -> bool {
        self.phase == Phase::Submitting
    }

    /// Whoever repeats the submission is answered together with the first.
    pub(super) fn is_unanswered(&self) -> bool {
        !self.tickets.is_empty()
    }

    /// It was never written down and never will be.
    pub(super) fn is_unsaved(&self) -> bool {
        self.is_being_submitted() && self.saver.retry_at_ms.is_some()
    }

    /// Slots that it will ask for before anybody who comes later.
    pub(super) fn slots_wanted(&self) -> u32 {
        match self.phase {
            _ if self.broken.is_some() => 0,
            Phase::Submitting | Phase::SavingAttempt | Phase::Choosing | Phase::Waiting { .. } => {
                self.graph.slots_needed().iter().map(|(_, slots)| slots).sum()
            }
            _ => 0,
        }
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        let phase = match self.phase {
            Phase::Preparing { deadline_ms }
            | Phase::Stopping { deadline_ms, .. }
            | Phase::Closing { deadline_ms } => Some(deadline_ms),
            // When the time has come but slots are missing, a change of slots is what is waited for.
            Phase::Waiting { not_before_ms } if self.waiting_for.is_none() => Some(not_before_ms),
            _ => None,
        };
        [phase, self.coordinator.deadline(), self.saver.retry_at_ms].into_iter().flatten().min()
    }

    pub(super) fn tick(&mut self, cx: &mut Cx<'_>) {
        self.coordinate(cx, ckpt::Input::Tick);
        self.check_deadlines(cx);
        self.save_if_due(cx);
    }

    /// Uses up the next attempt number; its restore point is chosen once that is on disk.
    pub(super) fn begin_attempt(&mut self, cx: &mut Cx<'_>) {
        self.record.attempt += 1;
        self.phase = Phase::SavingAttempt;
        self.saver.require(Goal::Attempt);
        self.save_if_due(cx);
    }

    pub(super) fn save_if_due(&mut self, cx: &mut Cx<'_>) {
        let Some(save) = self.saver.begin(cx.now_ms) else { return };
        let stats = self.coordinator.stats();
        self.record.completed_checkpoints = stats.completed;
        self.record.failed_checkpoints = stats.failed;
        let reported = self.attempt.iter().flat_map(|attempt| attempt.outputs.iter().cloned());
        let outputs: BTreeSet<String> = self.coordinator.roots().map(str::to_owned).chain(reported).collect();
        self.record.outputs = outputs.into_iter().collect();
        let record = Box::new(self.record.clone());
        cx.actions.push(Action::Save { job: self.id, save, record });
    }

    pub(super) fn saved(&mut self, cx: &mut Cx<'_>, save: u64, result: Result<(), String>) {
        match result {
            Ok(()) => {
                if let Some(goal) = self.saver.done(save) {
                    self.reached(cx, goal);
                }
            }
            Err(reason) => {
                if self.saver.failed(save, cx.now_ms + SAVE_RETRY_MS) {
                    let text = format!("job {}: its record cannot be written: {reason}", self.id);
                    cx.log(Level::Error, text.clone());
                    self.refuse_unsaved(cx, text);
                }
            }
        }
        self.save_if_due(cx);
    }

    fn reached(&mut self, cx: &mut Cx<'_>, goal: Goal) {
        match (goal, self.phase) {
            (Goal::Submitted, Phase::Submitting) => {
                cx.log(Level::Info, format!("job {} ({}) was submitted", self.id, self.record.request.job));
                if self.record.state == JobState::Cancelling {
                    self.clean(cx, JobState::Canceled);
                } else {
                    self.choose(cx);
                }
            }
            (Goal::Attempt, Phase::SavingAttempt) => self.choose(cx),
            (Goal::Outputs, Phase::Preparing { .. }) => self.fence_outputs(cx),
            (Goal::Finished, Phase::SavingFinished) => self.tell_finished(cx),
            (Goal::End, Phase::SavingEnd { state }) => self.end(cx, state),
            _ => {}
        }
    }

    /// Answers everybody who submitted it. A leader that was replaced never gets so far: its successor may not know of
    /// the job, so nobody may be told that it was taken.
    pub(super) fn answer_submitted(&mut self, cx: &mut Cx<'_>, answer: &Result<JobId, Rejection>) {
        for ticket in self.tickets.drain(..) {
            cx.actions.push(Action::Answer { ticket, answer: answer.clone() });
        }
    }

    fn choose(&mut self, cx: &mut Cx<'_>) {
        self.phase = Phase::Choosing;
        self.coordinate(cx, ckpt::Input::Restore { attempt: self.record.attempt });
    }

    pub(super) fn stored(&mut self, cx: &mut Cx<'_>, op: u64, done: ckpt::StoreDone) {
        self.coordinate(cx, ckpt::Input::Store { op, done });
        self.save_if_due(cx);
    }

    /// Tells the coordinator something and does what it wants.
    pub(super) fn coordinate(&mut self, cx: &mut Cx<'_>, input: ckpt::Input) {
        for action in self.coordinator.handle(input, cx.now_ms) {
            match action {
                ckpt::Action::Store { op, body } => {
                    cx.actions.push(Action::Store { job: self.id, op, body });
                }
                ckpt::Action::Trigger { attempt, checkpoint } => {
                    let job = self.id;
                    self.tell_all(cx, || tidegate_rpc::ToTaskManager::Trigger { job, attempt, checkpoint });
                }
                ckpt::Action::Completed { attempt, checkpoint, last } => {
                    self.completed(cx, attempt, checkpoint, last);
                }
                ckpt::Action::Aborted { attempt, checkpoint, reason } => {
                    let job = self.id;
                    cx.log(Level::Warn, format!("job {job}: checkpoint {checkpoint} failed: {reason}"));
                    self.tell_all(cx, || tidegate_rpc::ToTaskManager::CheckpointAborted {
                        job,
                        attempt,
                        checkpoint,
                    });
                }
                ckpt::Action::FailAttempt { reason, permanent, .. } => {
                    let kind = if permanent { FaultKind::Permanent } else { FaultKind::Task };
                    self.fail(cx, kind, "CheckpointFailed", reason, None, None);
                }
                ckpt::Action::OutputsReady { attempt } => self.start(cx, attempt),
                ckpt::Action::Restored { point, .. } => {
                    self.answer_submitted(cx, &Ok(self.id));
                    self.restored(cx, point);
                }
                ckpt::Action::RestoreFailed { reason, permanent, .. } => {
                    self.answer_submitted(cx, &Ok(self.id));
                    self.restore_failed(cx, reason, permanent);
                }
                ckpt::Action::Ended { leftover } => self.cleaned(cx, leftover),
                ckpt::Action::Report(text) => self.report(cx, text),
                ckpt::Action::Deposed { newest } => cx.actions.push(Action::Deposed { newest }),
            }
        }
    }

    fn report(&mut self, cx: &mut Cx<'_>, text: String) {
        cx.log(Level::Warn, format!("job {}: {text}", self.id));
        self.push_exception(cx, "CheckpointReport", text, None, None);
    }

    fn restored(&mut self, cx: &mut Cx<'_>, point: RestorePoint) {
        if self.phase != Phase::Choosing {
            return;
        }
        for refused in &point.refused {
            self.record.push_refused(refused.id, refused.reason.clone());
        }
        let mut last = false;
        if let Some(metadata) = &point.checkpoint {
            let (id, timestamp_ms) = (metadata.id, cx.now_ms);
            if metadata.graph_fingerprint != self.record.graph_fingerprint {
                let reason = format!("checkpoint {id} belongs to another graph");
                return self.fail(cx, FaultKind::Permanent, "RestoreFailed", reason, None, None);
            }
            self.record.push_restored(RestoredRecord { id, timestamp_ms });
            cx.log(Level::Info, format!("job {} restores checkpoint {id}", self.id));
            last = metadata.last;
        }
        self.saver.touch();
        self.point = Some(point);
        if last {
            return self.finish(cx);
        }
        self.waiting_for = None;
        self.phase = Phase::Waiting { not_before_ms: self.not_before_ms };
    }

    fn restore_failed(&mut self, cx: &mut Cx<'_>, reason: String, permanent: bool) {
        if self.phase != Phase::Choosing {
            return;
        }
        let kind = if permanent { FaultKind::Permanent } else { FaultKind::State };
        self.fail(cx, kind, "RestoreFailed", reason, None, None);
    }
}

/// An output directory among these that a job which is not over writes to.
pub(super) fn clash_check(outputs: &[String], jobs: &BTreeMap<JobId, Job>) -> Option<(String, JobId)> {
    jobs.values().filter(|job| !job.is_over()).find_map(|job| {
        let theirs: BTreeSet<&str> = job.coordinator.roots().collect();
        let root = outputs.iter().find(|root| theirs.contains(root.as_str()))?;
        Some((root.clone(), job.id))
    })
}
