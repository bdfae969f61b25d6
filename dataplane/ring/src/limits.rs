//! Every bound of this crate, with its reason, and how the bounds relate.
//!
//! Nothing here changes at run time. Reaching a bound is an error value when the ring is made or a connection attached,
//! a cheaper send mode while it runs, and never an allocation.

use std::time::Duration;

use tidegate_arena::shared::Words;

/// Most pieces of one gather or scatter: 16 payloads, the manifest in front, and room for staging behind.
pub const PARTS_MAX: usize = 20;
/// Most connections of one ring: what the completion queue of the kernel can hold at [`CQES_PER_CONNECTION`] each.
pub const CONNECTIONS_MAX: u32 = 4096;
/// Connections of one ring unless configured. Slots × peers of a middling cluster; costs about 100 KiB of locked memory.
pub const CONNECTIONS_DEFAULT: u32 = 256;
/// Most zero-copy sends of one connection that wait for their notification, the one in flight included. Four trains of
/// 512 KiB are the bandwidth-delay product of 100 Gb/s at 160 µs; beyond, sends are copied instead of waiting.
pub const NOTIFICATIONS_MAX: usize = 4;
/// Sends of one connection whose parts the driver may hold: those waiting for notifications, and the current one.
pub const SEND_SLOTS: usize = NOTIFICATIONS_MAX + 1;
/// Most completion queue entries one connection can be owed at once.
pub const CQES_PER_CONNECTION: u32 = 1 /* send */ + NOTIFICATIONS_MAX as u32 + 1 /* receive */ + 1 /* cancel */;
/// Completion queue entries owed besides connections: the doorbell's read, the poll of what is watched beside it, and
/// their cancellations at the end.
pub const CQES_FIXED: u32 = 4;
/// Submissions at once besides connections: the doorbell's read and the poll.
pub const SQES_FIXED: u32 = 2;
/// Smallest submission queue: a page of entries is allocated anyway.
pub const SQ_ENTRIES_MIN: u32 = 64;
/// Largest submission queue. A full one is handed to the kernel at once, so this only bounds the batch.
pub const SQ_ENTRIES_MAX: u32 = 1024;
/// The kernel's own bound on a completion queue.
pub const CQ_ENTRIES_KERNEL_MAX: u32 = 65_536;
/// The kernel's own bound on one registered buffer; one byte more is refused with EFAULT.
pub const REGISTERED_BYTES_MAX: usize = 1 << 30;
/// Smallest mean payload for which `auto` tries zero copy: below, the second completion costs more than the copy.
pub const ZERO_COPY_PAYLOAD_MIN: u64 = 16 << 10;
/// Usage reports over which zero copy is judged, first when probing and then again and again.
pub const ZERO_COPY_WINDOW: u32 = 16;
/// Zero copy is kept while fewer than this share of a window's sends were copied by the kernel after all.
pub const ZERO_COPY_COPIED_PERCENT: u32 = 10;
/// Registered and plain sends that are compared, of each: enough for a median on a machine that does other things as well.
pub const TRIALS_EACH: usize = 8;
/// Sends of one comparison at most, with those whose cost could not be told: short ones, and those that shared a call.
pub const TRIALS_MAX: u32 = 4 * TRIALS_EACH as u32;
/// Smallest send that is compared: below, the call costs more than the bytes.
pub const TRIAL_BYTES_MIN: u64 = 32 << 10;
/// What the other way must save before a connection changes to it: less is noise.
pub const TRIAL_GAIN_PERCENT: u64 = 5;
/// Large sends between one trial and the next at least. A comparison is at most 32 sends at a few percent more each, and
/// two copied zero-copy sends cost a few times a plain one: together far below one percent of so many.
pub const TRIAL_REST_MIN: u32 = 4096;
/// Large sends between two trials at most, after doubling: about every few minutes at full rate.
pub const TRIAL_REST_MAX: u32 = 1 << 22;
/// Times in a row that one send or receive may end without progress (interrupted) before it is reported as a fault.
pub const RETRIES_MAX: u8 = 16;
/// How long dropping a ring waits for the kernel to return everything before the arena is leaked instead. Cancelling
/// takes microseconds; this is for a kernel that does not answer.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Events that one call of epoll brings at most; what is left comes with the next. Most slots have fewer connections.
pub const EVENTS_MAX: usize = 256;
/// Turns of a busy ring between two looks for peers of shared memory that have hung up. Each is a system call; a slot
/// that has nothing to do looks whenever it wakes.
pub const HANG_UP_TURNS: u32 = 64;
/// How long a slot with nothing to do looks at shared memory before it sleeps, while a peer that it waits for is awake:
/// about what a sleep and the wake-up from it cost, so looking costs at most twice what was best.
pub const SPIN_NS: u64 = 15_000;
/// Looks between two readings of the clock meanwhile.
pub const SPIN_LOOKS: u32 = 32;
/// Files that one side of shared memory shows the other: its words and its arena.
pub const SHOWN_FILES: usize = 2;
/// What a user looks like that a user namespace does not map, where the kernel does not say.
pub const OVERFLOW_USER: u32 = 65_534;
/// Bytes of the words that a peer shows: exactly these.
pub const WORDS_BYTES: u64 = (Words::COUNT * size_of::<u64>()) as u64;
/// Most bytes of a peer's arena: what an arena of this product can have.
pub const FOREIGN_ARENA_BYTES_MAX: u64 = tidegate_arena::limits::FOREIGN_BYTES_MAX;
/// Bytes of wake-ups taken off a control socket at once. A peer sends one for each sleep of ours.
pub const WAKES_MAX: usize = 64;
/// Longest single wait. A time in seconds that does not fit the kernel's signed number would be refused.
pub const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Connections that may wait in a listening socket's queue.
pub const LISTEN_BACKLOG: i32 = 1024;

