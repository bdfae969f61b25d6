//! Memory of tasks: what leaks fails by name, what is reserved is enforced, and all of it is given back.

use std::sync::{Arc, Mutex};

use tidegate_memory::Accounted;
use tidegate_record::Key;
use tidegate_stream::connect::{CsvRow, CsvSink, Sequence};
use tidegate_stream::error::{Fault, TaskError};
use tidegate_stream::memory::{Reservation, SlotMemory};
use tidegate_stream::slot::FailureKind;
use tidegate_stream::testing::{Harness, Setup, collect, items};
use tidegate_stream::{AggregateFunction, Args, Job, JobResult, MapFunction, RuntimeContext};

#[global_allocator]
static HEAP: Accounted = Accounted::new();

const MIB: u64 = 1 << 20;

fn heap(bytes: u64) -> SlotMemory {
    SlotMemory { task_heap: Some(bytes), ..SlotMemory::default() }
}

fn state(bytes: u64) -> SlotMemory {
    SlotMemory { state: Some(bytes), ..SlotMemory::default() }
}

/// Runs to the failure that is expected, and through the cancel that gives everything back.
fn failure(setup: Setup) -> (FailureKind, String) {
    let mut harness = Harness::start(setup).expect("it starts");
    let error = harness.finish().expect_err("it fails");
    let kind = harness.manager().failure_kind().expect("a failure has a kind");
    harness.cancel().expect("everything is given back");
    (kind, error)
}

/// Keeps a kibibyte of every thousandth item.
fn leaky(job: &mut Job, _: &Args) -> JobResult {
    let kept = Arc::new(Mutex::new(Vec::new()));
    job.source("n", items(0..2_000_000u64))
        .map("leak", move |n: &u64| {
            if n.is_multiple_of(1000) {
                kept.lock().expect("nobody panics").push(vec![0u8; 64 << 10]);
            }
            *n
        })
        .sink("out", collect("out"));
    Ok(())
}

