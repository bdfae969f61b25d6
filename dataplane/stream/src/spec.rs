//! Specs: what a job's streams leave behind, from which every subtask's head, chain and tail are made.
//!
//! Owned by the factories of a built job. A spec is a description; instances are clones of it. Always: a spec can be
//! instantiated any number of times, and its instances share nothing.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;

use tidegate_record::{Key, Record};

use crate::body::{Pipeline, Site};
use crate::chain::{Chain, Identity};
use crate::edge::{ByFunction, ByKey, EdgeTail, EdgeWriter, Pass};
use crate::function::KeyOf;
use crate::head::{GateHead, Head, SourceHead};
use crate::job::Shared;
use crate::keyed::{KeyedHead, KeyedSite};
use crate::operator::KeyedOperator;
use crate::router::{GroupRange, KeyRouter};
use crate::sink::Sink;
use crate::source::Source;
use crate::stream::{Stream, Visible};
use crate::tail::{Branch, Chained, ForkTail, SinkTail, Tail};

/// Where a stream's chain begins: a task of its own, or a branch of a fork.
pub trait Root: Sized + 'static {
    /// What the chain gets.
    type Item: ?Sized + 'static;

    /// The stream has got its end: leaves a factory in the draft.
    #[doc(hidden)]
    fn complete<T: TailSpec<Self::Item>>(self, tail: T, job: &Shared, vertex: usize);
}

/// Describes the head of a task.
pub trait HeadSpec: 'static {
    /// What comes out.
    type Item: ?Sized + 'static;
    /// An instance.
    type Head: Head<Item = Self::Item>;
    /// The head of one subtask.
    fn head(&self, site: &Site) -> Self::Head;
}

/// Describes the tail of a chain.
pub trait TailSpec<In: ?Sized>: 'static {
    /// An instance.
    type Tail: Tail<In>;
    /// The tail of one subtask.
    fn tail(&self, site: &Site) -> Self::Tail;
}

/// A chain and what is at its end.
pub(crate) struct ChainedSpec<C, T> {
    pub(crate) chain: C,
    pub(crate) tail: T,
}

impl<In: ?Sized + 'static, C: Chain<In>, T: TailSpec<C::Out>> TailSpec<In> for ChainedSpec<C, T> {
    type Tail = Chained<In, C, T::Tail>;

    fn tail(&self, site: &Site) -> Self::Tail {
        Chained::new(self.chain.clone(), self.tail.tail(site))
    }
}

/// The beginning of a task.
pub struct TaskRoot<S> {
    spec: S,
}

impl<S> TaskRoot<S> {
    pub(crate) fn new(spec: S) -> Self {
        TaskRoot { spec }
    }
}

impl<S: HeadSpec> Root for TaskRoot<S> {
    type Item = S::Item;

    fn complete<T: TailSpec<S::Item>>(self, tail: T, job: &Shared, vertex: usize) {
        let spec = self.spec;
        let factory = move |site: &Site| -> Box<dyn crate::body::Body> {
            Box::new(Pipeline::new(spec.head(site), tail.tail(site)))
        };
        job.borrow_mut().vertices[vertex].factory = Some(Box::new(factory));
    }
}

type BranchFactory<In> = Box<dyn Fn(&Site) -> Box<dyn Branch<In>>>;
type Branches<In> = Rc<RefCell<Vec<BranchFactory<In>>>>;

/// The beginning of a branch.
pub struct BranchRoot<In: ?Sized> {
    branches: Branches<In>,
    /// Which of the vertex' open branches it is.
    ticket: String,
}

impl<In: ?Sized + 'static> Root for BranchRoot<In> {
    type Item = In;

    fn complete<T: TailSpec<In>>(self, tail: T, job: &Shared, vertex: usize) {
        let factory = move |site: &Site| -> Box<dyn Branch<In>> { Box::new(tail.tail(site)) };
        self.branches.borrow_mut().push(Box::new(factory));
        let open = &mut job.borrow_mut().vertices[vertex].open_branches;
        if let Some(place) = open.iter().position(|ticket| *ticket == self.ticket) {
            open.remove(place);
        }
    }
}

/// A source at the head.
pub struct SourceSpec<S> {
    pub(crate) source: S,
    pub(crate) operator: usize,
}

impl<S: Source> HeadSpec for SourceSpec<S> {
    type Item = S::Item;
    type Head = SourceHead<S>;

    fn head(&self, _site: &Site) -> SourceHead<S> {
        SourceHead::new(self.source.clone(), self.operator)
    }
}

/// A gate at the head.
pub struct GateSpec<T>(PhantomData<fn() -> T>);

impl<T> GateSpec<T> {
    pub(crate) fn new() -> Self {
        GateSpec(PhantomData)
    }
}

impl<T: Record> HeadSpec for GateSpec<T> {
    type Item = T::Archived;
    type Head = GateHead<T>;

    fn head(&self, site: &Site) -> GateHead<T> {
        GateHead::new(site.gate())
    }
}

/// A keyed operator at the head.
pub struct KeyedSpec<K, T, F, P> {
    pub(crate) key_of: F,
    pub(crate) process: P,
    pub(crate) operator: usize,
    pub(crate) types: PhantomData<fn() -> (K, T)>,
}

