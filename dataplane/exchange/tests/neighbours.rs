//! Who shares memory with whom: what is refused, by name, and that a link goes over TCP then.

mod common;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, channel as queue};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use common::stranger::train;
use common::*;
use tidegate_arena::{
    Arena, ArenaConfig, Granted, Holder, HolderKind, HugePages, SegmentSize, Shard, shared::Words,
};
use tidegate_exchange::{Endpoint, GateItem, LinkError};
use tidegate_flow::Violation;
use tidegate_ring::{
    AnyRing, Completion, ConnId, Control, EpollConfig, EpollRing, IoFault, Peer, ReceivePart, Ring, SendPart,
    ShmError, ShmStream, listen_shm,
};
use tidegate_wire::{
    Data, Entry, HELLO_LEN, HELLO_REPLY_LEN, Hello, HelloReply, MANIFEST_MAX, ManifestWriter, RefusalCode,
    payload_crc,
};

const HOLDER: Holder = Holder { kind: HolderKind::Other, id: 0 };

fn arena() -> Arena {
    let config =
        ArenaConfig { segment_size: SegmentSize::DEFAULT, shards: vec![4], huge_pages: HugePages::Never };
    Arena::map_shared(&config).expect("a small arena").0
}

/// An endpoint that shares memory, and what it says of those whom it turns away.
fn sharing() -> (Endpoint, Receiver<String>) {
    let (said, heard) = queue();
    let said = Mutex::new(said);
    let watcher = Arc::new(move |away: &tidegate_exchange::TurnedAway| {
        said.lock().expect("nobody panics").send(away.to_string()).expect("the test listens");
    });
    let endpoint =
        Endpoint::bind_watched(([127, 0, 0, 1], 0).into(), Default::default(), watcher).expect("loopback");
    endpoint.share(&arena(), |why| panic!("nobody is dialled: {why}")).expect("shared memory");
    (endpoint, heard)
}

/// A link from `a` to `b` from plan to end, over TCP; `beside` runs meanwhile.
fn over_tcp(a: &Process, b: &Process, beside: impl FnOnce() + Send) {
    let peers = [(a.me, a.address()), (b.me, b.address())];
    let plan_a = plan(vec![producer(0, false, vec![channel(0, b.me)])], &peers);
    let plan_b = plan(vec![consumer(0, vec![channel(0, a.me)])], &peers);
    let (prepared, looked) = (&Barrier::new(2), &Barrier::new(2));
    let end = |process: &Process, plan| {
        let mut slot = process.slot();
        prepare(&mut slot, plan);
        prepared.wait();
        let driver = slot.driver();
        assert_eq!((driver.connections, driver.shared_connections), (1, 0));
        looked.wait();
        slot.cancel(JOB, 1);
        run(&mut slot, |slot| (false, slot.closed(JOB, 1)));
    };
    thread::scope(|scope| {
        scope.spawn(beside);
        scope.spawn(|| end(a, &plan_a));
        end(b, &plan_b);
    });
}

#[test]
fn where_only_one_side_shares_links_go_over_tcp_and_the_reason_is_told_once() {
    let (mut a, mut b) = pair(64);
    // The consumer dials, so its side finds out.
    b.transport = Transport::Shm;
    let (told, heard) = queue();
    b.instead = Some(Mutex::new(told));
    a.transport = Transport::Tcp;
    over_tcp(&a, &b, || ());
    let reason = heard.try_recv().expect("it was told");
    assert!(reason.contains(&format!("offers no shared memory at {}", a.address())), "{reason}");
    assert!(heard.try_recv().is_err(), "once");
}

#[test]
fn memory_without_seals_is_refused_by_name() {
    let (endpoint, heard) = sharing();
    let control = Control::connect(endpoint.address()).expect("it listens");
    control.offered(DEADLINE).expect("it shows its memory");
    let mut bytes = [0; HELLO_LEN];
    hello().write(&mut bytes);
    // The words are right, the arena is a file like any other.
    let words = ShmStream::words(&arena()).expect("words");
    let file = OwnedFd::from(std::fs::File::open("/proc/self/exe").expect("we run"));
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut files = rustix::net::SendAncillaryBuffer::new(&mut space);
    let shown = [words.file(), std::os::fd::AsFd::as_fd(&file)];
    assert!(files.push(rustix::net::SendAncillaryMessage::ScmRights(&shown)));
    let flags = rustix::net::SendFlags::NOSIGNAL;
    rustix::net::sendmsg(&control, &[std::io::IoSlice::new(&bytes)], &mut files, flags).expect("it reads");
    let reason = heard.recv().expect("the watcher hears of it");
    assert!(reason.contains("without"), "{reason}");
    assert!(control.hear(&mut [0], DEADLINE).is_err(), "closed without an answer: the peer takes TCP");
}

