//! Jobs: the description being built, and what becomes of it: a graph for the control plane, factories for the slots.
//!
//! A `Job` is a handle to one draft, shared by its streams while the job function runs; the draft ends in `build`. Always:
//! the same job function with the same arguments and parallelism gives the same graph, in every process; operator ids
//! depend on names and uids only, never on order or parallelism.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use thiserror::Error;
use tidegate_graph::{
    Edge, GraphError, JobGraph, Operator, OperatorKind, Partitioner, Vertex, default_max_parallelism,
    normal_path,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::args::{Args, ArgsError};
use crate::body::{Body, Site};
use crate::chain::Identity;
use crate::source::Source;
use crate::stream::{SourceSpec, Stream, TaskRoot, Value};

/// Why a job could not be built: always the author's or the submitter's to change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The arguments.
    #[error("{0}")]
    Args(#[from] ArgsError),
    /// The graph as a whole.
    #[error("{0}")]
    Graph(#[from] GraphError),
    /// Operators of one chain ask for unequal parallelism.
    #[error(
        "operators `{first}` (parallelism {first_parallelism}) and `{second}` (parallelism {second_parallelism}) are \
         chained, so they run in the same tasks: make the two equal, or put rebalance() or key_by() between them"
    )]
    ChainParallelism {
        /// The earlier operator.
        first: String,
        /// What it asks for.
        first_parallelism: u32,
        /// The later operator.
        second: String,
        /// What it asks for.
        second_parallelism: u32,
    },
    /// A forward edge between unequal parallelisms.
    #[error(
        "`{from}` (parallelism {from_parallelism}) is unchained from `{to}` (parallelism {to_parallelism}), but a forward \
         edge leads from subtask i to subtask i: make the two equal, or use rebalance() instead of unchain()"
    )]
    ForwardParallelism {
        /// The producer.
        from: String,
        /// Its parallelism.
        from_parallelism: u32,
        /// The consumer.
        to: String,
        /// Its parallelism.
        to_parallelism: u32,
    },
    /// A stream that ends in nothing.
    #[error("the stream behind `{operator}` ends nowhere: give it a sink")]
    NoSink {
        /// The last operator with a name, or the vertex' input.
        operator: String,
    },
    /// Two operators with the same path.
    #[error(
        "two operators have the path `{path}`, so their state could not be told apart: rename one or give it a uid"
    )]
    SamePath {
        /// The path.
        path: String,
    },
    /// A stream of another job.
    #[error("stream `{name}` belongs to another job: build all streams of a job from the same `Job`")]
    OtherJob {
        /// The stream.
        name: String,
    },
    /// A fan-out beyond the bound.
    #[error(
        "operator `{operator}` declares a fan-out of {found}, expected 1 to {max}: use flat_map for more"
    )]
    FanOut {
        /// The operator.
        operator: String,
        /// What it declares.
        found: u32,
        /// The largest allowed.
        max: u32,
    },
    /// No job of that name.
    #[error("no job is called {name:?}{}", match nearest { Some(n) => format!(": did you mean {n:?}?"), None => format!(": this binary has {}", known.join(", ")) })]
    UnknownJob {
        /// The name asked for.
        name: String,
        /// The job whose name looks most like it.
        nearest: Option<String>,
        /// All jobs of the binary.
        known: Vec<String>,
    },
    /// The job function's own words.
    #[error("{0}")]
    User(String),
}

impl From<String> for BuildError {
    fn from(message: String) -> Self {
        BuildError::User(message)
    }
}

impl From<&str> for BuildError {
    fn from(message: &str) -> Self {
        BuildError::User(message.to_owned())
    }
}

impl From<std::io::Error> for BuildError {
    fn from(error: std::io::Error) -> Self {
        BuildError::User(error.to_string())
    }
}

/// What a job function returns.
pub type JobResult = Result<(), BuildError>;

/// Makes the operators of one subtask.
pub(crate) type TaskFactory = Box<dyn Fn(&Site) -> Box<dyn Body>>;

/// How an edge was asked for; `Union` becomes forward or rebalance once parallelisms are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EdgeKind {
    Unchained,
    Union,
    Rebalance,
    KeyGroup,
    Broadcast,
    Custom,
}

