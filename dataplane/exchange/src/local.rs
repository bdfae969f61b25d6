//! Channels inside a process: an 8-byte handle changes hands, the bytes stay where they are.
//!
//! Two SPSC queues per channel: parcels go to the consumer, empty parcels come back, so that the producer's quota is counted
//! by the producer's thread alone. At most `LOCAL_SEGMENTS_MAX` segments of a channel are out, so the way back is never full.
//! A parcel releases its segment when it is dropped: whoever ends last, nothing is lost.
//!
//! Nobody looks through the queues. Who puts something into one marks the channel with the slot at the other end, and that
//! looks into channels that are marked. A consumer that is made after its producer looks into the channel once by itself.
//!
//! The two ends meet in the [`LocalHub`], because their slots prepare in any order.

use std::collections::HashMap;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tidegate_arena::marks::Marks;
use tidegate_arena::{Arena, Sealed, Segment, Shared, spsc};
use tidegate_flow::limits::EVENTS_MAX;

use crate::event::Event;
use crate::limits::LOCAL_SEGMENTS_MAX;

/// Wakes the slot at the other end, if it sleeps.
pub(crate) type Bell = Arc<dyn Fn() + Send + Sync>;

/// How one end of a channel is told to look at it.
#[derive(Clone)]
pub(crate) struct Knock {
    pub bell: Bell,
    pub marks: Arc<Marks>,
    /// The channel's place among those that are marked there.
    pub place: u32,
}

/// What a local channel carries.
pub(crate) enum LocalItem {
    Data(Parcel),
    Event(Event),
}

/// A segment on its way, released when nobody takes it out.
pub(crate) struct Parcel {
    arena: Arena,
    segment: Option<Segment<Sealed>>,
    pub born_ns: u64,
    /// When it was handed over.
    pub handed_ns: u64,
}

impl Parcel {
    pub fn new(arena: Arena, segment: Segment<Sealed>, born_ns: u64, handed_ns: u64) -> Self {
        Self { arena, segment: Some(segment), born_ns, handed_ns }
    }

    /// Takes the segment out.
    pub fn open(mut self) -> Segment<Sealed> {
        self.segment.take().expect("invariant: a parcel is opened once")
    }

    pub fn deliver(self) -> Segment<Shared> {
        let arena = self.arena.clone();
        arena.deliver(self.open())
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if let Some(segment) = self.segment.take() {
            self.arena.release(segment);
        }
    }
}

/// A segment on its way back to the producer's quota.
pub(crate) struct Returned {
    arena: Arena,
    segment: Option<Segment<Shared>>,
}

impl Returned {
    pub fn open(mut self) -> Segment<Shared> {
        self.segment.take().expect("invariant: a return is opened once")
    }
}

impl Drop for Returned {
    fn drop(&mut self) {
        if let Some(segment) = self.segment.take() {
            self.arena.release(segment);
        }
    }
}

/// The producer's end.
pub(crate) struct LocalProducer {
    items: spsc::Producer<LocalItem>,
    returns: spsc::Consumer<Returned>,
    peer: Arc<OnceLock<Knock>>,
    rung: bool,
    /// Segments that the consumer has not given back; bounded, so that the way back can never be full.
    out: u32,
}

impl LocalProducer {
    /// Hands an item over; gives it back if the consumer is gone.
    pub fn push(&mut self, item: LocalItem) -> Result<(), LocalItem> {
        let data = matches!(item, LocalItem::Data(_));
        self.items.try_push(item)?;
        self.out += u32::from(data);
        self.rung = false;
        Ok(())
    }

    /// True if the next item may be handed over.
    pub fn has_room(&mut self, data: bool) -> bool {
        (!data || self.out < LOCAL_SEGMENTS_MAX) && self.items.has_room()
    }

    /// True if the consumer has taken everything: then a half-filled segment may go too.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Segments that the consumer has.
    pub fn out(&self) -> u32 {
        self.out
    }

    pub fn closed(&self) -> bool {
        self.items.closed()
    }

    pub fn take_return(&mut self) -> Option<Returned> {
        let returned = self.returns.try_pop();
        self.out -= u32::from(returned.is_some());
        returned
    }

    /// Tells the consumer's slot once after pushes.
    pub fn ring(&mut self) {
        if self.rung {
            return;
        }
        let peer = self.peer.get().or_else(|| {
            // Either we see who comes now, or they see what was pushed: both sides write, fence, then read.
            fence(Ordering::SeqCst);
            self.peer.get()
        });
        if let Some(peer) = peer {
            peer.marks.mark(peer.place);
            (peer.bell)();
            self.rung = true;
        }
    }
}

