//! Records between two slots, over TCP and through shared memory: nothing lost, nothing twice, order kept, every segment back.

mod common;

use std::thread;

use common::*;
use tidegate_exchange::{Event, GateItem, LatencyFeed, Stage};
use tidegate_record::Record;
use tidegate_ring::SendMode;

/// Sends `count` numbers round robin over the channels of the first partition, a barrier every `barriers` numbers.
fn send_numbers(slot: &mut Slot, id: tidegate_exchange::PartitionId, count: u64, barriers: u64) {
    let (mut next, mut checkpoint, mut ended) = (0_u64, 0_u64, 0);
    run(slot, |slot| {
        let mut output = slot.ports.output(id);
        let before = next;
        while next < count && output.writable() {
            if barriers > 0 && next / barriers > checkpoint {
                if !output.event_room() {
                    break;
                }
                checkpoint += 1;
                output.event(Event::Barrier { checkpoint });
            }
            let channel = (next % u64::from(output.channels())) as u32;
            output.write(channel, &next).expect("a number fits");
            next += 1;
        }
        if next == count && ended == 0 && output.event_room() {
            output.event(Event::EndOfData);
            ended = 1;
        }
        if ended == 1 && output.event_room() {
            output.event(Event::EndOfPartition);
            ended = 2;
        }
        (next > before, ended == 2 && output.drained())
    });
}

#[derive(Default)]
struct Seen {
    per_channel: Vec<Vec<u64>>,
    aligned: Vec<u64>,
    /// Records before each aligned barrier.
    at_barrier: Vec<u64>,
    data_ended: bool,
}

fn receive_numbers(slot: &mut Slot, id: tidegate_exchange::GateId, channels: usize) -> Seen {
    let mut seen = Seen { per_channel: vec![Vec::new(); channels], ..Seen::default() };
    let arena = slot.ports.arena().clone();
    let mut total = 0;
    run(slot, |slot| {
        let mut input = slot.ports.input(id);
        let mut moved = false;
        let mut done = false;
        while let Some(item) = input.poll() {
            moved = true;
            match item {
                GateItem::Data(buffer) => {
                    let mut position = 0;
                    while let Some(number) = u64::read(buffer.bytes(&arena), &mut position).expect("valid") {
                        seen.per_channel[buffer.channel() as usize].push(*number);
                        total += 1;
                    }
                    input.release(buffer);
                }
                GateItem::Aligned { checkpoint, .. } => {
                    seen.aligned.push(checkpoint);
                    seen.at_barrier.push(total);
                    input.resume(checkpoint);
                }
                GateItem::Aborted { checkpoint } => panic!("checkpoint {checkpoint} was aborted"),
                GateItem::EndOfData => seen.data_ended = true,
                GateItem::EndOfPartition => done = true,
            }
        }
        (moved, done)
    });
    seen
}

fn shuffle(segments: u32, count: u64, barriers: u64, driver: Driver) {
    for transport in TRANSPORTS {
        shuffle_between(segments, count, barriers, (driver, driver), transport);
    }
}

/// Two producers on one slot, one consumer task on another, `count` numbers each.
fn shuffle_between(
    segments: u32,
    count: u64,
    barriers: u64,
    drivers: (Driver, Driver),
    transport: Transport,
) {
    let (mut a, mut b) = pair_over(segments, transport);
    (a.driver, b.driver) = drivers;
    let peers = [(a.me, a.address()), (b.me, b.address())];
    let plan_a =
        plan(vec![producer(0, false, vec![channel(0, b.me), channel(1, b.me), channel(2, b.me)])], &peers);
    let plan_b = plan(vec![consumer(0, vec![channel(0, a.me), channel(1, a.me), channel(2, a.me)])], &peers);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut slot = a.slot();
            let ids = prepare(&mut slot, &plan_a);
            send_numbers(&mut slot, ids[0].partitions[0], count, barriers);
            let (sent, shared) =
                (slot.driver().counters.bytes_sent, slot.driver().counters.shared_bytes_sent);
            assert_eq!(shared, if transport == Transport::Shm { sent } else { 0 }, "{transport:?}");
            assert!(sent > 0);
            retire(&mut slot);
        });
        let mut slot = b.slot();
        let ids = prepare(&mut slot, &plan_b);
        let seen = receive_numbers(&mut slot, ids[0].gate.expect("a gate"), 3);
        assert!(seen.data_ended);
        for (channel, numbers) in seen.per_channel.iter().enumerate() {
            let expected: Vec<u64> = (0..count).filter(|n| n % 3 == channel as u64).collect();
            assert!(
                *numbers == expected,
                "channel {channel}: {} of {} numbers",
                numbers.len(),
                expected.len()
            );
        }
        if let Some(last) = (count - 1).checked_div(barriers) {
            let expected: Vec<u64> = (1..=last).collect();
            assert_eq!(seen.aligned, expected);
            let at: Vec<u64> = expected.iter().map(|checkpoint| checkpoint * barriers).collect();
            assert_eq!(seen.at_barrier, at, "a barrier divides exactly");
        }
        retire(&mut slot);
    });
}

