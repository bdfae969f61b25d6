//! One seed: a shape, a weather, a plan of accidents, a run to the end, and the verdict.
//!
//! Nothing outlives a run. Always: the same seed gives the same run; a run ends with the whole output checked, or with the
//! reason why not.

use std::panic::{AssertUnwindSafe, catch_unwind};

#[cfg(feature = "plant")]
use tidegate_exchange::plant::rare::{self, Rare};
use tidegate_jobmanager::JobState;
use tidegate_ring::sim::{Random, SimCounts, Weather};

use crate::cluster::{Cluster, Event, MS, Shape};
use crate::faults::KINDS;
use crate::leader::records;
use crate::ledger::{Expected, OUT};

/// Accidents of one run, at most; after that the sun shines and the job must come to its end.
const ACCIDENTS_MAX: u64 = 8;

/// Turns between two accidents: up to two to the power of this.
const GAP_BITS: u64 = 12;

/// What an accident leaves behind may make an attempt fail for so long.
const AFTERMATH_NS: u64 = 10_000 * MS;

/// A job that is not over so long after the last accident never will be.
const END_NS: u64 = 400_000 * MS;

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub records: u64,
    pub checkpoints: u64,
    pub restarts: u64,
    pub leaders: u64,
    pub struck: [u64; KINDS.len()],
    pub rots: u64,
    pub flips: u64,
    pub short: u64,
    pub late: u64,
    pub virtual_ns: u64,
    pub trace: u64,
    /// Of each rare point, how often it was struck.
    #[cfg(feature = "plant")]
    pub rare: [u64; Rare::NAMES.len()],
}

impl Tally {
    /// Accidents of all kinds.
    pub fn faults(&self) -> u64 {
        self.struck.iter().sum::<u64>() + self.rots + self.flips
    }
}

/// Why a seed is wrong.
pub struct Wrong {
    pub error: String,
    pub tally: Tally,
    /// What happened, if it was to be told.
    pub lines: Vec<String>,
}

fn shape(random: &mut Random) -> Shape {
    let hosts = random.within([2, 3]);
    let slots = random.within([1, 2]) as u32;
    let parallelism = random.within([2, hosts * u64::from(slots)]) as u32;
    let store_ns = [MS / 10, MS, 4 * MS][random.below(3) as usize];
    let control_ns = [MS / 10, MS, 10 * MS][random.below(3) as usize];
    let quick_ms = 30 + 4 * (store_ns + control_ns) / MS;
    Shape {
        hosts,
        slots,
        parallelism,
        records: random.within([250, 800]),
        // From what the job needs at least to plenty.
        segments: [0, 96, 128, 512][random.below(4) as usize],
        quantum: [1, 3, 9, 40][random.below(4) as usize],
        zero_copy: random.chance(16_384),
        interval_ms: [10, 10, 20][random.below(3) as usize],
        // Long, or little more than a checkpoint takes when nothing is in its way.
        timeout_ms: [60_000, 400, quick_ms, quick_ms][random.below(4) as usize],
        retained: random.within([1, 4]) as usize,
        store_ns,
        control_ns,
    }
}

/// How often each rare point is struck, of 65,536: most never, the others now and then, often or mostly.
#[cfg(feature = "plant")]
fn rates(random: &mut Random) -> [u32; Rare::NAMES.len()] {
    const RATES: [u32; 8] = [0, 0, 0, 0, 0, 300, 6_000, 40_000];
    // Half of the seeds have none, for accidents strike something else among them.
    if random.chance(32_768) {
        return [0; Rare::NAMES.len()];
    }
    std::array::from_fn(|point| {
        let rate = RATES[random.below(RATES.len() as u64) as usize];
        // What an attempt or a cleaning fails for must not happen all the time.
        let fatal = [Rare::AnswerLost, Rare::SuspectEarly, Rare::RefuseSlot].map(|point| point as usize);
        match () {
            // Asked at each acknowledgement, of which a checkpoint has many.
            () if point == Rare::ExpireEarly as usize => rate.min(RATES[5]),
            () if fatal.contains(&point) => rate.min(RATES[6]),
            () => rate,
        }
    })
}

fn weather(random: &mut Random) -> Weather {
    let rate = |random: &mut Random| [0, 1_000, 10_000, 30_000][random.below(4) as usize];
    Weather {
        latency_ns: [1_000, [5_000, 50_000, 500_000][random.below(3) as usize]],
        capacity: [512, [2_048, 16 << 10, 256 << 10][random.below(3) as usize]],
        short: rate(random),
        late: rate(random),
        late_ns: [0, 200_000],
        notification_ns: [1_000, 300_000],
        flip: [0, 0, 0, 40][random.below(4) as usize],
    }
}

/// Runs a seed; `told` asks for what happened.
///
/// # Errors
/// What is wrong, in words, with what happened up to there.
pub fn run(seed: u64, told: bool) -> Result<(Tally, Vec<String>), Wrong> {
    let mut random = Random::new(seed);
    let (shape, weather) = (shape(&mut random), weather(&mut random));
    let mut tally = Tally::default();
    let mut cluster = match Cluster::new(random.fork(), shape, weather, told) {
        Ok(cluster) => cluster,
        Err(error) => return Err(Wrong { error, tally, lines: Vec::new() }),
    };
    #[cfg(feature = "plant")]
    rare::begin(random.next(), rates(&mut random));
    let result = caught(|| drive(&mut cluster, weather, &mut random, &mut tally));
    #[cfg(feature = "plant")]
    tally.rare.iter_mut().zip(rare::end()).for_each(|(sum, struck)| *sum += struck);
    let SimCounts { short, late, flips, .. } = cluster.net.counts();
    (tally.short, tally.late, tally.flips) = (short, late, flips);
    (tally.checkpoints, tally.restarts) =
        (cluster.history.completed(), cluster.history.attempts().saturating_sub(1));
    tally.leaders = cluster.leaders.len() as u64;
    tally.virtual_ns = cluster.net.now_ns();
    tally.trace = cluster.trace_hash();
    let lines = cluster.lines.take().unwrap_or_default();
    match result {
        Ok(()) => Ok((tally, lines)),
        Err(error) => Err(Wrong { error, tally, lines }),
    }
}

