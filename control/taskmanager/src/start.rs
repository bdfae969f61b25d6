//! From a configuration to running threads, and back.
//!
//! Owner of the state: [`RunningTaskManager`] owns the control thread, which owns everything else.
//!
//! Always true: the data address is bound first, so an address in use is refused before anything else is begun; threads
//! end in the order control, slots, files, and the arena is unmapped after the last of them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate_arena::limits::SHARD_BYTES_MAX;
use tidegate_arena::{Arena, ArenaConfig, ArenaError, HugePages, Pages, SegmentSize};
use tidegate_exchange::limits::FLUSH_MAX;
use tidegate_exchange::{Endpoint, EndpointError, LocalHub};
use tidegate_memory::limits::NATIVE_RECORD_FRAME_BYTES;
use tidegate_memory::plan::{Profile, TaskManagerPlan};
use tidegate_ring::socket::SocketOptions;
use tidegate_ring::{Obstacle, Registration, RingError, SendMode, ShmError, UringConfig, probe};
use tidegate_rpc::limits::RECORD_BYTES_MAX;
use tidegate_stream::Jobs;
use tidegate_stream::pool::ReaderPool;
use tidegate_stream::slot::Spin;
use tokio::sync::mpsc;

use crate::agent::Identity;
use crate::control::{self, ControlSpec, Ended};
use crate::driver::{Chosen, Driver};
use crate::files::{FilesDriver, FilesThread, Roots};
use crate::latency::Collector;
use crate::latency_log::LatencyLog;
use crate::limits::{
    CANCEL_MAX, CONNECTIONS_MIN, LATENCY_LOG_INTERVAL_MAX, LATENCY_LOG_INTERVAL_MIN, LINK_KEEPALIVE,
    LINK_SILENCE_MAX, READER_THREADS, SLOT_EVENTS_MAX, SLOTS_MAX, TICK,
};
use crate::memory::{self, Meter};
use crate::slots::{FromSlot, SlotError, SlotHandle, SlotPort, SlotSpec, driver_report};
use crate::strangers::Strangers;
use crate::transport::Transport;

/// Everything a TaskManager is given.
#[derive(Debug, Clone)]
pub struct TaskManagerConfig {
    /// The JobManager's RPC address, `host:port`; resolved anew at every dial.
    pub jobmanager: String,
    /// How memory is divided: slots, segments and links with it. The arena is its network component.
    pub plan: TaskManagerPlan,
    /// Where other TaskManagers dial for data; port 0 picks one.
    pub data: SocketAddr,
    /// What drives the network.
    pub driver: Driver,
    /// How payloads are sent, as far as the driver can.
    pub send: SendMode,
    /// How long a partly filled segment waits for more before it goes to another TaskManager; zero, not at all.
    pub flush: Duration,
    /// How long a slot looks for work before it sleeps.
    pub spin: Spin,
    /// Whether segments are registered with the kernel.
    pub registration: Registration,
    /// What is between the TaskManagers of one host.
    pub transport: Transport,
    /// Pin slot N to the N-th core this process may use.
    pub pin: bool,
    /// How long a slot may take to answer a cancel before this process ends: more than [`TICK`], at most [`CANCEL_MAX`], so
    /// that it ends before its peers give up its connections.
    pub cancel_max: Duration,
    /// A file for intervals of latency histograms, and how long these are.
    pub latency_log: Option<(PathBuf, Duration)>,
    /// What writes files.
    pub files: FilesDriver,
    /// The jobs of the binary.
    pub jobs: Jobs,
    /// Fingerprint of the executable; must equal the JobManager's.
    pub binary_fingerprint: u64,
}

impl TaskManagerConfig {
    /// The default plan (one slot) on loopback, everything else automatic.
    pub fn new(jobmanager: impl Into<String>, jobs: Jobs, binary_fingerprint: u64) -> Self {
        Self {
            jobmanager: jobmanager.into(),
            plan: TaskManagerPlan::native(&[]).expect("invariant: the defaults are a plan"),
            data: SocketAddr::from(([127, 0, 0, 1], 0)),
            driver: Driver::Auto,
            send: SendMode::Auto,
            flush: Duration::ZERO,
            spin: Spin::WhereItPays,
            registration: Registration::Auto,
            transport: Transport::default(),
            pin: false,
            cancel_max: CANCEL_MAX,
            latency_log: None,
            files: FilesDriver::Auto,
            jobs,
            binary_fingerprint,
        }
    }
}

