//! Which way the next send of a connection goes: decided from what the kernel reported and what sends have cost so far.
//! Owned by the connection. Has no clock and does nothing: the driver says what was sent, copied and spent.
//!
//! Two questions, each answered by a few sends on trial and asked again ever more rarely, so that the trials cost next to
//! nothing and a path that changes is still found out:
//! - does zero copy really avoid the copy? One send at a time is tried, and its report awaited; a path that copies is left
//!   after two of them ([`ZeroCopy`]);
//! - is the registered or the plain operation cheaper? A few large sends go each way in turns, and the medians of their
//!   processor time per byte are compared ([`Cheaper`]).
//!
//! Always: sends on trial whose report is awaited ≤ 1; sends of one comparison ≤ `TRIALS_MAX`; large sends between two
//! trials ≥ `TRIAL_REST_MIN`, twice as many after each trial that changed nothing, up to `TRIAL_REST_MAX`.

use crate::limits::{
    TRIAL_BYTES_MIN, TRIAL_GAIN_PERCENT, TRIAL_REST_MAX, TRIAL_REST_MIN, TRIALS_EACH, TRIALS_MAX,
    ZERO_COPY_COPIED_PERCENT as COPIED_PERCENT, ZERO_COPY_PAYLOAD_MIN as PAYLOAD_MIN,
    ZERO_COPY_WINDOW as WINDOW,
};

/// The ways of a send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Way {
    /// SENDMSG.
    #[default]
    Plain,
    /// From the registered shard.
    Fixed,
    /// SENDMSG_ZC.
    ZeroCopy,
}

/// How the next send goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pick {
    pub(super) way: Way,
    /// What it costs shall be told to [`Choice::spent`].
    pub(super) on_trial: bool,
}

/// The choice of one connection.
#[derive(Debug)]
pub(super) struct Choice {
    copying: Cheaper,
    zero_copy: ZeroCopy,
    /// Mean bytes of a payload, moving.
    mean_payload: u64,
}

impl Choice {
    /// Always this way, until the kernel refuses it. Zero copy without room for its notification goes plain.
    pub(super) fn forced(way: Way) -> Self {
        let (copying, verdict) = match way {
            Way::ZeroCopy => (Way::Plain, Verdict::Forced),
            way => (way, Verdict::Never),
        };
        Self { copying: Cheaper::only(copying), zero_copy: ZeroCopy::new(verdict), mean_payload: 0 }
    }

    /// What is found to be best, of the plain way and those the ring has.
    pub(super) fn measured(fixed: bool, zero_copy: bool) -> Self {
        let copying = if fixed { Cheaper::on_trial() } else { Cheaper::only(Way::Plain) };
        let verdict = if zero_copy { Verdict::Trial } else { Verdict::Never };
        Self { copying, zero_copy: ZeroCopy::new(verdict), mean_payload: 0 }
    }

    /// The way of the next send, of `bytes` in `parts` pieces: `room` says whether a notification may follow, `meter`
    /// whether its cost can be measured.
    pub(super) fn next(&mut self, bytes: u64, parts: usize, room: bool, meter: bool) -> Pick {
        // The first of several parts is a header, and small.
        let payload = bytes / (parts as u64).saturating_sub(1).max(1);
        self.mean_payload =
            if self.mean_payload == 0 { payload } else { (self.mean_payload * 7 + payload) / 8 };
        if self.zero_copy.take(self.mean_payload >= PAYLOAD_MIN, room) {
            return Pick { way: Way::ZeroCopy, on_trial: false };
        }
        self.copying.take(bytes, meter)
    }

    /// How a send goes that cannot go without a copy after all.
    pub(super) fn with_copy(&self) -> Way {
        self.copying.way
    }

    /// The kernel reported whether it copied a send. Of a send that was resumed, each part counts.
    pub(super) fn reported(&mut self, copied: bool) {
        self.zero_copy.report(copied);
    }

