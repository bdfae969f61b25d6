//! Many connections on one ring, and what becomes of their places.

use std::{collections::HashMap, io::Read};

use tidegate_ring::{Completion, Ring, RingError};

use crate::{
    need_io_uring,
    side::{AUTO, Side, drivers, pair, pattern},
};

const CONNECTIONS: u32 = 100;

#[test]
fn every_connection_gets_its_own_bytes_within_the_budget() {
    for mode in drivers() {
        let mut side = Side::with(2 * CONNECTIONS, mode, CONNECTIONS);
        let mut peers = HashMap::new();
        for _ in 0..CONNECTIONS {
            let (here, there) = pair();
            peers.insert(side.ring().attach(here.into()).unwrap(), there);
        }
        let (here, _there) = pair();
        assert_eq!(
            side.ring().attach(here.into()).unwrap_err(),
            RingError::TooManyConnections { limit: CONNECTIONS }
        );

        let mut starts = HashMap::new();
        for &conn in peers.keys() {
            starts.insert(conn, side.written);
            let (parts, room) = (side.parts(&[(conn.index(), 37)]), side.room(&[(0, 1)]));
            side.ring().send(conn, parts).unwrap();
            side.ring().receive(conn, room).unwrap();
        }
        let (mut sent, mut completions) = (0, Vec::new());
        while sent < CONNECTIONS {
            let reaped = side.ring().reap(7, &mut |completion| completions.push(completion));
            assert!(reaped <= 7 && reaped as usize == completions.len());
            for completion in completions.drain(..) {
                let Completion::Sent { result: Ok(37), parts, .. } = completion else {
                    unreachable!("{completion:?}")
                };
                side.arena.release(side.arena.land(parts.into_iter().next().unwrap().segment));
                sent += 1;
            }
        }
        for (conn, peer) in &mut peers {
            let mut bytes = [0; 37];
            peer.read_exact(&mut bytes).unwrap();
            assert!((starts[conn]..).zip(bytes).all(|(at, byte)| byte == pattern(at)), "{conn:?}");
        }

        let ids: Vec<_> = peers.keys().copied().collect();
        ids.iter().for_each(|&conn| side.ring().close(conn));
        let mut closed = Vec::new();
        while closed.len() < ids.len() {
            if let Completion::Closed { conn } = side.settle() {
                closed.push(conn);
            }
        }
        closed.sort();
        closed.dedup();
        assert_eq!(closed.len(), ids.len(), "each is told once");
        side.assert_all_free();

        let (here, _there) = pair();
        let again = side.ring().attach(here.into()).unwrap();
        assert!(!ids.contains(&again), "an id is never valid twice");
        assert!(ids.iter().any(|old| old.index() == again.index()), "its place is");
        let stale = ids.into_iter().find(|old| old.index() == again.index()).unwrap();
        side.ring().close(stale); // does nothing to the new user of the place
        let parts = side.parts(&[(0, 1)]);
        let parts = side.ring().send(stale, parts).unwrap_err();
        side.release(parts);
        let parts = side.parts(&[(0, 1)]);
        side.ring().send(again, parts).unwrap();
        assert!(matches!(side.settle(), Completion::Sent { conn, result: Ok(1), .. } if conn == again));
        side.end();
    }
}

#[test]
fn a_ring_at_its_bound_can_be_made() {
    for mode in drivers() {
        let side = Side::with(4, mode, 4096);
        side.end();
    }
}

#[test]
fn more_operations_than_the_submission_queue_holds_are_handed_over_early() {
    need_io_uring!();
    const MANY: u32 = 31; // three operations each, and a queue of 64
    let mut side = Side::with(3 * MANY, AUTO, MANY);
    let mut peers = Vec::new();
    for _ in 0..MANY {
        let (here, there) = pair();
        peers.push(there);
        let conn = side.ring().attach(here.into()).unwrap();
        let (parts, room) = (side.parts(&[(0, 5)]), side.room(&[(0, 5)]));
        side.ring().send(conn, parts).unwrap();
        side.ring().receive(conn, room).unwrap();
        side.ring().close(conn);
    }
    assert!(side.ring().report().counters.enters > 0, "before anything was reaped");
    let mut told = 0;
    while side.ring().report().connections > 0 {
        side.settle();
        told += 1;
    }
    assert_eq!(told, 3 * MANY, "sent, received and closed, each once");
    side.end();
}
