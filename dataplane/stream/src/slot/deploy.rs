//! Deployment: from a job's name and a plan to opened tasks.
//!
//! Owns nothing; what it makes belongs to the runner. Always: the graph built here is the JobManager's, by fingerprint, or
//! nothing is reserved.

use std::sync::Arc;

use tidegate_exchange::endpoint::Greet;
use tidegate_exchange::{Exchange, TaskIds};
use tidegate_graph::{JobGraph, OperatorKind, Subtask, Vertex};
use tidegate_ring::Ring;

use crate::body::{OutputSite, Site};
use crate::context::{Metrics, OpenCx, RuntimeContext, Waker};
use crate::error::{Fault, TaskError};
use crate::files::Files;
use crate::job::BuiltJob;
use crate::jobs::Jobs;
use crate::memory::Budgets;
use crate::pool::ReaderPool;
use crate::slot::message::{Deployment, EdgeLatency, Failure, SlotEvent, TaskDeployment, TaskId, TaskState};
use crate::task::{Task, TaskSeed};

/// What a deployment may use of the slot.
pub(crate) struct Deployer<'a, R: Ring> {
    pub exchange: &'a mut Exchange<R>,
    pub files: &'a mut dyn Files,
    pub jobs: &'a Jobs,
    pub pool: &'a ReaderPool,
    pub waker: &'a dyn Fn() -> Waker,
    /// File buffers that tasks of other attempts may hold.
    pub buffers_held: u32,
    pub events: &'a mut Vec<SlotEvent>,
    /// What the attempt may hold.
    pub budgets: &'a Budgets,
    /// Whether its edges are measured.
    pub latencies: bool,
}

/// Builds the job, reserves its ports, opens its tasks into `tasks`; gives the file buffers they may hold. On an error some
/// ports may be reserved and some tasks opened: cancel them.
pub(crate) fn deploy<R: Ring>(
    deployment: Deployment,
    slot: &mut Deployer<'_, R>,
    tasks: &mut Vec<Task>,
) -> Result<u32, Failure>
where
    R::Socket: Greet,
{
    let built = slot.jobs.build(&deployment.job_name, &deployment.args, deployment.parallelism);
    let built = built
        .map_err(|error| Failure::setup(format!("job {:?} cannot be built: {error}", deployment.job_name)))?;
    check(&built.graph, &deployment)?;
    check_buffers(&built.graph, &deployment, slot)?;
    let ids =
        slot.exchange.prepare(&deployment.ports).map_err(|error| Failure::resources(error.to_string()))?;
    if ids.len() != deployment.tasks.len() {
        let found = ids.len();
        return Err(mismatch(format!("ports for {found} of {} tasks", deployment.tasks.len())));
    }
    for ids in ids {
        let place = ids.task as usize;
        let task = deployment.tasks.get(place).cloned();
        let task = task.ok_or_else(|| mismatch(format!("ports for task {place}, which is not deployed")))?;
        tasks.push(open(&built, &deployment, task, ids, slot)?);
        // Opening is user code and may take long, and peers wait for their handshakes to be answered.
        slot.exchange.turn();
    }
    Ok(buffers(&built.graph, &deployment))
}

/// The JobManager's plan contradicts itself.
#[cold]
fn mismatch(what: String) -> Failure {
    TaskError::new(Fault::Runtime, format!("the plan has {what}")).into()
}

fn check(graph: &JobGraph, deployment: &Deployment) -> Result<(), Failure> {
    let (here, there) = (graph.fingerprint(), deployment.graph_fingerprint);
    if here != there {
        return Err(Failure::setup(format!(
            "job {:?} is another graph here ({here:#018x}) than at the JobManager ({there:#018x}): run the same binary \
             everywhere, and let a job depend on its arguments only",
            deployment.job_name
        )));
    }
    for TaskDeployment { id, .. } in &deployment.tasks {
        let vertex = graph.vertices.get(id.vertex as usize);
        if vertex.is_none_or(|vertex| id.subtask >= vertex.parallelism) {
            return Err(mismatch(format!(
                "subtask {} of vertex {}, the job has none",
                id.subtask, id.vertex
            )));
        }
    }
    Ok(())
}

/// Every writer of files may hold a buffer, and nobody may wait for another one's (R3).
fn check_buffers<R: Ring>(
    graph: &JobGraph,
    deployment: &Deployment,
    slot: &Deployer<'_, R>,
) -> Result<(), Failure> {
    let (needed, held, there) = (buffers(graph, deployment), slot.buffers_held, slot.files.buffers());
    if needed > there {
        return Err(Failure::setup(format!(
            "the job has {needed} keyed operators and sinks in one slot, and a slot has a file buffer for {there}: a slot \
             runs one subtask of each, so make them fewer, or split the job into several"
        )));
    }
    if needed + held > there {
        return Err(Failure::resources(format!(
            "the slot's keyed operators and sinks need {needed} file buffers, one each, and tasks that are ending hold \
             {held} of {there}"
        )));
    }
    Ok(())
}

