//! Exactly once: whatever barrier a job is restored from, and however slow its files are, the output is that of an
//! undisturbed run.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_stream::error::Fault;
use tidegate_stream::limits::SNAPSHOT_STEP_BYTES;
use tidegate_stream::slot::FailureKind;
use tidegate_stream::testing::{Harness, Setup, collect, items};
use tidegate_stream::{AggregateFunction, Args, Job, JobResult, TaskError};

const ITEMS: u64 = 3_000;

fn key(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 211
}

#[derive(Clone)]
struct Sum;

impl AggregateFunction<u64, u64> for Sum {
    type State = u64;
    type Out = (u64, u64);
    fn create(&mut self, _key: &u64) -> u64 {
        0
    }
    fn add(&mut self, sum: &mut u64, item: &u64) {
        *sum += item;
    }
    fn result(&mut self, key: &u64, sum: u64) -> Result<(u64, u64), TaskError> {
        Ok((*key, sum))
    }
}

/// Running values on one branch, final sums on the other.
fn job(job: &mut Job, _args: &Args) -> JobResult {
    let fork = job.source("n", items(0..ITEMS)).parallelism(2).fork();
    fork.branch()
        .key_by(|n| key(*n))
        .process("running", |key: &u64, n, state: &mut Option<u64>, out| {
            let sum = state.insert(state.unwrap_or(0) + n);
            out.emit((*key, *sum));
        })
        .sink("running", collect("running"));
    fork.branch().key_by(|n| key(*n)).aggregate("sums", Sum).sink("sums", collect("sums"));
    Ok(())
}

fn sums() -> BTreeMap<u64, u64> {
    let mut sums = BTreeMap::new();
    (0..ITEMS).for_each(|n| *sums.entry(key(n)).or_insert(0) += n);
    sums
}

/// Two sources feed a key in any order, so running values differ from run to run; but each step adds an item that was
/// not added before, and the last one is the sum.
fn check(harness: &Harness) {
    let mut final_sums = harness.collected::<(u64, u64)>("sums");
    final_sums.sort_unstable();
    assert_eq!(final_sums, sums().into_iter().collect::<Vec<_>>());
    let running = harness.collected::<(u64, u64)>("running");
    let mut by_key: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    running.iter().for_each(|&(key, sum)| by_key.entry(key).or_default().push(sum));
    assert_eq!(running.len(), ITEMS as usize, "each item causes one running value");
    for (key_, mut values) in by_key {
        values.sort_unstable();
        let mut added: Vec<u64> = std::iter::once(0)
            .chain(values.iter().copied())
            .collect::<Vec<_>>()
            .windows(2)
            .map(|w| w[1] - w[0])
            .collect();
        added.sort_unstable();
        let items: Vec<u64> = (0..ITEMS).filter(|n| key(*n) == key_).collect();
        assert_eq!(added, items, "key {key_}");
    }
}

fn setup() -> Setup {
    Setup::new(job).parallelism(2).slots(2).quantum(37)
}

#[test]
fn an_undisturbed_run() {
    let mut harness = Harness::start(setup()).unwrap();
    harness.finish().unwrap();
    check(&harness);
}

/// A barrier at every place, a failure a little later.
#[test]
fn restored_from_any_barrier() {
    for turns in 0..45 {
        let mut harness = Harness::start(setup()).unwrap();
        harness.step(turns);
        let checkpoint = harness.checkpoint().unwrap();
        harness.step(turns % 11);
        harness.restart().unwrap_or_else(|error| panic!("after {turns} turns: {error}"));
        assert_eq!(harness.manager().completed(), Some(checkpoint));
        harness.finish().unwrap_or_else(|error| panic!("after {turns} turns: {error}"));
        check(&harness);
    }
}

