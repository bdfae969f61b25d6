//! One TaskManager process: the real agent, slots and files core, and the shell around them, without threads.
//!
//! It owns what dies with the process. Always: a slot is stepped only if something would have woken it; operations of
//! different files end in any order, those of one file in the order in which they were asked for.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize};
use tidegate_checkpoint::local::FileSystem as _;
use tidegate_exchange::sim::SimSwitch;
use tidegate_exchange::{Exchange, ExchangeConfig, LocalHub, SlotId};
use tidegate_ring::sim::{Random, SimNet, SimRing, SimWatch};
use tidegate_rpc::{DriverReport, Fault, FaultKind, MemoryPlan, Prepare, SlotPlan};
use tidegate_stream::Jobs;
use tidegate_stream::limits::EVENTS_WAITING_MAX;
use tidegate_stream::pool::ReaderPool;
use tidegate_stream::slot::{SlotCommand, SlotConfig, SlotEvent, SlotMailbox, SlotRunner, Spin};
use tidegate_taskmanager::agent::{Agent, Fetched, Identity};
use tidegate_taskmanager::fetch_from;
use tidegate_taskmanager::files::{
    Chunk, Deliver, Directories, Done, FileKey, Folders, Loan, Operation, Roots, SimFilesThread, parent_of,
};
use tidegate_taskmanager::plan::plan;

use crate::cluster::{BINARY, CLUSTER, Shape};
use crate::disk::{Disk, Node};
use crate::objects::Objects;

/// Bytes of a segment: small, so that records of every size are cheap.
pub const SEGMENT_BYTES: u32 = 4096;
/// The largest record: five segments, so that some of the workload travel in slices.
pub const RECORD_BYTES: u32 = 5 * SEGMENT_BYTES;
/// Links of a slot, and bytes of memory: more than anybody here wants.
const LINKS: u32 = 1024;
const PLENTY: u64 = 1 << 40;
/// Who dies in the middle of a file operation makes fewer calls than this before.
const CALLS_MAX: u64 = 8;
/// How long partly filled segments are held back where they are: longer than most round trips.
const FLUSH_MS: u64 = 5;

/// Where a host listens for data.
pub fn address(host: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host as u8], 1))
}

pub struct Slot {
    runner: SlotRunner<SimRing>,
    pub mailbox: SlotMailbox,
    events: Receiver<SlotEvent>,
    watch: SimWatch,
    /// Its last turn did something, so it does not sleep.
    pub busy: bool,
}

impl Slot {
    /// The next time it waits for.
    pub fn timer_ns(&self) -> Option<u64> {
        [self.runner.next_timer_ns(), self.runner.exchange().next_timer_ns()].into_iter().flatten().min()
    }

    /// What each of its tasks waits for.
    pub fn wait_graph(&self) -> String {
        self.runner.wait_graph()
    }

    /// A turn, if it is awake; says whether it was.
    pub fn step(&mut self, now_ns: u64) -> bool {
        let due = self.timer_ns().is_some_and(|at| at <= now_ns);
        if !self.watch.awake() && !self.busy && !due {
            return false;
        }
        self.busy = self.runner.turn();
        if !self.busy {
            self.runner.wait();
        }
        true
    }

    /// What it has to tell.
    pub fn events(&self) -> Vec<SlotEvent> {
        self.events.try_iter().collect()
    }
}

/// A file that is not safe yet.
struct Open {
    path: String,
    node: Node,
}

/// The disk as the files thread uses it.
pub struct OnDisk<'a>(pub &'a Disk);

impl Folders for OnDisk<'_> {
    fn exists(&self, directory: &Path) -> bool {
        self.0.len(directory).is_ok()
    }

    fn create(&self, directory: &Path) -> io::Result<()> {
        self.0.create_dir(directory)
    }

    fn sync(&self, directory: &Path) -> io::Result<()> {
        self.0.sync(directory)
    }
}

/// A TaskManager process.
pub struct Host {
    pub agent: Agent,
    pub slots: Vec<Slot>,
    pub roots: Roots,
    arena: Arena,
    files: SimFilesThread,
    directories: Directories,
    open: BTreeMap<FileKey, Open>,
    operations: Vec<Operation<Loan>>,
    /// The stream to a JobManager, and the number of the last dial.
    pub link: Option<u64>,
    pub dials: u64,
    /// Number of the last wish for heartbeats.
    pub beats: u64,
    pub beat_ns: u64,
    born_ns: u64,
    /// How far its clock has jumped.
    pub jumped_ns: u64,
}

