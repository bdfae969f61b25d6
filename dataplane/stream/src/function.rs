//! The functions a job is made of. Closures will do for most; a type of its own gives a function `open` and `close`.
//!
//! Every subtask gets its own clone, made before `open`; so a function owns its state and needs no lock. State that must
//! survive a failure belongs into keyed state, never into the function.

use std::collections::VecDeque;
use std::marker::PhantomData;

use tidegate_record::{Field, Key};

use crate::context::RuntimeContext;
use crate::error::TaskError;
use crate::limits::FAN_OUT_DEFAULT;

macro_rules! lifecycle {
    () => {
        /// Called once per subtask before the first item.
        ///
        /// # Errors
        /// Any error fails the task.
        fn open(&mut self, context: &RuntimeContext) -> Result<(), TaskError> {
            let _ = context;
            Ok(())
        }

        /// Called once when the task ends: finished, cancelled or failed, even by a panic.
        fn close(&mut self) {}
    };
}

/// One output per item.
pub trait MapFunction<In: ?Sized>: Clone + Send + 'static {
    /// What comes out.
    type Out: 'static;
    lifecycle!();
    /// The output for `item`.
    ///
    /// # Errors
    /// Any error fails the task.
    fn map(&mut self, item: &In) -> Result<Self::Out, TaskError>;
}

impl<In: ?Sized, U: 'static, F: FnMut(&In) -> U + Clone + Send + 'static> MapFunction<In> for F {
    type Out = U;

    #[inline]
    fn map(&mut self, item: &In) -> Result<U, TaskError> {
        Ok(self(item))
    }
}

/// Lets an item pass or not.
pub trait FilterFunction<In: ?Sized>: Clone + Send + 'static {
    lifecycle!();
    /// Whether `item` passes.
    ///
    /// # Errors
    /// Any error fails the task.
    fn keep(&mut self, item: &In) -> Result<bool, TaskError>;
}

impl<In: ?Sized, F: FnMut(&In) -> bool + Clone + Send + 'static> FilterFunction<In> for F {
    #[inline]
    fn keep(&mut self, item: &In) -> Result<bool, TaskError> {
        Ok(self(item))
    }
}

/// Any number of outputs per item, pulled one by one: the iterator waits while outputs are full, so it may be long,
/// even without end. It owns what it needs, because the item is gone by then.
pub trait FlatMapFunction<In: ?Sized>: Clone + Send + 'static {
    /// What comes out.
    type Out: 'static;
    /// The outputs of one item.
    type Outputs: Iterator<Item = Self::Out> + Send + 'static;
    lifecycle!();
    /// The outputs of `item`.
    ///
    /// # Errors
    /// Any error fails the task.
    fn expand(&mut self, item: &In) -> Result<Self::Outputs, TaskError>;
}

impl<In: ?Sized, I, F> FlatMapFunction<In> for F
where
    I: IntoIterator,
    I::IntoIter: Send + 'static,
    I::Item: 'static,
    F: FnMut(&In) -> I + Clone + Send + 'static,
{
    type Out = I::Item;
    type Outputs = I::IntoIter;

    #[inline]
    fn expand(&mut self, item: &In) -> Result<I::IntoIter, TaskError> {
        Ok(self(item).into_iter())
    }
}

/// Finds the key of an item: a closure that gives the key, or `ByRef` of one that points at it.
pub trait KeyOf<T, K: Key>: Clone + Send + 'static {
    /// The key, to be kept.
    fn of(&self, item: &T) -> K;

    /// Shows the key to `look`.
    fn with<R>(&self, item: &T, look: impl FnOnce(&K) -> R) -> R;
}

impl<T, K: Key, F: Fn(&T) -> K + Clone + Send + 'static> KeyOf<T, K> for F {
    #[inline]
    fn of(&self, item: &T) -> K {
        self(item)
    }

    #[inline]
    fn with<R>(&self, item: &T, look: impl FnOnce(&K) -> R) -> R {
        look(&self(item))
    }
}

/// A closure that points at the key inside of the item: nothing is cloned to route it.
#[derive(Clone, Debug)]
pub struct ByRef<F>(pub F);

impl<T, K: Key, F: Fn(&T) -> &K + Clone + Send + 'static> KeyOf<T, K> for ByRef<F> {
    #[inline]
    fn of(&self, item: &T) -> K {
        (self.0)(item).clone()
    }

    #[inline]
    fn with<R>(&self, item: &T, look: impl FnOnce(&K) -> R) -> R {
        look((self.0)(item))
    }
}

/// Turns items with one key and the state kept for that key into outputs.
pub trait ProcessFunction<K: Key, In: ?Sized>: Clone + Send + 'static {
    /// What is kept per key.
    type State: Field;
    /// What comes out.
    type Out: 'static;

    /// Outputs one item may cause at most, up to `FAN_OUT_MAX`; emitting more fails the task.
    fn fan_out(&self) -> u32 {
        FAN_OUT_DEFAULT
    }

    lifecycle!();
    /// Takes in one item. `state` is `None` until it is set, and leaving `None` behind forgets the key.
    ///
    /// # Errors
    /// Any error fails the task.
    fn process(
        &mut self,
        key: &K,
        item: &In,
        state: &mut Option<Self::State>,
        out: &mut Collector<Self::Out>,
    ) -> Result<(), TaskError>;
}