/// Failures before the first checkpoint, while one is pending, and several in a row.
#[test]
fn restored_again_and_again() {
    let mut harness = Harness::start(setup()).unwrap();
    harness.step(5);
    harness.restart().unwrap();
    for round in 0..6 {
        harness.step(2 + round);
        harness.checkpoint().unwrap();
        harness.trigger();
        harness.step(round % 3);
        harness.restart().unwrap();
    }
    harness.finish().unwrap();
    check(&harness);
}

/// With one buffer and one file operation a turn, records come while the snapshot is being written: each group must hold
/// what it was at the barrier.
#[test]
fn restored_from_snapshots_written_slowly() {
    for turns in [3, 8, 13, 21, 34] {
        let mut harness = Harness::start(setup().files(4, 1)).unwrap();
        harness.step(turns);
        harness.checkpoint().unwrap();
        harness.step(4);
        harness.checkpoint().unwrap();
        harness.step(3);
        harness.restart().unwrap();
        harness.finish().unwrap();
        check(&harness);
    }
}

#[test]
fn rescaled_by_key_group() {
    for (before, after) in [(1, 4), (4, 1), (2, 3), (3, 2)] {
        let mut harness = Harness::start(Setup::new(job).parallelism(before).slots(2).quantum(50)).unwrap();
        harness.step(12);
        harness.checkpoint().unwrap();
        harness.step(5);
        harness.rescale(after).unwrap();
        harness.step(6);
        harness.checkpoint().unwrap();
        harness.restart().unwrap();
        harness.finish().unwrap();
        check(&harness);
    }
}

/// What the completed checkpoint says of its files is what is in them: groups are told in ascending order, each once,
/// and their slices cover the file. Gives how many groups there are, and whether some lie in another order.
fn check_slices(harness: &Harness) -> (usize, bool) {
    let (mut groups, mut shuffled) = (BTreeSet::new(), false);
    for (_, part) in harness.manager().snapshots() {
        for operator in part.operators.iter().filter(|operator| operator.file.is_some()) {
            let file = operator.file.as_ref().unwrap();
            let bytes = harness.manager().store().read(&file.path).unwrap();
            assert_eq!(bytes.len() as u64, file.len);
            assert!(operator.groups.is_sorted_by(|one, next| one.group < next.group), "ascending groups");
            let mut slices = operator.groups.clone();
            slices.sort_unstable_by_key(|slice| slice.offset);
            shuffled |= slices != operator.groups;
            let mut offset = 0;
            for slice in slices {
                assert_eq!(slice.offset, offset, "slices lie one behind the other");
                offset += slice.len;
                let piece = &bytes[slice.offset as usize..offset as usize];
                assert_eq!(xxhash_rust::xxh3::xxh3_64(piece), slice.hash);
                let new = groups.insert((operator.operator, slice.group));
                assert!(new, "group {} is in two files of an operator", slice.group);
            }
            assert_eq!(offset, file.len);
        }
    }
    (groups.len(), shuffled)
}

#[test]
fn checkpoints_cover_each_group_once() {
    let mut harness = Harness::start(setup()).unwrap();
    harness.step(40);
    harness.checkpoint().unwrap();
    assert!(check_slices(&harness).0 > 100);
}

const WIDE_ITEMS: u64 = 24_000;
const WIDE_KEYS: u64 = 6_000;
const WIDE_STATE: usize = 300;

/// A count per key, and so much beside it that a snapshot takes many steps.
fn wide(job: &mut Job, _args: &Args) -> JobResult {
    job.source("n", items(0..WIDE_ITEMS))
        .parallelism(2)
        .key_by(|n| n % WIDE_KEYS)
        .process("count", |key: &u64, _, state: &mut Option<(u64, String)>, out| {
            let (count, _) = state.get_or_insert_with(|| (0, "x".repeat(WIDE_STATE)));
            *count += 1;
            out.emit((*key, *count));
        })
        .sink("counts", collect("counts"));
    Ok(())
}

