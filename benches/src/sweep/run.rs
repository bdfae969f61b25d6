//! One run of a sweep: tasks that write and tasks that read, with nothing between them but two exchanges and TCP.
//!
//! Two threads, each pinned, each with an arena and an exchange of its own, connected over loopback as two TaskManagers are.
//! On the first are the producers, on the second the consumers, with a channel between each two: so all channels share one
//! link, as those of two slots do. What is missing to a job is its operators. The producers stop after a time, and then the
//! consumers must have seen every record once.
//!
//! Each side owns its exchange and its counts. Always: a side's turn comes after each task's quantum, as in a slot.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize};
use tidegate_exchange::{
    AttemptPlan, ChannelPlan, Endpoint, Event, Exchange, ExchangeConfig, GateId, GateItem, GatePlan,
    LocalHub, PartitionId, PartitionPlan, Prepared, SlotId, TaskIds, TaskPorts,
};
use tidegate_record::{Record, Records};
use tidegate_ring::{AnyRing, EpollConfig, EpollRing, UringConfig, UringRing};

use crate::forms::{self, OPAQUE_OVERHEAD, PAIR_BYTES};
use crate::jobs::bytes::Opaque;
use crate::jobs::keyed::{Pair, Pairs};
use crate::jobs::numbered::Numbered;
use crate::process::pin;

/// Records that a producer writes before the network has its turn.
const QUANTUM: u32 = 4_096;
/// Buffers that a consumer reads before the network has its turn.
const BUFFERS: u32 = 4;
/// Most bytes of segments of a side.
const ARENA_BYTES: u64 = 512 << 20;
/// A run that has not ended by then hangs.
const HANGS: Duration = Duration::from_secs(120);
const PRODUCERS: SlotId = SlotId { taskmanager: 1, slot: 0 };
const CONSUMERS: SlotId = SlotId { taskmanager: 2, slot: 0 };
const JOB: u128 = 1;
const ATTEMPT: u32 = 1;

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Setup {
    pub producers: u32,
    pub consumers: u32,
    /// Bytes of a record: pairs of numbers for 16, opaque ones for more.
    pub record_bytes: usize,
    pub segment_bytes: u32,
    /// The part of the records that goes to the first consumer, besides its share of the others.
    pub hot: f64,
    /// Every record goes to every consumer.
    pub broadcast: bool,
}

impl Setup {
    /// One to one, records of 100 bytes.
    pub const ONE: Self = Self {
        producers: 1,
        consumers: 1,
        record_bytes: 100,
        segment_bytes: 32 << 10,
        hot: 0.0,
        broadcast: false,
    };

    /// How often each record is read.
    fn copies(&self) -> u64 {
        if self.broadcast { u64::from(self.consumers) } else { 1 }
    }
}

/// What one side did while records flowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Side {
    /// Records written or read.
    pub records: u64,
    /// Payload bytes sent or received.
    pub bytes: u64,
    /// Trains sent or received.
    pub trains: u64,
    /// How often its thread waited.
    pub waits: u64,
    /// Processor time of its thread, nanoseconds.
    pub cpu_ns: u64,
    /// All numbers of records added up, modulo 2^64.
    #[serde(skip)]
    sum: u64,
}

/// Both sides, and how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Found {
    pub seconds: f64,
    pub sender: Side,
    pub receiver: Side,
}

impl Found {
    /// Records read per second.
    pub fn per_second(&self) -> f64 {
        self.receiver.records as f64 / self.seconds
    }

    /// Payload bytes read per second.
    pub fn bytes_per_second(&self) -> f64 {
        self.receiver.bytes as f64 / self.seconds
    }

    /// Processor time of both sides per record read, nanoseconds.
    pub fn cpu_ns_per_record(&self) -> f64 {
        (self.sender.cpu_ns + self.receiver.cpu_ns) as f64 / self.receiver.records.max(1) as f64
    }
}

