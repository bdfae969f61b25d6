//! A source of numbered records that ends after as many as its meter expects.

use tidegate_stream::error::TaskError;
use tidegate_stream::source::{Next, Source, SourceContext, SourceReader};

use crate::meter::Meter;

/// Makes the records of one shape.
pub trait Numbered: Clone + Send + 'static {
    /// The record.
    type Item: Send + 'static;

    /// Makes the record of the next number.
    fn make(&mut self) -> &Self::Item;
}

/// The source.
#[derive(Clone)]
pub struct Records<N> {
    pub records: N,
    pub meter: Meter,
}

impl<N: Numbered> Source for Records<N> {
    type Item = N::Item;
    type Reader = Self;

    fn open(&self, _context: &SourceContext<'_>) -> Result<Self, TaskError> {
        Ok(self.clone())
    }
}

impl<N: Numbered> SourceReader for Records<N> {
    type Item = N::Item;

    #[inline]
    fn next(&mut self, _now_ns: u64) -> Result<Next<'_, N::Item>, TaskError> {
        if self.meter.left() == 0 {
            return Ok(Next::End);
        }
        self.meter.count(1);
        Ok(Next::Item(self.records.make()))
    }

    fn position(&self, out: &mut Vec<u8>) -> Result<(), TaskError> {
        out.extend_from_slice(&self.meter.seen().to_le_bytes());
        Ok(())
    }
}
