//! What an honest peer never does: words that lie, memory that does not belong, a process that is gone.

use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use tidegate_arena::shared::Words;
use tidegate_arena::{Arena, ArenaConfig, Granted, Holder, HolderKind, HugePages, SegmentSize, Shard};

use super::greeting::{Control, Peer, ShmError, ShmStream, Shown};
use super::words;
use crate::{
    AnyRing, Completion, ConnId, EpollConfig, EpollRing, IoFault, ReceivePart, ReceiveParts, Ring, SendPart,
    SendParts,
};

const HOLDER: Holder = Holder { kind: HolderKind::Other, id: 0 };
const SEGMENT: u32 = 4096;
const PATIENCE: Duration = Duration::from_secs(10);

fn arena(segments: u32) -> (Arena, Shard) {
    let segment_size = SegmentSize::new(SEGMENT).unwrap();
    let config = ArenaConfig { segment_size, shards: vec![segments], huge_pages: HugePages::Never };
    let (arena, mut shards) = Arena::map_shared(&config).unwrap();
    (arena, shards.remove(0))
}

type Outcome<T> = Option<Result<T, IoFault>>;

/// A ring with one connection, and the peer's end of it in the hands of the test.
struct Victim {
    arena: Arena,
    shard: Shard,
    ring: AnyRing,
    conn: ConnId,
    /// The peer's words, which the test writes as it likes.
    words: Words,
    /// The victim's words, as a file that the test reads.
    told: std::fs::File,
    _peer_arena: (Arena, Shard),
    control: Option<UnixStream>,
}

impl Victim {
    fn new() -> Self {
        let (arena, shard) = arena(8);
        let peer = self::arena(4);
        let words = ShmStream::words(&peer.0).unwrap();
        let (ours, control) = UnixStream::pair().unwrap();
        let shown = shown(&words, &peer.0);
        let (own, mapped) = (ShmStream::words(&arena).unwrap(), Peer::map(shown).unwrap());
        let told = own.file().try_clone_to_owned().unwrap().into();
        let stream = Control::accepted(ours).unwrap().join(own, mapped).unwrap();
        let mut ring: AnyRing = EpollRing::new(&arena, &EpollConfig::default()).unwrap().into();
        let conn = ring.attach(stream.into()).unwrap();
        Self { arena, shard, ring, conn, words, told, _peer_arena: peer, control: Some(control) }
    }

    /// What the victim tells the peer of its state.
    fn state(&self) -> u64 {
        let mut word = [0; 8];
        self.told.read_exact_at(&mut word, 8 * words::STATE as u64).unwrap();
        u64::from_ne_bytes(word)
    }

    fn receive(&mut self) {
        let segment = self.arena.post(self.shard.acquire_granted(HOLDER).unwrap());
        let parts = ReceiveParts::from_iter([ReceivePart { segment, offset: 0, len: SEGMENT }]);
        self.ring.receive(self.conn, parts).unwrap();
    }

    fn send(&mut self) {
        let segment = self.arena.launch(self.arena.seal(self.shard.acquire(HOLDER).unwrap(), 100));
        let parts = SendParts::from_iter([SendPart { segment, offset: 0, len: 100 }]);
        self.ring.send(self.conn, parts).unwrap();
    }

    /// Results of what has one now: of the send, and of the receive.
    fn reap(&mut self) -> (Outcome<u64>, Outcome<u32>) {
        let (mut sent, mut received) = (None, None);
        let (arena, shard) = (&self.arena, &mut self.shard);
        self.ring.reap(8, &mut |completion| match completion {
            Completion::Sent { result, parts, .. } => {
                sent = Some(result);
                parts.into_iter().for_each(|part| shard.release(arena.land(part.segment)));
            }
            Completion::Received { result, parts, .. } => {
                received = Some(result);
                parts.into_iter().for_each(|part| shard.release(arena.unpost::<Granted>(part.segment)));
            }
            other => panic!("{other:?}"),
        });
        (sent, received)
    }

