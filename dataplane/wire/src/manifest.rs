//! Reading a manifest in place. No state: a [`Manifest`] borrows the bytes it was parsed from.
//!
//! Always true of a [`Manifest`]: every check of W-19 that needs no link state has passed, so its counts, lengths and
//! sums are within the limits and agree with each other. Nothing is copied and nothing allocated.

use crate::checksum::payload_crc;
use crate::entry::{self, End, Entry, Fields};
use crate::error::WireError;
use crate::limits::{ENTRIES_MAX, ENTRY_LEN, HEADER_LEN, PAYLOAD_MAX, PAYLOADS_MAX};
use crate::raw::{self, ArchivedHeader, HEADER_CHECKSUM_AT};

/// First four bytes of a train: "TGTR" (W-14).
pub const TRAIN_MAGIC: u32 = u32::from_le_bytes(*b"TGTR");
/// The protocol version that this build speaks (W-44).
pub const VERSION: u16 = 2;

/// What the first bytes of a train amount to so far.
#[derive(Clone, Copy, Debug)]
pub enum Parsed<'a> {
    /// Not all of the manifest is there; what is there is not wrong yet (W-20).
    Incomplete {
        /// How many bytes from the start of the header are needed to get further; at least one more than were given.
        need: usize,
    },
    /// A whole manifest that passed every check of its own.
    Complete(Manifest<'a>),
}

/// A manifest that was checked whole, read where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Manifest<'a> {
    entries: &'a [u8],
    birth_ns: u64,
    sent_ns: u64,
    train: u64,
    payload_bytes: u64,
    payloads: u16,
}

/// Reads the manifest at the start of `bytes`; what follows it there (payloads) is not looked at.
///
/// Checks in the order of W-19: magic, version, counts and lengths, header checksum, reserved fields as soon as the
/// header is there; then, with all entries there, their checksum, each entry, and the sums.
///
/// # Errors
/// A [`WireError`] for the first check that fails. The link is then of no use any more (W-42).
///
/// ```
/// use tidegate_wire::{parse, Body, Entry, ManifestWriter, Parsed, MANIFEST_MAX};
/// let mut bytes = [0; MANIFEST_MAX];
/// let mut writer = ManifestWriter::new(&mut bytes, 0, 0);
/// writer.push(Entry::control(7, 1, Body::Grant { credits: 8, barriers: 0 })).unwrap();
/// let len = writer.finish();
///
/// assert!(matches!(parse(&bytes[..10]), Ok(Parsed::Incomplete { need: 64 })));
/// let Ok(Parsed::Complete(manifest)) = parse(&bytes[..len]) else { panic!() };
/// assert_eq!(manifest.entries().next().unwrap().body, Body::Grant { credits: 8, barriers: 0 });
/// ```
pub fn parse(bytes: &[u8]) -> Result<Parsed<'_>, WireError> {
    let Some(header_bytes) = bytes.get(..HEADER_LEN) else {
        return Ok(Parsed::Incomplete { need: HEADER_LEN });
    };
    let header = raw::view::<ArchivedHeader>(header_bytes);
    check_counts(header)?;
    check_header(header, header_bytes)?;

    let manifest_bytes = header.manifest_bytes.to_native() as usize;
    let Some(entries) = bytes.get(HEADER_LEN..manifest_bytes) else {
        return Ok(Parsed::Incomplete { need: manifest_bytes });
    };
    let (expected, found) = (header.entries_checksum.to_native(), payload_crc(entries));
    if expected != found {
        return Err(WireError::EntriesChecksum { expected, found });
    }
    let manifest = Manifest {
        entries,
        birth_ns: header.birth_ns.to_native(),
        sent_ns: header.sent_ns.to_native(),
        train: header.train.to_native(),
        payload_bytes: header.payload_bytes.to_native(),
        payloads: header.payloads.to_native(),
    };
    manifest.check_entries()?;
    Ok(Parsed::Complete(manifest))
}

