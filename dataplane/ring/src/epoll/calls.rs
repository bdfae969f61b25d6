//! The two system calls that move bytes. No state.
//!
//! They do not block, and touch the segments only until they return; lists and headers are locals (rules 1 and 7).

use std::{io, mem::MaybeUninit, os::fd::RawFd};

use arrayvec::ArrayVec;

use crate::{
    fault::errno_of,
    limits::{PARTS_MAX, RETRIES_MAX},
};

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// So many bytes.
    Bytes(usize),
    /// None now; the next event says when.
    NotReady,
    /// The errno.
    Failed(i32),
}

/// Sends from `pieces` what the socket takes now, without a signal if the peer is gone.
pub(super) fn send(socket: RawFd, pieces: impl Iterator<Item = (*mut u8, usize)>) -> Outcome {
    with_message(pieces, |message| {
        // SAFETY: rules 1 and 7, the list is a live local and its pieces are of segments in flight.
        unsafe { libc::sendmsg(socket, message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) }
    })
}

/// Receives into `pieces` what has arrived; zero bytes are the end of file.
pub(super) fn receive(socket: RawFd, pieces: impl Iterator<Item = (*mut u8, usize)>) -> Outcome {
    with_message(pieces, |message| {
        // SAFETY: rules 1 and 7, the list is a live local and its pieces are of receiving segments.
        unsafe { libc::recvmsg(socket, message, libc::MSG_DONTWAIT) }
    })
}

fn with_message(
    pieces: impl Iterator<Item = (*mut u8, usize)>,
    call: impl Fn(&mut libc::msghdr) -> isize,
) -> Outcome {
    let vector = |(base, len): (*mut u8, usize)| libc::iovec { iov_base: base.cast(), iov_len: len };
    let mut vectors: ArrayVec<libc::iovec, PARTS_MAX> = pieces.map(vector).collect();
    // SAFETY: rule 7, plain C data for which all zeroes is the empty value.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len() as _;
    let mut retries = 0;
    loop {
        let result = call(&mut message);
        if let Ok(bytes) = usize::try_from(result) {
            return Outcome::Bytes(bytes);
        }
        match errno_of(&io::Error::last_os_error()) {
            libc::EAGAIN => return Outcome::NotReady,
            libc::EINTR if retries < RETRIES_MAX => retries += 1,
            errno => return Outcome::Failed(errno),
        }
    }
}
