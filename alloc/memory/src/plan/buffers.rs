//! Network buffers that a job needs by Flink's rules, and how a pool of them is shared. Stateless.
//!
//! A gate of n channels requires 2n+1 buffers, a partition of m subpartitions m+1; what is required is given to every pool
//! before anything beyond it is given to any. The native runtime has needs of its own, which the exchange computes.
//!
//! Always: required ≤ most; exclusive × channels + required floating = required; what is shared out is at most the spare.

/// Buffers that each channel has for itself.
pub const EXCLUSIVE_PER_CHANNEL: u64 = 2;
/// Buffers of a gate beyond those of its channels, which any channel may use.
pub const FLOATING_PER_GATE: u64 = 8;
/// Most buffers of one subpartition; at it, the partition is under back pressure.
pub const MOST_PER_SUBPARTITION: u64 = 10;
/// Buffers a task may take beyond its pool to finish a record.
pub const OVERDRAFT_PER_GATE: u64 = 20;
/// Most that a gate of a batch exchange requires unless configured.
pub const BATCH_REQUIRED_MAX: u64 = 1000;
/// Least buffers of a sort-shuffle.
pub const SORT_SHUFFLE_MIN: u64 = 512;

/// What an input gate needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateNeed {
    /// Buffers of each remote channel. Local channels take none, but a plan counts all.
    pub exclusive_per_channel: u64,
    /// Floating buffers without which the gate does not start.
    pub floating_required: u64,
    /// Most floating buffers.
    pub floating_max: u64,
    /// All that is required: 2n+1, or the configured most.
    pub required: u64,
    /// All that it uses if there are enough: 2n+8.
    pub target: u64,
}

/// The need of a gate with `channels`; `required_max` is `read-buffer.required-per-gate.max` (unlimited for streaming).
/// `None` if it would be zero buffers, or a gate without channels.
pub fn gate(channels: u32, required_max: Option<u32>) -> Option<GateNeed> {
    let channels = u64::from(channels);
    if channels == 0 || required_max == Some(0) {
        return None;
    }
    let wanted = channels * EXCLUSIVE_PER_CHANNEL + 1;
    let target = channels * EXCLUSIVE_PER_CHANNEL + FLOATING_PER_GATE;
    let required = required_max.map_or(wanted, |most| wanted.min(u64::from(most)));
    let exclusive_per_channel = EXCLUSIVE_PER_CHANNEL.min((required - 1) / channels);
    let exclusive = exclusive_per_channel * channels;
    Some(GateNeed {
        exclusive_per_channel,
        floating_required: required - exclusive,
        floating_max: target - exclusive,
        required,
        target,
    })
}

/// What a result partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// Pipelined with a bound: what streaming uses.
    Bounded,
    /// Pipelined without one.
    Unbounded,
    /// Written whole before it is read.
    SortShuffle,
}

/// What a pool may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolNeed {
    /// Given before anything starts.
    pub required: u64,
    /// Most; `None`: no bound.
    pub most: Option<u64>,
}

/// The need of a partition with `subpartitions`: m+1, at most 2m+8.
pub fn partition(subpartitions: u32, kind: Partition) -> PoolNeed {
    let subpartitions = u64::from(subpartitions);
    let required = subpartitions + 1;
    match kind {
        Partition::Bounded => {
            let most = subpartitions * EXCLUSIVE_PER_CHANNEL + FLOATING_PER_GATE;
            PoolNeed { required, most: Some(most) }
        }
        Partition::Unbounded => PoolNeed { required, most: None },
        Partition::SortShuffle => PoolNeed { required: SORT_SHUFFLE_MIN.max(required), most: None },
    }
}

/// Buffers that one all-to-all exchange at `parallelism` requires of a TaskManager with `slots`, all of them in use: each
/// slot has a gate of which the channels from other TaskManagers count, and a partition.
pub fn all_to_all(slots: u32, parallelism: u32) -> u64 {
    let (slots, parallelism) = (u64::from(slots), u64::from(parallelism));
    let remote = parallelism.saturating_sub(slots);
    // Below 2^32 × 2^34.
    slots.saturating_mul((EXCLUSIVE_PER_CHANNEL * remote + 1) + (parallelism + 1))
}

/// The highest parallelism, a multiple of the slots, at which one all-to-all exchange fits `buffers`. Zero if none does.
pub fn parallelism_max(slots: u32, buffers: u64) -> u32 {
    if slots == 0 {
        return 0;
    }
    // The need grows with the parallelism; TaskManagers are searched, so that it is a multiple of the slots.
    let (mut least, mut most) = (0, u32::MAX / slots);
    while least < most {
        let managers = most - (most - least) / 2;
        if all_to_all(slots, slots * managers) <= buffers { least = managers } else { most = managers - 1 }
    }
    slots * least
}