/// Magic, version, then every count and length against its limit (W-15): nothing else is believed before.
fn check_counts(header: &ArchivedHeader) -> Result<(), WireError> {
    let magic = header.magic.to_native();
    if magic != TRAIN_MAGIC {
        return Err(WireError::Magic { found: magic });
    }
    let version = header.version.to_native();
    if version != VERSION {
        return Err(WireError::Version { expected: VERSION, found: version });
    }
    let entries = header.entries.to_native();
    if entries == 0 || usize::from(entries) > ENTRIES_MAX {
        return Err(WireError::EntryCount { found: entries });
    }
    let payloads = header.payloads.to_native();
    if usize::from(payloads) > PAYLOADS_MAX || payloads > entries {
        return Err(WireError::PayloadCount { found: payloads });
    }
    let expected = (HEADER_LEN + ENTRY_LEN * usize::from(entries)) as u32;
    let found = header.manifest_bytes.to_native();
    if found != expected {
        return Err(WireError::ManifestBytes { expected, found });
    }
    let payload_bytes = header.payload_bytes.to_native();
    let least = u64::from(payloads);
    if payload_bytes < least || payload_bytes > least * u64::from(PAYLOAD_MAX) {
        return Err(WireError::PayloadBytes { found: payload_bytes, payloads });
    }
    Ok(())
}

/// The header's own checksum (W-16), then the fields that must be zero (W-3).
fn check_header(header: &ArchivedHeader, bytes: &[u8]) -> Result<(), WireError> {
    let (expected, found) = (header.header_checksum.to_native(), payload_crc(&bytes[..HEADER_CHECKSUM_AT]));
    if expected != found {
        return Err(WireError::HeaderChecksum { expected, found });
    }
    if header.flags.to_native() != 0 || header.reserved.to_native() != 0 {
        return Err(WireError::HeaderReserved);
    }
    Ok(())
}

impl<'a> Manifest<'a> {
    /// Bytes of the manifest on the wire: the payloads start here. The number of entries is `entries().len()`.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a manifest without entries does not exist (W-15)")]
    pub fn len(&self) -> usize {
        HEADER_LEN + self.entries.len()
    }

    /// When the oldest record of the train was born, in nanoseconds of the producer's clock; 0 = not known (W-18).
    #[must_use]
    pub fn birth_ns(&self) -> u64 {
        self.birth_ns
    }

    /// When the train was handed to its link, in nanoseconds of the producer's clock; 0 = not known (W-18).
    #[must_use]
    pub fn sent_ns(&self) -> u64 {
        self.sent_ns
    }

    /// Number of the train in its direction of the link (W-17).
    #[must_use]
    pub fn train(&self) -> u64 {
        self.train
    }

    /// Bytes of all payloads together; they follow the manifest.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Number of payloads, which is that of the data entries.
    #[must_use]
    pub fn payloads(&self) -> usize {
        usize::from(self.payloads)
    }

    /// The entries in their order, which is also the order of the payloads of those that have one (W-13).
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry> + use<'a> {
        self.entries.chunks_exact(ENTRY_LEN).enumerate().map(|(index, bytes)| {
            decode(index, bytes).expect("invariant: parse decoded every entry of this manifest")
        })
    }

    /// Checks that this train is the one that comes next in its direction (W-17).
    ///
    /// # Errors
    /// [`WireError::Train`]: a train was lost, repeated or moved.
    pub fn check_train(&self, expected: u64) -> Result<(), WireError> {
        if self.train == expected { Ok(()) } else { Err(WireError::Train { expected, found: self.train }) }
    }

    /// Checks that every entry is of a kind that `from` may send (W-23).
    ///
    /// # Errors
    /// [`WireError::Direction`] for the first that is not.
    pub fn check_sender(&self, from: End) -> Result<(), WireError> {
        for (index, entry) in self.entries().enumerate() {
            let kind = entry.kind();
            if !kind.sent_by(from) {
                return Err(WireError::Direction { entry: index as u8, kind, from });
            }
        }
        Ok(())
    }

    fn check_entries(&self) -> Result<(), WireError> {
        let (mut payloads, mut payload_bytes) = (0, 0);
        for (index, bytes) in self.entries.chunks_exact(ENTRY_LEN).enumerate() {
            if let Some(data) = decode(index, bytes)?.payload() {
                payloads += 1;
                payload_bytes += u64::from(data.len);
            }
        }
        let (expected, found) = ((self.payloads, self.payload_bytes), (payloads, payload_bytes));
        if expected == found { Ok(()) } else { Err(WireError::Sum { expected, found }) }
    }
}

fn decode(index: usize, bytes: &[u8]) -> Result<Entry, WireError> {
    entry::decode(index as u8, &Fields::view(bytes))
}
