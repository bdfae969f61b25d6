//! The epoll driver: one [`EpollRing`] per slot thread, for hosts and containers that forbid io_uring.
//!
//! The ring owns everything here but the arena and the doorbell's flag, which it shares. Always:
//! - a connection is in each of the two queues at most once, so neither ever grows;
//! - `pending` = operations without a result; after a `reap` each of them waits for an edge;
//! - a `reap` asks for events at most once, and not at all when nothing is pending or results wait to be told.
//!
//! Operations are system calls that return at once, so the kernel never holds a segment between calls. The order of
//! `reap`: ask what has become ready, try what can be tried, then tell.
//!
//! Files in reading order: `connection` (what is in flight), `calls` (sendmsg, recvmsg), `poller` (epoll); then the
//! crate's `parts`, `slab` and `bell`, which all drivers share.

mod calls;
mod connection;
pub(crate) mod poller;

use std::{
    collections::VecDeque,
    fmt,
    net::TcpStream,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::Duration,
};

use tidegate_arena::Arena;

use self::{
    connection::{Connection, INTEREST},
    poller::Poller,
};
use crate::{
    bell::{Bell, EventfdDoorbell},
    fault::RingError,
    limits::{CONNECTIONS_DEFAULT, CONNECTIONS_MAX},
    parts::give_back,
    report::{Counters, DriverReport, ModeReason, RegistrationRung, SendMode},
    ring::{Completion, ConnId, ReceiveParts, Ring, SendParts},
    slab::Slab,
};

/// The doorbell's events; no connection has this index.
const BELL: u64 = u64::MAX;
/// Those of the descriptor that is watched beside it; nor this one.
const WATCHED: u64 = u64::MAX - 1;

/// How an [`EpollRing`] is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpollConfig {
    /// How bytes were to leave the arena. They leave it by sendmsg; the report says so.
    pub send: SendMode,
    /// Most connections at once, 1 to [`CONNECTIONS_MAX`].
    pub connections_max: u32,
}

impl Default for EpollConfig {
    /// Everything automatic, [`CONNECTIONS_DEFAULT`] connections.
    fn default() -> Self {
        Self { send: SendMode::Auto, connections_max: CONNECTIONS_DEFAULT }
    }
}

/// The network of one slot thread on epoll: sendmsg and recvmsg on sockets that do not block.
///
/// It is used as [`UringRing`](crate::UringRing) is, and needs neither its system calls nor locked memory.
pub struct EpollRing {
    arena: Arena,
    config: EpollConfig,
    poller: Poller,
    connections: Slab<Connection>,
    /// Connections with a new operation, or for which an event came.
    to_try: VecDeque<ConnId>,
    /// Connections with a result, or closed.
    to_tell: VecDeque<ConnId>,
    /// Operations in flight that have no result yet.
    pending: u32,
    /// A wait has asked for events since the last reap.
    fresh: bool,
    bell: Arc<Bell>,
    counters: Counters,
}

impl EpollRing {
    /// A ring that sends from and receives into segments of `arena`.
    ///
    /// # Errors
    /// A bound of the configuration is broken, or the process has no descriptor left.
    pub fn new(arena: &Arena, config: &EpollConfig) -> Result<Self, RingError> {
        let places = config.connections_max;
        if !(1..=CONNECTIONS_MAX).contains(&places) {
            return Err(RingError::Connections { found: places });
        }
        let (bell, poller) = (Bell::new()?, Poller::new()?);
        // Never read: each write is an edge of its own, and the count does not overflow in a lifetime.
        poller.add(bell.fd(), BELL, libc::EPOLLIN)?;
        Ok(Self {
            arena: arena.clone(),
            config: *config,
            poller,
            connections: Slab::new(places),
            to_try: VecDeque::with_capacity(places as usize),
            to_tell: VecDeque::with_capacity(places as usize),
            pending: 0,
            fresh: false,
            bell,
            counters: Counters::default(),
        })
    }

    /// From now on a wait ends when this descriptor becomes readable, too. Whoever owns it finds out why.
    pub(crate) fn watch(&mut self, fd: RawFd) -> Result<(), RingError> {
        self.poller.add_for_others(fd, WATCHED)
    }

    /// The arena it moves the bytes of.
    pub(crate) fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Most connections at once.
    pub(crate) fn places(&self) -> u32 {
        self.connections.places()
    }

    /// Asks for events, waiting for the first at most so long, and queues the connections they are about.
    fn poll(&mut self, timeout: Option<Duration>) {
        for (token, events) in self.poller.wait(timeout) {
            if token == BELL {
                self.bell.heard();
                self.counters.doorbells += 1;
                continue;
            }
            if token == WATCHED {
                continue;
            }
            let conn = ConnId::new((token >> 32) as u32, token as u32);
            let connection =
                self.connections.get(conn).expect("invariant: watched until its place is vacant");
            connection.on_event(events);
            queue(&mut self.to_try, &mut connection.to_try, conn);
        }
    }