    /// A send on trial went this way whole, and cost so many nanoseconds of processor time.
    pub(super) fn spent(&mut self, way: Way, bytes: u64, ns: u64) {
        self.copying.spent(way, bytes, ns);
    }

    /// The kernel or the device cannot go this way: never again.
    pub(super) fn refused(&mut self, way: Way) {
        match way {
            Way::ZeroCopy => self.zero_copy.verdict = Verdict::Never,
            Way::Fixed => self.copying = Cheaper::only(Way::Plain),
            Way::Plain => {}
        }
    }
}

/// So many sends until the next trial, twice as many each time.
#[derive(Clone, Copy, Debug)]
struct Rest {
    left: u32,
    next: u32,
}

impl Rest {
    const fn new() -> Self {
        Self { left: 0, next: TRIAL_REST_MIN }
    }

    fn begin(&mut self) {
        self.left = self.next;
        self.next = (self.next * 2).min(TRIAL_REST_MAX);
    }

    /// Counts one send; true if the rest is over.
    fn over(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is not to be had, or not wanted.
    Never,
    /// Always, whatever the reports say.
    Forced,
    /// Being found out.
    Trial,
    /// The last window was real.
    On,
    /// The kernel copies; tried again after a rest.
    Resting,
}

/// Whether zero copy is real here.
#[derive(Debug)]
struct ZeroCopy {
    verdict: Verdict,
    /// A send on trial of which no report came yet.
    awaited: bool,
    /// Reports of the current window, and how many of them said "copied".
    reports: u32,
    copied: u32,
    rest: Rest,
}

impl ZeroCopy {
    fn new(verdict: Verdict) -> Self {
        Self { verdict, awaited: false, reports: 0, copied: 0, rest: Rest::new() }
    }

    fn take(&mut self, large: bool, room: bool) -> bool {
        match self.verdict {
            Verdict::Never => false,
            Verdict::Forced => room,
            Verdict::On => room && large,
            Verdict::Trial => {
                let go = room && large && !self.awaited;
                self.awaited |= go;
                go
            }
            Verdict::Resting => {
                if large && self.rest.over() {
                    self.verdict = Verdict::Trial;
                }
                false
            }
        }
    }

