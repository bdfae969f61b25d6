//! From waiting to running: take slots, prepare them all, learn their outputs, start them all.
//!
//! Always: `Prepare` goes out only when every slot of the job is ours; `Start` only when every slot has
//! answered and older attempts are fenced in every output directory.

use super::job::{Attempt, Cx, Job, Phase, SlotPhase, clash_check};
use super::saver::Goal;
use super::submit::shortage;
use crate::convert;
use crate::limits::PREPARE_TIMEOUT_MS;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_checkpoint as ckpt;
use tidegate_graph::{SlotId, place, segment_need};
use tidegate_rpc::{Fault, FaultKind, Prepare, TaskId, TaskState, ToTaskManager};

impl Job {
    pub(super) fn is_waiting(&self, now_ms: u64) -> bool {
        self.point.is_some()
            && matches!(self.phase, Phase::Waiting { not_before_ms } if not_before_ms <= now_ms)
    }

    /// Deploys if there are slots for all.
    pub(super) fn try_deploy(&mut self, cx: &mut Cx<'_>) {
        let placement = match place(&self.graph, &cx.registry.offers()) {
            Ok(placement) => placement,
            Err(error) => {
                self.waiting_for = Some(error.to_string());
                return self.tasks_wait();
            }
        };
        let (record_max, region) = cx.registry.record_max(&placement);
        for need in segment_need(&self.graph, &placement, region) {
            let found = cx.registry.get(need.slot.taskmanager).map(|found| &found.register);
            if let Some(short) = found.and_then(|register| shortage(&need, register, region)) {
                self.waiting_for = Some(short);
                return self.tasks_wait();
            }
        }
        self.waiting_for = None;
        let number = self.record.attempt;
        let slots: BTreeMap<SlotId, SlotPhase> =
            placement.slots().into_iter().map(|slot| (slot, SlotPhase::Preparing)).collect();
        for slot in slots.keys() {
            cx.registry.occupy(*slot, (self.id, number));
        }
        self.place_tasks(cx, &placement);
        self.ended_early.clear();
        self.attempt =
            Some(Attempt { number, slots, outputs: BTreeSet::new(), started: false, all_running: false });
        self.phase = Phase::Preparing { deadline_ms: cx.now_ms + PREPARE_TIMEOUT_MS };
        self.send_prepare(cx, &placement, record_max);
    }

    fn tasks_wait(&mut self) {
        for task in &mut self.tasks {
            task.state = TaskState::Scheduled;
            task.slot = None;
            task.started_ms = None;
            task.ended_ms = None;
        }
    }

    fn send_prepare(&self, cx: &mut Cx<'_>, placement: &tidegate_graph::Placement, record_max: u32) {
        let point =
            self.point.as_ref().expect("invariant: a restore point was chosen before slots are taken");
        let metadata = point.checkpoint.as_deref();
        let hosts = cx.registry.all().map(|found| {
            let register = &found.register;
            (register.taskmanager, (found.address, register.slots, &register.memory))
        });
        let hosts = hosts.collect();
        for (taskmanager, slots) in convert::plan(&self.graph, placement, &hosts, metadata) {
            let prepare = Prepare {
                job: self.id,
                job_name: self.record.request.job.clone(),
                args: self.record.request.args.clone(),
                parallelism: self.record.request.parallelism,
                graph_fingerprint: self.record.graph_fingerprint,
                attempt: self.record.attempt,
                restored: metadata.map(|metadata| metadata.id),
                first_checkpoint: point.first_checkpoint,
                checkpoints: ckpt::layout::checkpoints_dir(self.id.0),
                record_max,
                slots,
            };
            cx.send(taskmanager, ToTaskManager::Prepare(Box::new(prepare)));
        }
    }

