//! How a gate divides its quota between channels that want to send.
//!
//! A channel that never had data holds nothing. One that states a backlog is granted up to its fair share, and some segments
//! ahead while the quota is rich, so that it need not wait a round trip for each. One that only sends now and then keeps what
//! it has ahead, or each time that was used up a record would wait for a round trip; where channels are so many that half of a
//! fair share is no segment, or a quarter of the quota is in use, it keeps nothing. So those that are quiet take a quarter at
//! most from what a busy one could have in flight. Refills wait until half is used: that turns one control entry per segment
//! into a few per window.
//!
//! Inequality: `used ≤ quota`, where `used` = promised + queued + held by the operator, over all channels of the gate. Grants
//! ahead of a backlog leave one segment per channel free (of many channels: half of the quota), so a quiet channel's unused
//! credit can never starve a busy one. What is promised for a stated backlog comes back by itself, so one is enough to go on.

use tidegate_plant::{Rare, rare};

use crate::credit::ReceiveCredit;
use crate::limits::AHEAD_MAX;

/// The quota of one gate.
#[derive(Debug)]
pub struct GrantPolicy {
    quota: u32,
    channels: u32,
    used: u32,
}

impl GrantPolicy {
    /// `quota` segments for `channels` channels that take credit (remote ones).
    pub fn new(quota: u32, channels: u32) -> Self {
        Self { quota, channels, used: 0 }
    }

    /// Segments promised, queued or held.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Segments of the quota that nobody holds.
    pub fn free(&self) -> u32 {
        self.quota - self.used
    }

    /// Segments that may be promised beyond stated backlogs: one per channel stays free, but of many channels few are busy
    /// at once, and then half of the quota is enough.
    pub fn surplus(&self) -> u32 {
        self.free().saturating_sub(self.channels.min(self.quota / 2).max(1))
    }

    /// How many segments to grant to this channel, which had or has data, now.
    pub fn wish(&self, credit: &ReceiveCredit) -> u32 {
        if credit.blocked() {
            return 0;
        }
        let backlog = credit.backlog();
        let share = (self.quota / self.channels.max(1)).max(1);
        let surplus = self.surplus();
        let mut ahead = (share / 2).min(AHEAD_MAX).min(surplus);
        if rare(Rare::NoneAhead) {
            ahead = 0;
        }
        if backlog == 0 {
            let others = self.used.saturating_sub(credit.outstanding());
            // An only channel takes it from nobody.
            ahead = ahead.min((self.quota / 4).max(share / 2).saturating_sub(others));
        }
        let target = (backlog + ahead).min(share.max(surplus));
        if credit.outstanding() * 2 > target {
            return 0;
        }
        let mut grant = (target - credit.outstanding()).min(self.free());
        if credit.outstanding() + grant > backlog {
            // The part beyond the stated backlog comes out of the surplus only.
            let beyond = (credit.outstanding() + grant - backlog).min(surplus);
            grant = (backlog + beyond).saturating_sub(credit.outstanding()).min(grant);
        }
        if rare(Rare::OneCredit) { grant.min(1) } else { grant }
    }

    /// Segments were promised.
    ///
    /// # Panics
    /// If the quota is passed.
    pub fn take(&mut self, segments: u32) {
        self.used += segments;
        assert!(self.used <= self.quota, "gate grants {} of a quota of {}", self.used, self.quota);
    }

