//! Triggers, acknowledgements, declines and timeouts of a running attempt.
//!
//! `Run` says who takes part; `Pending` collects. Always: an acknowledgement counts once, for this epoch,
//! attempt, task and checkpoint, and only after its content was checked; a pending checkpoint ends by the last
//! acknowledgement, a decline, its timeout, or the end of the attempt.

use super::publish::Publish;
use super::{Action, Coordinator, Work};
use crate::metadata::{Alignment, Metadata, Task, TaskPart};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_plant::{Plant, Rare, planted, rare};

/// Pause after a failed checkpoint before the next is tried, in milliseconds, if `min_pause` is shorter.
const FAILURE_PAUSE_MS: u64 = 500;

/// Pause before the final checkpoint is tried again when a task had not seen its end, in milliseconds.
const FINAL_PAUSE_MS: u64 = 200;

/// A running attempt.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) attempt: u32,
    tasks: BTreeSet<Task>,
    /// Sources whose end of data has not been reported.
    open_sources: BTreeSet<Task>,
    base: Option<u64>,
    /// Next periodic trigger; `None` without an interval.
    periodic_ms: Option<u64>,
    not_before_ms: u64,
}

/// A checkpoint whose acknowledgements are being collected.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) id: u64,
    attempt: u32,
    triggered_ms: u64,
    parts: BTreeMap<Task, TaskPart>,
}

impl Run {
    /// A checkpoint completed; the next one comes after the pause.
    pub(super) fn completed(&mut self, now_ms: u64, min_pause_ms: u64) {
        let ended = self.open_sources.is_empty();
        self.not_before_ms = now_ms + if ended { min_pause_ms.max(FINAL_PAUSE_MS) } else { min_pause_ms };
    }
}

impl Coordinator {
    pub(super) fn started(&mut self, attempt: u32, tasks: Vec<Task>, sources: Vec<Task>, now_ms: u64) {
        self.run = Some(Run {
            attempt,
            tasks: tasks.into_iter().collect(),
            open_sources: sources.into_iter().collect(),
            base: self.legal.last().map(|legal| legal.id),
            periodic_ms: self.config.interval_ms.map(|interval| now_ms + interval),
            not_before_ms: now_ms,
        });
    }

    pub(super) fn end_of_data(&mut self, attempt: u32, task: Task) {
        if let Some(run) = self.run.as_mut().filter(|run| run.attempt == attempt) {
            run.open_sources.remove(&task);
        }
    }

    /// When the next trigger is due, if one may come at all.
    pub(super) fn trigger_at(&self) -> Option<u64> {
        let run = self.run.as_ref()?;
        let busy = self.pending.is_some()
            || self.ready.is_some()
            || self.goal.is_some()
            || !matches!(self.work, Work::Idle | Work::Delete(_));
        if busy {
            return None;
        }
        let wanted = if run.open_sources.is_empty() { Some(0) } else { run.periodic_ms };
        wanted.map(|at| at.max(run.not_before_ms))
    }

    pub(super) fn trigger_if_due(&mut self, now_ms: u64) {
        if self.trigger_at().is_none_or(|at| now_ms < at) {
            return;
        }
        let Some(run) = &mut self.run else { return };
        let id = self.next_id;
        self.next_id += 1;
        run.periodic_ms = self.config.interval_ms.map(|interval| now_ms + interval);
        self.pending =
            Some(Pending { id, attempt: run.attempt, triggered_ms: now_ms, parts: BTreeMap::new() });
        self.stats.triggered(id, now_ms, run.tasks.len() as u32);
        self.actions.push(Action::Trigger { attempt: run.attempt, checkpoint: id });
    }

    pub(super) fn expires(&self, pending: &Pending) -> u64 {
        pending.triggered_ms.saturating_add(self.config.timeout_ms)
    }

    pub(super) fn expire(&mut self, now_ms: u64) {
        let Some(pending) = &self.pending else { return };
        if now_ms >= self.expires(pending) {
            self.expired(now_ms);
        }
    }