#[test]
fn a_leak_fails_its_task_with_what_it_holds() {
    let (kind, error) = failure(Setup::new(leaky).memory(heap(16 * MIB)));
    assert_eq!(kind, FailureKind::Task(Fault::Heap), "{error}");
    for part in
        ["leak", "task heap of 16777216 bytes", "peak", "in one step", "taskmanager.memory.task.heap.size"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn the_task_that_holds_most_is_the_one_that_fails() {
    let job = |job: &mut Job, args: &Args| {
        leaky(job, args)?;
        job.source("m", items(0..100_000u64))
            .map("modest", |n: &u64| {
                drop(std::hint::black_box(vec![0u8; 512 << 10]));
                *n
            })
            .sink("small", collect("small"));
        Ok(())
    };
    let (_, error) = failure(Setup::new(job).memory(heap(16 * MIB)));
    assert!(error.contains("leak") && !error.contains("modest"), "{error}");
}

#[test]
fn a_burst_within_one_step_counts() {
    let job = |job: &mut Job, _: &Args| {
        job.source("n", items(0..10u64))
            .map("burst", |n: &u64| {
                drop(std::hint::black_box(vec![0u8; 32 << 20]));
                *n
            })
            .sink("out", collect("out"));
        Ok(())
    };
    let (kind, error) = failure(Setup::new(job).memory(heap(16 * MIB)));
    assert_eq!(kind, FailureKind::Task(Fault::Heap), "{error}");
    assert!(error.contains("burst"), "{error}");
}

fn counting(job: &mut Job, keys: u64) {
    job.source("n", items(0..keys))
        .key_by(|n: &u64| *n)
        .process("count", |_: &u64, _, count: &mut Option<u64>, _: &mut tidegate_stream::Collector<u64>| {
            *count = Some(count.unwrap_or(0) + 1);
        })
        .sink("out", collect("out"));
}

#[test]
fn tables_are_reserved_before_they_grow() {
    let many = |job: &mut Job, _: &Args| {
        counting(job, 1_000_000);
        Ok(())
    };
    let (kind, error) = failure(Setup::new(many).memory(state(8 * MIB)));
    assert_eq!(kind, FailureKind::Task(Fault::Memory), "{error}");
    for part in
        ["count", "managed memory for keyed state", "taskmanager.memory.managed.size", "of 8388608 are left"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn state_is_no_part_of_the_heap_and_is_given_back() {
    let many = |job: &mut Job, _: &Args| {
        counting(job, 500_000);
        Ok(())
    };
    let memory = SlotMemory { task_heap: Some(4 * MIB), state: Some(64 * MIB), ..SlotMemory::default() };
    let mut harness = Harness::start(Setup::new(many).memory(memory)).expect("it starts");
    harness.step(100_000);
    let seen = harness.metrics(0).memory;
    // Three words a key, in tables that are at least half full, old and new at once at most.
    assert!((8 * MIB..=48 * MIB).contains(&seen.state.peak), "{seen:?}");
    assert!(seen.state.used > 8 * MIB && seen.state.total == 64 * MIB, "{seen:?}");
    assert!(seen.task_heap.peak < 4 * MIB, "{seen:?}");
    harness.cancel().expect("everything is given back");
    assert_eq!(harness.metrics(0).memory.state.used, 0);
}

/// Counts items of any kind by keys of any kind.
#[derive(Clone)]
struct Count;

impl<K: Key, T: ?Sized> AggregateFunction<K, T> for Count {
    type State = u64;
    type Out = u64;
    fn create(&mut self, _key: &K) -> u64 {
        0
    }
    fn add(&mut self, count: &mut u64, _item: &T) {
        *count += 1;
    }
    fn result(&mut self, _key: &K, count: u64) -> Result<u64, TaskError> {
        Ok(count)
    }
}

/// Seven keys fill a table of eight places to the last one. The budget is enough for it and for the smaller one that it grew
/// from, not for the next larger one: emptying it takes nothing.
#[test]
fn the_end_of_the_input_reserves_nothing() {
    let full = |job: &mut Job, _: &Args| {
        job.max_parallelism(1);
        job.source("n", items(0..7u64)).key_by(|n| *n).aggregate("count", Count).sink("out", collect("out"));
        Ok(())
    };
    let mut harness = Harness::start(Setup::new(full).memory(state(300))).expect("it starts");
    harness.finish().expect("it runs");
    assert_eq!(harness.collected::<u64>("out"), [1; 7]);
}

/// A job that goes on for years takes checkpoints all the while: what one leaves behind, however little, adds up.
#[test]
fn checkpoints_leave_nothing_on_the_heap_of_tasks() {
    const KEYS: u64 = 50;
    let endless = |job: &mut Job, _: &Args| {
        let numbers = |from: u64| Sequence::generate(u64::MAX, move |n| [n % KEYS, from + n]);
        let rows = CsvSink::new("out", ["key", "n"], |pair: &[u64; 2], row: &mut CsvRow<'_>| {
            row.value(pair[0]).value(pair[1]);
        });
        job.source("rows", numbers(0)).rebalance().map("same", |pair: &[u64; 2]| *pair).sink("csv", rows);
        let counted = job.source("pairs", numbers(1)).key_by(|pair: &[u64; 2]| pair[0]);
        counted.aggregate("count", Count).sink("counts", collect("counts"));
        Ok(())
    };
    let mut harness =
        Harness::start(Setup::new(endless).parallelism(2).slots(2).quantum(100)).expect("it starts");
    let held_after = |harness: &mut Harness, checkpoints: u32| {
        for _ in 0..checkpoints {
            harness.step(5);
            harness.checkpoint().expect("it completes");
        }
        [0, 1].map(|slot| harness.metrics(slot).memory.task_heap.used)
    };
    let early = held_after(&mut harness, 50);
    let late = held_after(&mut harness, 400);
    for (early, late) in early.into_iter().zip(late) {
        assert!(late < early + 400, "less than a byte for each checkpoint: {early} bytes, then {late}");
        assert!(early < late + 400, "nor is anything freed that was never taken: {early} bytes, then {late}");
    }
    harness.cancel().expect("everything is given back");
}

/// Keys that own memory are read ahead of their turn; those that a step does not come to are no part of the state.
#[test]
fn keys_read_ahead_are_no_state() {
    let names = |job: &mut Job, _: &Args| {
        let users = job.source("n", Sequence::generate(u64::MAX, |n| n));
        let counted = users.key_by(|n| format!("a user with a long name {}", n % 100));
        counted.aggregate("count", Count).sink("out", collect("out"));
        Ok(())
    };
    let mut harness = Harness::start(Setup::new(names).quantum(21)).expect("it starts");
    let mut held_after = |steps| {
        harness.step(steps);
        harness.metrics(0).memory.state.used
    };
    let early = held_after(500);
    assert!(early > 0);
    assert_eq!(held_after(5_000), early);
    harness.cancel().expect("everything is given back");
}

/// Values that keep most of their bytes outside of the table.
fn texts(job: &mut Job, _: &Args) -> JobResult {
    job.source("n", items(0..20_000u64))
        .key_by(|n: &u64| *n)
        .process("texts", |_: &u64, n, text: &mut Option<String>, _: &mut tidegate_stream::Collector<u64>| {
            *text = Some(format!("{n:01000}"));
        })
        .sink("out", collect("out"));
    Ok(())
}

#[test]
fn what_values_keep_beside_the_table_counts() {
    let (kind, error) = failure(Setup::new(texts).memory(state(8 * MIB)));
    assert_eq!(kind, FailureKind::Task(Fault::Memory), "{error}");
    let mut harness = Harness::start(Setup::new(texts).memory(state(64 * MIB))).expect("it starts");
    harness.step(20_000);
    let seen = harness.metrics(0).memory.state;
    assert!((20 * MIB..40 * MIB).contains(&seen.used), "20,000 texts of 1000 bytes: {seen:?}");
}

#[test]
fn restored_state_is_reserved_too() {
    let setup = |memory| Setup::new(texts).memory(memory);
    let mut harness = Harness::start(setup(state(64 * MIB))).expect("it starts");
    harness.step(20_000);
    let before = harness.metrics(0).memory.state.used;
    harness.checkpoint().expect("it completes");
    harness.restart().expect("it is restored");
    let after = harness.metrics(0).memory.state.used;
    assert!(after > before / 2 && after < before * 2, "{before} before, {after} after");
    harness.limit(state(8 * MIB));
    let error = harness.restart().expect_err("it does not fit any more");
    assert!(error.contains("managed memory for keyed state"), "{error}");
}

#[derive(Clone, Default)]
struct Reserves {
    off_heap: u64,
    managed: u64,
    held: Arc<Mutex<Vec<Reservation>>>,
}

impl MapFunction<u64> for Reserves {
    type Out = u64;
    fn open(&mut self, context: &RuntimeContext) -> Result<(), TaskError> {
        let mut held = self.held.lock().expect("nobody panics");
        if self.off_heap > 0 {
            held.push(context.memory.reserve_off_heap(self.off_heap)?);
        }
        if self.managed > 0 {
            held.push(context.memory.reserve_managed(self.managed)?);
        }
        Ok(())
    }
    fn map(&mut self, item: &u64) -> Result<u64, TaskError> {
        Ok(*item)
    }
}

fn reserving(
    reserves: Reserves,
    declared: bool,
) -> impl Fn(&mut Job, &Args) -> JobResult + Send + Sync + 'static {
    move |job, _| {
        let stream = job.source("n", items(0..10u64)).map_with("reserve", reserves.clone());
        let stream = if declared { stream.managed_memory() } else { stream };
        stream.sink("out", collect("out"));
        Ok(())
    }
}

#[test]
fn operators_reserve_what_is_planned_and_no_more() {
    let memory = SlotMemory { task_off_heap: Some(MIB), operators: Some(2 * MIB), ..SlotMemory::default() };
    let fits = Reserves { off_heap: MIB, managed: 2 * MIB, ..Reserves::default() };
    let held = Arc::clone(&fits.held);
    let mut harness = Harness::start(Setup::new(reserving(fits, true)).memory(memory)).expect("it fits");
    let seen = harness.metrics(0).memory;
    assert_eq!((seen.task_off_heap.used, seen.operators.used), (MIB, 2 * MIB));
    held.lock().expect("nobody panics").clear();
    harness.finish().expect("it runs");

    let refused = |reserves, declared| {
        let setup = Setup::new(reserving(reserves, declared)).memory(memory);
        Harness::start(setup).map(drop).expect_err("it is refused")
    };
    let error = refused(Reserves { off_heap: MIB + 1, ..Reserves::default() }, false);
    assert!(error.contains("taskmanager.memory.task.off-heap.size"), "{error}");
    let error = refused(Reserves { managed: 2 * MIB + 1, ..Reserves::default() }, true);
    assert!(error.contains("managed memory for operators"), "{error}");
    let error = refused(Reserves { managed: 1, ..Reserves::default() }, false);
    assert!(error.contains("managed_memory()"), "{error}");
}
