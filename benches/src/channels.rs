//! `shuffle --channels C`: the same records over C channels of one link, between two processes that have nothing but the
//! exchange. A job has one channel per pair of slots; a link between two TaskManagers of a hundred tasks each has 10,000.
//!
//! One task writes to all channels (the pairs by a hash of their key, opaque records in turns) and one reads them all, so
//! every queue and list of the link has to do with every channel. Each end owns its meter and leaves what it found in files.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize};
use tidegate_exchange::{
    AttemptPlan, ChannelPlan, Endpoint, Event, Exchange, ExchangeConfig, GateItem, GatePlan, LocalHub,
    PartitionPlan, Prepared, SlotId, TaskIds, TaskPorts,
};
use tidegate_record::Plain;
use tidegate_ring::{AnyRing, EpollConfig, EpollRing, SendMode as RingSendMode, UringConfig, UringRing};

use crate::floor::frames::{KeyedSum, Take, WordSum};
use crate::forms::{self, Keys};
use crate::meter::{self, Meter, SOURCE_FILE, SUM_FILE, TOTALS_FILE};
use crate::outcome::{Details, Outcome};
use crate::pairs::Sample;
use crate::process::Process;
use crate::shuffle::{Driver, Options, RUN_MAX, SendMode, word};
use crate::work::{Shape, Work};

/// First argument that makes this binary an end.
pub const ROLE: &str = "channels-end";
/// What the source's exchange did.
const SOURCE_COUNTS: &str = "source-counts.json";
/// What the receiver's did.
const SUM_COUNTS: &str = "sum-counts.json";
/// Records between two turns of the exchange, as a slot's quantum.
const QUANTUM: u32 = 4096;
/// Pairs whose channels are known before the first of them is written, so that their places are asked for together.
const AHEAD: usize = 64;
const SOURCE: SlotId = SlotId { taskmanager: 1, slot: 0 };
const SUM: SlotId = SlotId { taskmanager: 2, slot: 0 };

#[derive(Clone, Copy, Debug, Plain)]
#[repr(C)]
struct Pair {
    key: u64,
    value: u64,
}

/// Flags of both ends.
#[derive(Debug, Args)]
pub struct EndArgs {
    #[command(flatten)]
    work: Work,
    #[arg(long)]
    warm_up: u64,
    #[arg(long)]
    channels: u32,
    #[arg(long)]
    flush: u64,
    #[arg(long)]
    segments: u32,
    #[arg(long)]
    segment_size: u32,
    #[arg(long, value_enum)]
    driver: Driver,
    #[arg(long, value_enum)]
    send: SendMode,
    #[arg(long)]
    dir: PathBuf,
    /// Where the source listens; without it this is the source
    #[arg(long)]
    from: Option<SocketAddr>,
}

/// What one end's exchange did from the end of the warm-up on.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Counts {
    cpu_ns: u64,
    trains: u64,
    payload_bytes: u64,
    enters: u64,
    bytes: u64,
    zc_sends: u64,
    trial_sends: u64,
}

/// What only this benchmark has to say.
#[derive(Debug, Clone, Serialize)]
pub struct Channels {
    /// Logical channels of the link.
    pub channels: u32,
    /// Milliseconds that a partly filled segment waits for more.
    pub flush_ms: u64,
    /// Processor time of either end per record after the warm-up, nanoseconds.
    pub ends_ns: [f64; 2],
    /// Payload bytes of a train, on average.
    pub train_bytes: u64,
    /// Calls into the kernel per 64 KiB moved, those of the source and those of the receiver.
    pub enters_per_64k: [f64; 2],
    /// Zero-copy sends that were tried.
    pub zc_sends: u64,
    /// Sends that were measured.
    pub trial_sends: u64,
}

impl Channels {
    /// Of a whole run, with the processor time of both its ends after the warm-up.
    pub fn after_warm_up(&self, whole: Sample) -> Sample {
        Sample { cpu_ns_per_record: self.ends_ns.iter().sum(), ends_ns: self.ends_ns, ..whole }
    }
}

