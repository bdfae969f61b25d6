//! Keyed operators: what happens to an item and the state of its key.
//!
//! An operator owns its function and the outputs that are left; the state belongs to the keyed head, which hands out one
//! `Place` per item. Always: at most one output per call; nothing is applied while outputs are left.

use tidegate_record::{Key, KeyRef};

use crate::chain::Out;
use crate::context::{Cx, RuntimeContext};
use crate::error::TaskError;
use crate::function::{AggregateFunction, Collector, ProcessFunction, ReduceFunction};
use crate::head::read_error;
use crate::limits::FAN_OUT_MAX;
use crate::state::{Cell, Kept, KeyedState, Spot};

/// What happens to an item and the state of its key.
pub trait KeyedOperator<K: Key, In: ?Sized>: Clone + Send + 'static {
    /// What a table keeps per key.
    type Cell: Cell;
    /// What comes out.
    type Out: ?Sized + 'static;
    /// Whether entries leave the state at the end of input, through `drain`.
    const DRAINS: bool;
    /// Whether `apply` never pushes and never leaves outputs.
    const QUIET: bool = false;

    /// Opens the function.
    ///
    /// # Errors
    /// The function's own.
    fn open(&mut self, context: &RuntimeContext) -> Result<(), TaskError>;

    /// Takes an item in; pushes at most one output. Nothing may be pending.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn apply<R: KeyRef<K>, S: Out<Self::Out>>(
        &mut self,
        entry: Place<'_, K, R, Self::Cell>,
        item: &In,
        cx: &mut Cx<'_>,
        out: &mut S,
    ) -> Result<(), TaskError>;

    /// Whether outputs are left.
    #[inline]
    fn pending(&self) -> bool {
        false
    }

    /// Pushes one output that is left.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn advance<S: Out<Self::Out>>(&mut self, cx: &mut Cx<'_>, out: &mut S) -> Result<(), TaskError> {
        let _ = (cx, out);
        Ok(())
    }

    /// The input has ended: what `key` has to say. At most one output.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn drain<S: Out<Self::Out>>(
        &mut self,
        key: K,
        cell: Self::Cell,
        cx: &mut Cx<'_>,
        out: &mut S,
    ) -> Result<(), TaskError> {
        let _ = (key, cell, cx, out);
        Ok(())
    }

    /// Closes the function.
    fn close(&mut self);
}

/// Where a key's state is, or would be: in a group that is ready to be changed.
pub struct Place<'a, K, R, C> {
    pub(crate) state: &'a mut KeyedState<K, C>,
    pub(crate) spot: Spot,
    pub(crate) key: &'a R,
}

impl<'a, K: Key, R: KeyRef<K>, C: Cell> Place<'a, K, R, C> {
    #[inline(always)]
    fn found(&mut self) -> Option<&mut (K, C)> {
        let key = self.key;
        self.state.find(self.spot, |known| key.is(known))
    }

    /// The key itself, for the first item that has it.
    fn key(&self) -> Result<K, TaskError> {
        self.key.to_key().map_err(read_error)
    }

    #[inline]
    fn insert(self, key: K, cell: C) -> Result<&'a mut (K, C), TaskError> {
        self.state.insert(self.spot, key, cell)
    }

    #[cold]
    fn remove(&mut self) {
        self.state.remove(self.spot, |known| self.key.is(known));
    }
}

/// Emits the running value of a key for every item.
#[derive(Clone, Debug)]
pub struct Reduce<F> {
    function: F,
}

impl<F> Reduce<F> {
    /// Folds with `function`.
    pub fn new(function: F) -> Self {
        Reduce { function }
    }
}

impl<K: Key, In: ?Sized, F: ReduceFunction<In>> KeyedOperator<K, In> for Reduce<F> {
    type Cell = Kept<F::State>;
    type Out = F::State;
    const DRAINS: bool = false;

    fn open(&mut self, context: &RuntimeContext) -> Result<(), TaskError> {
        self.function.open(context)
    }

    #[inline(always)]
    fn apply<R: KeyRef<K>, S: Out<F::State>>(
        &mut self,
        mut place: Place<'_, K, R, Kept<F::State>>,
        item: &In,
        cx: &mut Cx<'_>,
        out: &mut S,
    ) -> Result<(), TaskError> {
        if let Some((_, cell)) = place.found() {
            self.function.fold(&mut cell.0, item);
            return out.push(&cell.0, cx);
        }
        let key = place.key()?;
        let (_, cell) = place.insert(key, Kept(self.function.first(item)))?;
        out.push(&cell.0, cx)
    }

    fn close(&mut self) {
        self.function.close();
    }
}

/// Emits one result per key at the end of the input.
#[derive(Clone, Debug)]
pub struct Aggregate<F> {
    function: F,
}

impl<F> Aggregate<F> {
    /// Folds with `function`.
    pub fn new(function: F) -> Self {
        Aggregate { function }
    }

