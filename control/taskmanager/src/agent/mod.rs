//! What a TaskManager decides, without I/O: registration, fencing, deployment, cancelling, leaving.
//!
//! Owner of the state: the control thread. Inputs are messages, slot events, results of fetches and the time; actions
//! are messages, slot commands, fetches and the wish to dial or to end.
//!
//! Always true:
//! - a slot belongs to at most one attempt, from `Prepare` until its `Closed`; a second one is refused by name;
//! - nothing of an epoch older than one already seen has any effect;
//! - without a JobManager no attempt runs: losing it cancels everything, and nothing is deployed before a new `Registered`;
//! - a slot that was told to cancel answers within `CANCEL_MAX`, or the process ends by name.

#[cfg(test)]
mod tests;
mod translate;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;

use tidegate_graph::JobGraph;
use tidegate_rpc::{
    ClusterId, Envelope, Fault, FaultKind, Fence, HeldSlot, JobId, Prepare, Refusal, Register, Registered,
    SlotPlan, ToJobManager, ToTaskManager,
};
use tidegate_stream::slot::{AttemptId, Deployment, SlotCommand, SlotEvent, TaskRestore};

use crate::limits::{CANCEL_MAX, RECONNECT_MAX, RECONNECT_MIN, REGISTER_MAX};

/// Who this process is; does not change while it lives.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Drawn at random when the process started.
    pub taskmanager: u64,
    /// Slots offered.
    pub slots: u32,
    /// Where other TaskManagers dial for data.
    pub data_address: SocketAddr,
    /// Host name, for people.
    pub host: String,
    /// Process id, for people.
    pub pid: u32,
    /// Fingerprint of the executable.
    pub binary_fingerprint: u64,
    /// Bytes of a segment.
    pub segment_size: u32,
    /// Segments of each slot.
    pub segments_per_slot: u32,
    /// What drives the network, for people.
    pub driver: tidegate_rpc::DriverReport,
}

/// What the agent is told.
#[derive(Debug)]
pub enum Input {
    /// The stream to the JobManager is open.
    Connected,
    /// There is no stream (any more); why.
    Disconnected(String),
    /// The JobManager says something.
    Message(Box<Envelope<ToTaskManager>>),
    /// A slot says something.
    Slot(u32, SlotEvent),
    /// The job is planned and its state read, or what is wrong with either.
    Fetched {
        /// The slot it was for.
        slot: u32,
        /// The attempt it was for.
        attempt: AttemptId,
        /// What the slot needs beside the plan.
        result: Result<Fetched, Fault>,
    },
    /// Nothing but time.
    Tick,
    /// Leave in order; why.
    Stop(String),
}

/// What the agent wants done.
#[derive(Debug)]
pub enum Action {
    /// Dial the JobManager after so many milliseconds.
    Dial {
        /// The wait.
        after_ms: u64,
    },
    /// Tell the JobManager.
    Send(Box<Envelope<ToJobManager>>),
    /// End the stream.
    HangUp,
    /// The cluster is known (for the first time): slots can be opened.
    Join(ClusterId),
    /// Tell a slot.
    Command(u32, SlotCommand),
    /// Snapshots of this attempt belong below `<store>/<checkpoints>`.
    Enter {
        /// The attempt.
        attempt: AttemptId,
        /// Absolute.
        store: PathBuf,
        /// Relative to the store.
        checkpoints: String,
    },
    /// No slot runs this attempt any more.
    Leave(AttemptId),
    /// Plan the job as this binary knows it, read and check what the tasks of this slot restore; answered by
    /// [`Input::Fetched`].
    Fetch {
        /// The slot.
        slot: u32,
        /// The attempt.
        attempt: AttemptId,
        /// The store, absolute.
        store: PathBuf,
        /// The job; without its slots.
        prepare: Box<Prepare>,
        /// What to restore is in its tasks.
        plan: Box<SlotPlan>,
    },
    /// Send heartbeats at this interval from now on; 0 ends them.
    Heartbeats {
        /// In milliseconds.
        interval_ms: u64,
    },
    /// The process ends.
    End(End),
}

/// How the process ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// As asked; every slot is empty.
    #[error("left in order")]
    Drained,
    /// The JobManager will never take this process.
    #[error("the JobManager refuses this TaskManager: {0}")]
    Refused(Refusal),
    /// A slot hangs in user code.
    #[error("slot {slot} has not answered the cancel of job {job} attempt {attempt} within {} s: it hangs in user code, and a thread cannot be taken back", CANCEL_MAX.as_secs())]
    SlotHangs {
        /// The slot.
        slot: u32,
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
    },
}