/// What a process is born with.
pub struct Birth<'a> {
    pub host: u64,
    pub taskmanager: u64,
    pub shape: Shape,
    pub net: &'a SimNet,
    pub switch: &'a SimSwitch,
    pub jobs: &'a Jobs,
    pub pool: &'a ReaderPool,
}

impl Host {
    /// A process that has just started.
    ///
    /// # Errors
    /// No memory.
    pub fn boot(birth: &Birth<'_>) -> Result<Self, String> {
        let Birth { host, taskmanager, shape, net, switch, jobs, pool } = *birth;
        let Shape { slots, segments, quantum, zero_copy, .. } = shape;
        let config = ArenaConfig {
            segment_size: SegmentSize::new(SEGMENT_BYTES).map_err(|error| error.to_string())?,
            shards: vec![segments; slots as usize],
            huge_pages: HugePages::Never,
        };
        let (arena, shards) = Arena::map(&config).map_err(|error| error.to_string())?;
        let hub = LocalHub::new();
        switch.listen(host, address(host));
        let roots = Roots::default();
        let ports: Vec<Arc<OnceLock<SlotMailbox>>> = shards.iter().map(|_| Arc::default()).collect();
        let tell = ports.iter().map(|port| -> Deliver {
            let port = Arc::clone(port);
            Arc::new(move |event| {
                let slot = port.get().expect("invariant: only a slot that exists opens files");
                slot.send(SlotCommand::FileEvent(event)).expect("invariant: a slot takes in its commands");
            })
        });
        let (files, sides) = SimFilesThread::new(&roots, tell.collect());
        let mut made = Vec::new();
        for (((slot, shard), files), port) in (0..).zip(shards).zip(sides).zip(ports) {
            let me = SlotId { taskmanager, slot };
            let ring = SimRing::new(net.clone(), arena.clone(), zero_copy);
            let watch = ring.watch();
            let config = ExchangeConfig { me, cluster: CLUSTER.0 };
            let mut exchange = Exchange::new(ring, shard, hub.clone(), switch.connector(host), config);
            // Half of the clusters hold partly filled segments back.
            exchange.set_flush(Duration::from_millis(if quantum >= 9 { FLUSH_MS } else { 0 }));
            switch.register(host, me, exchange.mailbox());
            let (sender, events) = sync_channel(EVENTS_WAITING_MAX);
            let config = SlotConfig { quantum_records: quantum, spin: Spin::For(0), ..SlotConfig::default() };
            let (jobs, pool) = (jobs.clone(), pool.clone());
            let (runner, mailbox) =
                SlotRunner::new(exchange, Box::new(files), jobs, pool, Box::new(sender), config);
            assert!(port.set(mailbox.clone()).is_ok(), "a slot is opened once");
            made.push(Slot { runner, mailbox, events, watch, busy: true });
        }
        let identity = Identity {
            taskmanager,
            slots,
            data_address: address(host),
            host: format!("host-{host}"),
            pid: 1,
            binary_fingerprint: BINARY,
            segment_size: SEGMENT_BYTES,
            segments_per_slot: segments,
            record_max: RECORD_BYTES,
            cancel_max: tidegate_taskmanager::limits::CANCEL_MAX,
            links_per_slot: LINKS,
            memory: MemoryPlan {
                task_heap: PLENTY,
                managed: PLENTY,
                managed_weights: "STATE_BACKEND:1".to_owned(),
                ..MemoryPlan::default()
            },
            driver: DriverReport::default(),
        };
        Ok(Host {
            agent: Agent::new(identity),
            slots: made,
            roots,
            arena,
            files,
            directories: Directories::default(),
            open: BTreeMap::new(),
            operations: Vec::new(),
            link: None,
            dials: 0,
            beats: 0,
            beat_ns: 0,
            born_ns: net.now_ns(),
            jumped_ns: 0,
        })
    }

    /// Its own clock.
    pub fn now_ms(&self, now_ns: u64) -> u64 {
        (now_ns - self.born_ns + self.jumped_ns) / 1_000_000
    }

