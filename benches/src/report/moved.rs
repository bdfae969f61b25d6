//! The report's sections of throughput: what runs in turns with what. No state but how long each run has to be.
//!
//! Always: what a goal compares takes turns in one section.

use std::error::Error;
use std::time::Duration;

use serde::Serialize;

use super::{QUICK_SECONDS, Turns};
use crate::calibrate;
use crate::channels;
use crate::exchange::cases::Case;
use crate::floor::{self, Checksum};
use crate::pairs::{self, Comparison, Run, Sample};
use crate::shuffle::{self, Driver, Engine, Transport};
use crate::work::{Shape, Work};

/// Payload bytes of the first, short run of each benchmark, from which the length of the others is chosen.
const BYTES_FIRST: f64 = 64e6;
/// All records of a run with `--quick`.
const RECORDS_QUICK: u64 = 20_000;
/// By how much a run is planned longer than asked for, since the first run may have been slow.
const MARGIN: f64 = 1.2;
/// What a run takes besides: processes that start, and a warm-up.
const AROUND_SECONDS: f64 = 1.5;
/// Channels of a link of two TaskManagers of a hundred tasks each.
const MANY: u32 = 10_000;
/// For how long their segments wait for more.
const FLUSH_MS: u64 = 100;

/// Names of benchmarks that goals ask about.
pub const SHUFFLE: &str = "shuffle";
pub const UNMEASURED: &str = "shuffle, nothing measured";
pub const SHM: &str = "shuffle through shared memory";
pub const FLOOR: &str = "floor with CRC32C";
pub const RAW: &str = "raw stream with CRC32C";
pub const ONE_CHANNEL: &str = "1 channel";
pub const MANY_CHANNELS: &str = "10,000 channels";

/// Names of sections.
pub const KEYED: &str = "keyed";
pub const BYTES_100: &str = "bytes-100";
pub const BYTES_16000: &str = "bytes-16000";
pub const BID: &str = "bid";
pub const LOCAL: &str = "local";
pub const CHANNELS: &str = "channels";
pub const BLOCKED: &str = "blocked";
pub const SIZES: &str = "sizes";

/// Benchmarks that took turns.
#[derive(Debug, Serialize)]
pub struct Section {
    pub id: &'static str,
    pub title: String,
    /// What its lines are, beside what the notes say of all.
    pub note: &'static str,
    pub comparison: Comparison,
}

/// A section to be run.
pub struct Plan<'a> {
    id: &'static str,
    title: String,
    note: &'static str,
    runs: Vec<Run<'a>>,
}

impl Plan<'_> {
    pub fn title(&self) -> &str {
        &self.title
    }

    /// How long it will take, about.
    pub fn seconds(&self, turns: Turns) -> f64 {
        f64::from(turns.rounds) * self.runs.len() as f64 * (turns.seconds * MARGIN + AROUND_SECONDS)
    }

    /// Runs it.
    pub fn measure(self, turns: Turns) -> Section {
        let comparison = pairs::interleave(turns.rounds, self.runs);
        Section { id: self.id, title: self.title, note: self.note, comparison }
    }
}

/// All sections.
pub fn all<'a>(turns: Turns) -> Vec<Plan<'a>> {
    vec![keyed(turns), opaque(turns, BYTES_100, 100), opaque(turns, BYTES_16000, 16_000), bids(turns)]
        .into_iter()
        .chain([local(turns), channels(turns), blocked(turns), sizes(turns)])
        .collect()
}

fn keyed<'a>(turns: Turns) -> Plan<'a> {
    let work = work(turns, Shape::Keyed, 100);
    let engine = |engine| counted(turns, &work, through(engine));
    let mut runs = vec![
        (FLOOR, counted(turns, &work, checked)),
        ("floor", counted(turns, &work, bare)),
        (SHUFFLE, engine(Engine::default())),
        (UNMEASURED, engine(Engine { unmeasured: true, ..Engine::default() })),
        ("shuffle by epoll", engine(Engine { driver: Driver::Epoll, ..Engine::default() })),
    ];
    if turns.cores == [0, 1] {
        let local = Engine { transport: Transport::Local, ..Engine::default() };
        runs.push(("shuffle within a process", engine(local)));
    }
    Plan {
        id: KEYED,
        title: "Pairs of (u64, u64), summed by 100,000 keys".to_owned(),
        note: "CPU is that of the TaskManagers since the job was submitted, of the floor's two processes from their start, with the\n\
              warm-up.

",
        runs,
    }
}

fn opaque<'a>(turns: Turns, id: &'static str, bytes: u64) -> Plan<'a> {
    let work = work(turns, Shape::Bytes, bytes);
    let mut runs = vec![
        (RAW, counted(turns, &work, |work| calibrate::raw(&work))),
        (FLOOR, counted(turns, &work, checked)),
        (SHUFFLE, counted(turns, &work, through(Engine::default()))),
    ];
    if id == BYTES_16000 {
        let shm = Engine { transport: Transport::Shm, ..Engine::default() };
        runs.push((SHM, counted(turns, &work, through(shm))));
    }
    Plan {
        id,
        title: format!("Opaque records of {bytes} bytes, every byte summed"),
        note: "CPU is that of the two TaskManagers since the job was submitted, of the floor's two processes from their start, of the\n\
              raw stream's two threads since they are connected, with the warm-up.\n\n",
        runs,
    }
}

fn bids<'a>(turns: Turns) -> Plan<'a> {
    let runs = vec![(SHUFFLE, counted(turns, &work(turns, Shape::Bid, 100), through(Engine::default())))];
    Plan {
        id: BID,
        title: "Bids with three texts, validated, every field read".to_owned(),
        note: "CPU is that of the two TaskManagers since the job was submitted, with the warm-up.\n\n",
        runs,
    }
}

