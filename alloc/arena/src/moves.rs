//! The moves of a segment from state to state, and its bytes in those states that have any.
//!
//! Each move consumes the handle of the old state, checks number, arena, generation and state, writes the ledger, and
//! gives the handle of the new state. All checks are on in release builds; each costs a load of a line that the move
//! touches anyway.
//!
//! Always: sealed or received length ≤ capacity (of a run: all of its segments); references in flight ≤ references.

use bytes::Bytes;

use crate::arena::Arena;
use crate::ledger::{Holder, HolderKind, State, Word};
use crate::limits::REFERENCES_MAX;
use crate::segment::{
    FLIGHT, Filling, Granted, InFlight, REFERENCE, Readable, Receiving, Sealed, Segment, SegmentState,
    Shared, Slot, Writable, flights, references,
};
use crate::sync::Ordering;

impl Arena {
    /// The bytes of a segment: all of them in `Filling`, its length in `Sealed` and `Shared`.
    #[inline]
    pub fn bytes<'a, S: Readable>(&'a self, segment: &'a Segment<S>) -> &'a [u8] {
        let slot = self.checked(segment);
        slot.shadow.read();
        let len = match S::STATE {
            State::Filling => slot.capacity.load(Ordering::Relaxed) as usize,
            _ => slot.len.load(Ordering::Relaxed) as usize,
        };
        // SAFETY: rules 2, 9 and 10 (inside the mapping, initialised), 4 and 5 (nobody writes while the handle is borrowed).
        unsafe { std::slice::from_raw_parts(self.address(slot).as_ptr(), len) }
    }

    /// All bytes of a segment or run, to be written.
    #[inline]
    pub fn bytes_mut<'a, S: Writable>(&'a self, segment: &'a mut Segment<S>) -> &'a mut [u8] {
        let slot = self.checked(segment);
        slot.shadow.write();
        let capacity = slot.capacity.load(Ordering::Relaxed) as usize;
        // SAFETY: rules 2, 9 and 10 (inside the mapping, initialised) and 4 (this is the only handle, borrowed exclusively).
        unsafe { std::slice::from_raw_parts_mut(self.address(slot).as_ptr(), capacity) }
    }

    /// The bytes there is room for: the segment size, or that of a whole run.
    #[inline]
    pub fn capacity_of<S: SegmentState>(&self, segment: &Segment<S>) -> u32 {
        self.checked(segment).capacity.load(Ordering::Relaxed)
    }

    /// The length of a sealed, in-flight or received segment, in bytes.
    #[inline]
    pub fn len_of<S: SegmentState>(&self, segment: &Segment<S>) -> u32 {
        self.checked(segment).len.load(Ordering::Relaxed)
    }

    /// References to the segment (handles of it), this one included.
    pub fn references<S: SegmentState>(&self, segment: &Segment<S>) -> u32 {
        references(self.checked(segment).counts.load(Ordering::Relaxed))
    }

    /// Ends writing: `len` bytes from the start are what will be sent.
    ///
    /// # Panics
    /// If `len` is above the capacity.
    pub fn seal(&self, segment: Segment<Filling>, len: u32) -> Segment<Sealed> {
        self.set_len(&segment, len);
        self.turn(segment)
    }

    /// One more reference to a sealed segment: a payload that travels to several channels is written once.
    pub fn share(&self, segment: &Segment<Sealed>) -> Segment<Sealed> {
        self.add_reference(segment)
    }

    /// One more reference to a received segment.
    pub fn share_received(&self, segment: &Segment<Shared>) -> Segment<Shared> {
        self.add_reference(segment)
    }

    /// Back to writing, if this is the only reference; otherwise gives the handle back. The bytes stay; the length is
    /// the caller's to remember.
    pub fn reopen(&self, segment: Segment<Sealed>) -> Result<Segment<Filling>, Segment<Sealed>> {
        let slot = self.checked(&segment);
        // Acquire: those who gave up their references read before we write.
        if slot.counts.load(Ordering::Acquire) != REFERENCE {
            return Err(segment);
        }
        Ok(self.turn(segment))
    }

    /// Back to an empty segment, to be written or granted again, if this is the only reference to what was read; otherwise
    /// gives the handle back.
    pub fn reclaim<S: Writable>(&self, segment: Segment<Shared>) -> Result<Segment<S>, Segment<Shared>> {
        let slot = self.checked(&segment);
        // Acquire: as in `reopen`.
        if slot.counts.load(Ordering::Acquire) != REFERENCE {
            return Err(segment);
        }
        Ok(self.turn(segment))
    }

