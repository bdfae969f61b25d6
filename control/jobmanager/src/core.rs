//! The JobManager without I/O, clock or randomness: registration, slots, jobs. Inputs and `now` in, actions out.
//!
//! It owns the registry of TaskManagers and all jobs; each job owns its coordinator. `now_ms` is milliseconds
//! since 1970 on a clock that never goes back. Always: a message counts only on a registered connection and
//! for this epoch; a slot belongs to at most one attempt from `Prepare` to `Closed` (or the loss of its
//! TaskManager); an attempt is started only after every slot of it is prepared.

mod birth;
mod deploy;
mod finish;
mod job;
pub(crate) mod latency;
mod registry;
mod saver;
mod submit;
mod tasks;
#[cfg(test)]
mod tests;
mod times;
pub(crate) mod views;

use crate::config::{Planned, RestartPolicy};
use crate::limits::{CONNECTIONS_MAX, LATE_MS_MAX, REGISTER_TIMEOUT_MS, TICK_MS_MAX};
use crate::record::{JobRecord, JobRequest};
use job::Cx;
pub(crate) use job::Job;
use registry::Registry;
use std::collections::BTreeMap;
use std::net::IpAddr;
use tidegate_checkpoint::{Legal, StoreDone, StoreOp};
use tidegate_graph::JobGraph;
use tidegate_plant::{Plant, planted};
use tidegate_rpc::{
    ClusterId, Envelope, Fault, FaultKind, JobId, Refusal, Registered, ToJobManager, ToTaskManager,
};

/// What the core knows from the start.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// The epoch that this JobManager leads.
    pub epoch: u64,
    /// Root of the checkpoint store, as TaskManagers are told.
    pub store: String,
    /// Fingerprint of the executable.
    pub binary_fingerprint: u64,
    /// Time between heartbeats, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Silence after which a TaskManager is given up, in milliseconds.
    pub heartbeat_timeout_ms: u64,
    /// When failed jobs are restarted.
    pub restart: RestartPolicy,
}

/// A job to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// Its id; submitting the same request under the same id again changes nothing.
    pub id: JobId,
    /// What was asked for.
    pub request: JobRequest,
    /// What the planner made of it.
    pub planned: Planned,
    /// What the directory or the output directories say against it, unless the job is known: then they are its own.
    pub objection: Option<Rejection>,
}

/// A job found in the directory at the start.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its record.
    pub record: JobRecord,
    /// Its id, parsed.
    pub id: JobId,
    /// The graph as planned now, or why it cannot be; not needed if the job is over.
    pub planned: Option<Result<JobGraph, String>>,
    /// Its checkpoints that count.
    pub legal: Vec<Legal>,
}

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// HTTP status that says it.
    pub status: u16,
    /// In words, the main one first.
    pub errors: Vec<String>,
}

impl Rejection {
    /// A rejection with one sentence.
    pub fn new(status: u16, error: impl Into<String>) -> Self {
        Rejection { status, errors: vec![error.into()] }
    }
}

/// What the core is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// A TaskManager opened a stream.
    Connected {
        /// Number of the connection, never used again.
        conn: u64,
        /// Where it comes from.
        peer: Option<IpAddr>,
    },
    /// It said something.
    Message {
        /// The connection.
        conn: u64,
        /// What it said.
        message: Box<Envelope<ToJobManager>>,
    },
    /// The stream ended.
    Disconnected {
        /// The connection.
        conn: u64,
        /// Why, for people.
        reason: String,
    },
    /// Run a job; answered by `Answer`.
    Submit {
        /// Whom to answer.
        ticket: u64,
        /// The job.
        submission: Box<Submission>,
    },
    /// Cancel a job; answered by `Answer`.
    Cancel {
        /// Whom to answer.
        ticket: u64,
        /// The job.
        job: JobId,
    },
    /// Answer to `Action::Store`.
    Store {
        /// The job.
        job: JobId,
        /// Number of the operation.
        op: u64,
        /// The answer.
        done: StoreDone,
    },
    /// Answer to `Action::Save`.
    Saved {
        /// The job.
        job: JobId,
        /// Number of the save.
        save: u64,
        /// Durable, or why not.
        result: Result<(), String>,
    },
    /// Time has passed; see [`Core::deadline`].
    Tick,
    /// Stop accepting, say goodbye to everybody.
    Drain {
        /// Why, for people.
        reason: String,
    },
}

