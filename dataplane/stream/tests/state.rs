//! Keyed state against a plain map: a snapshot holds what the state was at the cut, whatever is written meanwhile.

use std::collections::BTreeMap;

use tidegate_record::Key;
use tidegate_stream::error::Fault;
use tidegate_stream::files::{FileBuffer, FileEvent, FileTarget, Files};
use tidegate_stream::router::{GroupRange, Groups};
use tidegate_stream::slot::{OperatorSnapshot, StatePayload};
use tidegate_stream::state::{Kept, KeyedState, Progress, Restore};
use tidegate_stream::testing::{MemoryFiles, seek};

const GROUPS: u32 = 128;
type State = KeyedState<u64, Kept<String>>;
type Model = BTreeMap<u64, String>;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn range(subtask: u32, parallelism: u32) -> GroupRange {
    GroupRange::of(subtask, parallelism, GROUPS)
}

/// Writes or removes a key; false if the state has to wait for a buffer.
fn write(state: &mut State, key: u64, value: Option<String>, files: &mut MemoryFiles) -> bool {
    let hash = key.hash();
    let spot = seek(state, hash).expect("all groups are owned");
    if !state.admit(spot.group(), files).expect("it can be written") {
        return false;
    }
    match (value, state.find(spot, |known| *known == key)) {
        (Some(value), Some((_, known))) => known.0 = value,
        (Some(value), None) => {
            state.insert(spot, key, Kept(value)).expect("nothing limits it");
        }
        (None, _) => state.remove(spot, |known| *known == key),
    }
    true
}

fn pump(state: &mut State, files: &MemoryFiles, ops: usize) {
    for event in files.pump(ops) {
        state.file_event(&event);
    }
}

fn target(checkpoint: u64) -> FileTarget {
    FileTarget::Snapshot { job: 1, checkpoint, attempt: 1, vertex: 0, subtask: 0, operator: 7 }
}

fn contents(state: &mut State) -> Model {
    let groups = state.groups();
    let tables = (0..groups).flat_map(|index| state.table(index).iter().cloned().collect::<Vec<_>>());
    tables.map(|(key, Kept(value))| (key, value)).collect()
}

fn restore(snapshot: &OperatorSnapshot, files: &MemoryFiles, range: GroupRange) -> State {
    let bytes = snapshot.file.as_ref().map(|file| files.store().read(&file.path).expect("it is there"));
    let payload = StatePayload { meta: Vec::new(), bytes: bytes.unwrap_or_default().into(), groups: None };
    let (mut state, mut restore) = (State::new(range, Groups::new(GROUPS)), Restore::new(vec![payload]));
    while !state.restore(&mut restore, 10_000).expect("it is whole") {}
    state
}

/// Groups are told in order, and their slices, wherever they came to lie, are the file.
fn check_slices(snapshot: &OperatorSnapshot) {
    assert!(snapshot.groups.is_sorted_by(|one, next| one.group < next.group), "{:?}", snapshot.groups);
    let mut slices: Vec<_> = snapshot.groups.iter().map(|slice| (slice.offset, slice.len)).collect();
    slices.sort_unstable();
    let end = slices.iter().fold(0, |end, &(offset, len)| {
        assert_eq!(offset, end, "slices lie one behind the other");
        offset + len
    });
    assert_eq!(end, snapshot.file.as_ref().map_or(0, |file| file.len));
}