    /// Hands one reference to the kernel for reading.
    pub fn launch(&self, segment: Segment<Sealed>) -> Segment<InFlight> {
        let slot = self.checked(&segment);
        let before = slot.counts.fetch_add(FLIGHT, Ordering::Relaxed);
        assert!(flights(before) < references(before), "more references in flight than there are");
        slot.since_ms.store(self.inner().clock_ms.load(Ordering::Relaxed), Ordering::Relaxed);
        segment.cast()
    }

    /// Takes the reference back after the completion, or after the notification of a zero-copy send.
    pub fn land(&self, segment: Segment<InFlight>) -> Segment<Sealed> {
        let slot = self.checked(&segment);
        // The kernel read until now.
        slot.shadow.read();
        let before = slot.counts.fetch_sub(FLIGHT, Ordering::Relaxed);
        assert_ne!(flights(before), 0, "a segment landed that was not in flight");
        slot.since_ms.store(self.inner().clock_ms.load(Ordering::Relaxed), Ordering::Relaxed);
        segment.cast()
    }

    /// Where the kernel reads. [`len_of`](Self::len_of) bytes are valid for reading until [`land`](Self::land).
    #[inline]
    pub fn read_ptr(&self, segment: &Segment<InFlight>) -> *const u8 {
        let slot = self.checked(segment);
        slot.shadow.read();
        self.address(slot).as_ptr().cast_const()
    }

    /// Where the kernel writes. The whole capacity is valid for writing until [`unpost`](Self::unpost).
    #[inline]
    pub fn write_ptr(&self, segment: &Segment<Receiving>) -> *mut u8 {
        let slot = self.checked(segment);
        slot.shadow.write();
        self.address(slot).as_ptr()
    }

    /// Hands a segment to the kernel for writing.
    pub fn post<S: Writable>(&self, segment: Segment<S>) -> Segment<Receiving> {
        self.turn(segment)
    }

    /// Takes it back after the completion, as what it was before (or as the other writable state).
    pub fn unpost<S: Writable>(&self, segment: Segment<Receiving>) -> Segment<S> {
        // The kernel wrote until now.
        self.checked(&segment).shadow.write();
        self.turn(segment)
    }

    /// Ends receiving: `len` bytes from the start have arrived and can be read.
    ///
    /// # Panics
    /// If `len` is above the capacity.
    pub fn received(&self, segment: Segment<Granted>, len: u32) -> Segment<Shared> {
        self.set_len(&segment, len);
        self.turn(segment)
    }

    /// Local channel: the producer's reference becomes the consumer's, in place.
    pub fn deliver(&self, segment: Segment<Sealed>) -> Segment<Shared> {
        self.turn(segment)
    }

    /// Bytes for the outside world, without a copy. The segment is charged to the export quota until the last clone or
    /// slice is dropped, on any thread. Allocates once: use it per segment, never per record.
    pub fn export(&self, segment: Segment<Shared>) -> Bytes {
        let id = Word(self.checked(&segment).word.load(Ordering::Relaxed)).holder().id;
        self.set_holder(&segment, Holder::new(HolderKind::Export, id));
        Bytes::from_owner(Exported { arena: self.clone(), segment: Some(segment) })
    }

    /// Charges a segment to another holder.
    pub fn set_holder<S: SegmentState>(&self, segment: &Segment<S>, holder: Holder) {
        let slot = self.checked(segment);
        let word = Word(slot.word.load(Ordering::Relaxed));
        self.note(slot, Word::new(word.generation(), word.state(), holder));
    }

    /// The slot behind a handle, after every check that a handle can fail.
    #[inline]
    pub(crate) fn checked<S: SegmentState>(&self, segment: &Segment<S>) -> &Slot {
        let slot = self.own(segment);
        let word = Word(slot.word.load(Ordering::Relaxed));
        if word.generation() != segment.generation || (1 << word.state() as u32) & S::ADMITS == 0 {
            misuse(segment, word);
        }
        slot
    }

