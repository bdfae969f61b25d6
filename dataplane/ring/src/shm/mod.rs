//! Connections through the memory of one host, beside a driver's own: the table of them, and how they sleep.
//!
//! Owned by [`AnyRing`](crate::AnyRing). Always:
//! - a connection here has an index of at least `base`, the driver's own have smaller ones;
//! - while the ring blocks, every connection here has said that it sleeps, and a peer that changes something after that
//!   writes a byte into its control socket; all of these are watched by one poller, which the driver watches;
//! - the poller is made once, at the latest with the first connection; without connections nothing here costs anything.
//!
//! Files in reading order: `words` (what is said), `greeting` (how two sides meet), `connection` (what is in flight).

mod connection;
pub(crate) mod greeting;
#[cfg(test)]
mod tests;
mod words;

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use tidegate_arena::Arena;

use self::connection::Connection;
use self::greeting::ShmStream;
use crate::{
    epoll::poller::Poller,
    fault::RingError,
    limits::{HANG_UP_TURNS, SPIN_LOOKS, SPIN_NS},
    parts::give_back,
    report::Counters,
    ring::{Completion, ConnId, ReceiveParts, SendParts},
    slab::Slab,
};

pub(crate) struct Shm {
    arena: Arena,
    base: u32,
    connections: Slab<Connection>,
    /// Places in use, so that nobody looks at the others.
    live: Vec<ConnId>,
    poller: Option<Poller>,
    /// Turns since the last look at the control sockets.
    turns: u32,
    pub(crate) counters: Counters,
}

impl Shm {
    /// For connections with indices from `base`, as many as there are before it.
    pub(crate) fn new(arena: &Arena, base: u32) -> Self {
        Self {
            arena: arena.clone(),
            base,
            connections: Slab::new(base),
            live: Vec::with_capacity(base as usize),
            poller: None,
            turns: 0,
            counters: Counters::default(),
        }
    }

    /// Makes the poller, if there is none, and has it watched.
    pub(crate) fn prepare(
        &mut self,
        watch: impl FnOnce(RawFd) -> Result<(), RingError>,
    ) -> Result<(), RingError> {
        if self.poller.is_none() {
            let poller = Poller::new()?;
            watch(poller.fd())?;
            self.poller = Some(poller);
        }
        Ok(())
    }

    /// Takes over a stream.
    pub(crate) fn attach(&mut self, stream: ShmStream) -> Result<ConnId, RingError> {
        let poller = self.poller.as_ref().expect("invariant: made before anything is attached");
        let limit = self.connections.places();
        let (inner, connection) =
            self.connections.take(Connection::vacant).ok_or(RingError::TooManyConnections { limit })?;
        let conn = ConnId::new(inner.index() + self.base, inner.generation());
        let fd = connection.open(conn, stream);
        let token = u64::from(inner.index()) << 32 | u64::from(inner.generation());
        if let Err(error) = poller.add(fd, token, libc::EPOLLIN | libc::EPOLLRDHUP) {
            connection.close(&mut self.counters);
            connection.vacate();
            self.connections.vacate(inner);
            return Err(error);
        }
        self.live.push(inner);
        Ok(conn)
    }

    /// Connections attached now.
    pub(crate) fn occupied(&self) -> u32 {
        self.live.len() as u32
    }

    /// Whether a connection is, or was, one of these.
    pub(crate) fn owns(&self, conn: ConnId) -> bool {
        conn.index() >= self.base
    }

    pub(crate) fn send(&mut self, conn: ConnId, parts: SendParts) -> Result<(), SendParts> {
        let Some(connection) = open(&mut self.connections, self.base, conn) else { return Err(parts) };
        connection.send(&self.arena, parts, &mut self.counters);
        Ok(())
    }

    pub(crate) fn receive(&mut self, conn: ConnId, parts: ReceiveParts) -> Result<(), ReceiveParts> {
        let Some(connection) = open(&mut self.connections, self.base, conn) else { return Err(parts) };
        connection.receive(&self.arena, parts, &mut self.counters);
        Ok(())
    }

    pub(crate) fn shutdown_write(&mut self, conn: ConnId) {
        if let Some(connection) = open(&mut self.connections, self.base, conn) {
            connection.shutdown_write(&mut self.counters);
        }
    }

