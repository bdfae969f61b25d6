//! Seeds of what the control plane reads: checkpoints, messages, configurations, requests, graphs.

use serde_json::json;
use tidegate_checkpoint::epoch::JobRecord as EpochJob;
use tidegate_checkpoint::metadata::Alignment;
use tidegate_checkpoint::{
    Committable, EpochRecord, GroupSlice, Legal, Metadata, Object, OperatorInfo, OperatorPart, Outputs, Task,
    TaskPart, layout,
};
use tidegate_graph::{Edge, JobGraph, Operator, OperatorKind, Partitioner, Vertex};
use tidegate_rpc::{
    ChannelPlan, ClusterId, Envelope, Fault, FaultKind, FileReceipt, GatePlan, Heartbeat, HeldSlot, JobId,
    OperatorRestore, OperatorSnapshot, PartitionPlan, Prepare, Refusal, Register, Registered, SlotId,
    SlotPlan, StateReference, TaskId, TaskMetrics, TaskPlan, TaskSnapshot, TaskState, ToJobManager,
    ToTaskManager,
};

use super::Seeds;
use crate::checkpoint::{EPOCH, ID, JOB};

fn committable() -> Committable {
    Committable {
        pending: format!("/out/_pending/{JOB:032x}-e2-a3/part-0-1.csv"),
        target: "/out/part-0-1.csv".into(),
        len: 9,
        hash: 8,
    }
}

fn metadata() -> Metadata {
    let part = OperatorPart {
        operator: 9,
        inline: vec![1, 2, 3],
        object: Some(Object {
            path: format!("{}/1-1-0-x.state", layout::checkpoint_dir(JOB, ID)),
            len: 100,
            hash: 3,
        }),
        groups: vec![
            GroupSlice { group: 4, offset: 60, len: 40, hash: 4 },
            GroupSlice { group: 9, offset: 0, len: 60, hash: 5 },
        ],
        committables: vec![committable()],
        schema: 6,
    };
    let operator =
        OperatorInfo { operator: 9, name: "count".into(), vertex: 1, parallelism: 2, max_parallelism: 128 };
    let task = |subtask| TaskPart {
        task: Task { vertex: 1, subtask },
        finished: subtask > 0,
        alignment_ns: 10,
        bytes: 103,
        operators: vec![part.clone()],
    };
    Metadata {
        job: JOB,
        epoch: EPOCH,
        attempt: 3,
        id: ID,
        base: Some(4),
        job_name: "delays".into(),
        args: vec!["--input".into(), "x".into()],
        parallelism: 2,
        graph_fingerprint: 11,
        binary_fingerprint: 12,
        triggered_ms: 1,
        completed_ms: 2,
        alignment: Alignment::Aligned,
        last: false,
        operators: vec![operator],
        tasks: vec![task(0), task(1)],
    }
}

/// Objects as they lie in a store, and names.
pub fn checkpoint(seeds: &mut Seeds) {
    let whole = metadata().encode().expect("a seed is small");
    seeds.put("checkpoint", "metadata-cut", &whole[..whole.len() - 9]);
    seeds.put("checkpoint", "metadata", whole);
    let empty =
        Metadata { operators: Vec::new(), tasks: Vec::new(), args: Vec::new(), base: None, ..metadata() };
    seeds.put("checkpoint", "metadata-empty", empty.encode().expect("a seed is small"));
    let other = Metadata { id: ID + 1, ..metadata() };
    seeds.put("checkpoint", "metadata-of-another", other.encode().expect("a seed is small"));
    let outputs = Outputs { job: JOB, epoch: EPOCH, id: ID, files: vec![committable()] };
    seeds.put("checkpoint", "outputs", outputs.encode().expect("a seed is small"));
    let legal = vec![Legal { id: 4, epoch: 1 }, Legal { id: ID, epoch: EPOCH }];
    let record = EpochRecord { epoch: EPOCH, jobs: vec![EpochJob { job: JOB, legal }] };
    seeds.put("checkpoint", "epoch", record.encode().expect("a seed is small"));
    for (name, text) in [
        ("name-epoch", "17.settled"),
        ("name-checkpoint", "chk-12.damaged"),
        ("name-folder", "00000000000000000000000000000007-e3-a4"),
        ("name-path", "/out/./a//../b"),
    ] {
        seeds.put("checkpoint", name, text);
    }
}

