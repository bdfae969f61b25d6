//! A JobManager for tests: it plans attempts, collects checkpoints, commits files and restores, and decides nothing else.
//!
//! It owns the job's graph, the disk and what is known of the present attempt; commands it has for all slots wait in
//! `take_commands`. It does no I/O and reads no clock, so one thread or many may drive it. Always: checkpoints complete in
//! order; a file is committed only after its checkpoint is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::Bytes;
use tidegate_exchange::{AttemptPlan, ChannelPlan, GatePlan, PartitionPlan, SlotId, TaskPorts};
use tidegate_graph::{Channel, JobGraph, PENDING, Partitioner, PendingFolder, Subtask, group_range};
use tidegate_record::{Field, from_snapshot};

use crate::jobs::Jobs;
use crate::memory::SlotMemory;
use crate::slot::{
    AttemptId, Deployment, Failure, FailureKind, OperatorRestore, OperatorSnapshot, SlotCommand, SlotEvent,
    StatePayload, TaskDeployment, TaskId, TaskRestore, TaskSnapshot, TaskState,
};
use crate::testing::files::Store;

const JOB: u128 = 1;
const EPOCH: u64 = 1;

/// What is to be run, and where.
#[derive(Clone, Debug)]
pub struct ManagedJob {
    /// The jobs of the binary.
    pub jobs: Jobs,
    /// The job's name.
    pub name: String,
    /// Its own arguments.
    pub args: Vec<String>,
    /// Default parallelism.
    pub parallelism: u32,
    /// The slots; subtask i runs in slot i modulo their number.
    pub slots: Vec<SlotId>,
    /// Data addresses of TaskManagers, where slots are in different ones.
    pub peers: BTreeMap<u64, SocketAddr>,
    /// Bytes of the largest record; 0 if records have to fit a segment.
    pub record_max: u32,
    /// What the tasks of each slot may hold.
    pub memory: SlotMemory,
}

struct Pending {
    checkpoint: u64,
    parts: BTreeMap<TaskId, TaskSnapshot>,
    last: bool,
}

struct Complete {
    checkpoint: u64,
    parts: BTreeMap<TaskId, TaskSnapshot>,
    graph: JobGraph,
}

/// What became of the present attempt.
#[derive(Default)]
struct Progress {
    prepared: BTreeSet<SlotId>,
    closed: BTreeSet<SlotId>,
    ended: BTreeSet<TaskId>,
    finished: BTreeSet<TaskId>,
    failure: Option<String>,
    kind: Option<FailureKind>,
    declined: BTreeMap<u64, String>,
}

/// The JobManager of one job.
pub struct Manager {
    job: ManagedJob,
    store: Store,
    graph: JobGraph,
    attempt: u32,
    next_checkpoint: u64,
    pending: Option<Pending>,
    complete: Option<Complete>,
    progress: Progress,
    commands: Vec<SlotCommand>,
}

impl Manager {
    /// Builds the job's graph.
    ///
    /// # Errors
    /// Why it cannot be built.
    pub fn new(job: ManagedJob, store: Store) -> Result<Self, String> {
        let graph = graph(&job)?;
        Ok(Manager {
            job,
            store,
            graph,
            attempt: 0,
            next_checkpoint: 1,
            pending: None,
            complete: None,
            progress: Progress::default(),
            commands: Vec::new(),
        })
    }

    /// Plans the next attempt, from the last complete checkpoint if there is one: a `Prepare` per slot, in their order.
    pub fn next_attempt(&mut self) -> Vec<SlotCommand> {
        self.attempt += 1;
        self.progress = Progress::default();
        self.pending = None;
        let deployments = self.job.slots.iter().map(|&slot| self.deployment(slot));
        deployments.map(|deployment| SlotCommand::Prepare(Box::new(deployment))).collect()
    }

    /// Changes what tasks may hold in attempts to come.
    pub fn limit(&mut self, memory: SlotMemory) {
        self.job.memory = memory;
    }

    /// Changes arguments and parallelism for attempts to come.
    ///
    /// # Errors
    /// Why the job cannot be built with them.
    pub fn reconfigure(&mut self, args: &[String], parallelism: u32) -> Result<(), String> {
        self.job.args = args.to_vec();
        self.job.parallelism = parallelism;
        self.graph = graph(&self.job)?;
        Ok(())
    }

