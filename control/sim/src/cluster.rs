//! A simulated cluster: hosts with slots of the real runtime, in a simulated network, stepped in turn by one thread.
//!
//! It owns hosts, network, clock and disk; a JobManager that does what it is told stands over them. Always: time moves only
//! here; every choice comes from the seed; a slot is stepped at most once a turn. If nothing can move any more while the job
//! has work, that is a deadlock (R7), and the wait-for graph is the report.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, sync_channel};

use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize};
use tidegate_exchange::sim::SimSwitch;
use tidegate_exchange::{Exchange, ExchangeConfig, LocalHub, SlotId};
use tidegate_ring::sim::{Random, SimNet, SimRing, SimWatch, Weather};
use tidegate_stream::limits::EVENTS_WAITING_MAX;
use tidegate_stream::pool::ReaderPool;
use tidegate_stream::slot::{SlotCommand, SlotConfig, SlotEvent, SlotMailbox, SlotRunner};
use tidegate_stream::testing::{ManagedJob, Manager, MemoryFiles, Store};
use tidegate_stream::{JobEntry, Jobs};

use crate::ledger::ledger;

const JOB: &str = "ledger";
const CLUSTER: u128 = 7;
/// Time that a turn of all slots takes.
const TURN_NS: u64 = 2_000;
/// Turns without work, and without anything that time could bring, after which it is a deadlock.
const IDLE_TURNS_MAX: u32 = 8;
/// Turns after which a run that goes on and on is given up: a livelock.
const TURNS_MAX: u64 = 3_000_000;

/// The shape of a cluster and its job, drawn from the seed.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub hosts: u64,
    pub slots: u32,
    pub parallelism: u32,
    pub records: u64,
    pub segments: u32,
    pub quantum: u32,
    pub buffers: usize,
    pub zero_copy: bool,
}

struct Slot {
    runner: SlotRunner<SimRing>,
    mailbox: SlotMailbox,
    events: Receiver<SlotEvent>,
    files: MemoryFiles,
    watch: SimWatch,
    /// Its last turn did something, so it does not sleep.
    busy: bool,
}

impl Slot {
    /// The next time it waits for.
    fn timer_ns(&self) -> Option<u64> {
        [self.runner.next_timer_ns(), self.runner.exchange().next_timer_ns()].into_iter().flatten().min()
    }
}

struct Host {
    id: u64,
    arena: Arena,
    slots: Vec<Slot>,
}

/// The cluster.
pub struct Cluster {
    pub shape: Shape,
    pub net: SimNet,
    pub manager: Manager,
    switch: SimSwitch,
    random: Random,
    jobs: Jobs,
    pool: ReaderPool,
    hosts: Vec<Host>,
    generation: u64,
    turns: u64,
    /// Slots, by host and index, that have closed the present attempt.
    closed: BTreeSet<(usize, usize)>,
    /// Over all that happened: equal runs have equal hashes.
    trace: u64,
}

fn address(host: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host as u8], 1))
}

impl Cluster {
    /// A cluster whose hosts are up, with nothing deployed.
    ///
    /// # Errors
    /// Why the job or the memory cannot be had.
    pub fn new(mut random: Random, shape: Shape, weather: Weather) -> Result<Self, String> {
        let net = SimNet::new(random.next(), weather);
        let jobs = Jobs::new([JobEntry::new(JOB, ledger)]);
        let slots: Vec<SlotId> = (0..shape.slots)
            .flat_map(|slot| (1..=shape.hosts).map(move |taskmanager| SlotId { taskmanager, slot }))
            .collect();
        let args = ["--records".to_owned(), shape.records.to_string()]
            .into_iter()
            .chain(["--partitions".to_owned(), shape.parallelism.to_string()]);
        let job = ManagedJob {
            memory: tidegate_stream::memory::SlotMemory::default(),
            jobs: jobs.clone(),
            name: JOB.to_owned(),
            args: args.collect(),
            parallelism: shape.parallelism,
            slots,
            peers: (1..=shape.hosts).map(|host| (host, address(host))).collect::<BTreeMap<_, _>>(),
        };
        let manager = Manager::new(job, Store::default())?;
        let mut cluster = Self {
            shape,
            switch: SimSwitch::new(net.clone()),
            net,
            manager,
            random,
            jobs,
            pool: ReaderPool::new(0).map_err(|error| error.to_string())?,
            hosts: Vec::new(),
            generation: 0,
            turns: 0,
            closed: BTreeSet::new(),
            trace: 0,
        };
        for id in 1..=shape.hosts {
            let host = cluster.boot(id)?;
            cluster.hosts.push(host);
        }
        Ok(cluster)
    }

