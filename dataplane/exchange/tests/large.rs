//! Records larger than a segment, in company of small ones: over links on every driver and in every send mode, inside a
//! process, and to several consumers at once.

mod common;

use std::thread;

use common::*;
use tidegate_exchange::{Event, GateId, GateItem, PartitionId, PrepareError};
use tidegate_record::Record;
use tidegate_ring::SendMode;

/// The bytes of record `number`, different for each.
fn record(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u64).wrapping_mul(0x9E37_79B9).wrapping_add(number as u64) as u8).collect()
}

/// Writes records of these lengths to the channels in turn, or to all, with a barrier after every third; then ends.
fn send(slot: &mut Slot, id: PartitionId, lens: &[usize], broadcast: bool) {
    let (mut next, mut ended) = (0, false);
    run(slot, |slot| {
        let (moved, done) = send_some(slot, id, lens, broadcast, &mut next, &mut ended);
        (moved, done)
    });
}

fn send_some(
    slot: &mut Slot,
    id: PartitionId,
    lens: &[usize],
    broadcast: bool,
    next: &mut usize,
    ended: &mut bool,
) -> (bool, bool) {
    let mut output = slot.ports.output(id);
    let before = *next;
    while *next < lens.len() && output.writable() && output.event_room() {
        let bytes = record(*next, lens[*next]);
        let channel = *next as u32 % output.channels();
        if broadcast { output.broadcast(&bytes) } else { output.write(channel, &bytes) }.expect("it fits");
        *next += 1;
        if next.is_multiple_of(3) {
            output.event(Event::Barrier { checkpoint: *next as u64 / 3 });
        }
    }
    if *next == lens.len() && !*ended && output.event_room() {
        output.event(Event::EndOfPartition);
        *ended = true;
    }
    (*next > before, *ended && output.drained())
}

/// Reads all that comes: the records' numbers, each with its bytes checked, and the records before each barrier.
struct Reader {
    lens: Vec<usize>,
    /// Next number of each channel, and the step to the one after.
    next: Vec<usize>,
    step: usize,
    read: usize,
    ended: bool,
}

impl Reader {
    fn new(lens: &[usize], channels: usize, broadcast: bool) -> Self {
        let next = if broadcast { vec![0; channels] } else { (0..channels).collect() };
        Self { lens: lens.to_vec(), next, step: if broadcast { 1 } else { channels }, read: 0, ended: false }
    }

    fn read(&mut self, slot: &mut Slot, id: GateId) -> bool {
        let arena = slot.ports.arena().clone();
        let mut input = slot.ports.input(id);
        let mut moved = false;
        while let Some(item) = input.poll() {
            moved = true;
            match item {
                GateItem::Data(buffer) => {
                    let next = &mut self.next[buffer.channel() as usize];
                    let mut position = 0;
                    while let Some(bytes) =
                        Vec::<u8>::read(buffer.bytes(&arena), &mut position).expect("valid")
                    {
                        assert!(bytes.as_slice() == record(*next, self.lens[*next]), "record {next}");
                        *next += self.step;
                        self.read += 1;
                    }
                    input.release(buffer);
                }
                GateItem::Aligned { checkpoint, .. } => {
                    assert_eq!(self.read as u64, 3 * checkpoint, "a barrier divides exactly");
                    input.resume(checkpoint);
                }
                GateItem::Aborted { checkpoint } => panic!("checkpoint {checkpoint} was aborted"),
                GateItem::EndOfData => {}
                GateItem::EndOfPartition => {
                    assert_eq!(self.read, self.lens.len());
                    self.ended = true;
                }
            }
        }
        moved
    }
}

/// One producer, `channels` channels into one task of another process.
fn remote(driver: Driver, segments: u32, record_max: u32, channels: u32, lens: &[usize]) {
    for transport in TRANSPORTS {
        remote_over(transport, driver, segments, record_max, channels, lens);
    }
}

fn remote_over(
    transport: Transport,
    driver: Driver,
    segments: u32,
    record_max: u32,
    channels: u32,
    lens: &[usize],
) {
    let (mut a, mut b) = pair_over(segments, transport);
    (a.driver, b.driver) = (driver, driver);
    let peers = [(a.me, a.address()), (b.me, b.address())];
    let to = |peer| (0..channels).map(|number| channel(number, peer)).collect::<Vec<_>>();
    let mut plan_a = plan(vec![producer(0, false, to(b.me))], &peers);
    let mut plan_b = plan(vec![consumer(0, to(a.me))], &peers);
    (plan_a.record_max, plan_b.record_max) = (record_max, record_max);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut slot = a.slot();
            let ids = prepare(&mut slot, &plan_a);
            send(&mut slot, ids[0].partitions[0], lens, false);
            retire(&mut slot);
        });
        let mut slot = b.slot();
        let ids = prepare(&mut slot, &plan_b);
        let mut reader = Reader::new(lens, channels as usize, false);
        run(&mut slot, |slot| (reader.read(slot, ids[0].gate.expect("a gate")), reader.ended));
        retire(&mut slot);
    });
}