/// Why a TaskManager does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A plan that is not a process's.
    #[error("plan: {0}; let the native profile make it")]
    Plan(String),
    /// A time to answer a cancel that is out of range.
    #[error(
        "cancel: a slot may take more than {TICK:?} and at most {CANCEL_MAX:?} to answer, found {found:?}"
    )]
    CancelMax {
        /// What was asked for.
        found: Duration,
    },
    /// A flush interval that is out of range.
    #[error("flush: a segment may wait for more for at most {FLUSH_MAX:?}, found {found:?}")]
    Flush {
        /// What was asked for.
        found: Duration,
    },
    /// A driver and a registration that do not go together.
    #[error(
        "configuration: epoll cannot register segments, and registration is required; let it be auto, or take io_uring"
    )]
    Unregistrable,
    /// It cannot listen for data.
    #[error("{0}")]
    Endpoint(EndpointError),
    /// It has to share memory with the TaskManagers of this host, and cannot.
    #[error("transport: {0}; or let it be auto or tcp")]
    Share(ShmError),
    /// No memory for the network.
    #[error("network memory: {0}")]
    Arena(#[from] ArenaError),
    /// A slot cannot start.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// A latency log that cannot be begun.
    #[error("latency log {}: {source}; name a file that can be written", path.display())]
    LatencyLog {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A latency log with intervals that are out of range.
    #[error(
        "latency log: an interval from {LATENCY_LOG_INTERVAL_MIN:?} to {LATENCY_LOG_INTERVAL_MAX:?} is allowed, found {found:?}"
    )]
    LatencyInterval {
        /// What was asked for.
        found: Duration,
    },
    /// A thread cannot start.
    #[error("cannot start the {what}: {source}")]
    Thread {
        /// Which.
        what: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// Starts TaskManagers.
#[derive(Debug)]
pub struct TaskManager;

/// A TaskManager at work. Dropping it stops it.
pub struct RunningTaskManager {
    /// Where other TaskManagers dial.
    pub data_address: SocketAddr,
    /// Its id.
    pub id: u64,
    /// Name of the driver of the network.
    pub driver: &'static str,
    /// What drives the network, with the pages of the arena, for people.
    pub network: String,
    /// What writes files, for people.
    pub files: String,
    stop: mpsc::Sender<String>,
    thread: Option<JoinHandle<Ended>>,
}

impl fmt::Debug for RunningTaskManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningTaskManager").field("data_address", &self.data_address).finish_non_exhaustive()
    }
}

impl TaskManager {
    /// Starts a TaskManager. It looks for its JobManager from then on, and keeps looking.
    ///
    /// # Errors
    /// [`StartError`], by what is missing; nothing is left running then.
    pub fn start(config: TaskManagerConfig) -> Result<RunningTaskManager, StartError> {
        let shape = Shape::of(&config.plan)?;
        if config.cancel_max <= TICK || config.cancel_max > CANCEL_MAX {
            return Err(StartError::CancelMax { found: config.cancel_max });
        }
        if config.flush > FLUSH_MAX {
            return Err(StartError::Flush { found: config.flush });
        }
        let latencies = Collector::new(latency_log(config.latency_log.as_ref())?);
        let strangers = Strangers::new();
        let endpoint = Endpoint::bind_watched(config.data, data_sockets(), strangers.watcher())
            .map_err(StartError::Endpoint)?;
        let data_address = endpoint.address();
        let pool = ReaderPool::new(READER_THREADS).map_err(thread_error("reader pool"))?;
        let Slots { driver, connections, arena, slots, ports, from_slots } =
            start_slots(&config, &shape, &endpoint, &pool)?;
        let transport = config.transport.share(&endpoint, &arena)?;
        let roots = Roots::default();
        // The files thread comes last: what the slots may lock is worth more than what it may.
        let deliver = ports.iter().map(SlotPort::deliver).collect();
        let (files, slot_files) =
            FilesThread::start(config.files, &roots, deliver).map_err(thread_error("files thread"))?;

        let report = slots[0].report.read();
        let pages = pages(&arena);
        let (network, files_report) =
            (format!("{report}; arena on {pages}; {transport}"), files.report.clone());
        let id = random_id();
        let identity = Identity {
            taskmanager: id,
            slots: shape.slots,
            data_address,
            host: host_name(),
            pid: std::process::id(),
            binary_fingerprint: config.binary_fingerprint,
            segment_size: shape.segment.bytes() as u32,
            segments_per_slot: shape.segments,
            record_max: shape.record_max,
            links_per_slot: connections,
            memory: memory::registered(&config.plan),
            driver: driver_report(&report, driver, config.send, &pages, transport),
            cancel_max: config.cancel_max,
        };
        let (stop, stopped) = mpsc::channel(1);
        let spec = ControlSpec {
            identity,
            jobmanager: config.jobmanager,
            jobs: config.jobs,
            slots,
            slot_files,
            ports,
            from_slots,
            endpoint,
            strangers,
            roots,
            meter: Meter::new(arena),
            file_buffers: files.buffer_bytes(),
            latencies,
            stop: stopped,
        };
        let builder = std::thread::Builder::new().name("control".to_owned());
        let thread = builder.spawn(move || supervise(spec, files)).map_err(thread_error("control thread"))?;
        let driver = driver.name();
        Ok(RunningTaskManager {
            data_address,
            id,
            driver,
            network,
            files: files_report,
            stop,
            thread: Some(thread),
        })
    }
}

