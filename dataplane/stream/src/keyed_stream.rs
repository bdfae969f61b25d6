//! Keyed streams: what follows `key_by`.
//!
//! A keyed stream owns a vertex of the draft whose head is yet to be named by the operator that keeps the state. Functions
//! see `&T::Archived` in place, and the key.

use std::marker::PhantomData;

use tidegate_graph::OperatorKind;
use tidegate_record::{Field, Key, Record};

use crate::chain::Identity;
use crate::function::{
    AggregateFunction, Collector, KeyOf, Outcome, ProcessFn, ProcessFunction, ReduceFn, ReduceFunction,
};
use crate::job::{BuildError, Shared};
use crate::limits::FAN_OUT_MAX;
use crate::operator::{Aggregate, KeyedOperator, Process, Reduce};
use crate::spec::{KeyedSpec, TaskRoot};
use crate::stream::{Fresh, Stream, Value};

/// A stream of records `T`, partitioned by keys `K`.
#[must_use = "a keyed stream does nothing until an operator follows"]
pub struct Keyed<K, T, F> {
    job: Shared,
    vertex: usize,
    path: String,
    key_of: F,
    types: PhantomData<fn() -> (K, T)>,
}

// The types of what follows name the operator and its function: that is what makes them one compiled loop.
#[allow(clippy::type_complexity)]
impl<K, T, F> Keyed<K, T, F>
where
    K: Key,
    T: Record,
    F: KeyOf<T, K>,
{
    pub(crate) fn new(job: Shared, vertex: usize, path: String, key_of: F) -> Self {
        Keyed { job, vertex, path, key_of, types: PhantomData }
    }

    fn operator<P, O>(self, name: &str, process: P) -> Fresh<Value<O>, KeyedSpec<K, T, F, P>>
    where
        P: KeyedOperator<K, T::Archived, Out = O>,
        O: 'static,
    {
        let path = format!("{}/{name}", self.path);
        let operator = self.job.borrow_mut().operator(self.vertex, name, &path, OperatorKind::Keyed);
        let spec = KeyedSpec { key_of: self.key_of, process, operator, types: PhantomData };
        Stream::new(self.job, self.vertex, path, TaskRoot::new(spec), Identity)
    }

    /// Items of a key, one by one, with the state kept for it. `state` is `None` until it is set; leaving `None` behind
    /// forgets the key. Up to `FAN_OUT_DEFAULT` outputs per item.
    ///
    /// ```
    /// use tidegate_stream::{Args, Job, JobResult, testing};
    ///
    /// // Emits a word the second time it is seen.
    /// fn job(job: &mut Job, _args: &Args) -> JobResult {
    ///     job.source("words", testing::items(["a", "b", "a", "a"].map(str::to_owned)))
    ///         .key_by(|word| word.clone())
    ///         .process("second", |word: &String, _item, seen: &mut Option<u64>, out| {
    ///             let seen = seen.insert(seen.unwrap_or(0) + 1);
    ///             if *seen == 2 {
    ///                 out.emit(word.clone());
    ///             }
    ///         })
    ///         .sink("out", testing::collect("out"));
    ///     Ok(())
    /// }
    /// assert_eq!(testing::run(job, &[]).unwrap().collected::<String>("out"), ["a"]);
    /// ```
    pub fn process<S, O, X, G>(
        self,
        name: &str,
        function: G,
    ) -> Fresh<Value<O>, KeyedSpec<K, T, F, Process<ProcessFn<G, S, O>, O>>>
    where
        S: Field,
        O: Send + 'static,
        X: Outcome,
        G: FnMut(&K, &T::Archived, &mut Option<S>, &mut Collector<O>) -> X + Clone + Send + 'static,
    {
        self.process_with(name, ProcessFn::new(function))
    }

    /// As `process`, by a function that is opened and closed and may declare a larger fan-out.
    pub fn process_with<P>(
        self,
        name: &str,
        function: P,
    ) -> Fresh<Value<P::Out>, KeyedSpec<K, T, F, Process<P, P::Out>>>
    where
        P: ProcessFunction<K, T::Archived>,
        P::Out: Send,
    {
        let fan_out = function.fan_out();
        if !(1..=FAN_OUT_MAX).contains(&fan_out) {
            let error = BuildError::FanOut { operator: name.to_owned(), found: fan_out, max: FAN_OUT_MAX };
            self.job.borrow_mut().fail(error);
        }
        self.operator(name, Process::new(function, fan_out))
    }

    /// Folds the items of a key into one value and emits it after every item: `first` makes it of the first item, `fold`
    /// takes further ones in.
    ///
    /// ```
    /// use tidegate_stream::{Args, Job, JobResult, testing};
    ///
    /// fn job(job: &mut Job, _args: &Args) -> JobResult {
    ///     job.source("sales", testing::items([[1u64, 10], [2, 5], [1, 7]]))
    ///         .key_by(|sale| sale[0])
    ///         .reduce("running", |sale| *sale, |sum, sale| sum[1] += sale[1])
    ///         .sink("out", testing::collect("out"));
    ///     Ok(())
    /// }
    /// assert_eq!(testing::run(job, &[]).unwrap().collected::<[u64; 2]>("out"), [[1, 10], [2, 5], [1, 17]]);
    /// ```
    pub fn reduce<S, A, B>(
        self,
        name: &str,
        first: A,
        fold: B,
    ) -> Fresh<Value<S>, KeyedSpec<K, T, F, Reduce<ReduceFn<A, B>>>>
    where
        S: Field,
        A: FnMut(&T::Archived) -> S + Clone + Send + 'static,
        B: FnMut(&mut S, &T::Archived) + Clone + Send + 'static,
    {
        self.reduce_with(name, ReduceFn::new(first, fold))
    }

    /// As `reduce`, by a function that is opened and closed.
    pub fn reduce_with<R>(
        self,
        name: &str,
        function: R,
    ) -> Fresh<Value<R::State>, KeyedSpec<K, T, F, Reduce<R>>>
    where
        R: ReduceFunction<T::Archived>,
    {
        self.operator(name, Reduce::new(function))
    }

    /// Folds the items of a key and emits one result per key once the input has ended.
    ///
    /// ```
    /// use tidegate_stream::{AggregateFunction, Args, Job, JobResult, TaskError, testing};
    ///
    /// #[derive(Clone)]
    /// struct Count;
    /// impl AggregateFunction<u64, u64> for Count {
    ///     type State = u64;
    ///     type Out = (u64, u64);
    ///     fn create(&mut self, _key: &u64) -> u64 { 0 }
    ///     fn add(&mut self, count: &mut u64, _item: &u64) { *count += 1 }
    ///     fn result(&mut self, key: &u64, count: u64) -> Result<(u64, u64), TaskError> { Ok((*key, count)) }
    /// }
    ///
    /// fn job(job: &mut Job, _args: &Args) -> JobResult {
    ///     job.source("numbers", testing::items(0..10u64))
    ///         .key_by(|n| n % 3)
    ///         .aggregate("count", Count)
    ///         .sink("out", testing::collect("out"));
    ///     Ok(())
    /// }
    /// let mut out = testing::run(job, &[]).unwrap().collected::<(u64, u64)>("out");
    /// out.sort();
    /// assert_eq!(out, [(0, 4), (1, 3), (2, 3)]);
    /// ```
    pub fn aggregate<A>(
        self,
        name: &str,
        function: A,
    ) -> Fresh<Value<A::Out>, KeyedSpec<K, T, F, Aggregate<A>>>
    where
        A: AggregateFunction<K, T::Archived>,
    {
        self.operator(name, Aggregate::new(function))
    }
}
