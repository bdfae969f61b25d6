//! The doorbell of a ring: a flag in memory while the slot is awake, an eventfd that its driver watches while it sleeps.
//!
//! Shared by the slot thread and all doorbells, and the same for every driver of the host. Always: unheard eventfd
//! writes ≤ 1; whoever rings after publishing work
//! makes the current or the next wait return.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tidegate_arena::sleep::SleepFlag;

use crate::{Doorbell, RingError};

pub(crate) struct Bell {
    /// The work that a ring announces: somebody rang since the last wait.
    rung: AtomicBool,
    sleep: SleepFlag,
    eventfd: File,
}

impl Bell {
    pub(crate) fn new() -> Result<Arc<Self>, RingError> {
        // SAFETY: rule 7, a system call without pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(RingError::os("eventfd")(std::io::Error::last_os_error()));
        }
        // SAFETY: rule 7, the descriptor was just made and belongs to nobody else.
        let eventfd = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Arc::new(Self { rung: AtomicBool::new(false), sleep: SleepFlag::new(), eventfd }))
    }

    /// For the driver to read from or to watch.
    pub(crate) fn fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
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
        let written = (&self.0.eventfd).write(&1u64.to_ne_bytes());
        assert!(
            matches!(written, Ok(8)),
            "an eventfd with at most one pending ring takes another: {written:?}"
        );
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
