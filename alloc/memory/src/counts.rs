//! What is counted of allocations: as a value, and as a place that one thread writes and any thread reads.
//!
//! Always: of a place that one thread writes, no count decreases.

use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicU64, Ordering};

/// What has been allocated and freed, as counts since the thread began.
///
/// Memory that one thread allocates and another frees counts for each where it happened, so a thread's
/// [`current_bytes`](Self::current_bytes) may be negative; the sum over all threads is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Successful allocations, reallocations included.
    pub allocations: u64,
    /// Frees, reallocations included.
    pub frees: u64,
    /// Bytes asked for.
    pub allocated_bytes: u64,
    /// Bytes given back.
    pub freed_bytes: u64,
}

impl Counters {
    /// Bytes allocated and not freed.
    pub fn current_bytes(&self) -> i64 {
        self.allocated_bytes.wrapping_sub(self.freed_bytes) as i64
    }
}

impl Add for Counters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            allocations: self.allocations.wrapping_add(other.allocations),
            frees: self.frees.wrapping_add(other.frees),
            allocated_bytes: self.allocated_bytes.wrapping_add(other.allocated_bytes),
            freed_bytes: self.freed_bytes.wrapping_add(other.freed_bytes),
        }
    }
}

/// What happened between an earlier reading and this one; zero where the readings are the wrong way round.
impl Sub for Counters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            allocations: self.allocations.saturating_sub(earlier.allocations),
            frees: self.frees.saturating_sub(earlier.frees),
            allocated_bytes: self.allocated_bytes.saturating_sub(earlier.allocated_bytes),
            freed_bytes: self.freed_bytes.saturating_sub(earlier.freed_bytes),
        }
    }
}

/// Counts that one thread writes with plain load and store, and any thread reads.
#[derive(Default)]
pub(crate) struct Counts {
    allocations: AtomicU64,
    frees: AtomicU64,
    allocated_bytes: AtomicU64,
    freed_bytes: AtomicU64,
}

impl Counts {
    pub(crate) const fn new() -> Self {
        Self {
            allocations: AtomicU64::new(0),
            frees: AtomicU64::new(0),
            allocated_bytes: AtomicU64::new(0),
            freed_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn read(&self) -> Counters {
        // Frees first, so that a reading never shows a free before its allocation on the same thread.
        let frees = self.frees.load(Ordering::Acquire);
        let freed_bytes = self.freed_bytes.load(Ordering::Acquire);
        Counters {
            allocations: self.allocations.load(Ordering::Acquire),
            frees,
            allocated_bytes: self.allocated_bytes.load(Ordering::Acquire),
            freed_bytes,
        }
    }

    pub(crate) fn store(&self, values: Counters) {
        self.allocations.store(values.allocations, Ordering::Release);
        self.allocated_bytes.store(values.allocated_bytes, Ordering::Release);
        self.frees.store(values.frees, Ordering::Release);
        self.freed_bytes.store(values.freed_bytes, Ordering::Release);
    }

    /// Only the owning thread writes, so no read-modify-write is needed.
    #[inline]
    pub(crate) fn allocated(&self, size: usize) {
        bump(&self.allocations, 1);
        bump(&self.allocated_bytes, size as u64);
    }

    #[inline]
    pub(crate) fn freed(&self, size: usize) {
        bump(&self.frees, 1);
        bump(&self.freed_bytes, size as u64);
    }

    /// Bytes held now, for the thread that writes: no order is asked for.
    #[inline]
    pub(crate) fn current(&self) -> i64 {
        let allocated = self.allocated_bytes.load(Ordering::Relaxed);
        allocated.wrapping_sub(self.freed_bytes.load(Ordering::Relaxed)) as i64
    }

    // ---- of many threads at once ----

    pub(crate) fn put_in(&self, values: Counters) {
        self.allocations.fetch_add(values.allocations, Ordering::Relaxed);
        self.allocated_bytes.fetch_add(values.allocated_bytes, Ordering::Relaxed);
        self.frees.fetch_add(values.frees, Ordering::Relaxed);
        self.freed_bytes.fetch_add(values.freed_bytes, Ordering::Relaxed);
    }

    pub(crate) fn take_out(&self, values: Counters) {
        self.allocations.fetch_sub(values.allocations, Ordering::Relaxed);
        self.allocated_bytes.fetch_sub(values.allocated_bytes, Ordering::Relaxed);
        self.frees.fetch_sub(values.frees, Ordering::Relaxed);
        self.freed_bytes.fetch_sub(values.freed_bytes, Ordering::Relaxed);
    }
}

#[inline]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Release);
}
