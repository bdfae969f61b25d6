//! Where a task's items come from: a source, or a gate. (`keyed` has the third head: a gate and a keyed operator.)
//!
//! A head runs the record loop: it iterates a whole buffer into the bound tail (chain and all), checking before each
//! record that one output has room (R4). It owns the buffer it is in. Always: nothing new is taken in while anything
//! behind it is pending; an event is taken from the gate only when the buffer before it is used up.

use tidegate_arena::Arena;
use tidegate_exchange::{Buffer, Cause, GateId, GateItem, Ports};
use tidegate_record::{ReadError, Record};

use crate::chain::Out;
use crate::context::{Cx, OpenCx};
use crate::error::{Fault, TaskError};
use crate::files::Files;
use crate::limits::{INLINE_STATE_MAX, PUNCTUAL_LEAD_NS};
use crate::slot::snapshot::OperatorSnapshot;
use crate::source::{Next, Pause, Source, SourceContext, SourceReader};
use crate::stage::{CutCx, SnapshotCx, Stage, Wait};
use crate::state::Progress;
use crate::tail::{Bound, Tail};

/// What one quantum works with.
pub struct StepCx<'a> {
    /// The slot's ports.
    pub ports: &'a mut Ports,
    /// The arena that buffers lie in.
    pub arena: &'a Arena,
    /// The files thread.
    pub files: &'a mut dyn Files,
    /// The slot's clock, read once per turn.
    pub now_ns: u64,
    /// Records and pulls that are left of the quantum.
    pub records_left: u32,
    /// Payload bytes that are left of the quantum.
    pub bytes_left: u64,
    /// What the task counts.
    pub counts: &'a mut Counts,
}

/// What a task counts; only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Items taken in.
    pub records_in: u64,
    /// Payload bytes taken in.
    pub bytes_in: u64,
    /// Items that left the chain.
    pub records_out: u64,
    /// Time spent in steps, in nanoseconds.
    pub busy_ns: u64,
    /// Time without room in an output, in nanoseconds.
    pub backpressured_ns: u64,
    /// The same by cause, in the order of `Cause::ALL`.
    pub held_up_ns: [u64; Cause::ALL.len()],
    /// Time of waiting for anything else, in nanoseconds.
    pub idle_ns: u64,
    /// Time of waiting for its turn while it could have gone on, in nanoseconds: the slot was busy with other tasks.
    pub turn_ns: u64,
    /// Steps.
    pub steps: u64,
}

/// Why a quantum ended.
#[derive(Debug)]
pub enum Ran {
    /// It is used up; there may be more to do.
    Quantum,
    /// Nothing can be done before this happens.
    Wait(Wait),
    /// The gate has something that is not data.
    Event(GateItem),
    /// Nothing is left to do: the source has ended, or the cursor is through.
    End,
}

/// Whether something may be pushed.
pub(crate) enum Settled {
    /// Yes: nothing is pending and outputs have room.
    Ready,
    /// Outputs are full.
    Full,
    /// The quantum is used up.
    Quantum,
}

/// Pulls on what is pending behind the head until nothing is, or outputs are full.
#[inline]
pub(crate) fn settle<In: ?Sized, B: Bound<In>>(
    out: &mut B,
    cx: &mut Cx<'_>,
    records_left: &mut u32,
) -> Result<Settled, TaskError> {
    while out.pending() {
        if *records_left == 0 {
            return Ok(Settled::Quantum);
        }
        *records_left -= 1;
        if !out.advance(cx)? {
            return Ok(Settled::Full);
        }
    }
    Ok(if out.ready(cx) { Settled::Ready } else { Settled::Full })
}

/// The beginning of a task.
pub trait Head: Stage + Send + 'static {
    /// What comes out.
    type Item: ?Sized + 'static;

    /// Whether it has outputs left from what it took in.
    fn pending(&self) -> bool;

    /// Takes in items until the quantum ends.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn run<T: Tail<Self::Item>>(&mut self, tail: &mut T, step: &mut StepCx<'_>) -> Result<Ran, TaskError>;

    /// Pulls out what is pending; `Ran::End` once nothing is.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn settle<T: Tail<Self::Item>>(&mut self, tail: &mut T, step: &mut StepCx<'_>) -> Result<Ran, TaskError> {
        let mut cx = Cx { now_ns: step.now_ns, files: &mut *step.files };
        let mut out = tail.bind(step.ports);
        Ok(match settle(&mut out, &mut cx, &mut step.records_left)? {
            Settled::Ready => Ran::End,
            Settled::Full => Ran::Wait(out.blocked(&mut cx)),
            Settled::Quantum => Ran::Quantum,
        })
    }

    /// The input has ended: emits what is left to say; `Ran::End` once all is said.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn finish<T: Tail<Self::Item>>(&mut self, tail: &mut T, step: &mut StepCx<'_>) -> Result<Ran, TaskError> {
        self.settle(tail, step)
    }

    /// Reads back about `budget` bytes of state; true once all is read.
    ///
    /// # Errors
    /// `Fault::State` if the bytes are not a snapshot of this operator.
    fn restore(&mut self, budget: u64) -> Result<bool, TaskError> {
        let _ = budget;
        Ok(true)
    }
}