pub(crate) struct OperatorDraft {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) kind: OperatorKind,
    pub(crate) parallelism: Option<u32>,
    pub(crate) managed_memory: bool,
}

#[derive(Default)]
pub(crate) struct VertexDraft {
    pub(crate) operators: Vec<OperatorDraft>,
    pub(crate) slot_group: Option<String>,
    pub(crate) factory: Option<TaskFactory>,
    /// Branches of forks that have no tail yet, by the path they start from.
    pub(crate) open_branches: Vec<String>,
    /// Where the stream comes from, for messages.
    pub(crate) origin: String,
}

pub(crate) struct EdgeDraft {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) kind: EdgeKind,
    pub(crate) schema: u64,
    pub(crate) record: &'static str,
}

/// A job under construction.
pub(crate) struct Draft {
    name: String,
    max_parallelism: Option<u32>,
    pub(crate) vertices: Vec<VertexDraft>,
    pub(crate) edges: Vec<EdgeDraft>,
    /// What relative output folders are relative to, if that is known.
    folder: Option<String>,
    outputs: BTreeSet<String>,
    /// The first thing that went wrong; methods of streams return streams, so it is kept until `build`.
    pub(crate) error: Option<BuildError>,
}

impl Draft {
    fn new(name: &str, folder: Option<&str>) -> Self {
        Draft {
            name: name.to_owned(),
            max_parallelism: None,
            vertices: Vec::new(),
            edges: Vec::new(),
            folder: folder.map(str::to_owned),
            outputs: BTreeSet::new(),
            error: None,
        }
    }

    pub(crate) fn vertex(&mut self, origin: String) -> usize {
        self.vertices.push(VertexDraft { origin, ..VertexDraft::default() });
        self.vertices.len() - 1
    }

    pub(crate) fn operator(&mut self, vertex: usize, name: &str, path: &str, kind: OperatorKind) -> usize {
        let operators = &mut self.vertices[vertex].operators;
        operators.push(OperatorDraft {
            name: name.to_owned(),
            path: path.to_owned(),
            kind,
            parallelism: None,
            managed_memory: false,
        });
        operators.len() - 1
    }

    /// Makes a sink's output folder plain, and absolute if possible, and remembers it.
    pub(crate) fn output(&mut self, output: &mut String) {
        match &self.folder {
            Some(folder) if !output.starts_with('/') => *output = normal_path(&format!("{folder}/{output}")),
            _ => *output = normal_path(output),
        }
        self.outputs.insert(output.clone());
    }

    pub(crate) fn fail(&mut self, error: BuildError) {
        self.error.get_or_insert(error);
    }

    /// A chain without operators of its own still needs a name in the graph.
    pub(crate) fn seal(&mut self, vertex: usize) {
        if self.vertices[vertex].operators.is_empty() {
            let path = format!("{}/pass", self.vertices[vertex].origin);
            self.operator(vertex, "pass", &path, OperatorKind::Stateless);
        }
    }
}

/// The one draft of a job, shared by its streams.
#[derive(Clone)]
pub struct Shared(Rc<RefCell<Draft>>);

impl Shared {
    fn new(name: &str, folder: Option<&str>) -> Self {
        Shared(Rc::new(RefCell::new(Draft::new(name, folder))))
    }

    pub(crate) fn borrow_mut(&self) -> RefMut<'_, Draft> {
        self.0.borrow_mut()
    }

    pub(crate) fn same(&self, other: &Shared) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

/// A job under construction. Streams start at its sources.
///
/// ```
/// use tidegate_stream::{Args, Job, JobResult, testing};
///
/// fn squares(job: &mut Job, _args: &Args) -> JobResult {
///     job.source("numbers", testing::items([1u64, 2, 3]))
///         .map("square", |n| n * n)
///         .sink("out", testing::collect("out"));
///     Ok(())
/// }
/// let run = testing::run(squares, &[]).unwrap();
/// assert_eq!(run.collected::<u64>("out"), [1, 4, 9]);
/// ```
pub struct Job {
    draft: Shared,
}

