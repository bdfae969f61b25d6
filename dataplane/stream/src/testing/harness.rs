//! The harness: slots without sockets, stepped in turn by one thread, and a `Manager` over them.
//!
//! It owns the slots and the clock. Always: the clock only goes forward; nothing happens between two calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize, Shard};
use tidegate_exchange::endpoint::{Connector, DialRequest};
use tidegate_exchange::{Exchange, ExchangeConfig, LocalHub, SlotId};
use tidegate_record::Field;

use crate::args::Args;
use crate::job::{Job, JobResult};
use crate::jobs::{JobEntry, Jobs};
use crate::limits::EVENTS_WAITING_MAX;
use crate::memory::{MemoryUse, SlotMemory};
use crate::pool::ReaderPool;
use crate::slot::{SlotCommand, SlotConfig, SlotEvent, SlotMailbox, SlotMetrics, SlotRunner};
use crate::testing::files::{MemoryFiles, Store};
use crate::testing::manager::{ManagedJob, Manager};
use crate::testing::ring::QuietRing;

const JOB_NAME: &str = "test";
const TASKMANAGER: u64 = 1;
/// Turns after which a run that goes on and on is given up.
const TURNS_MAX: u64 = 10_000_000;
/// Turns in which nothing steps while segments still change hands between slots.
const IDLE_TURNS_MAX: u32 = 4;
/// Time that passes per turn.
const TURN_NS: u64 = 1_000;

/// How a job is to be run.
#[derive(Clone, Debug)]
pub struct Setup {
    jobs: Jobs,
    args: Vec<String>,
    parallelism: u32,
    slots: u32,
    segments: u32,
    segment_bytes: u32,
    record_max: u32,
    config: SlotConfig,
    buffers: usize,
    file_ops: usize,
    memory: SlotMemory,
}

impl Setup {
    /// Parallelism 1, one slot, small segments, plenty of file buffers.
    pub fn new(job: impl Fn(&mut Job, &Args) -> JobResult + Send + Sync + 'static) -> Self {
        Setup {
            jobs: Jobs::new([JobEntry::new(JOB_NAME, job)]),
            args: Vec::new(),
            parallelism: 1,
            slots: 1,
            segments: 512,
            segment_bytes: 4096,
            record_max: 0,
            config: SlotConfig::default(),
            buffers: 64,
            file_ops: usize::MAX,
            memory: SlotMemory::default(),
        }
    }

    /// The job's own arguments.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args = args.iter().map(|&arg| arg.to_owned()).collect();
        self
    }

    /// Default parallelism of the job.
    #[must_use]
    pub fn parallelism(mut self, subtasks: u32) -> Self {
        self.parallelism = subtasks;
        self
    }

    /// Number of slots; subtask i runs in slot i modulo this.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Segments per slot, and bytes of each (a power of two from 4096 on).
    #[must_use]
    pub fn segments(mut self, segments: u32, bytes: u32) -> Self {
        (self.segments, self.segment_bytes) = (segments, bytes);
        self
    }

    /// Bytes of the largest record; 0, as by default, if records have to fit a segment.
    #[must_use]
    pub fn record_max(mut self, bytes: u32) -> Self {
        self.record_max = bytes;
        self
    }

    /// Records per quantum: the smaller, the more places a barrier can fall.
    #[must_use]
    pub fn quantum(mut self, records: u32) -> Self {
        self.config.quantum_records = records;
        self
    }

    /// File buffers per slot, and file operations done per turn: few of them make snapshots wait.
    #[must_use]
    pub fn files(mut self, buffers: usize, ops_per_turn: usize) -> Self {
        (self.buffers, self.file_ops) = (buffers, ops_per_turn);
        self
    }

    /// Nanoseconds between two reports of what a slot counted.
    #[must_use]
    pub fn reports(mut self, interval_ns: u64) -> Self {
        self.config.metrics_interval_ns = interval_ns;
        self
    }

    /// What the tasks of each slot may hold.
    #[must_use]
    pub fn memory(mut self, memory: SlotMemory) -> Self {
        self.memory = memory;
        self
    }
}

struct NoConnector;

impl Connector for NoConnector {
    fn dial(&self, request: DialRequest) {
        unreachable!("all slots are in one process, nobody dials {}", request.address)
    }
}

struct Slot {
    runner: SlotRunner<QuietRing>,
    mailbox: SlotMailbox,
    events: Receiver<SlotEvent>,
    files: MemoryFiles,
}

/// A job under test.
pub struct Harness {
    setup: Setup,
    manager: Manager,
    slots: Vec<Slot>,
    arena: Arena,
    clock: Arc<AtomicU64>,
    pool: ReaderPool,
    live: bool,
}

