//! A cluster in one process: TaskManagers with real threads, real rings and real connections, over loopback.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize, Shard};
use tidegate_exchange::{Endpoint, Exchange, ExchangeConfig, LocalHub, SlotId};
use tidegate_ring::{AnyRing, UringConfig, UringRing};
use tidegate_stream::Jobs;
use tidegate_stream::pool::ReaderPool;
use tidegate_stream::slot::{Events, SlotCommand, SlotConfig, SlotEvent, SlotMailbox, SlotRunner};
use tidegate_stream::testing::{ManagedJob, Manager, MemoryFiles, Store};

const CLUSTER: u128 = 7;

/// What the TaskManagers of a cluster are, both the same.
#[derive(Clone, Copy)]
pub struct Shape {
    pub slots: u32,
    /// Of each slot.
    pub segments: u32,
    pub segment_bytes: u32,
    pub record_max: u32,
}

impl Shape {
    /// Two slots of small segments.
    pub const SMALL: Self = Self { slots: 2, segments: 256, segment_bytes: 4096, record_max: 0 };
}

/// One TaskManager: its slots' threads, and one that plays the files thread for all of them.
struct TaskManager {
    id: u64,
    mailboxes: Vec<SlotMailbox>,
    threads: Vec<JoinHandle<()>>,
    arena: Arena,
    endpoint: Endpoint,
}

type Feed = (SlotMailbox, MemoryFiles);

/// A slot's end of the queue that all slots share.
struct Said {
    by: SlotId,
    events: SyncSender<(SlotId, SlotEvent)>,
}

impl Events for Said {
    fn send(&mut self, event: SlotEvent) -> Result<(), SlotEvent> {
        match self.events.try_send((self.by, event)) {
            Err(TrySendError::Full((_, event))) => Err(event),
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
        }
    }
}

fn taskmanager(
    id: u64,
    shape: Shape,
    jobs: &Jobs,
    store: &Store,
    events: &SyncSender<(SlotId, SlotEvent)>,
    feeds: &Arc<Mutex<Vec<Feed>>>,
) -> TaskManager {
    let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into(), Default::default()).expect("loopback");
    let (arena, shards) = Arena::map(&ArenaConfig {
        segment_size: SegmentSize::new(shape.segment_bytes).expect("a legal size"),
        shards: vec![shape.segments; shape.slots as usize],
        huge_pages: HugePages::Never,
    })
    .expect("a small arena");
    let hub = LocalHub::new();
    let mut manager = TaskManager { id, mailboxes: Vec::new(), threads: Vec::new(), arena, endpoint };
    for shard in shards {
        let slot = SlotId { taskmanager: id, slot: shard.index() as u32 };
        let (jobs, hub, events) = (jobs.clone(), hub.clone(), Said { by: slot, events: events.clone() });
        let connector = manager.endpoint.connector();
        let files = MemoryFiles::on(store.clone(), (id << 40) | u64::from(slot.slot) << 32, 16);
        let (ready, made) = channel();
        let slot_files = files.clone();
        manager.threads.push(std::thread::spawn(move || {
            let exchange = exchange(shard, slot, hub, connector);
            let door = exchange.mailbox();
            let pool = ReaderPool::new(0).expect("no threads");
            let config = SlotConfig::default();
            let (mut runner, mailbox) =
                SlotRunner::new(exchange, Box::new(slot_files), jobs, pool, Box::new(events), config);
            ready.send((mailbox, door)).expect("somebody waits");
            runner.run();
        }));
        let (mailbox, door) = made.recv().expect("the slot's thread lives");
        manager.endpoint.register(slot, door);
        feeds.lock().unwrap().push((mailbox.clone(), files));
        manager.mailboxes.push(mailbox);
    }
    manager
}

fn exchange(
    shard: Shard,
    me: SlotId,
    hub: LocalHub,
    connector: Box<dyn tidegate_exchange::endpoint::Connector>,
) -> Exchange<AnyRing> {
    let ring = UringRing::new(shard.arena(), shard.index(), &UringConfig::default()).expect("io_uring");
    Exchange::new(AnyRing::from(ring), shard, hub, connector, ExchangeConfig { me, cluster: CLUSTER })
}

/// The cluster and its JobManager.
pub struct Cluster {
    pub manager: Manager,
    taskmanagers: Vec<TaskManager>,
    events: Receiver<(SlotId, SlotEvent)>,
    feeds: Arc<Mutex<Vec<Feed>>>,
    prepared: Arc<Count>,
}

