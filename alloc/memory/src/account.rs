//! The global allocator: mimalloc, with every allocation counted for the thread that made it and for the account it runs
//! under (a task), if it runs under one.
//!
//! Each thread owns its counts and is the only one to write them. An unregistered thread keeps them in a thread-local
//! that needs neither allocation nor destructor, and adds them to a sum that all such threads share; [`register_thread`]
//! moves them to a shared block, where other threads may read them, until the handle is dropped. An account is written by
//! the thread that runs under it, one at a time.
//!
//! Always, per thread and account: the counts never decrease. A block is listed exactly while its handle lives. The blocks
//! and the shared sum together are the process. Counting allocates nothing, takes no lock and cannot fail; it never refuses
//! an allocation, it only raises the flag of an account that is over its limit (what a single allocation may not do is in
//! `process`).

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mimalloc::MiMalloc;

use crate::counts::{Counters, Counts};
use crate::limits::{LARGE_ALLOCATION_MIN, THREADS_MAX};
use crate::process;

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
        watch(layout.size());
        // SAFETY: rule 1, the caller's promise about `layout` is mimalloc's condition.
        let pointer = unsafe { self.heap.alloc(layout) };
        count_allocated(pointer, layout.size());
        pointer
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        watch(layout.size());
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
        watch(size.saturating_sub(layout.size()));
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

/// This thread's counters. All zero where [`Accounted`] is not the global allocator.
pub fn this_thread() -> Counters {
    THREAD.with(Thread::read)
}

/// Runs `body` and tells what this thread allocated and freed meanwhile.
pub fn measure<R>(body: impl FnOnce() -> R) -> (R, Counters) {
    let before = this_thread();
    let result = body();
    (result, this_thread() - before)
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
    let block = Arc::new(Block(Counts::default(), name.to_owned()));
    {
        let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.len() >= THREADS_MAX {
            return Err(RegisterError::TooMany);
        }
        blocks.push(Arc::clone(&block));
    }
    THREAD.with(|thread| {
        let own = thread.read();
        block.0.store(own);
        UNREGISTERED.take_out(own);
        thread.shared.set(Some(NonNull::from(&block.0)));
    });
    Ok(ThreadHandle { block, this_thread: PhantomData })
}

/// A snapshot of all registered threads, in the order of their registration.
pub fn thread_counters() -> Vec<ThreadCounters> {
    let blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    blocks.iter().map(|block| ThreadCounters { name: block.1.clone(), counters: block.0.read() }).collect()
}

/// The counters of one registered thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadCounters {
    /// The name it was registered under.
    pub name: String,
    /// Its counters. Each is read whole, but not all at one instant.
    pub counters: Counters,
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
        &self.block.1
    }

    /// The thread's counters now.
    pub fn counters(&self) -> Counters {
        self.block.0.read()
    }
}

impl fmt::Debug for ThreadHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadHandle").field("name", &self.block.1).finish_non_exhaustive()
    }
}