/// Runs it for about `time`.
///
/// # Errors
/// The exchange's, or not every record came once.
pub fn run(setup: &Setup, time: Duration, cores: [usize; 2]) -> Result<Found, String> {
    if setup.record_bytes == PAIR_BYTES {
        run_of(setup, time, cores, || Pairs::new(1 << 20), |pair: &Pair| pair.value)
    } else {
        let of = |bytes: &<Vec<u8> as Record>::Archived| {
            bytes.first_chunk().map_or(u64::MAX, |word| u64::from_le_bytes(*word))
        };
        run_of(setup, time, cores, || Opaque::new(setup.record_bytes), of)
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
    let bind = || Endpoint::bind(([127, 0, 0, 1], 0).into(), Default::default()).map_err(|e| e.to_string());
    let (from, to) = (bind()?, bind()?);
    let (address, ready) = (from.address(), Barrier::new(2));
    let schema = N::Item::SCHEMA.fingerprint;
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            pin(cores[0]);
            let end = End::open(&from, PRODUCERS, setup.segments().0, setup.segment_bytes);
            ready.wait(); // Both listen, or the first dial is refused and comes again later.
            end?.produce(setup, time, address, schema, &records)
        });
        let receiver = scope.spawn(|| {
            pin(cores[1]);
            let end = End::open(&to, CONSUMERS, setup.segments().1, setup.segment_bytes);
            ready.wait();
            end?.consume::<N::Item>(setup, address, schema, &number)
        });
        let died = || Err("a side panicked".to_owned());
        (
            sender.join().unwrap_or_else(|_| died()),
            receiver.join().unwrap_or_else(|_| Err("a side panicked".to_owned())),
        )
    });
    let ((sender, seconds), receiver) = (sent?, received?);
    let expected = (sender.records * setup.copies(), sender.sum.wrapping_mul(setup.copies()));
    if (receiver.records, receiver.sum) != expected {
        return Err(format!(
            "{} records with the sum {} were expected, {} with {} came",
            expected.0, expected.1, receiver.records, receiver.sum
        ));
    }
    Ok(Found { seconds, sender, receiver })
}

impl Setup {
    /// Segments that let both sides run without waiting for themselves, as the exchange counts them, within bounds.
    fn segments(&self) -> (u32, u32) {
        use tidegate_exchange::limits::{GATE_SEGMENTS_AHEAD, LINK_SEGMENTS, PARTITION_SEGMENTS_AHEAD};
        let most = (ARENA_BYTES / u64::from(self.segment_bytes)) as u32;
        let out = self.producers * (self.consumers + PARTITION_SEGMENTS_AHEAD) + LINK_SEGMENTS;
        let into = self.consumers * (2 * self.producers + GATE_SEGMENTS_AHEAD) + LINK_SEGMENTS;
        (out.min(most), into.min(most))
    }

    /// The channels of task `own`, one to each of `others`.
    fn channels(
        &self,
        others: u32,
        peer: SlotId,
        schema: u64,
        number: impl Fn(u32) -> u32,
    ) -> Vec<ChannelPlan> {
        (0..others).map(|other| ChannelPlan { channel: number(other), peer, input: 0, schema }).collect()
    }
}

/// One side.
struct End {
    slot: Exchange<AnyRing>,
    waits: u64,
}

impl End {
    fn open(endpoint: &Endpoint, me: SlotId, segments: u32, segment_bytes: u32) -> Result<Self, String> {
        let (arena, mut shards) = Arena::map(&ArenaConfig {
            segment_size: SegmentSize::new(segment_bytes).map_err(|error| error.to_string())?,
            shards: vec![segments],
            huge_pages: HugePages::Auto,
        })
        .map_err(|error| error.to_string())?;
        let ring: AnyRing = match UringRing::new(&arena, 0, &UringConfig::default()) {
            Ok(ring) => ring.into(),
            Err(_) => EpollRing::new(&arena, &EpollConfig::default()).map_err(|e| e.to_string())?.into(),
        };
        let shard = shards.pop().ok_or("an arena has its shard")?;
        let config = ExchangeConfig { me, cluster: 1 };
        let slot = Exchange::new(ring, shard, LocalHub::new(), endpoint.connector(), config);
        endpoint.register(me, slot.mailbox());
        Ok(Self { slot, waits: 0 })
    }

