//! Two exchanges and nothing else: tasks that write on one thread, tasks that read on the other.
//!
//! Each thread is pinned and has a slot of its own; they are connected over loopback as two TaskManagers are, or by queues as
//! two slots of one. On the first are the producers, on the second the consumers, with a channel between each two (or each to
//! its own): so all channels share one link. What is missing to a job is its operators. The producers stop after a time, and
//! then the consumers must have seen every record once.
//!
//! Each side owns its exchange and its counts. Always: a side's turn comes after each task's quantum, as in a slot.

pub mod cases;
mod end;
mod setup;
mod tasks;

use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tidegate_arena::Shard;
use tidegate_exchange::{
    Endpoint, GateId, GateItem, GatePlan, LocalHub, PartitionPlan, SlotId, TaskIds, TaskPorts,
};
use tidegate_memory::this_thread;
use tidegate_record::{Record, Records};

use crate::forms::{self, PAIR_BYTES};
use crate::jobs::bytes::Opaque;
use crate::jobs::keyed::{Pair, Pairs};
use crate::jobs::numbered::Numbered;
use crate::process::pin;
use end::End;
pub use setup::{Found, Reading, Setup, Side, wire_bytes};
use tasks::Producer;

/// Buffers that a consumer reads before the network has its turn.
const BUFFERS: u32 = 4;
/// The TaskManager of the producers; that of the consumers, unless they are slots of one.
const PRODUCERS: SlotId = SlotId { taskmanager: 1, slot: 0 };
const CONSUMERS: SlotId = SlotId { taskmanager: 2, slot: 0 };
const CONSUMERS_LOCAL: SlotId = SlotId { taskmanager: 1, slot: 1 };

/// Runs it for about `time`.
///
/// # Errors
/// The exchange's, or not every record came once.
pub fn run(setup: &Setup, time: Duration, cores: [usize; 2]) -> Result<Found, String> {
    if setup.record_bytes == PAIR_BYTES {
        return run_of(setup, time, cores, || Pairs::new(1 << 20), |pair: &Pair| pair.value);
    }
    let whole = setup.reading == Reading::Whole;
    let of = |bytes: &<Vec<u8> as Record>::Archived| {
        if whole {
            std::hint::black_box(forms::sum_of_words(bytes));
        }
        bytes.first_chunk().map_or(u64::MAX, |word| u64::from_le_bytes(*word))
    };
    run_of(setup, time, cores, || Opaque::new(setup.record_bytes), of)
}

/// What a thread needs to become its side.
struct Seat<'a> {
    endpoint: &'a Endpoint,
    me: SlotId,
    shards: Box<dyn FnOnce() -> Result<Shard, String> + Send + 'a>,
    hub: LocalHub,
}

impl Seat<'_> {
    fn open(self, setup: &Setup) -> Result<End, String> {
        End::open(self.endpoint, self.me, (self.shards)()?, self.hub, setup.flush())
    }
}

fn run_of<N: Numbered>(
    setup: &Setup,
    time: Duration,
    cores: [usize; 2],
    records: impl Fn() -> N + Sync,
    number: impl Fn(&<N::Item as Record>::Archived) -> u64 + Sync,
) -> Result<Found, String>
where
    N::Item: Record,
{
    let (from, to) = (end::endpoint()?, end::endpoint()?);
    let (address, ready) = (from.address(), Barrier::new(2));
    let schema = N::Item::SCHEMA.fingerprint;
    let consumers = if setup.local { CONSUMERS_LOCAL } else { CONSUMERS };
    let hub = LocalHub::new();
    let [out, into] = setup.segments();
    let segment_bytes = setup.segment_bytes;
    let [first, second]: [Box<dyn FnOnce() -> Result<Shard, String> + Send>; 2] = if setup.local {
        let mut shards = end::arena(&[out, into], segment_bytes)?;
        let last = shards.pop().ok_or("an arena has its shards")?;
        let first = shards.pop().ok_or("an arena has its shards")?;
        [Box::new(move || Ok(first)), Box::new(move || Ok(last))]
    } else {
        // Each by its own thread, on its own core.
        let own = move |segments: u32| {
            move || {
                end::arena(&[segments], segment_bytes)?
                    .pop()
                    .ok_or_else(|| "an arena has its shard".to_owned())
            }
        };
        [Box::new(own(out)), Box::new(own(into))]
    };
    let producing = Seat { endpoint: &from, me: PRODUCERS, shards: first, hub: hub.clone() };
    let consuming =
        Seat { endpoint: if setup.local { &from } else { &to }, me: consumers, shards: second, hub };
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            pin(cores[0]);
            let end = producing.open(setup);
            ready.wait(); // Both listen, or the first dial is refused and comes again later.
            produce(end?, setup, time, (consumers, schema), address, &records)
        });
        let receiver = scope.spawn(|| {
            pin(cores[1]);
            let end = consuming.open(setup);
            ready.wait();
            consume::<N::Item>(end?, setup, schema, address, &number)
        });
        let died = "a side panicked";
        (
            sender.join().unwrap_or_else(|_| Err(died.to_owned())),
            receiver.join().unwrap_or_else(|_| Err(died.to_owned())),
        )
    });
    let ((sender, seconds), mut receiver) = (sent?, received?);
    let mut expected = (sender.records * setup.copies(), sender.sum.wrapping_mul(setup.copies()));
    if setup.reading == Reading::Nothing {
        expected.1 = 0;
    }
    if (receiver.records, receiver.sum) != expected {
        return Err(format!(
            "{} records with the sum {} were expected, {} with {} came",
            expected.0, expected.1, receiver.records, receiver.sum
        ));
    }
    if setup.local {
        receiver.bytes = receiver.records * wire_bytes(setup.record_bytes) as u64; // No link counts them.
    }
    Ok(Found { seconds, sender, receiver })
}

