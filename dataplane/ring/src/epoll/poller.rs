//! One epoll instance: what it watches, and the only way to block in it.
//!
//! Owned by the ring. Always: a descriptor is watched from `add` to `remove`; events are edges, so that each is told
//! once and the caller remembers it.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

use crate::{
    fault::{RingError, errno_of},
    limits::{EVENTS_MAX, WAIT_MAX},
};

pub(crate) struct Poller {
    epoll: OwnedFd,
    /// What the kernel fills; its length never changes.
    events: Box<[libc::epoll_event]>,
    /// epoll_pwait2 is there: time-outs in nanoseconds, otherwise in milliseconds rounded up.
    precise: bool,
    /// Calls of `wait` so far.
    pub(crate) calls: u64,
}

impl Poller {
    pub(crate) fn new() -> Result<Self, RingError> {
        // SAFETY: rule 7, a system call without pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(RingError::os("epoll_create1")(io::Error::last_os_error()));
        }
        // SAFETY: rule 7, the descriptor was just made and belongs to nobody else.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let none = libc::epoll_event { events: 0, u64: 0 };
        let mut poller = Self { epoll, events: vec![none; EVENTS_MAX].into(), precise: true, calls: 0 };
        drop(poller.wait(Some(Duration::ZERO))); // finds out whether the kernel has the precise call
        Ok(poller)
    }

    /// To be watched itself: it is readable when something it watches has happened.
    pub(crate) fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// How it waits, for people.
    pub(crate) fn setup(&self) -> &'static str {
        if self.precise { "edge_triggered epoll_pwait2" } else { "edge_triggered epoll_wait" }
    }

    /// Watches `fd`, whose events carry `token`. What is so already is told as an event, too.
    pub(crate) fn add(&self, fd: RawFd, token: u64, interest: i32) -> Result<(), RingError> {
        self.control(fd, token, interest | libc::EPOLLET)
    }

    /// Watches `fd`, whose owner finds out why it is readable at a time of its own: until then it is told again and again, or
    /// a look that does not wait would take the news away from the wait behind it.
    pub(crate) fn add_for_others(&self, fd: RawFd, token: u64) -> Result<(), RingError> {
        self.control(fd, token, libc::EPOLLIN)
    }

    fn control(&self, fd: RawFd, token: u64, events: i32) -> Result<(), RingError> {
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        // SAFETY: rule 7, the pointer is to a live local.
        let failed = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) };
        if failed == 0 { Ok(()) } else { Err(RingError::os("epoll_ctl")(io::Error::last_os_error())) }
    }

    /// Watches `fd` no longer. Closing it would do so only if nobody else holds the same socket.
    pub(crate) fn remove(&self, fd: RawFd) {
        // SAFETY: rule 7, the kernel does not look at the pointer of this operation.
        let failed =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
        debug_assert_eq!(failed, 0, "what is removed was added");
    }

    /// Blocks until something happens or `timeout` is over (`None`: never), and gives what happened: token and flags.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> impl Iterator<Item = (u64, u32)> {
        let timeout = timeout.map(|timeout| timeout.min(WAIT_MAX));
        let mut found = self.enter(timeout);
        if self.precise && matches!(&found, Err(error) if is_unknown_call(errno_of(error))) {
            self.precise = false;
            found = self.enter(timeout);
        }
        let found = match found {
            Ok(found) => found,
            Err(error) if errno_of(&error) == libc::EINTR => 0, // early, which the caller allows
            Err(error) => unreachable!("invariant: epoll waits on its own descriptor: {error}"),
        };
        self.events[..found].iter().map(|event| (event.u64, event.events))
    }

    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        self.calls += 1;
        let (epoll, events, room) =
            (self.epoll.as_raw_fd(), self.events.as_mut_ptr(), self.events.len() as i32);
        let found = if self.precise {
            let time = timeout.map(|timeout| libc::timespec {
                tv_sec: timeout.as_secs() as libc::time_t,
                tv_nsec: timeout.subsec_nanos().into(),
            });
            let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            let no_mask = std::ptr::null::<libc::sigset_t>();
            // By number: older C libraries do not know it.
            // SAFETY: rule 7, `events` has `room` entries that are ours, `time` is a live local or null.
            unsafe { libc::syscall(libc::SYS_epoll_pwait2, epoll, events, room, time, no_mask, 0_usize) }
        } else {
            let time = timeout.map_or(-1, milliseconds);
            // SAFETY: rule 7, `events` has `room` entries that are ours.
            i64::from(unsafe { libc::epoll_wait(epoll, events, room, time) })
        };
        usize::try_from(found).map_err(|_| io::Error::last_os_error())
    }
}

/// Linux before 5.11, or a seccomp profile older than the call.
fn is_unknown_call(errno: i32) -> bool {
    matches!(errno, libc::ENOSYS | libc::EPERM)
}

/// Rounded up, so that no wait ends too early.
fn milliseconds(timeout: Duration) -> i32 {
    timeout.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn milliseconds_are_rounded_up_and_bounded() {
        for (timeout, expected) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_millis(7), 7),
            (Duration::from_micros(7001), 8),
            (WAIT_MAX, i32::MAX),
        ] {
            assert_eq!(milliseconds(timeout), expected, "{timeout:?}");
        }
    }

    #[test]
    fn without_the_precise_call_no_wait_ends_too_early() {
        let mut poller = Poller::new().unwrap();
        poller.precise = false;
        for timeout in [Duration::from_micros(300), Duration::from_millis(3)] {
            let start = Instant::now();
            assert_eq!(poller.wait(Some(timeout)).count(), 0);
            assert!(start.elapsed() >= timeout);
        }
        assert_eq!(poller.setup(), "edge_triggered epoll_wait");
    }
}
