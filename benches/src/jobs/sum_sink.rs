//! A sink that adds up what a function says of each item, and leaves the total when it is closed.

use std::path::PathBuf;

use tidegate_stream::error::{Fault, TaskError};
use tidegate_stream::files::Files;
use tidegate_stream::sink::{Prepared, Sink, SinkContext, SinkWriter};

use crate::meter::{self, Meter, Totals};

/// The sink.
#[derive(Clone)]
pub struct SumSink<F> {
    /// What is added for an item.
    pub of: F,
    /// Measures the items, if nothing before does.
    pub meter: Option<Meter>,
    /// Where the total goes.
    pub path: PathBuf,
}

impl<In: ?Sized, F: Fn(&In) -> u64 + Clone + Send + 'static> Sink<In> for SumSink<F> {
    type Writer = SumWriter<F>;

    fn outputs(&mut self) -> Vec<&mut String> {
        Vec::new() // What it writes is for the benchmark alone, and replaced every time.
    }

    fn open(&self, context: &SinkContext<'_>) -> Result<SumWriter<F>, TaskError> {
        if context.runtime.restored.is_some() {
            return Err(TaskError::new(Fault::User, "a benchmark is not restored"));
        }
        Ok(SumWriter { sink: self.clone(), totals: Totals::default() })
    }
}

pub struct SumWriter<F> {
    sink: SumSink<F>,
    totals: Totals,
}

impl<In: ?Sized, F: Fn(&In) -> u64 + Clone + Send + 'static> SinkWriter<In> for SumWriter<F> {
    #[inline]
    fn ready(&mut self, _files: &mut dyn Files) -> bool {
        true
    }

    #[inline]
    fn write(&mut self, item: &In, _files: &mut dyn Files) -> Result<(), TaskError> {
        self.totals.results += 1;
        self.totals.checksum = self.totals.checksum.wrapping_add((self.sink.of)(item));
        if let Some(meter) = &mut self.sink.meter {
            meter.count(1);
        }
        Ok(())
    }

    fn cut(&mut self, _checkpoint: u64, _files: &mut dyn Files) -> Result<(), TaskError> {
        Ok(())
    }

    fn prepare_commit(&mut self, _checkpoint: u64, _files: &mut dyn Files) -> Result<Prepared, TaskError> {
        Ok(Prepared::Ready { state: Vec::new(), committables: Vec::new() })
    }

    fn close(&mut self, _files: &mut dyn Files) {
        meter::write(&self.sink.path, &self.totals);
    }
}