    /// Whether the files thread has something to do.
    pub fn files_busy(&mut self) -> bool {
        self.operations.extend(std::iter::from_fn(|| self.files.poll()));
        !self.operations.is_empty()
    }

    /// Carries out up to `count` file operations, of any files.
    pub fn step_files(&mut self, disk: &Disk, random: &mut Random, count: u64) {
        for _ in 0..count {
            if !self.files_busy() {
                return;
            }
            let which = random.below(self.operations.len() as u64) as usize;
            let operation = self.operations.swap_remove(which);
            let done = self.carry_out(disk, operation);
            self.files.done(done);
        }
    }

    fn carry_out(&mut self, disk: &Disk, operation: Operation<Loan>) -> Done<Loan> {
        let (key, result, buffer) = match operation {
            Operation::Open { key, path } => (key, self.create_new(disk, key, &path), None),
            Operation::Write { key, offset, buffer } => {
                let result = disk.append(self.node(key), offset, Chunk::filled(&buffer));
                (key, result, Some(buffer))
            }
            Operation::Sync { key } => (key, disk.sync_node(self.node(key)), None),
            Operation::Close { key } => (key, Ok(()), None),
            Operation::SyncDirectory { key, directory } => {
                self.open.remove(&key);
                (key, disk.sync(&directory), None)
            }
            Operation::Remove { key, path } => {
                let _ = disk.remove_file(&path);
                self.open.remove(&key);
                (key, Ok(()), None)
            }
        };
        Done { key, result, buffer }
    }

    fn node(&self, key: FileKey) -> Node {
        self.open.get(&key).expect("invariant: the core opens a file before it uses it").node
    }

    /// As the engines do it.
    fn create_new(&mut self, disk: &Disk, key: FileKey, path: &Path) -> io::Result<()> {
        let directory = parent_of(path);
        if !self.directories.know(directory) {
            self.directories.make(directory, &OnDisk(disk))?;
        }
        let node = match disk.create_new(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.directories.make(directory, &OnDisk(disk))?;
                disk.create_new(path)
            }
            made => made,
        }?;
        self.open.insert(key, Open { path: path.display().to_string(), node });
        Ok(())
    }

    /// The process ends in the middle of a file operation: some of its calls were made.
    pub fn die(&mut self, disk: &Disk, random: &mut Random) {
        if self.files_busy() {
            let calls = random.below(CALLS_MAX);
            disk.dying(calls, || self.step_files(disk, random, 1));
        }
    }

    /// The machine lost power: what was not safe is gone, cut or whole.
    pub fn tear(&self, disk: &Disk, random: &mut Random) {
        for Open { path, node } in self.open.values() {
            disk.tear(path, *node, random.next());
        }
    }

    /// Every segment is free, every file over.
    ///
    /// # Errors
    /// What is not.
    pub fn check_leaks(&mut self) -> Result<(), String> {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let metrics = slot.runner.metrics();
            let (free, all) = (metrics.segments_free, metrics.segments);
            if free != all {
                return Err(format!("slot {index}: {free} of {all} segments free"));
            }
        }
        let open = self.files.files_open();
        let totals = self.arena.ledger().totals();
        if open != 0 || totals.free() != self.arena.segments() {
            return Err(format!("{open} files open; the ledger says {totals:?}"));
        }
        Ok(())
    }
}

/// What the agent asks for before a slot hears of an attempt, as the shell does it: from the checkpoint store.
pub fn look_up(jobs: &Jobs, disk: &Disk, prepare: &Prepare, slot: &SlotPlan) -> Result<Fetched, Fault> {
    let planned = plan(jobs, &prepare.job_name, &prepare.args, prepare.parallelism)
        .map_err(|error| Fault { kind: FaultKind::Permanent, cause: error.to_string() })?;
    let restores = match prepare.restored {
        None => slot.tasks.iter().map(|_| None).collect(),
        Some(checkpoint) => {
            let store = Objects(disk.clone());
            ready(fetch_from(&store, checkpoint, slot))?
        }
    };
    Ok(Fetched { graph: planned.graph, outputs: planned.outputs, restores })
}

/// The result of work that waits for nothing.
pub fn ready<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("invariant: the simulated disk answers at once"),
    }
}
