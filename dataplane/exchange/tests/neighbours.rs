//! Who shares memory with whom: what is refused, by name, and that a link goes over TCP then.

mod common;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel as queue};
use std::sync::{Arc, Mutex};
use std::thread;

use common::*;
use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize};
use tidegate_exchange::Endpoint;
use tidegate_ring::{Control, ShmError, ShmStream};
use tidegate_wire::{HELLO_LEN, HELLO_REPLY_LEN, HelloReply, RefusalCode};

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

#[test]
fn where_only_one_side_shares_links_go_over_tcp_and_the_reason_is_told_once() {
    let (mut a, mut b) = pair(64);
    // The consumer dials, so its side finds out.
    b.transport = Transport::Shm;
    let (told, heard) = queue();
    b.instead = Some(Mutex::new(told));
    a.transport = Transport::Tcp;
    let peers = [(a.me, a.address()), (b.me, b.address())];
    let plan_a = plan(vec![producer(0, false, vec![channel(0, b.me)])], &peers);
    let plan_b = plan(vec![consumer(0, vec![channel(0, a.me)])], &peers);
    let (prepared, both) = (&std::sync::Barrier::new(2), &std::sync::Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut slot = a.slot();
            prepare(&mut slot, &plan_a);
            prepared.wait();
            assert_eq!(slot.driver().shared_connections, 0);
            both.wait();
            slot.cancel(JOB, 1);
            run(&mut slot, |slot| (false, slot.closed(JOB, 1)));
        });
        let mut slot = b.slot();
        prepare(&mut slot, &plan_b);
        prepared.wait();
        assert_eq!((slot.driver().connections, slot.driver().shared_connections), (1, 0));
        both.wait();
        slot.cancel(JOB, 1);
        run(&mut slot, |slot| (false, slot.closed(JOB, 1)));
    });
    let reason = heard.try_recv().expect("it was told");
    assert!(reason.contains(&format!("offers no shared memory at {}", a.address())), "{reason}");
    assert!(heard.try_recv().is_err(), "once");
}

#[test]
fn memory_without_seals_is_refused_by_name() {
    let (endpoint, heard) = sharing();
    let control = Control::connect(endpoint.address()).expect("it listens");
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

#[test]
fn whoever_shows_nothing_or_says_nonsense_is_turned_away() {
    let (endpoint, heard) = sharing();
    let mut bytes = [0; HELLO_LEN];
    hello().write(&mut bytes);
    let silent = Control::connect(endpoint.address()).expect("it listens");
    silent.say(&bytes, None).expect("it reads");
    assert!(heard.recv().expect("heard").contains("showed 0 files"));

    let arena = arena();
    let words = ShmStream::words(&arena).expect("words");
    let stranger = Control::connect(endpoint.address()).expect("it listens");
    stranger.say(&bytes, Some((&words, &arena))).expect("it reads");
    assert_eq!(answer(&stranger), Some(RefusalCode::Slot), "nobody has registered");
    assert!(heard.recv().expect("heard").contains("was refused"));

    let noise = Control::connect(endpoint.address()).expect("it listens");
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
    assert!(shown.is_empty(), "a refusal shows nothing");
    HelloReply::parse(&reply).expect("by the protocol").refusal.map(|refusal| refusal.code)
}
