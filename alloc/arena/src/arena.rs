//! The arena itself: its configuration, its parts, and what can be asked about them.
//!
//! Owns the mapping and one [`Slot`] per segment. Clones share both; the last one unmaps, unless a segment is still in
//! the kernel's hands, in which case the memory stays for ever: what the kernel may still write is never given back.
//!
//! Always: segment `i` occupies `offset(i)..offset(i) + segment_size` of the mapping, segments are disjoint, and those
//! of one shard are contiguous. An arena's number is not given to another arena while a handle of the first can exist.

use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use crate::error::ArenaError;
use crate::ledger::{Holder, HolderKind, Ledger, State, Word};
use crate::limits;
use crate::pool::{self, Shard};
use crate::region::{self, HugePages, Mapping, Pages, Region};
use crate::segment::{Segment, Slot, flights};
use crate::sync::{Arc, AtomicU32, AtomicU64, Ordering, Shadow};

/// A valid segment size: a power of two from 4 KiB to 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// 32 KiB.
    pub const DEFAULT: Self = Self(limits::SEGMENT_BYTES_DEFAULT);

    /// Checks `bytes`.
    pub fn new(bytes: u32) -> Result<Self, ArenaError> {
        let allowed = limits::SEGMENT_BYTES_MIN..=limits::SEGMENT_BYTES_MAX;
        if bytes.is_power_of_two() && allowed.contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(ArenaError::SegmentSize { found: bytes })
        }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }
}

impl Default for SegmentSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What an arena consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaConfig {
    /// Size of every segment.
    pub segment_size: SegmentSize,
    /// Segments in each shard; one shard per slot.
    pub shards: Vec<u32>,
    /// Which pages to ask for.
    pub huge_pages: HugePages,
}

/// The arena. Cloning is cheap; all clones are the same arena.
///
/// ```
/// use tidegate_arena::*;
/// # fn main() -> Result<(), ArenaError> {
/// let config = ArenaConfig { segment_size: SegmentSize::new(4096)?, shards: vec![8], huge_pages: HugePages::Auto };
/// let (arena, mut shards) = Arena::map(&config)?;
/// let mut filling = shards[0].acquire(Holder::new(HolderKind::Filling, 0)).expect("eight are free");
/// arena.bytes_mut(&mut filling)[..5].copy_from_slice(b"hello");
/// let sealed = arena.seal(filling, 5);
/// let received = arena.deliver(sealed); // in place: the consumer reads what the producer wrote
/// assert_eq!(arena.bytes(&received), b"hello");
/// arena.release(received);
/// assert_eq!(shards[0].free(), 8);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Arena(Arc<Inner>);

/// What the home and the releasing threads of one shard share.
#[repr(align(128))]
pub(crate) struct Home {
    /// Top of the stack of segments returned by other threads, or `pool::NONE`.
    pub(crate) returned: AtomicU32,
    pub(crate) segments: Range<u32>,
}
const _: () = assert!(align_of::<Home>() == limits::CONTENTION_BYTES);

pub(crate) struct Inner {
    pub(crate) id: u16,
    pub(crate) segment_bytes: usize,
    mapping: Mapping,
    pub(crate) slots: Box<[Slot]>,
    pub(crate) homes: Box<[Home]>,
    /// The ledger's clock.
    pub(crate) clock_ms: AtomicU64,
}

impl Arena {
    /// Maps an arena and gives out its shards, in the order of the configuration. Everything that this crate ever
    /// allocates (except for [`Arena::export`]) is allocated here.
    ///
    /// # Errors
    /// The configuration is out of bounds, or the operating system refused the memory.
    pub fn map(config: &ArenaConfig) -> Result<(Self, Vec<Shard>), ArenaError> {
        Self::map_by(config, Mapping::new)
    }

