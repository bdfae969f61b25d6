//! Jobs on epoll: because it was asked for, and because a container's seccomp profile forbids io_uring.

use std::path::Path;

use crate::support::cluster::Cluster;
use crate::support::job::Job;
use crate::support::output::check;
use crate::support::process::tidegate;
use crate::support::random::Random;
use crate::support::seccomp::forbid_io_uring;
use crate::support::{WHOLE_JOB, http, input, oracle};

/// `tidegate run wordcount` with `flags`: what comes out is what the oracle says.
fn run_wordcount(flags: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = input::text(folder.path(), &mut Random::announced("wordcount by driver"), 20_000);
    let expected = oracle::wordcount(&std::fs::read(&text).expect("just written"));
    let output = folder.path().join("output");
    let mut line = vec!["run", "wordcount", "--parallelism", "3"];
    line.extend(flags);
    line.extend(["--", "--input", path(&text), "--output", path(&output)]);
    let finished = tidegate(folder.path(), WHOLE_JOB, &line);
    assert!(finished.status.success(), "{finished:#?}");
    check(&output, expected);
}

#[test]
fn a_job_runs_on_epoll_when_told_so() {
    run_wordcount(&["--driver", "epoll"]);
}

#[test]
fn where_io_uring_is_forbidden_a_job_runs_on_epoll_and_says_why() {
    // The filter is the thread's own, and inherited by the processes that it starts.
    let test = || {
        forbid_io_uring();
        run_wordcount(&[]);

        let mut cluster = Cluster::start(2, &[]);
        let list = cluster.get("/taskmanagers").expect("the JobManager is there");
        for one in list["taskmanagers"].as_array().expect("a list") {
            let id = one["id"].as_str().expect("an id");
            let details = cluster.get(&format!("/taskmanagers/{id}")).expect("the JobManager is there");
            let text = details.to_string();
            assert!(
                text.contains("epoll [") && text.contains("not io_uring: container: a seccomp"),
                "{text}"
            );
        }
        let metrics = http::get(cluster.rest, "/metrics").expect("the JobManager is there").body;
        let on_epoll = metrics.matches("driver=\"epoll\",registration=\"unregistered\"} 1").count();
        assert_eq!(on_epoll, cluster.taskmanagers.len(), "{metrics}");
        for process in &cluster.taskmanagers {
            let reasons = process.errors().matches("the network runs on epoll instead of io_uring").count();
            assert_eq!(reasons, 1, "{}", process.errors());
            assert!(
                process
                    .lines()
                    .iter()
                    .any(|line| line.starts_with("ready") && line.ends_with("driver=epoll"))
            );
        }
        let output = cluster.output("sums");
        let flags = ["--records", "200000", "--keys", "500", "--output", path(&output)];
        let mut job = Job::submit(&mut cluster, "keyed-sum", 4, &flags);
        job.finish(&cluster, WHOLE_JOB);
        check(&output, oracle::keyed_sum(200_000, 500));
        cluster.stop();
    };
    std::thread::spawn(test).join().expect("the test on its thread");
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are UTF-8")
}
