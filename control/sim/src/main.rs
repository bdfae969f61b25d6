//! `tidegate-sim`: runs seeds of the simulated cluster and says what happened.
//!
//! Exit codes: 0 all seeds are right, 1 a seed is not, 64 the command line is wrong.

mod cluster;
mod disk;
#[cfg(test)]
mod failing;
mod faults;
mod history;
mod host;
#[cfg(test)]
mod lasting;
mod leader;
mod ledger;
mod objects;
mod run;
mod shell;
mod store;
mod wires;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;

use crate::faults::KINDS;
use crate::run::{Tally, Wrong, run};
#[cfg(feature = "plant")]
use tidegate_exchange::plant::{Plant, Rare, plant};

/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Of the first seed that is wrong, so many of the last lines are told.
const LINES: usize = 60;

/// Runs the real TaskManagers and JobManagers, without threads, on a network, a disk and clocks with accidents, and holds
/// every committed row against a plain loop. A failure names its seed; the same seed gives the same run.
#[derive(Parser, Debug)]
#[command(name = "tidegate-sim", version)]
struct Cli {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Begin at one that nobody chose; it is told.
    #[arg(long, conflicts_with = "seed")]
    random: bool,
    /// Say what happens in each run.
    #[arg(long)]
    trace: bool,
    /// Run every seed twice and compare.
    #[arg(long)]
    twice: bool,
    /// Put a bug into the runtime first; a seed that fails is what one wants then.
    #[cfg(feature = "plant")]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Plant::ALL.map(|(name, _)| name)))]
    plant: Option<String>,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) if cli.random => {
            // A hasher is seeded by the system, which is all that is wanted of it.
            let seed = RandomState::new().build_hasher().finish() >> 16;
            println!("seeds from {seed} on");
            Cli { seed, ..cli }
        }
        Ok(cli) => cli,
        Err(error) => {
            let usage = error.use_stderr();
            let _ = error.print();
            return if usage { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    #[cfg(feature = "plant")]
    plant(cli.plant.as_deref().and_then(Plant::named));
    // A broken assertion is reported with its seed; in the middle of a run it would only be in the way.
    std::panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let (tallies, wrong) = run_all(&cli);
    let Some((seed, wrong)) = wrong else {
        tallies.iter().flat_map(|(_, lines)| lines).for_each(|line| println!("{line}"));
        let tallies: Vec<Tally> = tallies.into_iter().map(|(tally, _)| tally).collect();
        report(&tallies, started.elapsed());
        return ExitCode::SUCCESS;
    };
    let Wrong { error, lines, .. } = *wrong;
    if cli.trace {
        return failed(seed, &error, &lines);
    }
    // Once more, to tell what happened.
    let lines = run(seed, true).map_or_else(|wrong| wrong.lines, |(_, lines)| lines);
    failed(seed, &error, &lines[lines.len().saturating_sub(LINES)..])
}

type Told = (Tally, Vec<String>);

/// Runs all seeds on all cores, each by itself; gives what those did that are right, and the first that is not.
fn run_all(cli: &Cli) -> (Vec<Told>, Option<(u64, Box<Wrong>)>) {
    let seeds = cli.seed..cli.seed.saturating_add(cli.seeds);
    let (next, done) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    // Who is wrong ends the run; seeds before it are still waited for, so that the first one is told.
    let limit = AtomicU64::new(seeds.end);
    let worker = || {
        let (mut told, mut wrong) = (Vec::new(), None);
        let mut shown = Instant::now();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= limit.load(Ordering::Relaxed) {
                return (told, wrong);
            }
            match run_one(cli, seed) {
                Ok(done) => told.push((seed, done)),
                Err(found) => {
                    limit.fetch_min(seed, Ordering::Relaxed);
                    wrong = Some((seed, Box::new(found)));
                }
            }
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if shown.elapsed() >= PROGRESS_EVERY {
                shown = Instant::now();
                eprintln!("{done} of {} seeds", cli.seeds);
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let ends: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("invariant: a panic in a run is caught"))
            .collect()
    });
    let (told, wrong): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
    let mut told: Vec<(u64, Told)> = told.into_iter().flatten().collect();
    told.sort_by_key(|(seed, _)| *seed);
    let wrong = wrong.into_iter().flatten().min_by_key(|(seed, _)| *seed);
    (told.into_iter().map(|(_, told)| told).collect(), wrong)
}

fn run_one(cli: &Cli, seed: u64) -> Result<Told, Wrong> {
    let result = run(seed, cli.trace);
    if cli.twice {
        let again = run(seed, false);
        if trace_of(&again) != trace_of(&result) {
            let error = "two runs of this seed differ".to_owned();
            return Err(Wrong { error, tally: Tally::default(), lines: Vec::new() });
        }
    }
    result
}

fn trace_of(result: &Result<(Tally, Vec<String>), Wrong>) -> u64 {
    match result {
        Ok((tally, _)) | Err(Wrong { tally, .. }) => tally.trace,
    }
}

fn failed(seed: u64, error: &str, lines: &[String]) -> ExitCode {
    lines.iter().for_each(|line| println!("{line}"));
    println!("seed {seed} is wrong: {error}");
    println!("again, with all that happens: tidegate-sim --seed {seed} --seeds 1 --trace");
    ExitCode::FAILURE
}