impl Harness {
    /// Builds the job and starts its first attempt.
    ///
    /// # Errors
    /// Why it cannot be built or deployed.
    pub fn start(setup: Setup) -> Result<Self, String> {
        let store = Store::default();
        let job = ManagedJob {
            jobs: setup.jobs.clone(),
            name: JOB_NAME.to_owned(),
            args: setup.args.clone(),
            parallelism: setup.parallelism,
            slots: (0..setup.slots).map(|slot| SlotId { taskmanager: TASKMANAGER, slot }).collect(),
            peers: BTreeMap::new(),
            record_max: setup.record_max,
            memory: setup.memory,
        };
        let manager = Manager::new(job, store)?;
        let config = ArenaConfig {
            segment_size: SegmentSize::new(setup.segment_bytes).map_err(|error| error.to_string())?,
            shards: vec![setup.segments; setup.slots as usize],
            huge_pages: HugePages::Never,
        };
        let (arena, shards) = Arena::map(&config).map_err(|error| error.to_string())?;
        let pool = ReaderPool::new(0).map_err(|error| error.to_string())?;
        let clock = Arc::new(AtomicU64::new(1));
        let mut harness = Harness { setup, manager, slots: Vec::new(), arena, clock, pool, live: false };
        let hub = LocalHub::new();
        harness.slots = shards.into_iter().map(|shard| harness.make_slot(shard, &hub)).collect();
        harness.deploy()?;
        Ok(harness)
    }

    fn make_slot(&self, shard: Shard, hub: &LocalHub) -> Slot {
        let slot = shard.index() as u32;
        let ring = QuietRing::new(Arc::clone(&self.clock));
        let me = SlotId { taskmanager: TASKMANAGER, slot };
        let config = ExchangeConfig { me, cluster: 1 };
        let exchange = Exchange::new(ring, shard, hub.clone(), Box::new(NoConnector), config);
        let files = MemoryFiles::on(self.manager.store().clone(), u64::from(slot) << 32, self.setup.buffers);
        let (sender, events) = sync_channel(EVENTS_WAITING_MAX);
        let (runner, mailbox) = SlotRunner::new(
            exchange,
            Box::new(files.clone()),
            self.setup.jobs.clone(),
            self.pool.clone(),
            Box::new(sender),
            self.setup.config,
        );
        Slot { runner, mailbox, events, files }
    }

    // ---- attempts ----

    fn deploy(&mut self) -> Result<(), String> {
        let prepares = self.manager.next_attempt();
        for (slot, prepare) in self.slots.iter().zip(prepares) {
            send(&slot.mailbox, prepare);
        }
        self.live = true;
        self.run_until(Manager::prepared)?;
        self.manager.start();
        Ok(())
    }

