//! A segment as a buffer of tokio-uring, for the thread that writes files from an arena of its own. Behind the feature
//! `tokio-uring`; shuffle traffic never goes this way.
//!
//! A buffer owns its segment, in state `Filling`, and a clone of the arena. An operation of tokio-uring owns the buffer
//! while the kernel uses it, and keeps it when the operation's future is dropped, so the segment cannot go home early.
//!
//! Always: filled ≤ segment size.

use std::fmt;
use std::ops::Deref;

use tokio_uring::buf::{IoBuf, IoBufMut};

use crate::arena::Arena;
use crate::segment::{Filling, Segment};

/// One segment to write to or read from a file. Dropping it releases the segment.
///
/// ```
/// use tidegate_arena::{*, file_buffer::FileBuffer};
/// # let config = ArenaConfig { segment_size: SegmentSize::DEFAULT, shards: vec![1], huge_pages: HugePages::Never };
/// let (arena, mut shards) = Arena::map(&config)?;
/// let segment = shards[0].acquire(Holder::new(HolderKind::Snapshot, 1)).expect("one is free");
/// let mut buffer = FileBuffer::new(&arena, segment);
/// assert_eq!(buffer.append(b"state"), 5);
/// assert_eq!(&buffer[..], b"state");
/// drop(buffer);
/// assert_eq!(shards[0].free(), 1);
/// # Ok::<(), ArenaError>(())
/// ```
pub struct FileBuffer {
    arena: Arena,
    /// `None` only while being taken apart.
    segment: Option<Segment<Filling>>,
    filled: usize,
}

impl FileBuffer {
    /// An empty buffer over `segment`.
    ///
    /// # Panics
    /// If the segment is of another arena.
    pub fn new(arena: &Arena, segment: Segment<Filling>) -> Self {
        let _ = arena.checked(&segment);
        Self { arena: arena.clone(), segment: Some(segment), filled: 0 }
    }

    /// Copies as much of `bytes` as fits behind what is there; tells how much that was.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let segment = self.segment.as_mut().expect("invariant: present until dropped");
        let room = &mut self.arena.bytes_mut(segment)[self.filled..];
        let count = room.len().min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.filled += count;
        count
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.arena.segment_size() - self.filled
    }

    /// Empties the buffer.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// The segment and how many bytes of it are filled.
    pub fn into_segment(mut self) -> (Segment<Filling>, usize) {
        (self.segment.take().expect("invariant: present until dropped"), self.filled)
    }

    fn segment(&self) -> &Segment<Filling> {
        self.segment.as_ref().expect("invariant: present until dropped")
    }
}

/// What is filled.
impl Deref for FileBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.arena.bytes(self.segment())[..self.filled]
    }
}

impl fmt::Debug for FileBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBuffer").field("segment", &self.segment).field("filled", &self.filled).finish()
    }
}

impl Drop for FileBuffer {
    fn drop(&mut self) {
        if let Some(segment) = self.segment.take() {
            self.arena.release(segment);
        }
    }
}

// SAFETY: rules 1 and 2. The address is the mapping's, which the buffer's arena clone keeps; moving the buffer does not
// move it, and all of the segment is initialised (rule 9), of which `filled` bytes mean something.
unsafe impl IoBuf for FileBuffer {
    fn stable_ptr(&self) -> *const u8 {
        self.arena.address(self.arena.checked(self.segment())).as_ptr().cast_const()
    }

    fn bytes_init(&self) -> usize {
        self.filled
    }

    fn bytes_total(&self) -> usize {
        self.arena.segment_size()
    }
}

// SAFETY: rules 1, 2 and 4. As above, and the buffer owns the only handle of its segment.
unsafe impl IoBufMut for FileBuffer {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.arena.address(self.arena.checked(self.segment())).as_ptr()
    }

    unsafe fn set_init(&mut self, filled: usize) {
        assert!(filled <= self.arena.segment_size(), "more bytes were read than a segment has");
        self.filled = self.filled.max(filled);
    }
}
