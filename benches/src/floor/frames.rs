//! What the floor moves: records laid out as the engine lays them out, in frames of a segment's size.
//!
//! [`Fill`] makes the records of the source, [`Take`] is the work of the receiver; both own their own numbers. Always: a
//! frame holds whole records, and all frames but the last hold the same number of them.

use tidegate_wire::payload_crc;

use super::sums::Sums;
use crate::forms::{self, Keys, OPAQUE_OVERHEAD, PAIR_BYTES};
use crate::meter::Totals;

/// Bytes of the engine's segment.
pub const SEGMENT: usize = 32 << 10;
/// Bytes of a checksum, as wide as a word so that records stay aligned.
const CRC_BYTES: usize = 8;

/// How records lie in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of a record.
    pub record: usize,
    /// Records in a frame.
    pub per_frame: usize,
    /// Bytes in front of a frame's records.
    pub header: usize,
}

impl Layout {
    /// For records of `record` bytes, at most [`SEGMENT`].
    pub fn new(record: usize, checksum: bool) -> Self {
        Self { record, per_frame: SEGMENT / record, header: if checksum { CRC_BYTES } else { 0 } }
    }

    /// Bytes of a full frame, header included.
    pub fn frame(&self) -> usize {
        self.header + self.per_frame * self.record
    }

    /// Bytes that carry `records` records from a frame's start on, headers included.
    pub fn bytes(&self, records: u64) -> u64 {
        records * self.record as u64 + records.div_ceil(self.per_frame as u64) * self.header as u64
    }

    /// Records in a frame of `bytes` bytes.
    pub fn records(&self, bytes: usize) -> u64 {
        ((bytes - self.header) / self.record) as u64
    }

    /// Makes the records of one frame, and its checksum.
    pub fn seal(&self, frame: &mut [u8], fill: &mut impl Fill) {
        let (header, records) = frame.split_at_mut(self.header);
        fill.fill(records);
        if let Some(place) = header.first_chunk_mut::<CRC_BYTES>() {
            *place = u64::from(payload_crc(records)).to_le_bytes();
        }
    }

    /// Checks one frame, and takes its records.
    ///
    /// # Errors
    /// The checksum is wrong.
    pub fn open(&self, frame: &[u8], take: &mut impl Take) -> Result<(), String> {
        let (header, records) = frame.split_at(self.header);
        if let Some(place) = header.first_chunk::<CRC_BYTES>() {
            let (expected, found) = (u64::from_le_bytes(*place), u64::from(payload_crc(records)));
            if expected != found {
                return Err(format!("a frame's checksum is {found:#010x}, its header says {expected:#010x}"));
            }
        }
        take.take(records);
        Ok(())
    }
}

/// Makes records.
pub trait Fill {
    /// Fills a frame with the next records.
    fn fill(&mut self, frame: &mut [u8]);
}

/// Works on records.
pub trait Take {
    /// Takes all records of a frame.
    fn take(&mut self, frame: &[u8]);
    /// What came out.
    fn totals(&self) -> Totals;
}

/// Pairs of (u64, u64).
pub struct Pairs {
    keys: Keys,
    value: u64,
}

impl Pairs {
    /// Over `keys` keys.
    pub fn new(keys: u64) -> Self {
        Self { keys: Keys::new(keys), value: 0 }
    }
}

impl Fill for Pairs {
    #[inline]
    fn fill(&mut self, frame: &mut [u8]) {
        for pair in frame.as_chunks_mut::<PAIR_BYTES>().0 {
            let pair = pair.as_chunks_mut::<8>().0;
            pair[0] = self.keys.step().to_le_bytes();
            pair[1] = self.value.to_le_bytes();
            self.value += 1;
        }
    }
}

/// Sums of the pairs by key.
pub struct KeyedSum {
    sums: Sums,
}

impl KeyedSum {
    /// With room for `keys` keys.
    pub fn new(keys: u64) -> Self {
        Self { sums: Sums::new(keys) }
    }
}

impl Take for KeyedSum {
    #[inline]
    fn take(&mut self, frame: &[u8]) {
        self.sums.add_all(frame.as_chunks::<PAIR_BYTES>().0);
    }

    fn totals(&self) -> Totals {
        let (results, checksum) = self.sums.totals();
        Totals { results, checksum }
    }
}

/// Opaque records, each with its length in front and as many bytes behind as the engine's archive has there.
pub struct Opaque {
    template: Vec<u8>,
    number: u64,
}

impl Opaque {
    /// Of `len` bytes each.
    pub fn new(len: usize) -> Self {
        let mut template = ((len + OPAQUE_OVERHEAD - 4) as u32).to_le_bytes().to_vec();
        template.extend(forms::opaque_template(len));
        template.resize(len + OPAQUE_OVERHEAD, 0);
        Self { template, number: 0 }
    }
}

impl Fill for Opaque {
    #[inline]
    fn fill(&mut self, frame: &mut [u8]) {
        for record in frame.chunks_exact_mut(self.template.len()) {
            record.copy_from_slice(&self.template);
            forms::number_opaque(&mut record[4..], self.number);
            self.number += 1;
        }
    }
}

/// The sum of all words of opaque records.
#[derive(Default)]
pub struct WordSum {
    records: u64,
    sum: u64,
}

impl Take for WordSum {
    #[inline]
    fn take(&mut self, mut frame: &[u8]) {
        // Each record says how long it is; a length that does not fit leaves a sum that is wrong.
        while let Some((prefix, rest)) = frame.split_first_chunk::<4>() {
            let len = u32::from_le_bytes(*prefix) as usize;
            let Some((record, rest)) = rest.split_at_checked(len) else { return };
            let Some(opaque) = record.len().checked_sub(OPAQUE_OVERHEAD - 4) else { return };
            self.sum = self.sum.wrapping_add(forms::sum_of_words(&record[..opaque]));
            self.records += 1;
            frame = rest;
        }
    }

    fn totals(&self) -> Totals {
        Totals { results: self.records, checksum: self.sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_hold_whole_records() {
        let layout = Layout::new(PAIR_BYTES, true);
        assert_eq!((layout.per_frame, layout.frame()), (2048, SEGMENT + CRC_BYTES));
        assert_eq!(layout.bytes(2049), 2049 * 16 + 2 * 8);
        assert_eq!(layout.records(8 + 32), 2);
        let layout = Layout::new(112, false);
        assert_eq!((layout.per_frame, layout.frame()), (292, 292 * 112));
    }

    fn through(layout: Layout, records: usize, fill: &mut impl Fill, take: &mut impl Take) {
        let mut frame = vec![0; layout.bytes(records as u64) as usize];
        layout.seal(&mut frame, fill);
        layout.open(&frame, take).unwrap();
        if let Some(byte) = frame[layout.header..].first_mut().filter(|_| layout.header > 0) {
            *byte ^= 1;
            assert!(layout.open(&frame, take).unwrap_err().contains("checksum"));
        }
    }

    #[test]
    fn sums_are_the_closed_forms() {
        for checksum in [false, true] {
            let (mut fill, mut take) = (Pairs::new(100), KeyedSum::new(100));
            through(Layout::new(PAIR_BYTES, checksum), 1_000, &mut fill, &mut take);
            assert_eq!(take.totals().results, 100);
            assert_eq!(take.totals().checksum, forms::sum_of_numbers(1_000));
            let (mut fill, mut take) = (Opaque::new(100), WordSum::default());
            through(Layout::new(112, checksum), 200, &mut fill, &mut take);
            assert_eq!(take.totals().checksum, forms::opaque_sum(200, 100));
        }
    }
}
