//! Runs: neighbouring segments acquired as one, for what must lie in one piece and is larger than a segment.
//!
//! State: the capacity of the run's first segment, which stands for all; the others are `Joined`. A run is made and parted
//! at home only, as a whole. Always: a run lies within one shard, and none of its segments is on a free list.
//!
//! Neighbours get rare as segments come and go. So a run is acquired while a slot is idle, before it acquires anything
//! else, and kept: [`Arena::reopen`] and [`Arena::reclaim`] empty it without giving it up.

use crate::arena::Arena;
use crate::ledger::{Holder, State, Word};
use crate::pool::{Shard, mark_free};
use crate::segment::{Filling, Granted, REFERENCE, Segment, SegmentState};
use crate::sync::Ordering;

impl Shard {
    /// A run of `count` free segments to write into, or `None` if there are not so many side by side.
    ///
    /// ```
    /// # use tidegate_arena::*;
    /// # let config = ArenaConfig { segment_size: SegmentSize::new(4096)?, shards: vec![8], huge_pages: HugePages::Never };
    /// let (arena, mut shards) = Arena::map(&config)?;
    /// let mut run = shards[0].acquire_run(3, Holder::new(HolderKind::Region, 0)).expect("eight are free");
    /// arena.bytes_mut(&mut run)[12_287] = 7;
    /// let sealed = arena.seal(run, 12_288);
    /// assert_eq!((arena.bytes(&sealed).len(), shards[0].free()), (12_288, 5));
    /// shards[0].release(sealed);
    /// assert_eq!(shards[0].free(), 8);
    /// # Ok::<(), ArenaError>(())
    /// ```
    pub fn acquire_run(&mut self, count: u32, holder: Holder) -> Option<Segment<Filling>> {
        self.take_run(count, holder)
    }

    /// As [`acquire_run`](Self::acquire_run), to be promised to a sender.
    pub fn acquire_granted_run(&mut self, count: u32, holder: Holder) -> Option<Segment<Granted>> {
        self.take_run(count, holder)
    }

    fn take_run<S: SegmentState>(&mut self, count: u32, holder: Holder) -> Option<Segment<S>> {
        let bytes = u64::from(count) * self.arena.inner().segment_bytes as u64;
        assert!(count > 0 && bytes <= u64::from(u32::MAX), "misuse: a run of {count} segments");
        self.collect_returned();
        // Descending, as in the beginning: the run comes from the far end, and the lowest number stays on top.
        let free = &mut self.free[..self.count];
        free.sort_unstable_by(|one, other| other.cmp(one));
        let at = free
            .windows(count as usize)
            .position(|window| window.first().zip(window.last()).is_some_and(|(a, b)| a - b == count - 1))?;
        let after = at + count as usize;
        let first = free[after - 1];
        free.copy_within(after.., at);
        self.count -= count as usize;
        let segment = self.claim(first, holder);
        let inner = self.arena.inner();
        inner.slots[first as usize].capacity.store(bytes as u32, Ordering::Relaxed);
        for index in first + 1..first + count {
            let slot = &inner.slots[index as usize];
            let word = Word(slot.word.load(Ordering::Relaxed));
            assert_eq!(word.state(), State::Free, "segment {index} was on the free list but not free");
            slot.shadow.write();
            slot.counts.store(REFERENCE, Ordering::Relaxed);
            self.arena.note(slot, Word::new(word.generation(), State::Joined, holder));
        }
        Some(segment)
    }

    /// Puts the segments of a run whose last reference was given up on the free list.
    #[cold]
    pub(crate) fn part(&mut self, first: u32) {
        let arena: Arena = self.arena.clone();
        let inner = arena.inner();
        let capacity =
            inner.slots[first as usize].capacity.swap(inner.segment_bytes as u32, Ordering::Relaxed);
        let count = capacity / inner.segment_bytes as u32;
        for index in (first + 1..first + count).rev() {
            let slot = &inner.slots[index as usize];
            slot.counts.store(0, Ordering::Relaxed);
            mark_free(&arena, slot);
            self.push_one(index);
        }
        self.push_one(first);
    }
}
