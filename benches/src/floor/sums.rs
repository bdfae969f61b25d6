//! The floor's hash table: one flat array of (key, sum), open addressing, a power of two of places, one multiplication.
//!
//! Always: there is an empty place, so a probe ends; a key lies at its home or behind it, with no empty place between.
//!
//! Looking at sixteen keys together before their sums are touched, so that misses overlap, cost a quarter: the processor
//! runs far enough ahead by itself. Huge pages made no difference at 2 MiB; twice the places cost an eighth, because then
//! the table no longer fits the second cache.

use crate::forms::PAIR_BYTES;

/// Key of an empty place; the benchmark's keys are below 2^32.
const EMPTY: u64 = u64::MAX;
/// Multiplier of the hash: 2^64 over the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Clone, Copy)]
struct Place {
    key: u64,
    sum: u64,
}

/// Sums by key.
pub struct Sums {
    places: Vec<Place>,
    shift: u32,
    keys: u64,
}

impl Sums {
    /// With room for `keys` keys, of which an eighth of the places is left empty.
    pub fn new(keys: u64) -> Self {
        let places = (keys + keys / 8).next_power_of_two().max(2);
        let empty = Place { key: EMPTY, sum: 0 };
        Self { places: vec![empty; places as usize], shift: u64::BITS - places.trailing_zeros(), keys: 0 }
    }

    /// Adds values to their keys' sums.
    ///
    /// # Panics
    /// If there are more keys than there is room for.
    #[inline]
    pub fn add_all(&mut self, pairs: &[[u8; PAIR_BYTES]]) {
        for pair in pairs {
            let words = pair.as_chunks::<8>().0;
            self.add(u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]));
        }
    }

    #[inline]
    pub fn add(&mut self, key: u64, value: u64) {
        let mask = self.places.len() - 1;
        let mut at = (key.wrapping_mul(FACTOR) >> self.shift) as usize;
        loop {
            let place = &mut self.places[at & mask];
            if place.key == key {
                place.sum = place.sum.wrapping_add(value);
                return;
            }
            if place.key == EMPTY {
                *place = Place { key, sum: value };
                self.keys += 1;
                assert!(self.keys < self.places.len() as u64, "more keys than the table was made for");
                return;
            }
            at += 1;
        }
    }

    /// How many keys there are, and all sums added up.
    pub fn totals(&self) -> (u64, u64) {
        let sums = self.places.iter().filter(|place| place.key != EMPTY).map(|place| place.sum);
        (self.keys, sums.fold(0, u64::wrapping_add))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_a_map() {
        let mut sums = Sums::new(1_000);
        let mut map = std::collections::BTreeMap::<u64, u64>::new();
        for number in 0..20_000u64 {
            let key = number.wrapping_mul(0x2545_f491_4f6c_dd1d) % 1_000;
            sums.add(key, number);
            *map.entry(key).or_default() += number;
        }
        assert_eq!(sums.totals(), (map.len() as u64, map.values().sum()));
        let of = |key: u64| sums.places.iter().find(|place| place.key == key).map(|place| place.sum);
        assert!(map.iter().all(|(&key, &sum)| of(key) == Some(sum)));
    }
}
