//! Who may join, what fits, and what is refused with which numbers.

use super::sim::{BINARY, CLUSTER, Sim, graph, request};
use tidegate_rpc::latency;
use tidegate_rpc::{Cause, EdgeLatency, HeldUp, LatencyReport, Rates, Stage, ToJobManager, ToTaskManager};
use tidegate_rpc::{ClusterId, Heartbeat, JobId, Refusal, Register, SlotMetrics, TaskId, TaskMetrics};

/// What a registration with one change is answered.
fn refused(sim: &mut Sim, change: impl FnOnce(&mut Register)) -> Refusal {
    let conn = sim.connect();
    let mut register = Sim::register(50, 2);
    change(&mut register);
    sim.tms.push(super::sim::FakeTaskManager::stranger(conn));
    sim.say_as(conn, 0, ToJobManager::Register(Box::new(register)));
    let told = sim.tms.pop().unwrap().told;
    assert!(sim.trace.contains(&format!("close {conn}")));
    match &told[..] {
        [ToTaskManager::Refused(refusal)] => refusal.clone(),
        told => panic!("a refusal expected: {told:?}"),
    }
}

#[test]
fn strangers_are_refused_by_name() {
    let mut sim = Sim::with(1);
    let slots = sim.core.slots_total();
    assert_eq!(
        refused(&mut sim, |register| register.binary_fingerprint = 6),
        Refusal::Binary { expected: BINARY, found: 6 }
    );
    assert_eq!(
        refused(&mut sim, |register| register.cluster = ClusterId(78)),
        Refusal::Cluster { expected: CLUSTER, found: ClusterId(78) }
    );
    assert_eq!(
        refused(&mut sim, |register| register.epoch_seen = 2),
        Refusal::StaleEpoch { expected: 1, found: 2 }
    );
    assert!(matches!(refused(&mut sim, |register| register.slots = 0), Refusal::Slots { found: 0, .. }));
    assert!(matches!(refused(&mut sim, |register| register.slots = 1 << 20), Refusal::Slots { .. }));
    assert_eq!(
        refused(&mut sim, |register| register.segment_size = 4096),
        Refusal::SegmentSize { expected: 32 << 10, found: 4096 }
    );
    assert_eq!(
        refused(&mut sim, |register| register.taskmanager = 1),
        Refusal::Incarnation { expected: 1, found: 1 }
    );
    assert_eq!(sim.core.slots_total(), slots, "nobody came in, nobody left");
}

#[test]
fn whoever_does_not_register_is_cut_off() {
    let mut sim = Sim::new();
    let conn = sim.connect();
    sim.pass(4_900);
    assert!(!sim.trace.contains(&format!("close {conn}")));
    sim.pass(200);
    assert!(sim.trace.contains(&format!("close {conn}")));
    let conn = sim.connect();
    sim.say_as(conn, 0, ToJobManager::Goodbye { reason: String::new() });
    assert!(sim.trace.contains(&format!("close {conn}")), "the first message must be Register");
}

#[test]
fn a_newer_connection_of_a_process_replaces_the_older() {
    let mut sim = Sim::with(2);
    sim.submit(1, request(4, None), graph(4)).unwrap();
    let old = sim.tms[0].conn;
    sim.rejoin(0);
    assert!(sim.trace.contains(&format!("close {old}")));
    assert_eq!(sim.state(1), "RESTARTING");
    sim.pass(1_000);
    assert_eq!(sim.state(1), "RUNNING");
    assert_eq!(sim.core.slots_total(), 4);
}

#[test]
fn too_few_slots_are_refused_with_the_numbers() {
    let mut sim = Sim::with(1);
    let refused = sim.submit(1, request(5, None), graph(5)).unwrap_err();
    assert_eq!(refused.status, 422, "there are not so many");
    assert!(refused.errors[0].contains("needed 5, available 2"), "{refused:?}");
    sim.submit(2, request(2, None), graph(2)).unwrap();
    let refused = sim.submit(3, request(1, None), graph(1)).unwrap_err();
    assert_eq!(refused.status, 409, "they are busy");
    assert!(refused.errors[0].contains("needed 1, available 0 of 2"), "{refused:?}");
    assert!(sim.cancel(3).is_err(), "a refused job is not listed");
}

