//! Bytes arrive, all of them and in order, in every mode.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

use tidegate_ring::{Completion, Registration, Ring, SendMode};

use crate::{
    need_io_uring,
    side::{Mode, PATIENCE, SEGMENT, Side, drivers, modes, pair, pattern},
};

const TOTAL: u64 = 6 << 20;

/// Odd sizes and offsets that change from train to train: a header, then payloads.
fn pieces(train: u64) -> Vec<(u32, u32)> {
    let count = 1 + (train * 7 % 20) as u32;
    let size = |piece: u32| match (train as u32 + piece) % 5 {
        0 => 1,
        1 => SEGMENT,
        2 => 4097,
        3 => 64 + piece * 32,
        _ => 13_001,
    };
    (0..count).map(|piece| ((SEGMENT - size(piece)).min(piece * 3), size(piece))).collect()
}

fn send_all(mut side: Side, stream: TcpStream) {
    let conn = side.ring().attach(stream.into()).unwrap();
    let (mut train, mut accepted) = (0, 0);
    let mut sending = false;
    while accepted < side.written || side.written < TOTAL {
        if !sending && side.written < TOTAL {
            // Under zero copy, segments may all wait for notifications.
            if let Some(parts) = side.parts_of(0, &pieces(train)) {
                side.ring().send(conn, parts).unwrap();
                (train, sending) = (train + 1, true);
            }
        }
        if let Completion::Sent { result, .. } = side.settle() {
            accepted += result.unwrap();
            sending = false;
        }
    }
    side.ring().shutdown_write(conn);
    // Everything was accepted, and notifications may still hold every segment.
    while side.shards[0].free() == 0 {
        side.settle();
    }
    // The peer closes once it has read everything.
    let room = side.room(&[(0, 1)]);
    side.ring().receive(conn, room).unwrap();
    let mut ended = false;
    while !ended {
        ended = matches!(side.settle(), Completion::Received { result: Ok(0), .. });
    }
    side.ring().close(conn);
    while !matches!(side.settle(), Completion::Closed { .. }) {}
    side.assert_all_free();

    let report = side.ring().report();
    assert_eq!(report.counters.bytes_sent, side.written, "{report}");
    assert_eq!(report.counters.fallbacks, 0, "{report}");
    side.end();
}

fn receive_all(mut side: Side, stream: TcpStream) -> u64 {
    let conn = side.ring().attach(stream.into()).unwrap();
    for turn in 0.. {
        let room = side.room(&pieces(turn * 3 + 1));
        side.ring().receive(conn, room).unwrap();
        match side.settle() {
            Completion::Received { result: Ok(0), .. } => break,
            Completion::Received { result, .. } => assert!(result.is_ok(), "{result:?}"),
            other => unreachable!("{other:?}"),
        }
    }
    side.ring().close(conn);
    assert!(matches!(side.settle(), Completion::Closed { .. }));
    assert_eq!(side.ring().report().counters.bytes_received, side.read);
    let read = side.read;
    side.end();
    read
}

#[test]
fn a_stream_of_odd_sizes_arrives_in_every_mode() {
    for mode in modes() {
        let (sender, receiver) = pair();
        let from = thread::spawn(move || {
            let side = Side::new(mode);
            send_all(side, sender);
        });
        let read = receive_all(Side::new(mode), receiver);
        from.join().unwrap();
        assert!(read >= TOTAL, "{mode}");
    }
}

#[test]
fn an_echo_crosses_both_ways_at_once() {
    for mode in modes() {
        let (here, mut there) = pair();
        let echo = thread::spawn(move || {
            let mut buffer = vec![0; 5000];
            loop {
                let read = there.read(&mut buffer).unwrap();
                if read == 0 {
                    break;
                }
                there.write_all(&buffer[..read]).unwrap();
            }
        });
        let mut side = Side::new(mode);
        let conn = side.ring().attach(here.into()).unwrap();
        for round in 0..20 {
            let parts = side.parts(&[(1, 63 + round), (0, 3), (7, 9001)]);
            let until = side.written;
            side.ring().send(conn, parts).unwrap();
            while side.read < until {
                let room = side.room(&[(5, 1000), (0, SEGMENT)]);
                side.ring().receive(conn, room).unwrap();
                while !matches!(side.settle(), Completion::Received { .. }) {}
            }
            // The send was reported before or after its bytes came back.
            while side.ring().report().counters.bytes_sent < until {
                side.settle();
            }
        }
        side.ring().shutdown_write(conn);
        echo.join().unwrap();
        side.end();
    }
}

#[test]
fn a_short_receive_fills_the_segments_in_order() {
    for mode in modes() {
        let (here, mut there) = pair();
        let mut side = Side::new(mode);
        let conn = side.ring().attach(here.into()).unwrap();
        let room = side.room(&[(100, 3), (0, 4), (50, 1000), (0, 1000)]);
        side.ring().receive(conn, room).unwrap();
        // Submitted before the bytes are there, so the kernel waits for the first of them.
        assert_eq!(side.ring().reap(10, &mut |early| unreachable!("{early:?}")), 0);
        there.write_all(&(0..10).map(pattern).collect::<Vec<_>>()).unwrap();
        match side.next() {
            Completion::Received { result, parts, .. } => {
                assert_eq!(result, Ok(10));
                assert_eq!(parts.len(), 4, "the empty parts come back, too");
                side.verify(parts, 10);
            }
            other => unreachable!("{other:?}"),
        }
        side.end();
    }
}

#[test]
fn a_segment_of_another_shard_goes_the_plain_way() {
    need_io_uring!();
    let (here, mut there) = pair();
    let mut side = Side::new(Mode::Uring(SendMode::Fixed, Registration::Required));
    let conn = side.ring().attach(here.into()).unwrap();
    let mut parts = side.parts(&[(0, 100)]);
    parts.extend(side.parts_of(1, &[(0, 100)]).unwrap());
    side.ring().send(conn, parts).unwrap();
    assert!(matches!(side.settle(), Completion::Sent { result: Ok(200), .. }));
    assert_eq!(side.ring().report().counters.outside_shard, 1);
    let mut bytes = [0; 200];
    there.read_exact(&mut bytes).unwrap();
    assert!(bytes.iter().enumerate().all(|(position, &byte)| byte == pattern(position as u64)));
    side.end();
}

#[test]
fn two_rings_on_one_thread_take_turns() {
    for mode in drivers() {
        let (a, b) = pair();

        let (mut from, mut to) = (Side::with(8, mode, 1), Side::with(8, mode, 1));
        let (out, into) = (from.ring().attach(a.into()).unwrap(), to.ring().attach(b.into()).unwrap());
        let parts = from.parts(&[(0, 5), (0, 6)]);
        from.ring().send(out, parts).unwrap();
        assert!(matches!(from.settle(), Completion::Sent { result: Ok(11), .. }));
        let room = to.room(&[(0, SEGMENT)]);
        to.ring().receive(into, room).unwrap();
        to.ring().wait(Some(PATIENCE));
        assert!(matches!(to.settle(), Completion::Received { result: Ok(11), .. }));
        from.end();
        to.end();
    }
}
