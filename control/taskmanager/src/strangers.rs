//! Connections at the data port that are turned away: counted all, logged a few.
//!
//! Owner of the state: this value, shared by the accept, hello and slot threads through atomics. Always: at most one line in
//! the log per `STRANGER_LOG_INTERVAL`, which says how many were left out since the last; the count leaves none out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tidegate_exchange::{TurnedAway, Watcher};

use crate::limits::STRANGER_LOG_INTERVAL;

/// What is known of them.
#[derive(Debug)]
pub(crate) struct Strangers {
    started: Instant,
    count: AtomicU64,
    /// Of these, how many had been seen at the last line in the log.
    logged: AtomicU64,
    /// Milliseconds since `started` from which the next line is due.
    log_from_ms: AtomicU64,
}

impl Strangers {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            count: AtomicU64::new(0),
            logged: AtomicU64::new(0),
            log_from_ms: AtomicU64::new(0),
        })
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The endpoint's end of it.
    pub(crate) fn watcher(self: &Arc<Self>) -> Watcher {
        let strangers = Arc::clone(self);
        Arc::new(move |turned_away| strangers.see(turned_away))
    }

    fn see(&self, turned_away: &TurnedAway) {
        let now_ms = self.started.elapsed().as_millis() as u64;
        match self.count_one(now_ms) {
            None => {}
            Some(0) => tracing::warn!("{turned_away}"),
            Some(unlogged) => {
                tracing::warn!("{turned_away}; {unlogged} others since the last such line");
            }
        }
    }

    /// Counts one; if a line is due, says how many had none since the last.
    fn count_one(&self, now_ms: u64) -> Option<u64> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let due_ms = self.log_from_ms.load(Ordering::Relaxed);
        let next_ms = now_ms + STRANGER_LOG_INTERVAL.as_millis() as u64;
        if now_ms < due_ms {
            return None;
        }
        // Whoever moves the due time on writes the line.
        let moved = self.log_from_ms.compare_exchange(due_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed);
        moved.ok().map(|_| count.saturating_sub(self.logged.swap(count, Ordering::Relaxed) + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_a_flood_does_not_fill_the_log() {
        let strangers = Strangers::new();
        let interval_ms = STRANGER_LOG_INTERVAL.as_millis() as u64;
        let lines: Vec<u64> = (0..interval_ms * 3).filter_map(|now_ms| strangers.count_one(now_ms)).collect();
        assert_eq!(lines, [0, interval_ms - 1, interval_ms - 1], "one line per interval names the others");
        assert_eq!(strangers.count(), interval_ms * 3);
    }
}