/// What a closure given to `process` may return: nothing, or a result.
pub trait Outcome {
    /// As a result.
    ///
    /// # Errors
    /// The closure's own.
    fn into_result(self) -> Result<(), TaskError>;
}

impl Outcome for () {
    #[inline]
    fn into_result(self) -> Result<(), TaskError> {
        Ok(())
    }
}

impl<E: Into<TaskError>> Outcome for Result<(), E> {
    #[inline]
    fn into_result(self) -> Result<(), TaskError> {
        self.map_err(Into::into)
    }
}

/// A closure as a `ProcessFunction`.
pub struct ProcessFn<F, S, O> {
    function: F,
    types: PhantomData<fn() -> (S, O)>,
}

impl<F, S, O> ProcessFn<F, S, O> {
    /// Wraps `function`, which takes key, item, state and collector.
    pub fn new(function: F) -> Self {
        ProcessFn { function, types: PhantomData }
    }
}

impl<F: Clone, S, O> Clone for ProcessFn<F, S, O> {
    fn clone(&self) -> Self {
        ProcessFn::new(self.function.clone())
    }
}

impl<K, In, S, O, R, F> ProcessFunction<K, In> for ProcessFn<F, S, O>
where
    K: Key,
    In: ?Sized,
    S: Field,
    O: 'static,
    R: Outcome,
    F: FnMut(&K, &In, &mut Option<S>, &mut Collector<O>) -> R + Clone + Send + 'static,
{
    type State = S;
    type Out = O;

    #[inline]
    fn process(
        &mut self,
        key: &K,
        item: &In,
        state: &mut Option<S>,
        out: &mut Collector<O>,
    ) -> Result<(), TaskError> {
        (self.function)(key, item, state, out).into_result()
    }
}

/// Folds the items of a key into one value and emits that value, in place, for every item.
pub trait ReduceFunction<In: ?Sized>: Clone + Send + 'static {
    /// What is kept per key, and what comes out.
    type State: Field;
    lifecycle!();
    /// The value after the first item of a key.
    fn first(&mut self, item: &In) -> Self::State;
    /// Takes a further item into the value.
    fn fold(&mut self, state: &mut Self::State, item: &In);
}

/// Two closures as a `ReduceFunction`: what the first item makes, and how further ones change it.
#[derive(Clone)]
pub struct ReduceFn<A, B> {
    first: A,
    fold: B,
}

impl<A, B> ReduceFn<A, B> {
    /// Wraps the two closures.
    pub fn new(first: A, fold: B) -> Self {
        ReduceFn { first, fold }
    }
}

impl<In, S, A, B> ReduceFunction<In> for ReduceFn<A, B>
where
    In: ?Sized,
    S: Field,
    A: FnMut(&In) -> S + Clone + Send + 'static,
    B: FnMut(&mut S, &In) + Clone + Send + 'static,
{
    type State = S;

    #[inline]
    fn first(&mut self, item: &In) -> S {
        (self.first)(item)
    }

    #[inline]
    fn fold(&mut self, state: &mut S, item: &In) {
        (self.fold)(state, item);
    }
}

/// Folds the items of a key and gives one result per key when the input has ended.
pub trait AggregateFunction<K: Key, In: ?Sized>: Clone + Send + 'static {
    /// What is kept per key.
    type State: Field;
    /// The result.
    type Out: 'static;
    lifecycle!();
    /// The state before the first item of `key`.
    fn create(&mut self, key: &K) -> Self::State;
    /// Takes an item in.
    fn add(&mut self, state: &mut Self::State, item: &In);
    /// The result for `key`.
    ///
    /// # Errors
    /// Any error fails the task.
    fn result(&mut self, key: &K, state: Self::State) -> Result<Self::Out, TaskError>;
}

/// Takes the outputs of a push-style function, up to its fan-out. They leave one by one, as outputs have room.
#[derive(Debug)]
pub struct Collector<O> {
    outputs: VecDeque<O>,
    bound: u32,
    overflowed: bool,
}

impl<O> Collector<O> {
    /// Room for `bound` outputs, taken from the heap once.
    pub(crate) fn new(bound: u32) -> Self {
        Collector { outputs: VecDeque::with_capacity(bound as usize), bound, overflowed: false }
    }

    /// Emits one output. Beyond the declared fan-out it is dropped and the task fails by name.
    #[inline]
    pub fn emit(&mut self, output: O) {
        if self.outputs.len() < self.bound as usize {
            self.outputs.push_back(output);
        } else {
            self.overflowed = true;
        }
    }

    pub(crate) fn bound(&self) -> u32 {
        self.bound
    }

    #[inline]
    pub(crate) fn take(&mut self) -> Option<O> {
        self.outputs.pop_front()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    #[inline]
    pub(crate) fn check(&self) -> Result<(), TaskError> {
        if self.overflowed { Err(self.overflow()) } else { Ok(()) }
    }

    #[cold]
    fn overflow(&self) -> TaskError {
        TaskError::new(
            crate::error::Fault::FanOut,
            format!(
                "more than {} outputs for one item: declare a larger `fan_out`, or use flat_map, which has no bound",
                self.bound
            ),
        )
    }
}
