//! One slot's driver in the simulated network.
//!
//! It owns its connections, their operations, and the completions that are due. Always, as for every driver: at most one
//! send and one receive in flight per connection; every part comes back exactly once; `Closed` is the last word on a
//! connection. Completions of different operations are told in any order; those of one connection keep `Sent` before
//! `Released`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_arena::{Arena, Filling, InFlight, Segment};

use super::net::{SimNet, SimSocket, World};
use crate::{
    Completion, ConnId, Counters, Doorbell, DriverReport, IoFault, ReceiveParts, RegistrationRung, Ring,
    RingError, SendMode, SendParts, limits::NOTIFICATIONS_MAX,
};

/// What a posted segment is filled with until its operation completes: no record, manifest or zero looks like it.
const POISON: u8 = 0xDB;

/// Remembers that it was rung, for [`SimWatch::awake`].
#[derive(Clone, Debug, Default)]
pub struct SimBell(Arc<AtomicBool>);

impl Doorbell for SimBell {
    fn ring(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Sending {
    parts: SendParts,
    sum: u64,
    done: u64,
    total: u64,
}

enum Due {
    Sent { result: Result<u64, IoFault>, parts: SendParts, sum: u64 },
    Released { parts: SendParts, sum: u64 },
    Received { result: Result<Vec<u8>, IoFault>, parts: ReceiveParts },
    Closed,
}

struct Pending {
    at_ns: u64,
    conn: ConnId,
    due: Due,
}

#[derive(Default)]
struct Connection {
    generation: u32,
    socket: Option<SimSocket>,
    sending: Option<Sending>,
    receiving: Option<ReceiveParts>,
    shut: bool,
    closing: bool,
    /// Completions of this connection that were not told.
    pending: u32,
}

/// A [`Ring`] in a [`SimNet`].
pub struct SimRing(Arc<Mutex<Driver>>);

/// Tells from outside whether a slot that sleeps on its ring would wake up now. For simulations that step only slots which are
/// awake.
#[derive(Clone)]
pub struct SimWatch(Arc<Mutex<Driver>>);

struct Driver {
    net: SimNet,
    arena: Arena,
    zero_copy: bool,
    connections: Vec<Connection>,
    pending: Vec<Pending>,
    bell: SimBell,
    counters: Counters,
}

fn lock(driver: &Mutex<Driver>) -> MutexGuard<'_, Driver> {
    // A panic elsewhere ends the simulation.
    driver.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimRing {
    /// The driver of a slot whose segments lie in `arena`. With `zero_copy`, sent segments come back by notification.
    pub fn new(net: SimNet, arena: Arena, zero_copy: bool) -> Self {
        Self(Arc::new(Mutex::new(Driver {
            net,
            arena,
            zero_copy,
            connections: Vec::new(),
            pending: Vec::new(),
            bell: SimBell::default(),
            counters: Counters::default(),
        })))
    }

    /// Watches this ring.
    pub fn watch(&self) -> SimWatch {
        SimWatch(Arc::clone(&self.0))
    }
}

impl SimWatch {
    /// Whether the ring's `wait` would return: the bell was rung since the last call, a completion is due, or an operation
    /// can move on.
    pub fn awake(&self) -> bool {
        let driver = lock(&self.0);
        driver.bell.0.swap(false, Ordering::Relaxed) || driver.can_move()
    }
}

impl Driver {
    fn can_move(&self) -> bool {
        let world = self.net.lock();
        self.pending.iter().any(|pending| pending.at_ns <= world.now_ns)
            || self.connections.iter().any(|connection| {
                let Some(socket) = &connection.socket else { return false };
                let over = connection.closing && connection.pending == 0;
                let stuck = connection.closing
                    || (connection.sending.is_none() || !world.may_write(socket))
                        && (connection.receiving.is_none() || !world.may_read(socket));
                over || !stuck
            })
    }

    /// The connection, unless it is closing or gone.
    fn usable(&mut self, conn: ConnId) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(conn.index() as usize)?;
        let same = connection.generation == conn.generation() && connection.socket.is_some();
        (same && !connection.closing).then_some(connection)
    }

    /// Moves every connection on as far as the world lets it.
    fn progress(&mut self) {
        let net = self.net.clone();
        let world = &mut *net.lock();
        for place in 0..self.connections.len() {
            if self.connections[place].closing {
                self.wind_up(place, world);
                continue;
            }
            let Some(socket) = &self.connections[place].socket else { continue };
            let fault = world.fault(socket);
            self.progress_receive(place, fault, world);
            self.progress_send(place, fault, world);
        }
    }

    fn progress_send(&mut self, place: usize, fault: Option<IoFault>, world: &mut World) {
        let connection = &mut self.connections[place];
        let (Some(sending), Some(socket)) = (&mut connection.sending, &connection.socket) else { return };
        let result = match fault {
            Some(fault) => Err(fault),
            None => {
                let (arena, done, parts) = (&self.arena, sending.done, &sending.parts);
                let written = world.write(socket, sending.total - done, |bytes, count| {
                    gather(arena, parts, done, count, bytes);
                });
                match written {
                    Ok(count) => {
                        sending.done += count;
                        if sending.done < sending.total {
                            return;
                        }
                        Ok(sending.total)
                    }
                    Err(fault) => Err(fault),
                }
            }
        };
        let Some(Sending { parts, sum, .. }) = connection.sending.take() else { return };
        if connection.shut && result.is_ok() {
            world.finish(socket);
        }
        self.counters.bytes_sent += result.unwrap_or(0);
        let zero_copy = self.zero_copy && result.is_ok();
        let at_ns = world.completion_ns();
        if zero_copy {
            let range = world.weather.notification_ns;
            let later_ns = at_ns + world.random.within(range);
            world.alarm(later_ns);
            self.queue(place, at_ns, Due::Sent { result, parts: SendParts::new(), sum: 0 });
            self.queue(place, later_ns, Due::Released { parts, sum });
        } else {
            self.queue(place, at_ns, Due::Sent { result, parts, sum });
        }
    }

    fn progress_receive(&mut self, place: usize, fault: Option<IoFault>, world: &mut World) {
        let connection = &mut self.connections[place];
        let (Some(parts), Some(socket)) = (&connection.receiving, &connection.socket) else { return };
        let room = parts.iter().map(|part| u64::from(part.len)).sum();
        let result = match (world.read(socket, room), fault) {
            (Some(bytes), None) => Ok(bytes),
            // What arrived before the reset may still be read.
            (Some(bytes), Some(_)) if !bytes.is_empty() => Ok(bytes),
            (_, Some(fault)) => Err(fault),
            (None, None) => return,
        };
        let Some(parts) = connection.receiving.take() else { return };
        self.counters.bytes_received += result.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let at_ns = world.completion_ns();
        self.queue(place, at_ns, Due::Received { result, parts });
    }

    /// A closing connection: its operations come back, then it is over.
    fn wind_up(&mut self, place: usize, world: &mut World) {
        let connection = &mut self.connections[place];
        let (sending, receiving) = (connection.sending.take(), connection.receiving.take());
        if let Some(Sending { parts, sum, .. }) = sending {
            let at_ns = world.completion_ns();
            self.queue(place, at_ns, Due::Sent { result: Err(IoFault::Cancelled), parts, sum });
        }
        if let Some(parts) = receiving {
            let at_ns = world.completion_ns();
            self.queue(place, at_ns, Due::Received { result: Err(IoFault::Cancelled), parts });
        }
        if self.connections[place].pending == 0 && self.connections[place].socket.is_some() {
            self.queue(place, world.now_ns, Due::Closed);
        }
    }

    fn queue(&mut self, place: usize, at_ns: u64, due: Due) {
        let connection = &mut self.connections[place];
        connection.pending += 1;
        let conn = ConnId::new(place as u32, connection.generation);
        self.pending.push(Pending { at_ns, conn, due });
    }

    /// One of the completions that are due, any of them.
    fn pick(&mut self) -> Option<Pending> {
        let mut world = self.net.lock();
        let due: Vec<usize> =
            (0..self.pending.len()).filter(|&at| self.pending[at].at_ns <= world.now_ns).collect();
        if due.is_empty() {
            return None;
        }
        let chosen = due[world.random.below(due.len() as u64) as usize];
        let conn = self.pending[chosen].conn;
        // A notification never comes before the completion of its send, nor two of a connection in another order.
        let sends = |due: &Due| matches!(due, Due::Sent { .. } | Due::Released { .. });
        let first = if sends(&self.pending[chosen].due) {
            due.iter().copied().find(|&at| self.pending[at].conn == conn && sends(&self.pending[at].due))
        } else {
            None
        };
        Some(self.pending.remove(first.unwrap_or(chosen)))
    }

    fn complete(&mut self, Pending { conn, due, .. }: Pending) -> Completion {
        let place = conn.index() as usize;
        self.connections[place].pending -= 1;
        match due {
            Due::Sent { result, parts, sum } => {
                self.check(&parts, sum);
                Completion::Sent { conn, result, parts }
            }
            Due::Released { parts, sum } => {
                self.check(&parts, sum);
                Completion::Released { conn, parts }
            }
            Due::Received { result, parts } => {
                let result = result.map(|bytes| {
                    scatter(&self.arena, &parts, &bytes);
                    bytes.len() as u32
                });
                Completion::Received { conn, result, parts }
            }
            Due::Closed => {
                let connection = &mut self.connections[place];
                connection.generation = connection.generation.wrapping_add(1);
                (connection.closing, connection.shut) = (false, false);
                // Its end of the stream closes with it.
                let socket = connection.socket.take();
                drop(socket);
                Completion::Closed { conn }
            }
        }
    }

    /// Nobody may have written what was in flight.
    fn check(&self, parts: &SendParts, sum: u64) {
        assert!(
            parts.is_empty() || sum_of(&self.arena, parts) == sum,
            "a segment was written while the kernel was reading it"
        );
    }
}

impl Drop for Driver {
    /// The process is over, and its kernel keeps nothing: else the arena would have to keep its memory for it, for ever.
    fn drop(&mut self) {
        let connections = self.connections.iter_mut();
        let (sending, receiving): (Vec<_>, Vec<_>) =
            connections.map(|connection| (connection.sending.take(), connection.receiving.take())).unzip();
        let mut sent: Vec<SendParts> = sending.into_iter().flatten().map(|sending| sending.parts).collect();
        let mut posted: Vec<ReceiveParts> = receiving.into_iter().flatten().collect();
        for pending in self.pending.drain(..) {
            match pending.due {
                Due::Sent { parts, .. } | Due::Released { parts, .. } => sent.push(parts),
                Due::Received { parts, .. } => posted.push(parts),
                Due::Closed => {}
            }
        }
        for part in sent.into_iter().flatten() {
            let _ = self.arena.land(part.segment);
        }
        for part in posted.into_iter().flatten() {
            let _: Segment<Filling> = self.arena.unpost(part.segment);
        }
    }
}

impl Ring for SimRing {
    type Socket = SimSocket;
    type Doorbell = SimBell;

