//! A simulated cluster: TaskManager and JobManager processes of the real runtime, stepped in turn by one thread.
//!
//! It owns processes, network, disk and clock; [`crate::wires`] is what passes between processes, [`crate::faults`] what
//! befalls them. Always: time moves only here; every choice comes from the seed; a slot is stepped at most once a turn;
//! whatever reaches a process that is paused waits for it, in order.

use std::collections::BTreeMap;

use tidegate_checkpoint::StoreOp;
use tidegate_exchange::sim::SimSwitch;
use tidegate_graph::{Segments, SlotOffer, place, segment_need};
use tidegate_jobmanager::RestartPolicy;
use tidegate_ring::sim::{Random, SimNet, Weather};
use tidegate_rpc::{ClusterId, JobId, Prepare, SlotPlan};
use tidegate_stream::pool::ReaderPool;
use tidegate_stream::slot::{AttemptId, SlotEvent};
use tidegate_stream::{JobEntry, Jobs};

use crate::disk::Disk;
use crate::history::History;
use crate::host::{Birth, Host, RECORD_BYTES, SEGMENT_BYTES};
use crate::leader::Leader;
use crate::ledger::{OUT, Reference, ledger};
use crate::wires::{Link, Mail};

pub const JOB: &str = "ledger";
pub const JOB_ID: JobId = JobId(0x1ED6E2);
pub const CLUSTER: ClusterId = ClusterId(7);
pub const BINARY: u64 = 5;
/// What the JobManager makes before anything else.
const STORE_JOBS: &str = "/store/jobs";
/// Time that a turn of all slots takes.
const TURN_NS: u64 = 10_000;
/// Turns after which a run that goes on and on is given up: a livelock.
const TURNS_MAX: u64 = 3_000_000;
pub const MS: u64 = 1_000_000;

/// The shape of a cluster and its job, drawn from the seed.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub hosts: u64,
    pub slots: u32,
    pub parallelism: u32,
    pub records: u64,
    pub segments: u32,
    pub quantum: u32,
    pub zero_copy: bool,
    /// Of checkpoints, after what time they are given up, and how many are kept.
    pub interval_ms: u64,
    pub timeout_ms: u64,
    pub retained: usize,
    /// How long an operation on the store takes at most.
    pub store_ns: u64,
    /// How long a control message takes at most.
    pub control_ns: u64,
}

/// A process, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    Host(usize),
    Leader(usize),
}

/// Something that is due.
pub enum Event {
    /// On a control stream, for the JobManager.
    ToLeader {
        leader: usize,
        link: u64,
        mail: Mail,
    },
    /// On a control stream, for the TaskManager.
    ToHost {
        host: usize,
        link: u64,
        mail: Mail,
    },
    Dial {
        host: usize,
        life: u64,
        dial: u64,
    },
    Beat {
        host: usize,
        life: u64,
        beat: u64,
    },
    HostTick {
        host: usize,
        life: u64,
    },
    Fetch {
        host: usize,
        life: u64,
        slot: u32,
        attempt: AttemptId,
        prepare: Box<Prepare>,
        plan: Box<SlotPlan>,
    },
    /// The next operation of an opening.
    Opening {
        leader: usize,
    },
    /// The first of a job's operations.
    Work {
        leader: usize,
    },
    /// Of a process that is long gone.
    Late(Box<StoreOp>),
    Cut(u64),
    Boot(usize),
    StartLeader,
    /// Somebody submits the job, until it is taken.
    Client,
    /// Somebody wants it no more.
    Cancel,
    Resume(Process),
    Room,
    Healthy,
    /// Somebody ends the JobManagers that were replaced.
    Retire,
}

impl Event {
    fn process(&self) -> Option<Process> {
        match self {
            Event::ToLeader { leader, .. } | Event::Opening { leader } | Event::Work { leader } => {
                Some(Process::Leader(*leader))
            }
            Event::ToHost { host, .. }
            | Event::Dial { host, .. }
            | Event::Beat { host, .. }
            | Event::HostTick { host, .. }
            | Event::Fetch { host, .. } => Some(Process::Host(*host)),
            _ => None,
        }
    }
}

