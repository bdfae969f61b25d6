//! Memory that another process shares with us, to be read while that process may change it.
//!
//! A [`Foreign`] owns its read-only mapping. It gives no reference to what is in there: single words, or bytes copied
//! into a segment of our own. What comes out is checked after that, by whoever asked for it (rule 12).
//!
//! Always: copies come from pages that the file had when it was mapped. A hole would be filled by whoever reads it, at
//! the reader's charge, and a file without pages can be as large as it likes.

use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rustix::fs::{SealFlags, SeekFrom, fcntl_get_seals, fstat, fstatfs, seek};
use rustix::io::Errno;

use crate::Arena;
use crate::limits::FOREIGN_RANGES_MAX;
#[cfg(target_arch = "x86_64")]
use crate::limits::STRING_BYTES_MIN;
use crate::segment::{Receiving, Segment};
use crate::shared::SEALS;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!(
    "relaxed loads of eight bytes from read-only memory are documented for x86-64 and aarch64 only"
);

/// What the file system of a memory file on ordinary pages is called.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Why a file that a peer has shown is not mapped. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForeignError {
    /// It is no memory file: nothing else has seals.
    #[error("peer: showed a file without seals, expected a memory file; use the same version of the product")]
    NoMemoryFile,
    /// A seal is missing: the file could be cut short under us, or its contents be swept away by a third.
    #[error("peer: showed a memory file without the seals {missing}; use the same version of the product")]
    Unsealed {
        /// Which.
        missing: Missing,
    },
    /// It is on pages whose holes may fault.
    #[error("peer: showed a memory file on huge pages; use the same version of the product")]
    HugePages,
    /// Too small or too large.
    #[error(
        "peer: showed a memory file of {found} bytes, expected {least} to {most}; use the same version of the product"
    )]
    Size {
        /// Its size.
        found: u64,
        /// The least that makes sense.
        least: u64,
        /// The most that is mapped.
        most: u64,
    },
    /// Its pages lie about, more than the shards of an arena do.
    #[error(
        "peer: showed a memory file in more than {FOREIGN_RANGES_MAX} pieces; use the same version of the product"
    )]
    Scattered,
    /// The operating system refused.
    #[error("operating system: mapping what a peer shares failed in {call} (errno {errno})")]
    Os {
        /// The call.
        call: &'static str,
        /// What it reported.
        errno: i32,
    },
}

/// Names of missing seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing(u32);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = SealFlags::from_bits_retain(self.0).iter_names().map(|(name, _)| name);
        f.write_str(&names.collect::<Vec<_>>().join(", "))
    }
}

/// A file of a peer, mapped to be read.
#[derive(Debug)]
pub struct Foreign {
    base: NonNull<u8>,
    len: u64,
    /// Where the file had pages when it was mapped, in order. It cannot lose them (rule 12).
    ranges: Vec<Range<u64>>,
}

// SAFETY: rule 12. The mapping belongs to the process, and is only loaded from, atomically.
unsafe impl Send for Foreign {}
// SAFETY: rule 12. As above.
unsafe impl Sync for Foreign {}

impl Foreign {
    /// Maps all of a file of `least` to `most` bytes.
    ///
    /// # Errors
    /// By what the file lacks. Nothing of it was read then.
    pub fn map(file: &OwnedFd, least: u64, most: u64) -> Result<Self, ForeignError> {
        let os = |call| move |errno: Errno| ForeignError::Os { call, errno: errno.raw_os_error() };
        let seals = match fcntl_get_seals(file) {
            Ok(seals) => seals,
            Err(Errno::INVAL) => return Err(ForeignError::NoMemoryFile),
            Err(errno) => return Err(os("fcntl(F_GET_SEALS)")(errno)),
        };
        let missing = SEALS.difference(seals);
        if !missing.is_empty() {
            return Err(ForeignError::Unsealed { missing: Missing(missing.bits()) });
        }
        // After the seals: the size is final.
        let found = fstat(file).map_err(os("fstat"))?.st_size as u64;
        if !(least..=most).contains(&found) {
            return Err(ForeignError::Size { found, least, most });
        }
        if fstatfs(file).map_err(os("fstatfs"))?.f_type as u64 != TMPFS_MAGIC {
            return Err(ForeignError::HugePages);
        }
        let ranges = ranges(file, found)?;
        let len =
            usize::try_from(found).expect("invariant: files are bounded by `most`, addresses have 64 bits");
        let fd = file.as_raw_fd();
        // SAFETY: rule 1, a new mapping at an address of the kernel's choice touches nothing that exists.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, fd, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(base) if start != libc::MAP_FAILED => Ok(Self { base, len: found, ranges }),
            _ => Err(os("mmap")(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))),
        }
    }

    /// Bytes mapped. They stay so many.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The word at a position, as it is at this moment. Whoever needs an order with other loads puts fences between.
    ///
    /// # Panics
    /// If there is no such word.
    #[inline]
    pub fn word(&self, index: usize) -> u64 {
        assert!((index as u64) < self.len / 8, "word {index} of a mapping of {} bytes", self.len);
        // SAFETY: rule 12, inside the mapping.
        let word = unsafe { self.base.cast::<AtomicU64>().add(index) };
        // SAFETY: rule 12, aligned, inside the mapping, a relaxed load of eight bytes.
        unsafe { word.as_ref() }.load(Ordering::Relaxed)
    }

    /// Whether `len` bytes at `offset` are within, and on pages that were there.
    #[inline]
    pub fn holds(&self, offset: u64, len: u32) -> bool {
        let next = self.ranges.partition_point(|range| range.start <= offset);
        let range = next.checked_sub(1).map(|at| &self.ranges[at]);
        range.is_some_and(|range| offset.checked_add(u64::from(len)).is_some_and(|end| end <= range.end))
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // SAFETY: rule 1, the owner is going, and nothing borrows from the mapping.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.len as usize) };
        assert_eq!(result, 0, "the range was mapped by us");
    }
}

