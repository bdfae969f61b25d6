//! Jobs whose processes are killed and whose connections are cut at random moments.
//!
//! Over all runs together a TaskManager is killed twenty times, the JobManager five times, both at once twice, and
//! a connection between TaskManagers is cut six times ([`RUNS`]): a fault that cannot be made fails the test.
//! `TIDEGATE_SKIP_CUTS=1` leaves the cuts out where a sandbox forbids them. During a run a reader watches the output; after each fault that came after a complete checkpoint, the job must come back from that one or a later
//! one; at the end the output is what the oracle says, and the processes that survived hold nothing more than
//! before.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::cluster::{Cluster, SLOTS};
use crate::support::job::Job;
use crate::support::output::{Expected, Watch};
use crate::support::process::Footprint;
use crate::support::random::Random;
use crate::support::{SOON, WHOLE_JOB, input, oracle, sockets, wait_for, wait_within};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// `kill -9` of a TaskManager; a fresh one takes its place.
    TaskManager,
    /// `kill -9` of the JobManager; it comes back on the same directory.
    JobManager,
    /// Both at once.
    Both,
    /// A connection between two TaskManagers is shut down.
    Connection,
}

use Fault::{Both, Connection, JobManager, TaskManager};

/// What happens to each run, in an order that the seed decides. The JobManager and the first TaskManager of the
/// runs without a fault of the JobManager live through them.
const RUNS: [Run; 6] = [
    (
        "wordcount 1",
        ["--send", "auto"],
        &[TaskManager, TaskManager, TaskManager, TaskManager, JobManager, Connection],
    ),
    (
        "wordcount 2",
        ["--send", "plain"],
        &[TaskManager, TaskManager, TaskManager, JobManager, Connection, Both],
    ),
    (
        "delays 1",
        ["--send", "zc"],
        &[TaskManager, TaskManager, TaskManager, JobManager, JobManager, Connection],
    ),
    ("delays 2", ["--send", "auto"], &[TaskManager, TaskManager, TaskManager, Connection]),
    (
        "flights-clean 1",
        ["--send", "fixed"],
        &[TaskManager, TaskManager, TaskManager, JobManager, Connection, Both],
    ),
    ("flights-clean 2", ["--send", "zc"], &[TaskManager, TaskManager, TaskManager, TaskManager, Connection]),
];

/// A name, flags of the TaskManagers, and the faults.
type Run = (&'static str, [&'static str; 2], &'static [Fault]);

/// How long a run takes at its rate when nothing goes wrong, in seconds: enough for its faults to come before its
/// end, since the job moves on between them for a second each at most.
const SECONDS: usize = 16;

#[test]
fn wordcount_survives() {
    for run in [0, 1] {
        survive(RUNS[run], wordcount);
    }
}

#[test]
fn wordcount_survives_on_epoll() {
    survive(("wordcount on epoll", ["--driver", "epoll"], &[TaskManager]), wordcount);
}

#[test]
fn wordcount_survives_through_shared_memory() {
    let faults = &[TaskManager, TaskManager, TaskManager];
    survive(("wordcount through shared memory", ["--transport", "shm"], faults), wordcount);
}

fn wordcount(cluster: &Cluster, random: &mut Random) -> Work {
    let text = input::text(cluster.folder(), random, 60_000);
    let expected = oracle::wordcount(&std::fs::read(&text).expect("just written"));
    Work { job: "wordcount", input: text, lines: 60_000, expected }
}

#[test]
fn delays_survives() {
    for run in [2, 3] {
        survive(RUNS[run], |_, _| {
            let expected = oracle::delays(&input::flights_text());
            Work { job: "delays", input: input::flights(), lines: 336_776, expected }
        });
    }
}

#[test]
fn flights_clean_survives() {
    for run in [4, 5] {
        survive(RUNS[run], |cluster, _| {
            let flights = input::some_flights(cluster.folder(), 100_000);
            let expected = oracle::flights_clean(&std::fs::read_to_string(&flights).expect("just written"));
            Work { job: "flights-clean", input: flights, lines: 100_000, expected }
        });
    }
}

/// A job, its input, and what must come out.
struct Work {
    job: &'static str,
    input: PathBuf,
    lines: usize,
    expected: Expected,
}

