//! Lives of jobs: good ones, failing ones, cancelled ones, and those that outlive their JobManager.

use super::sim::{Sim, graph, prepared, request};
use crate::config::Planned;
use crate::core::{Action, Input, Submission};
use tidegate_checkpoint::sink::Moved;
use tidegate_checkpoint::{SinkDone, SinkOp, StoreDone, StoreFault, StoreOp};
use tidegate_rpc::{Fault, FaultKind, JobId, Refusal, TaskId, TaskState, ToJobManager, ToTaskManager};

const JOB: u128 = 1;

/// Two TaskManagers, one job of parallelism 4 with checkpoints every second.
fn running() -> Sim {
    let mut sim = Sim::with(2);
    sim.submit(JOB, request(4, Some(1_000)), graph(4)).unwrap();
    assert_eq!(sim.state(JOB), "RUNNING");
    sim
}

#[test]
fn a_good_life() {
    let mut sim = running();
    let job = sim.job(JOB);
    assert_eq!(job["vertices"][0]["tasks"]["RUNNING"], 4);
    assert_eq!(job["vertices"][1]["subtasks"][3]["status"], "RUNNING");
    assert_eq!(job["vertices"][1]["name"], "count");
    sim.pass(2_500);
    assert_eq!(sim.checkpoints(JOB)["counts"]["completed"], 2);
    assert_eq!(sim.checkpoints(JOB)["latest"]["completed"]["id"], 2);
    sim.trace.clear();
    sim.end_of_data(JOB);
    assert_eq!(sim.state(JOB), "RUNNING", "a snapshot before the end does not end it");
    sim.pass(1_000);
    assert_eq!(sim.state(JOB), "FINISHED");
    let at = |text: &str| sim.trace.iter().position(|line| line.starts_with(text)).unwrap();
    assert!(at("save FINISHED") < at("told finished"), "{:?}", sim.trace);
    assert!(sim.records[&JobId(JOB)].cleaned);
    let job = sim.job(JOB);
    assert_eq!(job["vertices"][0]["tasks"]["FINISHED"], 4);
    assert!(sim.tms.iter().all(|tm| tm.slots.iter().all(Option::is_none)));
    assert!(sim.exceptions(JOB).is_empty());
}

#[test]
fn without_an_interval_one_checkpoint_ends_it() {
    let mut sim = Sim::with(2);
    sim.submit(JOB, request(2, None), graph(2)).unwrap();
    sim.pass(10_000);
    assert_eq!(sim.checkpoints(JOB)["counts"]["total"], 0);
    sim.ended.insert(JOB);
    sim.end_of_data(JOB);
    assert_eq!(sim.state(JOB), "FINISHED");
    assert_eq!(sim.checkpoints(JOB)["counts"]["total"], 1);
    assert_eq!(sim.checkpoints(JOB)["latest"]["completed"]["last"], true);
}

#[test]
fn an_input_that_ends_before_all_tasks_run_is_not_forgotten() {
    let mut sim = Sim::with(1);
    sim.tms[0].lazy.prepare = true;
    sim.submit(JOB, request(2, None), graph(2)).unwrap();
    sim.ended.insert(JOB);
    for slot in 0..2 {
        sim.say(0, prepared(JobId(JOB), 1, slot));
    }
    assert_eq!(sim.state(JOB), "RUNNING");
    // One source is through before it was even known to run.
    let mut sim = Sim::with(1);
    sim.tms[0].lazy.prepare = true;
    sim.submit(JOB, request(2, None), graph(2)).unwrap();
    sim.ended.insert(JOB);
    let (job, attempt) = (JobId(JOB), 1);
    sim.say(0, ToJobManager::EndOfData { job, attempt, task: TaskId { vertex: 0, subtask: 0 } });
    for slot in 0..2 {
        sim.say(0, prepared(job, attempt, slot));
    }
    sim.say(0, ToJobManager::EndOfData { job, attempt, task: TaskId { vertex: 0, subtask: 1 } });
    assert_eq!(sim.state(JOB), "FINISHED");
}

