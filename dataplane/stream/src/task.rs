//! A task's life: opened, restored, running, finishing, lingering for the final checkpoint, draining, finished.
//!
//! The driver owns a `Body` and decides what its next step is; it never touches records. The order inside a checkpoint is
//! fixed: the barrier leaves on all partitions, then the state is cut, then the gate resumes, then the snapshot is written
//! piece by piece while records go on. Always: while an event is on its way out, no record is; at most one snapshot is
//! being written; a barrier that cannot be honoured leaves as an abort marker.

mod checkpoint;
mod report;
mod time;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tidegate_exchange::plant::{Plant, planted};
use tidegate_exchange::{Event, GateId, GateItem, PartitionId, Ports};
use tidegate_memory::{Account, outside_accounts};

use crate::body::Body;
use crate::context::{Metrics, OpenCx, Waker};
use crate::error::{Fault, TaskError, panic_message};
use crate::files::{FileEvent, Files, Uncounted};
use crate::head::{Counts, Ran, StepCx};
use crate::limits::RESTORE_STEP_BYTES;
use crate::memory::TaskHeap;
use crate::slot::message::{AttemptId, EdgeLatency, HeldUp, SlotEvent, TaskId, TaskState};
use crate::slot::snapshot::{OperatorSnapshot, TaskRestore};
use crate::stage::Wait;

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// State is being read back.
    Restoring,
    /// Opened; waits for the start.
    Opened,
    /// Takes in records.
    Running,
    /// The input has ended; says what is left to say.
    Finishing,
    /// All is said; waits for the final checkpoint, and takes part in others.
    Lingering,
    /// The final checkpoint is complete; outputs are being handed on.
    Draining,
    /// Ended.
    Finished,
    /// Ended by an error.
    Failed,
}

/// An event on its way out, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Barrier(u64),
    /// `aligned`: the gate waits to be resumed.
    AbortMarker {
        checkpoint: u64,
        aligned: bool,
    },
    EndOfData,
    EndOfPartition,
}

impl Sending {
    fn event(self) -> Event {
        match self {
            Sending::Barrier(checkpoint) => Event::Barrier { checkpoint },
            Sending::AbortMarker { checkpoint, .. } => Event::AbortMarker { checkpoint },
            Sending::EndOfData => Event::EndOfData,
            Sending::EndOfPartition => Event::EndOfPartition,
        }
    }
}

/// A snapshot being written.
struct Snapshot {
    checkpoint: u64,
    parts: Vec<OperatorSnapshot>,
    finished: bool,
    alignment_ns: u64,
}

/// Who a task is and what it is made of.
pub struct TaskSeed {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Which task.
    pub id: TaskId,
    /// For people.
    pub name: String,
    /// The operators.
    pub body: Box<dyn Body>,
    /// The input.
    pub gate: Option<GateId>,
    /// The outputs.
    pub partitions: Vec<PartitionId>,
    /// Wakes the task.
    pub waker: Waker,
    /// Users' counters, by operator name.
    pub metrics: Vec<(String, Metrics)>,
    /// What its ends of edges record.
    pub latencies: Arc<[EdgeLatency]>,
}

/// What a step may use of the slot.
pub struct TaskCx<'a> {
    /// The slot's ports.
    pub ports: &'a mut Ports,
    /// The arena that buffers lie in.
    pub arena: &'a tidegate_arena::Arena,
    /// The files thread.
    pub files: &'a mut dyn Files,
    /// The slot's clock.
    pub now_ns: u64,
    /// Records and pulls a step may take.
    pub quantum_records: u32,
    /// Payload bytes a step may take.
    pub quantum_bytes: u64,
    /// What the slot has to tell.
    pub events: &'a mut Vec<SlotEvent>,
}

/// One task of a slot.
pub struct Task {
    seed: TaskSeed,
    heap: TaskHeap,
    phase: Phase,
    wait: Wait,
    /// Something was told that a step has to look at.
    poked: bool,
    sending: Option<Sending>,
    snapshot: Option<Snapshot>,
    /// The checkpoint to take at the next chance, for a source.
    trigger: Option<u64>,
    /// The newest checkpoint whose barrier or abort marker left.
    passed: u64,
    /// The newest checkpoint that is known to be void.
    void: u64,
    /// How long the gate took for the alignment that is being answered.
    alignment_ns: u64,
    /// It was finished already when it was restored: nothing is left to say.
    was_finished: bool,
    input_ended: bool,
    last_complete: bool,
    open: bool,
    counts: Counts,
    /// When the last step ended, and what has been waited for since; `None` if it only waits for its turn.
    stepped_ns: u64,
    waiting: Option<Wait>,
    /// Who held it up when that was last looked at, and when.
    holdup: (Option<HeldUp>, u64),
}