#[test]
fn too_few_segments_are_refused_with_the_edge() {
    let mut sim = Sim::new();
    for id in 1..=2 {
        let conn = sim.connect();
        let mut register = Sim::register(id, 2);
        register.segments_per_slot = 4;
        sim.say_as(conn, 0, ToJobManager::Register(Box::new(register)));
    }
    let refused = sim.submit(1, request(4, None), graph(4)).unwrap_err();
    assert_eq!(refused.status, 422);
    let text = &refused.errors[0];
    assert!(
        text.contains("segments") && text.contains("available 4") && text.contains("read -> count"),
        "{text}"
    );
}

/// All slots of an attempt have to agree on what may travel; what does not fit is refused with its part of the sum.
#[test]
fn the_largest_record_is_what_every_taskmanager_has_room_for() {
    let sizes = |segments: u32, records: [u32; 2]| {
        let mut sim = Sim::new();
        for (id, record_max) in (1..=2).zip(records) {
            let segments_per_slot = segments;
            sim.join_as(Register { segments_per_slot, record_max, ..Sim::register(id, 2) });
        }
        let answer = sim.submit(1, request(4, None), graph(4));
        let told = sim.tms.iter().flat_map(|tm| &tm.told);
        let prepared: Vec<u32> = told
            .filter_map(|told| match told {
                ToTaskManager::Prepare(prepare) => Some(prepare.record_max),
                _ => None,
            })
            .collect();
        (answer.map_err(|rejection| rejection.errors[0].clone()), prepared)
    };
    let (answer, prepared) = sizes(1024, [1 << 20, 3 << 20]);
    answer.expect("there is room");
    assert_eq!(prepared, [1 << 20; 2]);
    let (_, prepared) = sizes(1024, [32 << 10, 3 << 20]);
    assert_eq!(prepared, [0; 2], "what fits a segment needs no regions");
    let (answer, _) = sizes(64, [1 << 20, u32::MAX]);
    let text = answer.expect_err("two regions of 32 segments");
    let expected =
        "2 regions of 32 for large records are part of it, see taskmanager.network.max-record-size";
    assert!(text.contains("needs 76, available 64") && text.contains(expected), "{text}");
}

#[test]
fn too_few_links_are_refused_with_the_edge_and_the_key() {
    let mut sim = Sim::new();
    for id in 1..=2 {
        let conn = sim.connect();
        let mut register = Sim::register(id, 2);
        register.links_per_slot = 3;
        sim.say_as(conn, 0, ToJobManager::Register(Box::new(register)));
    }
    // Two slots of another TaskManager, there and back: four links of each slot.
    let refused = sim.submit(1, request(4, None), graph(4)).unwrap_err();
    assert_eq!(refused.status, 422);
    let expected = "not enough links to slots of other TaskManagers: slot 0 of TaskManager 0000000000000001 needs 4, \
                    available 3; edge \"read -> count\" asks for most of them: 4; raise \
                    taskmanager.network.links-per-slot or lower the parallelism";
    assert_eq!(refused.errors[0], expected);
    assert_eq!(sim.core.by_age().count(), 0, "a refused job is not listed");
    sim.submit(2, request(2, None), graph(2)).expect("one slot of another TaskManager, there and back: two");
}

#[test]
fn what_an_older_job_waits_for_is_not_given_to_a_newer_one() {
    let mut sim = Sim::with(2);
    sim.submit(1, request(4, None), graph(4)).unwrap();
    sim.kill(0);
    sim.pass(2_000);
    let refused = sim.submit(2, request(1, None), graph(1)).unwrap_err();
    assert_eq!(refused.status, 409, "{refused:?}");
}

