//! What all connections of one ring share: the kernel, the arena, the rungs reached, the counters.
//!
//! Owned by the ring. Always: `registered` covers the slot's own shard exactly while that is in the kernel's table.

use std::ops::Range;

use tidegate_arena::Arena;

use super::{UringConfig, kernel::Kernel};
use crate::{
    fault::{RingError, errno_of},
    limits::REGISTERED_BYTES_MAX,
    memlock_limit,
    report::{Counters, ModeReason, Registration, RegistrationRung, SendMode},
    ring::ConnId,
    sigpipe_is_deadly,
};

pub(super) struct Driver {
    pub(super) kernel: Kernel,
    pub(super) arena: Arena,
    pub(super) config: UringConfig,
    /// Addresses of the registered shard.
    pub(super) registered: Option<Range<usize>>,
    pub(super) registration: RegistrationRung,
    /// What `config.send` resolved to; never `Auto`.
    pub(super) send_mode: SendMode,
    pub(super) send_mode_reason: Option<ModeReason>,
    pub(super) counters: Counters,
    /// The connection whose send is on trial. One at a time, for what is measured are calls into the kernel.
    pub(super) trial: Option<ConnId>,
}

impl Driver {
    pub(super) fn new(arena: &Arena, shard: usize, config: &UringConfig) -> Result<Self, RingError> {
        if shard >= arena.shards() {
            return Err(RingError::Shard { shard, shards: arena.shards() });
        }
        let mut kernel = Kernel::open(config.connections_max)?;
        let region = arena.region(shard);
        let (registration, registered) =
            register(&mut kernel, shard, region.ptr, region.len, config.registration)?;
        let (send_mode, send_mode_reason) = resolve(config.send, &kernel, registered.is_some());
        Ok(Self {
            kernel,
            arena: arena.clone(),
            config: *config,
            registered,
            registration,
            send_mode,
            send_mode_reason,
            counters: Counters::default(),
            trial: None,
        })
    }

    /// Whether connections may send without a copy: `auto` only from registered memory.
    pub(super) fn may_zero_copy(&self) -> bool {
        let wanted = match self.config.send {
            SendMode::Auto => self.registered.is_some(),
            mode => mode == SendMode::Zc,
        };
        wanted && self.kernel.zero_copy
    }

    /// The send that `conn` is about to submit is on trial: from now on calls into the kernel are measured.
    pub(super) fn begin_trial(&mut self, conn: ConnId) {
        self.counters.trial_sends += 1;
        self.trial = Some(conn);
        self.kernel.meter = Some(0);
    }

    /// If a send of `conn` was on trial: it is over, and the calls since took so many nanoseconds of processor time.
    pub(super) fn end_trial(&mut self, conn: ConnId) -> Option<u64> {
        self.trial.take_if(|on_trial| *on_trial == conn)?;
        self.kernel.meter.take()
    }
}

fn register(
    kernel: &mut Kernel,
    shard: usize,
    start: *mut u8,
    bytes: usize,
    wanted: Registration,
) -> Result<(RegistrationRung, Option<Range<usize>>), RingError> {
    if wanted == Registration::Never {
        return Ok((RegistrationRung::NotWanted, None));
    }
    check_size(shard, bytes)?;
    match kernel.register(libc::iovec { iov_base: start.cast(), iov_len: bytes }) {
        Ok(()) => Ok((RegistrationRung::Registered { bytes }, Some(start.addr()..start.addr() + bytes))),
        Err(error) => {
            let (limit, errno) = (memlock_limit(), errno_of(&error));
            if wanted == Registration::Required {
                return Err(RingError::RegistrationRefused { shard, needed: bytes, limit, errno });
            }
            Ok((RegistrationRung::Refused { bytes, limit, errno }, None))
        }
    }
}

fn check_size(shard: usize, bytes: usize) -> Result<(), RingError> {
    if bytes > REGISTERED_BYTES_MAX {
        return Err(RingError::RegionTooLarge { shard, found: bytes });
    }
    Ok(())
}

/// What the wanted mode becomes on this kernel, and why it is not the wanted or the best one.
fn resolve(wanted: SendMode, kernel: &Kernel, registered: bool) -> (SendMode, Option<ModeReason>) {
    match wanted {
        SendMode::Plain => (SendMode::Plain, None),
        SendMode::Zc if kernel.zero_copy => (SendMode::Zc, None),
        SendMode::Zc => (SendMode::Plain, Some(ModeReason::NoZeroCopy)),
        SendMode::Auto | SendMode::Fixed => {
            let reason = if !registered {
                Some(ModeReason::Unregistered)
            } else if !kernel.fixed_vectors {
                Some(ModeReason::NoFixedVectors)
            } else if sigpipe_is_deadly() {
                Some(ModeReason::SigpipeDeadly)
            } else {
                None
            };
            (if reason.is_none() { SendMode::Fixed } else { SendMode::Plain }, reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gigabyte_is_the_most_and_refused_by_name() {
        assert_eq!(check_size(3, 1 << 30), Ok(()));
        let refusal = check_size(3, (1 << 30) + 1).unwrap_err();
        assert_eq!(refusal, RingError::RegionTooLarge { shard: 3, found: (1 << 30) + 1 });
        assert!(refusal.to_string().contains("1073741824"));
    }
}
