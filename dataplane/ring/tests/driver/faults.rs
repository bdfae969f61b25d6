//! What peers do to us, and what callers must not do.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use socket2::SockRef;
use tidegate_ring::{Completion, EpollConfig, EpollRing, IoFault, Ring, RingError, UringConfig, UringRing};

use crate::side::{Mode, SEGMENT, Side, drivers, modes, pair};

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[test]
fn the_peers_end_of_file_is_zero_bytes() {
    for mode in modes() {
        let (here, there) = pair();
        let mut side = Side::new(mode);
        let conn = side.ring().attach(here.into()).unwrap();
        let room = side.room(&[(0, 10), (0, 10)]);
        side.ring().receive(conn, room).unwrap();
        side.ring().reap(1, &mut |early| unreachable!("{early:?}"));
        there.shutdown(Shutdown::Write).unwrap();
        assert!(matches!(side.settle(), Completion::Received { result: Ok(0), .. }));
        // The other direction still works.
        let parts = side.parts(&[(0, 77)]);
        side.ring().send(conn, parts).unwrap();
        assert!(matches!(side.settle(), Completion::Sent { result: Ok(77), .. }));
        let mut bytes = [0; 77];
        (&there).read_exact(&mut bytes).unwrap();
        side.end();
    }
}

#[test]
fn a_reset_is_a_fault_of_the_peer_and_no_signal() {
    for mode in modes() {
        let (here, there) = pair();
        let mut side = Side::new(mode);
        let conn = side.ring().attach(here.into()).unwrap();
        let room = side.room(&[(0, 10)]);
        side.ring().receive(conn, room).unwrap();
        side.ring().reap(1, &mut |early| unreachable!("{early:?}"));
        reset(there);
        assert!(matches!(side.settle(), Completion::Received { result: Err(IoFault::Reset), .. }));
        // Registered writes would raise SIGPIPE here if the process did not ignore it.
        for _ in 0..2 {
            let parts = side.parts(&[(0, 10)]);
            side.ring().send(conn, parts).unwrap();
            loop {
                match side.settle() {
                    Completion::Sent { result, .. } => {
                        assert!(result.unwrap_err().peer_gone(), "{result:?}");
                        break;
                    }
                    Completion::Released { .. } => {}
                    other => unreachable!("{other:?}"),
                }
            }
        }
        side.ring().close(conn);
        while !matches!(side.settle(), Completion::Closed { .. }) {}
        side.assert_all_free();
        side.end();
    }
}

#[test]
fn a_reset_ends_a_send_that_waits_for_the_peer() {
    for mode in modes() {
        let (here, there) = pair();
        SockRef::from(&here).set_send_buffer_size(4096).unwrap();
        SockRef::from(&there).set_recv_buffer_size(4096).unwrap();
        let mut side = Side::new(mode);
        let conn = side.ring().attach(here.into()).unwrap();
        let parts = side.parts(&[(0, SEGMENT); 20]);
        side.ring().send(conn, parts).unwrap();
        side.ring().reap(0, &mut |_| {});
        // Something has arrived, so the send is under way.
        (&there).read_exact(&mut [0; 1]).unwrap();
        reset(there);
        loop {
            if let Completion::Sent { result, .. } = side.settle() {
                assert!(result.unwrap_err().peer_gone(), "{result:?}");
                break;
            }
        }
        side.ring().close(conn);
        while !matches!(side.settle(), Completion::Closed { .. }) {}
        side.end();
    }
}

#[test]
fn an_unconnected_socket_is_refused_and_costs_no_place() {
    for mode in drivers() {
        let mut side = Side::with(8, mode, 1);
        let unconnected = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let refusal = side.ring().attach(TcpStream::from(unconnected).into()).unwrap_err();
        assert!(matches!(refusal, RingError::Os { call: "getpeername", .. }), "{refusal}");
        let (here, _there) = pair();
        side.ring().attach(here.into()).unwrap();
        side.end();
    }
}

#[test]
fn bounds_of_the_configuration_are_refused_by_name() {
    let side = Side::new(Mode::Epoll);
    for found in [0, 4097] {
        let config = UringConfig { connections_max: found, ..UringConfig::default() };
        assert_eq!(UringRing::new(&side.arena, 0, &config).unwrap_err(), RingError::Connections { found });
        let config = EpollConfig { connections_max: found, ..EpollConfig::default() };
        assert_eq!(EpollRing::new(&side.arena, &config).unwrap_err(), RingError::Connections { found });
    }
    let refusal = UringRing::new(&side.arena, 2, &UringConfig::default()).unwrap_err();
    assert_eq!(refusal, RingError::Shard { shard: 2, shards: 2 });
    side.end();
}

/// Runs `misuse` on a fresh connection of each driver; it must panic. The ring survives to be dropped.
fn assert_misuse(text: &str, misuse: impl Fn(&mut Side, tidegate_ring::ConnId)) {
    for mode in drivers() {
        let (here, mut there) = pair();
        let mut side = Side::new(mode);
        let conn = side.ring().attach(here.into()).unwrap();
        let panic =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| misuse(&mut side, conn))).unwrap_err();
        let found = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or(panic.downcast_ref::<&str>().copied())
            .unwrap();
        assert!(found.contains(text), "{found}");
        there.write_all(b"still there").unwrap();
    }
}

#[test]
fn misuse_is_found_where_it_happens() {
    assert_misuse("a send is in flight", |side, conn| {
        for _ in 0..2 {
            let parts = side.parts(&[(0, 1)]);
            side.ring().send(conn, parts).unwrap();
        }
    });
    assert_misuse("a receive is in flight", |side, conn| {
        for _ in 0..2 {
            let room = side.room(&[(0, 1)]);
            side.ring().receive(conn, room).unwrap();
        }
    });
    assert_misuse("send after shutdown_write", |side, conn| {
        side.ring().shutdown_write(conn);
        let parts = side.parts(&[(0, 1)]);
        side.ring().send(conn, parts).unwrap();
    });
    assert_misuse("ends at byte 16385", |side, conn| {
        let room = side.room(&[(1, SEGMENT)]);
        side.ring().receive(conn, room).unwrap();
    });
    assert_misuse("ends at byte 3 of a segment that has 2", |side, conn| {
        let mut parts = side.parts(&[(0, 2)]);
        parts[0].offset = 1;
        side.ring().send(conn, parts).unwrap();
    });
    assert_misuse("no bytes", |side, conn| {
        side.ring().send(conn, tidegate_ring::SendParts::new()).unwrap();
    });
}