/// Random writes before, during and after several snapshots, with two buffers and a slow disk.
#[test]
fn snapshots_hold_the_state_at_the_cut() {
    for seed in 0..30 {
        let mut random = Random(seed);
        let mut files = MemoryFiles::new(2);
        let (mut state, mut model) = (State::new(range(0, 1), Groups::new(GROUPS)), Model::new());
        let keys = 1 + random.below(3_000);
        let longest = 1 + random.below(if seed % 5 == 0 { 200_000 } else { 2_000 });
        let keys = if seed % 5 == 0 { 1 + keys % 20 } else { keys };
        for checkpoint in 1..4 {
            let mut at_cut = None;
            let writes = random.below(4_000);
            for step in 0.. {
                if step == writes {
                    state.cut(target(checkpoint), &mut files);
                    at_cut = Some(model.clone());
                }
                if step >= writes && random.below(3) == 0 {
                    match state.step(random.below(40_000), &mut files).expect("it can be written") {
                        Progress::Done => break,
                        Progress::Working | Progress::Waiting => {}
                        Progress::Declined(cause) => panic!("{cause}"),
                    }
                }
                let key = random.below(keys);
                let length = random.below(longest) as usize;
                let value = (random.below(10) > 0).then(|| format!("{key}-{step}-").repeat(length / 8));
                if write(&mut state, key, value.clone(), &mut files) {
                    match value {
                        Some(value) => drop(model.insert(key, value)),
                        None => drop(model.remove(&key)),
                    }
                }
                pump(&mut state, &files, random.below(3) as usize);
            }
            let snapshot = state.take();
            check_slices(&snapshot);
            let at_cut = at_cut.expect("a cut comes before the end");
            assert_eq!(contents(&mut restore(&snapshot, &files, range(0, 1))), at_cut, "seed {seed}");
            let split: Model = (0..3)
                .flat_map(|subtask| contents(&mut restore(&snapshot, &files, range(subtask, 3))))
                .collect();
            assert_eq!(split, at_cut, "seed {seed}, three owners");
            assert_eq!(contents(&mut state), model, "seed {seed}, the state itself");
        }
    }
}

#[test]
fn without_a_buffer_a_group_that_is_not_written_yet_may_not_change() {
    let mut files = MemoryFiles::new(1);
    let mut state = State::new(range(0, 1), Groups::new(GROUPS));
    for key in 0..100 {
        assert!(write(&mut state, key, Some("x".into()), &mut files));
    }
    let hostage: FileBuffer = files.try_buffer().expect("there is one");
    state.cut(target(1), &mut files);
    // One group's bytes wait in the frame that is being built; there is no place for those of a second one.
    let written: Vec<u64> =
        (0..100).filter(|&key| write(&mut state, key, Some("y".into()), &mut files)).collect();
    let group = |key: u64| Groups::new(GROUPS).of(key.hash());
    assert!(written.iter().all(|&key| group(key) == group(0)), "{written:?}");
    assert_eq!(state.step(u64::MAX, &mut files), Ok(Progress::Waiting));
    files.give_back(hostage);
    assert_eq!(files.pump(1), [FileEvent::BuffersFree]);
    (0..100).for_each(|key| assert!(write(&mut state, key, Some("y".into()), &mut files)));
    while state.step(u64::MAX, &mut files) != Ok(Progress::Done) {
        pump(&mut state, &files, usize::MAX);
    }
    let snapshot = state.take();
    let restored = contents(&mut restore(&snapshot, &files, range(0, 1)));
    assert_eq!(restored, (0..100).map(|key| (key, "x".to_owned())).collect::<Model>());
    assert!(contents(&mut state).values().all(|value| value == "y"));
}

#[test]
fn empty_state_needs_no_file() {
    let mut files = MemoryFiles::new(1);
    let mut state = State::new(range(0, 1), Groups::new(GROUPS));
    state.cut(target(1), &mut files);
    assert_eq!(state.step(1, &mut files), Ok(Progress::Done));
    assert_eq!(state.take().file, None);
    assert!(!files.busy());
}

#[test]
fn an_aborted_snapshot_gives_file_and_buffer_back() {
    let mut files = MemoryFiles::new(1);
    let mut state = State::new(range(0, 1), Groups::new(GROUPS));
    (0..1_000).for_each(|key| assert!(write(&mut state, key, Some("long".repeat(100)), &mut files)));
    state.cut(target(1), &mut files);
    assert_eq!(state.step(1, &mut files), Ok(Progress::Working));
    state.abort(&mut files);
    files.pump(usize::MAX);
    assert_eq!((files.on_loan(), files.open_files()), (0, 0));
    assert!(write(&mut state, 1, None, &mut files), "nobody needs the old value any more");
}