impl Drop for ThreadHandle {
    fn drop(&mut self) {
        THREAD.with(|thread| {
            thread.shared.set(None);
            let own = self.block.0.read();
            thread.own.set(own);
            UNREGISTERED.put_in(own);
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

/// What a registered thread shares, and its name. Cache lines of its own, so that threads do not disturb each other.
#[repr(align(128))]
struct Block(Counts, String);

static BLOCKS: Mutex<Vec<Arc<Block>>> = Mutex::new(Vec::new());

/// What all threads counted that are not registered, those that have ended among them.
static UNREGISTERED: Counts = Counts::new();

/// What the whole process counted. Each thread is read whole, but not all at one instant.
pub fn process_counters() -> Counters {
    let blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    blocks.iter().fold(UNREGISTERED.read(), |sum, block| sum + block.0.read())
}

/// All accounts that live, and some that have ended, in the order they were made.
static ACCOUNTS: Mutex<Vec<Weak<Task>>> = Mutex::new(Vec::new());

/// What the process holds on its heap, and how much of that living accounts hold.
///
/// The two are read within microseconds of each other, the accounts twice, so that what a task takes in between is not
/// mistaken for what no task holds.
pub fn process_heap() -> ProcessHeap {
    let accounts = ACCOUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    let held = || -> i64 {
        let alive = accounts.iter().filter_map(Weak::upgrade);
        alive.map(|task| task.counts.read().current_bytes()).sum()
    };
    let before = held();
    let all = process_counters().current_bytes();
    let of_accounts = before.max(held());
    let bytes = |count: i64| u64::try_from(count).unwrap_or(0);
    ProcessHeap { all: bytes(all), accounts: bytes(of_accounts) }
}

/// Bytes on the heap of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessHeap {
    /// All of it.
    pub all: u64,
    /// What living accounts hold of it.
    pub accounts: u64,
}

/// What a task allocates: counts, the most it held at once, and a limit that raises a flag.
///
/// Memory that came from elsewhere and is freed under the account makes it less, and may make it negative. Clones are the
/// same account.
///
/// ```
/// #[global_allocator]
/// static HEAP: tidegate_memory::Accounted = tidegate_memory::Accounted::new();
///
/// let task = tidegate_memory::Account::new("map (1/2)");
/// task.set_limit(Some(1000));
/// let kept = task.run(|| vec![0u8; 600]);
/// task.run(|| drop(vec![0u8; 500]));
/// let seen = task.read();
/// assert_eq!((seen.current_bytes, seen.peak_bytes, seen.over), (600, 1100, true));
/// # drop(kept);
/// ```
#[derive(Clone)]
pub struct Account(Arc<Task>);

struct Task {
    counts: Counts,
    /// The most it held before the limit was set, and since.
    peak: AtomicI64,
    high: AtomicI64,
    limit: AtomicI64,
    over: AtomicBool,
    name: String,
}

/// What an account has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountReading {
    /// Allocations and frees.
    pub counters: Counters,
    /// Bytes held now.
    pub current_bytes: i64,
    /// The most bytes it held at once.
    pub peak_bytes: i64,
    /// Whether it has been over its limit since the limit was set.
    pub over: bool,
}

impl Account {
    /// An account without a limit. The name is for people.
    pub fn new(name: &str) -> Self {
        let task = Arc::new(Task {
            counts: Counts::new(),
            peak: AtomicI64::new(0),
            high: AtomicI64::new(0),
            limit: AtomicI64::new(i64::MAX),
            over: AtomicBool::new(false),
            name: name.to_owned(),
        });
        let mut accounts = ACCOUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.retain(|account| account.strong_count() > 0);
        accounts.push(Arc::downgrade(&task));
        drop(accounts);
        Self(task)
    }

    /// Attributes what this thread allocates and frees during `body` to the account. Runs nest; the innermost counts.
    /// One thread at a time: what two count at once may be lost.
    #[inline]
    pub fn run<R>(&self, body: impl FnOnce() -> R) -> R {
        let _back = Back(THREAD.with(|thread| thread.task.replace(Some(NonNull::from(&*self.0)))));
        body()
    }

    /// What it has counted.
    pub fn read(&self) -> AccountReading {
        let counters = self.0.counts.read();
        AccountReading {
            counters,
            current_bytes: counters.current_bytes(),
            peak_bytes: self.0.peak.load(Ordering::Relaxed).max(self.high_bytes()),
            over: self.0.over.load(Ordering::Relaxed),
        }
    }

    /// Bytes held now.
    #[inline]
    pub fn current_bytes(&self) -> i64 {
        self.0.counts.current()
    }

    /// The most it held at once since the limit was set.
    #[inline]
    pub fn high_bytes(&self) -> i64 {
        self.0.high.load(Ordering::Relaxed)
    }

    /// Whether it has been over its limit since the limit was set.
    #[inline]
    pub fn over(&self) -> bool {
        self.0.over.load(Ordering::Relaxed)
    }

    /// Sets how many bytes it may hold before its flag is raised, and lowers the flag. `None`: any number.
    #[inline]
    pub fn set_limit(&self, limit: Option<u64>) {
        let limit = limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
        self.0.peak.store(self.0.peak.load(Ordering::Relaxed).max(self.high_bytes()), Ordering::Relaxed);
        self.0.high.store(self.current_bytes(), Ordering::Relaxed);
        self.0.limit.store(limit, Ordering::Relaxed);
        self.0.over.store(false, Ordering::Relaxed);
    }
}

/// Runs `body` under no account: for what the runtime makes on behalf of all tasks while one of them happens to run.
#[inline]
pub fn outside_accounts<R>(body: impl FnOnce() -> R) -> R {
    let _back = Back(THREAD.with(|thread| thread.task.take()));
    body()
}

/// Puts the account before back. In its destructor, so that a panic leaves an account as well. It cannot leak: nobody
/// outside of this file sees it.
struct Back(Option<NonNull<Task>>);

impl Drop for Back {
    #[inline]
    fn drop(&mut self) {
        THREAD.with(|thread| thread.task.set(self.0));
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("name", &self.0.name).field("read", &self.read()).finish()
    }
}

impl Task {
    #[inline]
    fn allocated(&self, size: usize) {
        self.counts.allocated(size);
        let current = self.counts.current();
        if current > self.high.load(Ordering::Relaxed) {
            self.high.store(current, Ordering::Relaxed);
        }
        if current > self.limit.load(Ordering::Relaxed) {
            self.over.store(true, Ordering::Relaxed);
        }
    }
}

/// One thread's part: constant to build and without destructor, so the allocator may use it at any moment of a thread.
struct Thread {
    own: Cell<Counters>,
    /// Where counts go while registered.
    shared: Cell<Option<NonNull<Counts>>>,
    /// The account this thread runs under.
    task: Cell<Option<NonNull<Task>>>,
}

thread_local! {
    static THREAD: Thread = const {
        const ZERO: Counters = Counters { allocations: 0, frees: 0, allocated_bytes: 0, freed_bytes: 0 };
        Thread { own: Cell::new(ZERO), shared: Cell::new(None), task: Cell::new(None) }
    };
}

impl Thread {
    fn read(&self) -> Counters {
        self.block().map_or_else(|| self.own.get(), Counts::read)
    }

    #[inline]
    fn block(&self) -> Option<&Counts> {
        // SAFETY: rule 2, the pointer is set only while the handle keeps the block alive.
        self.shared.get().map(|block| unsafe { block.as_ref() })
    }

    #[inline]
    fn task(&self) -> Option<&Task> {
        // SAFETY: rule 4, the pointer is set only while `run` borrows the account that keeps it alive.
        self.task.get().map(|task| unsafe { task.as_ref() })
    }
}

/// The name of the account this thread runs under, for the last words of a process.
pub(crate) fn with_running(tell: impl FnOnce(Option<&str>)) {
    THREAD.with(|thread| tell(thread.task().map(|task| task.name.as_str())));
}

#[inline]
fn watch(size: usize) {
    if size >= LARGE_ALLOCATION_MIN {
        process::check(size);
    }
}

#[inline]
fn count_allocated(pointer: *mut u8, size: usize) {
    if pointer.is_null() {
        return;
    }
    THREAD.with(|thread| {
        match thread.block() {
            Some(block) => block.allocated(size),
            None => {
                let more = Counters { allocations: 1, allocated_bytes: size as u64, ..Counters::default() };
                thread.own.set(thread.own.get() + more);
                UNREGISTERED.put_in(more);
            }
        }
        if let Some(task) = thread.task() {
            task.allocated(size);
        }
    });
}

#[inline]
fn count_freed(size: usize) {
    THREAD.with(|thread| {
        match thread.block() {
            Some(block) => block.freed(size),
            None => {
                let more = Counters { frees: 1, freed_bytes: size as u64, ..Counters::default() };
                thread.own.set(thread.own.get() + more);
                UNREGISTERED.put_in(more);
            }
        }
        if let Some(task) = thread.task() {
            task.counts.freed(size);
        }
    });
}