    /// Ends the present attempt at once, as a failure would.
    ///
    /// # Errors
    /// If it does not close, or leaves segments, buffers or files behind.
    pub fn cancel(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.live) {
            self.manager.cancel();
            self.run_until(Manager::closed)?;
            self.manager.discard_pending();
        }
        self.check_leaks()
    }

    /// Cancels the present attempt and starts the next one from the last complete checkpoint.
    ///
    /// # Errors
    /// As `cancel` and `start`.
    pub fn restart(&mut self) -> Result<(), String> {
        self.cancel()?;
        self.deploy()
    }

    /// As `restart`, with another default parallelism.
    ///
    /// # Errors
    /// As `restart`.
    pub fn rescale(&mut self, parallelism: u32) -> Result<(), String> {
        self.cancel()?;
        self.manager.reconfigure(&self.setup.args, parallelism)?;
        self.deploy()
    }

    /// Changes what tasks may hold in attempts to come.
    pub fn limit(&mut self, memory: SlotMemory) {
        self.manager.limit(memory);
    }

    /// As `restart`, with other arguments of the job.
    ///
    /// # Errors
    /// As `restart`.
    pub fn restart_with(&mut self, args: &[&str]) -> Result<(), String> {
        self.cancel()?;
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        self.manager.reconfigure(&args, self.setup.parallelism)?;
        self.deploy()
    }

    fn check_leaks(&mut self) -> Result<(), String> {
        let mut leaks = Vec::new();
        for (number, slot) in self.slots.iter_mut().enumerate() {
            slot.files.pump(usize::MAX);
            let SlotMetrics { segments_free, segments, memory, .. } = slot.runner.metrics();
            if segments_free != segments {
                leaks.push(format!("slot {number}: {segments_free} of {segments} segments free"));
            }
            let (buffers, files) = (slot.files.on_loan(), slot.files.open_files());
            let MemoryUse { task_off_heap, state, operators, .. } = memory;
            if [task_off_heap, state, operators].iter().any(|part| part.used != 0) {
                leaks.push(format!("slot {number}: memory is still reserved: {memory:?}"));
            }
            if (buffers, files) != (0, 0) {
                leaks.push(format!("slot {number}: {buffers} buffers on loan, {files} files open"));
            }
        }
        if leaks.is_empty() { Ok(()) } else { Err(format!("left behind: {}", leaks.join("; "))) }
    }

    // ---- running ----

    /// Runs `turns` turns of every slot.
    pub fn step(&mut self, turns: u64) {
        for _ in 0..turns {
            self.turn();
        }
    }

    /// Runs until the job has ended: all input is read, the final checkpoint is complete, every task has finished.
    ///
    /// # Errors
    /// What failed, or the wait-for graph if nothing moves any more.
    pub fn finish(&mut self) -> Result<(), String> {
        self.run_until(|manager| manager.ended() && !manager.checkpointing())?;
        self.manager.trigger(true);
        self.run_until(|manager| manager.finished() && manager.closed())?;
        self.live = false;
        self.check_leaks()
    }

    /// Triggers a checkpoint and gives its number; it completes, or not, while turns go by.
    pub fn trigger(&mut self) -> u64 {
        self.manager.trigger(false)
    }

    /// Triggers a checkpoint in slot `slot` only, as if the others could not be told.
    pub fn trigger_only(&mut self, slot: usize) -> u64 {
        let checkpoint = self.manager.trigger(false);
        for command in self.manager.take_commands() {
            send(&self.slots[slot].mailbox, command);
        }
        checkpoint
    }

    /// Triggers a checkpoint and runs until it is complete.
    ///
    /// # Errors
    /// Why it is not, or what failed.
    pub fn checkpoint(&mut self) -> Result<u64, String> {
        let checkpoint = self.trigger();
        self.run_until(|manager| !manager.checkpointing())?;
        match self.manager.declined(checkpoint) {
            None => Ok(checkpoint),
            Some(reason) => Err(format!("checkpoint {checkpoint} was declined: {reason}")),
        }
    }

    /// Gives the pending checkpoint up.
    pub fn abort(&mut self) {
        self.manager.abort();
    }

    /// The JobManager: what is complete, what was collected, the graph, the disk.
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// What the sink `collect(name)` has committed: by subtask, in order.
    ///
    /// # Panics
    /// If it holds something else than `T`.
    pub fn collected<T: Field>(&self, name: &str) -> Vec<T> {
        self.manager.collected(name)
    }

    /// The arena all slots share.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// What slot `slot` counted.
    pub fn metrics(&mut self, slot: usize) -> SlotMetrics {
        self.slots[slot].runner.metrics()
    }

    /// Lets a slot's thread go to sleep, if it would. It wakes at once.
    pub fn wait(&mut self, slot: usize) {
        self.slots[slot].runner.wait();
    }

    /// Nanoseconds of the slots' clock.
    pub fn now_ns(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// From now on, files whose path contains `part` cannot be written; none: all can.
    pub fn break_files(&self, part: Option<&str>) {
        self.slots.iter().for_each(|slot| slot.files.break_paths(part));
    }

    fn run_until(&mut self, done: impl Fn(&Manager) -> bool) -> Result<(), String> {
        let mut idle = 0;
        for _ in 0..TURNS_MAX {
            if let Some(failure) = self.manager.failure() {
                return Err(failure.to_owned());
            }
            if done(&self.manager) {
                return Ok(());
            }
            idle = if self.turn() { 0 } else { idle + 1 };
            if idle > IDLE_TURNS_MAX && !self.skip_to_timer() {
                return Err(format!("deadlock: nothing moves any more\n{}", self.wait_graph()));
            }
        }
        Err(format!("no end after {TURNS_MAX} turns\n{}", self.wait_graph()))
    }

    fn turn(&mut self) -> bool {
        self.clock.fetch_add(TURN_NS, Ordering::Relaxed);
        let commands = self.manager.take_commands();
        let mut busy = self.pool.run_one() || !commands.is_empty();
        for command in commands {
            self.slots.iter().for_each(|slot| send(&slot.mailbox, command.clone()));
        }
        for (number, slot) in (0..).zip(&mut self.slots) {
            busy |= slot.files.busy();
            for event in slot.files.pump(self.setup.file_ops) {
                busy = true;
                send(&slot.mailbox, SlotCommand::FileEvent(event));
            }
            busy |= slot.runner.turn();
            for event in slot.events.try_iter() {
                busy = true;
                self.manager.handle(SlotId { taskmanager: TASKMANAGER, slot: number }, event);
            }
        }
        busy
    }

    fn skip_to_timer(&mut self) -> bool {
        let timers = self.slots.iter().filter_map(|slot| slot.runner.next_timer_ns());
        let now = self.clock.load(Ordering::Relaxed);
        let Some(at) = timers.filter(|&at| at > now).min() else { return false };
        self.clock.fetch_max(at, Ordering::Relaxed);
        true
    }

    fn wait_graph(&self) -> String {
        let graphs: Vec<String> = self.slots.iter().map(|slot| slot.runner.wait_graph()).collect();
        graphs.join("\n")
    }
}

fn send(mailbox: &SlotMailbox, command: SlotCommand) {
    mailbox.send(command).expect("invariant: a slot that is stepped takes in its commands");
}
