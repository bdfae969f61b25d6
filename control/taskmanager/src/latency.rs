//! Latencies off the slots' threads: what slots recorded is merged here, reported to the JobManager, and logged.
//!
//! Owner of the state: the control thread. A slot's histograms come through feeds that its board names; an end of an edge is
//! known from then until its last word was reported. Always: what is reported is everything since the attempt began.
//! An end of an edge holds 24 KiB here for each stage, an edge as much again for each stage while a log is written.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tidegate_exchange::{LatencyFeed, Stage};
use tidegate_rpc as rpc;
use tidegate_rpc::latency::{Latencies, empty, encode};
use tidegate_rpc::limits::REPORT_EDGES_MAX;
use tidegate_stream::slot::{AttemptId, SlotMetrics, TaskId};

use crate::latency_log::{Interval, LatencyLog};
use crate::limits::LATENCY_REPORT_INTERVAL;

/// Which end of which edge: a task is at the consumer's or the producer's, or in a loop that nobody can write at both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct EndId {
    attempt: AttemptId,
    task: TaskId,
    edge: u32,
    consumer: bool,
}

struct End {
    name: String,
    feed: LatencyFeed,
    /// By stage of the feed, since the attempt began.
    all: Vec<Latencies>,
    unreported: bool,
    ended: bool,
}

/// All ends of edges in this process.
pub(crate) struct Collector {
    ends: BTreeMap<EndId, End>,
    reported: Option<Instant>,
    log: Option<Log>,
}

struct Log {
    to: LatencyLog,
    every: Duration,
    since: Instant,
    interval: BTreeMap<String, Latencies>,
}

impl Collector {
    /// Reports, and with a log writes it.
    pub(crate) fn new(log: Option<(LatencyLog, Duration)>) -> Self {
        let log = log.map(|(to, every)| Log { to, every, since: Instant::now(), interval: BTreeMap::new() });
        Collector { ends: BTreeMap::new(), reported: None, log }
    }

    /// Takes in what slots have recorded, and new ends of edges.
    pub(crate) fn collect(&mut self, slots: &[SlotMetrics]) {
        for task in slots.iter().flat_map(|slot| &slot.tasks) {
            for latency in task.latencies.iter() {
                let consumer = latency.feed.stages() == Stage::OF_CONSUMER;
                let id = EndId { attempt: task.attempt, task: task.task, edge: latency.edge, consumer };
                self.ends.entry(id).or_insert_with(|| End {
                    name: latency.name.clone(),
                    feed: latency.feed.clone(),
                    all: latency.feed.stages().iter().map(|_| empty()).collect(),
                    unreported: false,
                    ended: false,
                });
            }
        }
        for (id, end) in &mut self.ends {
            end.ended = end.feed.is_last();
            let mut all = end.all.iter_mut();
            end.feed.take(|stage, recorded| {
                let mut merge = |into: &mut Latencies| {
                    for step in recorded.iter_recorded() {
                        into.saturating_record_n(step.value_iterated_to(), step.count_since_last_iteration());
                    }
                };
                all.next().into_iter().for_each(&mut merge);
                if let Some(log) = self.log.as_mut().filter(|_| !recorded.is_empty()) {
                    merge(log.interval.entry(tag(id.attempt.job, &end.name, stage)).or_insert_with(empty));
                }
                end.unreported |= !recorded.is_empty();
            });
        }
        if let Some(log) = self.log.as_mut().filter(|log| log.since.elapsed() >= log.every) {
            log.write();
        }
    }

    /// A JobManager that knows nothing yet is told everything.
    pub(crate) fn report_all(&mut self) {
        self.reported = None;
        self.ends.values_mut().for_each(|end| end.unreported = true);
    }

    /// What is to be reported now, and forgets what has ended.
    pub(crate) fn reports(&mut self) -> Vec<rpc::LatencyReport> {
        if self.reported.is_some_and(|at| at.elapsed() < LATENCY_REPORT_INTERVAL) {
            return Vec::new();
        }
        self.reported = Some(Instant::now());
        let news = self.ends.iter().filter(|(_, end)| end.unreported);
        let edges: Vec<rpc::EdgeLatency> = news.map(|(id, end)| edge(*id, end)).collect();
        self.ends.values_mut().for_each(|end| end.unreported = false);
        self.ends.retain(|_, end| !end.ended);
        edges.chunks(REPORT_EDGES_MAX).map(|edges| rpc::LatencyReport { edges: edges.to_vec() }).collect()
    }

    /// The process ends: what is left goes to the log.
    pub(crate) fn finish(&mut self) {
        self.collect(&[]);
        if let Some(mut log) = self.log.take() {
            log.write();
            log.to.finish();
        }
    }
}

impl Log {
    fn write(&mut self) {
        let interval =
            Interval { since: self.since, until: Instant::now(), edges: std::mem::take(&mut self.interval) };
        let until = interval.until;
        match self.to.write(interval) {
            Ok(()) => self.since = until,
            // The disk is slow: this interval goes on.
            Err(back) => self.interval = back.edges,
        }
    }
}

/// The tag of an edge in a log, without what separates fields there.
fn tag(job: u128, edge: &str, stage: Stage) -> String {
    let edge: String = edge.split([' ', ',', '\n', '\r']).collect();
    format!("{job:032x}/{edge}/{}", wire_stage(stage).name())
}

fn edge(id: EndId, end: &End) -> rpc::EdgeLatency {
    let stages = end.feed.stages().iter().zip(&end.all).filter(|(_, all)| !all.is_empty());
    rpc::EdgeLatency {
        job: rpc::JobId(id.attempt.job),
        attempt: id.attempt.attempt,
        task: rpc::TaskId { vertex: id.task.vertex, subtask: id.task.subtask },
        edge: id.edge,
        stages: stages.map(|(stage, all)| (wire_stage(*stage), encode(all))).collect(),
    }
}

fn wire_stage(stage: Stage) -> rpc::Stage {
    match stage {
        Stage::Total => rpc::Stage::Total,
        Stage::Wire => rpc::Stage::Wire,
        Stage::Queue => rpc::Stage::Queue,
        Stage::Send => rpc::Stage::Send,
        Stage::Credit => rpc::Stage::Credit,
    }
}