    pub(crate) fn close(&mut self, conn: ConnId) {
        if let Some(connection) = open(&mut self.connections, self.base, conn) {
            connection.close(&mut self.counters);
        }
    }

    /// Moves everything on and tells at most `budget` results.
    pub(crate) fn reap(&mut self, budget: u32, sink: &mut dyn FnMut(Completion)) -> u32 {
        self.turns += 1;
        if self.turns >= HANG_UP_TURNS {
            self.look_at_sockets();
        }
        let (mut told, mut at) = (0, 0);
        while at < self.live.len() {
            let inner = self.live[at];
            let connection = self.connections.get(inner).expect("invariant: what is live has its place");
            if connection.advance(&self.arena, &mut self.counters) {
                while told < budget
                    && let Some(completion) = connection.tell()
                {
                    sink(completion);
                    told += 1;
                }
                if told == budget {
                    break;
                }
                if connection.closing() {
                    let conn = ConnId::new(inner.index() + self.base, inner.generation());
                    self.vacate(inner);
                    self.live.swap_remove(at);
                    sink(Completion::Closed { conn });
                    told += 1;
                    continue;
                }
            }
            at += 1;
        }
        // Who comes first changes, so that a small budget does not always serve the same.
        if told == budget && !self.live.is_empty() {
            self.live.rotate_left(1);
        }
        told
    }

    fn vacate(&mut self, inner: ConnId) {
        let connection = self.connections.get(inner).expect("invariant: what is live has its place");
        if let (Some(stream), Some(poller)) = (connection.vacate(), &self.poller) {
            poller.remove(stream.control.as_raw_fd());
        }
        self.connections.vacate(inner);
    }

    /// Looks for a moment whether a peer that is awake does what we wait for. Neither the caller's time nor the driver's
    /// completions are looked at meanwhile; it is shorter than a wake-up.
    pub(crate) fn linger(&mut self) {
        let until_ns = crate::monotonic_ns() + SPIN_NS;
        let (connections, live) = (&mut self.connections, &self.live);
        loop {
            for _ in 0..SPIN_LOOKS {
                let mut expects = false;
                for &inner in live {
                    let connection = connections.get(inner).expect("invariant: what is live has its place");
                    if connection.has_news() || connection.can_advance() {
                        return;
                    }
                    expects |= connection.expects();
                }
                if !expects {
                    return;
                }
                std::hint::spin_loop();
            }
            if crate::monotonic_ns() >= until_ns {
                return;
            }
        }
    }

    /// Every connection says that it sleeps. False: one of them has something to do; all are awake again.
    pub(crate) fn fall_asleep(&mut self) -> bool {
        let mut busy = false;
        for &inner in &self.live {
            let connection = self.connections.get(inner).expect("invariant: what is live has its place");
            busy |= connection.fall_asleep() || connection.has_news();
        }
        if busy {
            self.awake();
        }
        !busy
    }

    fn awake(&mut self) {
        for &inner in &self.live {
            self.connections.get(inner).expect("invariant: what is live has its place").awake();
        }
    }

    /// Back from blocking.
    pub(crate) fn woken(&mut self) {
        self.awake();
        self.look_at_sockets();
    }

    /// Takes wake-ups off and finds out who has hung up.
    fn look_at_sockets(&mut self) {
        self.turns = 0;
        let Some(poller) = self.poller.as_mut().filter(|_| !self.live.is_empty()) else { return };
        for (token, events) in poller.wait(Some(Duration::ZERO)) {
            let inner = ConnId::new((token >> 32) as u32, token as u32);
            let connection =
                self.connections.get(inner).expect("invariant: watched until its place is vacant");
            connection.on_event(events);
        }
    }
}

/// The connection that `conn` names, if it takes operations.
fn open(connections: &mut Slab<Connection>, base: u32, conn: ConnId) -> Option<&mut Connection> {
    let inner = ConnId::new(conn.index() - base, conn.generation());
    connections.get(inner).filter(|connection| connection.is_open(conn))
}

impl std::fmt::Debug for Shm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shm").field("live", &self.live).finish_non_exhaustive()
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        for &inner in &self.live {
            let connection = self.connections.get(inner).expect("invariant: what is live has its place");
            connection.close(&mut self.counters);
            while let Some(completion) = connection.tell() {
                give_back(&self.arena, completion);
            }
        }
    }
}