/// Runs a seed without accidents, but one call on a file fails: which of a site's. Gives the calls of each site.
///
/// # Errors
/// What is wrong, in words.
#[cfg(test)]
pub fn run_failing(
    seed: u64,
    fails: Option<(String, u64)>,
) -> Result<std::collections::BTreeMap<String, u64>, String> {
    let mut random = Random::new(seed);
    let (shape, weather) = (shape(&mut random), weather(&mut random));
    let weather = Weather { flip: 0, ..weather };
    let mut cluster = Cluster::new(random.fork(), shape, weather, false)?;
    cluster.disk.watch(fails);
    caught(|| drive_to_end(&mut cluster, weather, &mut Tally::default()))?;
    match cluster.disk.watched() {
        (sites, false) => Ok(sites),
        (_, true) => Err("the call was never made".to_owned()),
    }
}

/// A broken assertion of the runtime is a finding like any other.
fn caught(work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", words.unwrap_or_default()))
    })
}

fn drive(
    cluster: &mut Cluster,
    weather: Weather,
    random: &mut Random,
    tally: &mut Tally,
) -> Result<(), String> {
    let mut accidents = random.within([2, ACCIDENTS_MAX]);
    let rots = random.chance(16_384);
    if random.chance(4_000) {
        cluster.after(random.within([100, 400]) * MS, Event::Cancel);
    }
    while accidents > 0 && !cluster.over {
        // Now and then close together, mostly far apart.
        let turns = 1 << random.below(GAP_BITS);
        cluster.run(random.within([1, turns]))?;
        // Most of them wait until something runs.
        if cluster.idle() && !random.chance(2_000) {
            continue;
        }
        let kind = random.below(KINDS.len() as u64) as usize;
        if cluster.strike(kind)? {
            accidents -= 1;
            tally.struck[kind] += 1;
        }
        if rots && tally.rots == 0 && cluster.history.completed() > 0 && random.chance(32_768) {
            tally.rots += u64::from(cluster.rot());
        }
        cluster.reference.check(&cluster.disk, &Expected::Part)?;
    }
    drive_to_end(cluster, weather, tally)
}

/// Nothing befalls it any more: it must come to its end, and that must be right.
fn drive_to_end(cluster: &mut Cluster, weather: Weather, tally: &mut Tally) -> Result<(), String> {
    cluster.calm(weather)?;
    #[cfg(feature = "plant")]
    (tally.rare = rare::end());
    let calm_ns = cluster.net.now_ns();
    while !(cluster.over && cluster.idle()) {
        cluster.run(64)?;
        let now_ns = cluster.net.now_ns();
        if now_ns > calm_ns + END_NS {
            return Err(format!("the job does not come to its end\n{}", cluster.wait_graph()));
        }
        let late = cluster.stopped.values().filter(|at_ns| **at_ns > calm_ns + AFTERMATH_NS).count();
        if late > 1 {
            return Err(format!("the job fails in calm weather, {late} times by now"));
        }
    }
    // What came too late for the end must do no harm either.
    let over_ns = cluster.net.now_ns();
    while cluster.net.now_ns() < over_ns + 4_000 * MS {
        cluster.run(16)?;
    }
    verdict(cluster, tally)
}

fn verdict(cluster: &mut Cluster, tally: &mut Tally) -> Result<(), String> {
    (0..cluster.hosts.len()).try_for_each(|host| cluster.check_leaks(host))?;
    let found = records(&cluster.disk);
    let [(_, record)] = found.as_slice() else { return Err(format!("{} jobs have a record", found.len())) };
    let expected = match record.state {
        JobState::Finished => Expected::Whole,
        JobState::Canceled if cluster.cancelled && tally.rots == 0 => {
            tally.records = cluster.history.check_cut(&cluster.disk, &cluster.reference)?;
            return Ok(());
        }
        JobState::Canceled if cluster.cancelled => Expected::Part,
        JobState::Failed if tally.rots > 0 => Expected::Part,
        state => {
            let texts =
                record.exceptions.iter().map(|exception| format!("{}: {}", exception.name, exception.text));
            return Err(format!("the job is {state}\n{}", texts.collect::<Vec<_>>().join("\n")));
        }
    };
    tally.records = cluster.reference.check(&cluster.disk, &expected)?;
    // A leader that was replaced may begin an attempt after the end, and is deposed at its first commit: what its tasks
    // wrote is nobody's.
    let epoch = format!("-e{}-a", record.epoch);
    let pending = |path: &String| path.contains(tidegate_graph::PENDING) && path.contains(&epoch);
    let left: Vec<String> = cluster.disk.below(OUT).into_iter().filter(pending).collect();
    match left.first().filter(|_| record.state == JobState::Finished) {
        None => Ok(()),
        Some(file) => Err(format!("{} files are left pending, such as {file}", left.len())),
    }
}
