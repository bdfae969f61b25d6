//! Records between two processes with nothing but the data plane: no JobManager, no job API.
//!
//! ```text
//! cargo run --release -p tidegate-exchange --example two_processes -- [RECORDS]
//! ```
//!
//! The first process makes pairs of numbers and starts the second, which adds them up and checks the sum.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize};
use tidegate_exchange::{
    AttemptPlan, ChannelPlan, Endpoint, Event, Exchange, ExchangeConfig, GateItem, GatePlan, LocalHub,
    PartitionPlan, Prepared, SlotId, TaskIds, TaskPorts,
};
use tidegate_record::{Plain, Record};
use tidegate_ring::{AnyRing, UringConfig, UringRing};

#[derive(Clone, Copy, Debug, Plain)]
#[repr(C)]
struct Pair {
    key: u64,
    value: u64,
}

const PRODUCER: SlotId = SlotId { taskmanager: 1, slot: 0 };
const CONSUMER: SlotId = SlotId { taskmanager: 2, slot: 0 };
const SEGMENTS: u32 = 512;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [role, address, records] if role == "consume" => consume(address, records),
        [] => produce("100000000"),
        [records] => produce(records),
        _ => Err("usage: two_processes [RECORDS]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn slot(endpoint: &Endpoint, me: SlotId) -> Result<Exchange<AnyRing>, Box<dyn Error>> {
    let (arena, mut shards) = Arena::map(&ArenaConfig {
        segment_size: SegmentSize::DEFAULT,
        shards: vec![SEGMENTS],
        huge_pages: HugePages::Auto,
    })?;
    let ring = AnyRing::from(UringRing::new(&arena, 0, &UringConfig::default())?);
    let config = ExchangeConfig { me, cluster: 1 };
    let slot = Exchange::new(ring, shards.remove(0), LocalHub::new(), endpoint.connector(), config);
    endpoint.register(me, slot.mailbox());
    Ok(slot)
}

fn plan(tasks: Vec<TaskPorts>, producer: SocketAddr) -> AttemptPlan {
    AttemptPlan {
        job: 1,
        epoch: 1,
        attempt: 1,
        record_max: 0,
        tasks,
        peers: BTreeMap::from([(PRODUCER.taskmanager, producer)]),
    }
}

fn channel(peer: SlotId) -> ChannelPlan {
    ChannelPlan { channel: 0, peer, input: 0, schema: Pair::SCHEMA.fingerprint }
}

/// Turns the slot until `step` is done; `step` returns (did something, is done).
fn run(
    slot: &mut Exchange<AnyRing>,
    mut step: impl FnMut(&mut Exchange<AnyRing>) -> Result<(bool, bool), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
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

fn prepare(slot: &mut Exchange<AnyRing>, plan: &AttemptPlan) -> Result<TaskIds, Box<dyn Error>> {
    let ids = slot.prepare(plan)?.remove(0);
    run(slot, |slot| Ok((false, slot.prepared(1, 1) != Prepared::Pending)))?;
    Ok(ids)
}

fn produce(records: &str) -> Result<(), Box<dyn Error>> {
    let count: u64 = records.parse()?;
    let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into(), Default::default())?;
    let mut slot = slot(&endpoint, PRODUCER)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["consume", &endpoint.address().to_string(), records])
        .spawn()?;
    let partitions =
        vec![PartitionPlan { name: "pairs".into(), broadcast: false, channels: vec![channel(CONSUMER)] }];
    let ids =
        prepare(&mut slot, &plan(vec![TaskPorts { task: 0, gate: None, partitions }], endpoint.address()))?;
    let id = ids.partitions[0];
    let (mut next, mut ended) = (0, false);
    run(&mut slot, |slot| {
        let mut output = slot.ports.output(id);
        let before = next;
        while next < count && output.writable() {
            output.write(0, &Pair { key: next, value: 1 })?;
            next += 1;
        }
        if next == count && !ended && output.event_room() {
            output.event(Event::EndOfPartition);
            ended = true;
        }
        Ok((next > before, ended && output.drained()))
    })?;
    slot.retire(1, 1);
    run(&mut slot, |slot| Ok((false, slot.closed(1, 1))))?;
    println!("producer: {:?}\nproducer: {:?}", slot.ports.counters(), slot.driver());
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("the consumer ended with {status}").into()) }
}

fn consume(address: &str, records: &str) -> Result<(), Box<dyn Error>> {
    let count: u64 = records.parse()?;
    let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into(), Default::default())?;
    let mut slot = slot(&endpoint, CONSUMER)?;
    let gate = GatePlan { name: "sum".into(), channels: vec![channel(PRODUCER)] };
    let tasks = vec![TaskPorts { task: 0, gate: Some(gate), partitions: vec![] }];
    let ids = prepare(&mut slot, &plan(tasks, address.parse()?))?;
    let gate = ids.gate.ok_or("the plan has a gate")?;
    let arena = slot.ports.arena().clone();
    let start = Instant::now();
    let (mut seen, mut keys) = (0_u64, 0_u64);
    run(&mut slot, |slot| {
        let mut input = slot.ports.input(gate);
        let (mut moved, mut done) = (false, false);
        while let Some(item) = input.poll() {
            moved = true;
            match item {
                GateItem::Data(buffer) => {
                    for pair in Pair::as_slice(buffer.bytes(&arena))? {
                        seen += pair.value;
                        keys = keys.wrapping_add(pair.key);
                    }
                    input.release(buffer);
                }
                GateItem::EndOfPartition => done = true,
                _ => {}
            }
        }
        Ok((moved, done))
    })?;
    let elapsed = start.elapsed();
    slot.retire(1, 1);
    run(&mut slot, |slot| Ok((false, slot.closed(1, 1))))?;
    let expected = count.wrapping_mul(count.wrapping_sub(1)) / 2;
    if (seen, keys) != (count, expected) {
        return Err(format!("expected {count} records and sum {expected}, found {seen} and {keys}").into());
    }
    let rate = seen as f64 / elapsed.max(Duration::from_nanos(1)).as_secs_f64();
    println!("{seen} records in {elapsed:.2?}: {:.1} M records/s, {:.2} GB/s", rate / 1e6, rate * 16.0 / 1e9);
    println!("consumer: {:?}\nconsumer: {:?}", slot.ports.counters(), slot.driver());
    Ok(())
}