const TASK: TaskId = TaskId { vertex: 1, subtask: 2 };

/// One message of every kind, in both directions.
pub fn rpc(seeds: &mut Seeds) {
    let job = JobId(JOB);
    let fault = || Fault { kind: FaultKind::Link, cause: "the link broke".into() };
    let register = Register {
        taskmanager: 7,
        incarnation: 1,
        slots: 2,
        data_address: ([127, 0, 0, 1], 6200).into(),
        host: "host".into(),
        pid: 77,
        binary_fingerprint: 12,
        cluster: ClusterId(3),
        epoch_seen: 2,
        segment_size: 32 << 10,
        segments_per_slot: 64,
        record_max: 0,
        links_per_slot: 32,
        memory: Default::default(),
        driver: Default::default(),
        held: vec![HeldSlot { slot: 1, job, attempt: 2 }],
    };
    let operator = OperatorSnapshot {
        operator: 9,
        inline: vec![1, 2, 3],
        file: Some(FileReceipt { path: "jobs/x".into(), len: 100, hash: 3 }),
        groups: vec![tidegate_rpc::GroupSlice { group: 4, offset: 0, len: 100, hash: 4 }],
        committables: vec![tidegate_rpc::Committable {
            pending: committable().pending,
            target: committable().target,
            len: 9,
            hash: 8,
        }],
        schema: 6,
    };
    let snapshot = TaskSnapshot { operators: vec![operator], finished: false, alignment_ns: 1, bytes: 103 };
    let heartbeat =
        Heartbeat { sequence: 4, tasks: vec![TaskMetrics::zero(job, 1, TASK)], ..Heartbeat::default() };
    let (attempt, slot, task, checkpoint) = (1, 0, TASK, ID);
    for (name, body) in [
        ("register", ToJobManager::Register(Box::new(register))),
        ("heartbeat", ToJobManager::Heartbeat(Box::new(heartbeat))),
        (
            "prepared",
            ToJobManager::Prepared {
                job,
                attempt,
                slot,
                outputs: vec!["/out".into()],
                refusal: Some(fault()),
            },
        ),
        ("task-state", ToJobManager::TaskState { job, attempt, task, state: TaskState::Running }),
        ("end-of-data", ToJobManager::EndOfData { job, attempt, task }),
        ("failed", ToJobManager::Failed { job, attempt, slot, task: Some(task), fault: fault() }),
        (
            "acknowledge",
            ToJobManager::Acknowledge { job, attempt, task, checkpoint, snapshot: Box::new(snapshot) },
        ),
        ("decline", ToJobManager::Decline { job, attempt, task, checkpoint, reason: "no room".into() }),
        ("closed", ToJobManager::Closed { job, attempt, slot, segments_free: 64 }),
        ("goodbye", ToJobManager::Goodbye { reason: "SIGTERM".into() }),
    ] {
        let bytes = Envelope::new(EPOCH, body).encode().expect("a seed is small");
        // Behind the header, too: a change there is seldom more than a refusal.
        seeds.put("rpc", format!("up-{name}-body"), &bytes[14..]);
        seeds.put("rpc", format!("up-{name}"), bytes);
    }
    let registered = Registered {
        epoch: EPOCH,
        cluster: ClusterId(3),
        heartbeat_interval_ms: 500,
        heartbeat_timeout_ms: 2_000,
        store: "/store".into(),
    };
    for (name, body) in [
        ("registered", ToTaskManager::Registered(registered)),
        ("refused", ToTaskManager::Refused(Refusal::Cluster { expected: ClusterId(1), found: ClusterId(2) })),
        ("prepare", ToTaskManager::Prepare(Box::new(prepare()))),
        ("start", ToTaskManager::Start { job, attempt }),
        ("trigger", ToTaskManager::Trigger { job, attempt, checkpoint }),
        ("complete", ToTaskManager::CheckpointComplete { job, attempt, checkpoint, last: true }),
        ("cancel", ToTaskManager::Cancel { job, attempt }),
    ] {
        let bytes = Envelope::new(EPOCH, body).encode().expect("a seed is small");
        seeds.put("rpc", format!("down-{name}-body"), &bytes[14..]);
        seeds.put("rpc", format!("down-{name}"), bytes);
    }
}

