//! Which of many have news: a bit for each, set by any thread, taken by the one who looks.
//!
//! It stands beside queues of which there are too many to look into all of them. Who puts something into one sets its mark;
//! who takes the mark looks into that queue, and into no other.
//!
//! Two levels: `words` has a bit for each, `groups` a bit for each word that may not be empty, so that looking costs a load
//! for 4,096 of them when there is no news.
//!
//! Always:
//! - what was done before [`Marks::mark`] is seen by whoever takes that mark: both change the same word, one releases and the
//!   other acquires.
//! - a bit in `words` is followed by its word's in `groups`, set by whoever set the bit unless it is still there. Taking clears
//!   the group's first. So a marker that still sees the group's bit after it changed the word did that before the word is taken,
//!   and its mark is taken with it. Words order this, too: groups need no order of their own.

use std::fmt;

use crate::sync::{AtomicU64, Ordering};

/// Bits of a word.
const BITS: u32 = u64::BITS;

/// A mark for each of a fixed number of places.
///
/// ```
/// use tidegate_arena::marks::Marks;
/// let marks = Marks::new(200);
/// marks.mark(3);
/// marks.mark(130);
/// marks.mark(3);
/// let mut taken = Vec::new();
/// marks.take(|place| taken.push(place));
/// assert_eq!(taken, [3, 130]);
/// marks.take(|place| unreachable!("{place} was taken"));
/// ```
pub struct Marks {
    words: Box<[AtomicU64]>,
    groups: Box<[AtomicU64]>,
}

impl Marks {
    /// For places `0..count`, of which none is marked.
    pub fn new(count: u32) -> Self {
        let words = count.div_ceil(BITS);
        let zeros = |count: u32| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self { words: zeros(words), groups: zeros(words.div_ceil(BITS)) }
    }

    /// Marks a place, after what it has news of was done. Marked twice is marked once.
    ///
    /// # Panics
    /// If there is no such place in its last word.
    #[inline]
    pub fn mark(&self, place: u32) {
        let word = place / BITS;
        // Also if the mark is there already: whoever takes it now must see what was done before this one, too.
        self.words[word as usize].fetch_or(1 << (place % BITS), Ordering::AcqRel);
        let (group, bit) = (&self.groups[(word / BITS) as usize], 1 << (word % BITS));
        if group.load(Ordering::Relaxed) & bit == 0 {
            group.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Takes all marks, in the order of their places. One that is set meanwhile is taken now or the next time.
    #[inline]
    pub fn take(&self, mut tell: impl FnMut(u32)) {
        for (group, first) in self.groups.iter().zip((0..).step_by(BITS as usize)) {
            if is_empty(group) {
                continue;
            }
            for word in bits(group.swap(0, Ordering::Relaxed)) {
                let word = first + word;
                let marks = self.words[word as usize].swap(0, Ordering::AcqRel);
                bits(marks).for_each(|bit| tell(word * BITS + bit));
            }
        }
    }
}

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Marks").field("words", &self.words.len()).finish()
    }
}

/// Whether nothing is marked in a group. One that misses a mark finds it the next time.
#[inline]
fn is_empty(group: &AtomicU64) -> bool {
    // After a load that found nothing loom does not explore the marks that could have come before it.
    let group = if cfg!(loom) { group.fetch_or(0, Ordering::Relaxed) } else { group.load(Ordering::Relaxed) };
    group == 0
}

/// The places of the ones, from the lowest on.
fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        word &= word.wrapping_sub(1);
        (bit < BITS).then_some(bit)
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn taken(marks: &Marks) -> Vec<u32> {
        let mut taken = Vec::new();
        marks.take(|place| taken.push(place));
        taken
    }

    #[test]
    fn what_is_marked_is_taken_once_and_nothing_else_is() {
        let places = [0, 1, 63, 64, 127, 4_095, 4_096, 9_999];
        let marks = Marks::new(10_000);
        assert_eq!(taken(&marks), []);
        places.iter().rev().for_each(|&place| marks.mark(place));
        marks.mark(64);
        assert_eq!(taken(&marks), places);
        assert_eq!(taken(&marks), []);
        marks.mark(64);
        assert_eq!(taken(&marks), [64], "a mark that was taken can be set again");
    }

    #[test]
    fn all_places_can_be_marked_at_once() {
        for count in [0, 1, 64, 65, 4_097] {
            let marks = Marks::new(count);
            (0..count).for_each(|place| marks.mark(place));
            assert_eq!(taken(&marks), (0..count).collect::<Vec<_>>());
        }
    }
}
