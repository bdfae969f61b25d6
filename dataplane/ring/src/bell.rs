//! The doorbell of a ring: a flag in memory while the slot is awake, an eventfd that its driver watches while it sleeps.
//! Under `--cfg shuttle` the flag is shuttle's, and `interleaved` stands for eventfd and driver.
//!
//! Shared by the slot thread and all doorbells, and the same for every driver of the host. Always: unheard eventfd
//! writes ≤ 1; whoever rings after publishing work
//! makes the current or the next wait return.

#[cfg(shuttle)]
use shuttle::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(shuttle))]
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(shuttle))]
use std::{
    fs::File,
    io::Write,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};
use std::{os::fd::RawFd, sync::Arc};

use tidegate_arena::sleep::SleepFlag;

#[cfg(shuttle)]
use crate::interleaved::Event;
use crate::{Doorbell, RingError};

/// The eventfd.
#[cfg(not(shuttle))]
struct Event(File);

#[cfg(not(shuttle))]
impl Event {
    fn new() -> Result<Self, RingError> {
        // SAFETY: rule 7, a system call without pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(RingError::os("eventfd")(std::io::Error::last_os_error()));
        }
        // SAFETY: rule 7, the descriptor was just made and belongs to nobody else.
        Ok(Self(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn write(&self) {
        let written = (&self.0).write(&1u64.to_ne_bytes());
        assert!(
            matches!(written, Ok(8)),
            "an eventfd with at most one pending ring takes another: {written:?}"
        );
    }
}

pub(crate) struct Bell {
    /// The work that a ring announces: somebody rang since the last wait.
    rung: AtomicBool,
    sleep: SleepFlag,
    eventfd: Event,
}

impl Bell {
    pub(crate) fn new() -> Result<Arc<Self>, RingError> {
        let eventfd = Event::new()?;
        Ok(Arc::new(Self { rung: AtomicBool::new(false), sleep: SleepFlag::new(), eventfd }))
    }

    /// For the driver to read from or to watch.
    pub(crate) fn fd(&self) -> RawFd {
        self.eventfd.fd()
    }

    /// Slot: about to block. False: somebody rang since the last call, so do not. If true, call `awake` afterwards.
    pub(crate) fn may_sleep(&self) -> bool {
        self.sleep.prepare_sleep();
        let rung = self.rung.swap(false, Ordering::AcqRel);
        if rung {
            self.sleep.awake();
        }
        !rung
    }

    /// Slot: blocks until somebody has written, and takes that off.
    #[cfg(shuttle)]
    pub(crate) fn block(&self) {
        self.eventfd.read();
    }

    /// Slot: back from blocking.
    pub(crate) fn awake(&self) {
        self.sleep.awake();
        // The caller of the wait looks at all work anyway, so a ring up to here needs no further turn.
        self.rung.swap(false, Ordering::AcqRel);
    }

    /// Slot: the driver has noticed the write.
    pub(crate) fn heard(&self) {
        self.sleep.heard();
    }
}

/// The doorbell of a [`UringRing`](crate::UringRing) or [`EpollRing`](crate::EpollRing).
///
/// One atomic exchange if somebody rang before and the slot has not waited since; one more fence and load if not; one
/// system call only for the first ring after the slot fell asleep.
#[derive(Clone)]
pub struct EventfdDoorbell(Arc<Bell>);

impl EventfdDoorbell {
    pub(crate) fn new(bell: Arc<Bell>) -> Self {
        Self(bell)
    }
}

impl Doorbell for EventfdDoorbell {
    fn ring(&self) {
        // If it was rung already, the slot has yet to take that ring off, and looks at all work after that.
        if self.0.rung.swap(true, Ordering::AcqRel) || !self.0.sleep.wake() {
            return;
        }
        self.0.eventfd.write();
    }
}

impl std::fmt::Debug for EventfdDoorbell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventfdDoorbell").field("sleeping", &self.0.sleep.sleeping()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_awake_slot_costs_no_write_and_loses_no_ring() {
        let bell = Bell::new().unwrap();
        let doorbell = EventfdDoorbell::new(bell.clone());
        doorbell.ring();
        doorbell.ring();
        assert!(!bell.may_sleep(), "rung before the wait");
        assert!(bell.may_sleep(), "one ring, one return");
        bell.awake();
        assert!(!bell.sleep.sleeping());
    }
}