    fn expired(&mut self, now_ms: u64) {
        let Some(pending) = &self.pending else { return };
        let (id, attempt) = (pending.id, pending.attempt);
        let missing = self.run.as_ref().map_or(0, |run| run.tasks.len() - pending.parts.len());
        let reason =
            format!("expired after {} ms; {missing} tasks had not acknowledged it", self.config.timeout_ms);
        self.pending = None;
        self.checkpoint_failed(attempt, id, &reason, now_ms);
    }

    pub(super) fn acknowledge(&mut self, attempt: u32, checkpoint: u64, part: TaskPart, now_ms: u64) {
        let (Some(run), Some(pending)) = (&mut self.run, &mut self.pending) else { return };
        let expected = (pending.attempt, pending.id) == (attempt, checkpoint) && run.attempt == attempt
            || planted(Plant::TakeAnyAcknowledgement);
        if !expected || !run.tasks.contains(&part.task) || pending.parts.contains_key(&part.task) {
            return;
        }
        if let Err(reason) = part.check(self.info.job, checkpoint, &self.info.operators) {
            let task = part.task;
            return self.decline(attempt, checkpoint, task, &reason, now_ms);
        }
        if part.finished {
            run.open_sources.remove(&part.task);
        }
        self.stats.acknowledged(checkpoint, part.bytes, part.alignment_ns);
        pending.parts.insert(part.task, part);
        let missing = usize::from(planted(Plant::CompleteTooEarly));
        if pending.parts.len() + missing == run.tasks.len() {
            self.publish(now_ms);
        } else if rare(Rare::ExpireEarly) {
            self.expired(now_ms);
        }
    }

    pub(super) fn decline(&mut self, attempt: u32, checkpoint: u64, task: Task, reason: &str, now_ms: u64) {
        let counts = self
            .pending
            .as_ref()
            .is_some_and(|pending| (pending.attempt, pending.id) == (attempt, checkpoint));
        if counts {
            self.pending = None;
            let reason = format!("task {}.{} declined: {reason}", task.vertex, task.subtask);
            self.checkpoint_failed(attempt, checkpoint, &reason, now_ms);
        }
    }

    pub(super) fn checkpoint_failed(&mut self, attempt: u32, id: u64, reason: &str, now_ms: u64) {
        self.stats.failed(id, now_ms, reason);
        let Some(run) = self.run.as_mut().filter(|run| run.attempt == attempt) else { return };
        run.not_before_ms = now_ms + self.config.min_pause_ms.max(FAILURE_PAUSE_MS);
        self.failures += 1;
        self.actions.push(Action::Aborted { attempt, checkpoint: id, reason: reason.to_owned() });
        if self.failures > self.config.tolerable_failures {
            let reason = format!(
                "{} checkpoints failed in a row, {} are tolerated; the last one: {reason}",
                self.failures, self.config.tolerable_failures
            );
            self.failures = 0;
            self.actions.push(Action::FailAttempt { attempt, reason, permanent: false });
        }
    }

    fn publish(&mut self, now_ms: u64) {
        let pending = self.pending.take().expect("invariant: the last part was just added");
        let base = self.run.as_ref().and_then(|run| run.base);
        let metadata = Metadata {
            job: self.info.job,
            epoch: self.epoch,
            attempt: pending.attempt,
            id: pending.id,
            base,
            job_name: self.info.name.clone(),
            args: self.info.args.clone(),
            parallelism: self.info.parallelism,
            graph_fingerprint: self.info.graph_fingerprint,
            binary_fingerprint: self.info.binary_fingerprint,
            triggered_ms: pending.triggered_ms,
            completed_ms: now_ms,
            alignment: Alignment::Aligned,
            last: pending.parts.values().all(|part| part.finished),
            operators: self.info.operators.clone(),
            tasks: pending.parts.into_values().collect(),
        };
        for file in metadata.committables() {
            if let Some(root) = file.root().filter(|root| !self.roots.contains(*root)) {
                self.roots.insert(root.to_owned());
            }
        }
        let outputs = !self.roots.is_empty();
        self.ready = Some(Box::new(Publish::new(Box::new(metadata), outputs)));
    }
}
