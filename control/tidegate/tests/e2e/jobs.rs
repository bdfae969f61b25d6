//! Each job against its oracle, without faults.

use std::path::Path;

use crate::kills::all_segments_free;
use crate::support::cluster::Cluster;
use crate::support::job::Job;
use crate::support::output::{Expected, Table, check};
use crate::support::process::tidegate;
use crate::support::random::Random;
use crate::support::{WHOLE_JOB, input, oracle};

/// `tidegate run JOB`, which must end well.
fn run(folder: &Path, job: &str, parallelism: u32, flags: &[&str]) -> String {
    let parallelism = parallelism.to_string();
    let mut line = vec!["run", job, "--parallelism", &parallelism, "--"];
    line.extend(flags);
    let finished = tidegate(folder, WHOLE_JOB, &line);
    assert!(finished.status.success(), "{finished:#?}");
    finished.stdout
}

fn embedded(job: &str, parallelism: u32, input: &Path, expected: Expected) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = folder.path().join("output");
    run(folder.path(), job, parallelism, &["--input", path(input), "--output", path(&output)]);
    check(&output, expected);
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are UTF-8")
}

#[test]
fn delays_agrees_with_the_oracle_at_any_parallelism() {
    let expected = oracle::delays(&input::flights_text());
    for parallelism in [1, 2, 4, 7] {
        embedded("delays", parallelism, &input::flights(), expected.clone());
    }
}

#[test]
fn flights_clean_keeps_every_valid_row() {
    let expected = oracle::flights_clean(&input::flights_text());
    for parallelism in [1, 3] {
        embedded("flights-clean", parallelism, &input::flights(), expected.clone());
    }
}

#[test]
fn wordcount_counts_words_as_they_are_defined() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = input::text(folder.path(), &mut Random::announced("wordcount"), 20_000);
    let expected = oracle::wordcount(&std::fs::read(&text).expect("just written"));
    for parallelism in [1, 2, 5] {
        embedded("wordcount", parallelism, &text, expected.clone());
    }
}

#[test]
fn wordcount_of_nothing_is_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = folder.path().join("empty.txt");
    std::fs::write(&text, "").expect("the folder can be written");
    let expected = Expected([(String::new(), Table::new("word,count"))].into());
    embedded("wordcount", 2, &text, expected);
}

#[test]
fn two_jobs_run_side_by_side_on_one_cluster() {
    let mut cluster = Cluster::start(4, &[]);
    let flights = input::some_flights(cluster.folder(), 60_000);
    let content = std::fs::read_to_string(&flights).expect("just written");
    let outputs = [cluster.output("delays"), cluster.output("clean")];
    let jobs = [("delays", &outputs[0]), ("flights-clean", &outputs[1])].map(|(job, output)| {
        let flags = ["--input", path(&flights), "--output", path(output), "--rate", "30000"];
        Job::submit(&mut cluster, job, 4, &flags)
    });
    for mut job in jobs {
        job.finish(&cluster, WHOLE_JOB);
    }
    check(&outputs[0], oracle::delays(&content));
    check(&outputs[1], oracle::flights_clean(&content));
    cluster.stop();
}

#[test]
fn every_send_mode_carries_the_same_records() {
    const RECORDS: u64 = 1_000_000;
    const KEYS: u64 = 5_000;
    let expected = oracle::keyed_sum(RECORDS, KEYS);
    let (records, keys) = (RECORDS.to_string(), KEYS.to_string());
    for mode in ["auto", "fixed", "plain", "zc"] {
        let mut cluster = Cluster::start(2, &["--send", mode]);
        let output = cluster.output("sums");
        let flags = ["--records", &records, "--keys", &keys, "--output", path(&output)];
        let mut job = Job::submit(&mut cluster, "keyed-sum", 4, &flags);
        job.finish(&cluster, WHOLE_JOB);
        check(&output, expected.clone());
        all_segments_free(&cluster);
        cluster.stop();
    }
}