    fn report(&mut self, copied: bool) {
        self.awaited = false;
        if !matches!(self.verdict, Verdict::Trial | Verdict::On) {
            return;
        }
        self.reports += 1;
        self.copied += u32::from(copied);
        if self.copied * 100 >= WINDOW * COPIED_PERCENT {
            // Known before the window is full: every send more would be copied and pay for its notification.
            self.verdict = Verdict::Resting;
            self.rest.begin();
            (self.reports, self.copied) = (0, 0);
        } else if self.reports >= WINDOW {
            self.verdict = Verdict::On;
            self.rest = Rest::new();
            (self.reports, self.copied) = (0, 0);
        }
    }
}

/// Which of the two ways that copy is cheaper. `way` is the one in use.
#[derive(Debug)]
struct Cheaper {
    way: Way,
    /// Nothing to find out.
    settled_for_good: bool,
    /// Resting; otherwise comparing.
    resting: bool,
    rest: Rest,
    /// Sends of this comparison so far, also those whose cost could not be told.
    sends: u32,
    /// Picoseconds per byte, of the plain and of the registered sends.
    costs: [Costs; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Costs {
    count: usize,
    each: [u64; TRIALS_EACH],
}

impl Costs {
    fn push(&mut self, cost: u64) {
        if self.count < TRIALS_EACH {
            self.each[self.count] = cost;
            self.count += 1;
        }
    }

    fn median(mut self) -> u64 {
        self.each[..self.count].sort_unstable();
        self.each[self.count / 2]
    }
}

impl Cheaper {
    fn new(way: Way, settled_for_good: bool) -> Self {
        Self { way, settled_for_good, resting: false, rest: Rest::new(), sends: 0, costs: Default::default() }
    }

    fn only(way: Way) -> Self {
        Self::new(way, true)
    }

    fn on_trial() -> Self {
        Self::new(Way::Fixed, false)
    }

    fn take(&mut self, bytes: u64, meter: bool) -> Pick {
        let present = Pick { way: self.way, on_trial: false };
        if self.settled_for_good || bytes < TRIAL_BYTES_MIN {
            return present;
        }
        if self.resting {
            if self.rest.over() {
                (self.resting, self.sends, self.costs) = (false, 0, Default::default());
            }
            return present;
        }
        if !meter {
            return present;
        }
        if self.sends == TRIALS_MAX {
            // What the sends cost could not be told: stay.
            self.settle();
            return present;
        }
        self.sends += 1;
        let [plain, fixed] = &self.costs;
        Pick { way: if plain.count < fixed.count { Way::Plain } else { Way::Fixed }, on_trial: true }
    }

    fn spent(&mut self, way: Way, bytes: u64, ns: u64) {
        if self.resting || self.settled_for_good || bytes == 0 {
            return;
        }
        match way {
            Way::Plain => self.costs[0].push(ns * 1000 / bytes),
            Way::Fixed => self.costs[1].push(ns * 1000 / bytes),
            Way::ZeroCopy => return,
        }
        let [plain, fixed] = self.costs;
        if plain.count == TRIALS_EACH && fixed.count == TRIALS_EACH {
            let (present, other, other_way) = match self.way {
                Way::Plain => (plain.median(), fixed.median(), Way::Fixed),
                _ => (fixed.median(), plain.median(), Way::Plain),
            };
            if other * 100 < present * (100 - TRIAL_GAIN_PERCENT) {
                self.way = other_way;
                self.rest = Rest::new();
            }
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.resting = true;
        self.rest.begin();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: u64 = 32 << 10;

    /// One large payload behind a header.
    fn next(choice: &mut Choice) -> Way {
        choice.next(LARGE, 2, true, false).way
    }

    /// Sends until one is tried without a copy; how many went before it.
    fn until_zero_copy(choice: &mut Choice) -> u32 {
        (0..2 * TRIAL_REST_MAX).find(|_| next(choice) == Way::ZeroCopy).expect("tried again some day")
    }

    #[test]
    fn a_path_that_copies_is_left_after_two_sends_and_tried_ever_more_rarely() {
        let mut choice = Choice::measured(false, true);
        assert_eq!(next(&mut choice), Way::ZeroCopy);
        assert_eq!(next(&mut choice), Way::Plain, "the report of the first is awaited");
        choice.reported(true);
        assert_eq!(next(&mut choice), Way::ZeroCopy);
        choice.reported(true);
        let mut rest = TRIAL_REST_MIN;
        for _ in 0..12 {
            assert_eq!(until_zero_copy(&mut choice), rest);
            choice.reported(true);
            assert_eq!(next(&mut choice), Way::ZeroCopy);
            choice.reported(true);
            rest = (2 * rest).min(TRIAL_REST_MAX);
        }
    }

    #[test]
    fn trials_are_a_thousandth_of_the_large_sends_at_most() {
        let mut choice = Choice::measured(true, true);
        let mut tried = 0;
        let sends = 100 * u64::from(TRIAL_REST_MIN);
        for _ in 0..sends {
            let pick = choice.next(LARGE, 2, true, true);
            tried += u32::from(pick.way == Way::ZeroCopy || pick.on_trial);
            match pick.way {
                Way::ZeroCopy => choice.reported(true),
                way if pick.on_trial => choice.spent(way, LARGE, 1000),
                _ => {}
            }
        }
        assert!(u64::from(tried) * 1000 <= sends, "{tried} of {sends}");
    }

    #[test]
    fn a_real_path_is_kept_while_it_stays_real() {
        let mut choice = Choice::measured(false, true);
        for report in 0..WINDOW {
            assert_eq!(next(&mut choice), Way::ZeroCopy);
            choice.reported(report == 3);
        }
        // Several may be under way now.
        assert!((0..4).all(|_| next(&mut choice) == Way::ZeroCopy));
        (0..2).for_each(|_| choice.reported(true));
        assert_eq!(next(&mut choice), Way::Plain, "the path changed");
        assert_eq!(until_zero_copy(&mut choice), TRIAL_REST_MIN - 1, "and is looked at again soon");
    }

    #[test]
    fn small_payloads_and_those_without_room_are_never_tried() {
        let mut choice = Choice::measured(false, true);
        assert_eq!(choice.next(LARGE, 2, false, false).way, Way::Plain, "no room for its notification");
        let mut choice = Choice::measured(false, true);
        let pages = |choice: &mut Choice| choice.next(17 * 4096, 18, true, false).way;
        assert!((0..100).all(|_| pages(&mut choice) == Way::Plain), "seventeen payloads of a page");
        let large = |choice: &mut Choice| choice.next(17 * LARGE, 18, true, false).way;
        assert!((0..100).any(|_| large(&mut choice) == Way::ZeroCopy), "the mean follows the traffic");
    }

    #[test]
    fn forced_ends_only_by_refusal() {
        let mut choice = Choice::forced(Way::ZeroCopy);
        (0..100).for_each(|_| choice.reported(true));
        assert_eq!(choice.next(1, 1, true, false).way, Way::ZeroCopy);
        assert_eq!(choice.next(1, 1, false, false).way, Way::Plain);
        choice.refused(Way::ZeroCopy);
        assert_eq!(next(&mut choice), Way::Plain);
        for way in [Way::Fixed, Way::Plain] {
            let mut choice = Choice::forced(way);
            assert!((0..100).all(|_| choice.next(LARGE, 2, true, true) == Pick { way, on_trial: false }));
        }
    }

    /// Runs one comparison to its end; the way afterwards.
    fn compare(choice: &mut Choice, plain_ns: u64, fixed_ns: u64) -> Way {
        loop {
            let pick = choice.next(TRIAL_BYTES_MIN, 2, false, true);
            if !pick.on_trial && choice.copying.resting {
                return pick.way;
            }
            if pick.on_trial {
                let ns = if pick.way == Way::Plain { plain_ns } else { fixed_ns };
                choice.spent(pick.way, TRIAL_BYTES_MIN, ns);
            }
        }
    }

    #[test]
    fn the_cheaper_of_two_is_taken_if_the_difference_is_worth_it() {
        let mut choice = Choice::measured(true, false);
        assert_eq!(compare(&mut choice, 990, 1000), Way::Fixed, "noise");
        let mut choice = Choice::measured(true, false);
        assert_eq!(compare(&mut choice, 700, 1000), Way::Plain);
        // The comparison comes again, and may end the other way.
        while choice.copying.resting {
            assert_eq!(choice.next(TRIAL_BYTES_MIN, 2, false, true).way, Way::Plain);
        }
        assert_eq!(compare(&mut choice, 1000, 700), Way::Fixed);
    }

    #[test]
    fn a_comparison_that_learns_nothing_ends() {
        let mut choice = Choice::measured(true, false);
        let trials =
            (0..10 * TRIALS_MAX).filter(|_| choice.next(TRIAL_BYTES_MIN, 2, false, true).on_trial).count();
        assert_eq!(trials, TRIALS_MAX as usize);
        assert_eq!(choice.copying.way, Way::Fixed);
        let mut choice = Choice::measured(true, false);
        assert!(!choice.next(TRIAL_BYTES_MIN, 2, false, false).on_trial, "somebody else is measured");
        assert!(!choice.next(TRIAL_BYTES_MIN - 1, 2, false, true).on_trial, "too small to tell");
    }

    #[test]
    fn a_refusal_of_registered_sends_is_for_good() {
        let mut choice = Choice::measured(true, false);
        choice.refused(Way::Fixed);
        assert!((0..1000).all(|_| choice.next(TRIAL_BYTES_MIN, 2, false, true).way == Way::Plain));
    }
}
