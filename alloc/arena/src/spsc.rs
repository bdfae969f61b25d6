//! Bounded queue from one thread to another: how a local channel hands over 8-byte segment handles.
//!
//! The producer owns `tail` and the empty places, the consumer owns `head` and the filled ones; when the consumer is
//! gone, the producer owns everything. Items are moved; nothing is allocated after [`channel`].
//!
//! Always: `head ≤ tail ≤ head + capacity` (as distances, positions wrap at 2³²), and place `i & mask` holds a value
//! exactly if `head ≤ i < tail`.
//!
//! Dropping an end is seen by the other. Items left behind are dropped with the queue, which loses a segment handle for
//! its pool: so a consumer pops until [`Consumer::finished`], and a producer whose consumer has gone takes the rest back
//! with [`Producer::reclaim`].

use std::fmt;
use std::mem::MaybeUninit;

use crate::limits::{CONTENTION_BYTES, QUEUE_CAPACITY_MAX};
use crate::sync::{Arc, AtomicBool, AtomicU32, Ordering, UnsafeCell};

/// A position written by one side and read by the other, away from everything else.
#[repr(align(128))]
struct Position(AtomicU32);
const _: () = assert!(align_of::<Position>() == CONTENTION_BYTES);

struct Queue<T> {
    /// Next place to read. Written by the consumer, or by the producer when the consumer is gone.
    head: Position,
    /// Next place to write. Written by the producer.
    tail: Position,
    /// The producer writes nothing after setting this.
    producer_gone: AtomicBool,
    /// The consumer touches nothing after setting this.
    consumer_gone: AtomicBool,
    places: Box<[UnsafeCell<MaybeUninit<T>>]>,
    capacity: u32,
}

// SAFETY: rule 8. A place is reached by one side at a time, handed over by release and acquire on head and tail.
unsafe impl<T: Send> Sync for Queue<T> {}
// SAFETY: rule 8. The values inside may move to another thread, and nothing else is bound to one.
unsafe impl<T: Send> Send for Queue<T> {}

impl<T> Queue<T> {
    fn place(&self, position: u32) -> &UnsafeCell<MaybeUninit<T>> {
        // The number of places is a power of two, so the mask also holds across the wrap of the position.
        &self.places[position as usize & (self.places.len() - 1)]
    }

    /// Moves the value at `position` out; the caller owns that place and it is filled.
    fn take(&self, position: u32) -> T {
        self.place(position).with(|place| {
            // SAFETY: rule 8, the caller owns the place, so no one writes it meanwhile.
            let place = unsafe { &*place };
            // SAFETY: rule 8, head ≤ position < tail, so it holds a value, and head moves on before it is read again.
            unsafe { place.assume_init_read() }
        })
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        let mut head = self.head.0.load(Ordering::Relaxed);
        let tail = self.tail.0.load(Ordering::Relaxed);
        while head != tail {
            drop(self.take(head));
            head = head.wrapping_add(1);
        }
    }
}

