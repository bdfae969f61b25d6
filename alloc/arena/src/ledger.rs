//! Who holds every segment, in which state and since when. Read at any moment by any thread; no locks, no allocation.
//!
//! The words are owned by the holder of the segment, who writes them with each change; a reader sees each word whole but
//! not all of them at one instant. So totals taken while slots run may be off by the segments that moved meanwhile;
//! taken while nothing runs they are exact.
//!
//! Always (at rest): free + held = segments, and a segment is free exactly if it has no references.

use std::fmt;

use crate::arena::Arena;
use crate::segment::{flights, references};
use crate::sync::Ordering;

/// The state of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// In its pool or on the way back to it.
    Free = 0,
    /// Being written.
    Filling,
    /// Written, waiting to be sent or delivered.
    Sealed,
    /// Read by the kernel.
    InFlight,
    /// Promised to a sender.
    Granted,
    /// Written by the kernel.
    Receiving,
    /// Received, read in place.
    Shared,
    /// Part of a run, which the segment at its head stands for.
    Joined,
}

/// Every state, in the order of their numbers.
pub const STATES: [State; 8] = [
    State::Free,
    State::Filling,
    State::Sealed,
    State::InFlight,
    State::Granted,
    State::Receiving,
    State::Shared,
    State::Joined,
];

/// What kind of holder a segment is charged to; each kind has its own quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum HolderKind {
    /// A channel's segment that records are being appended to.
    Filling = 0,
    /// Queued in a partition.
    Queued,
    /// Granted by a gate.
    Granted,
    /// A link's staging for the next manifest.
    Staging,
    /// A link's own manifest.
    Manifest,
    /// An operator that reads records in place.
    Operator,
    /// A snapshot being written.
    Snapshot,
    /// Bytes that left the slot.
    Export,
    /// A region for one record that is larger than a segment.
    Region,
    /// Anything else, tests for instance.
    Other,
}

/// Every kind of holder, in the order of their numbers.
pub const HOLDER_KINDS: [HolderKind; 10] = [
    HolderKind::Filling,
    HolderKind::Queued,
    HolderKind::Granted,
    HolderKind::Staging,
    HolderKind::Manifest,
    HolderKind::Operator,
    HolderKind::Snapshot,
    HolderKind::Export,
    HolderKind::Region,
    HolderKind::Other,
];

/// Whom a segment is charged to. With several references, the one that was written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Which quota.
    pub kind: HolderKind,
    /// Which one of that kind: a channel, gate, link or task number; its meaning is the holder's.
    pub id: u32,
}

impl Holder {
    /// The holder number `id` of `kind`.
    pub const fn new(kind: HolderKind, id: u32) -> Self {
        Self { kind, id }
    }
}

/// A segment's ledger word: holder id (32 bits), generation (16), state (8), holder kind (8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u64);

impl Word {
    pub(crate) fn new(generation: u16, state: State, holder: Holder) -> Self {
        let kind = holder.kind as u64;
        Self(u64::from(holder.id) << 32 | u64::from(generation) << 16 | (state as u64) << 8 | kind)
    }

    pub(crate) fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }

    pub(crate) fn state(self) -> State {
        STATES[usize::from((self.0 >> 8) as u8)]
    }

    pub(crate) fn holder(self) -> Holder {
        Holder { kind: HOLDER_KINDS[usize::from(self.0 as u8)], id: (self.0 >> 32) as u32 }
    }
}

/// One line of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Number of the segment in its arena.
    pub index: u32,
    /// Its home shard.
    pub shard: u16,
    /// Its state; `InFlight` if at least one reference is in the kernel's hands.
    pub state: State,
    /// Whom it is charged to; of a free segment, its last holder.
    pub holder: Holder,
    /// When state or holder last changed, on the clock of [`Arena::tick`], in milliseconds.
    pub since_ms: u64,
    /// References (handles). 0 if free.
    pub references: u32,
    /// References in flight. At most `references`.
    pub in_flight: u32,
}