impl Task {
    /// A task that is not opened yet.
    pub fn new(seed: TaskSeed) -> Self {
        Task {
            heap: TaskHeap::new(&format!("task `{}` ({})", seed.name, seed.id.subtask)),
            seed,
            phase: Phase::Restoring,
            wait: Wait::NOTHING,
            poked: false,
            sending: None,
            snapshot: None,
            trigger: None,
            passed: 0,
            void: 0,
            alignment_ns: 0,
            was_finished: false,
            input_ended: false,
            last_complete: false,
            open: false,
            counts: Counts::default(),
            stepped_ns: 0,
            waiting: None,
            holdup: (None, 0),
        }
    }

    /// Which task.
    pub fn id(&self) -> TaskId {
        self.seed.id
    }

    /// What it holds.
    pub(crate) fn heap(&self) -> &TaskHeap {
        &self.heap
    }

    /// What it holds, for the slot to limit and to judge.
    pub(crate) fn heap_mut(&mut self) -> &mut TaskHeap {
        &mut self.heap
    }

    /// For people.
    pub fn name(&self) -> &str {
        &self.seed.name
    }

    /// Opens functions, readers and writers.
    ///
    /// # Errors
    /// Whatever an operator's `open` says; panics are caught.
    pub fn open(&mut self, restore: Option<TaskRestore>, mut cx: OpenCx<'_>) -> Result<(), TaskError> {
        self.was_finished = restore.as_ref().is_some_and(|restore| restore.finished);
        cx.restore = restore;
        self.open = true;
        let body = &mut self.seed.body;
        guarded(&self.seed.name, self.heap.account(), || body.open(&mut cx))?;
        let left = cx.restore.map(|restore| restore.operators).unwrap_or_default();
        left.first().map_or(Ok(()), |operator| Err(unclaimed(operator.operator).at(&self.seed.name)))
    }

    /// Whether state is still to be read back.
    pub fn restoring(&self) -> bool {
        self.phase == Phase::Restoring
    }

    /// Reads back some state.
    ///
    /// # Errors
    /// `Fault::State` if it is not what the job expects.
    pub fn restore(&mut self) -> Result<(), TaskError> {
        let body = &mut self.seed.body;
        if guarded(&self.seed.name, self.heap.account(), || body.restore(RESTORE_STEP_BYTES))? {
            self.phase = Phase::Opened;
        }
        Ok(())
    }

    /// Lets it run.
    pub fn start(&mut self, events: &mut Vec<SlotEvent>) {
        if self.phase == Phase::Opened {
            self.phase = Phase::Running;
            self.poked = true;
            self.tell(TaskState::Running, events);
        }
    }

    /// A checkpoint is to be taken; only sources act on it, the others hear of it through their gate.
    pub fn trigger(&mut self, checkpoint: u64) {
        if self.seed.gate.is_none() && checkpoint > self.passed {
            self.trigger = Some(checkpoint);
            self.poked = true;
        }
    }

    /// A checkpoint is durable.
    ///
    /// # Errors
    /// A panic of user code.
    pub fn complete(&mut self, checkpoint: u64, last: bool) -> Result<(), TaskError> {
        self.last_complete |= last;
        self.poked = true;
        let body = &mut self.seed.body;
        guarded(&self.seed.name, self.heap.account(), || {
            body.notify(checkpoint);
            Ok(())
        })
    }

    /// A checkpoint will not complete. A source that has not sent its barrier sends the abort marker instead, so that
    /// nobody waits for it.
    ///
    /// # Errors
    /// A panic of user code.
    pub fn aborted(&mut self, checkpoint: u64, files: &mut dyn Files) -> Result<(), TaskError> {
        self.void = self.void.max(checkpoint);
        if self.snapshot.as_ref().is_some_and(|snapshot| snapshot.checkpoint == checkpoint) {
            self.snapshot = None;
        }
        self.trigger(checkpoint);
        self.poked = true;
        let body = &mut self.seed.body;
        guarded(&self.seed.name, self.heap.account(), || {
            body.abort(checkpoint, &mut Uncounted(files));
            Ok(())
        })
    }

    /// Something happened to a file.
    ///
    /// # Errors
    /// Whatever an operator makes of it.
    pub fn file_event(&mut self, event: &FileEvent) -> Result<(), TaskError> {
        if !self.open || self.ended() {
            return Ok(());
        }
        self.poked = true;
        let body = &mut self.seed.body;
        guarded(&self.seed.name, self.heap.account(), || body.file_event(event))
    }

    /// Whether it will never step again.
    pub fn ended(&self) -> bool {
        matches!(self.phase, Phase::Finished | Phase::Failed)
    }

