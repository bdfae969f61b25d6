//! A rate that a source keeps to, by the slot's clock alone. It owns when it started and what was spent since.
//!
//! Always: between any two moments, at most the rate times the time between them, plus what may be caught up, plus one
//! item (or block) is spent. Nobody sleeps: the pacer names the time at which to ask again.

use crate::connect::limits::{CATCH_UP_NS, PAUSE_NS_MIN};
use crate::error::{Fault, TaskError};

const SECOND_NS: u128 = 1_000_000_000;

/// Spends items at a rate.
///
/// ```
/// use tidegate_stream::connect::pace::Pacer;
/// let mut pacer = Pacer::new(1000, 1).unwrap();
/// assert_eq!(pacer.wait(5_000_000), None);
/// pacer.spend(3);
/// assert_eq!(pacer.wait(5_000_000), Some(8_000_000));
/// assert_eq!(pacer.wait(8_000_000), None);
/// ```
#[derive(Clone, Debug)]
pub struct Pacer {
    /// Items per second of all instances together.
    rate: u64,
    /// Instances that share the rate.
    instances: u32,
    start_ns: Option<u64>,
    spent: u64,
}

impl Pacer {
    /// One of `instances` pacers that together let `rate` items pass per second.
    ///
    /// # Errors
    /// `Fault::Setup` for a rate of zero: nothing would ever come.
    pub fn new(rate: u64, instances: u32) -> Result<Self, TaskError> {
        if rate == 0 {
            let message =
                "a rate of 0 per second lets nothing pass: give at least 1, or no rate for no limit";
            return Err(TaskError::new(Fault::Setup, message));
        }
        Ok(Pacer { rate, instances: instances.max(1), start_ns: None, spent: 0 })
    }

    /// When to ask again, in nanoseconds on the slot's clock; `None` if the next item may pass now.
    #[inline]
    pub fn wait(&mut self, now_ns: u64) -> Option<u64> {
        let start = *self.start_ns.get_or_insert(now_ns);
        let due = start.saturating_add(self.duration_ns(self.spent));
        if due > now_ns {
            return Some(due.max(now_ns.saturating_add(PAUSE_NS_MIN)));
        }
        if now_ns - due > CATCH_UP_NS {
            self.start_ns = Some(now_ns - CATCH_UP_NS);
            self.spent = 0;
        }
        None
    }

    /// Counts `items` as passed.
    #[inline]
    pub fn spend(&mut self, items: u64) {
        self.spent += items;
    }

    /// How long `items` take at this instance's share of the rate.
    fn duration_ns(&self, items: u64) -> u64 {
        let ns = u128::from(items) * u128::from(self.instances) * SECOND_NS / u128::from(self.rate);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}