    /// The same in zeroed memory of the heap, for those who make thousands of arenas and show none of them to a kernel:
    /// fuzzers, whose inputs have a fresh one each. A segment of it is aligned to a page, as any is. No page guards its ends,
    /// and children of the process get it, too.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn on_heap(config: &ArenaConfig) -> Result<(Self, Vec<Shard>), ArenaError> {
        Self::map_by(config, Mapping::heap)
    }

    /// The same in a memory file that other processes may be given to read: see [`file`](Self::file).
    ///
    /// # Errors
    /// As [`map`](Self::map).
    #[cfg(not(any(miri, loom)))]
    pub fn map_shared(config: &ArenaConfig) -> Result<(Self, Vec<Shard>), ArenaError> {
        Self::map_by(config, Mapping::shared)
    }

    fn map_by(
        config: &ArenaConfig,
        map: impl FnOnce(&[usize], HugePages) -> Result<Mapping, ArenaError>,
    ) -> Result<(Self, Vec<Shard>), ArenaError> {
        let segment_bytes = config.segment_size.bytes();
        let shard_bytes = checked_shard_bytes(config)?;
        let (offsets, laid_out) = region::layout(&shard_bytes);
        let mapping = map(&shard_bytes, config.huge_pages)?;
        let mapped_bytes = mapping.heap_bytes().unwrap_or(laid_out);
        let id = ids::take().ok_or(ArenaError::TooManyArenas)?;

        let mut slots = Vec::with_capacity(config.shards.iter().map(|count| *count as usize).sum());
        let mut homes = Vec::with_capacity(config.shards.len());
        for (shard, (count, start)) in config.shards.iter().zip(offsets).enumerate() {
            let first = slots.len() as u32;
            homes.push(Home { returned: AtomicU32::new(pool::NONE), segments: first..first + count });
            for position in 0..*count as usize {
                let offset = start + position * segment_bytes;
                assert!(
                    offset + segment_bytes <= mapped_bytes,
                    "rule 2: every segment lies inside the mapping"
                );
                slots.push(new_slot(shard as u16, offset, segment_bytes as u32));
            }
        }
        let arena = Self(Arc::new(Inner {
            id,
            segment_bytes,
            mapping,
            slots: slots.into_boxed_slice(),
            homes: homes.into_boxed_slice(),
            clock_ms: AtomicU64::new(0),
        }));
        let shards = (0..config.shards.len()).map(|shard| Shard::new(arena.clone(), shard)).collect();
        Ok((arena, shards))
    }

    /// Which pages the arena lies on.
    pub fn pages(&self) -> Pages {
        self.0.mapping.pages()
    }

    /// Bytes in every segment; a run of them has more, see [`capacity_of`](Self::capacity_of).
    #[inline]
    pub fn segment_size(&self) -> usize {
        self.0.segment_bytes
    }

    /// Segments in all shards.
    pub fn segments(&self) -> u32 {
        self.0.slots.len() as u32
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.0.homes.len()
    }

    /// The memory of one shard, for registration with the kernel.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn region(&self, shard: usize) -> Region {
        let segments = &self.0.homes[shard].segments;
        let ptr = self.address(&self.0.slots[segments.start as usize]).as_ptr();
        Region { ptr, len: segments.len() * self.0.segment_bytes }
    }

    /// The file behind a shared arena, sealed so that who gets it can read all of the arena and write none of it.
    #[cfg(not(any(miri, loom)))]
    pub fn file(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.0.mapping.file().map(std::os::fd::AsFd::as_fd)
    }

    /// Where in that file a segment starts.
    #[inline]
    pub fn file_offset<S: crate::SegmentState>(&self, segment: &Segment<S>) -> u64 {
        self.checked(segment).offset as u64
    }

    /// The home shard of a segment.
    #[inline]
    pub fn shard_of<S>(&self, segment: &Segment<S>) -> usize {
        usize::from(self.own(segment).shard)
    }

    /// A view of who holds what.
    pub fn ledger(&self) -> Ledger {
        Ledger::new(self.clone())
    }

    /// Sets the ledger's clock, in milliseconds from any fixed instant. Cheap: call it once per turn.
    #[inline]
    pub fn tick(&self, now_ms: u64) {
        self.0.clock_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Whether both are the same arena.
    pub fn same(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }

    #[inline]
    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// Whether a handle is of this arena.
    #[inline]
    pub(crate) fn owns<S>(&self, segment: &Segment<S>) -> bool {
        segment.arena == self.0.id
    }

    /// The slot behind a handle, if the handle is of this arena.
    #[inline]
    pub(crate) fn own<S>(&self, segment: &Segment<S>) -> &Slot {
        assert!(self.owns(segment), "a segment was given to an arena that it does not belong to");
        &self.0.slots[segment.index as usize]
    }

    /// First byte of a slot's segment.
    #[inline]
    pub(crate) fn address(&self, slot: &Slot) -> NonNull<u8> {
        // SAFETY: rule 2, offset + segment_bytes was checked against the mapping when the slot was made.
        unsafe { self.0.mapping.base().add(slot.offset) }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("id", &self.0.id)
            .field("segments", &self.segments())
            .field("segment_size", &self.segment_size())
            .field("shards", &self.shards())
            .field("pages", &self.pages())
            .finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if cfg!(loom) && std::thread::panicking() {
            return;
        }
        let mut free = true;
        for slot in &self.slots {
            let state = Word(slot.word.load(Ordering::Relaxed)).state();
            free &= state == State::Free;
            if state == State::Receiving || flights(slot.counts.load(Ordering::Relaxed)) > 0 {
                self.mapping.leak();
            }
        }
        // With a handle outstanding, the number is lost: otherwise the handle could reach into another arena.
        if free {
            ids::give_back(self.id);
        }
    }
}