    /// Whether it ended of its own accord.
    pub fn finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// The time it waits for, if it waits for one.
    pub fn until_ns(&self) -> Option<u64> {
        if self.ended() { None } else { self.wait.until_ns }
    }

    /// From when on its slot must not sleep, so that it is stepped in time.
    pub fn awake_ns(&self) -> Option<u64> {
        if self.ended() { None } else { self.wait.awake_ns }
    }

    /// Its next step may find nothing to do.
    pub fn wake_for_nothing(&mut self) {
        self.poked = true;
    }

    /// Whether a step would find something to do.
    pub fn runnable(&mut self, ports: &mut Ports, now_ns: u64) -> bool {
        if matches!(self.phase, Phase::Restoring | Phase::Opened) || self.ended() {
            return false;
        }
        let woken = self.seed.waker.take();
        if self.poked || (woken && self.wait.external) {
            return true;
        }
        let input = self.wait.input && self.seed.gate.is_some_and(|gate| ports.readable(gate));
        let time = self.wait.until_ns.is_some_and(|until| until <= now_ns);
        input || time || (self.wait.output && self.output_ready(ports))
    }

    fn output_ready(&self, ports: &mut Ports) -> bool {
        let partitions = &self.seed.partitions;
        match (self.sending, self.phase) {
            (Some(_), _) => partitions.iter().all(|&id| ports.output(id).event_room()),
            (None, Phase::Draining) => partitions.iter().all(|&id| ports.output(id).drained()),
            (None, _) => partitions.iter().all(|&id| ports.writable(id)),
        }
    }

    /// One quantum.
    ///
    /// # Errors
    /// Whatever fails the task; a panic of user code is caught and is one of them.
    pub fn step(&mut self, cx: &mut TaskCx<'_>) -> Result<(), TaskError> {
        self.poked = false;
        self.wait = Wait::NOTHING;
        let name = std::mem::take(&mut self.seed.name);
        let account = self.heap.account().clone();
        let mut files = Uncounted(&mut *cx.files);
        let mut cx = TaskCx { ports: &mut *cx.ports, files: &mut files, events: &mut *cx.events, ..*cx };
        let result = guarded(&name, &account, || self.step_once(&mut cx));
        self.seed.name = name;
        self.counts.steps += 1;
        self.counts.records_out = self.seed.body.emitted();
        result
    }

    fn step_once(&mut self, cx: &mut TaskCx<'_>) -> Result<(), TaskError> {
        if !self.send(cx)? {
            return Ok(());
        }
        self.step_snapshot(cx)?;
        match self.phase {
            Phase::Running => self.run(cx)?,
            Phase::Finishing => self.finish(cx)?,
            Phase::Lingering => self.linger(cx)?,
            Phase::Draining => self.drain(cx),
            Phase::Restoring | Phase::Opened | Phase::Finished | Phase::Failed => {}
        }
        self.send(cx).map(|_| ())
    }

    // ---- records ----

    fn run(&mut self, cx: &mut TaskCx<'_>) -> Result<(), TaskError> {
        if self.was_finished && self.seed.gate.is_none() {
            self.phase = Phase::Finishing;
            return self.finish(cx);
        }
        let due = self.trigger.is_some();
        let ran = self.quantum(cx, |body, step| if due { body.settle(step) } else { body.run(step) })?;
        match ran {
            Ran::Quantum => self.poked = true,
            Ran::Wait(wait) => self.wait = self.wait.or(wait),
            Ran::End if due => {
                self.take_trigger();
                self.poked = true;
            }
            Ran::End => self.input_is_through(),
            Ran::Event(item) => self.gate_item(item)?,
        }
        Ok(())
    }

