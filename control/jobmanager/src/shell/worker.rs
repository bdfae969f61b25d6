//! One worker for each job: its store operations and saves, one after the other.
//!
//! It owns nothing of the job. Always: results come back in the order in which the work was given.

use super::actor::Event;
use crate::core::Input;
use crate::directory;
use crate::limits::STORE_QUEUE;
use crate::record::JobRecord;
use std::path::PathBuf;
use tidegate_checkpoint::local::OwnFiles;
use tidegate_checkpoint::{LocalStore, StoreDone, StoreOp};
use tidegate_rpc::{JobId, caught};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Something to do.
#[derive(Debug)]
pub(super) enum Work {
    /// An operation of the coordinator.
    Store { op: u64, body: Box<StoreOp> },
    /// A record to write.
    Save { save: u64, record: Box<JobRecord> },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Worker {
    work: mpsc::Sender<Work>,
    task: JoinHandle<()>,
}

impl Worker {
    pub(super) fn start(job: JobId, store: LocalStore, root: PathBuf, events: mpsc::Sender<Event>) -> Self {
        let (work, mut queue) = mpsc::channel(STORE_QUEUE);
        let task = tokio::spawn(async move {
            while let Some(work) = queue.recv().await {
                let input = match work {
                    Work::Store { op, body } => {
                        let store = store.clone();
                        let done = caught(async move { store.execute(*body).await }).await;
                        // As an operation that failed: it is tried again, and its words are in the log.
                        let done = done.unwrap_or_else(|panic| StoreDone::Failed(panic.into()));
                        Input::Store { job, op, done }
                    }
                    Work::Save { save, record } => {
                        let root = root.clone();
                        let write = move || directory::save(&OwnFiles, &root, job, &record);
                        let written = caught(async { tokio::task::spawn_blocking(write).await }).await;
                        let result = match written {
                            Ok(Ok(result)) => result,
                            Ok(Err(error)) => Err(format!("a store thread ended: {error}")),
                            Err(panic) => Err(panic),
                        };
                        Input::Saved { job, save, result }
                    }
                };
                if events.send(Event::Input(Box::new(input))).await.is_err() {
                    return;
                }
            }
        });
        Worker { work, task }
    }

    pub(super) fn send(&self, work: Work) {
        self.work.try_send(work).expect("invariant: a job has one operation and one save under way");
    }

    /// Lets what was given be done, then ends.
    pub(super) async fn finish(self) {
        drop(self.work);
        let _ = self.task.await;
    }
}
