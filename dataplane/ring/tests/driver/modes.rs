//! What the modes and rungs are in the report, and what zero copy is on loopback.

use std::{
    io::{Read, Write},
    net::Shutdown,
    thread,
};

use tidegate_ring::limits::{TRIALS_EACH, TRIALS_MAX};
use tidegate_ring::{Completion, ModeReason, Registration, RegistrationRung, Ring, SendMode, probe};

use crate::{
    need_io_uring,
    side::{Mode, SEGMENT, Side, pair},
};

/// Streams large payloads to a reading peer and returns the side.
fn stream(mode: Mode) -> Side {
    let (here, mut there) = pair();
    let reader = thread::spawn(move || there.read_to_end(&mut Vec::new()).unwrap());
    let mut side = Side::new(mode);
    let conn = side.ring().attach(here.into()).unwrap();
    for _ in 0..100 {
        let parts = side.parts(&[(0, 96), (0, SEGMENT), (0, SEGMENT)]);
        side.ring().send(conn, parts).unwrap();
        while !matches!(side.settle(), Completion::Sent { result: Ok(_), .. }) {}
    }
    side.ring().shutdown_write(conn);
    assert_eq!(reader.join().unwrap() as u64, side.written);
    side.ring().close(conn);
    while !matches!(side.settle(), Completion::Closed { .. }) {}
    side
}

#[test]
fn zero_copy_on_loopback_is_reported_as_copied() {
    need_io_uring!();
    for registration in [Registration::Required, Registration::Never] {
        let mut side = stream(Mode::Uring(SendMode::Zc, registration));
        let report = side.ring().report();
        assert_eq!(report.send_mode, SendMode::Zc);
        // The first ones at least: later ones are copied here when too many notifications are outstanding.
        assert!(report.counters.zc_sends >= 4, "{report:?}");
        assert_eq!(report.counters.zc_copied, report.counters.zc_sends, "{report:?}");
        assert_eq!(report.counters.fallbacks, 0, "{report:?}");
        side.end();
    }
}

#[test]
fn auto_finds_out_with_two_sends_that_loopback_copies() {
    need_io_uring!();
    let mut side = stream(Mode::Uring(SendMode::Auto, Registration::Required));
    let counters = side.ring().report().counters;
    // One, if its notification is so late that all is sent by then: the second waits for it.
    assert!((1..=2).contains(&counters.zc_sends), "{counters:?}");
    let told = (counters.zc_copied, counters.notifications);
    assert_eq!(told, (counters.zc_sends, counters.zc_sends), "{counters:?}");
    assert!(counters.notification_ns_max > 0 && counters.notification_ns >= counters.notification_ns_max);
    side.end();

    let mut side = stream(Mode::Uring(SendMode::Auto, Registration::Never));
    assert_eq!(side.ring().report().counters.zc_sends, 0, "only from registered memory");
    side.end();
}

#[test]
fn auto_compares_registered_and_plain_sends_within_a_bound() {
    need_io_uring!();
    let mut side = stream(Mode::Uring(SendMode::Auto, Registration::Required));
    let counters = side.ring().report().counters;
    assert!(counters.trial_sends >= 2 * TRIALS_EACH as u64, "{counters:?}");
    assert!(counters.trial_sends <= u64::from(TRIALS_MAX), "{counters:?}");
    assert!(counters.fixed_sends >= TRIALS_EACH as u64, "{counters:?}");
    assert!(counters.plain_sends() >= TRIALS_EACH as u64, "{counters:?}");
    side.end();
    for (mode, plain) in [(SendMode::Fixed, 0), (SendMode::Plain, 100)] {
        let mut side = stream(Mode::Uring(mode, Registration::Required));
        let counters = side.ring().report().counters;
        assert_eq!((counters.trial_sends, counters.zc_sends), (0, 0), "{mode} is not asked");
        assert_eq!(counters.plain_sends() >= 100, plain > 0, "{mode}: {counters:?}");
        side.end();
    }
}

