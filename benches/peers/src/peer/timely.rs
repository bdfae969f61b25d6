//! Timely dataflow: an exchange from a worker in one process to a worker in another, and a sum there.
//!
//! Each process has one worker, and timely's own two threads for the socket. Timely has no back pressure, so the source sends
//! rounds and waits, as its examples do, until all but the last few have been worked off. Records travel as in timely's
//! example `columnar` (columns that the receiver reads where they arrived), or as vectors through bincode, which is what a
//! program gets that says nothing.

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;
use std::sync::Mutex;

use ::timely::WorkerConfig;
use ::timely::communication::Hooks;
use ::timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use ::timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};
use ::timely::container::{
    Accountable, CapacityContainerBuilder, DrainContainer, LengthPreservingContainerBuilder, SizableContainer,
};
use ::timely::dataflow::channels::ContainerBytes;
use ::timely::dataflow::channels::pact::ExchangeCore;
use ::timely::dataflow::operators::{Input, Operator, Probe};
use ::timely::dataflow::{InputHandle, ProbeHandle};
use ::timely::worker::Worker;
use clap::{Args, ValueEnum};
use columnar::{Columnar, Index};
use serde::{Deserialize, Serialize};

use super::End;
use super::columns::ColumnBuilder;
use crate::meter::Meter;
use crate::records::{Opaque, Pairs, Sum};
use crate::work::{Shape, Work};

/// How records travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Container {
    /// Columns, read where they arrived
    Columnar,
    /// Vectors, through bincode
    Vec,
}

/// How it is set up.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Tuning {
    /// How records travel
    #[arg(long, value_enum, default_value_t = Container::Columnar)]
    pub container: Container,
    /// Payload bytes of a message, as columns
    #[arg(long, value_name = "N", default_value_t = 64 << 10, value_parser = clap::value_parser!(u64).range(64..=1 << 24))]
    pub message_bytes: u64,
    /// Payload bytes of a round
    #[arg(long, value_name = "N", default_value_t = 512 << 10, value_parser = clap::value_parser!(u64).range(64..=1 << 30))]
    pub round_bytes: u64,
    /// Rounds on their way at most
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub rounds: u64,
}

impl Tuning {
    /// What it is called in tables.
    pub fn name(&self) -> String {
        match self.container {
            Container::Columnar => "timely, columns".to_owned(),
            Container::Vec => "timely, vectors".to_owned(),
        }
    }

    /// Records of a round, and of a message.
    fn records(&self, work: &Work) -> [u64; 2] {
        [self.round_bytes, self.message_bytes].map(|bytes| (bytes / work.payload_bytes()).max(1))
    }

    /// For people.
    pub fn settings(&self, work: &Work) -> Vec<(&'static str, String)> {
        let [round, message] = self.records(work);
        let container = match self.container {
            Container::Columnar => format!("columnar, {message} records a message"),
            Container::Vec => "vec through bincode, 8 KiB a message".to_owned(),
        };
        vec![
            ("version", "0.31".to_owned()),
            ("container", container),
            ("rounds", format!("{round} records each, {} on their way", self.rounds)),
            ("workers", "1 a process, and timely's 2 threads for the socket".to_owned()),
        ]
    }
}

/// Is one end.
///
/// # Errors
/// The other end is gone, or records are missing.
pub fn end(tuning: &Tuning, end: End) -> Result<(), Box<dyn Error>> {
    let End { is_source, work, socket, meter } = end;
    let (index, sockets) =
        if is_source { (0, vec![None, Some(socket)]) } else { (1, vec![Some(socket), None]) };
    let hooks = Hooks::default();
    let within = ProcessBuilder::new_typed_vector(1, hooks.refill.clone(), None);
    let (builders, guard) = initialize_networking_from_sockets(within, sockets, index, 1, hooks)?;
    let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
    let (tuning, meter) = (tuning.clone(), Mutex::new(Some(meter)));
    let worker = move |worker: &mut Worker| {
        let taken = meter.lock().ok().and_then(|mut meter| meter.take());
        let meter = taken.ok_or("a process has more than one worker")?;
        let run = Run { tuning: &tuning, work: &work, is_source, meter };
        run.on(worker).map_err(|error| error.to_string())
    };
    let guards = ::timely::execute::execute_from(builders, Box::new(guard), WorkerConfig::default(), worker)?;
    for result in guards.join() {
        result??;
    }
    Ok(())
}