impl Details for Channels {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let [source, sum] = self.enters_per_64k;
        vec![
            ("channels", format!("{}, flushed every {} ms", self.channels, self.flush_ms)),
            ("cpu", format!("{:.2} ns/record", self.ends_ns.iter().sum::<f64>())),
            ("train", format!("{} bytes of payload", self.train_bytes)),
            ("calls per 64 KiB", format!("{source:.2} and {sum:.2}")),
            ("sends on trial", format!("{} zero-copy, {} measured", self.zc_sends, self.trial_sends)),
        ]
    }
}

/// Runs it.
///
/// # Errors
/// The run failed, or the result is wrong.
pub fn measure(options: &Options, channels: u32) -> Result<Outcome<Channels>, Box<dyn Error>> {
    let work = &options.work;
    let dir = tempfile::tempdir()?;
    let mut flags = work.flags();
    for (flag, value) in [
        ("--shape", work.shape.name().to_owned()),
        ("--channels", channels.to_string()),
        ("--flush", options.engine.flush.to_string()),
        ("--segments", options.engine.segments.to_string()),
        ("--segment-size", options.engine.segment_size.to_string()),
        ("--driver", word(&options.engine.driver)),
        ("--send", word(&options.engine.send)),
        ("--dir", dir.path().display().to_string()),
    ] {
        flags.extend([flag.to_owned(), value]);
    }
    let [source_core, sum_core] = work.cores;
    let mut source = Process::start(ROLE, &flags, Some(source_core), &dir.path().join("source.log"))?;
    flags.extend(["--from".to_owned(), source.address("data")?.to_owned()]);
    let mut sum = Process::start(ROLE, &flags, Some(sum_core), &dir.path().join("sum.log"))?;
    let cpu = [(source.pid(), source.wait(RUN_MAX)?), (sum.pid(), sum.wait(RUN_MAX)?)];
    let counts: [Counts; 2] =
        [meter::read(&dir.path().join(SOURCE_COUNTS))?, meter::read(&dir.path().join(SUM_COUNTS))?];
    let [out, into] = counts;
    let per_64k = |counts: Counts| counts.enters as f64 * 65_536.0 / counts.bytes.max(1) as f64;
    let details = Channels {
        channels,
        flush_ms: options.engine.flush,
        ends_ns: counts.map(|counts| counts.cpu_ns as f64 / work.measured() as f64),
        train_bytes: out.payload_bytes / out.trains.max(1),
        enters_per_64k: [per_64k(out), per_64k(into)],
        zc_sends: out.zc_sends,
        trial_sends: out.trial_sends,
    };
    Outcome::collect(dir.path(), work, &cpu, details)?.checked()
}

/// Is one end.
///
/// # Errors
/// It could not finish.
pub fn run(args: &EndArgs) -> Result<(), Box<dyn Error>> {
    let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into(), Default::default())?;
    let meter = |file| Meter::new(args.dir.join(file), args.warm_up, args.work.measured());
    match (args.from, args.work.shape) {
        (_, Shape::Bid) => Err("--channels has no shape bid: take keyed or bytes".into()),
        (None, _) => {
            let end = End::open(args, &endpoint, SOURCE)?;
            ready(&format!("data={}", endpoint.address()))?;
            source(args, end, meter(SOURCE_FILE), endpoint.address())
        }
        (Some(from), Shape::Keyed) => {
            sum(args, End::open(args, &endpoint, SUM)?, meter(SUM_FILE), from, KeyedSum::new(args.work.keys))
        }
        (Some(from), Shape::Bytes) => {
            sum(args, End::open(args, &endpoint, SUM)?, meter(SUM_FILE), from, WordSum::default())
        }
    }
}

fn ready(what: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "ready {what}")?;
    out.flush()
}

