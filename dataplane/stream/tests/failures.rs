//! What goes wrong in user code fails the task by name, and leaves nothing behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tidegate_stream::error::Fault;
use tidegate_stream::slot::FailureKind;
use tidegate_stream::source::{Next, Pause, SourceContext};
use tidegate_stream::testing::{Harness, Setup, collect, items, run};
use tidegate_stream::{
    Args, Job, JobResult, MapFunction, ProcessFunction, RuntimeContext, Source, SourceReader, TaskError,
};

fn error_of(job: impl Fn(&mut Job, &Args) -> JobResult + Send + Sync + 'static) -> String {
    let mut harness = Harness::start(Setup::new(job).parallelism(2)).expect("it starts");
    let error = harness.finish().expect_err("it fails");
    harness.cancel().expect("everything is given back");
    error
}

#[test]
fn a_panic_fails_the_task_with_its_message() {
    let error = error_of(|job, _| {
        job.source("n", items(0..1_000u64))
            .key_by(|n| *n)
            .process("divide", |_: &u64, n, _: &mut Option<u64>, out| {
                assert!(*n != 700, "seven hundred is too much");
                out.emit(*n);
            })
            .sink("out", collect("out"));
        Ok(())
    });
    assert!(error.contains("panicked: seven hundred is too much"), "{error}");
    assert!(error.contains("divide"), "{error}");
}

#[test]
fn too_many_outputs_fail_by_name() {
    let error = error_of(|job, _| {
        job.source("n", items(0..10u64))
            .key_by(|n| *n)
            .process("burst", |_: &u64, n, _: &mut Option<u64>, out| (0..n * 3).for_each(|i| out.emit(i)))
            .sink("out", collect("out"));
        Ok(())
    });
    assert_eq!(
        error,
        "operator `burst`: user function emitted too much: more than 16 outputs for one item: declare a larger \
         `fan_out`, or use flat_map, which has no bound"
    );
}

#[derive(Clone)]
struct Burst;

impl ProcessFunction<u64, u64> for Burst {
    type State = u64;
    type Out = u64;
    fn fan_out(&self) -> u32 {
        1_000
    }
    fn process(
        &mut self,
        _key: &u64,
        item: &u64,
        _state: &mut Option<u64>,
        out: &mut tidegate_stream::Collector<u64>,
    ) -> Result<(), TaskError> {
        (0..*item).for_each(|i| out.emit(i));
        Ok(())
    }
}

/// A declared fan-out is held and drained output by output, through a gate with few segments.
#[test]
fn a_declared_fan_out_is_drained() {
    let job = |job: &mut Job, _: &Args| {
        job.source("n", items([1_000u64; 300]))
            .key_by(|n| *n)
            .process_with("burst", Burst)
            .rebalance()
            .sink("out", collect("out"));
        Ok(())
    };
    let mut harness = Harness::start(Setup::new(job).segments(70, 4096)).unwrap();
    harness.finish().unwrap();
    assert_eq!(harness.collected::<u64>("out").len(), 300_000);
}

#[test]
fn an_error_names_its_operator() {
    #[derive(Clone)]
    struct Refuse;
    impl MapFunction<u64> for Refuse {
        type Out = u64;
        fn map(&mut self, item: &u64) -> Result<u64, TaskError> {
            if *item < 5 { Ok(*item) } else { Err(TaskError::data(format!("{item} is out of range"))) }
        }
    }
    let error = error_of(|job, _| {
        job.source("n", items(0..10u64))
            .map("fine", |n| *n)
            .map_with("check", Refuse)
            .sink("out", collect("out"));
        Ok(())
    });
    // The first to fail of two subtasks that share the numbers out.
    assert_eq!(error, "operator `check`: input data is malformed: 6 is out of range");
}

#[test]
fn a_custom_partitioner_out_of_range_fails() {
    let error = error_of(|job, _| {
        job.source("n", items(0..10u64)).partition_custom(|_, channels| channels).sink("out", collect("out"));
        Ok(())
    });
    assert!(error.contains("picked channel 2, there are 2 (0 to 1)"), "{error}");
}

