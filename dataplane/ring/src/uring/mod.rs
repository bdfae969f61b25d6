//! The io_uring driver: one [`UringRing`] per slot thread.
//!
//! The ring owns everything here but the arena and the doorbell's flag, which it shares. Always:
//! - connections closed but not yet told ≤ connections_max, so their queue never grows;
//! - the doorbell's read is queued or in flight, except while its completion waits to be popped;
//! - a watched descriptor is polled whenever the ring blocks;
//! - a call of `reap` enters the kernel at most once, and not at all when nothing is queued and completions wait or
//!   none can.
//!
//! Files in reading order: `driver` (what is shared, rungs), `kernel` (in and out of the kernel), `connection` (what
//! completions mean), `choice` (which way a send goes), `ops` and `stable` (what the kernel is given), `token`; then the crate's `parts`, `slab` and `bell`, which all drivers share.

mod choice;
mod connection;
mod driver;
mod kernel;
mod ops;
mod stable;
#[cfg(test)]
mod tests;
mod token;

use std::{
    collections::VecDeque,
    fmt,
    net::TcpStream,
    os::fd::RawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use io_uring::{cqueue, types::Fd};
use tidegate_arena::Arena;

use self::{connection::Connection, driver::Driver, kernel::Kernel, stable::Word, token::Token};
use crate::{
    bell::{Bell, EventfdDoorbell},
    fault::{RingError, say, stop},
    limits::{CONNECTIONS_DEFAULT, CONNECTIONS_MAX, DRAIN_TIMEOUT, NOTIFICATIONS_MAX},
    parts::give_back,
    probe::Capabilities,
    report::{DriverReport, Registration, SendMode},
    ring::{Completion, ConnId, ReceiveParts, Ring, SendParts},
    slab::Slab,
};

/// How a [`UringRing`] is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UringConfig {
    /// How bytes leave the arena.
    pub send: SendMode,
    /// Whether the slot's shard is registered with the kernel.
    pub registration: Registration,
    /// Most connections at once, 1 to [`CONNECTIONS_MAX`]. Decides the memory of the ring.
    pub connections_max: u32,
}

impl Default for UringConfig {
    /// Everything automatic, [`CONNECTIONS_DEFAULT`] connections.
    fn default() -> Self {
        Self { send: SendMode::Auto, registration: Registration::Auto, connections_max: CONNECTIONS_DEFAULT }
    }
}

/// The network of one slot thread on io_uring. Made on that thread, and bound to it.
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use tidegate_arena::{Arena, ArenaConfig, Holder, HolderKind, HugePages, SegmentSize};
/// use tidegate_ring::{Completion, Ring, SendPart, SendParts, UringConfig, UringRing};
///
/// let config = ArenaConfig { segment_size: SegmentSize::DEFAULT, shards: vec![4], huge_pages: HugePages::Never };
/// let (arena, mut shards) = Arena::map(&config)?;
/// let Ok(mut ring) = UringRing::new(&arena, 0, &UringConfig::default()) else {
///     return Ok(()); // no io_uring on this host: see `probe()`
/// };
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let conn = ring.attach(TcpStream::connect(listener.local_addr()?)?)?;
///
/// let mut segment = shards[0].acquire(Holder { kind: HolderKind::Other, id: 0 }).expect("a fresh arena has segments");
/// arena.bytes_mut(&mut segment)[..5].copy_from_slice(b"hello");
/// let segment = arena.launch(arena.seal(segment, 5));
/// let mut parts = SendParts::new();
/// parts.push(SendPart { segment, offset: 0, len: 5 });
/// ring.send(conn, parts).expect("the connection is open");
///
/// let mut sent = 0;
/// while sent == 0 {
///     ring.wait(None);
///     ring.reap(8, &mut |completion| match completion {
///         Completion::Sent { result, parts, .. } => {
///             sent = result.expect("the peer is there");
///             parts.into_iter().for_each(|part| arena.release(arena.land(part.segment)));
///         }
///         other => unreachable!("nothing else is in flight: {other:?}"),
///     });
/// }
/// assert_eq!(sent, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It cannot be sent to another thread:
/// ```compile_fail,E0277
/// fn assert_send<T: Send>() {}
/// assert_send::<tidegate_ring::UringRing>();
/// ```
pub struct UringRing {
    driver: Driver,
    connections: Slab<Connection>,
    /// Finished connections of which the caller has not heard yet.
    closed: VecDeque<ConnId>,
    bell: Arc<Bell>,
    /// What the doorbell is read into; `None` only while dropping.
    bell_word: Option<Word>,
    bell_armed: bool,
    bell_cancelling: bool,
    /// A descriptor whose becoming readable ends a wait, and whether a poll of it is in flight.
    watched: Option<RawFd>,
    watch_armed: bool,
    watch_cancelling: bool,
    /// How long dropping waits for the kernel. Only a test changes it.
    drain_timeout: Duration,
}

