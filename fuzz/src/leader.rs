//! A script as what TaskManagers say to a JobManager that runs a job: messages that are well-formed, and lies.
//!
//! The decisions of the JobManager are the real ones; its store is a map that answers what it was told. Oracle: nothing that
//! a TaskManager says ends the JobManager; each request is answered once; a job's attempts never fall, and what is over stays
//! over; nobody gets it to publish a checkpoint twice.

use std::collections::{BTreeMap, VecDeque};

use tidegate_checkpoint::{Metadata, SinkDone, SinkOp, StoreDone, StoreOp};
use tidegate_jobmanager::core::{Action, Core, CoreConfig, Input, Submission};
use tidegate_jobmanager::{JobRecord, RestartPolicy, submit_body::SubmitBody};
use tidegate_rpc::{
    ClusterId, Committable, Envelope, Fault, FaultKind, FileReceipt, GroupSlice, Heartbeat, HeldSlot, JobId,
    OperatorSnapshot, Register, SlotMetrics, TaskId, TaskMetrics, TaskSnapshot, TaskState, ToJobManager,
    ToTaskManager,
};

use crate::script::Script;
use crate::seeds::job_graph;

const JOB: JobId = JobId(7);
const EPOCH: u64 = 2;
const CLUSTER: ClusterId = ClusterId(3);
const BINARY: u64 = 12;
/// Numbers at which counters and sums go wrong.
const EDGES: [u64; 6] = [0, 1, 100, u32::MAX as u64, 1 << 63, u64::MAX];

struct Leader {
    core: Core,
    now_ms: u64,
    records: BTreeMap<JobId, JobRecord>,
    published: BTreeMap<u64, Box<Metadata>>,
    answers: u64,
    /// The newest attempt and checkpoint that a TaskManager was told of.
    attempt: u32,
    checkpoint: u64,
}

/// Plays the script.
pub fn leader(bytes: &[u8]) {
    let script = &mut Script(bytes);
    let config = CoreConfig {
        cluster: CLUSTER,
        epoch: EPOCH,
        store: "/store".into(),
        binary_fingerprint: BINARY,
        heartbeat_interval_ms: 500,
        heartbeat_timeout_ms: 2_000,
        restart: RestartPolicy::default(),
    };
    let (core, _) = Core::new(config, Vec::new(), 1_000_000);
    let mut leader = Leader {
        core,
        now_ms: 1_000_000,
        records: BTreeMap::new(),
        published: BTreeMap::new(),
        answers: 0,
        attempt: 1,
        checkpoint: 1,
    };
    for conn in 1..=2 {
        leader.tell(Input::Connected { conn, peer: None });
        leader.hear(conn, ToJobManager::Register(Box::new(register(conn, 3))));
    }
    leader.submit();
    let mut asked = 1;
    // Four connections at once; the last two are not open yet.
    let (mut conns, mut newest) = ([1, 2, 3, 4], 4);
    while let Some(step) = script.next() {
        let place = usize::from(step >> 6);
        let conn = conns[place];
        match step % 16 {
            0 => {
                // A number of a connection never returns.
                conns[place] = newest + 1;
                newest += 1;
                leader.tell(Input::Connected { conn: newest, peer: None });
            }
            1 => leader.tell(Input::Disconnected { conn, reason: "gone".into() }),
            2 => {
                leader.now_ms += u64::from(script.byte()) * 20;
                leader.tell(Input::Tick);
            }
            3 if step & 0x30 == 0x30 => {
                leader.tell(Input::Cancel { ticket: asked, job: JOB });
                asked += 1;
            }
            _ => {
                let message = message(script, &leader, conn);
                leader.hear(conn, message);
            }
        }
        assert!(leader.core.deadline(leader.now_ms) <= leader.now_ms + 1_000, "it looks at the clock");
    }
    assert_eq!(leader.answers, asked, "each request is answered once");
}