fn prepare() -> Prepare {
    let peer = SlotId { taskmanager: 8, slot: 1 };
    let channels = vec![ChannelPlan { channel: 5, peer, input: 0, schema: 42 }];
    let state = StateReference {
        subtask: 0,
        inline: vec![1],
        file: Some(FileReceipt { path: "jobs/x".into(), len: 100, hash: 3 }),
        groups: Vec::new(),
        schema: 6,
    };
    let task = TaskPlan {
        id: TASK,
        task: 0,
        gate: Some(GatePlan { name: "gate".into(), channels: channels.clone() }),
        partitions: vec![PartitionPlan { name: "edge".into(), edge: 0, channels }],
        restore: vec![OperatorRestore { operator: 9, states: vec![state] }],
        finished: false,
    };
    let peers = [(peer, ([127, 0, 0, 1], 6201).into())].into();
    Prepare {
        job: JobId(JOB),
        job_name: "delays".into(),
        args: vec!["--input".into(), "x".into()],
        parallelism: 2,
        graph_fingerprint: 11,
        attempt: 1,
        restored: Some(4),
        first_checkpoint: ID,
        checkpoints: "jobs/7/checkpoints".into(),
        record_max: 0,
        slots: vec![SlotPlan { slot: 0, tasks: vec![task], peers, memory: Default::default() }],
    }
}

/// Talks of TaskManagers, as `leader.rs` reads its script: a step names the connection, then a message, how far its identities
/// are right, a vertex, a slot, and what the message wants besides.
pub fn leader(seeds: &mut Seeds) {
    let prepared: Vec<u8> =
        (0..3).flat_map(|slot| [[4, 2, 0, 0, slot, 0], [0x44, 2, 0, 0, slot, 0]].concat()).collect();
    let state = |state: u8| -> Vec<u8> {
        let tasks = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)];
        tasks.iter().flat_map(|&(vertex, subtask)| [4, 4, subtask, vertex, 0, state]).collect()
    };
    let acknowledged: Vec<u8> = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
        .iter()
        .flat_map(|&(vertex, subtask)| [4, 8, subtask, vertex, 0, 0, 0, 5, 5])
        .collect();
    let closed: Vec<u8> =
        (0..3).flat_map(|slot| [[4, 11, 0, 0, slot, 2], [0x44, 11, 0, 0, slot, 2]].concat()).collect();
    let tick: &[u8] = &[2, 30];
    let running = [&prepared[..], tick, &state(3), &state(4), tick, tick].concat();
    seeds.put("leader", "runs", running.clone());
    seeds.put("leader", "acknowledges", [&running[..], &acknowledged, tick, &acknowledged, tick].concat());
    seeds.put(
        "leader",
        "fails",
        [&running[..], &[4, 7, 0, 1, 0, 0], &closed, tick, tick, &prepared].concat(),
    );
    seeds.put("leader", "cancelled", [&running[..], &[0x33], &closed, tick].concat());
    seeds.put(
        "leader",
        "lies",
        [&running[..], &[4, 8, 0, 1, 0, 0, 1, 5, 1, 4, 3, 2, 1, 9, 2, 1, 2, 5, 5], tick].concat(),
    );
    seeds.put("leader", "counts", [&running[..], &[4, 1, 0, 1, 0, 5, 0x44, 1, 0, 1, 0, 5], tick].concat());
    seeds.put(
        "leader",
        "leaves",
        [&running[..], &[4, 11, 0xF0, 0, 0, 1, 0x40, 2, 200, 2, 200], tick].concat(),
    );
    seeds.put("leader", "again", [&running[..], &[4, 0, 0, 0, 3, 2, 2, 2, 2, 2, 2, 0], tick].concat());
}