/// What was found out before a slot hears of an attempt.
#[derive(Debug)]
pub struct Fetched {
    /// The job's graph, as this binary builds it.
    pub graph: JobGraph,
    /// Output directories of its sinks, absolute.
    pub outputs: Vec<String>,
    /// What each task of the slot goes on from.
    pub restores: Vec<Option<TaskRestore>>,
}

#[derive(Debug)]
enum Occupant {
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
struct Pending {
    attempt: AttemptId,
    prepare: Prepare,
    plan: SlotPlan,
    epoch: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Not connected; an attempt to dial is under way or will be.
    Down,
    /// `Register` is sent.
    Registering {
        since_ms: u64,
    },
    Registered,
}

/// The state machine.
pub struct Agent {
    identity: Identity,
    link: Link,
    incarnation: u32,
    fence: Fence,
    cluster: ClusterId,
    store: PathBuf,
    slots: Vec<Occupant>,
    retries: u32,
    leaving: bool,
    ended: bool,
    actions: VecDeque<Action>,
    /// Free segments of each slot, when it last said so.
    segments_free: Vec<u32>,
}

impl Agent {
    /// An agent that wants to dial.
    pub fn new(identity: Identity) -> Self {
        let slots = identity.slots as usize;
        let mut agent = Self {
            identity,
            link: Link::Down,
            incarnation: 0,
            fence: Fence::default(),
            cluster: ClusterId::default(),
            store: PathBuf::new(),
            slots: (0..slots).map(|_| Occupant::Free).collect(),
            retries: 0,
            leaving: false,
            ended: false,
            actions: VecDeque::new(),
            segments_free: Vec::new(),
        };
        let segments = agent.identity.segments_per_slot;
        agent.segments_free.resize(slots, segments);
        agent.actions.push_back(Action::Dial { after_ms: 0 });
        agent
    }

    /// The next thing to do, if any.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The epoch to put into messages.
    pub fn epoch(&self) -> u64 {
        self.fence.epoch()
    }

    /// Takes in what happened at `now_ms`, milliseconds of a clock that never falls.
    pub fn handle(&mut self, now_ms: u64, input: Input) {
        match input {
            Input::Connected => self.connected(now_ms),
            Input::Disconnected(reason) => self.disconnected(now_ms, &reason),
            Input::Message(envelope) => self.message(now_ms, *envelope),
            Input::Slot(slot, event) => self.slot_event(now_ms, slot, event),
            Input::Fetched { slot, attempt, result } => self.fetched(slot, attempt, result),
            Input::Tick => {}
            Input::Stop(reason) => self.stop(now_ms, reason),
        }
        self.check_deadlines(now_ms);
        self.check_drained();
    }

    // ---- the connection ----

    fn connected(&mut self, now_ms: u64) {
        self.incarnation += 1;
        self.link = Link::Registering { since_ms: now_ms };
        let held = self.slots.iter().enumerate().filter_map(|(slot, occupant)| {
            let AttemptId { job, attempt } = occupant.attempt()?;
            Some(HeldSlot { slot: slot as u32, job: JobId(job), attempt })
        });
        let register = Register {
            taskmanager: self.identity.taskmanager,
            incarnation: self.incarnation,
            slots: self.identity.slots,
            data_address: self.identity.data_address,
            host: self.identity.host.clone(),
            pid: self.identity.pid,
            binary_fingerprint: self.identity.binary_fingerprint,
            cluster: self.cluster,
            epoch_seen: self.fence.epoch(),
            segment_size: self.identity.segment_size,
            segments_per_slot: self.identity.segments_per_slot,
            driver: self.identity.driver.clone(),
            held: held.collect(),
        };
        // The first message of a connection has epoch 0: which one it joins, the answer says.
        let envelope = Envelope::new(0, ToJobManager::Register(Box::new(register)));
        self.actions.push_back(Action::Send(Box::new(envelope)));
    }

    fn disconnected(&mut self, now_ms: u64, reason: &str) {
        if self.link == Link::Registered {
            tracing::warn!("lost the JobManager ({reason}); cancelling every attempt and looking for it");
            self.actions.push_back(Action::Heartbeats { interval_ms: 0 });
        }
        self.link = Link::Down;
        self.cancel_all(now_ms);
        if !self.leaving {
            let after_ms = backoff_ms(self.retries);
            self.retries = self.retries.saturating_add(1);
            self.actions.push_back(Action::Dial { after_ms });
        }
    }

    fn registered(&mut self, now_ms: u64, registered: Registered) {
        if self.fence.admit(registered.epoch).is_err() {
            tracing::warn!(
                epoch = registered.epoch,
                seen = self.fence.epoch(),
                "a JobManager of an older epoch answers"
            );
            return self.hang_up(now_ms, "its epoch is over");
        }
        tracing::info!(epoch = registered.epoch, cluster = %registered.cluster, "registered");
        if self.cluster == ClusterId::default() {
            self.cluster = registered.cluster;
            self.actions.push_back(Action::Join(registered.cluster));
        }
        self.link = Link::Registered;
        self.retries = 0;
        self.store = PathBuf::from(registered.store);
        self.actions.push_back(Action::Heartbeats { interval_ms: registered.heartbeat_interval_ms });
    }