    /// The present attempt.
    pub fn id(&self) -> AttemptId {
        AttemptId { job: JOB, attempt: self.attempt }
    }

    /// Lets every slot start.
    pub fn start(&mut self) {
        self.commands.push(SlotCommand::Start(self.id()));
    }

    /// Begins a checkpoint; `last`: tasks end once it is complete.
    pub fn trigger(&mut self, last: bool) -> u64 {
        let checkpoint = self.next_checkpoint;
        self.next_checkpoint += 1;
        self.pending = Some(Pending { checkpoint, parts: BTreeMap::new(), last });
        self.commands.push(SlotCommand::Trigger { attempt: self.id(), checkpoint });
        checkpoint
    }

    /// Gives the pending checkpoint up.
    pub fn abort(&mut self) {
        if let Some(Pending { checkpoint, .. }) = self.pending.take() {
            self.commands.push(SlotCommand::CheckpointAborted { attempt: self.id(), checkpoint });
        }
    }

    /// Ends the attempt, as after a failure.
    pub fn cancel(&mut self) {
        self.progress.failure = None;
        self.pending = None;
        self.commands.push(SlotCommand::Cancel(self.id()));
    }

    /// Takes what every slot is to be told.
    pub fn take_commands(&mut self) -> Vec<SlotCommand> {
        std::mem::take(&mut self.commands)
    }

    /// The attempt is over: throws away what it did not commit.
    pub fn discard_pending(&self) {
        let folder = PendingFolder { job: JOB, epoch: EPOCH, attempt: self.attempt };
        self.store.remove_all(&format!("{PENDING}/{folder}/"));
    }

    /// Every slot has prepared the attempt.
    pub fn prepared(&self) -> bool {
        self.progress.prepared.len() == self.job.slots.len()
    }

    /// Every slot has closed the attempt.
    pub fn closed(&self) -> bool {
        self.progress.closed.len() == self.job.slots.len()
    }

    /// Every task has read all its input and emitted everything.
    pub fn ended(&self) -> bool {
        self.progress.ended.len() == self.graph.subtasks().count()
    }

    /// Every task has finished.
    pub fn finished(&self) -> bool {
        self.progress.finished.len() == self.graph.subtasks().count()
    }

    /// A checkpoint is neither complete nor given up.
    pub fn checkpointing(&self) -> bool {
        self.pending.is_some()
    }

    /// Why a checkpoint of this attempt was declined.
    pub fn declined(&self, checkpoint: u64) -> Option<&str> {
        self.progress.declined.get(&checkpoint).map(String::as_str)
    }

    /// What failed in this attempt.
    pub fn failure(&self) -> Option<&str> {
        self.progress.failure.as_deref()
    }

    /// What kind of failure it was.
    pub fn failure_kind(&self) -> Option<FailureKind> {
        self.progress.kind
    }

    /// The last complete checkpoint.
    pub fn completed(&self) -> Option<u64> {
        self.complete.as_ref().map(|complete| complete.checkpoint)
    }

    /// The parts of the last complete checkpoint.
    pub fn snapshots(&self) -> impl Iterator<Item = (TaskId, &TaskSnapshot)> {
        self.complete.iter().flat_map(|complete| &complete.parts).map(|(id, part)| (*id, part))
    }

    /// The job's graph.
    pub fn graph(&self) -> &JobGraph {
        &self.graph
    }