/// The consumer's end.
pub(crate) struct LocalConsumer {
    items: spsc::Consumer<LocalItem>,
    returns: spsc::Producer<Returned>,
    peer: Arc<OnceLock<Knock>>,
    owes_ring: bool,
}

impl LocalConsumer {
    pub fn pop(&mut self) -> Option<LocalItem> {
        self.items.try_pop()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Gives a segment back to the producer's quota.
    pub fn give_back(&mut self, arena: &Arena, segment: Segment<Shared>) {
        // If the queue is full or the producer is gone the return is dropped, which releases the segment.
        let _ = self.returns.try_push(Returned { arena: arena.clone(), segment: Some(segment) });
        if let Some(peer) = self.peer.get() {
            peer.marks.mark(peer.place);
        }
    }

    /// The producer's slot is to be woken. True if it was not yet: then it must be, by [`ring`](Self::ring).
    pub fn owe_ring(&mut self) -> bool {
        !std::mem::replace(&mut self.owes_ring, true)
    }

    /// Wakes the producer's slot.
    pub fn ring(&mut self) {
        self.owes_ring = false;
        if let Some(peer) = self.peer.get() {
            (peer.bell)();
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    job: u128,
    epoch: u64,
    attempt: u32,
    channel: u32,
}

enum Half {
    Producer(LocalProducer, Arc<OnceLock<Knock>>),
    Consumer(LocalConsumer, Arc<OnceLock<Knock>>),
}

/// Where the two ends of a process-local channel meet. One per process, shared by its slots.
#[derive(Clone, Default)]
pub struct LocalHub {
    waiting: Arc<Mutex<HashMap<Key, Half>>>,
}

/// Which channel of which attempt.
#[derive(Clone, Copy)]
pub(crate) struct LocalKey {
    pub job: u128,
    pub epoch: u64,
    pub attempt: u32,
    pub channel: u32,
}

impl LocalHub {
    /// An empty hub.
    pub fn new() -> Self {
        Self::default()
    }

    /// The producer's end of a channel; `me` is told of what comes back.
    pub(crate) fn producer(&self, key: LocalKey, me: Knock) -> LocalProducer {
        let key = Key { job: key.job, epoch: key.epoch, attempt: key.attempt, channel: key.channel };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.remove(&key) {
            Some(Half::Producer(producer, peer)) => {
                let _ = peer.set(me);
                producer
            }
            Some(Half::Consumer(..)) | None => {
                let (producer, consumer, to_producer) = pair();
                let _ = to_producer.set(me);
                let to_consumer = producer.peer.clone();
                waiting.insert(key, Half::Consumer(consumer, to_consumer));
                producer
            }
        }
    }

    /// The consumer's end of a channel; `me` is told of what comes.
    pub(crate) fn consumer(&self, key: LocalKey, me: Knock) -> LocalConsumer {
        let key = Key { job: key.job, epoch: key.epoch, attempt: key.attempt, channel: key.channel };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Half::Consumer(consumer, peer)) = waiting.remove(&key) {
            drop(waiting);
            let _ = peer.set(me.clone());
            // The producer may have pushed before there was anybody to tell.
            fence(Ordering::SeqCst);
            me.marks.mark(me.place);
            return consumer;
        }
        let (producer, consumer, to_producer) = pair();
        let to_consumer = producer.peer.clone();
        let _ = to_consumer.set(me);
        waiting.insert(key, Half::Producer(producer, to_producer));
        consumer
    }

    /// Drops ends of an attempt that were never fetched.
    pub(crate) fn forget(&self, job: u128, epoch: u64, attempt: u32) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|key, _| (key.job, key.epoch, key.attempt) != (job, epoch, attempt));
    }
}

impl std::fmt::Debug for LocalHub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("LocalHub").field("waiting", &waiting).finish()
    }
}

/// Both ends, and the place where the consumer finds how to tell the producer.
fn pair() -> (LocalProducer, LocalConsumer, Arc<OnceLock<Knock>>) {
    let (items_in, items_out) = spsc::channel(LOCAL_SEGMENTS_MAX + EVENTS_MAX as u32);
    let (returns_in, returns_out) = spsc::channel(LOCAL_SEGMENTS_MAX);
    let (to_consumer, to_producer) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
    let producer =
        LocalProducer { items: items_in, returns: returns_out, peer: to_consumer, rung: true, out: 0 };
    let consumer =
        LocalConsumer { items: items_out, returns: returns_in, peer: to_producer.clone(), owes_ring: false };
    (producer, consumer, to_producer)
}
