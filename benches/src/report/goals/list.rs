//! The goals, each with its figure and its excuse, both from the report alone. No state.

use super::super::blame;
use super::super::latency::{SPINNING, UNLOADED};
use super::super::moved::{
    BID, BLOCKED, BYTES_100, BYTES_16000, CHANNELS, FLOOR, KEYED, LOCAL, MANY_CHANNELS, ONE_CHANNEL, RAW,
    SHM, SHUFFLE, SIZES, UNMEASURED,
};
use super::super::peers::{LateLine, MovedLine};
use super::{Better, GREATEST, Goal, MEDIAN, Report, Spread};
use crate::exchange::cases::{Case, HANDED, PAIRED};
use crate::pairs::Sample;

fn rate(sample: &Sample) -> f64 {
    sample.records_per_second
}

fn cpu(sample: &Sample) -> f64 {
    sample.cpu_ns_per_record
}

/// Of two benchmarks of a section.
fn ratio(report: &Report, section: &str, name: &str, of: &str) -> Option<Spread> {
    report.section(section)?.ratio(name, of, rate)
}

/// Of one, in millions a second.
fn millions(report: &Report, section: &str, name: &str) -> Option<Spread> {
    report.section(section)?.figure(name, |sample| sample.records_per_second / 1e6)
}

/// Of segments that are handed over, those that came from the pool and went back.
fn through_the_pool(report: &Report) -> Option<String> {
    let [handed, ..] = millions(report, LOCAL, Case::LocalSegments.name())?;
    Some(format!("{:.3} M/s through the pool", handed / f64::from(HANDED)))
}

/// Tidegate's rate by that of the fastest of those that are called so.
fn peer(report: &Report, title: &str, name: &str) -> Option<Spread> {
    let lines = blame::peer_lines(report, title, name);
    lines.map(|line: &MovedLine| line.ratio).min_by(|a, b| a[0].total_cmp(&b[0]))
}

/// By how much Flink's latency at its best buffer timeout is greater. Nothing without valid runs of both.
fn late(report: &Report, rate: u64, of: fn(&LateLine) -> Option<Spread>) -> Option<Spread> {
    let all = report.peers.iter().flat_map(|peers| &peers.late).filter(|late| late.rate == rate);
    // The first line is Tidegate's.
    let all = all.filter(|late| late.lines.first().is_some_and(|tidegate| tidegate.valid > 0));
    let lines = all.flat_map(|late| &late.lines);
    let flink = lines.filter(|line| line.name.starts_with(FLINK) && line.valid > 0);
    flink.filter_map(of).min_by(|a, b| a[0].total_cmp(&b[0]))
}

/// What costs this much more, in per cent.
fn more(ratio: Spread) -> Spread {
    ratio.map(|ratio| (ratio - 1.0) * 100.0)
}

/// Cost of a byte in large records by that in records of 64 KiB.
fn per_byte(report: &Report, case: Case) -> Option<Spread> {
    report.section(SIZES)?.ratio(case.name(), Case::Record64K.name(), blame::cpu_ns_per_byte).map(more)
}

/// What the engine did in all runs of `shuffle` over TCP: the worst of the sections, by what the goal is judged by.
fn worst(report: &Report, by: usize, pick: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
    let sections = [KEYED, BYTES_100, BYTES_16000, BID].into_iter().filter_map(|id| report.section(id));
    let figures = sections.filter_map(|found| found.figure(SHUFFLE, |s| pick(s).unwrap_or(f64::NAN)));
    figures.filter(|figure| figure[by].is_finite()).max_by(|a, b| a[by].total_cmp(&b[by]))
}

fn blocked(report: &Report) -> Option<Spread> {
    let ratio = report.section(BLOCKED)?.ratio(Case::Blocked.name(), Case::Free.name(), rate)?;
    // Without a blocked one, all share what goes through.
    let others = f64::from(PAIRED - 1) / f64::from(PAIRED);
    let [median, least, most] = ratio.map(|ratio| (1.0 - ratio / others) * 100.0);
    Some([median, most, least])
}

const TIMELY: &str = "timely";
const FLINK: &str = "flink";
const PAIRS: &str = "Pairs";
const OF_100: &str = "100 bytes";
const OF_16000: &str = "16000 bytes";

