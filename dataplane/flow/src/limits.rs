//! The bounds of this crate, with their reasons.

use tidegate_wire::{ENTRIES_MAX, PAYLOADS_MAX};

/// Credits one channel can hold at most: a grant is a `u32` on the wire, but a channel can never own more segments than the
/// largest arena has, and a bound far below `u32::MAX` lets every sum be checked without wrapping.
pub const CREDITS_MAX: u32 = 1 << 24;

/// Segments granted ahead of a stated backlog, at most, so that a busy channel does not wait a round trip for each segment.
pub const AHEAD_MAX: u32 = 32;

/// Undelivered events (barriers, markers, ends) of one channel, counted by its sender. Four: one barrier, its abort marker,
/// end of data and end of partition can all wait at once; a fifth would mean that a barrier was started before the one
/// before it ended.
pub const EVENTS_MAX: usize = 4;

/// Bytes of payloads after which a receive op takes no further one. What it brings is read before the next is posted, and so
/// from the cache: of a whole train half would be out of it again.
pub const RECEIVE_BYTES: u32 = 128 << 10;

/// Places one receive op is scattered to: the payloads of one train and the staging area.
pub const PLACES_MAX: usize = PAYLOADS_MAX + 1;

const _: () = assert!(PAYLOADS_MAX <= ENTRIES_MAX, "every payload has an entry");
const _: () = assert!(AHEAD_MAX < CREDITS_MAX);
