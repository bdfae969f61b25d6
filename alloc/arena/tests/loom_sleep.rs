//! The sleep flag under every interleaving (up to the bound on preemptions): no wake-up is lost, at most one doorbell is
//! pending.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release -p tidegate-arena --test loom_sleep
//! ```
//!
//! A lost wake-up leaves the sleeper blocked for ever, which loom reports as a deadlock.
//!
//! Each of these, put into the code, makes both models fail: `prepare_sleep` or `wake` without its fence (deadlock),
//! `heard` that leaves PENDING set (deadlock), `wake` with a store instead of the exchange (the flag's own assertions).

#![cfg(loom)]

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use tidegate_arena::{sleep::SleepFlag, spsc};

/// An eventfd, or a ring's completion queue: the thing that wakes a blocked thread.
struct Doorbell {
    flag: SleepFlag,
    pending: Mutex<u32>,
    rung: Condvar,
}

impl Doorbell {
    fn new() -> Self {
        Self { flag: SleepFlag::new(), pending: Mutex::new(0), rung: Condvar::new() }
    }

    /// A waker, after it has published its work.
    fn wake(&self) {
        if self.flag.wake() {
            let mut pending = self.pending.lock().expect("no panic");
            *pending += 1;
            assert_eq!(*pending, 1, "at most one doorbell is pending");
            self.rung.notify_one();
        }
    }

    /// The sleeper, in its loop: like a slot thread, it takes doorbells off the ring whether it blocked or not.
    fn sleep_unless(&self, work: impl FnOnce() -> bool) {
        self.flag.prepare_sleep();
        // If commit() says that a ring is on its way, blocking is allowed too: the ring must then really come.
        let block = !work();
        if block {
            self.flag.commit();
        }
        let mut pending = self.pending.lock().expect("no panic");
        while block && *pending == 0 {
            pending = self.rung.wait(pending).expect("no panic");
        }
        let heard = std::mem::take(&mut *pending) > 0;
        drop(pending);
        self.flag.awake();
        if heard {
            self.flag.heard();
        }
    }
}

/// (d) One sleeper, two wakers with one piece of work each.
#[test]
fn no_wake_up_is_lost_and_one_doorbell_is_pending_at_most() {
    loom::model(|| {
        let doorbell = Arc::new(Doorbell::new());
        let work = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let wakers = [0, 1].map(|waker| {
            let (doorbell, work) = (Arc::clone(&doorbell), Arc::clone(&work));
            thread::spawn(move || {
                work[waker].store(1, Ordering::Relaxed);
                doorbell.wake();
            })
        });
        let count = || work.iter().map(|work| work.load(Ordering::Relaxed)).sum::<u32>();
        let mut done = count();
        while done < 2 {
            doorbell.sleep_unless(|| count() > done);
            done = count();
        }
        for waker in wakers {
            waker.join().expect("the waker's assertions hold");
        }
    });
}

/// (d) as it is used: the work is a queue, the sleeper its consumer, and the end of the producer is work too.
#[test]
fn a_queue_and_its_end_wake_the_consumer() {
    loom::model(|| {
        let doorbell = Arc::new(Doorbell::new());
        let (mut producer, mut consumer) = spsc::channel(2);
        let waker = {
            let doorbell = Arc::clone(&doorbell);
            thread::spawn(move || {
                for item in 0..2u64 {
                    assert_eq!(producer.try_push(item), Ok(()));
                    doorbell.wake();
                }
                drop(producer);
                doorbell.wake();
            })
        };
        let mut expected = 0;
        while !consumer.finished() {
            if let Some(item) = consumer.try_pop() {
                assert_eq!(item, expected);
                expected += 1;
                continue;
            }
            doorbell.sleep_unless(|| !consumer.is_empty() || consumer.closed());
        }
        assert_eq!(expected, 2);
        waker.join().expect("the waker's assertions hold");
    });
}