/// All goals.
pub const GOALS: [Goal; 29] = [
    more_is_better(
        "keyed, 100 k keys, against the floor with CRC",
        "x",
        0.85,
        0.95,
        |r| ratio(r, KEYED, SHUFFLE, FLOOR),
        |r| blame::against(r, KEYED, SHUFFLE, FLOOR, 16.0),
    ),
    more_is_better(
        "keyed, against timely",
        "x",
        2.0,
        2.5,
        |r| peer(r, PAIRS, TIMELY),
        |r| blame::peer(r, PAIRS, TIMELY, KEYED, 16.0),
    ),
    more_is_better(
        "keyed, against Flink",
        "x",
        15.0,
        22.0,
        |r| peer(r, PAIRS, FLINK),
        |r| blame::peer(r, PAIRS, FLINK, KEYED, 16.0),
    ),
    more_is_better(
        "bytes 100 B, against Flink",
        "x",
        8.0,
        12.0,
        |r| peer(r, OF_100, FLINK),
        |r| blame::peer(r, OF_100, FLINK, BYTES_100, 112.0),
    ),
    more_is_better(
        "bytes 100 B, against the raw stream with CRC",
        "x",
        0.75,
        0.9,
        |r| ratio(r, BYTES_100, SHUFFLE, RAW),
        |r| blame::against(r, BYTES_100, SHUFFLE, RAW, 112.0),
    ),
    more_is_better(
        "bytes 16 KB, against Flink",
        "x",
        3.0,
        5.0,
        |r| peer(r, OF_16000, FLINK),
        |r| blame::peer(r, OF_16000, FLINK, BYTES_16000, 16_012.0),
    ),
    more_is_better(
        "bytes 16 KB, against the raw stream with CRC",
        "x",
        0.85,
        0.95,
        |r| ratio(r, BYTES_16000, SHUFFLE, RAW),
        |r| blame::against(r, BYTES_16000, SHUFFLE, RAW, 16_012.0),
    ),
    more_is_better(
        "bytes 16 KB, against Arrow Flight",
        "x",
        1.5,
        3.0,
        |r| peer(r, OF_16000, "flight"),
        |r| blame::peer(r, OF_16000, "flight", BYTES_16000, 16_012.0),
    ),
    more_is_better(
        "bids with texts, validated",
        "M/s",
        5.0,
        10.0,
        |r| millions(r, BID, SHUFFLE),
        |r| blame::busy(r, BID, SHUFFLE),
    ),
    more_is_better(
        "within a process: plain records of 16 B",
        "M/s",
        150.0,
        300.0,
        |r| millions(r, LOCAL, Case::LocalRecords.name()),
        |r| blame::busy(r, LOCAL, Case::LocalRecords.name()),
    ),
    more_is_better(
        "within a process: hand-overs of untouched segments of 32 KiB, 32 for each that is written",
        "M/s",
        1.0,
        3.0,
        |r| millions(r, LOCAL, Case::LocalSegments.name()),
        |r| blame::busy(r, LOCAL, Case::LocalSegments.name()),
    )
    .beside(through_the_pool),
    more_is_better(
        "shared memory, bytes 16 KB, against TCP",
        "x",
        2.0,
        4.0,
        |r| ratio(r, BYTES_16000, SHM, SHUFFLE),
        |r| blame::shared(r, BYTES_16000, SHM, SHUFFLE),
    ),
    less_is_better(
        "10,000 channels against 1, flushed every 100 ms: CPU per record",
        "x",
        1.5,
        1.2,
        |r| r.section(CHANNELS)?.ratio(MANY_CHANNELS, ONE_CHANNEL, cpu),
        |r| blame::against(r, CHANNELS, MANY_CHANNELS, ONE_CHANNEL, 16.0),
    ),
    less_is_better(
        "memory of an idle channel, both sides",
        "bytes",
        1024.0,
        256.0,
        |r| Some([r.idle.as_ref()?.channel_bytes; 3]),
        |_| {
            Some(
                "the queues and lists of a channel, which `exchange::limits` counts part by part in a test"
                    .to_owned(),
            )
        },
    ),
    less_is_better("one blocked consumer of 1,000: loss for the others", "%", 5.0, 1.0, blocked, |r| {
        blame::against(r, BLOCKED, Case::Blocked.name(), Case::Free.name(), 112.0)
    }),
    less_is_better(
        "records of 1 MiB: cost of a byte beyond that in records of 64 KiB",
        "%",
        15.0,
        15.0,
        |r| per_byte(r, Case::Record1M),
        |r| blame::per_byte(r, SIZES, Case::Record1M.name(), Case::Record64K.name()),
    ),
    less_is_better(
        "records of 16 MiB: the same",
        "%",
        15.0,
        15.0,
        |r| per_byte(r, Case::Record16M),
        |r| blame::per_byte(r, SIZES, Case::Record16M.name(), Case::Record64K.name()),
    ),
    less_is_better(
        "p50 one way, unloaded, against half a TCP ping-pong",
        "x",
        2.0,
        1.5,
        |r| r.latency.figure(UNLOADED, |run| run.p50_to_one_way),
        |r| blame::late(r, UNLOADED),
    ),
    less_is_better(
        "… with a bounded spin",
        "x",
        1.5,
        1.1,
        |r| r.latency.figure(SPINNING, |run| run.p50_to_one_way),
        |r| blame::late(r, SPINNING),
    ),
    more_is_better(
        "100 k records/s, p50: how many times lower than Flink's best",
        "x",
        3.0,
        6.0,
        |r| late(r, 100_000, |l| l.p50_ratio),
        blame::wake_up,
    ),
    more_is_better(
        "100 k records/s, p99",
        "x",
        5.0,
        20.0,
        |r| late(r, 100_000, |l| l.p99_ratio),
        blame::wake_up,
    ),
    more_is_better(
        "1 M records/s, p50",
        "x",
        3.0,
        6.0,
        |r| late(r, 1_000_000, |l| l.p50_ratio),
        blame::wake_up,
    ),
    more_is_better(
        "1 M records/s, p99",
        "x",
        5.0,
        20.0,
        |r| late(r, 1_000_000, |l| l.p99_ratio),
        blame::wake_up,
    ),
    less_is_better(
        "io_uring_enter calls of both ends per 64 KiB moved, the worst section",
        "calls",
        1.0,
        0.3,
        |r| worst(r, MEDIAN, |sample| sample.effort.map(|effort| effort.enters_per_64k)),
        |_| Some("trains are short: each end calls once or twice for each".to_owned()),
    ),
    less_is_better(
        "CPU of an idle TaskManager",
        "%",
        1.0,
        0.2,
        |r| Some(r.idle.as_ref()?.cpu_percent),
        |_| Some("timers of heartbeats and reports; no constant is fitted to them".to_owned()),
    ),
    less_is_better(
        "heap allocations after the warm-up, the worst section",
        "",
        0.0,
        0.0,
        |r| worst(r, GREATEST, |sample| Some(sample.heap_allocations as f64)),
        |_| Some("counted by the allocator; no constant is to blame".to_owned()),
    ),
    less_is_better(
        "payload bytes copied, all of them into staging, the worst section",
        "%",
        // Small offers of staging: a sixteenth of what full trains carry.
        6.25,
        6.25,
        |r| worst(r, MEDIAN, |sample| sample.effort.map(|effort| effort.copied_part * 100.0)),
        |_| Some("trains whose payloads are small get the large offer of staging".to_owned()),
    ),
    less_is_better(
        "histograms and metrics: processor time they add to keyed",
        "%",
        2.0,
        1.0,
        |r| r.section(KEYED)?.ratio(SHUFFLE, UNMEASURED, cpu).map(more),
        |r| blame::against(r, KEYED, SHUFFLE, UNMEASURED, 16.0),
    ),
    less_is_better(
        "… rate they take from it",
        "%",
        2.0,
        1.0,
        |r| {
            let [median, least, most] =
                ratio(r, KEYED, SHUFFLE, UNMEASURED)?.map(|ratio| (1.0 - ratio) * 100.0);
            Some([median, most, least])
        },
        |r| blame::against(r, KEYED, SHUFFLE, UNMEASURED, 16.0),
    ),
];

type Figure = fn(&Report) -> Option<Spread>;
type Blame = fn(&Report) -> Option<String>;

const fn more_is_better(
    what: &'static str,
    unit: &'static str,
    least: f64,
    aim: f64,
    figure: Figure,
    blame: Blame,
) -> Goal {
    Goal { what, unit, least, aim, better: Better::More, figure, blame, beside: |_| None }
}

const fn less_is_better(
    what: &'static str,
    unit: &'static str,
    least: f64,
    aim: f64,
    figure: Figure,
    blame: Blame,
) -> Goal {
    Goal { what, unit, least, aim, better: Better::Less, figure, blame, beside: |_| None }
}
