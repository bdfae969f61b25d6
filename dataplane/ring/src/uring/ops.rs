//! The operations of a connection as submission entries. No state.
//!
//! Entries only carry addresses; that what they point to stays is the business of whoever pushes them (rules 1 and 2).
//! The constants are the kernel's, missing from the crate's surface; the tests pin down the ones that can be observed.

use io_uring::{
    opcode, squeue,
    types::{CancelBuilder, Fd},
};

use super::stable::{Gather, Word};

/// Flag of a send in its `ioprio`: the pieces lie in the table of registered buffers, at the index given or 0.
const RECVSEND_FIXED_BUF: u16 = 1 << 2;
/// Flag of a send in its `ioprio`: the notification says whether the kernel copied.
const SEND_ZC_REPORT_USAGE: u16 = 1 << 3;
/// What the notification says then.
const NOTIF_USAGE_ZC_COPIED: u32 = 1 << 31;
/// Entry of the table that holds the slot's own shard. SENDMSG_ZC knows no other.
const SHARD_ENTRY: u16 = 0;
/// Send everything before completing, and no signal if the peer is gone.
const SEND_FLAGS: u32 = (libc::MSG_WAITALL | libc::MSG_NOSIGNAL) as u32;

/// Results that mean nothing happened, try again.
pub(super) const INTERRUPTED: i32 = -libc::EINTR;
pub(super) const AGAIN: i32 = -libc::EAGAIN;

/// Whether `errno` says that the kernel or device cannot do the operation this way. Plain ones may still work.
pub(super) fn is_refusal(errno: i32) -> bool {
    matches!(errno, libc::EOPNOTSUPP | libc::EINVAL | libc::ENOMEM)
}

/// Whether the result of a notification says that the kernel copied after all.
pub(super) fn was_copied(result: i32) -> bool {
    result as u32 & NOTIF_USAGE_ZC_COPIED != 0
}

pub(super) fn send_plain(fd: Fd, list: &Gather) -> squeue::Entry {
    opcode::SendMsg::new(fd, list.message()).flags(SEND_FLAGS).build()
}

/// Has neither flag: may end short at any byte, and may raise SIGPIPE (rule 6).
pub(super) fn send_fixed(fd: Fd, list: &Gather) -> squeue::Entry {
    opcode::WritevFixed::new(fd, list.vectors(), list.len(), SHARD_ENTRY).build()
}

pub(super) fn send_zero_copy(fd: Fd, list: &Gather, registered: bool) -> squeue::Entry {
    let table = if registered { RECVSEND_FIXED_BUF } else { 0 };
    opcode::SendMsgZc::new(fd, list.message()).flags(SEND_FLAGS).ioprio(SEND_ZC_REPORT_USAGE | table).build()
}

pub(super) fn receive_plain(fd: Fd, list: &Gather) -> squeue::Entry {
    opcode::RecvMsg::new(fd, list.message()).build()
}

pub(super) fn receive_fixed(fd: Fd, list: &Gather) -> squeue::Entry {
    opcode::ReadvFixed::new(fd, list.vectors(), list.len(), SHARD_ENTRY).build()
}

/// Cancels everything in flight on `fd`.
pub(super) fn cancel(fd: Fd) -> squeue::Entry {
    opcode::AsyncCancel2::new(CancelBuilder::fd(fd).all()).build()
}

pub(super) fn read_bell(fd: Fd, word: &Word) -> squeue::Entry {
    opcode::Read::new(fd, word.as_ptr(), Word::BYTES).build()
}

pub(super) fn poll_readable(fd: Fd) -> squeue::Entry {
    opcode::PollAdd::new(fd, libc::POLLIN as u32).build()
}

pub(super) fn cancel_one(token: u64) -> squeue::Entry {
    opcode::AsyncCancel2::new(CancelBuilder::user_data(token)).build()
}
