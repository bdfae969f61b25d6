//! Jobs that want more memory than the plan of their TaskManager has: each fails alone and by name, and what runs beside it
//! does not notice.
//!
//! The jobs are not ones of the shipped binary. The binary that has them is this test binary, run once more with a command
//! line in its environment, as in `hangs.rs`.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidegate::cli::App;
use tidegate::connect::{CsvRow, CsvSink, Sequence};
use tidegate::stream::Collector;
use tidegate::stream::error::Fault;
use tidegate::stream::source::{Next, Pause, Source, SourceReader};
use tidegate::{Args, Job, JobResult, Jobs, MapFunction, SourceContext, TaskError};

use crate::kills::all_segments_free;
use crate::plans::Ledger;
use crate::support::cluster::{Cluster, SLOTS};
use crate::support::engine::applied;
use crate::support::job;
use crate::support::output::{Expected, Table, check};
use crate::support::{SOON, WHOLE_JOB, wait_for};

/// The command line of a process that is to be the binary, its words apart by [`SPACE`].
const LINE: &str = "TIDEGATE_E2E_OUTGROWN";
const SPACE: char = '\u{1f}';

/// `submit --wait` when the job has failed.
const FAILED: i32 = 1;
/// A process that would outgrow its plan.
const OUTGROWN: i32 = 71;

/// What a normal job has done before it waits for the test, and all of it.
const FIRST: u64 = 5_000;
const ALL: u64 = 20_000;

/// What leaks with each number. A slot of these clusters has about 82 MiB of task heap: full after some 330.
const LEAK_BYTES: usize = 256 << 10;
const LEAK_RATE: u64 = 500;
/// Half a gibibyte is all that a TaskManager of these clusters has.
const BURST_BYTES: usize = 1 << 30;

fn binary(arguments: &[String]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "outgrown::the_binary_with_the_jobs_that_outgrow", "--quiet", "--nocapture"]);
    command.env(LINE, applied(arguments).join(&SPACE.to_string()));
    command
}

#[test]
fn the_binary_with_the_jobs_that_outgrow() {
    let Ok(line) = std::env::var(LINE) else { return };
    let words = std::iter::once("outgrown").chain(line.split(SPACE)).map(OsString::from);
    type Make = fn(&mut Job, &Args) -> JobResult;
    let jobs: [(&str, Make); 4] =
        [("normal", normal), ("leaky", leaky), ("hoarder", hoarder), ("bursting", bursting)];
    std::process::exit(App::new(Jobs::new(jobs)).run_with(words) as i32);
}

fn rows(output: String) -> CsvSink<u64, impl FnMut(&u64, &mut CsvRow<'_>) + Clone + Send + 'static> {
    CsvSink::new(output, ["n"], |n: &u64, row: &mut CsvRow<'_>| {
        row.value(*n);
    })
}

/// Copies numbers, the later ones once there is a file that says so.
fn normal(job: &mut Job, args: &Args) -> JobResult {
    let goes_on: String = args.required("goes-on")?;
    job.source("numbers", Gated { goes_on: goes_on.into() })
        .rebalance()
        .map("copy", |n: &u64| *n)
        .sink("out", rows(args.required("output")?));
    Ok(())
}

/// Keeps memory with each number, in every attempt anew.
fn leaky(job: &mut Job, args: &Args) -> JobResult {
    job.source("numbers", Sequence::generate(u64::MAX, |n| n).rate(Some(LEAK_RATE)))
        .map_with("leak", Leak(Vec::new()))
        .sink("out", rows(args.required("output")?));
    Ok(())
}

#[derive(Clone)]
struct Leak(Vec<Vec<u8>>);

impl MapFunction<u64> for Leak {
    type Out = u64;

    fn map(&mut self, n: &u64) -> Result<u64, TaskError> {
        self.0.push(vec![0; LEAK_BYTES]);
        Ok(*n)
    }
}

