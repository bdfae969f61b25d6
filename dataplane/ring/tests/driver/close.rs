//! Ends: whatever is in flight comes back, then `Closed`; and dropping a ring leaves nothing in the kernel's hands.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use socket2::SockRef;
use tidegate_ring::{Completion, ConnId, IoFault, Registration, Ring, SendMode};

use crate::{
    need_io_uring,
    side::{Mode, SEGMENT, Side, drivers, modes, pair},
};

/// A connection whose peer does not read, with a send that cannot end and a receive that waits.
fn stuck(side: &mut Side) -> (ConnId, TcpStream) {
    let (here, there) = pair();
    SockRef::from(&here).set_send_buffer_size(4096).unwrap();
    SockRef::from(&there).set_recv_buffer_size(4096).unwrap();
    let conn = side.ring().attach(here.into()).unwrap();
    let (parts, room) = (side.parts(&[(0, SEGMENT); 20]), side.room(&[(0, 10); 3]));
    side.ring().send(conn, parts).unwrap();
    side.ring().receive(conn, room).unwrap();
    side.ring().reap(0, &mut |_| {});
    (&there).read_exact(&mut [0; 1]).unwrap();
    (conn, there)
}

#[test]
fn closing_returns_every_part_and_then_says_so() {
    for mode in modes() {
        let mut side = Side::new(mode);
        let (conn, _there) = stuck(&mut side);
        side.ring().close(conn);
        side.ring().close(conn); // once is enough
        let (mut sent, mut received) = (None, None);
        loop {
            match side.settle() {
                Completion::Sent { result, .. } => assert!(sent.replace(result).is_none()),
                Completion::Received { result, .. } => assert!(received.replace(result).is_none()),
                Completion::Released { .. } => assert!(sent.is_some(), "released is told after sent"),
                Completion::Closed { conn: closed } => {
                    assert_eq!(closed, conn);
                    break;
                }
            }
        }
        assert_eq!(
            (sent, received),
            (Some(Err(IoFault::Cancelled)), Some(Err(IoFault::Cancelled))),
            "{mode}"
        );
        side.assert_all_free();

        let (parts, room) = (side.parts(&[(0, 1)]), side.room(&[(0, 1)]));
        let parts = side.ring().send(conn, parts).unwrap_err();
        side.release(parts);
        let room = side.ring().receive(conn, room).unwrap_err();
        side.take(room, 0);
        assert_eq!(side.ring().reap(10, &mut |late| unreachable!("{late:?}")), 0);
        side.end();
    }
}

#[test]
fn operations_still_queued_here_are_returned_as_well() {
    for mode in modes() {
        let (here, _there) = pair();
        let mut side = Side::new(mode);
        let conn = side.ring().attach(here.into()).unwrap();
        let (parts, room) = (side.parts(&[(0, 100)]), side.room(&[(0, 100)]));
        side.ring().send(conn, parts).unwrap();
        side.ring().receive(conn, room).unwrap();
        side.ring().close(conn); // before the kernel has seen either
        let (mut sent, mut received) = (None, None);
        loop {
            match side.settle() {
                Completion::Sent { result, .. } => assert!(sent.replace(result).is_none()),
                Completion::Received { result, .. } => assert!(received.replace(result).is_none()),
                Completion::Released { .. } => {}
                Completion::Closed { .. } => break,
            }
        }
        // Our own shutdown is neither a broken pipe nor an end of file.
        assert_eq!(
            (sent, received),
            (Some(Err(IoFault::Cancelled)), Some(Err(IoFault::Cancelled))),
            "{mode}"
        );
        side.end();
    }
}

#[test]
fn an_idle_connection_closes_without_waiting() {
    for mode in drivers() {
        let (here, mut there) = pair();
        let mut side = Side::new(mode);
        let conn = side.ring().attach(here.into()).unwrap();
        side.ring().close(conn);
        let enters = side.ring().report().counters.enters;
        side.ring().wait(None); // returns at once: there is something to tell
        assert_eq!(side.ring().report().counters.enters, enters);
        assert!(matches!(side.settle(), Completion::Closed { conn: closed } if closed == conn));
        assert_eq!(there.read(&mut [0]).unwrap(), 0, "the peer sees the end");
        assert_eq!(side.ring().report().connections, 0);
        side.end();
    }
}

