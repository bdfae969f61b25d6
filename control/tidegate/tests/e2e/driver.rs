//! Jobs on epoll: because it was asked for, and because a container's seccomp profile forbids io_uring. And on io_uring in a
//! container whose profile is ours.

use std::path::Path;

use crate::demo;
use crate::support::cluster::Cluster;
use crate::support::job::Job;
use crate::support::output::check;
use crate::support::process::{Finished, Process, product, tidegate};
use crate::support::random::Random;
use crate::support::seccomp::{IoUring, confine};
use crate::support::{SOON, WHOLE_JOB, http, input, oracle};

/// What is chosen without flags, whatever the options are under which all tests run.
const AS_SHIPPED: &[&str] = &["--driver", "auto", "--send", "auto"];

/// `tidegate run wordcount` with `flags`; what comes out, if it succeeds, is what the oracle says.
fn run_wordcount(flags: &[&str]) -> Finished {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = input::text(folder.path(), &mut Random::announced("wordcount by driver"), 20_000);
    let expected = oracle::wordcount(&std::fs::read(&text).expect("just written"));
    let output = folder.path().join("output");
    let mut line = vec!["run", "wordcount", "--parallelism", "3"];
    line.extend(flags);
    line.extend(["--", "--input", path(&text), "--output", path(&output)]);
    let line: Vec<String> = line.into_iter().map(str::to_owned).collect();
    let mut command = product(&line);
    command.env("TIDEGATE_LOG", "warn");
    let mut process = Process::start_command("wordcount", folder.path(), command);
    let status = process.wait(WHOLE_JOB);
    let finished = Finished { status, stdout: process.lines().join("\n"), stderr: process.errors() };
    if finished.status.success() {
        check(&output, expected);
    }
    finished
}

fn succeeds(finished: Finished) -> Finished {
    assert!(finished.status.success(), "{finished:#?}");
    finished
}

#[test]
fn a_job_runs_on_epoll_when_told_so() {
    succeeds(run_wordcount(&["--driver", "epoll"]));
}

#[test]
fn taskmanagers_of_one_host_share_memory_unless_told_otherwise() {
    let runs: [(&[&str], bool); 3] =
        [(&[], true), (&["--transport", "auto"], true), (&["--transport", "tcp"], false)];
    for (flags, shared) in runs {
        let mut cluster = Cluster::start(2, flags);
        let output = cluster.output("sums");
        let flags = ["--records", "200000", "--keys", "500", "--output", path(&output)];
        let mut job = Job::submit(&mut cluster, "keyed-sum", 4, &flags);
        job.finish(&cluster, WHOLE_JOB);
        check(&output, oracle::keyed_sum(200_000, 500));
        let list = cluster.get("/taskmanagers").expect("the JobManager is there");
        for one in list["taskmanagers"].as_array().expect("a list") {
            assert_eq!(one["transport"].as_str().expect("a text").starts_with("shm"), shared, "{one}");
        }
        let name = if shared { "shm" } else { "tcp" };
        let wanted = format!("transport=\"{name}\",driver=");
        let metrics = http::get(cluster.rest, "/metrics").expect("the JobManager is there").body;
        assert_eq!(metrics.matches(&wanted).count(), cluster.taskmanagers.len(), "{metrics}");
        let bytes = |line: &str| line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok());
        let lines = metrics.lines().filter(|line| line.starts_with("tidegate_shared_memory_bytes{"));
        let moved: f64 = lines.filter_map(bytes).sum();
        assert_eq!(moved > 0.0, shared, "{metrics}");
        cluster.stop();
    }
}

