//! A cluster in memory around the real core: a store, records, TaskManagers that behave unless told not to.
//!
//! Owned by one test; time is a number. Always checked: a slot is prepared for one attempt at a time, `Start`
//! comes after every slot of the attempt has answered, a record that is over stays over.

use crate::config::{Planned, RestartPolicy};
use crate::core::views::Query;
use crate::core::{Action, Core, CoreConfig, Found, Input, Rejection, Submission};
use crate::record::{JobRecord, JobRequest};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tidegate_checkpoint::sink::Moved;
use tidegate_checkpoint::{
    Legal, Metadata, Outputs, Scanned, ScannedState, SinkDone, SinkOp, StoreDone, StoreOp,
};
use tidegate_graph::{Edge, JobGraph, Operator, OperatorKind, Partitioner, Vertex};
use tidegate_rpc::{
    ClusterId, Committable, DriverReport, Envelope, Fault, FaultKind, Heartbeat, HeldSlot, JobId,
    OperatorSnapshot, Register, TaskId, TaskSnapshot, TaskState, ToJobManager, ToTaskManager,
};

pub(super) const CLUSTER: ClusterId = ClusterId(77);
pub(super) const BINARY: u64 = 5;

/// Source of parallelism `p`, keyed count of parallelism `p`, in one slot group.
pub(super) fn graph(parallelism: u32) -> JobGraph {
    let vertex = |id: u32, name: &str, kind| Vertex {
        id,
        name: name.into(),
        parallelism,
        slot_group: "default".into(),
        operators: vec![Operator { id: u64::from(id) + 100, name: name.into(), kind, managed_memory: false }],
    };
    JobGraph {
        name: "count".into(),
        max_parallelism: 128,
        vertices: vec![vertex(0, "read", OperatorKind::Source), vertex(1, "count", OperatorKind::Keyed)],
        edges: vec![Edge {
            from: 0,
            to: 1,
            input: 0,
            partitioner: Partitioner::KeyGroup,
            schema: 7,
            record: "Word".into(),
        }],
    }
}

pub(super) fn request(parallelism: u32, interval_ms: Option<u64>) -> JobRequest {
    JobRequest {
        job: "count".into(),
        args: vec!["--x".into()],
        parallelism,
        checkpoint_interval_ms: interval_ms,
        min_pause_ms: 0,
        checkpoint_timeout_ms: 60_000,
        tolerable_failures: 3,
        retained: 3,
    }
}

/// A slot of a TaskManager.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) job: JobId,
    pub(super) attempt: u32,
    pub(super) tasks: Vec<TaskId>,
    pub(super) restored: Option<u64>,
    pub(super) started: bool,
}

/// What a TaskManager leaves undone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lazy {
    pub(super) prepare: bool,
    pub(super) acknowledge: bool,
    pub(super) close: bool,
}

#[derive(Debug)]
pub(super) struct FakeTaskManager {
    pub(super) id: u64,
    pub(super) conn: u64,
    pub(super) slots: Vec<Option<Held>>,
    pub(super) lazy: Lazy,
    pub(super) told: Vec<ToTaskManager>,
    incarnation: u32,
}

impl FakeTaskManager {
    /// Somebody who only listens.
    pub(super) fn stranger(conn: u64) -> Self {
        FakeTaskManager {
            id: 0,
            conn,
            slots: Vec::new(),
            lazy: Lazy::default(),
            told: Vec::new(),
            incarnation: 0,
        }
    }
}

pub(super) struct Sim {
    pub(super) core: Core,
    pub(super) now_ms: u64,
    pub(super) tms: Vec<FakeTaskManager>,
    pub(super) records: BTreeMap<JobId, JobRecord>,
    pub(super) published: BTreeMap<JobId, BTreeMap<u64, Box<Metadata>>>,
    pub(super) answers: BTreeMap<u64, Result<JobId, Rejection>>,
    /// In the order in which things happened: records written and messages sent, in words.
    pub(super) trace: Vec<String>,
    /// Jobs whose input has ended.
    pub(super) ended: BTreeSet<u128>,
    /// Writes of records fail.
    pub(super) disk_full: bool,
    /// The store answers this instead of the truth.
    pub(super) answer_instead: Option<fn(&StoreOp) -> Option<StoreDone>>,
    /// Each snapshot of the first counting task has a file in `/out`.
    pub(super) files: bool,
    /// What a new JobManager's binary plans for a graph of the old one.
    pub(super) plan: fn(&JobGraph) -> Result<JobGraph, String>,
    epoch: u64,
    next_conn: u64,
    next_ticket: u64,
    queue: VecDeque<Action>,
}

