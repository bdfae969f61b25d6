//! Every named bound of this crate, with its reason; relations between bounds are asserted below.
//!
//! Owns no state. Whoever needs a new bound adds it here, so that one page answers "how much at most?".

/// Records a task may take in before it gives the slot back. At 12 ns a record this is about 0.2 ms,
/// the longest one task may keep its neighbours and the network waiting.
pub const QUANTUM_RECORDS: u32 = 16_384;

/// Payload bytes a task may take in before it gives the slot back: eight default segments. Half as much means twice as many
/// trains of half the size, which costs the sender of the benchmark of pairs a tenth of its processor time.
pub const QUANTUM_BYTES: u64 = 256 * 1024;

/// Snapshot bytes written by one step, so that a snapshot never stalls a slot for its whole state.
pub const SNAPSHOT_STEP_BYTES: u64 = 256 * 1024;

/// Snapshot bytes read back by one restore step.
pub const RESTORE_STEP_BYTES: u64 = 1024 * 1024;

/// Bytes after which a frame of a state file is closed: the unit of snapshot work between two looks at the budget.
pub const FRAME_BYTES: usize = 32 * 1024;

/// Bytes of one key and its state in a snapshot. It is built in memory before it is written.
pub const STATE_ENTRY_MAX: usize = 16 * 1024 * 1024;

/// Outputs a push-style function may emit for one input unless it declares another bound.
pub const FAN_OUT_DEFAULT: u32 = 16;

/// The largest fan-out a function may declare: its outputs are held in memory until they are drained.
pub const FAN_OUT_MAX: u32 = 65_536;

/// Bytes of inline state (a source position, a sink's file counter) one operator may put in a snapshot.
pub const INLINE_STATE_MAX: usize = 64 * 1024;

/// Bytes one sink item may take in its file; a sink is written to only when it has this much room.
pub const SINK_ITEM_MAX: usize = 64 * 1024;

/// Smallest file buffer an implementation of `Files` may hand out.
pub const FILE_BUFFER_MIN: usize = 128 * 1024;

/// Items in one batch that a blocking reader fills: enough to hide a thread hand-off (about 10 us).
pub const POOL_BATCH_ITEMS: usize = 1024;

/// Batches of one blocking reader that exist at a time: one being read, one being filled, one in between.
pub const POOL_BATCHES: usize = 3;

/// Readers that may wait for a thread of the blocking pool at once.
pub const POOL_QUEUE_MAX: usize = 4096;

/// Commands that may wait for a slot. A JobManager sends a handful per checkpoint and attempt.
pub const COMMANDS_MAX: usize = 1024;

/// Channels from which on their segments are no longer all in the cache when it is their turn: 64 of 4 KiB are 256 KiB.
pub const CHANNELS_SCATTERED: u32 = 64;

/// How many turns before its own the next place of a channel is asked for, where they are scattered.
pub const CHANNELS_AHEAD: u32 = 8;

/// Commands a slot takes in per turn, so that a flood of them does not stall records.
pub const COMMANDS_PER_TURN: usize = 64;

/// Events that may wait for the control side before the slot stops making new ones: it then steps no task.
pub const EVENTS_WAITING_MAX: usize = 4096;

/// How often a slot reports what it counted, in nanoseconds.
pub const METRICS_INTERVAL_NS: u64 = 1_000_000_000;

/// Shortest time over which is said how a task spends its time, in nanoseconds: of less, a few steps would be the whole.
pub const RATES_INTERVAL_NS: u64 = 500_000_000;

/// How often a task that has no room looks who holds it up, in nanoseconds: a look visits every channel, so at 10,000 of them
/// and some 2 ns each this is a part in five hundred of its time.
pub const HOLDUP_INTERVAL_NS: u64 = 10_000_000;

/// How long a slot may have unfinished tasks of which none can step and none waits for the outside before it prints
/// what each of them waits for, in nanoseconds. Other slots may be busy all that time, so it is no proof of a deadlock.
pub const STALL_REPORT_NS: u64 = 30_000_000_000;

/// How long before a punctual pause ends its slot does not sleep any more, in nanoseconds: a timer's wake-up takes some 35 us
/// here, and less than 55 in all but one of a hundred.
pub const PUNCTUAL_LEAD_NS: u64 = 60_000;

/// For how long a slot that ran out of work spins before it sleeps, where that has paid lately, in nanoseconds: about as
/// long as a sleep and its wake-up take, so it costs at most twice what the better of both does.
pub const SPIN_NS: u64 = 50_000;

/// Pauses for which a slot spins in vain after one in which that paid: at one hit in five it costs what it saves.
pub const LUCK_PER_HIT: u8 = 5;

/// Most of them, however often it paid.
pub const LUCK_MAX: u8 = 20;

/// Pauses after which a slot spins once to see whether it would pay: in vain, that is 3 us a pause.
pub const TRIAL_EVERY: u8 = 16;

/// How soon a slot that could not hand on its events tries again, in nanoseconds.
pub const EVENTS_RETRY_NS: u64 = 1_000_000;

const _: () = assert!(COMMANDS_PER_TURN <= COMMANDS_MAX, "a turn takes in no more than there can be");
const _: () = assert!(METRICS_INTERVAL_NS < STALL_REPORT_NS, "metrics come before a stall is reported");
const _: () =
    assert!(RATES_INTERVAL_NS < METRICS_INTERVAL_NS, "each report says how time was spent since the last");
const _: () = assert!(FILE_BUFFER_MIN >= 2 * SINK_ITEM_MAX, "a sink item must fit a fresh file buffer");
const _: () = assert!(FAN_OUT_DEFAULT <= FAN_OUT_MAX, "the default fan-out must be a legal fan-out");
const _: () = assert!(POOL_BATCHES >= 2, "a reader needs one batch to read while another is filled");
const _: () =
    assert!(FRAME_BYTES + STATE_ENTRY_MAX <= u32::MAX as usize, "a frame states its length in 32 bits");
const _: () = assert!(SNAPSHOT_STEP_BYTES >= FILE_BUFFER_MIN as u64, "a snapshot step must fill a buffer");
