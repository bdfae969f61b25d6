//! Streams: the description of a job, chained call by call.
//!
//! A stream's type carries the chain that leads to it, and what a function sees: `Value<T>` (functions get `&T`) before an
//! exchange, `View<T>` (functions get `&T::Archived`, in place in the segment) after one. A stream owns its part of the
//! draft until it ends in a sink or an exchange. Always: operators are chained unless an exchange stands between them.

use std::marker::PhantomData;

use tidegate_graph::OperatorKind;
use tidegate_record::{Key, KeyedCodec, Record};

use crate::chain::{Chain, Filter, FlatMap, Identity, Map, Then};
use crate::error::TaskError;
use crate::function::{ByRef, FilterFunction, FlatMapFunction, KeyOf, MapFunction};
use crate::job::{BuildError, EdgeDraft, EdgeKind, Shared};
use crate::keyed_stream::Keyed;
use crate::sink::Sink;
pub use crate::spec::{BranchRoot, Fork, GateSpec, Root, SourceSpec, TaskRoot};
use crate::spec::{ByFunctionSpec, ByKeySpec, ChainedSpec, EdgeSpec, ForkSpec, PassSpec, SinkSpec, TailSpec};

/// What functions see of an item.
pub trait Visible: 'static {
    /// They get a reference to this.
    type Ref: ?Sized + 'static;
}

/// Items as values: functions get `&T`.
pub struct Value<T>(PhantomData<fn() -> T>);

impl<T: 'static> Visible for Value<T> {
    type Ref = T;
}

/// Items as they lie in a segment: functions get `&T::Archived`.
pub struct View<T>(PhantomData<fn() -> T>);

impl<T: Record> Visible for View<T> {
    type Ref = T::Archived;
}

/// A stream of items that functions see as `V::Ref`. `R` is where its task begins, `C` the chain up to here.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct Stream<V, R, C> {
    job: Shared,
    vertex: usize,
    /// Names from the source up to here, or the last uid.
    path: String,
    root: R,
    chain: C,
    view: PhantomData<V>,
}

/// A stream at the beginning of a task.
pub type Fresh<V, S> = Stream<V, TaskRoot<S>, Identity>;

// The types of what follows name every function of the chain: that is what makes it one compiled loop.
#[allow(clippy::type_complexity)]
impl<V: Visible, R: Root, C: Chain<R::Item, Out = V::Ref>> Stream<V, R, C> {
    pub(crate) fn new(job: Shared, vertex: usize, path: String, root: R, chain: C) -> Self {
        Stream { job, vertex, path, root, chain, view: PhantomData }
    }

    /// Adds an operator to the chain.
    fn then<W, D>(self, name: &str, make: impl FnOnce(usize) -> D) -> Stream<W, R, Then<C, D>> {
        let path = format!("{}/{name}", self.path);
        let operator = self.job.borrow_mut().operator(self.vertex, name, &path, OperatorKind::Stateless);
        Stream {
            job: self.job,
            vertex: self.vertex,
            path,
            root: self.root,
            chain: Then::new(self.chain, make(operator)),
            view: PhantomData,
        }
    }

    /// One output per item.
    pub fn map<U, F>(self, name: &str, function: F) -> Stream<Value<U>, R, Then<C, Map<F>>>
    where
        U: 'static,
        F: FnMut(&V::Ref) -> U + Clone + Send + 'static,
    {
        self.then(name, |operator| Map::new(function, operator))
    }

    /// One output per item, by a function that is opened and closed.
    ///
    /// ```
    /// use tidegate_stream::{Args, Job, JobResult, MapFunction, RuntimeContext, TaskError, context::Counter, testing};
    ///
    /// #[derive(Clone, Default)]
    /// struct Number { seen: Counter }
    /// impl MapFunction<String> for Number {
    ///     type Out = String;
    ///     fn open(&mut self, context: &RuntimeContext) -> Result<(), TaskError> {
    ///         self.seen = context.metrics.counter("seen");
    ///         Ok(())
    ///     }
    ///     fn map(&mut self, word: &String) -> Result<String, TaskError> {
    ///         self.seen.add(1);
    ///         Ok(format!("{} {word}", self.seen.get()))
    ///     }
    /// }
    ///
    /// fn job(job: &mut Job, _args: &Args) -> JobResult {
    ///     job.source("words", testing::items(["a".to_owned(), "b".to_owned()]))
    ///         .map_with("number", Number::default())
    ///         .sink("out", testing::collect("out"));
    ///     Ok(())
    /// }
    /// assert_eq!(testing::run(job, &[]).unwrap().collected::<String>("out"), ["1 a", "2 b"]);
    /// ```
    pub fn map_with<F>(self, name: &str, function: F) -> Stream<Value<F::Out>, R, Then<C, Map<F>>>
    where
        F: MapFunction<V::Ref>,
    {
        self.then(name, |operator| Map::new(function, operator))
    }