/// Prepares the tasks of one side; gives the bytes of heap they took, too.
fn prepare(
    end: &mut End,
    setup: &Setup,
    tasks: Vec<TaskPorts>,
    producers: SocketAddr,
) -> Result<(Vec<TaskIds>, i64), String> {
    let before = this_thread().current_bytes();
    let ids = end.prepare(tasks, (PRODUCERS.taskmanager, producers), setup.record_max())?;
    Ok((ids, this_thread().current_bytes() - before))
}

fn produce<N: Numbered>(
    mut end: End,
    setup: &Setup,
    time: Duration,
    (peer, schema): (SlotId, u64),
    me: SocketAddr,
    records: impl Fn() -> N,
) -> Result<(Side, f64), String>
where
    N::Item: Record,
{
    let task = |task| {
        let channels = setup.channels_of(task, true, peer, schema);
        let partition = PartitionPlan { name: "out".into(), broadcast: setup.broadcast, channels };
        TaskPorts { task, gate: None, partitions: vec![partition] }
    };
    let (ids, heap_bytes) = prepare(&mut end, setup, (0..setup.producers).map(task).collect(), me)?;
    let mut producers: Vec<_> = ids
        .iter()
        .filter_map(|ids| ids.partitions.first())
        .map(|&partition| Producer::new(partition, setup, records()))
        .collect();
    let (start, cpu_ns) = (Instant::now(), cpu_ns());
    let mut at = 0;
    end.turn_until(|slot| {
        let over = start.elapsed() >= time;
        let mut moved = false;
        // One producer that can write has its quantum; then the network has its turn.
        for _ in 0..producers.len() {
            at = (at + 1) % producers.len();
            if producers[at].step(slot, over)? {
                moved = true;
                break;
            }
        }
        Ok((moved, over && producers.iter().all(|producer| producer.drained(slot))))
    })?;
    let counters = end.slot.ports.counters();
    let side = Side {
        records: producers.iter().map(Producer::written).sum(),
        blocked: 0,
        bytes: counters.payload_bytes_sent,
        trains: counters.trains_sent,
        waits: end.waits,
        cpu_ns: self::cpu_ns() - cpu_ns,
        heap_bytes,
        sum: producers
            .iter()
            .fold(0, |sum, producer| sum.wrapping_add(forms::sum_of_numbers(producer.written()))),
    };
    let seconds = start.elapsed().as_secs_f64();
    end.retire()?;
    Ok((side, seconds))
}

