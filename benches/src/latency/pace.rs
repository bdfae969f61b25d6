//! When each record is due: record i at start + i / rate, whatever became of those before it.
//!
//! Owns how far it is. Always: due times only grow and never wait for anybody, so that a sender that stalls finds all it
//! missed due at once, and the stall shows in their latency.

const SECOND_NS: u64 = 1_000_000_000;
/// Times are kept in 2^-32 ns: after 10^10 records they are still right to a nanosecond or two.
const FRACTION_BITS: u32 = 32;

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A record that was due at this time.
    Now(u64),
    /// Nothing before this time.
    At(u64),
    /// Nothing any more.
    Over,
}

/// How fast, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Records per second; 0 is as fast as it goes: then a record is due when it is asked for.
    pub rate: u64,
    /// For how long, nanoseconds.
    pub run_ns: u64,
}

/// The due times of a plan.
#[derive(Debug, Clone)]
pub struct Pace {
    plan: Plan,
    start_ns: Option<u64>,
    /// Behind the start, in 2^-32 ns.
    next: u128,
    period: u128,
    left: u64,
}

impl Pace {
    /// Starts with the first question.
    pub fn new(plan: Plan) -> Self {
        let period = (u128::from(SECOND_NS) << FRACTION_BITS) / u128::from(plan.rate.max(1));
        Self { plan, start_ns: None, next: 0, period, left: plan.records().unwrap_or(u64::MAX) }
    }

    /// What to do at `now_ns`, which is never before an earlier one. A record that is due counts as sent.
    #[inline]
    pub fn ask(&mut self, now_ns: u64) -> Due {
        let start_ns = *self.start_ns.get_or_insert(now_ns);
        if self.plan.rate == 0 {
            return if now_ns - start_ns < self.plan.run_ns { Due::Now(now_ns) } else { Due::Over };
        }
        // Who is behind by as long as all was to take has failed, and would never catch up.
        if self.left == 0 || now_ns - start_ns > 2 * self.plan.run_ns {
            return Due::Over;
        }
        let due_ns = start_ns + (self.next >> FRACTION_BITS) as u64;
        if due_ns > now_ns {
            return Due::At(due_ns);
        }
        self.next += self.period;
        self.left -= 1;
        Due::Now(due_ns)
    }
}

impl Plan {
    /// Records in all, if that is known beforehand.
    pub fn records(&self) -> Option<u64> {
        let records = u128::from(self.rate) * u128::from(self.run_ns) / u128::from(SECOND_NS);
        (self.rate > 0).then_some(records as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_held_up_catches_up_at_once() {
        let mut pace = Pace::new(Plan { rate: 1_000_000, run_ns: 10_000 });
        assert_eq!(pace.ask(500), Due::Now(500));
        assert_eq!(pace.ask(600), Due::At(1_500));
        for late in 1..=5 {
            assert_eq!(pace.ask(5_700), Due::Now(500 + 1_000 * late));
        }
        assert_eq!(pace.ask(5_700), Due::At(6_500));
        (6..9).for_each(|late| assert_eq!(pace.ask(20_500), Due::Now(500 + 1_000 * late)));
        let mut hopeless = pace.clone();
        assert_eq!(hopeless.ask(20_501), Due::Over, "twice its time is over");
        assert_eq!((pace.ask(20_500), pace.ask(20_500)), (Due::Now(9_500), Due::Over));
    }

    #[test]
    fn an_odd_rate_does_not_drift() {
        let plan = Plan { rate: 7_000_003, run_ns: 2 * SECOND_NS };
        let mut pace = Pace::new(plan);
        let records = plan.records().unwrap();
        assert_eq!(records, 14_000_006);
        assert_eq!(pace.ask(0), Due::Now(0));
        let mut last = 0;
        for _ in 1..records {
            let Due::Now(due_ns) = pace.ask(3 * SECOND_NS) else { panic!("all is due by then") };
            last = due_ns;
        }
        assert!((1_999_999_850..2_000_000_000).contains(&last), "{last}");
    }

    #[test]
    fn as_fast_as_it_goes_ends_by_the_clock() {
        let mut pace = Pace::new(Plan { rate: 0, run_ns: 100 });
        assert_eq!((pace.ask(50), pace.ask(149), pace.ask(150)), (Due::Now(50), Due::Now(149), Due::Over));
        assert_eq!(Plan { rate: 0, run_ns: 100 }.records(), None);
    }
}
