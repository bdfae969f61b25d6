//! One io_uring instance: made by going down a ladder of setup flags, then the only way in and out of it.
//!
//! Owned by one ring on one thread. Always: completions owed ≤ entries of the completion queue, so it cannot overflow;
//! queued submissions are handed over by the next `turn` or `wait`, or earlier if the queue is full.

use std::{io, ptr::NonNull, time::Duration};

use io_uring::{
    EnterFlags, IoUring, Submitter, cqueue, opcode, squeue,
    types::{SubmitArgs, Timespec},
};

use crate::{
    fault::{RingError, errno_of, stop},
    limits::{self, completions_bound},
    memlock_limit, probe, thread_ns,
};

type SetFlags = fn(&mut io_uring::Builder);

/// Setup flags from the most capable rung down to what Linux 5.18 takes, and the name of each rung.
///
/// DEFER_TASKRUN never comes without TASKRUN_FLAG: without that flag a ring that only submits would never be told of
/// completions, because deferred work runs only inside a call that asks for them.
const LADDER: [(&str, SetFlags); 5] = [
    ("single_issuer defer_taskrun taskrun_flag submit_all no_sqarray", |builder| {
        deferred(builder);
        builder.setup_no_sqarray();
    }),
    ("single_issuer defer_taskrun taskrun_flag submit_all", deferred),
    ("single_issuer coop_taskrun taskrun_flag submit_all", |builder| {
        builder.setup_single_issuer().setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
    }),
    ("coop_taskrun taskrun_flag submit_all", |builder| {
        builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
    }),
    ("submit_all", |builder| {
        builder.setup_submit_all();
    }),
];

fn deferred(builder: &mut io_uring::Builder) {
    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
}

/// One io_uring instance and its accounts.
pub(super) struct Kernel {
    /// Borrows from `io`, knows the registered descriptor. Emptied first when dropped (rule 4).
    submitter: Option<Submitter<'static>>,
    io: NonNull<IoUring>,
    /// Completions the kernel still has to deliver for what was pushed.
    owed: u32,
    capacity: u32,
    /// Flags of every blocking call besides those of its purpose.
    wait_flags: EnterFlags,
    /// Calls into the kernel so far.
    pub(super) enters: u64,
    /// Processor time of this thread in those calls, nanoseconds, while somebody wants to know it.
    pub(super) meter: Option<u64>,
    /// The rung that was reached.
    pub(super) setup: &'static str,
    /// Operations the kernel knows.
    pub(super) fixed_vectors: bool,
    pub(super) zero_copy: bool,
}

impl Kernel {
    /// A ring that `connections` connections cannot overflow, for this thread.
    pub(super) fn open(connections: u32) -> Result<Self, RingError> {
        let (setup, io) = go_down_the_ladder(connections)?;
        let params = io.params();
        let enough =
            params.is_feature_ext_arg() && params.is_feature_nodrop() && params.is_feature_submit_stable();
        if !enough {
            return Err(RingError::Unusable(probe::Obstacle::OldKernel { errno: 0 }));
        }
        let capacity = params.cq_entries();
        assert!(
            capacity >= completions_bound(connections),
            "the kernel made the queue smaller than asked for"
        );
        let mut wait_flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // The doorbell's read is always pending, so an idle slot would count as a core waiting for its disk.
        wait_flags.set(EnterFlags::NO_IOWAIT, params.is_feature_no_iowait());

        let mut known = io_uring::Probe::new();
        io.submitter().register_probe(&mut known).map_err(RingError::os("io_uring_register(PROBE)"))?;
        let io = NonNull::from(Box::leak(Box::new(io)));
        // SAFETY: rule 4, `io` lives until this struct is dropped and is only ever borrowed shared.
        let io_ref: &'static IoUring = unsafe { io.as_ref() };
        let mut submitter = io_ref.submitter();
        // Saves a descriptor look-up per call; without it everything works as well.
        let _optional = submitter.register_ring_fd();
        let kernel = Self {
            submitter: Some(submitter),
            io,
            owed: 0,
            capacity,
            wait_flags,
            enters: 0,
            meter: None,
            setup,
            fixed_vectors: known.is_supported(opcode::WritevFixed::CODE)
                && known.is_supported(opcode::ReadvFixed::CODE),
            zero_copy: known.is_supported(opcode::SendMsgZc::CODE),
        };
        // A profile may let a ring be made and not be used; find out while that is still an error and not a surprise.
        let entered = kernel.submitter().submit();
        entered.map_err(|error| RingError::Unusable(probe::obstacle(errno_of(&error))))?;
        Ok(kernel)
    }

