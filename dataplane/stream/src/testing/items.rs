//! A source of given items.
//!
//! Subtask i of p yields items i, i + p, i + 2p and so on. Its position is how many it has yielded.

use std::sync::Arc;

use crate::error::{Fault, TaskError};
use crate::source::{Next, Source, SourceContext, SourceReader};

/// The items of an iterator, collected up front.
pub fn items<T: Send + Sync + 'static>(items: impl IntoIterator<Item = T>) -> Items<T> {
    Items { items: items.into_iter().collect() }
}

/// A source of given items.
#[derive(Debug)]
pub struct Items<T> {
    items: Arc<[T]>,
}

impl<T> Clone for Items<T> {
    fn clone(&self) -> Self {
        Items { items: Arc::clone(&self.items) }
    }
}

impl<T: Send + Sync + 'static> Source for Items<T> {
    type Item = T;
    type Reader = ItemsReader<T>;

    fn open(&self, context: &SourceContext<'_>) -> Result<ItemsReader<T>, TaskError> {
        let taken = match context.positions {
            [] => 0,
            [position] => {
                let bytes = position.as_slice().try_into();
                let bytes =
                    bytes.map_err(|_| TaskError::new(Fault::State, "a position of items has eight bytes"))?;
                u64::from_le_bytes(bytes)
            }
            more => {
                let message =
                    format!("{} positions: items cannot be read on with another parallelism", more.len());
                return Err(TaskError::new(Fault::Source, message));
            }
        };
        let (subtask, stride) = (context.runtime.subtask as usize, context.runtime.parallelism as usize);
        Ok(ItemsReader { items: Arc::clone(&self.items), subtask, stride, taken })
    }
}

/// One subtask's items.
#[derive(Debug)]
pub struct ItemsReader<T> {
    items: Arc<[T]>,
    subtask: usize,
    stride: usize,
    taken: u64,
}

impl<T: Send + Sync + 'static> SourceReader for ItemsReader<T> {
    type Item = T;

    #[inline]
    fn next(&mut self, _now_ns: u64) -> Result<Next<'_, T>, TaskError> {
        let index = self.subtask + self.taken as usize * self.stride;
        let Some(item) = self.items.get(index) else { return Ok(Next::End) };
        self.taken += 1;
        Ok(Next::Item(item))
    }

    fn position(&self, out: &mut Vec<u8>) -> Result<(), TaskError> {
        out.extend_from_slice(&self.taken.to_le_bytes());
        Ok(())
    }
}