/// `test` on a thread of its own, under the profile for containers: the filter stays with the thread and the processes that
/// it starts. What runs outside of it is what the profile must allow.
fn in_a_container(io_uring: IoUring, test: impl FnOnce() + Send + 'static) {
    let test = move || {
        confine(io_uring);
        test();
    };
    std::thread::spawn(test).join().expect("the test on its thread");
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the profile names calls that other processors never had")]
fn under_the_profile_for_containers_a_job_runs_on_io_uring() {
    let outside = run_wordcount(&["--driver", "io_uring"]);
    if !outside.status.success() {
        println!("skipped: this host has no io_uring: {}", outside.stderr);
        return;
    }
    in_a_container(IoUring::Allowed, || {
        assert!(
            std::os::unix::fs::chroot("/").is_err(),
            "what the profile does not name is refused, to root too"
        );
        // It would not start on anything else, and what is chosen without the flag is said.
        succeeds(run_wordcount(&["--driver", "io_uring"]));
        let chosen = succeeds(run_wordcount(AS_SHIPPED));
        assert!(!chosen.stderr.contains("on epoll instead of"), "{}", chosen.stderr);

        let mut cluster = Cluster::start(2, AS_SHIPPED);
        for process in &mut cluster.taskmanagers {
            assert!(ready(process).ends_with("driver=io_uring"), "{}", process.tail());
        }
        let output = cluster.output("sums");
        let flags = ["--records", "200000", "--keys", "500", "--output", path(&output)];
        let mut job = Job::submit(&mut cluster, "keyed-sum", 4, &flags);
        job.finish(&cluster, WHOLE_JOB);
        check(&output, oracle::keyed_sum(200_000, 500));
        cluster.stop();
    });
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the profile names calls that other processors never had")]
fn where_io_uring_is_forbidden_a_job_runs_on_epoll_and_says_why() {
    in_a_container(IoUring::Forbidden, || {
        let refused = run_wordcount(&["--driver", "io_uring"]);
        // Its host is judged before anything is allocated.
        assert_eq!(refused.status.code(), Some(2), "{refused:#?}");
        let chosen = succeeds(run_wordcount(AS_SHIPPED));
        assert!(
            chosen.stderr.contains("on epoll instead of io_uring: container: a seccomp"),
            "{}",
            chosen.stderr
        );

        let mut cluster = Cluster::start(2, AS_SHIPPED);
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
        for process in &mut cluster.taskmanagers {
            let reasons = process.errors().matches("the network runs on epoll instead of io_uring").count();
            assert_eq!(reasons, 1, "{}", process.errors());
            assert!(ready(process).ends_with("driver=epoll"), "{}", process.tail());
        }
        let output = cluster.output("sums");
        let flags = ["--records", "200000", "--keys", "500", "--output", path(&output)];
        let mut job = Job::submit(&mut cluster, "keyed-sum", 4, &flags);
        job.finish(&cluster, WHOLE_JOB);
        check(&output, oracle::keyed_sum(200_000, 500));
        cluster.stop();
    });
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the profile names calls that other processors never had")]
fn where_nothing_may_be_registered_the_demo_and_a_job_run_all_the_same() {
    in_a_container(IoUring::NothingRegistered, || {
        succeeds(run_wordcount(AS_SHIPPED));
        succeeds_with_the_demo();
    });
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the profile names calls that other processors never had")]
fn where_only_buffers_may_not_be_registered_io_uring_is_used_without() {
    let outside = run_wordcount(&["--driver", "io_uring"]);
    if !outside.status.success() {
        println!("skipped: this host has no io_uring: {}", outside.stderr);
        return;
    }
    in_a_container(IoUring::NoBuffersRegistered, || {
        let cluster = Cluster::start(1, &["--driver", "io_uring", "--send", "auto"]);
        let metrics = http::get(cluster.rest, "/metrics").expect("the JobManager is there").body;
        let wanted = "driver=\"io_uring\",registration=\"unregistered\"} 1";
        assert!(metrics.contains(wanted), "{metrics}");
        cluster.stop();
        succeeds(run_wordcount(&["--driver", "io_uring"]));
        succeeds_with_the_demo();
    });
}

/// F47: as kernels without it (ENOSYS) and hosts that are short of memory (ENOMEM) answer.
#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the profile names calls that other processors never had")]
fn where_the_kernel_fails_to_make_a_ring_a_job_runs_on_epoll() {
    for errno in [libc::ENOSYS, libc::ENOMEM] {
        in_a_container(IoUring::Fails(errno as u32), move || {
            let chosen = succeeds(run_wordcount(AS_SHIPPED));
            assert!(chosen.stderr.contains("on epoll instead of io_uring"), "{errno}: {}", chosen.stderr);
            succeeds_with_the_demo();
        });
    }
}

/// The line of a TaskManager whose slots are known: it may come a moment after the JobManager knows them.
fn ready(process: &mut Process) -> String {
    process.wait_line("`ready`", SOON, |line| line.starts_with("ready").then(|| line.to_owned()))
}

fn succeeds_with_the_demo() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work = folder.path().join("demo");
    let finished =
        tidegate(folder.path(), WHOLE_JOB, &["demo", "--json", "--dir", path(&work), "--driver", "auto"]);
    demo::agrees(&succeeds(finished).stdout);
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are UTF-8")
}