fn config(epoch: u64) -> CoreConfig {
    CoreConfig {
        cluster: CLUSTER,
        epoch,
        store: "/store".into(),
        binary_fingerprint: BINARY,
        heartbeat_interval_ms: 500,
        heartbeat_timeout_ms: 2_000,
        restart: RestartPolicy::default(),
    }
}

impl Sim {
    pub(super) fn new() -> Self {
        let (core, first) = Core::new(config(1), Vec::new(), 1_000_000);
        assert!(first.is_empty());
        Sim {
            core,
            now_ms: 1_000_000,
            tms: Vec::new(),
            records: BTreeMap::new(),
            published: BTreeMap::new(),
            answers: BTreeMap::new(),
            trace: Vec::new(),
            ended: BTreeSet::new(),
            disk_full: false,
            answer_instead: None,
            files: false,
            plan: |graph| Ok(graph.clone()),
            epoch: 1,
            next_conn: 1,
            next_ticket: 1,
            queue: VecDeque::new(),
        }
    }

    /// A cluster with TaskManagers of two slots each.
    pub(super) fn with(taskmanagers: usize) -> Self {
        let mut sim = Sim::new();
        for id in 0..taskmanagers as u64 {
            sim.join(id + 1, 2);
        }
        sim
    }

    pub(super) fn register(id: u64, slots: u32) -> Register {
        Register {
            taskmanager: id,
            incarnation: 1,
            slots,
            data_address: ([127, 0, 0, 1], 4_000 + (id % 1_000) as u16).into(),
            host: "host".into(),
            pid: 1,
            binary_fingerprint: BINARY,
            cluster: ClusterId(0),
            epoch_seen: 0,
            segment_size: 32 << 10,
            memory: tidegate_rpc::MemoryPlan::default(),
            segments_per_slot: 64,
            record_max: 0,
            links_per_slot: 32,
            driver: DriverReport::default(),
            held: Vec::new(),
        }
    }

    pub(super) fn connect(&mut self) -> u64 {
        let conn = self.next_conn;
        self.next_conn += 1;
        self.input(Input::Connected { conn, peer: Some([127, 0, 0, 1].into()) });
        conn
    }

    pub(super) fn join(&mut self, id: u64, slots: u32) {
        self.join_as(Self::register(id, slots));
    }

    pub(super) fn join_as(&mut self, register: Register) {
        let conn = self.connect();
        self.tms.push(FakeTaskManager {
            id: register.taskmanager,
            conn,
            slots: vec![None; register.slots as usize],
            lazy: Lazy::default(),
            told: Vec::new(),
            incarnation: 1,
        });
        self.say_as(conn, 0, ToJobManager::Register(Box::new(register)));
    }

    /// A living TaskManager connects anew, still holding what it holds.
    pub(super) fn rejoin(&mut self, index: usize) {
        let conn = self.connect();
        let tm = &mut self.tms[index];
        tm.conn = conn;
        tm.incarnation += 1;
        let mut register = Self::register(tm.id, tm.slots.len() as u32);
        register.incarnation = tm.incarnation;
        register.cluster = CLUSTER;
        for (slot, held) in (0u32..).zip(&tm.slots) {
            let held = held.as_ref().map(|held| HeldSlot { slot, job: held.job, attempt: held.attempt });
            register.held.extend(held);
        }
        self.say_as(conn, 0, ToJobManager::Register(Box::new(register)));
    }

    /// The process of a TaskManager dies.
    pub(super) fn kill(&mut self, index: usize) {
        let tm = self.tms.remove(index);
        self.input(Input::Disconnected { conn: tm.conn, reason: "it ended".into() });
    }

    pub(super) fn say(&mut self, index: usize, message: ToJobManager) {
        let conn = self.tms[index].conn;
        self.say_as(conn, self.epoch, message);
    }

    pub(super) fn say_as(&mut self, conn: u64, epoch: u64, message: ToJobManager) {
        let message = Box::new(Envelope::new(epoch, message));
        self.input(Input::Message { conn, message });
    }