#[test]
fn a_key_that_changes_is_noticed() {
    let error = error_of(|job, _| {
        let calls = Arc::new(AtomicU32::new(0));
        job.source("n", items(0..1_000u64))
            .key_by(move |_| calls.fetch_add(1, Ordering::Relaxed))
            .reduce("sum", |n| *n, |sum, n| *sum += n)
            .sink("out", collect("out"));
        Ok(())
    });
    assert!(error.contains("its key function does not always give the same key"), "{error}");
}

#[test]
fn a_record_larger_than_records_may_be_fails() {
    let error = error_of(|job, _| {
        job.source("words", items(["x".repeat(5_000)])).rebalance().owned().sink("out", collect("out"));
        Ok(())
    });
    assert!(error.contains("records have at most 4096"), "{error}");
}

#[test]
fn a_sink_whose_file_breaks_fails_the_task() {
    let job = |job: &mut Job, _: &Args| {
        job.source("n", items(0..100u64)).sink("out", collect("out"));
        Ok(())
    };
    let mut harness = Harness::start(Setup::new(job)).unwrap();
    harness.break_files(Some("out/"));
    let error = harness.finish().unwrap_err();
    assert!(error.contains("operator `out`: files could not be written"), "{error}");
    harness.cancel().unwrap();
}

#[derive(Clone)]
struct Lifecycle {
    opened: Arc<AtomicU32>,
    closed: Arc<AtomicU32>,
    panics: bool,
}