    /// Publishes a send of these pieces, as an honest peer would.
    fn publish(&self, sends: u64, pieces: &[(u64, u64)]) {
        for (at, &(offset, len)) in pieces.iter().enumerate() {
            self.words.set(words::LIST + 2 * at, offset);
            self.words.set(words::LIST + 2 * at + 1, len);
        }
        self.words.set(words::PIECES, pieces.len() as u64);
        self.words.publish(words::SENDS, sends);
    }

    fn end(mut self) {
        self.control = None;
        drop(self.ring);
        assert_eq!(self.shard.free(), 8, "every segment is back");
    }
}

fn shown(words: &Words, arena: &Arena) -> Shown {
    Shown::from([
        words.file().try_clone_to_owned().unwrap(),
        arena.file().unwrap().try_clone_to_owned().unwrap(),
    ])
}

fn shared<T>(result: Outcome<T>) -> &'static str {
    match result {
        Some(Err(IoFault::Shared { what })) => what,
        _ => panic!("no broken rule was found"),
    }
}

#[test]
fn a_piece_outside_of_the_peers_memory_is_refused() {
    // The mapping is of whole shards, which are as long as a huge page; the segments are four, and behind them is a hole.
    let (size, mapped) = (4 * u64::from(SEGMENT), tidegate_arena::limits::HUGE_PAGE_BYTES as u64);
    let refused = [
        (size, 1),
        (0, size + 1),
        (mapped - 1, 1),
        (mapped, 1),
        (0, mapped + 1),
        (u64::MAX, 1),
        (u64::MAX - 7, 8),
        (1, u64::MAX),
        (0, 1 << 32),
        (0, 0),
    ];
    for piece in refused {
        let mut victim = Victim::new();
        victim.receive();
        victim.publish(1, &[(0, 8), piece]);
        assert!(shared(victim.reap().1).contains("outside"), "{piece:?}");
        victim.end();
    }
    let mut victim = Victim::new();
    victim.receive();
    victim.publish(1, &[(size - 8, 8)]);
    assert_eq!(victim.reap().1, Some(Ok(8)));
    victim.end();
}

#[test]
fn words_that_lie_are_refused_by_name() {
    let lies: [(usize, u64, &str); 6] = [
        (words::SENDS, 2, "before the last send was taken"),
        (words::SENDS, u64::MAX, "before the last send was taken"),
        (words::PIECES, 0, "too many pieces"),
        (words::PIECES, 21, "too many pieces"),
        (words::PIECES, u64::MAX, "too many pieces"),
        (words::STATE, 9, "a state that there is not"),
    ];
    for (word, value, needle) in lies {
        let mut victim = Victim::new();
        victim.receive();
        let sends = u64::from(word != words::STATE);
        victim.publish(sends, &[(0, 8)]);
        victim.words.publish(word, value);
        let what = shared(victim.reap().1);
        assert!(what.contains(needle), "{what}");
        victim.end();
    }
    for takes in [2, u64::MAX] {
        let mut victim = Victim::new();
        victim.send();
        victim.words.publish(words::TAKES, takes);
        assert!(shared(victim.reap().0).contains("took what was not sent"));
        victim.end();
    }
}

#[test]
fn whatever_the_words_say_the_victim_lives_and_keeps_its_segments() {
    // A generator of its own, so that every run tries the same.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..400 {
        let mut victim = Victim::new();
        let (mut sending, mut receiving) = (false, false);
        for _ in 0..40 {
            let index = match random() % 8 {
                0 => words::SENDS,
                1 => words::TAKES,
                2 => words::STATE,
                3 => words::SLEEP,
                4 => words::PIECES,
                _ => words::LIST + (random() % 40) as usize,
            };
            // Small numbers are the likely ones to pass a check.
            let value = match random() % 4 {
                0 => random(),
                1 => random() % 5000,
                _ => random() % 4,
            };
            victim.words.publish(index, value);
            if !sending {
                victim.send();
                sending = true;
            }
            if !receiving {
                victim.receive();
                receiving = true;
            }
            if random() % 4 == 0 {
                victim.ring.wait(Some(Duration::ZERO));
            }
            let (sent, received) = victim.reap();
            sending &= sent.is_none();
            receiving &= received.is_none();
            assert!(received.is_none_or(|received| received.unwrap_or(0) <= SEGMENT));
        }
        victim.end();
    }
}

