//! Keyed operators: what happens to an item and the state of its key.
//!
//! An operator owns its function and the outputs that are left; the state belongs to the keyed head, which hands out one
//! `Place` per item. Always: at most one output per call; nothing is applied while outputs are left.

use hashbrown::HashTable;
use tidegate_record::{Key, KeyRef};

use crate::chain::Out;
use crate::context::{Cx, RuntimeContext};
use crate::error::TaskError;
use crate::function::{AggregateFunction, Collector, ProcessFunction, ReduceFunction};
use crate::head::read_error;
use crate::limits::FAN_OUT_MAX;
use crate::state::{Cell, Kept};

/// What happens to an item and the state of its key.
pub trait KeyedOperator<K: Key, In: ?Sized>: Clone + Send + 'static {
    /// What a table keeps per key.
    type Cell: Cell;
    /// What comes out.
    type Out: ?Sized + 'static;
    /// Whether entries leave the state at the end of input, through `drain`.
    const DRAINS: bool;

    /// Opens the function.
    ///
    /// # Errors
    /// The function's own.
    fn open(&mut self, context: &RuntimeContext) -> Result<(), TaskError>;

    /// Takes an item in; pushes at most one output. Nothing may be pending.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn apply<S: Out<Self::Out>>(
        &mut self,
        entry: Place<'_, K, Self::Cell>,
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

/// Where a key's state is, or would be.
pub struct Place<'a, K: Key, C> {
    pub(crate) table: &'a mut HashTable<(K, C)>,
    pub(crate) hash: u64,
    pub(crate) key: KeyRef<'a, K>,
}

impl<'a, K: Key, C> Place<'a, K, C> {
    #[inline]
    fn found(&mut self) -> Option<&mut (K, C)> {
        let key = &self.key;
        self.table.find_mut(self.hash, |(known, _)| key.is(known))
    }

    #[inline(never)]
    fn insert(self, cell: C) -> Result<&'a mut (K, C), TaskError> {
        let key = self.key.into_key().map_err(read_error)?;
        Ok(self.table.insert_unique(self.hash, (key, cell), |(key, _)| key.hash()).into_mut())
    }

    #[cold]
    fn remove(&mut self) {
        let key = &self.key;
        if let Ok(entry) = self.table.find_entry(self.hash, |(known, _)| key.is(known)) {
            entry.remove();
        }
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

    #[inline]
    fn apply<S: Out<F::State>>(
        &mut self,
        mut place: Place<'_, K, Kept<F::State>>,
        item: &In,
        cx: &mut Cx<'_>,
        out: &mut S,
    ) -> Result<(), TaskError> {
        if let Some((_, cell)) = place.found() {
            self.function.fold(&mut cell.0, item);
            return out.push(&cell.0, cx);
        }
        let (_, cell) = place.insert(Kept(self.function.first(item)))?;
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
}

impl<K: Key, In: ?Sized, F: AggregateFunction<K, In>> KeyedOperator<K, In> for Aggregate<F> {
    type Cell = Kept<F::State>;
    type Out = F::Out;
    const DRAINS: bool = true;

    fn open(&mut self, context: &RuntimeContext) -> Result<(), TaskError> {
        self.function.open(context)
    }

    #[inline]
    fn apply<S: Out<F::Out>>(
        &mut self,
        mut place: Place<'_, K, Kept<F::State>>,
        item: &In,
        _cx: &mut Cx<'_>,
        _out: &mut S,
    ) -> Result<(), TaskError> {
        if let Some((_, cell)) = place.found() {
            self.function.add(&mut cell.0, item);
            return Ok(());
        }
        let key = match &place.key {
            KeyRef::Computed(key) => key.clone(),
            KeyRef::Carried(nested) => KeyRef::<K>::Carried(nested).into_key().map_err(read_error)?,
        };
        let mut state = self.function.create(&key);
        self.function.add(&mut state, item);
        place.insert(Kept(state)).map(|_| ())
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

    #[inline]
    fn apply<S: Out<F::Out>>(
        &mut self,
        mut place: Place<'_, K, Option<F::State>>,
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
    fn first<K: Key, In: ?Sized>(
        &mut self,
        place: &mut Place<'_, K, Option<F::State>>,
        item: &In,
    ) -> Result<bool, TaskError>
    where
        F: ProcessFunction<K, In, Out = O>,
    {
        let key = match &place.key {
            KeyRef::Computed(key) => key.clone(),
            KeyRef::Carried(nested) => KeyRef::<K>::Carried(nested).into_key().map_err(read_error)?,
        };
        let mut state = None;
        self.function.process(&key, item, &mut state, &mut self.outputs)?;
        if state.is_some() {
            place.table.insert_unique(place.hash, (key, state), |(key, _)| key.hash());
        }
        Ok(false)
    }
}
