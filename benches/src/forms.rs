//! What the benchmarks' records hold, and in closed form what their sums must be. No state.
//!
//! Always: engine and floor make the same records in the same order, so one formula checks both.

/// Bytes of a pair of (u64, u64) on the wire.
pub const PAIR_BYTES: usize = 16;
/// Shortest opaque record: its first word is its number.
pub const RECORD_BYTES_MIN: usize = 8;
/// Longest opaque record; with its length and archive it has to fit the engine's default segment of 32 KiB.
pub const RECORD_BYTES_MAX: usize = 32_000;
/// What a record of opaque bytes carries beside them: a length in front; the archive's root (offset and length) behind.
pub const OPAQUE_OVERHEAD: usize = 4 + 8;

const _: () = assert!(RECORD_BYTES_MIN >= size_of::<u64>());
const _: () = assert!(RECORD_BYTES_MAX + OPAQUE_OVERHEAD <= 32 << 10);

/// 0 + 1 + … for `records` numbers, modulo 2^64: all sums of the keyed shape added up.
pub fn sum_of_numbers(records: u64) -> u64 {
    let n = u128::from(records);
    (n * n.saturating_sub(1) / 2) as u64
}

/// The words of one opaque record: bytes in eights, what is left over zero-extended.
#[inline]
pub fn sum_of_words(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    sum.wrapping_add(u64::from_le_bytes(last))
}

/// An opaque record of `len` bytes. Its first word is to be overwritten with its number.
pub fn opaque_template(len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| (at * 151 + 17) as u8).collect();
    number_opaque(&mut bytes, 0);
    bytes
}

/// Makes it record `number`.
#[inline]
pub fn number_opaque(bytes: &mut [u8], number: u64) {
    bytes[..8].copy_from_slice(&number.to_le_bytes());
}

/// All words of `records` opaque records of `len` bytes.
pub fn opaque_sum(records: u64, len: usize) -> u64 {
    sum_of_numbers(records).wrapping_add(records.wrapping_mul(sum_of_words(&opaque_template(len))))
}

/// The keys of the pairs, in an order that no cache line likes: record i has key (i × stride) mod keys.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    keys: u64,
    stride: u64,
    next: u64,
}

impl Keys {
    /// Over `keys` keys, each of which comes once in every run of that many.
    pub fn new(keys: u64) -> Self {
        Self { keys, stride: stride(keys), next: 0 }
    }

    /// The next key.
    #[inline]
    pub fn step(&mut self) -> u64 {
        let key = self.next;
        self.next += self.stride;
        if self.next >= self.keys {
            self.next -= self.keys;
        }
        key
    }
}

/// About 0.618 of the keys, and prime to them.
fn stride(keys: u64) -> u64 {
    let mut stride = (keys as f64 * 0.618_033_988_75) as u64;
    while gcd(stride.max(1), keys) != 1 {
        stride += 1;
    }
    stride.max(1) % keys.max(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_comes_once_per_round() {
        for count in [1, 2, 7, 100, 4096] {
            let (mut keys, mut seen) = (Keys::new(count), vec![false; count as usize]);
            for _ in 0..count {
                let key = keys.step();
                assert!(!std::mem::replace(&mut seen[key as usize], true), "{count} keys: {key} came twice");
            }
        }
    }

    #[test]
    fn the_closed_form_of_numbers_is_their_sum() {
        assert_eq!(sum_of_numbers(0), 0);
        assert_eq!(sum_of_numbers(1_000), (0..1_000).sum::<u64>());
        assert_eq!(sum_of_numbers(1 << 40), ((1u128 << 79) - (1 << 39)) as u64);
    }

    #[test]
    fn the_closed_form_of_opaque_records_is_their_sum() {
        for len in [8, 9, 15, 16, 100, 1021] {
            let mut record = opaque_template(len);
            let sum = (0..1_000).fold(0u64, |sum, number| {
                number_opaque(&mut record, number);
                sum.wrapping_add(sum_of_words(&record))
            });
            assert_eq!(sum, opaque_sum(1_000, len), "{len} bytes");
        }
    }

    #[test]
    fn every_byte_of_an_opaque_record_counts() {
        let record = opaque_template(21);
        for at in 0..record.len() {
            let mut changed = record.clone();
            changed[at] ^= 1;
            assert_ne!(sum_of_words(&changed), sum_of_words(&record), "byte {at}");
        }
    }
}