#[test]
fn numbers_arrive_once_and_in_order() {
    shuffle(256, 300_000, 0, driver());
}

#[test]
fn every_driver_and_send_mode_carries_the_same() {
    let uring = [SendMode::Auto, SendMode::Fixed, SendMode::Plain, SendMode::Zc].map(Driver::Uring);
    for driver in uring.into_iter().chain([Driver::Epoll]) {
        shuffle(64, 60_000, 7_000, driver);
    }
}

#[test]
fn io_uring_and_epoll_understand_each_other() {
    let uring = Driver::Uring(SendMode::Auto);
    for drivers in [(uring, Driver::Epoll), (Driver::Epoll, uring)] {
        for transport in TRANSPORTS {
            shuffle_between(64, 60_000, 7_000, drivers, transport);
        }
    }
}

#[test]
fn the_smallest_arena_makes_progress_on_epoll_too() {
    shuffle(4, 100_000, 10_000, Driver::Epoll);
}

#[test]
fn the_smallest_arena_makes_progress_and_barriers_divide_exactly() {
    // Producer: partition 2, link 2. Consumer: gate 2, link 2.
    shuffle(4, 100_000, 10_000, driver());
}

#[test]
fn many_barriers_in_a_row() {
    shuffle(16, 20_000, 50, driver());
}

#[test]
fn a_broadcast_shares_its_payloads() {
    TRANSPORTS.into_iter().for_each(broadcast);
}

fn broadcast(transport: Transport) {
    let (a, b) = pair_over(64, transport);
    let peers = [(a.me, a.address()), (b.me, b.address())];
    let plan_a = plan(vec![producer(0, true, vec![channel(0, b.me), channel(1, b.me)])], &peers);
    let plan_b = plan(vec![consumer(0, vec![channel(0, a.me)]), consumer(1, vec![channel(1, a.me)])], &peers);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut slot = a.slot();
            let ids = prepare(&mut slot, &plan_a);
            let id = ids[0].partitions[0];
            let (mut next, mut ended) = (0_u64, false);
            run(&mut slot, |slot| {
                let mut output = slot.ports.output(id);
                let before = next;
                while next < 50_000 && output.writable() {
                    output.broadcast(&next).expect("fits");
                    next += 1;
                }
                if next == 50_000 && !ended {
                    output.event(Event::EndOfPartition);
                    ended = true;
                }
                (next > before, ended && output.drained())
            });
            retire(&mut slot);
        });
        let mut slot = b.slot();
        let ids = prepare(&mut slot, &plan_b);
        let gates = [ids[0].gate.expect("a gate"), ids[1].gate.expect("a gate")];
        let arena = slot.ports.arena().clone();
        let (mut next, mut ended) = ([0_u64; 2], [false; 2]);
        run(&mut slot, |slot| {
            let mut moved = false;
            for (at, &gate) in gates.iter().enumerate() {
                let mut input = slot.ports.input(gate);
                while let Some(item) = input.poll() {
                    moved = true;
                    match item {
                        GateItem::Data(buffer) => {
                            let mut position = 0;
                            while let Some(n) = u64::read(buffer.bytes(&arena), &mut position).expect("valid")
                            {
                                assert_eq!(*n, next[at]);
                                next[at] += 1;
                            }
                            input.release(buffer);
                        }
                        GateItem::EndOfPartition => ended[at] = true,
                        _ => {}
                    }
                }
            }
            (moved, ended == [true; 2])
        });
        assert_eq!(next, [50_000; 2]);
        retire(&mut slot);
    });
}

