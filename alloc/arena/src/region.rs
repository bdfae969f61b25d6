//! The mapped memory of an arena: one reservation, 2 MiB-aligned, on the largest pages the host gives, touched before
//! the first use and absent from forked children. Owned by the arena, unmapped with it.
//!
//! Always: `base` is aligned to [`SHARD_ALIGN`]; shard `i` occupies `offsets[i]..offsets[i] + bytes[i]`, shards do not
//! overlap, and no page of one shard belongs to another; all bytes are initialised (zero at first); with a file behind
//! it, byte `i` from `base` is byte `i` of that file.

#[cfg(not(any(miri, loom)))]
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use crate::error::ArenaError;
use crate::limits::PAGE_BYTES;
#[cfg(not(any(miri, loom)))]
use crate::{
    limits::{HUGE_PAGE_BYTES, HUGE_WASTE_DIVISOR},
    shared,
};

/// Shards start at multiples of this: a huge page, or under the model checkers, which have no mappings, a page.
#[cfg(not(any(miri, loom)))]
pub(crate) const SHARD_ALIGN: usize = HUGE_PAGE_BYTES;
#[cfg(any(miri, loom))]
pub(crate) const SHARD_ALIGN: usize = PAGE_BYTES;

/// Which pages to ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Explicit huge pages if some are reserved on the host, else transparent ones, else 4 KiB pages.
    #[default]
    Auto,
    /// 4 KiB pages only.
    Never,
}

/// Which pages the arena got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Explicit 2 MiB pages of the host's pool.
    Explicit,
    /// Transparent huge pages.
    Transparent {
        /// Bytes of the arena that lay on huge pages when it was mapped; the rest is on 4 KiB pages.
        huge_bytes: usize,
    },
    /// 4 KiB pages.
    Small,
    /// Memory of the heap: asked for, or under a model checker.
    Heap,
}

/// One shard's memory, for registration with the kernel. Valid as long as an [`Arena`](crate::Arena) clone lives.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// First byte, aligned to 2 MiB.
    pub ptr: *mut u8,
    /// Length in bytes: segments of the shard × segment size, at most 1 GiB.
    pub len: usize,
}

/// The memory, until dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    pages: Pages,
    /// What to give back on drop: the reservation around `base`, guard pages included, or the allocation. `None` once leaked.
    owned: Option<(NonNull<u8>, usize)>,
    /// The sealed file behind the pages, for peers to map; `None` for private memory.
    #[cfg(not(any(miri, loom)))]
    file: Option<OwnedFd>,
}

// SAFETY: rule 1. The mapping belongs to the process, not to a thread, and this type never reads or writes its bytes
// after construction.
unsafe impl Send for Mapping {}
// SAFETY: rule 1. As above; a shared reference only copies the base address out.
unsafe impl Sync for Mapping {}

/// Where each shard starts, and the length of the whole.
pub(crate) fn layout(shard_bytes: &[usize]) -> (Vec<usize>, usize) {
    let mut end = 0;
    let offsets = shard_bytes.iter().map(|bytes| {
        let start = end;
        end += bytes.next_multiple_of(SHARD_ALIGN);
        start
    });
    (offsets.collect(), end)
}

impl Mapping {
    /// First byte of the first shard.
    #[inline]
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn pages(&self) -> Pages {
        self.pages
    }

    /// Never unmap: the kernel may still write there.
    pub(crate) fn leak(&mut self) {
        self.owned = None;
    }
}

#[cfg(not(any(miri, loom)))]
impl Mapping {
    /// Maps and touches memory for shards of these sizes, on the best rung of the page ladder.
    pub(crate) fn new(shard_bytes: &[usize], huge_pages: HugePages) -> Result<Self, ArenaError> {
        let (offsets, len) = layout(shard_bytes);
        let used: usize = shard_bytes.iter().sum();
        let little_waste = len - used <= used / HUGE_WASTE_DIVISOR;
        if huge_pages == HugePages::Auto && little_waste {
            // No pool, a pool too small, or a cgroup without a share of it: the next rung, which is no fault.
            if let Ok(mapping) = Self::explicit(len) {
                return Ok(mapping);
            }
        }
        let mut mapping = Self::guarded(len)?;
        os::open(mapping.base, len)?;
        mapping.prepare(&offsets, shard_bytes, huge_pages)?;
        Ok(mapping)
    }

