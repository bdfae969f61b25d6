//! The whole JobManager through real listeners on loopback: REST as tools see it, a TaskManager that speaks the
//! real protocol and runs nothing.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_graph::{Edge, JobGraph, Operator, OperatorKind, Partitioner, Vertex};
use tidegate_jobmanager::{JobManager, JobManagerConfig, Planned, Planner, RunningJobManager, StartError};
use tidegate_rpc::*;
use tokio::runtime::Runtime;

const BINARY: u64 = 3;

/// Knows one job, whose arguments after the first are output directories.
struct Plan;

impl Planner for Plan {
    fn plan(&self, name: &str, args: &[String], parallelism: u32) -> Result<Planned, String> {
        assert_eq!(name, "count");
        if args.first().is_some_and(|arg| arg == "--bad") {
            return Err("--bad is not a flag of count".into());
        }
        let vertex = |id: u32, name: &str, kind| Vertex {
            id,
            name: name.into(),
            parallelism,
            slot_group: "default".into(),
            operators: vec![Operator {
                id: u64::from(id) + 100,
                name: name.into(),
                kind,
                managed_memory: false,
            }],
        };
        let graph = JobGraph {
            name: name.into(),
            max_parallelism: 128,
            vertices: vec![vertex(0, "read", OperatorKind::Source), vertex(1, "add", OperatorKind::Keyed)],
            edges: vec![Edge {
                from: 0,
                to: 1,
                input: 0,
                partitioner: Partitioner::KeyGroup,
                schema: 7,
                record: "Word".into(),
            }],
        };
        Ok(Planned { graph, outputs: args.iter().skip(1).cloned().collect() })
    }

    fn names(&self) -> Vec<String> {
        vec!["count".into()]
    }
}

fn any() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn start(dir: &Path) -> RunningJobManager {
    JobManager::start(JobManagerConfig::new(any(), any(), dir, Plan, BINARY)).unwrap()
}

/// What a TaskManager runs: by slot, the attempt and its tasks.
type Slots = BTreeMap<u32, (JobId, u32, Vec<TaskId>)>;

/// A TaskManager in name only. It reconnects when its connection ends.
struct Fake {
    runtime: Runtime,
    /// Sources end at once.
    finite: Arc<Mutex<bool>>,
}

