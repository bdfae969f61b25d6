//! Writing a job's record: one write in flight, the newest content next, and what waits for it.
//!
//! Owned by a job. Always: at most one save is in flight; a goal is reached by a save that was begun after it
//! was set, never by an older one.

/// What goes on when the record is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// The submission is answered.
    Submitted,
    /// The attempt's number is used up: its restore point may be chosen.
    Attempt,
    /// The attempt's output directories are known: it may be started.
    Outputs,
    /// FINISHED is a fact: tasks are told.
    Finished,
    /// The end is a fact and nothing is left.
    End,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Saver {
    next: u64,
    in_flight: Option<u64>,
    dirty: bool,
    goal: Option<(u64, Goal)>,
    pub(super) retry_at_ms: Option<u64>,
}

impl Saver {
    /// The record has changed; nothing waits for it.
    pub(super) fn touch(&mut self) {
        self.dirty = true;
    }

    /// The record has changed and `goal` waits for it. An earlier goal is given up.
    pub(super) fn require(&mut self, goal: Goal) {
        self.dirty = true;
        self.goal = Some((self.next, goal));
    }

    /// Whatever waited does not any more.
    pub(super) fn give_up(&mut self) {
        self.goal = None;
    }

    /// Number of a save to begin now, if one is due.
    pub(super) fn begin(&mut self, now_ms: u64) -> Option<u64> {
        if !self.dirty || self.in_flight.is_some() || self.retry_at_ms.is_some_and(|at| now_ms < at) {
            return None;
        }
        let save = self.next;
        self.next += 1;
        self.dirty = false;
        self.retry_at_ms = None;
        self.in_flight = Some(save);
        Some(save)
    }

    /// A save is durable; gives the goal that it reached.
    pub(super) fn done(&mut self, save: u64) -> Option<Goal> {
        if self.in_flight != Some(save) {
            return None;
        }
        self.in_flight = None;
        let (needed, goal) = self.goal?;
        if save < needed {
            return None;
        }
        self.goal = None;
        Some(goal)
    }

    /// A save failed; it is repeated after `retry_at_ms`. Says whether it was the one in flight.
    pub(super) fn failed(&mut self, save: u64, retry_at_ms: u64) -> bool {
        if self.in_flight != Some(save) {
            return false;
        }
        self.in_flight = None;
        self.dirty = true;
        self.retry_at_ms = Some(retry_at_ms);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_waits_for_a_save_begun_after_it() {
        let mut saver = Saver::default();
        saver.touch();
        let first = saver.begin(0).unwrap();
        saver.require(Goal::Attempt);
        assert_eq!(saver.begin(0), None, "one at a time");
        assert_eq!(saver.done(first), None, "it was begun before");
        let second = saver.begin(0).unwrap();
        assert!(saver.failed(second, 100));
        assert_eq!(saver.begin(99), None);
        let third = saver.begin(100).unwrap();
        assert_eq!(saver.done(third), Some(Goal::Attempt));
        assert_eq!(saver.begin(100), None);
    }
}