    /// The items for which `function` says yes.
    pub fn filter<F>(self, name: &str, function: F) -> Stream<V, R, Then<C, Filter<F>>>
    where
        F: FnMut(&V::Ref) -> bool + Clone + Send + 'static,
    {
        self.then(name, |operator| Filter::new(function, operator))
    }

    /// The items that a function which is opened and closed keeps.
    pub fn filter_with<F>(self, name: &str, function: F) -> Stream<V, R, Then<C, Filter<F>>>
    where
        F: FilterFunction<V::Ref>,
    {
        self.then(name, |operator| Filter::new(function, operator))
    }

    /// Any number of outputs per item, pulled one by one as there is room: the iterator may be long, and owns what it
    /// needs of the item.
    ///
    /// ```
    /// use tidegate_stream::{Args, Job, JobResult, testing};
    ///
    /// fn job(job: &mut Job, _args: &Args) -> JobResult {
    ///     job.source("limits", testing::items([2u64, 3]))
    ///         .flat_map("count", |&limit| 0..limit)
    ///         .sink("out", testing::collect("out"));
    ///     Ok(())
    /// }
    /// assert_eq!(testing::run(job, &[]).unwrap().collected::<u64>("out"), [0, 1, 0, 1, 2]);
    /// ```
    pub fn flat_map<I, F>(
        self,
        name: &str,
        function: F,
    ) -> Stream<Value<I::Item>, R, Then<C, FlatMap<F, I::IntoIter>>>
    where
        I: IntoIterator,
        I::IntoIter: Send + 'static,
        I::Item: 'static,
        F: FnMut(&V::Ref) -> I + Clone + Send + 'static,
    {
        self.then(name, |operator| FlatMap::new(function, operator))
    }

    /// Any number of outputs per item, by a function that is opened and closed.
    pub fn flat_map_with<F>(
        self,
        name: &str,
        function: F,
    ) -> Stream<Value<F::Out>, R, Then<C, FlatMap<F, F::Outputs>>>
    where
        F: FlatMapFunction<V::Ref>,
    {
        self.then(name, |operator| FlatMap::new(function, operator))
    }

    /// Sets the parallelism of the last operator; chained operators share theirs.
    pub fn parallelism(self, subtasks: u32) -> Self {
        set_parallelism(&self.job, self.vertex, subtasks);
        self
    }

    /// Gives the last operator an identity that renaming it, or anything before it, does not change.
    pub fn uid(mut self, uid: &str) -> Self {
        set_uid(&self.job, self.vertex, uid);
        uid.clone_into(&mut self.path);
        self
    }

    /// Lets the last operator reserve managed memory, through the context it is opened with: see
    /// [`OperatorMemory`](crate::memory::OperatorMemory).
    pub fn managed_memory(self) -> Self {
        let mut draft = self.job.borrow_mut();
        if let Some(operator) = draft.vertices[self.vertex].operators.last_mut() {
            operator.managed_memory = true;
        }
        drop(draft);
        self
    }

    /// Puts the tasks of this chain, and of what follows unless it says otherwise, into slots of their own.
    pub fn slot_group(self, group: &str) -> Self {
        self.job.borrow_mut().vertices[self.vertex].slot_group = Some(group.to_owned());
        self
    }

    /// Ends the stream in a sink.
    pub fn sink<S: Sink<V::Ref>>(self, name: &str, mut sink: S) -> Sunk {
        let path = format!("{}/{name}", self.path);
        let mut draft = self.job.borrow_mut();
        sink.outputs().into_iter().for_each(|output| draft.output(output));
        let operator = draft.operator(self.vertex, name, &path, OperatorKind::Sink);
        drop(draft);
        let tail = ChainedSpec { chain: self.chain, tail: SinkSpec { sink, operator } };
        self.root.complete(tail, &self.job, self.vertex);
        Sunk { job: self.job, vertex: self.vertex, operator }
    }

    /// Several ways on from here, each of which gets every item.
    ///
    /// ```
    /// use tidegate_stream::{Args, Job, JobResult, testing};
    ///
    /// fn job(job: &mut Job, _args: &Args) -> JobResult {
    ///     let fork = job.source("numbers", testing::items([1u64, 2, 3, 4])).fork();
    ///     fork.branch().filter("even", |n| n % 2 == 0).sink("evens", testing::collect("evens"));
    ///     fork.branch().map("half", |n| n / 2).sink("halves", testing::collect("halves"));
    ///     Ok(())
    /// }
    /// let run = testing::run(job, &[]).unwrap();
    /// assert_eq!(run.collected::<u64>("evens"), [2, 4]);
    /// assert_eq!(run.collected::<u64>("halves"), [0, 1, 1, 2]);
    /// ```
    pub fn fork(self) -> Fork<V> {
        let spec = ForkSpec::new();
        let fork = Fork::new(self.job.clone(), self.vertex, self.path, spec.branches());
        self.root.complete(ChainedSpec { chain: self.chain, tail: spec }, &self.job, self.vertex);
        fork
    }
}