    /// Segments came back: consumed, or void.
    ///
    /// # Panics
    /// If more come back than were taken.
    pub fn give_back(&mut self, segments: u32) {
        assert!(segments <= self.used, "gate gets back {segments} segments, but only {} are out", self.used);
        self.used -= segments;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_channel_never_runs_out_and_is_refilled_seldom() {
        let mut policy = GrantPolicy::new(64, 2);
        let mut credit = ReceiveCredit::new(0);
        credit.handle_backlog(1);
        let mut grants = 0;
        for sequence in 0..1_000 {
            let wish = policy.wish(&credit);
            policy.take(wish);
            credit.grant(wish);
            grants += u32::from(wish > 0);
            assert!(credit.outstanding() > 0, "segment {sequence} would wait for a round trip");
            // Sent as soon as it is there, so nothing is behind it; and read at once.
            credit.handle_data(sequence, 0).expect("granted");
            policy.give_back(1);
        }
        assert!(grants <= 1_000 / 8 + 1, "{grants} grants: half of what is ahead is used first");
        assert!(policy.used() <= 64 / 4, "half of its fair share");
    }

    #[test]
    fn of_many_channels_a_quiet_one_keeps_nothing() {
        let mut policy = GrantPolicy::new(512, 10_000);
        let mut credit = ReceiveCredit::new(0);
        credit.handle_backlog(1);
        assert_eq!(policy.wish(&credit), 1);
        policy.take(1);
        credit.grant(1);
        credit.handle_data(0, 0).expect("granted");
        policy.give_back(1);
        assert_eq!(policy.wish(&credit), 0);
    }

    #[test]
    fn quiet_channels_leave_half_of_the_quota_to_those_with_a_backlog() {
        let mut policy = GrantPolicy::new(64, 4);
        for channel in 0..3 {
            let wish = policy.wish(&ReceiveCredit::new(channel));
            policy.take(wish);
        }
        assert!(policy.free() >= 32, "{policy:?}");
        let mut busy = ReceiveCredit::new(3);
        busy.handle_backlog(100);
        assert!(policy.wish(&busy) >= 16, "its share at least");
    }

    #[test]
    fn quiet_channels_take_a_quarter_at_most_from_a_busy_one() {
        for (channels, quota) in [(100, 200), (300, 632), (16, 256)] {
            let mut policy = GrantPolicy::new(quota, channels);
            let mut busy = ReceiveCredit::new(0);
            busy.handle_backlog(u16::MAX);
            let alone = policy.wish(&busy);
            // Each sent now and then, and got what it keeps ahead.
            for channel in 1..channels {
                let wish = policy.wish(&ReceiveCredit::new(channel));
                policy.take(wish);
            }
            let among_quiet = policy.wish(&busy);
            assert!(
                among_quiet + quota / 4 >= alone,
                "{channels} channels: {among_quiet} instead of {alone} of {quota}"
            );
        }
    }

    #[test]
    fn a_tight_quota_still_grants_what_is_asked_for() {
        let mut policy = GrantPolicy::new(2, 4);
        let mut credits: Vec<_> = (0..4).map(ReceiveCredit::new).collect();
        credits.iter_mut().for_each(|c| c.handle_backlog(9));
        assert_eq!(policy.wish(&credits[0]), 1, "the share of one channel, at least one");
        policy.take(1);
        credits[0].grant(1);
        assert_eq!(policy.wish(&credits[1]), 1);
        policy.take(1);
        credits[1].grant(1);
        assert_eq!(policy.wish(&credits[2]), 0, "the quota is out");
        policy.give_back(1);
        assert_eq!(policy.wish(&credits[2]), 1);
    }

    #[test]
    fn grants_ahead_leave_one_segment_per_channel() {
        let mut policy = GrantPolicy::new(32, 8);
        let mut total = 0;
        for channel in 0..8 {
            let mut credit = ReceiveCredit::new(channel);
            credit.handle_backlog(1);
            let wish = policy.wish(&credit);
            assert!(wish >= 1, "channel {channel} got nothing");
            policy.take(wish);
            credit.grant(wish);
            total += wish;
        }
        assert!(total <= 32);
    }

    #[test]
    fn one_busy_channel_of_many_gets_half_of_the_quota() {
        let mut policy = GrantPolicy::new(512, 10_000);
        let mut busy = ReceiveCredit::new(0);
        busy.handle_backlog(1000);
        let wish = policy.wish(&busy);
        assert_eq!(wish, 256);
        policy.take(wish);
        busy.grant(wish);
        let mut another = ReceiveCredit::new(1);
        another.handle_backlog(1);
        assert_eq!(policy.wish(&another), 1, "and the others the rest");
    }

    /// A channel with this backlog to which so much is promised.
    fn credit(backlog: u16, outstanding: u32) -> ReceiveCredit {
        let mut credit = ReceiveCredit::new(0);
        credit.handle_backlog(backlog);
        credit.grant(outstanding);
        credit
    }

    #[test]
    fn the_quota_is_used_free_or_surplus() {
        for (quota, channels, surplus) in [(32, 8, 24), (512, 10_000, 256), (8, 4, 4), (4, 0, 3), (1, 1, 0)] {
            assert_eq!(GrantPolicy::new(quota, channels).surplus(), surplus, "{quota} for {channels}");
        }
        let mut policy = GrantPolicy::new(32, 8);
        policy.take(10);
        assert_eq!((policy.used(), policy.free(), policy.surplus()), (10, 22, 14));
        policy.give_back(3);
        assert_eq!((policy.used(), policy.free()), (7, 25));
        policy.take(25);
        policy.give_back(32);
        assert_eq!(policy.used(), 0);
    }

    #[test]
    #[should_panic(expected = "gate grants 5 of a quota of 4")]
    fn more_than_the_quota_is_our_own_fault() {
        GrantPolicy::new(4, 1).take(5);
    }

    #[test]
    #[should_panic(expected = "gate gets back 2 segments, but only 1 are out")]
    fn more_than_is_out_is_our_own_fault() {
        let mut policy = GrantPolicy::new(4, 1);
        policy.take(1);
        policy.give_back(2);
    }

    #[test]
    fn a_channel_that_waits_for_its_resume_is_granted_nothing() {
        let mut waiting = credit(0, 0);
        waiting.handle_barrier(1);
        waiting.handle_backlog(9);
        assert_eq!(GrantPolicy::new(64, 1).wish(&waiting), 0);
    }

    /// What the rules of this page come to. Quota, channels, used by others; backlog, promised; wish.
    #[test]
    fn wishes_are_as_told_above() {
        for (quota, channels, others, backlog, outstanding, wish) in [
            // An only channel: its backlog, and 32 ahead.
            (64, 1, 0, 20, 0, 52),
            (64, 1, 0, 0, 0, 32),
            (256, 1, 0, 0, 0, 32),
            // Refilled when half is used, not before.
            (64, 1, 0, 20, 26, 26),
            (64, 1, 0, 20, 27, 0),
            (64, 1, 0, 0, 16, 16),
            (64, 1, 0, 0, 17, 0),
            // Of two with 32 each, 16 ahead; the share or the surplus, whichever is more.
            (64, 2, 0, 10, 0, 26),
            (64, 2, 0, 100, 0, 62),
            (64, 2, 40, 100, 0, 24),
            // What others use up to a quarter leaves a quiet channel the rest of it, and beyond nothing.
            (64, 4, 0, 0, 0, 8),
            (64, 4, 10, 0, 0, 6),
            (64, 4, 16, 0, 0, 0),
            // Its own promises don't count as the others'.
            (64, 4, 10, 0, 2, 4),
            // With a backlog it gets that, and 8 ahead, out of the surplus.
            (64, 4, 30, 5, 0, 13),
            (64, 4, 57, 5, 0, 7),
            (64, 4, 60, 5, 0, 4),
            (64, 4, 64, 5, 0, 0),
        ] {
            let mut policy = GrantPolicy::new(quota, channels);
            policy.take(others + outstanding);
            let found = policy.wish(&credit(backlog, outstanding));
            assert_eq!(found, wish, "{quota} {channels} {others} {backlog} {outstanding}");
        }
    }

    #[test]
    fn refills_come_when_half_is_used() {
        let mut policy = GrantPolicy::new(64, 1);
        let mut credit = ReceiveCredit::new(0);
        credit.handle_backlog(20);
        let first = policy.wish(&credit);
        assert!(first >= 20);
        policy.take(first);
        credit.grant(first);
        credit.handle_data(0, 20).expect("granted");
        assert_eq!(policy.wish(&credit), 0);
    }
}
