//! Slots on threads of this process, connected over loopback as if each were a TaskManager of its own.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod stranger;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize};
use tidegate_exchange::{
    AttemptPlan, ChannelPlan, Endpoint, Exchange, ExchangeConfig, GatePlan, LocalHub, PartitionPlan,
    Prepared, SlotId, TaskIds, TaskPorts,
};
use tidegate_ring::{AnyRing, EpollConfig, EpollRing, SendMode, ShmError, UringConfig, UringRing};
use tidegate_wire::{Hello, SlotAddress};

pub const JOB: u128 = 7;
pub const CLUSTER: u128 = 11;
/// No test takes this long unless something hangs.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub type Slot = Exchange<AnyRing>;

pub fn slot_id(taskmanager: u64) -> SlotId {
    SlotId { taskmanager, slot: 0 }
}

fn send_mode() -> SendMode {
    match std::env::var("TIDEGATE_TEST_SEND").as_deref() {
        Ok("fixed") => SendMode::Fixed,
        Ok("plain") => SendMode::Plain,
        Ok("zc") => SendMode::Zc,
        _ => SendMode::Auto,
    }
}

/// Which driver carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Uring(SendMode),
    Epoll,
}

/// What `TIDEGATE_TEST_DRIVER` and `TIDEGATE_TEST_SEND` ask for.
pub fn driver() -> Driver {
    match std::env::var("TIDEGATE_TEST_DRIVER").as_deref() {
        Ok("epoll") => Driver::Epoll,
        _ => Driver::Uring(send_mode()),
    }
}

impl Driver {
    /// The ring of the slot whose shard is `shard`.
    pub fn ring(self, arena: &Arena, shard: usize) -> AnyRing {
        match self {
            Self::Uring(send) => {
                UringRing::new(arena, shard, &UringConfig { send, ..UringConfig::default() })
                    .expect("io_uring")
                    .into()
            }
            Self::Epoll => EpollRing::new(arena, &EpollConfig::default()).expect("epoll").into(),
        }
    }
}

/// How two processes are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Shm,
}

pub const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Shm];

/// A process of one slot: its endpoint, and how to make its exchange on the thread that will run it.
pub struct Process {
    pub me: SlotId,
    pub endpoint: Endpoint,
    pub segments: u32,
    pub segment_size: u32,
    pub driver: Driver,
    pub transport: Transport,
    /// Who hears why a link does not go through shared memory; nobody expects that unless said.
    pub instead: Option<Mutex<Sender<String>>>,
    /// Slots that must all be registered before any of them dials.
    together: Option<Arc<Barrier>>,
}

/// Two processes whose slots wait for each other, each run on a thread of its own.
pub fn pair(segments: u32) -> (Process, Process) {
    pair_over(segments, Transport::Tcp)
}

/// The same, connected as said.
pub fn pair_over(segments: u32, transport: Transport) -> (Process, Process) {
    let (mut a, mut b) = (Process::new(1, segments), Process::new(2, segments));
    let together = Arc::new(Barrier::new(2));
    (a.transport, b.transport) = (transport, transport);
    (a.together, b.together) = (Some(together.clone()), Some(together));
    (a, b)
}

impl Process {
    pub fn new(taskmanager: u64, segments: u32) -> Self {
        let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into(), Default::default()).expect("loopback");
        Self {
            me: slot_id(taskmanager),
            endpoint,
            segments,
            segment_size: 32 << 10,
            driver: driver(),
            transport: Transport::Tcp,
            instead: None,
            together: None,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.endpoint.address()
    }