    /// The disk.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What the sink `collect(name)` has committed: by subtask, in order.
    ///
    /// # Panics
    /// If it holds something else than `T`.
    pub fn collected<T: Field>(&self, name: &str) -> Vec<T> {
        let folder = format!("{name}/part-");
        let mut items = Vec::new();
        for path in self.store.paths().iter().filter(|path| path.starts_with(&folder)) {
            let bytes = self.store.read(path).unwrap_or_default();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (item, used) =
                    from_snapshot::<T>(rest).expect("invariant: the sink's type is the test's");
                items.push(item);
                rest = &rest[used..];
            }
        }
        items
    }

    // ---- what slots tell ----

    /// Takes in what `slot` has to tell; of older attempts nothing counts, and nothing counts twice.
    pub fn handle(&mut self, slot: SlotId, event: SlotEvent) {
        let id = self.id();
        match event {
            SlotEvent::Prepared { attempt, result } if attempt == id => match result {
                Ok(()) => {
                    self.progress.prepared.insert(slot);
                }
                Err(Failure { kind, cause }) => {
                    self.progress.kind.get_or_insert(kind);
                    self.fail(cause);
                }
            },
            SlotEvent::TaskState { attempt, task, state: TaskState::Finished } if attempt == id => {
                self.progress.finished.insert(task);
            }
            SlotEvent::EndOfData { attempt, task } if attempt == id => {
                self.progress.ended.insert(task);
            }
            SlotEvent::Failed { attempt, cause, kind, .. } if attempt == id => {
                self.progress.kind.get_or_insert(kind);
                self.fail(cause);
            }
            SlotEvent::Acknowledge { attempt, task, checkpoint, snapshot } if attempt == id => {
                self.acknowledge(task, checkpoint, snapshot);
            }
            SlotEvent::Decline { attempt, checkpoint, reason, .. } if attempt == id => {
                self.progress.declined.entry(checkpoint).or_insert(reason);
                if self.pending.as_ref().is_some_and(|pending| pending.checkpoint == checkpoint) {
                    self.abort();
                }
            }
            SlotEvent::Closed { attempt, .. } if attempt == id => {
                self.progress.closed.insert(slot);
            }
            _ => {}
        }
    }

    fn fail(&mut self, cause: String) {
        self.progress.failure.get_or_insert(cause);
    }

    fn acknowledge(&mut self, task: TaskId, checkpoint: u64, snapshot: TaskSnapshot) {
        let Some(pending) = self.pending.as_mut().filter(|pending| pending.checkpoint == checkpoint) else {
            return;
        };
        if let Some(part) = snapshot.operators.iter().find(|part| !in_order(part)) {
            let what =
                format!("the groups of operator {:016x} are out of order or outside its file", part.operator);
            return self.fail(what);
        }
        pending.parts.insert(task, snapshot);
        if pending.parts.len() < self.graph.subtasks().count() {
            return;
        }
        let Some(Pending { checkpoint, parts, last }) = self.pending.take() else { return };
        for committable in parts.values().flat_map(|part| &part.operators).flat_map(|part| &part.committables)
        {
            if !self.store.rename(&committable.pending, &committable.target, committable.hash) {
                self.fail(format!("cannot commit {}", committable.pending));
            }
        }
        self.complete = Some(Complete { checkpoint, parts, graph: self.graph.clone() });
        self.commands.push(SlotCommand::CheckpointComplete { attempt: self.id(), checkpoint, last });
    }

    // ---- planning ----

    fn slot_of(&self, subtask: u32) -> SlotId {
        self.job.slots[subtask as usize % self.job.slots.len()]
    }

    fn deployment(&self, slot: SlotId) -> Deployment {
        let here = |subtask: &Subtask| self.slot_of(subtask.subtask) == slot;
        let subtasks: Vec<Subtask> = self.graph.subtasks().filter(here).collect();
        let ports = subtasks.iter().zip(0..).map(|(&subtask, task)| self.ports(subtask, task)).collect();
        let tasks = subtasks.iter().map(|subtask| {
            let id = TaskId { vertex: subtask.vertex, subtask: subtask.subtask };
            TaskDeployment {
                id,
                restore: self.complete.as_ref().map(|complete| self.restore_of(id, complete)),
            }
        });
        let peers = self.job.peers.clone();
        Deployment {
            job: JOB,
            job_name: self.job.name.clone(),
            args: self.job.args.clone(),
            parallelism: self.job.parallelism,
            graph_fingerprint: self.graph.fingerprint(),
            epoch: EPOCH,
            attempt: self.attempt,
            ports: AttemptPlan {
                job: JOB,
                epoch: EPOCH,
                attempt: self.attempt,
                record_max: self.job.record_max,
                tasks: ports,
                peers,
            },
            tasks: tasks.collect(),
            memory: self.job.memory,
        }
    }

    fn ports(&self, subtask: Subtask, task: u32) -> TaskPorts {
        let channel = |channel: Channel| ChannelPlan {
            channel: channel.channel,
            peer: self.slot_of(channel.peer.subtask),
            input: channel.input,
            schema: channel.schema,
        };
        let gate = self.graph.gate(subtask).map(|gate| GatePlan {
            name: gate.name,
            channels: gate.channels.into_iter().map(channel).collect(),
        });
        let partitions = self.graph.partitions(subtask).into_iter().map(|partition| PartitionPlan {
            name: partition.name,
            broadcast: partition.partitioner == Partitioner::Broadcast,
            channels: partition.channels.into_iter().map(channel).collect(),
        });
        TaskPorts { task, gate, partitions: partitions.collect() }
    }

    /// What the subtask goes on from: its own part, or with another parallelism everybody's.
    fn restore_of(&self, id: TaskId, complete: &Complete) -> TaskRestore {
        let parallelism = self.graph.vertices[id.vertex as usize].parallelism;
        let same = parallelism == complete.graph.vertices[id.vertex as usize].parallelism;
        let wanted = |old: &TaskId| old.vertex == id.vertex && (!same || old.subtask == id.subtask);
        let mut restore = TaskRestore { checkpoint: complete.checkpoint, ..TaskRestore::default() };
        let mut operators: BTreeMap<u64, OperatorRestore> = BTreeMap::new();
        for (_, part) in complete.parts.iter().filter(|(old, _)| wanted(old)) {
            restore.finished = same && part.finished;
            for operator in &part.operators {
                let entry = operators.entry(operator.operator).or_default();
                entry.operator = operator.operator;
                entry.schema = entry.schema.max(operator.schema);
                entry.payloads.push(self.payload(operator, id.subtask, parallelism, same));
            }
        }
        restore.operators = operators.into_values().collect();
        restore
    }

    /// One old instance's state: the whole file, or with another parallelism only the slices of the new owner.
    fn payload(
        &self,
        operator: &OperatorSnapshot,
        subtask: u32,
        parallelism: u32,
        same: bool,
    ) -> StatePayload {
        let file = operator.file.as_ref().and_then(|file| self.store.read(&file.path)).unwrap_or_default();
        let meta = operator.inline.clone();
        if same {
            return StatePayload { meta, bytes: Bytes::from(file), groups: None };
        }
        let range = group_range(subtask, parallelism, self.graph.max_parallelism);
        let slices = operator.groups.iter().filter(|slice| range.contains(&slice.group));
        let pieces =
            slices.flat_map(|slice| &file[slice.offset as usize..(slice.offset + slice.len) as usize]);
        let groups = Some((*range.start(), *range.end()));
        StatePayload { meta, bytes: pieces.copied().collect::<Vec<u8>>().into(), groups }
    }
}