/// What cannot be mapped is found out before the hello, while TCP is still open to both: the producer's slot has heard
/// nothing of the link then.
#[test]
fn a_consumer_that_cannot_map_what_it_is_shown_goes_over_tcp() {
    let (mut a, mut b) = pair(64);
    a.transport = Transport::Tcp;
    b.transport = Transport::Shm;
    let (told, heard) = queue();
    b.instead = Some(Mutex::new(told));
    // The memory of the producer is there, and not what it has to be.
    let listener = listen_shm(a.address()).expect("nobody has the name");
    over_tcp(&a, &b, move || {
        let (stream, _) = listener.accept().expect("it is dialled");
        let control = Control::accepted(stream).expect("by us");
        let words = Words::new().expect("a page");
        control.offer(&words, &arena()).expect("it hears");
        let heard = control.hear(&mut [0], DEADLINE).map(drop);
        assert_eq!(heard.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof, "no hello");
    });
    let reason = heard.try_recv().expect("it was told");
    assert!(reason.contains("speaks version 0"), "{reason}");
}

#[test]
fn whoever_shows_nothing_or_says_nonsense_is_turned_away() {
    let (endpoint, heard) = sharing();
    let mut bytes = [0; HELLO_LEN];
    hello().write(&mut bytes);
    let dial = || {
        let control = Control::connect(endpoint.address()).expect("it listens");
        control.offered(DEADLINE).expect("it shows its memory");
        control
    };
    let silent = dial();
    silent.say(&bytes, None).expect("it reads");
    assert!(heard.recv().expect("heard").contains("showed 0 files"));

    let arena = arena();
    let words = ShmStream::words(&arena).expect("words");
    let stranger = dial();
    stranger.say(&bytes, Some((&words, &arena))).expect("it reads");
    assert_eq!(answer(&stranger), Some(RefusalCode::Slot), "nobody has registered");
    assert!(heard.recv().expect("heard").contains("was refused"));

    let noise = dial();
    noise.say(&[b'x'; HELLO_LEN], Some((&words, &arena))).expect("it reads");
    assert_eq!(answer(&noise), Some(RefusalCode::Garbage));
}

#[test]
fn another_user_is_turned_away_on_both_sides() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let (endpoint, heard) = sharing();
    let address = endpoint.address();
    // The kernel counts users for each thread.
    let other = thread::spawn(move || {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65_533)).expect("root may");
        Control::connect(address).map(drop)
    });
    assert_eq!(other.join().expect("no panic"), Err(ShmError::OtherUser { expected: 65_533, found: 0 }));
    assert!(heard.recv().expect("heard").contains("runs as user 65533, expected 0"));
}

#[test]
fn who_is_elsewhere_is_not_dialled() {
    let elsewhere: SocketAddr = ([192, 0, 2, 1], 4000).into();
    assert_eq!(Control::connect(elsewhere).map(drop), Err(ShmError::Elsewhere));
}

#[test]
fn an_endpoint_leaves_its_name_when_it_ends() {
    let (endpoint, _heard) = sharing();
    let address = endpoint.address();
    drop(Control::connect(address).expect("it listens"));
    drop(endpoint);
    let gone = Control::connect(address).map(drop);
    assert!(matches!(gone, Err(ShmError::NotOffered { .. })), "{gone:?}");
    let names = std::fs::read_to_string("/proc/net/unix").expect("there is a list of names");
    assert!(!names.contains(&format!("tidegate-data-{address}")), "{names}");
}

/// Whoever listens everywhere listens for neighbours, too, and is not at the address it was told.
#[test]
fn an_endpoint_that_listens_everywhere_leaves_its_name_too() {
    let endpoint = Endpoint::bind(([0, 0, 0, 0], 0).into(), Default::default()).expect("any address");
    endpoint.share(&arena(), |why| panic!("nobody is dialled: {why}")).expect("shared memory");
    let port = endpoint.address().port();
    let has_name = || {
        let names = std::fs::read_to_string("/proc/net/unix").expect("there is a list of names");
        names.lines().any(|line| line.contains("tidegate-data-") && line.ends_with(&format!(":{port}")))
    };
    assert!(has_name(), "it listens");
    drop(endpoint);
    assert!(!has_name(), "nobody listens any more");
}

fn answer(control: &Control) -> Option<RefusalCode> {
    let mut reply = [0; HELLO_REPLY_LEN];
    let shown = control.hear(&mut reply, DEADLINE).expect("it answers");
    assert!(shown.is_empty(), "an answer shows nothing");
    HelloReply::parse(&reply).expect("by the protocol").refusal.map(|refusal| refusal.code)
}

/// A producer that shares its memory and says what the test likes.
struct Stranger {
    arena: Arena,
    shard: Shard,
    ring: AnyRing,
    conn: ConnId,
}

