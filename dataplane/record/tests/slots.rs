//! Room: a record is written whole or the slot stays as it was, and the need that is reported is exact.

use proptest::prelude::*;
use tidegate_record::limits::SCRATCH_BYTES_MAX;
use tidegate_record::{Record, Slot, WriteError, to_snapshot};

type Row = (u16, String, Vec<String>, Option<Vec<u8>>);

fn need<T: Record>(record: &T) -> u32 {
    match record.write(&mut Slot::new(&mut [], 0)) {
        Err(WriteError::Full { needed }) => needed,
        other => panic!("an empty slot has no room for {other:?}"),
    }
}

proptest! {
    #[test]
    fn the_need_is_exact_and_a_refusal_changes_nothing(row in any::<Row>(), before in 0u32..40, missing in 1u32..80) {
        let needed = need(&row);
        let mut exact = vec![0xa5u8; (before + needed) as usize];
        let mut slot = Slot::new(&mut exact, before);
        row.write(&mut slot).unwrap();
        prop_assert_eq!(slot.len(), before + needed);
        prop_assert_eq!(slot.remaining(), 0);

        let short_by = missing.min(needed);
        let mut short = vec![0xa5u8; (before + needed - short_by) as usize];
        let mut slot = Slot::new(&mut short, before);
        prop_assert_eq!(row.write(&mut slot), Err(WriteError::Full { needed }));
        prop_assert_eq!(slot.len(), before);
        prop_assert!(slot.bytes().iter().all(|byte| *byte == 0xa5));
    }
}

#[test]
fn a_plain_record_needs_its_size() {
    assert_eq!(need(&7u64), 8);
    assert_eq!(need(&[1u16; 5]), 10);
}

#[test]
fn lists_of_strings_beyond_the_inline_scratch_are_written() {
    let names: Vec<String> = (0..3000).map(|i| format!("n{i}")).collect();
    let mut buffer = vec![0u8; 32 * 1024];
    names.write(&mut Slot::new(&mut buffer, 0)).unwrap();
}

#[test]
fn a_list_beyond_the_scratch_bound_is_a_named_error_on_an_edge_and_fine_in_a_snapshot() {
    let names = vec![String::new(); SCRATCH_BYTES_MAX / 4 + 1];
    let mut buffer = vec![0u8; 1 << 20];
    let mut slot = Slot::new(&mut buffer, 0);
    let limit = SCRATCH_BYTES_MAX as u32;
    assert_eq!(names.write(&mut slot), Err(WriteError::Scratch { needed: limit + 4, limit }));
    assert_eq!(slot.len(), 0);
    to_snapshot(&names, &mut Vec::new()).unwrap();
}

#[test]
#[should_panic(expected = "cannot hold")]
fn a_slot_holds_no_more_than_its_buffer() {
    Slot::new(&mut [0; 4], 5);
}

#[test]
fn errors_say_what_to_change() {
    let error = WriteError::Scratch { needed: 5, limit: 4 }.to_string();
    assert!(error.contains("limit is 4") && error.contains("split the record"), "{error}");
}