impl Job {
    /// Sets the number of key groups: the most subtasks any operator can ever have, and fixed for the life of the job's
    /// state. Without it, one and a half times the default parallelism, as a power of two, at least 128.
    pub fn max_parallelism(&mut self, groups: u32) {
        self.draft.borrow_mut().max_parallelism = Some(groups);
    }

    /// Starts a stream. `name` identifies the source's state, so it should stay the same.
    pub fn source<S: Source>(
        &mut self,
        name: &str,
        source: S,
    ) -> Stream<Value<S::Item>, TaskRoot<SourceSpec<S>>, Identity> {
        let mut draft = self.draft.borrow_mut();
        let vertex = draft.vertex(name.to_owned());
        let operator = draft.operator(vertex, name, name, OperatorKind::Source);
        drop(draft);
        let root = TaskRoot::new(SourceSpec { source, operator });
        Stream::new(self.draft.clone(), vertex, name.to_owned(), root, Identity)
    }

    /// Runs a job function and turns what it described into a graph and factories. `parallelism` is that of operators
    /// which do not say.
    ///
    /// # Errors
    /// Whatever the job function says, and everything that makes the graph impossible.
    pub fn build(
        name: &str,
        function: impl FnOnce(&mut Job, &Args) -> JobResult,
        args: &Args,
        parallelism: u32,
    ) -> Result<BuiltJob, BuildError> {
        Job::build_in(None, name, function, args, parallelism)
    }

    /// As `build`; output folders that are relative are so to `folder`.
    pub(crate) fn build_in(
        folder: Option<&str>,
        name: &str,
        function: impl FnOnce(&mut Job, &Args) -> JobResult,
        args: &Args,
        parallelism: u32,
    ) -> Result<BuiltJob, BuildError> {
        let mut job = Job { draft: Shared::new(name, folder) };
        let outcome = function(&mut job, args);
        let draft = job.draft.0.replace(Draft::new(name, None));
        // An unknown flag usually explains why another one is missing, so it is named first.
        args.check()?;
        outcome?;
        finish(draft, parallelism)
    }
}

/// A job as a graph, and the factories of its tasks.
pub struct BuiltJob {
    /// What the control plane sees.
    pub graph: JobGraph,
    /// The output folders of its sinks, each once: plain, and absolute unless the job was given a relative one and nobody
    /// knows what it is relative to.
    pub outputs: Vec<String>,
    factories: Vec<TaskFactory>,
}

impl BuiltJob {
    /// Makes the operators of one subtask of `vertex`.
    ///
    /// # Panics
    /// If there is no such vertex.
    pub fn task(&self, vertex: u32, site: &Site) -> Box<dyn Body> {
        self.factories[vertex as usize](site)
    }
}

impl std::fmt::Debug for BuiltJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuiltJob").field("graph", &self.graph).finish_non_exhaustive()
    }
}

/// The stable id of an operator: a hash of its uid or path, never 0.
pub fn operator_id(path: &str) -> u64 {
    xxh3_64(path.as_bytes()).max(1)
}

fn finish(mut draft: Draft, parallelism: u32) -> Result<BuiltJob, BuildError> {
    if let Some(error) = draft.error.take() {
        return Err(error);
    }
    check_ends(&draft)?;
    check_paths(&draft)?;
    let parallelisms = parallelisms(&draft, parallelism)?;
    let edges = edges(&draft, &parallelisms)?;
    let groups = slot_groups(&draft);
    let mut vertices = Vec::with_capacity(draft.vertices.len());
    let mut factories = Vec::with_capacity(draft.vertices.len());
    for (id, (vertex, slot_group)) in draft.vertices.into_iter().zip(groups).enumerate() {
        let names: Vec<_> = vertex.operators.iter().map(|operator| operator.name.as_str()).collect();
        vertices.push(Vertex {
            id: id as u32,
            name: names.join(" -> "),
            parallelism: parallelisms[id],
            slot_group,
            operators: vertex
                .operators
                .iter()
                .map(|draft| Operator {
                    id: operator_id(&draft.path),
                    name: draft.name.clone(),
                    kind: draft.kind,
                    managed_memory: draft.managed_memory,
                })
                .collect(),
        });
        factories.push(vertex.factory.expect("invariant: every vertex has a tail, check_ends has seen it"));
    }
    let largest = parallelisms.iter().copied().max().unwrap_or(parallelism).max(parallelism);
    let max_parallelism = draft.max_parallelism.unwrap_or_else(|| default_max_parallelism(largest));
    let graph = JobGraph { name: draft.name, max_parallelism, vertices, edges };
    graph.validate()?;
    Ok(BuiltJob { graph, outputs: draft.outputs.into_iter().collect(), factories })
}

