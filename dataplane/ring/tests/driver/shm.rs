//! Two sides that share memory, on every driver: streams, ends, wake-ups, beside TCP.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;

use tidegate_ring::{Completion, ConnId, Control, IoFault, Peer, Ring, ShmStream, Stream};

use crate::side::{PATIENCE, SEGMENT, Side, drivers, pair};

/// This end of a connection over `control`, greeted as endpoints do. Blocks for the peer.
fn greet(side: &Side, control: UnixStream, dials: bool) -> Stream {
    let control = Control::accepted(control).unwrap();
    let words = ShmStream::words(&side.arena).unwrap();
    let mut heard = [0; 5];
    let stream = if dials {
        let peer = control.offered(PATIENCE).unwrap();
        control.say(b"hello", Some((&words, &side.arena))).unwrap();
        assert!(control.hear(&mut heard, PATIENCE).unwrap().is_empty());
        control.join(words, peer).unwrap()
    } else {
        control.offer(&words, &side.arena).unwrap();
        let shown = control.hear(&mut heard, PATIENCE).unwrap();
        let stream = control.join(words, Peer::map(shown).unwrap()).unwrap();
        stream.answer(b"hello").unwrap();
        stream
    };
    assert_eq!(&heard, b"hello");
    stream.into()
}

/// Both ends of a connection between two sides of one thread.
fn meet(a: &Side, b: &Side) -> (Stream, Stream) {
    let (dialled, accepted) = UnixStream::pair().unwrap();
    let (dialled, accepted) = (Control::accepted(dialled).unwrap(), Control::accepted(accepted).unwrap());
    let (ours, theirs) = (ShmStream::words(&a.arena).unwrap(), ShmStream::words(&b.arena).unwrap());
    accepted.offer(&theirs, &b.arena).unwrap();
    let peer = dialled.offered(PATIENCE).unwrap();
    dialled.say(b"hello", Some((&ours, &a.arena))).unwrap();
    let shown = accepted.hear(&mut [0; 5], PATIENCE).unwrap();
    let accepted = accepted.join(theirs, Peer::map(shown).unwrap()).unwrap();
    (dialled.join(ours, peer).unwrap().into(), accepted.into())
}

fn joined(a: &mut Side, b: &mut Side) -> (ConnId, ConnId) {
    let (here, there) = meet(a, b);
    (a.ring().attach(here).unwrap(), b.ring().attach(there).unwrap())
}

#[test]
fn a_stream_arrives_whole_whatever_the_pieces_on_both_sides() {
    for mode in drivers() {
        const TOTAL: u64 = 4 << 20;
        let (dialled, accepted) = UnixStream::pair().unwrap();
        let sender = thread::spawn(move || {
            let mut from = Side::shared(32, mode, 4);
            let stream = greet(&from, dialled, true);
            let conn = from.ring().attach(stream).unwrap();
            let mut step = 1;
            while from.written < TOTAL {
                step = step * 31 % 16_381;
                let pieces = [(step % 64, 200), (0, SEGMENT), (7, 1 + step / 2), (0, step)];
                let parts = from.parts(&pieces);
                from.ring().send(conn, parts).unwrap();
                assert!(matches!(from.settle(), Completion::Sent { result: Ok(_), .. }));
            }
            from.ring().shutdown_write(conn);
            let room = from.room(&[(0, 1)]);
            from.ring().receive(conn, room).unwrap();
            assert!(matches!(from.settle(), Completion::Received { result: Ok(0), .. }), "the peer's end");
            let report = from.ring().report();
            assert_eq!(report.counters.shared_bytes_sent, from.written);
            assert_eq!((report.connections, report.shared_connections), (1, 1));
            from.ring().close(conn);
            assert!(matches!(from.settle(), Completion::Closed { .. }));
            let written = from.written;
            from.end();
            written
        });
        let mut to = Side::shared(32, mode, 4);
        let stream = greet(&to, accepted, false);
        let conn = to.ring().attach(stream).unwrap();
        let mut step = 5;
        loop {
            step = step * 17 % 16_381;
            let room = to.room(&[(3, step), (0, SEGMENT), (0, 40)]);
            to.ring().receive(conn, room).unwrap();
            match to.settle() {
                Completion::Received { result: Ok(0), .. } => break,
                Completion::Received { result: Ok(_), .. } => {}
                other => panic!("{other:?}"),
            }
        }
        to.ring().close(conn);
        assert!(matches!(to.settle(), Completion::Closed { .. }));
        let read = to.read;
        to.end();
        assert_eq!(sender.join().unwrap(), read, "{mode}");
    }
}