fn new_slot(shard: u16, offset: usize, segment_bytes: u32) -> Slot {
    let word = Word::new(0, State::Free, Holder::new(HolderKind::Other, 0));
    Slot {
        word: AtomicU64::new(word.0),
        since_ms: AtomicU64::new(0),
        counts: AtomicU64::new(0),
        len: AtomicU32::new(0),
        capacity: AtomicU32::new(segment_bytes),
        next: AtomicU32::new(pool::NONE),
        shard,
        shadow: Shadow::new(),
        offset,
    }
}

/// Bytes of each shard, with the configuration's bounds checked.
fn checked_shard_bytes(config: &ArenaConfig) -> Result<Vec<usize>, ArenaError> {
    if config.shards.is_empty() || config.shards.len() > limits::SHARDS_MAX {
        return Err(ArenaError::Shards { found: config.shards.len() });
    }
    let checked = config.shards.iter().enumerate().map(|(shard, count)| {
        let bytes = u64::from(*count) * config.segment_size.bytes() as u64;
        match bytes {
            0 => Err(ArenaError::EmptyShard { shard }),
            _ if bytes > limits::SHARD_BYTES_MAX as u64 => {
                Err(ArenaError::ShardTooLarge { shard, found: bytes })
            }
            _ => Ok(bytes as usize),
        }
    });
    checked.collect()
}

mod ids {
    //! The numbers of arenas. One pool per process, because a handle may be shown to any arena of it.

    use super::{Mutex, PoisonError, limits};

    struct Ids {
        next: u32,
        returned: Vec<u16>,
    }

    static IDS: Mutex<Ids> = Mutex::new(Ids { next: 0, returned: Vec::new() });

    pub(super) fn take() -> Option<u16> {
        let mut ids = IDS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = ids.returned.pop() {
            return Some(id);
        }
        if ids.next >= limits::ARENAS_MAX {
            return None;
        }
        ids.next += 1;
        Some((ids.next - 1) as u16)
    }

    pub(super) fn give_back(id: u16) {
        IDS.lock().unwrap_or_else(PoisonError::into_inner).returned.push(id);
    }
}
