//! Many channels on one link: what is held back arrives, nothing waits for what is blocked, and all of it in order.

mod common;

use std::time::{Duration, Instant};

use common::{DEADLINE, JOB, Process, Slot, channel, consumer, pair, plan, prepare, producer, retire, run};
use tidegate_exchange::{Event, GateId, GateItem, PartitionId, Prepared};
use tidegate_record::Plain;

/// Record `number` of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Plain)]
#[repr(C)]
struct Item {
    channel: u64,
    number: u64,
}

/// A producing process that writes `records` to `channels` channels in turns, and a consuming one that checks the order of each channel. Returns how long the consumer took.
fn shuffle(channels: u32, segments: u32, flush: Duration, records: u64) -> Duration {
    let (mut a, mut b) = pair(segments);
    (a.segment_size, b.segment_size) = (4096, 4096);
    let address = a.address();
    let (a_id, b_id) = (a.me, b.me);
    let source = std::thread::spawn(move || {
        let mut slot = a.slot();
        slot.set_flush(flush);
        let out = (0..channels).map(|number| channel(number, b_id)).collect();
        let ids = prepare(&mut slot, &plan(vec![producer(0, false, out)], &[]));
        let id = ids[0].partitions[0];
        let (mut written, mut ended) = (0, false);
        run(&mut slot, |slot| {
            let mut output = slot.ports.output(id);
            let before = written;
            while written < records && output.writable() {
                let item =
                    Item { channel: written % u64::from(channels), number: written / u64::from(channels) };
                output.write(item.channel as u32, &item).expect("it fits");
                written += 1;
            }
            end(&mut output, written == records, &mut ended);
            (written > before, ended && output.drained())
        });
        retire(&mut slot);
    });
    let mut slot = b.slot();
    let input = (0..channels).map(|number| channel(number, a_id)).collect();
    let ids = prepare(&mut slot, &plan(vec![consumer(0, input)], &[(a_id, address)]));
    let start = Instant::now();
    let mut next = vec![0; channels as usize];
    read(&mut slot, ids[0].gate.expect("a gate"), |item| {
        assert_eq!(item.number, next[item.channel as usize], "channel {}", item.channel);
        next[item.channel as usize] += 1;
    });
    let took = start.elapsed();
    assert_eq!(next.iter().sum::<u64>(), records);
    retire(&mut slot);
    source.join().expect("the source ends in order");
    took
}

fn end(output: &mut tidegate_exchange::Output<'_>, all: bool, ended: &mut bool) {
    if all && !*ended && output.event_room() {
        output.event(Event::EndOfPartition);
        *ended = true;
    }
}

/// Reads a gate to its end.
fn read(slot: &mut Slot, gate: GateId, mut each: impl FnMut(&Item)) {
    let arena = slot.ports.arena().clone();
    run(slot, |slot| {
        let mut input = slot.ports.input(gate);
        let mut moved = false;
        while let Some(item) = input.poll() {
            moved = true;
            match item {
                GateItem::Data(buffer) => {
                    let items = Item::as_slice(buffer.bytes(&arena)).expect("whole items");
                    items.iter().for_each(&mut each);
                    input.release(buffer);
                }
                GateItem::EndOfPartition => return (true, true),
                _ => {}
            }
        }
        (moved, false)
    });
}

#[test]
fn records_of_a_thousand_channels_keep_their_order() {
    for flush in [0, 1, 100] {
        shuffle(1000, 400, Duration::from_millis(flush), 200_000);
    }
}

#[test]
fn who_needs_segments_does_not_wait_for_the_flush() {
    // The partition is full of partly filled segments, again and again, long before the flush.
    let took = shuffle(500, 100, Duration::from_secs(10), 2_000);
    assert!(took < Duration::from_secs(10), "{took:?}: somebody waited for the flush");
}