#[test]
fn closing_with_a_send_that_nobody_took_resets_the_peer_and_returns_its_parts() {
    for mode in drivers() {
        let (mut a, mut b) = (Side::shared(16, mode, 4), Side::shared(16, mode, 4));
        let (here, there) = joined(&mut a, &mut b);
        let parts = a.parts(&[(0, 100), (0, 1000)]);
        a.ring().send(here, parts).unwrap();
        a.ring().close(here);
        assert!(matches!(a.settle(), Completion::Sent { result: Err(IoFault::Cancelled), .. }));
        assert!(matches!(a.settle(), Completion::Closed { .. }));
        let room = b.room(&[(0, SEGMENT)]);
        b.ring().receive(there, room).unwrap();
        let Completion::Received { result, parts, .. } = b.next() else { panic!("nothing was received") };
        assert_eq!(result, Err(IoFault::Reset));
        b.take(parts, 0);
        let parts = b.parts(&[(0, 10)]);
        b.ring().send(there, parts).unwrap();
        assert!(matches!(b.settle(), Completion::Sent { result: Err(IoFault::BrokenPipe), .. }));
        a.end();
        b.end();
    }
}

#[test]
fn what_was_sent_before_an_end_arrives_before_it() {
    for mode in drivers() {
        let (mut a, mut b) = (Side::shared(16, mode, 4), Side::shared(16, mode, 4));
        let (here, there) = joined(&mut a, &mut b);
        let parts = a.parts(&[(0, 5000)]);
        a.ring().send(here, parts).unwrap();
        a.ring().shutdown_write(here);
        for expected in [4000, 1000, 0] {
            if expected == 0 {
                // The end comes after the send, so once this side has heard that it was taken.
                assert!(matches!(a.settle(), Completion::Sent { result: Ok(5000), .. }));
            }
            let room = b.room(&[(0, 4000)]);
            b.ring().receive(there, room).unwrap();
            let Completion::Received { result: Ok(received), .. } = b.settle() else { panic!("a fault") };
            assert_eq!(received, expected);
        }
        a.ring().close(here);
        assert!(matches!(a.settle(), Completion::Closed { .. }));
        assert!(a.ring().send(here, Default::default()).is_err(), "the id is void");
        a.end();
        b.end();
    }
}

#[test]
fn tcp_and_shared_memory_live_on_one_ring() {
    for mode in drivers() {
        let (mut a, mut b) = (Side::shared(16, mode, 4), Side::shared(16, mode, 4));
        let (shared, there) = joined(&mut a, &mut b);
        let (tcp, mut peer) = pair();
        let tcp = a.ring().attach(tcp.into()).unwrap();
        assert_ne!(tcp.index(), shared.index());
        for conn in [tcp, shared] {
            let room = a.room(&[(0, 10)]);
            a.ring().receive(conn, room).unwrap();
        }
        // From another thread, while this one waits.
        let writer = thread::spawn(move || {
            peer.write_all(b"tcp").unwrap();
            peer
        });
        let Completion::Received { conn, parts, .. } = a.next() else { panic!("nothing was received") };
        assert_eq!((conn, a.take(parts, 3)), (tcp, b"tcp".to_vec()));
        let parts = b.parts(&[(0, 4)]);
        b.ring().send(there, parts).unwrap();
        assert!(matches!(a.settle(), Completion::Received { conn, result: Ok(4), .. } if conn == shared));
        drop(writer.join().unwrap());
        a.end();
        b.end();
    }
}

#[test]
fn the_table_holds_as_many_shared_connections_as_others() {
    for mode in drivers() {
        let (mut a, mut b) = (Side::shared(8, mode, 2), Side::shared(8, mode, 4));
        let (first, _) = joined(&mut a, &mut b);
        let _second = joined(&mut a, &mut b);
        let (third, _peer) = meet(&a, &b);
        assert!(a.ring().attach(third).is_err());
        a.ring().close(first);
        assert!(matches!(a.settle(), Completion::Closed { .. }));
        let (again, _) = joined(&mut a, &mut b);
        assert_eq!(again.index(), first.index());
        assert_ne!(again, first);
        a.end();
        b.end();
    }
}