/// Files of each syntax, sizes and other values.
pub fn config(seeds: &mut Seeds) {
    for (name, text) in [
        (
            "nested.yaml",
            "---\n# the plan\ntaskmanager.memory.process.size: 4 gb # whole\ntaskmanager:\n  memory:\n    \
             network: {min: 64m, max: \"1g\"}\n    managed.fraction: 0.3\n  numberOfTaskSlots: '2'\nlist:\n  - x\n  - [a, b]\n",
        ),
        ("refused.yaml", "a: &x 1\nb: *x\nc: |\n  text\n"),
        (
            "nested.json",
            "{\n \"taskmanager\": {\"memory\": {\n  \"process.size\": \"4g\"}},\n \"taskmanager:numberOfTaskSlots\": 2,\n \
             \"f\": -0.25e+3, \"b\": true, \"u\": \"\\u00e9\\ud83d\\ude00\\n\", \"l\": [1, \"x\", [], {\"a\": false}], \"e\": {}}\n",
        ),
        ("refused-comma.json", "{\"a\": 1,}"),
        ("refused-numbers.json", "{\"a\": [01, 1., -inf, -nan, 1e999, \"\\ud83d\"]}"),
        (
            "tables.toml",
            "# plan\njobmanager.memory.process.size = \"1600m\"\n[taskmanager]\nnumberOfTaskSlots = 2 # two\n\
             [taskmanager.memory]\n\"process.size\" = '4g'\nnetwork = { fraction = 0.2, min = \"64m\" }\n",
        ),
        ("size", "64 MB"),
        ("size-largest", "9223372036854775807"),
        ("weights", "OPERATOR:70,STATE_BACKEND:30"),
        ("define", "taskmanager.memory.process.size=4g"),
        ("environment", "TIDEGATE_TASKMANAGER_MEMORY_PROCESS_SIZE=4g\nTIDEGATE_TASKMANAGER_SLOTS=2"),
    ] {
        seeds.put("config", name, text);
    }
}

/// Settings as `plan.rs` reads its script: process, profile, host, then keys by their place with a value each.
pub fn plan(seeds: &mut Seeds) {
    for process in 0..2_u8 {
        for profile in 0..2_u8 {
            let name = |what: &str| format!("{what}-{process}-{profile}");
            seeds.put("plan", name("defaults"), [process, profile, 0]);
            for size in [1_u8, 4, 255] {
                // The first keys are the totals: 0 is a TaskManager's process size.
                let set = [process, profile, 0, 0, 0, size, 1, 17, 0, size, 1];
                seeds.put("plan", name(&format!("size-{size}")), set);
            }
            let many: Vec<u8> = (0..30).flat_map(|key| [key, key % 7, 64, 0, 1, 2, 3]).collect();
            seeds.put(
                "plan",
                name("many"),
                [&[process, profile, 9, 0, 0, 0, 0, 1, 0, 0, 0][..], &many].concat(),
            );
        }
    }
}

/// A small job in order.
pub fn job_graph() -> JobGraph {
    let vertex = |id: u32, name: &str, kind, parallelism| Vertex {
        id,
        name: name.into(),
        parallelism,
        slot_group: "default".into(),
        operators: vec![Operator {
            id: u64::from(id) + 100,
            name: name.into(),
            kind,
            managed_memory: id == 1,
        }],
    };
    let edge =
        |from, to, partitioner| Edge { from, to, input: 0, partitioner, schema: 7, record: "Word".into() };
    JobGraph {
        name: "count".into(),
        max_parallelism: 128,
        vertices: vec![
            vertex(0, "read", OperatorKind::Source, 2),
            vertex(1, "count", OperatorKind::Keyed, 3),
            vertex(2, "write", OperatorKind::Sink, 3),
        ],
        edges: vec![edge(0, 1, Partitioner::KeyGroup), edge(1, 2, Partitioner::Forward)],
    }
}

