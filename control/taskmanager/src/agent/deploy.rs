//! The agent's slots: who has them, what they are told, and what they say.
//!
//! Always true: a slot is free, being looked up for, running or cancelling, one attempt at a time; its `Closed` frees it,
//! and nothing else does once the slot has heard of the attempt.

use tidegate_exchange::plant::{Rare, rare};
use tidegate_graph::JobGraph;
use tidegate_rpc::{Fault, FaultKind, JobId, Prepare, SlotPlan, ToJobManager};
use tidegate_stream::slot::{AttemptId, Deployment, Failure, SlotCommand, SlotEvent};

use super::{Action, Agent, Fetched, translate};

#[derive(Debug)]
pub(super) enum Occupant {
    Free,
    /// The job is planned and state is read; the slot knows nothing yet.
    Fetching(Box<Pending>),
    /// The slot has it; its sinks write to these directories.
    Running {
        attempt: AttemptId,
        outputs: Vec<String>,
    },
    /// The slot was told to drop it.
    Cancelling {
        attempt: AttemptId,
        since_ms: u64,
    },
}

#[derive(Debug)]
pub(super) struct Pending {
    attempt: AttemptId,
    prepare: Prepare,
    plan: SlotPlan,
    epoch: u64,
}

impl Agent {
    pub(super) fn prepare(&mut self, epoch: u64, mut prepare: Prepare) {
        let attempt = AttemptId { job: prepare.job.0, attempt: prepare.attempt };
        for plan in std::mem::take(&mut prepare.slots) {
            let refusal = match self.slots.get(plan.slot as usize) {
                Some(_) if rare(Rare::RefuseSlot) => {
                    Some(Fault { kind: FaultKind::Resources, cause: "it has no room now".to_owned() })
                }
                Some(occupant) => occupied(plan.slot, occupant),
                None => Some(Fault {
                    kind: FaultKind::Permanent,
                    cause: format!(
                        "slot {} does not exist: this TaskManager has {}",
                        plan.slot,
                        self.slots.len()
                    ),
                }),
            };
            match refusal {
                Some(fault) => self.refuse_at_once(attempt, plan.slot, fault),
                None => self.occupy(epoch, attempt, &prepare, plan),
            }
        }
    }

    pub(super) fn occupy(&mut self, epoch: u64, attempt: AttemptId, prepare: &Prepare, plan: SlotPlan) {
        let (slot, store) = (plan.slot, self.store.clone());
        let checkpoints = prepare.checkpoints.clone();
        self.actions.push_back(Action::Enter { attempt, store: store.clone(), checkpoints });
        let (prepare, plan) = (Box::new(prepare.clone()), Box::new(plan));
        self.actions.push_back(Action::Fetch {
            slot,
            attempt,
            store,
            prepare: prepare.clone(),
            plan: plan.clone(),
        });
        let pending = Pending { attempt, prepare: *prepare, plan: *plan, epoch };
        self.slots[slot as usize] = Occupant::Fetching(Box::new(pending));
    }

    pub(super) fn fetched(&mut self, slot: u32, attempt: AttemptId, result: Result<Fetched, Fault>) {
        let occupant = &mut self.slots[slot as usize];
        let Occupant::Fetching(pending) = occupant else { return }; // Cancelled meanwhile.
        if pending.attempt != attempt {
            return;
        }
        let checked = result.and_then(|fetched| {
            check_graph(&pending.prepare, &fetched.graph)?;
            Ok(fetched)
        });
        match checked {
            Ok(Fetched { graph, outputs, restores }) => {
                let Pending { prepare, plan, epoch, .. } = &**pending;
                let deployment: Deployment = translate::deployment(prepare, plan, *epoch, &graph, restores);
                *occupant = Occupant::Running { attempt, outputs };
                self.actions.push_back(Action::Command(slot, SlotCommand::Prepare(Box::new(deployment))));
            }
            Err(fault) => {
                *occupant = Occupant::Free;
                self.left(attempt);
                self.refuse_at_once(attempt, slot, fault);
            }
        }
    }

    pub(super) fn refuse(&mut self, attempt: AttemptId, slot: u32, fault: Fault) {
        tracing::warn!(slot, job = %JobId(attempt.job), attempt = attempt.attempt, "deployment refused: {fault}");
        let job = JobId(attempt.job);
        let refusal = Some(fault);
        self.send(ToJobManager::Prepared {
            job,
            attempt: attempt.attempt,
            slot,
            outputs: Vec::new(),
            refusal,
        });
    }

    /// Refuses before the slot heard of it: there is nothing to wait for.
    pub(super) fn refuse_at_once(&mut self, attempt: AttemptId, slot: u32, fault: Fault) {
        self.refuse(attempt, slot, fault);
        let segments_free = self.segments_free.get(slot as usize).copied().unwrap_or(0);
        self.closed(slot, attempt, segments_free);
    }

    // ---- cancelling ----

