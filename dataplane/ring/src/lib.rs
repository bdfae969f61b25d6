//! The network of a Tidegate slot: TCP connections that gather from the arena and scatter into it, completion-based.
//!
//! [`Ring`] is the contract, [`UringRing`] the driver for Linux's io_uring, [`EpollRing`] the one for hosts that forbid
//! that, [`AnyRing`] either of them with connections through the memory of one host beside it; the feature `sim` adds a simulated network. A slot thread owns its ring, alternates
//! [`Ring::reap`] with its own work and blocks only in [`Ring::wait`]. [`probe`] tells whether io_uring may be used
//! here and, if not, who forbids it; [`socket`] sets TCP options.
//!
//! # Safety
//!
//! The kernel reads and writes memory after the call that named it has returned, which no borrow can express. Every
//! unsafe block names the rule it relies on:
//!
//! 1. **Segments.** Bytes that an operation may touch belong to segments in state `InFlight` or `Receiving`, whose
//!    handles lie in the connection's table from before the operation is pushed until its last completion is popped; a
//!    part is within its segment (asserted). In these states nobody else reads what the kernel writes or writes what
//!    it reads. A zero-copy send has its last completion when the notification says so, and whether one comes only the
//!    flag F_MORE of the first completion says.
//! 2. **Lists.** The list of pieces and the message header of an operation, and the word that the doorbell is read
//!    into, have allocations of their own, held by raw pointer. They are written and freed only while no operation
//!    that names them is queued or in flight.
//! 3. **Registration.** The registered region is a shard of the arena of which the ring holds a clone, so it stays
//!    mapped at least until the ring has drained, unregistered and dropped that clone.
//! 4. **Queues.** The io_uring instance is boxed, only borrowed shared, and dropped after the submitter that borrows
//!    it. Views of its two queues live within one method each, so at most one of each exists. The driver is neither
//!    `Send` nor `Sync`: one thread makes, uses and drops it.
//! 5. **Teardown.** Dropping a ring cancels everything, waits for every completion and notification, unregisters, and
//!    closes the instance. If the kernel does not return everything in time, arena, lists and word are leaked.
//! 6. **SIGPIPE.** Writes from registered buffers cannot carry MSG_NOSIGNAL. Rust's runtime ignores SIGPIPE before
//!    `main`; a host program may have undone that. So registered sends are used only if, when the ring is made,
//!    SIGPIPE does not have its default action; whoever gives it that action later has the process killed by a broken
//!    connection.
//! 7. **System calls.** Calls without pointers, and calls whose pointers are to live locals of the right type.
//!
//! With epoll the kernel touches memory only during the call that names it. There, rule 1 holds because the handles lie
//! in the connection's table from before the first call until the completion is told, lists and headers are locals of
//! the call (rule 7), and dropping the ring has nothing to wait for.
//!
//! Through shared memory nobody touches our memory but us: a peer reads it, and what it shares is reached through
//! `tidegate_arena::foreign` alone (rule 12 there), so there is no unsafe block in `shm`. Rule 1 holds as with epoll; that a
//! peer may still read a send which was cancelled is its business, and it is told.
//!
//! What comes from the completion queue is trusted for nothing: token, place, generation, slot, operation in flight
//! and byte counts are checked in release builds, and a mismatch ends the process ([`std::process::abort`]), because
//! it means that memory is in other hands than this crate believes.

mod any;
mod bell;
mod epoll;
mod fault;
#[cfg(shuttle)]
pub mod interleaved;
pub mod limits;
mod parts;
mod probe;
mod report;
mod ring;
mod shm;
#[cfg(feature = "sim")]
pub mod sim;
mod slab;
pub mod socket;
mod uring;

pub use any::AnyRing;
pub use bell::EventfdDoorbell;
pub use epoll::{EpollConfig, EpollRing};
pub use fault::{IoFault, RingError};
pub use limits::PARTS_MAX;
pub use probe::{Capabilities, Obstacle, ProbeReport, probe};
pub use report::{Counters, DriverReport, ModeReason, Registration, RegistrationRung, SendMode};
pub use ring::{Completion, ConnId, Doorbell, ReceivePart, ReceiveParts, Ring, SendPart, SendParts};
pub use shm::greeting::{Control, Peer, ShmError, ShmStream, Shown, Stream, listen as listen_shm};
pub use uring::{UringConfig, UringRing};

/// RLIMIT_MEMLOCK of this process in bytes, `None` if unlimited.
fn memlock_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: rule 7, the pointer is to a live local.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    assert_eq!(failed, 0, "getrlimit knows this resource");
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Whether a write to a broken connection would end this process (rule 6).
fn sigpipe_is_deadly() -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: rule 7, a null new action only queries, and the other pointer is to a live local.
    let failed = unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), action.as_mut_ptr()) };
    assert_eq!(failed, 0, "sigaction knows this signal");
    // SAFETY: rule 7, zeroed plain C data, and filled by the call.
    unsafe { action.assume_init() }.sa_sigaction == libc::SIG_DFL
}

/// Processor time of the calling thread in nanoseconds.
fn thread_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: rule 7, the pointer is to a live local.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0, "every thread has this clock");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The host's monotonic clock in nanoseconds, comparable between processes of the host.
fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: rule 7, the pointer is to a live local.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    assert_eq!(failed, 0, "the monotonic clock is always there");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
