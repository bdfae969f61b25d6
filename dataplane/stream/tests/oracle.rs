//! Jobs against a plain computation of the same thing, at several parallelisms and slots.

use std::collections::BTreeMap;

use tidegate_stream::testing::{Harness, Setup, collect, items};
use tidegate_stream::{AggregateFunction, Args, Job, JobResult, TaskError};

fn text() -> Vec<String> {
    let words = ["tide", "gate", "stream", "harbour", "ebb", "flood", "a", "the"];
    (0..3_000usize).map(|i| format!("{} {}", words[i * 7 % 8], words[(i * i + 3) % 8])).collect()
}

#[derive(Clone)]
struct Count;

impl<In: ?Sized> AggregateFunction<String, In> for Count {
    type State = u64;
    type Out = (String, u64);
    fn create(&mut self, _key: &String) -> u64 {
        0
    }
    fn add(&mut self, count: &mut u64, _item: &In) {
        *count += 1;
    }
    fn result(&mut self, key: &String, count: u64) -> Result<(String, u64), TaskError> {
        Ok((key.clone(), count))
    }
}

fn word_count(job: &mut Job, _args: &Args) -> JobResult {
    job.source("lines", items(text()))
        .flat_map("split", |line| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .filter("long", |word| word.len() > 1)
        .key_by(|word| word.clone())
        .aggregate("count", Count)
        .sink("out", collect("out"));
    Ok(())
}

fn word_count_oracle() -> Vec<(String, u64)> {
    let mut counts = BTreeMap::new();
    for word in text().iter().flat_map(|line| line.split(' ')).filter(|word| word.len() > 1) {
        *counts.entry(word.to_owned()).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

const SHAPES: [(u32, u32); 5] = [(1, 1), (2, 1), (2, 2), (4, 2), (4, 4)];

fn finished(setup: Setup) -> Harness {
    let mut harness = Harness::start(setup).expect("it starts");
    harness.finish().expect("it finishes");
    harness
}

#[test]
fn word_count_at_every_shape() {
    for (parallelism, slots) in SHAPES {
        let run = finished(Setup::new(word_count).parallelism(parallelism).slots(slots));
        let mut counts = run.collected::<(String, u64)>("out");
        counts.sort();
        assert_eq!(counts, word_count_oracle(), "parallelism {parallelism}, {slots} slots");
    }
}

fn sale(i: u64) -> [u64; 2] {
    [i * 2_654_435_761 % 97, i % 13]
}

fn running_sums(job: &mut Job, _args: &Args) -> JobResult {
    job.source("sales", items((0..20_000).map(sale)))
        .key_by(|sale| sale[0])
        .reduce("sum", |sale| *sale, |sum, sale| sum[1] += sale[1])
        .sink("out", collect("out"));
    Ok(())
}

/// The last value per key is the sum; the number of values is that of the items.
#[test]
fn running_sums_at_every_shape() {
    let mut sums = BTreeMap::new();
    (0..20_000).map(sale).for_each(|[key, value]| *sums.entry(key).or_insert(0) += value);
    for (parallelism, slots) in SHAPES {
        let run = finished(Setup::new(running_sums).parallelism(parallelism).slots(slots));
        let values = run.collected::<[u64; 2]>("out");
        assert_eq!(values.len(), 20_000);
        let mut last = BTreeMap::new();
        for [key, sum] in values {
            let known = last.entry(key).or_insert(sum);
            *known = sum.max(*known);
        }
        assert_eq!(last, sums, "parallelism {parallelism}, {slots} slots");
    }
}

#[test]
fn one_slot_keeps_the_order_of_a_chain() {
    let job = |job: &mut Job, _: &Args| {
        job.source("n", items(0..5_000u64))
            .map("double", |n| n * 2)
            .unchain()
            .map("one more", |n| n + 1)
            .sink("out", collect("out"));
        Ok(())
    };
    let run = finished(Setup::new(job).quantum(7));
    assert_eq!(run.collected::<u64>("out"), (0..5_000).map(|n| n * 2 + 1).collect::<Vec<_>>());
}

#[test]
fn broadcast_reaches_everybody_and_rebalance_spreads() {
    let job = |job: &mut Job, _: &Args| {
        let fork = job.source("n", items(0..1_000u64)).parallelism(1).fork();
        fork.branch().broadcast().sink("all", collect("all")).parallelism(3);
        fork.branch().rebalance().map("tag", |n| *n).sink("some", collect("some")).parallelism(3);
        Ok(())
    };
    let run = finished(Setup::new(job).slots(2));
    let mut all = run.collected::<u64>("all");
    assert_eq!(all.len(), 3_000);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (0..1_000).collect::<Vec<_>>());
    let shares: Vec<usize> = (0..3)
        .map(|subtask| run.manager().store().read(&format!("some/part-000{subtask}-000000")))
        .map(|f| f.map_or(0, |f| f.len()))
        .collect();
    assert!(shares.iter().all(|&bytes| bytes == shares[0] || bytes.abs_diff(shares[0]) <= 16), "{shares:?}");
    assert_eq!(run.collected::<u64>("some").len(), 1_000);
}

#[test]
fn a_custom_partitioner_chooses_the_subtask() {
    let job = |job: &mut Job, _: &Args| {
        job.source("n", items(0..100u64))
            .partition_custom(|n, channels| (n % u64::from(channels)) as u32)
            .sink("out", collect("out"))
            .parallelism(4);
        Ok(())
    };
    let run = finished(Setup::new(job));
    let expected: Vec<u64> = (0..4).flat_map(|subtask| (0..100).filter(move |n| n % 4 == subtask)).collect();
    assert_eq!(run.collected::<u64>("out"), expected);
}

#[test]
fn views_can_be_filtered_in_place_and_owned() {
    let job = |job: &mut Job, _: &Args| {
        job.source("words", items(["ebb", "flood", "tide"].map(str::to_owned)))
            .rebalance()
            .filter("short", |word| word.as_str().len() <= 4)
            .owned()
            .key_by(|word| word.len() as u64)
            .process("all", |_key: &u64, word, seen: &mut Option<u64>, out| {
                *seen.get_or_insert(0) += 1;
                out.emit(word.as_str().to_uppercase());
            })
            .sink("out", collect("out"));
        Ok(())
    };
    let mut out = finished(Setup::new(job)).collected::<String>("out");
    out.sort();
    assert_eq!(out, ["EBB", "TIDE"]);
}

/// One item expands to far more than all segments hold: the cursor waits, and is taken up again.
#[test]
fn a_flat_map_larger_than_every_quota_is_pulled() {
    let job = |job: &mut Job, _: &Args| {
        job.source("one", items([400_000u64]))
            .flat_map("count", |&limit| 0..limit)
            .flat_map("twice", |&n| [n, n])
            .rebalance()
            .map("same", |n| *n)
            .sink("out", collect("out"));
        Ok(())
    };
    let mut harness = Harness::start(Setup::new(job).segments(40, 4096)).expect("it starts");
    harness.step(3);
    harness.checkpoint().expect("a checkpoint waits for the expansion, not for ever");
    harness.finish().expect("it finishes");
    let out = harness.collected::<u64>("out");
    assert_eq!(out, (0..400_000).flat_map(|n| [n, n]).collect::<Vec<_>>());
}

#[test]
fn forks_of_forks_and_expansions_in_branches() {
    let job = |job: &mut Job, _: &Args| {
        let fork = job.source("n", items(0..200u64)).fork();
        fork.branch().flat_map("many", |&n| 0..n).rebalance().sink("many", collect("many"));
        let inner = fork.branch().filter("even", |n| n % 2 == 0).fork();
        inner.branch().sink("even", collect("even"));
        inner
            .branch()
            .key_by(|n| *n % 5)
            .reduce("sum", |n| *n, |sum, n| *sum += n)
            .sink("sums", collect("sums"));
        Ok(())
    };
    let run = finished(Setup::new(job).segments(60, 4096).quantum(50));
    assert_eq!(run.collected::<u64>("many"), (0..200).flat_map(|n| 0..n).collect::<Vec<u64>>());
    assert_eq!(run.collected::<u64>("even"), (0..200).filter(|n| n % 2 == 0).collect::<Vec<u64>>());
    assert_eq!(run.collected::<u64>("sums").len(), 100);
}