/// Has ever more keys, with a kibibyte for each.
fn hoarder(job: &mut Job, args: &Args) -> JobResult {
    job.source("pairs", Sequence::generate(u64::MAX, |n| [n, n]))
        .key_by(|pair: &[u64; 2]| pair[0])
        .process("hoard", |_: &u64, _, kept: &mut Option<String>, _: &mut Collector<u64>| {
            *kept = Some("x".repeat(1 << 10));
        })
        .sink("out", rows(args.required("output")?));
    Ok(())
}

/// Copies numbers; on its way, a function asks once for more than there is.
fn bursting(job: &mut Job, args: &Args) -> JobResult {
    let mark: String = args.required("goes-on")?;
    let mark = PathBuf::from(mark);
    job.source("numbers", Gated { goes_on: mark.clone() })
        .rebalance()
        .map("burst", move |n: &u64| {
            if *n == FIRST - 1 && File::create_new(&mark).is_ok() {
                drop(std::hint::black_box(vec![1u8; BURST_BYTES]));
            }
            *n
        })
        .sink("out", rows(args.required("output")?));
    Ok(())
}

/// The numbers below [`ALL`], from [`FIRST`] on only when a file exists.
#[derive(Clone)]
struct Gated {
    goes_on: PathBuf,
}

/// Of subtask 0; the others have nothing.
struct Numbers {
    next: u64,
    end: u64,
    last: u64,
    goes_on: PathBuf,
}

impl Source for Gated {
    type Item = u64;
    type Reader = Numbers;

    fn open(&self, context: &SourceContext<'_>) -> Result<Numbers, TaskError> {
        let position = context.positions.first().map(|bytes| bytes.as_slice().try_into());
        let next = match position.transpose() {
            Ok(bytes) => bytes.map_or(0, u64::from_le_bytes),
            Err(_) => return Err(TaskError::new(Fault::State, "a position has 8 bytes")),
        };
        let end = if context.runtime.subtask == 0 { ALL } else { 0 };
        Ok(Numbers { next, end, last: 0, goes_on: self.goes_on.clone() })
    }
}

impl SourceReader for Numbers {
    type Item = u64;

    fn next(&mut self, now_ns: u64) -> Result<Next<'_, u64>, TaskError> {
        const LOOK_EVERY_NS: u64 = 20_000_000;
        if self.next >= self.end {
            return Ok(Next::End);
        }
        if self.next == FIRST && !self.goes_on.exists() {
            return Ok(Next::Wait(Pause::Until(now_ns + LOOK_EVERY_NS)));
        }
        self.last = self.next;
        self.next += 1;
        Ok(Next::Item(&self.last))
    }

    fn position(&self, out: &mut Vec<u8>) -> Result<(), TaskError> {
        out.extend(self.next.to_le_bytes());
        Ok(())
    }
}

/// Every number below [`ALL`], once.
fn all_numbers() -> Expected {
    let mut table = Table::new("n");
    (0..ALL).for_each(|n| table.add(n.to_string()));
    Expected([(String::new(), table)].into())
}

