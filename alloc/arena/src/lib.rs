//! The memory that records travel in: one fixed arena per process, off the heap, cut into equal segments.
//!
//! A slot owns a [`Shard`] and acquires segments from it; every thread may release. A [`Segment`] is a handle whose type
//! is the state of the segment, so that what the kernel holds has no readable bytes and what is shared has no writable
//! ones. The [`Ledger`] tells at any moment who holds each segment and since when. Two small cross-thread parts that the
//! local channels need live here too, because they are checked by the same models: [`spsc`] and [`sleep`].
//!
//! Nothing is allocated after [`Arena::map`], except by [`Arena::export`].
//!
//! ```text
//! sender:    Free → Filling → Sealed → InFlight → Sealed → Free
//! receiver:  Free → Granted → Receiving → Granted → Shared → Free (or Granted again)
//! local:     Free → Filling → Sealed → Shared → Free
//! ```
//!
//! # Safety
//!
//! Every unsafe block of this crate names the rules it relies on.
//!
//! 1. **The mapping outlives its users.** It lives as long as any [`Arena`] clone. Bytes are borrowed from an `Arena`, a
//!    ring holds a clone, and the last clone unmaps (or frees) only if no segment is in the kernel's hands; otherwise it leaks.
//! 2. **Segments lie inside the mapping and are disjoint.** Offsets are computed once, checked once against the mapped
//!    length, and never change.
//! 3. **Handles are references.** A handle comes from the free list (making the count 1) or from sharing (adding 1);
//!    it cannot be cloned, copied or made from outside. Moves consume it. So handles = the count, and a free segment
//!    has none. A handle is only accepted by the arena whose number it carries, and a number is reused only after an
//!    arena that ended with every segment free.
//! 4. **`Filling`, `Granted` and `Receiving` have exactly one handle.** They cannot be shared. A mutable slice borrows
//!    that handle exclusively, so no other slice of the segment exists. A [`Draft`] owns such a handle together with the
//!    address it was checked for; nothing can move the segment on while the draft has its handle.
//! 5. **`Sealed`, `InFlight` and `Shared` are frozen.** Nobody writes the bytes or the length until the count is back
//!    to 0, or is 1 and its holder reopens the segment.
//! 6. **The kernel's hands.** `InFlight` gives a pointer for reading and no release; `Receiving` gives a pointer for
//!    writing, no slice and no release. Only the driver calls `land` and `unpost`, after the completion, or with a
//!    zero-copy send after its notification. This is the one rule that the types cannot enforce by themselves: a driver
//!    that gives a handle back early is as wrong as one that passes the kernel another pointer.
//! 7. **Reuse comes after every use.** Giving up a reference releases, the last one acquires; pushing on the return stack
//!    releases, taking it acquires. So all accesses of former holders happen before the next `acquire`. Checked by the
//!    models in `tests/`, in which every access to a segment's bytes also touches a tracked cell.
//! 8. **A place of a queue has one side at a time.** Filled places belong to the consumer and empty ones to the
//!    producer; the release store and acquire load of `tail` and `head` hand them over, and `consumer_gone` hands all of
//!    them back to the producer.
//! 9. **Bytes are initialised.** Memory is zeroed at first, and every value of a byte is valid. A reused segment shows
//!    what was in it: whoever seals or receives a length vouches for those bytes.
//! 10. **A run is one segment.** Its handle is that of its first segment, whose capacity is the whole run; segments of one
//!     shard lie side by side, so these bytes are contiguous and inside the mapping. The others are `Joined`: each has one
//!     reference and no handle, so nobody else can reach their bytes, until the run's last reference is given up and its
//!     home parts them.
//! 11. **Nobody else writes what we share.** The pages of a shared arena, and [`shared::Words`], belong to memory files
//!     made here, mapped writable once, by this process, and then sealed against shrinking, growing, every other writer
//!     (F_SEAL_FUTURE_WRITE) and further seals, before anybody is given them. So rules 4, 5 and 7, which speak of this
//!     process, hold for all. Peers read when they like; one that reads a segment in another state than in flight to it
//!     reads garbage, and has to find that out.
//! 12. **Foreign memory is loaded, never referred to.** What a peer shares may change at any moment, whatever it
//!     promised. To Rust it is memory outside of all its allocations: it is mapped read-only, reached through raw
//!     pointers, and only ever loaded from: by relaxed atomic loads of one or eight aligned bytes, or within an assembler
//!     block, of which the compiler knows only that it reads there. The standard library documents such loads as allowed
//!     on read-only memory on the targets named in `foreign`, and an atomic load, like one of the processor, can race with
//!     any store. Every value is valid for the integer loaded and means nothing until it was checked; it is loaded once, so
//!     what was checked is what is used. No load can fault: the range is checked against the length mapped, the file can
//!     neither shrink nor lose pages (sealed, and that is looked at), and it has ordinary pages, on which a hole reads as
//!     zero. Copies are made from pages that were there, so nobody makes us pay for a hole.

mod arena;
mod draft;
mod error;
#[cfg(feature = "tokio-uring")]
pub mod file_buffer;
#[cfg(not(any(miri, loom)))]
pub mod foreign;
mod ledger;
pub mod limits;
pub mod marks;
mod moves;
mod pool;
mod region;
mod run;
mod segment;
#[cfg(not(any(miri, loom)))]
pub mod shared;
pub mod sleep;
pub mod spsc;
mod sync;

pub use arena::{Arena, ArenaConfig, SegmentSize};
pub use draft::Draft;
pub use error::ArenaError;
pub use ledger::{HOLDER_KINDS, Holder, HolderKind, Ledger, LedgerEntry, STATES, State, Totals};
pub use pool::Shard;
pub use region::{HugePages, Pages, Region};
pub use segment::{
    Filling, Granted, InFlight, Readable, Receiving, Releasable, Sealed, Segment, SegmentState, Shared,
    Writable,
};