fn source(args: &EndArgs, mut end: End, mut meter: Meter, me: SocketAddr) -> Result<(), Box<dyn Error>> {
    let partition = PartitionPlan { name: "records".into(), broadcast: false, channels: channels(args, SUM) };
    let ids = end.prepare(TaskPorts { task: 0, gate: None, partitions: vec![partition] }, me)?;
    let id = *ids.partitions.first().ok_or("the plan has a partition")?;
    let count = u64::from(args.channels);
    let (mut keys, mut number, mut ended) = (Keys::new(args.work.keys), 0_u64, false);
    let mut bytes = forms::opaque_template(args.work.record_bytes as usize);
    let shape = args.work.shape;
    let (mut ahead, mut taken) = ([(0_u32, 0_u64); AHEAD], AHEAD);
    end.run(args.warm_up, |slot| {
        let mut output = slot.ports.output(id);
        let mut made = 0;
        while made < QUANTUM && meter.left() > u64::from(made) && output.writable() {
            if shape == Shape::Keyed {
                if taken == AHEAD {
                    for (channel, key) in &mut ahead {
                        *key = keys.step();
                        // The upper half of a product with the golden ratio, scaled to the channels.
                        *channel = (((key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) * count) >> 32) as u32;
                        output.prefetch(*channel);
                    }
                    taken = 0;
                }
                let (channel, key) = ahead[taken];
                taken += 1;
                output.write(channel, &Pair { key, value: number })?;
            } else {
                forms::number_opaque(&mut bytes, number);
                output.write((number % count) as u32, &bytes)?;
            }
            number += 1;
            made += 1;
        }
        if made > 0 {
            meter.count(u64::from(made));
        }
        if meter.left() == 0 && !ended && output.event_room() {
            output.event(Event::EndOfPartition);
            ended = true;
        }
        Ok((made > 0, ended && output.drained(), number))
    })?;
    end.leave(&args.dir.join(SOURCE_COUNTS))
}

fn sum(
    args: &EndArgs,
    mut end: End,
    mut meter: Meter,
    from: SocketAddr,
    mut take: impl Take,
) -> Result<(), Box<dyn Error>> {
    ready("")?;
    let gate = GatePlan { name: "sum".into(), channels: channels(args, SOURCE) };
    let ids = end.prepare(TaskPorts { task: 0, gate: Some(gate), partitions: vec![] }, from)?;
    let id = ids.gate.ok_or("the plan has a gate")?;
    let arena = end.slot.ports.arena().clone();
    let record = args.work.wire_bytes() as u64;
    let mut seen = 0;
    end.run(args.warm_up, |slot| {
        let mut input = slot.ports.input(id);
        let (mut moved, mut done, mut taken) = (false, false, 0);
        while taken < u64::from(QUANTUM)
            && let Some(item) = input.poll()
        {
            moved = true;
            match item {
                GateItem::Data(buffer) => {
                    let bytes = buffer.bytes(&arena);
                    take.take(bytes);
                    let records = bytes.len() as u64 / record;
                    input.release(buffer);
                    meter.count(records);
                    taken += records;
                }
                GateItem::EndOfPartition => done = true,
                _ => {}
            }
        }
        seen += taken;
        Ok((moved, done, seen))
    })?;
    meter::write(&args.dir.join(TOTALS_FILE), &take.totals());
    end.leave(&args.dir.join(SUM_COUNTS))
}

fn channels(args: &EndArgs, peer: SlotId) -> Vec<ChannelPlan> {
    (0..args.channels).map(|channel| ChannelPlan { channel, peer, input: 0, schema: 1 }).collect()
}

/// One process's exchange.
struct End {
    slot: Exchange<AnyRing>,
    before: Option<Counts>,
}

impl End {
    fn open(args: &EndArgs, endpoint: &Endpoint, me: SlotId) -> Result<Self, Box<dyn Error>> {
        let (arena, mut shards) = Arena::map(&ArenaConfig {
            segment_size: SegmentSize::new(args.segment_size)?,
            shards: vec![args.segments],
            huge_pages: HugePages::Auto,
        })?;
        let send = match args.send {
            SendMode::Auto => RingSendMode::Auto,
            SendMode::Fixed => RingSendMode::Fixed,
            SendMode::Plain => RingSendMode::Plain,
            SendMode::Zc => RingSendMode::Zc,
        };
        let ring: AnyRing = match args.driver {
            Driver::Epoll => EpollRing::new(&arena, &EpollConfig::default())?.into(),
            Driver::Auto | Driver::IoUring => {
                UringRing::new(&arena, 0, &UringConfig { send, ..UringConfig::default() })?.into()
            }
        };
        let shard = shards.pop().ok_or("an arena has its shard")?;
        let config = ExchangeConfig { me, cluster: 1 };
        let mut slot = Exchange::new(ring, shard, LocalHub::new(), endpoint.connector(), config);
        slot.set_flush(Duration::from_millis(args.flush));
        endpoint.register(me, slot.mailbox());
        Ok(Self { slot, before: None })
    }