    fn boot(&mut self, id: u64) -> Result<Host, String> {
        self.generation += 1;
        let Shape { slots, segments, quantum, buffers, zero_copy, .. } = self.shape;
        let config = ArenaConfig {
            segment_size: SegmentSize::new(4096).map_err(|error| error.to_string())?,
            shards: vec![segments; slots as usize],
            huge_pages: HugePages::Never,
        };
        let (arena, shards) = Arena::map(&config).map_err(|error| error.to_string())?;
        let hub = LocalHub::new();
        self.switch.listen(id, address(id));
        let mut made = Vec::new();
        for (slot, shard) in (0..).zip(shards) {
            let me = SlotId { taskmanager: id, slot };
            let ring = SimRing::new(self.net.clone(), arena.clone(), zero_copy);
            let watch = ring.watch();
            let config = ExchangeConfig { me, cluster: CLUSTER };
            let exchange = Exchange::new(ring, shard, hub.clone(), self.switch.connector(id), config);
            self.switch.register(id, me, exchange.mailbox());
            // A file's id is never that of a file of an earlier life.
            let first_id = (self.generation << 40) | (u64::from(slot) << 32);
            let files = MemoryFiles::on(self.manager.store().clone(), first_id, buffers);
            let (sender, events) = sync_channel(EVENTS_WAITING_MAX);
            let config = SlotConfig { quantum_records: quantum, ..SlotConfig::default() };
            let (runner, mailbox) = SlotRunner::new(
                exchange,
                Box::new(files.clone()),
                self.jobs.clone(),
                self.pool.clone(),
                Box::new(sender),
                config,
            );
            made.push(Slot { runner, mailbox, events, files, watch, busy: true });
        }
        Ok(Host { id, arena, slots: made })
    }

    // ---- faults ----

    /// The host loses power and comes back empty.
    ///
    /// # Errors
    /// No memory for its new life.
    pub fn crash(&mut self, index: usize) -> Result<(), String> {
        let id = self.hosts[index].id;
        self.closed.retain(|(host, _)| *host != index);
        self.note(0xC4A5, id);
        self.net.crash(id);
        self.switch.crash(id);
        let fresh = self.boot(id)?;
        let dead = std::mem::replace(&mut self.hosts[index], fresh);
        // Its drivers' sockets close; what its tasks held goes down with its memory.
        drop(dead);
        Ok(())
    }

    /// How many hosts there are.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    // ---- running ----

    /// Plans the next attempt and runs until every slot has prepared it; then it runs.
    ///
    /// # Errors
    /// What failed meanwhile.
    pub fn deploy(&mut self) -> Result<(), String> {
        let prepares = self.manager.next_attempt();
        self.closed.clear();
        let order: Vec<(usize, usize)> = (0..self.shape.slots as usize)
            .flat_map(|slot| (0..self.hosts.len()).map(move |host| (host, slot)))
            .collect();
        for ((host, slot), prepare) in order.into_iter().zip(prepares) {
            tell(&self.hosts[host].slots[slot], prepare);
        }
        self.run_until(|cluster| cluster.manager.prepared())?;
        self.manager.start();
        Ok(())
    }

    /// Ends the present attempt everywhere, and checks that it left nothing.
    ///
    /// # Errors
    /// What it left, or that it does not end.
    pub fn cancel(&mut self) -> Result<(), String> {
        self.manager.cancel();
        self.run_until(Self::closed)?;
        self.manager.discard_pending();
        self.check_leaks()
    }

    /// Every slot has closed the present attempt.
    pub fn closed(&self) -> bool {
        self.closed.len() == self.hosts.iter().map(|host| host.slots.len()).sum()
    }

    /// Every segment is free, every file buffer back.
    ///
    /// # Errors
    /// What is not.
    pub fn check_leaks(&mut self) -> Result<(), String> {
        for host in &mut self.hosts {
            for (index, slot) in host.slots.iter_mut().enumerate() {
                slot.files.pump(usize::MAX);
                let metrics = slot.runner.metrics();
                let (free, all) = (metrics.segments_free, metrics.segments);
                let (buffers, files) = (slot.files.on_loan(), slot.files.open_files());
                if (free, buffers, files) != (all, 0, 0) {
                    return Err(format!(
                        "host {} slot {index}: {free} of {all} segments free, {buffers} buffers on loan, {files} files \
                         open",
                        host.id
                    ));
                }
            }
            let totals = host.arena.ledger().totals();
            if totals.free() != host.arena.segments() {
                return Err(format!("host {}: the ledger says {totals:?}", host.id));
            }
        }
        Ok(())
    }

