//! A task that cannot go on waits, and costs nothing while it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tidegate_exchange::Cause;
use tidegate_stream::files::Files;
use tidegate_stream::sink::{Prepared, SinkContext};
use tidegate_stream::slot;
use tidegate_stream::source::{Next, Pause, SourceContext};
use tidegate_stream::testing::{Harness, Setup, collect, items};
use tidegate_stream::{Args, Job, Sink, SinkWriter, Source, SourceReader, TaskError};

/// A sink that takes `room` items and then none.
#[derive(Clone)]
struct Stuck {
    room: u32,
}

impl Sink<u64> for Stuck {
    type Writer = Stuck;
    fn outputs(&mut self) -> Vec<&mut String> {
        Vec::new()
    }
    fn open(&self, _context: &SinkContext<'_>) -> Result<Stuck, TaskError> {
        Ok(self.clone())
    }
}

impl SinkWriter<u64> for Stuck {
    fn ready(&mut self, _files: &mut dyn Files) -> bool {
        self.room > 0
    }
    fn write(&mut self, _item: &u64, _files: &mut dyn Files) -> Result<(), TaskError> {
        self.room -= 1;
        Ok(())
    }
    fn cut(&mut self, _checkpoint: u64, _files: &mut dyn Files) -> Result<(), TaskError> {
        Ok(())
    }
    fn prepare_commit(&mut self, _checkpoint: u64, _files: &mut dyn Files) -> Result<Prepared, TaskError> {
        Ok(Prepared::Ready { state: Vec::new(), committables: Vec::new() })
    }
}

/// Back-pressure reaches the source through two exchanges; then nothing runs any more, no slot spins, and the wait-for
/// graph says who waits for what.
#[test]
fn a_stuck_sink_parks_everything_and_is_named() {
    let job = |job: &mut Job, _: &Args| {
        job.source("n", items(0..1_000_000u64))
            .unchain()
            .map("middle", |n| *n)
            .unchain()
            .sink("stuck", Stuck { room: 10 });
        Ok(())
    };
    let mut harness = Harness::start(Setup::new(job).parallelism(2).slots(2).segments(64, 4096)).unwrap();
    let error = harness.finish().unwrap_err();
    assert!(error.starts_with("deadlock: nothing moves any more\n"), "{error}");
    let waiting = |task: &str, for_: &str| {
        let line =
            error.lines().find(|line| line.starts_with(task)).unwrap_or_else(|| panic!("{task} in {error}"));
        assert!(line.contains(&format!("waits for {for_}")), "{line}");
    };
    waiting("n [0/0]", "output");
    waiting("middle [1/1]", "output");
    waiting("stuck [2/0]", "files or its waker");

    // The time goes to whoever is to blame, and nowhere else.
    let before: Vec<_> = (0..2).flat_map(|slot| harness.metrics(slot).tasks).collect();
    harness.step(1_000);
    let after: Vec<_> = (0..2).flat_map(|slot| harness.metrics(slot).tasks).collect();
    let sources = (before[0].counts, after[0].counts);
    let waited_ns = sources.1.backpressured_ns - sources.0.backpressured_ns;
    assert!(waited_ns > 0);
    for (before, after) in before.iter().zip(&after) {
        let (idle, pressed) = if after.name == "stuck" { (waited_ns, 0) } else { (0, waited_ns) };
        assert_eq!(after.counts.idle_ns - before.counts.idle_ns, idle, "{}", after.name);
        assert_eq!(after.counts.backpressured_ns - before.counts.backpressured_ns, pressed, "{}", after.name);
        assert_eq!(after.counts.busy_ns, before.counts.busy_ns, "{}", after.name);
    }
    for task in &after {
        let held_up = task.held_up.map(|held_up| (held_up.cause, held_up.partition, held_up.channel));
        // A forward edge has one channel: to the same subtask, which has not read what it was given.
        let expected = (task.name != "stuck").then_some((Cause::Cpu, 0, 0));
        assert_eq!(held_up, expected, "{}", task.name);
        let by_cause: u64 = task.counts.held_up_ns.iter().sum();
        assert_eq!(by_cause, task.counts.backpressured_ns, "each moment of it has a cause: {}", task.name);
        let slot::Rates { busy, turn, backpressured, idle } = task.rates;
        assert!(busy + backpressured + idle == 1000 && turn <= busy, "{}: {:?}", task.name, task.rates);
    }
    let source = &after[0];
    assert_eq!((source.name.as_str(), source.output.used), ("n", source.output.quota));
    assert!(source.output.counters.bytes >= 8 * source.counts.records_out - 4096, "{source:?}");
    assert_eq!(after[1].input.counters.segments, 32, "{:?}", after[1]);
    harness.cancel().unwrap();
}

