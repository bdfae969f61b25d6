//! Edges: how an item finds its channel, and the tail that writes it there.
//!
//! A writer owns its partitioner's counters. Always: the channel written to exists, or the task fails by name.

use std::marker::PhantomData;

use tidegate_exchange::{EmitError, Output, PartitionId, Ports};
use tidegate_graph::Partitioner;
use tidegate_record::{Key, KeyedCodec, Record};

use crate::chain::Out;
use crate::context::Cx;
use crate::error::{Fault, TaskError};
use crate::function::KeyOf;
use crate::limits::{CHANNELS_AHEAD, CHANNELS_SCATTERED};
use crate::router::KeyRouter;
use crate::stage::{Stage, Wait};
use crate::tail::{Bound, Tail};

/// Puts items on an edge.
pub trait EdgeWriter<T>: Send + 'static {
    /// Writes `item` to one channel, or all.
    ///
    /// # Errors
    /// `Fault::Output` if it does not fit or the channel does not exist.
    fn write(&mut self, item: &T, output: &mut Output<'_>) -> Result<(), TaskError>;
}

#[cold]
fn emit_error(error: EmitError) -> TaskError {
    TaskError::new(Fault::Output, error.to_string())
}

/// To the only channel, or to each in turn.
pub struct Cycle {
    next: u32,
}

impl<T: Record> EdgeWriter<T> for Cycle {
    #[inline]
    fn write(&mut self, item: &T, output: &mut Output<'_>) -> Result<(), TaskError> {
        let channel = if self.next < output.channels() { self.next } else { 0 };
        self.next = channel + 1;
        if output.channels() >= CHANNELS_SCATTERED {
            output.prefetch(channel + CHANNELS_AHEAD);
        }
        output.write(channel, item).map_err(emit_error)
    }
}

/// To every channel.
pub struct ToAll;

impl<T: Record> EdgeWriter<T> for ToAll {
    #[inline]
    fn write(&mut self, item: &T, output: &mut Output<'_>) -> Result<(), TaskError> {
        output.broadcast(item).map_err(emit_error)
    }
}

/// An edge whose partitioner is decided when the graph is built: forward, rebalance or broadcast.
pub enum Pass {
    /// Forward or rebalance.
    Cycle(Cycle),
    /// Broadcast.
    All(ToAll),
}

impl Pass {
    /// Subtask `subtask` of the producer starts with the channel of its own number, so that producers spread.
    pub fn new(partitioner: Partitioner, subtask: u32, channels: u32) -> Self {
        match partitioner {
            Partitioner::Broadcast => Pass::All(ToAll),
            _ => Pass::Cycle(Cycle { next: subtask % channels.max(1) }),
        }
    }
}

impl<T: Record> EdgeWriter<T> for Pass {
    #[inline]
    fn write(&mut self, item: &T, output: &mut Output<'_>) -> Result<(), TaskError> {
        match self {
            Pass::Cycle(cycle) => cycle.write(item, output),
            Pass::All(all) => all.write(item, output),
        }
    }
}

/// To the owner of the key.
pub struct ByKey<K, F> {
    key_of: F,
    router: KeyRouter,
    key: PhantomData<fn() -> K>,
}

impl<K, F> ByKey<K, F> {
    /// Keys by `key_of`.
    pub fn new(key_of: F, router: KeyRouter) -> Self {
        ByKey { key_of, router, key: PhantomData }
    }
}

impl<K: Key, T: Record, F: KeyOf<T, K>> EdgeWriter<T> for ByKey<K, F> {
    #[inline]
    fn write(&mut self, item: &T, output: &mut Output<'_>) -> Result<(), TaskError> {
        self.key_of.with(item, |key| {
            // Where there is one consumer it owns every key.
            let channel = if output.channels() == 1 { 0 } else { self.router.channel(key.hash()) };
            output.write_with(channel, |slot| <T::Keyed<K>>::write(key, item, slot)).map_err(emit_error)
        })
    }
}

/// To the channel that a function picks.
pub struct ByFunction<F> {
    pick: F,
}

impl<F> ByFunction<F> {
    /// `pick` gets the item and the number of channels.
    pub fn new(pick: F) -> Self {
        ByFunction { pick }
    }
}

impl<T: Record, F: FnMut(&T, u32) -> u32 + Send + 'static> EdgeWriter<T> for ByFunction<F> {
    #[inline]
    fn write(&mut self, item: &T, output: &mut Output<'_>) -> Result<(), TaskError> {
        let channels = output.channels();
        let channel = (self.pick)(item, channels);
        if channel >= channels {
            return Err(no_such_channel(channel, channels));
        }
        output.write(channel, item).map_err(emit_error)
    }
}

#[cold]
fn no_such_channel(channel: u32, channels: u32) -> TaskError {
    let message =
        format!("the partitioner picked channel {channel}, there are {channels} (0 to {})", channels - 1);
    TaskError::new(Fault::Output, message)
}

/// A tail that writes to one partition.
pub struct EdgeTail<W> {
    partition: PartitionId,
    writer: W,
    emitted: u64,
}

impl<W> EdgeTail<W> {
    /// Writes to `partition`.
    pub fn new(partition: PartitionId, writer: W) -> Self {
        EdgeTail { partition, writer, emitted: 0 }
    }
}

impl<W> Stage for EdgeTail<W> {}

/// An edge during one quantum.
pub struct EdgeOut<'a, W> {
    output: Output<'a>,
    writer: &'a mut W,
    emitted: &'a mut u64,
}

impl<T, W: EdgeWriter<T>> Out<T> for EdgeOut<'_, W> {
    #[inline]
    fn ready(&mut self, _cx: &mut Cx<'_>) -> bool {
        self.output.writable()
    }

    #[inline]
    fn push(&mut self, item: &T, _cx: &mut Cx<'_>) -> Result<(), TaskError> {
        *self.emitted += 1;
        self.writer.write(item, &mut self.output)
    }
}

impl<T, W: EdgeWriter<T>> Bound<T> for EdgeOut<'_, W> {
    fn blocked(&mut self, _cx: &mut Cx<'_>) -> Wait {
        Wait::OUTPUT
    }
}

impl<T, W: EdgeWriter<T>> Tail<T> for EdgeTail<W> {
    type Bound<'a> = EdgeOut<'a, W>;

    fn bind<'a>(&'a mut self, ports: &'a mut Ports) -> EdgeOut<'a, W> {
        EdgeOut { output: ports.output(self.partition), writer: &mut self.writer, emitted: &mut self.emitted }
    }

    fn emitted(&self) -> u64 {
        self.emitted
    }
}
