//! The slot threads: one per slot, named, pinned when asked, each with its own ring and arena shard.
//!
//! Owner of the state: each thread owns its ring, exchange and runner; the control thread holds the way in
//! ([`SlotMailbox`]) and hears events through one bounded queue.
//!
//! Always true:
//! - a slot's ring is made on its own thread, before the TaskManager registers, so what drives the network is known then;
//! - its exchange is made once the cluster is known, before anything can be deployed;
//! - a slot thread that panics is reported by name: the process cannot go on without it.

use std::ffi::OsStr;
use std::io;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity, set_current_timer_slack};
use tidegate_arena::{Arena, Shard};
use tidegate_exchange::endpoint::{Connector, Mailbox};
use tidegate_exchange::{Endpoint, Exchange, ExchangeConfig, LocalHub, SlotId};
use tidegate_ring::{DriverReport, ModeReason, RingError, SendMode, UringConfig};
use tidegate_stream::Jobs;
use tidegate_stream::files::FileEvent;
use tidegate_stream::pool::ReaderPool;
use tidegate_stream::slot::{
    Board, Events, MailboxError, SlotCommand, SlotConfig, SlotEvent, SlotMailbox, SlotMetrics, SlotRunner,
    Spin,
};
use tokio::sync::mpsc;

use crate::driver::Chosen;
use crate::files::{Deliver, SlotFiles};
use crate::metered::{Metered, ReportView};

/// If it is `1`, slots measure no latency and report no counts while a task runs. For the benchmark of what these cost; a
/// cluster without them is blind, so any other value is not taken for it, and its slots warn.
const UNMEASURED: &str = "TIDEGATE_UNMEASURED";

/// What comes from a slot thread.
#[derive(Debug)]
pub(crate) enum FromSlot {
    /// The runner says something.
    Event(SlotEvent),
    /// What the slot has counted when a task of it came to the end of its input: a short job is over before the board
    /// is written again.
    Counted(Box<SlotMetrics>),
    /// The thread is gone; with the words of a panic if that was why.
    Ended(Option<String>),
}

/// The queue of all slots towards the control thread.
pub(crate) type SlotSender = mpsc::Sender<(u32, FromSlot)>;

/// The way into a slot, from before its runner exists. Commands sent earlier than that are a bug; file events cannot
/// come earlier, because only the runner opens files.
#[derive(Clone, Default)]
pub(crate) struct SlotPort(Arc<OnceLock<SlotMailbox>>);

impl SlotPort {
    /// Hands a command over.
    pub(crate) fn send(&self, command: SlotCommand) -> Result<(), MailboxError> {
        self.0.get().expect("invariant: a slot is opened before it is told anything").send(command)
    }

    /// The files thread's way in.
    pub(crate) fn deliver(&self) -> Deliver {
        let port = self.clone();
        Arc::new(move |event: FileEvent| {
            if let Err(error) = port.send(SlotCommand::FileEvent(event)) {
                // A slot that is gone needs no news; one that is flooded is ended by its next cancel.
                tracing::error!("a file event was lost: {error}");
            }
        })
    }
}

/// What every slot thread needs.
pub(crate) struct SlotSpec {
    /// Index of the slot.
    pub index: u32,
    /// The arena of the process.
    pub arena: Arena,
    /// This slot's shard.
    pub shard: Shard,
    /// What drives its network.
    pub driver: Chosen,
    /// How its ring is set up, as far as its driver can.
    pub ring: UringConfig,
    /// How long its links hold partly filled segments back.
    pub flush: Duration,
    /// Whether it is pinned.
    pub pin: bool,
    /// How long it looks for work before it sleeps.
    pub spin: Spin,
    /// Where same-process channels meet.
    pub hub: LocalHub,
    /// Dials for it.
    pub connector: Box<dyn Connector>,
    /// The jobs of the binary.
    pub jobs: Jobs,
    /// Threads for blocking sources.
    pub pool: ReaderPool,
    /// The way in that is opened once the runner exists.
    pub port: SlotPort,
    /// Where events go.
    pub events: SlotSender,
}