#[test]
fn the_write_side_is_shut_behind_the_send_in_flight() {
    for mode in modes() {
        let (here, mut there) = pair();
        SockRef::from(&here).set_send_buffer_size(4096).unwrap();
        let mut side = Side::new(mode);
        let conn = side.ring().attach(here.into()).unwrap();
        let parts = side.parts(&[(0, SEGMENT); 20]);
        side.ring().send(conn, parts).unwrap();
        side.ring().shutdown_write(conn);
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            there.read_to_end(&mut bytes).unwrap();
            there.write_all(b"x").unwrap();
            bytes.len() as u64
        });
        loop {
            if let Completion::Sent { result, .. } = side.settle() {
                assert_eq!(result, Ok(side.written));
                break;
            }
        }
        assert_eq!(reader.join().unwrap(), side.written);
        side.end();
    }
}

#[test]
fn dropping_a_ring_takes_everything_back_from_the_kernel() {
    for mode in modes() {
        let mut side = Side::new(mode);
        let (_one, _peer) = stuck(&mut side);
        let (here, _there) = pair();
        let two = side.ring().attach(here.into()).unwrap();
        let room = side.room(&[(0, 10)]);
        side.ring().receive(two, room).unwrap();
        side.ring().close(two); // closing when the ring goes
        side.end(); // and nothing was reaped
    }
}

#[test]
fn zero_copy_beyond_the_notifications_outstanding_is_copied() {
    need_io_uring!();
    for registration in [Registration::Required, Registration::Never] {
        let (here, there) = pair();
        SockRef::from(&here).set_send_buffer_size(200 << 10).unwrap();
        SockRef::from(&there).set_recv_buffer_size(32 << 10).unwrap();
        let mut side = Side::new(Mode::Uring(SendMode::Zc, registration));
        let conn = side.ring().attach(here.into()).unwrap();
        // The peer's window is soon full, so that sends are accepted and their notifications are not due.
        for _ in 0..20 {
            let parts = side.parts(&[(0, SEGMENT)]);
            side.ring().send(conn, parts).unwrap();
            while !matches!(side.settle(), Completion::Sent { result: Ok(_), .. }) {}
        }
        let counters = side.ring().report().counters;
        assert!(counters.zc_sends >= 4 && counters.zc_sends < counters.send_ops, "{counters:?}");

        let mut there = there;
        let mut bytes = vec![0; side.written as usize];
        there.read_exact(&mut bytes).unwrap();
        assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == crate::side::pattern(at as u64)));
        while side.arena.ledger().totals().free() < side.arena.segments() {
            assert!(matches!(side.settle(), Completion::Released { .. }));
        }
        side.end();
    }
}

#[test]
fn closing_does_not_wait_for_a_peer_that_never_acknowledges() {
    need_io_uring!();
    let (here, there) = pair();
    SockRef::from(&here).set_send_buffer_size(200 << 10).unwrap();
    SockRef::from(&there).set_recv_buffer_size(32 << 10).unwrap();
    let mut side = Side::new(Mode::Uring(SendMode::Zc, Registration::Auto));
    let conn = side.ring().attach(here.into()).unwrap();
    for _ in 0..20 {
        let parts = side.parts(&[(0, SEGMENT)]);
        side.ring().send(conn, parts).unwrap();
        while !matches!(side.settle(), Completion::Sent { result: Ok(_), .. }) {}
    }
    assert!(side.arena.ledger().totals().free() < side.arena.segments(), "notifications are outstanding");
    side.ring().close(conn);
    let mut released = 0;
    while !matches!(side.settle(), Completion::Closed { .. }) {
        released += 1;
    }
    assert!(released >= 1);
    side.assert_all_free();
    side.end();
}