fn survive(run: Run, work: impl FnOnce(&Cluster, &mut Random) -> Work) {
    let (name, flags, faults) = run;
    let mut random = Random::announced(name);
    let mut faults = faults.to_vec();
    if std::env::var_os("TIDEGATE_SKIP_CUTS").is_some() {
        faults.retain(|fault| *fault != Connection);
        println!("{name}: no connection is cut, as asked");
    }
    random.shuffle(&mut faults);
    println!("{name}: {faults:?}");

    let mut cluster = Cluster::start(2, &flags);
    let spare_first = !faults.contains(&JobManager);
    let survivors: Vec<(u32, Footprint)> = if spare_first { footprints(&cluster) } else { Vec::new() };
    let work = work(&cluster, &mut random);
    let output = cluster.output("out");
    let rate = (work.lines / SECONDS).to_string();
    let mut progress = Progress::measure(&mut cluster, &work);
    let mut watch = Watch::start(&output, work.expected);
    let flags = ["--input", path(&work.input), "--output", path(&output), "--rate", &rate];
    let mut job = Job::submit(&mut cluster, work.job, 4, &flags);

    let mut committed = 0;
    for (at, fault) in faults.iter().enumerate() {
        committed = inject(*fault, &mut cluster, &mut job, &mut random, spare_first, &watch, &mut progress);
        watch.check();
        println!("{name}: fault {} of {}, {fault:?}, survived", at + 1, faults.len());
    }
    job.finish(&cluster, WHOLE_JOB);
    progress.check(&cluster, &job);
    if work.job == "flights-clean" {
        assert!(committed > 0, "rows become visible with checkpoints");
        // A row is committed with the checkpoint that has read it, so what was visible was not read again.
        let read = job.metric_of(&cluster, "parse", "write-records").expect("the JobManager is there");
        let left = work.lines as u64 - committed;
        assert!(read <= left, "{read} lines read after the last fault, {left} were left to read");
    }
    let all = watch.finish();
    println!(
        "{name}: {} rows in {} files, {committed} of the rows before the last fault",
        all.rows, all.files
    );

    cluster.wait_slots(2 * SLOTS);
    all_segments_free(&cluster);
    nothing_has_grown(&cluster, &survivors);
    cluster.stop();
}

/// How much of its input a job is known to have behind it for good: what was read before a checkpoint began that
/// completed. Counted at the vertex that takes lines apart.
struct Progress {
    vertex: &'static str,
    /// What the vertex emits over the whole input.
    whole: u64,
    /// Of that, what no attempt from now on may emit again, at least.
    covered: u64,
}

impl Progress {
    /// Runs the job once without faults.
    fn measure(cluster: &mut Cluster, work: &Work) -> Self {
        let vertex = if work.job == "wordcount" { "words" } else { "parse" };
        let output = cluster.output("undisturbed");
        let flags = ["--input", path(&work.input), "--output", path(&output)];
        let mut job = Job::submit(cluster, work.job, 4, &flags);
        job.finish(cluster, WHOLE_JOB);
        let whole = job.metric_of(cluster, vertex, "write-records").expect("the JobManager is there");
        cluster.wait_slots(2 * SLOTS);
        Self { vertex, whole, covered: 0 }
    }

    /// Waits until a checkpoint has completed that began after now.
    fn cover(&mut self, cluster: &Cluster, job: &Job) {
        let emitted = job.metric_of(cluster, self.vertex, "write-records").unwrap_or(0);
        let now = job.checkpoints(cluster).expect("the JobManager is there").completed();
        // The next one may have begun already.
        wait_for("two checkpoints more", SOON, || {
            (job.checkpoints(cluster)?.completed() >= now + 2).then_some(())
        });
        self.covered += emitted;
    }

    /// The last attempt went on from there.
    fn check(&self, cluster: &Cluster, job: &Job) {
        let emitted = job.metric_of(cluster, self.vertex, "write-records").expect("the JobManager is there");
        let left = self.whole - self.covered;
        assert!(emitted <= left, "{emitted} emitted by the last attempt, at most {left} were left");
        println!("{emitted} of {} emitted by the last attempt, at most {left} were left", self.whole);
    }
}

