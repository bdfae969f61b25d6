//! How a task spends its time: in steps, idle, back-pressured and by whom, waiting for its turn.
//!
//! Owned by the task. Always: each nanosecond since its first step is counted once; the clock is read by the slot, once per
//! step. Who holds it up is looked at every `HOLDUP_INTERVAL_NS` at most and holds until the next look.

use tidegate_exchange::{Cause, Ports};

use crate::head::Counts;
use crate::limits::HOLDUP_INTERVAL_NS;
use crate::slot::message::{HeldUp, Rates};
use crate::task::Task;

impl Task {
    /// Counts a step from `from_ns` to `to_ns`, and what was waited for since the step before.
    pub fn stepped(&mut self, from_ns: u64, to_ns: u64, ports: &Ports) {
        self.counts = self.counts(from_ns);
        self.counts.busy_ns += to_ns.saturating_sub(from_ns);
        self.stepped_ns = to_ns;
        self.waiting = (!self.poked && !self.ended()).then_some(self.wait);
        if self.waiting.is_some_and(|wait| wait.output) {
            let (known, looked_ns) = self.holdup;
            if known.is_none() || to_ns.saturating_sub(looked_ns) >= HOLDUP_INTERVAL_NS {
                self.holdup = (self.look(ports), to_ns);
            }
        }
    }

    fn look(&self, ports: &Ports) -> Option<HeldUp> {
        let (partition, holdup) = ports.holdup(&self.seed.partitions)?;
        Some(HeldUp { cause: holdup.cause, partition: partition as u32, channel: holdup.channel })
    }

    /// Who holds it up now.
    pub(crate) fn held_up(&self) -> Option<HeldUp> {
        self.holdup.0.filter(|_| self.waiting.is_some_and(|wait| wait.output))
    }

    /// What it counted until `now_ns`, the wait under way included.
    pub(super) fn counts(&self, now_ns: u64) -> Counts {
        let mut counts = self.counts;
        if self.stepped_ns == 0 {
            return counts;
        }
        let waited = now_ns.saturating_sub(self.stepped_ns);
        match self.waiting {
            Some(wait) if wait.output => {
                counts.backpressured_ns += waited;
                // With room in all of them by the time of the look, it only waits for what was sent to come back.
                let cause = self.holdup.0.map_or(Cause::Flush, |held_up| held_up.cause);
                counts.held_up_ns[cause as usize] += waited;
            }
            Some(_) => counts.idle_ns += waited,
            None if !self.ended() => counts.turn_ns += waited,
            None => {}
        }
        counts
    }
}

impl Counts {
    /// All the time that is accounted for.
    pub(crate) fn accounted_ns(&self) -> u64 {
        self.busy_ns + self.idle_ns + self.backpressured_ns + self.turn_ns
    }
}

impl Rates {
    /// Over `elapsed_ns` in which `before` became `after`.
    pub(crate) fn between(before: &Counts, after: &Counts, elapsed_ns: u64) -> Rates {
        if elapsed_ns == 0 {
            return Rates::default();
        }
        let share = |field: fn(&Counts) -> u64| {
            let ns = field(after).saturating_sub(field(before));
            (u128::from(ns) * 1000 / u128::from(elapsed_ns)).min(1000) as u32
        };
        let idle = share(|counts| counts.idle_ns);
        let backpressured = share(|counts| counts.backpressured_ns).min(1000 - idle);
        let busy = 1000 - idle - backpressured;
        Rates { busy, turn: share(|counts| counts.turn_ns).min(busy), backpressured, idle }
    }
}