#[test]
fn jobs_run_side_by_side() {
    let mut sim = Sim::with(2);
    sim.submit(1, request(2, Some(1_000)), graph(2)).unwrap();
    sim.submit(2, request(2, Some(1_000)), graph(2)).unwrap();
    sim.pass(1_100);
    sim.fail(1, tidegate_rpc::FaultKind::Task, "x");
    assert_eq!((sim.state(1), sim.state(2)), ("RESTARTING".into(), "RUNNING".into()));
    sim.pass(1_000);
    assert_eq!((sim.state(1), sim.state(2)), ("RUNNING".into(), "RUNNING".into()));
    assert_eq!(sim.job(2)["attempt"], 1, "only the job that failed was restarted");
}

#[test]
fn the_same_request_twice_has_its_effect_once() {
    let mut sim = Sim::with(1);
    assert_eq!(sim.submit(1, request(1, None), graph(1)), Ok(JobId(1)));
    assert_eq!(sim.submit(1, request(1, None), graph(1)), Ok(JobId(1)));
    assert_eq!(sim.submit(1, request(2, None), graph(2)).unwrap_err().status, 409);
    assert_eq!(sim.core.by_age().count(), 1);
}

#[test]
fn parallelism_has_bounds() {
    let mut sim = Sim::with(1);
    assert_eq!(sim.submit(1, request(0, None), graph(1)).unwrap_err().status, 400);
    assert_eq!(sim.submit(1, request(1 << 20, None), graph(1)).unwrap_err().status, 400);
    let mut cyclic = graph(1);
    cyclic.edges[0].to = 0;
    assert_eq!(sim.submit(1, request(1, None), cyclic).unwrap_err().status, 422);
}

#[test]
fn metrics_of_heartbeats_are_shown() {
    let mut sim = Sim::with(1);
    sim.submit(1, request(2, None), graph(2)).unwrap();
    let task = TaskId { vertex: 1, subtask: 0 };
    let mut metrics = TaskMetrics::zero(JobId(1), 1, task);
    metrics.records_in = 42;
    let slot = SlotMetrics { slot: 1, segments: 64, segments_free: 60, ..SlotMetrics::default() };
    sim.heartbeat(0, Heartbeat { tasks: vec![metrics], slots: vec![slot], ..Heartbeat::default() });
    let job = sim.job(1);
    assert_eq!(job["vertices"][1]["metrics"]["read-records"], 42);
    assert_eq!(job["vertices"][1]["subtasks"][0]["metrics"]["numRecordsIn"], 42);
    let query = crate::core::views::Query::TaskManager(1);
    let details = sim.core.view(query, sim.now_ms).unwrap();
    assert_eq!(details["metrics"]["segmentsTotal"], 64);
    assert_eq!(details["metrics"]["segmentsFree"], 60);
    assert_eq!(details["slots"][1]["jobId"], JobId(1).to_string());
}

/// A TaskManager may say anything; what is shown of it is cut, and nobody panics.
#[test]
fn counters_that_no_number_holds_are_cut() {
    let mut sim = Sim::with(1);
    sim.submit(1, request(2, None), graph(2)).unwrap();
    let metrics = [0, 1].map(|subtask| {
        let zero = TaskMetrics::zero(JobId(1), 1, TaskId { vertex: 1, subtask });
        TaskMetrics { records_in: u64::MAX, ..zero }
    });
    sim.heartbeat(0, Heartbeat { tasks: metrics.to_vec(), ..Heartbeat::default() });
    assert_eq!(sim.job(1)["vertices"][1]["metrics"]["read-records"], u64::MAX);
}