/// Each subtask keeps more than a step of a snapshot writes, and records go on meanwhile: groups that are about to change
/// are written before their turn. The checkpoint counts all the same, with the same and with other owners of the groups.
#[test]
fn large_state_is_checkpointed_while_records_flow() {
    for (before, after) in [(2, 2), (2, 3), (3, 1)] {
        let setup = Setup::new(wide).parallelism(before).slots(2).quantum(50).files(4, 1);
        let mut harness = Harness::start(setup).unwrap();
        harness.step(150);
        harness.checkpoint().unwrap();
        let state: u64 = harness.manager().snapshots().map(|(_, part)| part.bytes).sum();
        assert!(state > u64::from(before) * 2 * SNAPSHOT_STEP_BYTES, "{state} bytes");
        let (groups, shuffled) = check_slices(&harness);
        assert!(groups > 100 && shuffled, "{groups} groups, written out of order: {shuffled}");
        harness.step(20);
        harness.rescale(after).unwrap();
        harness.step(50);
        harness.checkpoint().unwrap();
        harness.restart().unwrap();
        harness.finish().unwrap();
        let mut counts = harness.collected::<(u64, u64)>("counts");
        counts.sort_unstable();
        let expected =
            (0..WIDE_KEYS).flat_map(|key| (1..=WIDE_ITEMS / WIDE_KEYS).map(move |count| (key, count)));
        assert!(counts.iter().copied().eq(expected), "from {before} to {after} subtasks");
    }
}

fn two_inputs(job: &mut Job, _args: &Args) -> JobResult {
    let short = job.source("short", items(0..100u64)).parallelism(1);
    let long = job.source("long", items(100..ITEMS)).parallelism(1);
    short.union("all", long).key_by(|n| key(*n)).aggregate("sums", Sum).sink("sums", collect("sums"));
    Ok(())
}

/// The short source has ended long before; its barriers still come, or alignment would wait for ever.
#[test]
fn two_inputs_are_aligned_even_when_one_has_ended() {
    for turns in [0, 1, 2, 5, 20, 60, 80] {
        let mut harness = Harness::start(Setup::new(two_inputs).parallelism(2).slots(2).quantum(40)).unwrap();
        harness.step(turns);
        harness.checkpoint().unwrap();
        harness.step(7);
        harness.restart().unwrap();
        harness.step(turns);
        harness.checkpoint().unwrap();
        harness.finish().unwrap();
        let mut out = harness.collected::<(u64, u64)>("sums");
        out.sort_unstable();
        assert_eq!(out, sums().into_iter().collect::<Vec<_>>());
    }
}

fn two_pipelines(job: &mut Job, _args: &Args) -> JobResult {
    job.source("short", items(0..50u64)).key_by(|n| n % 3).aggregate("few", Sum).sink("few", collect("few"));
    job.source("long", items(0..ITEMS))
        .key_by(|n| key(*n))
        .aggregate("sums", Sum)
        .sink("sums", collect("sums"));
    Ok(())
}

/// One pipeline has said everything when the checkpoint is taken: restored, it says nothing again.
#[test]
fn finished_tasks_do_not_repeat_themselves() {
    let mut harness = Harness::start(Setup::new(two_pipelines).quantum(20)).unwrap();
    harness.step(40);
    harness.checkpoint().unwrap();
    let finished = harness.manager().snapshots().filter(|(_, part)| part.finished).count();
    assert_eq!(finished, 2, "source and aggregate of the short pipeline");
    harness.restart().unwrap();
    harness.step(3);
    harness.checkpoint().unwrap();
    harness.restart().unwrap();
    harness.finish().unwrap();
    assert_eq!(harness.collected::<(u64, u64)>("few").len(), 3);
    assert_eq!(harness.collected::<(u64, u64)>("sums").len(), 211);
}

/// A snapshot that cannot be written is declined; the job goes on, and so does the next checkpoint.
#[test]
fn a_declined_checkpoint_does_no_harm() {
    let mut harness = Harness::start(setup()).unwrap();
    harness.step(10);
    harness.break_files(Some("chk-"));
    let error = harness.checkpoint().unwrap_err();
    assert!(error.contains("no space left on device"), "{error}");
    harness.break_files(None);
    harness.step(3);
    let checkpoint = harness.checkpoint().unwrap();
    harness.restart().unwrap();
    assert_eq!(harness.manager().completed(), Some(checkpoint));
    harness.finish().unwrap();
    check(&harness);
}

