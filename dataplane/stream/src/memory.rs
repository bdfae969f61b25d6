//! What a slot's part of an attempt may hold: heap of its tasks, keyed state, and what its operators reserve.
//!
//! Owner of the state: the attempt owns the budgets, each task its account, each keyed operator what its state holds. All
//! of it is given back when the attempt's tasks are dropped.
//!
//! Always: a table is reserved before it grows; what a keyed operator keeps beside its tables is known after each buffer, so
//! that state is over its budget by at most what one buffer of records makes. The tasks of a slot share its heap, keyed state
//! excepted; when they are over it, the one that holds most fails. Where the allocator is not ours every account is zero, and
//! only reservations count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_memory::plan::keys;
use tidegate_memory::{Account, Budget, BudgetError, BudgetReading};

pub use tidegate_memory::Reservation;

use crate::error::{Fault, TaskError};

/// Bytes that a slot's part of an attempt may hold; `None`: as many as it likes. Final values, made from the plan of the
/// TaskManager.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotMemory {
    /// Heap of all tasks together, keyed state excepted.
    pub task_heap: Option<u64>,
    /// What user code may reserve outside of the heap.
    pub task_off_heap: Option<u64>,
    /// Managed memory for keyed state.
    pub state: Option<u64>,
    /// Managed memory for operators that asked for some.
    pub operators: Option<u64>,
}

/// The budgets of a slot's part of an attempt.
#[derive(Clone, Debug)]
pub struct Budgets {
    task_heap: Option<u64>,
    off_heap: Budget,
    state: Budget,
    operators: Budget,
}

/// What a slot holds of its budgets, and the most it held. Totals are `u64::MAX` where nobody limits them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Heap of tasks, keyed state excepted.
    pub task_heap: BudgetReading,
    /// Reserved by user code outside of the heap.
    pub task_off_heap: BudgetReading,
    /// Keyed state.
    pub state: BudgetReading,
    /// Reserved by operators from managed memory.
    pub operators: BudgetReading,
}

impl MemoryUse {
    /// The most there was, now or in `before`.
    pub(crate) fn keep_peaks(&mut self, before: &MemoryUse) {
        let pairs = [
            (&mut self.task_heap, before.task_heap),
            (&mut self.task_off_heap, before.task_off_heap),
            (&mut self.state, before.state),
            (&mut self.operators, before.operators),
        ];
        for (now, before) in pairs {
            now.peak = now.peak.max(now.used).max(before.peak);
        }
    }
}

impl Budgets {
    /// Nothing is held yet.
    pub fn new(memory: &SlotMemory) -> Self {
        Self {
            task_heap: memory.task_heap,
            off_heap: Budget::new(
                "off-heap memory of user code",
                keys::TM_TASK_OFF_HEAP,
                memory.task_off_heap,
            ),
            state: Budget::new("managed memory for keyed state", keys::TM_MANAGED, memory.state),
            operators: Budget::new("managed memory for operators", keys::TM_MANAGED, memory.operators),
        }
    }

    /// What is reserved; heap has to be added by who knows the tasks.
    pub(crate) fn read(&self) -> MemoryUse {
        MemoryUse {
            task_heap: BudgetReading { total: self.task_heap.unwrap_or(u64::MAX), used: 0, peak: 0 },
            task_off_heap: self.off_heap.read(),
            state: self.state.read(),
            operators: self.operators.read(),
        }
    }

    /// Heap of all tasks together, if it is limited.
    pub(crate) fn task_heap(&self) -> Option<u64> {
        self.task_heap
    }

    /// What an operator may ask for; `managed` if it said so when the job was built.
    pub(crate) fn operator(&self, managed: bool) -> OperatorMemory {
        OperatorMemory { off_heap: self.off_heap.clone(), managed: managed.then(|| self.operators.clone()) }
    }

    /// What the keyed state of a task draws on.
    pub(crate) fn state(&self, task: &TaskHeap) -> StateMemory {
        let reservation = self.state.reserve(0).expect("invariant: nothing fits into anything");
        StateMemory {
            reservation,
            account: task.account.clone(),
            shown: Arc::clone(&task.state),
            tables: 0,
            values: 0,
        }
    }
}

/// What an operator may reserve. A reservation is given back when it is dropped, and it only counts: the memory itself is
/// the operator's to allocate.
///
/// ```
/// use tidegate_stream::context::RuntimeContext;
/// use tidegate_stream::error::TaskError;
///
/// fn open(context: &RuntimeContext) -> Result<tidegate_stream::memory::Reservation, TaskError> {
///     // A model of 10 MB that a C library keeps outside of our heap.
///     context.memory.reserve_off_heap(10_000_000)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct OperatorMemory {
    off_heap: Budget,
    managed: Option<Budget>,
}

impl Default for OperatorMemory {
    /// Without limits, for tests of functions.
    fn default() -> Self {
        Budgets::new(&SlotMemory::default()).operator(true)
    }
}

impl OperatorMemory {
    /// Reserves memory outside of the heap (mapped files, libraries of other languages), from
    /// `taskmanager.memory.task.off-heap.size`.
    ///
    /// # Errors
    /// `Fault::Memory` if so much is not left.
    pub fn reserve_off_heap(&self, bytes: u64) -> Result<Reservation, TaskError> {
        self.off_heap.reserve(bytes).map_err(|error| beyond(&error))
    }

