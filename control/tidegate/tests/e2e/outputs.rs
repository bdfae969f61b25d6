//! Output folders: which are refused before anything is written, and what is left in them when a job ends early.

use std::path::{Path, PathBuf};

use crate::support::cluster::{Cluster, processes_of};
use crate::support::job::Job;
use crate::support::output::{Expected, check, committed, pending};
use crate::support::process::{Finished, Process, product, tidegate};
use crate::support::random::Random;
use crate::support::{SOON, WHOLE_JOB, input, oracle, wait_for};

/// Exit codes of the binary that scripts rely on.
mod exit {
    pub const REFUSED: i32 = 2;
    pub const INTERRUPTED: i32 = 130;
}

/// A text, and what `wordcount` makes of it.
struct Work {
    text: PathBuf,
    expected: Expected,
}

impl Work {
    fn new(folder: &Path, lines: usize) -> Self {
        let text = input::text(folder, &mut Random::new(11), lines);
        let expected = oracle::wordcount(&std::fs::read(&text).expect("just written"));
        Self { text, expected }
    }

    /// The arguments of `run` or `submit` for it.
    fn arguments(&self, output: &str, rate: &str) -> Vec<String> {
        let job = ["wordcount", "--checkpoint-interval", "100ms", "--", "--rate", rate];
        job.into_iter().chain(["--input", path(&self.text), "--output", output]).map(str::to_owned).collect()
    }

    /// `run`, at once and to its end.
    fn run(&self, folder: &Path, output: &str) -> Finished {
        let line = [vec!["run".to_owned()], self.arguments(output, "1000000")].concat();
        tidegate(folder, WHOLE_JOB, &line.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// `run`, slowly: it writes, but has not ended for as long as a test needs.
    fn start(&self, name: &str, folder: &Path, output: &Path) -> Process {
        let line = [vec!["run".to_owned()], self.arguments(path(output), "500")].concat();
        let mut run = Process::start(name, folder, &line);
        wait_for("uncommitted output", SOON, || {
            assert!(!run.has_ended(), "it ended early: {}", run.errors());
            (!pending(output).is_empty()).then_some(())
        });
        run
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are UTF-8")
}

#[track_caller]
fn refused(finished: &Finished, words: &[&str]) {
    assert_eq!(finished.status.code(), Some(exit::REFUSED), "{finished:#?}");
    for word in words {
        assert!(finished.stderr.contains(word), "does not say {word:?}: {finished:#?}");
    }
}

#[test]
fn an_output_may_be_named_from_where_one_stands() {
    let folder = folder();
    let work = Work::new(folder.path(), 100);
    let below = folder.path().join("below");
    std::fs::create_dir(&below).expect("the folder can be written");
    for (given, output) in [("../out", "out"), ("./in//here/.", "below/in/here")] {
        let line: Vec<_> =
            std::iter::once("run".to_owned()).chain(work.arguments(given, "1000000")).collect();
        let mut command = product(&line);
        command.current_dir(&below);
        let mut run = Process::start_command(&output.replace('/', "-"), folder.path(), command);
        assert!(run.wait(WHOLE_JOB).success(), "{}", run.errors());
        check(&folder.path().join(output), work.expected.clone());
    }
}

#[test]
fn a_used_output_is_refused_and_left_as_it_was() {
    let folder = folder();
    let work = Work::new(folder.path(), 100);
    let output = folder.path().join("out");
    assert!(work.run(folder.path(), path(&output)).status.success());
    let before = committed(&output);
    refused(&work.run(folder.path(), path(&output)), &[path(&output), "part-0-", "choose another directory"]);
    assert_eq!(committed(&output), before);
    check(&output, work.expected);
}

#[test]
fn two_runs_do_not_share_an_output() {
    let folder = folder();
    let work = Work::new(folder.path(), 2_000);
    let (output, link) = (folder.path().join("out"), folder.path().join("link"));
    let mut first = work.start("first", folder.path(), &output);
    std::os::unix::fs::symlink(&output, &link).expect("the folder can be written");
    for output in [&output, &link] {
        refused(&work.run(folder.path(), path(output)), &[path(output), "belongs to another job"]);
    }
    assert!(first.wait(WHOLE_JOB).success(), "{}", first.errors());
    check(&output, work.expected);
}

#[test]
fn an_interrupted_run_cancels_its_job_and_leaves_nothing_pending() {
    let folder = folder();
    let work = Work::new(folder.path(), 100_000);
    let output = folder.path().join("out");
    let mut run = work.start("run", folder.path(), &output);
    run.terminate();
    assert_eq!(run.wait(SOON).code(), Some(exit::INTERRUPTED), "{}", run.errors());
    assert!(run.errors().contains("was cancelled"), "{}", run.errors());
    assert!(!output.join("_pending").exists(), "{:?}", pending(&output));
}

#[test]
fn an_interrupted_demo_cancels_its_job_and_leaves_nothing_pending() {
    let folder = folder();
    let work = folder.path().join("demo");
    let line = ["demo", "--rate", "1000", "--dir", path(&work)].map(str::to_owned);
    let mut demo = Process::start("the-demo", folder.path(), &line);
    let output = work.join("output");
    wait_for("the demo to write", SOON, || {
        assert!(!demo.has_ended(), "it ended early: {}", demo.errors());
        output.join("_pending").exists().then_some(())
    });
    demo.terminate();
    assert_eq!(demo.wait(SOON).code(), Some(exit::INTERRUPTED), "{}", demo.errors());
    assert!(demo.errors().contains("was cancelled"), "{}", demo.errors());
    assert!(!output.join("_pending").exists(), "{:?}", pending(&output));
    let left = processes_of(folder.path());
    assert!(left.is_empty(), "processes are left: {left:?}");
}

#[test]
fn a_job_goes_on_in_its_own_output_after_its_jobmanager_died() {
    let mut cluster = Cluster::start(1, &[]);
    let work = Work::new(cluster.folder(), 4_000);
    let output = cluster.output("out");
    let flags = ["--input", path(&work.text), "--output", path(&output), "--rate", "1000"];
    let mut job = Job::submit(&mut cluster, "wordcount", 2, &flags);
    job.wait_running(&cluster, SOON);
    wait_for("a checkpoint", SOON, || (job.checkpoints(&cluster)?.completed() >= 1).then_some(()));
    cluster.kill_jobmanager();
    cluster.start_jobmanager();
    job.finish(&cluster, WHOLE_JOB);
    check(&output, work.expected);
    cluster.stop();
}
