//! A whole TaskManager against a JobManager that is a few lines of this test.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tidegate_memory::plan::{TaskManagerPlan, keys};
use tidegate_rpc::server::{Incoming, serve};
use tidegate_rpc::{ClusterId, Envelope, Refusal, Register, Registered, ToJobManager, ToTaskManager};
use tidegate_stream::Jobs;
use tidegate_taskmanager::agent::End;
use tidegate_taskmanager::files::FilesDriver;
use tidegate_taskmanager::limits::{CANCEL_MAX, CONNECTIONS_MIN, TICK};
use tidegate_taskmanager::{
    Driver, Ended, Registration, RunningTaskManager, StartError, TaskManager, TaskManagerConfig,
};
use tokio::sync::mpsc;

const EPOCH: u64 = 3;
/// Longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A JobManager's end of the protocol, played by the test.
struct Script {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
    accepted: mpsc::Receiver<Incoming>,
}

impl Script {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (accept, accepted) = mpsc::channel(4);
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("loopback");
        let address = listener.local_addr().expect("bound");
        runtime.spawn(serve(listener, accept, std::future::pending()));
        Self { runtime, address, accepted }
    }

    /// Runs `body` with the next connection and what it registered with.
    fn with_next<R>(&mut self, body: impl AsyncFnOnce(&mut Incoming, Register) -> R) -> R {
        let accepted = &mut self.accepted;
        let play = async {
            let mut incoming = accepted.recv().await.expect("the server runs");
            let first = incoming.from.message().await.expect("a message").expect("not the end");
            let ToJobManager::Register(register) = first.body else { panic!("{first:?}") };
            assert_eq!(first.epoch, 0, "which epoch it joins, the answer says");
            body(&mut incoming, *register).await
        };
        self.runtime.block_on(async { tokio::time::timeout(SOON, play).await.expect("in time") })
    }
}

async fn tell(incoming: &Incoming, body: ToTaskManager) {
    incoming.to.send(Envelope::new(EPOCH, body)).await.expect("it listens");
}

async fn welcome(incoming: &Incoming) {
    let welcome = Registered {
        epoch: EPOCH,
        cluster: ClusterId(8),
        heartbeat_interval_ms: 20,
        heartbeat_timeout_ms: 2000,
        store: "/nowhere".into(),
    };
    tell(incoming, ToTaskManager::Registered(welcome)).await;
}

/// Sixteen segments for each of two slots.
fn plan(slots: &'static str) -> TaskManagerPlan {
    let values = [
        (keys::TM_PROCESS, "256m"),
        (keys::TM_SLOTS, slots),
        (keys::TM_NETWORK_MIN, "1m"),
        (keys::TM_NETWORK_MAX, "1m"),
    ];
    TaskManagerPlan::native(&values).expect("it holds")
}

fn config(jobmanager: SocketAddr) -> TaskManagerConfig {
    TaskManagerConfig {
        plan: plan("2"),
        ..TaskManagerConfig::new(jobmanager.to_string(), Jobs::default(), 42)
    }
}

/// On io_uring, or on epoll where that is forbidden.
fn start(config: TaskManagerConfig) -> RunningTaskManager {
    TaskManager::start(config).expect("it starts")
}

#[test]
fn it_registers_sends_heartbeats_and_says_goodbye() {
    let mut script = Script::start();
    let running = start(config(script.address));
    let register = script.with_next(async |incoming, register| {
        welcome(incoming).await;
        let heartbeat = loop {
            let message = incoming.from.message().await.expect("a message").expect("not the end");
            assert_eq!(message.epoch, EPOCH);
            if let ToJobManager::Heartbeat(heartbeat) = message.body {
                break heartbeat;
            }
        };
        assert_eq!(
            heartbeat.slots.iter().map(|slot| (slot.slot, slot.segments_free)).collect::<Vec<_>>(),
            [(0, 16), (1, 16)]
        );
        running.stop("the test is over");
        loop {
            match incoming.from.message().await.expect("it ends in order").map(|message| message.body) {
                Some(ToJobManager::Goodbye { reason }) => assert_eq!(reason, "the test is over"),
                Some(_) => {}
                None => return register,
            }
        }
    });
    assert_eq!((register.slots, register.segments_per_slot, register.binary_fingerprint), (2, 16, 42));
    assert!((CONNECTIONS_MIN..=32).contains(&register.links_per_slot), "as planned, or what may be locked");
    assert_eq!((register.taskmanager, register.data_address), (running.id, running.data_address));
    drop(script); // Its end of the stream, too.
    assert_eq!(running.wait(), Ended::Agent(End::Drained));
}