impl Arena {
    /// Copies `len` bytes at `offset` of foreign memory to `at` in a segment. What they are worth, the caller finds out
    /// in the copy, which nobody else can change.
    ///
    /// # Panics
    /// If either range is not within; the caller checks what the peer says before.
    pub fn copy_in(&self, segment: &mut Segment<Receiving>, at: u32, from: &Foreign, offset: u64, len: u32) {
        assert!(
            u64::from(at) + u64::from(len) <= u64::from(self.capacity_of(segment)),
            "the copy fits its segment"
        );
        assert!(from.holds(offset, len), "the copy lies within the foreign memory");
        let target = self.write_ptr(segment).wrapping_add(at as usize);
        let source = from.base.as_ptr().cast_const().wrapping_add(offset as usize);
        // SAFETY: rules 4 and 6, the segment is ours alone while its only handle is borrowed exclusively, and the range is
        // within it; rule 12 for the source, whose range was checked.
        unsafe { copy(source, target, len as usize) }
    }
}

/// Where a file of `len` bytes has pages.
fn ranges(file: &OwnedFd, len: u64) -> Result<Vec<Range<u64>>, ForeignError> {
    let (mut ranges, mut end) = (Vec::new(), 0);
    let os = |errno: Errno| ForeignError::Os { call: "lseek", errno: errno.raw_os_error() };
    while end < len {
        let start = match seek(file, SeekFrom::Data(end)) {
            Err(Errno::NXIO) => break,
            start => start.map_err(os)?,
        };
        end = seek(file, SeekFrom::Hole(start)).map_err(os)?.min(len);
        if ranges.len() == FOREIGN_RANGES_MAX || end <= start {
            return Err(ForeignError::Scattered);
        }
        ranges.push(start..end);
    }
    Ok(ranges)
}

/// Copies memory that may change meanwhile: each byte of the result was there at some moment.
///
/// # Safety
/// `source` is valid for loads of whatever kind and `target` for writes of `len` bytes, and they do not overlap.
unsafe fn copy(source: *const u8, target: *mut u8, len: usize) {
    // SAFETY: the caller's.
    let done = unsafe { copy_string(source, target, len) };
    let (source, target, len) = (source.wrapping_add(done), target.wrapping_add(done), len - done);
    let ahead = source.align_offset(align_of::<AtomicU64>()).min(len);
    let words = (len - ahead) / 8;
    // SAFETY: the caller's.
    unsafe { copy_bytes(source, target, ahead) };
    let (source, target) = (source.wrapping_add(ahead), target.wrapping_add(ahead));
    for index in 0..words {
        let from = source.wrapping_add(index * 8).cast::<AtomicU64>();
        // SAFETY: the caller's, and aligned: rule 12.
        let word = unsafe { &*from }.load(Ordering::Relaxed);
        // SAFETY: the caller's; needs no alignment.
        unsafe { target.wrapping_add(index * 8).cast::<u64>().write_unaligned(word) };
    }
    let done = words * 8;
    // SAFETY: the caller's.
    unsafe { copy_bytes(source.wrapping_add(done), target.wrapping_add(done), len - ahead - done) };
}

/// Copies from the start what is better copied as a whole than word by word; says how much. The bytes come from another
/// core's cache, and the processor's own loop has more lines on their way than one of words.
///
/// # Safety
/// As for [`copy`].
#[cfg(target_arch = "x86_64")]
unsafe fn copy_string(source: *const u8, target: *mut u8, len: usize) -> usize {
    if len < STRING_BYTES_MIN {
        return 0;
    }
    // SAFETY: the caller's, and rule 12: loads from and stores to these ranges, upwards, and nothing else.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") source => _,
            inout("rdi") target => _,
            options(nostack, preserves_flags),
        );
    }
    len
}

/// Nothing: elsewhere words have to do.
///
/// # Safety
/// None is needed.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_string(_source: *const u8, _target: *mut u8, _len: usize) -> usize {
    0
}

/// The same, byte by byte.
///
/// # Safety
/// As for [`copy`].
unsafe fn copy_bytes(source: *const u8, target: *mut u8, len: usize) {
    for index in 0..len {
        // SAFETY: the caller's: rule 12.
        let byte = unsafe { &*source.wrapping_add(index).cast::<AtomicU8>() }.load(Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { target.wrapping_add(index).write(byte) };
    }
}
