//! The one task that owns the core: events in, actions carried out.
//!
//! It owns the connections' sending ends, the jobs' workers and the requests that wait for an answer. Always:
//! a connection whose queue is full is treated as lost; a request gets exactly one answer.

use super::metrics;
use super::start::Clock;
use super::worker::{Work, Worker};
use crate::core::views::Query;
use crate::core::{Action, Core, Input, Level, Rejection, Submission};
use crate::limits::DRAIN_TIMEOUT_MS;
use crate::memory::Meter;
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;
use tidegate_checkpoint::LocalStore;
use tidegate_rpc::server::Incoming;
use tidegate_rpc::{Envelope, JobId, ToTaskManager};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// What reaches the actor.
#[derive(Debug)]
pub(super) enum Event {
    /// A TaskManager opened a stream.
    Accepted(Box<Incoming>),
    /// Something for the core.
    Input(Box<Input>),
    /// A question.
    Query { query: Query, reply: oneshot::Sender<Result<Value, Rejection>> },
    /// This process's own memory.
    Memory { reply: oneshot::Sender<Value> },
    /// The text of `/metrics`.
    Metrics { reply: oneshot::Sender<String> },
    /// Run a job.
    Submit { submission: Box<Submission>, reply: oneshot::Sender<Result<JobId, Rejection>> },
    /// Cancel a job.
    Cancel { job: JobId, reply: oneshot::Sender<Result<JobId, Rejection>> },
    /// Stop.
    Stop,
}

struct Connection {
    to: mpsc::Sender<Envelope<ToTaskManager>>,
    reader: JoinHandle<()>,
}

/// See the module.
pub(super) struct Actor {
    core: Core,
    clock: Clock,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    store: LocalStore,
    root: PathBuf,
    slots: watch::Sender<u32>,
    connections: HashMap<u64, Connection>,
    next_connection: u64,
    workers: HashMap<JobId, Worker>,
    waiting: HashMap<u64, oneshot::Sender<Result<JobId, Rejection>>>,
    next_ticket: u64,
    deposed: Option<u64>,
    meter: Meter,
}

impl Actor {
    pub(super) fn new(
        core: Core,
        clock: Clock,
        (events, inbox): (mpsc::Sender<Event>, mpsc::Receiver<Event>),
        store: LocalStore,
        root: PathBuf,
        slots: watch::Sender<u32>,
        meter: Meter,
    ) -> Self {
        Actor {
            core,
            clock,
            events,
            inbox,
            store,
            root,
            slots,
            connections: HashMap::new(),
            next_connection: 1,
            workers: HashMap::new(),
            waiting: HashMap::new(),
            next_ticket: 1,
            deposed: None,
            meter,
        }
    }

    /// Runs until it is told to stop or a newer leader exists; gives the reason for the latter.
    pub(super) async fn run(&mut self, first: Vec<Action>) -> Option<String> {
        self.carry_out(first);
        loop {
            let deadline = self.clock.instant(self.core.deadline(self.clock.now_ms()));
            let event = tokio::select! {
                event = self.inbox.recv() => event,
                () = tokio::time::sleep_until(deadline.into()) => Some(Event::Input(Box::new(Input::Tick))),
            };
            match event {
                None | Some(Event::Stop) => return None,
                Some(event) => self.take(event),
            }
            if let Some(newest) = self.deposed {
                return Some(format!("another JobManager leads epoch {newest}; this one stops"));
            }
        }
    }

    /// Says goodbye and lets the stores finish what they have begun.
    pub(super) async fn drain(&mut self) {
        self.input(Input::Drain { reason: "the JobManager is shutting down".to_owned() });
        self.waiting.clear();
        let workers: Vec<Worker> = self.workers.drain().map(|(_, worker)| worker).collect();
        let finish = async {
            for worker in workers {
                worker.finish().await;
            }
        };
        let inbox = &mut self.inbox;
        // Workers report into the inbox; it is read so that they never wait for room.
        let discard = async { while inbox.recv().await.is_some() {} };
        let limit = Duration::from_millis(DRAIN_TIMEOUT_MS);
        tokio::select! {
            _ = tokio::time::timeout(limit, finish) => {}
            () = discard => {}
        }
    }

