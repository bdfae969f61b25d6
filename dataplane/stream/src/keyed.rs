//! The keyed head: a gate of a keyed edge and the operator that keeps state per key.
//!
//! Keyed state is only ever at the head of a task, right behind its exchange: so the one step that may have to wait for a
//! snapshot (`KeyedState::admit`) comes before anything of the record has happened, and the record is simply read again.
//! The hash that routes the record also picks its group and probes the table. Always: a record is applied only to a group
//! the subtask owns.

use std::marker::PhantomData;

use tidegate_exchange::GateId;
use tidegate_memory::{Loop, wide};
use tidegate_record::limits::KEYED_BATCH;
use tidegate_record::{Field, Key, KeyedBatch, KeyedCodec, Record};

use crate::context::{Cx, OpenCx};
use crate::error::{Fault, TaskError};
use crate::files::{FileEvent, Files};
use crate::function::KeyOf;
use crate::head::{
    Consumed, Head, Ran, Reading, Settled, StepCx, after_buffer, next_buffer, read_error, settle,
};
use crate::operator::{KeyedOperator, Place};
use crate::router::{GroupRange, Groups};
use crate::slot::snapshot::OperatorSnapshot;
use crate::stage::{CutCx, SnapshotCx, Stage, Wait};
use crate::state::{Cell, KeyedState, Progress, Restore, Spots};
use crate::tail::{Bound, Tail};

/// A gate of a keyed edge, and its operator.
pub struct KeyedHead<K: Key, T: Record, F, P: KeyedOperator<K, T::Archived>> {
    gate: GateId,
    reading: Option<Reading>,
    key_of: F,
    range: GroupRange,
    state: KeyedState<K, P::Cell>,
    process: P,
    operator: usize,
    id: u64,
    name: String,
    restore: Option<Restore>,
    /// The checkpoint whose part is still to be handed in.
    cutting: Option<u64>,
    /// Where `finish` is: group and bucket.
    drained: (usize, usize),
    record: PhantomData<fn(&T)>,
}

/// What a keyed head is made of.
pub struct KeyedSite {
    /// The gate it reads.
    pub gate: GateId,
    /// Number of key groups of the job.
    pub max_parallelism: u32,
    /// Those the subtask owns.
    pub range: GroupRange,
    /// The operator's place in the vertex.
    pub operator: usize,
}