    /// Tries everything that can be tried.
    fn advance(&mut self) {
        while let Some(conn) = self.to_try.pop_front() {
            let connection = self.connections.get(conn).expect("invariant: vacated only with no try due");
            connection.to_try = false;
            let over = connection.advance(&self.arena, &mut self.counters);
            self.pending -= over;
            if over > 0 {
                queue(&mut self.to_tell, &mut connection.to_tell, conn);
            }
        }
    }

    /// The next thing to tell the caller.
    fn next(&mut self) -> Option<Completion> {
        while let Some(&conn) = self.to_tell.front() {
            let connection = self.connections.get(conn).expect("invariant: occupied until told");
            if let Some(completion) = connection.tell() {
                return Some(completion);
            }
            connection.to_tell = false;
            self.to_tell.pop_front();
            if connection.closing() {
                if let Some(socket) = connection.vacate() {
                    self.poller.remove(socket.as_raw_fd());
                }
                self.connections.vacate(conn);
                return Some(Completion::Closed { conn });
            }
        }
        None
    }
}

/// Puts a connection into a queue that it is not in.
fn queue(queue: &mut VecDeque<ConnId>, queued: &mut bool, conn: ConnId) {
    if !std::mem::replace(queued, true) {
        queue.push_back(conn);
    }
}

impl Ring for EpollRing {
    type Socket = TcpStream;
    type Doorbell = EventfdDoorbell;

    fn doorbell(&self) -> EventfdDoorbell {
        EventfdDoorbell::new(self.bell.clone())
    }

    fn attach(&mut self, socket: TcpStream) -> Result<ConnId, RingError> {
        let limit = self.connections.places();
        let (conn, connection) =
            self.connections.take(Connection::vacant).ok_or(RingError::TooManyConnections { limit })?;
        let token = u64::from(conn.index()) << 32 | u64::from(conn.generation());
        let watched = connection.open(conn, socket).and_then(|fd| {
            self.poller.add(fd, token, INTEREST).inspect_err(|_| {
                connection.close();
                connection.vacate();
            })
        });
        if watched.is_err() {
            self.connections.vacate(conn);
        }
        watched.map(|()| conn)
    }

    fn send(&mut self, conn: ConnId, parts: SendParts) -> Result<(), SendParts> {
        match self.connections.get(conn) {
            Some(connection) if connection.is_open(conn) => {
                connection.send(&self.arena, parts);
                self.pending += 1;
                queue(&mut self.to_try, &mut connection.to_try, conn);
                Ok(())
            }
            _ => Err(parts),
        }
    }

    fn receive(&mut self, conn: ConnId, parts: ReceiveParts) -> Result<(), ReceiveParts> {
        match self.connections.get(conn) {
            Some(connection) if connection.is_open(conn) => {
                connection.receive(&self.arena, parts);
                self.pending += 1;
                queue(&mut self.to_try, &mut connection.to_try, conn);
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
        self.pending -= connection.close();
        queue(&mut self.to_tell, &mut connection.to_tell, conn);
    }

    fn reap(&mut self, budget: u32, sink: &mut dyn FnMut(Completion)) -> u32 {
        if self.pending > 0 && self.to_tell.is_empty() && !self.fresh {
            self.poll(Some(Duration::ZERO));
        }
        self.fresh = false;
        self.advance();
        for reaped in 0..budget {
            match self.next() {
                Some(completion) => sink(completion),
                None => return reaped,
            }
        }
        budget
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        if !self.to_try.is_empty() || !self.to_tell.is_empty() || !self.bell.may_sleep() {
            return;
        }
        self.poll(timeout);
        self.fresh = true;
        self.bell.awake();
    }

    fn now(&self) -> u64 {
        crate::monotonic_ns()
    }

    fn report(&self) -> DriverReport {
        let mut counters = self.counters;
        counters.enters = self.poller.calls + counters.send_ops + counters.receive_ops;
        DriverReport {
            driver: "epoll",
            setup: self.poller.setup(),
            registration: RegistrationRung::NotWanted,
            send_mode: SendMode::Plain,
            send_mode_reason: (self.config.send != SendMode::Plain).then_some(ModeReason::OnlyPlain),
            connections: self.connections.occupied(),
            shared_connections: 0,
            counters,
        }
    }
}

impl Drop for EpollRing {
    fn drop(&mut self) {
        // Nothing is in the kernel's hands; only the parts have to go back to the arena.
        for (_, connection) in self.connections.iter_mut() {
            connection.close();
            while let Some(completion) = connection.tell() {
                give_back(&self.arena, completion);
            }
        }
    }
}

impl fmt::Debug for EpollRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpollRing").field("report", &self.report()).finish_non_exhaustive()
    }
}