impl Leader {
    fn submit(&mut self) {
        let body = br#"{"job":"count","parallelism":2,"checkpointInterval":10,"retainedCheckpoints":1}"#;
        let request = SubmitBody::parse(body).and_then(SubmitBody::request).expect("a lawful body");
        let submission = Submission { id: JOB, request, planned: job_graph().into(), objection: None };
        self.tell(Input::Submit { ticket: 0, submission: Box::new(submission) });
    }

    fn hear(&mut self, conn: u64, body: ToJobManager) {
        let message = Box::new(Envelope::new(EPOCH, body));
        self.tell(Input::Message { conn, message });
    }

    fn tell(&mut self, input: Input) {
        let mut actions: VecDeque<Action> = self.core.handle(input, self.now_ms).into();
        while let Some(action) = actions.pop_front() {
            let answer = match action {
                Action::Send { message, .. } => {
                    self.told(&message);
                    continue;
                }
                Action::Store { job, op, body } => Input::Store { job, op, done: self.store(body) },
                Action::Save { job, save, record } => {
                    if let Some(old) = self.records.insert(job, *record.clone()) {
                        assert!(!old.state.is_over() || old.state == record.state, "over is over");
                        assert!(old.attempt <= record.attempt, "attempts never fall");
                    }
                    Input::Saved { job, save, result: Ok(()) }
                }
                Action::Answer { .. } => {
                    self.answers += 1;
                    continue;
                }
                Action::Deposed { newest } => panic!("deposed by {newest}, and there is nobody else"),
                Action::Close { .. } | Action::Over { .. } | Action::Log(..) => continue,
            };
            actions.extend(self.core.handle(answer, self.now_ms));
        }
    }

    fn told(&mut self, message: &ToTaskManager) {
        match message {
            ToTaskManager::Prepare(prepare) => self.attempt = prepare.attempt,
            ToTaskManager::Trigger { checkpoint, .. } => self.checkpoint = *checkpoint,
            _ => {}
        }
    }

    fn store(&mut self, op: StoreOp) -> StoreDone {
        match op {
            StoreOp::NewestEpoch => StoreDone::Newest(EPOCH),
            StoreOp::Scan { .. } => StoreDone::Scanned(Vec::new()),
            StoreOp::PutMetadata { metadata, .. } => {
                let twice = self.published.insert(metadata.id, metadata);
                assert!(twice.is_none(), "a checkpoint is published once");
                StoreDone::Created
            }
            StoreOp::Verify { id, .. } => self
                .published
                .get(&id)
                .map_or(StoreDone::Absent, |metadata| StoreDone::Metadata(metadata.clone())),
            StoreOp::ReadOutputs { .. } => StoreDone::Absent,
            StoreOp::Sink(SinkOp::ListPending { .. }) => StoreDone::Sink(SinkDone::Listed(Vec::new())),
            StoreOp::Sink(SinkOp::Rename { files }) => {
                let moved = tidegate_checkpoint::sink::Moved::Done;
                StoreDone::Sink(SinkDone::Renamed(vec![moved; files.len()]))
            }
            StoreOp::Sink(_) => StoreDone::Sink(SinkDone::Done),
            StoreOp::VoidMetadata { .. } => StoreDone::Created,
            _ => StoreDone::Done,
        }
    }
}

fn register(taskmanager: u64, slots: u32) -> Register {
    Register {
        taskmanager,
        incarnation: 1,
        slots,
        data_address: ([127, 0, 0, 1], 4_000).into(),
        host: "host".into(),
        pid: 1,
        binary_fingerprint: BINARY,
        cluster: CLUSTER,
        epoch_seen: EPOCH,
        segment_size: 32 << 10,
        segments_per_slot: 256,
        record_max: 0,
        links_per_slot: 32,
        memory: Default::default(),
        driver: Default::default(),
        held: Vec::new(),
    }
}

