//! Key groups: which subtask owns a key. Flink's arithmetic to the bit, so that its test vectors are ours. No state.
//!
//! Always true for `1 <= parallelism <= max_parallelism`: each key group has exactly one owner, and
//! [`group_range`] of that owner contains it.

use std::ops::RangeInclusive;

use crate::limits::{MAX_PARALLELISM_DEFAULT_MIN, MAX_PARALLELISM_MAX};

/// Murmur3 of one 32-bit word, then its absolute value: the scrambled form of a key's hash, below 2^31.
///
/// ```
/// assert_eq!(tidegate_graph::murmur(42), 1_134_849_565);
/// ```
#[inline]
#[must_use]
pub const fn murmur(hash: i32) -> u32 {
    let mut word = hash.cast_unsigned().wrapping_mul(0xcc9e_2d51);
    word = word.rotate_left(15).wrapping_mul(0x1b87_3593);
    word = word.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    word ^= 4; // bytes hashed
    word = (word ^ (word >> 16)).wrapping_mul(0x85eb_ca6b);
    word = (word ^ (word >> 13)).wrapping_mul(0xc2b2_ae35);
    word ^= word >> 16;
    // The one value without an absolute value becomes 0, as in Flink: it has no bit but the one that is masked.
    word.cast_signed().wrapping_abs().cast_unsigned() & i32::MAX.cast_unsigned()
}

/// The key group of a key with this 32-bit hash.
///
/// # Panics
/// If `max_parallelism` is 0.
///
/// ```
/// assert_eq!(tidegate_graph::key_group(42, 128), 29);
/// ```
#[inline]
#[must_use]
pub const fn key_group(hash: i32, max_parallelism: u32) -> u32 {
    murmur(hash) % max_parallelism
}

/// Folds a 64-bit hash into the 32 bits that [`key_group`] takes, as Java folds a `long`.
#[inline]
#[must_use]
pub const fn fold_hash(hash: u64) -> i32 {
    ((hash ^ (hash >> 32)) as u32).cast_signed()
}

/// The subtask that owns a key group.
///
/// # Panics
/// If `max_parallelism` is 0.
///
/// ```
/// assert_eq!(tidegate_graph::owner(43, 3, 128), 1);
/// ```
#[inline]
#[must_use]
pub const fn owner(key_group: u32, parallelism: u32, max_parallelism: u32) -> u32 {
    debug_assert!(key_group < max_parallelism);
    (key_group as u64 * parallelism as u64 / max_parallelism as u64) as u32
}

/// The key groups that `subtask` owns; never empty.
///
/// # Panics
/// Unless `subtask < parallelism <= max_parallelism`: a validated graph guarantees it.
///
/// ```
/// assert_eq!(tidegate_graph::group_range(1, 3, 128), 43..=85);
/// ```
#[must_use]
pub const fn group_range(subtask: u32, parallelism: u32, max_parallelism: u32) -> RangeInclusive<u32> {
    assert!(
        subtask < parallelism && parallelism <= max_parallelism,
        "misuse: no such subtask, or more than key groups"
    );
    let (subtask, parallelism, groups) = (subtask as u64, parallelism as u64, max_parallelism as u64);
    let first = (subtask * groups).div_ceil(parallelism);
    let last = ((subtask + 1) * groups - 1) / parallelism;
    RangeInclusive::new(first as u32, last as u32)
}

/// The maximum parallelism of a job that does not say: 1.5 times its parallelism, as a power of two, at least 128 and at
/// most 32,768. It cannot change later without losing keyed state, hence the room.
///
/// ```
/// assert_eq!(tidegate_graph::default_max_parallelism(86), 256);
/// ```
#[must_use]
pub const fn default_max_parallelism(parallelism: u32) -> u32 {
    if parallelism >= MAX_PARALLELISM_MAX {
        return MAX_PARALLELISM_MAX;
    }
    let wanted = (parallelism + parallelism / 2).next_power_of_two();
    if wanted < MAX_PARALLELISM_DEFAULT_MIN {
        MAX_PARALLELISM_DEFAULT_MIN
    } else if wanted > MAX_PARALLELISM_MAX {
        MAX_PARALLELISM_MAX
    } else {
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    /// Hash, murmur, key group of 128, as Flink computes them.
    const FLINK: [(i32, u32, u32); 8] = [
        (0, 593_689_054, 94),
        (1, 68_075_478, 86),
        (2, 1_085_422_463, 127),
        (42, 1_134_849_565, 29),
        (-1, 1_982_413_648, 80),
        (i32::MAX, 1_653_689_534, 62),
        (99_162_322, 1_715_862_179, 35), // Java's hash of "hello"
        (97_520_992, 1_330_823_394, 98), // of "flink"
    ];

    #[test]
    fn hashes_as_flink_does() {
        for (hash, scrambled, group) in FLINK {
            assert_eq!((murmur(hash), key_group(hash, 128)), (scrambled, group), "hash {hash}");
        }
    }

    #[test]
    fn ranges_as_flink_has_them() {
        let ranges = |parallelism, groups| -> Vec<_> {
            (0..parallelism).map(|subtask| group_range(subtask, parallelism, groups)).collect()
        };
        assert_eq!(ranges(3, 128), [0..=42, 43..=85, 86..=127]);
        assert_eq!(ranges(4, 10), [0..=2, 3..=4, 5..=7, 8..=9]);
    }

    #[test]
    fn defaults_as_flink_has_them() {
        let defaults = [1, 85, 86, 1000, 20_000, 32_768, u32::MAX].map(default_max_parallelism);
        assert_eq!(defaults, [128, 128, 256, 2048, 32_768, 32_768, 32_768]);
    }

    #[test]
    fn folds_as_java_does() {
        assert_eq!(fold_hash(0x0000_0001_0000_0002), 3);
        assert_eq!(fold_hash(u64::MAX), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(3), ..ProptestConfig::default() })]

        /// Each key group is owned once, by the subtask whose range holds it, whatever the parallelism.
        #[test]
        fn each_group_is_owned_once((groups, parallelism) in (1..=2048_u32).prop_flat_map(|groups| (Just(groups), 1..=groups))) {
            let mut next = 0;
            for subtask in 0..parallelism {
                let range = group_range(subtask, parallelism, groups);
                prop_assert_eq!(*range.start(), next, "subtask {} leaves a gap or overlaps", subtask);
                prop_assert!(range.start() <= range.end());
                for group in range.clone() {
                    prop_assert_eq!(owner(group, parallelism, groups), subtask);
                }
                next = range.end() + 1;
            }
            prop_assert_eq!(next, groups);
        }

        /// The ends of the ranges agree with the owners at the largest sizes too.
        #[test]
        fn range_ends_agree_with_owners((groups, parallelism, subtask) in (1..=MAX_PARALLELISM_MAX)
            .prop_flat_map(|groups| (Just(groups), 1..=groups))
            .prop_flat_map(|(groups, parallelism)| (Just(groups), Just(parallelism), 0..parallelism)))
        {
            let range = group_range(subtask, parallelism, groups);
            prop_assert_eq!(owner(*range.start(), parallelism, groups), subtask);
            prop_assert_eq!(owner(*range.end(), parallelism, groups), subtask);
        }

        #[test]
        fn groups_are_in_bounds(hash: i32, groups in 1..=MAX_PARALLELISM_MAX) {
            prop_assert!(murmur(hash) <= i32::MAX as u32);
            prop_assert!(key_group(hash, groups) < groups);
        }
    }
}
