//! What a peer can do wrong on a link that is established: each case by name, with what was expected and what was found.

use core::fmt;

use tidegate_wire::ErrorCode;

/// A peer broke a rule of the protocol (`SPEC.md` in the wire crate). The link is closed; the tasks on it fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// An entry names a channel that this link does not have.
    UnknownChannel {
        /// The number that was sent.
        channel: u32,
        /// How many channels the link has.
        channels: u32,
    },
    /// An entry carries a generation other than the channel's.
    Generation {
        /// The channel's number in the job.
        channel: u32,
        /// The generation this side knows.
        expected: u32,
        /// The generation that was sent.
        found: u32,
    },
    /// Data came out of order, twice, or with a gap.
    Sequence {
        /// The channel's number in the job.
        channel: u32,
        /// The next sequence number.
        expected: u32,
        /// The sequence number that was sent.
        found: u32,
    },
    /// Data was sent that was never granted.
    NoCredit {
        /// The channel's number in the job.
        channel: u32,
        /// The sequence number of the data.
        sequence: u32,
    },
    /// A record was asked for that fits a segment, or no region.
    RecordTooLarge {
        /// The channel's number in the job.
        channel: u32,
        /// The largest record of the attempt, bytes.
        limit: u32,
        /// The size that was asked for, bytes.
        found: u32,
    },
    /// Data of a record larger than a segment came that was not admitted.
    NotAdmitted {
        /// The channel's number in the job.
        channel: u32,
        /// The size of the record, bytes.
        found: u32,
    },
    /// A slice that is not the next of its record, or of another one.
    OutOfPlace {
        /// The channel's number in the job.
        channel: u32,
        /// Total and offset that come next, bytes.
        expected: (u32, u32),
        /// Total and offset that were announced, bytes.
        found: (u32, u32),
    },
    /// A payload's checksum does not fit its bytes.
    Checksum {
        /// The channel's number in the job.
        channel: u32,
        /// The checksum in the entry.
        expected: u32,
        /// The checksum of the bytes that arrived.
        found: u32,
    },
    /// More events wait on a channel than its producer may have undelivered.
    TooManyEvents {
        /// The channel's number in the job.
        channel: u32,
        /// The bound.
        limit: u32,
    },
    /// More credit than any channel can hold.
    CreditOverflow {
        /// The channel's number in the job.
        channel: u32,
        /// Credits held and granted together.
        found: u64,
    },
    /// An entry of a kind that this direction or this state of the channel does not allow.
    Unexpected {
        /// The channel's number in the job.
        channel: u32,
        /// The kind's number.
        kind: u8,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UnknownChannel { channel, channels } => {
                write!(f, "peer named channel {channel}, but the link has {channels}")
            }
            Self::Generation { channel, expected, found } => {
                write!(f, "peer sent generation {found} for channel {channel}, expected {expected}")
            }
            Self::Sequence { channel, expected, found } => {
                write!(f, "peer sent sequence {found} on channel {channel}, expected {expected}")
            }
            Self::NoCredit { channel, sequence } => {
                write!(f, "peer sent data (sequence {sequence}) on channel {channel} that was never granted")
            }
            Self::RecordTooLarge { channel, limit, found } => write!(
                f,
                "peer asked for a region for a record of {found} bytes on channel {channel}, records in regions are larger than \
                 a segment and have at most {limit}: give all TaskManagers the same configuration"
            ),
            Self::NotAdmitted { channel, found } => {
                write!(
                    f,
                    "peer sent a slice of a record of {found} bytes on channel {channel} that was not admitted"
                )
            }
            Self::OutOfPlace { channel, expected, found } => write!(
                f,
                "peer sent a slice at {} of a record of {} bytes on channel {channel}, expected at {} of {}",
                found.1, found.0, expected.1, expected.0
            ),
            Self::Checksum { channel, expected, found } => write!(
                f,
                "payload on channel {channel} is corrupted: checksum {found:#010x}, the manifest says {expected:#010x}"
            ),
            Self::TooManyEvents { channel, limit } => {
                write!(f, "peer sent more than {limit} undelivered events on channel {channel}")
            }
            Self::CreditOverflow { channel, found } => {
                write!(
                    f,
                    "peer granted {found} credits in all to channel {channel}, more than a channel can hold"
                )
            }
            Self::Unexpected { channel, kind } => {
                write!(f, "peer sent an entry of kind {kind} on channel {channel} where it has no meaning")
            }
        }
    }
}

impl core::error::Error for Violation {}

impl Violation {
    /// The code that tells the peer what it did (W-34), and its detail.
    pub fn code(&self) -> (ErrorCode, u64) {
        match *self {
            Self::UnknownChannel { channel, .. } => (ErrorCode::Channel, u64::from(channel)),
            Self::Generation { found, .. } => (ErrorCode::Generation, u64::from(found)),
            Self::Sequence { found, .. } => (ErrorCode::Sequence, u64::from(found)),
            Self::NoCredit { sequence, .. } => (ErrorCode::Credit, u64::from(sequence)),
            Self::RecordTooLarge { found, .. } => (ErrorCode::Length, u64::from(found)),
            Self::NotAdmitted { found, .. } => (ErrorCode::Credit, u64::from(found)),
            Self::OutOfPlace { found: (_, offset), .. } => (ErrorCode::Length, u64::from(offset)),
            Self::Checksum { found, .. } => (ErrorCode::Checksum, u64::from(found)),
            Self::CreditOverflow { found, .. } => (ErrorCode::Credit, found),
            Self::TooManyEvents { limit, .. } => (ErrorCode::Order, u64::from(limit)),
            Self::Unexpected { kind, .. } => (ErrorCode::Order, u64::from(kind)),
        }
    }
}
