//! The serializer behind every archived record: bytes go straight into the slot, scratch comes from a bounded piece of
//! memory. It borrows both.
//!
//! Always true: `position` only grows and stays ≤ the archive bound; `used` ≤ the scratch's length. A position beyond the
//! buffer means the record does not fit, and the rest of the walk only counts, so the exact need is known at the end.

use std::alloc::Layout;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use rkyv::rancor::{Fallible, Source, Trace};
use rkyv::ser::{Allocator, Positional, Writer};

use crate::limits::ARCHIVE_BYTES_MAX;

/// The serializer of this crate. Types that derive [`Record`](crate::Record) implement rkyv's `Serialize` for it.
#[derive(Debug)]
pub struct Packer<'a> {
    buf: &'a mut [u8],
    position: usize,
    scratch: NonNull<u8>,
    scratch_len: usize,
    used: usize,
    _scratch: PhantomData<&'a mut [MaybeUninit<u8>]>,
}

impl<'a> Packer<'a> {
    #[inline]
    pub(crate) fn new(buf: &'a mut [u8], scratch: &'a mut [MaybeUninit<u8>]) -> Self {
        let scratch_len = scratch.len();
        // The pointer of a slice is never null, so this is only a change of type.
        let scratch = NonNull::from(scratch).cast::<u8>();
        Self { buf, position: 0, scratch, scratch_len, used: 0, _scratch: PhantomData }
    }

    /// Bytes the archive took, or would have taken, so far.
    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Whether everything counted was also written.
    #[inline]
    pub(crate) fn fits(&self) -> bool {
        self.position <= self.buf.len()
    }
}

impl Fallible for Packer<'_> {
    type Error = PackFault;
}

impl Positional for Packer<'_> {
    #[inline]
    fn pos(&self) -> usize {
        self.position
    }
}

impl Writer<PackFault> for Packer<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), PackFault> {
        let end = self.position + bytes.len();
        if let Some(target) = self.buf.get_mut(self.position..end) {
            target.copy_from_slice(bytes);
        } else if end > ARCHIVE_BYTES_MAX {
            // Beyond this the format's own relative pointers would overflow, and its code panics there.
            return Err(PackFault::TooLong);
        }
        self.position = end;
        Ok(())
    }
}

// SAFETY: S-5. Every block lies inside the borrowed scratch, above all live blocks, at the alignment asked for.
unsafe impl Allocator<PackFault> for Packer<'_> {
    #[inline]
    unsafe fn push_alloc(&mut self, layout: Layout) -> Result<NonNull<[u8]>, PackFault> {
        let address = self.scratch.as_ptr() as usize + self.used;
        let start = self.used + (address.next_multiple_of(layout.align()) - address);
        let end = start.saturating_add(layout.size());
        if end > self.scratch_len {
            return Err(PackFault::Scratch { needed: end });
        }
        self.used = end;
        // SAFETY: S-5, start ≤ scratch_len was checked just above.
        let block = unsafe { self.scratch.add(start) };
        Ok(NonNull::slice_from_raw_parts(block, layout.size()))
    }

    #[inline]
    unsafe fn pop_alloc(&mut self, ptr: NonNull<u8>, _layout: Layout) -> Result<(), PackFault> {
        // Blocks are given back in reverse order, so the freed one and the padding in front of it are on top.
        let start = ptr.as_ptr() as usize - self.scratch.as_ptr() as usize;
        assert!(start <= self.used, "scratch was given back out of order");
        self.used = start;
        Ok(())
    }
}

/// Why a walk over a record stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackFault {
    /// The scratch is too small; at least this many bytes are needed at this point of the walk.
    Scratch {
        /// Bytes, counted from the scratch's start.
        needed: usize,
    },
    /// The archive would be longer than any may be.
    TooLong,
}

impl fmt::Display for PackFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scratch { needed } => write!(f, "{needed} bytes of scratch are needed"),
            Self::TooLong => write!(f, "the archive takes more than {ARCHIVE_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for PackFault {}

impl Trace for PackFault {
    fn trace<R>(self, _: R) -> Self
    where
        R: fmt::Debug + fmt::Display + Send + Sync + 'static,
    {
        self
    }
}

impl Source for PackFault {
    fn new<T: std::error::Error + Send + Sync + 'static>(_: T) -> Self {
        // The types this crate admits have one fault of their own: a string or list beyond the format's range.
        Self::TooLong
    }
}