/// A message of any kind; the identities are mostly those that the JobManager expects.
fn message(script: &mut Script<'_>, leader: &Leader, conn: u64) -> ToJobManager {
    let (what, how) = (script.byte(), script.byte());
    let job = if how & 0xC0 == 0xC0 { JobId(8) } else { JOB };
    let attempt = leader.attempt.wrapping_add(u32::from(how & 0x30 == 0x30));
    let task = TaskId { vertex: script.byte().into(), subtask: u32::from(how & 3) };
    let slot = u32::from(script.byte());
    let checkpoint = leader.checkpoint.wrapping_add(u64::from(how & 0x0C == 0x0C));
    match what % 12 {
        0 => {
            let mut register = register(conn + u64::from(how & 1), slot);
            register.incarnation = u32::from(script.byte());
            register.segments_per_slot = script.pick(&EDGES) as u32;
            register.links_per_slot = script.pick(&EDGES) as u32;
            register.memory.managed = script.pick(&EDGES);
            register.memory.task_heap = script.pick(&EDGES);
            register.held = vec![HeldSlot { slot, job, attempt }];
            ToJobManager::Register(Box::new(register))
        }
        1 => {
            let number = script.pick(&EDGES);
            let metrics = TaskMetrics {
                records_in: number,
                busy_ms: number,
                in_pool_usage: f32::from_bits(number as u32),
                ..TaskMetrics::zero(job, attempt, task)
            };
            let slots = vec![SlotMetrics { slot, segments: number as u32, ..SlotMetrics::default() }; 3];
            let tasks = vec![metrics; 2];
            ToJobManager::Heartbeat(Box::new(Heartbeat { tasks, slots, ..Heartbeat::default() }))
        }
        2 | 3 => {
            let refusal = (how & 0x80 != 0).then(|| fault(script));
            let outputs = vec![script.pick(&["/out", "relative", "/../x", ""]).to_owned()];
            ToJobManager::Prepared { job, attempt, slot, outputs, refusal }
        }
        4 | 5 => ToJobManager::TaskState { job, attempt, task, state: script.pick(&TaskState::ALL) },
        6 => ToJobManager::EndOfData { job, attempt, task },
        7 => ToJobManager::Failed { job, attempt, slot, task: Some(task), fault: fault(script) },
        8 | 9 => {
            let snapshot = Box::new(snapshot(script, checkpoint));
            ToJobManager::Acknowledge { job, attempt, task, checkpoint, snapshot }
        }
        10 => ToJobManager::Decline { job, attempt, task, checkpoint, reason: "no".into() },
        _ if how & 0xF0 == 0xF0 => ToJobManager::Goodbye { reason: "bye".into() },
        _ => ToJobManager::Closed { job, attempt, slot, segments_free: script.pick(&EDGES) as u32 },
    }
}

fn fault(script: &mut Script<'_>) -> Fault {
    let kinds =
        [FaultKind::Task, FaultKind::Link, FaultKind::State, FaultKind::Resources, FaultKind::Permanent];
    Fault { kind: script.pick(&kinds), cause: "it broke".into() }
}

fn snapshot(script: &mut Script<'_>, checkpoint: u64) -> TaskSnapshot {
    let finished = script.byte() & 1 != 0;
    let mut operators = Vec::new();
    if script.byte() & 1 != 0 {
        let len = script.pick(&EDGES);
        let path = script.pick(&["1-0.state", "../x", ""]);
        let folder = tidegate_checkpoint::layout::checkpoint_dir(JOB.0, checkpoint);
        operators.push(OperatorSnapshot {
            operator: 100 + u64::from(script.byte() % 4),
            inline: vec![0; usize::from(script.byte())],
            file: Some(FileReceipt { path: format!("{folder}/{path}"), len, hash: 3 }),
            groups: vec![GroupSlice { group: script.byte().into(), offset: 0, len, hash: 4 }],
            committables: (0..script.byte() % 3)
                .map(|file| Committable {
                    pending: format!("/out/_pending/{:032x}-e2-a1/{file}", JOB.0),
                    target: format!("/out/{}", script.pick(&["part", "../part", "_pending/x"])),
                    len,
                    hash: 1,
                })
                .collect(),
            schema: 6,
        });
    }
    TaskSnapshot { operators, finished, alignment_ns: script.pick(&EDGES), bytes: script.pick(&EDGES) }
}
