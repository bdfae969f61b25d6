//! What a TaskManager decides, without I/O: registration, fencing, deployment, cancelling, leaving.
//!
//! Owner of the state: the control thread. Inputs are messages, slot events, results of fetches and the time; actions
//! are messages, slot commands, fetches and the wish to dial or to end.
//!
//! Always true:
//! - a slot belongs to at most one attempt, from `Prepare` until its `Closed`; a second one is refused by name;
//! - nothing of an epoch older than one already seen has any effect;
//! - without a JobManager no attempt runs: losing it cancels everything, and nothing is deployed before a new `Registered`;
//! - a slot that was told to cancel answers within `Identity::cancel_max`, or the process ends by name.
//!
//! `connection` is what is said to and by the JobManager, `deploy` what becomes of the slots.

mod connection;
mod deploy;
#[cfg(test)]
mod tests;
mod translate;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_graph::JobGraph;
use tidegate_rpc::{
    ClusterId, Envelope, Fault, Fence, HeldSlot, JobId, Prepare, Refusal, SlotPlan, ToJobManager,
    ToTaskManager,
};
use tidegate_stream::slot::{AttemptId, SlotCommand, SlotEvent, TaskRestore};

use self::deploy::Occupant;
use crate::limits::REGISTER_MAX;

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
    /// Bytes of the largest record that a slot sets regions aside for; 0 if records have to fit a segment.
    pub record_max: u32,
    /// Links that the ring of each slot has room for.
    pub links_per_slot: u32,
    /// How memory is divided.
    pub memory: tidegate_rpc::MemoryPlan,
    /// What drives the network, for people.
    pub driver: tidegate_rpc::DriverReport,
    /// How long a slot may take to answer a cancel.
    pub cancel_max: Duration,
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
    #[error(
        "slot {slot} has not answered the cancel of job {job} attempt {attempt} within {within:?}: it hangs in user code, and a thread cannot be taken back"
    )]
    SlotHangs {
        /// The slot.
        slot: u32,
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
        /// How long it had.
        within: Duration,
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
    /// What the last registration named as held: the JobManager waits for the end of each.
    named: Vec<HeldSlot>,
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
            named: Vec::new(),
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

    /// No slot belongs to an attempt.
    pub fn is_free(&self) -> bool {
        self.slots.iter().all(|occupant| matches!(occupant, Occupant::Free))
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
        if self.leaving && self.is_free() {
            self.end(End::Drained);
        }
    }

    fn check_deadlines(&mut self, now_ms: u64) {
        let within = self.identity.cancel_max;
        let hanging = (0..).zip(&self.slots).find_map(|(slot, occupant)| match occupant {
            Occupant::Cancelling { attempt: AttemptId { job, attempt }, since_ms }
                if u128::from(now_ms.saturating_sub(*since_ms)) > within.as_millis() =>
            {
                Some(End::SlotHangs { slot, job: JobId(*job), attempt: *attempt, within })
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
