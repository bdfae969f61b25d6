//! What can go wrong on the exchange, by who is at fault.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use tidegate_flow::Violation;
use tidegate_ring::{IoFault, RingError};
use tidegate_wire::{Refusal, WireError};

use crate::plan::SlotId;

/// A record could not be written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EmitError {
    /// The record is larger than an empty segment and the largest record of the attempt.
    TooLarge {
        /// Bytes the record needs, if the writer knows, else 0.
        size: u64,
        /// Bytes of the largest record.
        limit: u32,
        /// The partition's name.
        partition: String,
    },
    /// The record's own serialisation failed.
    Record(String),
}

impl std::fmt::Display for EmitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge { size, limit, partition } => write!(
                f,
                "a record for \"{partition}\" needs {size} bytes, and records have at most {limit}: make the records smaller, or \
                 raise taskmanager.network.max-record-size (16 MiB at most) of all TaskManagers"
            ),
            Self::Record(cause) => write!(f, "a record could not be serialised: {cause}"),
        }
    }
}

impl std::error::Error for EmitError {}

/// The data endpoint of a process could not be made.
#[derive(Debug)]
pub struct EndpointError {
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    pub source: io::Error,
}

impl EndpointError {
    /// What to change: only some of it is the address's fault.
    fn advice(&self) -> &'static str {
        match self.source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::ADDRINUSE) => "choose another --data address, or stop what uses this one",
            Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT) => "choose a --data address that this host has",
            Some(Errno::ACCESS) => "choose a --data port of 1024 or above, or grant CAP_NET_BIND_SERVICE",
            Some(Errno::MFILE) => "raise this process's limit of open files (ulimit -n)",
            Some(Errno::NFILE) => "raise the system's limit of open files (fs.file-max)",
            Some(Errno::AGAIN) => "raise the limit of threads (ulimit -u, or the container's pids.max)",
            Some(Errno::NOMEM | Errno::NOBUFS) => "free memory, or raise the container's limit",
            Some(Errno::PERM) => "let the container's profile allow sockets and threads",
            _ => "the system refuses it, whatever the address",
        }
    }
}

impl std::fmt::Display for EndpointError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "can't listen for data on {}: {}; {}", self.address, self.source, self.advice())
    }
}

impl std::error::Error for EndpointError {}

/// Why a link ended before its work was done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer could not be reached.
    Unreachable {
        /// Its data address.
        address: SocketAddr,
        /// What the system said.
        cause: String,
    },
    /// The peer took the connection and closed it without an answer.
    HungUp {
        /// Its data address.
        address: SocketAddr,
    },
    /// The peer refused the handshake, or we refused its.
    Refused(Refusal),
    /// The peer closed the connection in the middle of the work.
    Gone,
    /// The connection broke.
    Io(IoFault),
    /// The peer's bytes are not the protocol.
    Garbled(WireError),
    /// The peer broke a rule of the protocol.
    Violation(Violation),
    /// The peer says that we broke a rule.
    Accused {
        /// The code in its error entry.
        code: u16,
    },
    /// The ring of this slot does not take the connection.
    Ring(RingError),
}

impl LinkError {
    /// Whether dialling again can help: the producer may not be prepared yet, or has too many others waiting (W-10).
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.code.is_transient(),
            Self::HungUp { .. } => true,
            _ => false,
        }
    }
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable { address, cause } => write!(f, "can't connect to {address}: {cause}"),
            Self::HungUp { address } => {
                write!(f, "{address} closed the connection without an answer to the hello")
            }
            Self::Refused(refusal) => write!(f, "handshake refused: {refusal}"),
            Self::Gone => write!(f, "the peer closed the connection"),
            Self::Io(fault) => write!(f, "the connection broke: {fault}"),
            Self::Garbled(error) => write!(f, "the peer does not speak the protocol: {error}"),
            Self::Violation(violation) => write!(f, "protocol violation: {violation}"),
            Self::Accused { code } => write!(f, "the peer closed the link with error code {code}"),
            Self::Ring(error) => write!(f, "the slot can't take the connection: {error}"),
        }
    }
}

impl std::error::Error for LinkError {}

/// A link that failed: the tasks of this attempt that use it must fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkFault {
    /// The job.
    pub job: u128,
    /// The attempt.
    pub attempt: u32,
    /// The other end.
    pub peer: SlotId,
    /// What happened.
    pub error: LinkError,
}

impl std::fmt::Display for LinkFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "link to slot {} of TaskManager {:016x}: {}",
            self.peer.slot, self.peer.taskmanager, self.error
        )
    }
}

impl std::error::Error for LinkFault {}

/// A plan that can't be prepared on this slot. Nothing was reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrepareError {
    /// The slot's shard is too small.
    Segments {
        /// Segments the plan needs at least.
        needed: u32,
        /// Segments the slot has free.
        available: u32,
        /// The edge that asks for most.
        edge: String,
    },
    /// There are segments enough, but not side by side: something else that runs here holds some in between.
    Region {
        /// Segments of one region.
        segments: u32,
        /// Segments the slot has free.
        available: u32,
        /// Bytes of the largest record.
        record_max: u32,
    },
    /// A peer's data address is missing in the plan.
    NoAddress(SlotId),
    /// The slot already runs this attempt.
    Duplicate {
        /// The attempt.
        attempt: u32,
    },
}

impl std::fmt::Display for PrepareError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Segments { needed, available, edge } => write!(
                f,
                "the slot needs {needed} network segments but has {available}; \"{edge}\" asks for most: give the TaskManager \
                 more segments (--segments) or lower the parallelism"
            ),
            Self::Region { segments, available, record_max } => write!(
                f,
                "no {segments} network segments lie side by side for a record of {record_max} bytes, though {available} are free: \
                 wait until what runs on the slot has ended, or lower taskmanager.network.max-record-size"
            ),
            Self::NoAddress(peer) => {
                write!(f, "the plan has no data address for TaskManager {:016x}", peer.taskmanager)
            }
            Self::Duplicate { attempt } => write!(f, "attempt {attempt} is already deployed on this slot"),
        }
    }
}

impl std::error::Error for PrepareError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_blames_its_address_only_for_its_own_faults() {
        let address = SocketAddr::from(([127, 0, 0, 1], 6200));
        let said = |errno: Errno| EndpointError { address, source: errno.into() }.to_string();
        for errno in [Errno::ADDRINUSE, Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT, Errno::ACCESS] {
            assert!(said(errno).contains("--data"), "{}", said(errno));
        }
        for (errno, advice) in [
            (Errno::MFILE, "ulimit -n"),
            (Errno::NFILE, "fs.file-max"),
            (Errno::AGAIN, "ulimit -u"),
            (Errno::NOMEM, "memory"),
            (Errno::NOBUFS, "memory"),
            (Errno::PERM, "profile"),
            (Errno::IO, "whatever the address"),
        ] {
            let said = said(errno);
            assert!(said.contains(advice) && !said.contains("--data"), "{said}");
            assert!(said.starts_with("can't listen for data on 127.0.0.1:6200: "), "{said}");
        }
    }
}