/// A source.
pub struct SourceHead<S: Source> {
    source: S,
    operator: usize,
    id: u64,
    name: String,
    reader: Option<S::Reader>,
    /// The position of the last cut and its checkpoint, until it is handed in.
    position: Option<(u64, Vec<u8>)>,
}

impl<S: Source> SourceHead<S> {
    /// For the operator at `operator` of the vertex.
    pub fn new(source: S, operator: usize) -> Self {
        SourceHead { source, operator, id: 0, name: String::new(), reader: None, position: None }
    }
}

impl<S: Source> Stage for SourceHead<S> {
    fn open(&mut self, cx: &mut OpenCx<'_>) -> Result<(), TaskError> {
        let restore = cx.take_restore(self.operator);
        let positions: Vec<_> =
            restore.into_iter().flat_map(|restore| restore.payloads).map(|p| p.meta).collect();
        let runtime = cx.operator(self.operator);
        self.id = runtime.operator_id;
        runtime.operator.clone_into(&mut self.name);
        let context =
            SourceContext { runtime, positions: &positions, pool: cx.pool, waker: cx.waker.clone() };
        self.reader = Some(self.source.open(&context).map_err(|error| error.at(&runtime.operator))?);
        Ok(())
    }

    fn cut(&mut self, cx: &mut CutCx<'_>) -> Result<(), TaskError> {
        let Some(reader) = &self.reader else { return Ok(()) };
        let mut position = Vec::new();
        reader.position(&mut position).map_err(|error| error.at(&self.name))?;
        if position.len() > INLINE_STATE_MAX {
            let message =
                format!("a position of {} bytes, at most {INLINE_STATE_MAX} are kept", position.len());
            return Err(TaskError::new(Fault::TooLarge, message).at(&self.name));
        }
        self.position = Some((cx.checkpoint, position));
        Ok(())
    }

    fn snapshot(&mut self, cx: &mut SnapshotCx<'_>) -> Result<Progress, TaskError> {
        if let Some((_, inline)) = self.position.take() {
            cx.parts.push(OperatorSnapshot { operator: self.id, inline, ..Default::default() });
        }
        Ok(Progress::Done)
    }

    fn notify(&mut self, checkpoint: u64) {
        if let Some(reader) = &mut self.reader {
            reader.notify(checkpoint);
        }
    }

    fn abort(&mut self, checkpoint: u64, _files: &mut dyn Files) {
        self.position.take_if(|(cut, _)| *cut == checkpoint);
    }

    fn close(&mut self, _files: &mut dyn Files) {
        if let Some(mut reader) = self.reader.take() {
            reader.close();
        }
    }
}

impl<S: Source> Head for SourceHead<S> {
    type Item = S::Item;

    fn pending(&self) -> bool {
        false
    }

    fn run<T: Tail<S::Item>>(&mut self, tail: &mut T, step: &mut StepCx<'_>) -> Result<Ran, TaskError> {
        let reader = self.reader.as_mut().expect("invariant: a task runs between open and close");
        let mut cx = Cx { now_ns: step.now_ns, files: &mut *step.files };
        let mut out = tail.bind(step.ports);
        let mut left = step.records_left;
        let mut taken = 0;
        let ran = loop {
            match settle(&mut out, &mut cx, &mut left)? {
                Settled::Ready if left > 0 => left -= 1,
                Settled::Full => break Ran::Wait(out.blocked(&mut cx)),
                Settled::Ready | Settled::Quantum => break Ran::Quantum,
            }
            match reader.next(step.now_ns).map_err(|error| error.at(&self.name))? {
                Next::Item(item) => {
                    taken += 1;
                    out.push(item, &mut cx)?;
                }
                Next::Wait(Pause::External) => break Ran::Wait(Wait { external: true, ..Wait::NOTHING }),
                Next::Wait(Pause::Until(at)) => {
                    break Ran::Wait(Wait { until_ns: Some(at), ..Wait::NOTHING });
                }
                Next::Wait(Pause::Punctual(at)) => {
                    let awake_ns = Some(at.saturating_sub(PUNCTUAL_LEAD_NS));
                    break Ran::Wait(Wait { until_ns: Some(at), awake_ns, ..Wait::NOTHING });
                }
                Next::End => break Ran::End,
            }
        };
        step.records_left = left;
        step.counts.records_in += taken;
        Ok(ran)
    }
}