/// How much attention a line deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Something failed and is being dealt with.
    Warn,
    /// Somebody must act.
    Error,
}

/// What the core wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send to a TaskManager.
    Send {
        /// The connection.
        conn: u64,
        /// The message; the shell adds the epoch.
        message: Box<ToTaskManager>,
    },
    /// End a connection after what was sent; no `Disconnected` is expected.
    Close {
        /// The connection.
        conn: u64,
    },
    /// Execute and answer with `Input::Store`. Operations and saves of one job are executed in order.
    Store {
        /// The job.
        job: JobId,
        /// Number of the operation.
        op: u64,
        /// The operation.
        body: StoreOp,
    },
    /// Write the job's record durably and answer with `Input::Saved`.
    Save {
        /// The job.
        job: JobId,
        /// Number of the save.
        save: u64,
        /// The record.
        record: Box<JobRecord>,
    },
    /// Answer a request.
    Answer {
        /// Whose.
        ticket: u64,
        /// The job, or why not.
        answer: Result<JobId, Rejection>,
    },
    /// Nothing follows for this job but what was asked for before.
    Over {
        /// The job.
        job: JobId,
    },
    /// A newer leader exists: stop at once.
    Deposed {
        /// Its epoch.
        newest: u64,
    },
    /// Tell people.
    Log(Level, String),
}

/// The core. See the module for its rules.
pub struct Core {
    config: CoreConfig,
    registry: Registry,
    jobs: BTreeMap<JobId, Job>,
    next_rank: u64,
    draining: bool,
    /// Time of the last input.
    handled_ms: u64,
    actions: Vec<Action>,
}

impl Core {
    /// A core that leads `config.epoch` and knows the jobs found in its directory. Returns what they need.
    pub fn new(config: CoreConfig, found: Vec<Found>, now_ms: u64) -> (Self, Vec<Action>) {
        let mut core = Core {
            config,
            registry: Registry::default(),
            jobs: BTreeMap::new(),
            next_rank: 0,
            draining: false,
            handled_ms: now_ms,
            actions: Vec::new(),
        };
        for found in found {
            let (id, rank) = (found.id, core.next_rank);
            core.next_rank += 1;
            let job = Job::recover(found, &core.config, rank);
            core.jobs.insert(id, job);
            core.with_job(id, now_ms, |job, cx| job.resume(cx));
        }
        let actions = std::mem::take(&mut core.actions);
        (core, actions)
    }

    /// The epoch that goes into every message.
    pub fn epoch(&self) -> u64 {
        self.config.epoch
    }

    /// Slots of all registered TaskManagers.
    pub fn slots_total(&self) -> u32 {
        self.registry.slots_total()
    }

    /// When [`Input::Tick`] is needed next at the latest.
    pub fn deadline(&self, now_ms: u64) -> u64 {
        let jobs = self.jobs.values().filter_map(Job::deadline).min();
        let heard = self.registry.next_timeout(self.config.heartbeat_timeout_ms);
        [jobs, heard].into_iter().flatten().min().unwrap_or(u64::MAX).min(now_ms + TICK_MS_MAX)
    }

    /// Takes one input and says what follows from it, in order.
    pub fn handle(&mut self, input: Input, now_ms: u64) -> Vec<Action> {
        if now_ms.saturating_sub(self.handled_ms) > TICK_MS_MAX + LATE_MS_MAX {
            // This process did not run; what TaskManagers said meanwhile still waits behind this input.
            let text = format!("the JobManager stood still for {} ms", now_ms - self.handled_ms);
            self.actions.push(Action::Log(Level::Warn, text));
            self.registry.forgive(now_ms);
        }
        self.handled_ms = now_ms;
        match input {
            Input::Connected { conn, peer } => self.connected(conn, peer, now_ms),
            Input::Message { conn, message } => self.message(conn, *message, now_ms),
            Input::Disconnected { conn, reason } => self.disconnected(conn, &reason, now_ms),
            Input::Submit { ticket, submission } => self.submit(ticket, *submission, now_ms),
            Input::Cancel { ticket, job } => self.cancel(ticket, job, now_ms),
            Input::Store { job, op, done } => {
                self.with_job(job, now_ms, |job, cx| job.stored(cx, op, done));
            }
            Input::Saved { job, save, result } => {
                self.with_job(job, now_ms, |job, cx| job.saved(cx, save, result));
                self.drop_unsaved(job);
                if !self.jobs.contains_key(&job) {
                    self.actions.push(Action::Over { job });
                }
            }
            Input::Tick => self.tick(now_ms),
            Input::Drain { reason } => self.drain(&reason),
        }
        self.place_waiting(now_ms);
        std::mem::take(&mut self.actions)
    }