impl<K, T, F, P> KeyedHead<K, T, F, P>
where
    K: Key,
    T: Record,
    F: KeyOf<T, K>,
    P: KeyedOperator<K, T::Archived>,
{
    /// Without state yet.
    pub fn new(site: KeyedSite, key_of: F, process: P) -> Self {
        let groups = Groups::new(site.max_parallelism);
        KeyedHead {
            gate: site.gate,
            reading: None,
            key_of,
            range: site.range,
            state: KeyedState::new(site.range, groups),
            process,
            operator: site.operator,
            id: 0,
            name: String::new(),
            restore: None,
            cutting: None,
            drained: (0, 0),
            record: PhantomData,
        }
    }

    #[inline(always)]
    fn consume<U: Tail<P::Out>>(
        &mut self,
        tail: &mut U,
        step: &mut StepCx<'_>,
    ) -> Result<Consumed, TaskError> {
        let Some(reading) = &mut self.reading else { return Ok(Consumed::All) };
        let bytes = reading.buffer.bytes(step.arena);
        let mut cx = Cx { now_ns: step.now_ns, files: &mut *step.files };
        let mut out = tail.bind(step.ports);
        let (mut left, mut position, mut taken) = (step.records_left, reading.position, 0);
        let mark = self.state.memory().map(|memory| memory.mark());
        // Records are read in batches, and what their keys lead to is asked for, before the first one is applied: state
        // that is larger than the caches is waited for once in a batch rather than at each record.
        let mut batch = <T::Keyed<K> as KeyedCodec<K, T>>::Batch::default();
        let mut spots = Spots::default();
        let (mut next, mut ahead) = (0, 1);
        let consumed = loop {
            match settle(&mut out, &mut cx, &mut left)? {
                Settled::Ready if left > 0 => {}
                Settled::Full => break Consumed::Wait(out.blocked(&mut cx)),
                Settled::Ready | Settled::Quantum => break Consumed::Quantum,
            }
            if self.process.pending() {
                left -= 1;
                self.process.advance(&mut cx, &mut out).map_err(|error| error.at(&self.name))?;
                continue;
            }
            if next == batch.hashes().len() {
                // What is not come to is read again. So no more than the quantum has, and little at first: where an output
                // is full after each record, that is all.
                let most = ahead.min(left as usize);
                ahead = (2 * ahead).min(KEYED_BATCH);
                batch.read(bytes, &mut position, most, &|item| self.key_of.of(item)).map_err(read_error)?;
                self.state.seek(batch.hashes(), &mut spots).map_err(|group| astray(group, self.range))?;
                next = 0;
                if batch.hashes().is_empty() {
                    break Consumed::All;
                }
            }
            // There is room for one output. Who has none before the end of the input needs no more of it.
            let until = if P::QUIET { left as usize } else { 1 };
            let (mut applied, mut admitted) = (0, true);
            let snapshot = self.state.snapshot_goes_on();
            for ((key, item), spot) in batch.iter(next).zip(spots.iter(batch.hashes(), next)).take(until) {
                if snapshot {
                    admitted = self.state.admit(spot.group(), cx.files)?;
                    if !admitted {
                        break;
                    }
                }
                applied += 1;
                let place = Place { state: &mut self.state, spot, key };
                self.process.apply(place, item, &mut cx, &mut out).map_err(|error| error.at(&self.name))?;
            }
            next += applied;
            taken += applied as u64;
            left -= applied as u32;
            if !admitted {
                break Consumed::Wait(Wait::MEMORY);
            }
        };
        // What was read ahead is read again.
        reading.position = batch.start(next).unwrap_or(position);
        // Before the account is looked at: keys may own memory, and those that were only read are no state.
        drop(batch);
        step.records_left = left;
        step.counts.records_in += taken;
        if let (Some(memory), Some(mark)) = (self.state.memory(), mark) {
            memory.settle(mark).map_err(|error| error.at(&self.name))?;
        }
        Ok(consumed)
    }
}

/// The record loop over a buffer.
struct Consume<'a, 'b, H, U> {
    head: &'a mut H,
    tail: &'a mut U,
    step: &'a mut StepCx<'b>,
}

impl<K, T, F, P, U> Loop for Consume<'_, '_, KeyedHead<K, T, F, P>, U>
where
    K: Key,
    T: Record,
    F: KeyOf<T, K>,
    P: KeyedOperator<K, T::Archived>,
    U: Tail<P::Out>,
{
    type Out = Result<Consumed, TaskError>;

    #[inline(always)]
    fn run(self) -> Self::Out {
        self.head.consume(self.tail, self.step)
    }
}

#[cold]
fn astray(group: u32, range: GroupRange) -> TaskError {
    let message = format!(
        "a record of key group {group} came to the subtask of groups {} to {}: its key function does not always \
         give the same key, or the producer runs another version of it",
        range.first, range.last
    );
    TaskError::new(Fault::User, message)
}