#[test]
fn a_peer_that_is_gone_is_noticed_while_waiting_and_while_busy() {
    for busy in [false, true] {
        let mut victim = Victim::new();
        victim.receive();
        victim.send();
        assert_eq!(victim.reap(), (None, None));
        victim.control = None;
        let (mut sent, mut received) = (None, None);
        let deadline = std::time::Instant::now() + PATIENCE;
        while sent.is_none() || received.is_none() {
            if !busy {
                victim.ring.wait(Some(PATIENCE));
            }
            let now = victim.reap();
            (sent, received) = (sent.or(now.0), received.or(now.1));
            assert!(std::time::Instant::now() < deadline, "nobody noticed");
        }
        assert_eq!((sent, received), (Some(Err(IoFault::BrokenPipe)), Some(Err(IoFault::Reset))));
        victim.end();
    }
}

#[test]
fn what_a_peer_aborts_is_not_delivered_even_if_it_was_copied() {
    let mut victim = Victim::new();
    victim.receive();
    victim.publish(1, &[(0, u64::from(SEGMENT)), (0, 8)]);
    assert_eq!(victim.reap().1, Some(Ok(SEGMENT)), "the first piece");
    victim.words.publish(words::STATE, words::ABORTED);
    victim.receive();
    assert_eq!(victim.reap().1, Some(Err(IoFault::Reset)));
    victim.end();
}

/// Whose segments are given back has said before that they are not to be believed any more, however the send failed.
#[test]
fn segments_of_a_send_that_failed_are_disowned_before_they_are_given_back() {
    let mut victim = Victim::new();
    victim.send();
    assert_eq!((victim.reap().0, victim.state()), (None, words::OPEN));
    victim.control = None; // The peer's words stay: it may be reading.
    victim.ring.wait(Some(PATIENCE));
    assert_eq!((victim.reap().0, victim.state()), (Some(Err(IoFault::BrokenPipe)), words::ABORTED));
    victim.ring.close(victim.conn);
    victim.ring.reap(8, &mut |_| ());
    assert_eq!(victim.state(), words::ABORTED, "for good");
    victim.end();
}

#[test]
fn a_flood_of_wake_ups_costs_nothing_but_turns() {
    let mut victim = Victim::new();
    victim.receive();
    let control = victim.control.take().unwrap();
    control.set_nonblocking(true).unwrap();
    while std::io::Write::write(&mut &control, &[1; 4096]).is_ok() {}
    for _ in 0..100 {
        victim.ring.wait(Some(Duration::from_micros(1)));
        assert_eq!(victim.reap(), (None, None));
    }
    victim.publish(1, &[(0, 8)]);
    assert_eq!(victim.reap().1, Some(Ok(8)));
    victim.end();
}

#[test]
fn a_peer_is_refused_by_what_it_shows() {
    let (arena, _shard) = arena(2);
    let share = |shown: Shown| Peer::map(shown).map(|_| ());
    let words = ShmStream::words(&arena).unwrap();
    assert_eq!(share(shown(&words, &arena)), Ok(()));
    assert_eq!(share(Shown::new()), Err(ShmError::NotShown { found: 0 }));
    let blank = Words::new().unwrap();
    assert_eq!(share(shown(&blank, &arena)), Err(ShmError::Version { found: 0 }));

    let unsealed = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&unsealed, 4096).unwrap();
    fcntl_add_seals(&unsealed, SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL).unwrap();
    let second: OwnedFd = unsealed.try_clone().unwrap();
    for files in [
        [unsealed, arena.file().unwrap().try_clone_to_owned().unwrap()],
        [words.file().try_clone_to_owned().unwrap(), second],
    ] {
        let refusal = share(Shown::from(files)).unwrap_err();
        assert!(refusal.to_string().contains("without the seals SHRINK"), "{refusal}");
    }
}

#[test]
fn private_memory_is_not_shown() {
    let config =
        ArenaConfig { segment_size: SegmentSize::DEFAULT, shards: vec![1], huge_pages: HugePages::Never };
    let (private, _shards) = Arena::map(&config).unwrap();
    assert_eq!(ShmStream::words(&private).map(|_| ()), Err(ShmError::Private));
}