/// One record, then silence: only the flush can bring it.
fn trickle(flush: Duration) -> Duration {
    let (a, b) = pair(100);
    let address = a.address();
    let (a_id, b_id) = (a.me, b.me);
    let source = std::thread::spawn(move || {
        let mut slot = a.slot();
        slot.set_flush(flush);
        let ids = prepare(&mut slot, &plan(vec![producer(0, false, vec![channel(0, b_id)])], &[]));
        let id: PartitionId = ids[0].partitions[0];
        let (mut written, mut ended) = (false, false);
        let mut at = Instant::now();
        run(&mut slot, |slot| {
            let mut output = slot.ports.output(id);
            if !written && output.writable() {
                output.write(0, &Item { channel: 0, number: 7 }).expect("it fits");
                (written, at) = (true, Instant::now());
            }
            // Ends only once the record has left and its segment is back.
            let left = written && output.drained();
            end(&mut output, left, &mut ended);
            (false, ended && output.drained())
        });
        retire(&mut slot);
        at
    });
    let mut slot = b.slot();
    let ids = prepare(&mut slot, &plan(vec![consumer(0, vec![channel(0, a_id)])], &[(a_id, address)]));
    let mut seen = None;
    read(&mut slot, ids[0].gate.expect("a gate"), |item| {
        assert_eq!(item.number, 7);
        seen = Some(Instant::now());
    });
    retire(&mut slot);
    let written = source.join().expect("the source ends in order");
    seen.expect("the record came").duration_since(written)
}

