//! What it costs to reach the other core: a cache line that goes to and fro, and a thread that sleeps there.
//!
//! Each figure is half a round trip. The other thread ends when it is told to, and is joined before the figure is given.

use std::error::Error;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rustix::event::{EventfdFlags, eventfd};

use super::{Figure, Setting, sample, time};
use crate::process::pin;

/// Round trips of one sample of the cache line: so few that a sample is seldom interrupted.
const ROUNDS: u32 = 64;
/// What the cache line holds when it is over.
const OVER: u64 = u64::MAX;

/// A word that each core writes in turn, both spinning.
pub fn cache_line(setting: Setting) -> Result<Figure, Box<dyn Error>> {
    let word = AtomicU64::new(0);
    let samples = thread::scope(|scope| {
        scope.spawn(|| {
            pin(setting.cores[1]);
            loop {
                match word.load(Ordering::Acquire) {
                    OVER => break,
                    odd if odd % 2 == 1 => word.store(odd + 1, Ordering::Release),
                    _ => std::hint::spin_loop(),
                }
            }
        });
        let mut turn = 0;
        let samples = sample(setting.budget, 2 * ROUNDS, || {
            for _ in 0..ROUNDS {
                word.store(turn + 1, Ordering::Release);
                turn += 2;
                while word.load(Ordering::Acquire) != turn {
                    std::hint::spin_loop();
                }
            }
        });
        word.store(OVER, Ordering::Release);
        samples
    });
    time("cache line to the other core", &samples)
}

/// A thread that sleeps on a futex, which is what parking a thread is on Linux.
pub fn futex(setting: Setting) -> Result<Figure, Box<dyn Error>> {
    let (ball, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let here = thread::current();
    let samples = thread::scope(|scope| {
        let there = scope.spawn(|| {
            pin(setting.cores[1]);
            while !over.load(Ordering::Acquire) {
                if ball.swap(false, Ordering::AcqRel) {
                    here.unpark();
                }
                thread::park();
            }
        });
        let there = there.thread().clone();
        let samples = sample(setting.budget, 2, || {
            ball.store(true, Ordering::Release);
            there.unpark();
            while ball.load(Ordering::Acquire) {
                thread::park();
            }
        });
        over.store(true, Ordering::Release);
        there.unpark();
        samples
    });
    time(super::WAKE_FUTEX, &samples)
}

/// A thread that sleeps reading an eventfd. The largest value says that it is over.
pub fn event_fd(setting: Setting) -> Result<Figure, Box<dyn Error>> {
    const LAST: u64 = 1 << 32;
    let (to, fro) = (eventfd(0, EventfdFlags::CLOEXEC)?, eventfd(0, EventfdFlags::CLOEXEC)?);
    let mut failed = None;
    let samples = thread::scope(|scope| {
        scope.spawn(|| {
            pin(setting.cores[1]);
            // Whatever ends this loop, the other side is woken once more.
            while take(&to).is_ok_and(|value| value < LAST) && give(&fro, 1).is_ok() {}
            let _ = give(&fro, LAST);
        });
        let samples = sample(setting.budget, 2, || {
            if failed.is_none() {
                failed = give(&to, 1).and_then(|()| take(&fro)).err();
            }
        });
        failed = failed.or(give(&to, LAST).err());
        samples
    });
    match failed {
        Some(error) => Err(error.into()),
        None => time("wake a thread on the other core, eventfd", &samples),
    }
}

fn give(to: &OwnedFd, value: u64) -> rustix::io::Result<()> {
    rustix::io::write(to, &value.to_ne_bytes()).map(drop)
}

fn take(from: &OwnedFd) -> rustix::io::Result<u64> {
    let mut value = [0; 8];
    rustix::io::read(from, &mut value)?;
    Ok(u64::from_ne_bytes(value))
}
