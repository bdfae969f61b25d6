//! A ring without sockets, whose clock is a counter.
//!
//! The harness owns the counter and moves it; the ring only reads it.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_ring::{
    Completion, ConnId, Counters, Doorbell, DriverReport, ReceiveParts, RegistrationRung, Ring, RingError,
    SendMode, SendParts,
};

/// A ring for slots that have local channels only.
#[derive(Clone, Debug, Default)]
pub struct QuietRing {
    now_ns: Arc<AtomicU64>,
}

impl QuietRing {
    /// A ring whose clock reads `now_ns`.
    pub fn new(now_ns: Arc<AtomicU64>) -> Self {
        QuietRing { now_ns }
    }
}

/// A doorbell nobody needs: the harness looks at every slot in turn.
#[derive(Clone, Copy, Debug)]
pub struct QuietBell;

impl Doorbell for QuietBell {
    fn ring(&self) {}
}

impl Ring for QuietRing {
    type Socket = TcpStream;
    type Doorbell = QuietBell;

    fn doorbell(&self) -> QuietBell {
        QuietBell
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

    fn wait(&mut self, _timeout: Option<Duration>) {}

    fn now(&self) -> u64 {
        self.now_ns.load(Ordering::Relaxed)
    }

    fn report(&self) -> DriverReport {
        DriverReport {
            driver: "quiet",
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
