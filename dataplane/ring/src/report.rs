//! What a driver is and has done: modes, rungs and counters. Plain values; the driver owns the live ones.
//!
//! Always: `zc_copied` ≤ `zc_sends`, `fixed_sends` + `zc_sends` ≤ `send_ops`, and counters never go down.

use std::fmt;

use crate::fault::limit_text;

/// How bytes leave the arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendMode {
    /// What each connection finds to be best: the cheaper of `Fixed` and `Plain` by the processor time of a few sends of
    /// each, and `Zc` where the kernel's reports of the first large ones prove it to be real. Asked again ever more rarely.
    #[default]
    Auto,
    /// From the registered shard (WRITEV_FIXED and READV_FIXED). Unregistered memory goes as `Plain`.
    Fixed,
    /// SENDMSG and RECVMSG.
    Plain,
    /// SENDMSG_ZC, where the kernel lets it and the notifications outstanding allow; else `Plain`. Forcing it on
    /// loopback is for tests: the kernel copies there after all, and a notification comes only when the peer has
    /// acknowledged the bytes, which it may put off for 40 ms. Segments on huge pages all but stop the stream: each
    /// notification took 45 to 184 ms there (Linux 6.18: 0.01 to 0.1 GB/s where 4 KiB pages had 1.2 to 3.1).
    Zc,
}

impl Counters {
    /// Send operations that were plain ones.
    pub fn plain_sends(&self) -> u64 {
        self.send_ops - self.fixed_sends - self.zc_sends
    }
}

impl fmt::Display for SendMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Fixed => "fixed",
            Self::Plain => "plain",
            Self::Zc => "zc",
        })
    }
}

/// Whether the slot's shard is registered with the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Registration {
    /// If the kernel lets us; otherwise run unregistered and report why.
    #[default]
    Auto,
    /// Or no ring at all.
    Required,
    /// Not even tried.
    Never,
}

/// What became of the registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationRung {
    /// The shard is entry 0 of the ring's table.
    Registered {
        /// Its size.
        bytes: usize,
    },
    /// [`Registration::Never`], or a driver that has nothing to register with.
    NotWanted,
    /// The kernel refused, so the ring runs unregistered.
    Refused {
        /// Bytes that were to be locked.
        bytes: usize,
        /// RLIMIT_MEMLOCK of this user, `None` if unlimited.
        limit: Option<u64>,
        /// What the kernel said.
        errno: i32,
    },
}

impl fmt::Display for RegistrationRung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Registered { bytes } => write!(f, "registered ({bytes} bytes)"),
            Self::NotWanted => f.write_str("unregistered (not wanted)"),
            Self::Refused { bytes, limit, errno } => write!(
                f,
                "unregistered (the kernel refused {bytes} bytes with errno {errno}, RLIMIT_MEMLOCK is {})",
                limit_text(limit)
            ),
        }
    }
}

/// Why the ring does not send in the mode that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeReason {
    /// The shard is not registered.
    Unregistered,
    /// The kernel has no vectored operations on registered buffers (they came with Linux 6.15).
    NoFixedVectors,
    /// The kernel has no SENDMSG_ZC (it came with Linux 6.1).
    NoZeroCopy,
    /// SIGPIPE would end the process, and writes from registered buffers cannot suppress it.
    SigpipeDeadly,
    /// The driver has no other mode.
    OnlyPlain,
}

impl fmt::Display for ModeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unregistered => "the shard is not registered",
            Self::NoFixedVectors => {
                "the kernel is older than 6.15 and has no vectored operations on registered buffers"
            }
            Self::NoZeroCopy => "the kernel is older than 6.1 and has no SENDMSG_ZC",
            Self::SigpipeDeadly => {
                "SIGPIPE has its default action in this process, and a registered write can raise it"
            }
            Self::OnlyPlain => "this driver has no other mode",
        })
    }
}

/// What a driver has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls into the kernel to submit, collect or wait; of epoll, each send and receive operation as well.
    pub enters: u64,
    /// Send operations submitted, resumptions included: `fixed_sends`, `zc_sends`, and the rest plain.
    pub send_ops: u64,
    /// Send operations from the registered shard submitted.
    pub fixed_sends: u64,
    /// Sends that `auto` made to find out what the registered and the plain way cost.
    pub trial_sends: u64,
    /// Receive operations submitted.
    pub receive_ops: u64,
    /// Send operations that ended short and were resumed.
    pub short_sends: u64,
    /// Sends that could not use the registered shard because a part lies outside of it.
    pub outside_shard: u64,
    /// Zero-copy send operations submitted.
    pub zc_sends: u64,
    /// Of those, the ones that the kernel copied after all.
    pub zc_copied: u64,
    /// Notifications heard: the kernel is done with the bytes of a zero-copy operation.
    pub notifications: u64,
    /// Nanoseconds from the submission of those operations to their notifications, summed up.
    pub notification_ns: u64,
    /// The longest of them.
    pub notification_ns_max: u64,
    /// Connections that gave up a send or receive mode because the kernel refused it.
    pub fallbacks: u64,
    /// Bytes accepted by the kernel for sending.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Of the bytes sent, those that a peer read from our memory.
    pub shared_bytes_sent: u64,
    /// Of the bytes received, those read from a peer's memory.
    pub shared_bytes_received: u64,
    /// Peers of shared memory woken with a system call, because they slept.
    pub shared_wakes: u64,
    /// Doorbells heard, that is, rung while the slot slept.
    pub doorbells: u64,
}

impl Counters {
    /// Adds what another part of the same ring has done.
    pub(crate) fn add(&mut self, other: &Self) {
        self.send_ops += other.send_ops;
        self.receive_ops += other.receive_ops;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.shared_bytes_sent += other.shared_bytes_sent;
        self.shared_bytes_received += other.shared_bytes_received;
        self.shared_wakes += other.shared_wakes;
    }
}

/// Which driver, on which rungs, with which counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverReport {
    /// `io_uring`, `epoll`, or another driver's name.
    pub driver: &'static str,
    /// Setup flags the kernel accepted, most capable first; driver's choice of words.
    pub setup: &'static str,
    /// What became of the registration.
    pub registration: RegistrationRung,
    /// How connections send unless they gave it up. Under [`SendMode::Auto`] this is what they begin with; what they found
    /// to be better shows in the counters.
    pub send_mode: SendMode,
    /// Why that is not what was asked for, or not the best that `Auto` could have become.
    pub send_mode_reason: Option<ModeReason>,
    /// Connections attached now.
    pub connections: u32,
    /// Of those, the ones through shared memory.
    pub shared_connections: u32,
    /// What was done so far.
    pub counters: Counters,
}

impl fmt::Display for DriverReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}], {}, send {}", self.driver, self.setup, self.registration, self.send_mode)?;
        self.send_mode_reason.map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}