    fn doorbell(&self) -> SimBell {
        lock(&self.0).bell.clone()
    }

    fn attach(&mut self, socket: SimSocket) -> Result<ConnId, RingError> {
        let mut driver = lock(&self.0);
        let free = driver.connections.iter().position(|connection| connection.socket.is_none());
        let place = free.unwrap_or_else(|| {
            driver.connections.push(Connection::default());
            driver.connections.len() - 1
        });
        driver.connections[place].socket = Some(socket);
        Ok(ConnId::new(place as u32, driver.connections[place].generation))
    }

    fn send(&mut self, conn: ConnId, parts: SendParts) -> Result<(), SendParts> {
        let mut driver = lock(&self.0);
        let sum = sum_of(&driver.arena, &parts);
        let total = parts.iter().map(|part| u64::from(part.len)).sum();
        let Some(connection) = driver.usable(conn) else { return Err(parts) };
        assert!(connection.sending.is_none() && !connection.shut && total > 0, "misuse of send");
        connection.sending = Some(Sending { parts, sum, done: 0, total });
        driver.counters.send_ops += 1;
        Ok(())
    }

    fn receive(&mut self, conn: ConnId, parts: ReceiveParts) -> Result<(), ReceiveParts> {
        let mut driver = lock(&self.0);
        let arena = driver.arena.clone();
        let Some(connection) = driver.usable(conn) else { return Err(parts) };
        assert!(connection.receiving.is_none() && !parts.is_empty(), "misuse of receive");
        poison(&arena, &parts);
        connection.receiving = Some(parts);
        driver.counters.receive_ops += 1;
        Ok(())
    }