    pub fn slot(&self) -> Slot {
        let config = ArenaConfig {
            segment_size: SegmentSize::new(self.segment_size).expect("a power of two"),
            shards: vec![self.segments],
            huge_pages: HugePages::Never,
        };
        let (arena, mut shards) = match self.transport {
            Transport::Tcp => Arena::map(&config),
            Transport::Shm => Arena::map_shared(&config),
        }
        .expect("a small arena");
        if self.transport == Transport::Shm {
            let told = self.instead.as_ref().map(|told| told.lock().expect("nobody panics").clone());
            let told = Mutex::new(told);
            let instead = move |why: &ShmError| match &*told.lock().expect("nobody panics") {
                Some(told) => told.send(why.to_string()).expect("the test listens"),
                None => panic!("not through shared memory: {why}"),
            };
            self.endpoint.share(&arena, instead).expect("shared memory");
        }
        let ring = self.driver.ring(&arena, 0);
        let config = ExchangeConfig { me: self.me, cluster: CLUSTER };
        let slot = Exchange::new(ring, shards.remove(0), LocalHub::new(), self.endpoint.connector(), config);
        self.endpoint.register(self.me, slot.mailbox());
        if let Some(together) = &self.together {
            together.wait();
        }
        slot
    }
}

/// What the slot of TaskManager 2 says to the one of TaskManager 1 that has a producer for its channel 5.
pub fn hello() -> Hello {
    Hello {
        version: tidegate_wire::VERSION,
        cluster: CLUSTER,
        job: JOB,
        epoch: 1,
        attempt: 1,
        from: SlotAddress { tm: 2, slot: 0 },
        to: SlotAddress { tm: 1, slot: 0 },
        segment_size: 32 << 10,
        record_format: tidegate_wire::RECORD_FORMAT,
        channels: 1,
        channels_hash: tidegate_wire::channels_hash([(5, 42)]),
    }
}

pub fn channel(channel: u32, peer: SlotId) -> ChannelPlan {
    ChannelPlan { channel, peer, input: 0, schema: 42 }
}

pub fn producer(task: u32, broadcast: bool, channels: Vec<ChannelPlan>) -> TaskPorts {
    let name = format!("edge of {task}");
    TaskPorts { task, gate: None, partitions: vec![PartitionPlan { name, broadcast, channels }] }
}

pub fn consumer(task: u32, channels: Vec<ChannelPlan>) -> TaskPorts {
    TaskPorts { task, gate: Some(GatePlan { name: format!("gate of {task}"), channels }), partitions: vec![] }
}

pub fn plan(tasks: Vec<TaskPorts>, peers: &[(SlotId, SocketAddr)]) -> AttemptPlan {
    let peers: BTreeMap<_, _> = peers.iter().map(|(slot, address)| (slot.taskmanager, *address)).collect();
    AttemptPlan { job: JOB, epoch: 1, attempt: 1, record_max: 0, tasks, peers }
}

/// Turns the slot until `step` says it is done; `step` says whether it moved and whether it is done.
pub fn run(slot: &mut Slot, mut step: impl FnMut(&mut Slot) -> (bool, bool)) {
    let start = Instant::now();
    loop {
        let busy = slot.turn();
        let (moved, done) = step(slot);
        if done {
            return;
        }
        if let Some(fault) = slot.take_fault() {
            panic!("unexpected fault: {fault}");
        }
        if !busy && !moved {
            slot.wait(Some(Duration::from_secs(1)));
        }
        assert!(start.elapsed() < DEADLINE, "hangs: {:#?}", slot.ports.counters());
    }
}

pub fn prepare(slot: &mut Slot, plan: &AttemptPlan) -> Vec<TaskIds> {
    let ids = slot.prepare(plan).expect("the plan fits");
    run(slot, |slot| match slot.prepared(JOB, plan.attempt) {
        Prepared::Ready => (true, true),
        Prepared::Pending => (false, false),
        Prepared::Failed => panic!("{}", slot.take_fault().expect("a fault says why")),
    });
    ids
}

/// Ends gracefully and checks that every segment is back.
pub fn retire(slot: &mut Slot) {
    slot.retire(JOB, 1);
    run(slot, |slot| (false, slot.closed(JOB, 1)));
    assert_eq!(slot.ports.segments_free(), slot.ports.segments(), "every segment is free at the end");
}
