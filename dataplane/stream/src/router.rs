//! From a key's hash to its key group, and from there to the subtask that owns it.
//!
//! Immutable once made. Always: every group has one owner, and the owner's `GroupRange` contains it.

use tidegate_exchange::plant::{Plant, planted};
use tidegate_graph::{group_range, murmur, owner};
use tidegate_record::hash32;

/// The key group of a hash, out of `groups`.
#[derive(Clone, Copy, Debug)]
pub struct Groups {
    groups: u32,
    /// `groups - 1` if that is a mask: the usual case, and it saves a division per record.
    mask: Option<u32>,
}

impl Groups {
    /// For `max_parallelism` key groups, at least one.
    pub fn new(max_parallelism: u32) -> Self {
        assert!(max_parallelism > 0, "a job has at least one key group");
        let mask = max_parallelism.is_power_of_two().then(|| max_parallelism - 1);
        Groups { groups: max_parallelism, mask }
    }

    /// The key group of each hash, less `first`; groups below it wrap around. Stops with the shorter of the two.
    #[inline(always)]
    pub fn each(&self, hashes: &[u64], first: u32, places: &mut [u32]) {
        // One loop without a branch for either kind, so that it is made of vector instructions.
        let pairs = hashes.iter().zip(places);
        match self.mask {
            Some(mask) => {
                pairs.for_each(|(&hash, place)| *place = (murmur(hash32(hash)) & mask).wrapping_sub(first));
            }
            None => pairs.for_each(|(&hash, place)| *place = self.of(hash).wrapping_sub(first)),
        }
    }

    /// The key group.
    #[inline]
    pub fn of(&self, hash: u64) -> u32 {
        let scrambled = murmur(hash32(hash));
        match self.mask {
            Some(mask) => scrambled & mask,
            None => scrambled % self.groups,
        }
    }
}

/// Picks the consumer's subtask for a key.
#[derive(Clone, Debug)]
pub struct KeyRouter {
    groups: Groups,
    owners: Box<[u32]>,
}

impl KeyRouter {
    /// Over `parallelism` subtasks.
    pub fn new(parallelism: u32, max_parallelism: u32) -> Self {
        let owners = (0..max_parallelism).map(|group| owner(group, parallelism, max_parallelism)).collect();
        KeyRouter { groups: Groups::new(max_parallelism), owners }
    }

    /// The subtask that owns the key with this hash.
    #[inline]
    pub fn channel(&self, hash: u64) -> u32 {
        let owner = self.owners[self.groups.of(hash) as usize];
        if planted(Plant::WrongOwner) && hash % 4 == 1 {
            return owner.saturating_sub(1);
        }
        owner
    }
}

/// The key groups one subtask owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRange {
    /// The first one.
    pub first: u32,
    /// The last one.
    pub last: u32,
}

impl GroupRange {
    /// Those of `subtask` out of `parallelism`.
    pub fn of(subtask: u32, parallelism: u32, max_parallelism: u32) -> Self {
        let range = group_range(subtask, parallelism, max_parallelism);
        GroupRange { first: *range.start(), last: *range.end() }
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> u32 {
        self.last - self.first + 1
    }

    /// The place of `group` in the range.
    #[inline]
    pub fn index(&self, group: u32) -> Option<usize> {
        (self.first..=self.last).contains(&group).then(|| (group - self.first) as usize)
    }
}