#[test]
fn it_comes_back_when_the_jobmanager_does() {
    let mut script = Script::start();
    let running = start(config(script.address));
    let first = script.with_next(async |incoming, register| {
        welcome(incoming).await;
        register
    });
    let second = script.with_next(async |_, register| register);
    assert_eq!((first.incarnation, second.incarnation), (1, 2));
    assert_eq!((first.epoch_seen, first.cluster), (0, ClusterId(0)));
    assert_eq!(
        (second.epoch_seen, second.cluster, second.taskmanager),
        (EPOCH, ClusterId(8), first.taskmanager)
    );
    running.stop("the test is over");
    assert_eq!(running.wait(), Ended::Agent(End::Drained));
}

#[test]
fn a_refusal_for_good_ends_it() {
    let mut script = Script::start();
    let running = start(config(script.address));
    let refusal = Refusal::Binary { expected: 1, found: 42 };
    script.with_next(async |incoming, _| {
        tell(incoming, ToTaskManager::Refused(refusal.clone())).await;
        // Until it has hung up.
        while let Ok(Some(_)) = incoming.from.message().await {}
    });
    assert_eq!(running.wait(), Ended::Agent(End::Refused(refusal)));
}

#[test]
fn without_a_jobmanager_it_keeps_looking_and_leaves_when_told() {
    let nobody =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("loopback");
    for files in [FilesDriver::Auto, FilesDriver::Blocking] {
        let running = start(TaskManagerConfig { files, ..config(nobody) });
        assert!(!running.has_ended());
        running.stop("SIGTERM");
        assert_eq!(running.wait(), Ended::Agent(End::Drained));
    }
}

#[test]
fn what_cannot_be_had_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let taken = taken.local_addr().expect("bound");
    let error = TaskManager::start(TaskManagerConfig { data: taken, ..config(taken) }).expect_err("in use");
    assert!(
        matches!(error, StartError::Endpoint(_)) && error.to_string().contains(&taken.to_string()),
        "{error}"
    );
    for slots in [0, 65] {
        let mut config = config(taken);
        config.plan.shape.slots = slots;
        let error = TaskManager::start(config).expect_err("out of range");
        let expected = format!("plan: slots: 1 to 64 allowed, found {slots}");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
    for cancel_max in [TICK, CANCEL_MAX + TICK] {
        let error =
            TaskManager::start(TaskManagerConfig { cancel_max, ..config(taken) }).expect_err("out of range");
        assert!(
            error.to_string().ends_with(&format!("at most 30s to answer, found {cancel_max:?}")),
            "{error}"
        );
    }
}

#[test]
fn it_runs_unregistered_when_told_so() {
    let mut script = Script::start();
    let running = start(TaskManagerConfig { registration: Registration::Never, ..config(script.address) });
    let register = script.with_next(async |_, register| register);
    assert!(register.driver.rung.starts_with("unregistered"), "{:?}", register.driver);
    drop(script);
    running.stop("the test is over");
    running.wait();
}

#[test]
fn it_runs_on_epoll_when_told_so_and_says_it() {
    let mut script = Script::start();
    let running = start(TaskManagerConfig { driver: Driver::Epoll, ..config(script.address) });
    assert_eq!(running.driver, "epoll");
    assert!(running.network.starts_with("epoll ["), "{}", running.network);
    let register = script.with_next(async |_, register| register);
    assert!(register.driver.driver.starts_with("epoll ["), "{:?}", register.driver);
    assert_eq!(register.driver.send_mode, "plain");
    drop(script);
    running.stop("the test is over");
    running.wait();

    let nobody = TaskManagerConfig {
        driver: Driver::Epoll,
        registration: Registration::Required,
        ..config(([127, 0, 0, 1], 1).into())
    };
    let refusal = TaskManager::start(nobody).expect_err("epoll registers nothing");
    assert!(matches!(refusal, StartError::Unregistrable), "{refusal}");
}
