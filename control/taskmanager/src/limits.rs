//! The named bounds of a TaskManager. Every queue, wait and retry has its number here, with the reason.

use std::time::Duration;

use tidegate_exchange::limits as slot;
use tidegate_rpc::limits as rpc;
use tidegate_stream::limits::{COMMANDS_MAX, FILE_BUFFER_MIN, INLINE_STATE_MAX, METRICS_INTERVAL_NS};

/// Bytes of one buffer that a slot fills for the files thread. The least that slots accept: more would only make the
/// last buffer of each small file emptier.
pub const FILE_BUFFER_BYTES: usize = FILE_BUFFER_MIN;

/// Buffers one slot may hold or have under way. Each sink and each stateful operator can hold a partly filled one for
/// ever, so this bounds how many of them a slot may run; they are made when first needed, 4 MiB at most.
pub const FILE_BUFFERS_PER_SLOT: usize = 32;

/// Files one slot may have open or unfinished at once: a few checkpoints of every writer.
pub const FILES_OPEN_MAX: usize = 256;

/// Requests one slot may have waiting: a create, a finish and an abandon for each file, an append for each buffer.
pub const FILE_REQUESTS_PER_SLOT: usize = 3 * FILES_OPEN_MAX + FILE_BUFFERS_PER_SLOT;

/// Directories that are remembered to be on the disk; when there are more, all are forgotten and each is flushed once more
/// at its next file. An attempt has one per output, a checkpoint one.
pub const DIRECTORIES_KNOWN_MAX: usize = 1024;

/// Bytes of one staging buffer of the files thread, from which the kernel writes.
pub const STAGING_BUFFER_BYTES: usize = 128 << 10;

/// Staging buffers, one write each: 1 MiB in all, which leaves seven eighths of an ordinary user's 8 MiB of locked
/// memory to the rings of the slots.
pub const STAGING_BUFFERS: usize = 8;

/// Threads for file operations where io_uring is blocked: two, so that one slow flush does not hold up everything.
pub const BLOCKING_FILE_THREADS: usize = 2;

/// How long a slot may take to answer a cancel, at most and unless said otherwise. One that takes longer hangs in user code,
/// and a thread cannot be taken back: the process ends by name.
pub const CANCEL_MAX: Duration = Duration::from_secs(30);

/// How long a data connection may be without a sign of life from its peer: sent bytes that nobody acknowledges, or a window
/// that stays shut. Above `CANCEL_MAX`, because a live peer whose slot is stuck in user code does not read either, and its
/// own TaskManager is to find that out first and say so by name.
pub const LINK_SILENCE_MAX: Duration = Duration::from_secs(45);

/// Silence on a data connection after which the kernel asks whether the peer is there, so that a link that only receives
/// notices its end, too.
pub const LINK_KEEPALIVE: Duration = Duration::from_secs(10);

/// How long the slots may take to leave when the process is told to stop.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Wait before the first attempt to find a JobManager again.
pub const RECONNECT_MIN: Duration = Duration::from_millis(100);

/// Longest wait between two attempts. Low, because detection and restart of a job wait for it.
pub const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// How long a JobManager may take to answer a registration.
pub const REGISTER_MAX: Duration = Duration::from_secs(5);

/// Fewest connections of a slot that are worth starting with when locked memory is short: a slot of one TaskManager and
/// two of another, both ways.
pub const CONNECTIONS_MIN: u32 = 4;

/// Most slots of one TaskManager.
pub const SLOTS_MAX: u32 = 64;

/// Events of the control thread's own tasks that may wait for it: messages of the JobManager, mostly.
pub const SHELL_EVENTS_MAX: usize = 1024;

/// Events of all slots that may wait for the control thread. A slot whose events do not fit keeps them and steps nothing
/// until they do.
pub const SLOT_EVENTS_MAX: usize = 4096;

/// Longest time without looking at deadlines.
pub const TICK: Duration = Duration::from_millis(100);

/// Threads for sources that must block, per TaskManager.
pub const READER_THREADS: usize = 4;

/// Largest state object that is read back in one piece.
pub const STATE_OBJECT_BYTES_MAX: u64 = 16 << 30;

/// Least time between two lines in the log about strangers at the data port: a port scan must not fill the disk.
pub const STRANGER_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Time between two reports of latencies to the JobManager: slots hand over what they recorded about as often.
pub const LATENCY_REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Shortest interval of a latency log. Slots hand over what they recorded once a second, so a shorter one would be empty.
pub const LATENCY_LOG_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Longest interval of a latency log.
pub const LATENCY_LOG_INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// Intervals that may wait to be written. When the disk is slower, the next one is as long as it takes.
pub const LATENCY_LOG_WAITING_MAX: usize = 4;

/// How long the last interval of a latency log may take to be written when the process ends.
pub const LATENCY_LOG_END_MAX: Duration = Duration::from_secs(2);

const _: () = assert!(LATENCY_LOG_INTERVAL_MIN.as_nanos() >= METRICS_INTERVAL_NS as u128);
// The histograms of a slot are those that the control protocol carries.
const _: () = assert!(
    slot::HISTOGRAM_LOW_NS == rpc::HISTOGRAM_LOW_NS
        && slot::HISTOGRAM_HIGH_NS == rpc::HISTOGRAM_HIGH_NS
        && slot::HISTOGRAM_DIGITS == rpc::HISTOGRAM_DIGITS
);
// What a slot may hand in inline, an acknowledgement can carry.
const _: () = assert!(INLINE_STATE_MAX <= tidegate_rpc::limits::INLINE_STATE_BYTES_MAX);
const _: () = assert!(FILE_BUFFER_BYTES >= FILE_BUFFER_MIN);
const _: () = assert!(FILE_BUFFERS_PER_SLOT > 2);
const _: () = assert!(FILES_OPEN_MAX > 4 * FILE_BUFFERS_PER_SLOT);
const _: () = assert!(STAGING_BUFFER_BYTES.is_power_of_two() && STAGING_BUFFER_BYTES <= 1 << 20);
// The mailbox of a slot takes a final event for each file, a word about free buffers, and commands beside them.
const _: () = assert!(COMMANDS_MAX >= 2 * FILES_OPEN_MAX);
const _: () = assert!(LINK_SILENCE_MAX.as_millis() > CANCEL_MAX.as_millis() + TICK.as_millis());
const _: () = assert!(2 * LINK_KEEPALIVE.as_millis() < LINK_SILENCE_MAX.as_millis());
const _: () = assert!(TICK.as_millis() < CANCEL_MAX.as_millis());
const _: () = assert!(RECONNECT_MIN.as_millis() < RECONNECT_MAX.as_millis());