    /// Queues an operation that will complete with at most `completions` entries.
    ///
    /// The caller's rules 1 and 2: what the entry points to stays until the last of those.
    pub(super) fn push(&mut self, entry: &squeue::Entry, completions: u32) {
        self.owed += completions;
        assert!(self.owed <= self.capacity, "limits.rs bounds what connections can be owed");
        let mut full_turns = 0;
        loop {
            let mut queue = self.submissions();
            // SAFETY: rules 1 and 2, which the callers state.
            if unsafe { queue.push(entry) }.is_ok() {
                return;
            }
            drop(queue);
            if full_turns == limits::RETRIES_MAX {
                stop(format_args!("the kernel takes no submissions any more"));
            }
            full_turns += 1;
            self.enter(0, EnterFlags::empty(), None);
        }
    }

    /// Hands over what is queued and lets the kernel deliver, with one call or none. Does not block.
    pub(super) fn turn(&mut self) {
        let queue = self.submissions();
        let (queued, taskrun, overflow) = (queue.len(), queue.taskrun(), queue.cq_overflow());
        drop(queue);
        let deliver = overflow || taskrun;
        if queued > 0 || (deliver && self.nothing_delivered()) {
            let flags = if deliver { EnterFlags::GETEVENTS } else { EnterFlags::empty() };
            self.enter(0, flags, None);
        }
    }

