//! Keyed records that are read before their turn, a column for each thing that is done with them: so that the loop over a
//! column is short, and the processor works on many records at once. A batch borrows its payload and owns the keys that were
//! computed.
//!
//! Always: `hashes` has one entry per record; records lie in the order in which they were read.

use arrayvec::ArrayVec;

use crate::error::ReadError;
use crate::field::{Field, Nested};
use crate::key::Key;
use crate::keyed::{Carried, Computed, InPlace, KeyRef, KeyedCodec};
use crate::limits::KEYED_BATCH;
use crate::plain::{self, Plain};
use crate::record::Record;

/// Up to [`KEYED_BATCH`] records of a payload, with the hashes of their keys.
///
/// ```
/// use tidegate_record::{KeyRef, KeyedBatch, KeyedCodec, Record, Slot};
/// type Codec = <u64 as Record>::Keyed<u64>;
///
/// #[repr(align(64))]
/// struct Buffer([u8; 64]);
/// let mut buffer = Buffer([0; 64]);
/// let mut slot = Slot::new(&mut buffer.0, 0);
/// let last = |number: &u64| number % 10;
/// for number in [17, 23, 40] { Codec::write(&last(&number), &number, &mut slot).unwrap(); }
///
/// let mut batch = <Codec as KeyedCodec<u64, u64>>::Batch::default();
/// let mut position = 0;
/// batch.read(slot.bytes(), &mut position, 2, &last).unwrap();
/// assert!(batch.iter(0).zip([7, 3]).all(|((key, _), digit)| key.is(&digit)));
/// assert_eq!((batch.start(1), position), (Some(8), 16));
/// ```
pub trait KeyedBatch<'a, K: Key, T: Record>: Default + 'a {
    /// A key of one of them.
    type Key: KeyRef<K> + 'a;

    /// Replaces what is in it by at most `most` records from `position` on, which moves behind them; by none at the end of
    /// the payload. `key_of` is the function the producer used.
    ///
    /// # Errors
    /// As [`Record::read`]; what is in it then is unspecified.
    fn read(
        &mut self,
        bytes: &'a [u8],
        position: &mut u32,
        most: usize,
        key_of: &impl Fn(&T) -> K,
    ) -> Result<(), ReadError>;

    /// The hash of each key.
    fn hashes(&self) -> &[u64];

    /// The records from number `from` on, with their keys.
    fn iter<'b>(&'b self, from: usize) -> impl Iterator<Item = (&'b Self::Key, &'a T::Archived)>
    where
        'a: 'b;

    /// Where number `index` starts in the payload; `None` if there are fewer.
    fn start(&self, index: usize) -> Option<u32>;
}

/// Of plain records: the payload is their column.
#[derive(Debug)]
pub struct PlainBatch<'a, K, T> {
    records: &'a [T],
    start: u32,
    keys: ArrayVec<Computed<K>, KEYED_BATCH>,
    /// Those of `keys`; what is behind them is old.
    hashes: [u64; KEYED_BATCH],
}

impl<K, T> Default for PlainBatch<'_, K, T> {
    fn default() -> Self {
        Self { records: &[], start: 0, keys: ArrayVec::new(), hashes: [0; KEYED_BATCH] }
    }
}

impl<'a, K: Key, T: Plain> KeyedBatch<'a, K, T> for PlainBatch<'a, K, T> {
    type Key = Computed<K>;

    #[inline(always)]
    fn read(
        &mut self,
        bytes: &'a [u8],
        position: &mut u32,
        most: usize,
        key_of: &impl Fn(&T) -> K,
    ) -> Result<(), ReadError> {
        self.start = *position;
        self.records = plain::read_some(bytes, position, most.min(KEYED_BATCH))?;
        self.keys.clear();
        self.keys.extend(self.records.iter().zip(&mut self.hashes).map(|(record, hash)| {
            let key = key_of(record);
            *hash = key.hash();
            Computed::new(key)
        }));
        Ok(())
    }

    #[inline(always)]
    fn hashes(&self) -> &[u64] {
        &self.hashes[..self.keys.len()]
    }

    #[inline(always)]
    fn iter<'b>(&'b self, from: usize) -> impl Iterator<Item = (&'b Computed<K>, &'a T)>
    where
        'a: 'b,
    {
        self.keys.iter().zip(self.records).skip(from)
    }

    fn start(&self, index: usize) -> Option<u32> {
        // No overflow: the position behind the last of them is below 2^32.
        (index < self.records.len()).then(|| self.start + (index * size_of::<T>()) as u32)
    }
}

/// Of archived records, which carry their keys.
#[derive(Debug)]
pub struct CarriedBatch<'a, K: Key, T: Record> {
    records: ArrayVec<(InPlace<'a, K>, &'a T::Archived), KEYED_BATCH>,
    starts: ArrayVec<u32, KEYED_BATCH>,
    hashes: ArrayVec<u64, KEYED_BATCH>,
}

impl<K: Key, T: Record> Default for CarriedBatch<'_, K, T> {
    fn default() -> Self {
        Self { records: ArrayVec::new(), starts: ArrayVec::new(), hashes: ArrayVec::new() }
    }
}

impl<'a, K, T> KeyedBatch<'a, K, T> for CarriedBatch<'a, K, T>
where
    K: Key,
    T: Field + Record<Archived = Nested<T>>,
{
    type Key = InPlace<'a, K>;

    #[inline(always)]
    fn read(
        &mut self,
        bytes: &'a [u8],
        position: &mut u32,
        most: usize,
        key_of: &impl Fn(&T) -> K,
    ) -> Result<(), ReadError> {
        self.records.clear();
        self.starts.clear();
        self.hashes.clear();
        while self.records.len() < most.min(KEYED_BATCH) {
            let start = *position;
            let Some((key, record)) = Carried::read(bytes, position, key_of)? else { break };
            self.hashes.push(key.hash());
            self.records.push((key, record));
            self.starts.push(start);
        }
        Ok(())
    }

    #[inline(always)]
    fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    #[inline(always)]
    fn iter<'b>(&'b self, from: usize) -> impl Iterator<Item = (&'b InPlace<'a, K>, &'a Nested<T>)>
    where
        'a: 'b,
    {
        self.records.iter().skip(from).map(|(key, record)| (key, *record))
    }

    fn start(&self, index: usize) -> Option<u32> {
        self.starts.get(index).copied()
    }
}