impl<K, T, F, P> HeadSpec for KeyedSpec<K, T, F, P>
where
    K: Key,
    T: Record,
    F: KeyOf<T, K>,
    P: KeyedOperator<K, T::Archived>,
{
    type Item = P::Out;
    type Head = KeyedHead<K, T, F, P>;

    fn head(&self, site: &Site) -> Self::Head {
        let range = GroupRange::of(site.subtask, site.parallelism, site.max_parallelism);
        let (gate, max_parallelism, operator) = (site.gate(), site.max_parallelism, self.operator);
        let site = KeyedSite { gate, max_parallelism, range, operator };
        KeyedHead::new(site, self.key_of.clone(), self.process.clone())
    }
}

/// A sink at the end.
pub struct SinkSpec<S> {
    pub(crate) sink: S,
    pub(crate) operator: usize,
}

impl<In: ?Sized + 'static, S: Sink<In>> TailSpec<In> for SinkSpec<S> {
    type Tail = SinkTail<In, S>;

    fn tail(&self, _site: &Site) -> SinkTail<In, S> {
        SinkTail::new(self.sink.clone(), self.operator)
    }
}

/// An edge at the end; `writer` describes its partitioner.
pub struct EdgeSpec<W> {
    pub(crate) edge: u32,
    pub(crate) writer: W,
}

/// Describes how items find their channel.
pub trait WriterSpec<T>: 'static {
    /// An instance.
    type Writer: EdgeWriter<T>;
    /// The writer of one subtask.
    fn writer(&self, edge: u32, site: &Site) -> Self::Writer;
}

impl<T: Record, W: WriterSpec<T>> TailSpec<T> for EdgeSpec<W> {
    type Tail = EdgeTail<W::Writer>;

    fn tail(&self, site: &Site) -> EdgeTail<W::Writer> {
        EdgeTail::new(site.output(self.edge).partition, self.writer.writer(self.edge, site))
    }
}

/// Forward, rebalance or broadcast, as the graph says.
pub struct PassSpec;

impl<T: Record> WriterSpec<T> for PassSpec {
    type Writer = Pass;

    fn writer(&self, edge: u32, site: &Site) -> Pass {
        let output = site.output(edge);
        Pass::new(output.partitioner, site.subtask, output.consumers)
    }
}

/// By key group.
pub struct ByKeySpec<K, F> {
    key_of: F,
    key: PhantomData<fn() -> K>,
}

impl<K, F> ByKeySpec<K, F> {
    pub(crate) fn new(key_of: F) -> Self {
        ByKeySpec { key_of, key: PhantomData }
    }
}

impl<K, T, F> WriterSpec<T> for ByKeySpec<K, F>
where
    K: Key,
    T: Record,
    F: KeyOf<T, K>,
{
    type Writer = ByKey<K, F>;

    fn writer(&self, edge: u32, site: &Site) -> ByKey<K, F> {
        let router = KeyRouter::new(site.output(edge).consumers, site.max_parallelism);
        ByKey::new(self.key_of.clone(), router)
    }
}

/// By the author's function.
pub struct ByFunctionSpec<F> {
    pick: F,
}

impl<F> ByFunctionSpec<F> {
    pub(crate) fn new(pick: F) -> Self {
        ByFunctionSpec { pick }
    }
}

impl<T: Record, F: FnMut(&T, u32) -> u32 + Clone + Send + 'static> WriterSpec<T> for ByFunctionSpec<F> {
    type Writer = ByFunction<F>;

    fn writer(&self, _edge: u32, _site: &Site) -> ByFunction<F> {
        ByFunction::new(self.pick.clone())
    }
}

/// A fork at the end.
pub(crate) struct ForkSpec<In: ?Sized> {
    branches: Branches<In>,
}

impl<In: ?Sized> ForkSpec<In> {
    pub(crate) fn new() -> Self {
        ForkSpec { branches: Rc::default() }
    }

    pub(crate) fn branches(&self) -> Branches<In> {
        Rc::clone(&self.branches)
    }
}

impl<In: ?Sized + 'static> TailSpec<In> for ForkSpec<In> {
    type Tail = ForkTail<In>;

    fn tail(&self, site: &Site) -> ForkTail<In> {
        ForkTail::new(self.branches.borrow().iter().map(|branch| branch(site)).collect())
    }
}

/// A stream with several ways on; see `Stream::fork`.
pub struct Fork<V: Visible> {
    job: Shared,
    vertex: usize,
    path: String,
    branches: Branches<V::Ref>,
}

impl<V: Visible> Fork<V> {
    pub(crate) fn new(job: Shared, vertex: usize, path: String, branches: Branches<V::Ref>) -> Self {
        Fork { job, vertex, path, branches }
    }

    /// One more way on. Branches without exchange run in the same task; each operator of a branch needs a name, or uid,
    /// that no other branch has.
    pub fn branch(&self) -> Stream<V, BranchRoot<V::Ref>, Identity> {
        let ticket = self.path.clone();
        self.job.borrow_mut().vertices[self.vertex].open_branches.push(ticket.clone());
        let root = BranchRoot { branches: Rc::clone(&self.branches), ticket };
        Stream::new(self.job.clone(), self.vertex, self.path.clone(), root, Identity)
    }
}