#[test]
fn nothing_starts_before_everything_is_prepared() {
    let mut sim = Sim::with(2);
    sim.tms[1].lazy.prepare = true;
    sim.submit(JOB, request(4, None), graph(4)).unwrap();
    assert_eq!(sim.state(JOB), "CREATED");
    let started = |sim: &Sim| {
        sim.tms.iter().any(|tm| tm.told.iter().any(|told| matches!(told, ToTaskManager::Start { .. })))
    };
    sim.say(1, prepared(JobId(JOB), 1, 0));
    sim.say(1, prepared(JobId(JOB), 1, 0));
    assert!(!started(&sim));
    sim.say(1, prepared(JobId(JOB), 1, 1));
    assert!(started(&sim));
    assert_eq!(sim.state(JOB), "RUNNING");
}

#[test]
fn outputs_are_on_record_and_fenced_before_the_start() {
    let mut sim = Sim::with(1);
    sim.tms[0].lazy.prepare = true;
    sim.submit(JOB, request(1, None), graph(1)).unwrap();
    sim.trace.clear();
    let outputs = vec!["/out".to_owned()];
    let slot = sim.tms[0].slots.iter().position(Option::is_some).unwrap() as u32;
    sim.say(0, ToJobManager::Prepared { job: JobId(JOB), attempt: 1, slot, outputs, refusal: None });
    let at = |text: &str| sim.trace.iter().position(|line| line.starts_with(text)).unwrap();
    assert!(at("save") < at("list /out") && at("list /out") < at("start"), "{:?}", sim.trace);
    assert_eq!(sim.records[&JobId(JOB)].outputs, ["/out"]);
}

#[test]
fn two_jobs_never_share_an_output_directory() {
    let mut sim = Sim::with(2);
    let planned = |parallelism| Planned { graph: graph(parallelism), outputs: vec!["/out".into()] };
    sim.submit_planned(1, request(1, None), planned(1)).unwrap();
    let refused = sim.submit_planned(2, request(1, None), planned(1)).unwrap_err();
    assert_eq!(refused.status, 409);
    assert!(refused.errors[0].contains("/out"), "{refused:?}");
    // One that is found out late fails for good.
    for tm in &mut sim.tms {
        tm.lazy.prepare = true;
    }
    sim.submit(3, request(1, None), graph(1)).unwrap();
    let place = |sim: &Sim| {
        sim.tms.iter().enumerate().find_map(|(index, tm)| {
            let slot =
                tm.slots.iter().position(|held| held.as_ref().is_some_and(|held| held.job == JobId(3)))?;
            Some((index, slot as u32))
        })
    };
    let (index, slot) = place(&sim).unwrap();
    let outputs = vec!["/out".to_owned()];
    sim.say(index, ToJobManager::Prepared { job: JobId(3), attempt: 1, slot, outputs, refusal: None });
    assert_eq!(sim.state(3), "FAILED");
    assert_eq!(sim.state(1), "RUNNING");
}

#[test]
fn a_failed_task_restarts_the_job_from_the_last_checkpoint() {
    let mut sim = running();
    sim.pass(1_100);
    sim.fail(JOB, FaultKind::Task, "user function panicked");
    assert_eq!(sim.state(JOB), "RESTARTING");
    assert_eq!(sim.exceptions(JOB)[0].0, "TaskFailed");
    assert_eq!(sim.checkpoints(JOB)["latest"]["restored"]["id"], 1, "chosen while it waits");
    sim.pass(900);
    assert_eq!(sim.state(JOB), "RESTARTING", "one second");
    sim.pass(100);
    assert_eq!(sim.state(JOB), "RUNNING");
    assert_eq!(sim.restored(JOB), [Some(1)].into());
    assert_eq!(sim.job(JOB)["attempt"], 2);
    assert_eq!(sim.job(JOB)["restarts"], 1);
}