    fn refused(&mut self, now_ms: u64, refusal: Refusal) {
        let passing = match &refusal {
            Refusal::StaleEpoch { .. } | Refusal::Incarnation { .. } | Refusal::Draining => true,
            Refusal::Version { .. }
            | Refusal::Binary { .. }
            | Refusal::Cluster { .. }
            | Refusal::SegmentSize { .. }
            | Refusal::Slots { .. }
            | Refusal::Protocol(_) => false,
        };
        if passing {
            tracing::warn!("the JobManager refuses this TaskManager for now: {refusal}");
            self.hang_up(now_ms, "refused");
        } else {
            self.end(End::Refused(refusal));
        }
    }

    fn hang_up(&mut self, now_ms: u64, reason: &str) {
        self.actions.push_back(Action::HangUp);
        self.disconnected(now_ms, reason);
    }

    // ---- the JobManager's words ----

    fn message(&mut self, now_ms: u64, envelope: Envelope<ToTaskManager>) {
        let Envelope { epoch, body, .. } = envelope;
        match (self.link, body) {
            (Link::Registering { .. }, ToTaskManager::Registered(registered)) => {
                self.registered(now_ms, registered)
            }
            (Link::Registering { .. }, ToTaskManager::Refused(refusal)) => self.refused(now_ms, refusal),
            (Link::Registered, body) => match self.fence.admit(epoch) {
                Ok(()) => self.command(now_ms, epoch, body),
                Err(stale) => tracing::warn!("ignored a message: {stale}"),
            },
            (_, body) => tracing::warn!("ignored a message before registration: {}", name_of(&body)),
        }
    }

    fn command(&mut self, now_ms: u64, epoch: u64, body: ToTaskManager) {
        match body {
            ToTaskManager::Prepare(prepare) => self.prepare(epoch, *prepare),
            ToTaskManager::Start { job, attempt } => self.tell_slots(job, attempt, SlotCommand::Start),
            ToTaskManager::Trigger { job, attempt, checkpoint } => {
                self.tell_slots(job, attempt, |attempt| SlotCommand::Trigger { attempt, checkpoint });
            }
            ToTaskManager::CheckpointComplete { job, attempt, checkpoint, last } => {
                self.tell_slots(job, attempt, |attempt| SlotCommand::CheckpointComplete {
                    attempt,
                    checkpoint,
                    last,
                });
            }
            ToTaskManager::CheckpointAborted { job, attempt, checkpoint } => {
                self.tell_slots(job, attempt, |attempt| SlotCommand::CheckpointAborted {
                    attempt,
                    checkpoint,
                });
            }
            ToTaskManager::Cancel { job, attempt } => self.cancel(now_ms, AttemptId { job: job.0, attempt }),
            ToTaskManager::Goodbye { reason } => tracing::info!("the JobManager leaves: {reason}"),
            ToTaskManager::Refused(refusal) => self.refused(now_ms, refusal),
            ToTaskManager::Registered(_) => {
                tracing::warn!("the JobManager registered this TaskManager twice")
            }
        }
    }

    /// Tells every slot that runs the attempt. Attempts that are not here any more are nobody's business.
    fn tell_slots(&mut self, job: JobId, attempt: u32, command: impl Fn(AttemptId) -> SlotCommand) {
        let wanted = AttemptId { job: job.0, attempt };
        for (slot, occupant) in self.slots.iter().enumerate() {
            if matches!(occupant, Occupant::Running { attempt, .. } if *attempt == wanted) {
                self.actions.push_back(Action::Command(slot as u32, command(wanted)));
            }
        }
    }