/// A fork is as slow as its slowest branch, and does not spin on the fast one.
#[test]
fn a_stuck_branch_parks_the_fork() {
    let job = |job: &mut Job, _: &Args| {
        let fork = job.source("n", items(0..1_000_000u64)).fork();
        fork.branch().sink("stuck", Stuck { room: 10 });
        fork.branch().rebalance().sink("out", collect("out"));
        Ok(())
    };
    let mut harness = Harness::start(Setup::new(job)).unwrap();
    let error = harness.finish().unwrap_err();
    assert!(error.contains("waits for files or its waker"), "{error}");
    harness.cancel().unwrap();
}

/// Nothing ever comes.
#[derive(Clone)]
struct Silent;

impl Source for Silent {
    type Item = u64;
    type Reader = Silent;
    fn open(&self, _context: &SourceContext<'_>) -> Result<Silent, TaskError> {
        Ok(Silent)
    }
}

impl SourceReader for Silent {
    type Item = u64;
    fn next(&mut self, _now_ns: u64) -> Result<Next<'_, u64>, TaskError> {
        Ok(Next::Wait(Pause::External))
    }
    fn position(&self, _out: &mut Vec<u8>) -> Result<(), TaskError> {
        Ok(())
    }
}

/// Who has to be on time finds its slot awake; who has not, does not keep it from sleeping.
#[test]
fn a_punctual_pause_ends_awake() {
    const AT_NS: u64 = 1_000_000_000;
    #[derive(Clone)]
    struct Once(fn(u64) -> Pause);
    impl Source for Once {
        type Item = u64;
        type Reader = Once;
        fn open(&self, _context: &SourceContext<'_>) -> Result<Once, TaskError> {
            Ok(self.clone())
        }
    }
    impl SourceReader for Once {
        type Item = u64;
        fn next(&mut self, now_ns: u64) -> Result<Next<'_, u64>, TaskError> {
            Ok(if now_ns < AT_NS { Next::Wait((self.0)(AT_NS)) } else { Next::End })
        }
        fn position(&self, _out: &mut Vec<u8>) -> Result<(), TaskError> {
            Ok(())
        }
    }
    for (pause, sleeps) in [(Pause::Until as fn(u64) -> Pause, 1), (Pause::Punctual, 0)] {
        let job = move |job: &mut Job, _: &Args| {
            job.source("once", Once(pause)).sink("out", collect("out"));
            Ok(())
        };
        let mut harness = Harness::start(Setup::new(job)).unwrap();
        let lead_ns = tidegate_stream::limits::PUNCTUAL_LEAD_NS;
        for (before_ns, expected) in [(2 * lead_ns, 1), (lead_ns / 2, sleeps)] {
            while harness.now_ns() < AT_NS - before_ns {
                harness.step(1);
            }
            let waits = harness.metrics(0).waits;
            harness.wait(0);
            assert_eq!(harness.metrics(0).waits - waits, expected, "{before_ns} ns before");
        }
        harness.finish().unwrap();
    }
}

/// An output that cannot be written is found at the start, whenever its first item comes.
#[test]
fn a_sink_begins_its_output_before_its_first_item() {
    #[derive(Clone)]
    struct Begun(Arc<AtomicU32>);
    impl Sink<u64> for Begun {
        type Writer = Begun;
        fn outputs(&mut self) -> Vec<&mut String> {
            Vec::new()
        }
        fn open(&self, _context: &SinkContext<'_>) -> Result<Begun, TaskError> {
            Ok(self.clone())
        }
    }
    impl SinkWriter<u64> for Begun {
        fn ready(&mut self, _files: &mut dyn Files) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed);
            true
        }
        fn write(&mut self, _item: &u64, _files: &mut dyn Files) -> Result<(), TaskError> {
            Ok(())
        }
        fn cut(&mut self, _checkpoint: u64, _files: &mut dyn Files) -> Result<(), TaskError> {
            Ok(())
        }
        fn prepare_commit(&mut self, _: u64, _: &mut dyn Files) -> Result<Prepared, TaskError> {
            Ok(Prepared::Ready { state: Vec::new(), committables: Vec::new() })
        }
    }
    let asked = Arc::new(AtomicU32::new(0));
    let sink = Begun(Arc::clone(&asked));
    let job = move |job: &mut Job, _: &Args| {
        job.source("silent", Silent).rebalance().owned().sink("out", sink.clone());
        Ok(())
    };
    let mut harness = Harness::start(Setup::new(job)).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 0, "not before the JobManager lets it run");
    harness.step(10);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    harness.cancel().unwrap();
}