impl Stranger {
    /// Waits to be dialled, and welcomes whoever it is.
    fn accept(listener: &UnixListener) -> (Self, Hello) {
        let config =
            ArenaConfig { segment_size: SegmentSize::DEFAULT, shards: vec![4], huge_pages: HugePages::Never };
        let (arena, mut shards) = Arena::map_shared(&config).expect("a small arena");
        let control = Control::accepted(listener.accept().expect("it is dialled").0).expect("by us");
        let own = ShmStream::words(&arena).expect("words");
        control.offer(&own, &arena).expect("it hears");
        let mut bytes = [0; HELLO_LEN];
        let shown = control.hear(&mut bytes, DEADLINE).expect("a hello");
        let hello = Hello::parse(&bytes).expect("a valid hello");
        let stream = control.join(own, Peer::map(shown).expect("it is honest")).expect("a socket");
        let mut reply = [0; HELLO_REPLY_LEN];
        HelloReply { echo: hello.checksum(), refusal: None }.write(&mut reply);
        stream.answer(&reply).expect("it hears");
        let mut ring: AnyRing = EpollRing::new(&arena, &EpollConfig::default()).expect("epoll").into();
        let conn = ring.attach(stream.into()).expect("the first");
        (Self { arena, shard: shards.remove(0), ring, conn }, hello)
    }

    fn send(&mut self, bytes: &[u8]) {
        let mut segment = self.shard.acquire(HOLDER).expect("one is free");
        self.arena.bytes_mut(&mut segment)[..bytes.len()].copy_from_slice(bytes);
        let len = bytes.len() as u32;
        let segment = self.arena.launch(self.arena.seal(segment, len));
        let parts = [SendPart { segment, offset: 0, len }].into_iter().collect();
        self.ring.send(self.conn, parts).expect("open");
        self.settle().expect("it is taken");
    }

    /// How many of at most `len` bytes come, or that nothing does any more.
    fn receive(&mut self, len: u32) -> Result<u32, IoFault> {
        let segment = self.arena.post(self.shard.acquire_granted(HOLDER).expect("one is free"));
        let parts = [ReceivePart { segment, offset: 0, len }].into_iter().collect();
        self.ring.receive(self.conn, parts).expect("open");
        self.settle()
    }

    /// Waits for the one operation there is.
    fn settle(&mut self) -> Result<u32, IoFault> {
        let (arena, shard, mut done) = (&self.arena, &mut self.shard, None);
        while done.is_none() {
            self.ring.wait(Some(DEADLINE));
            self.ring.reap(1, &mut |completion| match completion {
                Completion::Sent { result, parts, .. } => {
                    parts.into_iter().for_each(|part| shard.release(arena.land(part.segment)));
                    done = Some(result.map(|sent| sent as u32));
                }
                Completion::Received { result, parts, .. } => {
                    parts.into_iter().for_each(|part| shard.release(arena.unpost::<Granted>(part.segment)));
                    done = Some(result);
                }
                other => panic!("{other:?}"),
            });
        }
        done.expect("it is over")
    }
}

/// Over the network a payload has a checksum; in memory it has none, and one that says otherwise is not believed.
#[test]
fn payloads_that_stay_in_memory_have_no_checksum() {
    let fault = |crc: fn(&[u8]) -> u32| {
        let reserved = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = reserved.local_addr().expect("bound");
        let listener = listen_shm(address).expect("nobody has the name");
        let mut process = Process::new(2, 128);
        process.transport = Transport::Shm;
        thread::scope(|scope| {
            let stranger = scope.spawn(move || {
                let (mut stranger, hello) = Stranger::accept(&listener);
                stranger.send(&train(&[Entry::backlog(5, hello.attempt, 1)], &[]));
                assert_eq!(stranger.receive(96), Ok(96), "the grant");
                let payload = [7; 64];
                let mut bytes = [0; MANIFEST_MAX];
                let mut writer = ManifestWriter::new(&mut bytes, 1, 0);
                let data = Data::whole(64, crc(&payload));
                writer.push(Entry::data(5, hello.attempt, 0, 0, data)).expect("room");
                let len = writer.finish();
                stranger.send(&[&bytes[..len], &payload].concat());
                // Its last words, or the end.
                let _ = stranger.receive(4096);
            });
            let mut slot = process.slot();
            let channels = vec![channel(5, slot_id(1))];
            let plan = plan(vec![consumer(0, channels)], &[(slot_id(1), address)]);
            let ids = slot.prepare(&plan).expect("fits");
            let fault = loop {
                slot.turn();
                if let Some(fault) = slot.take_fault() {
                    break Some(fault.error);
                }
                let mut input = slot.ports.input(ids[0].gate.expect("a gate"));
                if let Some(GateItem::Data(buffer)) = input.poll() {
                    input.release(buffer);
                    break None;
                }
                slot.wait(Some(DEADLINE));
            };
            slot.cancel(JOB, 1);
            run(&mut slot, |slot| (false, slot.closed(JOB, 1)));
            stranger.join().expect("no panic");
            fault
        })
    };
    assert_eq!(fault(|_| 0), None);
    let fault = fault(payload_crc);
    assert!(matches!(fault, Some(LinkError::Violation(Violation::Checksum { channel: 5, .. }))), "{fault:?}");
}
