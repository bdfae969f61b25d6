//! One end of a connection with its arena, and the byte pattern that streams are made of.
//!
//! A [`Side`] owns arena, shard and ring. `Side::end` checks that no segment was lost.

use std::{
    fmt,
    net::{TcpListener, TcpStream},
    time::Duration,
};

use tidegate_arena::{Arena, ArenaConfig, Granted, Holder, HolderKind, HugePages, SegmentSize, Shard};
use tidegate_ring::{
    AnyRing, Completion, EpollConfig, EpollRing, ReceivePart, ReceiveParts, Registration, Ring, SendMode,
    SendPart, SendParts, UringConfig, UringRing, probe,
};

pub const SEGMENT: u32 = 16 << 10;
pub const HOLDER: Holder = Holder { kind: HolderKind::Other, id: 0 };
/// Far longer than anything here takes; only a lost completion reaches it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Returns from the test, with the reason printed, if io_uring is forbidden here.
#[macro_export]
macro_rules! need_io_uring {
    () => {
        if let Err(obstacle) = tidegate_ring::probe().io_uring {
            println!("skipped: {obstacle}");
            return;
        }
    };
}

/// The byte at a position of a stream: a wrong offset, order or length shows.
pub fn pattern(position: u64) -> u8 {
    (position ^ (position >> 7) ^ (position >> 15)).wrapping_mul(167) as u8
}

pub fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let accepted = listener.accept().unwrap().0;
    dialled.set_nodelay(true).unwrap();
    accepted.set_nodelay(true).unwrap();
    (dialled, accepted)
}

pub struct Side {
    pub arena: Arena,
    pub shards: Vec<Shard>,
    /// First, so that it is dropped by hand before the ledger is looked at.
    pub ring: Option<AnyRing>,
    /// Bytes of the pattern handed to `parts` and checked by `verify`.
    pub written: u64,
    pub read: u64,
}

impl Side {
    pub fn new(mode: Mode) -> Self {
        // Half a MiB: unprivileged users may lock eight for everything that runs at once.
        Self::with(32, mode, 4)
    }

    pub fn with(segments: u32, mode: Mode, connections_max: u32) -> Self {
        let segment_size = SegmentSize::new(SEGMENT).unwrap();
        // A second shard, which the ring does not register.
        let arena = ArenaConfig { segment_size, shards: vec![segments, 4], huge_pages: HugePages::Never };
        Self::over(Arena::map(&arena).unwrap(), mode, connections_max)
    }

    /// With an arena that peers may read.
    pub fn shared(segments: u32, mode: Mode, connections_max: u32) -> Self {
        let segment_size = SegmentSize::new(SEGMENT).unwrap();
        let arena = ArenaConfig { segment_size, shards: vec![segments, 4], huge_pages: HugePages::Never };
        Self::over(Arena::map_shared(&arena).unwrap(), mode, connections_max)
    }

    fn over((arena, shards): (Arena, Vec<Shard>), mode: Mode, connections_max: u32) -> Self {
        let ring = match mode {
            Mode::Uring(send, registration) => {
                let config = UringConfig { send, registration, connections_max };
                UringRing::new(&arena, 0, &config).unwrap().into()
            }
            Mode::Epoll => {
                let config = EpollConfig { connections_max, ..EpollConfig::default() };
                EpollRing::new(&arena, &config).unwrap().into()
            }
        };
        Self { arena, shards, ring: Some(ring), written: 0, read: 0 }
    }

    pub fn ring(&mut self) -> &mut AnyRing {
        self.ring.as_mut().unwrap()
    }

    /// Parts with the next bytes of the pattern, from shard 0: `(offset in the segment, length)` each.
    pub fn parts(&mut self, pieces: &[(u32, u32)]) -> SendParts {
        self.parts_of(0, pieces).expect("the shard has segments left")
    }

    /// The same from any shard; nothing is used up if it has too few segments.
    pub fn parts_of(&mut self, shard: usize, pieces: &[(u32, u32)]) -> Option<SendParts> {
        if (self.shards[shard].free() as usize) < pieces.len() {
            return None;
        }
        let mut part = |&(offset, len): &(u32, u32)| {
            let mut segment = self.shards[shard].acquire(HOLDER).unwrap();
            for byte in &mut self.arena.bytes_mut(&mut segment)[offset as usize..(offset + len) as usize] {
                *byte = pattern(self.written);
                self.written += 1;
            }
            let segment = self.arena.launch(self.arena.seal(segment, offset + len));
            SendPart { segment, offset, len }
        };
        Some(pieces.iter().map(&mut part).collect())
    }

