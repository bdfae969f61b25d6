//! Connections at the data port that did not become a link: who they were and why they were turned away.
//!
//! Owner of the state: the endpoint's watcher, which sees each of them once and never on a slot's time budget: it must not
//! block.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_ring::ShmError;
use tidegate_wire::{Hello, Refusal};

use crate::limits::HELLO_WAIT;

/// A connection that was turned away.
#[derive(Debug)]
pub struct TurnedAway {
    /// Where it came from, unless the system does not say.
    pub from: Option<SocketAddr>,
    /// Why.
    pub why: Cause,
}

/// Why a connection was turned away.
#[derive(Debug)]
pub enum Cause {
    /// It did not say hello: it closed, or the time for it was over.
    Silent(io::Error),
    /// Its hello was read and refused; it was told.
    Refused(Refusal, Option<Hello>),
    /// Too many others were saying hello.
    Crowded,
    /// It wanted to share memory, and is not whom we share it with.
    Memory(ShmError),
    /// The system would not let us serve it.
    Local(String),
}

impl fmt::Display for TurnedAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            Some(address) => write!(f, "a connection from {address}")?,
            None => write!(f, "a connection")?,
        }
        match &self.why {
            Cause::Silent(error) => {
                write!(f, " was closed: no hello within {} s ({error}); ", HELLO_WAIT.as_secs())?;
                f.write_str("is something other than a TaskManager dialling the data port?")
            }
            Cause::Refused(refusal, None) => write!(f, " was refused: {refusal}"),
            Cause::Refused(refusal, Some(hello)) => write!(
                f,
                " of TaskManager {:016x} slot {} for job {:032x} attempt {} was refused: {refusal}",
                hello.from.tm, hello.from.slot, hello.job, hello.attempt
            ),
            Cause::Crowded => f.write_str(" was closed: too many others are saying hello"),
            Cause::Memory(error) => write!(f, " through shared memory was closed: {error}"),
            Cause::Local(error) => write!(f, " was closed: the system refuses to serve it ({error})"),
        }
    }
}

/// Sees every connection that is turned away. Called on accept, hello and slot threads; must not block.
pub type Watcher = Arc<dyn Fn(&TurnedAway) + Send + Sync>;
