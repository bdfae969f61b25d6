//! Sequences: all subtasks together say every number once, through restores and other parallelisms.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Opened, open, runtime};
use crate::connect::Sequence;
use crate::connect::sequence::SequenceReader;
use crate::source::{Next, Pause, SourceReader};

type Numbers = Opened<SequenceReader<u64, fn(u64) -> u64>>;

fn open_all(count: u64, parallelism: u32, positions: Option<&[Vec<u8>]>, same: bool) -> Vec<Numbers> {
    let own = |subtask: u32| match positions {
        None => open(&Sequence::new(count), &runtime(subtask, parallelism, None), &[]),
        Some(all) => {
            let given = if same { &all[subtask as usize..][..1] } else { all };
            open(&Sequence::new(count), &runtime(subtask, parallelism, Some(1)), given)
        }
    };
    (0..parallelism).map(|subtask| own(subtask).unwrap()).collect()
}

proptest! {
    #[test]
    fn every_number_once_through_restores_and_rescales(
        count in 0u64..300,
        rounds in vec((1u32..7, vec(0usize..9, 7)), 1..6),
    ) {
        let mut seen = Vec::new();
        let mut positions: Option<Vec<Vec<u8>>> = None;
        for (parallelism, takes) in &rounds {
            let same = positions.as_ref().is_some_and(|all| all.len() == *parallelism as usize);
            let mut readers = open_all(count, *parallelism, positions.as_deref(), same);
            for (reader, take) in readers.iter_mut().zip(takes) {
                for _ in 0..*take {
                    seen.extend(reader.next(0).unwrap().copied());
                }
            }
            positions = Some(readers.iter().map(Opened::position).collect());
        }
        let last = rounds.last().unwrap().0;
        for reader in &mut open_all(count, last, positions.as_deref(), true) {
            seen.extend(reader.all().unwrap());
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..count).collect::<Vec<_>>());
    }
}

#[test]
fn more_subtasks_all_have_something_to_do() {
    let mut one = open_all(100, 1, None, true);
    for _ in 0..10 {
        one[0].next(0).unwrap();
    }
    let positions = [one[0].position()];
    let mut shares: Vec<_> =
        open_all(100, 3, Some(&positions), false).iter_mut().map(|reader| reader.all().unwrap()).collect();
    assert_eq!(shares.iter().map(Vec::len).collect::<Vec<_>>(), [30, 30, 30]);
    shares[0].truncate(2);
    assert_eq!(shares[0], [10, 13]);
}

#[test]
fn positions_that_do_not_belong_together_are_refused() {
    let positions: Vec<_> = open_all(9, 3, None, true).iter().map(Opened::position).collect();
    let two_of_three = open(&Sequence::new(9), &runtime(0, 2, Some(1)), &positions[..2]).err().unwrap();
    assert!(
        two_of_three.message().contains("2 positions of a sequence that had 3 subtasks"),
        "{two_of_three}"
    );
    assert!(open(&Sequence::new(9), &runtime(0, 2, Some(1)), &[]).is_err());
    assert!(open(&Sequence::new(9), &runtime(0, 1, Some(1)), &[vec![9; 5]]).is_err());
}

#[test]
fn a_sequence_without_end_stays_within_its_numbers() {
    let start = u64::MAX - 3;
    let mut reader = open(&Sequence::generate(u64::MAX, move |n| n), &runtime(1, 2, None), &[]).unwrap();
    assert_eq!(reader.next(0).unwrap(), Some(&1));
    let _ = start;
}

#[test]
fn the_rate_is_that_of_all_subtasks() {
    let mut passed = 0;
    for subtask in 0..4 {
        let sequence = Sequence::new(u64::MAX).rate(100_000);
        let mut reader = open(&sequence, &runtime(subtask, 4, None), &[]).unwrap().reader;
        let mut now = 0;
        while now < 1_000_000_000 {
            match reader.next(now).unwrap() {
                Next::Item(_) => passed += 1,
                Next::Wait(Pause::Until(at)) => now = at,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!((99_900..=100_010).contains(&passed), "{passed} in a second");
}