/// Where a TaskManager runs, if it does.
pub struct Place {
    pub up: Option<Host>,
    pub life: u64,
    /// Newest epoch that this life was registered in.
    pub epoch_seen: u64,
}

/// The cluster.
pub struct Cluster {
    pub shape: Shape,
    pub net: SimNet,
    pub disk: Disk,
    pub random: Random,
    pub jobs: Jobs,
    pub hosts: Vec<Place>,
    pub leaders: Vec<Leader>,
    pub links: BTreeMap<u64, Link>,
    pub paused: BTreeMap<Process, Vec<Event>>,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    pub history: History,
    pub reference: Reference,
    /// The job was taken; its record says that it is over.
    pub submitted: bool,
    pub cancelled: bool,
    pub over: bool,
    /// Operations on the store that fail, of 65,536.
    pub flaky: u32,
    /// No accidents from now on: since when.
    pub calm_ns: Option<u64>,
    pub restart: RestartPolicy,
    /// Attempts that were cancelled, and those of them in calm weather.
    pub stopped: BTreeMap<u32, u64>,
    pub switch: SimSwitch,
    pub pool: ReaderPool,
    turns: u64,
    /// Over all that happened: equal runs have equal hashes.
    trace: u64,
    /// What is told of a run, if somebody wants to know.
    pub lines: Option<Vec<String>>,
}

impl Cluster {
    /// A cluster that starts.
    ///
    /// # Errors
    /// Why the job or the memory cannot be had.
    pub fn new(mut random: Random, mut shape: Shape, weather: Weather, told: bool) -> Result<Self, String> {
        let net = SimNet::new(random.next(), weather);
        let jobs = Jobs::new([JobEntry::new(JOB, ledger)]);
        let needed = segments_needed(&jobs, &shape)?;
        shape.segments = shape.segments.max(needed);
        let places = (0..shape.hosts).map(|_| Place { up: None, life: 0, epoch_seen: 0 });
        let disk = Disk::default();
        [STORE_JOBS, OUT].into_iter().for_each(|dir| disk.found(dir));
        let mut cluster = Self {
            shape,
            switch: SimSwitch::new(net.clone()),
            net,
            disk,
            jobs,
            hosts: places.collect(),
            leaders: Vec::new(),
            links: BTreeMap::new(),
            paused: BTreeMap::new(),
            queue: BTreeMap::new(),
            queued: 0,
            history: History::default(),
            reference: Reference::new(shape.records, u64::from(shape.parallelism), shape.parallelism),
            submitted: false,
            cancelled: false,
            over: false,
            flaky: 0,
            calm_ns: None,
            restart: RestartPolicy {
                initial_ms: random.within([10, 500]),
                cap_ms: 2_000,
                ..RestartPolicy::default()
            },
            stopped: BTreeMap::new(),
            random,
            pool: ReaderPool::new(0).map_err(|error| error.to_string())?,
            turns: 0,
            trace: 0,
            lines: told.then(Vec::new),
        };
        for host in 0..cluster.hosts.len() {
            cluster.after(0, Event::Boot(host));
        }
        cluster.after(0, Event::StartLeader);
        cluster.after(MS, Event::Client);
        cluster.say(|| format!("{shape:?}\n{weather:?}"));
        Ok(cluster)
    }

