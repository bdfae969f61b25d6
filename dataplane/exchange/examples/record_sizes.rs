//! What a byte costs in records of many sizes, those larger than a segment among them: two slots over loopback.
//!
//! ```text
//! cargo run --release -p tidegate-exchange --example record_sizes -- [MIB-PER-SIZE [ROUNDS]]
//! ```
//!
//! Each record is written from a vector, sent, received, and every byte of it read. Sizes take turns; printed are medians:
//! bytes by the clock, and processor time of both threads for each byte, which other work on the machine disturbs less.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize};
use tidegate_exchange::{
    AttemptPlan, ChannelPlan, Endpoint, Event, Exchange, ExchangeConfig, GateItem, GatePlan, LocalHub,
    PartitionPlan, Prepared, SlotId, TaskIds, TaskPorts,
};
use tidegate_record::Record;
use tidegate_ring::{AnyRing, UringConfig, UringRing};

type Failure = Box<dyn Error + Send + Sync>;
type Slot = Exchange<AnyRing>;

const PRODUCER: SlotId = SlotId { taskmanager: 1, slot: 0 };
const CONSUMER: SlotId = SlotId { taskmanager: 2, slot: 0 };
const SEGMENT: u32 = 64 << 10;
/// What a vector of bytes takes beside its bytes.
const FRAME: usize = 12;
const SIZES: [usize; 6] = [4 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20];

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let mebibytes = arguments.next().transpose()?.unwrap_or(2048);
    let rounds = arguments.next().transpose()?.unwrap_or(5);
    let mut seen: BTreeMap<usize, Vec<(f64, f64)>> = BTreeMap::new();
    for round in 0..rounds {
        for size in SIZES {
            seen.entry(size).or_default().push(carry(size, (mebibytes << 20) / size)?);
            eprint!("\rround {} of {rounds}, {size} bytes        ", round + 1);
        }
    }
    eprintln!();
    println!("{:>12} {:>8} {:>14}", "record", "GB/s", "CPU ns/byte");
    for (size, mut measured) in seen {
        let mut median = |of: fn(&(f64, f64)) -> f64| {
            measured.sort_by(|one, other| of(one).total_cmp(&of(other)));
            of(&measured[measured.len() / 2])
        };
        println!("{size:>12} {:>8.2} {:>14.3}", median(|run| run.0), median(|run| run.1));
    }
    Ok(())
}

/// Gigabytes per second, and nanoseconds of processor time for each byte, of `count` records of `size` bytes in all.
fn carry(size: usize, count: usize) -> Result<(f64, f64), Failure> {
    let bind = || Endpoint::bind(([127, 0, 0, 1], 0).into(), Default::default());
    let (from, to) = (bind()?, bind()?);
    let address = from.address();
    let bytes = (size * count) as f64;
    thread::scope(|scope| {
        let producer = scope.spawn(|| produce(&from, address, size - FRAME, count));
        let (elapsed, spent) = consume(&to, address, count)?;
        let produced = producer.join().map_err(|_| "the producer panicked")??;
        Ok((bytes / elapsed, (spent + produced) / bytes))
    })
}

/// Nanoseconds this thread has run.
fn processor_ns() -> Result<f64, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().ok_or("the kernel keeps no schedstat")?.parse()?)
}

fn slot(endpoint: &Endpoint, me: SlotId) -> Result<Slot, Failure> {
    let (arena, mut shards) = Arena::map(&ArenaConfig {
        segment_size: SegmentSize::new(SEGMENT)?,
        shards: vec![640],
        huge_pages: HugePages::Auto,
    })?;
    let ring = AnyRing::from(UringRing::new(&arena, 0, &UringConfig::default())?);
    let config = ExchangeConfig { me, cluster: 1 };
    let slot = Exchange::new(ring, shards.remove(0), LocalHub::new(), endpoint.connector(), config);
    endpoint.register(me, slot.mailbox());
    Ok(slot)
}

fn channel(peer: SlotId) -> ChannelPlan {
    ChannelPlan { channel: 0, peer, input: 0, schema: Vec::<u8>::SCHEMA.fingerprint }
}