/// A queue for at most `capacity` items, from one thread to one other (or the same).
///
/// # Panics
/// If `capacity` is 0 or above [`QUEUE_CAPACITY_MAX`].
///
/// ```
/// let (mut producer, mut consumer) = tidegate_arena::spsc::channel::<u64>(2);
/// assert_eq!(producer.try_push(1), Ok(()));
/// assert_eq!(producer.try_push(2), Ok(()));
/// assert_eq!(producer.try_push(3), Err(3), "full: the caller keeps it");
/// drop(producer);
/// assert_eq!((consumer.try_pop(), consumer.try_pop()), (Some(1), Some(2)));
/// assert!(consumer.finished());
/// ```
pub fn channel<T: Send>(capacity: u32) -> (Producer<T>, Consumer<T>) {
    assert!(
        (1..=QUEUE_CAPACITY_MAX).contains(&capacity),
        "a queue of {capacity} items was asked for, expected 1 to {QUEUE_CAPACITY_MAX}"
    );
    let places = (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let queue = Arc::new(Queue {
        head: Position(AtomicU32::new(0)),
        tail: Position(AtomicU32::new(0)),
        producer_gone: AtomicBool::new(false),
        consumer_gone: AtomicBool::new(false),
        places,
        capacity,
    });
    (Producer { queue: Arc::clone(&queue), tail: 0, head_seen: 0 }, Consumer { queue, head: 0, tail_seen: 0 })
}

/// The end that pushes. `Send`, not `Clone`.
pub struct Producer<T> {
    queue: Arc<Queue<T>>,
    tail: u32,
    /// The consumer is at least this far: its position is only read again when the queue looks full.
    head_seen: u32,
}

impl<T: Send> Producer<T> {
    /// Appends `value`, or gives it back if the queue is full or the consumer is gone ([`closed`](Self::closed) tells
    /// which).
    pub fn try_push(&mut self, value: T) -> Result<(), T> {
        if self.tail.wrapping_sub(self.head_seen) == self.queue.capacity {
            self.head_seen = self.queue.head.0.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head_seen) == self.queue.capacity {
                return Err(value);
            }
        }
        if self.queue.consumer_gone.load(Ordering::Relaxed) {
            return Err(value);
        }
        self.queue.place(self.tail).with_mut(|place| {
            // SAFETY: rule 8, the place is empty (tail - head < capacity) and only the producer writes empty places.
            let place = unsafe { &mut *place };
            place.write(value);
        });
        self.tail = self.tail.wrapping_add(1);
        self.queue.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Whether a push would find room (the consumer can only make more).
    pub fn has_room(&mut self) -> bool {
        if self.tail.wrapping_sub(self.head_seen) == self.queue.capacity {
            self.head_seen = self.queue.head.0.load(Ordering::Acquire);
        }
        self.tail.wrapping_sub(self.head_seen) < self.queue.capacity
    }

    /// Items in the queue: at most this many, the consumer may be taking some.
    pub fn len(&self) -> u32 {
        self.tail.wrapping_sub(self.queue.head.0.load(Ordering::Acquire))
    }

    /// Whether the consumer has taken everything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most items the queue holds.
    pub fn capacity(&self) -> u32 {
        self.queue.capacity
    }

    /// Whether the consumer is gone. It stays so.
    pub fn closed(&self) -> bool {
        self.queue.consumer_gone.load(Ordering::Acquire)
    }

    /// Once the consumer is gone, takes back the oldest item it left. `None` while it is there, or when all are taken.
    pub fn reclaim(&mut self) -> Option<T> {
        // Acquire on consumer_gone: all the consumer did with the places and with head lies before this.
        if !self.closed() {
            return None;
        }
        let head = self.queue.head.0.load(Ordering::Relaxed);
        if head == self.tail {
            return None;
        }
        let value = self.queue.take(head);
        self.queue.head.0.store(head.wrapping_add(1), Ordering::Relaxed);
        Some(value)
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.queue.producer_gone.store(true, Ordering::Release);
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("tail", &self.tail).field("capacity", &self.queue.capacity).finish()
    }
}

/// The end that pops. `Send`, not `Clone`.
pub struct Consumer<T> {
    queue: Arc<Queue<T>>,
    head: u32,
    /// The producer is at least this far: its position is only read again when the queue looks empty.
    tail_seen: u32,
}

impl<T: Send> Consumer<T> {
    /// Takes the oldest item, if there is one.
    pub fn try_pop(&mut self) -> Option<T> {
        if self.head == self.tail_seen {
            self.tail_seen = self.queue.tail.0.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        let value = self.queue.take(self.head);
        self.head = self.head.wrapping_add(1);
        self.queue.head.0.store(self.head, Ordering::Release);
        Some(value)
    }

    /// Items in the queue: at least this many, the producer may be adding some.
    pub fn len(&self) -> u32 {
        self.queue.tail.0.load(Ordering::Acquire).wrapping_sub(self.head)
    }

    /// Whether nothing is there to pop.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most items the queue holds.
    pub fn capacity(&self) -> u32 {
        self.queue.capacity
    }

    /// Whether the producer is gone. Items may still be there: see [`finished`](Self::finished).
    pub fn closed(&self) -> bool {
        self.queue.producer_gone.load(Ordering::Acquire)
    }

    /// Whether the producer is gone and everything it pushed has been popped: nothing will ever come.
    pub fn finished(&self) -> bool {
        // In this order: once the producer is gone, the tail read after it is final.
        self.closed() && self.is_empty()
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.queue.consumer_gone.store(true, Ordering::Release);
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("head", &self.head).field("capacity", &self.queue.capacity).finish()
    }
}