/// What a slot is told when the cluster is known.
pub(crate) struct Joining {
    /// Who it is.
    pub me: SlotId,
    /// Which cluster.
    pub cluster: u128,
    /// Its files.
    pub files: SlotFiles,
}

/// A slot whose ring is up and which waits to be told its cluster.
pub(crate) struct SlotHandle {
    thread: JoinHandle<()>,
    /// What its ring says of itself.
    pub report: ReportView,
    /// What it counted.
    pub board: Board,
    join: SyncSender<Joining>,
    opened: Receiver<Mailbox<tidegate_ring::Stream>>,
}

impl SlotHandle {
    /// Starts the thread and waits until its ring is made.
    ///
    /// # Errors
    /// The ring's, or the operating system's for the thread.
    pub(crate) fn start(spec: SlotSpec) -> Result<Self, SlotError> {
        let (join, joining) = sync_channel(1);
        let (ready, made) = sync_channel(1);
        let (open, opened) = sync_channel(1);
        let index = spec.index;
        let board = Board::default();
        let for_thread = board.clone();
        let builder = std::thread::Builder::new().name(format!("slot-{index}"));
        let spawned = builder.spawn(move || {
            let (events, index) = (spec.events.clone(), spec.index);
            let body = std::panic::AssertUnwindSafe(|| run(spec, for_thread, &ready, &joining, &open));
            let panic = std::panic::catch_unwind(body).err().map(|panic| panic_text(&*panic));
            let _ = events.blocking_send((index, FromSlot::Ended(panic)));
        });
        let thread = spawned.map_err(|source| SlotError::Thread { slot: index, source })?;
        match made.recv() {
            Ok(Ok(report)) => Ok(Self { thread, report, board, join, opened }),
            Ok(Err(source)) => Err(SlotError::Ring { slot: index, source }),
            Err(_) => Err(SlotError::Died { slot: index }),
        }
    }

    /// Tells the slot who it is; from then on it takes commands and connections.
    pub(crate) fn open(&self, joining: Joining, endpoint: &Endpoint) {
        let me = joining.me;
        let told = self.join.send(joining).ok().and_then(|()| self.opened.recv().ok());
        if let Some(mailbox) = told {
            endpoint.register(me, mailbox);
        }
    }

    /// Takes the thread out; a slot that was never opened ends with this.
    pub(crate) fn into_thread(self) -> JoinHandle<()> {
        self.thread
    }
}

/// Why a slot could not start.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// No thread.
    #[error("slot {slot}: cannot start its thread: {source}")]
    Thread {
        /// The slot.
        slot: u32,
        /// The operating system's answer.
        source: io::Error,
    },
    /// No ring.
    #[error("slot {slot}: {source}")]
    Ring {
        /// The slot.
        slot: u32,
        /// Who forbids it and what to change.
        source: RingError,
    },
    /// The thread panicked while it started; the panic was printed.
    #[error("slot {slot} died while it started")]
    Died {
        /// The slot.
        slot: u32,
    },
}

type Ready = SyncSender<Result<ReportView, RingError>>;

