//! The checkpoint coordinator of one job, without I/O, clock or randomness: inputs and `now` in, actions out.
//!
//! It owns what is pending, which checkpoints count, and the one store operation under way. `now_ms` is
//! milliseconds since 1970 on a clock that never goes back. The order it keeps, per checkpoint: trigger, all
//! acknowledgements of this attempt, metadata published, leadership confirmed, files committed, tasks told,
//! old checkpoints deleted.
//!
//! Always: at most one checkpoint is pending or being published; at most one store operation is in flight;
//! nothing pending is removed at the end unless the newest checkpoint's files are in place;
//! [`Input::Stop`] voids what is pending in the same transition, and no restore point is chosen while a
//! publication is unresolved; ids only grow; after [`Action::Deposed`] nothing is ever asked of the store.

mod api;
mod end;
mod publish;
mod restore;
mod run;

use crate::epoch::Legal;
use crate::limits::{RETAINED_MAX, STORE_RETRY_MS, STORE_TRIES_MAX};
use crate::sink::{SinkCommit, SinkStep};
use crate::stats::Stats;
use crate::store::{StoreDone, StoreFault, StoreOp};
pub use api::{Action, CheckpointConfig, Input, JobInfo, Refused, RestorePoint};
use end::{Base, End, EndStep};
use publish::{Publish, Published};
use restore::{Restore, RestoreStep, Scope};
use run::{Pending, Run};
use std::collections::BTreeSet;
use tidegate_plant::{Plant, Rare, planted, rare};

/// The store work under way.
#[derive(Clone, Debug)]
enum Work {
    Idle,
    Publish(Box<Publish>),
    /// Deletes what is of no use; nothing waits for it.
    Delete(StoreOp),
    Restore(Box<Restore>),
    Fence {
        attempt: u32,
        sink: SinkCommit,
    },
    End(Box<End>),
    /// Asks whether it still leads, before it deletes what a successor may restore. One that is replaced between the answer
    /// and the deletion still deletes: the store has no condition on that.
    Forget,
}

/// What is to be begun as soon as the work under way allows.
#[derive(Clone, Debug)]
enum Goal {
    Restore { attempt: u32 },
    Fence { attempt: u32, roots: Vec<String> },
    End { attempt: u32 },
    Forget,
}

/// The coordinator. See the module for its rules.
#[derive(Clone, Debug)]
pub struct Coordinator {
    config: CheckpointConfig,
    info: JobInfo,
    epoch: u64,
    /// Checkpoints that count, oldest first.
    legal: Vec<Legal>,
    /// Output directories known so far.
    roots: BTreeSet<String>,
    next_id: u64,
    run: Option<Run>,
    pending: Option<Pending>,
    /// Fully acknowledged; its publication begins when the store work under way allows.
    ready: Option<Box<Publish>>,
    work: Work,
    goal: Option<Goal>,
    op: u64,
    in_flight: bool,
    tries: u32,
    retry_at: Option<u64>,
    failures: u32,
    deposed: bool,
    /// Newest checkpoint whose files are known to be in place.
    committed: Option<u64>,
    /// Some checkpoint completed, perhaps under an earlier leader.
    completed: bool,
    stats: Stats,
    actions: Vec<Action>,
}

impl Coordinator {
    /// A coordinator of a job under `epoch`. `legal` is what the epoch's settled record lists for the job,
    /// `roots` the output directories known from before; both are empty for a new job.
    pub fn new(
        config: CheckpointConfig,
        info: JobInfo,
        epoch: u64,
        legal: Vec<Legal>,
        roots: Vec<String>,
    ) -> Self {
        let config = CheckpointConfig { retained: config.retained.clamp(1, RETAINED_MAX), ..config };
        Coordinator {
            config,
            info,
            epoch,
            completed: !legal.is_empty(),
            legal,
            roots: roots.into_iter().collect(),
            next_id: 1,
            run: None,
            pending: None,
            ready: None,
            work: Work::Idle,
            goal: None,
            op: 0,
            in_flight: false,
            tries: 0,
            retry_at: None,
            failures: 0,
            deposed: false,
            committed: None,
            stats: Stats::default(),
            actions: Vec::new(),
        }
    }

    /// Counts and history for people.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Statistics of an earlier leadership, to go on counting from.
    pub fn resume_stats(&mut self, stats: Stats) {
        self.completed |= stats.completed > 0 || !stats.restored.is_empty();
        self.stats = stats;
    }

    /// Output directories known so far; to be kept with the job.
    pub fn roots(&self) -> impl Iterator<Item = &str> {
        self.roots.iter().map(String::as_str)
    }

    /// The configuration in force.
    pub fn config(&self) -> &CheckpointConfig {
        &self.config
    }

