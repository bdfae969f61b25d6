//! What the modes and rungs are in the report, and what zero copy is on loopback.

use std::{io::Read, thread};

use tidegate_ring::{Completion, ModeReason, Registration, RegistrationRung, Ring, SendMode, probe};

use crate::{
    need_io_uring,
    side::{SEGMENT, Side, pair},
};

/// Streams large payloads to a reading peer and returns the side.
fn stream(send: SendMode, registration: Registration) -> Side {
    let (here, mut there) = pair();
    let reader = thread::spawn(move || there.read_to_end(&mut Vec::new()).unwrap());
    let mut side = Side::new(send, registration);
    let conn = side.ring().attach(here).unwrap();
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
        let mut side = stream(SendMode::Zc, registration);
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
fn auto_never_sends_zero_copy_on_loopback() {
    need_io_uring!();
    for registration in [Registration::Auto, Registration::Never] {
        let mut side = stream(SendMode::Auto, registration);
        assert_eq!(side.ring().report().counters.zc_sends, 0);
        side.end();
    }
}

#[test]
fn the_report_names_rungs_and_reasons() {
    need_io_uring!();
    let capabilities = probe().io_uring.unwrap();
    let mut side = Side::new(SendMode::Auto, Registration::Never);
    let report = side.ring().report();
    assert_eq!((report.driver, report.setup), ("io_uring", capabilities.setup));
    assert_eq!(report.registration, RegistrationRung::NotWanted);
    assert_eq!(
        (report.send_mode, report.send_mode_reason),
        (SendMode::Plain, Some(ModeReason::Unregistered))
    );
    assert!(report.to_string().contains("not registered"), "{report}");
    side.end();

    let mut side = Side::new(SendMode::Fixed, Registration::Required);
    let report = side.ring().report();
    assert_eq!(report.registration, RegistrationRung::Registered { bytes: 32 * SEGMENT as usize });
    if capabilities.fixed_vectors {
        assert_eq!((report.send_mode, report.send_mode_reason), (SendMode::Fixed, None));
    } else {
        assert_eq!(report.send_mode_reason, Some(ModeReason::NoFixedVectors));
    }
    side.end();
}
