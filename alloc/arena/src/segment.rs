//! Segments as typed states: the only handle to a piece of the arena, moved from state to state.
//!
//! A handle owns one reference to its segment; the words behind it ([`Slot`]) are owned by the pool. A handle has no
//! `Drop`: whoever holds one gives it on or releases it, and the ledger shows one that was lost.
//!
//! Always: a handle is 8 bytes; for each segment, handles = the reference count in its slot; a handle in `Filling`,
//! `Granted` or `Receiving` is the only one of its segment.

use std::fmt;
use std::marker::PhantomData;

use crate::ledger::State;
use crate::sync::{AtomicU32, AtomicU64, Shadow};

mod sealed {
    pub trait Sealed {}
}

/// A state a segment can be in. Implemented by the seven marker types of this module and by nothing else.
pub trait SegmentState: sealed::Sealed + Send + Sync + 'static {
    /// The state as the ledger names it.
    const STATE: State;
    /// States of the ledger in which a handle of this type may find its segment, as bits. References to one sealed
    /// segment may differ in type (one queued, one in flight, one delivered to a local consumer).
    #[doc(hidden)]
    const ADMITS: u32 = 1 << Self::STATE as u32;
}

/// States whose bytes can be read: all of them in `Filling`, the sealed or received length in `Sealed` and `Shared`.
pub trait Readable: SegmentState {}
/// States whose bytes can be written, the whole segment.
pub trait Writable: SegmentState {}
/// States in which a handle may be given back. Not those in which the kernel holds the segment.
pub trait Releasable: SegmentState {}

const FROZEN: u32 = 1 << State::Sealed as u32 | 1 << State::Shared as u32;

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident $admits:expr => $($capability:ident)*;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}
        impl sealed::Sealed for $name {}
        impl SegmentState for $name {
            const STATE: State = State::$name;
            const ADMITS: u32 = $admits;
        }
        $(impl $capability for $name {})*
    )*};
}

states! {
    /// Being written by its only holder.
    Filling 1 << State::Filling as u32 => Readable Writable Releasable;
    /// Written; its length is fixed. May have several references, each with its own handle.
    Sealed FROZEN => Readable Releasable;
    /// The kernel reads it: until the completion (or the zero-copy notification) it can be neither read nor released here.
    InFlight FROZEN => ;
    /// Promised to a sender as credit, and empty.
    Granted 1 << State::Granted as u32 => Writable Releasable;
    /// The kernel may write it: no bytes are readable, and only the completion gives it back.
    Receiving 1 << State::Receiving as u32 => ;
    /// Received, from the network or from a local producer; read in place. May have several references.
    Shared FROZEN => Readable Releasable;
}

/// A handle to one segment of an [`Arena`](crate::Arena), in state `S`. Eight bytes, moved, never copied.
///
/// It holds no pointer: bytes and transitions are methods of the arena, which checks that the handle is its own.
#[must_use = "a segment that is dropped is lost to its pool: release it"]
pub struct Segment<S> {
    pub(crate) index: u32,
    pub(crate) arena: u16,
    pub(crate) generation: u16,
    pub(crate) state: PhantomData<S>,
}

const _: () = assert!(size_of::<Segment<Filling>>() == 8);
const _: () = assert!(size_of::<Option<Segment<Filling>>>() <= 12);

impl<S> Segment<S> {
    /// Number of the segment in its arena, for tables and reports: `0..Arena::segments()`.
    #[inline]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The same reference in another state. Only the arena calls this, right after it changed the slot.
    #[inline]
    pub(crate) fn cast<T>(self) -> Segment<T> {
        Segment { index: self.index, arena: self.arena, generation: self.generation, state: PhantomData }
    }
}

impl<S: SegmentState> fmt::Debug for Segment<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment<{:?}>({}#{} of arena {})", S::STATE, self.index, self.generation, self.arena)
    }
}

/// The words of one segment. One cache line each, because neighbours belong to different threads.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct Slot {
    /// Generation, state and holder, packed by `ledger::Word`.
    pub(crate) word: AtomicU64,
    /// When the state or holder last changed, in milliseconds of [`Arena::tick`](crate::Arena::tick).
    pub(crate) since_ms: AtomicU64,
    /// Low half: references. High half: those of them that the kernel is reading.
    pub(crate) counts: AtomicU64,
    /// Bytes sealed or received.
    pub(crate) len: AtomicU32,
    /// Bytes there is room for: one segment's, or of the head of a run all of the run's. Changes only while the segment
    /// is free, in its home's hands.
    pub(crate) capacity: AtomicU32,
    /// Next segment on the return stack, while this one is on it.
    pub(crate) next: AtomicU32,
    /// Home shard. Never changes.
    pub(crate) shard: u16,
    pub(crate) shadow: Shadow,
    /// Distance of the segment's bytes from the start of the mapping. Never changes.
    pub(crate) offset: usize,
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Slot>() == 64);

/// One reference in `Slot::counts`.
pub(crate) const REFERENCE: u64 = 1;
/// One reference in flight in `Slot::counts`.
pub(crate) const FLIGHT: u64 = 1 << 32;

pub(crate) fn references(counts: u64) -> u32 {
    counts as u32
}

pub(crate) fn flights(counts: u64) -> u32 {
    (counts >> 32) as u32
}
