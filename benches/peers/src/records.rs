//! The records of both shapes at both ends: made by the source, summed by the receiver. Both own their own numbers.
//!
//! Always: record i is the same in every peer, and what the receiver does with it is the same work.

use crate::forms::{self, Keys};
use crate::sums::Sums;
use crate::work::{Shape, Totals, Work};

/// Pairs: keys in an order that no cache line likes, values 0, 1, 2, …
pub struct Pairs {
    keys: Keys,
    value: u64,
}

impl Pairs {
    /// Over `keys` keys.
    pub fn new(keys: u64) -> Self {
        Self { keys: Keys::new(keys), value: 0 }
    }

    /// The next pair.
    #[inline]
    pub fn step(&mut self) -> (u64, u64) {
        let pair = (self.keys.step(), self.value);
        self.value += 1;
        pair
    }
}

/// Opaque records, each with its number in its first word.
pub struct Opaque {
    bytes: Vec<u8>,
    number: u64,
}

impl Opaque {
    /// Of `len` bytes each.
    pub fn new(len: usize) -> Self {
        Self { bytes: forms::opaque_template(len), number: 0 }
    }

    /// The next record.
    #[inline]
    pub fn step(&mut self) -> &[u8] {
        forms::number_opaque(&mut self.bytes, self.number);
        self.number += 1;
        &self.bytes
    }
}

/// The receiver's work: a sum per key in the floor's hash table, which is the fastest of this repository, or of all words.
pub enum Sum {
    /// Of pairs.
    Keyed(Sums),
    /// Of opaque records: how many, and their words.
    Words(u64, u64),
}

impl Sum {
    /// Of that work.
    pub fn new(work: &Work) -> Self {
        match work.shape {
            Shape::Keyed => Self::Keyed(Sums::new(work.keys)),
            Shape::Bytes => Self::Words(0, 0),
        }
    }

    /// Takes pairs.
    ///
    /// # Panics
    /// If the shape is bytes.
    #[inline]
    pub fn pairs(&mut self, pairs: impl Iterator<Item = (u64, u64)>) {
        let Self::Keyed(sums) = self else { unreachable!("invariant: the shape bytes has no pairs") };
        pairs.for_each(|(key, value)| sums.add(key, value));
    }

    /// Takes opaque records.
    ///
    /// # Panics
    /// If the shape is keyed.
    #[inline]
    pub fn opaque<'a>(&mut self, records: impl Iterator<Item = &'a [u8]>) {
        let Self::Words(count, sum) = self else { unreachable!("invariant: the shape keyed has only pairs") };
        for record in records {
            *sum = sum.wrapping_add(forms::sum_of_words(record));
            *count += 1;
        }
    }

    /// What came out.
    pub fn totals(&self) -> Totals {
        let (results, checksum) = match self {
            Self::Keyed(sums) => sums.totals(),
            Self::Words(count, sum) => (*count, *sum),
        };
        Totals { results, checksum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::tests::work;

    #[test]
    fn sums_are_the_closed_forms() {
        let keyed = work(Shape::Keyed, 5_000);
        let (mut sum, mut pairs) = (Sum::new(&keyed), Pairs::new(keyed.keys));
        sum.pairs((0..keyed.all()).map(|_| pairs.step()));
        assert_eq!(sum.totals(), keyed.expected());
        let bytes = work(Shape::Bytes, 500);
        let (mut sum, mut records) = (Sum::new(&bytes), Opaque::new(100));
        (0..bytes.all()).for_each(|_| sum.opaque(std::iter::once(records.step())));
        assert_eq!(sum.totals(), bytes.expected());
    }
}