#[test]
fn damaged_snapshots_are_refused() {
    let mut files = MemoryFiles::new(4);
    let mut state = State::new(range(0, 1), Groups::new(GROUPS));
    (0..50).for_each(|key| assert!(write(&mut state, key, Some("value".into()), &mut files)));
    state.cut(target(1), &mut files);
    while state.step(u64::MAX, &mut files) != Ok(Progress::Done) {
        pump(&mut state, &files, usize::MAX);
    }
    let path = state.take().file.expect("there is state").path;
    let whole = files.store().read(&path).expect("it is there");
    let read = |bytes: Vec<u8>| {
        let payload = StatePayload { meta: Vec::new(), bytes: bytes.into(), groups: None };
        State::new(range(0, 1), Groups::new(GROUPS)).restore(&mut Restore::new(vec![payload]), u64::MAX)
    };
    assert_eq!(read(whole.clone()), Ok(true));
    for cut in 1..whole.len() {
        let error = read(whole[..whole.len() - cut].to_vec());
        // A cut between two frames cannot be seen here; lengths and hashes of slices show it.
        if let Err(error) = error {
            assert!(error.to_string().contains("snapshot bytes are corrupt"), "{error}");
        }
    }
    for byte in (0..whole.len()).step_by(3) {
        let mut damaged = whole.clone();
        damaged[byte] ^= 0x55;
        // Never a panic; most damage is found, the rest is for the hashes.
        let _ = read(damaged);
    }
    let payload = StatePayload { meta: Vec::new(), bytes: whole.clone().into(), groups: None };
    let other = State::new(range(0, 1), Groups::new(64)).restore(&mut Restore::new(vec![payload]), u64::MAX);
    assert!(other.unwrap_err().to_string().contains("was the max parallelism another one?"));
    let twice = [whole.clone(), whole].concat();
    assert!(read(twice).unwrap_err().to_string().contains("a key twice"));
}

#[test]
fn state_too_large_for_a_snapshot_fails_by_name() {
    let mut files = MemoryFiles::new(2);
    let mut state = State::new(range(0, 1), Groups::new(GROUPS));
    assert!(write(&mut state, 1, Some("x".repeat(17 << 20)), &mut files));
    state.cut(target(1), &mut files);
    let error = state.step(1, &mut files).unwrap_err();
    assert_eq!(error.fault(), Fault::TooLarge, "no older checkpoint would help");
    let (hash, group) = (1u64.hash(), Groups::new(GROUPS).of(1u64.hash()));
    for part in [format!("hash {hash:#018x}, key group {group}"), "at most 16777216 are kept".to_owned()] {
        assert!(error.message().contains(&part), "{error}");
    }
}

/// What `seek` saw is a hint: the key is found wherever it went since, and another key in its place is not taken for it.
#[test]
fn a_key_is_found_where_it_went() {
    let mut state = State::new(range(0, 1), Groups::new(1));
    let spot = |state: &State, key: u64| seek(state, key.hash()).expect("there is one group");
    let seen: Vec<_> = (0..1_000).map(|key| spot(&state, key)).collect();
    for key in 0..1_000 {
        // Tables grow on the way, so that what was seen is another key's place, or none.
        state.insert(seen[key as usize], key, Kept(key.to_string())).expect("nothing limits it");
    }
    let late = spot(&state, 7);
    state.remove(late, |known| *known == 7);
    assert!(state.find(late, |known| *known == 7).is_none());
    for key in (0..1_000).filter(|key| *key != 7) {
        let found = state.find(seen[key as usize], |known| *known == key).map(|(_, value)| value.0.clone());
        assert_eq!(found, Some(key.to_string()));
        assert_eq!(state.find(spot(&state, key), |known| *known == key).map(|(known, _)| *known), Some(key));
    }
}

#[test]
fn a_group_of_another_subtask_is_nowhere() {
    let state = State::new(range(1, 2), Groups::new(GROUPS));
    let (mut own, mut others) = (0, 0);
    for hash in (0..1_000u64).map(|key| key.hash()) {
        let group = Groups::new(GROUPS).of(hash);
        match seek(&state, hash) {
            Ok(spot) => assert_eq!(Some(spot.group()), range(1, 2).index(group)),
            Err(astray) => assert_eq!((astray, range(1, 2).index(group)), (group, None)),
        }
        *if group < GROUPS / 2 { &mut others } else { &mut own } += 1;
    }
    assert!(own > 0 && others > 0);
}
