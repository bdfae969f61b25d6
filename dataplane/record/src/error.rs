//! What can go wrong, as small `Copy` values. Nothing here owns state.
//!
//! A [`WriteError`] is about room or about the record the caller handed in; a [`ReadError`] is always the fault of whoever
//! produced the bytes, and never a panic here, whatever the bytes are.

use thiserror::Error;

/// Why a record was not written. The slot is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WriteError {
    /// The slot has too little room left. Expected in normal operation: seal the segment and write into the next.
    #[error(
        "record needs {needed} bytes, more than the slot has left; write it into an empty slot of at least that size"
    )]
    Full {
        /// Bytes the record takes in a slot, its length prefix included.
        needed: u32,
    },
    /// The record nests longer vectors than the scratch bound allows.
    #[error(
        "record needs {needed} bytes of scratch to be written, the limit is {limit}; \
         shorten its vectors of strings or of vectors, or split the record"
    )]
    Scratch {
        /// Bytes of scratch asked for when the bound was met.
        needed: u32,
        /// The bound, in bytes.
        limit: u32,
    },
    /// The record is longer than any archive may be.
    #[error("record takes more than {limit} bytes; split it")]
    TooLong {
        /// The bound, in bytes.
        limit: u32,
    },
}

/// Why bytes are not the records they should be. Positions and lengths are bytes within the payload handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The reader's own position lies behind the end of the payload.
    #[error("read position {position} lies behind the end of a payload of {len} bytes")]
    Position {
        /// The position asked for.
        position: u32,
        /// Length of the payload.
        len: u32,
    },
    /// The payload ends inside a record or inside its length.
    #[error(
        "payload ends inside a {record}: at {position} {needed} bytes are needed and {available} are left; \
         the producer sent a cut payload or a wrong length"
    )]
    Truncated {
        /// Name of the record type.
        record: &'static str,
        /// Where the record starts.
        position: u32,
        /// Bytes the record needs from there.
        needed: u64,
        /// Bytes that are there.
        available: u32,
    },
    /// A stated length that no record of this type has.
    #[error(
        "a {record} at {position} states {found} bytes, its type takes {}{expected}",
        if *exact { "exactly " } else { "at least " }
    )]
    Length {
        /// Name of the record type.
        record: &'static str,
        /// Where the record starts.
        position: u32,
        /// The stated length.
        found: u32,
        /// The length the type takes.
        expected: u32,
        /// Whether `expected` is the only length, or the least.
        exact: bool,
    },
    /// The bytes of one record do not form a valid archive of its type.
    #[error(
        "the {len} bytes of a {record} at {position} are not a valid archive of it; producer and consumer disagree, or the bytes were damaged"
    )]
    Invalid {
        /// Name of the record type.
        record: &'static str,
        /// Where the record starts.
        position: u32,
        /// Its stated length.
        len: u32,
    },
    /// A payload of plain records whose length is not a whole number of them.
    #[error("{len} bytes are not a whole number of {record} records of {size} bytes")]
    Ragged {
        /// Name of the record type.
        record: &'static str,
        /// Length of the payload.
        len: u32,
        /// Size of one record.
        size: u32,
    },
    /// A payload of plain records that does not lie at their alignment. A fault of this process, not of a peer.
    #[error("a payload of {record} records must lie at a multiple of {align} bytes in memory and does not")]
    Misaligned {
        /// Name of the record type.
        record: &'static str,
        /// The alignment, in bytes.
        align: u32,
    },
    /// A payload longer than a 32-bit position can address.
    #[error("a payload may be at most {limit} bytes long and is {len}")]
    TooLong {
        /// Length of the payload.
        len: u64,
        /// The bound, in bytes.
        limit: u32,
    },
}