fn latency_log(wanted: Option<&(PathBuf, Duration)>) -> Result<Option<(LatencyLog, Duration)>, StartError> {
    let Some((path, every)) = wanted else { return Ok(None) };
    if !(LATENCY_LOG_INTERVAL_MIN..=LATENCY_LOG_INTERVAL_MAX).contains(every) {
        return Err(StartError::LatencyInterval { found: *every });
    }
    match LatencyLog::begin(path) {
        Ok(log) => Ok(Some((log, *every))),
        Err(source) => Err(StartError::LatencyLog { path: path.clone(), source }),
    }
}

/// How data connections notice that their peer's host is gone.
fn data_sockets() -> SocketOptions {
    SocketOptions {
        user_timeout: Some(LINK_SILENCE_MAX),
        keepalive: Some(LINK_KEEPALIVE),
        ..SocketOptions::default()
    }
}

/// A plan as the threads take it.
struct Shape {
    slots: u32,
    /// Of each slot.
    segments: u32,
    segment: SegmentSize,
    /// As records travel, with what their format puts around them.
    record_max: u32,
    connections: u32,
}

impl Shape {
    fn of(plan: &TaskManagerPlan) -> Result<Self, StartError> {
        let wrong = |what: String| StartError::Plan(what);
        let slots = plan.shape.slots;
        if !(1..=SLOTS_MAX).contains(&slots) {
            return Err(wrong(format!("slots: 1 to {SLOTS_MAX} allowed, found {slots}")));
        }
        let bytes = u32::try_from(plan.shape.segment).unwrap_or(u32::MAX);
        let segment = SegmentSize::new(bytes).map_err(|error| wrong(error.to_string()))?;
        let segments = plan.per_slot().network_buffers;
        let most = (SHARD_BYTES_MAX / segment.bytes()) as u64;
        if !(1..=most).contains(&segments) {
            return Err(wrong(format!("segments of a slot: 1 to {most} allowed, found {segments}")));
        }
        if plan.profile != Profile::Native {
            return Err(wrong("it is of the profile flink, which provides for a JVM".to_owned()));
        }
        let framed = plan.record_max + NATIVE_RECORD_FRAME_BYTES;
        let record_max = u32::try_from(framed).unwrap_or(u32::MAX).min(RECORD_BYTES_MAX);
        Ok(Self {
            slots,
            segments: segments as u32,
            segment,
            record_max: if plan.record_max == 0 { 0 } else { record_max },
            connections: plan.shape.links.max(CONNECTIONS_MIN),
        })
    }
}

/// The slots of a process, their threads waiting to be told the cluster.
struct Slots {
    driver: Chosen,
    /// Places for links in the ring of each.
    connections: u32,
    arena: Arena,
    slots: Vec<SlotHandle>,
    ports: Vec<SlotPort>,
    from_slots: mpsc::Receiver<(u32, FromSlot)>,
}