    /// When [`Input::Tick`] is needed next, in the milliseconds of `now_ms`; `None` if nothing is timed.
    pub fn deadline(&self) -> Option<u64> {
        let timeout = self.pending.as_ref().map(|pending| self.expires(pending));
        [self.retry_at, timeout, self.trigger_at()].into_iter().flatten().min()
    }

    /// Takes one input and says what follows from it, in order.
    pub fn handle(&mut self, input: Input, now_ms: u64) -> Vec<Action> {
        if !self.deposed {
            self.take(input, now_ms);
            self.drive(now_ms);
            self.trigger_if_due(now_ms);
        }
        std::mem::take(&mut self.actions)
    }

    fn take(&mut self, input: Input, now_ms: u64) {
        match input {
            Input::Stop => self.leave(now_ms),
            Input::Restore { attempt } => {
                self.leave(now_ms);
                self.goal = Some(Goal::Restore { attempt });
            }
            Input::End { attempt } => {
                self.leave(now_ms);
                self.goal = Some(Goal::End { attempt });
            }
            Input::Outputs { attempt, roots } => self.outputs(attempt, roots),
            Input::Started { attempt, tasks, sources } => self.started(attempt, tasks, sources, now_ms),
            Input::Acknowledge { epoch, attempt, checkpoint, part } => {
                if epoch == self.epoch {
                    self.acknowledge(attempt, checkpoint, *part, now_ms);
                }
            }
            Input::Decline { epoch, attempt, checkpoint, task, reason } => {
                if epoch == self.epoch {
                    self.decline(attempt, checkpoint, task, &reason, now_ms);
                }
            }
            Input::EndOfData { attempt, task } => self.end_of_data(attempt, task),
            Input::Forget => {
                self.leave(now_ms);
                self.goal = Some(Goal::Forget);
            }
            Input::Tick => self.expire(now_ms),
            Input::Store { op, done } => self.stored(op, done, now_ms),
        }
    }

    /// The attempt is over: what is pending is void, in this one transition.
    fn leave(&mut self, now_ms: u64) {
        self.run = None;
        let pending = self.pending.take().map(|pending| pending.id);
        let ready = self.ready.take().map(|publish| publish.id());
        for id in pending.into_iter().chain(ready) {
            self.stats.failed(id, now_ms, "the attempt ended before it completed");
        }
        // Fencing new directories concerned that attempt, too.
        self.goal = None;
    }

    fn outputs(&mut self, attempt: u32, roots: Vec<String>) {
        let new: Vec<String> = roots.into_iter().filter(|root| !self.roots.contains(root)).collect();
        self.roots.extend(new.iter().cloned());
        if new.is_empty() {
            self.actions.push(Action::OutputsReady { attempt });
        } else {
            self.goal = Some(Goal::Fence { attempt, roots: new });
        }
    }

    /// Gives the answer of the store to the work that asked.
    fn stored(&mut self, op: u64, done: StoreDone, now_ms: u64) {
        if !self.in_flight || op != self.op {
            return;
        }
        self.in_flight = false;
        let lost = || StoreDone::Failed("the answer was lost".into());
        let done = if rare(Rare::AnswerLost) { lost() } else { done };
        if let StoreDone::Failed(fault) = done {
            return self.store_failed(&fault, now_ms);
        }
        self.tries = 0;
        match &mut self.work {
            Work::Idle => {}
            Work::Delete(_) => self.work = Work::Idle,
            Work::Forget => match done {
                StoreDone::Newest(newest) if newest > self.epoch => drop(self.depose(newest)),
                _ => {
                    let (job, below) = (self.info.job, u64::MAX);
                    self.work = Work::Delete(StoreOp::Retain { job, below });
                }
            },
            Work::Publish(publish) => {
                let outcome = publish.handle(done);
                self.published(outcome, now_ms);
            }
            Work::Restore(restore) => {
                let scope = Scope {
                    epoch: self.epoch,
                    legal: &self.legal,
                    roots: &mut self.roots,
                    completed: self.completed,
                };
                restore.handle(done, scope);
                if restore.is_committing() {
                    // Newer ones are set aside by now, whatever becomes of the output.
                    let base = restore.base();
                    self.legal.retain(|legal| Some(legal.id) <= base);
                }
            }
            Work::End(end) => end.handle(done),
            Work::Fence { sink, .. } => {
                let StoreDone::Sink(done) = done else { panic!("invariant: {done:?} answers no sink op") };
                sink.handle(done).expect("invariant: nothing is committed here");
            }
        }
    }

