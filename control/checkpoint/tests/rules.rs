//! The coordinator's rules one by one, driven by hand.

use tidegate_checkpoint::epoch::JobRecord;
use tidegate_checkpoint::*;

const JOB: u128 = 9;
const SOURCE: Task = Task { vertex: 0, subtask: 0 };
const COUNT: Task = Task { vertex: 1, subtask: 0 };

fn info() -> JobInfo {
    JobInfo {
        job: JOB,
        name: "job".into(),
        args: Vec::new(),
        parallelism: 1,
        graph_fingerprint: 1,
        binary_fingerprint: 1,
        operators: Vec::new(),
    }
}

fn coordinator(config: CheckpointConfig) -> Coordinator {
    Coordinator::new(config, info(), 1, Vec::new(), Vec::new())
}

fn every(interval_ms: u64) -> CheckpointConfig {
    CheckpointConfig { interval_ms: Some(interval_ms), ..CheckpointConfig::default() }
}

/// Answers the one store operation among the actions; gives the other actions.
fn answer(c: &mut Coordinator, actions: Vec<Action>, done: StoreDone, now_ms: u64) -> Vec<Action> {
    let [op] = actions.iter().filter_map(op_of).collect::<Vec<_>>()[..] else {
        panic!("one store operation expected: {actions:?}")
    };
    c.handle(Input::Store { op, done }, now_ms)
}

fn op_of(action: &Action) -> Option<u64> {
    if let Action::Store { op, .. } = action { Some(*op) } else { None }
}

fn body(actions: &[Action]) -> &StoreOp {
    actions
        .iter()
        .find_map(|action| if let Action::Store { body, .. } = action { Some(body) } else { None })
        .unwrap_or_else(|| panic!("a store operation expected: {actions:?}"))
}

/// Restores from nothing and starts attempt 1 at time 0.
fn running(config: CheckpointConfig) -> Coordinator {
    let mut c = coordinator(config);
    let actions = c.handle(Input::Restore { attempt: 1 }, 0);
    let actions = answer(&mut c, actions, StoreDone::Newest(1), 0);
    let actions = answer(&mut c, actions, StoreDone::Scanned(Vec::new()), 0);
    assert!(
        matches!(&actions[..], [Action::Restored { attempt: 1, point }] if point.checkpoint.is_none()),
        "{actions:?}"
    );
    start(&mut c, 1, 0);
    c
}

fn start(c: &mut Coordinator, attempt: u32, now_ms: u64) {
    let (tasks, sources) = (vec![SOURCE, COUNT], vec![SOURCE]);
    assert_eq!(c.handle(Input::Started { attempt, tasks, sources }, now_ms), []);
}

fn part(task: Task, finished: bool) -> Box<TaskPart> {
    Box::new(TaskPart { task, finished, alignment_ns: 0, bytes: 1, operators: Vec::new() })
}

fn ack(c: &mut Coordinator, attempt: u32, checkpoint: u64, task: Task, now_ms: u64) -> Vec<Action> {
    c.handle(Input::Acknowledge { epoch: 1, attempt, checkpoint, part: part(task, false) }, now_ms)
}

/// Triggers at `now_ms` and acknowledges: what remains is the publication.
fn acknowledged(c: &mut Coordinator, checkpoint: u64, now_ms: u64) -> Vec<Action> {
    assert_eq!(c.handle(Input::Tick, now_ms), [Action::Trigger { attempt: 1, checkpoint }]);
    assert_eq!(ack(c, 1, checkpoint, SOURCE, now_ms), []);
    ack(c, 1, checkpoint, COUNT, now_ms)
}

fn complete(c: &mut Coordinator, checkpoint: u64, now_ms: u64) -> Box<Metadata> {
    let actions = acknowledged(c, checkpoint, now_ms);
    let StoreOp::PutMetadata { metadata, outputs: false } = body(&actions).clone() else {
        panic!("{actions:?}")
    };
    let actions = answer(c, actions, StoreDone::Created, now_ms);
    assert_eq!(*body(&actions), StoreOp::NewestEpoch);
    let actions = answer(c, actions, StoreDone::Newest(1), now_ms);
    assert_eq!(actions[0], Action::Completed { attempt: 1, checkpoint, last: false });
    assert!(matches!(body(&actions), StoreOp::Retain { .. }));
    assert_eq!(answer(c, actions, StoreDone::Done, now_ms), []);
    metadata
}

#[test]
fn the_order_of_a_good_checkpoint() {
    let mut c = running(every(100));
    assert_eq!(c.deadline(), Some(100));
    assert_eq!(c.handle(Input::Tick, 99), []);
    let metadata = complete(&mut c, 1, 100);
    assert_eq!((metadata.id, metadata.epoch, metadata.attempt, metadata.last), (1, 1, 1, false));
    assert_eq!(metadata.tasks.len(), 2);
    assert_eq!(c.deadline(), Some(200));
    assert_eq!(c.stats().completed, 1);
}