impl Fake {
    fn start(id: u64, address: Arc<Mutex<SocketAddr>>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let finite = Arc::new(Mutex::new(false));
        let ends = Arc::clone(&finite);
        runtime.spawn(async move {
            let mut slots = Slots::new();
            let mut cluster = ClusterId(0);
            for incarnation in 1.. {
                let at = *address.lock().unwrap();
                if let Ok(connection) = connect(at).await {
                    serve(id, incarnation, connection, &mut slots, &mut cluster, &ends).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Fake { runtime, finite }
    }
}

async fn serve(
    id: u64,
    incarnation: u32,
    connection: Connection,
    slots: &mut Slots,
    cluster: &mut ClusterId,
    finite: &Mutex<bool>,
) {
    let (to, mut from) = connection.split();
    let held =
        slots.iter().map(|(slot, (job, attempt, _))| HeldSlot { slot: *slot, job: *job, attempt: *attempt });
    let register = Register {
        taskmanager: id,
        incarnation,
        slots: 2,
        data_address: "0.0.0.0:4000".parse().unwrap(),
        host: "here".into(),
        pid: 1,
        binary_fingerprint: BINARY,
        cluster: *cluster,
        epoch_seen: 0,
        segment_size: 32 << 10,
        memory: tidegate_rpc::MemoryPlan::default(),
        segments_per_slot: 64,
        record_max: 0,
        links_per_slot: 32,
        driver: DriverReport {
            driver: "io_uring [submit_all]".into(),
            rung: "unregistered (not wanted)".into(),
            ..DriverReport::default()
        },
        held: held.collect(),
    };
    let first = Envelope::new(0, ToJobManager::Register(Box::new(register)));
    if to.send(first).await.is_err() {
        return;
    }
    let mut epoch = 0;
    let mut beat = tokio::time::interval(Duration::from_millis(200));
    loop {
        let told = tokio::select! {
            told = from.message() => told,
            _ = beat.tick() => {
                let heartbeat = ToJobManager::Heartbeat(Box::default());
                if epoch > 0 && to.send(Envelope::new(epoch, heartbeat)).await.is_err() { return }
                continue;
            }
        };
        let Ok(Some(told)) = told else { return };
        if let ToTaskManager::Registered(registered) = &told.body {
            epoch = registered.epoch;
            *cluster = registered.cluster;
        }
        for said in answer(told.body, slots, finite) {
            if to.send(Envelope::new(epoch, said)).await.is_err() {
                return;
            }
        }
    }
}

fn answer(told: ToTaskManager, slots: &mut Slots, finite: &Mutex<bool>) -> Vec<ToJobManager> {
    let mut said = Vec::new();
    let end = |slots: &mut Slots, said: &mut Vec<ToJobManager>, job, attempt, state| {
        for (slot, (_, _, tasks)) in slots.extract_if(.., |_, held| (held.0, held.1) == (job, attempt)) {
            for task in tasks {
                said.push(ToJobManager::TaskState { job, attempt, task, state });
            }
            said.push(ToJobManager::Closed { job, attempt, slot, segments_free: 64 });
        }
    };
    match told {
        ToTaskManager::Prepare(prepare) => {
            let (job, attempt) = (prepare.job, prepare.attempt);
            for plan in prepare.slots {
                for address in plan.peers.values() {
                    assert!(address.ip().is_loopback(), "the JobManager fills in what it sees");
                }
                let tasks = plan.tasks.iter().map(|task| task.id).collect();
                slots.insert(plan.slot, (job, attempt, tasks));
                let slot = plan.slot;
                said.push(ToJobManager::Prepared { job, attempt, slot, outputs: Vec::new(), refusal: None });
            }
        }
        ToTaskManager::Start { job, attempt } => {
            for (_, _, tasks) in slots.values().filter(|held| (held.0, held.1) == (job, attempt)) {
                for task in tasks.iter().copied() {
                    let state = TaskState::Running;
                    said.push(ToJobManager::TaskState { job, attempt, task, state });
                    if *finite.lock().unwrap() && task.vertex == 0 {
                        said.push(ToJobManager::EndOfData { job, attempt, task });
                    }
                }
            }
        }
        ToTaskManager::Trigger { job, attempt, checkpoint } => {
            let finished = *finite.lock().unwrap();
            for (_, _, tasks) in slots.values().filter(|held| (held.0, held.1) == (job, attempt)) {
                for task in tasks.iter().copied() {
                    let snapshot = Box::new(TaskSnapshot { finished, ..TaskSnapshot::default() });
                    said.push(ToJobManager::Acknowledge { job, attempt, task, checkpoint, snapshot });
                }
            }
        }
        ToTaskManager::CheckpointComplete { job, attempt, last: true, .. } => {
            end(slots, &mut said, job, attempt, TaskState::Finished);
        }
        ToTaskManager::Cancel { job, attempt } => end(slots, &mut said, job, attempt, TaskState::Canceled),
        _ => {}
    }
    said
}

/// One request; status and body.
struct Rest(ureq::Agent, String);

impl Rest {
    fn at(address: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(20)))
            .build();
        Rest(config.into(), format!("http://{address}"))
    }

    fn get(&self, path: &str) -> (u16, Value) {
        answered(self.0.get(format!("{}{path}", self.1)).call())
    }

    fn post(&self, body: &Value) -> (u16, Value) {
        answered(self.0.post(format!("{}/jobs", self.1)).send_json(body))
    }

    fn post_text(&self, kind: &str, body: &str) -> (u16, Value) {
        answered(self.0.post(format!("{}/jobs", self.1)).content_type(kind).send(body))
    }

    fn patch(&self, path: &str) -> (u16, Value) {
        answered(self.0.patch(format!("{}{path}", self.1)).send_empty())
    }

    fn wait(&self, path: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let start = std::time::Instant::now();
        loop {
            let (_, value) = self.get(path);
            if is(&value) {
                return value;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "waited in vain for {what}: {value}");
        }
    }

    fn wait_state(&self, id: &str, state: &str) {
        self.wait(&format!("/jobs/{id}"), state, |job| job["state"] == state);
    }
}

fn answered(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    let mut response = answer.unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// The first line of the answer to a body that is only announced.
fn announced(address: SocketAddr, bytes: usize) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!(
        "POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

fn error(answer: (u16, Value), status: u16) -> String {
    assert_eq!(answer.0, status, "{}", answer.1);
    answer.1["errors"][0].as_str().unwrap_or_else(|| panic!("no errors: {}", answer.1)).to_owned()
}

fn wait_slots(fake: &Fake, running: &RunningJobManager, slots: u32) {
    let mut watch = running.slots();
    let wait = async { watch.wait_for(|found| *found == slots).await.map(|_| ()) };
    let wait = async { tokio::time::timeout(Duration::from_secs(20), wait).await };
    fake.runtime.block_on(wait).expect("registered in time").unwrap();
}

struct Cluster {
    running: RunningJobManager,
    fake: Fake,
    rest: Rest,
    address: Arc<Mutex<SocketAddr>>,
}

fn cluster(dir: &Path) -> Cluster {
    let running = start(dir);
    let address = Arc::new(Mutex::new(running.rpc_addr));
    let fake = Fake::start(0xabc, Arc::clone(&address));
    wait_slots(&fake, &running, 2);
    let rest = Rest::at(running.rest_addr);
    Cluster { running, fake, rest, address }
}

#[test]
fn everything_has_an_answer_and_every_refusal_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let Cluster { running, rest, fake: _fake, .. } = cluster(dir.path());
    let (_, overview) = rest.get("/overview");
    assert_eq!((overview["taskmanagers"].as_u64(), overview["slots-total"].as_u64()), (Some(1), Some(2)));
    assert_eq!(rest.get("/v1/overview").0, 200);
    let (_, list) = rest.get("/taskmanagers");
    assert_eq!(list["taskmanagers"][0]["id"], "0000000000000abc");
    assert_eq!(list["taskmanagers"][0]["dataPort"], 4000);
    assert_eq!(rest.get("/taskmanagers/0000000000000abc").1["slotsNumber"], 2);
    assert_eq!(rest.get("/jobs").1, json!({ "jobs": [] }));

    let text = error(rest.post(&json!({ "job": "other" })), 404);
    assert!(text.contains("other") && text.contains("count"), "{text}");
    assert!(error(rest.post(&json!({ "job": "count", "args": ["--bad"] })), 400).contains("--bad"));
    assert!(error(rest.post(&json!({ "job": "count", "jobb": 1 })), 400).contains("jobb"));
    assert!(error(rest.post_text("application/json", "{"), 400).contains("body"));
    assert!(error(rest.post_text("text/plain", "{}"), 415).contains("application/json"));
    assert!(announced(running.rest_addr, 2 << 20).starts_with("HTTP/1.1 413"), "refused before it is read");
    let text = error(rest.post(&json!({ "job": "count", "parallelism": 3 })), 422);
    assert!(text.contains("needed 3, available 2"), "{text}");
    error(rest.post(&json!({ "job": "count", "parallelism": 0 })), 400);
    error(rest.post(&json!({ "job": "count", "checkpointInterval": 1 })), 400);
    error(rest.post(&json!({ "job": "count", "retainedCheckpoints": 0 })), 400);
    let unknown = "0".repeat(32);
    for path in ["", "/checkpoints", "/exceptions"] {
        assert!(error(rest.get(&format!("/jobs/{unknown}{path}")), 404).contains(&unknown));
        error(rest.get(&format!("/jobs/x{path}")), 400);
        assert!(error(rest.get(&format!("/jobs/%ff{path}")), 400).contains("UTF-8"));
    }
    error(rest.patch(&format!("/jobs/{unknown}")), 404);
    error(rest.patch(&format!("/jobs/{unknown}?mode=stop")), 400);
    error(rest.patch("/jobs/%ff"), 400);
    error(rest.get("/taskmanagers/x"), 400);
    error(rest.get("/taskmanagers/%ff"), 400);
    error(rest.get("/taskmanagers/0000000000000001"), 404);
    error(rest.get("/nothing"), 404);
    error(rest.patch("/overview"), 405);
    let (_, metrics) = rest.get("/metrics");
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("tidegate_slots{taskmanager=\"0000000000000abc\"} 2"), "{metrics}");
    let network = "transport=\"unknown\",driver=\"io_uring\",registration=\"unregistered\"} 1";
    assert!(
        metrics.contains(&format!("tidegate_network{{taskmanager=\"0000000000000abc\",{network}")),
        "{metrics}"
    );
    running.shutdown();
}

#[test]
fn a_job_runs_is_checkpointed_and_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let Cluster { running, rest, fake: _fake, .. } = cluster(dir.path());
    let (status, answer) = rest.post(&json!({ "job": "count", "parallelism": 2, "checkpointInterval": 20 }));
    assert_eq!(status, 201, "{answer}");
    let id = answer["jobid"].as_str().unwrap();
    assert_eq!(id.len(), 32);
    rest.wait_state(id, "RUNNING");
    let path = format!("/jobs/{id}/checkpoints");
    let checkpoints =
        rest.wait(&path, "five checkpoints", |value| value["counts"]["completed"].as_u64() >= Some(5));
    assert!(checkpoints["latest"]["completed"]["id"].as_u64() >= Some(5));
    assert_eq!(checkpoints["latest"]["restored"], Value::Null);
    let (_, jobs) = rest.get("/jobs/overview");
    assert_eq!(jobs["jobs"][0]["jid"], id);
    assert_eq!(jobs["jobs"][0]["tasks"]["running"], 4);
    let (_, metrics) = rest.get("/metrics");
    assert!(metrics.as_str().unwrap().contains(&format!("tidegate_job_state{{job=\"{id}\"")));
    let text = error(rest.post(&json!({ "job": "count" })), 409);
    assert!(text.contains("needed 1, available 0 of 2"), "{text}");
    assert_eq!(rest.patch(&format!("/jobs/{id}?mode=cancel")).0, 202);
    rest.wait_state(id, "CANCELED");
    assert_eq!(rest.patch(&format!("/jobs/{id}?mode=cancel")).0, 202, "asked twice, done once");
    assert_eq!(rest.get("/overview").1["slots-available"], 2);
    running.shutdown();
}

#[test]
fn a_jobmanager_takes_up_its_jobs_where_the_last_one_left_them() {
    let dir = tempfile::tempdir().unwrap();
    let Cluster { running, fake, rest, address } = cluster(dir.path());
    let (_, answer) = rest.post(&json!({ "job": "count", "parallelism": 2, "checkpointInterval": 20 }));
    let id = answer["jobid"].as_str().unwrap().to_owned();
    let path = format!("/jobs/{id}/checkpoints");
    rest.wait(&path, "a checkpoint", |value| value["counts"]["completed"].as_u64() >= Some(1));
    let first_epoch = running.epoch;
    running.shutdown();
    let published = newest(dir.path(), &id);

    let running = start(dir.path());
    assert!(running.epoch > first_epoch);
    *address.lock().unwrap() = running.rpc_addr;
    let rest = Rest::at(running.rest_addr);
    rest.wait_state(&id, "RUNNING");
    let restored = rest.get(&path).1["latest"]["restored"]["id"].as_u64();
    assert_eq!(restored, Some(published), "the newest that was published");
    *fake.finite.lock().unwrap() = true;
    // The sources of this attempt are endless; those of the next are not.
    assert_eq!(rest.get(&format!("/jobs/{id}")).1["attempt"], 2);
    running.shutdown();

    let running = start(dir.path());
    *address.lock().unwrap() = running.rpc_addr;
    let rest = Rest::at(running.rest_addr);
    rest.wait_state(&id, "FINISHED");
    assert_eq!(rest.get("/overview").1["slots-available"], 2);
    running.shutdown();
    let running = start(dir.path());
    let rest = Rest::at(running.rest_addr);
    rest.wait_state(&id, "FINISHED");
    assert_eq!(rest.get(&path).1["restored"].as_array().unwrap().len(), 2);
    running.shutdown();
}

#[test]
fn an_output_in_use_is_refused_but_not_to_the_job_that_uses_it() {
    let dir = tempfile::tempdir().unwrap();
    let Cluster { running, rest, fake: _fake, .. } = cluster(dir.path());
    let (output, link) = (dir.path().join("out"), dir.path().join("link"));
    let submit = |id: u32, output: &Path| {
        rest.post(&json!({ "job": "count", "args": ["--outputs", output], "jobId": format!("{id:032x}") }))
    };
    let text = error(submit(1, Path::new("out")), 422);
    assert!(text.contains("output directory out is relative"), "{text}");
    let text = error(submit(1, Path::new("/a/../out")), 422);
    assert!(text.contains("/a/../out"), "{text}");

    assert_eq!(submit(1, &output).0, 201);
    std::fs::create_dir(&output).unwrap();
    std::fs::write(output.join("part-0-1.csv"), "").unwrap();
    assert_eq!(submit(1, &output).0, 201, "it is the same job");
    std::os::unix::fs::symlink(&output, &link).unwrap();
    let text = error(submit(2, &output), 409);
    assert!(text.contains("belongs to job 00000000000000000000000000000001"), "{text}");

    rest.patch(&format!("/jobs/{:032x}?mode=cancel", 1));
    rest.wait_state(&format!("{:032x}", 1), "CANCELED");
    for output in [&output, &link] {
        let text = error(submit(2, output), 422);
        assert!(text.contains("part-0-1.csv") && text.contains("choose another directory"), "{text}");
    }
    std::fs::remove_file(output.join("part-0-1.csv")).unwrap();
    assert_eq!(submit(2, &output).0, 201);
    let text = error(submit(3, &link), 409);
    assert!(text.contains("belongs to job 00000000000000000000000000000002"), "by another name: {text}");
    running.shutdown();
}

#[test]
fn the_id_of_a_record_that_cannot_be_read_stays_taken() {
    let dir = tempfile::tempdir().unwrap();
    let id = format!("{:032x}", 5);
    let record = dir.path().join("jobs").join(&id).join("job-1.json");
    std::fs::create_dir_all(record.parent().unwrap()).unwrap();
    std::fs::write(&record, "{").unwrap();
    let Cluster { running, rest, fake: _fake, .. } = cluster(dir.path());
    let text = error(rest.post(&json!({ "job": "count", "jobId": id })), 409);
    assert!(text.contains(&id) && text.contains("choose another id"), "{text}");
    assert_eq!(std::fs::read_to_string(&record).unwrap(), "{");
    running.shutdown();
}

/// Id of the newest published checkpoint in the directory.
fn newest(dir: &Path, id: &str) -> u64 {
    let entries = std::fs::read_dir(dir.join("jobs").join(id).join("checkpoints")).unwrap().flatten();
    entries
        .filter(|entry| entry.path().join("_metadata").exists())
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("chk-")?.parse().ok())
        .max()
        .unwrap()
}