    fn take(&mut self, event: Event) {
        self.meter.read();
        match event {
            Event::Memory { reply } => {
                let _ = reply.send(self.meter.view());
            }
            Event::Accepted(incoming) => self.accepted(*incoming),
            Event::Input(input) => self.input(*input),
            Event::Query { query, reply } => {
                let _ = reply.send(self.core.view(query, self.clock.now_ms()));
            }
            Event::Metrics { reply } => {
                let _ = reply.send(metrics::text(&self.core, &mut self.meter));
            }
            Event::Submit { submission, reply } => {
                let ticket = self.ticket(reply);
                self.input(Input::Submit { ticket, submission });
            }
            Event::Cancel { job, reply } => {
                let ticket = self.ticket(reply);
                self.input(Input::Cancel { ticket, job });
            }
            Event::Stop => {}
        }
    }

    fn ticket(&mut self, reply: oneshot::Sender<Result<JobId, Rejection>>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, reply);
        ticket
    }

    fn input(&mut self, input: Input) {
        if let Input::Disconnected { conn, .. } = &input {
            // Its end is over; ending ours lets the other side know that all it said was read.
            self.close(*conn);
        }
        let actions = self.core.handle(input, self.clock.now_ms());
        self.carry_out(actions);
    }

    fn accepted(&mut self, incoming: Incoming) {
        let conn = self.next_connection;
        self.next_connection += 1;
        let Incoming { peer, mut from, to } = incoming;
        let events = self.events.clone();
        let reader = tokio::spawn(async move {
            let reason = loop {
                match from.message().await {
                    Ok(Some(message)) => {
                        let input = Input::Message { conn, message: Box::new(message) };
                        if events.send(Event::Input(Box::new(input))).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => break "it ended its connection".to_owned(),
                    Err(status) => break status.message().to_owned(),
                }
            };
            let _ = events.send(Event::Input(Box::new(Input::Disconnected { conn, reason }))).await;
        });
        self.connections.insert(conn, Connection { to, reader });
        self.input(Input::Connected { conn, peer: peer.map(|peer| peer.ip()) });
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        let mut queue = VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            match action {
                Action::Send { conn, message } => {
                    if let Some(reason) = self.send(conn, *message) {
                        self.close(conn);
                        let lost = Input::Disconnected { conn, reason };
                        queue.extend(self.core.handle(lost, self.clock.now_ms()));
                    }
                }
                Action::Close { conn } => self.close(conn),
                Action::Store { job, op, body } => self.work(job, Work::Store { op, body: Box::new(body) }),
                Action::Save { job, save, record } => self.work(job, Work::Save { save, record }),
                Action::Answer { ticket, answer } => {
                    if let Some(reply) = self.waiting.remove(&ticket) {
                        let _ = reply.send(answer);
                    }
                }
                // Its worker ends after what it was given.
                Action::Over { job } => drop(self.workers.remove(&job)),
                Action::Deposed { newest } => self.deposed = Some(newest),
                Action::Log(Level::Info, text) => tracing::info!("{text}"),
                Action::Log(Level::Warn, text) => tracing::warn!("{text}"),
                Action::Log(Level::Error, text) => tracing::error!("{text}"),
            }
        }
        let total = self.core.slots_total();
        self.slots.send_if_modified(|slots| std::mem::replace(slots, total) != total);
    }

    /// Queues a message; says why if the connection is of no use any more.
    fn send(&mut self, conn: u64, message: ToTaskManager) -> Option<String> {
        let connection = self.connections.get(&conn)?;
        match connection.to.try_send(Envelope::new(self.core.epoch(), message)) {
            Ok(()) => None,
            // Its reader tells, too; whoever comes first.
            Err(mpsc::error::TrySendError::Closed(_)) => Some("its connection ended".to_owned()),
            Err(mpsc::error::TrySendError::Full(_)) => Some("it does not take its messages".to_owned()),
        }
    }

    fn close(&mut self, conn: u64) {
        if let Some(connection) = self.connections.remove(&conn) {
            connection.reader.abort();
        }
    }

    fn work(&mut self, job: JobId, work: Work) {
        let worker = self.workers.entry(job).or_insert_with(|| {
            Worker::start(job, self.store.clone(), self.root.clone(), self.events.clone())
        });
        worker.send(work);
    }
}