#[test]
fn delays_grow_and_are_forgiven() {
    let mut sim = running();
    let mut delays = Vec::new();
    for round in 0..14 {
        if round == 13 {
            sim.pass(60_000);
        }
        sim.fail(JOB, FaultKind::Task, "again");
        let start = sim.now_ms;
        while sim.state(JOB) != "RUNNING" {
            sim.pass(100);
        }
        delays.push(sim.now_ms - start);
    }
    assert_eq!(delays[..4], [1_000, 1_500, 2_300, 3_400], "in steps of 100 ms");
    assert_eq!(delays[12], 60_000);
    assert_eq!(delays[13], 1_000);
    assert_eq!(sim.exceptions(JOB).len(), 14);
}

#[test]
fn no_word_of_a_taskmanager_costs_a_checkpoint() {
    // A snapshot that cannot be written, again and again.
    let mut sim = running();
    sim.pass(1_100);
    for _ in 0..6 {
        sim.fail(JOB, FaultKind::State, "no space left on device");
        sim.pass(60_000);
        assert_eq!(sim.state(JOB), "RUNNING");
    }
    let newest = sim.checkpoints(JOB)["latest"]["completed"]["id"].as_u64().unwrap();
    // State that one TaskManager cannot read while it prepares.
    for tm in &mut sim.tms {
        tm.lazy.prepare = true;
    }
    sim.fail(JOB, FaultKind::Task, "x");
    for _ in 0..6 {
        sim.pass(60_000);
        let (job, attempt) = (JobId(JOB), sim.job(JOB)["attempt"].as_u64().unwrap() as u32);
        let refusal = Some(Fault { kind: FaultKind::State, cause: "input/output error".into() });
        sim.say(0, ToJobManager::Prepared { job, attempt, slot: 0, outputs: Vec::new(), refusal });
        assert_eq!(sim.state(JOB), "RESTARTING");
    }
    let said = &sim.exceptions(JOB)[0].1;
    assert!(said.contains("TaskManager 0000000000000001") && said.contains("whole"), "{said}");
    for tm in &mut sim.tms {
        tm.lazy.prepare = false;
    }
    sim.pass(120_000);
    assert_eq!(sim.state(JOB), "RUNNING");
    assert_eq!(sim.restored(JOB), [Some(newest)].into());
    assert_eq!(sim.checkpoints(JOB)["refused"], serde_json::json!([]));
}

#[test]
fn a_permanent_failure_ends_the_job() {
    let mut sim = running();
    sim.fail(JOB, FaultKind::Permanent, "no such file: x.csv");
    assert_eq!(sim.state(JOB), "FAILED");
    assert!(sim.exceptions(JOB)[0].1.contains("x.csv"));
    assert!(sim.records[&JobId(JOB)].cleaned);
    assert_eq!(sim.cancel(JOB).unwrap_err().status, 409);
}

#[test]
fn a_slot_that_refuses_to_prepare_fails_the_attempt() {
    for (kind, state) in [(FaultKind::Permanent, "FAILED"), (FaultKind::Resources, "RESTARTING")] {
        let mut sim = Sim::with(1);
        sim.tms[0].lazy.prepare = true;
        sim.submit(JOB, request(2, None), graph(2)).unwrap();
        let refusal = Some(Fault { kind, cause: "graph fingerprint differs".into() });
        let (job, attempt) = (JobId(JOB), 1);
        sim.say(0, ToJobManager::Prepared { job, attempt, slot: 0, outputs: Vec::new(), refusal });
        assert_eq!(sim.state(JOB), state);
        assert!(sim.tms[0].slots.iter().all(Option::is_none), "every slot was cancelled");
    }
}

#[test]
fn a_lost_taskmanager_is_replaced() {
    let mut sim = running();
    sim.pass(1_100);
    sim.kill(0);
    assert_eq!(sim.state(JOB), "RESTARTING");
    sim.pass(5_000);
    assert_eq!(sim.state(JOB), "RESTARTING", "two slots are missing");
    assert!(sim.job(JOB)["waiting-for"].as_str().unwrap().contains("4 slots"));
    sim.join(9, 2);
    assert_eq!(sim.state(JOB), "RUNNING");
    assert_eq!(sim.restored(JOB), [Some(1)].into());
}