impl<K, T, F, P> Stage for KeyedHead<K, T, F, P>
where
    K: Key,
    T: Record,
    F: KeyOf<T, K>,
    P: KeyedOperator<K, T::Archived>,
{
    fn open(&mut self, cx: &mut OpenCx<'_>) -> Result<(), TaskError> {
        let restore = cx.take_restore(self.operator);
        let context = cx.operator(self.operator);
        self.id = context.operator_id;
        context.operator.clone_into(&mut self.name);
        self.process.open(context).map_err(|error| error.at(&self.name))?;
        if let Some(memory) = cx.state.take() {
            self.state.draw_on(memory);
        }
        let Some(restore) = restore else { return Ok(()) };
        let schema = KeyedState::<K, P::Cell>::schema();
        // A snapshot of empty state has no schema to compare.
        if restore.schema != 0 && restore.schema != schema {
            let message = format!(
                "the snapshot holds key and state of type {:#018x}, the job has {schema:#018x} ({} to {}): give the \
                 operator another uid to start without this state, or restore with the types it was written with",
                restore.schema,
                K::SHAPE.name(),
                <<P::Cell as Cell>::Value as Field>::SHAPE.name(),
            );
            return Err(TaskError::new(Fault::Setup, message).at(&self.name));
        }
        self.restore = Some(Restore::new(restore.payloads));
        Ok(())
    }

    fn cut(&mut self, cx: &mut CutCx<'_>) -> Result<(), TaskError> {
        self.cutting = Some(cx.checkpoint);
        self.state.cut((cx.target)(self.id), cx.files);
        Ok(())
    }

    fn snapshot(&mut self, cx: &mut SnapshotCx<'_>) -> Result<Progress, TaskError> {
        if self.cutting.is_none() {
            return Ok(Progress::Done);
        }
        let progress = self.state.step(cx.budget, cx.files).map_err(|error| error.at(&self.name))?;
        if progress == Progress::Done {
            self.cutting = None;
            cx.parts.push(OperatorSnapshot { operator: self.id, ..self.state.take() });
        }
        Ok(progress)
    }

    fn file_event(&mut self, event: &FileEvent) -> Result<(), TaskError> {
        self.state.file_event(event);
        Ok(())
    }

    fn abort(&mut self, checkpoint: u64, files: &mut dyn Files) {
        if self.cutting == Some(checkpoint) {
            self.cutting = None;
            self.state.abort(files);
        }
    }

    fn close(&mut self, files: &mut dyn Files) {
        self.state.abort(files);
        self.process.close();
    }
}

impl<K, T, F, P> Head for KeyedHead<K, T, F, P>
where
    K: Key,
    T: Record,
    F: KeyOf<T, K>,
    P: KeyedOperator<K, T::Archived>,
{
    type Item = P::Out;

    fn pending(&self) -> bool {
        self.process.pending()
    }

    fn run<U: Tail<P::Out>>(&mut self, tail: &mut U, step: &mut StepCx<'_>) -> Result<Ran, TaskError> {
        loop {
            if let Some(ran) = next_buffer(self.gate, &mut self.reading, step) {
                return Ok(ran);
            }
            let consumed = wide(Consume { head: self, tail, step })?;
            if let Some(ran) = after_buffer(self.gate, &mut self.reading, consumed, step) {
                return Ok(ran);
            }
        }
    }

    fn finish<U: Tail<P::Out>>(&mut self, tail: &mut U, step: &mut StepCx<'_>) -> Result<Ran, TaskError> {
        if !P::DRAINS {
            return self.settle(tail, step);
        }
        let mut cx = Cx { now_ns: step.now_ns, files: &mut *step.files };
        let mut out = tail.bind(step.ports);
        loop {
            match settle(&mut out, &mut cx, &mut step.records_left)? {
                Settled::Ready if step.records_left > 0 => step.records_left -= 1,
                Settled::Full => return Ok(Ran::Wait(out.blocked(&mut cx))),
                Settled::Ready | Settled::Quantum => return Ok(Ran::Quantum),
            }
            let (group, bucket) = &mut self.drained;
            if *group == self.state.groups() {
                return Ok(Ran::End);
            }
            if !self.state.admit(*group, cx.files)? {
                return Ok(Ran::Wait(Wait::MEMORY));
            }
            let table = self.state.table(*group);
            if *bucket >= table.num_buckets() {
                (*group, *bucket) = (*group + 1, 0);
                continue;
            }
            let taken = table.get_bucket_entry(*bucket).ok().map(|entry| entry.remove().0);
            *bucket += 1;
            if let Some((key, cell)) = taken {
                self.process.drain(key, cell, &mut cx, &mut out).map_err(|error| error.at(&self.name))?;
            }
        }
    }

    fn restore(&mut self, budget: u64) -> Result<bool, TaskError> {
        let Some(restore) = &mut self.restore else { return Ok(true) };
        let done = self.state.restore(restore, budget).map_err(|error| error.at(&self.name))?;
        if done {
            self.restore = None;
        }
        Ok(done)
    }
}
