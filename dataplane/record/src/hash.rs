//! The hash of keys: the same in every process, for ever, because keyed state is addressed by it. Nothing here owns state.
//!
//! Always true: no seed, no address, no word size and no byte order of the host enters a hash.

use xxhash_rust::xxh3::xxh3_64;

// Digits of pi: chosen by nobody.
const SEED: u64 = 0x243f_6a88_85a3_08d3;
const FACTOR: u64 = 0xa409_3822_299f_31d1;
const WIDE: u64 = 0x1319_8a2e_0370_7345;

/// Multiplies to 128 bits and folds the halves: every input bit reaches every output bit.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128) * (b as u128);
    (product as u64) ^ ((product >> 64) as u64)
}

/// The hash of an integer of up to 64 bits, zero-extended.
///
/// Two folds: after one, the low bits of small consecutive numbers are still visibly related.
#[inline]
pub const fn hash_u64(value: u64) -> u64 {
    fold(fold(value ^ SEED, FACTOR) ^ value, WIDE)
}

/// The hash of a 128-bit integer.
#[inline]
pub const fn hash_u128(value: u128) -> u64 {
    combine(hash_u64(value as u64), hash_u64((value >> 64) as u64))
}

/// The hash of bytes of any length.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Adds the hash of one more part; order matters.
#[inline]
pub const fn combine(hash: u64, part: u64) -> u64 {
    fold(hash.rotate_left(29) ^ SEED, part ^ FACTOR) ^ part
}

/// 64 bits folded to the 32 that key groups are computed from.
///
/// ```
/// assert_eq!(tidegate_record::hash32(0x0000_0001_0000_0003), 2);
/// ```
#[inline]
pub const fn hash32(hash: u64) -> i32 {
    (hash ^ (hash >> 32)) as i32
}
