//! What must hold on every driver, over every transport, in every send mode: few tests, because they run on all of them.
//!
//! `cargo xtask e2e matrix` runs them under each combination of engine options, `cargo xtask test` as its step of that name;
//! here and without options they run with what a TaskManager takes by itself.

use std::path::Path;

use crate::demo;
use crate::kills::all_segments_free;
use crate::support::cluster::{Cluster, SLOTS};
use crate::support::job::Job;
use crate::support::output::{Watch, check};
use crate::support::process::tidegate;
use crate::support::random::Random;
use crate::support::{SOON, WHOLE_JOB, input, oracle, wait_for};

const SMALL_SEGMENTS: [&str; 4] = ["--segment-size", "4k", "--max-record-size", "16k"];

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are UTF-8")
}

#[test]
fn the_demo_agrees_with_the_oracle() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work = folder.path().join("demo");
    let finished = tidegate(folder.path(), WHOLE_JOB, &["demo", "--json", "--dir", path(&work)]);
    assert!(finished.status.success(), "{finished:#?}");
    demo::agrees(&finished.stdout);
}

/// Blocks of lines have up to 8 KiB, segments 4 KiB: most of these records need a region.
#[test]
fn records_larger_than_a_segment_survive_a_kill() {
    const LINES: usize = 40_000;
    let mut cluster = Cluster::start(2, &SMALL_SEGMENTS);
    let text = input::text(cluster.folder(), &mut Random::announced("matrix, killed"), LINES);
    let expected = oracle::wordcount(&std::fs::read(&text).expect("just written"));
    let output = cluster.output("out");
    let mut watch = Watch::start(&output, expected);
    // Ten seconds: a slow machine must not get through before the kill.
    let rate = (LINES / 10).to_string();
    let flags = ["--input", path(&text), "--output", path(&output), "--rate", &rate];
    let mut job = Job::submit(&mut cluster, "wordcount", 4, &flags);
    job.wait_running(&cluster, SOON);
    let before = wait_for("a checkpoint", SOON, || {
        job.checkpoints(&cluster).filter(|checkpoints| checkpoints.completed() > 0)
    });
    let state = job.state(&cluster);
    assert_eq!(
        state.as_deref(),
        Some("RUNNING"),
        "nothing is left to kill: it needs more lines or a lower rate, or has failed: {}",
        job.exceptions(&cluster)
    );
    cluster.kill_taskmanager(1);
    cluster.start_taskmanager();
    wait_for("the job to be restored", SOON, || {
        (job.checkpoints(&cluster)?.restored() >= before.newest()).then_some(())
    });
    job.finish(&cluster, WHOLE_JOB);
    watch.check();
    watch.finish();
    cluster.wait_slots(2 * SLOTS);
    all_segments_free(&cluster);
    cluster.stop();
}

/// Little input: a segment that is sent with zero copy over loopback is away until the peer has acknowledged it, for 40 ms,
/// and these are few.
#[test]
fn a_job_starved_of_credit_comes_to_its_end() {
    let mut cluster = Cluster::start(2, &[&SMALL_SEGMENTS[..], &["--segments", "48"]].concat());
    let text = input::text(cluster.folder(), &mut Random::announced("matrix, starved"), 1_000);
    let expected = oracle::wordcount(&std::fs::read(&text).expect("just written"));
    let output = cluster.output("out");
    let flags = ["--input", path(&text), "--output", path(&output)];
    let mut job = Job::submit(&mut cluster, "wordcount", 4, &flags);
    job.finish(&cluster, WHOLE_JOB);
    check(&output, expected);
    all_segments_free(&cluster);
    cluster.stop();
}

#[test]
fn a_job_without_end_takes_checkpoints_and_is_cancelled() {
    const CANCELED: i32 = 3;
    let mut cluster = Cluster::start(2, &[]);
    let flags = ["--records", "1000000000000", "--keys", "10000"];
    let mut job = Job::submit(&mut cluster, "keyed-sum", 4, &flags);
    wait_for("checkpoints at full speed", SOON, || {
        (job.checkpoints(&cluster)?.completed() >= 3).then_some(())
    });
    assert!(cluster.cancel(&job.id).status.success());
    assert_eq!(job.wait(SOON).code(), Some(CANCELED), "{}", job.said());
    all_segments_free(&cluster);
    cluster.stop();
}