/// File buffers that the tasks of `deployment` may hold at once: one per keyed operator and one per sink.
pub(crate) fn buffers(graph: &JobGraph, deployment: &Deployment) -> u32 {
    let vertices = deployment.tasks.iter().filter_map(|task| graph.vertices.get(task.id.vertex as usize));
    let operators = vertices.flat_map(|vertex| &vertex.operators);
    let writers =
        operators.filter(|operator| matches!(operator.kind, OperatorKind::Keyed | OperatorKind::Sink));
    writers.count() as u32
}

fn open<R: Ring>(
    built: &BuiltJob,
    deployment: &Deployment,
    task: TaskDeployment,
    ids: TaskIds,
    slot: &mut Deployer<'_, R>,
) -> Result<Task, Failure> {
    let graph = &built.graph;
    let vertex = &graph.vertices[task.id.vertex as usize];
    let site = site(graph, vertex, task.id.subtask, &ids)?;
    let checkpoint = task.restore.as_ref().map(|restore| restore.checkpoint);
    let contexts = contexts(graph, vertex, task.id.subtask, deployment, checkpoint, slot.budgets);
    let waker = (slot.waker)();
    let latencies = if slot.latencies { measure(graph, task.id, &ids, slot) } else { Arc::default() };
    let metrics: Vec<(String, Metrics)> =
        contexts.iter().map(|context| (context.operator.clone(), context.metrics.clone())).collect();
    let seed = TaskSeed {
        attempt: deployment.id(),
        id: task.id,
        name: vertex.name.clone(),
        body: built.task(vertex.id, &site),
        gate: ids.gate,
        partitions: ids.partitions,
        waker: waker.clone(),
        metrics,
        latencies,
    };
    let mut opened = Task::new(seed);
    let state = slot.budgets.state(opened.heap());
    opened.tell(TaskState::Initializing, slot.events);
    let cx = OpenCx {
        contexts: &contexts,
        restore: None,
        pool: slot.pool,
        waker: &waker,
        files: &mut *slot.files,
        state: Some(state),
    };
    match opened.open(task.restore, cx) {
        Ok(()) => Ok(opened),
        Err(error) => {
            opened.fail(slot.files, slot.events);
            Err(error.into())
        }
    }
}

/// Has the ends of edges measured that are in this task, as far as the slot has room.
fn measure<R: Ring>(
    graph: &JobGraph,
    id: TaskId,
    ids: &TaskIds,
    slot: &mut Deployer<'_, R>,
) -> Arc<[EdgeLatency]> {
    let (ports, me) = (&mut slot.exchange.ports, Subtask { vertex: id.vertex, subtask: id.subtask });
    let mut feeds = Vec::new();
    if let (Some(gate), Some(id)) = (graph.gate(me), ids.gate) {
        let edges: Vec<u32> = gate.channels.iter().map(|channel| channel.edge).collect();
        feeds.extend(ports.measure_gate(id, &edges));
    }
    for (partition, id) in graph.partitions(me).iter().zip(&ids.partitions) {
        feeds.extend(ports.measure_partition(*id).map(|feed| (partition.edge, feed)));
    }
    let named = |(edge, feed)| EdgeLatency { edge, name: graph.edge_name(edge), feed };
    feeds.into_iter().map(named).collect()
}

fn site(graph: &JobGraph, vertex: &Vertex, subtask: u32, ids: &TaskIds) -> Result<Site, Failure> {
    let partitions = graph.partitions(Subtask { vertex: vertex.id, subtask });
    let has_gate = graph.edges.iter().any(|edge| edge.to == vertex.id);
    if partitions.len() != ids.partitions.len() || has_gate != ids.gate.is_some() {
        return Err(mismatch(format!(
            "{} partitions and {} gate for `{}`, the graph {} and {}",
            ids.partitions.len(),
            usize::from(ids.gate.is_some()),
            vertex.name,
            partitions.len(),
            usize::from(has_gate),
        )));
    }
    let outputs = partitions.iter().zip(&ids.partitions).map(|(partition, &id)| OutputSite {
        edge: partition.edge,
        partition: id,
        partitioner: partition.partitioner,
        consumers: partition.channels.len() as u32,
    });
    Ok(Site {
        subtask,
        parallelism: vertex.parallelism,
        max_parallelism: graph.max_parallelism,
        gate: ids.gate,
        outputs: outputs.collect(),
    })
}

fn contexts(
    graph: &JobGraph,
    vertex: &Vertex,
    subtask: u32,
    deployment: &Deployment,
    restored: Option<u64>,
    budgets: &Budgets,
) -> Vec<RuntimeContext> {
    let context = |operator: &tidegate_graph::Operator| RuntimeContext {
        job: deployment.job,
        operator: operator.name.clone(),
        operator_id: operator.id,
        subtask,
        parallelism: vertex.parallelism,
        max_parallelism: graph.max_parallelism,
        epoch: deployment.epoch,
        attempt: deployment.attempt,
        restored,
        metrics: Metrics::default(),
        memory: budgets.operator(operator.managed_memory),
    };
    vertex.operators.iter().map(context).collect()
}