#[test]
fn a_task_that_leaks_fails_alone_while_another_job_runs_beside_it() {
    let mut cluster = Cluster::of(binary, 1, &[]);
    let [output, wasted] = ["out", "wasted"].map(|name| cluster.output(name));
    let goes_on = cluster.folder().join("goes-on");
    let flags = ["--output", path(&output), "--goes-on", path(&goes_on)];
    let mut normal = job::Job::submit(&mut cluster, "normal", 1, &flags);
    normal.wait_running(&cluster, SOON);
    let taskmanager = cluster.taskmanagers[0].id();
    let mut leaky = job::Job::submit(&mut cluster, "leaky", 1, &["--output", path(&wasted)]);

    let failure = wait_for("the leak to be noticed, and the job to be begun again", SOON, || {
        let all = cluster.get(&format!("/jobs/{}/exceptions", leaky.id))?;
        let first = all["exceptionHistory"]["entries"].as_array()?.last()?.clone();
        (leaky.attempts(&cluster)? > 1).then_some(first)
    });
    let (task, text) = (failure["taskName"].to_string(), failure["stacktrace"].to_string());
    println!("{task}: {text}");
    assert!(task.contains("leak"), "{failure}");
    let ledger = Ledger::of(&cluster, cluster.taskmanagers[0].id()).expect("it goes on");
    let share = ledger.line("taskHeap")[0] / SLOTS as u64;
    let words = [
        "too much heap is held",
        "leak",
        &format!("the tasks of its slot hold more than their task heap of {share} bytes: this one "),
        "(peak ",
        "Since the last checkpoint it grew by ",
        "taskmanager.memory.task.heap.size",
    ];
    for words in words {
        assert!(text.contains(words), "{words:?} in {text}");
    }

    // The other one has half of its work still before it.
    assert_eq!(normal.state(&cluster).as_deref(), Some("RUNNING"));
    let canceled = cluster.cancel(&leaky.id);
    assert!(canceled.status.success(), "{canceled:?}");
    leaky.wait(SOON);
    File::create_new(&goes_on).expect("the folder of the test can be written");
    normal.finish(&cluster, WHOLE_JOB);
    check(&output, all_numbers());
    assert_eq!(normal.attempts(&cluster), Some(1), "{}", normal.exceptions(&cluster));
    assert!(!cluster.taskmanagers[0].has_ended());
    assert_eq!(cluster.taskmanagers[0].id(), taskmanager);
    let known = cluster.get("/taskmanagers").expect("the JobManager answers");
    assert_eq!(known["taskmanagers"][0]["pid"].as_u64(), Some(u64::from(taskmanager)));
    all_segments_free(&cluster);
    cluster.stop();
}

#[test]
fn keyed_state_beyond_managed_memory_fails_its_job_for_good() {
    let mut cluster = Cluster::of(binary, 1, &[]);
    let output = cluster.output("out");
    let mut hoarder = job::Job::submit(&mut cluster, "hoarder", 1, &["--output", path(&output)]);
    assert_eq!(hoarder.wait(WHOLE_JOB).code(), Some(FAILED), "{}", hoarder.said());
    assert_eq!(hoarder.state(&cluster).as_deref(), Some("FAILED"));
    assert_eq!(hoarder.attempts(&cluster), Some(1), "the same input meets the same plan again");
    let text = hoarder.exceptions(&cluster);
    for words in ["hoard", "managed memory for keyed state", "taskmanager.memory.managed.size"] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
    assert!(!cluster.taskmanagers[0].has_ended());
    all_segments_free(&cluster);
    cluster.stop();
}

#[test]
fn one_huge_allocation_ends_its_taskmanager_by_name_and_the_job_goes_on_elsewhere() {
    let mut cluster = Cluster::of(binary, 2, &[]);
    let output = cluster.output("out");
    let mark = cluster.folder().join("bursts");
    let flags = ["--output", path(&output), "--goes-on", path(&mark)];
    let mut bursting = job::Job::submit(&mut cluster, "bursting", SLOTS as u32, &flags);
    let place = wait_for("a TaskManager to end", SOON, || {
        cluster.taskmanagers.iter_mut().position(|process| process.has_ended())
    });
    let mut ended = cluster.taskmanagers.remove(place);
    assert_eq!(ended.wait(SOON).code(), Some(OUTGROWN), "{}", ended.tail());
    let errors = ended.errors();
    let errors: Vec<&str> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors.as_slice() else { panic!("{errors:?}: {}", ended.tail()) };
    println!("{error}");
    let asks = format!("asks for {BURST_BYTES} bytes at once");
    for words in ["error: out of memory: ", "burst", &asks, "has 536870912", "memory.process.size"] {
        assert!(error.contains(words), "{words:?} in {error}");
    }
    bursting.finish(&cluster, WHOLE_JOB);
    assert!(bursting.attempts(&cluster) > Some(1));
    check(&output, all_numbers());
    all_segments_free(&cluster);
    cluster.stop();
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are UTF-8")
}
