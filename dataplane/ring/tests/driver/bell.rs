//! Waking and waiting: no ring is lost, none is dear, and time-outs hold.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tidegate_ring::{AnyRing, Completion, Doorbell, Ring};

use crate::{
    need_io_uring,
    side::{AUTO, PATIENCE, Side, drivers, pair},
};

fn wait_of(ring: &mut AnyRing, timeout: Duration) -> Duration {
    let start = Instant::now();
    ring.wait(Some(timeout));
    start.elapsed()
}

#[test]
fn a_doorbell_of_another_thread_ends_a_wait() {
    for mode in drivers() {
        const ROUNDS: u32 = 2000;
        let mut side = Side::new(mode);
        let doorbell = side.ring().doorbell();
        let work = Arc::new(AtomicU32::new(0));
        let (done, rounds) = mpsc::channel();
        let worker = thread::spawn({
            let work = work.clone();
            move || {
                for round in 1..=ROUNDS {
                    work.store(round, Ordering::Relaxed);
                    doorbell.ring();
                    // Sometimes the slot is asleep when the next ring comes, sometimes not yet.
                    if round % 2 == 0 {
                        rounds.recv_timeout(PATIENCE).expect("a ring was lost");
                    }
                }
            }
        });
        let mut seen = 0;
        while seen < ROUNDS {
            assert!(wait_of(side.ring(), PATIENCE) < PATIENCE, "a ring was lost");
            side.ring().reap(8, &mut |completion| unreachable!("{completion:?}"));
            let now = work.load(Ordering::Relaxed);
            if now > seen && now.is_multiple_of(2) {
                done.send(()).unwrap();
            }
            seen = now;
        }
        worker.join().unwrap();
        assert!(side.ring().report().counters.doorbells <= u64::from(ROUNDS));
        side.end();
    }
}

#[test]
fn many_ringers_cost_at_most_one_ring_per_sleep() {
    for mode in drivers() {
        const EACH: u32 = 5000;
        let mut side = Side::new(mode);
        let work = Arc::new(AtomicU32::new(0));
        let ringers = [(); 3].map(|()| {
            let (doorbell, work) = (side.ring().doorbell(), work.clone());
            thread::spawn(move || {
                for _ in 0..EACH {
                    work.fetch_add(1, Ordering::Relaxed);
                    doorbell.ring();
                }
            })
        });
        let mut sleeps = 0;
        while work.load(Ordering::Relaxed) < 3 * EACH {
            assert!(wait_of(side.ring(), PATIENCE) < PATIENCE, "a ring was lost");
            sleeps += 1;
            side.ring().reap(8, &mut |completion| unreachable!("{completion:?}"));
        }
        ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
        assert!(side.ring().report().counters.doorbells <= sleeps);
        side.end();
    }
}

#[test]
fn ringing_an_awake_slot_enters_nothing_and_is_remembered_once() {
    for mode in drivers() {
        // On a thread of its own: the kernel ends an io_uring later, on the thread that made it, and interrupts its waits.
        let ringing = thread::spawn(move || {
            let mut side = Side::new(mode);
            let doorbell = side.ring().doorbell();
            side.ring().reap(1, &mut |_| {}); // hands over the doorbell's own read
            let before = side.ring().report().counters;
            (0..100).for_each(|_| doorbell.ring());
            side.ring().wait(None);
            assert_eq!(side.ring().report().counters, before, "neither an enter nor a doorbell");
            let short = Duration::from_millis(5);
            assert!(wait_of(side.ring(), short) >= short, "{mode}: one hundred rings, one return");
            side.end();
        });
        ringing.join().expect("no panic");
    }
}

#[test]
fn a_doorbell_outlives_its_ring() {
    for mode in drivers() {
        let mut side = Side::new(mode);
        let doorbell = side.ring().doorbell();
        side.end();
        doorbell.ring();
    }
}

#[test]
fn a_wait_ends_after_its_timeout_and_not_before() {
    for mode in drivers() {
        // On a thread of its own: the kernel ends an io_uring later, on the thread that made it, and interrupts its waits.
        thread::spawn(move || {
            let mut side = Side::new(mode);
            for timeout in [Duration::from_millis(20), Duration::from_micros(300), Duration::ZERO] {
                let waited = wait_of(side.ring(), timeout);
                assert!(waited >= timeout && waited < PATIENCE, "{mode}: {timeout:?}: {waited:?}");
            }
            let before = side.ring().now();
            wait_of(side.ring(), Duration::from_millis(2));
            assert!(side.ring().now() - before >= 2_000_000, "{mode}: the clock counts nanoseconds");
            side.end();
        })
        .join()
        .unwrap();
    }
}

#[test]
fn a_completion_ends_a_wait_and_the_next_one_returns_until_it_is_reaped() {
    for mode in drivers() {
        let (here, mut there) = pair();
        let mut side = Side::new(mode);
        let conn = side.ring().attach(here.into()).unwrap();
        let room = side.room(&[(0, 10)]);
        side.ring().receive(conn, room).unwrap();
        let writer = thread::spawn(move || {
            there.write_all(&[crate::side::pattern(0)]).unwrap();
            there
        });
        side.ring().wait(Some(Duration::MAX)); // longer than the kernel can count
        for _ in 0..3 {
            assert!(wait_of(side.ring(), PATIENCE) < PATIENCE);
        }
        assert!(matches!(side.settle(), Completion::Received { result: Ok(1), .. }));
        drop(writer.join().unwrap());
        side.end();
    }
}

#[test]
fn a_turn_of_io_uring_enters_at_most_once_and_an_idle_one_not_at_all() {
    need_io_uring!();
    let (here, mut there) = pair();
    let mut side = Side::new(AUTO);
    let conn = side.ring().attach(here.into()).unwrap();
    side.ring().reap(1, &mut |_| {});
    let enters = |side: &mut Side| side.ring().report().counters.enters;

    let before = enters(&mut side);
    (0..100).for_each(|_| _ = side.ring().reap(8, &mut |completion| unreachable!("{completion:?}")));
    assert_eq!(enters(&mut side), before, "nothing queued, nothing delivered");

    let (parts, room) = (side.parts(&[(0, 10)]), side.room(&[(0, 10)]));
    side.ring().send(conn, parts).unwrap();
    side.ring().receive(conn, room).unwrap();
    assert_eq!(enters(&mut side), before, "sends and receives are only queued");
    let mut completions = Vec::new();
    assert_eq!(
        side.ring().reap(8, &mut |completion| completions.push(completion)),
        1,
        "the send ends at once"
    );
    assert_eq!(enters(&mut side), before + 1, "one enter for both");
    let Some(Completion::Sent { parts, .. }) = completions.pop() else { unreachable!("{completions:?}") };
    side.release(parts);

    // Deferred work is found by turns alone: no wait is needed to make it run.
    there.write_all(&[crate::side::pattern(0)]).unwrap();
    let start = Instant::now();
    while side.ring().reap(8, &mut |completion| completions.push(completion)) == 0 {
        assert!(start.elapsed() < PATIENCE, "the completion is never delivered to a ring that only turns");
    }
    let Some(Completion::Received { parts, .. }) = completions.pop() else { unreachable!("{completions:?}") };
    side.verify(parts, 1);
    assert_eq!(enters(&mut side), before + 2, "and one to run it");
    side.end();
}