#[test]
fn silence_is_noticed_within_two_seconds() {
    let mut sim = running();
    let silent = sim.tms.remove(0);
    sim.pass(1_900);
    assert_eq!(sim.state(JOB), "RUNNING");
    sim.pass(200);
    assert_eq!(sim.state(JOB), "RESTARTING");
    assert!(sim.trace.contains(&format!("close {}", silent.conn)));
    assert_eq!(sim.exceptions(JOB)[0].0, "TaskManagerLost");
    assert_eq!(sim.core.slots_total(), 2);
}

#[test]
fn a_leaving_taskmanager_hands_its_job_over() {
    let mut sim = running();
    sim.join(9, 2);
    sim.say(0, ToJobManager::Goodbye { reason: "SIGTERM".into() });
    assert_eq!(sim.state(JOB), "RESTARTING");
    assert!(sim.tms[0].slots.iter().all(Option::is_none), "its slots were cancelled");
    sim.pass(1_000);
    assert_eq!(sim.state(JOB), "RUNNING");
    assert!(sim.tms[0].slots.iter().all(Option::is_none), "it gets nothing new");
}

#[test]
fn messages_of_other_epochs_and_attempts_have_no_effect() {
    let mut sim = running();
    let conn = sim.tms[0].conn;
    let fault = Fault { kind: FaultKind::Permanent, cause: "old".into() };
    let failed = |attempt| ToJobManager::Failed {
        job: JobId(JOB),
        attempt,
        slot: 0,
        task: None,
        fault: fault.clone(),
    };
    sim.say_as(conn, 0, failed(1));
    sim.say_as(conn, 7, failed(1));
    sim.say(0, failed(0));
    sim.say(0, failed(2));
    let (job, attempt, task) = (JobId(JOB), 2, TaskId { vertex: 0, subtask: 0 });
    sim.say(0, ToJobManager::TaskState { job, attempt, task, state: TaskState::Finished });
    sim.say(0, ToJobManager::Closed { job, attempt, slot: 0, segments_free: 0 });
    assert_eq!(sim.state(JOB), "RUNNING");
    assert_eq!(sim.job(JOB)["vertices"][0]["tasks"]["RUNNING"], 4);
}

#[test]
fn a_slot_that_does_not_close_is_given_up_but_not_given_away() {
    let mut sim = Sim::with(3);
    sim.submit(JOB, request(4, Some(1_000)), graph(4)).unwrap();
    let stuck = sim.tms.iter().position(|tm| tm.slots.iter().any(Option::is_some)).unwrap();
    sim.tms[stuck].lazy.close = true;
    let held = sim.tms[stuck].slots.iter().filter(|held| held.is_some()).count();
    sim.fail(JOB, FaultKind::Task, "x");
    sim.pass(29_000);
    assert_eq!(sim.state(JOB), "RESTARTING");
    sim.pass(2_000);
    let free = if held == 2 { 4 } else { 5 };
    assert_eq!(sim.state(JOB), "RUNNING", "{free} slots are free");
    let old = sim.tms[stuck].slots.iter().flatten().filter(|held| held.attempt == 1).count();
    assert_eq!(old, held, "the stuck slots were left alone");
}

#[test]
fn a_job_is_cancelled_wherever_it_is() {
    // Running.
    let mut sim = running();
    sim.cancel(JOB).unwrap();
    assert_eq!(sim.state(JOB), "CANCELED");
    assert!(sim.tms.iter().all(|tm| tm.slots.iter().all(Option::is_none)));
    // Preparing.
    let mut sim = Sim::with(1);
    sim.tms[0].lazy.prepare = true;
    sim.submit(JOB, request(2, None), graph(2)).unwrap();
    sim.cancel(JOB).unwrap();
    assert_eq!(sim.state(JOB), "CANCELED");
    // Waiting for time, then for slots.
    for wait_ms in [0, 5_000] {
        let mut sim = running();
        sim.kill(0);
        sim.pass(wait_ms);
        sim.cancel(JOB).unwrap();
        assert_eq!(sim.state(JOB), "CANCELED");
        sim.join(9, 2);
        sim.pass(10_000);
        assert_eq!(sim.state(JOB), "CANCELED");
    }
    // Stopping: its slots are slow to close.
    let mut sim = running();
    sim.tms[0].lazy.close = true;
    sim.fail(JOB, FaultKind::Task, "x");
    sim.cancel(JOB).unwrap();
    assert_eq!(sim.state(JOB), "CANCELLING");
    sim.pass(31_000);
    assert_eq!(sim.state(JOB), "CANCELED");
    assert_eq!(sim.cancel(2).unwrap_err().status, 404);
}

