//! A slot: the bytes a record is written into, with the length written so far. It borrows the bytes and owns the length.
//!
//! Always true: `len` ≤ the buffer's length ≤ 2^30.

use crate::limits::{ARCHIVE_BYTES_MAX, WORDS_MAX};

/// A buffer being filled with records, front to back.
///
/// ```
/// use tidegate_record::{Record, Slot, WriteError};
/// let mut buffer = [0u8; 20];
/// let mut slot = Slot::new(&mut buffer, 0);
/// 7u64.write(&mut slot).unwrap();
/// 8u64.write(&mut slot).unwrap();
/// assert_eq!(9u64.write(&mut slot), Err(WriteError::Full { needed: 8 }));
/// assert_eq!(slot.len(), 16);
/// ```
#[derive(Debug)]
pub struct Slot<'a> {
    buf: &'a mut [u8],
    len: u32,
}

impl<'a> Slot<'a> {
    /// A slot over `buf` that already holds `len` bytes of records.
    ///
    /// # Panics
    /// If `len` exceeds the buffer, or the buffer is longer than any archive may be.
    #[inline]
    pub fn new(buf: &'a mut [u8], len: u32) -> Self {
        assert!(buf.len() <= ARCHIVE_BYTES_MAX, "a slot of {} bytes is over the limit", buf.len());
        assert!(len as usize <= buf.len(), "a slot of {} bytes cannot hold {len}", buf.len());
        Self { buf, len }
    }

    /// Bytes written so far.
    #[inline]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether nothing was written yet.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the whole buffer.
    #[inline]
    pub fn capacity(&self) -> u32 {
        self.buf.len() as u32
    }

    /// Bytes that are left.
    #[inline]
    pub fn remaining(&self) -> u32 {
        self.capacity() - self.len
    }

    /// The records written so far.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buf[..self.len as usize]
    }

    /// The bytes that are left, for a writer that does not know its length before.
    #[inline]
    pub(crate) fn rest(&mut self) -> &mut [u8] {
        &mut self.buf[self.len as usize..]
    }

    /// Counts `bytes` of [`rest`](Self::rest) as written.
    #[inline]
    pub(crate) fn advance(&mut self, bytes: u32) {
        assert!(bytes <= self.remaining(), "a writer advanced past the end of its slot");
        self.len += bytes;
    }

    /// Appends all of `bytes`, or nothing and `false`.
    #[inline(always)]
    pub(crate) fn append(&mut self, bytes: &[u8]) -> bool {
        let start = self.len as usize;
        let Some(target) = self.buf.get_mut(start..start + bytes.len()) else { return false };
        target.copy_from_slice(bytes);
        self.len += bytes.len() as u32;
        true
    }

    /// As [`append`](Self::append), word by word where there are few: a record was often made just before, field by field,
    /// and a load that spans two stores which are still on their way to the cache waits for both of them.
    #[inline(always)]
    pub(crate) fn append_words(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > WORDS_MAX * 8 {
            return self.append(bytes);
        }
        let start = self.len as usize;
        let Some(target) = self.buf.get_mut(start..start + bytes.len()) else { return false };
        let (words, rest) = bytes.as_chunks::<8>();
        let (targets, target_rest) = target.as_chunks_mut::<8>();
        for (target, word) in targets.iter_mut().zip(words) {
            *target = *word;
        }
        target_rest.copy_from_slice(rest);
        self.len += bytes.len() as u32;
        true
    }
}