impl UringRing {
    /// A ring for the calling thread, sending from and receiving into segments of `arena`, registered for `shard`.
    ///
    /// # Errors
    /// A bound of the configuration is broken, io_uring is not allowed here, or registration was required and refused.
    pub fn new(arena: &Arena, shard: usize, config: &UringConfig) -> Result<Self, RingError> {
        let places = config.connections_max;
        if !(1..=CONNECTIONS_MAX).contains(&places) {
            return Err(RingError::Connections { found: places });
        }
        let bell = Bell::new()?;
        let driver = Driver::new(arena, shard, config)?;
        let mut ring = Self {
            driver,
            connections: Slab::new(places),
            closed: VecDeque::with_capacity(places as usize),
            bell,
            bell_word: Some(Word::new()),
            bell_armed: false,
            bell_cancelling: false,
            watched: None,
            watch_armed: false,
            watch_cancelling: false,
            drain_timeout: DRAIN_TIMEOUT,
        };
        ring.arm_bell();
        Ok(ring)
    }

    fn arm_bell(&mut self) {
        assert!(!self.bell_armed, "one read of the doorbell at a time");
        let word = self.bell_word.as_ref().expect("invariant: taken only when dropped");
        let entry = ops::read_bell(Fd(self.bell.fd()), word).user_data(Token::Bell.encode());
        self.driver.kernel.push(&entry, 1);
        self.bell_armed = true;
    }

    /// From now on a wait ends when this descriptor becomes readable, too. Whoever owns it finds out why, and keeps it
    /// until this ring is gone.
    pub(crate) fn watch(&mut self, fd: RawFd) {
        assert!(self.watched.is_none(), "one descriptor is watched");
        self.watched = Some(fd);
    }

    /// The arena it moves the bytes of.
    pub(crate) fn arena(&self) -> &Arena {
        &self.driver.arena
    }

    /// Most connections at once.
    pub(crate) fn places(&self) -> u32 {
        self.connections.places()
    }

    /// Polls what is watched. Once, and again after it was readable: a poll looks first and waits then, so nothing is lost
    /// in between.
    fn arm_watch(&mut self) {
        if let Some(fd) = self.watched.filter(|_| !self.watch_armed) {
            self.driver.kernel.push(&ops::poll_readable(Fd(fd)).user_data(Token::Watch.encode()), 1);
            self.watch_armed = true;
        }
    }

    /// The next thing to tell the caller, from what the kernel has delivered.
    fn next(&mut self) -> Option<Completion> {
        loop {
            if let Some(conn) = self.closed.pop_front() {
                self.connections.get(conn).expect("invariant: occupied until told").vacate();
                self.connections.vacate(conn);
                return Some(Completion::Closed { conn });
            }
            let entry = self.driver.kernel.pop()?;
            if let Some(completion) = self.handle(&entry) {
                return Some(completion);
            }
        }
    }