#[test]
fn a_restarted_jobmanager_goes_on_where_it_was() {
    let mut sim = running();
    sim.pass(2_100);
    sim.restart_jobmanager();
    assert_eq!(sim.state(JOB), "RESTARTING");
    assert_eq!(sim.checkpoints(JOB)["latest"]["restored"]["id"], 2, "chosen before TaskManagers are back");
    // They come back still holding the old attempt, and give it up.
    sim.rejoin(0);
    assert_eq!(sim.state(JOB), "RESTARTING");
    sim.rejoin(1);
    assert_eq!(sim.state(JOB), "RUNNING");
    assert_eq!(sim.restored(JOB), [Some(2)].into());
    assert_eq!(sim.job(JOB)["attempt"], 2);
    sim.end_of_data(JOB);
    sim.pass(2_000);
    assert_eq!(sim.state(JOB), "FINISHED");
    sim.restart_jobmanager();
    assert_eq!(sim.state(JOB), "FINISHED", "finished jobs stay listed");
    assert_eq!(sim.checkpoints(JOB)["restored"].as_array().unwrap().len(), 1);
}

#[test]
fn a_jobmanager_that_dies_around_the_end_neither_loses_nor_repeats_it() {
    // After the last checkpoint was published, before FINISHED was written.
    let mut sim = running();
    sim.pass(1_100);
    let mut last = sim.published[&JobId(JOB)][&1].clone();
    last.id = 2;
    last.last = true;
    let finished = last.clone();
    sim.published.get_mut(&JobId(JOB)).unwrap().insert(2, last);
    sim.restart_jobmanager();
    assert_eq!(sim.state(JOB), "FINISHED", "nothing is deployed again");
    // After FINISHED was written, before it was cleaned.
    sim.published.insert(JobId(JOB), [(2, finished)].into());
    let record = sim.records.get_mut(&JobId(JOB)).unwrap();
    record.cleaned = false;
    record.outputs = vec!["/out".into()];
    sim.trace.clear();
    sim.restart_jobmanager();
    assert_eq!(sim.state(JOB), "FINISHED");
    assert!(sim.trace.contains(&"list /out".to_owned()) && sim.records[&JobId(JOB)].cleaned);
}

#[test]
fn a_jobmanager_that_dies_while_cancelling_goes_on_cancelling() {
    let mut sim = running();
    for tm in &mut sim.tms {
        tm.lazy.close = true;
    }
    sim.cancel(JOB).unwrap();
    assert_eq!(sim.state(JOB), "CANCELLING");
    sim.restart_jobmanager();
    assert_eq!(sim.state(JOB), "CANCELED");
}

#[test]
fn a_repeated_submission_is_answered_when_the_record_is_durable_and_not_before() {
    for (disk, status) in [(Ok(()), None), (Err("no space".to_owned()), Some(507))] {
        let mut sim = Sim::with(1);
        let now_ms = sim.now_ms;
        let submission = || {
            let planned = graph(1).into();
            Box::new(Submission { id: JobId(JOB), request: request(1, None), planned, objection: None })
        };
        let first = sim.core.handle(Input::Submit { ticket: 1, submission: submission() }, now_ms);
        let Some(Action::Save { save, .. }) = first.first() else { panic!("{first:?}") };
        let repeated = sim.core.handle(Input::Submit { ticket: 2, submission: submission() }, now_ms);
        assert_eq!(repeated, [], "nobody knows yet whether the record can be written");
        let saved = sim.core.handle(Input::Saved { job: JobId(JOB), save: *save, result: disk }, now_ms);
        sim.carry_on(saved);
        let answers = [1, 2].map(|ticket| sim.answers.remove(&ticket).expect("it is answered"));
        assert_eq!(answers.map(|answer| answer.err().map(|refused| refused.status)), [status; 2]);
    }
}

