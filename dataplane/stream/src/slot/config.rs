//! What a slot is given besides its tasks: how to divide its time, and where its events go.
//!
//! Owns no state. Always: an event that is not taken comes back whole.

use std::sync::mpsc::{SyncSender, TrySendError};

use crate::limits::{METRICS_INTERVAL_NS, QUANTUM_BYTES, QUANTUM_RECORDS, STALL_REPORT_NS};
use crate::slot::message::SlotEvent;

/// Where a slot's events go. Must not block.
pub trait Events: Send {
    /// Takes an event, or gives it back because there is no room now.
    ///
    /// # Errors
    /// The event.
    // The event comes back whole, or it would be lost.
    #[allow(clippy::result_large_err)]
    fn send(&mut self, event: SlotEvent) -> Result<(), SlotEvent>;
}

impl Events for SyncSender<SlotEvent> {
    fn send(&mut self, event: SlotEvent) -> Result<(), SlotEvent> {
        match self.try_send(event) {
            // With nobody left to listen the event has no meaning; the mailbox will say so soon.
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(event)) => Err(event),
        }
    }
}

/// For how long a slot that has nothing to do looks for work before it sleeps: it costs that much processor time, and saves the
/// waking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spin {
    /// For [`SPIN_NS`](crate::limits::SPIN_NS) as long as that pays, which is tried now and then.
    WhereItPays,
    /// Always for so many nanoseconds, and as long before a task's time comes. Zero is never.
    For(u64),
}

/// How a slot divides its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotConfig {
    /// Records and pulls per quantum.
    pub quantum_records: u32,
    /// Payload bytes per quantum.
    pub quantum_bytes: u64,
    /// Nanoseconds between two reports of what was counted.
    pub metrics_interval_ns: u64,
    /// Nanoseconds without a step, with nothing to wait for outside, after which the wait-for graph is printed.
    pub stall_report_ns: u64,
    /// For how long a slot looks for work again and again before it sleeps.
    pub spin: Spin,
    /// Whether edges have histograms of their latency. Only a benchmark that asks what those cost goes without.
    pub latencies: bool,
}

impl Default for SlotConfig {
    fn default() -> Self {
        SlotConfig {
            quantum_records: QUANTUM_RECORDS,
            quantum_bytes: QUANTUM_BYTES,
            metrics_interval_ns: METRICS_INTERVAL_NS,
            stall_report_ns: STALL_REPORT_NS,
            spin: Spin::WhereItPays,
            latencies: true,
        }
    }
}