    fn shutdown_write(&mut self, conn: ConnId) {
        let mut driver = lock(&self.0);
        let net = driver.net.clone();
        let Some(connection) = driver.usable(conn) else { return };
        connection.shut = true;
        if let (None, Some(socket)) = (&connection.sending, &connection.socket) {
            net.lock().finish(socket);
        }
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(connection) = lock(&self.0).usable(conn) {
            connection.closing = true;
        }
    }

    fn reap(&mut self, budget: u32, sink: &mut dyn FnMut(Completion)) -> u32 {
        let mut driver = lock(&self.0);
        driver.counters.enters += 1;
        driver.progress();
        let mut told = 0;
        while told < budget
            && let Some(pending) = driver.pick()
        {
            let completion = driver.complete(pending);
            sink(completion);
            told += 1;
        }
        told
    }

    /// Returns at once: whoever runs the simulation asks [`SimWatch::awake`] before it steps the slot again.
    fn wait(&mut self, _timeout: Option<Duration>) {}

    fn notifications_max(&self) -> u32 {
        if lock(&self.0).zero_copy { NOTIFICATIONS_MAX as u32 } else { 0 }
    }

    fn now(&self) -> u64 {
        lock(&self.0).net.now_ns()
    }

    fn report(&self) -> DriverReport {
        let driver = lock(&self.0);
        let occupied = driver.connections.iter().filter(|connection| connection.socket.is_some());
        DriverReport {
            driver: "sim",
            setup: "none",
            registration: RegistrationRung::NotWanted,
            send_mode: if driver.zero_copy { SendMode::Zc } else { SendMode::Plain },
            send_mode_reason: None,
            connections: occupied.count() as u32,
            shared_connections: 0,
            counters: driver.counters,
        }
    }
}

/// The bytes of a part that the simulated kernel reads.
fn in_flight<'a>(arena: &'a Arena, segment: &'a Segment<InFlight>, offset: u32, len: u32) -> &'a [u8] {
    assert!(offset + len <= arena.len_of(segment), "a part exceeds its segment");
    let start = arena.read_ptr(segment).wrapping_add(offset as usize);
    // SAFETY: rule 1, the segment is in flight, so `len_of` bytes are valid for reading and nobody writes them.
    unsafe { std::slice::from_raw_parts(start, len as usize) }
}

/// Appends `count` bytes of the parts from byte `from` on.
fn gather(arena: &Arena, parts: &SendParts, from: u64, count: usize, to: &mut Vec<u8>) {
    let (mut skip, mut left) = (from as usize, count);
    for part in parts {
        let bytes = in_flight(arena, &part.segment, part.offset, part.len);
        let bytes = &bytes[skip.min(bytes.len())..];
        skip = skip.saturating_sub(part.len as usize);
        let taken = left.min(bytes.len());
        to.extend_from_slice(&bytes[..taken]);
        left -= taken;
    }
}

/// A checksum over all parts, in which every word and its place matter.
fn sum_of(arena: &Arena, parts: &SendParts) -> u64 {
    parts.iter().fold(0, |sum, part| {
        let bytes = in_flight(arena, &part.segment, part.offset, part.len);
        let (words, rest) = bytes.as_chunks::<8>();
        let words = words.iter().map(|word| u64::from_le_bytes(*word));
        words
            .chain(rest.iter().map(|byte| u64::from(*byte)))
            .fold(sum, |sum, word| (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23))
    })
}

/// What the kernel was given to write to is nobody's until it is done.
fn poison(arena: &Arena, parts: &ReceiveParts) {
    for part in parts {
        assert!(part.offset + part.len <= arena.capacity_of(&part.segment), "a part exceeds its segment");
        let start = arena.write_ptr(&part.segment).wrapping_add(part.offset as usize);
        // SAFETY: rule 1, a receiving segment is valid for writing as a whole, and nobody else looks at it.
        unsafe { start.write_bytes(POISON, part.len as usize) };
    }
}

/// Writes received bytes into the parts, in order.
fn scatter(arena: &Arena, parts: &ReceiveParts, bytes: &[u8]) {
    let mut rest = bytes;
    for part in parts {
        let (here, after) = rest.split_at(rest.len().min(part.len as usize));
        let start = arena.write_ptr(&part.segment).wrapping_add(part.offset as usize);
        // SAFETY: rule 1, as in `poison`; `here` is at most the part, which lies within the segment.
        unsafe { start.copy_from_nonoverlapping(here.as_ptr(), here.len()) };
        rest = after;
    }
    assert!(rest.is_empty(), "the kernel never receives more than there is room");
}