impl MapFunction<u64> for Lifecycle {
    type Out = u64;
    fn open(&mut self, context: &RuntimeContext) -> Result<(), TaskError> {
        assert_eq!((context.operator.as_str(), context.parallelism), ("life", 2));
        self.opened.fetch_add(1 << (8 * context.subtask), Ordering::Relaxed);
        Ok(())
    }
    fn map(&mut self, item: &u64) -> Result<u64, TaskError> {
        assert!(!self.panics, "as asked");
        Ok(*item)
    }
    fn close(&mut self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn functions_are_opened_and_closed_once_per_subtask() {
    for panics in [false, true] {
        let (opened, closed) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let life = Lifecycle { opened: Arc::clone(&opened), closed: Arc::clone(&closed), panics };
        let job = move |job: &mut Job, _: &Args| {
            job.source("n", items(0..10u64)).map_with("life", life.clone()).sink("out", collect("out"));
            Ok(())
        };
        let mut harness = Harness::start(Setup::new(job).parallelism(2)).unwrap();
        assert_eq!(harness.finish().is_err(), panics);
        harness.cancel().unwrap();
        assert_eq!(opened.load(Ordering::Relaxed), 0x0101);
        assert_eq!(closed.load(Ordering::Relaxed), 2);
    }
}

#[test]
fn a_function_that_does_not_open_refuses_the_attempt() {
    #[derive(Clone)]
    struct Closed;
    impl MapFunction<u64> for Closed {
        type Out = u64;
        fn open(&mut self, _context: &RuntimeContext) -> Result<(), TaskError> {
            Err("no licence".into())
        }
        fn map(&mut self, item: &u64) -> Result<u64, TaskError> {
            Ok(*item)
        }
    }
    let error = run(
        |job, _| {
            job.source("n", items(0..10u64)).map_with("model", Closed).sink("out", collect("out"));
            Ok(())
        },
        &[],
    );
    assert_eq!(error.err().unwrap(), "operator `model`: user function failed: no licence");
}

/// What keeps an attempt from being prepared says of what kind it is, because that decides whether it is tried again.
#[test]
fn refusals_have_kinds() {
    let refused = |setup: Setup, args: &[&str], says: &str| {
        let mut harness = Harness::start(setup).expect("the first attempt is prepared");
        let error = harness.restart_with(args).unwrap_err();
        assert!(error.contains(says), "{error}");
        harness.manager().failure_kind().expect("it was refused")
    };

    let opening = |job: &mut Job, args: &Args| {
        #[derive(Clone)]
        struct Opens(bool);
        impl MapFunction<u64> for Opens {
            type Out = u64;
            fn open(&mut self, _context: &RuntimeContext) -> Result<(), TaskError> {
                if self.0 { Ok(()) } else { Err("no licence".into()) }
            }
            fn map(&mut self, item: &u64) -> Result<u64, TaskError> {
                Ok(*item)
            }
        }
        let opens = Opens(args.or("opens", true)?);
        job.source("n", items(0..10u64)).map_with("model", opens).sink("out", collect("out"));
        Ok(())
    };
    let kind = refused(Setup::new(opening), &["--opens", "false"], "no licence");
    assert_eq!(kind, FailureKind::Task(Fault::User));

    let writers = |job: &mut Job, args: &Args| {
        let numbers = job.source("n", items(0..10u64)).fork();
        for number in 0..args.or("sinks", 1)? {
            let name = format!("out-{number}");
            numbers.branch().sink(&name, collect(&name));
        }
        Ok(())
    };
    let says = "the job has 3 keyed operators and sinks in one slot, and a slot has a file buffer for 2";
    let kind = refused(Setup::new(writers).files(2, 1), &["--sinks", "3"], says);
    assert_eq!(kind, FailureKind::Task(Fault::Setup));

    // The first two calls are the JobManager's and the slot's, the third is the JobManager's for the restart.
    let calls = Arc::new(AtomicU32::new(0));
    let panicking = move |job: &mut Job, _: &Args| {
        assert!(calls.fetch_add(1, Ordering::Relaxed) < 3, "out of luck");
        job.source("n", items(0..10u64)).sink("out", collect("out"));
        Ok(())
    };
    let kind = refused(Setup::new(panicking), &[], "the job function panicked: out of luck");
    assert_eq!(kind, FailureKind::Task(Fault::Setup));

    let hungry = |job: &mut Job, args: &Args| {
        let numbers = job.source("n", items(0..10u64));
        match args.or("exchange", false)? {
            true => numbers.rebalance().sink("out", collect("out")),
            false => numbers.sink("out", collect("out")),
        };
        Ok(())
    };
    let kind = refused(Setup::new(hungry).segments(1, 4096), &["--exchange", "true"], "network segments");
    assert_eq!(kind, FailureKind::Resources);
}

/// A source that pauses on time: nothing spins, the timer is what moves it.
#[test]
fn a_source_may_wait_for_a_time() {
    #[derive(Clone)]
    struct Ticks;
    struct TicksReader {
        ticks: u64,
    }
    impl Source for Ticks {
        type Item = u64;
        type Reader = TicksReader;
        fn open(&self, _context: &SourceContext<'_>) -> Result<TicksReader, TaskError> {
            Ok(TicksReader { ticks: 0 })
        }
    }
    impl SourceReader for TicksReader {
        type Item = u64;
        fn next(&mut self, now_ns: u64) -> Result<Next<'_, u64>, TaskError> {
            let due = (self.ticks + 1) * 1_000_000_000;
            if self.ticks == 5 {
                return Ok(Next::End);
            }
            if now_ns < due {
                return Ok(Next::Wait(Pause::Until(due)));
            }
            self.ticks += 1;
            Ok(Next::Item(&self.ticks))
        }
        fn position(&self, out: &mut Vec<u8>) -> Result<(), TaskError> {
            out.push(self.ticks as u8);
            Ok(())
        }
    }
    let run = run(
        |job, _| {
            job.source("ticks", Ticks).sink("out", collect("out"));
            Ok(())
        },
        &[],
    );
    assert_eq!(run.unwrap().collected::<u64>("out"), [1, 2, 3, 4, 5]);
}

#[test]
fn too_few_segments_are_refused_with_the_arithmetic() {
    let job = |job: &mut Job, _: &Args| {
        job.source("n", items(0..10u64)).rebalance().sink("out", collect("out"));
        Ok(())
    };
    let error = Harness::start(Setup::new(job).segments(1, 4096)).err().unwrap();
    assert!(error.contains("needs 2 network segments but has 1"), "{error}");
}