/// Starts all slots with rings for the connections that were asked for, or for as many as the locked memory of this user
/// holds for all of them. Where it holds none, and nobody insists on io_uring, epoll needs none.
fn start_slots(
    config: &TaskManagerConfig,
    shape: &Shape,
    endpoint: &Endpoint,
    pool: &ReaderPool,
) -> Result<Slots, StartError> {
    let mut driver = Chosen::new(config.driver, config.registration, || probe().io_uring.map(drop))?;
    let mut connections = shape.connections;
    loop {
        let error = match try_slots(config, shape, endpoint, pool, driver, connections) {
            Ok(slots) => return Ok(slots),
            Err(error) => error,
        };
        let StartError::Slot(SlotError::Ring { source: RingError::RingMemory { limit, .. }, .. }) = error
        else {
            return Err(error);
        };
        if connections / 2 >= CONNECTIONS_MIN {
            let limit = limit.map_or_else(|| "unlimited".to_owned(), |limit| format!("{limit} bytes"));
            tracing::warn!(
                "no memory for {connections} connections per slot (RLIMIT_MEMLOCK is {limit}); trying half"
            );
            connections /= 2;
        } else if config.driver == Driver::Auto && config.registration != Registration::Required {
            let errno = rustix::io::Errno::NOMEM.raw_os_error();
            driver = Chosen::instead_of_io_uring(Obstacle::Memlock { limit, errno });
            connections = shape.connections;
        } else {
            return Err(error);
        }
    }
}

fn try_slots(
    config: &TaskManagerConfig,
    shape: &Shape,
    endpoint: &Endpoint,
    pool: &ReaderPool,
    driver: Chosen,
    connections: u32,
) -> Result<Slots, StartError> {
    let (arena, shards) = config.transport.map(&ArenaConfig {
        segment_size: shape.segment,
        shards: vec![shape.segments; shape.slots as usize],
        huge_pages: HugePages::Auto,
    })?;
    let (events, from_slots) = mpsc::channel(SLOT_EVENTS_MAX);
    let hub = LocalHub::new();
    let ports: Vec<SlotPort> = (0..shape.slots).map(|_| SlotPort::default()).collect();
    let mut slots = Vec::with_capacity(ports.len());
    for (index, (shard, port)) in shards.into_iter().zip(&ports).enumerate() {
        let started = SlotHandle::start(SlotSpec {
            index: index as u32,
            arena: arena.clone(),
            shard,
            driver,
            ring: UringConfig {
                send: config.send,
                registration: config.registration,
                connections_max: connections,
            },
            flush: config.flush,
            pin: config.pin,
            spin: config.spin,
            hub: hub.clone(),
            connector: endpoint.connector(),
            jobs: config.jobs.clone(),
            pool: pool.clone(),
            port: port.clone(),
            events: events.clone(),
        });
        match started {
            Ok(slot) => slots.push(slot),
            Err(error) => {
                // What the others have locked must be free before anybody tries again.
                for slot in slots {
                    let _ = slot.into_thread().join();
                }
                return Err(error.into());
            }
        }
    }
    Ok(Slots { driver, connections, arena, slots, ports, from_slots })
}

/// The control thread's body: run, then let everything go in order.
fn supervise(spec: ControlSpec, files: FilesThread) -> Ended {
    let (ended, slots) = control::run(spec);
    let all_left = !slots.is_empty();
    for slot in slots {
        let _ = slot.join(); // A panic was caught and reported by the thread itself.
    }
    if all_left {
        files.join();
    }
    ended
}

impl RunningTaskManager {
    /// Asks it to leave in order: jobs are told, slots drain. Does not wait.
    pub fn stop(&self, reason: &str) {
        let _ = self.stop.try_send(reason.to_owned()); // Full: it was asked before.
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for its end, however it comes.
    pub fn wait(mut self) -> Ended {
        let thread = self.thread.take().expect("invariant: only waiting takes the thread");
        thread.join().unwrap_or_else(|_| Ended::System("the control thread panicked".to_owned()))
    }
}

impl Drop for RunningTaskManager {
    fn drop(&mut self) {
        self.stop("dropped");
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn thread_error(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Thread { what, source }
}

/// What the arena lies on, for people.
fn pages(arena: &Arena) -> String {
    match arena.pages() {
        Pages::Explicit => "explicit huge pages".to_owned(),
        Pages::Transparent { huge_bytes } => {
            let (huge, all) = (huge_bytes >> 20, (arena.segments() as usize * arena.segment_size()) >> 20);
            format!("transparent huge pages ({huge} of {all} MiB)")
        }
        Pages::Small => "4 KiB pages".to_owned(),
        Pages::Heap => "the heap".to_owned(),
    }
}

/// A random id for this process.
fn random_id() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The standard library seeds its hashers from the operating system's random numbers.
    let id = std::collections::hash_map::RandomState::new().build_hasher().finish();
    id.max(1)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