    fn quantum(
        &mut self,
        cx: &mut TaskCx<'_>,
        work: impl FnOnce(&mut dyn Body, &mut StepCx<'_>) -> Result<Ran, TaskError>,
    ) -> Result<Ran, TaskError> {
        let mut step = StepCx {
            ports: &mut *cx.ports,
            arena: cx.arena,
            files: &mut *cx.files,
            now_ns: cx.now_ns,
            records_left: cx.quantum_records,
            bytes_left: cx.quantum_bytes,
            counts: &mut self.counts,
        };
        work(&mut *self.seed.body, &mut step)
    }

    fn input_is_through(&mut self) {
        self.phase = Phase::Finishing;
        self.poked = true;
    }

    fn gate_item(&mut self, item: GateItem) -> Result<(), TaskError> {
        self.poked = true;
        match item {
            GateItem::Aligned { checkpoint, alignment_ns } => {
                self.alignment_ns = alignment_ns;
                self.begin(checkpoint, true);
            }
            GateItem::Aborted { checkpoint } => {
                self.sending = Some(Sending::AbortMarker { checkpoint, aligned: false });
            }
            GateItem::EndOfData => self.input_is_through(),
            GateItem::EndOfPartition => self.input_ended = true,
            GateItem::Data(_) => {
                let message = "data arrived behind the end of data";
                return Err(TaskError::new(Fault::Exchange, message));
            }
        }
        Ok(())
    }

    fn finish(&mut self, cx: &mut TaskCx<'_>) -> Result<(), TaskError> {
        let ran = if self.was_finished || planted(Plant::EndTooEarly) {
            Ran::End
        } else {
            self.quantum(cx, |body, step| body.finish(step))?
        };
        match ran {
            Ran::Quantum => self.poked = true,
            Ran::Wait(wait) => self.wait = self.wait.or(wait),
            Ran::End => self.sending = Some(Sending::EndOfData),
            Ran::Event(_) => {
                return Err(TaskError::new(Fault::Runtime, "a cursor over what is left gave an event"));
            }
        }
        Ok(())
    }

    /// All is said. Checkpoints go on until the final one is complete.
    fn linger(&mut self, cx: &mut TaskCx<'_>) -> Result<(), TaskError> {
        self.take_trigger();
        if let (None, Some(gate)) = (self.sending, self.seed.gate)
            && let Some(item) = cx.ports.input(gate).poll()
        {
            return self.gate_item(item);
        }
        let upstream_ended = self.seed.gate.is_none() || self.input_ended;
        if self.sending.is_none() && self.last_complete && upstream_ended && self.snapshot.is_none() {
            self.sending = Some(Sending::EndOfPartition);
        }
        self.wait = self.wait.or(Wait::INPUT);
        Ok(())
    }

    fn drain(&mut self, cx: &mut TaskCx<'_>) {
        if !self.output_ready(cx.ports) {
            self.wait = Wait::OUTPUT;
            return;
        }
        self.phase = Phase::Finished;
        self.close(cx.files);
        self.tell(TaskState::Finished, cx.events);
    }

    // ---- the end ----

    /// Ends it with an error; its functions are closed.
    pub fn fail(&mut self, files: &mut dyn Files, events: &mut Vec<SlotEvent>) {
        self.phase = Phase::Failed;
        self.close(files);
        self.tell(TaskState::Failed, events);
    }

    /// Ends it because somebody said so.
    pub fn cancel(&mut self, files: &mut dyn Files, events: &mut Vec<SlotEvent>) {
        self.close(files);
        if !self.ended() {
            self.phase = Phase::Failed;
            self.tell(TaskState::Canceled, events);
        }
    }

    fn close(&mut self, files: &mut dyn Files) {
        self.snapshot = None;
        if std::mem::take(&mut self.open) {
            let body = &mut self.seed.body;
            // Nobody is left to be told: the task is over, and the first error has been reported.
            let _ = guarded(&self.seed.name, self.heap.account(), || {
                body.close(&mut Uncounted(files));
                Ok(())
            });
        }
    }

    /// Reports a state.
    pub fn tell(&self, state: TaskState, events: &mut Vec<SlotEvent>) {
        self.report(events, || SlotEvent::TaskState {
            attempt: self.seed.attempt,
            task: self.seed.id,
            state,
        });
    }

    /// Tells the slot. What is told is freed by whoever hears it, so nothing of it may come from the task's account: it is
    /// copied where the task made it.
    fn report(&self, events: &mut Vec<SlotEvent>, event: impl FnOnce() -> SlotEvent) {
        outside_accounts(|| events.push(event()));
    }

    /// Whether something outside of the exchange can make it runnable.
    pub fn waits_outside(&self) -> bool {
        self.wait.external
            || self.wait.memory
            || self.wait.until_ns.is_some()
            || matches!(self.phase, Phase::Restoring | Phase::Opened | Phase::Lingering)
            || self.ended()
    }
}

#[cold]
fn unclaimed(operator: u64) -> TaskError {
    let message = format!(
        "the checkpoint has state of operator {operator:#018x}, but the job has no such operator any more: give the \
         operator that replaces it the uid or the name path of the old one"
    );
    TaskError::new(Fault::Setup, message)
}

/// Runs user code under the task's account; a panic of it is an error of the task named `name`.
fn guarded<T>(
    name: &str,
    account: &Account,
    work: impl FnOnce() -> Result<T, TaskError>,
) -> Result<T, TaskError> {
    match catch_unwind(AssertUnwindSafe(|| account.run(work))) {
        Ok(result) => result.map_err(|error| error.at(name)),
        Err(panic) => Err(TaskError::new(Fault::Panic, panic_message(&*panic)).at(name)),
    }
}