    /// Hands over what is queued and blocks until something is delivered or `timeout` is over.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) {
        let timeout = timeout.map(|timeout| Timespec::from(timeout.min(limits::WAIT_MAX)));
        let args = match &timeout {
            Some(timeout) => SubmitArgs::new().timespec(timeout),
            None => SubmitArgs::new(),
        };
        self.enter(1, self.wait_flags, Some(&args));
    }

    /// Whether no completion waits to be popped.
    pub(super) fn nothing_delivered(&self) -> bool {
        self.completions().is_empty()
    }

    /// The next completion that was delivered.
    pub(super) fn pop(&mut self) -> Option<cqueue::Entry> {
        self.completions().next()
    }

    /// So many owed completions were delivered, or will never be.
    pub(super) fn settle(&mut self, completions: u32) {
        let Some(owed) = self.owed.checked_sub(completions) else {
            stop(format_args!("more completions were delivered than were owed"))
        };
        self.owed = owed;
    }

    /// Completions not yet delivered. None: nothing is in flight.
    pub(super) fn owed(&self) -> u32 {
        self.owed
    }

    /// One completion that will never come.
    #[cfg(test)]
    pub(super) fn owe_for_ever(&mut self) {
        self.owed += 1;
    }

    /// Makes `region` entry 0 of the table of registered buffers.
    ///
    /// The caller's rule 3: the region stays mapped until `unregister` or the end of the ring.
    pub(super) fn register(&mut self, region: libc::iovec) -> io::Result<()> {
        let submitter = self.submitter();
        // SAFETY: rule 3, which the caller states.
        unsafe { submitter.register_buffers(&[region]) }
    }

    /// Gives the registered buffers back. Nothing may be in flight.
    pub(super) fn unregister(&mut self) {
        // Refused only if nothing was registered; closing the ring does it otherwise.
        let _ignored = self.submitter().unregister_buffers();
    }

    fn submitter(&self) -> &Submitter<'static> {
        self.submitter.as_ref().expect("invariant: taken only when dropped")
    }

    fn submissions(&mut self) -> squeue::SubmissionQueue<'_> {
        // SAFETY: rule 4, `io` lives as long as `self` and is only ever borrowed shared.
        let io = unsafe { self.io.as_ref() };
        // SAFETY: rule 4, the view borrows `self` mutably, so there is no other one.
        unsafe { io.submission_shared() }
    }

    fn completions(&self) -> cqueue::CompletionQueue<'_> {
        // SAFETY: rule 4, `io` lives as long as `self` and is only ever borrowed shared.
        let io = unsafe { self.io.as_ref() };
        // SAFETY: rule 4, every method that makes a view drops it before it returns, and `Kernel` is not `Sync`.
        unsafe { io.completion_shared() }
    }

    /// The one system call.
    fn enter(&mut self, want: u32, flags: EnterFlags, args: Option<&SubmitArgs<'_, '_>>) {
        self.enters += 1;
        let queued = self.submissions().len() as u32;
        let started_ns = self.meter.map(|_| thread_ns());
        let submitter = self.submitter();
        // SAFETY: rule 4, `queued` entries are in the queue, and `args` is what EXT_ARG, set with it, asks for.
        let entered = unsafe { submitter.enter(queued, want, flags.bits(), args) };
        if let (Some(started_ns), Some(spent_ns)) = (started_ns, &mut self.meter) {
            *spent_ns += thread_ns() - started_ns;
        }
        match entered.as_ref().map_err(errno_of) {
            // Interrupted, timed out, or short of memory for a moment: whatever was not taken stays queued.
            Ok(_) | Err(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY) => {}
            Err(errno) => stop(format_args!("io_uring_enter failed with errno {errno}")),
        }
        if self.completions().overflow() != 0 {
            stop(format_args!("the completion queue overflowed although it holds all that can be owed"));
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if let Some(mut submitter) = self.submitter.take() {
            // Fails only if it was never registered.
            let _ignored = submitter.unregister_ring_fd();
        }
        // SAFETY: rule 4, it came from a box in `open`, and the submitter that borrowed from it is gone.
        drop(unsafe { Box::from_raw(self.io.as_ptr()) });
    }
}

fn go_down_the_ladder(connections: u32) -> Result<(&'static str, IoUring), RingError> {
    let (entries, completions) = limits::queue_entries(connections);
    let mut refusal = 0;
    for (name, set_flags) in LADDER {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_cqsize(completions);
        set_flags(&mut builder);
        match builder.build(entries) {
            Ok(io) => return Ok((name, io)),
            Err(error) => refusal = errno_of(&error),
        }
        if refusal != libc::EINVAL {
            break; // not about the flags
        }
    }
    Err(if refusal == libc::ENOMEM {
        let needed = limits::ring_bytes(connections);
        RingError::RingMemory { connections, needed, limit: memlock_limit() }
    } else {
        RingError::Unusable(probe::obstacle(refusal))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_makes_a_ring_that_completes_an_operation() {
        for (name, set_flags) in LADDER {
            let mut builder = IoUring::builder();
            set_flags(&mut builder);
            let mut io = match builder.build(8) {
                Ok(io) => io,
                Err(error) => {
                    println!("skipped: rung '{name}' is not to be had here: {error}");
                    continue;
                }
            };
            let nop = opcode::Nop::new().build().user_data(7);
            // SAFETY: rules 1 and 2, a no-op points to nothing.
            unsafe { io.submission().push(&nop) }.unwrap();
            io.submit_and_wait(1).unwrap();
            assert_eq!(io.completion().next().map(|entry| entry.user_data()), Some(7), "rung '{name}'");
        }
    }
}