    fn handle(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let token = Token::decode(entry.user_data())
            .unwrap_or_else(|| stop(format_args!("a completion of nothing that was submitted: {entry:?}")));
        let (conn, completion) = match token {
            Token::Bell => {
                self.on_bell(entry);
                return None;
            }
            Token::BellCancel => {
                self.settle_once(Which::BellCancel);
                return None;
            }
            Token::Watch => {
                self.settle_once(Which::Watch);
                return None;
            }
            Token::WatchCancel => {
                self.settle_once(Which::WatchCancel);
                return None;
            }
            Token::Send(conn, slot) => {
                (conn, find(&mut self.connections, conn).on_send(&mut self.driver, slot, entry))
            }
            Token::Receive(conn) => {
                (conn, find(&mut self.connections, conn).on_receive(&mut self.driver, entry))
            }
            Token::Cancel(conn) => {
                find(&mut self.connections, conn).on_cancel(&mut self.driver);
                (conn, None)
            }
        };
        self.note_if_finished(conn);
        completion
    }

    fn note_if_finished(&mut self, conn: ConnId) {
        let connection = find(&mut self.connections, conn);
        connection.abort_if_stuck();
        if connection.finished() {
            self.closed.push_back(conn);
        }
    }

    fn on_bell(&mut self, entry: &cqueue::Entry) {
        if !self.bell_armed {
            stop(format_args!("the doorbell was read twice"));
        }
        self.bell_armed = false;
        self.driver.kernel.settle(1);
        match entry.result() {
            8 => {
                self.bell.heard();
                self.driver.counters.doorbells += 1;
                self.arm_bell();
            }
            // Cancelled because the ring ends, or interrupted.
            ops::INTERRUPTED | ops::AGAIN => self.arm_bell(),
            result if result == -libc::ECANCELED => {}
            result => stop(format_args!("reading the doorbell gave {result}")),
        }
    }

    /// One of those operations of which at most one is in flight has ended; how does not matter.
    fn settle_once(&mut self, which: Which) {
        let in_flight = match which {
            Which::BellCancel => &mut self.bell_cancelling,
            Which::Watch => &mut self.watch_armed,
            Which::WatchCancel => &mut self.watch_cancelling,
        };
        if !std::mem::replace(in_flight, false) {
            stop(format_args!("{which:?} completed that was not asked for"));
        }
        self.driver.kernel.settle(1);
    }

    /// Ends everything in flight and waits for the kernel to return it, releasing all parts. False: it did not in time.
    fn drain(&mut self) -> bool {
        for (conn, connection) in self.connections.iter_mut() {
            // What is closing already is in the queue of the closed, or gets there by its completions.
            if connection.is_open(conn) {
                connection.close(&mut self.driver);
                connection.abort_if_stuck();
                if connection.finished() {
                    self.closed.push_back(conn);
                }
            }
        }
        if self.bell_armed {
            let entry = ops::cancel_one(Token::Bell.encode()).user_data(Token::BellCancel.encode());
            self.driver.kernel.push(&entry, 1);
            self.bell_cancelling = true;
        }
        if self.watch_armed {
            let entry = ops::cancel_one(Token::Watch.encode()).user_data(Token::WatchCancel.encode());
            self.driver.kernel.push(&entry, 1);
            self.watch_cancelling = true;
        }
        let deadline = Instant::now() + self.drain_timeout;
        loop {
            while let Some(completion) = self.next() {
                give_back(&self.driver.arena, completion);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.driver.kernel.owed() == 0 || left.is_zero() {
                break;
            }
            self.driver.kernel.wait(Some(left));
        }
        self.driver.kernel.owed() == 0
    }
}

/// An operation of which one is in flight at most.
#[derive(Clone, Copy, Debug)]
enum Which {
    BellCancel,
    Watch,
    WatchCancel,
}

/// The connection a completion names, which there must be.
fn find(connections: &mut Slab<Connection>, conn: ConnId) -> &mut Connection {
    connections
        .get(conn)
        .unwrap_or_else(|| stop(format_args!("a completion for {conn:?}, which is not in use")))
}

impl Ring for UringRing {
    type Socket = TcpStream;
    type Doorbell = EventfdDoorbell;

