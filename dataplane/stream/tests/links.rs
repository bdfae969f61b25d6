//! The same jobs with real threads, real rings and real connections: two TaskManagers of two slots each, over loopback.

mod cluster;

use std::sync::Arc;
use std::time::Duration;

use cluster::{Cluster, Count, Shape};
use tidegate_stream::testing::{Manager, collect, items};
use tidegate_stream::{
    AggregateFunction, Args, Job, JobResult, Jobs, MapFunction, RuntimeContext, TaskError,
};

#[derive(Clone)]
struct Sum;

impl AggregateFunction<u64, u64> for Sum {
    type State = u64;
    type Out = (u64, u64);
    fn create(&mut self, _key: &u64) -> u64 {
        0
    }
    fn add(&mut self, sum: &mut u64, item: &u64) {
        *sum += item;
    }
    fn result(&mut self, key: &u64, sum: u64) -> Result<(u64, u64), TaskError> {
        Ok((*key, sum))
    }
}

const ITEMS: u64 = 300_000;

fn job(job: &mut Job, _args: &Args) -> JobResult {
    let fork = job.source("n", items(0..ITEMS)).fork();
    fork.branch().key_by(|n| n % 1_009).aggregate("sum", Sum).sink("sums", collect("sums"));
    fork.branch()
        .filter("few", |n| n % 100 == 0)
        .map("text", |n| n.to_string())
        .rebalance()
        .owned()
        .sink("text", collect("text"));
    Ok(())
}

fn cluster() -> Cluster {
    Cluster::of(Shape::SMALL, Jobs::new([("job", job)]), 4, Arc::default())
}

fn check(manager: &Manager) {
    let mut sums = manager.collected::<(u64, u64)>("sums");
    sums.sort_unstable();
    let expected: Vec<_> = (0..1_009).map(|key| (key, (key..ITEMS).step_by(1_009).sum())).collect();
    assert_eq!(sums, expected);
    let mut text: Vec<u64> =
        manager.collected::<String>("text").iter().map(|text| text.parse().unwrap()).collect();
    text.sort_unstable();
    assert_eq!(text, (0..ITEMS).step_by(100).collect::<Vec<_>>());
}

#[test]
fn a_job_runs_across_taskmanagers() {
    let cluster = cluster();
    check(&cluster.finish());
}

#[test]
fn a_job_is_restored_across_taskmanagers() {
    let mut cluster = cluster();
    cluster.checkpoint();
    cluster.checkpoint();
    cluster.restart();
    cluster.checkpoint();
    cluster.restart();
    check(&cluster.finish());
}

/// A function that takes its time to open in the first slot, until all other slots are prepared.
#[derive(Clone)]
struct Slow {
    prepared: Arc<Count>,
    /// The last one has no more patience.
    last: bool,
}

impl MapFunction<u64> for Slow {
    type Out = u64;
    fn open(&mut self, context: &RuntimeContext) -> Result<(), TaskError> {
        if context.subtask != 0 {
            return Ok(());
        }
        let others = 2 * Shape::SMALL.slots as usize - 1;
        let Count(count, changed) = &*self.prepared;
        let waiting = |prepared: &mut usize| *prepared < others;
        let (prepared, _) =
            changed.wait_timeout_while(count.lock().unwrap(), Duration::from_millis(200), waiting).unwrap();
        if self.last && *prepared < others {
            return Err(format!("{} of {others} other slots are prepared", *prepared).into());
        }
        Ok(())
    }
    fn map(&mut self, item: &u64) -> Result<u64, TaskError> {
        Ok(*item)
    }
}

/// While the tasks of a slot are opened one by one, the handshakes of other slots are answered.
#[test]
fn a_slot_that_opens_slowly_keeps_taking_connections() {
    const PIPELINES: usize = 10;
    let prepared = Arc::<Count>::default();
    let count = Arc::clone(&prepared);
    let job = move |job: &mut Job, _: &Args| {
        for number in 0..PIPELINES {
            let slow = Slow { prepared: Arc::clone(&count), last: number + 1 == PIPELINES };
            job.source(&format!("n-{number}"), items(0..100u64))
                .map_with("slow", slow)
                .rebalance()
                .owned()
                .sink("out", collect(&format!("out-{number}")));
        }
        Ok(())
    };
    let manager = Cluster::of(Shape::SMALL, Jobs::new([("job", job)]), 4, prepared).finish();
    for number in 0..PIPELINES {
        assert_eq!(manager.collected::<u64>(&format!("out-{number}")).len(), 100);
    }
}
