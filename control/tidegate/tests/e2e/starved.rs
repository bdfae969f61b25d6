//! A job at full speed with an arena of 64 segments, so that credit is always exhausted.

use crate::kills::all_segments_free;
use crate::support::cluster::Cluster;
use crate::support::job::Job;
use crate::support::output::Watch;
use crate::support::{WHOLE_JOB, input, oracle};

#[test]
fn sixty_four_segments_are_enough_for_everything_to_come_out() {
    // Two slots with 32 segments each, of 4 KiB: a segment is full after a few dozen rows. Not with zero copy, which keeps each
    // of them for 40 ms on loopback: `matrix.rs` has the little that goes through then.
    let flags = ["--segments", "32", "--segment-size", "4k", "--send", "auto"];
    let mut cluster = Cluster::start(2, &flags);
    let expected = oracle::flights_clean(&input::flights_text());
    let output = cluster.output("out");
    let mut watch = Watch::start(&output, expected);
    let input = input::flights();
    let flags = ["--input", input.to_str().expect("UTF-8"), "--output", output.to_str().expect("UTF-8")];
    let mut job = Job::submit(&mut cluster, "flights-clean", 4, &flags);
    job.finish(&cluster, WHOLE_JOB);
    watch.check();
    watch.finish();
    all_segments_free(&cluster);
    cluster.stop();
}