    pub(super) fn cancel(&mut self, now_ms: u64, attempt: AttemptId) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].attempt() == Some(attempt) {
                self.cancel_slot(now_ms, slot);
            }
        }
    }

    pub(super) fn cancel_all(&mut self, now_ms: u64) {
        (0..self.slots.len()).for_each(|slot| self.cancel_slot(now_ms, slot));
    }

    pub(super) fn cancel_slot(&mut self, now_ms: u64, slot: usize) {
        match &self.slots[slot] {
            Occupant::Free | Occupant::Cancelling { .. } => {}
            Occupant::Fetching(pending) => {
                let attempt = pending.attempt;
                self.slots[slot] = Occupant::Free;
                self.left(attempt);
                let segments_free = self.identity.segments_per_slot;
                self.closed(slot as u32, attempt, segments_free);
            }
            Occupant::Running { attempt, .. } => {
                let attempt = *attempt;
                self.slots[slot] = Occupant::Cancelling { attempt, since_ms: now_ms };
                self.actions.push_back(Action::Command(slot as u32, SlotCommand::Cancel(attempt)));
            }
        }
    }

    pub(super) fn closed(&mut self, slot: u32, attempt: AttemptId, segments_free: u32) {
        let AttemptId { job, attempt } = attempt;
        self.send(ToJobManager::Closed { job: JobId(job), attempt, slot, segments_free });
    }

    /// Tells the files thread if that was the attempt's last slot here.
    pub(super) fn left(&mut self, attempt: AttemptId) {
        if !self.slots.iter().any(|occupant| occupant.attempt() == Some(attempt)) {
            self.actions.push_back(Action::Leave(attempt));
        }
    }

    // ---- the slots' words ----

    pub(super) fn slot_event(&mut self, now_ms: u64, slot: u32, event: SlotEvent) {
        let place = slot as usize;
        match event {
            SlotEvent::Stalled { wait_graph } => {
                tracing::warn!(slot, "nothing has moved for long; what each task waits for:\n{wait_graph}");
            }
            SlotEvent::Closed { attempt, segments_free } => {
                self.slots[place] = Occupant::Free;
                self.segments_free[place] = segments_free;
                self.left(attempt);
                self.closed(slot, attempt, segments_free);
            }
            SlotEvent::Prepared { attempt, result } => self.prepared(now_ms, slot, attempt, result),
            SlotEvent::TaskState { attempt, task, state } => {
                let (task, state) = (translate::wire_task(task), translate::wire_state(state));
                self.send(ToJobManager::TaskState {
                    job: JobId(attempt.job),
                    attempt: attempt.attempt,
                    task,
                    state,
                });
            }
            SlotEvent::EndOfData { attempt, task } => {
                let task = translate::wire_task(task);
                self.send(ToJobManager::EndOfData {
                    job: JobId(attempt.job),
                    attempt: attempt.attempt,
                    task,
                });
            }
            SlotEvent::Failed { attempt, task, cause, kind } => {
                let task = task.map(translate::wire_task);
                let fault = translate::wire_fault(kind, cause);
                tracing::warn!(slot, job = %JobId(attempt.job), attempt = attempt.attempt, "attempt failed: {fault}");
                let (job, attempt) = (JobId(attempt.job), attempt.attempt);
                self.send(ToJobManager::Failed { job, attempt, slot, task, fault });
            }
            SlotEvent::Acknowledge { attempt, task, checkpoint, snapshot } => {
                let task = translate::wire_task(task);
                let snapshot = Box::new(translate::wire_snapshot(snapshot));
                let (job, attempt) = (JobId(attempt.job), attempt.attempt);
                self.send(ToJobManager::Acknowledge { job, attempt, task, checkpoint, snapshot });
            }
            SlotEvent::Decline { attempt, task, checkpoint, reason } => {
                let (task, reason) = (translate::wire_task(task), tidegate_rpc::limits::clip(reason));
                let (job, attempt) = (JobId(attempt.job), attempt.attempt);
                self.send(ToJobManager::Decline { job, attempt, task, checkpoint, reason });
            }
        }
    }

    pub(super) fn prepared(
        &mut self,
        now_ms: u64,
        slot: u32,
        attempt: AttemptId,
        result: Result<(), Failure>,
    ) {
        match result {
            Ok(()) => {
                let outputs = match &self.slots[slot as usize] {
                    Occupant::Running { outputs, .. } => outputs.clone(),
                    _ => Vec::new(), // Being cancelled: the answer no longer matters.
                };
                let (job, attempt) = (JobId(attempt.job), attempt.attempt);
                self.send(ToJobManager::Prepared { job, attempt, slot, outputs, refusal: None });
            }
            Err(Failure { kind, cause }) => {
                // The slot lets go of it by itself and says `Closed` when it has; until then it is not free.
                self.slots[slot as usize] = Occupant::Cancelling { attempt, since_ms: now_ms };
                self.refuse(attempt, slot, translate::wire_fault(kind, cause));
            }
        }
    }
}

impl Occupant {
    pub(super) fn attempt(&self) -> Option<AttemptId> {
        match self {
            Self::Free => None,
            Self::Fetching(pending) => Some(pending.attempt),
            Self::Running { attempt, .. } | Self::Cancelling { attempt, .. } => Some(*attempt),
        }
    }
}

/// Why a slot cannot take another attempt now.
fn occupied(slot: u32, occupant: &Occupant) -> Option<Fault> {
    let AttemptId { job, attempt } = occupant.attempt()?;
    let cause = format!("slot {slot} still belongs to job {} attempt {attempt}", JobId(job));
    Some(Fault { kind: FaultKind::Resources, cause })
}

/// Every process builds the graph for itself; another graph means another binary, or a job that depends on more than
/// its arguments.
fn check_graph(prepare: &Prepare, graph: &JobGraph) -> Result<(), Fault> {
    let (found, expected) = (graph.fingerprint(), prepare.graph_fingerprint);
    if found == expected {
        return Ok(());
    }
    let cause = format!(
        "job `{}` is graph {found:016x} here and {expected:016x} at the JobManager; run the same binary everywhere, and \
         let a job depend on its arguments only",
        prepare.job_name
    );
    Err(Fault { kind: FaultKind::Permanent, cause })
}
