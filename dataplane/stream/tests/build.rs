//! What a job may describe, and how it becomes a graph.

use tidegate_graph::{OperatorKind, Partitioner};
use tidegate_stream::testing::{collect, items};
use tidegate_stream::{Args, BuildError, BuiltJob, Job, JobEntry, JobResult, Jobs};

fn build(
    function: impl FnOnce(&mut Job, &Args) -> JobResult,
    parallelism: u32,
) -> Result<BuiltJob, BuildError> {
    Job::build("test", function, &Args::default(), parallelism)
}

fn message(function: impl FnOnce(&mut Job, &Args) -> JobResult) -> String {
    build(function, 2).expect_err("the job cannot be built").to_string()
}

#[test]
fn chained_operators_with_unequal_parallelism_are_refused() {
    let message = message(|job, _| {
        job.source("read", items(0..3u64))
            .parallelism(1)
            .map("parse", |n| *n)
            .parallelism(4)
            .sink("out", collect("out"));
        Ok(())
    });
    assert_eq!(
        message,
        "operators `read` (parallelism 1) and `parse` (parallelism 4) are chained, so they run in the same tasks: make \
         the two equal, or put rebalance() or key_by() between them"
    );
}

#[test]
fn a_forward_edge_between_unequal_parallelisms_is_refused() {
    let message = message(|job, _| {
        job.source("read", items(0..3u64))
            .parallelism(1)
            .unchain()
            .sink("out", collect("out"))
            .parallelism(4);
        Ok(())
    });
    assert!(
        message.starts_with("`read` (parallelism 1) is unchained from `out` (parallelism 4), but"),
        "{message}"
    );
}

#[test]
fn a_job_may_have_parts_that_share_no_edge() {
    let built = build(
        |job, _| {
            job.source("a", items(0..3u64)).sink("of a", collect("a"));
            job.source("b", items(0..3u64)).sink("of b", collect("b"));
            Ok(())
        },
        2,
    );
    let graph = built.unwrap().graph;
    assert_eq!((graph.validate(), graph.vertices.len(), graph.edges.len()), (Ok(()), 2, 0));
}

#[test]
fn the_graph_has_a_vertex_per_chain() {
    let built = build(
        |job, _| {
            let a = job.source("a", items(0..3u64)).filter("odd", |n| n % 2 == 1);
            let b = job.source("b", items(0..3u64)).slot_group("slow");
            a.union("both", b)
                .key_by(|n| *n)
                .reduce("sum", |n| *n, |sum, n| *sum += n)
                .map("show", |n| n + 1)
                .unchain()
                .sink("out", collect("out"));
            Ok(())
        },
        3,
    );
    let graph = built.unwrap().graph;
    let names: Vec<_> = graph.vertices.iter().map(|vertex| vertex.name.as_str()).collect();
    assert_eq!(names, ["a -> odd", "b", "both", "sum -> show", "out"]);
    let kinds: Vec<_> = graph.vertices.iter().map(|vertex| vertex.operators[0].kind).collect();
    use OperatorKind::*;
    assert_eq!(kinds, [Source, Source, Stateless, Keyed, Sink]);
    let partitioners: Vec<_> = graph.edges.iter().map(|edge| edge.partitioner).collect();
    use Partitioner::*;
    assert_eq!(partitioners, [Forward, Forward, KeyGroup, Forward]);
    let groups: Vec<_> = graph.vertices.iter().map(|vertex| vertex.slot_group.as_str()).collect();
    assert_eq!(groups, ["default", "slow", "default", "default", "default"]);
    assert_eq!(graph.max_parallelism, 128);
}

fn ids(function: impl FnOnce(&mut Job, &Args) -> JobResult, parallelism: u32) -> Vec<(String, u64)> {
    let graph = build(function, parallelism).unwrap().graph;
    let operators = graph.vertices.into_iter().flat_map(|vertex| vertex.operators);
    operators.map(|operator| (operator.name, operator.id)).collect()
}

fn id(ids: &[(String, u64)], name: &str) -> u64 {
    ids.iter().find(|(known, _)| known == name).unwrap().1
}

/// Ids depend on names and uids, not on parallelism or on what else is in the job.
#[test]
fn operator_ids_are_stable() {
    let plain = |job: &mut Job, _: &Args| {
        job.source("n", items(0..3u64))
            .key_by(|n| *n)
            .reduce("sum", |n| *n, |sum, n| *sum += n)
            .sink("out", collect("out"));
        Ok(())
    };
    let more = |job: &mut Job, _: &Args| {
        job.source("another", items(0..3u64)).sink("elsewhere", collect("elsewhere"));
        plain(job, &Args::default())
    };
    let renamed = |job: &mut Job, _: &Args| {
        job.source("numbers", items(0..3u64))
            .filter("some", |n| *n > 1)
            .key_by(|n| *n)
            .reduce("sum", |n| *n, |sum, n| *sum += n)
            .uid("the-sum")
            .sink("out", collect("out"));
        Ok(())
    };
    let with_uid = |job: &mut Job, _: &Args| {
        job.source("n", items(0..3u64))
            .key_by(|n| *n)
            .reduce("total", |n| *n, |sum, n| *sum += n)
            .uid("the-sum")
            .sink("out", collect("out"));
        Ok(())
    };
    let first = ids(plain, 1);
    assert_eq!(first, ids(plain, 4));
    let more = ids(more, 2);
    assert_eq!(id(&more, "sum"), id(&first, "sum"));
    let (renamed, with_uid) = (ids(renamed, 1), ids(with_uid, 1));
    assert_ne!(id(&renamed, "sum"), id(&first, "sum"), "its path changed");
    assert_eq!(id(&renamed, "sum"), id(&with_uid, "total"), "its uid did not");
    assert_eq!(id(&renamed, "out"), id(&with_uid, "out"), "nor that of what follows");
    // Pinned: another hash would lose all state there is.
    assert_eq!(id(&first, "n"), tidegate_stream::job::operator_id("n"));
    assert_eq!(tidegate_stream::job::operator_id("n/sum"), id(&first, "sum"));
    assert_eq!(tidegate_stream::job::operator_id("n"), 14_675_559_271_411_649_290);
}

