//! The job API, operators, keyed state and the slot loop.
//!
//! A job is a function that describes streams; the description becomes a graph (for the control plane) and factories (for
//! the slots). A slot is one thread that steps its tasks in turns. This file owns no state; it names the modules in reading
//! order.
//!
//! For authors of jobs: [`job`], [`stream`], [`keyed_stream`], [`function`], [`args`], [`jobs`]. For authors of connectors:
//! [`source`], [`sink`], [`files`], [`pool`]. Inside a task: [`chain`], [`tail`], [`edge`], [`head`], [`keyed`], [`operator`], [`state`],
//! [`body`], [`task`]. For the TaskManager: [`slot`]. For tests: [`testing`].
#![forbid(unsafe_code)]

pub mod args;
pub mod body;
pub mod chain;
pub mod connect;
pub mod context;
pub mod edge;
pub mod error;
pub mod files;
pub mod function;
pub mod head;
pub mod job;
pub mod jobs;
pub mod keyed;
pub mod keyed_stream;
pub mod limits;
pub mod memory;
pub mod operator;
pub mod pool;
pub mod router;
pub mod sink;
pub mod slot;
pub mod source;
pub mod spec;
pub mod stage;
pub mod state;
pub mod stream;
pub mod tail;
pub mod task;
pub mod testing;

pub use args::{Args, ArgsError};
pub use context::RuntimeContext;
pub use error::{Fault, TaskError};
pub use function::{
    AggregateFunction, Collector, FilterFunction, FlatMapFunction, MapFunction, ProcessFunction,
    ReduceFunction,
};
pub use job::{BuildError, BuiltJob, Job, JobResult};
pub use jobs::{JobEntry, Jobs};
pub use keyed_stream::Keyed;
pub use sink::{Committable, Sink, SinkWriter};
pub use source::{Source, SourceReader};
pub use stream::{Fork, Stream, Value, View};
pub use tidegate_exchange::plant::PLANTED;
