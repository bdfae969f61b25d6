//! The world behind the simulated rings: streams, their bytes on the way, delays and accidents, and the clock.
//!
//! One lock around all of it; a simulation runs on one thread, so it is never waited for. Always, per direction of a stream:
//! bytes arrive in the order in which they were written, none twice; what is on its way and not read is at most `capacity`;
//! delivery times do not fall.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::random::Random;
use crate::IoFault;

/// How the network behaves. Chances are of 65,536; times in nanoseconds, both ends of a range included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// One way.
    pub latency_ns: [u64; 2],
    /// Bytes that a direction holds, drawn when a stream is made.
    pub capacity: [u64; 2],
    /// That a step of a send or a receive moves less than it could.
    pub short: u32,
    /// That a completion comes later than it could, and by how much.
    pub late: u32,
    /// How much later.
    pub late_ns: [u64; 2],
    /// How long after its send a zero-copy notification comes.
    pub notification_ns: [u64; 2],
    /// That a bit of what one step of a send moves is wrong on the other side.
    pub flip: u32,
}

impl Weather {
    /// Short ways, no accidents.
    pub const FAIR: Self = Self {
        latency_ns: [5_000, 20_000],
        capacity: [64 << 10, 256 << 10],
        short: 0,
        late: 0,
        late_ns: [0, 0],
        notification_ns: [5_000, 50_000],
        flip: 0,
    };
}

/// What happened in the world so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimCounts {
    /// Streams made.
    pub streams: u64,
    /// Steps of sends and receives that were cut short.
    pub short: u64,
    /// Completions that came late.
    pub late: u64,
    /// Streams that were reset, by accident or because a host crashed.
    pub resets: u64,
    /// Stalls of a direction.
    pub stalls: u64,
    /// Bits that were wrong.
    pub flips: u64,
    /// Bytes delivered.
    pub bytes: u64,
}

struct Chunk {
    at_ns: u64,
    bytes: Vec<u8>,
    /// Bytes that were read.
    read: usize,
}

#[derive(Default)]
struct Pipe {
    chunks: VecDeque<Chunk>,
    held: u64,
    capacity: u64,
    last_ns: u64,
    fin_ns: Option<u64>,
    /// Nothing is delivered before this time.
    stalled_until_ns: u64,
}

struct Stream {
    hosts: [u64; 2],
    /// What each side writes.
    pipes: [Pipe; 2],
    open: [bool; 2],
    /// What each side suffers, from when on.
    broken: [Option<(u64, IoFault)>; 2],
}

pub(super) struct World {
    pub now_ns: u64,
    pub random: Random,
    pub weather: Weather,
    pub counts: SimCounts,
    streams: Vec<Stream>,
    alarms: BinaryHeap<Reverse<u64>>,
}

/// The simulated network. Clones are the same.
#[derive(Clone)]
pub struct SimNet(Arc<Mutex<World>>);

impl std::fmt::Debug for SimNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let world = self.lock();
        f.debug_struct("SimNet").field("now_ns", &world.now_ns).field("counts", &world.counts).finish()
    }
}

