//! The pool of one slot: a free list that only its home thread touches, and a lock-free stack on which every other
//! thread returns segments.
//!
//! The stack is intrusive (`Slot::next`). Others only push; home only takes everything at once. So no thread ever
//! compares against a top that it read before somebody else popped, and there is no ABA.
//!
//! Always: each free segment is exactly once on its home's free list, or on its home's return stack, or between the two
//! words of one push; free list ≤ capacity.

use std::cell::Cell;
use std::marker::PhantomData;

use crate::arena::Arena;
use crate::ledger::{Holder, State, Word};
use crate::segment::{
    Filling, Granted, REFERENCE, Releasable, Segment, SegmentState, Slot, flights, references,
};
use crate::sync::{Ordering, fence};

/// No segment: the end of a return stack.
pub(crate) const NONE: u32 = u32::MAX;

/// The home of some of an arena's segments, owned by one slot: the only place they are acquired from.
///
/// ```
/// # use tidegate_arena::*;
/// # let config = ArenaConfig { segment_size: SegmentSize::DEFAULT, shards: vec![1], huge_pages: HugePages::Never };
/// let (arena, mut shards) = Arena::map(&config)?;
/// let mut shard = shards.remove(0);
/// let holder = Holder::new(HolderKind::Granted, 3);
/// let granted = shard.acquire_granted(holder).expect("one is free");
/// assert!(shard.acquire(holder).is_none(), "exhaustion is a state, not an error");
/// std::thread::scope(|scope| scope.spawn(|| arena.release(granted)).join()).expect("the thread ends well");
/// assert_eq!(shard.free(), 1);
/// # Ok::<(), ArenaError>(())
/// ```
#[derive(Debug)]
pub struct Shard {
    pub(crate) arena: Arena,
    index: usize,
    /// The free list, a stack: the segment used last is warm. Places from `count` on are unused.
    pub(crate) free: Box<[u32]>,
    pub(crate) count: usize,
    /// One thread at a time: may move to another thread, not be shared.
    unshared: PhantomData<Cell<()>>,
}

impl Shard {
    pub(crate) fn new(arena: Arena, index: usize) -> Self {
        // The lowest index on top.
        let free: Box<[u32]> = arena.inner().homes[index].segments.clone().rev().collect();
        let count = free.len();
        Self { arena, index, free, count, unshared: PhantomData }
    }

    /// Number of the shard in its arena.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The arena.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Segments that have their home here.
    pub fn capacity(&self) -> u32 {
        self.free.len() as u32
    }

    /// A free segment to write into, or `None` if all are held. Its bytes are whatever was in it before.
    #[inline]
    pub fn acquire(&mut self, holder: Holder) -> Option<Segment<Filling>> {
        self.take::<Filling>(holder)
    }

    /// A free segment to promise to a sender, or `None` if all are held.
    #[inline]
    pub fn acquire_granted(&mut self, holder: Holder) -> Option<Segment<Granted>> {
        self.take::<Granted>(holder)
    }

    /// Free segments, those that other threads have returned included.
    pub fn free(&mut self) -> u32 {
        self.collect_returned();
        self.count as u32
    }

    /// Gives up one reference; with the last one, the segment is free. Of a segment that has its home elsewhere, the
    /// same as [`Arena::release`].
    #[inline]
    pub fn release<S: Releasable>(&mut self, segment: Segment<S>) {
        let slot = self.arena.checked(&segment);
        if !drop_reference(slot) {
            return;
        }
        let at_home = usize::from(slot.shard) == self.index;
        mark_free(&self.arena, slot);
        if at_home {
            self.push(segment.index);
        } else {
            return_home(&self.arena, segment.index);
        }
    }

    fn take<S: SegmentState>(&mut self, holder: Holder) -> Option<Segment<S>> {
        if self.count == 0 {
            self.collect_returned();
        }
        self.count = self.count.checked_sub(1)?;
        Some(self.claim(self.free[self.count], holder))
    }

    /// Makes the handle of a segment that was just taken off the free list.
    #[inline]
    pub(crate) fn claim<S: SegmentState>(&self, index: u32, holder: Holder) -> Segment<S> {
        let inner = self.arena.inner();
        let slot = &inner.slots[index as usize];
        let word = Word(slot.word.load(Ordering::Relaxed));
        assert_eq!(word.state(), State::Free, "segment {index} was on the free list but not free");
        slot.shadow.write();
        slot.counts.store(REFERENCE, Ordering::Relaxed);
        slot.len.store(0, Ordering::Relaxed);
        self.arena.note(slot, Word::new(word.generation(), S::STATE, holder));
        Segment { index, arena: inner.id, generation: word.generation(), state: PhantomData }
    }

    fn push(&mut self, index: u32) {
        let inner = self.arena.inner();
        if inner.slots[index as usize].capacity.load(Ordering::Relaxed) > inner.segment_bytes as u32 {
            return self.part(index);
        }
        self.push_one(index);
    }

    pub(crate) fn push_one(&mut self, index: u32) {
        assert!(self.count < self.free.len(), "more segments came home than have their home here");
        self.free[self.count] = index;
        self.count += 1;
    }

    /// Moves what other threads returned to the free list. Bounded by the capacity.
    pub(crate) fn collect_returned(&mut self) {
        let returned = &self.arena.inner().homes[self.index].returned;
        if returned.load(Ordering::Relaxed) == NONE {
            return;
        }
        // Acquire: pairs with each push, for their swaps form one release sequence. What the releasing threads did with
        // the segments happened before we hand them out again.
        let mut next = returned.swap(NONE, Ordering::Acquire);
        while next != NONE {
            let index = next;
            next = self.arena.inner().slots[index as usize].next.load(Ordering::Relaxed);
            self.push(index);
        }
    }
}

impl Arena {
    /// Gives up one reference, from any thread. The last one sends the segment home, without a lock.
    pub fn release<S: Releasable>(&self, segment: Segment<S>) {
        let slot = self.checked(&segment);
        if drop_reference(slot) {
            mark_free(self, slot);
            return_home(self, segment.index);
        }
    }
}

/// Whether the reference given up was the last one.
fn drop_reference(slot: &Slot) -> bool {
    // The bytes were ours to look at until now.
    slot.shadow.read();
    // Release: our reads of the bytes come before their reuse.
    let before = slot.counts.fetch_sub(REFERENCE, Ordering::Release);
    assert_ne!(references(before), 0, "a segment was released more often than it was shared");
    if references(before) != 1 {
        return false;
    }
    assert_eq!(flights(before), 0, "the last reference was released while the kernel reads");
    // The others' reads, too.
    fence(Ordering::Acquire);
    true
}

/// Turns a segment without references into a free one; from here on old handles are refused.
pub(crate) fn mark_free(arena: &Arena, slot: &Slot) {
    slot.shadow.write();
    let word = Word(slot.word.load(Ordering::Relaxed));
    arena.note(slot, Word::new(word.generation().wrapping_add(1), State::Free, word.holder()));
}

/// Pushes a free segment on the return stack of its home.
fn return_home(arena: &Arena, index: u32) {
    let inner = arena.inner();
    let slot = &inner.slots[index as usize];
    let returned = &inner.homes[usize::from(slot.shard)].returned;
    // Home empties the stack whenever it runs dry, so empty is the first guess; a wrong one costs one more round. Not a
    // load: loom would take our own load for the last access to the top, and not explore this push before home's look.
    let mut top = NONE;
    loop {
        slot.next.store(top, Ordering::Relaxed);
        // Release: everything done with the segment, and its link, before home can see it.
        match returned.compare_exchange_weak(top, index, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(found) => top = found,
        }
    }
}