    /// The same in a memory file that peers may map and only we may write. Never on explicit huge pages, which peers
    /// refuse: a hole in a file of those can fault in the reader.
    pub(crate) fn shared(shard_bytes: &[usize], huge_pages: HugePages) -> Result<Self, ArenaError> {
        let (offsets, len) = layout(shard_bytes);
        let file = shared::file(c"tidegate-arena", len)?;
        let mut mapping = Self::guarded(len)?;
        os::put(mapping.base, len, &file)?;
        mapping.prepare(&offsets, shard_bytes, huge_pages)?;
        shared::seal(&file, len)?;
        mapping.file = Some(file);
        Ok(mapping)
    }

    /// The file behind it.
    pub(crate) fn file(&self) -> Option<&OwnedFd> {
        self.file.as_ref()
    }

    /// Keeps it from forked children, sets its pages and touches them.
    fn prepare(
        &mut self,
        offsets: &[usize],
        shard_bytes: &[usize],
        huge_pages: HugePages,
    ) -> Result<(), ArenaError> {
        let (_, len) = layout(shard_bytes);
        os::advise(self.base, len, libc::MADV_DONTFORK, "madvise(DONTFORK)")?;
        for (offset, bytes) in offsets.iter().zip(shard_bytes) {
            self.prepare_shard(*offset, *bytes, huge_pages)?;
        }
        if huge_pages == HugePages::Auto {
            let start = self.base.as_ptr().addr();
            let huge_bytes = os::huge_bytes(start..start + len);
            if huge_bytes > 0 {
                self.pages = Pages::Transparent { huge_bytes };
            }
        }
        Ok(())
    }

    /// Explicit huge pages: aligned by the kernel, and reserved for us once the call succeeds.
    fn explicit(len: usize) -> Result<Self, ArenaError> {
        let base = os::map(len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB)?;
        let mapping = Self { base, pages: Pages::Explicit, owned: Some((base, len)), file: None };
        assert!(base.as_ptr().addr().is_multiple_of(HUGE_PAGE_BYTES), "the kernel aligns huge pages");
        os::advise(base, len, libc::MADV_DONTFORK, "madvise(DONTFORK)")?;
        // Populating reports a missing page as an error, where touching one would kill us with SIGBUS.
        os::advise(base, len, libc::MADV_POPULATE_WRITE, "madvise(POPULATE_WRITE)")?;
        Ok(mapping)
    }

    /// Addresses for ordinary pages, aligned to a huge page, with at least one inaccessible page on both sides.
    fn guarded(len: usize) -> Result<Self, ArenaError> {
        let reserved = len + 2 * HUGE_PAGE_BYTES;
        let start = os::map(reserved, libc::PROT_NONE, libc::MAP_NORESERVE)?;
        let skip =
            (start.as_ptr().addr() + PAGE_BYTES).next_multiple_of(HUGE_PAGE_BYTES) - start.as_ptr().addr();
        assert!(skip >= PAGE_BYTES && skip + len + PAGE_BYTES <= reserved, "guards on both sides");
        // SAFETY: rule 2, skip < reserved, so the address stays inside the reservation.
        let base = unsafe { start.add(skip) };
        Ok(Self { base, pages: Pages::Small, owned: Some((start, reserved)), file: None })
    }

    /// Sets the pages of one shard and touches it. Only whole huge pages are asked for, so that the arena takes exactly
    /// its size: the tail of a shard never draws a huge page of which it uses a part.
    fn prepare_shard(&self, offset: usize, bytes: usize, huge_pages: HugePages) -> Result<(), ArenaError> {
        let whole = match huge_pages {
            HugePages::Auto => bytes - bytes % HUGE_PAGE_BYTES,
            HugePages::Never => 0,
        };
        // SAFETY: rule 2, layout() put the shard inside the mapping.
        let start = unsafe { self.base.add(offset) };
        // SAFETY: rule 2, whole ≤ bytes.
        let tail = unsafe { start.add(whole) };
        if whole > 0 {
            // A kernel without transparent huge pages refuses; then the pages are small, and reported as such.
            let _ = os::advise(start, whole, libc::MADV_HUGEPAGE, "madvise(HUGEPAGE)");
        }
        if whole < bytes {
            let _ = os::advise(tail, bytes - whole, libc::MADV_NOHUGEPAGE, "madvise(NOHUGEPAGE)");
        }
        match os::advise(start, bytes, libc::MADV_POPULATE_WRITE, "madvise(POPULATE_WRITE)") {
            // Kernels before 5.14 do not know the advice.
            Err(ArenaError::Map { errno: libc::EINVAL, .. }) => {
                os::touch(start, bytes);
                Ok(())
            }
            done => done,
        }
    }
}