impl<V, R, C> Stream<V, R, C>
where
    V: Visible,
    V::Ref: Record,
    R: Root,
    C: Chain<R::Item, Out = V::Ref>,
{
    /// To the subtask that owns the key. `key_of` gives the same key for the same item, always: plain records do not
    /// carry their key, it is computed again behind the exchange.
    pub fn key_by<K, F>(self, key_of: F) -> Keyed<K, V::Ref, F>
    where
        K: Key,
        F: Fn(&V::Ref) -> K + Clone + Send + 'static,
    {
        self.keyed(key_of)
    }

    /// As `key_by`, by a key that is part of the item: a `String` key is not cloned to route it.
    ///
    /// ```
    /// use tidegate_stream::{Args, Job, JobResult, testing};
    ///
    /// fn job(job: &mut Job, _args: &Args) -> JobResult {
    ///     job.source("words", testing::items(["ebb", "tide", "ebb"].map(str::to_owned)))
    ///         .key_by_ref(|word| word)
    ///         .reduce("count", |_| 1u64, |count, _| *count += 1)
    ///         .sink("out", testing::collect("out"));
    ///     Ok(())
    /// }
    /// assert_eq!(testing::run(job, &[]).unwrap().collected::<u64>("out"), [1, 1, 2]);
    /// ```
    pub fn key_by_ref<K, F>(self, key_of: F) -> Keyed<K, V::Ref, ByRef<F>>
    where
        K: Key,
        F: Fn(&V::Ref) -> &K + Clone + Send + 'static,
    {
        self.keyed(ByRef(key_of))
    }

    fn keyed<K: Key, F: KeyOf<V::Ref, K>>(self, key_of: F) -> Keyed<K, V::Ref, F> {
        let schema = <<V::Ref as Record>::Keyed<K> as KeyedCodec<K, V::Ref>>::SCHEMA.fingerprint;
        let (job, path) = (self.job.clone(), self.path.clone());
        let writer = ByKeySpec::new(key_of.clone());
        let to = job.borrow_mut().vertex(path.clone());
        self.feed(to, EdgeKind::KeyGroup, schema, writer);
        Keyed::new(job, to, path, key_of)
    }

    /// Round robin over all subtasks of what follows.
    pub fn rebalance(self) -> Fresh<View<V::Ref>, GateSpec<V::Ref>> {
        self.exchange(EdgeKind::Rebalance, PassSpec)
    }

    /// Every item to every subtask of what follows.
    pub fn broadcast(self) -> Fresh<View<V::Ref>, GateSpec<V::Ref>> {
        self.exchange(EdgeKind::Broadcast, PassSpec)
    }

    /// To the subtask that `pick` names, given the item and how many there are.
    pub fn partition_custom<F>(self, pick: F) -> Fresh<View<V::Ref>, GateSpec<V::Ref>>
    where
        F: FnMut(&V::Ref, u32) -> u32 + Clone + Send + 'static,
    {
        self.exchange(EdgeKind::Custom, ByFunctionSpec::new(pick))
    }

    /// From subtask i to subtask i, but in tasks of their own: what follows may then have another slot group.
    pub fn unchain(self) -> Fresh<View<V::Ref>, GateSpec<V::Ref>> {
        self.exchange(EdgeKind::Unchained, PassSpec)
    }

    /// One stream out of several with the same records; `others` is a stream or a tuple of streams. Items of one input
    /// keep their order, those of different inputs mix.
    ///
    /// ```
    /// use tidegate_stream::{Args, Job, JobResult, testing};
    ///
    /// fn job(job: &mut Job, _args: &Args) -> JobResult {
    ///     let a = job.source("a", testing::items([1u64, 2]));
    ///     let b = job.source("b", testing::items([3u64]));
    ///     a.union("all", b).sink("out", testing::collect("out"));
    ///     Ok(())
    /// }
    /// let mut out = testing::run(job, &[]).unwrap().collected::<u64>("out");
    /// out.sort();
    /// assert_eq!(out, [1, 2, 3]);
    /// ```
    pub fn union<I: Inputs<V::Ref>>(self, name: &str, others: I) -> Fresh<View<V::Ref>, GateSpec<V::Ref>> {
        let job = self.job.clone();
        let mut draft = job.borrow_mut();
        let to = draft.vertex(name.to_owned());
        draft.operator(to, name, name, OperatorKind::Stateless);
        drop(draft);
        Inputs::feed(self, &job, to);
        others.feed(&job, to);
        Stream::new(job, to, name.to_owned(), TaskRoot::new(GateSpec::new()), Identity)
    }

    fn exchange<W>(self, kind: EdgeKind, writer: W) -> Fresh<View<V::Ref>, GateSpec<V::Ref>>
    where
        EdgeSpec<W>: TailSpec<V::Ref>,
    {
        let (job, path) = (self.job.clone(), self.path.clone());
        let to = job.borrow_mut().vertex(path.clone());
        self.feed(to, kind, <V::Ref as Record>::SCHEMA.fingerprint, writer);
        Stream::new(job, to, path, TaskRoot::new(GateSpec::new()), Identity)
    }

    fn feed<W>(self, to: usize, kind: EdgeKind, schema: u64, writer: W)
    where
        EdgeSpec<W>: TailSpec<V::Ref>,
    {
        let mut draft = self.job.borrow_mut();
        draft.seal(self.vertex);
        let edge = draft.edges.len() as u32;
        let record = <V::Ref as Record>::SCHEMA.name;
        draft.edges.push(EdgeDraft { from: self.vertex, to, kind, schema, record });
        drop(draft);
        let tail = ChainedSpec { chain: self.chain, tail: EdgeSpec { edge, writer } };
        self.root.complete(tail, &self.job, self.vertex);
    }
}

