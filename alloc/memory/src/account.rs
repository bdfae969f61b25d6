//! The global allocator: mimalloc, with every allocation counted for the thread that made it.
//!
//! Each thread owns its counts and is the only one to write them. An unregistered thread keeps them in a thread-local
//! that needs neither allocation nor destructor; [`register_thread`] moves them to a shared block, where other threads
//! may read them, until the handle is dropped.
//!
//! Always, per thread and label: the counts never decrease. A block is listed exactly while its handle lives. Counting
//! allocates nothing, takes no lock and cannot fail.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Add, Sub};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mimalloc::MiMalloc;

use crate::limits::{LABELS, THREADS_MAX};

/// mimalloc under accounting. Install it once per binary:
///
/// ```
/// #[global_allocator]
/// static HEAP: tidegate_memory::Accounted = tidegate_memory::Accounted::new();
///
/// let (_, counted) = tidegate_memory::measure(|| vec![0u8; 1000]);
/// assert_eq!((counted.allocations, counted.allocated_bytes), (1, 1000));
/// ```
pub struct Accounted {
    heap: MiMalloc,
}

impl Accounted {
    /// The allocator.
    pub const fn new() -> Self {
        Self { heap: MiMalloc }
    }
}

impl Default for Accounted {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Accounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accounted(mimalloc)")
    }
}

// SAFETY: rule 1. Every call goes to mimalloc unchanged, and its result comes back unchanged.
unsafe impl GlobalAlloc for Accounted {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: rule 1, the caller's promise about `layout` is mimalloc's condition.
        let pointer = unsafe { self.heap.alloc(layout) };
        count_allocated(pointer, layout.size());
        pointer
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: rule 1, as in `alloc`.
        let pointer = unsafe { self.heap.alloc_zeroed(layout) };
        count_allocated(pointer, layout.size());
        pointer
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count_freed(layout.size());
        // SAFETY: rule 1, the caller's promise that pointer and layout belong together is mimalloc's condition.
        unsafe { self.heap.dealloc(pointer, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: rule 1, the caller's promise about all three is mimalloc's condition.
        let moved = unsafe { self.heap.realloc(pointer, layout, size) };
        if !moved.is_null() {
            // One of each: a grown vector has asked the heap again.
            count_freed(layout.size());
            count_allocated(moved, size);
        }
        moved
    }
}

/// Whose code an allocation is made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Label {
    /// The runtime's own. What a thread starts with.
    Framework = 0,
    /// A function of the job.
    User = 1,
}

const _: () = assert!(LABELS == Label::User as usize + 1);

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
            allocations: self.allocations + other.allocations,
            frees: self.frees + other.frees,
            allocated_bytes: self.allocated_bytes + other.allocated_bytes,
            freed_bytes: self.freed_bytes + other.freed_bytes,
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

/// The counters of one thread, by label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByLabel([Counters; LABELS]);

impl ByLabel {
    /// Those of one label.
    pub fn of(&self, label: Label) -> Counters {
        self.0[label as usize]
    }

    /// Those of all labels together.
    pub fn total(&self) -> Counters {
        self.0.iter().fold(Counters::default(), |sum, counters| sum + *counters)
    }
}

/// Attributes what this thread allocates and frees to a label, until dropped. Scopes nest; drop them in reverse order.
///
/// ```
/// # use tidegate_memory::{Label, Scope};
/// let user = Scope::enter(Label::User);
/// // … call a function of the job …
/// drop(user); // back to the label before
/// ```
#[derive(Debug)]
#[must_use = "the label holds only as long as the scope lives"]
pub struct Scope {
    before: Label,
    this_thread: PhantomData<*const ()>,
}

impl Scope {
    /// Switches this thread to `label`. Two writes to a thread-local: cheap enough for every call of user code.
    #[inline]
    pub fn enter(label: Label) -> Self {
        let before = THREAD.with(|thread| thread.label.replace(label));
        Self { before, this_thread: PhantomData }
    }
}

impl Drop for Scope {
    #[inline]
    fn drop(&mut self) {
        THREAD.with(|thread| thread.label.set(self.before));
    }
}

/// This thread's counters. All zero where [`Accounted`] is not the global allocator.
pub fn this_thread() -> ByLabel {
    THREAD.with(Thread::read)
}

/// Runs `body` and tells what this thread allocated and freed meanwhile.
pub fn measure<R>(body: impl FnOnce() -> R) -> (R, Counters) {
    let before = this_thread().total();
    let result = body();
    (result, this_thread().total() - before)
}

/// Makes this thread's counters readable by others under `name`, until the handle is dropped. The counts go on from where
/// they are.
///
/// # Errors
/// The thread is registered already, or too many threads are.
pub fn register_thread(name: &str) -> Result<ThreadHandle, RegisterError> {
    if THREAD.with(|thread| thread.shared.get().is_some()) {
        return Err(RegisterError::Registered);
    }
    let block = Arc::new(Block { name: name.to_owned(), counts: Default::default() });
    {
        let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.len() >= THREADS_MAX {
            return Err(RegisterError::TooMany);
        }
        blocks.push(Arc::clone(&block));
    }
    THREAD.with(|thread| {
        block.store(thread.read());
        thread.shared.set(Some(NonNull::from(&*block)));
    });
    Ok(ThreadHandle { block, this_thread: PhantomData })
}

/// A snapshot of all registered threads, in the order of their registration.
pub fn thread_counters() -> Vec<ThreadCounters> {
    let blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    blocks.iter().map(|block| ThreadCounters { name: block.name.clone(), by_label: block.read() }).collect()
}