    fn prepare(&mut self, epoch: u64, mut prepare: Prepare) {
        let attempt = AttemptId { job: prepare.job.0, attempt: prepare.attempt };
        for plan in std::mem::take(&mut prepare.slots) {
            let refusal = match self.slots.get(plan.slot as usize) {
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

    fn occupy(&mut self, epoch: u64, attempt: AttemptId, prepare: &Prepare, plan: SlotPlan) {
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

    fn fetched(&mut self, slot: u32, attempt: AttemptId, result: Result<Fetched, Fault>) {
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

    fn refuse(&mut self, attempt: AttemptId, slot: u32, fault: Fault) {
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
    fn refuse_at_once(&mut self, attempt: AttemptId, slot: u32, fault: Fault) {
        self.refuse(attempt, slot, fault);
        let segments_free = self.segments_free.get(slot as usize).copied().unwrap_or(0);
        self.closed(slot, attempt, segments_free);
    }

    // ---- cancelling ----

    fn cancel(&mut self, now_ms: u64, attempt: AttemptId) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].attempt() == Some(attempt) {
                self.cancel_slot(now_ms, slot);
            }
        }
    }

    fn cancel_all(&mut self, now_ms: u64) {
        (0..self.slots.len()).for_each(|slot| self.cancel_slot(now_ms, slot));
    }

    fn cancel_slot(&mut self, now_ms: u64, slot: usize) {
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

    fn closed(&mut self, slot: u32, attempt: AttemptId, segments_free: u32) {
        let AttemptId { job, attempt } = attempt;
        self.send(ToJobManager::Closed { job: JobId(job), attempt, slot, segments_free });
    }

    /// Tells the files thread if that was the attempt's last slot here.
    fn left(&mut self, attempt: AttemptId) {
        if !self.slots.iter().any(|occupant| occupant.attempt() == Some(attempt)) {
            self.actions.push_back(Action::Leave(attempt));
        }
    }

    // ---- the slots' words ----

    fn slot_event(&mut self, now_ms: u64, slot: u32, event: SlotEvent) {
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

    fn prepared(&mut self, now_ms: u64, slot: u32, attempt: AttemptId, result: Result<(), String>) {
        match result {
            Ok(()) => {
                let outputs = match &self.slots[slot as usize] {
                    Occupant::Running { outputs, .. } => outputs.clone(),
                    _ => Vec::new(), // Being cancelled: the answer no longer matters.
                };
                let (job, attempt) = (JobId(attempt.job), attempt.attempt);
                self.send(ToJobManager::Prepared { job, attempt, slot, outputs, refusal: None });
            }
            Err(cause) => {
                // The slot lets go of it by itself and says `Closed` when it has; until then it is not free.
                self.slots[slot as usize] = Occupant::Cancelling { attempt, since_ms: now_ms };
                self.refuse(attempt, slot, Fault { kind: FaultKind::Resources, cause });
            }
        }
    }

    // ---- ends ----

    fn stop(&mut self, now_ms: u64, reason: String) {
        if self.leaving {
            return;
        }
        tracing::info!("leaving: {reason}");
        self.leaving = true;
        self.send(ToJobManager::Goodbye { reason });
        self.cancel_all(now_ms);
    }

    fn check_drained(&mut self) {
        if self.leaving && self.slots.iter().all(|occupant| matches!(occupant, Occupant::Free)) {
            self.end(End::Drained);
        }
    }

    fn check_deadlines(&mut self, now_ms: u64) {
        let cancel_max = CANCEL_MAX.as_millis() as u64;
        let hanging = self.slots.iter().enumerate().find_map(|(slot, occupant)| match occupant {
            Occupant::Cancelling { attempt, since_ms } if now_ms.saturating_sub(*since_ms) > cancel_max => {
                Some(End::SlotHangs { slot: slot as u32, job: JobId(attempt.job), attempt: attempt.attempt })
            }
            _ => None,
        });
        if let Some(end) = hanging {
            self.end(end);
        }
        if let Link::Registering { since_ms } = self.link
            && now_ms.saturating_sub(since_ms) > REGISTER_MAX.as_millis() as u64
        {
            tracing::warn!("the JobManager does not answer the registration");
            self.hang_up(now_ms, "no answer to the registration");
        }
    }

    fn end(&mut self, end: End) {
        if !self.ended {
            self.ended = true;
            self.actions.push_back(Action::End(end));
        }
    }

    fn send(&mut self, body: ToJobManager) {
        if self.link == Link::Registered {
            self.actions.push_back(Action::Send(Box::new(Envelope::new(self.fence.epoch(), body))));
        }
    }
}

impl Occupant {
    fn attempt(&self) -> Option<AttemptId> {
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

/// The wait before dialling for the `retries`-th time.
fn backoff_ms(retries: u32) -> u64 {
    let wait = (RECONNECT_MIN.as_millis() as u64).saturating_mul(1 << retries.min(16));
    wait.min(RECONNECT_MAX.as_millis() as u64)
}

fn name_of(message: &ToTaskManager) -> &'static str {
    match message {
        ToTaskManager::Registered(_) => "Registered",
        ToTaskManager::Refused(_) => "Refused",
        ToTaskManager::Prepare(_) => "Prepare",
        ToTaskManager::Start { .. } => "Start",
        ToTaskManager::Trigger { .. } => "Trigger",
        ToTaskManager::CheckpointComplete { .. } => "CheckpointComplete",
        ToTaskManager::CheckpointAborted { .. } => "CheckpointAborted",
        ToTaskManager::Cancel { .. } => "Cancel",
        ToTaskManager::Goodbye { .. } => "Goodbye",
    }
}