fn check_ends(draft: &Draft) -> Result<(), BuildError> {
    for vertex in &draft.vertices {
        let last = vertex.operators.last().map_or(&vertex.origin, |operator| &operator.name);
        let open = vertex.open_branches.first().or(if vertex.factory.is_none() { Some(last) } else { None });
        if let Some(operator) = open {
            return Err(BuildError::NoSink { operator: operator.clone() });
        }
    }
    Ok(())
}

fn check_paths(draft: &Draft) -> Result<(), BuildError> {
    let mut seen = BTreeMap::new();
    for operator in draft.vertices.iter().flat_map(|vertex| &vertex.operators) {
        if seen.insert(&operator.path, ()).is_some() {
            return Err(BuildError::SamePath { path: operator.path.clone() });
        }
    }
    Ok(())
}

fn parallelisms(draft: &Draft, default: u32) -> Result<Vec<u32>, BuildError> {
    let chain = |vertex: &VertexDraft| {
        let mut asked =
            vertex.operators.iter().filter_map(|operator| Some((operator, operator.parallelism?)));
        let Some((first, parallelism)) = asked.next() else { return Ok(default) };
        match asked.find(|(_, other)| *other != parallelism) {
            None => Ok(parallelism),
            Some((second, other)) => Err(BuildError::ChainParallelism {
                first: first.name.clone(),
                first_parallelism: parallelism,
                second: second.name.clone(),
                second_parallelism: other,
            }),
        }
    };
    draft.vertices.iter().map(chain).collect()
}

fn edges(draft: &Draft, parallelisms: &[u32]) -> Result<Vec<Edge>, BuildError> {
    let name = |vertex: usize, last: bool| {
        let operators = &draft.vertices[vertex].operators;
        let operator = if last { operators.last() } else { operators.first() };
        operator.map_or_else(String::new, |operator| operator.name.clone())
    };
    let resolve = |edge: &EdgeDraft| {
        let (from, to) = (parallelisms[edge.from], parallelisms[edge.to]);
        let partitioner = match edge.kind {
            EdgeKind::Unchained if from == to => Partitioner::Forward,
            EdgeKind::Unchained => {
                return Err(BuildError::ForwardParallelism {
                    from: name(edge.from, true),
                    from_parallelism: from,
                    to: name(edge.to, false),
                    to_parallelism: to,
                });
            }
            EdgeKind::Union if from == to => Partitioner::Forward,
            EdgeKind::Union | EdgeKind::Rebalance => Partitioner::Rebalance,
            EdgeKind::KeyGroup => Partitioner::KeyGroup,
            EdgeKind::Broadcast => Partitioner::Broadcast,
            EdgeKind::Custom => Partitioner::Custom,
        };
        Ok(Edge {
            from: edge.from as u32,
            to: edge.to as u32,
            input: 0,
            partitioner,
            schema: edge.schema,
            record: edge.record.to_owned(),
        })
    };
    draft.edges.iter().map(resolve).collect()
}

/// A vertex is in the group it asks for, else in that of its inputs if they agree, else in `default`.
fn slot_groups(draft: &Draft) -> Vec<String> {
    let mut groups: Vec<String> = Vec::with_capacity(draft.vertices.len());
    for (id, vertex) in draft.vertices.iter().enumerate() {
        let mut inputs = draft.edges.iter().filter(|edge| edge.to == id).map(|edge| &groups[edge.from]);
        let inherited = inputs.next().filter(|first| inputs.all(|other| other == *first)).cloned();
        let group = vertex.slot_group.clone().or(inherited);
        groups.push(group.unwrap_or_else(|| "default".to_owned()));
    }
    groups
}