const _: () = assert!(PARTS_MAX <= 1024, "the kernel takes at most 1024 pieces per operation");
const _: () = assert!(PARTS_MAX * (1 << 20) < i32::MAX as usize, "the bytes of one operation fit its result");
const _: () = assert!(SEND_SLOTS <= 16, "a slot number fits its four bits of the token");
const _: () = assert!(CONNECTIONS_MAX <= 1 << 24, "a connection's index fits its 24 bits of the token");
const _: () = assert!(CONNECTIONS_DEFAULT <= CONNECTIONS_MAX);
const _: () = assert!(
    CONNECTIONS_MAX * CQES_PER_CONNECTION + CQES_FIXED <= CQ_ENTRIES_KERNEL_MAX,
    "whatever is owed fits the completion queue, so it never overflows"
);
const _: () = assert!(SQ_ENTRIES_MIN <= SQ_ENTRIES_MAX && SQ_ENTRIES_MAX.is_power_of_two());
const _: () =
    assert!(ZERO_COPY_WINDOW * ZERO_COPY_COPIED_PERCENT >= 100, "one copied send does not condemn a path");
const _: () = assert!(TRIAL_REST_MIN.is_power_of_two() && TRIAL_REST_MIN <= TRIAL_REST_MAX);
const _: () = assert!(TRIAL_REST_MAX <= u32::MAX / 2, "doubling it does not wrap");
const _: () = assert!(TRIAL_REST_MIN >= 100 * TRIALS_MAX, "trials are below one percent of the sends");
const _: () = assert!(TRIALS_EACH > 0 && TRIALS_MAX as usize >= 2 * TRIALS_EACH);
const _: () = assert!(RETRIES_MAX > 0);

/// Completion queue entries that a ring for `connections` needs. At most [`CQ_ENTRIES_KERNEL_MAX`] for valid input.
pub const fn completions_bound(connections: u32) -> u32 {
    connections * CQES_PER_CONNECTION + CQES_FIXED
}

/// Entries of the submission and the completion queue of a ring for `connections`.
pub const fn queue_entries(connections: u32) -> (u32, u32) {
    let wanted = (2 * connections + SQES_FIXED).next_power_of_two();
    let entries = if wanted < SQ_ENTRIES_MIN {
        SQ_ENTRIES_MIN
    } else if wanted > SQ_ENTRIES_MAX {
        SQ_ENTRIES_MAX
    } else {
        wanted
    };
    let completions = completions_bound(connections).next_power_of_two();
    (entries, if completions > 2 * entries { completions } else { 2 * entries })
}

/// Bytes of locked memory that a ring for `connections` needs: 64 per submission, 16 per completion, and a page of heads
/// and tails.
pub const fn ring_bytes(connections: u32) -> u64 {
    let (entries, completions) = queue_entries(connections);
    entries as u64 * 64 + completions as u64 * 16 + 4096
}
