//! Where the time of a running job goes, as a user can ask for it: REST, metrics, the command line, and the latency log.

use std::path::Path;

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::http;
use crate::support::job::Job;
use crate::support::process::{Finished, product, run};
use crate::support::{SOON, WHOLE_JOB, wait_for};

/// The only edge of the job: its sink is chained.
const EDGE: &str = "pairs -> sum -> nowhere";

fn command(cluster: &Cluster, name: &str, more: &[&str]) -> Finished {
    let url = cluster.url();
    let line = [name, "--jobmanager", &url].into_iter().chain(more.iter().copied());
    run(product, cluster.folder(), SOON, &line.map(str::to_owned).collect::<Vec<_>>())
}

/// All that a log has of a stage of the only edge of a job.
fn logged(path: &Path, stage: &str) -> Histogram<u64> {
    let bytes = std::fs::read(path).expect("the log is there");
    assert!(bytes.starts_with(b"#[Histogram log format version 1.3]"), "{}", String::from_utf8_lossy(&bytes));
    let mut all = Histogram::new(2).expect("two digits");
    for entry in IntervalLogIterator::new(&bytes) {
        let LogEntry::Interval(interval) = entry.expect("every line is one of the format") else { continue };
        let tag = interval.tag().expect("every interval has a tag");
        let encoded = base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram());
        let one: Histogram<u64> =
            Deserializer::new().deserialize(&mut &*encoded.expect("base64")).expect("a histogram");
        assert!(!one.is_empty() && interval.duration().as_secs() < 60, "{interval:?}");
        if tag.ends_with(&format!("/{}/{stage}", EDGE.replace(' ', ""))) {
            all.add(&one).expect("it grows as it must");
        }
    }
    all
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a number expected, found {value}"))
}