#[test]
fn acknowledgements_of_others_do_not_count() {
    let mut c = running(every(100));
    c.handle(Input::Tick, 100);
    ack(&mut c, 1, 1, SOURCE, 100);
    let other = |c: &mut Coordinator, epoch, attempt, checkpoint, task| {
        c.handle(Input::Acknowledge { epoch, attempt, checkpoint, part: part(task, false) }, 100)
    };
    assert_eq!(other(&mut c, 0, 1, 1, COUNT), [], "epoch");
    assert_eq!(other(&mut c, 1, 2, 1, COUNT), [], "attempt");
    assert_eq!(other(&mut c, 1, 1, 2, COUNT), [], "checkpoint");
    assert_eq!(other(&mut c, 1, 1, 1, SOURCE), [], "a second time");
    assert_eq!(other(&mut c, 1, 1, 1, Task { vertex: 1, subtask: 1 }), [], "task");
    assert!(matches!(body(&other(&mut c, 1, 1, 1, COUNT)), StoreOp::PutMetadata { .. }));
}

#[test]
fn a_lost_answer_is_read_back() {
    let mut c = running(every(100));
    let actions = acknowledged(&mut c, 1, 100);
    let StoreOp::PutMetadata { metadata, .. } = body(&actions).clone() else { panic!() };
    assert_eq!(answer(&mut c, actions, StoreDone::Failed("?".into()), 100), []);
    let at = c.deadline().unwrap();
    let actions = c.handle(Input::Tick, at);
    assert!(matches!(body(&actions), StoreOp::ReadMetadata { id: 1, .. }));
    let actions = answer(&mut c, actions, StoreDone::Metadata(metadata), at);
    let actions = answer(&mut c, actions, StoreDone::Newest(1), at);
    assert!(matches!(actions[0], Action::Completed { checkpoint: 1, .. }));
}

#[test]
fn what_is_absent_is_voided_so_that_it_cannot_come_later() {
    let mut c = running(every(100));
    let actions = acknowledged(&mut c, 1, 100);
    answer(&mut c, actions, StoreDone::Failed("?".into()), 100);
    let actions = c.handle(Input::Tick, 1_000);
    let actions = answer(&mut c, actions, StoreDone::Absent, 1_000);
    assert!(matches!(body(&actions), StoreOp::VoidMetadata { id: 1, .. }));
    let actions = answer(&mut c, actions, StoreDone::Created, 1_000);
    assert!(matches!(actions[0], Action::Aborted { checkpoint: 1, .. }), "{actions:?}");
    // It was there after all: then it counts.
    let actions = c.handle(Input::Tick, 2_000);
    assert_eq!(actions, [Action::Trigger { attempt: 1, checkpoint: 2 }]);
    ack(&mut c, 1, 2, SOURCE, 2_000);
    let actions = ack(&mut c, 1, 2, COUNT, 2_000);
    let StoreOp::PutMetadata { metadata, .. } = body(&actions).clone() else { panic!() };
    answer(&mut c, actions, StoreDone::Failed("?".into()), 2_000);
    let actions = c.handle(Input::Tick, 3_000);
    let actions = answer(&mut c, actions, StoreDone::Absent, 3_000);
    let actions = answer(&mut c, actions, StoreDone::Exists, 3_000);
    let actions = answer(&mut c, actions, StoreDone::Metadata(metadata), 3_000);
    assert_eq!(*body(&actions), StoreOp::NewestEpoch);
}

#[test]
fn a_restore_waits_until_a_publication_is_resolved_and_voids_what_is_pending() {
    let mut c = running(every(100));
    let put = acknowledged(&mut c, 1, 100);
    assert_eq!(c.handle(Input::Stop, 101), []);
    assert_eq!(c.handle(Input::Restore { attempt: 2 }, 102), []);
    assert_eq!(answer(&mut c, put, StoreDone::Failed("?".into()), 103), []);
    let actions = c.handle(Input::Tick, 1_000);
    assert!(matches!(body(&actions), StoreOp::ReadMetadata { id: 1, .. }), "{actions:?}");
    let actions = answer(&mut c, actions, StoreDone::Absent, 1_000);
    let actions = answer(&mut c, actions, StoreDone::Created, 1_000);
    // Void: now a restore point can be chosen.
    let actions = answer(&mut c, actions, StoreDone::Newest(1), 1_000);
    assert!(matches!(body(&actions), StoreOp::Scan { .. }));

    let mut c = running(every(100));
    c.handle(Input::Tick, 100);
    ack(&mut c, 1, 1, SOURCE, 100);
    let actions = c.handle(Input::Stop, 101);
    assert_eq!(actions, []);
    assert_eq!(ack(&mut c, 1, 1, COUNT, 102), [], "it is void");
    assert_eq!(c.stats().failed, 1);
}

#[test]
fn a_newer_leader_ends_this_one_before_it_commits() {
    let mut c = running(every(100));
    let actions = acknowledged(&mut c, 1, 100);
    let actions = answer(&mut c, actions, StoreDone::Created, 100);
    assert_eq!(answer(&mut c, actions, StoreDone::Newest(2), 100), [Action::Deposed { newest: 2 }]);
    assert_eq!(c.handle(Input::Tick, 10_000), []);
    assert_eq!(c.handle(Input::Restore { attempt: 2 }, 10_000), []);
}