    pub(super) fn input(&mut self, input: Input) {
        let actions = self.core.handle(input, self.now_ms);
        self.queue.extend(actions);
        self.settle();
    }

    /// Passes time in steps of 100 ms, with heartbeats.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            self.now_ms = end.min(self.now_ms + 100);
            for index in 0..self.tms.len() {
                self.say(index, ToJobManager::Heartbeat(Box::default()));
            }
            self.input(Input::Tick);
        }
    }

    pub(super) fn submit(
        &mut self,
        id: u128,
        request: JobRequest,
        graph: JobGraph,
    ) -> Result<JobId, Rejection> {
        self.submit_planned(id, request, graph.into())
    }

    pub(super) fn submit_planned(
        &mut self,
        id: u128,
        request: JobRequest,
        planned: Planned,
    ) -> Result<JobId, Rejection> {
        let ticket = self.ticket();
        let submission = Box::new(Submission { id: JobId(id), request, planned, objection: None });
        self.input(Input::Submit { ticket, submission });
        self.answers.remove(&ticket).expect("every request is answered")
    }

    pub(super) fn cancel(&mut self, id: u128) -> Result<JobId, Rejection> {
        let ticket = self.ticket();
        self.input(Input::Cancel { ticket, job: JobId(id) });
        self.answers.remove(&ticket).expect("every request is answered")
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    pub(super) fn job(&self, id: u128) -> Value {
        self.core.view(Query::Job(JobId(id)), self.now_ms).unwrap()
    }

    pub(super) fn state(&self, id: u128) -> String {
        self.job(id)["state"].as_str().unwrap().to_owned()
    }

    pub(super) fn checkpoints(&self, id: u128) -> Value {
        self.core.view(Query::Checkpoints(JobId(id)), self.now_ms).unwrap()
    }

    pub(super) fn exceptions(&self, id: u128) -> Vec<(String, String)> {
        let value = self.core.view(Query::Exceptions(JobId(id)), self.now_ms).unwrap();
        let entries = value["exceptionHistory"]["entries"].as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        entries.iter().map(|entry| (text(&entry["exceptionName"]), text(&entry["stacktrace"]))).collect()
    }

    /// Every source of the job has read all.
    pub(super) fn end_of_data(&mut self, id: u128) {
        for index in 0..self.tms.len() {
            let held: Vec<Held> = self.tms[index].slots.iter().flatten().cloned().collect();
            for held in held.into_iter().filter(|held| held.job == JobId(id)) {
                for task in held.tasks.into_iter().filter(|task| task.vertex == 0) {
                    let message = ToJobManager::EndOfData { job: held.job, attempt: held.attempt, task };
                    self.say(index, message);
                }
            }
        }
        self.ended.insert(id);
    }

    pub(super) fn fail(&mut self, id: u128, kind: FaultKind, cause: &str) {
        let place = self.tms.iter().enumerate().find_map(|(index, tm)| {
            let (slot, held) = (0u32..).zip(&tm.slots).find_map(|(slot, held)| {
                held.clone().filter(|held| held.job == JobId(id)).map(|held| (slot, held))
            })?;
            Some((index, slot, held))
        });
        let (index, slot, held) = place.expect("the job runs somewhere");
        let fault = Fault { kind, cause: cause.into() };
        let message = ToJobManager::Failed {
            job: held.job,
            attempt: held.attempt,
            slot,
            task: held.tasks.first().copied(),
            fault,
        };
        self.say(index, message);
    }

    /// The JobManager dies and comes back: only records and the store are left.
    pub(super) fn restart_jobmanager(&mut self) {
        self.epoch += 1;
        self.queue.clear();
        let found = self
            .records
            .iter()
            .map(|(id, record)| Found {
                record: serde_json::from_str(&serde_json::to_string(record).unwrap()).unwrap(),
                id: *id,
                planned: (!record.state.is_over()).then(|| (self.plan)(&record.graph)),
                legal: self.published.get(id).map_or(Vec::new(), |published| {
                    published.values().map(|m| Legal { id: m.id, epoch: m.epoch }).collect()
                }),
            })
            .collect();
        let (core, first) = Core::new(config(self.epoch), found, self.now_ms);
        self.core = core;
        self.queue.extend(first);
        self.settle();
    }

    pub(super) fn carry_on(&mut self, actions: Vec<Action>) {
        self.queue.extend(actions);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(action) = self.queue.pop_front() {
            let more = self.act(action);
            self.queue.extend(more);
        }
    }

    fn act(&mut self, action: Action) -> Vec<Action> {
        match action {
            Action::Send { conn, message } => self.told(conn, *message),
            Action::Close { conn } => {
                self.trace.push(format!("close {conn}"));
                Vec::new()
            }
            Action::Store { job, op, body } => {
                let done = self.store(job, body);
                self.core.handle(Input::Store { job, op, done }, self.now_ms)
            }
            Action::Save { job, save, record } => {
                let result = if self.disk_full {
                    Err("no space left on device".to_owned())
                } else {
                    self.trace.push(format!("save {} {}", record.state, record.attempt));
                    if let Some(old) = self.records.insert(job, *record.clone()) {
                        assert!(!old.state.is_over() || old.state == record.state, "over is over");
                        assert!(old.attempt <= record.attempt, "attempts never fall");
                    }
                    Ok(())
                };
                self.core.handle(Input::Saved { job, save, result }, self.now_ms)
            }
            Action::Answer { ticket, answer } => {
                assert!(self.answers.insert(ticket, answer).is_none(), "one answer");
                Vec::new()
            }
            Action::Over { job } => {
                assert!(self.records.get(&job).is_none_or(|record| record.state.is_over()), "it is over");
                Vec::new()
            }
            Action::Deposed { newest } => panic!("deposed by {newest}"),
            Action::Log(..) => Vec::new(),
        }
    }

    fn store(&mut self, job: JobId, op: StoreOp) -> StoreDone {
        if let Some(done) = self.answer_instead.and_then(|answer| answer(&op)) {
            return done;
        }
        let published = self.published.entry(job).or_default();
        match op {
            StoreOp::NewestEpoch => StoreDone::Newest(self.epoch),
            StoreOp::Scan { .. } => StoreDone::Scanned(
                published
                    .values()
                    .map(|metadata| Scanned {
                        id: metadata.id,
                        quarantined: false,
                        state: ScannedState::Present { epoch: metadata.epoch },
                        outputs: false,
                    })
                    .collect(),
            ),
            StoreOp::PutMetadata { metadata, .. } => {
                published.insert(metadata.id, metadata);
                StoreDone::Created
            }
            StoreOp::Verify { id, .. } => StoreDone::Metadata(published[&id].clone()),
            StoreOp::Retain { below, .. } => {
                published.retain(|id, _| *id >= below);
                StoreDone::Done
            }
            StoreOp::ReadOutputs { id, .. } => {
                let files = published[&id].committables();
                StoreDone::Outputs(Outputs { job: job.0, epoch: self.epoch, id, files })
            }
            StoreOp::Sink(SinkOp::Rename { files }) => {
                self.trace.extend(files.iter().map(|file| format!("rename {}", file.to)));
                StoreDone::Sink(SinkDone::Renamed(vec![Moved::Done; files.len()]))
            }
            StoreOp::Sink(SinkOp::ListPending { root }) => {
                self.trace.push(format!("list {root}"));
                StoreDone::Sink(SinkDone::Listed(Vec::new()))
            }
            StoreOp::Sink(_) => StoreDone::Sink(SinkDone::Done),
            op => panic!("not expected here: {op:?}"),
        }
    }

    fn told(&mut self, conn: u64, message: ToTaskManager) -> Vec<Action> {
        let Some(index) = self.tms.iter().position(|tm| tm.conn == conn) else { return Vec::new() };
        self.tms[index].told.push(message.clone());
        let lazy = self.tms[index].lazy;
        match message {
            ToTaskManager::Prepare(prepare) => {
                let mut said = Vec::new();
                for plan in prepare.slots {
                    let slot = &mut self.tms[index].slots[plan.slot as usize];
                    assert!(slot.is_none(), "slot {} is prepared for a second attempt", plan.slot);
                    *slot = Some(Held {
                        job: prepare.job,
                        attempt: prepare.attempt,
                        tasks: plan.tasks.iter().map(|task| task.id).collect(),
                        restored: prepare.restored,
                        started: false,
                    });
                    said.push(prepared(prepare.job, prepare.attempt, plan.slot));
                }
                if lazy.prepare { Vec::new() } else { self.hear(index, said) }
            }
            ToTaskManager::Start { job, attempt } => {
                self.trace.push(format!("start {attempt}"));
                let mut said = Vec::new();
                for held in self.tms[index].slots.iter_mut().flatten() {
                    if (held.job, held.attempt) == (job, attempt) {
                        held.started = true;
                        for task in held.tasks.clone() {
                            for state in [TaskState::Initializing, TaskState::Running] {
                                said.push(ToJobManager::TaskState { job, attempt, task, state });
                            }
                        }
                    }
                }
                self.hear(index, said)
            }
            ToTaskManager::Trigger { job, attempt, checkpoint } if !lazy.acknowledge => {
                let finished = self.ended.contains(&job.0);
                let mut said = Vec::new();
                for task in self.tasks_of(index, job, attempt) {
                    let mut snapshot = Box::new(TaskSnapshot { finished, ..TaskSnapshot::default() });
                    if self.files && task == (TaskId { vertex: 1, subtask: 0 }) {
                        let name = format!("part-{checkpoint}");
                        let folder = tidegate_graph::PendingFolder { job: job.0, epoch: self.epoch, attempt };
                        let file = Committable {
                            pending: format!("/out/_pending/{folder}/{name}"),
                            target: format!("/out/{name}"),
                            len: 1,
                            hash: 1,
                        };
                        let committables = vec![file];
                        let operator = OperatorSnapshot { committables, ..OperatorSnapshot::default() };
                        snapshot.operators.push(operator);
                    }
                    said.push(ToJobManager::Acknowledge { job, attempt, task, checkpoint, snapshot });
                }
                self.hear(index, said)
            }
            ToTaskManager::CheckpointComplete { job, attempt, last: true, .. } => {
                self.trace.push("told finished".into());
                self.end(index, job, attempt, TaskState::Finished)
            }
            ToTaskManager::Cancel { job, attempt } if !lazy.close => {
                self.end(index, job, attempt, TaskState::Canceled)
            }
            _ => Vec::new(),
        }
    }

    fn tasks_of(&self, index: usize, job: JobId, attempt: u32) -> Vec<TaskId> {
        let held = self.tms[index].slots.iter().flatten();
        held.filter(|held| (held.job, held.attempt) == (job, attempt) && held.started)
            .flat_map(|held| held.tasks.clone())
            .collect()
    }

    pub(super) fn end(&mut self, index: usize, job: JobId, attempt: u32, state: TaskState) -> Vec<Action> {
        let mut said = Vec::new();
        for task in self.tasks_of(index, job, attempt) {
            said.push(ToJobManager::TaskState { job, attempt, task, state });
        }
        for (slot, held) in (0u32..).zip(&mut self.tms[index].slots) {
            if held.as_ref().is_some_and(|held| (held.job, held.attempt) == (job, attempt)) {
                *held = None;
                said.push(ToJobManager::Closed { job, attempt, slot, segments_free: 64 });
            }
        }
        self.hear(index, said)
    }

    fn hear(&mut self, index: usize, said: Vec<ToJobManager>) -> Vec<Action> {
        let conn = self.tms[index].conn;
        let mut actions = Vec::new();
        for message in said {
            let message = Box::new(Envelope::new(self.epoch, message));
            actions.extend(self.core.handle(Input::Message { conn, message }, self.now_ms));
        }
        actions
    }

    pub(super) fn heartbeat(&mut self, index: usize, heartbeat: Heartbeat) {
        self.say(index, ToJobManager::Heartbeat(Box::new(heartbeat)));
    }

    /// Restored checkpoint of the attempt that runs, as TaskManagers were told.
    pub(super) fn restored(&self, id: u128) -> BTreeSet<Option<u64>> {
        let held = self.tms.iter().flat_map(|tm| tm.slots.iter().flatten());
        held.filter(|held| held.job == JobId(id)).map(|held| held.restored).collect()
    }
}

pub(super) fn prepared(job: JobId, attempt: u32, slot: u32) -> ToJobManager {
    ToJobManager::Prepared { job, attempt, slot, outputs: Vec::new(), refusal: None }
}