    fn doorbell(&self) -> EventfdDoorbell {
        EventfdDoorbell::new(self.bell.clone())
    }

    fn attach(&mut self, socket: TcpStream) -> Result<ConnId, RingError> {
        let limit = self.connections.places();
        let (conn, connection) =
            self.connections.take(Connection::vacant).ok_or(RingError::TooManyConnections { limit })?;
        let opened = connection.open(conn, socket, &self.driver);
        if opened.is_err() {
            self.connections.vacate(conn);
        }
        opened.map(|()| conn)
    }

    fn send(&mut self, conn: ConnId, parts: SendParts) -> Result<(), SendParts> {
        match self.connections.get(conn) {
            Some(connection) if connection.is_open(conn) => {
                connection.send(&mut self.driver, parts);
                Ok(())
            }
            _ => Err(parts),
        }
    }

    fn receive(&mut self, conn: ConnId, parts: ReceiveParts) -> Result<(), ReceiveParts> {
        match self.connections.get(conn) {
            Some(connection) if connection.is_open(conn) => {
                connection.receive(&mut self.driver, parts);
                Ok(())
            }
            _ => Err(parts),
        }
    }

    fn shutdown_write(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get(conn).filter(|connection| connection.is_open(conn)) {
            connection.shutdown_write();
        }
    }

    fn close(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get(conn).filter(|connection| connection.is_open(conn))
        else {
            return;
        };
        connection.close(&mut self.driver);
        self.note_if_finished(conn);
    }

    fn reap(&mut self, budget: u32, sink: &mut dyn FnMut(Completion)) -> u32 {
        self.driver.kernel.turn();
        for reaped in 0..budget {
            match self.next() {
                Some(completion) => sink(completion),
                None => return reaped,
            }
        }
        budget
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        if !self.closed.is_empty() || !self.driver.kernel.nothing_delivered() || !self.bell.may_sleep() {
            return;
        }
        self.arm_watch();
        self.driver.kernel.wait(timeout);
        self.bell.awake();
    }

    fn notifications_max(&self) -> u32 {
        if self.driver.may_zero_copy() { NOTIFICATIONS_MAX as u32 } else { 0 }
    }

    fn now(&self) -> u64 {
        crate::monotonic_ns()
    }

    fn report(&self) -> DriverReport {
        let driver = &self.driver;
        let mut counters = driver.counters;
        counters.enters = driver.kernel.enters;
        DriverReport {
            driver: "io_uring",
            setup: driver.kernel.setup,
            registration: driver.registration,
            send_mode: driver.send_mode,
            send_mode_reason: driver.send_mode_reason,
            connections: self.connections.occupied(),
            shared_connections: 0,
            counters,
        }
    }
}

impl Drop for UringRing {
    fn drop(&mut self) {
        if self.drain() {
            self.driver.kernel.unregister();
            return;
        }
        // Rule 5: the kernel may still use all of it, so none of it is ever freed.
        let connections = self.connections.occupied();
        std::mem::forget(self.driver.arena.clone());
        std::mem::forget(std::mem::replace(&mut self.connections, Slab::new(0)));
        std::mem::forget(self.bell_word.take());
        say(format_args!(
            "the kernel kept {} operations for {:?} after they were cancelled; leaking the arena and {connections} \
             connections",
            self.driver.kernel.owed(),
            self.drain_timeout,
        ));
    }
}

impl fmt::Debug for UringRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringRing").field("report", &self.report()).finish_non_exhaustive()
    }
}

/// What io_uring offers on this host, by making a small ring.
pub(crate) fn capabilities() -> Result<Capabilities, RingError> {
    let kernel = Kernel::open(1)?;
    Ok(Capabilities { setup: kernel.setup, fixed_vectors: kernel.fixed_vectors, zero_copy: kernel.zero_copy })
}
