//! Counts and a short history of checkpoints, for people and the REST interface.
//!
//! Owned by the coordinator; nothing decides by it. Always: at most `limits::HISTORY_MAX` finished entries and
//! `limits::RESTORES_MAX` restores and refusals; `total = in progress + completed + failed`.

use crate::coordinator::Refused;
use crate::limits::{HISTORY_MAX, RESTORES_MAX};
use crate::metadata::Metadata;

/// How far a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointStatus {
    /// Triggered.
    InProgress,
    /// Published.
    Completed,
    /// Given up.
    Failed,
}

impl CheckpointStatus {
    /// Flink's name.
    pub fn name(self) -> &'static str {
        match self {
            CheckpointStatus::InProgress => "IN_PROGRESS",
            CheckpointStatus::Completed => "COMPLETED",
            CheckpointStatus::Failed => "FAILED",
        }
    }
}

/// One checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointEntry {
    /// Its number.
    pub id: u64,
    /// How far it is.
    pub status: CheckpointStatus,
    /// When it was triggered, in milliseconds since 1970.
    pub triggered_ms: u64,
    /// When it ended, in milliseconds since 1970.
    pub ended_ms: Option<u64>,
    /// Tasks that take part.
    pub subtasks: u32,
    /// Tasks that have acknowledged.
    pub acknowledged: u32,
    /// Bytes of state acknowledged so far.
    pub bytes: u64,
    /// Longest alignment of a task, in nanoseconds.
    pub alignment_ns: u64,
    /// Nothing follows it.
    pub last: bool,
    /// Why it failed.
    pub failure: Option<String>,
}

/// One restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreEntry {
    /// The checkpoint restored.
    pub id: u64,
    /// When, in milliseconds since 1970.
    pub restored_ms: u64,
}

/// Counts and history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Checkpoints that completed.
    pub completed: u64,
    /// Checkpoints that failed.
    pub failed: u64,
    /// Checkpoints triggered, completed and failed ones included.
    pub total: u64,
    /// The newest entries, oldest first; the last may be in progress.
    pub history: Vec<CheckpointEntry>,
    /// The newest completed one.
    pub latest_completed: Option<CheckpointEntry>,
    /// The newest failed one.
    pub latest_failed: Option<CheckpointEntry>,
    /// All restores, oldest first.
    pub restored: Vec<RestoreEntry>,
    /// Checkpoints that were refused at a restore, oldest refusal first.
    pub refused: Vec<Refused>,
}

impl Stats {
    /// Checkpoints in progress.
    pub fn in_progress(&self) -> u64 {
        self.total - self.completed - self.failed
    }

    pub(crate) fn triggered(&mut self, id: u64, now_ms: u64, subtasks: u32) {
        self.total += 1;
        self.history.push(CheckpointEntry {
            id,
            status: CheckpointStatus::InProgress,
            triggered_ms: now_ms,
            ended_ms: None,
            subtasks,
            acknowledged: 0,
            bytes: 0,
            alignment_ns: 0,
            last: false,
            failure: None,
        });
        keep_newest(&mut self.history, HISTORY_MAX);
    }

    pub(crate) fn acknowledged(&mut self, id: u64, bytes: u64, alignment_ns: u64) {
        if let Some(entry) = self.entry(id) {
            entry.acknowledged += 1;
            entry.bytes = entry.bytes.saturating_add(bytes);
            entry.alignment_ns = entry.alignment_ns.max(alignment_ns);
        }
    }

    pub(crate) fn completed(&mut self, id: u64, now_ms: u64, metadata: &Metadata) {
        self.completed += 1;
        if let Some(entry) = self.entry(id) {
            entry.status = CheckpointStatus::Completed;
            entry.ended_ms = Some(now_ms);
            entry.last = metadata.last;
            self.latest_completed = Some(entry.clone());
        }
    }

    pub(crate) fn failed(&mut self, id: u64, now_ms: u64, reason: &str) {
        self.failed += 1;
        if let Some(entry) = self.entry(id) {
            entry.status = CheckpointStatus::Failed;
            entry.ended_ms = Some(now_ms);
            entry.failure = Some(reason.to_owned());
            self.latest_failed = Some(entry.clone());
        }
    }

    pub(crate) fn restored(&mut self, id: u64, now_ms: u64) {
        self.restored.push(RestoreEntry { id, restored_ms: now_ms });
        keep_newest(&mut self.restored, RESTORES_MAX);
    }

    pub(crate) fn refused(&mut self, refused: &Refused) {
        self.refused.push(refused.clone());
        keep_newest(&mut self.refused, RESTORES_MAX);
    }

    fn entry(&mut self, id: u64) -> Option<&mut CheckpointEntry> {
        self.history
            .iter_mut()
            .rev()
            .find(|entry| entry.id == id && entry.status == CheckpointStatus::InProgress)
    }
}

/// Drops the oldest entries beyond `max`.
pub fn keep_newest<T>(entries: &mut Vec<T>, max: usize) {
    let cut = entries.len().saturating_sub(max);
    entries.drain(..cut);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_no_number_holds_are_cut() {
        let mut stats = Stats::default();
        stats.triggered(1, 0, 2);
        stats.acknowledged(1, u64::MAX, 0);
        stats.acknowledged(1, 1, 0);
        assert_eq!(stats.history[0].bytes, u64::MAX, "a TaskManager may say anything");
    }
}