#[test]
fn another_leaders_metadata_under_the_same_id_fails_the_checkpoint() {
    let mut c = running(every(100));
    let actions = acknowledged(&mut c, 1, 100);
    let StoreOp::PutMetadata { mut metadata, .. } = body(&actions).clone() else { panic!() };
    let actions = answer(&mut c, actions, StoreDone::Exists, 100);
    metadata.epoch = 7;
    let actions = answer(&mut c, actions, StoreDone::Metadata(metadata), 100);
    assert!(
        matches!(&actions[..], [Action::Aborted { checkpoint: 1, reason, .. }] if reason.contains("epoch 7"))
    );
}

#[test]
fn one_at_a_time_with_a_pause_between() {
    let config = CheckpointConfig { min_pause_ms: 50, ..every(100) };
    let mut c = running(config);
    let put = acknowledged(&mut c, 1, 100);
    assert_eq!(c.handle(Input::Tick, 300), [], "the first is being published");
    let actions = answer(&mut c, put, StoreDone::Created, 310);
    let actions = answer(&mut c, actions, StoreDone::Newest(1), 310);
    answer(&mut c, actions, StoreDone::Done, 310);
    assert_eq!(c.deadline(), Some(360));
    assert_eq!(c.handle(Input::Tick, 359), []);
    assert_eq!(c.handle(Input::Tick, 360), [Action::Trigger { attempt: 1, checkpoint: 2 }]);
}

#[test]
fn a_checkpoint_expires_and_a_few_failures_are_tolerated() {
    let config = CheckpointConfig { timeout_ms: 1_000, tolerable_failures: 1, ..every(100) };
    let mut c = running(config);
    c.handle(Input::Tick, 100);
    assert_eq!(c.deadline(), Some(1_100));
    let actions = c.handle(Input::Tick, 1_100);
    assert!(
        matches!(&actions[..], [Action::Aborted { checkpoint: 1, reason, .. }] if reason.contains("2 tasks"))
    );
    let actions = c.handle(Input::Tick, 1_600);
    assert_eq!(actions, [Action::Trigger { attempt: 1, checkpoint: 2 }]);
    let reason = "disk full".to_owned();
    let decline = Input::Decline { epoch: 1, attempt: 1, checkpoint: 2, task: COUNT, reason };
    let actions = c.handle(decline, 1_600);
    assert!(
        matches!(&actions[..], [Action::Aborted { checkpoint: 2, .. }, Action::FailAttempt { reason, permanent: false, .. }]
            if reason.contains("disk full")),
        "{actions:?}"
    );
}

#[test]
fn a_success_forgives_failures() {
    let config = CheckpointConfig { tolerable_failures: 1, ..every(100) };
    let mut c = running(config);
    for (id, good) in [(1, false), (2, true), (3, false), (4, true)] {
        let now_ms = id * 10_000;
        if good {
            complete(&mut c, id, now_ms);
            continue;
        }
        c.handle(Input::Tick, now_ms);
        let decline =
            Input::Decline { epoch: 1, attempt: 1, checkpoint: id, task: COUNT, reason: String::new() };
        assert_eq!(c.handle(decline, now_ms).len(), 1, "tolerated");
    }
}

#[test]
fn without_an_interval_there_is_the_final_checkpoint() {
    let mut c = running(CheckpointConfig::default());
    assert_eq!(c.deadline(), None);
    assert_eq!(c.handle(Input::Tick, 1_000_000), []);
    assert_eq!(c.handle(Input::EndOfData { attempt: 9, task: SOURCE }, 1_000_000), [], "another attempt");
    let actions = c.handle(Input::EndOfData { attempt: 1, task: SOURCE }, 1_000_000);
    assert_eq!(actions, [Action::Trigger { attempt: 1, checkpoint: 1 }]);
    let last = |task| Input::Acknowledge { epoch: 1, attempt: 1, checkpoint: 1, part: part(task, true) };
    c.handle(last(SOURCE), 1_000_000);
    let actions = c.handle(last(COUNT), 1_000_000);
    assert!(matches!(body(&actions), StoreOp::PutMetadata { metadata, .. } if metadata.last));
    let actions = answer(&mut c, actions, StoreDone::Created, 1_000_000);
    let actions = answer(&mut c, actions, StoreDone::Newest(1), 1_000_000);
    assert_eq!(actions[0], Action::Completed { attempt: 1, checkpoint: 1, last: true });
    answer(&mut c, actions, StoreDone::Done, 1_000_000);
    assert_eq!(c.handle(Input::Tick, 9_000_000), [], "nothing follows");
    let actions = c.handle(Input::End { attempt: 1 }, 9_000_000);
    assert_eq!(actions, [Action::Ended { leftover: None }]);
}

