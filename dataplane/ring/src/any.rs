//! A driver chosen while the program runs: one branch per call of the ring, none per record. No state of its own.

use std::{net::TcpStream, time::Duration};

use crate::{
    EpollRing, EventfdDoorbell, UringRing,
    fault::RingError,
    report::DriverReport,
    ring::{Completion, ConnId, ReceiveParts, Ring, SendParts},
};

/// One of the drivers of the host.
// One per slot thread, never moved while it works.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum AnyRing {
    /// On io_uring.
    Uring(UringRing),
    /// On epoll.
    Epoll(EpollRing),
}

impl From<UringRing> for AnyRing {
    fn from(ring: UringRing) -> Self {
        Self::Uring(ring)
    }
}

impl From<EpollRing> for AnyRing {
    fn from(ring: EpollRing) -> Self {
        Self::Epoll(ring)
    }
}

/// The same call of whichever driver it is.
macro_rules! either {
    ($any:expr, $ring:ident => $call:expr) => {
        match $any {
            AnyRing::Uring($ring) => $call,
            AnyRing::Epoll($ring) => $call,
        }
    };
}

impl Ring for AnyRing {
    type Socket = TcpStream;
    type Doorbell = EventfdDoorbell;

    fn doorbell(&self) -> EventfdDoorbell {
        either!(self, ring => ring.doorbell())
    }

    fn attach(&mut self, socket: TcpStream) -> Result<ConnId, RingError> {
        either!(self, ring => ring.attach(socket))
    }

    fn send(&mut self, conn: ConnId, parts: SendParts) -> Result<(), SendParts> {
        either!(self, ring => ring.send(conn, parts))
    }

    fn receive(&mut self, conn: ConnId, parts: ReceiveParts) -> Result<(), ReceiveParts> {
        either!(self, ring => ring.receive(conn, parts))
    }

    fn shutdown_write(&mut self, conn: ConnId) {
        either!(self, ring => ring.shutdown_write(conn));
    }

    fn close(&mut self, conn: ConnId) {
        either!(self, ring => ring.close(conn));
    }

    fn reap(&mut self, budget: u32, sink: &mut dyn FnMut(Completion)) -> u32 {
        either!(self, ring => ring.reap(budget, sink))
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        either!(self, ring => ring.wait(timeout));
    }

    fn notifications_max(&self) -> u32 {
        either!(self, ring => ring.notifications_max())
    }

    fn now(&self) -> u64 {
        either!(self, ring => ring.now())
    }

    fn report(&self) -> DriverReport {
        either!(self, ring => ring.report())
    }
}
