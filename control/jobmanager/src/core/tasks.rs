//! A job's tasks and exceptions as people see them, and messages to all of its TaskManagers.
//!
//! Always: a task that is over stays over until the next attempt.

use super::Level;
use super::job::{Cx, Job, TaskInfo};
use crate::record::{ExceptionRecord, JobState};
use std::collections::BTreeSet;
use tidegate_graph::{Placement, SlotId};
use tidegate_rpc::{TaskId, TaskMetrics, TaskState};

impl Job {
    /// Adds to the exceptions and logs.
    pub(super) fn exception(
        &mut self,
        cx: &mut Cx<'_>,
        name: &str,
        text: String,
        task: Option<TaskId>,
        slot: Option<SlotId>,
    ) {
        let at = task.map_or(String::new(), |task| format!(" at {}", self.task_name(task)));
        cx.log(Level::Warn, format!("job {}: {name}{at}: {text}", self.id));
        self.push_exception(cx, name, text, task, slot);
    }

    pub(super) fn push_exception(
        &mut self,
        cx: &mut Cx<'_>,
        name: &str,
        text: String,
        task: Option<TaskId>,
        slot: Option<SlotId>,
    ) {
        let exception = ExceptionRecord {
            timestamp_ms: cx.now_ms,
            name: name.to_owned(),
            text: tidegate_rpc::limits::clip(text),
            task: task.map(|task| self.task_name(task)),
            taskmanager: slot.map(|slot| format!("{:016x}", slot.taskmanager)),
        };
        self.record.push_exception(exception);
        self.saver.touch();
    }

    pub(crate) fn task_name(&self, task: TaskId) -> String {
        match self.graph.vertices.get(task.vertex as usize) {
            Some(vertex) => format!("{} ({}/{})", vertex.name, task.subtask + 1, vertex.parallelism),
            None => task.to_string(),
        }
    }

    /// Sends one message to every TaskManager of the attempt.
    pub(super) fn tell_all(&self, cx: &mut Cx<'_>, message: impl Fn() -> tidegate_rpc::ToTaskManager) {
        let Some(attempt) = &self.attempt else { return };
        let taskmanagers: BTreeSet<u64> = attempt.slots.keys().map(|slot| slot.taskmanager).collect();
        for taskmanager in taskmanagers {
            cx.send(taskmanager, message());
        }
    }

    /// The task with this id.
    pub(super) fn task_mut(&mut self, id: TaskId) -> Option<&mut TaskInfo> {
        self.tasks.iter_mut().find(|task| task.id == id)
    }

    /// Counters of a task of the current attempt.
    pub(super) fn measured(&mut self, metrics: &TaskMetrics) {
        if metrics.attempt == self.record.attempt
            && let Some(task) = self.task_mut(metrics.task)
        {
            task.metrics = Some(*metrics);
        }
    }

    pub(super) fn set_tasks(&mut self, now_ms: u64, state: TaskState) {
        for task in self.tasks.iter_mut().filter(|task| !task.state.is_terminal()) {
            task.state = state;
            if state.is_terminal() {
                task.ended_ms = Some(now_ms);
            }
        }
    }

    pub(super) fn mark_tasks_over(&mut self, state: JobState) {
        let task = match state {
            JobState::Finished => TaskState::Finished,
            JobState::Failed => TaskState::Failed,
            _ => TaskState::Canceled,
        };
        for info in &mut self.tasks {
            info.state = task;
        }
    }

    /// Tasks of a fresh attempt, by slot.
    pub(super) fn place_tasks(&mut self, cx: &Cx<'_>, placement: &Placement) {
        for task in &mut self.tasks {
            let (vertex, subtask) = (task.id.vertex, task.id.subtask);
            let slot = placement.slot_of(tidegate_graph::Subtask { vertex, subtask });
            task.slot = Some(slot);
            task.host = cx
                .registry
                .get(slot.taskmanager)
                .map_or(String::new(), |found| format!("{}:{}", found.register.host, found.address.port()));
            task.state = TaskState::Deploying;
            task.started_ms = Some(cx.now_ms);
            task.ended_ms = None;
            task.metrics = None;
        }
    }
}