#[test]
fn strangers_on_both_ports_disturb_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let Cluster { running, rest, fake: _fake, .. } = cluster(dir.path());
    let (_, answer) = rest.post(&json!({ "job": "count", "parallelism": 2, "checkpointInterval": 20 }));
    let id = answer["jobid"].as_str().unwrap().to_owned();
    rest.wait_state(&id, "RUNNING");
    for address in [running.rpc_addr, running.rest_addr] {
        for garbage in [&b"\0\0\0\0"[..], &[0xff; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff"] {
            let mut stream = TcpStream::connect(address).unwrap();
            let _ = stream.write_all(garbage);
        }
    }
    let path = format!("/jobs/{id}/checkpoints");
    let before = rest.get(&path).1["counts"]["completed"].as_u64().unwrap();
    rest.wait(&path, "more checkpoints", |value| value["counts"]["completed"].as_u64() > Some(before + 2));
    assert_eq!(rest.get(&format!("/jobs/{id}")).1["attempt"], 1);
    running.shutdown();
}

#[test]
fn what_is_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path());
    let start = |config| JobManager::start(config).unwrap_err();
    let locked = start(JobManagerConfig::new(any(), any(), dir.path(), Plan, BINARY));
    assert!(matches!(locked, StartError::Directory(_)), "{locked}");
    assert!(locked.to_string().contains(&std::process::id().to_string()), "{locked}");
    let other = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (rpc, rest) in [(address, any()), (any(), address)] {
        let error = start(JobManagerConfig::new(rpc, rest, other.path(), Plan, BINARY));
        assert!(matches!(error, StartError::Listen { .. }), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
    let file = other.path().join("in-the-way");
    std::fs::write(&file, b"").unwrap();
    let error = start(JobManagerConfig::new(any(), any(), file.join("dir"), Plan, BINARY));
    assert!(error.to_string().contains("in-the-way"), "{error}");
    // After a shutdown everything is free again.
    let (rpc, rest) = (running.rpc_addr, running.rest_addr);
    running.shutdown();
    let again = JobManager::start(JobManagerConfig::new(rpc, rest, dir.path(), Plan, BINARY)).unwrap();
    assert_eq!((again.rpc_addr, again.rest_addr, again.epoch), (rpc, rest, 2));
    again.shutdown();
}
