//! Threads for sources that must block, and `Pooled`, which makes a non-blocking reader of a blocking one.
//!
//! A blocking reader is owned by one thread at a time: it travels between the pool and nobody, while batches travel
//! between it and the task. Always: batches of one reader ≤ `POOL_BATCHES`; a position travels with its item, so
//! the task's position is that of the last item it took, not of what was read ahead.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::context::Waker;
use crate::error::{Fault, TaskError};
use crate::limits::{POOL_BATCH_ITEMS, POOL_BATCHES, POOL_QUEUE_MAX};
use crate::source::{Next, Pause, SourceContext, SourceReader};

/// A source instance that may block in `read`; runs on a thread of the pool.
pub trait BlockingReader: Send + 'static {
    /// What it yields.
    type Item: Send + 'static;
    /// Where it is: file, offset, line. Travels with each item.
    type Position: Clone + Send + 'static;

    /// Fills `batch` (at least one item unless the end is reached; stop when it is full). May block.
    fn read(&mut self, batch: &mut Batch<Self::Item, Self::Position>) -> Result<More, TaskError>;

    /// Appends `position` in the form the source's `open` reads back.
    fn encode(position: &Self::Position, out: &mut Vec<u8>);
}

/// Whether a blocking reader has more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// Call again.
    Yes,
    /// The end: what the batch has is the last.
    No,
}

/// Items with the positions behind them. Items of earlier rounds stay in place to be overwritten, so a reader that
/// fills slots in place allocates nothing once strings have grown to size.
#[derive(Debug)]
pub struct Batch<T, P> {
    entries: Vec<(T, Option<P>)>,
    len: usize,
    capacity: usize,
}

impl<T, P> Batch<T, P> {
    /// An empty batch for `capacity` items.
    pub fn with_capacity(capacity: usize) -> Self {
        Batch { entries: Vec::with_capacity(capacity), len: 0, capacity }
    }

    /// Whether no further item fits.
    pub fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// Items in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an item and the position behind it. The batch must not be full.
    pub fn push(&mut self, item: T, position: P) {
        assert!(!self.is_full(), "a batch holds {} items", self.capacity);
        let entry = (item, Some(position));
        if self.len < self.entries.len() {
            self.entries[self.len] = entry;
        } else {
            self.entries.push(entry);
        }
        self.len += 1;
    }

    /// The next free slot, holding an item of an earlier round or a fresh one: overwrite it, then `commit`. The batch
    /// must not be full.
    pub fn slot(&mut self, fresh: impl FnOnce() -> T) -> &mut T {
        assert!(!self.is_full(), "a batch holds {} items", self.capacity);
        if self.len == self.entries.len() {
            self.entries.push((fresh(), None));
        }
        &mut self.entries[self.len].0
    }

    /// Counts the slot as an item; `position` is the position behind it.
    pub fn commit(&mut self, position: P) {
        assert!(self.len < self.entries.len(), "commit follows slot");
        self.entries[self.len].1 = Some(position);
        self.len += 1;
    }

    /// Empties it, keeping the items to be overwritten.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Item number `index` and the position behind it.
    pub fn get(&self, index: usize) -> Option<(&T, &P)> {
        if index >= self.len {
            return None;
        }
        let (item, position) = &self.entries[index];
        Some((item, position.as_ref().expect("invariant: committed items have a position")))
    }
}

/// A thing the pool runs again and again; one thread at a time.
trait Work: Send + Sync {
    fn run(&self);
}

struct Queue {
    waiting: VecDeque<Arc<dyn Work>>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panicking reader is caught before it can poison anything; a poisoned lock still guards whole data.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bounded pool of threads on which blocking readers run. Clones share the threads; the last drop ends them.
#[derive(Clone)]
pub struct ReaderPool {
    shared: Arc<Shared>,
    _threads: Arc<Threads>,
}

struct Threads {
    shared: Arc<Shared>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.arrived.notify_all();
        // Not joined: a reader stuck in a read of a dead file system must not take its slot thread with it.
        lock(&self.handles).clear();
    }
}

impl ReaderPool {
    /// A pool of `threads` threads. With none, nothing runs until `run_one` is called: for tests and simulation.
    ///
    /// # Errors
    /// The operating system's, if a thread cannot be started.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let queue = Mutex::new(Queue { waiting: VecDeque::with_capacity(64), closed: false });
        let shared = Arc::new(Shared { queue, arrived: Condvar::new() });
        let mut handles = Vec::with_capacity(threads);
        for index in 0..threads {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("reader-{index}"));
            handles.push(builder.spawn(move || serve(&shared))?);
        }
        let threads = Arc::new(Threads { shared: Arc::clone(&shared), handles: Mutex::new(handles) });
        Ok(ReaderPool { shared, _threads: threads })
    }

    /// Runs one waiting reader on the calling thread; false if none waits.
    pub fn run_one(&self) -> bool {
        let work = lock(&self.shared.queue).waiting.pop_front();
        work.map(|work| work.run()).is_some()
    }

    fn submit(&self, work: Arc<dyn Work>) -> Result<(), TaskError> {
        let mut queue = lock(&self.shared.queue);
        if queue.waiting.len() >= POOL_QUEUE_MAX {
            let message = format!("{POOL_QUEUE_MAX} readers wait for a thread of the blocking pool already");
            return Err(TaskError::new(Fault::Runtime, message));
        }
        queue.waiting.push_back(work);
        drop(queue);
        self.shared.arrived.notify_one();
        Ok(())
    }
}