    /// Turns until `step` is done, which returns (did something, is done).
    fn turn_until(
        &mut self,
        mut step: impl FnMut(&mut Exchange<AnyRing>) -> Result<(bool, bool), String>,
    ) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let busy = self.slot.turn();
            let (moved, done) = step(&mut self.slot)?;
            if let Some(fault) = self.slot.take_fault() {
                return Err(fault.to_string());
            }
            if done {
                return Ok(());
            }
            if !busy && !moved {
                if start.elapsed() > HANGS {
                    return Err(format!("it hangs: {:?}", self.slot.ports.counters()));
                }
                self.waits += 1;
                self.slot.wait(Some(Duration::from_secs(1)));
            }
        }
    }

    fn prepare(&mut self, tasks: Vec<TaskPorts>, producers: SocketAddr) -> Result<Vec<TaskIds>, String> {
        let peers = BTreeMap::from([(PRODUCERS.taskmanager, producers)]);
        let plan = AttemptPlan { job: JOB, epoch: 1, attempt: ATTEMPT, tasks, peers, record_max: 0 };
        let ids = self.slot.prepare(&plan).map_err(|error| error.to_string())?;
        self.turn_until(|slot| Ok((false, slot.prepared(JOB, ATTEMPT) != Prepared::Pending)))?;
        self.waits = 0;
        Ok(ids)
    }

    fn retire(mut self) -> Result<(), String> {
        self.slot.retire(JOB, ATTEMPT);
        self.turn_until(|slot| Ok((false, slot.closed(JOB, ATTEMPT))))
    }

    fn produce<N: Numbered>(
        mut self,
        setup: &Setup,
        time: Duration,
        me: SocketAddr,
        schema: u64,
        records: impl Fn() -> N,
    ) -> Result<(Side, f64), String>
    where
        N::Item: Record,
    {
        let task = |task| {
            let channels =
                setup.channels(setup.consumers, CONSUMERS, schema, |other| task * setup.consumers + other);
            let partition = PartitionPlan { name: "out".into(), broadcast: setup.broadcast, channels };
            TaskPorts { task, gate: None, partitions: vec![partition] }
        };
        let ids = self.prepare((0..setup.producers).map(task).collect(), me)?;
        let mut producers: Vec<_> = ids
            .iter()
            .filter_map(|ids| ids.partitions.first())
            .map(|&partition| Producer::new(partition, setup, records()))
            .collect();
        let (start, cpu_ns) = (Instant::now(), cpu_ns());
        let mut at = 0;
        self.turn_until(|slot| {
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
        let counters = self.slot.ports.counters();
        let side = Side {
            records: producers.iter().map(|producer| producer.number).sum(),
            bytes: counters.payload_bytes_sent,
            trains: counters.trains_sent,
            waits: self.waits,
            cpu_ns: self::cpu_ns() - cpu_ns,
            sum: producers.iter().fold(0, |sum, p| sum.wrapping_add(forms::sum_of_numbers(p.number))),
        };
        let seconds = start.elapsed().as_secs_f64();
        self.retire()?;
        Ok((side, seconds))
    }

    fn consume<T: Record>(
        mut self,
        setup: &Setup,
        producers: SocketAddr,
        schema: u64,
        number: impl Fn(&T::Archived) -> u64,
    ) -> Result<Side, String> {
        let task = |task| {
            let channels =
                setup.channels(setup.producers, PRODUCERS, schema, |other| other * setup.consumers + task);
            TaskPorts { task, gate: Some(GatePlan { name: "in".into(), channels }), partitions: Vec::new() }
        };
        let ids = self.prepare((0..setup.consumers).map(task).collect(), producers)?;
        let gates: Vec<GateId> = ids.iter().filter_map(|ids| ids.gate).collect();
        let arena = self.slot.ports.arena().clone();
        let mut side = Side::default();
        let (mut at, mut ended) = (0, 0);
        let cpu_ns = cpu_ns();
        self.turn_until(|slot| {
            let Some(next) =
                (1..=gates.len()).find(|next| slot.ports.readable(gates[(at + next) % gates.len()]))
            else {
                return Ok((false, ended == gates.len()));
            };
            at = (at + next) % gates.len();
            let mut input = slot.ports.input(gates[at]);
            for _ in 0..BUFFERS {
                match input.poll() {
                    Some(GateItem::Data(buffer)) => {
                        for record in Records::<T>::new(buffer.bytes(&arena)) {
                            side.sum =
                                side.sum.wrapping_add(number(record.map_err(|error| error.to_string())?));
                            side.records += 1;
                        }
                        input.release(buffer);
                    }
                    Some(GateItem::EndOfPartition) => ended += 1,
                    Some(_) => {}
                    None => break,
                }
            }
            Ok((true, ended == gates.len()))
        })?;
        let counters = self.slot.ports.counters();
        side.cpu_ns = self::cpu_ns() - cpu_ns;
        (side.bytes, side.trains, side.waits) =
            (counters.payload_bytes_received, counters.trains_received, self.waits);
        self.retire()?;
        Ok(side)
    }
}

/// A task that writes.
struct Producer<N> {
    partition: PartitionId,
    records: N,
    number: u64,
    channel: u32,
    channels: u32,
    broadcast: bool,
    /// The part that goes to the first channel, and what of it is owed.
    hot: f64,
    owed: f64,
    ended: bool,
}

impl<N: Numbered> Producer<N>
where
    N::Item: Record,
{
    fn new(partition: PartitionId, setup: &Setup, records: N) -> Self {
        let Setup { consumers: channels, hot, broadcast, .. } = *setup;
        Self { partition, records, number: 0, channel: 0, channels, broadcast, hot, owed: 0.0, ended: false }
    }

    /// A quantum, or the end. False if there was nothing it could do.
    fn step(&mut self, slot: &mut Exchange<AnyRing>, over: bool) -> Result<bool, String> {
        let mut output = slot.ports.output(self.partition);
        if over {
            let ends = !self.ended && output.event_room();
            if ends {
                output.event(Event::EndOfPartition);
                self.ended = true;
            }
            return Ok(ends);
        }
        let before = self.number;
        while output.writable() && self.number - before < u64::from(QUANTUM) {
            let record = self.records.make();
            if self.broadcast {
                output.broadcast(record)
            } else {
                self.owed += self.hot;
                let channel = if self.owed >= 1.0 {
                    self.owed -= 1.0;
                    0
                } else {
                    self.channel = if self.channel + 1 >= self.channels { 0 } else { self.channel + 1 };
                    self.channel
                };
                output.write(channel, record)
            }
            .map_err(|error| error.to_string())?;
            self.number += 1;
        }
        Ok(self.number > before)
    }

    fn drained(&self, slot: &mut Exchange<AnyRing>) -> bool {
        self.ended && slot.ports.output(self.partition).drained()
    }
}

/// Processor time of this thread.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Bytes of a record in its segment.
pub fn wire_bytes(record_bytes: usize) -> usize {
    if record_bytes == PAIR_BYTES { PAIR_BYTES } else { record_bytes + OPAQUE_OVERHEAD }
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
        ] {
            let found = run(&setup, TIME, [0, 0]).unwrap();
            assert_eq!(found.sender.records, found.receiver.records, "{setup:?}");
            assert_eq!(found.receiver.bytes, found.receiver.records * wire_bytes(setup.record_bytes) as u64);
            assert!(found.sender.trains > 0 && found.receiver.trains > 0, "{found:?}");
        }
    }

    #[test]
    fn a_broadcast_is_read_by_all() {
        let setup = Setup { consumers: 4, broadcast: true, ..Setup::ONE };
        let found = run(&setup, TIME, [0, 0]).unwrap();
        assert_eq!(found.receiver.records, 4 * found.sender.records);
        assert!(found.sender.records > 0);
    }
}
