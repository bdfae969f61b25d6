//! Tests of the connectors: alone, on the in-memory files and without threads, and in whole jobs that fail and go on.

mod blocks;
mod csv;
mod csv_sink;
mod jobs;
mod lines;
mod sequence;

use std::sync::Arc;

use crate::context::{Metrics, RuntimeContext, Waker};
use crate::error::TaskError;
use crate::pool::ReaderPool;
use crate::source::{Next, Source, SourceContext, SourceReader};

/// Subtask `subtask` of `parallelism`, restored from `restored`.
fn runtime(subtask: u32, parallelism: u32, restored: Option<u64>) -> RuntimeContext {
    RuntimeContext {
        job: 1,
        operator: "connector".to_owned(),
        operator_id: 1,
        subtask,
        parallelism,
        max_parallelism: 128,
        epoch: 1,
        attempt: 1,
        restored,
        memory: crate::memory::OperatorMemory::default(),
        metrics: Metrics::default(),
    }
}

fn waker() -> Waker {
    Waker::new(Arc::new(|| {}))
}

/// A source instance whose blocking part runs when the test says so.
struct Opened<R> {
    reader: R,
    pool: ReaderPool,
}

fn open<S: Source>(
    source: &S,
    runtime: &RuntimeContext,
    positions: &[Vec<u8>],
) -> Result<Opened<S::Reader>, TaskError> {
    let pool = ReaderPool::new(0).expect("no thread is started");
    let reader = source.open(&SourceContext { runtime, positions, pool: &pool, waker: waker() })?;
    Ok(Opened { reader, pool })
}

impl<R: SourceReader> Opened<R> {
    /// The next item, once the pool has nothing to do any more; `None` at the end or while the source pauses.
    fn next(&mut self, now_ns: u64) -> Result<Option<&R::Item>, TaskError> {
        while self.pool.run_one() {}
        match self.reader.next(now_ns)? {
            Next::Item(item) => Ok(Some(item)),
            Next::Wait(_) | Next::End => Ok(None),
        }
    }

    fn all(&mut self) -> Result<Vec<R::Item>, TaskError>
    where
        R::Item: Clone,
    {
        let mut items = Vec::new();
        while let Some(item) = self.next(0)? {
            items.push(item.clone());
        }
        Ok(items)
    }

    fn position(&self) -> Vec<u8> {
        let mut position = Vec::new();
        self.reader.position(&mut position).expect("a position can be written");
        position
    }
}
