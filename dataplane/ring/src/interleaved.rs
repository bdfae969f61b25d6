//! A ring without connections for models under `--cfg shuttle`: what is left is the doorbell, which is the real one, and the
//! wait for it.
//!
//! [`BellRing`] owns its bell. Always: a wait ends only by a ring, whatever its timeout, so one that is lost is a deadlock,
//! which shuttle reports.

use std::net::TcpStream;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use shuttle::sync::{Condvar, Mutex, PoisonError};

use crate::bell::{Bell, EventfdDoorbell};
use crate::{
    Completion, ConnId, Counters, DriverReport, ReceiveParts, RegistrationRung, Ring, RingError, SendMode,
    SendParts,
};

/// Stands for an eventfd and for the system call that blocks on it.
#[derive(Default)]
pub(crate) struct Event {
    written: Mutex<u64>,
    changed: Condvar,
}

impl Event {
    pub(crate) fn new() -> Result<Self, RingError> {
        Ok(Self::default())
    }

    /// No driver of the host is made here.
    pub(crate) fn fd(&self) -> RawFd {
        -1
    }

    pub(crate) fn write(&self) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        *written += 1;
        assert_eq!(*written, 1, "at most one ring is pending");
        self.changed.notify_one();
    }

    pub(crate) fn read(&self) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        while *written == 0 {
            written = self.changed.wait(written).unwrap_or_else(PoisonError::into_inner);
        }
        *written = 0;
    }
}

/// The ring of a slot that has local channels only.
pub struct BellRing(Arc<Bell>);

impl BellRing {
    /// A ring whose slot is awake.
    ///
    /// # Errors
    /// None here.
    pub fn new() -> Result<Self, RingError> {
        Bell::new().map(Self)
    }
}

impl Ring for BellRing {
    type Socket = TcpStream;
    type Doorbell = EventfdDoorbell;

    fn doorbell(&self) -> EventfdDoorbell {
        EventfdDoorbell::new(self.0.clone())
    }

    fn attach(&mut self, _socket: TcpStream) -> Result<ConnId, RingError> {
        Err(RingError::Connections { found: 0 })
    }

    fn send(&mut self, _conn: ConnId, parts: SendParts) -> Result<(), SendParts> {
        Err(parts)
    }

    fn receive(&mut self, _conn: ConnId, parts: ReceiveParts) -> Result<(), ReceiveParts> {
        Err(parts)
    }

    fn shutdown_write(&mut self, _conn: ConnId) {}

    fn close(&mut self, _conn: ConnId) {}

    fn reap(&mut self, _budget: u32, _sink: &mut dyn FnMut(Completion)) -> u32 {
        0
    }

    fn wait(&mut self, _timeout: Option<Duration>) {
        if self.0.may_sleep() {
            self.0.block();
            self.0.heard();
            self.0.awake();
        }
    }

    fn now(&self) -> u64 {
        0
    }

    fn report(&self) -> DriverReport {
        DriverReport {
            driver: "none",
            setup: "none",
            registration: RegistrationRung::NotWanted,
            send_mode: SendMode::Plain,
            send_mode_reason: None,
            connections: 0,
            shared_connections: 0,
            counters: Counters::default(),
        }
    }
}