/// One fault at a random moment of a running job, and the way back from it. Returns how many rows were visible
/// before the fault.
fn inject(
    fault: Fault,
    cluster: &mut Cluster,
    job: &mut Job,
    random: &mut Random,
    spare_first: bool,
    watch: &Watch,
    progress: &mut Progress,
) -> u64 {
    cluster.wait_slots(2 * SLOTS);
    job.wait_running(cluster, SOON);
    let start = job.checkpoints(cluster).expect("the JobManager is there");
    if random.below(4) > 0 {
        // Most faults come after a checkpoint of this attempt.
        wait_for("another checkpoint", SOON, || {
            (job.checkpoints(cluster)?.completed() > start.completed()).then_some(())
        });
    }
    if random.below(2) == 0 {
        progress.cover(cluster, job);
    }
    std::thread::sleep(random.up_to(Duration::from_millis(500)));
    let before = job.checkpoints(cluster).expect("the JobManager is there");
    let attempt = job.attempts(cluster).expect("the JobManager is there");
    let committed = watch.rows();

    let victim = if spare_first { 1 } else { random.below(2) as usize };
    match fault {
        TaskManager => {
            cluster.kill_taskmanager(victim);
            cluster.start_taskmanager();
        }
        JobManager => {
            cluster.kill_jobmanager();
            std::thread::sleep(random.up_to(Duration::from_millis(700)));
            cluster.start_jobmanager();
        }
        Both => {
            cluster.kill_taskmanager(victim);
            cluster.kill_jobmanager();
            std::thread::sleep(random.up_to(Duration::from_millis(700)));
            cluster.start_jobmanager();
            cluster.start_taskmanager();
        }
        Connection => {
            let [one, two] = [0, 1].map(|at| cluster.taskmanagers[at].id());
            let ends = sockets::between(one, two);
            assert!(!ends.is_empty(), "two TaskManagers that share a job have a connection");
            if let Err(reason) = sockets::cut(one, random.pick(&ends)) {
                panic!(
                    "no connection can be cut here ({reason}): TIDEGATE_SKIP_CUTS=1 leaves these faults out"
                );
            }
        }
    }
    wait_for("the job to be restored", SOON, || {
        let now = job.checkpoints(cluster)?;
        let begun_anew = job.attempts(cluster)? > attempt;
        // A fault before the first checkpoint leaves nothing to restore.
        let restored = before.newest() == 0 || now.restore() != before.restore();
        (begun_anew && restored && now.restored() >= before.newest()).then_some(())
    });
    committed
}

/// What the JobManager and the first TaskManager hold now.
fn footprints(cluster: &Cluster) -> Vec<(u32, Footprint)> {
    let processes = [cluster.jobmanager.as_ref(), cluster.taskmanagers.first()].into_iter().flatten();
    processes.map(|process| (process.id(), process.footprint())).collect()
}

/// The processes that lived through the run hold no more than before it. A moment of patience, because a closed
/// connection is freed after its last word.
fn nothing_has_grown(cluster: &Cluster, before: &[(u32, Footprint)]) {
    if before.is_empty() {
        return;
    }
    let mut now = Vec::new();
    let smaller = wait_within(SOON, || {
        now = footprints(cluster);
        now.iter().zip(before).all(|((id, now), (other, before))| {
            id == other && now.descriptors <= before.descriptors && now.threads <= before.threads
        })
    });
    let processes = [cluster.jobmanager.as_ref(), cluster.taskmanagers.first()].into_iter().flatten();
    let holds: Vec<_> = processes.map(|process| (process.descriptors(), process.threads())).collect();
    assert!(smaller, "grew from {before:?} to {now:?}; JobManager and TaskManager hold {holds:#?}");
}

/// Every TaskManager says that all its segments are free.
pub fn all_segments_free(cluster: &Cluster) {
    let list = cluster.get("/taskmanagers").expect("the JobManager is there");
    for one in list["taskmanagers"].as_array().expect("a list") {
        let id = one["id"].as_str().expect("an id");
        wait_for("all segments to be free", SOON, || {
            let details = cluster.get(&format!("/taskmanagers/{id}"))?;
            let metrics = &details["metrics"];
            let (total, free) = (metrics["segmentsTotal"].as_u64()?, metrics["segmentsFree"].as_u64()?);
            (total > 0 && total == free).then_some(())
        });
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are UTF-8")
}