#[test]
fn only_as_many_are_kept_as_wanted() {
    let mut c = running(CheckpointConfig { retained: 2, ..every(100) });
    for id in 1..=2 {
        complete(&mut c, id, id * 1_000);
    }
    let actions = acknowledged(&mut c, 3, 3_000);
    let actions = answer(&mut c, actions, StoreDone::Created, 3_000);
    let actions = answer(&mut c, actions, StoreDone::Newest(1), 3_000);
    assert_eq!(*body(&actions), StoreOp::Retain { job: JOB, below: 2 });
}

#[test]
fn the_next_checkpoint_may_be_acknowledged_while_old_ones_are_deleted() {
    let mut c = running(every(100));
    let actions = acknowledged(&mut c, 1, 100);
    let actions = answer(&mut c, actions, StoreDone::Created, 100);
    let retain = answer(&mut c, actions, StoreDone::Newest(1), 100);
    let trigger = c.handle(Input::Tick, 200);
    assert_eq!(trigger, [Action::Trigger { attempt: 1, checkpoint: 2 }]);
    ack(&mut c, 1, 2, SOURCE, 200);
    assert_eq!(ack(&mut c, 1, 2, COUNT, 200), [], "one operation at a time");
    let actions = answer(&mut c, retain, StoreDone::Done, 201);
    assert!(matches!(body(&actions), StoreOp::PutMetadata { .. }));
}

/// Restores with checkpoints 1 and 2 in the store; gives the actions after the scan.
fn restoring(c: &mut Coordinator) -> Vec<Action> {
    c.handle(Input::Stop, 10_000);
    let actions = c.handle(Input::Restore { attempt: 2 }, 10_000);
    let actions = answer(c, actions, StoreDone::Newest(1), 10_000);
    let entry =
        |id| Scanned { id, quarantined: false, state: ScannedState::Present { epoch: 1 }, outputs: false };
    answer(c, actions, StoreDone::Scanned(vec![entry(1), entry(2)]), 10_000)
}

/// Before something is set aside, or given up, it asks again.
fn still_leads(c: &mut Coordinator, actions: Vec<Action>) -> Vec<Action> {
    assert_eq!(*body(&actions), StoreOp::NewestEpoch);
    answer(c, actions, StoreDone::Newest(1), 10_000)
}