#[test]
fn a_lone_record_waits_for_the_flush_and_no_longer() {
    let took = trickle(Duration::from_millis(200));
    assert!(took >= Duration::from_millis(199), "{took:?}: it was not held back");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_link_that_is_lost_flushes_nothing_any_more() {
    let (a, b) = pair(100);
    let address = a.address();
    let (a_id, b_id) = (a.me, b.me);
    let (go, told) = std::sync::mpsc::channel();
    let sink = std::thread::spawn(move || {
        let mut slot = b.slot();
        prepare(&mut slot, &plan(vec![consumer(0, vec![channel(0, a_id)])], &[(a_id, address)]));
        told.recv().expect("the source is there");
        slot.cancel(JOB, 1);
        run(&mut slot, |slot| (false, slot.closed(JOB, 1)));
    });
    let mut slot = a.slot();
    slot.set_flush(Duration::from_secs(10));
    let ids = prepare(&mut slot, &plan(vec![producer(0, false, vec![channel(0, b_id)])], &[]));
    slot.ports.output(ids[0].partitions[0]).write(0, &Item { channel: 0, number: 0 }).expect("it fits");
    slot.turn();
    assert!(slot.next_timer_ns().is_some(), "the record is held back");
    go.send(()).expect("the sink is there");
    while slot.take_fault().is_none() {
        slot.wait(Some(DEADLINE));
        slot.turn();
    }
    assert_eq!(slot.next_timer_ns(), None, "or the slot would spin until it is told to cancel");
    sink.join().expect("the sink ends in order");
}

/// A thousand producers and as many consumers over one link; the consumer of channel 0 reads nothing until the others are
/// done, if it is `blocked`. Returns the time that the others took.
fn apart(blocked: bool) -> Duration {
    const CHANNELS: u32 = 1000;
    const RECORDS: u64 = 2000;
    let (mut a, mut b) = pair(8000);
    (a.segment_size, b.segment_size) = (4096, 4096);
    let address = a.address();
    let (a_id, b_id) = (a.me, b.me);
    let source = std::thread::spawn(move || {
        let mut slot = a.slot();
        let tasks = (0..CHANNELS).map(|task| producer(task, false, vec![channel(task, b_id)])).collect();
        let ids = prepare(&mut slot, &plan(tasks, &[]));
        let mut tasks: Vec<_> = ids.iter().map(|ids| (ids.partitions[0], 0_u64, false)).collect();
        run(&mut slot, |slot| {
            let (mut moved, mut done) = (false, true);
            for (number, (id, written, ended)) in tasks.iter_mut().enumerate() {
                let mut output = slot.ports.output(*id);
                let until = (*written + 100).min(RECORDS);
                while *written < until && output.writable() {
                    output.write(0, &Item { channel: number as u64, number: *written }).expect("it fits");
                    *written += 1;
                    moved = true;
                }
                end(&mut output, *written == RECORDS, ended);
                done &= *ended && output.drained();
            }
            (moved, done)
        });
        retire(&mut slot);
    });
    let mut slot = b.slot();
    let tasks = (0..CHANNELS).map(|task| consumer(task, vec![channel(task, a_id)])).collect();
    let ids = prepare(&mut slot, &plan(tasks, &[(a_id, address)]));
    let gates: Vec<GateId> = ids.iter().map(|ids| ids.gate.expect("a gate")).collect();
    let arena = slot.ports.arena().clone();
    let start = Instant::now();
    let (mut next, mut open) = (vec![0_u64; CHANNELS as usize], CHANNELS as usize);
    let mut took = None;
    run(&mut slot, |slot| {
        let mut moved = false;
        for (number, &gate) in gates.iter().enumerate() {
            if blocked && number == 0 && open > 1 {
                continue;
            }
            let mut input = slot.ports.input(gate);
            while let Some(item) = input.poll() {
                moved = true;
                match item {
                    GateItem::Data(buffer) => {
                        for item in Item::as_slice(buffer.bytes(&arena)).expect("whole items") {
                            assert_eq!((item.channel, item.number), (number as u64, next[number]));
                            next[number] += 1;
                        }
                        input.release(buffer);
                    }
                    GateItem::EndOfPartition => open -= 1,
                    _ => {}
                }
            }
        }
        if open <= 1 && took.is_none() {
            took = Some(start.elapsed());
            moved = true;
        }
        (moved, open == 0)
    });
    assert!(next.iter().all(|&records| records == RECORDS));
    retire(&mut slot);
    source.join().expect("the source ends in order");
    took.expect("all but one have ended")
}

#[test]
fn a_blocked_consumer_of_a_thousand_holds_up_nobody_else() {
    let (free, blocked) = (apart(false), apart(true));
    println!("the others took {blocked:?}, and {free:?} when nobody was blocked");
}

#[test]
fn a_record_now_and_then_is_one_train_and_never_waits_for_credit() {
    const RECORDS: u64 = 400;
    let processes = [Process::new(1, 100), Process::new(2, 100)];
    let [a_id, b_id] = [&processes[0], &processes[1]].map(|process| process.me);
    let mut slots = [processes[0].slot(), processes[1].slot()];
    let out = plan(vec![producer(0, false, vec![channel(0, b_id)])], &[]);
    let address = processes[0].address();
    let into = plan(vec![consumer(0, vec![channel(0, a_id)])], &[(a_id, address)]);
    let ids = [(0, &out), (1, &into)].map(|(at, plan)| slots[at].prepare(plan).expect("the plan fits"));
    let (partition, gate) = (ids[0][0].partitions[0], ids[1][0].gate.expect("a gate"));
    both(&mut slots, |slots| slots.iter().all(|slot| slot.prepared(JOB, 1) == Prepared::Ready));

    let mut before = [0; 2];
    for number in 0..RECORDS {
        if number == 1 {
            // The first one has asked for credit; from now on nobody does.
            before = [&slots[0], &slots[1]].map(|slot| slot.ports.counters().trains_sent);
        }
        let mut output = slots[0].ports.output(partition);
        assert!(output.writable(), "record {number}");
        output.write(0, &Item { channel: 0, number }).expect("it fits");
        both(&mut slots, |slots| read_one(&mut slots[1], gate, number));
    }
    let [sent, granted] = [0, 1].map(|at| slots[at].ports.counters().trains_sent - before[at]);
    assert_eq!(sent, RECORDS - 1, "a train for each record, and none that states a backlog");
    assert!(granted <= RECORDS / 8, "{granted} trains with grants for {RECORDS} records");

    slots[0].ports.output(partition).event(Event::EndOfPartition);
    both(&mut slots, |slots| {
        let item = slots[1].ports.input(gate).poll();
        matches!(item, Some(GateItem::EndOfPartition))
    });
    slots.iter_mut().for_each(|slot| slot.retire(JOB, 1));
    both(&mut slots, |slots| slots.iter().all(|slot| slot.closed(JOB, 1)));
    slots.iter_mut().for_each(|slot| assert_eq!(slot.ports.segments_free(), slot.ports.segments()));
}

/// Turns two slots on this thread until `done`.
fn both(slots: &mut [Slot; 2], mut done: impl FnMut(&mut [Slot; 2]) -> bool) {
    let start = Instant::now();
    while !done(slots) {
        let [one, other] = slots.each_mut().map(Slot::turn);
        if !one && !other {
            slots[1].wait(Some(Duration::from_micros(100)));
        }
        assert!(start.elapsed() < DEADLINE, "hangs");
    }
}

/// Reads record `number`, if it is there.
fn read_one(slot: &mut Slot, gate: GateId, number: u64) -> bool {
    let arena = slot.ports.arena().clone();
    let mut input = slot.ports.input(gate);
    let Some(item) = input.poll() else { return false };
    let GateItem::Data(buffer) = item else { panic!("records expected, found {item:?}") };
    let items = Item::as_slice(buffer.bytes(&arena)).expect("whole items");
    assert_eq!(items, [Item { channel: 0, number }]);
    input.release(buffer);
    true
}
