//! Goals against made-up figures.

use super::super::moved::Section;
use super::super::moved::{BID, BLOCKED, FLOOR, KEYED, LOCAL, SHUFFLE, SIZES};
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
fn a_goal_of_nothing_is_judged_by_the_greatest_sample_of_all_sections() {
    let with = |id, allocations: [u64; 3]| {
        let mut section = section(id, &[(SHUFFLE, sample(6e6, [1.0; 2]))]);
        for (sample, heap_allocations) in section.comparison.series[0].samples.iter_mut().zip(allocations) {
            sample.heap_allocations = heap_allocations;
        }
        section
    };
    let mut report = report();
    // The first has the greater median, the second the greater sample.
    report.sections = vec![with(KEYED, [1, 1, 1]), with(BID, [0, 0, 7])];
    assert_eq!((goal("heap allocations").figure)(&report), Some([0.0, 0.0, 7.0]));
    assert_eq!(goal("heap allocations").verdict(&report), Verdict::Missed(7.0));
}

#[test]
fn hand_overs_stand_beside_the_segments_that_were_written_for_them() {
    let mut report = report();
    report.sections = vec![section(LOCAL, &[(Case::LocalSegments.name(), sample(3.2e6, [1.0; 2]))])];
    let page = table(&report).to_string();
    assert!(page.contains("hand-overs of untouched segments of 32 KiB, 32 for each"), "{page}");
    assert!(page.contains("3.20 M/s (0.100 M/s through the pool)"), "{page}");
}

#[test]
fn a_miss_of_large_records_is_told_in_what_it_is_judged_by() {
    // Bytes of a record, and nanoseconds of both ends for each.
    let of = |bytes: f64, cost: f64| Sample {
        bytes_per_second: 1e3 * bytes,
        ..sample(1e3, [bytes * cost / 2.0; 2])
    };
    let mut report = report();
    report.sections = vec![section(
        SIZES,
        &[(Case::Record64K.name(), of(65_536.0, 0.2)), (Case::Record1M.name(), of(1_048_576.0, 0.25))],
    )];
    let Verdict::Missed(_) = goal("records of 1 MiB").verdict(&report) else { panic!("25 % more") };
    let page = table(&report).to_string();
    assert!(page.contains("both cores together 0.250 ns a byte, of records of 64 KiB 0.200"), "{page}");
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
        p50_ratio: Some([p50; 3]),
        p99_ratio: Some([p99; 3]),
    };
    let tidegate = |valid| LateLine { name: "tidegate".to_owned(), valid, ..late(0, 1.0, 1.0) };
    // It reached the rate, but in other rounds than Tidegate.
    let apart = LateLine { p50_ratio: None, p99_ratio: None, ..late(2, 0.0, 0.0) };
    let pairs = Moved {
        title: "Pairs of (u64, u64), summed by 100000 keys".to_owned(),
        lines: vec![moved("tidegate", 1.0), moved("timely, vectors", 4.0), moved("timely", 2.2)],
    };
    let lines = vec![tidegate(1), late(0, 4.0, 30.0), late(1, 20.0, 4.0), apart.clone()];
    let rate = Late { rate: 100_000, lines };
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
    for lines in [vec![tidegate(0), late(0, 4.0, 30.0)], vec![tidegate(1), apart]] {
        report.peers[0].late[0].lines = lines;
        assert_eq!(goal("100 k records/s, p50").verdict(&report), Verdict::NotMeasured);
    }
}
