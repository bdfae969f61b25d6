//! The flag between a thread that wants to sleep and those that bring it work: no wake-up is lost, and at most one
//! doorbell is pending.
//!
//! One sleeper, any number of wakers. The flag has two bits. SLEEPING is written by the sleeper only. PENDING is set by
//! the waker that then rings, and cleared by the sleeper when it has heard the ring.
//!
//! Always:
//! - rings - hearings ∈ {0, 1}: only the waker that turns PENDING on rings, only the sleeper turns it off.
//! - whoever publishes work and then finds SLEEPING off or PENDING on knows that the sleeper looks at the work after
//!   that: both sides write, fence, then read (Dekker), so at least one sees the other.

use crate::sync::{AtomicU32, Ordering, fence};

const SLEEPING: u32 = 1;
const PENDING: u32 = 2;

/// Sleep/wake flag of one slot thread.
///
/// Sleeper: [`prepare_sleep`](Self::prepare_sleep), look at every source of work once more, then either
/// [`awake`](Self::awake) because there is some, or [`commit`](Self::commit) and block, then `awake`. Whenever the
/// doorbell was heard, blocked or not: [`heard`](Self::heard).
///
/// Waker: publish the work, then [`wake`](Self::wake), and ring if it says so.
///
/// ```
/// use tidegate_arena::sleep::SleepFlag;
/// let flag = SleepFlag::new();
/// assert!(!flag.wake(), "nobody sleeps: no system call");
/// flag.prepare_sleep();
/// // … the queues are still empty …
/// assert!(flag.commit(), "may block");
/// assert!(flag.wake(), "the first waker rings");
/// assert!(!flag.wake(), "the second finds the ring pending");
/// flag.awake();
/// flag.heard();
/// ```
#[derive(Debug)]
pub struct SleepFlag(AtomicU32);

impl SleepFlag {
    /// A flag whose sleeper is awake.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// A flag whose sleeper is awake.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Sleeper: announces the wish to sleep. Every source of work must be looked at again after this.
    pub fn prepare_sleep(&self) {
        let before = self.0.fetch_or(SLEEPING, Ordering::Relaxed);
        assert_eq!(before & SLEEPING, 0, "the sleeper prepares to sleep twice without awake() in between");
        // Our flag before our look at the work; see the waker's fence.
        fence(Ordering::SeqCst);
    }

    /// Sleeper: the last look found nothing. True: block. False: a ring is pending or on its way, so blocking would
    /// return at once; not blocking is allowed as well.
    pub fn commit(&self) -> bool {
        let now = self.0.load(Ordering::Relaxed);
        assert_ne!(now & SLEEPING, 0, "commit() without prepare_sleep(), or after heard()");
        now & PENDING == 0
    }

    /// Sleeper: back from blocking, or work was found at the last look. A ring that is pending stays so until heard.
    pub fn awake(&self) {
        self.0.fetch_and(!SLEEPING, Ordering::Relaxed);
    }

    /// Sleeper: the doorbell has been taken off the ring (or read from the descriptor). Wakes too: work must be looked
    /// at again, after a new [`prepare_sleep`](Self::prepare_sleep), before blocking.
    pub fn heard(&self) {
        // A waker that still saw PENDING did not ring. Its work is found by the next look: prepare_sleep() fences.
        let before = self.0.swap(0, Ordering::Relaxed);
        assert_ne!(before & PENDING, 0, "a doorbell was heard that nobody was told to ring");
    }

    /// Waker: work has been published. True: the caller must ring the doorbell now, exactly once.
    #[must_use = "true means that the doorbell must be rung"]
    pub fn wake(&self) -> bool {
        // The work before our look at the flag; see the sleeper's fence.
        fence(Ordering::SeqCst);
        if self.0.load(Ordering::Relaxed) != SLEEPING {
            return false;
        }
        self.0.compare_exchange(SLEEPING, SLEEPING | PENDING, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether the sleeper has announced sleep. For reports; not a basis for decisions.
    pub fn sleeping(&self) -> bool {
        self.0.load(Ordering::Relaxed) & SLEEPING != 0
    }
}

impl Default for SleepFlag {
    fn default() -> Self {
        Self::new()
    }
}