fn prepare(slot: &mut Slot, task: TaskPorts, producer: SocketAddr) -> Result<TaskIds, Failure> {
    let plan = AttemptPlan {
        job: 1,
        epoch: 1,
        attempt: 1,
        record_max: 16 << 20,
        tasks: vec![task],
        peers: BTreeMap::from([(PRODUCER.taskmanager, producer)]),
    };
    let ids = slot.prepare(&plan)?.remove(0);
    run(slot, |slot| Ok((false, slot.prepared(1, 1) != Prepared::Pending)))?;
    Ok(ids)
}

/// Turns the slot until `step` is done; `step` returns (did something, is done).
fn run(
    slot: &mut Slot,
    mut step: impl FnMut(&mut Slot) -> Result<(bool, bool), Failure>,
) -> Result<(), Failure> {
    loop {
        let busy = slot.turn();
        let (moved, done) = step(slot)?;
        if let Some(fault) = slot.take_fault() {
            return Err(fault.into());
        }
        if done {
            return Ok(());
        }
        if !busy && !moved {
            slot.wait(None);
        }
    }
}

fn produce(endpoint: &Endpoint, address: SocketAddr, len: usize, count: usize) -> Result<f64, Failure> {
    let mut slot = slot(endpoint, PRODUCER)?;
    let channels = vec![channel(CONSUMER)];
    let partitions = vec![PartitionPlan { name: "bytes".into(), broadcast: false, channels }];
    let ids = prepare(&mut slot, TaskPorts { task: 0, gate: None, partitions }, address)?;
    let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
    let (mut next, mut ended) = (0, false);
    let before = processor_ns()?;
    run(&mut slot, |slot| {
        let mut output = slot.ports.output(ids.partitions[0]);
        let first = next;
        while next < count && output.writable() {
            output.write(0, &bytes)?;
            next += 1;
        }
        if next == count && !ended && output.event_room() {
            output.event(Event::EndOfPartition);
            ended = true;
        }
        Ok((next > first, ended && output.drained()))
    })?;
    let spent = processor_ns()? - before;
    slot.retire(1, 1);
    run(&mut slot, |slot| Ok((false, slot.closed(1, 1))))?;
    Ok(spent)
}

/// Nanoseconds by the clock, and of the processor.
fn consume(endpoint: &Endpoint, address: SocketAddr, count: usize) -> Result<(f64, f64), Failure> {
    let mut slot = slot(endpoint, CONSUMER)?;
    let gate = GatePlan { name: "read".into(), channels: vec![channel(PRODUCER)] };
    let ids = prepare(&mut slot, TaskPorts { task: 0, gate: Some(gate), partitions: vec![] }, address)?;
    let gate = ids.gate.ok_or("the plan has a gate")?;
    let arena = slot.ports.arena().clone();
    let (mut seen, mut sum) = (0, 0_u64);
    let (start, before) = (Instant::now(), processor_ns()?);
    run(&mut slot, |slot| {
        let mut input = slot.ports.input(gate);
        let (mut moved, mut done) = (false, false);
        while let Some(item) = input.poll() {
            moved = true;
            match item {
                GateItem::Data(buffer) => {
                    let mut position = 0;
                    while let Some(bytes) = Vec::<u8>::read(buffer.bytes(&arena), &mut position)? {
                        let (words, _) = bytes.as_slice().as_chunks::<8>();
                        let words = words.iter().map(|word| u64::from_le_bytes(*word));
                        sum = words.fold(sum, |sum, word| sum ^ word);
                        seen += 1;
                    }
                    input.release(buffer);
                }
                GateItem::EndOfPartition => done = true,
                _ => {}
            }
        }
        Ok((moved, done))
    })?;
    let (elapsed, spent) = (start.elapsed().as_nanos() as f64, processor_ns()? - before);
    slot.retire(1, 1);
    run(&mut slot, |slot| Ok((false, slot.closed(1, 1))))?;
    if seen != count {
        return Err(format!("expected {count} records, found {seen} (sum {sum})").into());
    }
    Ok((elapsed, spent))
}