    /// Tells what happens.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        let now_ns = self.net.now_ns();
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>14.6} ms  {}", now_ns as f64 / MS as f64, line()));
        }
    }

    /// Lets something be due later.
    pub fn after(&mut self, ns: u64, event: Event) {
        let at_ns = self.net.now_ns() + ns;
        self.at(at_ns, event);
    }

    /// Lets something be due at a time.
    pub fn at(&mut self, at_ns: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((at_ns, self.queued), event);
    }

    /// A TaskManager starts.
    pub fn boot(&mut self, index: usize) -> Result<(), String> {
        if self.hosts[index].up.is_some() {
            return Ok(());
        }
        let taskmanager = self.random.next();
        let birth = Birth {
            host: index as u64 + 1,
            taskmanager,
            shape: self.shape,
            net: &self.net,
            switch: &self.switch,
            jobs: &self.jobs,
            pool: &self.pool,
        };
        let host = Host::boot(&birth)?;
        let place = &mut self.hosts[index];
        (place.up, place.epoch_seen) = (Some(host), 0);
        place.life += 1;
        let life = place.life;
        self.say(|| format!("host {} starts TaskManager {taskmanager:016x}", index + 1));
        self.after(100 * MS, Event::HostTick { host: index, life });
        self.act_host(index)
    }

    /// Turns for a while.
    ///
    /// # Errors
    /// What is wrong.
    pub fn run(&mut self, turns: u64) -> Result<(), String> {
        (0..turns).try_for_each(|_| self.step())
    }

    /// One turn of everybody.
    ///
    /// # Errors
    /// What is wrong.
    pub fn step(&mut self) -> Result<(), String> {
        self.turns += 1;
        if self.turns > TURNS_MAX {
            return Err(format!("no end after {TURNS_MAX} turns\n{}", self.wait_graph()));
        }
        let mut busy = self.switch.pump() | self.pool.run_one();
        busy |= self.deliver()?;
        let mut order: Vec<(usize, usize)> = Vec::new();
        for (index, place) in self.hosts.iter().enumerate() {
            let slots = place.up.as_ref().map_or(0, |host| host.slots.len());
            let runs = !self.paused.contains_key(&Process::Host(index));
            order.extend((0..slots).filter(|_| runs).map(|slot| (index, slot)));
        }
        for at in (1..order.len()).rev() {
            order.swap(at, self.random.below(at as u64 + 1) as usize);
        }
        for (host, slot) in &order {
            busy |= self.step_slot(*host, *slot)?;
        }
        let now_ns = self.net.now_ns();
        if busy {
            self.net.advance_to(now_ns + TURN_NS);
            return Ok(());
        }
        // Nobody has anything to do before the next thing that time brings.
        let slot = |(host, slot): &(usize, usize)| self.hosts[*host].up.as_ref()?.slots[*slot].timer_ns();
        let timers = order.iter().filter_map(slot);
        let leaders = self.leaders.iter().enumerate();
        let leaders =
            leaders.filter(|(at, leader)| leader.leads() && !self.paused.contains_key(&Process::Leader(*at)));
        let ticks = leaders.map(|(_, leader)| leader.tick_ns);
        let queue = self.queue.first_key_value().map(|((at_ns, _), _)| *at_ns);
        let next_ns = timers.chain(ticks).chain(queue).chain(self.net.next_alarm_ns()).min();
        self.net.advance_to(next_ns.unwrap_or(0).max(now_ns + 1));
        Ok(())
    }

    /// Everything that is due.
    fn deliver(&mut self) -> Result<bool, String> {
        let mut busy = false;
        let now_ns = self.net.now_ns();
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= now_ns) {
            let event = entry.remove();
            busy = true;
            self.arrive(event)?;
        }
        for leader in 0..self.leaders.len() {
            let due = self.leaders[leader].leads() && self.leaders[leader].tick_ns <= now_ns;
            if due && !self.paused.contains_key(&Process::Leader(leader)) {
                busy = true;
                self.tell_leader(leader, tidegate_jobmanager::core::Input::Tick)?;
            }
        }
        Ok(busy)
    }

    fn arrive(&mut self, event: Event) -> Result<(), String> {
        if let Event::ToLeader { link, mail: Mail::Bytes(_), .. }
        | Event::ToHost { link, mail: Mail::Bytes(_), .. } = &event
            && self.links.get(link).is_none_or(|link| link.cut)
        {
            return Ok(()); // Lost on the way.
        }
        if let Some(process) = event.process()
            && let Some(waiting) = self.paused.get_mut(&process)
        {
            waiting.push(event);
            return Ok(());
        }
        self.handle(event)
    }

    /// A paused process goes on: it sees everything that came meanwhile.
    pub fn resume(&mut self, process: Process) -> Result<(), String> {
        let Some(waiting) = self.paused.remove(&process) else { return Ok(()) };
        self.say(|| format!("{process:?} goes on"));
        waiting.into_iter().try_for_each(|event| self.arrive(event))
    }

    fn step_slot(&mut self, index: usize, slot: usize) -> Result<bool, String> {
        let ops = self.random.below(4);
        let now_ns = self.net.now_ns();
        let Some(host) = &mut self.hosts[index].up else { return Ok(false) };
        let mut busy = host.files_busy();
        host.step_files(&self.disk, &mut self.random, ops);
        busy |= host.slots[slot].step(now_ns);
        let stepped = host.slots[slot].busy;
        let events = host.slots[slot].events();
        self.note(u64::from(stepped), (index * 64 + slot) as u64);
        for event in events {
            busy = true;
            self.slot_says(index, slot as u32, event)?;
        }
        Ok(busy)
    }

    fn slot_says(&mut self, index: usize, slot: u32, event: SlotEvent) -> Result<(), String> {
        if matches!(event, SlotEvent::Stalled { .. }) {
            return Err(format!("deadlock: nothing moves any more\n{}", self.wait_graph()));
        }
        let closed = matches!(event, SlotEvent::Closed { .. });
        self.tell_host(index, tidegate_taskmanager::agent::Input::Slot(slot, event))?;
        // A slot may hold what belongs to its neighbour, until it has closed, too.
        let free = self.hosts[index].up.as_ref().is_some_and(|host| host.agent.is_free());
        if closed && free { self.check_leaks(index) } else { Ok(()) }
    }

    /// Every segment is free, every file over.
    ///
    /// # Errors
    /// What is not.
    pub fn check_leaks(&mut self, index: usize) -> Result<(), String> {
        let Some(host) = &mut self.hosts[index].up else { return Ok(()) };
        host.check_leaks().map_err(|error| format!("host {}: {error}", index + 1))
    }

    /// Adds to the hash of the run.
    pub fn note(&mut self, what: u64, which: u64) {
        let word = what.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ which ^ self.net.now_ns().rotate_left(32);
        self.trace = (self.trace.rotate_left(5) ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    }

    /// Equal for equal runs.
    pub fn trace_hash(&self) -> u64 {
        self.trace ^ self.net.counts().bytes
    }

    /// What every slot waits for.
    pub fn wait_graph(&self) -> String {
        let hosts =
            self.hosts.iter().enumerate().filter_map(|(index, place)| Some((index, place.up.as_ref()?)));
        let graphs = hosts.flat_map(|(index, host)| {
            host.slots.iter().map(move |slot| format!("host {}:\n{}", index + 1, slot.wait_graph()))
        });
        graphs.collect::<Vec<_>>().join("\n")
    }
}

/// Segments without which the job does not start, however it is placed.
fn segments_needed(jobs: &Jobs, shape: &Shape) -> Result<u32, String> {
    let built = jobs.build(JOB, &args(shape), shape.parallelism).map_err(|error| error.to_string())?;
    // Nothing is nearer than in the next process.
    let offers = (0..u64::from(shape.parallelism)).map(|taskmanager| SlotOffer { taskmanager, slot: 0 });
    let placement = place(&built.graph, &offers.collect::<Vec<_>>()).map_err(|error| error.to_string())?;
    let region = Segments::of_region(RECORD_BYTES, SEGMENT_BYTES);
    let needs = segment_need(&built.graph, &placement, region).into_iter().map(|need| need.segments.minimum);
    Ok(needs.max().unwrap_or(0))
}

/// The job's arguments.
pub fn args(shape: &Shape) -> Vec<String> {
    let records = ["--records".to_owned(), shape.records.to_string()];
    records.into_iter().chain(["--partitions".to_owned(), shape.parallelism.to_string()]).collect()
}