    /// The first item of a key. Out of the record loop: it comes once for each key.
    #[inline(never)]
    fn first<K: Key, In: ?Sized>(
        &mut self,
        state: &mut KeyedState<K, Kept<F::State>>,
        (hash, group): (u64, usize),
        key: &impl KeyRef<K>,
        item: &In,
    ) -> Result<(), TaskError>
    where
        F: AggregateFunction<K, In>,
    {
        // In parts of a register each, so that the record loop has no need to put its place together in memory.
        let place = Place { state, spot: Spot::unseen(hash, group), key };
        let key = place.key()?;
        let mut state = self.function.create(&key);
        self.function.add(&mut state, item);
        place.insert(key, Kept(state)).map(|_| ())
    }
}

impl<K: Key, In: ?Sized, F: AggregateFunction<K, In>> KeyedOperator<K, In> for Aggregate<F> {
    type Cell = Kept<F::State>;
    type Out = F::Out;
    const DRAINS: bool = true;
    const QUIET: bool = true;

    fn open(&mut self, context: &RuntimeContext) -> Result<(), TaskError> {
        self.function.open(context)
    }

    #[inline(always)]
    fn apply<R: KeyRef<K>, S: Out<F::Out>>(
        &mut self,
        mut place: Place<'_, K, R, Kept<F::State>>,
        item: &In,
        _cx: &mut Cx<'_>,
        _out: &mut S,
    ) -> Result<(), TaskError> {
        if let Some((_, cell)) = place.found() {
            self.function.add(&mut cell.0, item);
            return Ok(());
        }
        let Place { state, spot, key } = place;
        self.first(state, (spot.hash(), spot.group()), key, item)
    }

    #[inline]
    fn drain<S: Out<F::Out>>(
        &mut self,
        key: K,
        cell: Kept<F::State>,
        cx: &mut Cx<'_>,
        out: &mut S,
    ) -> Result<(), TaskError> {
        let result = self.function.result(&key, cell.0)?;
        out.push(&result, cx)
    }

    fn close(&mut self) {
        self.function.close();
    }
}

/// Runs a process function; its outputs leave one by one.
pub struct Process<F, O> {
    function: F,
    outputs: Collector<O>,
}

impl<F, O> Process<F, O> {
    /// Runs `function`, which may emit up to `fan_out` outputs per item.
    pub fn new(function: F, fan_out: u32) -> Self {
        Process { function, outputs: Collector::new(fan_out.min(FAN_OUT_MAX)) }
    }
}

impl<F: Clone, O> Clone for Process<F, O> {
    fn clone(&self) -> Self {
        Process { function: self.function.clone(), outputs: Collector::new(self.outputs.bound()) }
    }
}

impl<K, In, F> KeyedOperator<K, In> for Process<F, F::Out>
where
    K: Key,
    In: ?Sized,
    F: ProcessFunction<K, In>,
    F::Out: Send,
{
    type Cell = Option<F::State>;
    type Out = F::Out;
    const DRAINS: bool = false;

    fn open(&mut self, context: &RuntimeContext) -> Result<(), TaskError> {
        self.function.open(context)
    }

    #[inline(always)]
    fn apply<R: KeyRef<K>, S: Out<F::Out>>(
        &mut self,
        mut place: Place<'_, K, R, Option<F::State>>,
        item: &In,
        cx: &mut Cx<'_>,
        out: &mut S,
    ) -> Result<(), TaskError> {
        let forget = match place.found() {
            Some((key, state)) => {
                self.function.process(key, item, state, &mut self.outputs)?;
                state.is_none()
            }
            None => self.first(&mut place, item)?,
        };
        if forget {
            place.remove();
        }
        self.outputs.check()?;
        KeyedOperator::<K, In>::advance(self, cx, out)
    }

    #[inline]
    fn pending(&self) -> bool {
        !self.outputs.is_empty()
    }

    #[inline]
    fn advance<S: Out<F::Out>>(&mut self, cx: &mut Cx<'_>, out: &mut S) -> Result<(), TaskError> {
        match self.outputs.take() {
            Some(output) => out.push(&output, cx),
            None => Ok(()),
        }
    }

    fn close(&mut self) {
        self.function.close();
    }
}

impl<F, O> Process<F, O> {
    /// The first item of a key: gives whether the key is to be forgotten again.
    fn first<K: Key, R: KeyRef<K>, In: ?Sized>(
        &mut self,
        place: &mut Place<'_, K, R, Option<F::State>>,
        item: &In,
    ) -> Result<bool, TaskError>
    where
        F: ProcessFunction<K, In, Out = O>,
    {
        let key = place.key()?;
        let mut state = None;
        self.function.process(&key, item, &mut state, &mut self.outputs)?;
        if state.is_some() {
            place.state.insert(place.spot, key, state)?;
        }
        Ok(false)
    }
}