    /// Reserves managed memory (sorting, caches), from the share of operators in `taskmanager.memory.managed.size`.
    ///
    /// # Errors
    /// `Fault::Memory` if so much is not left, `Fault::Setup` if the operator was built without `managed_memory()`.
    pub fn reserve_managed(&self, bytes: u64) -> Result<Reservation, TaskError> {
        let undeclared = || {
            let message = "it reserves managed memory but does not say so: add `.managed_memory()` behind it in the job";
            TaskError::new(Fault::Setup, message)
        };
        self.managed.as_ref().ok_or_else(undeclared)?.reserve(bytes).map_err(|error| beyond(&error))
    }
}

#[cold]
fn beyond(error: &BudgetError) -> TaskError {
    TaskError::new(Fault::Memory, error.to_string())
}

/// What one keyed operator's state holds: its tables to the byte, and what keys and values keep beside them.
pub struct StateMemory {
    reservation: Reservation,
    account: Account,
    /// For the task's own heap, which state is no part of.
    shown: Arc<AtomicU64>,
    tables: u64,
    values: i64,
}

impl StateMemory {
    /// Reserves for a table that goes from `now` bytes to about `then`; both are there for a moment.
    ///
    /// # Errors
    /// `Fault::Memory`.
    pub(crate) fn before_growth(&mut self, now: usize, then: usize) -> Result<(), TaskError> {
        debug_assert!(self.tables >= now as u64);
        self.hold(self.tables + then as u64)
    }

    /// The table has grown from `before` to `after` bytes.
    ///
    /// # Errors
    /// `Fault::Memory` if that was more than foreseen, and too much.
    pub(crate) fn after_growth(&mut self, before: usize, after: usize) -> Result<(), TaskError> {
        self.tables = self.tables - before as u64 + after as u64;
        self.hold(self.tables)
    }

    /// Where the task's account stands, tables excepted: to be given to `settle`.
    #[inline]
    pub(crate) fn mark(&self) -> i64 {
        self.account.current_bytes() - self.tables as i64
    }

    /// What was kept since `mark` is kept by keys and values.
    ///
    /// # Errors
    /// `Fault::Memory` if it is too much.
    #[inline]
    pub(crate) fn settle(&mut self, mark: i64) -> Result<(), TaskError> {
        let kept = self.mark() - mark;
        if kept == 0 {
            return Ok(());
        }
        self.values += kept;
        self.hold(self.tables)
    }

    fn hold(&mut self, tables: u64) -> Result<(), TaskError> {
        // Freeing what came from elsewhere may make it negative.
        let bytes = tables + u64::try_from(self.values).unwrap_or(0);
        self.reservation.resize(bytes).map_err(|error| beyond(&error))?;
        self.shown.store(bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// The heap of one task: its account, and how it grew.
#[derive(Debug)]
pub struct TaskHeap {
    account: Account,
    /// What its keyed state holds of it.
    state: Arc<AtomicU64>,
    /// Held at the end of the last step, and at the last checkpoint.
    last: i64,
    at_checkpoint: i64,
    /// The most that one step added since the last checkpoint.
    growth: i64,
    peak: i64,
    allowed: i64,
}

impl TaskHeap {
    /// Of a task called so.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            account: Account::new(name),
            state: Arc::default(),
            last: 0,
            at_checkpoint: 0,
            growth: 0,
            peak: 0,
            allowed: i64::MAX,
        }
    }

    /// The account.
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    fn state(&self) -> i64 {
        i64::try_from(self.state.load(Ordering::Relaxed)).unwrap_or(i64::MAX)
    }

    /// Bytes of heap that the task holds, keyed state excepted.
    pub(crate) fn held(&self) -> u64 {
        u64::try_from(self.account.current_bytes() - self.state()).unwrap_or(0)
    }

    /// The most it held.
    pub(crate) fn peak(&self) -> u64 {
        u64::try_from(self.peak).unwrap_or(0)
    }

    /// Lets it hold `bytes` besides its state, until the next step.
    pub(crate) fn allow(&mut self, bytes: u64) {
        let state = u64::try_from(self.state()).unwrap_or(0);
        self.allowed = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.account.set_limit(Some(bytes.saturating_add(state)));
    }

    /// A step has ended. Gives whether it was over what it was allowed at any moment of it.
    pub(crate) fn stepped(&mut self) -> bool {
        let now = self.account.current_bytes() - self.state();
        self.growth = self.growth.max(now - self.last);
        // What its state took in this step is judged by the budget of state.
        let high = self.account.high_bytes() - self.state();
        self.peak = self.peak.max(high).max(now);
        self.last = now;
        self.account.over() && high > self.allowed
    }

    /// A checkpoint was cut: growth is counted from here.
    pub(crate) fn at_checkpoint(&mut self) {
        self.at_checkpoint = self.last;
        self.growth = 0;
    }

    /// Why it fails, when the slot's tasks hold more than `budget` together and it holds most.
    #[cold]
    pub(crate) fn exceeded(&self, budget: u64, others: u64) -> TaskError {
        let message = format!(
            "the tasks of its slot hold more than their task heap of {budget} bytes: this one {} (peak {}), the others \
             {others}. Since the last checkpoint it grew by {} bytes, at most by {} in one step. Let its functions keep less, \
             or raise {} (or {})",
            self.held(),
            self.peak(),
            self.last - self.at_checkpoint,
            self.growth,
            keys::TM_TASK_HEAP,
            keys::TM_PROCESS,
        );
        TaskError::new(Fault::Heap, message)
    }
}
