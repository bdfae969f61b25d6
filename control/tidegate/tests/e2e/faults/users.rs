//! Functions of users that fail, beside a job that is well; and jobs that are cancelled in full flow.

use std::time::{Duration, Instant};

use super::ledger::{RATE, Size, binary};
use super::times;
use super::trial::{Trial, submit};
use crate::kills::all_segments_free;
use crate::support::cluster::Cluster;
use crate::support::job::Job;
use crate::support::output::check;
use crate::support::random::Random;
use crate::support::{SOON, WHOLE_JOB, wait_for};

/// `submit --wait` when the job was cancelled.
const CANCELED: i32 = 3;

/// F06: a function panics, or returns an error. Its job begins anew and comes to the right end; a job on the same
/// TaskManagers is not begun anew, and has at least 90 % of its rate all the while. (A function that hangs ends its process:
/// `hangs.rs`.)
#[test]
#[ignore = "takes its time; run by cargo xtask faults"]
fn a_function_fails_beside_a_job_that_is_well() {
    let size = Size { partitions: 2, records: 3_000, ..Size::default() };
    let well = Size { partitions: 2, records: (times(40, 1_000) * 1_000) as u64, ..Size::default() };
    let mut random = Random::announced("F06");
    let mut trial = Trial::start(Cluster::of(binary, 2, &[]), well);
    let before = trial.running();
    let made = |trial: &Trial| trial.job.metric_of(&trial.cluster, "partitions", "write-records");
    let (start, first) = (Instant::now(), made(&trial).unwrap_or(0));
    for strike in 0..times(4, 200) {
        let kind = ["panic", "error"][strike % 2];
        let (output, until) =
            (trial.cluster.output(&format!("troubled-{strike}")), trial.cluster.folder().to_owned());
        let mark = trial.cluster.folder().join(format!("mark-{strike}")).display().to_string();
        let at = random.below(size.records - 100).to_string();
        // It is let to its end at once: the folder is there.
        let trouble = ["--trouble", kind, "--mark", &mark, "--at", &at];
        let mut job = submit(&mut trial.cluster, size, &output, &until, &trouble);
        job.finish(&trial.cluster, WHOLE_JOB);
        assert_eq!(job.attempts(&trial.cluster), Some(2), "{}", job.exceptions(&trial.cluster));
        assert!(job.exceptions(&trial.cluster).contains("as it was told to"));
        check(&output, super::ledger::expected(&size));
    }
    // Told once a second.
    let (elapsed, rows) = (start.elapsed(), made(&trial).unwrap_or(0) - first);
    let rate = rows as f64 / elapsed.as_secs_f64();
    println!("{rate:.0} records/s beside the trouble, for {elapsed:?}");
    assert!(rate >= 0.9 * (2 * RATE) as f64, "{rows} records in {elapsed:?}");
    assert_eq!(trial.now().attempt, before.attempt, "{}", trial.job.exceptions(&trial.cluster));
    trial.finish();
}

/// F08: a job at full speed is cancelled at a random moment. Every segment is free then, and the slots take the next job.
#[test]
#[ignore = "takes its time; run by cargo xtask faults"]
fn a_job_is_cancelled_in_full_flow() {
    let mut random = Random::announced("F08");
    for transport in ["tcp", "shm"] {
        let mut cluster = Cluster::start(2, &["--transport", transport]);
        let before: Vec<_> = cluster.taskmanagers.iter().map(|one| one.footprint().threads).collect();
        let (count, start) = (times(5, 500), Instant::now());
        for _ in 0..count {
            let flags = ["--records", "1000000000000", "--keys", "10000"];
            let mut job = Job::submit(&mut cluster, "keyed-sum", 4, &flags);
            job.wait_running(&cluster, SOON);
            std::thread::sleep(random.up_to(Duration::from_millis(300)));
            assert!(cluster.cancel(&job.id).status.success());
            assert_eq!(job.wait(SOON).code(), Some(CANCELED), "{}", job.said());
            all_segments_free(&cluster);
        }
        println!("{transport}: {count} cancels in {:?}", start.elapsed());
        let threads = || cluster.taskmanagers.iter().map(|one| one.footprint().threads);
        wait_for("threads to end", SOON, || {
            threads().zip(&before).all(|(now, before)| now <= *before).then_some(())
        });
        cluster.stop();
    }
}
