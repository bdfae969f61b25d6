//! Memory that is reserved before it is used: managed memory of a slot, and the off-heap memory that user code asks for.
//!
//! Owner of the state: whoever holds a [`Budget`]; clones share it. A [`Reservation`] gives back what it holds when it is
//! dropped.
//!
//! Always: what is reserved is the sum of all reservations, and at most the whole; the peak never decreases.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of bytes that consumers reserve from.
///
/// ```
/// use tidegate_memory::Budget;
/// let budget = Budget::new("managed memory for keyed state", "taskmanager.memory.managed.size", Some(1000));
/// let mut table = budget.reserve(600).expect("there is room");
/// let error = budget.reserve(600).expect_err("there is no more");
/// assert_eq!((error.wanted, error.left, error.total), (600, 400, 1000));
/// table.resize(100).expect("less is always possible");
/// assert_eq!((budget.read().used, budget.read().peak), (100, 600));
/// ```
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    what: &'static str,
    key: &'static str,
    total: u64,
    used: AtomicU64,
    peak: AtomicU64,
}

/// What a budget has reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetReading {
    /// Bytes there are; `u64::MAX` where nobody limits them.
    pub total: u64,
    /// Bytes reserved now.
    pub used: u64,
    /// The most that was reserved at once.
    pub peak: u64,
}

/// There is not enough left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what}: {wanted} more bytes are needed, {left} of {total} are left; raise {key}, or spread the job over more slots"
)]
pub struct BudgetError {
    /// Which budget.
    pub what: &'static str,
    /// The key that makes it larger.
    pub key: &'static str,
    /// Bytes that were asked for.
    pub wanted: u64,
    /// Bytes that were left.
    pub left: u64,
    /// Bytes of the whole budget.
    pub total: u64,
}

impl Budget {
    /// A budget of `total` bytes; `None`: as many as anybody asks for. `what` and `key` are for errors.
    pub fn new(what: &'static str, key: &'static str, total: Option<u64>) -> Self {
        let total = total.unwrap_or(u64::MAX);
        Self(Arc::new(Shared { what, key, total, used: AtomicU64::new(0), peak: AtomicU64::new(0) }))
    }

    /// Reserves `bytes`.
    ///
    /// # Errors
    /// [`BudgetError`] if so many are not left; nothing is reserved then.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, BudgetError> {
        let mut reservation = Reservation { budget: self.clone(), bytes: 0 };
        reservation.resize(bytes)?;
        Ok(reservation)
    }

    /// Bytes reserved, in all and at most.
    pub fn read(&self) -> BudgetReading {
        let (used, peak) = (self.0.used.load(Ordering::Relaxed), self.0.peak.load(Ordering::Relaxed));
        BudgetReading { total: self.0.total, used, peak: peak.max(used) }
    }

    fn take(&self, bytes: u64) -> Result<(), BudgetError> {
        let Shared { what, key, total, ref used, ref peak } = *self.0;
        let fits = |now: u64| now.checked_add(bytes).filter(|sum| *sum <= total);
        match used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(before) => {
                peak.fetch_max(before + bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(now) => Err(BudgetError { what, key, wanted: bytes, left: total.saturating_sub(now), total }),
        }
    }
}

/// Reserved bytes; given back when dropped.
pub struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Reservation {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it hold `bytes`: reserves the difference, or gives it back.
    ///
    /// # Errors
    /// [`BudgetError`] if more is wanted than is left; it stays as it is then.
    pub fn resize(&mut self, bytes: u64) -> Result<(), BudgetError> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.budget.take(more)?,
            None => {
                self.budget.0.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            }
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("what", &self.budget.0.what).field("bytes", &self.bytes).finish()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn used_is_the_sum_and_never_more_than_the_whole(total in 0u64..1000, steps: Vec<(u8, u16)>) {
            let budget = Budget::new("b", "k", Some(total));
            let mut held: Vec<Reservation> = Vec::new();
            for (kind, bytes) in steps {
                let bytes = u64::from(bytes) % 400;
                match (kind % 3, held.len()) {
                    (0, _) | (_, 0) => held.extend(budget.reserve(bytes).ok()),
                    (1, _) => { let _ = held[0].resize(bytes); }
                    (_, len) => drop(held.swap_remove(kind as usize % len)),
                }
                let seen = budget.read();
                prop_assert_eq!(seen.used, held.iter().map(Reservation::bytes).sum::<u64>());
                prop_assert!(seen.used <= total && seen.peak <= total && seen.peak >= seen.used);
            }
            drop(held);
            prop_assert_eq!(budget.read().used, 0);
        }
    }

    #[test]
    fn a_refusal_names_the_key() {
        let budget =
            Budget::new("managed memory for keyed state", "taskmanager.memory.managed.size", Some(1 << 20));
        let text = budget.reserve(2 << 20).expect_err("more than there is").to_string();
        assert!(
            text.contains("taskmanager.memory.managed.size") && text.contains("managed memory"),
            "{text}"
        );
        assert!(Budget::new("b", "k", None).reserve(u64::MAX).is_ok());
    }
}