#[cfg(not(any(miri, loom)))]
mod os {
    //! The calls themselves, each with its errors named.

    use std::ops::Range;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::ptr::NonNull;

    use crate::error::ArenaError;
    use crate::limits::PAGE_BYTES;

    fn failed(bytes: usize, call: &'static str) -> ArenaError {
        ArenaError::Map { bytes, call, errno: std::io::Error::last_os_error().raw_os_error().unwrap_or(0) }
    }

    /// New anonymous private memory somewhere.
    pub(super) fn map(len: usize, protection: i32, flags: i32) -> Result<NonNull<u8>, ArenaError> {
        let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: rule 1, a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(start),
            _ => Err(failed(len, "mmap")),
        }
    }

    /// Makes reserved memory readable and writable.
    pub(super) fn open(start: NonNull<u8>, len: usize) -> Result<(), ArenaError> {
        // SAFETY: rule 2, the caller's range lies inside its own fresh reservation.
        let result =
            unsafe { libc::mprotect(start.as_ptr().cast(), len, libc::PROT_READ | libc::PROT_WRITE) };
        if result == 0 { Ok(()) } else { Err(failed(len, "mprotect")) }
    }

    /// Puts the first bytes of a file in the place of reserved memory, to be read and written.
    pub(super) fn put(start: NonNull<u8>, len: usize, file: &OwnedFd) -> Result<(), ArenaError> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
        let target = start.as_ptr().cast();
        // SAFETY: rule 2, the caller's range lies inside its own fresh reservation, which nobody uses yet.
        let found = unsafe { libc::mmap(target, len, protection, flags, file.as_raw_fd(), 0) };
        if found == target { Ok(()) } else { Err(failed(len, "mmap(MAP_SHARED)")) }
    }

    /// Advice that never discards contents.
    pub(super) fn advise(
        start: NonNull<u8>,
        len: usize,
        advice: i32,
        call: &'static str,
    ) -> Result<(), ArenaError> {
        // SAFETY: rule 2, the range lies inside the caller's mapping, and no advice used here discards contents.
        let result = unsafe { libc::madvise(start.as_ptr().cast(), len, advice) };
        if result == 0 { Ok(()) } else { Err(failed(len, call)) }
    }

    /// Writes to each page once.
    pub(super) fn touch(start: NonNull<u8>, len: usize) {
        for offset in (0..len).step_by(PAGE_BYTES) {
            // SAFETY: rule 2, offset < len.
            let byte = unsafe { start.add(offset) };
            // SAFETY: rule 2, inside the mapping, which nobody else knows yet.
            unsafe { byte.write_volatile(0) };
        }
    }

    pub(super) fn unmap(start: NonNull<u8>, len: usize) {
        // SAFETY: rule 1, the owner is going and no segment is in the kernel's hands.
        let result = unsafe { libc::munmap(start.as_ptr().cast(), len) };
        assert_eq!(result, 0, "the mapping was made by us with this length");
    }

    /// Bytes of `range` that lie on transparent huge pages now, as the kernel accounts them.
    pub(super) fn huge_bytes(range: Range<usize>) -> usize {
        std::fs::read_to_string("/proc/self/smaps").map_or(0, |smaps| parse_huge_bytes(&smaps, range))
    }

    pub(super) fn parse_huge_bytes(smaps: &str, range: Range<usize>) -> usize {
        let mut inside = false;
        let mut total = 0;
        for line in smaps.lines() {
            let mut words = line.split_ascii_whitespace();
            match (words.next(), words.next()) {
                (Some("AnonHugePages:" | "ShmemPmdMapped:"), Some(kib)) if inside => {
                    total += kib.parse::<usize>().unwrap_or(0) << 10;
                }
                (Some(first), _) if !first.ends_with(':') => {
                    let start = first.split('-').next().and_then(|hex| usize::from_str_radix(hex, 16).ok());
                    inside = start.is_some_and(|start| range.contains(&start));
                }
                _ => {}
            }
        }
        total
    }
}

impl Mapping {
    /// Model checkers have no mappings.
    #[cfg(any(miri, loom))]
    pub(crate) fn new(shard_bytes: &[usize], huge_pages: HugePages) -> Result<Self, ArenaError> {
        Self::heap(shard_bytes, huge_pages)
    }