    /// An operation may or may not have happened. Everything is repeatable; what differs is how long.
    fn store_failed(&mut self, fault: &StoreFault, now_ms: u64) {
        let StoreFault { reason, permanent } = fault;
        let permanent = *permanent;
        self.tries += 1;
        self.retry_at = Some(now_ms + STORE_RETRY_MS * u64::from(self.tries.min(STORE_TRIES_MAX)));
        let exhausted = self.tries >= STORE_TRIES_MAX;
        match &mut self.work {
            Work::Publish(publish) => {
                publish.failed();
                if publish.is_published() && exhausted {
                    let attempt = publish.attempt();
                    self.give_up(Action::FailAttempt {
                        attempt,
                        reason: format!("committing output failed: {reason}"),
                        permanent,
                    });
                } else if self.tries == STORE_TRIES_MAX {
                    self.actions.push(Action::Report(format!(
                        "checkpoint {}: it is unknown whether it was published, and the store does not \
                         answer ({reason}); asking until it does",
                        publish.id()
                    )));
                }
            }
            Work::Restore(restore) if exhausted => {
                let (attempt, reason) = (restore.attempt(), format!("restore: {reason}"));
                self.give_up(Action::RestoreFailed { attempt, reason, permanent });
            }
            Work::Fence { attempt, .. } if exhausted => {
                let (attempt, reason) = (*attempt, format!("output directory: {reason}"));
                self.give_up(Action::FailAttempt { attempt, reason, permanent });
            }
            Work::End(end) if exhausted => {
                let leftover = Some(end.leftover(reason));
                self.give_up(Action::Ended { leftover });
            }
            // Old checkpoints are deleted after the next one instead.
            Work::Delete(_) | Work::Forget => {
                self.give_up(Action::Report(format!("old checkpoints stay: {reason}")));
            }
            _ => {}
        }
    }

    fn give_up(&mut self, action: Action) {
        if matches!(action, Action::FailAttempt { .. }) {
            // Nothing is triggered for it in what is left of this transition.
            self.run = None;
        }
        self.work = Work::Idle;
        self.tries = 0;
        self.retry_at = None;
        self.actions.push(action);
    }

    /// Keeps exactly one store operation in flight while there is work.
    fn drive(&mut self, now_ms: u64) {
        while !self.in_flight && !self.deposed {
            if self.goal.is_some() && self.may_preempt() {
                self.begin_goal();
                continue;
            }
            if matches!(self.work, Work::Idle | Work::Delete(_))
                && let Some(publish) = self.ready.take()
            {
                self.retry_at = None;
                self.tries = 0;
                self.work = Work::Publish(publish);
            }
            if self.retry_at.is_some_and(|at| now_ms < at) {
                return;
            }
            self.retry_at = None;
            let Some(body) = self.next_op(now_ms) else {
                // The work is over, and what waited for its end may begin; nothing else would wake us for it.
                if self.goal.is_some() || self.ready.is_some() {
                    continue;
                }
                return;
            };
            self.op += 1;
            self.in_flight = true;
            self.actions.push(Action::Store { op: self.op, body });
        }
    }

    /// A publication whose fate is unknown must be seen through before anything else. One that counts is
    /// committed by the restore that follows it; before the end nothing follows, so commits are seen through.
    fn may_preempt(&self) -> bool {
        let ends = matches!(self.goal, Some(Goal::End { .. }));
        match &self.work {
            Work::Publish(publish) => publish.is_published() && !ends,
            Work::Restore(restore) => !(restore.is_committing() && ends),
            _ => true,
        }
    }

    fn begin_goal(&mut self) {
        self.retry_at = None;
        self.tries = 0;
        let job = self.info.job;
        self.work = match self.goal.take().expect("invariant: checked by the caller") {
            Goal::Restore { attempt } => Work::Restore(Box::new(Restore::new(job, attempt))),
            Goal::Fence { attempt, roots } => {
                // The attempt's sinks may already have made their directory: only older ones are fenced.
                let upto = (self.epoch, attempt.saturating_sub(1));
                Work::Fence { attempt, sink: SinkCommit::clean(job, roots, upto) }
            }
            Goal::End { attempt } => {
                let base = match self.legal.last().map(|legal| legal.id) {
                    Some(newest) if self.committed != Some(newest) => Base::Newest(newest),
                    None if self.completed => Base::Vanished,
                    _ => Base::Committed,
                };
                Work::End(Box::new(End::new(job, self.roots.clone(), (self.epoch, attempt), base)))
            }
            Goal::Forget => {
                self.legal.clear();
                Work::Forget
            }
        };
    }