#[test]
fn a_record_that_cannot_be_written_refuses_the_job_and_holds_a_restart() {
    let mut sim = Sim::with(2);
    sim.disk_full = true;
    let refused = sim.submit(JOB, request(4, None), graph(4)).unwrap_err();
    assert_eq!(refused.status, 507);
    assert!(refused.errors[0].contains("no space"), "{refused:?}");
    assert!(sim.cancel(JOB).is_err(), "it never was");
    sim.disk_full = false;
    sim.submit(JOB, request(4, None), graph(4)).unwrap();
    sim.disk_full = true;
    sim.fail(JOB, FaultKind::Task, "x");
    sim.pass(5_000);
    assert_eq!(sim.state(JOB), "RESTARTING", "the attempt's number is not on disk");
    sim.disk_full = false;
    sim.pass(1_100);
    assert_eq!(sim.state(JOB), "RUNNING");
}

#[test]
fn draining_says_goodbye_and_accepts_nothing() {
    let mut sim = running();
    sim.input(Input::Drain { reason: "SIGTERM".into() });
    assert!(sim.tms.iter().all(|tm| matches!(tm.told.last(), Some(ToTaskManager::Goodbye { .. }))));
    assert_eq!(sim.submit(2, request(1, None), graph(1)).unwrap_err().status, 503);
    assert!(!sim.records[&JobId(JOB)].state.is_over(), "the next JobManager takes it up");
}

#[test]
fn a_job_that_this_binary_plans_otherwise_waits_for_the_right_one() {
    type Plan = fn(&tidegate_graph::JobGraph) -> Result<tidegate_graph::JobGraph, String>;
    let plans: [(&str, Plan); 2] =
        [("no such job", |_| Err("no such job".into())), ("another graph", |_| Ok(graph(1)))];
    for (said, plan) in plans {
        let mut sim = running();
        sim.pass(2_100);
        sim.plan = plan;
        sim.trace.clear();
        sim.restart_jobmanager();
        sim.rejoin(0);
        sim.rejoin(1);
        sim.pass(100_000);
        assert_eq!(sim.state(JOB), "RESTARTING");
        assert!(sim.job(JOB)["waiting-for"].as_str().unwrap().contains(said), "{}", sim.job(JOB));
        assert!(!sim.trace.iter().any(|line| line.starts_with("list")), "nothing of it is touched");
        sim.submit(2, request(4, None), graph(4)).expect("it holds no slots");
        sim.cancel(2).unwrap();
        sim.plan = |graph| Ok(graph.clone());
        sim.restart_jobmanager();
        sim.rejoin(0);
        sim.rejoin(1);
        assert_eq!(sim.state(JOB), "RUNNING");
        assert_eq!(sim.restored(JOB), [Some(2)].into());
        sim.plan = plan;
        sim.restart_jobmanager();
        sim.cancel(JOB).unwrap();
        assert_eq!(sim.state(JOB), "CANCELED");
    }
}

/// Nobody may write to `/out`.
fn forbidden(op: &StoreOp) -> Option<StoreDone> {
    let fault = StoreFault::io("/out/_pending", &std::io::ErrorKind::PermissionDenied.into());
    matches!(op, StoreOp::Sink(_)).then_some(StoreDone::Failed(fault))
}

#[test]
fn an_output_that_cannot_be_written_fails_the_job_by_name_and_is_tried_again_at_the_next_start() {
    let mut sim = running();
    sim.files = true;
    sim.answer_instead = Some(forbidden);
    sim.pass(20_000);
    assert_eq!(sim.state(JOB), "FAILED");
    let said = sim.exceptions(JOB);
    assert!(said[1].1.contains("/out/_pending: permission denied"), "{said:?}");
    assert_eq!(said[0].0, "LeftoverOutput");
    assert!(said[0].1.contains("stay in /out/_pending"), "{said:?}");
    assert!(!sim.records[&JobId(JOB)].cleaned);
    assert_eq!(sim.published[&JobId(JOB)].len(), 1, "its checkpoint stays");
    // Somebody gives the permission back.
    sim.answer_instead = None;
    sim.trace.clear();
    sim.restart_jobmanager();
    assert_eq!(sim.state(JOB), "FAILED");
    assert!(sim.trace.contains(&"rename /out/part-1".to_owned()), "{:?}", sim.trace);
    assert!(sim.records[&JobId(JOB)].cleaned);
}

