//! What a slot counted, where other threads can read it.
//!
//! The slot writes in place about once a second and when an attempt ends; the control thread reads when it likes. Always: the
//! slot never waits for a reader (it skips a turn instead), and it allocates only when the set of tasks or counters changed.

use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use tidegate_exchange::Ports;

use crate::slot::message::{SlotMetrics, TaskMetrics};
use crate::task::Task;

/// The board of one slot. Clones show the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<SlotMetrics>>);

impl Board {
    /// The numbers as they were last written.
    pub fn read(&self) -> SlotMetrics {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets `write` change the numbers, unless somebody is reading them.
    pub(crate) fn write(&self, write: impl FnOnce(&mut SlotMetrics)) {
        match self.0.try_lock() {
            Ok(mut metrics) => write(&mut metrics),
            Err(TryLockError::Poisoned(poisoned)) => write(&mut poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
    }
}

/// Writes the tasks' numbers over the ones of the last time.
pub(crate) fn write_tasks<'a>(
    tasks: impl Iterator<Item = &'a Task>,
    ports: &Ports,
    lines: &mut Vec<TaskMetrics>,
) {
    let mut count = 0;
    for task in tasks {
        match lines.get_mut(count) {
            Some(line) => {
                if !task.refresh(line, ports) {
                    *line = task.metrics(ports);
                }
            }
            None => lines.push(task.metrics(ports)),
        }
        count += 1;
    }
    lines.truncate(count);
}
