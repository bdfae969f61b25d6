//! What can be wrong with bytes from the other end, and the codes in which one end tells the other. No state.
//!
//! Always true: a [`WireError`] names what was expected and what was found, and is small enough to be copied around.

use core::fmt;

use crate::entry::{End, Kind};
use crate::limits::{
    CREDITS_MAX, ENTRIES_MAX, ENTRY_LEN, HEADER_LEN, PAYLOAD_MAX, PAYLOADS_MAX, RECORD_MAX, TRAIN_PAYLOAD_MAX,
};

/// Who is to blame for a [`WireError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The bytes are not those that were sent: memory, a device or a middlebox damaged them.
    Damaged,
    /// The other end sent what the protocol forbids.
    PeerViolated,
    /// The other end speaks another version, or is no Tidegate at all.
    PeerForeign,
}

/// Why a manifest was refused. The link is lost in every case (W-42); nothing of the train was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WireError {
    /// Not the first bytes of a train.
    Magic {
        /// The first four bytes, as a little-endian number.
        found: u32,
    },
    /// A train of another protocol version.
    Version {
        /// The version of this build.
        expected: u16,
        /// The version in the header.
        found: u16,
    },
    /// Entry count outside 1..=[`ENTRIES_MAX`].
    EntryCount {
        /// The count in the header.
        found: u16,
    },
    /// Payload count above [`PAYLOADS_MAX`] or above the entry count.
    PayloadCount {
        /// The count in the header.
        found: u16,
    },
    /// Manifest length that does not follow from the entry count.
    ManifestBytes {
        /// What the entry count makes.
        expected: u32,
        /// The length in the header.
        found: u32,
    },
    /// Payload bytes that the payload count cannot make.
    PayloadBytes {
        /// The length in the header.
        found: u64,
        /// The payload count in the header.
        payloads: u16,
    },
    /// The header's bytes do not match its checksum.
    HeaderChecksum {
        /// The checksum in the header.
        expected: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// A reserved field of the header is not zero.
    HeaderReserved,
    /// The entries' bytes do not match the checksum in the header.
    EntriesChecksum {
        /// The checksum in the header.
        expected: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// No such kind.
    Kind {
        /// Number of the entry in the manifest.
        entry: u8,
        /// The kind byte.
        found: u8,
    },
    /// A field that this kind does not use is not zero.
    Unused {
        /// Number of the entry in the manifest.
        entry: u8,
        /// The entry's kind.
        kind: Kind,
    },
    /// A channel number that this kind may not carry.
    Channel {
        /// Number of the entry in the manifest.
        entry: u8,
        /// The entry's kind.
        kind: Kind,
    },
    /// A payload's length, total or offset beyond its limits.
    Payload {
        /// Number of the entry in the manifest.
        entry: u8,
        /// Bytes of the payload.
        len: u32,
        /// Bytes of the whole.
        total: u32,
        /// Where the payload starts in the whole.
        offset: u32,
    },
    /// Credits outside their limits.
    Credits {
        /// Number of the entry in the manifest.
        entry: u8,
        /// The credits in the entry.
        found: u32,
    },
    /// An error entry without a code.
    Code {
        /// Number of the entry in the manifest.
        entry: u8,
        /// The number in the entry.
        found: u32,
    },
    /// The entries do not make the payloads that the header announces.
    Sum {
        /// Payloads and their bytes, of the header.
        expected: (u16, u64),
        /// Payloads and their bytes, of the entries.
        found: (u16, u64),
    },
    /// A train was lost, repeated or moved.
    Train {
        /// The number that comes next.
        expected: u64,
        /// The number in the header.
        found: u64,
    },
    /// A kind that only the other end may send.
    Direction {
        /// Number of the entry in the manifest.
        entry: u8,
        /// The entry's kind.
        kind: Kind,
        /// Who sent it.
        from: End,
    },
}

impl WireError {
    /// Who is to blame.
    #[must_use]
    pub const fn fault(self) -> Fault {
        match self {
            Self::Magic { .. } | Self::Version { .. } => Fault::PeerForeign,
            Self::HeaderChecksum { .. } | Self::EntriesChecksum { .. } => Fault::Damaged,
            _ => Fault::PeerViolated,
        }
    }

    /// The code and detail of the error entry that tells the other end (W-34).
    #[must_use]
    pub const fn report(self) -> (ErrorCode, u64) {
        match self {
            Self::HeaderChecksum { found, .. } | Self::EntriesChecksum { found, .. } => {
                (ErrorCode::Checksum, found as u64)
            }
            Self::Direction { kind, .. } => (ErrorCode::Direction, kind as u64),
            Self::Train { found, .. } => (ErrorCode::Train, found),
            Self::Magic { found } => (ErrorCode::Manifest, found as u64),
            Self::Version { found, .. } => (ErrorCode::Manifest, found as u64),
            Self::Kind { entry, .. }
            | Self::Unused { entry, .. }
            | Self::Channel { entry, .. }
            | Self::Payload { entry, .. }
            | Self::Credits { entry, .. }
            | Self::Code { entry, .. } => (ErrorCode::Manifest, entry as u64),
            _ => (ErrorCode::Manifest, 0),
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Magic { found } => {
                write!(
                    f,
                    "peer sent no train: it starts with {found:#010x}; is the port that of another service?"
                )
            }
            Self::Version { expected, found } => {
                write!(
                    f,
                    "peer sent a train of version {found}, expected {expected}: run the same build on both ends"
                )
            }
            Self::EntryCount { found } => {
                write!(f, "peer violated W-15: a manifest of {found} entries, expected 1 to {ENTRIES_MAX}")
            }
            Self::PayloadCount { found } => {
                write!(
                    f,
                    "peer violated W-15: {found} payloads, expected at most {PAYLOADS_MAX} and one per entry"
                )
            }
            Self::ManifestBytes { expected, found } => write!(
                f,
                "peer violated W-15: a manifest of {found} bytes, expected {expected} ({HEADER_LEN} + {ENTRY_LEN} per entry)"
            ),
            Self::PayloadBytes { found, payloads } => write!(
                f,
                "peer violated W-15: {found} payload bytes in {payloads} payloads, expected 1 to {PAYLOAD_MAX} each and {TRAIN_PAYLOAD_MAX} in all"
            ),
            Self::HeaderChecksum { expected, found } => write!(
                f,
                "a header was damaged on its way: it says checksum {expected:#010x}, its bytes have {found:#010x}"
            ),
            Self::HeaderReserved => {
                write!(f, "peer violated W-3: a reserved field of the header is not zero")
            }
            Self::EntriesChecksum { expected, found } => write!(
                f,
                "manifest entries were damaged on their way: the header says {expected:#010x}, their bytes have {found:#010x}"
            ),
            Self::Kind { entry, found } => {
                write!(
                    f,
                    "peer violated W-23: entry {entry} has kind {found}, expected 1 to {}",
                    Kind::ALL.len()
                )
            }
            Self::Unused { entry, kind } => {
                write!(
                    f,
                    "peer violated W-24: entry {entry} ({kind:?}) sets a field that its kind does not use"
                )
            }
            Self::Channel { entry, kind } => write!(
                f,
                "peer violated W-34: entry {entry} ({kind:?}) speaks of the whole link, expected an error of generation 0"
            ),
            Self::Payload { entry, len, total, offset } => write!(
                f,
                "peer violated W-25: entry {entry} has payload bytes {offset}+{len} of {total}, expected 1 to {PAYLOAD_MAX} within a total of at most {RECORD_MAX}"
            ),
            Self::Credits { entry, found } => {
                write!(
                    f,
                    "peer violated W-15: entry {entry} grants {found} credits, expected 1 to {CREDITS_MAX}"
                )
            }
            Self::Code { entry, found } => {
                write!(
                    f,
                    "peer violated W-34: entry {entry} is an error of code {found}, expected 1 to {}",
                    u16::MAX
                )
            }
            Self::Sum { expected, found } => write!(
                f,
                "peer violated W-14: entries of {} payloads with {} bytes, the header says {} with {}",
                found.0, found.1, expected.0, expected.1
            ),
            Self::Train { expected, found } => {
                write!(
                    f,
                    "peer violated W-17: train {found}, expected {expected}: one was lost, repeated or moved"
                )
            }
            Self::Direction { entry, kind, from } => {
                write!(f, "peer violated W-23: entry {entry} is a {kind:?}, which a {from:?} may not send")
            }
        }
    }
}

impl core::error::Error for WireError {}

/// What an error entry says (W-34). The numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ErrorCode {
    /// A manifest broke the format; detail: number of the entry, or what was found.
    Manifest = 1,
    /// Header, entries or payload do not match their checksum; detail: the checksum of the bytes.
    Checksum = 2,
    /// A train number out of order; detail: the number.
    Train = 3,
    /// A kind that this end may not send; detail: the kind.
    Direction = 4,
    /// A channel that is not on this link; detail: the channel.
    Channel = 5,
    /// A generation that was never open or has had its last word; detail: the generation.
    Generation = 6,
    /// A sequence number that is not the next; detail: the number.
    Sequence = 7,
    /// Data without credit; detail: the sequence number.
    Credit = 8,
    /// A payload longer than the agreed segment, or a slice out of place; detail: its length.
    Length = 9,
    /// An entry that may not stand here: data behind end-of-data, a resume without barrier, …; detail: the kind.
    Order = 10,
    /// The sender of the error failed by itself: its task, its memory, its machine; detail: its own.
    Local = 11,
    /// The sender of the error was told to stop; detail: 0.
    Cancelled = 12,
}

impl ErrorCode {
    /// Every code, in the order of the numbers.
    pub const ALL: [Self; 12] = [
        Self::Manifest,
        Self::Checksum,
        Self::Train,
        Self::Direction,
        Self::Channel,
        Self::Generation,
        Self::Sequence,
        Self::Credit,
        Self::Length,
        Self::Order,
        Self::Local,
        Self::Cancelled,
    ];

    /// The code with this number, if this version knows it.
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Self> {
        if number == 0 || number as usize > Self::ALL.len() {
            None
        } else {
            Some(Self::ALL[number as usize - 1])
        }
    }
}