    /// Writes a segment's ledger line. With several holders the last one to write stands; each writes a generation and
    /// a frozen state that are true for all.
    #[inline]
    pub(crate) fn note(&self, slot: &Slot, word: Word) {
        slot.word.store(word.0, Ordering::Relaxed);
        slot.since_ms.store(self.inner().clock_ms.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The move itself: same reference, next state, noted in the ledger.
    #[inline]
    fn turn<S: SegmentState, T: SegmentState>(&self, segment: Segment<S>) -> Segment<T> {
        let slot = self.checked(&segment);
        let word = Word(slot.word.load(Ordering::Relaxed));
        self.note(slot, Word::new(word.generation(), T::STATE, word.holder()));
        segment.cast()
    }

    fn set_len<S: Writable>(&self, segment: &Segment<S>, len: u32) {
        let slot = self.checked(segment);
        let size = slot.capacity.load(Ordering::Relaxed);
        assert!(len <= size, "{len} bytes were said to be in a segment of {size}");
        slot.len.store(len, Ordering::Relaxed);
    }

    fn add_reference<S: SegmentState>(&self, segment: &Segment<S>) -> Segment<S> {
        let slot = self.checked(segment);
        // Relaxed: the new handle is passed on with whatever edge the old one has.
        let before = slot.counts.fetch_add(REFERENCE, Ordering::Relaxed);
        assert!(
            (1..REFERENCES_MAX).contains(&references(before)),
            "segment {} has {} references, expected 1 to {REFERENCES_MAX}: something shares without releasing",
            segment.index,
            references(before),
        );
        Segment {
            index: segment.index,
            arena: segment.arena,
            generation: segment.generation,
            state: segment.state,
        }
    }
}

#[cold]
#[inline(never)]
fn misuse<S: SegmentState>(segment: &Segment<S>, found: Word) -> ! {
    panic!(
        "{segment:?} was used, but its slot is {:?} in generation {}, held by {:?}: a bug of the holder",
        found.state(),
        found.generation(),
        found.holder(),
    );
}

/// Owner behind exported bytes.
struct Exported {
    arena: Arena,
    /// `None` only while being dropped.
    segment: Option<Segment<Shared>>,
}

impl AsRef<[u8]> for Exported {
    fn as_ref(&self) -> &[u8] {
        self.segment.as_ref().map_or(&[], |segment| self.arena.bytes(segment))
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        if let Some(segment) = self.segment.take() {
            self.arena.release(segment);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::marker::PhantomData;

    use super::*;
    use crate::{ArenaConfig, HugePages, SegmentSize, Shard};

    fn one_segment() -> (Arena, Shard) {
        let config =
            ArenaConfig { segment_size: SegmentSize::DEFAULT, shards: vec![1], huge_pages: HugePages::Never };
        let (arena, mut shards) = Arena::map(&config).expect("a few pages can be mapped");
        (arena, shards.remove(0))
    }

    /// What safe code cannot make: a second handle of the same reference.
    fn forged<S, T>(segment: &Segment<S>) -> Segment<T> {
        Segment {
            index: segment.index,
            arena: segment.arena,
            generation: segment.generation,
            state: PhantomData,
        }
    }

    fn acquire(shard: &mut Shard) -> Segment<Filling> {
        shard.acquire(Holder::new(HolderKind::Other, 5)).expect("one is free")
    }

    #[test]
    #[should_panic(expected = "is Free in generation 1")]
    fn a_handle_that_was_released_is_refused() {
        let (arena, mut shard) = one_segment();
        let segment = acquire(&mut shard);
        let stale: Segment<Filling> = forged(&segment);
        shard.release(segment);
        let _ = arena.bytes(&stale);
    }

    #[test]
    #[should_panic(expected = "is Filling in generation 1")]
    fn a_handle_of_an_earlier_use_is_refused() {
        let (arena, mut shard) = one_segment();
        let segment = acquire(&mut shard);
        let stale: Segment<Filling> = forged(&segment);
        shard.release(segment);
        let _again = acquire(&mut shard);
        arena.release(stale);
    }

    #[test]
    #[should_panic(expected = "Segment<Granted>(0#0 of arena")]
    fn a_handle_in_another_state_is_refused() {
        let (arena, mut shard) = one_segment();
        let sealed = arena.seal(acquire(&mut shard), 0);
        let wrong: Segment<Granted> = forged(&sealed);
        let _ = arena.post(wrong);
    }

    #[test]
    #[should_panic(expected = "landed that was not in flight")]
    fn a_landing_without_a_launch_is_refused() {
        let (arena, mut shard) = one_segment();
        let sealed = arena.seal(acquire(&mut shard), 0);
        let _ = arena.land(forged(&sealed));
    }

    #[test]
    #[should_panic(expected = "expected 1 to 1048576")]
    fn references_are_bounded() {
        let (arena, mut shard) = one_segment();
        let sealed = arena.seal(acquire(&mut shard), 0);
        let slot = arena.checked(&sealed);
        slot.counts.store(u64::from(REFERENCES_MAX), Ordering::Relaxed);
        let _ = arena.share(&sealed);
    }
}
