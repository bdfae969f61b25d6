//! Latencies of edges as Prometheus histograms: buckets out of the HDR histograms, as many for all.
//!
//! Made for one scrape. Always: the bounds of the buckets never change; at most `HISTOGRAM_SERIES_MAX` histograms are
//! exported, so where there are more, the subtasks of an edge are one.

use crate::core::{Core, Job};
use crate::limits::HISTOGRAM_SERIES_MAX;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use std::collections::{BTreeMap, HashMap};
use tidegate_rpc::latency::{Latencies, empty};

type Labels = Vec<(String, String)>;

/// Bounds of the buckets in nanoseconds: 1, 2 and 5 of each decade from a microsecond to a minute.
const BOUNDS_NS: [u64; 24] = {
    let mut bounds = [0; 24];
    let (mut at, mut decade) = (0, 1_000);
    while at < bounds.len() {
        (bounds[at], bounds[at + 1], bounds[at + 2]) = (decade, 2 * decade, 5 * decade);
        (at, decade) = (at + 3, 10 * decade);
    }
    bounds
};

/// All histograms of a scrape.
#[derive(Debug)]
pub(super) struct EdgeLatencies(Vec<Series>);

#[derive(Debug)]
struct Series {
    labels: Labels,
    sum: f64,
    count: u64,
    buckets: Vec<(f64, u64)>,
}

impl EdgeLatencies {
    /// What is known of all jobs.
    pub(super) fn of(core: &Core) -> Self {
        let all = core.by_age().map(Job::latencies_known).sum::<usize>();
        let together = all > HISTOGRAM_SERIES_MAX;
        let series = core.by_age().flat_map(|job| of_job(job, together)).take(HISTOGRAM_SERIES_MAX);
        EdgeLatencies(series.collect())
    }
}

fn of_job(job: &Job, together: bool) -> Vec<Series> {
    let mut merged: BTreeMap<Labels, Latencies> = BTreeMap::new();
    for (place, latencies) in job.latencies() {
        let subtask = if together { "all".to_owned() } else { place.subtask.to_string() };
        let labels = [
            ("job", job.id.to_string()),
            ("vertex", job.vertex_of(place).to_string()),
            ("subtask", subtask),
            ("edge", place.edge.to_string()),
            ("edge_name", job.graph.edge_name(place.edge)),
            ("stage", place.stage.name().to_owned()),
        ];
        let labels = labels.map(|(name, value)| (name.to_owned(), value)).to_vec();
        // Bounds are those of all, so there is nothing that could not be added.
        let _ = merged.entry(labels).or_insert_with(empty).add(&latencies);
    }
    merged.into_iter().map(|(labels, latencies)| series(labels, &latencies)).collect()
}

fn series(labels: Labels, latencies: &Latencies) -> Series {
    let mut counts = [0u64; BOUNDS_NS.len() + 1];
    for step in latencies.iter_recorded() {
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < step.value_iterated_to());
        counts[bucket] += step.count_since_last_iteration();
    }
    let bounds = BOUNDS_NS.iter().map(|ns| *ns as f64 / 1e9).chain([f64::MAX]);
    let count = latencies.len();
    let sum = latencies.mean() * count as f64 / 1e9;
    Series { labels, sum, count, buckets: bounds.zip(counts).collect() }
}

impl Collector for EdgeLatencies {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Latency of an edge by stage";
        let mut family =
            encoder.encode_descriptor("edge_latency_seconds", help, None, MetricType::Histogram)?;
        for series in &self.0 {
            let none = None::<&HashMap<usize, Exemplar<NoLabelSet, f64>>>;
            let mut metric = family.encode_family(&series.labels)?;
            metric.encode_histogram(series.sum, series.count, &series.buckets, none)?;
        }
        Ok(())
    }
}