/// Given up at any moment: sources that have not sent their barrier send an abort marker, so nobody waits.
#[test]
fn an_aborted_checkpoint_does_no_harm() {
    for turns in 0..12 {
        let mut harness = Harness::start(setup().files(4, 2)).unwrap();
        harness.step(8);
        harness.trigger();
        harness.step(turns);
        harness.abort();
        harness.step(turns % 4);
        harness.checkpoint().unwrap();
        harness.step(2);
        harness.restart().unwrap();
        harness.finish().unwrap();
        check(&harness);
    }
}

/// One source has sent its barrier, the other was never told of the checkpoint: told that it is void, it says so
/// downstream, and whoever waits for its barrier goes on.
#[test]
fn an_aborted_checkpoint_that_not_everybody_heard_of_does_no_harm() {
    for turns in [0, 1, 5] {
        let mut harness = Harness::start(setup()).unwrap();
        harness.step(8);
        harness.trigger_only(0);
        harness.step(turns);
        harness.abort();
        harness.finish().unwrap();
        check(&harness);
    }
}

/// A checkpoint that overtakes an unfinished one.
#[test]
fn a_newer_checkpoint_overtakes() {
    let mut harness = Harness::start(setup().files(4, 1)).unwrap();
    harness.step(10);
    harness.trigger();
    harness.step(2);
    harness.checkpoint().unwrap();
    harness.restart().unwrap();
    harness.finish().unwrap();
    check(&harness);
}

/// A type of state that no longer fits is refused by name, not read as something else.
#[test]
fn state_of_another_type_is_refused() {
    fn job(job: &mut Job, args: &Args) -> JobResult {
        let wide = args.or("wide-from", u64::MAX)?;
        let keyed = job.source("n", items(0..500u64)).key_by(|n| n % 7);
        if wide == 0 {
            keyed
                .process(
                    "state",
                    |_: &u64, _, state: &mut Option<String>, _: &mut tidegate_stream::Collector<u64>| {
                        *state = Some("x".into());
                    },
                )
                .sink("out", collect("out"));
        } else {
            keyed
                .process(
                    "state",
                    |_: &u64, _, state: &mut Option<u64>, _: &mut tidegate_stream::Collector<u64>| {
                        *state = Some(1);
                    },
                )
                .sink("out", collect("out"));
        }
        Ok(())
    }
    let mut harness = Harness::start(Setup::new(job)).unwrap();
    harness.step(3);
    harness.checkpoint().unwrap();
    let error = harness.restart_with(&["--wide-from", "0"]).unwrap_err();
    assert!(error.contains("operator `state`") && error.contains("(u64 to String)"), "{error}");
    assert_eq!(harness.manager().failure_kind(), Some(FailureKind::Task(Fault::Setup)));
}

/// State that no operator claims is not dropped in silence.
#[test]
fn state_of_a_lost_operator_is_refused() {
    fn job(job: &mut Job, args: &Args) -> JobResult {
        let uid = args.or("uid", "old".to_owned())?;
        job.source("n", items(0..500u64))
            .key_by(|n| n % 7)
            .reduce("sum", |n| *n, |sum, n| *sum += n)
            .uid(&uid)
            .sink("out", collect("out"))
            .uid("out");
        Ok(())
    }
    let mut harness = Harness::start(Setup::new(job)).unwrap();
    harness.step(3);
    harness.checkpoint().unwrap();
    let error = harness.restart_with(&["--uid", "new"]).unwrap_err();
    assert!(error.contains("but the job has no such operator any more"), "{error}");
    assert_eq!(harness.manager().failure_kind(), Some(FailureKind::Task(Fault::Setup)));
}