/// What TaskManagers say of latencies is merged per edge and operator; what is not of the job's present attempt, its tasks
/// and its edges, or no histogram, is not believed.
#[test]
fn latencies_are_shown_by_edge_and_lies_are_not() {
    let mut sim = Sim::with(1);
    sim.submit(1, request(2, None), graph(2)).unwrap();
    let histogram = |values: &[u64]| {
        let mut histogram = latency::empty();
        values.iter().for_each(|value| histogram.saturating_record(*value));
        latency::encode(&histogram)
    };
    let end = |vertex, subtask, stages| EdgeLatency {
        job: JobId(1),
        attempt: 1,
        task: TaskId { vertex, subtask },
        edge: 0,
        stages,
    };
    let edges = vec![
        end(1, 0, vec![(Stage::Total, histogram(&[1_000, 1_000, 1_000]))]),
        end(1, 1, vec![(Stage::Total, histogram(&[9_000_000]))]),
        end(0, 1, vec![(Stage::Credit, histogram(&[5_000]))]),
        // Another attempt, edge, subtask, end; no histogram.
        EdgeLatency { attempt: 2, ..end(1, 0, vec![(Stage::Queue, histogram(&[1]))]) },
        EdgeLatency { edge: u32::MAX, ..end(1, 0, vec![(Stage::Queue, histogram(&[1]))]) },
        end(1, 2, vec![(Stage::Queue, histogram(&[1]))]),
        end(u32::MAX, 0, vec![(Stage::Queue, histogram(&[1])), (Stage::Send, histogram(&[1]))]),
        end(1, 0, vec![(Stage::Wire, vec![7; 50]), (Stage::Send, histogram(&[1]))]),
    ];
    sim.say(0, ToJobManager::Latencies(Box::new(LatencyReport { edges })));
    let view = sim.core.view(crate::core::views::Query::Latency(JobId(1)), sim.now_ms).unwrap();
    let edge = &view["edges"][0];
    assert_eq!((&edge["name"], view["edges"].as_array().unwrap().len()), (&"read -> count".into(), 1));
    let total = &edge["stages"]["total"];
    assert_eq!(total["count"], 4);
    assert!((1_000..1_100).contains(&total["p50"].as_u64().unwrap()), "{total}");
    assert!((9_000_000..9_200_000).contains(&total["p999"].as_u64().unwrap()), "{total}");
    let known: Vec<&String> = edge["stages"].as_object().unwrap().keys().collect();
    assert_eq!(known, ["credit", "total"]);
    assert_eq!(edge["subtasks"].as_array().unwrap().len(), 3);
    assert_eq!(view["operators"][0]["name"], "count");
    assert_eq!(&view["operators"][0]["stages"]["total"], total);
}

/// Who holds a task up is named by its place in the graph; a place that is not there is left out.
#[test]
fn a_task_that_is_held_up_says_by_whom() {
    let mut sim = Sim::with(1);
    sim.submit(1, request(2, None), graph(2)).unwrap();
    let held_up = |subtask, partition, channel| {
        let mut metrics = TaskMetrics::zero(JobId(1), 1, TaskId { vertex: 0, subtask });
        metrics.rates = Rates { busy: 300, turn: 100, backpressured: 700, idle: 0 };
        metrics.held_up = Some(HeldUp { cause: Cause::Credit, partition, channel });
        metrics
    };
    let tasks = vec![held_up(0, 0, 1), held_up(1, 3, u32::MAX)];
    sim.heartbeat(0, Heartbeat { tasks, ..Heartbeat::default() });
    let job = sim.job(1);
    let metrics = |subtask: usize| &job["vertices"][0]["subtasks"][subtask]["metrics"];
    assert_eq!(metrics(0)["backPressuredTimeMsPerSecond"], 700);
    assert_eq!(metrics(0)["isBackPressured"], true);
    let by = &metrics(0)["backPressure"];
    assert_eq!((&by["cause"], &by["to"]["name"]), (&"credit".into(), &"count (2/2)".into()));
    assert_eq!(metrics(1)["backPressure"]["to"], serde_json::Value::Null);
}