    pub fn room(&mut self, pieces: &[(u32, u32)]) -> ReceiveParts {
        let mut part = |&(offset, len): &(u32, u32)| {
            let segment = self.shards[0].acquire_granted(HOLDER).expect("the shard has segments left");
            ReceivePart { segment: self.arena.post(segment), offset, len }
        };
        pieces.iter().map(&mut part).collect()
    }

    /// The bytes of a receive, in order; the segments are released.
    pub fn take(&mut self, parts: ReceiveParts, mut received: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts {
            let len = received.min(part.len);
            received -= len;
            let segment = self.arena.received(self.arena.unpost::<Granted>(part.segment), part.offset + len);
            bytes.extend_from_slice(&self.arena.bytes(&segment)[part.offset as usize..]);
            self.shards[0].release(segment);
        }
        assert_eq!(received, 0, "more was received than there was room");
        bytes
    }

    /// Takes the bytes of a receive and checks that they continue the pattern.
    pub fn verify(&mut self, parts: ReceiveParts, received: u32) {
        for byte in self.take(parts, received) {
            assert_eq!(byte, pattern(self.read), "byte {} of the stream", self.read);
            self.read += 1;
        }
    }

    pub fn release(&mut self, parts: SendParts) {
        for part in parts {
            self.arena.release(self.arena.land(part.segment));
        }
    }

    /// The next completion, which must come.
    pub fn next(&mut self) -> Completion {
        let mut next = None;
        loop {
            self.ring().reap(1, &mut |completion| next = Some(completion));
            if let Some(completion) = next {
                return completion;
            }
            self.wait();
        }
    }

    pub fn wait(&mut self) {
        let start = std::time::Instant::now();
        self.ring().wait(Some(PATIENCE));
        assert!(start.elapsed() < PATIENCE, "a completion was lost");
    }

    /// The next completion is an error-free `Sent` or `Released` or a `Closed`: gives its parts back.
    pub fn settle(&mut self) -> Completion {
        let completion = self.next();
        match completion {
            Completion::Sent { conn, result, parts } => {
                self.release(parts);
                Completion::Sent { conn, result, parts: SendParts::new() }
            }
            Completion::Released { conn, parts } => {
                self.release(parts);
                Completion::Released { conn, parts: SendParts::new() }
            }
            Completion::Received { conn, result, parts } => {
                let len = result.unwrap_or(0);
                self.verify(parts, len);
                Completion::Received { conn, result, parts: ReceiveParts::new() }
            }
            closed => closed,
        }
    }

    /// Drops the ring; every segment must be free then.
    pub fn end(mut self) {
        self.ring = None;
        self.assert_all_free();
    }

    pub fn assert_all_free(&self) {
        let totals = self.arena.ledger().totals();
        assert_eq!(totals.free(), self.arena.segments(), "every segment is back: {totals:?}");
    }
}

/// A driver and what it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Uring(SendMode, Registration),
    Epoll,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uring(send, registration) => write!(f, "io_uring, {send}, {registration:?}"),
            Self::Epoll => f.write_str("epoll"),
        }
    }
}

/// io_uring with everything automatic.
pub const AUTO: Mode = Mode::Uring(SendMode::Auto, Registration::Auto);

/// Every mode of every driver.
const MODES: [Mode; 9] = [
    Mode::Uring(SendMode::Fixed, Registration::Required),
    Mode::Uring(SendMode::Fixed, Registration::Never),
    Mode::Uring(SendMode::Plain, Registration::Required),
    Mode::Uring(SendMode::Plain, Registration::Never),
    Mode::Uring(SendMode::Zc, Registration::Required),
    Mode::Uring(SendMode::Zc, Registration::Never),
    AUTO,
    Mode::Uring(SendMode::Auto, Registration::Never),
    Mode::Epoll,
];

/// Those that may be used here; why not the others is printed.
pub fn modes() -> impl Iterator<Item = Mode> {
    let usable = probe().io_uring.inspect_err(|obstacle| println!("io_uring is skipped: {obstacle}")).is_ok();
    MODES.into_iter().filter(move |mode| usable || *mode == Mode::Epoll)
}

/// One mode of each driver that may be used here.
pub fn drivers() -> impl Iterator<Item = Mode> {
    modes().filter(|mode| matches!(*mode, AUTO | Mode::Epoll))
}
