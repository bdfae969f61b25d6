//! What a rich function learns when it is opened, its counters, and the handle that wakes its task.
//!
//! A `RuntimeContext` is made by the slot per operator instance and never changes afterwards.
//! A counter has one writer (its task) and any number of readers; it only grows.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::files::Files;
use crate::memory::{OperatorMemory, StateMemory};
use crate::pool::ReaderPool;
use crate::slot::snapshot::{OperatorRestore, TaskRestore};

/// What an operator instance knows of itself; given to every `open`.
#[derive(Clone, Debug)]
pub struct RuntimeContext {
    /// The job's id.
    pub job: u128,
    /// The operator's name as the job gave it.
    pub operator: String,
    /// The operator's stable id.
    pub operator_id: u64,
    /// Which instance this is: `0..parallelism`.
    pub subtask: u32,
    /// How many instances of the operator run.
    pub parallelism: u32,
    /// Number of key groups of the job.
    pub max_parallelism: u32,
    /// The leadership this attempt belongs to.
    pub epoch: u64,
    /// How often the job was started before.
    pub attempt: u32,
    /// The checkpoint the instance was restored from.
    pub restored: Option<u64>,
    /// The instance's own counters.
    pub metrics: Metrics,
    /// Memory it may reserve.
    pub memory: OperatorMemory,
}

/// What every record's step carries along: the clock and the files of the slot.
pub struct Cx<'a> {
    /// The slot's monotonic clock, read once per quantum, in nanoseconds.
    pub now_ns: u64,
    /// The files thread.
    pub files: &'a mut dyn Files,
}

/// What the operators of a task are opened with.
pub struct OpenCx<'a> {
    /// One context per operator of the vertex, in its order.
    pub contexts: &'a [RuntimeContext],
    /// State that no operator has taken yet.
    pub restore: Option<TaskRestore>,
    /// Threads for sources that must block.
    pub pool: &'a ReaderPool,
    /// Wakes the task.
    pub waker: &'a Waker,
    /// The files thread.
    pub files: &'a mut dyn Files,
    /// What keyed state draws on, until the task's keyed operator takes it.
    pub state: Option<StateMemory>,
}

impl OpenCx<'_> {
    /// The context of the operator at `index` of the vertex.
    pub fn operator(&self, index: usize) -> &RuntimeContext {
        &self.contexts[index]
    }

    /// Takes the state of the operator at `index` of the vertex, if there is some.
    pub fn take_restore(&mut self, index: usize) -> Option<OperatorRestore> {
        let id = self.contexts[index].operator_id;
        let operators = &mut self.restore.as_mut()?.operators;
        let found = operators.iter().position(|restore| restore.operator == id)?;
        Some(operators.swap_remove(found))
    }
}

/// The counters of one operator instance.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    counters: Arc<Mutex<Vec<(String, Counter)>>>,
}

impl Metrics {
    fn lock(&self) -> MutexGuard<'_, Vec<(String, Counter)>> {
        // Nothing panics while it is held; a poisoned list would still be whole.
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counter of that name, made on first use. Keep it: looking it up takes a lock.
    ///
    /// ```
    /// let metrics = tidegate_stream::context::Metrics::default();
    /// let late = metrics.counter("late");
    /// late.add(2);
    /// assert_eq!(metrics.read(), [("late".to_owned(), 2)]);
    /// ```
    pub fn counter(&self, name: &str) -> Counter {
        let mut counters = self.lock();
        if let Some((_, counter)) = counters.iter().find(|(known, _)| known == name) {
            return counter.clone();
        }
        let counter = Counter::default();
        counters.push((name.to_owned(), counter.clone()));
        counter
    }

    /// Shows each counter, in the order they were made, until `visit` says false. True if it never did.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&str, u64) -> bool) -> bool {
        self.lock().iter().all(|(name, counter)| visit(name, counter.get()))
    }

    /// Names and values of all counters, in the order they were made.
    pub fn read(&self) -> Vec<(String, u64)> {
        self.lock().iter().map(|(name, counter)| (name.clone(), counter.get())).collect()
    }
}

/// A number that only grows, written by one task.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds `n`. One writer only, so this is a load and a store.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Wakes a task that waits for something outside of the slot. Cheap to clone, callable from any thread.
#[derive(Clone)]
pub struct Waker {
    flag: Arc<AtomicBool>,
    ring: Arc<dyn Fn() + Send + Sync>,
}

impl Waker {
    /// A waker that raises its flag and then calls `ring` (the slot's doorbell).
    pub fn new(ring: Arc<dyn Fn() + Send + Sync>) -> Self {
        Waker { flag: Arc::new(AtomicBool::new(false)), ring }
    }

    /// Makes the task runnable. Call it after the state the task will look at is in place.
    pub fn wake(&self) {
        if !self.flag.swap(true, Ordering::AcqRel) {
            (self.ring)();
        }
    }

    /// Takes the flag down; true if it was up. Called by the slot before it steps the task.
    pub fn take(&self) -> bool {
        self.flag.swap(false, Ordering::AcqRel)
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").field("raised", &self.flag.load(Ordering::Relaxed)).finish()
    }
}
