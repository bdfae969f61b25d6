//! What the words of a page mean: what one side of a connection says to the other. No state.
//!
//! The owner writes, the peer reads. Always, of an honest owner: `takes` of one side ≤ `sends` of the other ≤ `takes` + 1;
//! the list is written only while they are equal; `state` never goes down. Words that are written at different times by
//! different loops lie on lines of their own.

/// What the first word holds.
pub(crate) const VERSION: u64 = 0x7469_6465_6761_0002;

pub(crate) const MAGIC: usize = 0;
/// Sends published so far; the list below is that of the last one.
pub(crate) const SENDS: usize = 16;
/// Sends of the peer that were taken whole.
pub(crate) const TAKES: usize = 32;
/// Odd while the owner sleeps or is about to.
pub(crate) const SLEEP: usize = 48;
/// How far the owner's end has come: one of the values below.
pub(crate) const STATE: usize = 64;
/// Pieces of the last send.
pub(crate) const PIECES: usize = 80;
/// The pieces: offset in the owner's arena and length, alternately.
pub(crate) const LIST: usize = 82;

/// Sends may come.
pub(crate) const OPEN: u64 = 0;
/// No send comes after those published.
pub(crate) const ENDED: u64 = 1;
/// Closed: nothing comes, and nothing is taken.
pub(crate) const CLOSED: u64 = 2;
/// Closed with a send that was not taken, whose memory is used for something else already.
pub(crate) const ABORTED: u64 = 3;

const _: () = assert!(LIST + 2 * crate::limits::PARTS_MAX <= tidegate_arena::shared::Words::COUNT);