fn report(tallies: &[Tally], took: Duration) {
    let sum = |field: &dyn Fn(&Tally) -> u64| tallies.iter().map(field).sum::<u64>();
    let median = |field: fn(&Tally) -> u64| {
        let mut values: Vec<u64> = tallies.iter().map(field).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    };
    let seeds = tallies.len();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let a_second = seeds as f64 / took.as_secs_f64().max(1e-9);
    println!(
        "{seeds} seeds in {:.1} s, {a_second:.1} a second, {:.1} a second and core, {:.4} simulated hours",
        took.as_secs_f64(),
        a_second / cores as f64,
        sum(&|tally| tally.virtual_ns) as f64 / 3.6e12
    );
    println!(
        "of one seed, median: {} rows, {} checkpoints, {} faults",
        median(|tally| tally.records),
        median(|tally| tally.checkpoints),
        median(Tally::faults)
    );
    let figures: [(&str, u64); 9] = [
        ("rows committed and right", sum(&|tally| tally.records)),
        ("checkpoints", sum(&|tally| tally.checkpoints)),
        ("restarts", sum(&|tally| tally.restarts)),
        ("JobManagers", sum(&|tally| tally.leaders)),
        ("bits flipped in the network", sum(&|tally| tally.flips)),
        ("bits that rotted in the store", sum(&|tally| tally.rots)),
        ("partial sends and receives", sum(&|tally| tally.short)),
        ("late completions", sum(&|tally| tally.late)),
        ("accidents", sum(&Tally::faults)),
    ];
    let struck = KINDS.into_iter().enumerate().map(|(kind, name)| (name, sum(&|tally| tally.struck[kind])));
    #[cfg(feature = "plant")]
    let struck =
        struck.chain(Rare::NAMES.iter().enumerate().map(|(at, name)| (*name, sum(&|tally| tally.rare[at]))));
    for (name, count) in figures.into_iter().chain(struck) {
        println!("{count:>14}  {name}");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use super::run::{Wrong, run};

    /// One test at a time: a planted bug is everybody's.
    pub static ALONE: Mutex<()> = Mutex::new(());

    /// What the command runs by the thousand, in a small way; each seed twice, since a run that cannot be replayed proves
    /// little.
    #[test]
    fn seeds_are_right_and_replay() {
        let _alone = ALONE.lock();
        for seed in 1..=60 {
            let [first, second] = [(); 2].map(|()| run(seed, false));
            let [first, second] = [first, second].map(|run| match run {
                Ok((tally, _)) => tally.trace,
                Err(Wrong { error, .. }) => panic!("seed {seed}: {error}"),
            });
            assert_eq!(first, second, "seed {seed}");
        }
    }

    /// Each rare point is struck by some seed, or it is not where it should be.
    #[cfg(feature = "plant")]
    #[test]
    fn rare_points_are_struck() {
        use tidegate_exchange::plant::Rare;
        const SEEDS: u64 = 200;
        let _alone = ALONE.lock();
        let mut struck = [0; Rare::NAMES.len()];
        for seed in 1..=SEEDS {
            let Ok((tally, _)) = run(seed, false) else { panic!("seed {seed} is wrong") };
            struck.iter_mut().zip(tally.rare).for_each(|(sum, count)| *sum += count);
        }
        let never: Vec<_> = Rare::NAMES.iter().zip(struck).filter(|(_, count)| *count == 0).collect();
        assert!(never.is_empty(), "not struck by {SEEDS} seeds: {never:?}");
    }

    /// The first of so many seeds that is wrong, looked for on all cores.
    #[cfg(feature = "plant")]
    fn first_wrong(seeds: u64) -> Option<u64> {
        use std::sync::atomic::{AtomicU64, Ordering};
        let (next, limit) = (AtomicU64::new(1), AtomicU64::new(seeds + 1));
        let worker = || {
            while let seed = next.fetch_add(1, Ordering::Relaxed)
                && seed < limit.load(Ordering::Relaxed)
            {
                if run(seed, false).is_err() {
                    limit.fetch_min(seed, Ordering::Relaxed);
                }
            }
        };
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(worker))));
        Some(limit.into_inner()).filter(|seed| *seed <= seeds)
    }

    /// The negative controls: with a rule dropped, some seed is wrong. (Those that are not here have a test of their own
    /// where the rule is kept.)
    #[cfg(feature = "plant")]
    #[test]
    fn planted_bugs_are_found() {
        use tidegate_exchange::plant::{Plant, plant};
        const SEEDS: u64 = 2_000;
        let mut unfound = Vec::new();
        let _alone = ALONE.lock();
        std::panic::set_hook(Box::new(|_| {}));
        // Found in a moment by a test of exchange (`tests/local.rs`), one of checkpoint (`tests/model`), the model of exchange
        // (`tests/model.rs`), and flow's own of credit that crosses a barrier: on a link that takes it is rare.
        let elsewhere =
            [Plant::LoseWakeUp, Plant::TakeAnyAcknowledgement, Plant::ForgetResume, Plant::TakeStaleGrant];
        for (name, bug) in Plant::ALL.into_iter().filter(|(_, bug)| !elsewhere.contains(bug)) {
            plant(Some(bug));
            let found = first_wrong(SEEDS);
            plant(None);
            let _ = std::panic::take_hook();
            match found {
                Some(seed) => println!("{name}: found by seed {seed}"),
                None => {
                    println!("{name}: not found by {SEEDS} seeds");
                    unfound.push(name);
                }
            }
            std::panic::set_hook(Box::new(|_| {}));
        }
        let _ = std::panic::take_hook();
        assert!(unfound.is_empty(), "not found by {SEEDS} seeds: {unfound:?}");
    }
}
