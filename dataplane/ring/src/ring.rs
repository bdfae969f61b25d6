//! The contract between a slot and whatever moves its bytes: [`Ring`].
//!
//! Owner of all state is the driver. Nothing in this file knows the kernel, so that a readiness loop and a simulator
//! can stand behind it as well. Always, for every driver and connection:
//! - sends in flight ≤ 1, receives in flight ≤ 1;
//! - parts given in = parts handed back + parts of what is in flight, and every part comes back exactly once;
//! - after [`Completion::Closed`] nothing with that [`ConnId`] is reported again.

use std::time::Duration;

use arrayvec::ArrayVec;
use tidegate_arena::{InFlight, Receiving, Segment};

use crate::{DriverReport, IoFault, RingError, limits::PARTS_MAX};

/// A connection of one ring. The generation tells users of an index apart: an id is never valid twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    index: u32,
    generation: u32,
}

impl ConnId {
    /// For drivers: the `generation`-th user of place `index`.
    pub const fn new(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    /// Place in the driver's table, from 0, dense: fit to index a table of the caller's own.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// How many connections had this place before, modulo 2³².
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

/// A piece of a gathered send: `len` bytes at `offset` of a segment.
#[derive(Debug)]
pub struct SendPart {
    /// The segment, which nobody writes until it is handed back.
    pub segment: Segment<InFlight>,
    /// First byte.
    pub offset: u32,
    /// Bytes; `offset + len` is at most the length the segment was sealed with.
    pub len: u32,
}

/// A piece of a scattered receive: `len` bytes at `offset` of a segment.
#[derive(Debug)]
pub struct ReceivePart {
    /// The segment, which nobody reads until it is handed back.
    pub segment: Segment<Receiving>,
    /// First byte.
    pub offset: u32,
    /// Bytes; `offset + len` is at most the segment size.
    pub len: u32,
}

/// The pieces of one send, in stream order. By convention the first of several is a header; the rest are payloads.
pub type SendParts = ArrayVec<SendPart, PARTS_MAX>;
/// The pieces of one receive, filled in this order.
pub type ReceiveParts = ArrayVec<ReceivePart, PARTS_MAX>;

/// What a driver has to say about a connection.
// Large on purpose: the parts travel by value, so that a completion costs no allocation.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Completion {
    /// A send ended: all its bytes were accepted, or the stream is broken. Short sends are resumed by the driver.
    Sent {
        /// The connection.
        conn: ConnId,
        /// Bytes accepted (always all of them), or why not.
        result: Result<u64, IoFault>,
        /// The parts; empty if zero-copy sending still reads them: then they come in [`Completion::Released`].
        parts: SendParts,
    },
    /// The kernel is done with the parts of a zero-copy send that was reported `Sent` before.
    Released {
        /// The connection.
        conn: ConnId,
        /// The parts.
        parts: SendParts,
    },
    /// A receive ended.
    Received {
        /// The connection.
        conn: ConnId,
        /// Bytes received, filled into the parts in order, possibly fewer than there was room; 0 is end of file.
        result: Result<u32, IoFault>,
        /// The parts.
        parts: ReceiveParts,
    },
    /// After [`Ring::close`]: every operation of the connection is over, its parts were handed back, the socket is
    /// closed, and the id is void.
    Closed {
        /// The connection.
        conn: ConnId,
    },
}

/// Wakes the slot thread of one ring from any thread.
///
/// Publish the work first, then ring. At most one ring is pending; while the slot is awake, ringing is no system call.
pub trait Doorbell: Clone + Send + Sync + 'static {
    /// Makes the current or the next [`Ring::wait`] return. Never blocks.
    fn ring(&self);
}

/// The network of one slot thread: connections that gather from the arena and scatter into it.
///
/// The caller alternates [`reap`](Ring::reap) and its own work, and calls [`wait`](Ring::wait) when there is none.
pub trait Ring {
    /// What a connection is made of.
    type Socket: Send + 'static;
    /// How other threads wake this one.
    type Doorbell: Doorbell;

    /// A doorbell of this ring. It may outlive the ring; it then does nothing.
    fn doorbell(&self) -> Self::Doorbell;

    /// Takes over a connected socket.
    ///
    /// # Errors
    /// All places are taken, or the socket is not a connected stream. The socket is closed then.
    fn attach(&mut self, socket: Self::Socket) -> Result<ConnId, RingError>;

    /// Starts to send `parts`, all of them, in order. Queued here, handed over by the next `reap` or `wait`.
    ///
    /// # Errors
    /// The connection is closing or gone: the parts come back at once, and no completion follows.
    ///
    /// # Panics
    /// Misuse: a send is in flight already, the write side was shut down, nothing to send, or a part exceeds its
    /// segment.
    fn send(&mut self, conn: ConnId, parts: SendParts) -> Result<(), SendParts>;

    /// Starts to receive into `parts`: completes with at least one byte, end of file or a fault.
    ///
    /// # Errors
    /// The connection is closing or gone: the parts come back at once, and no completion follows.
    ///
    /// # Panics
    /// Misuse: a receive is in flight already, no room at all, or a part exceeds its segment.
    fn receive(&mut self, conn: ConnId, parts: ReceiveParts) -> Result<(), ReceiveParts>;

    /// Tells the peer that nothing more will be sent, after the send in flight. Nothing if the connection is gone.
    fn shutdown_write(&mut self, conn: ConnId);

    /// Ends the connection now. What is in flight comes back (with a fault, if incomplete), then `Closed`.
    ///
    /// This is not the graceful end of a stream: bytes that the peer has not acknowledged may be lost. A second call,
    /// or one for a connection that is gone, does nothing.
    fn close(&mut self, conn: ConnId);

    /// Submits what is queued and hands at most `budget` completions to `sink`, without blocking. Returns how many.
    fn reap(&mut self, budget: u32, sink: &mut dyn FnMut(Completion)) -> u32;

    /// Blocks until there is a completion to reap, the doorbell was rung since the last `wait`, or `timeout` is over
    /// (`None`: never). Submits what is queued before it blocks; if there is no need to, it returns at once and leaves
    /// that to the next `reap`. May return early without any of these: look at all sources of work afterwards.
    fn wait(&mut self, timeout: Option<Duration>);

    /// Most sends of one connection that may be reported as sent while their parts are still read; 0 if there are none.
    fn notifications_max(&self) -> u32 {
        0
    }

    /// Nanoseconds of a monotonic clock: of the host for a real driver, of the simulation for a simulated one.
    fn now(&self) -> u64;

    /// What this driver is, how it came to be that, and what it has done so far.
    fn report(&self) -> DriverReport;
}