/// A buffer and how far it was read.
pub(crate) struct Reading {
    pub(crate) buffer: Buffer,
    pub(crate) position: u32,
}

/// Why the record loop over one buffer ended.
pub(crate) enum Consumed {
    All,
    Quantum,
    Wait(Wait),
}

/// Gives the head a buffer to read, or says why there is none.
pub(crate) fn next_buffer(gate: GateId, reading: &mut Option<Reading>, step: &mut StepCx<'_>) -> Option<Ran> {
    if reading.is_some() {
        return None;
    }
    match step.ports.input(gate).poll() {
        Some(GateItem::Data(buffer)) => {
            let len = buffer.bytes(step.arena).len() as u64;
            step.counts.bytes_in += len;
            step.bytes_left = step.bytes_left.saturating_sub(len);
            *reading = Some(Reading { buffer, position: 0 });
            None
        }
        Some(event) => Some(Ran::Event(event)),
        None => Some(Ran::Wait(Wait::INPUT)),
    }
}

/// Handles the end of a record loop; some answer ends the quantum.
pub(crate) fn after_buffer(
    gate: GateId,
    reading: &mut Option<Reading>,
    consumed: Consumed,
    step: &mut StepCx<'_>,
) -> Option<Ran> {
    match consumed {
        Consumed::Wait(wait) => Some(Ran::Wait(wait)),
        Consumed::Quantum => Some(Ran::Quantum),
        Consumed::All => {
            if let Some(done) = reading.take() {
                step.ports.input(gate).release(done.buffer);
            }
            (step.bytes_left == 0 || step.records_left == 0).then_some(Ran::Quantum)
        }
    }
}

#[cold]
pub(crate) fn read_error(error: ReadError) -> TaskError {
    TaskError::new(Fault::Exchange, error.to_string())
}

/// A gate whose records go to the chain as they lie in the segment.
pub struct GateHead<T> {
    gate: GateId,
    reading: Option<Reading>,
    record: std::marker::PhantomData<fn(&T)>,
}

impl<T: Record> GateHead<T> {
    /// Reads `gate`.
    pub fn new(gate: GateId) -> Self {
        GateHead { gate, reading: None, record: std::marker::PhantomData }
    }

    fn consume<U: Tail<T::Archived>>(
        &mut self,
        tail: &mut U,
        step: &mut StepCx<'_>,
    ) -> Result<Consumed, TaskError> {
        let Some(reading) = &mut self.reading else { return Ok(Consumed::All) };
        let bytes = reading.buffer.bytes(step.arena);
        let mut cx = Cx { now_ns: step.now_ns, files: &mut *step.files };
        let mut out = tail.bind(step.ports);
        let (mut left, mut position, mut taken) = (step.records_left, reading.position, 0);
        let consumed = loop {
            match settle(&mut out, &mut cx, &mut left)? {
                Settled::Ready if left > 0 => left -= 1,
                Settled::Full => break Consumed::Wait(out.blocked(&mut cx)),
                Settled::Ready | Settled::Quantum => break Consumed::Quantum,
            }
            let Some(item) = T::read(bytes, &mut position).map_err(read_error)? else { break Consumed::All };
            taken += 1;
            out.push(item, &mut cx)?;
        };
        reading.position = position;
        step.records_left = left;
        step.counts.records_in += taken;
        Ok(consumed)
    }
}

impl<T: Record> Stage for GateHead<T> {}

impl<T: Record> Head for GateHead<T> {
    type Item = T::Archived;

    fn pending(&self) -> bool {
        false
    }

    fn run<U: Tail<T::Archived>>(&mut self, tail: &mut U, step: &mut StepCx<'_>) -> Result<Ran, TaskError> {
        loop {
            if let Some(ran) = next_buffer(self.gate, &mut self.reading, step) {
                return Ok(ran);
            }
            let consumed = self.consume(tail, step)?;
            if let Some(ran) = after_buffer(self.gate, &mut self.reading, consumed, step) {
                return Ok(ran);
            }
        }
    }
}