#[test]
fn a_store_that_does_not_answer_restarts_the_attempt_until_it_does() {
    fn silent(op: &StoreOp) -> Option<StoreDone> {
        matches!(op, StoreOp::Sink(_) | StoreOp::Verify { .. }).then(|| StoreDone::Failed("timed out".into()))
    }
    let mut sim = running();
    sim.files = true;
    sim.pass(1_100);
    // A commit, then restores.
    sim.answer_instead = Some(silent);
    sim.pass(60_000);
    assert_eq!(sim.state(JOB), "RESTARTING");
    let said = sim.exceptions(JOB);
    assert!(said.iter().any(|(name, _)| name == "CheckpointFailed"), "{said:?}");
    assert!(
        said.iter().any(|(name, text)| name == "RestoreFailed" && text.contains("timed out")),
        "{said:?}"
    );
    sim.answer_instead = None;
    sim.pass(61_000);
    assert_eq!(sim.state(JOB), "RUNNING");
    assert_eq!(sim.checkpoints(JOB)["latest"]["restored"]["id"], 2);
}

#[test]
fn a_damaged_checkpoint_gives_way_by_name() {
    fn damaged(op: &StoreOp) -> Option<StoreDone> {
        match op {
            StoreOp::Verify { id: 2, .. } => Some(StoreDone::Damaged("x.state: truncated".into())),
            StoreOp::Quarantine { id: 2, .. } => Some(StoreDone::Done),
            _ => None,
        }
    }
    let mut sim = running();
    sim.pass(2_100);
    sim.answer_instead = Some(damaged);
    sim.fail(JOB, FaultKind::Task, "x");
    sim.pass(1_100);
    assert_eq!(sim.state(JOB), "RUNNING");
    assert_eq!(sim.restored(JOB), [Some(1)].into());
    assert_eq!(sim.checkpoints(JOB)["refused"][0]["id"], 2);
    assert!(sim.exceptions(JOB)[0].1.contains("x.state: truncated"));
}

#[test]
fn a_foreign_file_in_the_output_ends_the_job_and_is_named() {
    fn taken(op: &StoreOp) -> Option<StoreDone> {
        let StoreOp::Sink(op) = op else { return None };
        Some(StoreDone::Sink(match op {
            SinkOp::Rename { files } => SinkDone::Renamed(vec![Moved::TargetExists; files.len()]),
            SinkOp::Probe { paths } => SinkDone::Probed(vec![Some((9, 9)); paths.len()]),
            _ => return None,
        }))
    }
    let mut sim = running();
    sim.files = true;
    sim.answer_instead = Some(taken);
    sim.pass(5_000);
    assert_eq!(sim.state(JOB), "FAILED");
    let said: Vec<String> = sim.exceptions(JOB).into_iter().map(|(name, _)| name).collect();
    assert_eq!(said, ["LeftoverOutput", "RestoreFailed", "CheckpointFailed"]);
    for (_, text) in sim.exceptions(JOB) {
        assert!(text.contains("/out/part-1 exists with other content"), "{text}");
    }
    assert!(!sim.trace.contains(&"remove".to_owned()));
}

#[test]
fn checkpoints_go_with_a_job_that_finished_or_was_cancelled_and_stay_with_one_that_failed() {
    let left = |sim: &Sim| sim.published[&JobId(JOB)].len();
    let mut sim = running();
    sim.pass(2_500);
    sim.end_of_data(JOB);
    sim.pass(1_000);
    assert_eq!((sim.state(JOB).as_str(), left(&sim)), ("FINISHED", 0));
    let mut sim = running();
    sim.pass(2_500);
    let kept = sim.published.clone();
    sim.cancel(JOB).unwrap();
    assert_eq!((sim.state(JOB).as_str(), left(&sim)), ("CANCELED", 0));
    sim.cancel(JOB).expect("asked twice, done once");
    // The JobManager died before it came to it.
    sim.published = kept;
    sim.restart_jobmanager();
    assert_eq!(left(&sim), 0);
    let mut sim = running();
    sim.pass(2_500);
    sim.fail(JOB, FaultKind::Permanent, "x");
    assert_eq!((sim.state(JOB).as_str(), left(&sim)), ("FAILED", 2));
}