struct Run<'a> {
    tuning: &'a Tuning,
    work: &'a Work,
    is_source: bool,
    meter: Meter,
}

type Strings = <String as Columnar>::Container;
type PairColumns = <(u64, u64) as Columnar>::Container;

impl Run<'_> {
    fn on(self, worker: &mut Worker) -> Result<(), Box<dyn Error>> {
        let Work { keys, record_bytes, .. } = *self.work;
        let [_, message] = self.tuning.records(self.work);
        super::columns::set_capacity(message as usize);
        let (mut pairs, mut opaque) = (Pairs::new(keys), Opaque::new(record_bytes as usize));
        match (self.work.shape, self.tuning.container) {
            (Shape::Keyed, Container::Columnar) => self.exchange::<ColumnBuilder<PairColumns>>(
                worker,
                move |column| column.push(pairs.step()),
                |column, sum| sum.pairs(column.borrow().into_index_iter().map(|(key, value)| (*key, *value))),
            ),
            (Shape::Bytes, Container::Columnar) => self.exchange::<ColumnBuilder<Strings>>(
                worker,
                move |column| column.push(opaque.step()),
                |column, sum| sum.opaque(column.borrow().into_index_iter()),
            ),
            (Shape::Keyed, Container::Vec) => self.exchange::<CapacityContainerBuilder<Vec<(u64, u64)>>>(
                worker,
                move |vec| vec.push(pairs.step()),
                |vec, sum| sum.pairs(vec.drain(..)),
            ),
            (Shape::Bytes, Container::Vec) => self.exchange::<CapacityContainerBuilder<Vec<Vec<u8>>>>(
                worker,
                move |vec| vec.push(opaque.step().to_vec()),
                |vec, sum| sum.opaque(vec.iter().map(Vec::as_slice)),
            ),
        }
    }

    /// The dataflow; `make` adds the next record to a container, `take` takes all of one.
    fn exchange<B>(
        mut self,
        worker: &mut Worker,
        mut make: impl FnMut(&mut B::Container),
        take: impl Fn(&mut B::Container, &mut Sum) + 'static,
    ) -> Result<(), Box<dyn Error>>
    where
        B: LengthPreservingContainerBuilder + 'static,
        B::Container: Default + Clone + Accountable + SizableContainer + DrainContainer + ContainerBytes,
        B::Container: Send + 'static,
        for<'a> B: ::timely::container::PushInto<<B::Container as DrainContainer>::Item<'a>>,
    {
        let [round, message] = self.tuning.records(self.work);
        let mut input = InputHandle::<u64, CapacityContainerBuilder<B::Container>>::new_with_builder();
        let probe = ProbeHandle::new();
        let sum = Rc::new(RefCell::new((Sum::new(self.work), None)));
        let meets = sum.clone();
        worker.dataflow::<u64, _, _>(|scope| {
            scope
                .input_from(&mut input)
                .unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
                    ExchangeCore::<B, _>::new_core(|_| 1),
                    "sum",
                    |_, _| {
                        move |input, _output| {
                            input.for_each_time(|_time, containers| {
                                let (sum, meter) = &mut *meets.borrow_mut();
                                for container in containers {
                                    let records = container.record_count() as u64;
                                    take(container, sum);
                                    if let Some(meter) = meter {
                                        let meter: &mut Meter = meter;
                                        meter.count(records);
                                    }
                                }
                            });
                        }
                    },
                )
                .probe_with(&probe);
        });
        if !self.is_source {
            sum.borrow_mut().1 = Some(self.meter);
            input.close();
            while !probe.done() {
                worker.step_or_park(None);
            }
            let (sum, meter) = &mut *sum.borrow_mut();
            let meter = meter.take().ok_or("the meter is gone")?;
            return meter.finish(sum.totals());
        }
        let mut container = B::Container::default();
        for time in 1.. {
            let mut left = self.meter.left().min(round);
            self.meter.count(left);
            while left > 0 {
                let records = left.min(message);
                (0..records).for_each(|_| make(&mut container));
                input.send_batch(&mut container);
                container = B::Container::default();
                left -= records;
            }
            if self.meter.left() == 0 {
                break;
            }
            input.advance_to(time);
            while probe.less_than(&time.saturating_sub(self.tuning.rounds - 1)) {
                worker.step_or_park(None);
            }
        }
        input.close();
        while !probe.done() {
            worker.step_or_park(None);
        }
        self.meter.finish(Default::default())
    }
}
