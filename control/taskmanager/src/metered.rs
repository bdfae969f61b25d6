//! A ring that lets others see what it counts.
//!
//! Owner of the state: the slot thread owns the ring; the copy of its report is shared with the control thread.
//!
//! Always true: the copy is at most `REPORT_EVERY` collections old, and fresh whenever the slot sleeps; nothing but the
//! report is added to the inner ring's behaviour.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_ring::{Completion, ConnId, DriverReport, ReceiveParts, Ring, RingError, SendParts};

/// Collections between two copies of the report: thousands per second on a busy slot, so this costs nothing there.
const REPORT_EVERY: u32 = 4096;

/// The last report of a ring.
#[derive(Debug, Clone)]
pub(crate) struct ReportView(Arc<Mutex<DriverReport>>);

impl ReportView {
    /// The report as it was last copied.
    pub(crate) fn read(&self) -> DriverReport {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A ring and the view of its report.
pub(crate) struct Metered<R> {
    ring: R,
    view: ReportView,
    collections: u32,
}

impl<R: Ring> Metered<R> {
    /// Wraps a ring.
    pub(crate) fn new(ring: R) -> Self {
        let view = ReportView(Arc::new(Mutex::new(ring.report())));
        Self { ring, view, collections: 0 }
    }

    /// The view for others.
    pub(crate) fn view(&self) -> ReportView {
        self.view.clone()
    }

    fn publish(&mut self) {
        self.collections = 0;
        *self.view.0.lock().unwrap_or_else(PoisonError::into_inner) = self.ring.report();
    }
}

impl<R: Ring> Ring for Metered<R> {
    type Socket = R::Socket;
    type Doorbell = R::Doorbell;

    fn notifications_max(&self) -> u32 {
        self.ring.notifications_max()
    }

    fn doorbell(&self) -> R::Doorbell {
        self.ring.doorbell()
    }

    fn attach(&mut self, socket: R::Socket) -> Result<ConnId, RingError> {
        self.ring.attach(socket)
    }

    fn send(&mut self, conn: ConnId, parts: SendParts) -> Result<(), SendParts> {
        self.ring.send(conn, parts)
    }

    fn receive(&mut self, conn: ConnId, parts: ReceiveParts) -> Result<(), ReceiveParts> {
        self.ring.receive(conn, parts)
    }

    fn shutdown_write(&mut self, conn: ConnId) {
        self.ring.shutdown_write(conn);
    }

    fn close(&mut self, conn: ConnId) {
        self.ring.close(conn);
    }

    fn reap(&mut self, budget: u32, sink: &mut dyn FnMut(Completion)) -> u32 {
        self.collections += 1;
        if self.collections >= REPORT_EVERY {
            self.publish();
        }
        self.ring.reap(budget, sink)
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        self.publish();
        self.ring.wait(timeout);
    }

    fn now(&self) -> u64 {
        self.ring.now()
    }

    fn report(&self) -> DriverReport {
        self.ring.report()
    }
}