fn local<'a>(turns: Turns) -> Plan<'a> {
    Plan {
        id: LOCAL,
        title: "Within a process: from one slot to another, without operators".to_owned(),
        note: "Pairs are written and read; segments are not looked at: each is written once and handed over 32 times, and what is\n\
              counted is hand-overs. CPU is that of the two slots' threads while they run; there is no warm-up.\n\n",
        runs: vec![timed(turns, Case::LocalRecords), timed(turns, Case::LocalSegments)],
    }
}

fn channels<'a>(turns: Turns) -> Plan<'a> {
    let work = work(turns, Shape::Keyed, 100);
    let run = |channels| {
        counted(turns, &work, move |work| {
            // Segments as small as so many channels need them; the one channel has the same.
            let engine =
                Engine { flush: FLUSH_MS, segments: 16_384, segment_size: 8 << 10, ..Engine::default() };
            let options = shuffle::Options { engine, ..shuffle::Options::of(work) };
            let outcome = channels::measure(&options, channels)?;
            Ok(outcome.details.after_warm_up(Sample::of(&outcome)))
        })
    };
    Plan {
        id: CHANNELS,
        title: format!("Pairs over channels of one link, flushed every {FLUSH_MS} ms"),
        note: "Two processes with nothing but the exchange. CPU is that after the warm-up.\n\n",
        runs: vec![(ONE_CHANNEL, run(1)), (MANY_CHANNELS, run(MANY))],
    }
}

fn blocked<'a>(turns: Turns) -> Plan<'a> {
    Plan {
        id: BLOCKED,
        title: "One consumer that does not read, of 1,000 with a producer each".to_owned(),
        note: "Records of 100 bytes over one link. What the blocked one got does not count. CPU is that of the two exchanges' threads\n\
              while they run; there is no warm-up.\n\n",
        runs: vec![timed(turns, Case::Free), timed(turns, Case::Blocked)],
    }
}

fn sizes<'a>(turns: Turns) -> Plan<'a> {
    let cases = [Case::Record64K, Case::Record1M, Case::Record16M];
    Plan {
        id: SIZES,
        title: "Records larger than a segment, every byte read".to_owned(),
        note: "In segments of 64 KiB, which the first just fits. CPU is that of the two exchanges' threads while they run; there is no\n\
              warm-up.

",
        runs: cases.map(|case| timed(turns, case)).into(),
    }
}

/// A benchmark of a time.
fn timed<'a>(turns: Turns, case: Case) -> Run<'a> {
    let seconds = if turns.quick { QUICK_SECONDS } else { turns.seconds };
    let time = Duration::from_secs_f64(seconds);
    (case.name(), Box::new(move || Ok(Sample::of_exchange(&case.measure(time, turns.cores)?))))
}

/// A benchmark of so many records that it takes long enough: its first run is a short one that tells how many.
fn counted<'a>(
    turns: Turns,
    work: &Work,
    run: impl Fn(Work) -> Result<Sample, Box<dyn Error>> + 'a,
) -> Box<dyn FnMut() -> Result<Sample, Box<dyn Error>> + 'a> {
    let work = work.clone();
    let mut known = turns.quick.then_some(RECORDS_QUICK);
    Box::new(move || {
        let with = |records| Work { records: Some(records), ..work.clone() };
        let records = match known {
            Some(records) => records,
            None => {
                let first = (BYTES_FIRST / work.wire_bytes()) as u64;
                let wanted = run(with(first))?.records_per_second * turns.seconds * MARGIN;
                *known.insert((wanted as u64).max(first))
            }
        };
        run(with(records))
    })
}

fn bare(work: Work) -> Result<Sample, Box<dyn Error>> {
    Ok(Sample::of(&floor::measure(&floor::Options::of(work, Checksum::None))?))
}

fn checked(work: Work) -> Result<Sample, Box<dyn Error>> {
    Ok(Sample::of(&floor::measure(&floor::Options::of(work, Checksum::Crc))?))
}

fn through(engine: Engine) -> impl Fn(Work) -> Result<Sample, Box<dyn Error>> {
    move |work| {
        let options = shuffle::Options { engine: engine.clone(), ..shuffle::Options::of(work) };
        Ok(Sample::of(&shuffle::measure(&options)?))
    }
}

fn work(turns: Turns, shape: Shape, record_bytes: u64) -> Work {
    let keys = if turns.quick { 1_000 } else { 100_000 };
    Work { shape, records: None, keys, record_bytes, cores: turns.cores }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_section_says_whose_processor_time_it_has() {
        let turns = Turns { rounds: 1, seconds: 1.0, quick: true, cores: [0, 1] };
        for plan in all(turns) {
            assert!(plan.note.contains("CPU is that") && plan.note.ends_with("\n\n"), "{}", plan.id);
            let jobs = plan.runs.iter().any(|(name, _)| *name == SHUFFLE);
            assert_eq!(plan.note.contains("TaskManagers"), jobs, "{}", plan.id);
            assert_eq!(plan.note.contains("raw stream"), plan.runs[0].0 == RAW, "{}", plan.id);
        }
    }

    #[test]
    fn a_benchmark_runs_as_long_as_asked_for() {
        let turns = Turns { rounds: 1, seconds: 5.0, quick: false, cores: [0, 1] };
        let asked = std::cell::RefCell::new(Vec::new());
        let mut run = counted(turns, &work(turns, Shape::Keyed, 100), |work: Work| {
            asked.borrow_mut().push(work.measured());
            Ok(Sample { records_per_second: 10e6, ..Sample::default() })
        });
        assert!(run().is_ok() && run().is_ok());
        drop(run);
        assert_eq!(asked.into_inner(), [4_000_000, 60_000_000, 60_000_000]);
    }
}
