//! Writing a manifest in place, entry by entry, at the moment it is sent. The state is the caller's buffer.
//!
//! Always true: the bytes before the end of the last entry are what `finish` will send but for the header, and
//! counts and sums never pass the limits, so what was written can always be parsed.

use core::fmt;

use crate::checksum::payload_crc;
use crate::entry::Entry;
use crate::limits::{ENTRIES_MAX, ENTRY_LEN, HEADER_LEN, PAYLOADS_MAX};
use crate::manifest::{TRAIN_MAGIC, VERSION};
use crate::raw::{self, HEADER_CHECKSUM_AT};

/// The entry did not fit: the manifest is unchanged, send it and put the entry into the next train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the manifest is full ({ENTRIES_MAX} entries, {PAYLOADS_MAX} payloads): send it, then go on"
        )
    }
}

impl core::error::Error for Full {}

/// Writes one manifest into a buffer.
///
/// ```
/// use tidegate_wire::{payload_crc, Data, Entry, ManifestWriter, MANIFEST_MAX};
/// let payload = b"some records";
/// let mut buffer = [0; MANIFEST_MAX];
/// let mut writer = ManifestWriter::new(&mut buffer, 0, 1_000);
/// writer.push(Entry::data(3, 1, 0, 0, Data::whole(payload.len() as u32, payload_crc(payload)))).unwrap();
/// assert_eq!(writer.finish(), 64 + 32); // the payload goes out right behind these bytes
/// ```
#[derive(Debug)]
pub struct ManifestWriter<'a> {
    bytes: &'a mut [u8],
    train: u64,
    birth_ns: u64,
    sent_ns: u64,
    payload_bytes: u64,
    entries: usize,
    payloads: usize,
}

impl<'a> ManifestWriter<'a> {
    /// Starts the manifest of train number `train` of this direction (W-17) in `bytes`. `birth_ns` is when the oldest
    /// record was born, 0 if nothing is known yet; see [`note_birth`](Self::note_birth).
    ///
    /// # Panics
    /// If `bytes` has no room for a header and one entry: the caller's bug. [`MANIFEST_MAX`](crate::MANIFEST_MAX) bytes
    /// always do.
    #[must_use]
    pub fn new(bytes: &'a mut [u8], train: u64, birth_ns: u64) -> Self {
        assert!(
            bytes.len() >= HEADER_LEN + ENTRY_LEN,
            "misuse: a manifest needs room for a header and an entry"
        );
        Self { bytes, train, birth_ns, sent_ns: 0, payload_bytes: 0, entries: 0, payloads: 0 }
    }

    /// Appends an entry. A data entry's payload is sent in the order of these calls (W-13).
    ///
    /// # Errors
    /// [`Full`] when entries, payloads or the buffer are used up; nothing changed then.
    ///
    /// # Panics
    /// If the entry breaks a rule of its own ([`Entry::is_well_formed`]): the caller's bug, and what the other end would
    /// close the link for.
    pub fn push(&mut self, entry: Entry) -> Result<(), Full> {
        assert!(entry.is_well_formed(), "misuse: {entry:?} breaks the wire format");
        let payload = entry.payload();
        let at = HEADER_LEN + ENTRY_LEN * self.entries;
        let no_payload_left = payload.is_some() && self.payloads_left() == 0;
        if self.entries_left() == 0 || no_payload_left {
            return Err(Full);
        }
        raw::store(&entry.to_raw(), &mut self.bytes[at..at + ENTRY_LEN]);
        self.entries += 1;
        if let Some(data) = payload {
            self.payloads += 1;
            self.payload_bytes += u64::from(data.len);
        }
        Ok(())
    }

    /// Takes in the birth of a record of this train, in nanoseconds: the oldest stands in the header (W-18). 0 is no
    /// birth.
    pub fn note_birth(&mut self, birth_ns: u64) {
        if birth_ns != 0 && (self.birth_ns == 0 || birth_ns < self.birth_ns) {
            self.birth_ns = birth_ns;
        }
    }

    /// Says when the train is handed to its link, in nanoseconds of the clock that births are told by (W-18).
    pub fn sent_at(&mut self, sent_ns: u64) {
        self.sent_ns = sent_ns;
    }

    /// How many more entries fit.
    #[must_use]
    pub fn entries_left(&self) -> usize {
        let room = (self.bytes.len() - HEADER_LEN) / ENTRY_LEN;
        room.min(ENTRIES_MAX) - self.entries
    }

    /// How many more data entries fit, if there is room for entries at all.
    #[must_use]
    pub fn payloads_left(&self) -> usize {
        PAYLOADS_MAX - self.payloads
    }

    /// Number of entries so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether nothing was pushed yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Payload bytes that the entries so far announce.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Completes the manifest: header and checksums. Returns its bytes; 0 if nothing was pushed, and nothing is to be
    /// sent then (the train number is not used up).
    #[must_use]
    pub fn finish(self) -> usize {
        if self.entries == 0 {
            return 0;
        }
        let manifest_bytes = HEADER_LEN + ENTRY_LEN * self.entries;
        let (header_bytes, entries) = self.bytes[..manifest_bytes].split_at_mut(HEADER_LEN);
        let header = raw::Header {
            magic: TRAIN_MAGIC,
            version: VERSION,
            entries: self.entries as u16,
            payloads: self.payloads as u16,
            flags: 0,
            manifest_bytes: manifest_bytes as u32,
            payload_bytes: self.payload_bytes,
            birth_ns: self.birth_ns,
            train: self.train,
            sent_ns: self.sent_ns,
            reserved: 0,
            entries_checksum: payload_crc(entries),
            header_checksum: 0,
        };
        raw::store(&header, header_bytes);
        let checksum = payload_crc(&header_bytes[..HEADER_CHECKSUM_AT]);
        header_bytes[HEADER_CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        manifest_bytes
    }
}
