//! Channels inside a process: within a slot and between two slots, by handle.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::*;
use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize};
use tidegate_exchange::{Endpoint, Event, Exchange, ExchangeConfig, GateItem, LocalHub, SlotId, TaskIds};
use tidegate_record::Record;

const ME: u64 = 1;

fn slots(segments: u32) -> (Endpoint, Arena, Vec<tidegate_arena::Shard>, LocalHub) {
    let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into(), Default::default()).expect("loopback");
    let (arena, shards) = Arena::map(&ArenaConfig {
        segment_size: SegmentSize::DEFAULT,
        shards: vec![segments; 2],
        huge_pages: HugePages::Never,
    })
    .expect("a small arena");
    (endpoint, arena, shards, LocalHub::new())
}

fn exchange(endpoint: &Endpoint, shard: tidegate_arena::Shard, hub: &LocalHub) -> Slot {
    let ring = driver().ring(shard.arena(), shard.index());
    let config =
        ExchangeConfig { me: SlotId { taskmanager: ME, slot: shard.index() as u32 }, cluster: CLUSTER };
    Exchange::new(ring, shard, hub.clone(), endpoint.connector(), config)
}

/// Writes up to `count` numbers round robin, then ends; returns (moved, done).
fn produce(slot: &mut Slot, ids: &TaskIds, next: &mut u64, ended: &mut bool, count: u64) -> (bool, bool) {
    let mut output = slot.ports.output(ids.partitions[0]);
    let before = *next;
    while *next < count && output.writable() {
        if *next == count / 2 && output.event_room() && *next != 0 {
            output.event(Event::Barrier { checkpoint: 1 });
        }
        let channel = (*next % u64::from(output.channels())) as u32;
        output.write(channel, &*next).expect("a number fits");
        *next += 1;
    }
    if *next == count && !*ended && output.event_room() {
        output.event(Event::EndOfPartition);
        *ended = true;
    }
    (*next > before, *ended && output.drained())
}

fn consume(slot: &mut Slot, ids: &TaskIds, seen: &mut Vec<u64>, ended: &mut bool, aligned: &mut u32) -> bool {
    let arena = slot.ports.arena().clone();
    let mut input = slot.ports.input(ids.gate.expect("a gate"));
    let mut moved = false;
    while let Some(item) = input.poll() {
        moved = true;
        match item {
            GateItem::Data(buffer) => {
                let mut position = 0;
                while let Some(number) = u64::read(buffer.bytes(&arena), &mut position).expect("valid") {
                    seen.push(*number);
                }
                input.release(buffer);
            }
            GateItem::Aligned { checkpoint, .. } => {
                *aligned += 1;
                input.resume(checkpoint);
            }
            GateItem::EndOfPartition => *ended = true,
            _ => {}
        }
    }
    moved
}

#[test]
fn within_a_slot() {
    let (endpoint, arena, mut shards, hub) = slots(8);
    let mut slot = exchange(&endpoint, shards.remove(0), &hub);
    let me = slot_id(ME);
    let tasks = vec![producer(0, false, vec![channel(0, me)]), consumer(1, vec![channel(0, me)])];
    let ids = prepare(&mut slot, &plan(tasks, &[]));
    let (mut next, mut sent, mut seen, mut ended, mut aligned) = (0, false, Vec::new(), false, 0);
    run(&mut slot, |slot| {
        let (wrote, drained) = produce(slot, &ids[0], &mut next, &mut sent, 100_000);
        let read = consume(slot, &ids[1], &mut seen, &mut ended, &mut aligned);
        (wrote || read, drained && ended)
    });
    assert_eq!(seen, (0..100_000).collect::<Vec<_>>());
    assert_eq!(aligned, 1);
    assert_eq!(slot.ports.counters().payload_bytes_copied, 0);
    retire(&mut slot);
    assert!(arena.ledger().totals().free() == arena.segments());
}

#[test]
fn between_two_slots_of_a_process() {
    let (endpoint, arena, mut shards, hub) = slots(8);
    let other = SlotId { taskmanager: ME, slot: 1 };
    let plan_a = plan(vec![producer(0, false, vec![channel(0, other), channel(1, other)])], &[]);
    let plan_b = plan(vec![consumer(0, vec![channel(0, slot_id(ME)), channel(1, slot_id(ME))])], &[]);
    let (first, second) = (shards.remove(0), shards.remove(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut slot = exchange(&endpoint, first, &hub);
            let ids = prepare(&mut slot, &plan_a);
            let (mut next, mut ended) = (0, false);
            run(&mut slot, |slot| produce(slot, &ids[0], &mut next, &mut ended, 200_000));
            retire(&mut slot);
        });
        let mut slot = exchange(&endpoint, second, &hub);
        let ids = prepare(&mut slot, &plan_b);
        let (mut seen, mut ended, mut aligned) = (Vec::new(), false, 0);
        run(&mut slot, |slot| (consume(slot, &ids[0], &mut seen, &mut ended, &mut aligned), ended));
        seen.sort_unstable();
        assert_eq!(seen, (0..200_000).collect::<Vec<_>>());
        assert_eq!(aligned, 1);
        retire(&mut slot);
    });
    assert_eq!(arena.ledger().totals().free(), arena.segments());
}