    /// Turns until `done`, or something fails.
    ///
    /// # Errors
    /// What failed, or the wait-for graph if nothing moves any more.
    pub fn run_until(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        let mut idle = 0;
        loop {
            if let Some(failure) = self.manager.failure() {
                return Err(failure.to_owned());
            }
            if done(self) {
                return Ok(());
            }
            if self.step()? {
                idle = 0;
            } else {
                idle += 1;
                if idle > IDLE_TURNS_MAX {
                    return Err(format!("{DEADLOCK}\n{}", self.wait_graph()));
                }
            }
        }
    }

    /// One turn of everybody. False if nothing can move, now or later.
    ///
    /// # Errors
    /// That it goes on without end.
    pub fn step(&mut self) -> Result<bool, String> {
        self.turns += 1;
        if self.turns > TURNS_MAX {
            return Err(format!("no end after {TURNS_MAX} turns\n{}", self.wait_graph()));
        }
        let commands = self.manager.take_commands();
        let mut busy = self.switch.pump() | self.pool.run_one() || !commands.is_empty();
        for command in commands {
            self.note(0xC0, 0);
            self.hosts.iter().flat_map(|host| &host.slots).for_each(|slot| tell(slot, command.clone()));
        }
        let mut order: Vec<(usize, usize)> = (0..self.hosts.len())
            .flat_map(|host| (0..self.hosts[host].slots.len()).map(move |slot| (host, slot)))
            .collect();
        for at in (1..order.len()).rev() {
            order.swap(at, self.random.below(at as u64 + 1) as usize);
        }
        for (host, slot) in order {
            busy |= self.step_slot(host, slot);
        }
        let now_ns = self.net.now_ns();
        if busy {
            self.net.advance_to(now_ns + TURN_NS);
            return Ok(true);
        }
        // Nobody has anything to do before the next thing that time brings.
        let timers = self.hosts.iter().flat_map(|host| &host.slots).filter_map(Slot::timer_ns);
        let next_ns = timers.chain(self.net.next_alarm_ns()).filter(|at| *at > now_ns).min();
        self.net.advance_to(next_ns.unwrap_or(now_ns + TURN_NS));
        Ok(next_ns.is_some())
    }

    fn step_slot(&mut self, host: usize, index: usize) -> bool {
        let ops = self.random.below(4) as usize;
        let slot = &mut self.hosts[host].slots[index];
        let mut busy = slot.files.busy();
        for event in slot.files.pump(ops) {
            busy = true;
            tell(slot, SlotCommand::FileEvent(event));
        }
        // A slot sleeps until its ring, its bell or its clock wakes it: whoever forgets to wake it hangs here, too,
        // unless something else wakes it later.
        let now_ns = self.net.now_ns();
        let due = slot.timer_ns().is_some_and(|at| at <= now_ns);
        if slot.watch.awake() || slot.busy || due {
            slot.busy = slot.runner.turn();
            if !slot.busy {
                slot.runner.wait();
            }
            busy = true;
        }
        let stepped = slot.busy;
        let events: Vec<SlotEvent> = slot.events.try_iter().collect();
        let me = SlotId { taskmanager: self.hosts[host].id, slot: index as u32 };
        self.note(u64::from(stepped), (host * 64 + index) as u64);
        for event in events {
            busy = true;
            self.note(0xE7, kind(&event));
            if matches!(event, SlotEvent::Closed { attempt, .. } if attempt == self.manager.id()) {
                self.closed.insert((host, index));
            }
            self.manager.handle(me, event);
        }
        busy
    }

    fn note(&mut self, what: u64, which: u64) {
        let word = what.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ which ^ self.net.now_ns().rotate_left(32);
        self.trace = (self.trace.rotate_left(5) ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    }

    /// Equal for equal runs.
    pub fn trace_hash(&self) -> u64 {
        self.trace ^ self.net.counts().bytes
    }

    fn wait_graph(&self) -> String {
        let graphs = self.hosts.iter().flat_map(|host| {
            host.slots.iter().map(move |slot| format!("host {}:\n{}", host.id, slot.runner.wait_graph()))
        });
        graphs.collect::<Vec<_>>().join("\n")
    }
}

/// How the report of a deadlock begins.
pub const DEADLOCK: &str = "deadlock: nothing moves any more";

fn tell(slot: &Slot, command: SlotCommand) {
    slot.mailbox.send(command).expect("invariant: a slot that is stepped takes in its commands");
}

fn kind(event: &SlotEvent) -> u64 {
    match event {
        SlotEvent::Prepared { .. } => 1,
        SlotEvent::TaskState { .. } => 2,
        SlotEvent::EndOfData { .. } => 3,
        SlotEvent::Failed { .. } => 4,
        SlotEvent::Acknowledge { .. } => 5,
        SlotEvent::Decline { .. } => 6,
        SlotEvent::Closed { .. } => 7,
        _ => 8,
    }
}