#[test]
fn the_report_names_rungs_and_reasons() {
    need_io_uring!();
    let capabilities = probe().io_uring.unwrap();
    let mut side = Side::new(Mode::Uring(SendMode::Auto, Registration::Never));
    let report = side.ring().report();
    assert_eq!((report.driver, report.setup), ("io_uring", capabilities.setup));
    assert_eq!(report.registration, RegistrationRung::NotWanted);
    assert_eq!(
        (report.send_mode, report.send_mode_reason),
        (SendMode::Plain, Some(ModeReason::Unregistered))
    );
    assert!(report.to_string().contains("not registered"), "{report}");
    side.end();

    let mut side = Side::new(Mode::Uring(SendMode::Fixed, Registration::Required));
    let report = side.ring().report();
    assert_eq!(report.registration, RegistrationRung::Registered { bytes: 32 * SEGMENT as usize });
    if capabilities.fixed_vectors {
        assert_eq!((report.send_mode, report.send_mode_reason), (SendMode::Fixed, None));
    } else {
        assert_eq!(report.send_mode_reason, Some(ModeReason::NoFixedVectors));
    }
    side.end();
}

#[test]
fn epoll_says_what_it_is_and_what_it_did() {
    let mut side = stream(Mode::Epoll);
    let report = side.ring().report();
    assert_eq!((report.driver, report.registration), ("epoll", RegistrationRung::NotWanted));
    assert_eq!((report.send_mode, report.send_mode_reason), (SendMode::Plain, Some(ModeReason::OnlyPlain)));
    assert!(report.to_string().contains("no other mode"), "{report}");
    let counters = report.counters;
    assert_eq!(counters.bytes_sent, side.written);
    // Every operation was one call at least, and a short one was resumed.
    assert!(counters.send_ops >= 100 + counters.short_sends && counters.enters > counters.send_ops);
    side.end();
}

#[test]
fn a_turn_of_epoll_asks_for_events_only_while_something_is_pending() {
    let (here, mut there) = pair();
    let mut side = Side::new(Mode::Epoll);
    let conn = side.ring().attach(here.into()).unwrap();
    let before = side.ring().report().counters;
    (0..100).for_each(|_| _ = side.ring().reap(8, &mut |completion| unreachable!("{completion:?}")));
    assert_eq!(side.ring().report().counters, before, "nothing is pending");

    let room = side.room(&[(0, 10)]);
    side.ring().receive(conn, room).unwrap();
    assert_eq!(side.ring().report().counters, before, "a receive is only queued");
    (0..100).for_each(|_| _ = side.ring().reap(8, &mut |completion| unreachable!("{completion:?}")));
    let tried = side.ring().report().counters;
    assert!(tried.receive_ops <= 2, "found nothing, so it waits for an edge: {tried:?}");
    there.write_all(&[crate::side::pattern(0)]).unwrap();
    assert!(matches!(side.settle(), Completion::Received { result: Ok(1), .. }));
    side.end();
}

#[test]
fn bytes_and_the_end_that_came_together_are_both_told() {
    for ends_first in [true, false] {
        let (here, mut there) = pair();
        let mut side = Side::new(Mode::Epoll);
        if ends_first {
            // Before anybody watches.
            there.write_all(&[crate::side::pattern(0)]).unwrap();
            there.shutdown(Shutdown::Write).unwrap();
        }
        let conn = side.ring().attach(here.into()).unwrap();
        let room = side.room(&[(0, 10)]);
        side.ring().receive(conn, room).unwrap();
        if !ends_first {
            // After the first try found nothing.
            assert_eq!(side.ring().reap(8, &mut |early| unreachable!("{early:?}")), 0);
            there.write_all(&[crate::side::pattern(0)]).unwrap();
            there.shutdown(Shutdown::Write).unwrap();
        }
        assert!(matches!(side.settle(), Completion::Received { result: Ok(1), .. }));
        let room = side.room(&[(0, 10)]);
        side.ring().receive(conn, room).unwrap();
        assert!(matches!(side.settle(), Completion::Received { result: Ok(0), .. }));
        side.end();
    }
}
