//! A driver chosen while the program runs, and beside it connections through the memory of the host: one branch per call
//! of the ring, none per record.
//!
//! Owns both. Always: the driver goes before the poller that it watches.

use std::{os::fd::RawFd, time::Duration};

use crate::{
    EpollRing, EventfdDoorbell, UringRing,
    fault::RingError,
    report::DriverReport,
    ring::{Completion, ConnId, ReceiveParts, Ring, SendParts},
    shm::{Shm, greeting::Stream},
};

/// One of the drivers of the host, with shared memory beside it.
#[derive(Debug)]
pub struct AnyRing {
    driver: Driver,
    shm: Shm,
    /// Who is told first; changes each turn, so that neither takes the whole budget for ever.
    shm_first: bool,
}

// One per slot thread, never moved while it works.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
enum Driver {
    Uring(UringRing),
    Epoll(EpollRing),
}

impl From<UringRing> for AnyRing {
    fn from(ring: UringRing) -> Self {
        let shm = Shm::new(ring.arena(), ring.places());
        Self { driver: Driver::Uring(ring), shm, shm_first: false }
    }
}

impl From<EpollRing> for AnyRing {
    fn from(ring: EpollRing) -> Self {
        let shm = Shm::new(ring.arena(), ring.places());
        Self { driver: Driver::Epoll(ring), shm, shm_first: false }
    }
}

/// The same call of whichever driver it is.
macro_rules! either {
    ($driver:expr, $ring:ident => $call:expr) => {
        match $driver {
            Driver::Uring($ring) => $call,
            Driver::Epoll($ring) => $call,
        }
    };
}

impl AnyRing {
    /// Makes what connections through shared memory need now, rather than with the first of them.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn expect_neighbours(&mut self) -> Result<(), RingError> {
        self.shm.prepare(|fd| self.driver.watch(fd))
    }
}

impl Driver {
    fn watch(&mut self, fd: RawFd) -> Result<(), RingError> {
        match self {
            Self::Uring(ring) => {
                ring.watch(fd);
                Ok(())
            }
            Self::Epoll(ring) => ring.watch(fd),
        }
    }
}

impl Ring for AnyRing {
    type Socket = Stream;
    type Doorbell = EventfdDoorbell;

    fn doorbell(&self) -> EventfdDoorbell {
        either!(&self.driver, ring => ring.doorbell())
    }

    fn attach(&mut self, socket: Stream) -> Result<ConnId, RingError> {
        match socket {
            Stream::Tcp(socket) => either!(&mut self.driver, ring => ring.attach(socket)),
            Stream::Shm(stream) => {
                self.expect_neighbours()?;
                self.shm.attach(*stream)
            }
        }
    }

    fn send(&mut self, conn: ConnId, parts: SendParts) -> Result<(), SendParts> {
        if self.shm.owns(conn) {
            return self.shm.send(conn, parts);
        }
        either!(&mut self.driver, ring => ring.send(conn, parts))
    }

    fn receive(&mut self, conn: ConnId, parts: ReceiveParts) -> Result<(), ReceiveParts> {
        if self.shm.owns(conn) {
            return self.shm.receive(conn, parts);
        }
        either!(&mut self.driver, ring => ring.receive(conn, parts))
    }

    fn shutdown_write(&mut self, conn: ConnId) {
        if self.shm.owns(conn) {
            return self.shm.shutdown_write(conn);
        }
        either!(&mut self.driver, ring => ring.shutdown_write(conn));
    }

    fn close(&mut self, conn: ConnId) {
        if self.shm.owns(conn) {
            return self.shm.close(conn);
        }
        either!(&mut self.driver, ring => ring.close(conn));
    }

    fn reap(&mut self, budget: u32, sink: &mut dyn FnMut(Completion)) -> u32 {
        if self.shm.occupied() == 0 {
            return either!(&mut self.driver, ring => ring.reap(budget, sink));
        }
        self.shm_first = !self.shm_first;
        let mut told = if self.shm_first { self.shm.reap(budget, sink) } else { 0 };
        told += either!(&mut self.driver, ring => ring.reap(budget - told, sink));
        if !self.shm_first {
            told += self.shm.reap(budget - told, sink);
        }
        told
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        if self.shm.occupied() == 0 {
            return either!(&mut self.driver, ring => ring.wait(timeout));
        }
        if timeout != Some(Duration::ZERO) {
            self.shm.linger();
        }
        if !self.shm.fall_asleep() {
            return;
        }
        either!(&mut self.driver, ring => ring.wait(timeout));
        self.shm.woken();
    }

    fn notifications_max(&self) -> u32 {
        either!(&self.driver, ring => ring.notifications_max())
    }

    fn now(&self) -> u64 {
        either!(&self.driver, ring => ring.now())
    }

    fn report(&self) -> DriverReport {
        let mut report = either!(&self.driver, ring => ring.report());
        report.shared_connections = self.shm.occupied();
        report.connections += report.shared_connections;
        report.counters.add(&self.shm.counters);
        report
    }
}
