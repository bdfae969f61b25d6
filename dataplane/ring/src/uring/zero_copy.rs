//! Whether one connection sends without a copy: the verdict from the kernel's usage reports. Owned by the connection.
//!
//! Under `auto`: off until the mean payload is large, then at most [`WINDOW`] sends on trial, then on or off by what
//! their reports say, and judged again over every further window. Off is for good, and comes as soon as the window can
//! no longer end well. Always: while on trial, reports ≤ sends on trial ≤ window.

use crate::limits::{
    ZERO_COPY_COPIED_PERCENT as COPIED_PERCENT, ZERO_COPY_PAYLOAD_MIN as PAYLOAD_MIN,
    ZERO_COPY_WINDOW as WINDOW,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Never, or never again.
    Off,
    /// Always, whatever the reports say.
    Forced,
    /// So many sends were made to find out.
    Trial { sends: u32 },
    /// The last window was real.
    On,
}

/// The verdict on one connection, and what it rests on.
#[derive(Clone, Copy, Debug)]
pub(super) struct ZeroCopy {
    verdict: Verdict,
    /// Usage reports of the current window, and how many of them said "copied".
    reports: u32,
    copied: u32,
    /// Mean bytes of a payload, moving.
    mean_payload: u64,
}

impl ZeroCopy {
    pub(super) fn off() -> Self {
        Self { verdict: Verdict::Off, reports: 0, copied: 0, mean_payload: 0 }
    }

    pub(super) fn forced() -> Self {
        Self { verdict: Verdict::Forced, ..Self::off() }
    }

    /// For `auto`, on a path that leaves the host.
    pub(super) fn on_trial() -> Self {
        Self { verdict: Verdict::Trial { sends: 0 }, ..Self::off() }
    }

    /// Whether the next send of `bytes` in `parts` pieces should avoid the copy, if there is `room` for its notification.
    /// Counts it as on trial if so.
    pub(super) fn take(&mut self, bytes: u64, parts: usize, room: bool) -> bool {
        // The first of several parts is a header, and small.
        let payload = bytes / (parts as u64).saturating_sub(1).max(1);
        self.mean_payload =
            if self.mean_payload == 0 { payload } else { (self.mean_payload * 7 + payload) / 8 };
        let large = self.mean_payload >= PAYLOAD_MIN;
        match &mut self.verdict {
            Verdict::Off => false,
            Verdict::Forced => room,
            Verdict::On => room && large,
            Verdict::Trial { sends } => {
                let go = room && large && *sends < WINDOW;
                *sends += u32::from(go);
                go
            }
        }
    }

    /// The kernel reported whether it copied a send. Reports of sends that were resumed count once each.
    pub(super) fn report(&mut self, copied: bool) {
        if !matches!(self.verdict, Verdict::Trial { .. } | Verdict::On) {
            return;
        }
        self.reports += 1;
        self.copied += u32::from(copied);
        if self.copied * 100 >= WINDOW * COPIED_PERCENT {
            // Known before the window is full: every send more would be copied and pay for its notification.
            self.verdict = Verdict::Off;
        } else if self.reports == WINDOW {
            self.verdict = Verdict::On;
            (self.reports, self.copied) = (0, 0);
        }
    }

    /// The kernel or the device cannot: never again.
    pub(super) fn refused(&mut self) {
        self.verdict = Verdict::Off;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: u64 = 32 << 10;

    fn trial(copied: u32) -> ZeroCopy {
        let mut state = ZeroCopy::on_trial();
        for report in 0..WINDOW {
            assert!(state.take(LARGE, 2, true));
            state.report(WINDOW - report <= copied); // the last ones, so that the window is used up
        }
        state
    }

    #[test]
    fn a_path_that_copies_is_given_up_for_good() {
        let mut state = trial(2);
        assert!(!state.take(LARGE, 2, true), "2 of 16 are 12 %");
        (0..10 * WINDOW).for_each(|_| state.report(false));
        assert!(!state.take(LARGE, 2, true));
    }

    #[test]
    fn a_real_path_is_kept_while_it_stays_real() {
        let mut state = trial(1);
        for report in 0..WINDOW {
            assert!(state.take(LARGE, 2, true), "1 of 16 are 6 %");
            state.report(report == 0);
        }
        (0..2).for_each(|_| state.report(true));
        assert!(!state.take(LARGE, 2, true), "the path changed");
    }

    #[test]
    fn a_path_that_copies_everything_costs_two_reports() {
        let mut state = ZeroCopy::on_trial();
        assert!(state.take(LARGE, 2, true) && state.take(LARGE, 2, true));
        state.report(true);
        assert!(state.take(LARGE, 2, true));
        state.report(true);
        assert!(!state.take(LARGE, 2, true));
    }

    #[test]
    fn no_more_trials_than_the_window_before_the_reports_are_in() {
        let mut state = ZeroCopy::on_trial();
        assert!(!state.take(LARGE, 2, false), "no room for its notification, and not counted");
        assert_eq!((0..100).filter(|_| state.take(LARGE, 2, true)).count(), WINDOW as usize);
    }

    #[test]
    fn small_payloads_are_never_tried() {
        let mut state = ZeroCopy::on_trial();
        assert!(!(0..100).any(|_| state.take(17 * 4096, 18, true)), "seventeen payloads of a page");
        assert!((0..100).any(|_| state.take(17 * LARGE, 18, true)), "the mean follows the traffic");
    }

    #[test]
    fn forced_ends_only_by_refusal() {
        let mut state = ZeroCopy::forced();
        (0..100).for_each(|_| state.report(true));
        assert!(state.take(1, 1, true));
        state.refused();
        assert!(!state.take(LARGE, 1, true));
    }
}
