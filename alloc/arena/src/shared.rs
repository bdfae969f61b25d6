//! Memory files that other processes of this host may be given to read: made, mapped and sealed here.
//!
//! A file has no name in any file system and is gone with its last descriptor and mapping, however its owners end.
//! [`Words`] is a page of them for positions and flags. Owned by whoever made it; always: this process alone writes it.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;

use crate::error::ArenaError;
use crate::limits::{PAGE_BYTES, WORDS};

/// What a file is sealed against before it is shown to anybody, and what a peer looks for: shorter, longer, another
/// writer, another seal.
pub(crate) const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);

/// A file of `bytes` zeroes, still to be mapped and sealed.
pub(crate) fn file(name: &CStr, bytes: usize) -> Result<OwnedFd, ArenaError> {
    let refused = |call| move |errno: Errno| ArenaError::Share { bytes, call, errno: errno.raw_os_error() };
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(refused("memfd_create"))?;
    ftruncate(&file, bytes as u64).map_err(refused("ftruncate"))?;
    Ok(file)
}

/// Makes it what rule 11 says. The mappings there are stay writable, and there will be no others.
pub(crate) fn seal(file: &OwnedFd, bytes: usize) -> Result<(), ArenaError> {
    fcntl_add_seals(file, SEALS).map_err(|errno| ArenaError::Share {
        bytes,
        call: "fcntl(F_ADD_SEALS)",
        errno: errno.raw_os_error(),
    })
}

/// Why there is no page of words: the call that just failed.
fn refused(call: &'static str) -> ArenaError {
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    ArenaError::Share { bytes: PAGE_BYTES, call, errno }
}

/// One page of words that this process writes and others may read, zero at first.
#[derive(Debug)]
pub struct Words {
    base: NonNull<u8>,
    file: OwnedFd,
}

// SAFETY: rule 11. The page belongs to the process, and is only reached as atomics.
unsafe impl Send for Words {}
// SAFETY: rule 11. As above.
unsafe impl Sync for Words {}

impl Words {
    /// How many there are.
    pub const COUNT: usize = WORDS;

    /// A new page.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn new() -> Result<Self, ArenaError> {
        let file = file(c"tidegate-words", PAGE_BYTES)?;
        let (protection, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.as_raw_fd());
        // SAFETY: rule 1, a new mapping at an address of the kernel's choice touches nothing that exists.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), PAGE_BYTES, protection, libc::MAP_SHARED, fd, 0) };
        let base = match NonNull::new(start.cast::<u8>()) {
            Some(base) if start != libc::MAP_FAILED => base,
            _ => return Err(refused("mmap")),
        };
        // From here on the page goes with it.
        let words = Self { base, file };
        // SAFETY: rule 2, the page just mapped; a child would share it with us and write it, too.
        let kept = unsafe { libc::madvise(words.base.as_ptr().cast(), PAGE_BYTES, libc::MADV_DONTFORK) };
        if kept != 0 {
            return Err(refused("madvise(MADV_DONTFORK)"));
        }
        seal(&words.file, PAGE_BYTES)?;
        Ok(words)
    }

    /// The file, to be shown to a peer.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Writes a word.
    ///
    /// # Panics
    /// If there is no such word.
    #[inline]
    pub fn set(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Relaxed);
    }

    /// Writes a word after everything that was written before it.
    ///
    /// # Panics
    /// If there is no such word.
    #[inline]
    pub fn publish(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Release);
    }

    #[inline]
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < WORDS, "word {index} of {WORDS}");
        // SAFETY: rule 2, inside the page.
        let word = unsafe { self.base.cast::<AtomicU64>().add(index) };
        // SAFETY: rules 2, 9 and 11: aligned, inside the page, initialised, and reached as an atomic only.
        unsafe { word.as_ref() }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: rule 1, the owner is going, and no borrow of the page outlives it.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), PAGE_BYTES) };
        assert_eq!(result, 0, "the page was mapped by us");
    }
}