#[test]
fn a_damaged_checkpoint_is_set_aside_by_name_and_an_older_one_is_used() {
    let mut c = running(every(100));
    let one = complete(&mut c, 1, 100);
    complete(&mut c, 2, 1_000);
    let actions = restoring(&mut c);
    assert!(matches!(body(&actions), StoreOp::Verify { id: 2, .. }));
    let actions = answer(&mut c, actions, StoreDone::Damaged("x.state: truncated".into()), 10_000);
    let actions = still_leads(&mut c, actions);
    assert!(matches!(body(&actions), StoreOp::Quarantine { id: 2, .. }));
    let actions = answer(&mut c, actions, StoreDone::Done, 10_000);
    assert!(matches!(body(&actions), StoreOp::Verify { id: 1, .. }));
    let actions = answer(&mut c, actions, StoreDone::Metadata(one), 10_000);
    assert!(matches!(body(&actions), StoreOp::ReadOutputs { id: 2, expected: false, .. }));
    let actions = answer(&mut c, actions, StoreDone::Absent, 10_000);
    let [Action::Report(text), Action::Restored { attempt: 2, point }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(text.contains("checkpoint 2") && text.contains("truncated") && text.contains("checkpoint 1"));
    assert_eq!(point.checkpoint.as_ref().unwrap().id, 1);
    assert_eq!(point.refused[0].id, 2);
    assert_eq!(point.first_checkpoint, 3, "an id is never used twice");
}

#[test]
fn what_a_successor_deleted_is_no_damage() {
    let mut c = running(every(100));
    complete(&mut c, 1, 100);
    let actions = restoring(&mut c);
    let actions = answer(&mut c, actions, StoreDone::Absent, 10_000);
    assert_eq!(answer(&mut c, actions, StoreDone::Newest(2), 10_000), [Action::Deposed { newest: 2 }]);
}

/// A list of outputs without metadata, of this epoch; what becomes of a restore that finds it in epoch 2 with this base.
fn restore_beside_a_list_of(epoch: u64, base: Legal) -> Vec<Action> {
    let legal = if base.epoch == 1 { vec![base] } else { Vec::new() };
    let mut c = Coordinator::new(every(100), info(), 2, legal, vec!["/out".into()]);
    let actions = c.handle(Input::Restore { attempt: 7 }, 0);
    let actions = answer(&mut c, actions, StoreDone::Newest(2), 0);
    let scanned = |id, state, outputs| Scanned { id, quarantined: false, state, outputs };
    let present = scanned(base.id, ScannedState::Present { epoch: base.epoch }, true);
    let found = vec![present, scanned(9, ScannedState::Absent, true)];
    let actions = answer(&mut c, actions, StoreDone::Scanned(found), 0);
    let mut metadata = complete(&mut running(every(100)), 1, 100);
    (metadata.id, metadata.epoch) = (base.id, base.epoch);
    let actions = answer(&mut c, actions, StoreDone::Metadata(metadata), 0);
    assert!(matches!(body(&actions), StoreOp::ReadOutputs { id: 9, .. }), "{actions:?}");
    let pending = "/out/_pending/x/f".to_owned();
    let files = vec![Committable { pending, target: "/out/f".into(), len: 1, hash: 1 }];
    let outputs = Outputs { job: JOB, epoch, id: 9, files };
    let actions = answer(&mut c, actions, StoreDone::Outputs(outputs), 0);
    if matches!(&actions[..], [Action::Deposed { .. }]) {
        return actions;
    }
    assert!(matches!(body(&actions), StoreOp::Sink(SinkOp::ListPending { .. })), "{actions:?}");
    answer(&mut c, actions, StoreDone::Sink(SinkDone::Listed(Vec::new())), 0)
}

#[test]
fn only_what_can_have_been_visible_is_taken_back() {
    let takes_back = |actions: Vec<Action>| matches!(body(&actions), StoreOp::Sink(SinkOp::Probe { .. }));
    let (earlier, own) = (Legal { id: 4, epoch: 1 }, Legal { id: 5, epoch: 2 });
    assert!(takes_back(restore_beside_a_list_of(1, earlier)), "its metadata may have been lost since");
    assert!(takes_back(restore_beside_a_list_of(2, own)), "the same");
    assert!(
        !takes_back(restore_beside_a_list_of(1, own)),
        "an old leader began to publish, and nobody listens"
    );
    assert_eq!(
        restore_beside_a_list_of(3, own),
        [Action::Deposed { newest: 3 }],
        "a successor is publishing"
    );
}

#[test]
fn a_store_that_fails_is_not_a_damaged_checkpoint() {
    let mut c = running(every(100));
    complete(&mut c, 1, 100);
    complete(&mut c, 2, 1_000);
    let mut actions = restoring(&mut c);
    let mut now_ms = 10_000;
    for _ in 1..limits::STORE_TRIES_MAX {
        assert_eq!(answer(&mut c, actions, StoreDone::Failed("EIO".into()), now_ms), []);
        now_ms = c.deadline().unwrap();
        actions = c.handle(Input::Tick, now_ms);
        assert!(matches!(body(&actions), StoreOp::Verify { id: 2, .. }));
    }
    let actions = answer(&mut c, actions, StoreDone::Failed("EIO".into()), now_ms);
    assert!(
        matches!(&actions[..], [Action::RestoreFailed { permanent: false, reason, .. }] if reason.contains("EIO"))
    );
}

#[test]
fn when_nothing_is_usable_the_job_does_not_start_over() {
    let mut c = running(every(100));
    complete(&mut c, 1, 100);
    complete(&mut c, 2, 1_000);
    let mut actions = restoring(&mut c);
    for _ in 0..2 {
        actions = answer(&mut c, actions, StoreDone::Damaged("cut".into()), 10_000);
        actions = still_leads(&mut c, actions);
        actions = answer(&mut c, actions, StoreDone::Done, 10_000);
    }
    let actions = still_leads(&mut c, actions);
    assert!(
        matches!(&actions[..], [Action::RestoreFailed { permanent: true, reason, .. }]
            if reason.contains("1: cut") && reason.contains("2: cut")),
        "{actions:?}"
    );
}

#[test]
fn the_end_commits_what_an_earlier_leader_published() {
    let legal = vec![Legal { id: 4, epoch: 1 }];
    let new = || Coordinator::new(every(100), info(), 2, legal.clone(), vec!["/out".into()]);
    let pending = "/out/_pending/e1-a3/f".to_owned();
    let file = Committable { pending, target: "/out/f".into(), len: 1, hash: 1 };
    let outputs = Outputs { job: JOB, epoch: 1, id: 4, files: vec![file] };
    // A newer leader exists: nothing is touched.
    let mut c = new();
    let actions = c.handle(Input::End { attempt: 4 }, 0);
    assert_eq!(answer(&mut c, actions, StoreDone::Newest(3), 0), [Action::Deposed { newest: 3 }]);
    // The list cannot be read: nothing is removed, and people are told where it is.
    let mut c = new();
    let actions = c.handle(Input::End { attempt: 4 }, 0);
    let actions = answer(&mut c, actions, StoreDone::Newest(2), 0);
    let actions = answer(&mut c, actions, StoreDone::Damaged("it was cut".into()), 0);
    let [Action::Ended { leftover: Some(text) }] = &actions[..] else { panic!("{actions:?}") };
    assert!(text.contains("it was cut") && text.contains("/out/_pending"), "{text}");
    // All is well.
    let mut c = new();
    let actions = c.handle(Input::End { attempt: 4 }, 0);
    let actions = answer(&mut c, actions, StoreDone::Newest(2), 0);
    assert!(matches!(body(&actions), StoreOp::ReadOutputs { id: 4, .. }), "{actions:?}");
    let actions = answer(&mut c, actions, StoreDone::Outputs(outputs), 0);
    let listed = StoreDone::Sink(SinkDone::Listed(Vec::new()));
    let actions = answer(&mut c, actions, listed.clone(), 0);
    assert!(matches!(body(&actions), StoreOp::Sink(SinkOp::Rename { .. })), "{actions:?}");
    let renamed = StoreDone::Sink(SinkDone::Renamed(vec![tidegate_checkpoint::sink::Moved::Done]));
    let actions = answer(&mut c, actions, renamed, 0);
    let actions = answer(&mut c, actions, listed, 0);
    let actions = answer(&mut c, actions, StoreDone::Sink(SinkDone::Done), 0);
    assert_eq!(actions, [Action::Ended { leftover: None }]);
}

#[test]
fn an_output_that_nobody_may_write_to_is_permanent_and_keeps_its_files() {
    let mut c = running(every(100));
    let roots = vec!["/out".to_owned()];
    let mut actions = c.handle(Input::Outputs { attempt: 1, roots }, 0);
    let fault = StoreFault::io("/out/_pending", &std::io::ErrorKind::PermissionDenied.into());
    assert!(fault.permanent && !StoreFault::io("/out", &std::io::ErrorKind::StorageFull.into()).permanent);
    let fail = |c: &mut Coordinator, mut actions: Vec<Action>| loop {
        actions = answer(c, actions, StoreDone::Failed(fault.clone()), c.deadline().unwrap_or(0));
        if !actions.is_empty() {
            return actions;
        }
        let at = c.deadline().unwrap();
        actions = c.handle(Input::Tick, at);
    };
    actions = fail(&mut c, actions);
    assert!(
        matches!(&actions[..], [Action::FailAttempt { attempt: 1, reason, permanent: true }]
            if reason.contains("/out/_pending")),
        "{actions:?}"
    );
    c.handle(Input::Stop, 20_000);
    let actions = c.handle(Input::End { attempt: 1 }, 20_000);
    let actions = fail(&mut c, actions);
    assert!(
        matches!(&actions[..], [Action::Ended { leftover: Some(text) }] if text.contains("/out/_pending")),
        "{actions:?}"
    );
    // So is a restore.
    let actions = c.handle(Input::Restore { attempt: 2 }, 30_000);
    let actions = fail(&mut c, actions);
    assert!(matches!(&actions[..], [Action::RestoreFailed { permanent: true, .. }]), "{actions:?}");
}

#[test]
fn checkpoints_that_vanished_are_refused_by_name_and_nothing_starts_over() {
    // One that the record of the epoch lists.
    let legal = vec![Legal { id: 2, epoch: 1 }];
    let mut c = Coordinator::new(every(100), info(), 1, legal, Vec::new());
    let actions = c.handle(Input::Restore { attempt: 2 }, 0);
    let actions = answer(&mut c, actions, StoreDone::Newest(1), 0);
    let actions = answer(&mut c, actions, StoreDone::Scanned(Vec::new()), 0);
    let actions = still_leads(&mut c, actions);
    let actions = answer(&mut c, actions, StoreDone::Done, 0);
    let actions = still_leads(&mut c, actions);
    assert!(
        matches!(&actions[..], [Action::RestoreFailed { permanent: true, reason, .. }]
            if reason.contains("2: its directory was removed")),
        "{actions:?}"
    );
    // Some that only the counts of the job tell of.
    let mut c = coordinator(every(100));
    c.resume_stats(Stats { completed: 3, total: 3, ..Stats::default() });
    let actions = c.handle(Input::Restore { attempt: 2 }, 0);
    let actions = answer(&mut c, actions, StoreDone::Newest(1), 0);
    let actions = answer(&mut c, actions, StoreDone::Scanned(Vec::new()), 0);
    let actions = still_leads(&mut c, actions);
    assert!(
        matches!(&actions[..], [Action::RestoreFailed { permanent: true, reason, .. }]
            if reason.contains("none is in the store")),
        "{actions:?}"
    );
}

#[test]
fn objects_of_checkpoints_that_never_were_are_deleted_after_a_restore() {
    let mut c = running(every(100));
    let one = complete(&mut c, 1, 100);
    c.handle(Input::Stop, 10_000);
    let actions = c.handle(Input::Restore { attempt: 2 }, 10_000);
    let actions = answer(&mut c, actions, StoreDone::Newest(1), 10_000);
    let entry = |id, state| Scanned { id, quarantined: false, state, outputs: false };
    let mut found = vec![entry(1, ScannedState::Present { epoch: 1 })];
    found.extend((2..100).map(|id| entry(id, ScannedState::Absent)));
    found.push(entry(100, ScannedState::Void));
    // It may have made files visible.
    found.push(Scanned { outputs: true, ..entry(101, ScannedState::Absent) });
    let actions = answer(&mut c, actions, StoreDone::Scanned(found), 10_000);
    let actions = answer(&mut c, actions, StoreDone::Metadata(one), 10_000);
    let none = Outputs { job: JOB, epoch: 1, id: 101, files: Vec::new() };
    let actions = answer(&mut c, actions, StoreDone::Outputs(none), 10_000);
    assert!(matches!(actions[0], Action::Restored { .. }), "{actions:?}");
    let StoreOp::Discard { ids, .. } = body(&actions) else { panic!("{actions:?}") };
    assert_eq!(ids.len(), limits::DISCARD_MAX);
    assert_eq!(ids[..2], [100, 99], "the newest first");
    assert_eq!(answer(&mut c, actions, StoreDone::Done, 10_000), []);
}

#[test]
fn when_a_job_is_over_its_checkpoints_go() {
    let mut c = running(every(100));
    complete(&mut c, 1, 100);
    let actions = c.handle(Input::Forget, 200);
    assert_eq!(*body(&actions), StoreOp::NewestEpoch);
    let actions = answer(&mut c, actions, StoreDone::Newest(1), 200);
    assert_eq!(*body(&actions), StoreOp::Retain { job: JOB, below: u64::MAX });
    assert_eq!(answer(&mut c, actions, StoreDone::Done, 200), []);
}

#[test]
fn who_cannot_ask_whether_it_leads_leaves_old_checkpoints_and_says_so() {
    let mut c = running(every(100));
    complete(&mut c, 1, 100);
    let actions = c.handle(Input::Forget, 200);
    let actions = answer(&mut c, actions, StoreDone::Failed("unreadable".into()), 200);
    assert_eq!(actions, [Action::Report("old checkpoints stay: unreadable".into())]);
    assert_eq!(c.handle(Input::Tick, 1_000_000), [], "and does not ask for ever");
}

/// Seed 135 of its commit: it had been told to cancel the job while its successor restored it.
#[test]
fn a_leader_that_was_replaced_deletes_no_checkpoint() {
    let mut c = running(every(100));
    complete(&mut c, 1, 100);
    let actions = c.handle(Input::Forget, 200);
    assert_eq!(answer(&mut c, actions, StoreDone::Newest(2), 200), [Action::Deposed { newest: 2 }]);
}

#[test]
fn a_cancel_does_not_lose_the_output_of_a_completed_checkpoint() {
    let mut c = running(every(100));
    c.handle(Input::Tick, 100);
    ack(&mut c, 1, 1, SOURCE, 100);
    let mut sink = part(COUNT, false);
    let file = Committable {
        pending: "/out/_pending/00000000000000000000000000000009-e1-a1/f".into(),
        target: "/out/f".into(),
        len: 1,
        hash: 1,
    };
    sink.operators.push(OperatorPart {
        operator: 1,
        inline: Vec::new(),
        object: None,
        groups: Vec::new(),
        committables: vec![file],
        schema: 0,
    });
    let actions = c.handle(Input::Acknowledge { epoch: 1, attempt: 1, checkpoint: 1, part: sink }, 100);
    assert!(matches!(body(&actions), StoreOp::PutMetadata { outputs: true, .. }));
    let actions = answer(&mut c, actions, StoreDone::Created, 100);
    let rename = answer(&mut c, actions, StoreDone::Newest(1), 100);
    assert!(matches!(body(&rename), StoreOp::Sink(SinkOp::Rename { .. })));
    // The job is cancelled while the rename is under way, and the rename fails the first time.
    c.handle(Input::Stop, 101);
    assert_eq!(c.handle(Input::End { attempt: 1 }, 101), []);
    assert_eq!(answer(&mut c, rename, StoreDone::Failed("EIO".into()), 102), []);
    let rename = c.handle(Input::Tick, 1_000);
    assert!(matches!(body(&rename), StoreOp::Sink(SinkOp::Rename { .. })), "{rename:?}");
    let renamed = StoreDone::Sink(SinkDone::Renamed(vec![tidegate_checkpoint::sink::Moved::Done]));
    let retain = answer(&mut c, rename, renamed, 1_000);
    assert!(matches!(body(&retain), StoreOp::Retain { .. }), "{retain:?}");
    let actions = answer(&mut c, retain, StoreDone::Done, 1_000);
    let actions = answer(&mut c, actions, StoreDone::Newest(1), 1_000);
    assert!(matches!(body(&actions), StoreOp::Sink(SinkOp::ListPending { .. })), "{actions:?}");
}

/// Opens an epoch over what `answer` says; gives the end and the number of operations.
fn open(mut answer: impl FnMut(StoreOp) -> StoreDone) -> (OpeningStep, u32) {
    let mut opening = Opening::new(vec![JOB]);
    for ops in 0..1_000 {
        match opening.step() {
            OpeningStep::Op(op) => opening.handle(answer(op)),
            OpeningStep::Wait(_) => {}
            end => return (end, ops),
        }
    }
    panic!("it goes on for ever")
}

#[test]
fn a_claim_that_can_never_be_written_is_given_up_with_the_reason() {
    let (end, _) = open(|op| match op {
        StoreOp::ReadEpochs => StoreDone::Epochs { claims: Vec::new(), settled: None },
        StoreOp::Scan { .. } => StoreDone::Scanned(Vec::new()),
        StoreOp::ClaimEpoch(_) => StoreDone::Failed("epochs/1: Operation not permitted".into()),
        op => panic!("{op:?}"),
    });
    let OpeningStep::Failed(error @ OpeningError::Store { .. }) = end else { panic!("{end:?}") };
    let text = error.to_string();
    assert!(text.contains("epochs/1: Operation not permitted") && text.contains("hard links"), "{text}");
}

#[test]
fn what_counted_and_vanished_still_counts_and_what_made_room_does_not() {
    let legal_after = |found: Vec<Scanned>| {
        let listed = (1..=3).map(|id| Legal { id, epoch: 1 }).collect();
        let record = EpochRecord { epoch: 1, jobs: vec![JobRecord { job: JOB, legal: listed }] };
        let mut claims = vec![1];
        let (end, _) = open(|op| match op {
            StoreOp::ReadEpochs => {
                StoreDone::Epochs { claims: claims.clone(), settled: Some(Ok(record.clone())) }
            }
            StoreOp::Scan { .. } => StoreDone::Scanned(found.clone()),
            StoreOp::ClaimEpoch(record) => {
                claims.push(record.epoch);
                StoreDone::Created
            }
            StoreOp::SettleEpoch(_) => StoreDone::Created,
            StoreOp::NewestEpoch => StoreDone::Newest(2),
            op => panic!("{op:?}"),
        });
        let OpeningStep::Opened(leadership) = end else { panic!("{end:?}") };
        leadership.legal[&JOB].iter().map(|legal| legal.id).collect::<Vec<_>>()
    };
    let entry = |id, quarantined, state| Scanned { id, quarantined, state, outputs: false };
    let there = |id| entry(id, false, ScannedState::Present { epoch: 1 });
    assert_eq!(legal_after(vec![there(1), there(2), there(3), there(4)]), [1, 2, 3, 4]);
    assert_eq!(legal_after(vec![there(4), there(5)]), [4, 5], "older ones were deleted");
    assert_eq!(legal_after(Vec::new()), [1, 2, 3], "all are gone");
    assert_eq!(legal_after(vec![there(1)]), [1, 2, 3], "newer ones are gone");
    assert_eq!(legal_after(vec![there(2), entry(3, true, ScannedState::Absent)]), [2], "set aside");
    let damaged = entry(3, false, ScannedState::Damaged("it was cut".into()));
    assert_eq!(legal_after(vec![there(2), damaged]), [2, 3]);
}

/// Whatever is under way when the end is asked for, the end follows it: nothing else would wake the coordinator.
#[test]
fn an_end_during_the_first_restore_is_not_forgotten() {
    for answers in 0..2 {
        let mut c = coordinator(every(100));
        let mut actions = c.handle(Input::Restore { attempt: 1 }, 0);
        let says = [StoreDone::Newest(1), StoreDone::Scanned(Vec::new())];
        for done in &says[..answers] {
            actions = answer(&mut c, actions, done.clone(), 0);
        }
        assert_eq!(c.handle(Input::End { attempt: 1 }, 0), [], "an operation is in flight");
        let actions = answer(&mut c, actions, says[answers].clone(), 0);
        let ended = actions.iter().any(|action| matches!(action, Action::Ended { .. }));
        assert!(ended || actions.iter().any(|action| op_of(action).is_some()), "{answers}: {actions:?}");
    }
}

/// Without the record of what counts, everything would begin anew over output that is committed already.
#[test]
fn a_missing_settled_record_is_refused_by_name() {
    let found = |epoch| {
        vec![Scanned { id: 3, state: ScannedState::Present { epoch }, quarantined: false, outputs: false }]
    };
    let (end, _) = open(|op| match op {
        StoreOp::ReadEpochs => StoreDone::Epochs { claims: vec![1], settled: None },
        StoreOp::Scan { .. } => StoreDone::Scanned(found(1)),
        op => panic!("nothing is claimed: {op:?}"),
    });
    let OpeningStep::Failed(error @ OpeningError::Damaged { .. }) = end else { panic!("{end:?}") };
    assert!(error.to_string().contains("epochs/1.settled is missing"), "{error}");
    // Seen once, it may be a leader that settled between two looks.
    let mut looks = 0;
    let (end, _) = open(|op| match op {
        StoreOp::ReadEpochs => {
            looks += 1;
            let settled = (looks > 1).then(|| Ok(EpochRecord { epoch: 1, jobs: Vec::new() }));
            StoreDone::Epochs { claims: vec![1, 2][..looks.min(2)].to_vec(), settled }
        }
        StoreOp::Scan { .. } => StoreDone::Scanned(found(1)),
        StoreOp::ClaimEpoch(_) | StoreOp::SettleEpoch(_) => StoreDone::Created,
        StoreOp::NewestEpoch => StoreDone::Newest(3),
        op => panic!("{op:?}"),
    });
    assert!(matches!(end, OpeningStep::Opened(_)), "{end:?}");
}