const MIXED: [usize; 14] =
    [1, 40_000, 32_764, 32_765, 900_000, 5, 7, 524_288, 524_284, 3_000_000, 100, 33_000, 1_000_000, 2];

#[test]
fn every_driver_and_send_mode_carries_records_of_any_size() {
    let uring = [SendMode::Auto, SendMode::Fixed, SendMode::Plain, SendMode::Zc].map(Driver::Uring);
    for driver in uring.into_iter().chain([Driver::Epoll]) {
        remote(driver, 160, 3 << 20, 3, &MIXED);
    }
}

#[test]
fn the_largest_record_is_sixteen_mebibytes() {
    let largest = 16 << 20;
    remote(driver(), 600, tidegate_wire::RECORD_MAX, 2, &[largest, 1, largest - 1, 40_000, largest, 9]);
}

/// The least that a plan may have: its regions, and two segments for each port.
#[test]
fn the_least_quota_suffices() {
    remote(driver(), 2 * 2 + 96, 3 << 20, 2, &MIXED);
}

#[test]
fn a_slot_without_room_for_its_regions_refuses_the_plan() {
    let process = Process::new(1, 64);
    let mut slot = process.slot();
    let mut plan = plan(vec![producer(0, false, vec![channel(0, slot_id(2))])], &[]);
    plan.record_max = 2 << 20;
    let error = slot.prepare(&plan).expect_err("64 of a region, 2 of the partition, 2 of the link");
    assert_eq!(error, PrepareError::Segments { needed: 68, available: 64, edge: "edge of 0".into() });
    assert_eq!(slot.ports.segments_free(), 64);
}

/// A broadcast to two tasks of another process and one of its own: one region, read by all three.
#[test]
fn a_broadcast_goes_to_each_consumer_once() {
    let (a, b) = pair(400);
    let peers = [(a.me, a.address()), (b.me, b.address())];
    let out = vec![channel(0, b.me), channel(1, b.me), channel(2, a.me)];
    let own = consumer(1, vec![channel(2, a.me)]);
    let mut plan_a = plan(vec![producer(0, true, out), own], &peers);
    let mut plan_b =
        plan(vec![consumer(0, vec![channel(0, a.me)]), consumer(1, vec![channel(1, a.me)])], &peers);
    (plan_a.record_max, plan_b.record_max) = (3 << 20, 3 << 20);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut slot = a.slot();
            let ids = prepare(&mut slot, &plan_a);
            let mut reader = Reader::new(&MIXED, 1, true);
            let (mut next, mut ended) = (0, false);
            run(&mut slot, |slot| {
                let (moved, sent) =
                    send_some(slot, ids[0].partitions[0], &MIXED, true, &mut next, &mut ended);
                let read = reader.read(slot, ids[1].gate.expect("a gate"));
                (moved || read, sent && reader.ended)
            });
            retire(&mut slot);
        });
        let mut slot = b.slot();
        let ids = prepare(&mut slot, &plan_b);
        let mut readers = [Reader::new(&MIXED, 1, true), Reader::new(&MIXED, 1, true)];
        run(&mut slot, |slot| {
            let mut moved = false;
            for (reader, ids) in readers.iter_mut().zip(&ids) {
                moved |= reader.read(slot, ids.gate.expect("a gate"));
            }
            (moved, readers.iter().all(|reader| reader.ended))
        });
        retire(&mut slot);
    });
}

/// Inside one slot: the region itself is handed over, and comes back.
#[test]
fn local_channels_hand_the_region_over() {
    let process = Process::new(1, 200);
    let mut slot = process.slot();
    let me = process.me;
    let both = vec![channel(0, me), channel(1, me)];
    let mut plan = plan(vec![producer(0, false, both.clone()), consumer(1, both)], &[]);
    plan.record_max = 3 << 20;
    let ids = prepare(&mut slot, &plan);
    let mut reader = Reader::new(&MIXED, 2, false);
    let (mut next, mut ended) = (0, false);
    run(&mut slot, |slot| {
        let (moved, sent) = send_some(slot, ids[0].partitions[0], &MIXED, false, &mut next, &mut ended);
        let read = reader.read(slot, ids[1].gate.expect("a gate"));
        (moved || read, sent && reader.ended)
    });
    assert_eq!(slot.ports.counters().payload_bytes_copied, 0);
    retire(&mut slot);
}
