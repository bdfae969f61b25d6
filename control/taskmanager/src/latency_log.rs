//! The latency log: intervals of HdrHistograms, in the format that HistogramLogProcessor and its like read.
//!
//! Owner of the state: a thread of its own owns the file, so that a slow disk holds up nobody. Always: an interval is
//! written whole, an entry per edge and stage, or the log ends and says so once; at most `LATENCY_LOG_WAITING_MAX` wait.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, LineWriter};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use tidegate_rpc::latency::Latencies;

use crate::limits::{LATENCY_LOG_END_MAX, LATENCY_LOG_WAITING_MAX};

/// What was recorded between two instants, by tag.
pub(crate) struct Interval {
    pub since: Instant,
    pub until: Instant,
    pub edges: BTreeMap<String, Latencies>,
}

/// The way to the log's thread.
pub(crate) struct LatencyLog {
    intervals: SyncSender<Interval>,
    ended: Receiver<()>,
}

impl LatencyLog {
    /// Begins a log; what was in the file is gone.
    ///
    /// # Errors
    /// It cannot be created, or there is no thread.
    pub(crate) fn begin(path: &Path) -> io::Result<Self> {
        let (file, path) = (File::create(path)?, path.to_owned());
        let (intervals, waiting) = sync_channel(LATENCY_LOG_WAITING_MAX);
        let (end, ended) = sync_channel(1);
        std::thread::Builder::new().name("latency-log".to_owned()).spawn(move || {
            write(file, &path, &waiting);
            let _ = end.send(()); // Nobody may be waiting.
        })?;
        Ok(LatencyLog { intervals, ended })
    }

    /// Hands an interval over, or gives it back if too many wait. If the log has ended the interval is lost, which was said.
    pub(crate) fn write(&self, interval: Interval) -> Result<(), Interval> {
        match self.intervals.try_send(interval) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(interval)) => Err(interval),
        }
    }

    /// Waits until all is written, for a while.
    pub(crate) fn finish(self) {
        drop(self.intervals);
        let _ = self.ended.recv_timeout(LATENCY_LOG_END_MAX); // A disk that hangs must not hold up the end.
    }
}

fn write(file: File, path: &Path, intervals: &Receiver<Interval>) {
    if let Err(reason) = try_write(file, intervals) {
        tracing::error!("the latency log {} ends here: {reason}", path.display());
    }
}

fn try_write(file: File, intervals: &Receiver<Interval>) -> Result<(), String> {
    let (begun, began) = (Instant::now(), SystemTime::now());
    let (mut file, mut format) = (LineWriter::new(file), V2DeflateSerializer::new());
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("[Latencies in nanoseconds; a tag is JOB/PRODUCER->CONSUMER/STAGE]")
        .with_start_time(began)
        .with_base_time(began)
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut file, &mut format)
        .map_err(|error| error.to_string())?;
    while let Ok(Interval { since, until, edges }) = intervals.recv() {
        let from: Duration = since.saturating_duration_since(begun);
        for (tag, histogram) in &edges {
            let lasted = until.saturating_duration_since(since);
            log.write_histogram(histogram, from, lasted, Tag::new(tag)).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}