impl SimNet {
    /// A network without streams, at time 1.
    pub fn new(seed: u64, weather: Weather) -> Self {
        Self(Arc::new(Mutex::new(World {
            now_ns: 1,
            random: Random::new(seed),
            weather,
            counts: SimCounts::default(),
            streams: Vec::new(),
            alarms: BinaryHeap::new(),
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        // A panic elsewhere ends the simulation; its world is only looked at then.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time.
    pub fn now_ns(&self) -> u64 {
        self.lock().now_ns
    }

    /// Moves the clock; it never goes back.
    pub fn advance_to(&self, now_ns: u64) {
        let mut world = self.lock();
        world.now_ns = world.now_ns.max(now_ns);
    }

    /// Asks to be mentioned by [`next_alarm_ns`](Self::next_alarm_ns).
    pub fn alarm(&self, at_ns: u64) {
        self.lock().alarm(at_ns);
    }

    /// The next time at which something in the network may change, if there is one after now.
    pub fn next_alarm_ns(&self) -> Option<u64> {
        let mut world = self.lock();
        while world.alarms.peek().is_some_and(|Reverse(at)| *at <= world.now_ns) {
            world.alarms.pop();
        }
        world.alarms.peek().map(|Reverse(at)| *at)
    }

    /// Changes the weather for what is yet to come.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// What happened so far.
    pub fn counts(&self) -> SimCounts {
        self.lock().counts
    }

    /// One number of the network's sequence, for others whose choices must be replayed with it.
    pub fn draw(&self, range: [u64; 2]) -> u64 {
        self.lock().random.within(range)
    }

    /// A stream from a host to another; gives both ends.
    pub fn connect(&self, from: u64, to: u64) -> (SimSocket, SimSocket) {
        let mut world = self.lock();
        let capacities = [0; 2].map(|_: u64| {
            let range = world.weather.capacity;
            world.random.within(range)
        });
        let pipe = |capacity| Pipe { capacity, ..Pipe::default() };
        world.streams.push(Stream {
            hosts: [from, to],
            pipes: capacities.map(pipe),
            open: [true; 2],
            broken: [None; 2],
        });
        world.counts.streams += 1;
        let stream = world.streams.len() - 1;
        [0, 1].map(|side| SimSocket { net: self.clone(), stream, side }).into()
    }

    /// Resets a random open stream. False if there is none.
    pub fn reset_one(&self) -> bool {
        let mut world = self.lock();
        let open: Vec<usize> =
            (0..world.streams.len()).filter(|&at| world.streams[at].open == [true; 2]).collect();
        if open.is_empty() {
            return false;
        }
        let at = open[world.random.below(open.len() as u64) as usize];
        world.reset(at);
        true
    }

    /// Nothing is delivered from `from` to `to` for a while; the other way goes on.
    pub fn stall(&self, from: u64, to: u64, for_ns: u64) {
        let mut world = self.lock();
        let until_ns = world.now_ns + for_ns;
        for stream in &mut world.streams {
            for side in 0..2 {
                if (stream.hosts[side], stream.hosts[1 - side]) == (from, to) {
                    stream.pipes[side].stalled_until_ns = until_ns;
                }
            }
        }
        world.counts.stalls += 1;
        world.alarm(until_ns);
    }

    /// What each direction of each stream holds, written and not read: for those who compare states.
    pub fn on_the_way(&self) -> Vec<Vec<u8>> {
        let world = self.lock();
        let pipes = world.streams.iter().flat_map(|stream| &stream.pipes);
        let unread =
            |pipe: &Pipe| pipe.chunks.iter().flat_map(|chunk| &chunk.bytes[chunk.read..]).copied().collect();
        pipes.map(unread).collect()
    }

    /// A host is gone: all of its streams break.
    pub fn crash(&self, host: u64) {
        let mut world = self.lock();
        for at in 0..world.streams.len() {
            if world.streams[at].hosts.contains(&host) && world.streams[at].open != [false; 2] {
                world.reset(at);
            }
        }
    }
}

impl World {
    pub fn alarm(&mut self, at_ns: u64) {
        self.alarms.push(Reverse(at_ns));
    }

    fn latency(&mut self) -> u64 {
        let range = self.weather.latency_ns;
        self.random.within(range)
    }

    /// How much of `bytes` moves in this step.
    fn cut(&mut self, bytes: u64) -> u64 {
        let short = self.weather.short;
        if bytes > 1 && self.random.chance(short) {
            self.counts.short += 1;
            return self.random.within([1, bytes]);
        }
        bytes
    }

    /// When an operation that is done now is reported.
    pub fn completion_ns(&mut self) -> u64 {
        let Weather { late, late_ns, .. } = self.weather;
        let mut at_ns = self.now_ns;
        if self.random.chance(late) {
            self.counts.late += 1;
            at_ns += self.random.within(late_ns);
            self.alarm(at_ns);
        }
        at_ns
    }

    /// Both sides learn of it after a while; what was not delivered is lost.
    fn reset(&mut self, at: usize) {
        self.counts.resets += 1;
        for side in 0..2 {
            let when_ns = self.now_ns + self.latency();
            self.streams[at].broken[side].get_or_insert((when_ns, IoFault::Reset));
            self.alarm(when_ns);
        }
        let now_ns = self.now_ns;
        for pipe in &mut self.streams[at].pipes {
            pipe.chunks.retain(|chunk| chunk.at_ns <= now_ns);
            pipe.held = pipe.chunks.iter().map(|chunk| (chunk.bytes.len() - chunk.read) as u64).sum();
            pipe.fin_ns = None;
        }
    }

    /// What the side suffers now.
    pub fn fault(&self, socket: &SimSocket) -> Option<IoFault> {
        let broken = self.streams[socket.stream].broken[socket.side];
        broken.filter(|(from_ns, _)| *from_ns <= self.now_ns).map(|(_, fault)| fault)
    }

    /// Whether a write would move something, or fail.
    pub fn may_write(&self, socket: &SimSocket) -> bool {
        let stream = &self.streams[socket.stream];
        let pipe = &stream.pipes[socket.side];
        self.fault(socket).is_some() || pipe.held < pipe.capacity && stream.broken == [None; 2]
    }

    /// Whether a read would bring something, or fail.
    pub fn may_read(&self, socket: &SimSocket) -> bool {
        let pipe = &self.streams[socket.stream].pipes[1 - socket.side];
        let arrived = pipe.chunks.front().is_some_and(|chunk| chunk.at_ns <= self.now_ns);
        let over = pipe.chunks.is_empty() && pipe.fin_ns.is_some_and(|fin_ns| fin_ns <= self.now_ns);
        self.fault(socket).is_some() || (arrived || over) && pipe.stalled_until_ns <= self.now_ns
    }

    /// Takes some of `wanted` bytes into the stream: says how many; `copy` brings them.
    pub fn write(
        &mut self,
        socket: &SimSocket,
        wanted: u64,
        copy: impl FnOnce(&mut Vec<u8>, usize),
    ) -> Result<u64, IoFault> {
        let (at, side) = (socket.stream, socket.side);
        let pipe = &self.streams[at].pipes[side];
        let room = wanted.min(pipe.capacity - pipe.held);
        if room == 0 {
            return Ok(0);
        }
        if !self.streams[at].open[1 - side] {
            // Nobody is there to read: the host answers with a reset.
            self.reset(at);
            return Ok(0);
        }
        let count = self.cut(room);
        let at_ns = self.now_ns + self.latency();
        let mut bytes = Vec::with_capacity(count as usize);
        copy(&mut bytes, count as usize);
        assert_eq!(bytes.len() as u64, count, "the driver brings what it promised");
        if self.random.chance(self.weather.flip) {
            self.counts.flips += 1;
            let bit = self.random.below(count * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        let pipe = &mut self.streams[at].pipes[side];
        pipe.last_ns = pipe.last_ns.max(at_ns);
        let at_ns = pipe.last_ns;
        pipe.chunks.push_back(Chunk { at_ns, bytes, read: 0 });
        pipe.held += count;
        self.alarm(at_ns);
        Ok(count)
    }

    /// Bytes that have arrived, at most `room`; `None` if there is nothing yet, empty at the end of the stream.
    pub fn read(&mut self, socket: &SimSocket, room: u64) -> Option<Vec<u8>> {
        let now_ns = self.now_ns;
        let pipe = &self.streams[socket.stream].pipes[1 - socket.side];
        if pipe.stalled_until_ns > now_ns {
            return None;
        }
        let arrived = pipe.chunks.iter().take_while(|chunk| chunk.at_ns <= now_ns);
        let arrived: u64 = arrived.map(|chunk| (chunk.bytes.len() - chunk.read) as u64).sum();
        if arrived == 0 {
            let over = pipe.chunks.is_empty() && pipe.fin_ns.is_some_and(|fin_ns| fin_ns <= now_ns);
            return over.then(Vec::new);
        }
        let mut left = self.cut(arrived.min(room)) as usize;
        let pipe = &mut self.streams[socket.stream].pipes[1 - socket.side];
        let mut bytes = Vec::with_capacity(left);
        while left > 0
            && let Some(chunk) = pipe.chunks.front_mut()
        {
            let count = left.min(chunk.bytes.len() - chunk.read);
            bytes.extend_from_slice(&chunk.bytes[chunk.read..chunk.read + count]);
            chunk.read += count;
            left -= count;
            if chunk.read == chunk.bytes.len() {
                pipe.chunks.pop_front();
            }
        }
        pipe.held -= bytes.len() as u64;
        self.counts.bytes += bytes.len() as u64;
        Some(bytes)
    }

    /// The side will write nothing more.
    pub fn finish(&mut self, socket: &SimSocket) {
        let at_ns = self.now_ns + self.latency();
        let pipe = &mut self.streams[socket.stream].pipes[socket.side];
        let at_ns = at_ns.max(pipe.last_ns);
        pipe.fin_ns.get_or_insert(at_ns);
        self.alarm(at_ns);
    }

    /// The side is gone. Closing on unread bytes resets the connection.
    fn close(&mut self, at: usize, side: usize) {
        if !std::mem::replace(&mut self.streams[at].open[side], false) {
            return;
        }
        if self.streams[at].pipes[1 - side].held > 0 {
            self.reset(at);
        } else {
            let at_ns = self.now_ns + self.latency();
            let pipe = &mut self.streams[at].pipes[side];
            let at_ns = at_ns.max(pipe.last_ns);
            pipe.fin_ns.get_or_insert(at_ns);
            self.alarm(at_ns);
        }
    }
}

/// One end of a stream. Dropping it closes the end.
pub struct SimSocket {
    net: SimNet,
    stream: usize,
    side: usize,
}

impl SimSocket {
    /// Writes all of a few bytes, as on a fresh connection.
    ///
    /// # Errors
    /// The connection is gone, or has no room.
    pub fn write_now(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut world = self.net.lock();
        if let Some(fault) = world.fault(self) {
            return Err(std::io::Error::other(fault));
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = world
                .write(self, rest.len() as u64, |to, count| to.extend_from_slice(&rest[..count]))
                .map_err(std::io::Error::other)?;
            if taken == 0 {
                return Err(std::io::ErrorKind::WouldBlock.into());
            }
            rest = &rest[taken as usize..];
        }
        Ok(())
    }

    /// Bytes that have arrived, at most `room`; `None` if there is nothing yet, empty at the end of the stream.
    ///
    /// # Errors
    /// The connection broke.
    pub fn read_now(&mut self, room: usize) -> Result<Option<Vec<u8>>, IoFault> {
        let mut world = self.net.lock();
        match world.read(self, room as u64) {
            Some(bytes) if !bytes.is_empty() => Ok(Some(bytes)),
            read => match world.fault(self) {
                Some(fault) => Err(fault),
                None => Ok(read),
            },
        }
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.net.lock().close(self.stream, self.side);
    }
}

impl std::fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimSocket").field("stream", &self.stream).field("side", &self.side).finish()
    }
}
