//! Goals against made-up figures.

use super::super::moved::Section;
use super::super::moved::{BID, BLOCKED, FLOOR, KEYED, SHUFFLE};
use super::super::peers::{Late, LateLine, Moved, MovedLine, Peers};
use super::*;
use crate::exchange::cases::Case;
use crate::pairs::{Comparison, Effort, Sample, Series};

fn sample(rate: f64, ends_ns: [f64; 2]) -> Sample {
    let effort = Some(Effort { copied_part: 0.01, enters_per_64k: 0.5 });
    let cpu_ns_per_record = ends_ns.iter().sum();
    Sample { records_per_second: rate, cpu_ns_per_record, ends_ns, effort, ..Sample::default() }
}

fn section(id: &'static str, series: &[(&str, Sample)]) -> Section {
    let series =
        series.iter().map(|&(name, sample)| Series { name: name.to_owned(), samples: vec![sample; 3] });
    let comparison = Comparison::of(series.collect(), Vec::new());
    Section { id, title: id.to_owned(), note: "", comparison }
}

fn goal(words: &str) -> &'static Goal {
    GOALS.iter().find(|goal| goal.what.contains(words)).unwrap()
}

fn report() -> Report {
    let mut report = Report::new(false).unwrap();
    report.sections = vec![
        section(KEYED, &[(FLOOR, sample(100e6, [4.0, 8.0])), (SHUFFLE, sample(80e6, [8.0, 12.5]))]),
        section(BID, &[(SHUFFLE, sample(6e6, [80.0, 90.0]))]),
        section(
            BLOCKED,
            &[(Case::Free.name(), sample(1e6, [1.0; 2])), (Case::Blocked.name(), sample(0.998e6, [1.0; 2]))],
        ),
    ];
    report
}

#[test]
fn what_was_not_measured_is_not_reached() {
    let empty = Report::new(false).unwrap();
    assert_eq!(counts(&empty), [0, 0, GOALS.len()]);
    assert!(GOALS.iter().all(|goal| (goal.figure)(&empty).is_none()));
    assert!(table(&empty).to_string().contains("not measured"));
    let mut broken = report();
    broken.sections = vec![section(BID, &[(SHUFFLE, sample(f64::NAN, [1.0; 2]))])];
    assert_eq!(goal("bids").verdict(&broken), Verdict::NotMeasured);
}

#[test]
fn a_goal_is_reached_and_one_is_reached_with_its_aim() {
    let report = report();
    assert_eq!(goal("bids").verdict(&report), Verdict::Reached);
    assert_eq!(goal("io_uring_enter").verdict(&report), Verdict::Reached);
    assert_eq!(goal("heap allocations").verdict(&report), Verdict::Aim);
    // The others lost a thousandth of what was theirs.
    let [loss, ..] = (goal("blocked").figure)(&report).unwrap();
    assert!((loss - 0.1).abs() < 0.001, "{loss}");
    assert_eq!(goal("blocked").verdict(&report), Verdict::Aim);
}

#[test]
fn a_miss_says_by_how_much_and_what_it_is_due_to() {
    let report = report();
    let keyed = goal("against the floor");
    let Verdict::Missed(by) = keyed.verdict(&report) else { panic!("0.8 of the floor is less than 0.85") };
    assert!((by - 0.05 / 0.85).abs() < 1e-9, "{by}");
    let page = table(&report).to_string();
    assert!(page.contains("**missed by 6 %**"), "{page}");
    assert!(page.contains("busier core 12.5 ns a record, of floor with CRC32C 8.0"), "{page}");
    let [reached, missed, open] = counts(&report);
    assert_eq!((missed, reached + missed + open), (1, GOALS.len()));
}

#[test]
fn a_goal_of_nothing_is_missed_by_what_there_is() {
    let mut report = report();
    let mut allocates = sample(6e6, [1.0; 2]);
    allocates.heap_allocations = 7;
    report.sections = vec![section(BID, &[(SHUFFLE, allocates)])];
    assert_eq!(goal("heap allocations").verdict(&report), Verdict::Missed(7.0));
    assert!(table(&report).to_string().contains("**missed by 7.00**"));
}

#[test]
fn other_systems_are_taken_at_their_best() {
    let moved = |name: &str, ratio: f64| MovedLine {
        name: name.to_owned(),
        cpu_ns_per_record: 30.0,
        ratio: [ratio; 3],
    };
    let late = |timeout: u32, p50: f64, p99: f64| LateLine {
        name: format!("flink, buffer timeout {timeout} ms"),
        valid: 1,
        p50_ratio: [p50; 3],
        p99_ratio: [p99; 3],
    };
    let pairs = Moved {
        title: "Pairs of (u64, u64), summed by 100000 keys".to_owned(),
        lines: vec![moved("tidegate", 1.0), moved("timely, vectors", 4.0), moved("timely", 2.2)],
    };
    let rate = Late { rate: 100_000, lines: vec![late(0, 4.0, 30.0), late(1, 20.0, 4.0)] };
    let mut report = report();
    report.peers = vec![Peers {
        pairs: 1,
        seconds: 1,
        moved: vec![pairs],
        late: vec![rate],
        failed: Vec::new(),
        page: String::new(),
    }];
    assert_eq!((goal("timely").figure)(&report), Some([2.2; 3]));
    assert_eq!(goal("timely").verdict(&report), Verdict::Reached);
    assert_eq!(goal("keyed, against Flink").verdict(&report), Verdict::NotMeasured);
    assert_eq!((goal("100 k records/s, p50").figure)(&report), Some([4.0; 3]));
    assert_eq!((goal("100 k records/s, p99").figure)(&report), Some([4.0; 3]));
    assert_eq!(goal("1 M records/s, p99").verdict(&report), Verdict::NotMeasured);
}
