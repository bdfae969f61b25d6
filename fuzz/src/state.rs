//! Bytes as what a keyed operator is restored from: the frames of key groups.
//!
//! Oracle: what is accepted belongs to the groups it was asked for, is no more than the bytes can hold, is the same however
//! small the steps are, and comes back whole when it is written as a snapshot and read again.

use std::collections::BTreeMap;

use tidegate_record::{Field, Key, to_snapshot};
use tidegate_stream::TaskError;
use tidegate_stream::files::FileTarget;
use tidegate_stream::router::{GroupRange, Groups};
use tidegate_stream::slot::StatePayload;
use tidegate_stream::state::{Cell, Kept, KeyedState, Progress, Restore};
use tidegate_stream::testing::MemoryFiles;

/// Key groups of the job that the snapshot is of.
pub(crate) const GROUPS: u32 = 16;

/// The first byte says for which types and which of the groups the rest is read.
pub fn state(input: &[u8]) {
    let Some((&which, bytes)) = input.split_first() else { return };
    // All groups, or one half of them.
    let (subtask, parallelism) = [(0, 1), (0, 1), (0, 2), (1, 2)][usize::from(which >> 1 & 3)];
    let range = GroupRange::of(subtask, parallelism, GROUPS);
    match which & 1 {
        0 => both::<u64, Kept<String>>(bytes, range),
        _ => both::<String, Option<(u32, Vec<u8>)>>(bytes, range),
    }
}

/// What a state holds, in snapshot form.
type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

fn both<K: Key, C: Cell>(bytes: &[u8], range: GroupRange) {
    let whole = restored::<K, C>(bytes, range, u64::MAX);
    let stepped = restored::<K, C>(bytes, range, 1);
    assert_eq!(whole.is_ok(), stepped.is_ok(), "the size of the steps decides nothing");
    let (Ok(mut whole), Ok(mut stepped)) = (whole, stepped) else { return };
    let held = contents(&mut whole, range);
    assert_eq!(held, contents(&mut stepped, range));
    assert!(held.len() * 8 <= bytes.len(), "each entry has two length prefixes");

    let again = snapshot(&mut whole);
    let mut again = restored::<K, C>(&again, range, u64::MAX).expect("a snapshot is read again");
    assert_eq!(held, contents(&mut again, range));
}

fn restored<K: Key, C: Cell>(
    bytes: &[u8],
    range: GroupRange,
    step: u64,
) -> Result<KeyedState<K, C>, TaskError> {
    let payload = StatePayload { meta: Vec::new(), bytes: bytes.to_vec().into(), groups: None };
    let (mut state, mut restore) = (KeyedState::new(range, Groups::new(GROUPS)), Restore::new(vec![payload]));
    while !state.restore(&mut restore, step)? {}
    Ok(state)
}

fn contents<K: Key, C: Cell>(state: &mut KeyedState<K, C>, range: GroupRange) -> Contents {
    let form = |value: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        value(&mut bytes);
        bytes
    };
    let mut held = Contents::new();
    for index in 0..state.groups() {
        for (key, cell) in state.table(index).iter() {
            let group = Groups::new(GROUPS).of(key.hash());
            assert_eq!(range.index(group), Some(index), "a key lies in its group");
            let value = cell.value().expect("what was restored has a value");
            let twice = held.insert(form(&|out| write(key, out)), form(&|out| write(value, out)));
            assert!(twice.is_none(), "a key once");
        }
    }
    held
}

fn write<T: Field>(value: &T, out: &mut Vec<u8>) {
    to_snapshot(value, out).expect("what was read can be written");
}

/// The bytes of the file that a snapshot of `state` writes.
pub(crate) fn snapshot<K: Key, C: Cell>(state: &mut KeyedState<K, C>) -> Vec<u8> {
    let mut files = MemoryFiles::new(4);
    let target =
        FileTarget::Snapshot { job: 1, checkpoint: 1, attempt: 1, vertex: 0, subtask: 0, operator: 7 };
    state.cut(target, &mut files);
    loop {
        match state.step(u64::MAX, &mut files).expect("what was read can be written") {
            Progress::Done => break,
            Progress::Declined(cause) => panic!("{cause}"),
            Progress::Working | Progress::Waiting => {
                for event in files.pump(64) {
                    state.file_event(&event);
                }
            }
        }
    }
    let file = state.take().file;
    file.map(|file| files.store().read(&file.path).expect("it was written")).unwrap_or_default()
}
