//! May this process use io_uring, and if not, who forbids it? For diagnosis before anything starts, and for error texts.
//!
//! No state. The text names one culprit, the most likely given what can be read from inside.

use std::fmt;

use crate::{
    fault::{RingError, limit_text},
    memlock_limit,
    uring::capabilities,
};

/// What stands between this process and io_uring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// `kernel.io_uring_disabled` is this value, 1 or 2.
    Sysctl {
        /// The value.
        value: u32,
        /// What the call reported.
        errno: i32,
    },
    /// A seccomp filter is in force and answers for the kernel.
    Seccomp {
        /// What the call reported.
        errno: i32,
    },
    /// The kernel does not know io_uring, or too little of it (5.18 is the least, 6.1 the sensible minimum).
    OldKernel {
        /// What the call reported; 0 if it worked and a feature is missing.
        errno: i32,
    },
    /// Not even a small ring fits under RLIMIT_MEMLOCK.
    Memlock {
        /// The limit in bytes, `None` if unlimited.
        limit: Option<u64>,
        /// What the call reported.
        errno: i32,
    },
    /// Something else; a security module, perhaps.
    Other {
        /// What the call reported.
        errno: i32,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Sysctl { value, errno } => write!(
                f,
                "host: io_uring is disabled by the sysctl kernel.io_uring_disabled = {value} (errno {errno}); set it to \
                 0, or to 1 and run this process in io_uring_group or with CAP_SYS_ADMIN"
            ),
            Self::Seccomp { errno } => write!(
                f,
                "container: a seccomp profile forbids io_uring (errno {errno}), as the default ones of Docker 25, \
                 containerd 2.0 and Podman do; use a profile that allows the system calls 425, 426 and 427"
            ),
            Self::OldKernel { errno } => write!(
                f,
                "host: the kernel offers no or too little io_uring (errno {errno}); use Linux 6.1 or newer, and no \
                 sandbox such as gVisor that emulates the kernel"
            ),
            Self::Memlock { limit, errno } => write!(
                f,
                "host: no ring fits under RLIMIT_MEMLOCK, which is {} for all processes of this user together (errno \
                 {errno}); raise it or grant CAP_IPC_LOCK",
                limit_text(limit)
            ),
            Self::Other { errno } => write!(
                f,
                "host: io_uring was refused (errno {errno}) though neither the sysctl nor a seccomp filter explains it; \
                 look for a security module's denial in the audit log"
            ),
        }
    }
}

/// What a usable io_uring offers here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The best rung of setup flags that the kernel took.
    pub setup: &'static str,
    /// Vectored reads and writes on registered buffers.
    pub fixed_vectors: bool,
    /// SENDMSG_ZC. Says nothing about whether a path really avoids the copy.
    pub zero_copy: bool,
}

/// What [`probe`] found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// Release of the running kernel, empty if it could not be read.
    pub kernel: String,
    /// RLIMIT_MEMLOCK in bytes, `None` if unlimited. It binds only without CAP_IPC_LOCK.
    pub memlock_limit: Option<u64>,
    /// What io_uring offers, or what forbids it.
    pub io_uring: Result<Capabilities, Obstacle>,
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}, memlock {}, ", self.kernel, limit_text(self.memlock_limit))?;
        match &self.io_uring {
            Ok(found) => write!(
                f,
                "io_uring usable [{}], fixed vectors {}, zero copy {}",
                found.setup, found.fixed_vectors, found.zero_copy
            ),
            Err(obstacle) => write!(f, "io_uring unusable: {obstacle}"),
        }
    }
}

/// Makes and drops a small ring on this thread to find out what io_uring can do here.
///
/// ```
/// let report = tidegate_ring::probe();
/// if let Err(obstacle) = report.io_uring {
///     println!("{obstacle}"); // who forbids it, and what to change
/// }
/// ```
pub fn probe() -> ProbeReport {
    ProbeReport {
        kernel: read("/proc/sys/kernel/osrelease"),
        memlock_limit: memlock_limit(),
        io_uring: capabilities().map_err(|error| match error {
            RingError::Unusable(obstacle) => obstacle,
            RingError::RingMemory { limit, .. } => Obstacle::Memlock { limit, errno: libc::ENOMEM },
            RingError::Os { errno, .. } => obstacle(errno),
            other => unreachable!("a small ring without an arena cannot fail with: {other}"),
        }),
    }
}

/// Who answered `errno` to io_uring_setup.
pub(crate) fn obstacle(errno: i32) -> Obstacle {
    let sysctl = read("/proc/sys/kernel/io_uring_disabled").parse().unwrap_or(0);
    // The filter is the thread's; most set one for all threads.
    let status = read("/proc/thread-self/status");
    let seccomp =
        status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"));
    explain(errno, sysctl, seccomp)
}

fn explain(errno: i32, sysctl: u32, seccomp: bool) -> Obstacle {
    match errno {
        libc::ENOMEM => Obstacle::Memlock { limit: memlock_limit(), errno },
        libc::EPERM if sysctl != 0 => Obstacle::Sysctl { value: sysctl, errno },
        libc::EPERM | libc::EACCES | libc::ENOSYS if seccomp => Obstacle::Seccomp { errno },
        libc::ENOSYS | libc::EINVAL => Obstacle::OldKernel { errno },
        errno => Obstacle::Other { errno },
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_culprit_is_named() {
        assert_eq!(explain(libc::EPERM, 2, true), Obstacle::Sysctl { value: 2, errno: libc::EPERM });
        assert_eq!(explain(libc::EPERM, 0, true), Obstacle::Seccomp { errno: libc::EPERM });
        assert_eq!(explain(libc::ENOSYS, 0, true), Obstacle::Seccomp { errno: libc::ENOSYS });
        assert_eq!(explain(libc::ENOSYS, 0, false), Obstacle::OldKernel { errno: libc::ENOSYS });
        assert_eq!(explain(libc::EPERM, 0, false), Obstacle::Other { errno: libc::EPERM });
        assert!(matches!(explain(libc::ENOMEM, 0, false), Obstacle::Memlock { .. }));
        assert!(Obstacle::Sysctl { value: 1, errno: 1 }.to_string().contains("kernel.io_uring_disabled = 1"));
    }
}