fn consume<T: Record>(
    mut end: End,
    setup: &Setup,
    schema: u64,
    producers: SocketAddr,
    number: impl Fn(&T::Archived) -> u64,
) -> Result<Side, String> {
    let task = |task| {
        let channels = setup.channels_of(task, false, PRODUCERS, schema);
        TaskPorts { task, gate: Some(GatePlan { name: "in".into(), channels }), partitions: Vec::new() }
    };
    let (ids, heap_bytes) = prepare(&mut end, setup, (0..setup.consumers).map(task).collect(), producers)?;
    let gates: Vec<GateId> = ids.iter().filter_map(|ids| ids.gate).collect();
    let blocked = setup.blocked as usize;
    let arena = end.slot.ports.arena().clone();
    let mut side = Side { heap_bytes, ..Side::default() };
    let (mut at, mut ended) = (0, 0);
    let cpu_ns = cpu_ns();
    end.turn_until(|slot| {
        // The blocked ones come first in the list, and are passed over until they are all that is left.
        let first = if ended + blocked >= gates.len() { 0 } else { blocked };
        let readable = |next: &usize| *next >= first && slot.ports.readable(gates[*next]);
        let Some(next) = (1..=gates.len()).map(|next| (at + next) % gates.len()).find(readable) else {
            return Ok((false, ended == gates.len()));
        };
        at = next;
        let mut input = slot.ports.input(gates[at]);
        let before = side.records;
        for _ in 0..BUFFERS {
            match input.poll() {
                Some(GateItem::Data(buffer)) => {
                    if setup.reading == Reading::Nothing {
                        side.records += 1;
                    } else {
                        for record in Records::<T>::new(buffer.bytes(&arena)) {
                            let record = record.map_err(|error| error.to_string())?;
                            side.sum = side.sum.wrapping_add(number(record));
                            side.records += 1;
                        }
                    }
                    input.release(buffer);
                }
                Some(GateItem::EndOfPartition) => ended += 1,
                Some(_) => {}
                None => break,
            }
        }
        if at < blocked {
            side.blocked += side.records - before;
        }
        Ok((true, ended == gates.len()))
    })?;
    let counters = end.slot.ports.counters();
    side.cpu_ns = self::cpu_ns() - cpu_ns;
    (side.bytes, side.trains, side.waits) =
        (counters.payload_bytes_received, counters.trains_received, end.waits);
    end.retire()?;
    Ok(side)
}

/// Processor time of this thread.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_millis(10);

    #[test]
    fn every_record_comes_once_whatever_the_shape() {
        for setup in [
            Setup { record_bytes: 16, ..Setup::ONE },
            Setup { producers: 3, consumers: 5, segment_bytes: 4 << 10, ..Setup::ONE },
            Setup { consumers: 10, hot: 0.9, ..Setup::ONE },
            Setup { record_bytes: 64 << 10, segment_bytes: 128 << 10, ..Setup::ONE },
            Setup { producers: 4, consumers: 4, paired: true, segment_bytes: 4 << 10, ..Setup::ONE },
            Setup { record_bytes: 100 << 10, reading: Reading::Whole, ..Setup::ONE },
            Setup { consumers: 10, flush_ms: 1, ..Setup::ONE },
            Setup { producers: 2, consumers: 3, parallel: 4, segment_bytes: 4 << 10, ..Setup::ONE },
        ] {
            let found = run(&setup, TIME, [0, 0]).unwrap();
            assert_eq!(found.sender.records, found.receiver.records, "{setup:?}");
            assert_eq!(found.receiver.bytes, found.receiver.records * wire_bytes(setup.record_bytes) as u64);
            assert!(found.sender.trains > 0 && found.receiver.trains > 0, "{found:?}");
        }
    }

    #[test]
    fn slots_of_one_process_need_no_link() {
        let setup = Setup { record_bytes: 16, local: true, ..Setup::ONE };
        let found = run(&setup, TIME, [0, 0]).unwrap();
        assert!(found.receiver.records > 0 && found.sender.trains == 0, "{found:?}");
    }

    #[test]
    fn a_broadcast_is_read_by_all() {
        let setup = Setup { consumers: 4, broadcast: true, ..Setup::ONE };
        let found = run(&setup, TIME, [0, 0]).unwrap();
        assert_eq!(found.receiver.records, 4 * found.sender.records);
        assert!(found.sender.records > 0);
    }

    #[test]
    fn a_blocked_consumer_gets_what_its_credit_allows_and_the_others_the_rest() {
        let setup = Setup { producers: 10, consumers: 10, paired: true, blocked: 1, ..Setup::ONE };
        let found = run(&setup, 5 * TIME, [0, 0]).unwrap();
        assert!(found.receiver.blocked > 0, "it reads when the others are done: {found:?}");
        assert!(found.receiver.blocked < found.receiver.records, "{found:?}");
        let free = run(&Setup { blocked: 0, ..setup }, TIME, [0, 0]).unwrap();
        assert_eq!(free.receiver.blocked, 0);
        assert!(free.sender.heap_bytes > 0 && free.receiver.heap_bytes > 0, "{free:?}");
    }
}