/// A live view of who holds what.
///
/// ```
/// # use tidegate_arena::*;
/// # let config = ArenaConfig { segment_size: SegmentSize::DEFAULT, shards: vec![4], huge_pages: HugePages::Never };
/// let (arena, mut shards) = Arena::map(&config)?;
/// arena.tick(1_000);
/// let segment = shards[0].acquire(Holder::new(HolderKind::Filling, 7)).expect("four are free");
/// arena.tick(1_250);
/// let oldest = arena.ledger().oldest().expect("one is held");
/// assert_eq!((oldest.holder.id, arena.ledger().now_ms() - oldest.since_ms), (7, 250));
/// shards[0].release(segment);
/// assert!(arena.ledger().balanced());
/// # Ok::<(), ArenaError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ledger {
    arena: Arena,
}

impl Ledger {
    pub(crate) fn new(arena: Arena) -> Self {
        Self { arena }
    }

    /// The line of one segment.
    ///
    /// # Panics
    /// If the arena has no segment of that number.
    pub fn entry(&self, index: u32) -> LedgerEntry {
        let slot = &self.arena.inner().slots[index as usize];
        let word = Word(slot.word.load(Ordering::Relaxed));
        let counts = slot.counts.load(Ordering::Relaxed);
        LedgerEntry {
            index,
            shard: slot.shard,
            state: if flights(counts) > 0 { State::InFlight } else { word.state() },
            holder: word.holder(),
            since_ms: slot.since_ms.load(Ordering::Relaxed),
            references: references(counts),
            in_flight: flights(counts),
        }
    }

    /// The lines of all segments, in order of their numbers.
    pub fn entries(&self) -> impl Iterator<Item = LedgerEntry> + '_ {
        (0..self.arena.segments()).map(|index| self.entry(index))
    }

    /// The segment that has been held longest without a change.
    pub fn oldest(&self) -> Option<LedgerEntry> {
        self.entries().filter(|entry| entry.state != State::Free).min_by_key(|entry| entry.since_ms)
    }

    /// Segments per state and per kind of holder.
    pub fn totals(&self) -> Totals {
        let mut totals =
            Totals { segments: 0, by_state: [0; STATES.len()], by_holder: [0; HOLDER_KINDS.len()] };
        for entry in self.entries() {
            totals.segments += 1;
            totals.by_state[entry.state as usize] += 1;
            if entry.state != State::Free {
                totals.by_holder[entry.holder.kind as usize] += 1;
            }
        }
        totals
    }

    /// Whether every segment is free: true at rest, or something leaked.
    pub fn balanced(&self) -> bool {
        self.entries().all(|entry| entry.state == State::Free && entry.references == 0)
    }

    /// The ledger's clock: what [`Arena::tick`] was told last, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.arena.inner().clock_ms.load(Ordering::Relaxed)
    }
}

/// Segments counted by state and by kind of holder. Prints as one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// All segments of the arena.
    pub segments: u32,
    by_state: [u32; STATES.len()],
    by_holder: [u32; HOLDER_KINDS.len()],
}

impl Totals {
    /// Segments in `state`.
    pub fn state(&self, state: State) -> u32 {
        self.by_state[state as usize]
    }

    /// Segments charged to holders of `kind`, free ones not counted.
    pub fn holder(&self, kind: HolderKind) -> u32 {
        self.by_holder[kind as usize]
    }

    /// Free segments.
    pub fn free(&self) -> u32 {
        self.state(State::Free)
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} segments free", self.free(), self.segments)?;
        for state in STATES.into_iter().skip(1).filter(|state| self.state(*state) > 0) {
            write!(f, ", {} {state:?}", self.state(state))?;
        }
        let mut separator = "; held by";
        for kind in HOLDER_KINDS.into_iter().filter(|kind| self.holder(*kind) > 0) {
            write!(f, "{separator} {kind:?} {}", self.holder(kind))?;
            separator = ",";
        }
        Ok(())
    }
}