/// The thread's body.
fn run(
    spec: SlotSpec,
    board: Board,
    ready: &Ready,
    joining: &Receiver<Joining>,
    open: &SyncSender<Mailbox<tidegate_ring::Stream>>,
) {
    let name = format!("slot-{}", spec.index);
    let _counted = tidegate_memory::register_thread(&name)
        .map_err(|error| tracing::warn!("{name}: heap allocations are not counted: {error}"));
    if spec.pin {
        pin(spec.index);
    }
    // A source that waits for a time would otherwise be woken up to 50 us late. Without it everything works as well.
    let _coarse = set_current_timer_slack(NonZeroU64::new(1));
    let ring = match spec.driver.ring(&spec.arena, spec.shard.index(), &spec.ring) {
        Ok(ring) => Metered::new(ring),
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(ring.view()));
    let Ok(Joining { me, cluster, files }) = joining.recv() else { return }; // Stopped before the JobManager was found.
    let mut exchange =
        Exchange::new(ring, spec.shard, spec.hub, spec.connector, ExchangeConfig { me, cluster });
    exchange.set_flush(spec.flush);
    let mailbox = exchange.mailbox();
    let through = Arc::new(AtomicBool::new(false));
    let events = Queue { slot: spec.index, events: spec.events.clone(), through: Arc::clone(&through) };
    let mut config = SlotConfig { spin: spec.spin, ..SlotConfig::default() };
    if unmeasured(std::env::var_os(UNMEASURED).as_deref()) {
        tracing::warn!(
            "{name}: {UNMEASURED}=1: no latencies are measured and no counts reported while tasks run"
        );
        (config.latencies, config.metrics_interval_ns) = (false, u64::MAX);
    }
    let (mut runner, commands) =
        SlotRunner::new(exchange, Box::new(files), spec.jobs, spec.pool, Box::new(events), config);
    runner.show_on(board);
    assert!(spec.port.0.set(commands).is_ok(), "a slot is opened once");
    let _ = open.send(mailbox);
    while !runner.done() {
        if !runner.turn() {
            runner.wait();
        }
        if through.swap(false, Ordering::Relaxed) {
            let counted = FromSlot::Counted(Box::new(runner.metrics()));
            let _ = spec.events.try_send((spec.index, counted)); // When there is no room, the board says it later.
        }
    }
}

/// Whether this value of [`UNMEASURED`] asks for it.
fn unmeasured(value: Option<&OsStr>) -> bool {
    value.is_some_and(|value| value == "1")
}

/// A slot's end of the common queue.
struct Queue {
    slot: u32,
    events: SlotSender,
    /// Raised when a task has come to the end of its input; same thread, so its order does not matter.
    through: Arc<AtomicBool>,
}

impl Events for Queue {
    fn send(&mut self, event: SlotEvent) -> Result<(), SlotEvent> {
        if matches!(event, SlotEvent::EndOfData { .. }) {
            self.through.store(true, Ordering::Relaxed);
        }
        match self.events.try_send((self.slot, FromSlot::Event(event))) {
            Err(mpsc::error::TrySendError::Full((_, FromSlot::Event(event)))) => Err(event),
            // With nobody left to listen the event has no meaning.
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Pins the calling thread to the `index`-th of the cores this process may use, counted around.
fn pin(index: u32) {
    let pinned = sched_getaffinity(None).and_then(|allowed| {
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
        let core = cores[index as usize % cores.len().max(1)];
        let mut wanted = CpuSet::new();
        wanted.set(core);
        sched_setaffinity(None, &wanted).map(|()| core)
    });
    match pinned {
        Ok(core) => tracing::info!("slot {index} is pinned to core {core}"),
        Err(error) => tracing::warn!("slot {index} cannot be pinned: {error}"),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

/// What drives the network of a TaskManager, for people; all its slots are set up alike.
pub(crate) fn driver_report(
    report: &DriverReport,
    chosen: Chosen,
    send: SendMode,
    pages: &str,
    transport: String,
) -> tidegate_rpc::DriverReport {
    let instead = chosen.obstacle().map(|obstacle| format!(", not io_uring: {obstacle}")).unwrap_or_default();
    // The first word is what was asked for, where the driver leaves a choice.
    let send_mode = match (send, report.send_mode_reason) {
        (_, Some(ModeReason::OnlyPlain)) | (SendMode::Fixed | SendMode::Plain | SendMode::Zc, _) => {
            report.send_mode.to_string()
        }
        (SendMode::Auto, _) => format!("auto ({} at first)", report.send_mode),
    };
    tidegate_rpc::DriverReport {
        driver: format!("{} [{}]{instead}", report.driver, report.setup),
        rung: report.registration.to_string(),
        send_mode,
        pages: pages.to_owned(),
        transport,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_value_1_switches_measuring_off() {
        assert!(unmeasured(Some(OsStr::new("1"))));
        for value in [None, Some(""), Some("0"), Some("false"), Some("true"), Some("11")] {
            assert!(!unmeasured(value.map(OsStr::new)), "{value:?}");
        }
    }
}