#[allow(clippy::type_complexity)] // as above
impl<T: Record, R: Root, C: Chain<R::Item, Out = T::Archived>> Stream<View<T>, R, C> {
    /// Makes values of views: the items may then be kept, or leave the task again.
    pub fn owned(self) -> Stream<Value<T>, R, Then<C, Map<ToOwnedValue<T>>>> {
        self.then("owned", |operator| Map::new(ToOwnedValue(PhantomData), operator))
    }
}

/// Makes a value of a view.
pub struct ToOwnedValue<T>(PhantomData<fn() -> T>);

impl<T> Clone for ToOwnedValue<T> {
    fn clone(&self) -> Self {
        ToOwnedValue(PhantomData)
    }
}

impl<T: Record> MapFunction<T::Archived> for ToOwnedValue<T> {
    type Out = T;

    #[inline]
    fn map(&mut self, item: &T::Archived) -> Result<T, TaskError> {
        T::to_owned_value(item).map_err(crate::head::read_error)
    }
}

/// One stream or several with the same records, to be united with others.
pub trait Inputs<T: Record> {
    /// Leads the streams into the gate of vertex `to`.
    #[doc(hidden)]
    fn feed(self, job: &Shared, to: usize);
}

impl<V, R, C> Inputs<V::Ref> for Stream<V, R, C>
where
    V: Visible,
    V::Ref: Record,
    R: Root,
    C: Chain<R::Item, Out = V::Ref>,
{
    fn feed(self, job: &Shared, to: usize) {
        if !job.same(&self.job) {
            job.borrow_mut().fail(BuildError::OtherJob { name: self.path });
            return;
        }
        Stream::feed(self, to, EdgeKind::Union, <V::Ref as Record>::SCHEMA.fingerprint, PassSpec);
    }
}

macro_rules! inputs {
    ($($name:ident)+) => {
        impl<Item: Record, $($name: Inputs<Item>),+> Inputs<Item> for ($($name,)+) {
            #[allow(non_snake_case)]
            fn feed(self, job: &Shared, to: usize) {
                let ($($name,)+) = self;
                $($name.feed(job, to);)+
            }
        }
    };
}
inputs!(A);
inputs!(A B);
inputs!(A B C);
inputs!(A B C D);
inputs!(A B C D E);
inputs!(A B C D E F);

/// The end of a stream: its sink, to be given a uid or a parallelism.
pub struct Sunk {
    job: Shared,
    vertex: usize,
    operator: usize,
}

impl Sunk {
    /// Gives the sink an identity that renaming it, or anything before it, does not change.
    pub fn uid(self, uid: &str) -> Self {
        uid.clone_into(&mut self.job.borrow_mut().vertices[self.vertex].operators[self.operator].path);
        self
    }

    /// Sets the sink's parallelism; chained operators share theirs.
    pub fn parallelism(self, subtasks: u32) -> Self {
        self.job.borrow_mut().vertices[self.vertex].operators[self.operator].parallelism = Some(subtasks);
        self
    }
}

fn set_parallelism(job: &Shared, vertex: usize, subtasks: u32) {
    let mut draft = job.borrow_mut();
    draft.seal(vertex);
    if let Some(operator) = draft.vertices[vertex].operators.last_mut() {
        operator.parallelism = Some(subtasks);
    }
}

fn set_uid(job: &Shared, vertex: usize, uid: &str) {
    let mut draft = job.borrow_mut();
    draft.seal(vertex);
    if let Some(operator) = draft.vertices[vertex].operators.last_mut() {
        uid.clone_into(&mut operator.path);
    }
}
