//! One seed: a shape, a weather, a plan of accidents, a run to the end, and the verdict.
//!
//! Nothing outlives a run. Always: the same seed gives the same run; a run ends with the whole output checked, or with the
//! reason why not.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tidegate_ring::sim::{Random, SimCounts, Weather};

use crate::cluster::{Cluster, DEADLOCK, Shape};
use crate::ledger::Reference;

/// Accidents of one run, at most; after that the sun shines and the job must come to its end.
const ACCIDENTS_MAX: u64 = 6;

/// What happened in a run, or in many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub records: u64,
    pub checkpoints: u64,
    pub restarts: u64,
    pub crashes: u64,
    pub cuts: u64,
    pub stalls: u64,
    pub aborts: u64,
    pub flips: u64,
    pub short: u64,
    pub late: u64,
    pub virtual_ns: u64,
    pub trace: u64,
}

impl Tally {
    /// Accidents of all kinds.
    pub fn faults(&self) -> u64 {
        self.crashes + self.cuts + self.stalls + self.aborts + self.flips
    }
}

fn shape(random: &mut Random) -> Shape {
    let hosts = random.within([2, 3]);
    let slots = random.within([1, 2]) as u32;
    let parallelism = random.within([2, hosts * u64::from(slots)]) as u32;
    Shape {
        hosts,
        slots,
        parallelism,
        records: random.within([1_000, 3_000]),
        // From hardly enough to plenty.
        segments: [96, 128, 256, 512][random.below(4) as usize],
        quantum: [1, 3, 9, 40][random.below(4) as usize],
        buffers: random.within([24, 64]) as usize,
        zero_copy: random.chance(16_384),
    }
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

/// Runs a seed.
///
/// # Errors
/// What is wrong, in words, with what happened up to there.
pub fn run(seed: u64, trace: bool) -> Result<Tally, (String, Tally)> {
    let mut random = Random::new(seed);
    let (shape, weather) = (shape(&mut random), weather(&mut random));
    let mut tally = Tally::default();
    let say = |line: &dyn Fn() -> String| {
        if trace {
            println!("{}", line());
        }
    };
    say(&|| format!("{shape:?}\n{weather:?}"));
    let mut cluster = match Cluster::new(random.fork(), shape, weather) {
        Ok(cluster) => cluster,
        Err(error) => return Err((error, tally)),
    };
    let result = caught(|| drive(&mut cluster, weather, &mut random, &mut tally, &say));
    let SimCounts { short, late, flips, .. } = cluster.net.counts();
    (tally.short, tally.late, tally.flips) = (short, late, flips);
    tally.virtual_ns = cluster.net.now_ns();
    tally.trace = cluster.trace_hash();
    result.map(|()| tally).map_err(|error| (error, tally))
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
    say: &dyn Fn(&dyn Fn() -> String),
) -> Result<(), String> {
    let shape = cluster.shape;
    let reference = Reference::new(shape.records, u64::from(shape.parallelism), shape.parallelism);
    let mut accidents = random.within([2, ACCIDENTS_MAX]);
    let mut calm_failures = 0;
    loop {
        let now = cluster.net.now_ns();
        say(&|| format!("{now} ns: attempt begins, {accidents} accidents to come"));
        if accidents == 0 {
            cluster.net.set_weather(Weather { flip: 0, ..weather });
        }
        let result = attempt(cluster, random, tally, &mut accidents, say);
        let now = cluster.net.now_ns();
        match result {
            Ok(()) => break,
            Err(error) if error.starts_with(DEADLOCK) => return Err(error),
            Err(error) => {
                say(&|| format!("{now} ns: attempt failed: {error}"));
                tally.restarts += 1;
                // The attempt in which the last accident struck may fail, too.
                calm_failures += u64::from(accidents == 0);
                if calm_failures > 2 {
                    return Err(format!("the job fails without an accident: {error}"));
                }
                cluster.cancel()?;
                reference.check_part(&cluster.manager)?;
            }
        }
    }
    cluster.check_leaks()?;
    tally.records = reference.check_whole(&cluster.manager)?;
    Ok(())
}

/// One attempt: runs, checkpoints and accidents until it ends or fails.
fn attempt(
    cluster: &mut Cluster,
    random: &mut Random,
    tally: &mut Tally,
    accidents: &mut u64,
    say: &dyn Fn(&dyn Fn() -> String),
) -> Result<(), String> {
    cluster.deploy()?;
    // A quiet run takes about eight of these.
    let Shape { records, parallelism, quantum, .. } = cluster.shape;
    let pace = 2 + records / u64::from(parallelism * quantum) / 4;
    let mut completed = cluster.manager.completed();
    loop {
        if cluster.manager.completed() != completed {
            completed = cluster.manager.completed();
            tally.checkpoints += 1;
        }
        // For a while nothing but work, sometimes with a checkpoint under way.
        let turns = random.within([1, pace]);
        for _ in 0..turns {
            if let Some(failure) = cluster.manager.failure() {
                return Err(failure.to_owned());
            }
            cluster.step()?;
        }
        if *accidents > 0 && random.chance(16_384) {
            *accidents -= 1;
            accident(cluster, random, tally, say)?;
            continue;
        }
        if cluster.manager.ended() && !cluster.manager.checkpointing() {
            let last = cluster.manager.trigger(true);
            // What is left of the accidents may strike the final checkpoint.
            if *accidents > 0 {
                *accidents -= 1;
                for _ in 0..random.below(60) {
                    cluster.step()?;
                }
                accident(cluster, random, tally, say)?;
            }
            let complete = |cluster: &Cluster| cluster.manager.completed() == Some(last);
            cluster.run_until(|cluster| match cluster.manager.checkpointing() {
                true => false,
                false if complete(cluster) => cluster.manager.finished() && cluster.closed(),
                false => true,
            })?;
            if complete(cluster) {
                tally.checkpoints += 1;
                return Ok(());
            }
            continue;
        }
        if !cluster.manager.checkpointing() {
            cluster.manager.trigger(false);
        }
    }
}

fn accident(
    cluster: &mut Cluster,
    random: &mut Random,
    tally: &mut Tally,
    say: &dyn Fn(&dyn Fn() -> String),
) -> Result<(), String> {
    let now = cluster.net.now_ns();
    let host = random.below(cluster.hosts() as u64);
    match random.below(4) {
        0 => {
            say(&|| format!("{now} ns: host {} crashes", host + 1));
            tally.crashes += 1;
            cluster.crash(host as usize)?;
            Err(format!("host {} crashed", host + 1))
        }
        1 => {
            if cluster.net.reset_one() {
                say(&|| format!("{now} ns: a connection is reset"));
                tally.cuts += 1;
            }
            Ok(())
        }
        2 => {
            let to = (host + 1 + random.below(cluster.hosts() as u64 - 1)) % cluster.hosts() as u64;
            let for_ns = random.within([100_000, 50_000_000]);
            say(&|| format!("{now} ns: nothing gets from {} to {} for {for_ns} ns", host + 1, to + 1));
            tally.stalls += 1;
            cluster.net.stall(host + 1, to + 1, for_ns);
            Ok(())
        }
        _ => {
            if cluster.manager.checkpointing() {
                say(&|| format!("{now} ns: the checkpoint is given up"));
                tally.aborts += 1;
                cluster.manager.abort();
            }
            Ok(())
        }
    }
}