    /// Calls `work` with one job taken out of the map, so that it can see all others.
    fn with_job(&mut self, id: JobId, now_ms: u64, work: impl FnOnce(&mut Job, &mut Cx<'_>)) {
        let Some(mut job) = self.jobs.remove(&id) else { return };
        let mut cx = Cx {
            config: &self.config,
            registry: &mut self.registry,
            others: &self.jobs,
            actions: &mut self.actions,
            now_ms,
        };
        work(&mut job, &mut cx);
        self.jobs.insert(id, job);
    }

    fn each_job(&mut self, now_ms: u64, mut work: impl FnMut(&mut Job, &mut Cx<'_>)) {
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        for id in ids {
            self.with_job(id, now_ms, &mut work);
        }
    }

    /// Gives free slots to waiting jobs, the oldest first.
    fn place_waiting(&mut self, now_ms: u64) {
        if self.draining {
            return;
        }
        let mut waiting: Vec<(u64, JobId)> =
            self.jobs.values().filter(|job| job.is_waiting(now_ms)).map(|job| (job.rank, job.id)).collect();
        waiting.sort_unstable();
        for (_, id) in waiting {
            self.with_job(id, now_ms, |job, cx| job.try_deploy(cx));
        }
    }

    fn tick(&mut self, now_ms: u64) {
        for (conn, reason) in self.registry.expired(now_ms, self.config.heartbeat_timeout_ms) {
            self.actions.push(Action::Close { conn });
            self.disconnected(conn, &reason, now_ms);
        }
        self.each_job(now_ms, |job, cx| job.tick(cx));
    }

    fn drain(&mut self, reason: &str) {
        self.draining = true;
        for conn in self.registry.connections() {
            let goodbye = ToTaskManager::Goodbye { reason: reason.to_owned() };
            self.actions.push(Action::Send { conn, message: Box::new(goodbye) });
            self.actions.push(Action::Close { conn });
        }
    }

    fn connected(&mut self, conn: u64, peer: Option<IpAddr>, now_ms: u64) {
        if self.draining {
            self.refuse(conn, Refusal::Draining);
        } else if self.registry.connections().count() >= CONNECTIONS_MAX {
            // A TaskManager that hears this tries again; most other refusals end it.
            let text = format!("{CONNECTIONS_MAX} connections are open; a TaskManager is put off");
            self.actions.push(Action::Log(Level::Warn, text));
            self.refuse(conn, Refusal::Draining);
        } else {
            self.registry.connected(conn, peer, now_ms + REGISTER_TIMEOUT_MS);
        }
    }

    fn refuse(&mut self, conn: u64, refusal: Refusal) {
        self.actions.push(Action::Log(Level::Warn, format!("refused a TaskManager: {refusal}")));
        let message = Box::new(ToTaskManager::Refused(refusal));
        self.actions.push(Action::Send { conn, message });
        self.actions.push(Action::Close { conn });
        self.registry.forget(conn);
    }

    fn message(&mut self, conn: u64, message: Envelope<ToJobManager>, now_ms: u64) {
        let Some(taskmanager) = self.registry.taskmanager_of(conn) else {
            return self.first_message(conn, message, now_ms);
        };
        if message.epoch != self.config.epoch {
            return;
        }
        self.registry.heard(taskmanager, now_ms);
        self.registered_message(conn, taskmanager, message.body, now_ms);
    }

    fn first_message(&mut self, conn: u64, message: Envelope<ToJobManager>, now_ms: u64) {
        if !self.registry.is_open(conn) {
            return;
        }
        let ToJobManager::Register(register) = message.body else {
            let reason = "the first message must be Register".to_owned();
            return self.refuse(conn, Refusal::Protocol(reason));
        };
        if let Err(refusal) = self.registry.check(&register, &self.config) {
            return self.refuse(conn, refusal);
        }
        if let Some(old) = self.registry.connection_of(register.taskmanager) {
            self.actions.push(Action::Close { conn: old });
            self.disconnected(old, "it connected anew", now_ms);
        }
        let text = format!(
            "TaskManager {:016x} ({} pid {}) registered: {} slots, data at {}, {} {}",
            register.taskmanager,
            register.host,
            register.pid,
            register.slots,
            register.data_address,
            register.driver.driver,
            register.driver.send_mode
        );
        self.actions.push(Action::Log(Level::Info, text));
        let welcome = Registered {
            epoch: self.config.epoch,
            cluster: self.config.cluster,
            heartbeat_interval_ms: self.config.heartbeat_interval_ms,
            heartbeat_timeout_ms: self.config.heartbeat_timeout_ms,
            store: self.config.store.clone(),
        };
        self.actions.push(Action::Send { conn, message: Box::new(ToTaskManager::Registered(welcome)) });
        let mut held: Vec<(JobId, u32)> = register.held.iter().map(|held| (held.job, held.attempt)).collect();
        held.dedup();
        self.registry.register(conn, *register, now_ms);
        for (job, attempt) in held {
            let message = Box::new(ToTaskManager::Cancel { job, attempt });
            self.actions.push(Action::Send { conn, message });
        }
    }

    fn registered_message(&mut self, conn: u64, taskmanager: u64, body: ToJobManager, now_ms: u64) {
        match body {
            ToJobManager::Register(_) => {
                self.actions.push(Action::Close { conn });
                self.disconnected(conn, "it registered twice on one connection", now_ms);
            }
            ToJobManager::Heartbeat(heartbeat) => {
                for metrics in &heartbeat.tasks {
                    if let Some(job) = self.jobs.get_mut(&metrics.job) {
                        job.measured(metrics);
                    }
                }
                self.registry.measured(taskmanager, *heartbeat);
            }
            ToJobManager::Latencies(report) => self.latencies(*report),
            ToJobManager::Prepared { job, attempt, slot, outputs, refusal } => {
                let slot = tidegate_graph::SlotId { taskmanager, slot };
                self.with_job(job, now_ms, |job, cx| job.prepared(cx, attempt, slot, outputs, refusal));
            }
            ToJobManager::TaskState { job, attempt, task, state } => {
                self.with_job(job, now_ms, |job, cx| job.task_state(cx, attempt, task, state));
            }
            ToJobManager::EndOfData { job, attempt, task } => {
                self.with_job(job, now_ms, |job, cx| job.end_of_data(cx, attempt, task));
            }
            ToJobManager::Failed { job, attempt, slot, task, fault } => {
                let slot = tidegate_graph::SlotId { taskmanager, slot };
                self.with_job(job, now_ms, |job, cx| job.failed(cx, attempt, slot, task, fault));
            }
            ToJobManager::Acknowledge { job, attempt, task, checkpoint, snapshot } => {
                self.with_job(job, now_ms, |job, cx| {
                    job.acknowledge(cx, attempt, task, checkpoint, *snapshot);
                });
            }
            ToJobManager::Decline { job, attempt, task, checkpoint, reason } => {
                self.with_job(job, now_ms, |job, cx| job.decline(cx, attempt, task, checkpoint, reason));
            }
            ToJobManager::Closed { job, attempt, slot, segments_free } => {
                self.registry.closed(taskmanager, slot, (job, attempt), segments_free);
                let slot = tidegate_graph::SlotId { taskmanager, slot };
                self.with_job(job, now_ms, |job, cx| job.closed(cx, attempt, slot));
            }
            ToJobManager::Goodbye { reason } => {
                let text = format!("TaskManager {taskmanager:016x} is leaving: {reason}");
                self.actions.push(Action::Log(Level::Info, text.clone()));
                self.registry.leaving(taskmanager);
                let fault = Fault { kind: FaultKind::Resources, cause: text };
                self.each_job(now_ms, |job, cx| job.left(cx, taskmanager, &fault));
            }
        }
    }

    fn disconnected(&mut self, conn: u64, reason: &str, now_ms: u64) {
        if planted(Plant::MissLostTaskManager) {
            return;
        }
        let Some((taskmanager, leaving)) = self.registry.forget(conn) else { return };
        let text = if leaving {
            format!("TaskManager {taskmanager:016x} has left")
        } else {
            format!("TaskManager {taskmanager:016x} is lost: {reason}")
        };
        let level = if leaving { Level::Info } else { Level::Warn };
        self.actions.push(Action::Log(level, text.clone()));
        self.each_job(now_ms, |job, cx| job.lost(cx, taskmanager, &text));
    }
}
