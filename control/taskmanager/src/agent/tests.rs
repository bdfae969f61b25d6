//! The agent by its inputs and actions alone.

use std::collections::BTreeMap;

use tidegate_rpc::{
    ClusterId, DriverReport, Envelope, Fault, FaultKind, JobId, Prepare, Refusal, Registered, SlotMemory,
    SlotPlan, TaskId, TaskPlan, ToJobManager, ToTaskManager,
};
use tidegate_stream::error::Fault as TaskFault;
use tidegate_stream::slot::{Failure, FailureKind, TaskState};

use super::*;
use crate::limits::CANCEL_MAX;
use tidegate_rpc::HeldSlot;

const JOB: JobId = JobId(77);
const ATTEMPT: AttemptId = AttemptId { job: 77, attempt: 3 };

fn agent(slots: u32) -> Agent {
    Agent::new(Identity {
        taskmanager: 9,
        slots,
        data_address: "127.0.0.1:4000".parse().expect("an address"),
        host: "host".into(),
        pid: 1,
        binary_fingerprint: 5,
        segment_size: 32768,
        segments_per_slot: 64,
        record_max: 0,
        links_per_slot: 32,
        memory: tidegate_rpc::MemoryPlan::default(),
        driver: DriverReport::default(),
        cancel_max: CANCEL_MAX,
    })
}

fn actions(agent: &mut Agent) -> Vec<Action> {
    std::iter::from_fn(|| agent.poll_action()).collect()
}

/// What is sent to the JobManager.
fn sent(actions: Vec<Action>) -> Vec<ToJobManager> {
    let bodies = actions.into_iter().filter_map(|action| match action {
        Action::Send(envelope) => Some(envelope.body),
        _ => None,
    });
    bodies.collect()
}

fn commands(actions: &[Action]) -> Vec<(u32, String)> {
    let commands = actions.iter().filter_map(|action| match action {
        Action::Command(slot, command) => {
            Some((*slot, format!("{command:?}").split([' ', '(', '{']).next()?.to_owned()))
        }
        _ => None,
    });
    commands.collect()
}

fn tell(agent: &mut Agent, now_ms: u64, epoch: u64, body: ToTaskManager) -> Vec<Action> {
    agent.handle(now_ms, Input::Message(Box::new(Envelope::new(epoch, body))));
    actions(agent)
}

fn registered(epoch: u64) -> ToTaskManager {
    ToTaskManager::Registered(Registered {
        epoch,
        cluster: ClusterId(1),
        heartbeat_interval_ms: 500,
        heartbeat_timeout_ms: 2000,
        store: "/store".into(),
    })
}

/// An agent that has registered with a leader of `epoch`.
fn member(slots: u32, epoch: u64) -> Agent {
    let mut agent = agent(slots);
    actions(&mut agent);
    agent.handle(0, Input::Connected);
    actions(&mut agent);
    let actions = tell(&mut agent, 0, epoch, registered(epoch));
    assert!(actions.iter().any(|action| matches!(action, Action::Join(ClusterId(1)))), "{actions:?}");
    agent
}

fn graph() -> JobGraph {
    JobGraph { name: "job".into(), max_parallelism: 128, vertices: Vec::new(), edges: Vec::new() }
}

fn prepare(slots: &[u32], restored: Option<u64>) -> ToTaskManager {
    let task = TaskPlan {
        id: TaskId { vertex: 0, subtask: 0 },
        task: 0,
        gate: None,
        partitions: Vec::new(),
        restore: Vec::new(),
        finished: false,
    };
    let slot = |slot: &u32| SlotPlan {
        slot: *slot,
        tasks: vec![task.clone()],
        peers: BTreeMap::new(),
        memory: SlotMemory::default(),
    };
    ToTaskManager::Prepare(Box::new(Prepare {
        job: JOB,
        job_name: "job".into(),
        args: Vec::new(),
        parallelism: 1,
        graph_fingerprint: graph().fingerprint(),
        attempt: ATTEMPT.attempt,
        restored,
        first_checkpoint: 1,
        checkpoints: "jobs/4d/checkpoints".into(),
        record_max: 0,
        slots: slots.iter().map(slot).collect(),
    }))
}