    /// The next operation of the work under way; finishes work that needs none.
    fn next_op(&mut self, now_ms: u64) -> Option<StoreOp> {
        match &mut self.work {
            Work::Idle => None,
            Work::Delete(op) => Some(op.clone()),
            Work::Forget => Some(StoreOp::NewestEpoch),
            Work::Publish(publish) => match publish.next_op() {
                Some(op) => Some(op),
                None => self.committed(now_ms),
            },
            Work::Restore(restore) => match restore.step() {
                RestoreStep::Op(op) => Some(op),
                RestoreStep::Done => self.restored(now_ms),
                RestoreStep::Failed { reason } => {
                    let attempt = restore.attempt();
                    self.give_up(Action::RestoreFailed { attempt, reason, permanent: true });
                    None
                }
                RestoreStep::Deposed { newest } => self.depose(newest),
            },
            Work::Fence { attempt, sink } => match sink.step() {
                SinkStep::Op(op) => Some(StoreOp::Sink(op)),
                SinkStep::Done { .. } => {
                    let attempt = *attempt;
                    self.give_up(Action::OutputsReady { attempt });
                    None
                }
            },
            Work::End(end) => match end.step() {
                EndStep::Op(op) => Some(op),
                EndStep::Done { leftover } => {
                    self.give_up(Action::Ended { leftover });
                    None
                }
                EndStep::Deposed { newest } => self.depose(newest),
            },
        }
    }

    fn depose(&mut self, newest: u64) -> Option<StoreOp> {
        self.deposed = true;
        self.actions.push(Action::Deposed { newest });
        None
    }

    /// A publication came one step further.
    fn published(&mut self, outcome: Published, now_ms: u64) {
        let Work::Publish(publish) = &self.work else { return };
        let (id, attempt) = (publish.id(), publish.attempt());
        match outcome {
            Published::Continue => {}
            Published::Yes => {
                self.legal.push(Legal { id, epoch: self.epoch });
                let cut = self.legal.len().saturating_sub(self.config.retained);
                self.legal.drain(..cut);
                self.failures = 0;
                self.completed = true;
                self.stats.completed(id, now_ms, publish.metadata());
            }
            Published::Lost(reason) => {
                self.work = Work::Idle;
                self.checkpoint_failed(attempt, id, &reason, now_ms);
            }
            Published::Deposed { newest } => {
                self.depose(newest);
            }
            Published::SinkFailed(error) => {
                // Nobody but a fence moves pending files, so a restart looks once more at all places.
                let reason = error.to_string();
                self.give_up(Action::FailAttempt { attempt, reason, permanent: false });
            }
        }
    }

    /// Output is committed: tasks are told, then old checkpoints go.
    fn committed(&mut self, now_ms: u64) -> Option<StoreOp> {
        let below = match () {
            () if planted(Plant::DeleteReferenced) => self.next_id,
            // The next one deletes what this one leaves.
            () if rare(Rare::RetainLate) => 0,
            () => self.oldest(),
        };
        let retain = Work::Delete(StoreOp::Retain { job: self.info.job, below });
        let Work::Publish(publish) = std::mem::replace(&mut self.work, retain) else {
            panic!("invariant: only a publication is committed")
        };
        self.committed = Some(publish.id());
        let (attempt, checkpoint, last) = (publish.attempt(), publish.id(), publish.metadata().last);
        if let Some(run) = &mut self.run {
            run.completed(now_ms, self.config.min_pause_ms);
            self.actions.push(Action::Completed { attempt, checkpoint, last });
        }
        if last {
            self.run = None;
        }
        self.next_op(now_ms)
    }

    /// The oldest checkpoint that is kept.
    fn oldest(&self) -> u64 {
        self.legal.first().map_or(0, |legal| legal.id)
    }

    fn restored(&mut self, now_ms: u64) -> Option<StoreOp> {
        let Work::Restore(restore) = std::mem::replace(&mut self.work, Work::Idle) else {
            panic!("invariant: only a restore is restored")
        };
        let attempt = restore.attempt();
        self.next_id = self.next_id.max(restore.first_free_id());
        let (chosen, garbage) = (restore.base(), restore.garbage());
        let point = restore.into_point(self.next_id);
        self.committed = chosen;
        self.failures = 0;
        for refused in &point.refused {
            self.stats.refused(refused);
            self.actions.push(Action::Report(format!(
                "checkpoint {} cannot be used ({}); {} is used instead",
                refused.id,
                refused.reason,
                chosen.map_or("the beginning".to_owned(), |id| format!("checkpoint {id}"))
            )));
        }
        if let Some(id) = chosen {
            self.stats.restored(id, now_ms);
        }
        self.actions.push(Action::Restored { attempt, point });
        if garbage.is_empty() {
            return None;
        }
        self.work = Work::Delete(StoreOp::Discard { job: self.info.job, ids: garbage });
        self.next_op(now_ms)
    }
}
