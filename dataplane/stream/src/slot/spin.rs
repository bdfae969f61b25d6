//! Whether a slot that ran out of work spins for a moment before it sleeps: looks again and again whether there is more.
//!
//! A sleep costs both sides: the slot a wake-up, and whoever brings it work the call that wakes it. Where work comes in
//! shorter intervals than that (two ends of a busy link that are about equally fast), looking again is cheaper than sleeping;
//! where it does not, looking is waste. So it is tried now and then, and goes on as long as it pays.
//!
//! It also makes the slot one of those who want the processor all the time, and if there are others, it waits for them a whole
//! slice at a time. So between looks it lets others go first: they go while there is nothing to do, not in the middle of work.
//!
//! Owned by the runner. Always: `luck ≤ LUCK_MAX`; without luck one pause in [`TRIAL_EVERY`] spins, so spinning in vain costs
//! at most that part of [`SPIN_NS`](crate::limits::SPIN_NS) a pause.

use crate::limits::{LUCK_MAX, LUCK_PER_HIT, TRIAL_EVERY};

/// One slot's record of how spinning went.
#[derive(Debug, Default)]
pub(crate) struct Spinner {
    /// Pauses that may spin in vain before it is given up.
    luck: u8,
    /// Pauses without spinning since the last trial.
    without: u8,
    /// It looked again since there was work.
    spun: bool,
}

impl Spinner {
    /// There is work: says whether to spin once it is done.
    pub(crate) fn worked(&mut self) -> bool {
        if std::mem::take(&mut self.spun) {
            self.luck = (self.luck + LUCK_PER_HIT).min(LUCK_MAX);
        }
        self.luck > 0 || self.without >= TRIAL_EVERY
    }

    /// It looks again.
    pub(crate) fn looks(&mut self) {
        self.spun = true;
    }

    /// It stays awake for a time that it knows: what comes then is no luck.
    pub(crate) fn waits(&mut self) {
        self.spun = false;
    }

    /// It sleeps.
    pub(crate) fn sleeps(&mut self) {
        if std::mem::take(&mut self.spun) {
            self.luck = self.luck.saturating_sub(1);
            self.without = 0;
        } else {
            self.without = self.without.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses of a slot for which work comes while it spins, or not; says how many spun.
    fn pauses(spinner: &mut Spinner, count: u32, comes: bool) -> u32 {
        let spins = |_| {
            let spins = spinner.worked();
            if spins {
                spinner.looks();
            }
            if !(spins && comes) {
                spinner.sleeps();
            }
            u32::from(spins)
        };
        (0..count).map(spins).sum()
    }

    #[test]
    fn spinning_goes_on_while_it_pays_and_is_given_up_when_it_does_not() {
        let mut spinner = Spinner::default();
        let every = u32::from(TRIAL_EVERY) + 1;
        assert_eq!(pauses(&mut spinner, 10 * every, false), 10, "a trial now and then");
        let found = pauses(&mut spinner, 10 * every, true);
        assert!(found >= 9 * every, "{found}: one trial that pays, and it goes on");
        let vain = pauses(&mut spinner, u32::from(LUCK_MAX) + 10 * every, false);
        assert!((u32::from(LUCK_MAX)..=u32::from(LUCK_MAX) + 10).contains(&vain), "{vain}");
    }

    #[test]
    fn one_hit_in_four_is_enough_and_one_in_ten_is_not() {
        for (period, enough) in [(4, true), (10, false)] {
            let mut spinner = Spinner::default();
            let mut spun = 0;
            for pause in 0..10_000 {
                spun += pauses(&mut spinner, 1, pause % period == 0);
            }
            assert_eq!(spun > 9_000, enough, "{spun} of 10,000 with a hit in {period}");
        }
    }
}
