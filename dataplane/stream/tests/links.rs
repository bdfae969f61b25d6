//! The same jobs with real threads, real rings and real connections: two TaskManagers of two slots each, over loopback.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize, Shard};
use tidegate_exchange::{Endpoint, Exchange, ExchangeConfig, LocalHub, SlotId};
use tidegate_ring::{UringConfig, UringRing};
use tidegate_stream::pool::ReaderPool;
use tidegate_stream::slot::{Events, SlotCommand, SlotConfig, SlotEvent, SlotMailbox, SlotRunner};
use tidegate_stream::testing::{ManagedJob, Manager, MemoryFiles, Store, collect, items};
use tidegate_stream::{
    AggregateFunction, Args, Job, JobResult, Jobs, MapFunction, RuntimeContext, TaskError,
};

const CLUSTER: u128 = 7;
const SLOTS: u32 = 2;

#[derive(Clone)]
struct Sum;

impl AggregateFunction<u64, u64> for Sum {
    type State = u64;
    type Out = (u64, u64);
    fn create(&mut self, _key: &u64) -> u64 {
        0
    }
    fn add(&mut self, sum: &mut u64, item: &u64) {
        *sum += item;
    }
    fn result(&mut self, key: &u64, sum: u64) -> Result<(u64, u64), TaskError> {
        Ok((*key, sum))
    }
}

const ITEMS: u64 = 300_000;

fn job(job: &mut Job, _args: &Args) -> JobResult {
    let fork = job.source("n", items(0..ITEMS)).fork();
    fork.branch().key_by(|n| n % 1_009).aggregate("sum", Sum).sink("sums", collect("sums"));
    fork.branch()
        .filter("few", |n| n % 100 == 0)
        .map("text", |n| n.to_string())
        .rebalance()
        .owned()
        .sink("text", collect("text"));
    Ok(())
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
    jobs: &Jobs,
    store: &Store,
    events: &SyncSender<(SlotId, SlotEvent)>,
    feeds: &Arc<Mutex<Vec<Feed>>>,
) -> TaskManager {
    let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into(), Default::default()).expect("loopback");
    let (arena, shards) = Arena::map(&ArenaConfig {
        segment_size: SegmentSize::new(4096).expect("a legal size"),
        shards: vec![256; SLOTS as usize],
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
) -> Exchange<UringRing> {
    let ring = UringRing::new(shard.arena(), shard.index(), &UringConfig::default()).expect("io_uring");
    Exchange::new(ring, shard, hub, connector, ExchangeConfig { me, cluster: CLUSTER })
}

/// The cluster and its JobManager.
struct Cluster {
    manager: Manager,
    taskmanagers: Vec<TaskManager>,
    events: Receiver<(SlotId, SlotEvent)>,
    feeds: Arc<Mutex<Vec<Feed>>>,
    prepared: Arc<Count>,
}

/// How many slots have answered a deployment.
#[derive(Default)]
struct Count(Mutex<usize>, Condvar);

impl Cluster {
    fn new(parallelism: u32) -> Self {
        Self::of(Jobs::new([("job", job)]), parallelism, Arc::default())
    }

    fn of(jobs: Jobs, parallelism: u32, prepared: Arc<Count>) -> Self {
        let (sender, events) = sync_channel(4096);
        let (store, feeds) = (Store::default(), Arc::default());
        let taskmanagers: Vec<_> = [1, 2].map(|id| taskmanager(id, &jobs, &store, &sender, &feeds)).into();
        let slots =
            taskmanagers.iter().flat_map(|tm| (0..SLOTS).map(|slot| SlotId { taskmanager: tm.id, slot }));
        let peers: BTreeMap<_, _> = taskmanagers.iter().map(|tm| (tm.id, tm.endpoint.address())).collect();
        let job = ManagedJob {
            memory: tidegate_stream::memory::SlotMemory::default(),
            jobs,
            name: "job".into(),
            args: Vec::new(),
            parallelism,
            slots: slots.collect(),
            peers,
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
    fn run_until(&mut self, done: impl Fn(&Manager) -> bool) {
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

    fn checkpoint(&mut self) {
        self.manager.trigger(false);
        self.run_until(|manager| !manager.checkpointing());
    }

    fn restart(&mut self) {
        self.manager.cancel();
        self.run_until(Manager::closed);
        self.manager.discard_pending();
        self.deploy();
    }

    fn finish(mut self) -> Manager {
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

fn check(manager: &Manager) {
    let mut sums = manager.collected::<(u64, u64)>("sums");
    sums.sort_unstable();
    let expected: Vec<_> = (0..1_009).map(|key| (key, (key..ITEMS).step_by(1_009).sum())).collect();
    assert_eq!(sums, expected);
    let mut text: Vec<u64> =
        manager.collected::<String>("text").iter().map(|text| text.parse().unwrap()).collect();
    text.sort_unstable();
    assert_eq!(text, (0..ITEMS).step_by(100).collect::<Vec<_>>());
}

#[test]
fn a_job_runs_across_taskmanagers() {
    let cluster = Cluster::new(4);
    check(&cluster.finish());
}

#[test]
fn a_job_is_restored_across_taskmanagers() {
    let mut cluster = Cluster::new(4);
    cluster.checkpoint();
    cluster.checkpoint();
    cluster.restart();
    cluster.checkpoint();
    cluster.restart();
    check(&cluster.finish());
}

/// A function that takes its time to open in the first slot, until all other slots are prepared.
#[derive(Clone)]
struct Slow {
    prepared: Arc<Count>,
    /// The last one has no more patience.
    last: bool,
}

impl MapFunction<u64> for Slow {
    type Out = u64;
    fn open(&mut self, context: &RuntimeContext) -> Result<(), TaskError> {
        if context.subtask != 0 {
            return Ok(());
        }
        let others = 2 * SLOTS as usize - 1;
        let Count(count, changed) = &*self.prepared;
        let waiting = |prepared: &mut usize| *prepared < others;
        let (prepared, _) =
            changed.wait_timeout_while(count.lock().unwrap(), Duration::from_millis(200), waiting).unwrap();
        if self.last && *prepared < others {
            return Err(format!("{} of {others} other slots are prepared", *prepared).into());
        }
        Ok(())
    }
    fn map(&mut self, item: &u64) -> Result<u64, TaskError> {
        Ok(*item)
    }
}

/// While the tasks of a slot are opened one by one, the handshakes of other slots are answered.
#[test]
fn a_slot_that_opens_slowly_keeps_taking_connections() {
    const PIPELINES: usize = 10;
    let prepared = Arc::<Count>::default();
    let count = Arc::clone(&prepared);
    let job = move |job: &mut Job, _: &Args| {
        for number in 0..PIPELINES {
            let slow = Slow { prepared: Arc::clone(&count), last: number + 1 == PIPELINES };
            job.source(&format!("n-{number}"), items(0..100u64))
                .map_with("slow", slow)
                .rebalance()
                .owned()
                .sink("out", collect(&format!("out-{number}")));
        }
        Ok(())
    };
    let manager = Cluster::of(Jobs::new([("job", job)]), 4, prepared).finish();
    for number in 0..PIPELINES {
        assert_eq!(manager.collected::<u64>(&format!("out-{number}")).len(), 100);
    }
}