    /// Zeroed heap memory for shards of these sizes: nothing is mapped, guarded or kept from children.
    pub(crate) fn heap(shard_bytes: &[usize], _huge_pages: HugePages) -> Result<Self, ArenaError> {
        let (offsets, _) = layout(shard_bytes);
        let len = offsets.last().zip(shard_bytes.last()).map_or(0, |(start, bytes)| start + bytes);
        let layout = Self::heap_layout(len);
        // SAFETY: rule 1, the length is not zero: no shard is empty.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        let Some(base) = NonNull::new(start) else {
            return Err(ArenaError::Map { bytes: len, call: "alloc", errno: 0 });
        };
        Ok(Self {
            base,
            pages: Pages::Heap,
            owned: Some((base, len)),
            #[cfg(not(any(miri, loom)))]
            file: None,
        })
    }

    /// Bytes, if they are of the heap.
    pub(crate) fn heap_bytes(&self) -> Option<usize> {
        self.owned.filter(|_| self.pages == Pages::Heap).map(|(_, len)| len)
    }

    fn heap_layout(len: usize) -> std::alloc::Layout {
        std::alloc::Layout::from_size_align(len, PAGE_BYTES)
            .expect("an arena's length is far below isize::MAX")
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let Some((start, len)) = self.owned else { return };
        if self.pages == Pages::Heap {
            // SAFETY: rule 1, allocated by heap() with this layout, and the owner is going.
            return unsafe { std::alloc::dealloc(start.as_ptr(), Self::heap_layout(len)) };
        }
        #[cfg(not(any(miri, loom)))]
        os::unmap(start, len);
    }
}

#[cfg(all(test, not(any(miri, loom))))]
mod tests {
    use super::*;

    #[test]
    fn shards_start_on_huge_pages_and_do_not_overlap() {
        let (offsets, len) = layout(&[4096, HUGE_PAGE_BYTES, HUGE_PAGE_BYTES + 4096]);
        assert_eq!(offsets, [0, HUGE_PAGE_BYTES, 2 * HUGE_PAGE_BYTES]);
        assert_eq!(len, 4 * HUGE_PAGE_BYTES);
    }

    #[test]
    fn memory_is_aligned_zero_and_resident() {
        for huge_pages in [HugePages::Auto, HugePages::Never] {
            let bytes = [HUGE_PAGE_BYTES + 8192, 4096];
            let mapping = Mapping::new(&bytes, huge_pages).expect("a few MiB can be mapped");
            assert!(mapping.base().as_ptr().addr().is_multiple_of(HUGE_PAGE_BYTES));
            if huge_pages == HugePages::Never {
                assert_eq!(mapping.pages(), Pages::Small);
            }
            for (offset, len) in layout(&bytes).0.into_iter().zip(bytes) {
                // SAFETY: rule 2, inside the mapping, which this test alone knows.
                let start = unsafe { mapping.base().add(offset) };
                // SAFETY: rules 2 and 9, as above and initialised by the kernel.
                let shard = unsafe { std::slice::from_raw_parts(start.as_ptr(), len) };
                assert!(shard.iter().all(|byte| *byte == 0));
                let mut resident = vec![0u8; len / PAGE_BYTES];
                // SAFETY: rule 2, the range is mapped and the vector has one byte per page.
                let result = unsafe { libc::mincore(start.as_ptr().cast(), len, resident.as_mut_ptr()) };
                assert_eq!(result, 0);
                assert!(resident.iter().all(|page| page & 1 == 1), "touched before the first use");
            }
        }
    }

    #[test]
    fn an_impossible_size_is_an_error_not_a_crash() {
        let error = Mapping::new(&[1 << 60], HugePages::Never).expect_err("no host has an exabyte");
        assert!(matches!(error, ArenaError::Map { call: "mmap", errno: libc::ENOMEM, .. }), "{error}");
    }

    #[test]
    fn huge_bytes_are_counted_inside_the_range_only() {
        let smaps = "1000-3000 rw-p 0 00:00 0\nAnonHugePages:  4 kB\n5000-6000 rw-p 0 00:00 0 [x]\n\
                     Size: 4 kB\nAnonHugePages:  2048 kB\n9000-a000 r--p 0 00:00 0\nAnonHugePages: 8 kB\n";
        assert_eq!(os::parse_huge_bytes(smaps, 0x5000..0x9000), 2 << 20);
    }
}
