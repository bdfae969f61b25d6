//! The named bounds of the control protocol. Nobody else defines one for it.
//!
//! Always: one inline state fits a message many times over, and a frame header fits a gRPC message.

/// Version of the messages in this crate; both ends must speak the same one.
pub const PROTOCOL_VERSION: u16 = 1;

/// Largest encoded message, header included, in bytes. A `Prepare` names every key group of every task of a
/// TaskManager (about 24 bytes each, 32,768 groups at most per operator), so a few MiB are normal.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// Bytes in front of the postcard body: magic, version, epoch.
pub const FRAME_HEADER_BYTES: usize = 4 + 2 + 8;

/// Largest state an operator may carry inside its acknowledgement (source positions), in bytes.
pub const INLINE_STATE_BYTES_MAX: usize = 64 << 10;

/// Messages one side may queue towards the other before it is considered stuck. A TaskManager's answers to
/// one command are at most its tasks plus its slots; this is far above that.
pub const QUEUE_MESSAGES_MAX: usize = 4096;

/// Most slots a TaskManager may offer.
pub const SLOTS_PER_TASKMANAGER_MAX: u32 = 1024;

/// Longest text (cause, host, reason) that is kept, in bytes; longer ones are cut by the sender.
pub const TEXT_BYTES_MAX: usize = 8 << 10;

/// The shortest time that a latency histogram tells from nothing, in nanoseconds.
pub const HISTOGRAM_LOW_NS: u64 = 100;

/// The longest.
pub const HISTOGRAM_HIGH_NS: u64 = 60_000_000_000;

/// Digits that are kept.
pub const HISTOGRAM_DIGITS: u8 = 2;

/// Largest encoded histogram, in bytes: a head, and at most nine for each of its 3,072 counters.
pub const HISTOGRAM_BYTES_MAX: usize = 40 + 9 * 3_072;

/// Most counts of a histogram: a billion per second for three days. More are a lie, and sums of fewer cannot overflow.
pub const HISTOGRAM_COUNT_MAX: u64 = 1 << 48;

/// Ends of edges in one report. What else has something to report does so in the next message.
pub const REPORT_EDGES_MAX: usize = 256;

/// How long dialling a JobManager may take, and then opening the stream, in milliseconds.
pub const CONNECT_TIMEOUT_MS: u64 = 5_000;

/// Silence on a connection after which either end asks whether the other is there, in milliseconds.
pub const KEEPALIVE_INTERVAL_MS: u64 = 500;

/// How long the answer may take before the connection is given up, in milliseconds. A host that vanishes ends no
/// connection: without this, a TaskManager would wait for its JobManager as long as the kernel repeats a heartbeat.
pub const KEEPALIVE_TIMEOUT_MS: u64 = 1_500;

/// Pause after a connection that could not be taken, in milliseconds: one line in the log a second, while a TaskManager that
/// waits to be let in does not lose a chance to.
pub const ACCEPT_RETRY_MS: u64 = 1_000;

/// Bytes of the largest record that a TaskManager may state, or be told: what the wire carries in slices.
pub const RECORD_BYTES_MAX: u32 = (16 << 20) + 4096;

/// Bytes of the smallest segment there is.
pub const SEGMENT_BYTES_MIN: u32 = 4096;

const _: () = assert!(KEEPALIVE_INTERVAL_MS < KEEPALIVE_TIMEOUT_MS);
const _: () = assert!(INLINE_STATE_BYTES_MAX * 64 < MESSAGE_BYTES_MAX);
const _: () = assert!(FRAME_HEADER_BYTES < MESSAGE_BYTES_MAX);
// An end of an edge has three histograms at most.
const _: () = assert!(REPORT_EDGES_MAX * (3 * (HISTOGRAM_BYTES_MAX + 8) + 64) < MESSAGE_BYTES_MAX);
const _: () = assert!(QUEUE_MESSAGES_MAX >= 4 * SLOTS_PER_TASKMANAGER_MAX as usize);

/// Cuts `text` to [`TEXT_BYTES_MAX`] at a character boundary.
pub fn clip(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let mut end = TEXT_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}