/// Bodies of requests, records of jobs.
pub fn rest(seeds: &mut Seeds) {
    let text = |value: serde_json::Value| value.to_string();
    seeds.put("rest", "submit", text(json!({ "job": "wordcount" })));
    let all = json!({
        "job": "wordcount", "args": ["--input", "x"], "parallelism": 4, "checkpointInterval": 1000,
        "checkpointTimeout": 60000, "checkpointMinPause": 0, "tolerableFailedCheckpoints": 3,
        "retainedCheckpoints": 3, "jobId": "0123456789abcdef0123456789abcdef",
    });
    seeds.put("rest", "submit-all", text(all));
    seeds.put(
        "rest",
        "submit-range",
        text(json!({ "job": "", "parallelism": 4294967295_u32, "retainedCheckpoints": 0 })),
    );
    seeds.put("rest", "submit-too-many", text(json!({ "job": "x", "retainedCheckpoints": 65 })));
    seeds.put("rest", "submit-too-soon", text(json!({ "job": "x", "checkpointTimeout": 9 })));
    seeds.put("rest", "submit-deep", format!("{{\"args\":{}", "[".repeat(200)));
    seeds.put("rest", "id", "0123456789abcdef0123456789ABCDEF");
    let record = json!({
        "version": 1, "id": "0123456789abcdef0123456789abcdef", "epoch": 1,
        "request": {
            "job": "count", "args": [], "parallelism": 2, "checkpoint_interval_ms": 1000, "min_pause_ms": 0,
            "checkpoint_timeout_ms": 1000, "tolerable_failures": 0, "retained": 1,
        },
        "graph_fingerprint": 5, "graph": job_graph(), "state": "RUNNING", "cleaned": false, "attempt": 1,
        "outputs": ["/out"], "submitted_ms": 0, "ended_ms": null, "restarts": 0,
        "restored": [{ "id": 4, "timestamp_ms": 1 }], "completed_checkpoints": 1, "failed_checkpoints": 0,
        "refused": [[3, "damaged"]],
        "exceptions": [{ "timestamp_ms": 1, "name": "Link", "text": "broke", "task": null, "taskmanager": "7" }],
    });
    seeds.put("rest", "record", text(record));
}

/// Graphs as JSON, and as scripts.
pub fn graph(seeds: &mut Seeds) {
    seeds.put("graph", "count.json", serde_json::to_vec(&job_graph()).expect("a graph is JSON"));
    // Maximum parallelism; vertices: 0, kind, parallelism, name, operators and their ids, group; edges: 1, from, to, …
    let source: &[u8] = &[0, 0, 2, 0, 0, 1, 0];
    let keyed: &[u8] = &[0, 1, 3, 1, 1, 2, 3, 0];
    let sink: &[u8] = &[0, 3, 3, 2, 0, 4, 0];
    let keys: &[u8] = &[1, 0, 1, 0, 0, 0];
    let forward: &[u8] = &[1, 1, 2, 0, 1, 0];
    seeds.put("graph", "two", [&[128], source, keyed, keys].concat());
    seeds.put("graph", "three", [&[128], source, keyed, sink, keys, forward].concat());
    seeds.put("graph", "cycle", [&[128], source, keyed, sink, keys, forward, &[1, 2, 1, 0, 2, 0]].concat());
    seeds.put("graph", "dangling", [&[128], source, &[1, 0, 1, 0, 0, 0]].concat());
    seeds.put(
        "graph",
        "large",
        [&[0, 0, 0, 255, 255, 127, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0][..], keyed, keys].concat(),
    );
}