/// A pool does not start: too few buffers for what it requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "insufficient number of network buffers: required {required}, but only {available} of {total} are left; raise \
     taskmanager.memory.network.fraction, .min or .max, or lower taskmanager.memory.segment-size (now {segment} bytes)"
)]
pub struct Insufficient {
    /// What the pool requires.
    pub required: u64,
    /// What the required buffers of all other pools leave.
    pub available: u64,
    /// All buffers.
    pub total: u64,
    /// Bytes of a buffer.
    pub segment: u64,
}

/// Whether a pool that requires `required` may start beside pools that require `taken` together.
///
/// # Errors
/// It may not.
pub fn admit(total: u64, taken: u64, required: u64, segment: u64) -> Result<(), Insufficient> {
    let available = total.saturating_sub(taken);
    if required <= available { Ok(()) } else { Err(Insufficient { required, available, total, segment }) }
}

/// Buffers of each pool after what nobody requires is shared out: in order, each gets the running floor of its part, so
/// that rounding is moved but never lost. `None` if the pools require more than there is.
pub fn share_out(total: u64, pools: &[PoolNeed]) -> Option<Vec<u64>> {
    let required: u128 = pools.iter().map(|pool| u128::from(pool.required)).sum();
    let spare = u128::from(total).checked_sub(required)?;
    let room = |pool: &PoolNeed| {
        let excess = pool.most.map_or(u128::MAX, |most| u128::from(most.saturating_sub(pool.required)));
        spare.min(excess)
    };
    let capacity: u128 = pools.iter().map(room).sum();
    let shared = spare.min(capacity);
    let (mut parts, mut given) = (0, 0);
    let sizes = pools.iter().map(|pool| {
        parts += room(pool);
        // Both factors are below 2^64 times the number of pools.
        let until_here = shared.saturating_mul(parts).checked_div(capacity).unwrap_or(0);
        let own = until_here.saturating_sub(given);
        given += own;
        pool.required.saturating_add(u64::try_from(own).unwrap_or(0))
    });
    Some(sizes.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gates() {
        let need = gate(1000, Some(1000)).expect("channels");
        let expected = GateNeed {
            exclusive_per_channel: 0,
            floating_required: 1000,
            floating_max: 2008,
            required: 1000,
            target: 2008,
        };
        assert_eq!(need, expected);
        let need = gate(4, None).expect("channels");
        assert_eq!(
            (need.required, need.target, need.exclusive_per_channel, need.floating_required),
            (9, 16, 2, 1)
        );
        assert_eq!((gate(0, None), gate(1, Some(0))), (None, None));
    }

    #[test]
    fn partitions() {
        assert_eq!(partition(16, Partition::Bounded), PoolNeed { required: 17, most: Some(40) });
        assert_eq!(partition(16, Partition::Unbounded), PoolNeed { required: 17, most: None });
        assert_eq!(partition(16, Partition::SortShuffle).required, 512);
        let error = admit(2048, 2032, 17, 32768).expect_err("one too many").to_string();
        assert!(error.contains("required 17, but only 16 of 2048"), "{error}");
    }

    #[test]
    fn the_rule_of_thumb() {
        let of = |buffers| [1, 4, 8].map(|slots| parallelism_max(slots, buffers));
        assert_eq!(of(4096), [1365, 340, 168]);
        assert_eq!(of(2048), [682, 172, 88]);
        assert_eq!((parallelism_max(0, 100), parallelism_max(4, 3)), (0, 0));
        assert!(parallelism_max(u32::MAX, u64::MAX) > 0);
    }

    #[test]
    fn sharing_out() {
        let pool = |required, most| PoolNeed { required, most };
        assert_eq!(share_out(100, &[pool(10, Some(20)), pool(10, None)]), Some(vec![18, 82]));
        assert_eq!(share_out(300, &[pool(101, Some(208)), pool(129, Some(264))]), Some(vec![136, 164]));
        assert_eq!(share_out(10, &[pool(11, None)]), None);
        assert_eq!(share_out(10, &[]), Some(vec![]));
        assert_eq!(share_out(10, &[pool(5, Some(5))]), Some(vec![5]));
    }

    proptest! {
        #[test]
        fn a_gate_is_whole(channels in 1u32.., most in proptest::option::of(1u32..)) {
            let need = gate(channels, most).expect("channels");
            prop_assert_eq!(need.exclusive_per_channel * u64::from(channels) + need.floating_required, need.required);
            prop_assert!(need.floating_required >= 1 && need.floating_required <= need.floating_max);
        }

        #[test]
        fn sharing_keeps_bounds(total in 0u64..10_000, pools in proptest::collection::vec((0u64..100, 0u64..200), 0..12)) {
            let pools: Vec<PoolNeed> =
                pools.into_iter().map(|(required, more)| PoolNeed { required, most: Some(required + more) }).collect();
            if let Some(sizes) = share_out(total, &pools) {
                prop_assert!(sizes.iter().sum::<u64>() <= total);
                for (size, pool) in sizes.iter().zip(&pools) {
                    prop_assert!(*size >= pool.required && Some(*size) <= pool.most);
                }
            }
        }
    }
}