    /// A slot answered `Prepare`.
    pub(super) fn prepared(
        &mut self,
        cx: &mut Cx<'_>,
        number: u32,
        slot: SlotId,
        outputs: Vec<String>,
        refusal: Option<Fault>,
    ) {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.number == number) else { return };
        let Some(phase) = attempt.slots.get_mut(&slot) else { return };
        if *phase != SlotPhase::Preparing {
            return;
        }
        if let Some(fault) = refusal {
            // A slot that refused holds nothing, but says so itself with `Closed`.
            let (kind, cause) = (fault.kind, self.blame(fault, slot));
            self.fail(cx, kind, "PrepareFailed", cause, None, Some(slot));
            return self.save_if_due(cx);
        }
        *phase = SlotPhase::Prepared;
        attempt.outputs.extend(outputs);
        let all = attempt.slots.values().all(|phase| *phase == SlotPhase::Prepared);
        if all && matches!(self.phase, Phase::Preparing { .. }) {
            self.all_prepared(cx);
        }
    }

    fn all_prepared(&mut self, cx: &mut Cx<'_>) {
        let attempt = self.attempt.as_ref().expect("invariant: an attempt is being prepared");
        let outputs: Vec<String> = attempt.outputs.iter().cloned().collect();
        if let Some((root, other)) = clash_check(&outputs, cx.others) {
            let reason = format!("output directory {root} belongs to job {other}; choose another");
            self.fail(cx, FaultKind::Permanent, "OutputInUse", reason, None, None);
            return self.save_if_due(cx);
        }
        let known: BTreeSet<&str> = self.coordinator.roots().collect();
        if outputs.iter().all(|root| known.contains(root.as_str())) {
            return self.fence_outputs(cx);
        }
        // The next leader must know where leftovers may lie before there are any.
        self.saver.require(Goal::Outputs);
        self.save_if_due(cx);
    }

    /// The outputs are on record: older attempts are fenced there.
    pub(super) fn fence_outputs(&mut self, cx: &mut Cx<'_>) {
        let Some(attempt) = &self.attempt else { return };
        let (attempt, roots) = (attempt.number, attempt.outputs.iter().cloned().collect());
        self.coordinate(cx, ckpt::Input::Outputs { attempt, roots });
    }

    /// Second phase: everybody is prepared and fenced.
    pub(super) fn start(&mut self, cx: &mut Cx<'_>, number: u32) {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.number == number) else { return };
        if !matches!(self.phase, Phase::Preparing { .. }) || attempt.started {
            return;
        }
        attempt.started = true;
        self.phase = Phase::Running;
        self.record.state = crate::record::JobState::Running;
        for task in self.tasks.iter_mut().filter(|task| task.state == TaskState::Deploying) {
            task.state = TaskState::Initializing;
        }
        let job = self.id;
        self.tell_all(cx, || ToTaskManager::Start { job, attempt: number });
        self.saver.touch();
        self.check_all_running(cx);
        self.save_if_due(cx);
    }

    /// A task changed its state.
    pub(super) fn task_state(&mut self, cx: &mut Cx<'_>, number: u32, id: TaskId, state: TaskState) {
        if self.attempt.as_ref().is_none_or(|attempt| attempt.number != number) {
            return;
        }
        let now_ms = cx.now_ms;
        let Some(task) = self.task_mut(id).filter(|task| !task.state.is_terminal()) else { return };
        task.state = state;
        if state.is_terminal() {
            task.ended_ms = Some(now_ms);
        }
        self.check_all_running(cx);
    }

    /// When the last task runs, checkpoints may begin.
    fn check_all_running(&mut self, cx: &mut Cx<'_>) {
        let running = self.tasks.iter().all(|task| task.state == TaskState::Running);
        let Some(attempt) = &mut self.attempt else { return };
        if self.phase != Phase::Running || !running || attempt.all_running {
            return;
        }
        attempt.all_running = true;
        self.running_since_ms = Some(cx.now_ms);
        let number = attempt.number;
        let tasks: Vec<ckpt::Task> = self.tasks.iter().map(|task| convert::task(task.id)).collect();
        let has_input: BTreeSet<u32> = self.graph.edges.iter().map(|edge| edge.to).collect();
        let sources = tasks.iter().copied().filter(|task| !has_input.contains(&task.vertex)).collect();
        self.coordinate(cx, ckpt::Input::Started { attempt: number, tasks, sources });
        let ended: Vec<TaskId> = std::mem::take(&mut self.ended_early);
        for task in ended {
            self.coordinate(cx, ckpt::Input::EndOfData { attempt: number, task: convert::task(task) });
        }
    }

    /// A task has seen the end of its input.
    pub(super) fn end_of_data(&mut self, cx: &mut Cx<'_>, number: u32, task: TaskId) {
        let Some(attempt) = self.attempt.as_ref().filter(|attempt| attempt.number == number) else { return };
        if attempt.all_running {
            self.coordinate(cx, ckpt::Input::EndOfData { attempt: number, task: convert::task(task) });
        } else if !self.ended_early.contains(&task) {
            // A short input can be over before the last task has said that it runs.
            self.ended_early.push(task);
        }
    }

    pub(super) fn acknowledge(
        &mut self,
        cx: &mut Cx<'_>,
        attempt: u32,
        task: TaskId,
        checkpoint: u64,
        snapshot: tidegate_rpc::TaskSnapshot,
    ) {
        let part = Box::new(convert::part(task, snapshot));
        let epoch = cx.config.epoch;
        self.coordinate(cx, ckpt::Input::Acknowledge { epoch, attempt, checkpoint, part });
        self.save_if_due(cx);
    }

    pub(super) fn decline(
        &mut self,
        cx: &mut Cx<'_>,
        attempt: u32,
        task: TaskId,
        checkpoint: u64,
        reason: String,
    ) {
        let (epoch, task) = (cx.config.epoch, convert::task(task));
        self.coordinate(cx, ckpt::Input::Decline { epoch, attempt, checkpoint, task, reason });
        self.save_if_due(cx);
    }
}
