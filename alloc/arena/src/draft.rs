//! A segment that is written bit by bit: its handle, where its bytes are, and how many of them count.
//!
//! A move of a segment checks its handle against the ledger. Who writes thousands of small records into one would pay for
//! that each time; a [`Draft`] has the check made once, when it is opened, and owns the handle from then on.
//!
//! Always: `len` ≤ the segment's size; the handle is the only one of its segment, and stays `Filling` until the draft ends.

use std::ptr::NonNull;

use crate::arena::Arena;
use crate::segment::{Filling, Sealed, Segment};
use crate::sync::Ordering;

/// A segment being written, front to back. Like a handle it has no `Drop`: end it with [`Arena::seal_draft`] or
/// [`into_segment`](Self::into_segment).
///
/// ```
/// use tidegate_arena::{Arena, ArenaConfig, Holder, HolderKind, HugePages, SegmentSize};
///
/// let config = ArenaConfig { segment_size: SegmentSize::new(4096)?, shards: vec![8], huge_pages: HugePages::Never };
/// let (arena, mut shards) = Arena::map(&config)?;
/// let segment = shards[0].acquire(Holder::new(HolderKind::Filling, 0)).expect("eight are free");
/// let mut draft = arena.draft(segment);
/// draft.bytes_mut(&arena)[..5].copy_from_slice(b"hello");
/// draft.set_len(5);
/// let sealed = arena.seal_draft(draft);
/// assert_eq!(arena.bytes(&sealed), b"hello");
/// shards[0].release(sealed);
/// # Ok::<(), tidegate_arena::ArenaError>(())
/// ```
#[must_use = "a segment that is dropped is lost to its pool: seal the draft, or release its segment"]
#[derive(Debug)]
pub struct Draft {
    segment: Segment<Filling>,
    base: NonNull<u8>,
    size: u32,
    len: u32,
}

// SAFETY: rule 4. The pointer is used only together with the handle, which is the only one of its segment and moves along.
unsafe impl Send for Draft {}

impl Draft {
    /// Bytes written so far.
    #[inline]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether nothing is written yet.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Says how many bytes count.
    ///
    /// # Panics
    /// If they are more than the segment has.
    #[inline]
    pub fn set_len(&mut self, len: u32) {
        assert!(len <= self.size, "{len} bytes were said to be in a segment of {}", self.size);
        self.len = len;
    }

    /// All bytes of the segment, to be written.
    ///
    /// # Panics
    /// If it is not of `arena`.
    #[inline]
    pub fn bytes_mut<'a>(&'a mut self, arena: &'a Arena) -> &'a mut [u8] {
        assert!(arena.owns(&self.segment), "a draft was given to an arena that it does not belong to");
        #[cfg(loom)]
        arena.checked(&self.segment).shadow.write();
        // SAFETY: rules 1 and 2 (`base` and `size` are those of the segment, and `arena` keeps its mapping), 9, and 4: this
        // is the only handle, `Filling` since it was checked, because only its owner could move it on, and borrowed
        // exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.size as usize) }
    }

    /// The segment, for those who have no use for what was written.
    pub fn into_segment(self) -> Segment<Filling> {
        self.segment
    }

    /// The segment.
    pub fn segment(&self) -> &Segment<Filling> {
        &self.segment
    }
}

impl Arena {
    /// Opens a segment for many small writes; nothing of it counts yet.
    pub fn draft(&self, segment: Segment<Filling>) -> Draft {
        let slot = self.checked(&segment);
        Draft { base: self.address(slot), size: slot.capacity.load(Ordering::Relaxed), len: 0, segment }
    }

    /// Ends writing: what counts of the draft is what will be sent.
    pub fn seal_draft(&self, draft: Draft) -> Segment<Sealed> {
        self.seal(draft.segment, draft.len)
    }
}
