//! Every bound of the wire format, with its reason. No state.
//!
//! Always true: a manifest fits one segment of the smallest size, a train's payload bytes fit a `u32`, and no
//! sum of admitted lengths can overflow the integer it is kept in (asserted below).

/// Bytes of the header of a train (W-14).
pub const HEADER_LEN: usize = 64;
/// Bytes of one manifest entry (W-22).
pub const ENTRY_LEN: usize = 32;
/// Most entries of one manifest (W-15): 16 payloads and the control of 48 channels; one scattered receive of 2 KiB.
pub const ENTRIES_MAX: usize = 64;
/// Most data entries, hence payloads, of one train (W-15): with the manifest they stay within one gather list.
pub const PAYLOADS_MAX: usize = 16;
/// Most bytes of a manifest: the header and [`ENTRIES_MAX`] entries.
pub const MANIFEST_MAX: usize = HEADER_LEN + ENTRY_LEN * ENTRIES_MAX;

/// Smallest segment that two ends may agree on, in bytes (W-7).
pub const SEGMENT_MIN: u32 = 4 * 1024;
/// Largest segment that two ends may agree on, in bytes (W-7).
pub const SEGMENT_MAX: u32 = 1024 * 1024;
/// Most bytes of one payload (W-15): it is received into one segment, and the agreed segment size is the tighter bound; or it
/// is a slice, received into the region of its record.
pub const PAYLOAD_MAX: u32 = SEGMENT_MAX;
/// Most payload bytes of one train (W-15).
pub const TRAIN_PAYLOAD_MAX: u64 = PAYLOADS_MAX as u64 * PAYLOAD_MAX as u64;
/// Most bytes of one record that travels in slices (W-15): the receiver holds it whole, in one piece, before anybody sees it.
/// 16 MiB of content, and a page for what its format puts around it.
pub const RECORD_MAX: u32 = 16 * 1024 * 1024 + 4096;
/// Most credits in one grant or resume (W-15): a shard of 1 GiB has no more segments of the smallest size.
pub const CREDITS_MAX: u32 = (1 << 30) / SEGMENT_MIN;
/// Most channels of one link (W-7): a slot pair has one channel per edge between its tasks; this is far beyond any job.
pub const CHANNELS_MAX: u32 = 1 << 16;

/// Bytes of the consumer's hello (W-5).
pub const HELLO_LEN: usize = 128;
/// Bytes of the producer's reply (W-8).
pub const HELLO_REPLY_LEN: usize = 32;

const _: () =
    assert!(PAYLOADS_MAX < ENTRIES_MAX, "a full load of payloads must leave room for control entries");
const _: () =
    assert!(MANIFEST_MAX <= SEGMENT_MIN as usize, "a manifest is built in, and received into, one segment");
const _: () = assert!(
    TRAIN_PAYLOAD_MAX <= u32::MAX as u64,
    "payload bytes of a train are summed in 32 bits by drivers"
);
const _: () = assert!(RECORD_MAX >= PAYLOAD_MAX, "a record that fits one payload is never too large");
const _: () = assert!(RECORD_MAX as u64 + PAYLOAD_MAX as u64 <= u32::MAX as u64, "offset + len cannot wrap");
const _: () = assert!(SEGMENT_MIN.is_power_of_two() && SEGMENT_MAX.is_power_of_two());