fn looked_up(agent: &mut Agent, slot: u32, result: Result<Fetched, Fault>) -> Vec<Action> {
    agent.handle(1, Input::Fetched { slot, attempt: ATTEMPT, result });
    actions(agent)
}

fn found() -> Result<Fetched, Fault> {
    Ok(Fetched { graph: graph(), outputs: vec!["/out".into()], restores: vec![None] })
}

/// A member whose slot 0 runs the attempt.
fn running(slots: u32) -> Agent {
    let mut agent = member(slots, 4);
    tell(&mut agent, 1, 4, prepare(&[0], None));
    let actions = looked_up(&mut agent, 0, found());
    assert_eq!(commands(&actions), [(0, "Prepare".to_owned())]);
    agent
}

fn say(agent: &mut Agent, now_ms: u64, event: SlotEvent) -> Vec<ToJobManager> {
    agent.handle(now_ms, Input::Slot(0, event));
    sent(actions(agent))
}

#[test]
fn the_first_message_registers_and_carries_what_was_seen() {
    let mut agent = member(2, 4);
    agent.handle(10, Input::Disconnected("gone".into()));
    actions(&mut agent);
    agent.handle(20, Input::Connected);
    let messages = sent(actions(&mut agent));
    let [ToJobManager::Register(register)] = messages.as_slice() else { panic!("{messages:?}") };
    assert_eq!((register.incarnation, register.epoch_seen, register.cluster), (2, 4, ClusterId(1)));
    assert!(register.held.is_empty());
}

#[test]
fn a_plan_goes_to_the_slot_once_it_is_looked_up() {
    let mut agent = member(2, 4);
    let told = tell(&mut agent, 1, 4, prepare(&[1], Some(8)));
    assert!(commands(&told).is_empty(), "the slot hears nothing before its state was checked");
    assert!(told.iter().any(|action| matches!(action, Action::Enter { attempt: ATTEMPT, .. })));
    assert!(told.iter().any(|action| matches!(action, Action::Fetch { slot: 1, attempt: ATTEMPT, .. })));
    assert_eq!(commands(&looked_up(&mut agent, 1, found())), [(1, "Prepare".to_owned())]);
    agent.handle(2, Input::Slot(1, SlotEvent::Prepared { attempt: ATTEMPT, result: Ok(()) }));
    let messages = sent(actions(&mut agent));
    let [ToJobManager::Prepared { slot: 1, outputs, refusal: None, .. }] = messages.as_slice() else {
        panic!("{messages:?}")
    };
    assert_eq!(outputs, &["/out"]);
    let start = ToTaskManager::Start { job: JOB, attempt: ATTEMPT.attempt };
    assert_eq!(commands(&tell(&mut agent, 3, 4, start)), [(1, "Start".to_owned())]);
}

#[test]
fn what_is_wrong_with_the_state_or_the_graph_is_told_and_the_slot_stays_free() {
    let mut agent = member(1, 4);
    let damaged = Fault { kind: FaultKind::State, cause: "chk-3 is damaged".into() };
    let other = Fetched {
        graph: JobGraph { name: "other".into(), ..graph() },
        outputs: Vec::new(),
        restores: vec![None],
    };
    for (result, kind) in [(Err(damaged), FaultKind::State), (Ok(other), FaultKind::Permanent)] {
        tell(&mut agent, 1, 4, prepare(&[0], Some(3)));
        let actions = looked_up(&mut agent, 0, result);
        assert!(actions.iter().any(|action| matches!(action, Action::Leave(ATTEMPT))));
        let messages = sent(actions);
        let [ToJobManager::Prepared { refusal: Some(fault), .. }, ToJobManager::Closed { .. }] =
            messages.as_slice()
        else {
            panic!("{messages:?}")
        };
        assert_eq!(fault.kind, kind, "{fault}");
    }
}

