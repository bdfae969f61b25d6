//! Memory besides segments that the kernel reads or writes while an operation is in flight: the lists of pieces, and
//! the word that a doorbell is read into. Owned by the connection or ring, at addresses that never change.
//!
//! It is held by raw pointer, so no reference to it exists while the kernel has its address (rule 2). Always: filled
//! only between operations; freed only when none is in flight, else leaked.

use std::{mem::MaybeUninit, ops::Range, ptr::NonNull};

use crate::limits::PARTS_MAX;

/// The pieces of one operation as the kernel wants them, as a message and as a plain list.
struct Pieces {
    message: libc::msghdr,
    vectors: [libc::iovec; PARTS_MAX],
}

/// One connection's pieces for one direction.
pub(super) struct Gather {
    at: NonNull<Pieces>,
    len: u32,
}

impl Gather {
    pub(super) fn new() -> Self {
        // SAFETY: rule 7, both structs are plain C data for which all zeroes is the empty value.
        let pieces = unsafe { MaybeUninit::<Pieces>::zeroed().assume_init() };
        Self { at: NonNull::from(Box::leak(Box::new(pieces))), len: 0 }
    }

    /// Lists `pieces`, none of them empty. Returns whether all of them lie in `registered`.
    ///
    /// The caller's rule 2: no operation that uses this list is in flight.
    pub(super) fn fill(
        &mut self,
        pieces: impl Iterator<Item = (*mut u8, usize)>,
        registered: Option<&Range<usize>>,
    ) -> bool {
        // SAFETY: rule 2, no operation is in flight, so ours is the only access.
        let list = unsafe { self.at.as_mut() };
        let mut inside = registered.is_some();
        let mut len = 0;
        for (base, bytes) in pieces {
            inside &=
                registered.is_some_and(|area| area.start <= base.addr() && base.addr() + bytes <= area.end);
            list.vectors[len] = libc::iovec { iov_base: base.cast(), iov_len: bytes };
            len += 1;
        }
        assert!(len > 0, "an operation over no bytes");
        // A receive writes into the message header, so it is set afresh each time.
        list.message.msg_iov = list.vectors.as_mut_ptr();
        list.message.msg_iovlen = len as _;
        list.message.msg_controllen = 0;
        list.message.msg_namelen = 0;
        list.message.msg_flags = 0;
        self.len = len as u32;
        inside
    }

    /// The list as a message, for the kernel only.
    pub(super) fn message(&self) -> *mut libc::msghdr {
        // SAFETY: rule 2, the memory is ours as long as `self` is; no reference is made.
        unsafe { &raw mut (*self.at.as_ptr()).message }
    }

    /// The list itself, for the kernel only.
    pub(super) fn vectors(&self) -> *const libc::iovec {
        // SAFETY: rule 2, the memory is ours as long as `self` is; no reference is made.
        unsafe { &raw const (*self.at.as_ptr()).vectors }.cast()
    }

    /// Pieces in the list.
    pub(super) fn len(&self) -> u32 {
        self.len
    }
}

impl Drop for Gather {
    fn drop(&mut self) {
        // SAFETY: rule 2, it came from a box in `new`, and its owner drops it only when no operation is in flight.
        drop(unsafe { Box::from_raw(self.at.as_ptr()) });
    }
}

/// Eight bytes that the kernel reads the doorbell into. Never looked at.
pub(super) struct Word(NonNull<u64>);

impl Word {
    /// Size of the word.
    pub(super) const BYTES: u32 = 8;

    pub(super) fn new() -> Self {
        Self(NonNull::from(Box::leak(Box::new(0))))
    }

    /// For the kernel only.
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr().cast()
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        // SAFETY: rule 2, it came from a box in `new`, and its owner drops it only when no read is in flight.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts;

    fn listed(gather: &Gather) -> Vec<(usize, usize)> {
        let at = |index| {
            // SAFETY: rule 2, nothing is in flight in this test, and `fill` set the first `len` pieces.
            let vector = unsafe { gather.vectors().wrapping_add(index).read() };
            (vector.iov_base.addr(), vector.iov_len)
        };
        (0..gather.len() as usize).map(at).collect()
    }

    fn pieces() -> impl Iterator<Item = (*mut u8, u32)> {
        [(1000, 10), (5000, 0), (2000, 20), (3000, 30)]
            .into_iter()
            .map(|(at, len)| (std::ptr::without_provenance_mut(at), len))
    }

    #[test]
    fn a_resumed_operation_lists_the_rest() {
        let mut gather = Gather::new();
        for (skip, expected) in [
            (0, vec![(1000, 10), (2000, 20), (3000, 30)]),
            (9, vec![(1009, 1), (2000, 20), (3000, 30)]),
            (10, vec![(2000, 20), (3000, 30)]),
            (59, vec![(3029, 1)]),
        ] {
            gather.fill(parts::rest(pieces(), skip), None);
            assert_eq!(listed(&gather), expected, "skipping {skip}");
        }
    }

    #[test]
    fn one_byte_outside_is_outside() {
        let mut gather = Gather::new();
        assert!(gather.fill(parts::rest(pieces(), 0), Some(&(1000..3030))));
        assert!(!gather.fill(parts::rest(pieces(), 0), Some(&(1001..3030))));
        assert!(!gather.fill(parts::rest(pieces(), 0), Some(&(1000..3029))));
        assert!(
            gather.fill(parts::rest(pieces(), 10), Some(&(2000..3030))),
            "what is sent already does not count"
        );
        assert!(!gather.fill(parts::rest(pieces(), 0), None));
    }

    #[test]
    #[should_panic(expected = "no bytes")]
    fn nothing_to_do_is_a_bug() {
        Gather::new().fill(parts::rest(pieces(), 60), None);
    }
}
