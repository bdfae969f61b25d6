//! What can go wrong, sorted by who is at fault. Values only, no state.
//!
//! [`IoFault`] is what a connection may suffer while it runs and is told in completions; [`RingError`] is why a ring or
//! a connection could not be made. Misuse by the caller is neither: it panics where it is found.

use std::io::Write;

use crate::limits;
use crate::probe::Obstacle;

/// How a send or receive failed. The connection is of no further use, except to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum IoFault {
    /// The peer aborted the connection: its process died, or it closed with unread data.
    #[error("peer: reset the connection; look for the reason in the peer's log")]
    Reset,
    /// A send after the peer had closed, or after our own write side was.
    #[error(
        "peer: closed the connection, so nothing more can be sent; look for the reason in the peer's log"
    )]
    BrokenPipe,
    /// The peer's host did not acknowledge in time.
    #[error("peer: no acknowledgement in time; check that its host and the network are up")]
    TimedOut,
    /// The network has no way to the peer.
    #[error("network: peer unreachable (errno {errno}); check routes and firewalls")]
    Unreachable {
        /// What the kernel said.
        errno: i32,
    },
    /// The peer wrote into shared memory what it may not.
    #[error(
        "peer: broke the rules of shared memory ({what}); use the same version of the product, or the transport tcp"
    )]
    Shared {
        /// What was wrong.
        what: &'static str,
    },
    /// This side closed the connection while the operation was in flight.
    #[error("this process: closed the connection while the operation was in flight")]
    Cancelled,
    /// The local kernel refused, for want of memory for instance.
    #[error("operating system: socket operation failed (errno {errno})")]
    Local {
        /// What the kernel said.
        errno: i32,
    },
}

impl IoFault {
    /// The fault behind a positive `errno` of a socket operation.
    pub fn from_errno(errno: i32) -> Self {
        match errno {
            libc::ECONNRESET | libc::ECONNABORTED => Self::Reset,
            libc::EPIPE | libc::ENOTCONN | libc::ESHUTDOWN => Self::BrokenPipe,
            libc::ETIMEDOUT => Self::TimedOut,
            libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENETDOWN => {
                Self::Unreachable { errno }
            }
            libc::ECANCELED => Self::Cancelled,
            errno => Self::Local { errno },
        }
    }

    /// Whether the peer or the way to it ended the connection, as opposed to this process or its kernel.
    pub fn peer_gone(self) -> bool {
        matches!(self, Self::Reset | Self::BrokenPipe | Self::TimedOut | Self::Unreachable { .. })
    }
}

/// Why a ring or a connection could not be made. Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The configured number of connections cannot be bounded by a completion queue.
    #[error(
        "configuration: connections_max is {found}, expected 1 to {}; use more slots or fewer links per slot",
        limits::CONNECTIONS_MAX
    )]
    Connections {
        /// The refused number.
        found: u32,
    },
    /// The arena has no such shard.
    #[error("configuration: shard {shard} of an arena with {shards} shards; give every slot its own")]
    Shard {
        /// The shard asked for.
        shard: usize,
        /// Shards there are.
        shards: usize,
    },
    /// This host, kernel or container does not allow io_uring.
    #[error("{0}")]
    Unusable(Obstacle),
    /// The memory of the ring itself could not be had.
    #[error("operating system: a ring for {connections} connections needs about {needed} bytes of locked memory, \
        RLIMIT_MEMLOCK is {}; raise it, grant CAP_IPC_LOCK, or lower connections_max", limit_text(*limit))]
    RingMemory {
        /// Connections the ring was to hold.
        connections: u32,
        /// About what it takes.
        needed: u64,
        /// The limit of this user, `None` if unlimited.
        limit: Option<u64>,
    },
    /// The shard is larger than the kernel registers as one buffer.
    #[error(
        "configuration: shard {shard} has {found} bytes, the kernel registers at most {} as one buffer; use more \
        slots or less network memory, or set the registration to never",
        limits::REGISTERED_BYTES_MAX
    )]
    RegionTooLarge {
        /// The shard.
        shard: usize,
        /// Its size.
        found: usize,
    },
    /// Registration was required and the kernel refused.
    #[error("operating system: registering shard {shard} of {needed} bytes was refused (errno {errno}), RLIMIT_MEMLOCK \
        is {}; raise it to more than that for the whole user, grant CAP_IPC_LOCK, use less network memory, or set the \
        registration to auto", limit_text(*limit))]
    RegistrationRefused {
        /// The shard.
        shard: usize,
        /// Bytes to be locked for it.
        needed: usize,
        /// The limit of this user, `None` if unlimited.
        limit: Option<u64>,
        /// What the kernel said.
        errno: i32,
    },
    /// Every place for a connection is taken.
    #[error(
        "configuration: all {limit} connections of this ring are in use; raise connections_max (taskmanager.network.links-per-slot)"
    )]
    TooManyConnections {
        /// Places there are.
        limit: u32,
    },
    /// A system call on a new socket or on the ring's own descriptors failed.
    #[error("operating system: {call} failed (errno {errno})")]
    Os {
        /// The call.
        call: &'static str,
        /// What it reported.
        errno: i32,
    },
}

impl RingError {
    pub(crate) fn os(call: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::Os { call, errno: errno_of(&error) }
    }
}

/// The errno of an error of the standard library, or 0 if it is not from the operating system.
pub(crate) fn errno_of(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

pub(crate) fn limit_text(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{bytes} bytes"))
}

/// The kernel and this driver disagree about what is in flight. Going on could hand memory to somebody while the
/// kernel writes it, and unwinding would run code that believes in the broken state: so the process ends here.
#[cold]
pub(crate) fn stop(what: std::fmt::Arguments<'_>) -> ! {
    say(format_args!("{what}. Memory may still be in the kernel's hands; stopping the process"));
    std::process::abort()
}

/// Last words. A broken stderr must not turn into a panic here: whoever calls has no way to unwind.
#[cold]
pub(crate) fn say(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "tidegate-ring: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_who_is_gone() {
        assert_eq!(IoFault::from_errno(libc::ECONNRESET), IoFault::Reset);
        assert!(IoFault::from_errno(libc::EPIPE).peer_gone());
        assert!(IoFault::from_errno(libc::ENETUNREACH).peer_gone());
        assert!(!IoFault::from_errno(libc::ECANCELED).peer_gone());
        assert_eq!(IoFault::from_errno(libc::ENOBUFS), IoFault::Local { errno: libc::ENOBUFS });
    }

    #[test]
    fn refusals_say_what_to_change() {
        let text =
            RingError::RegistrationRefused { shard: 1, needed: 4096, limit: Some(10), errno: 12 }.to_string();
        for needle in ["shard 1", "4096 bytes", "10 bytes", "CAP_IPC_LOCK"] {
            assert!(text.contains(needle), "{text}");
        }
    }
}