#[test]
fn a_slot_that_is_taken_or_missing_is_refused_by_name() {
    let mut agent = running(1);
    for (slot, kind, says) in
        [(0, FaultKind::Resources, "still belongs to"), (7, FaultKind::Permanent, "does not exist")]
    {
        let messages = sent(tell(&mut agent, 2, 4, prepare(&[slot], None)));
        let Some(ToJobManager::Prepared { refusal: Some(fault), .. }) = messages.first() else {
            panic!("{messages:?}")
        };
        assert_eq!(fault.kind, kind);
        assert!(fault.cause.contains(says), "{fault}");
    }
}

#[test]
fn a_cancel_before_the_slot_knows_is_answered_at_once() {
    let mut agent = member(1, 4);
    tell(&mut agent, 1, 4, prepare(&[0], None));
    let cancel = ToTaskManager::Cancel { job: JOB, attempt: ATTEMPT.attempt };
    let actions = tell(&mut agent, 2, 4, cancel);
    assert!(commands(&actions).is_empty());
    assert!(matches!(sent(actions).as_slice(), [ToJobManager::Closed { slot: 0, .. }]));
    assert!(looked_up(&mut agent, 0, found()).is_empty(), "what was looked up comes too late");
}

#[test]
fn older_epochs_have_no_effect() {
    let mut agent = running(1);
    let cancel = || ToTaskManager::Cancel { job: JOB, attempt: ATTEMPT.attempt };
    assert!(tell(&mut agent, 2, 3, cancel()).is_empty());
    assert_eq!(commands(&tell(&mut agent, 2, 4, cancel())), [(0, "Cancel".to_owned())]);
}

#[test]
fn an_older_leader_is_not_joined() {
    let mut agent = member(1, 4);
    agent.handle(10, Input::Disconnected("gone".into()));
    agent.handle(20, Input::Connected);
    actions(&mut agent);
    let actions = tell(&mut agent, 21, 3, registered(3));
    assert!(matches!(actions.as_slice(), [Action::HangUp, Action::Dial { .. }]), "{actions:?}");
}

#[test]
fn losing_the_jobmanager_cancels_everything_and_the_slots_are_named_when_it_is_back() {
    let mut agent = running(2);
    agent.handle(10, Input::Disconnected("gone".into()));
    let lost = actions(&mut agent);
    assert_eq!(commands(&lost), [(0, "Cancel".to_owned())]);
    assert!(lost.iter().any(|action| matches!(action, Action::Heartbeats { interval_ms: 0 })));
    agent.handle(20, Input::Connected);
    let messages = sent(actions(&mut agent));
    let [ToJobManager::Register(register)] = messages.as_slice() else { panic!("{messages:?}") };
    assert_eq!(register.held, [HeldSlot { slot: 0, job: JOB, attempt: ATTEMPT.attempt }]);
    tell(&mut agent, 21, 5, registered(5));
    let messages = say(&mut agent, 22, SlotEvent::Closed { attempt: ATTEMPT, segments_free: 64 });
    assert!(matches!(messages.as_slice(), [ToJobManager::Closed { slot: 0, segments_free: 64, .. }]));
}

/// It was named as held, so the JobManager waits for its end.
#[test]
fn a_slot_that_closes_while_its_taskmanager_registers_is_told_of_afterwards() {
    let mut agent = running(2);
    agent.handle(10, Input::Disconnected("gone".into()));
    agent.handle(20, Input::Connected);
    actions(&mut agent);
    assert!(say(&mut agent, 21, SlotEvent::Closed { attempt: ATTEMPT, segments_free: 60 }).is_empty());
    let messages = sent(tell(&mut agent, 22, 5, registered(5)));
    assert!(
        matches!(messages.as_slice(), [ToJobManager::Closed { slot: 0, segments_free: 60, .. }]),
        "{messages:?}"
    );
}