/// The producer says what there is once, when there is nobody yet to hear it.
#[test]
fn a_consumer_that_is_prepared_later_finds_what_was_handed_over() {
    let (endpoint, arena, mut shards, hub) = slots(8);
    let other = SlotId { taskmanager: ME, slot: 1 };
    let plan_a = plan(vec![producer(0, false, vec![channel(0, other)])], &[]);
    let plan_b = plan(vec![consumer(0, vec![channel(0, slot_id(ME))])], &[]);
    let mut first = exchange(&endpoint, shards.remove(0), &hub);
    let mut second = exchange(&endpoint, shards.remove(0), &hub);
    let ids_a = prepare(&mut first, &plan_a);
    let (mut next, mut sent) = (0, false);
    produce(&mut first, &ids_a[0], &mut next, &mut sent, 1_000);
    while first.turn() {}
    let ids_b = prepare(&mut second, &plan_b);
    second.turn();
    let (mut seen, mut ended, mut aligned) = (Vec::new(), false, 0);
    consume(&mut second, &ids_b[0], &mut seen, &mut ended, &mut aligned);
    assert_eq!((seen, ended, aligned), ((0..1_000).collect(), true, 1));
    retire(&mut second);
    retire(&mut first);
    assert_eq!(arena.ledger().totals().free(), arena.segments());
}

#[test]
fn a_cancelled_consumer_leaves_nothing_behind() {
    let (endpoint, arena, mut shards, hub) = slots(8);
    let mut slot = exchange(&endpoint, shards.remove(0), &hub);
    let me = slot_id(ME);
    let tasks = vec![producer(0, false, vec![channel(0, me)]), consumer(1, vec![channel(0, me)])];
    let ids = prepare(&mut slot, &plan(tasks, &[]));
    let mut moved = true;
    while std::mem::take(&mut moved) {
        slot.turn();
        let mut output = slot.ports.output(ids[0].partitions[0]);
        while output.writable() {
            output.write(0, &1_u64).expect("fits");
            moved = true;
        }
    }
    let held = slot.ports.input(ids[1].gate.expect("a gate")).poll();
    assert!(matches!(held, Some(GateItem::Data(_))));
    slot.cancel(JOB, 1);
    drop(held);
    run(&mut slot, |slot| (false, slot.closed(JOB, 1)));
    assert_eq!(slot.ports.segments_free(), slot.ports.segments());
    assert_eq!(arena.ledger().totals().free(), arena.segments());
}

/// Taking an event may be all that a producer waits for: it holds a half-filled segment back while the queue is not empty,
/// and has gone to sleep.
#[test]
fn taking_an_event_wakes_the_producer() {
    let (endpoint, _arena, mut shards, hub) = slots(8);
    let other = SlotId { taskmanager: ME, slot: 1 };
    let mut from = exchange(&endpoint, shards.remove(0), &hub);
    let mut to = exchange(&endpoint, shards.remove(0), &hub);
    let from_ids = prepare(&mut from, &plan(vec![producer(0, false, vec![channel(0, other)])], &[]));
    let to_ids = prepare(&mut to, &plan(vec![consumer(0, vec![channel(0, slot_id(ME))])], &[]));
    from.ports.output(from_ids[0].partitions[0]).event(Event::Barrier { checkpoint: 1 });
    from.turn();
    from.ports.output(from_ids[0].partitions[0]).write(0, &7u64).expect("a number fits");
    while from.turn() {}
    from.wait(Some(Duration::ZERO));

    let (mut seen, mut ended, mut aligned) = (Vec::new(), false, 0);
    to.turn();
    consume(&mut to, &to_ids[0], &mut seen, &mut ended, &mut aligned);
    to.turn();
    assert_eq!((aligned, seen.len()), (1, 0), "the number is still held back");
    let asleep = Instant::now();
    from.wait(Some(DEADLINE));
    assert!(asleep.elapsed() < DEADLINE, "nobody woke the producer");
    from.turn();
    to.turn();
    consume(&mut to, &to_ids[0], &mut seen, &mut ended, &mut aligned);
    assert_eq!(seen, [7]);
    for slot in [&mut from, &mut to] {
        slot.cancel(JOB, 1);
        run(slot, |slot| (false, slot.closed(JOB, 1)));
    }
}