#[test]
fn checkpoints_that_vanished_do_not_start_a_job_over() {
    let mut sim = running();
    sim.pass(2_500);
    sim.fail(JOB, FaultKind::Task, "x");
    sim.published.clear();
    sim.restart_jobmanager();
    assert_eq!(sim.state(JOB), "FAILED");
    assert!(sim.exceptions(JOB).iter().any(|(_, text)| text.contains("none is in the store")));
}

#[test]
fn a_jobmanager_that_stood_still_does_not_blame_the_others() {
    let mut sim = running();
    sim.now_ms += 30_000;
    sim.input(Input::Tick);
    assert_eq!(sim.state(JOB), "RUNNING", "their heartbeats wait behind the tick");
    sim.pass(5_000);
    assert_eq!(sim.state(JOB), "RUNNING");
    // One that is silent from then on is lost as ever.
    sim.now_ms += 30_000;
    sim.input(Input::Tick);
    sim.tms.remove(0);
    sim.pass(1_900);
    assert_eq!(sim.state(JOB), "RUNNING");
    sim.pass(200);
    assert_eq!(sim.state(JOB), "RESTARTING");
}

#[test]
fn one_connection_too_many_may_try_again() {
    let mut sim = Sim::with(1);
    for _ in 1..crate::limits::CONNECTIONS_MAX {
        sim.connect();
    }
    let actions = sim.core.handle(Input::Connected { conn: 1 << 40, peer: None }, sim.now_ms);
    let told = actions.iter().find_map(|action| match action {
        crate::core::Action::Send { message, .. } => Some(message.as_ref()),
        _ => None,
    });
    assert_eq!(told, Some(&ToTaskManager::Refused(Refusal::Draining)));
}

#[test]
fn what_a_record_remembers_is_bounded() {
    let mut sim = running();
    let mut record = sim.records[&JobId(JOB)].clone();
    for id in 0..1_000 {
        record.push_refused(id, "cut".into());
        record.push_restored(crate::record::RestoredRecord { id, timestamp_ms: 0 });
    }
    let max = tidegate_checkpoint::limits::RESTORES_MAX;
    assert_eq!((record.refused.len(), record.restored.len()), (max, max));
    assert_eq!(record.refused.last().unwrap().0, 999);
    // A longer record of an earlier version shrinks as it is used.
    record.restored = vec![record.restored[0]; 2_000];
    sim.pass(1_100);
    sim.records.insert(JobId(JOB), record);
    sim.restart_jobmanager();
    assert_eq!(sim.records[&JobId(JOB)].restored.len(), max);
    assert_eq!(sim.checkpoints(JOB)["restored"].as_array().unwrap().len(), max);
}

#[test]
fn a_job_is_taken_only_when_its_leader_is_known_to_lead() {
    let mut sim = Sim::with(1);
    let silent: fn(&StoreOp) -> Option<StoreDone> =
        |op| matches!(op, StoreOp::NewestEpoch).then(|| StoreDone::Failed("no answer".into()));
    sim.answer_instead = Some(silent);
    let planned = Planned::from(graph(2));
    for ticket in [70, 71] {
        let (request, planned) = (request(2, None), planned.clone());
        let submission = Box::new(Submission { id: JobId(JOB), request, planned, objection: None });
        sim.input(Input::Submit { ticket, submission });
    }
    assert!(sim.records.contains_key(&JobId(JOB)) && sim.answers.is_empty(), "somebody else may lead");
    sim.answer_instead = None;
    sim.pass(1_000);
    assert_eq!([70, 71].map(|ticket| sim.answers.remove(&ticket)), [(); 2].map(|()| Some(Ok(JobId(JOB)))));
    assert_eq!(sim.state(JOB), "RUNNING");
}
