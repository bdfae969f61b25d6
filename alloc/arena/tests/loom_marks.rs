//! Marks under every interleaving (up to the bound on preemptions): none is lost, and who takes one sees what was done before
//! it was set.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release -p tidegate-arena --test loom_marks
//! ```
//!
//! One load that only saves work is another operation here than in what ships (`marks.rs` says why): it misses no mark, where
//! the load may see one late.
//!
//! Each of these, put into the code, makes a model fail: `mark` that leaves a word alone whose bit is set, `mark` that looks at
//! the group before it changes the word, `take` that clears the word before the group, words changed by relaxed operations.

#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use tidegate_arena::marks::Marks;

/// Two markers, and a taker at the same time. Each marker publishes something first: whoever takes its
/// mark must find it, and all of it is found once everybody is done.
fn markers(places: [u32; 2], rounds: u32) {
    loom::model(move || {
        let marks = Arc::new(Marks::new(128));
        let news = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let markers = [0, 1].map(|marker: usize| {
            let (marks, news) = (Arc::clone(&marks), Arc::clone(&news));
            thread::spawn(move || {
                for round in 1..=rounds {
                    news[marker].store(round, Ordering::Relaxed);
                    marks.mark(places[marker]);
                }
            })
        });
        let mut seen = [0; 2];
        let mut look = |news: &[AtomicU32; 2]| {
            marks.take(|place| {
                for marker in 0..2 {
                    if places[marker] == place {
                        seen[marker] = news[marker].load(Ordering::Relaxed);
                    }
                }
            });
            seen
        };
        let first = look(&news);
        for marker in markers {
            marker.join().expect("a marker only marks");
        }
        // What was taken at first was seen, or its mark is still there.
        let second = look(&news);
        assert_eq!(second, [rounds; 2], "after {first:?}");
    });
}

#[test]
fn no_mark_of_two_is_lost() {
    markers([3, 9], 1);
}

#[test]
fn a_mark_of_one_place_set_by_two_stands_for_the_news_of_both() {
    markers([5, 5], 1);
}

#[test]
fn a_mark_set_again_stands_for_the_later_news() {
    markers([1, 2], 2);
}

#[test]
fn marks_in_two_words_of_a_group_are_both_found() {
    markers([3, 70], 1);
}