impl std::fmt::Debug for ReaderPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReaderPool").field("waiting", &lock(&self.shared.queue).waiting.len()).finish()
    }
}

fn serve(shared: &Shared) {
    loop {
        let mut queue = lock(&shared.queue);
        let work = loop {
            if let Some(work) = queue.waiting.pop_front() {
                break work;
            }
            if queue.closed {
                return;
            }
            queue = shared.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        drop(queue);
        work.run();
    }
}

/// What a reader and its task share. Always: free + filled + the batch in the task + the one being filled = `POOL_BATCHES`.
struct Exchanged<B: BlockingReader> {
    reader: Option<B>,
    free: Vec<Batch<B::Item, B::Position>>,
    filled: VecDeque<Batch<B::Item, B::Position>>,
    outcome: Option<Result<(), TaskError>>,
    scheduled: bool,
    cancelled: bool,
}

struct Station<B: BlockingReader> {
    inner: Mutex<Exchanged<B>>,
    waker: Waker,
}

impl<B: BlockingReader> Work for Station<B> {
    fn run(&self) {
        loop {
            let mut inner = lock(&self.inner);
            let ready = !inner.cancelled && inner.outcome.is_none();
            let (true, Some(mut batch)) = (ready, inner.free.pop()) else {
                inner.scheduled = false;
                if inner.cancelled {
                    inner.reader = None;
                }
                return;
            };
            let mut reader = inner.reader.take().expect("invariant: one thread runs a reader at a time");
            drop(inner);
            batch.clear();
            let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reader.read(&mut batch)));
            let outcome = match read {
                Ok(Ok(More::Yes)) => None,
                Ok(Ok(More::No)) => Some(Ok(())),
                Ok(Err(error)) => Some(Err(error)),
                Err(panic) => Some(Err(TaskError::new(Fault::Panic, crate::error::panic_message(&*panic)))),
            };
            let mut inner = lock(&self.inner);
            inner.reader = Some(reader);
            inner.filled.push_back(batch);
            inner.outcome = outcome;
            drop(inner);
            self.waker.wake();
        }
    }
}

/// A `SourceReader` over a `BlockingReader`: batches are filled ahead on the pool and consumed on the slot thread.
pub struct Pooled<B: BlockingReader> {
    station: Arc<Station<B>>,
    pool: ReaderPool,
    current: Option<Batch<B::Item, B::Position>>,
    taken: usize,
    position: B::Position,
}

impl<B: BlockingReader> Pooled<B> {
    /// Starts reading ahead. `start` is the position that `reader` is at now.
    ///
    /// # Errors
    /// `Fault::Runtime` if the pool's queue is full.
    pub fn new(reader: B, start: B::Position, context: &SourceContext<'_>) -> Result<Self, TaskError> {
        let free = (0..POOL_BATCHES).map(|_| Batch::with_capacity(POOL_BATCH_ITEMS)).collect();
        let inner = Exchanged {
            reader: Some(reader),
            free,
            filled: VecDeque::with_capacity(POOL_BATCHES),
            outcome: None,
            scheduled: false,
            cancelled: false,
        };
        let station = Arc::new(Station { inner: Mutex::new(inner), waker: context.waker.clone() });
        let pooled = Pooled { station, pool: context.pool.clone(), current: None, taken: 0, position: start };
        pooled.schedule()?;
        Ok(pooled)
    }

    fn schedule(&self) -> Result<(), TaskError> {
        let mut inner = lock(&self.station.inner);
        if inner.scheduled || inner.outcome.is_some() || inner.free.is_empty() {
            return Ok(());
        }
        inner.scheduled = true;
        drop(inner);
        self.pool.submit(Arc::clone(&self.station) as Arc<dyn Work>)
    }

    /// Swaps the consumed batch for a filled one. `Some(pause or end)` if there is none.
    fn refill(&mut self) -> Result<Option<Next<'static, B::Item>>, TaskError> {
        let mut inner = lock(&self.station.inner);
        if let Some(done) = self.current.take() {
            inner.free.push(done);
        }
        self.taken = 0;
        self.current = inner.filled.pop_front();
        let answer = match (&self.current, &inner.outcome) {
            (Some(_), _) => None,
            (None, None) => Some(Next::Wait(Pause::External)),
            (None, Some(Ok(()))) => Some(Next::End),
            (None, Some(Err(error))) => return Err(error.clone()),
        };
        drop(inner);
        self.schedule()?;
        Ok(answer)
    }
}

impl<B: BlockingReader> SourceReader for Pooled<B> {
    type Item = B::Item;

    fn next(&mut self, _now_ns: u64) -> Result<Next<'_, B::Item>, TaskError> {
        while self.current.as_ref().is_none_or(|batch| self.taken >= batch.len()) {
            if let Some(answer) = self.refill()? {
                return Ok(answer);
            }
        }
        let batch = self.current.as_ref().expect("invariant: the loop above leaves a batch with items");
        let (item, position) = batch.get(self.taken).expect("invariant: taken < len");
        self.position.clone_from(position);
        self.taken += 1;
        Ok(Next::Item(item))
    }

    fn position(&self, out: &mut Vec<u8>) -> Result<(), TaskError> {
        B::encode(&self.position, out);
        Ok(())
    }
}

impl<B: BlockingReader> Drop for Pooled<B> {
    fn drop(&mut self) {
        let mut inner = lock(&self.station.inner);
        inner.cancelled = true;
        if !inner.scheduled {
            inner.reader = None;
        }
    }
}