#[test]
fn two_operators_of_one_path_are_refused() {
    let message = message(|job, _| {
        let fork = job.source("n", items(0..3u64)).fork();
        fork.branch().sink("out", collect("a"));
        fork.branch().sink("out", collect("b"));
        Ok(())
    });
    assert_eq!(
        message,
        "two operators have the path `n/out`, so their state could not be told apart: rename one or give it a uid"
    );
}

#[test]
fn a_stream_without_a_sink_is_refused() {
    let no_sink = message(|job, _| {
        let _ = job.source("n", items(0..3u64)).map("lost", |n| *n);
        Ok(())
    });
    assert_eq!(no_sink, "the stream behind `lost` ends nowhere: give it a sink");
    let open_branch = message(|job, _| {
        let fork = job.source("n", items(0..3u64)).fork();
        fork.branch().sink("out", collect("out"));
        let _ = fork.branch().map("lost", |n| *n);
        Ok(())
    });
    assert_eq!(open_branch, "the stream behind `n` ends nowhere: give it a sink");
    let keyed = message(|job, _| {
        let _ = job.source("n", items(0..3u64)).key_by(|n| *n);
        Ok(())
    });
    assert_eq!(keyed, "the stream behind `n` ends nowhere: give it a sink");
}

#[test]
fn streams_of_two_jobs_do_not_mix() {
    let mut kept = None;
    let other = Job::build(
        "other",
        |job, _| {
            kept = Some(job.source("n", items(0..3u64)));
            Ok(())
        },
        &Args::default(),
        1,
    );
    assert!(other.is_err());
    let message = message(|job, _| {
        let here = job.source("here", items(0..3u64));
        here.union("both", kept.take().unwrap()).sink("out", collect("out"));
        Ok(())
    });
    assert_eq!(message, "stream `n` belongs to another job: build all streams of a job from the same `Job`");
}

#[test]
fn unequal_inputs_of_a_union_are_rebalanced() {
    let graph = build(
        |job, _| {
            let a = job.source("a", items(0..3u64)).parallelism(1);
            let b = job.source("b", items(0..3u64)).parallelism(3);
            a.union("both", (b,)).parallelism(3).sink("out", collect("out"));
            Ok(())
        },
        2,
    )
    .unwrap()
    .graph;
    let partitioners: Vec<_> = graph.edges.iter().map(|edge| edge.partitioner).collect();
    assert_eq!(partitioners, [Partitioner::Rebalance, Partitioner::Forward]);
}

#[test]
fn the_same_job_has_the_same_fingerprint() {
    let job = |job: &mut Job, _: &Args| {
        job.source("n", items(0..3u64))
            .key_by(|n| *n)
            .reduce("s", |n| *n, |s, n| *s += n)
            .sink("out", collect("out"));
        Ok(())
    };
    let graph = |parallelism| build(job, parallelism).unwrap().graph.fingerprint();
    assert_eq!(graph(2), graph(2));
    assert_ne!(graph(2), graph(3));
}

#[test]
fn the_outputs_of_a_job_are_those_of_its_sinks_made_plain() {
    let job = |job: &mut Job, args: &Args| {
        let output: String = args.required("output")?;
        let fork = job.source("n", items(0..3u64)).fork();
        fork.branch().sink("one", collect(&output));
        fork.branch().map("twice", |n| n * 2).sink("two", collect("/b/./two/"));
        fork.branch().map("thrice", |n| n * 3).sink("three", collect("//b/three/../two"));
        Ok(())
    };
    let jobs = Jobs::new([JobEntry::new("job", job)]);
    let outputs = |jobs: &Jobs, output: &str| {
        let args = ["--output".to_owned(), output.to_owned()];
        jobs.build("job", &args, 1).expect("a good job").outputs
    };
    assert_eq!(outputs(&jobs, "../out"), ["../out", "/b/two"], "nobody knows what it is relative to");
    let embedded = jobs.in_folder("/home/me");
    assert_eq!(outputs(&embedded, "../out"), ["/b/two", "/home/out"]);
    assert_eq!(outputs(&embedded, "/out"), ["/b/two", "/out"]);
}