    fn prepare(&mut self, task: TaskPorts, source: SocketAddr) -> Result<TaskIds, Box<dyn Error>> {
        let peers = BTreeMap::from([(SOURCE.taskmanager, source)]);
        let plan = AttemptPlan { job: 1, epoch: 1, attempt: 1, record_max: 0, tasks: vec![task], peers };
        let ids = self.slot.prepare(&plan)?.pop().ok_or("the plan has a task")?;
        self.turn_until(|slot| Ok((false, slot.prepared(1, 1) != Prepared::Pending)))?;
        Ok(ids)
    }

    /// Turns until `step` is done, which returns (did something, is done, records so far); counts from the warm-up's end.
    fn run(
        &mut self,
        warm_up: u64,
        mut step: impl FnMut(&mut Exchange<AnyRing>) -> Result<(bool, bool, u64), Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        let mut before = None;
        self.turn_until(|slot| {
            let (moved, done, records) = step(slot)?;
            if before.is_none() && records >= warm_up {
                before = Some(counts(slot));
            }
            Ok((moved, done))
        })?;
        self.before = before;
        Ok(())
    }

    fn turn_until(
        &mut self,
        mut step: impl FnMut(&mut Exchange<AnyRing>) -> Result<(bool, bool), Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        loop {
            let busy = self.slot.turn();
            let (moved, done) = step(&mut self.slot)?;
            if let Some(fault) = self.slot.take_fault() {
                return Err(fault.into());
            }
            if done {
                return Ok(());
            }
            if !busy && !moved {
                self.slot.wait(Some(Duration::from_secs(1)));
            }
        }
    }

    /// Leaves what it counted, and ends its link in order.
    fn leave(mut self, path: &Path) -> Result<(), Box<dyn Error>> {
        let (before, after) = (self.before.unwrap_or_default(), counts(&self.slot));
        meter::write(
            path,
            &Counts {
                cpu_ns: after.cpu_ns - before.cpu_ns,
                trains: after.trains - before.trains,
                payload_bytes: after.payload_bytes - before.payload_bytes,
                enters: after.enters - before.enters,
                bytes: after.bytes - before.bytes,
                // Trials are made when a link is new: all of them count.
                zc_sends: after.zc_sends,
                trial_sends: after.trial_sends,
            },
        );
        self.slot.retire(1, 1);
        self.turn_until(|slot| Ok((false, slot.closed(1, 1))))
    }
}

fn counts(slot: &Exchange<AnyRing>) -> Counts {
    let (exchange, driver) = (slot.ports.counters(), slot.driver().counters);
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    Counts {
        cpu_ns: cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64,
        trains: exchange.trains_sent,
        payload_bytes: exchange.payload_bytes_sent,
        enters: driver.enters,
        bytes: driver.bytes_sent + driver.bytes_received,
        zc_sends: driver.zc_sends,
        trial_sends: driver.trial_sends,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_those_after_the_warm_up() {
        let channels = Channels {
            channels: 1,
            flush_ms: 0,
            ends_ns: [2.0, 3.0],
            train_bytes: 0,
            enters_per_64k: [0.0; 2],
            zc_sends: 0,
            trial_sends: 0,
        };
        let whole = Sample {
            records_per_second: 7.0,
            cpu_ns_per_record: 90.0,
            ends_ns: [40.0, 50.0],
            ..Sample::default()
        };
        let found = channels.after_warm_up(whole);
        assert_eq!(
            (found.records_per_second, found.cpu_ns_per_record, found.ends_ns),
            (7.0, 5.0, [2.0, 3.0])
        );
    }
}