#[test]
fn a_cancel_in_full_flight_leaves_every_segment_free() {
    TRANSPORTS.into_iter().for_each(cancel_in_flight);
}

fn cancel_in_flight(transport: Transport) {
    let (a, b) = pair_over(64, transport);
    let peers = [(a.me, a.address()), (b.me, b.address())];
    let plan_a = plan(vec![producer(0, false, vec![channel(0, b.me)])], &peers);
    let plan_b = plan(vec![consumer(0, vec![channel(0, a.me)])], &peers);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut slot = a.slot();
            let ids = prepare(&mut slot, &plan_a);
            let id = ids[0].partitions[0];
            // Fill everything: the consumer reads nothing, so the credit runs out.
            run(&mut slot, |slot| {
                let mut output = slot.ports.output(id);
                let mut moved = false;
                while output.writable() {
                    output.write(0, &1_u64).expect("fits");
                    moved = true;
                }
                (moved, slot.ports.counters().payload_bytes_sent > 0)
            });
            slot.cancel(JOB, 1);
            run(&mut slot, |slot| (false, slot.closed(JOB, 1)));
            assert_eq!(slot.ports.segments_free(), slot.ports.segments());
        });
        let mut slot = b.slot();
        prepare(&mut slot, &plan_b);
        let mut fault = None;
        while fault.is_none() {
            slot.turn();
            fault = slot.take_fault();
            slot.wait(Some(std::time::Duration::from_secs(1)));
        }
        let fault = fault.expect("the peer went away");
        assert_eq!(fault.peer, a.me);
        slot.cancel(JOB, 1);
        run(&mut slot, |slot| (false, slot.closed(JOB, 1)));
        assert_eq!(slot.ports.segments_free(), slot.ports.segments());
    });
}

fn recorded(feeds: &[LatencyFeed]) -> std::collections::BTreeMap<Stage, (u64, u64)> {
    let mut all = std::collections::BTreeMap::new();
    for feed in feeds {
        feed.take(|stage, latencies| {
            all.insert(stage, (latencies.len(), latencies.max()));
        });
    }
    all
}

/// Both ends of a link on one host record every segment once; none of its times is longer than the test.
#[test]
fn latencies_of_a_link_are_recorded_at_both_ends() {
    let (a, b) = pair(256);
    let peers = [(a.me, a.address()), (b.me, b.address())];
    let plan_a = plan(vec![producer(0, false, vec![channel(0, b.me), channel(1, b.me)])], &peers);
    let plan_b = plan(vec![consumer(0, vec![channel(0, a.me), channel(1, a.me)])], &peers);
    let start = std::time::Instant::now();
    let (sent, read) = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut slot = a.slot();
            let ids = prepare(&mut slot, &plan_a);
            let feed = slot.ports.measure_partition(ids[0].partitions[0]).expect("there is room");
            send_numbers(&mut slot, ids[0].partitions[0], 200_000, 0);
            retire(&mut slot);
            recorded(&[feed])
        });
        let mut slot = b.slot();
        let ids = prepare(&mut slot, &plan_b);
        let gate = ids[0].gate.expect("a gate");
        let feeds = slot.ports.measure_gate(gate, &[7, 7]);
        let names: Vec<u32> = feeds.iter().map(|(edge, _)| *edge).collect();
        assert_eq!(names, [7], "two channels of one edge");
        receive_numbers(&mut slot, gate, 2);
        retire(&mut slot);
        let feeds: Vec<LatencyFeed> = feeds.into_iter().map(|(_, feed)| feed).collect();
        (sender.join().expect("it sends"), recorded(&feeds))
    });
    let longest_ns = start.elapsed().as_nanos() as u64;
    let segments = sent[&Stage::Send].0;
    assert!(segments >= 200_000 * 8 / (32 << 10), "{segments} segments");
    for (stage, (count, max)) in sent.iter().chain(&read) {
        assert_eq!(*count, segments, "{stage:?}");
        assert!(*max <= longest_ns + longest_ns / 50, "{stage:?}: {max} ns");
    }
    assert_eq!((sent.len(), read.len()), (2, 3));
    assert!(read[&Stage::Total].1 >= read[&Stage::Wire].1, "the whole is no shorter than a part: {read:?}");
}