#[test]
fn where_the_time_of_a_job_goes_is_told_everywhere() {
    let mut cluster = Cluster::start(0, &[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let logs = ["a", "b"].map(|name| folder.path().join(format!("{name}.hlog")));
    for log in &logs {
        cluster.flags = vec!["--latency-log".to_owned(), log.display().to_string()];
        cluster.start_taskmanager();
    }
    cluster.wait_slots(4);
    let flags = ["--records", "1000000000000", "--keys", "1000", "--rate", "200000"];
    let mut job = Job::submit(&mut cluster, "keyed-sum", 4, &flags);
    job.wait_running(&cluster, SOON);

    let path = format!("/jobs/{}/latency", job.id);
    let stages = ["total", "wire", "queue", "send", "credit"];
    let answer = wait_for("latencies of all stages", WHOLE_JOB, || {
        let answer = cluster.get(&path)?;
        let known = stages.iter().all(|stage| answer["edges"][0]["stages"][*stage]["count"].is_u64());
        let all = answer["edges"][0]["subtasks"].as_array()?.len() == 4 * stages.len();
        (known && all).then_some(answer)
    });
    let edge = &answer["edges"][0];
    assert_eq!(edge["name"], EDGE);
    for stage in stages {
        let of = |name: &str| number(&edge["stages"][stage][name]);
        assert!(of("p50") <= of("p99") && of("p99") <= of("max"), "{stage}: {edge}");
        assert!(of("max") < 60_000_000_000, "{stage}: {edge}");
    }
    assert!(number(&edge["stages"]["total"]["p50"]) >= number(&edge["stages"]["queue"]["p50"]), "{edge}");
    assert!(edge["curve"].as_array().is_some_and(|points| points.len() > 5), "{edge}");
    assert_eq!(answer["operators"][0]["stages"]["total"], edge["stages"]["total"], "one edge, one operator");

    // The same for Prometheus: as many buckets as bounds, the last one with all.
    let text = http::get(cluster.rest, "/metrics").expect("metrics").body;
    for subtask in 0..4 {
        let labels = format!(
            "{{job=\"{}\",vertex=\"1\",subtask=\"{subtask}\",edge=\"0\",edge_name=\"{EDGE}\",stage=\"total\"",
            job.id
        );
        let value =
            |line: &str| -> f64 { line.rsplit(' ').next().expect("a word").parse().expect("a number") };
        let lines = |suffix: &str| -> Vec<f64> {
            let start = format!("tidegate_edge_latency_seconds_{suffix}");
            let lines = text.lines().filter(|line| line.starts_with(&start));
            lines.filter(|line| line.contains(&labels[1..])).map(value).collect()
        };
        let (buckets, count) = (lines("bucket"), lines("count"));
        assert_eq!(buckets.len(), 25, "{text}");
        assert!(buckets.is_sorted() && count == buckets[24..] && count[0] > 0.0, "{buckets:?} {count:?}");
        assert!(lines("sum")[0] > 0.0);
    }
    assert!(text.contains("tidegate_task_backpressured_by_cause_ms{") && text.contains("cause=\"credit\""));

    // Each task's second is accounted for, under Flink's names.
    let tasks = wait_for("a second of every task", SOON, || {
        let details = cluster.get(&format!("/jobs/{}", job.id))?;
        let subtasks =
            details["vertices"].as_array()?.iter().filter_map(|vertex| vertex["subtasks"].as_array());
        let tasks: Vec<Value> = subtasks.flatten().map(|subtask| subtask["metrics"].clone()).collect();
        tasks.iter().all(|metrics| metrics["busyTimeMsPerSecond"].is_u64()).then_some(tasks)
    });
    assert_eq!(tasks.len(), 8);
    for metrics in &tasks {
        let shares = ["busyTimeMsPerSecond", "idleTimeMsPerSecond", "backPressuredTimeMsPerSecond"];
        assert_eq!(shares.iter().map(|name| number(&metrics[*name])).sum::<u64>(), 1000, "{metrics}");
        assert!(metrics["isBackPressured"].is_boolean(), "{metrics}");
        assert!(number(&metrics["cpuWaitTimeMsPerSecond"]) <= number(&metrics["busyTimeMsPerSecond"]));
    }
    let status = command(&cluster, "status", &[&job.id]);
    assert!(
        status.status.success() && status.stdout.contains("HELD UP") && status.stdout.contains(" %"),
        "{status:?}"
    );

    // The curve, in the terminal and in a file.
    let svg = cluster.folder().join("curve.svg");
    let drawn = command(&cluster, "latency", &[&job.id, "--svg", &svg.display().to_string()]);
    assert!(drawn.status.success(), "{drawn:?}");
    for words in ["a  pairs -> sum", "total", "credit", "99.9", "|a"] {
        assert!(drawn.stdout.contains(words), "{words:?} in {}", drawn.stdout);
    }
    println!("{}\n{}", status.stdout, drawn.stdout);
    let svg = std::fs::read_to_string(svg).expect("the picture is there");
    assert!(svg.starts_with("<svg") && svg.contains("<polyline") && svg.contains("pairs -&gt; sum"), "{svg}");
    let json: Value = serde_json::from_str(&command(&cluster, "latency", &["--json"]).stdout).expect("JSON");
    assert_eq!(json["edges"][0]["name"], EDGE);

    assert!(cluster.cancel(&job.id).status.success());
    job.wait(SOON);
    let known = number(
        &cluster.get(&path).expect("a job that is over keeps them")["edges"][0]["stages"]["total"]["count"],
    );
    cluster.stop();
    let of = |stage| logs.iter().map(|log| logged(log, stage).len()).sum::<u64>();
    assert!(of("total") >= known, "{} logged, {known} reported", of("total"));
    for stage in stages {
        assert!(of(stage) > 0, "{stage}");
    }
}

#[test]
fn a_job_in_one_process_has_a_latency_log() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("run.hlog");
    let run_with = |log: &str, more: &[&str]| {
        let line = ["run", "keyed-sum", "--parallelism", "2", "--latency-log", log];
        let job = ["--", "--records", "300000", "--keys", "10"];
        let line = line.iter().chain(more).chain(&job).map(|word| (*word).to_owned());
        run(product, folder.path(), WHOLE_JOB, &line.collect::<Vec<_>>())
    };
    let done = run_with(&log.display().to_string(), &[]);
    assert!(done.status.success(), "{done:?}");
    assert!(!logged(&log, "total").is_empty(), "what was recorded in the last second is there, too");
    assert!(logged(&log, "wire").is_empty(), "nothing left the process");

    let refused = run_with("/nowhere/run.hlog", &[]);
    assert_eq!(refused.status.code(), Some(74), "{refused:?}");
    assert!(refused.stderr.contains("latency log /nowhere/run.hlog"), "{refused:?}");
    let refused = run_with(&log.display().to_string(), &["--latency-log-interval", "10ms"]);
    assert!(refused.stderr.contains("an interval from 1s to 3600s is allowed, found 10ms"), "{refused:?}");
}
