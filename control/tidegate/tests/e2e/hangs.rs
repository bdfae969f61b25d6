//! A slot that hangs in a function of its job: its TaskManager ends by name, and nothing else hangs with it.
//!
//! The job is not one of the shipped binary. The binary that has it is this test binary, run once more with a command line
//! in its environment: JobManager, TaskManagers and client are all that one.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidegate::cli::App;
use tidegate::connect::{ArchivedLineBlock, CsvRow, CsvSink, LineFile};
use tidegate::stream::error::Fault;
use tidegate::{Args, Job, JobResult, Jobs, MapFunction, RuntimeContext, TaskError};

use crate::kills::all_segments_free;
use crate::support::cluster::{Cluster, SLOTS};
use crate::support::engine::applied;
use crate::support::job;
use crate::support::output::{Expected, Table, check, pending};
use crate::support::{SOON, WHOLE_JOB, wait_for};

/// The command line of a process that is to be the binary, its words apart by [`SPACE`].
const LINE: &str = "TIDEGATE_E2E_HANGS";
const SPACE: char = '\u{1f}';

/// How long a slot of these clusters may take to answer a cancel; 30 s where nobody says otherwise.
const CANCEL_MAX: &str = "1s";

/// What a process says of itself with its exit code when a slot of it hangs.
const INTERNAL: i32 = 70;
const CANCELED: i32 = 3;

/// Enough for the one subtask to see, at [`RATE`], that the other one hangs.
const LINES: usize = 6_000;
const RATE: u64 = 2_000;

fn binary(arguments: &[String]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "hangs::the_binary_with_the_job_that_hangs", "--quiet", "--nocapture"]);
    command.env(LINE, applied(arguments).join(&SPACE.to_string()));
    command
}

#[test]
fn the_binary_with_the_job_that_hangs() {
    let Ok(line) = std::env::var(LINE) else { return };
    let words = std::iter::once("tired").chain(line.split(SPACE)).map(OsString::from);
    std::process::exit(App::new(Jobs::new([("tired", tired)])).run_with(words) as i32);
}

/// Copies lines; on its way, a function hangs once.
fn tired(job: &mut Job, args: &Args) -> JobResult {
    let (input, output): (String, String) = (args.required("input")?, args.required("output")?);
    let map =
        Tired { marks: args.required::<String>("marks")?.into(), hangs: args.required("hangs")?, subtask: 0 };
    let sink = CsvSink::new(output, ["line"], |line: &String, row: &mut CsvRow<'_>| {
        row.text(line);
    });
    job.source("lines", LineFile::new(input).block_bytes(64).rate(Some(RATE)))
        .rebalance()
        .flat_map("split", |block: &ArchivedLineBlock| {
            let text = String::from_utf8_lossy(&block.bytes);
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .map_with("tired", map)
        .sink("out", sink);
    Ok(())
}

/// Hangs at the first line that its subtask `hangs` ever sees; once it does, another subtask fails, also once.
#[derive(Clone)]
struct Tired {
    /// Where files say what has happened already: attempts come and go.
    marks: PathBuf,
    hangs: u32,
    subtask: u32,
}

impl Tired {
    /// Whether it is for the first time.
    fn mark(&self, what: &str) -> bool {
        File::create_new(self.marks.join(what)).is_ok()
    }
}

impl MapFunction<String> for Tired {
    type Out = String;

    fn open(&mut self, context: &RuntimeContext) -> Result<(), TaskError> {
        self.subtask = context.subtask;
        Ok(())
    }

    fn map(&mut self, line: &String) -> Result<String, TaskError> {
        if self.subtask == self.hangs {
            if self.mark("hangs") {
                loop {
                    std::thread::park(); // Nobody unparks it.
                }
            }
        } else if self.marks.join("hangs").exists() && self.mark("fails") {
            return Err(TaskError::new(Fault::User, "the other one hangs"));
        }
        Ok(line.clone())
    }
}

/// A cluster with the job running on it and one of its slots hanging.
struct Hanging {
    cluster: Cluster,
    job: job::Job,
    output: PathBuf,
}

impl Hanging {
    fn start(taskmanagers: usize, parallelism: u32, hangs: u32) -> Self {
        let mut cluster = Cluster::of(binary, taskmanagers, &["--cancel-max", CANCEL_MAX]);
        let (marks, input) = (cluster.folder().join("marks"), cluster.folder().join("lines.txt"));
        std::fs::create_dir(&marks).expect("the folder of the test can be written");
        let lines: String = (0..LINES).map(|line| format!("{line}\n")).collect();
        std::fs::write(&input, lines).expect("the folder of the test can be written");
        let (output, hangs) = (cluster.output("out"), hangs.to_string());
        let flags = [
            ("--input", path(&input)),
            ("--output", path(&output)),
            ("--marks", path(&marks)),
            ("--hangs", &hangs),
        ];
        let flags: Vec<&str> = flags.into_iter().flat_map(|(flag, value)| [flag, value]).collect();
        let job = job::Job::submit(&mut cluster, "tired", parallelism, &flags);
        wait_for("a function to hang", SOON, || marks.join("hangs").exists().then_some(()));
        Self { cluster, job, output }
    }

    /// The TaskManager with the slot ends, and says why in one line.
    fn one_taskmanager_ends(&mut self) {
        let taskmanagers = &mut self.cluster.taskmanagers;
        let place = wait_for("a TaskManager to end", SOON, || {
            taskmanagers.iter_mut().position(|process| process.has_ended())
        });
        let mut ended = taskmanagers.remove(place);
        assert_eq!(ended.wait(SOON).code(), Some(INTERNAL), "{}", ended.tail());
        let errors = ended.errors();
        let errors: Vec<&str> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
        let [error] = errors.as_slice() else { panic!("{errors:?}: {}", ended.tail()) };
        let named = (0..SLOTS).any(|slot| {
            let words = format!("slot {slot} has not answered the cancel of job {}", self.job.id);
            error.starts_with(&format!("error: {words} attempt 1 within {CANCEL_MAX}: it hangs in user code"))
        });
        assert!(named, "{error}");
    }
}

#[test]
fn a_job_that_hangs_is_cancelled_and_its_taskmanager_ends_by_name() {
    let mut hanging = Hanging::start(1, 1, 0);
    let cancelled = hanging.cluster.cancel(&hanging.job.id);
    assert!(cancelled.status.success(), "{cancelled:?}");
    hanging.one_taskmanager_ends();
    let Hanging { cluster, mut job, output } = hanging;
    assert_eq!(job.wait(SOON).code(), Some(CANCELED), "{}", job.said());
    assert_eq!(job.state(&cluster).as_deref(), Some("CANCELED"));
    assert!(pending(&output).is_empty());
    cluster.stop();
}

#[test]
fn a_job_that_fails_while_a_slot_hangs_goes_on_on_another_taskmanager() {
    // The source is subtask 0's neighbour: whoever hangs must not keep the lines from the other one.
    let mut hanging = Hanging::start(2, 2, 1);
    hanging.one_taskmanager_ends();
    let Hanging { cluster, mut job, output } = hanging;
    job.finish(&cluster, WHOLE_JOB);
    assert!(job.exceptions(&cluster).contains("the other one hangs"), "{}", job.exceptions(&cluster));
    let mut table = Table::new("line");
    (0..LINES).for_each(|line| table.add(line.to_string()));
    check(&output, Expected([(String::new(), table)].into()));
    all_segments_free(&cluster);
    cluster.stop();
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are UTF-8")
}