/// What the real JobManager demands of an acknowledgement's slices.
fn in_order(part: &OperatorSnapshot) -> bool {
    let len = part.file.as_ref().map_or(0, |file| file.len);
    part.groups.is_sorted_by(|one, next| one.group < next.group)
        && part.groups.iter().all(|slice| slice.offset + slice.len <= len)
}

fn graph(job: &ManagedJob) -> Result<JobGraph, String> {
    let built = job.jobs.build(&job.name, &job.args, job.parallelism);
    built.map(|built| built.graph).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{collect, items};
    use crate::{Args, Job, JobResult};

    fn job(job: &mut Job, _args: &Args) -> JobResult {
        job.source("one", items([1u64])).sink("out", collect("out"));
        Ok(())
    }

    /// A slot that is told to cancel what it does not know says that it is closed, each time it is told.
    #[test]
    fn a_slot_that_closes_twice_does_not_stand_for_another() {
        let slots: Vec<SlotId> = [0, 1].map(|slot| SlotId { taskmanager: 1, slot }).into();
        let job = ManagedJob {
            memory: SlotMemory::default(),
            jobs: Jobs::new([("job", job)]),
            name: "job".into(),
            args: Vec::new(),
            parallelism: 2,
            slots: slots.clone(),
            peers: BTreeMap::new(),
            record_max: 0,
        };
        let mut manager = Manager::new(job, Store::default()).expect("it can be built");
        manager.next_attempt();
        let attempt = manager.id();
        for (slot, all) in [(0, false), (0, false), (1, true)] {
            manager.handle(slots[slot], SlotEvent::Prepared { attempt, result: Ok(()) });
            manager.handle(slots[slot], SlotEvent::Closed { attempt, segments_free: 8 });
            assert_eq!((manager.prepared(), manager.closed()), (all, all), "slot {slot}");
        }
    }
}