#[test]
fn dialling_backs_off_up_to_a_cap_and_starts_anew_after_success() {
    let mut agent = agent(1);
    actions(&mut agent);
    let mut waits = Vec::new();
    for _ in 0..8 {
        agent.handle(0, Input::Disconnected("nobody".into()));
        waits.extend(actions(&mut agent).into_iter().filter_map(|action| match action {
            Action::Dial { after_ms } => Some(after_ms),
            _ => None,
        }));
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
    agent.handle(0, Input::Connected);
    tell(&mut agent, 0, 1, registered(1));
    agent.handle(0, Input::Disconnected("gone".into()));
    assert!(actions(&mut agent).iter().any(|action| matches!(action, Action::Dial { after_ms: 100 })));
}

#[test]
fn a_jobmanager_that_does_not_answer_the_registration_is_given_up() {
    let mut agent = agent(1);
    agent.handle(0, Input::Connected);
    actions(&mut agent);
    agent.handle(5_001, Input::Tick);
    assert!(matches!(actions(&mut agent).as_slice(), [Action::HangUp, Action::Dial { .. }]));
}

#[test]
fn a_slot_that_does_not_answer_a_cancel_ends_the_process_by_name() {
    let mut agent = running(1);
    tell(&mut agent, 1_000, 4, ToTaskManager::Cancel { job: JOB, attempt: ATTEMPT.attempt });
    let limit = CANCEL_MAX.as_millis() as u64;
    agent.handle(1_000 + limit, Input::Tick);
    assert!(actions(&mut agent).is_empty());
    agent.handle(1_001 + limit, Input::Tick);
    let actions = actions(&mut agent);
    let [Action::End(end)] = actions.as_slice() else { panic!("{actions:?}") };
    let words = format!("slot 0 has not answered the cancel of job {JOB} attempt 3 within 30s: it hangs");
    assert!(end.to_string().starts_with(&words), "{end}");
}

#[test]
fn a_deployment_that_the_slot_refuses_is_told_and_its_slot_free_when_closed() {
    let mut agent = running(1);
    let refusal = Failure { kind: FailureKind::Resources, cause: "too few segments".into() };
    let messages = say(&mut agent, 2, SlotEvent::Prepared { attempt: ATTEMPT, result: Err(refusal) });
    let [ToJobManager::Prepared { refusal: Some(fault), .. }] = messages.as_slice() else {
        panic!("{messages:?}")
    };
    assert_eq!(fault, &Fault { kind: FaultKind::Resources, cause: "too few segments".into() });
    let taken = sent(tell(&mut agent, 3, 4, prepare(&[0], None)));
    assert!(
        matches!(taken.first(), Some(ToJobManager::Prepared { refusal: Some(_), .. })),
        "not yet free: {taken:?}"
    );
    say(&mut agent, 4, SlotEvent::Closed { attempt: ATTEMPT, segments_free: 64 });
    let actions = tell(&mut agent, 5, 4, prepare(&[0], None));
    assert!(actions.iter().any(|action| matches!(action, Action::Fetch { .. })));
}

/// What keeps a slot from being prepared is told apart as in a running one: only what it lacks is a matter of resources.
#[test]
fn a_refusal_says_whether_trying_again_can_help() {
    for (kind, expected) in [
        (FailureKind::Resources, FaultKind::Resources),
        (FailureKind::Link, FaultKind::Link),
        (FailureKind::Task(TaskFault::User), FaultKind::Task),
        (FailureKind::Task(TaskFault::Setup), FaultKind::Permanent),
        (FailureKind::Task(TaskFault::State), FaultKind::State),
    ] {
        let mut agent = running(1);
        let refusal = Failure { kind, cause: "x".into() };
        let messages = say(&mut agent, 2, SlotEvent::Prepared { attempt: ATTEMPT, result: Err(refusal) });
        let [ToJobManager::Prepared { refusal: Some(fault), .. }] = messages.as_slice() else {
            panic!("{messages:?}")
        };
        assert_eq!(fault.kind, expected, "{kind:?}");
    }
}

#[test]
fn failures_say_whether_trying_again_can_help() {
    let mut agent = running(1);
    let permanent =
        "cannot create /x: Not a directory; a part of this path is a file: name another directory";
    for (kind, cause, expected) in [
        (FailureKind::Link, "reset", FaultKind::Link),
        (FailureKind::Task(TaskFault::User), "oops", FaultKind::Task),
        (FailureKind::Task(TaskFault::Panic), "oops", FaultKind::Task),
        (FailureKind::Task(TaskFault::Data), "line 3", FaultKind::Permanent),
        (FailureKind::Task(TaskFault::Input), "no such file", FaultKind::Permanent),
        (FailureKind::Task(TaskFault::Source), "too many open files", FaultKind::Task),
        (FailureKind::Task(TaskFault::TooLarge), "16 MiB", FaultKind::Permanent),
        (FailureKind::Task(TaskFault::Setup), "a rate of 0", FaultKind::Permanent),
        (FailureKind::Task(TaskFault::Output), "too large", FaultKind::Permanent),
        (FailureKind::Task(TaskFault::Sink), "disk full", FaultKind::Task),
        (FailureKind::Task(TaskFault::Sink), permanent, FaultKind::Permanent),
        (FailureKind::Task(TaskFault::State), "damaged", FaultKind::State),
    ] {
        let messages =
            say(&mut agent, 2, SlotEvent::Failed { attempt: ATTEMPT, task: None, cause: cause.into(), kind });
        let [ToJobManager::Failed { fault, .. }] = messages.as_slice() else { panic!("{messages:?}") };
        assert_eq!(fault.kind, expected, "{kind:?} {cause}");
    }
}

#[test]
fn leaving_says_goodbye_cancels_and_ends_when_the_slots_are_empty() {
    let mut agent = running(2);
    agent.handle(5, Input::Stop("SIGTERM".into()));
    let leaving = actions(&mut agent);
    assert_eq!(commands(&leaving), [(0, "Cancel".to_owned())]);
    assert!(!leaving.iter().any(|action| matches!(action, Action::End(_))));
    assert!(matches!(sent(leaving).as_slice(), [ToJobManager::Goodbye { .. }]));
    agent.handle(6, Input::Slot(0, SlotEvent::Closed { attempt: ATTEMPT, segments_free: 64 }));
    assert!(actions(&mut agent).iter().any(|action| matches!(action, Action::End(End::Drained))));
}

#[test]
fn some_refusals_pass_and_some_do_not() {
    for (refusal, ends) in [
        (Refusal::Binary { expected: 1, found: 2 }, true),
        (Refusal::SegmentSize { expected: 1, found: 2 }, true),
        (Refusal::Draining, false),
        (Refusal::Protocol("too many connections".into()), false),
        (Refusal::StaleEpoch { expected: 1, found: 2 }, false),
    ] {
        let mut agent = agent(1);
        agent.handle(0, Input::Connected);
        actions(&mut agent);
        let actions = tell(&mut agent, 1, 0, ToTaskManager::Refused(refusal.clone()));
        let ended = actions.iter().any(|action| matches!(action, Action::End(End::Refused(_))));
        let dials = actions.iter().any(|action| matches!(action, Action::Dial { .. }));
        assert_eq!((ended, dials), (ends, !ends), "{refusal}");
    }
}

#[test]
fn what_a_task_says_goes_on_to_the_jobmanager() {
    let mut agent = running(1);
    let task = tidegate_stream::slot::TaskId { vertex: 2, subtask: 1 };
    let wire = TaskId { vertex: 2, subtask: 1 };
    let messages =
        say(&mut agent, 2, SlotEvent::TaskState { attempt: ATTEMPT, task, state: TaskState::Running });
    let state = tidegate_rpc::TaskState::Running;
    let (job, attempt) = (JOB, ATTEMPT.attempt);
    assert_eq!(messages, [ToJobManager::TaskState { job, attempt, task: wire, state }]);
    let messages = say(&mut agent, 3, SlotEvent::EndOfData { attempt: ATTEMPT, task });
    assert_eq!(messages, [ToJobManager::EndOfData { job, attempt, task: wire }]);
    let declined = SlotEvent::Decline { attempt: ATTEMPT, task, checkpoint: 5, reason: "busy".into() };
    let messages = say(&mut agent, 4, declined);
    let reason = "busy".to_owned();
    assert_eq!(messages, [ToJobManager::Decline { job, attempt, task: wire, checkpoint: 5, reason }]);
}