/// How many slots have answered a deployment.
#[derive(Default)]
pub struct Count(pub Mutex<usize>, pub Condvar);

impl Cluster {
    pub fn of(shape: Shape, jobs: Jobs, parallelism: u32, prepared: Arc<Count>) -> Self {
        Self::with_args(shape, jobs, &[], parallelism, prepared)
    }

    pub fn with_args(
        shape: Shape,
        jobs: Jobs,
        args: &[&str],
        parallelism: u32,
        prepared: Arc<Count>,
    ) -> Self {
        let (sender, events) = sync_channel(4096);
        let (store, feeds) = (Store::default(), Arc::default());
        let taskmanagers: Vec<_> =
            [1, 2].map(|id| taskmanager(id, shape, &jobs, &store, &sender, &feeds)).into();
        let slots = taskmanagers
            .iter()
            .flat_map(|tm| (0..shape.slots).map(|slot| SlotId { taskmanager: tm.id, slot }));
        let peers: BTreeMap<_, _> = taskmanagers.iter().map(|tm| (tm.id, tm.endpoint.address())).collect();
        let job = ManagedJob {
            memory: tidegate_stream::memory::SlotMemory::default(),
            jobs,
            name: "job".into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            parallelism,
            slots: slots.collect(),
            peers,
            record_max: shape.record_max,
        };
        let manager = Manager::new(job, store).expect("it can be built");
        let mut cluster = Cluster { manager, taskmanagers, events, feeds, prepared };
        cluster.deploy();
        cluster
    }

    fn deploy(&mut self) {
        let prepares = self.manager.next_attempt();
        let mailboxes = self.taskmanagers.iter().flat_map(|tm| &tm.mailboxes);
        mailboxes.zip(prepares).for_each(|(mailbox, prepare)| mailbox.send(prepare).expect("it listens"));
        self.run_until(Manager::prepared);
        self.manager.start();
    }

    fn tell(&mut self) {
        for command in self.manager.take_commands() {
            let mailboxes = self.taskmanagers.iter().flat_map(|tm| &tm.mailboxes);
            mailboxes.for_each(|mailbox| mailbox.send(command.clone()).expect("it listens"));
        }
    }

    /// Tells, listens, does what the files threads would do; until `done`.
    pub fn run_until(&mut self, done: impl Fn(&Manager) -> bool) {
        let mut silent = 0;
        while !done(&self.manager) {
            assert_eq!(self.manager.failure(), None);
            self.tell();
            let busy = self.pump();
            match self.events.recv_timeout(Duration::from_millis(1)) {
                Ok((slot, event)) => {
                    if matches!(event, SlotEvent::Prepared { result: Ok(()), .. }) {
                        *self.prepared.0.lock().unwrap() += 1;
                        self.prepared.1.notify_all();
                    }
                    self.manager.handle(slot, event);
                }
                Err(RecvTimeoutError::Timeout) => silent += u32::from(!busy),
                Err(RecvTimeoutError::Disconnected) => panic!("all slots have ended"),
            }
            assert!(silent < 60_000, "nothing was heard for a minute");
        }
        self.tell();
    }

    fn pump(&self) -> bool {
        let mut busy = false;
        for (mailbox, files) in self.feeds.lock().unwrap().iter() {
            for event in files.pump(usize::MAX) {
                busy = true;
                mailbox.send(SlotCommand::FileEvent(event)).expect("it listens");
            }
        }
        busy
    }

    pub fn checkpoint(&mut self) {
        self.manager.trigger(false);
        self.run_until(|manager| !manager.checkpointing());
    }

    pub fn restart(&mut self) {
        self.manager.cancel();
        self.run_until(Manager::closed);
        self.manager.discard_pending();
        self.deploy();
    }

    pub fn finish(mut self) -> Manager {
        self.run_until(Manager::ended);
        self.manager.trigger(true);
        self.run_until(|manager| manager.finished() && manager.closed());
        for tm in self.taskmanagers {
            tm.mailboxes.iter().for_each(|mailbox| mailbox.send(SlotCommand::Shutdown).expect("it listens"));
            tm.threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
            assert_eq!(tm.arena.ledger().totals().free(), tm.arena.segments(), "every segment is back");
        }
        self.manager
    }
}