/// The counters of one registered thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadCounters {
    /// The name it was registered under.
    pub name: String,
    /// Its counters. Each is read whole, but not all at one instant.
    pub by_label: ByLabel,
}

/// Keeps a thread registered. Stays on its thread.
#[must_use = "the thread is registered only as long as the handle lives"]
pub struct ThreadHandle {
    block: Arc<Block>,
    this_thread: PhantomData<*const ()>,
}

impl ThreadHandle {
    /// The name given at registration.
    pub fn name(&self) -> &str {
        &self.block.name
    }

    /// The thread's counters now.
    pub fn counters(&self) -> ByLabel {
        self.block.read()
    }
}

impl fmt::Debug for ThreadHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadHandle").field("name", &self.block.name).finish_non_exhaustive()
    }
}

impl Drop for ThreadHandle {
    fn drop(&mut self) {
        THREAD.with(|thread| {
            thread.shared.set(None);
            thread.write(self.block.read());
        });
        let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.retain(|block| !Arc::ptr_eq(block, &self.block));
    }
}

/// Why a thread could not be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The calling thread holds a handle already.
    #[error("misuse: this thread is registered already; drop its handle first")]
    Registered,
    /// The table is full.
    #[error(
        "this process: {THREADS_MAX} threads are registered, which is the bound; register slots, not every thread"
    )]
    TooMany,
}

/// Counts of one label in a shared block: written by one thread with plain load and store, read by any.
#[derive(Default)]
struct SharedCounts {
    allocations: AtomicU64,
    frees: AtomicU64,
    allocated_bytes: AtomicU64,
    freed_bytes: AtomicU64,
}

/// What a registered thread shares. A cache line and more of its own, so that threads do not disturb each other.
#[repr(align(128))]
struct Block {
    counts: [SharedCounts; LABELS],
    name: String,
}

impl Block {
    fn read(&self) -> ByLabel {
        ByLabel(std::array::from_fn(|label| {
            let counts = &self.counts[label];
            // Frees first, so that a reading never shows a free before its allocation on the same thread.
            let frees = counts.frees.load(Ordering::Acquire);
            let freed_bytes = counts.freed_bytes.load(Ordering::Acquire);
            Counters {
                allocations: counts.allocations.load(Ordering::Acquire),
                frees,
                allocated_bytes: counts.allocated_bytes.load(Ordering::Acquire),
                freed_bytes,
            }
        }))
    }

    fn store(&self, values: ByLabel) {
        for (counts, values) in self.counts.iter().zip(values.0) {
            counts.allocations.store(values.allocations, Ordering::Release);
            counts.allocated_bytes.store(values.allocated_bytes, Ordering::Release);
            counts.frees.store(values.frees, Ordering::Release);
            counts.freed_bytes.store(values.freed_bytes, Ordering::Release);
        }
    }
}

static BLOCKS: Mutex<Vec<Arc<Block>>> = Mutex::new(Vec::new());

/// One thread's part: constant to build and without destructor, so the allocator may use it at any moment of a thread.
struct Thread {
    label: Cell<Label>,
    own: [Cell<Counters>; LABELS],
    /// Where counts go while registered.
    shared: Cell<Option<NonNull<Block>>>,
}

thread_local! {
    static THREAD: Thread = const {
        const ZERO: Counters = Counters { allocations: 0, frees: 0, allocated_bytes: 0, freed_bytes: 0 };
        Thread {
            label: Cell::new(Label::Framework),
            own: [const { Cell::new(ZERO) }; LABELS],
            shared: Cell::new(None),
        }
    };
}

impl Thread {
    fn read(&self) -> ByLabel {
        match self.block() {
            Some(block) => block.read(),
            None => ByLabel(std::array::from_fn(|label| self.own[label].get())),
        }
    }

    fn write(&self, values: ByLabel) {
        for (own, values) in self.own.iter().zip(values.0) {
            own.set(values);
        }
    }

    #[inline]
    fn block(&self) -> Option<&Block> {
        // SAFETY: rule 2, the pointer is set only while the handle keeps the block alive.
        self.shared.get().map(|block| unsafe { block.as_ref() })
    }
}

#[inline]
fn count_allocated(pointer: *mut u8, size: usize) {
    if pointer.is_null() {
        return;
    }
    THREAD.with(|thread| {
        let label = thread.label.get() as usize;
        if let Some(block) = thread.block() {
            bump(&block.counts[label].allocations, 1);
            bump(&block.counts[label].allocated_bytes, size as u64);
        } else {
            let mut counters = thread.own[label].get();
            counters.allocations = counters.allocations.wrapping_add(1);
            counters.allocated_bytes = counters.allocated_bytes.wrapping_add(size as u64);
            thread.own[label].set(counters);
        }
    });
}

#[inline]
fn count_freed(size: usize) {
    THREAD.with(|thread| {
        let label = thread.label.get() as usize;
        if let Some(block) = thread.block() {
            bump(&block.counts[label].frees, 1);
            bump(&block.counts[label].freed_bytes, size as u64);
        } else {
            let mut counters = thread.own[label].get();
            counters.frees = counters.frees.wrapping_add(1);
            counters.freed_bytes = counters.freed_bytes.wrapping_add(size as u64);
            thread.own[label].set(counters);
        }
    });
}

/// Only the owning thread writes, so no read-modify-write is needed.
#[inline]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Release);
}
