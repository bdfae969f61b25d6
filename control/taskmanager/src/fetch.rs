//! Reading state back: from the checkpoint store, checked against what the metadata says of it.
//!
//! Owner of the state: nobody; a fetch is a function of the store and the plan.
//!
//! Always true: no byte reaches a slot whose length and hash were not compared; an object is asked for its length before
//! anything of it is read, so a truncated one is named as such.

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt as _, path::Path as ObjectPath};
use tidegate_rpc::{
    Fault, FaultKind, FileReceipt, GroupSlice, OperatorRestore, SlotPlan, StateReference, TaskPlan,
};
use tidegate_stream::slot;
use xxhash_rust::xxh3::xxh3_64;

use crate::limits::STATE_OBJECT_BYTES_MAX;

/// Reads and checks what the tasks of a slot restore from checkpoint `checkpoint`; one entry per task.
///
/// # Errors
/// A [`FaultKind::State`] fault that names the object, what was expected and what was found: an older checkpoint may
/// still be whole.
pub async fn fetch(
    root: &Path,
    checkpoint: u64,
    plan: &SlotPlan,
) -> Result<Vec<Option<slot::TaskRestore>>, Fault> {
    let store = LocalFileSystem::new_with_prefix(root)
        .map_err(|error| state_fault(format!("checkpoint store {}: {error}", root.display())))?;
    fetch_from(&store, checkpoint, plan).await
}

/// [`fetch`] from a store that is open.
///
/// # Errors
/// As [`fetch`].
pub async fn fetch_from(
    store: &dyn ObjectStore,
    checkpoint: u64,
    plan: &SlotPlan,
) -> Result<Vec<Option<slot::TaskRestore>>, Fault> {
    let mut restores = Vec::with_capacity(plan.tasks.len());
    for task in &plan.tasks {
        restores.push(Some(fetch_task(store, checkpoint, task).await?));
    }
    Ok(restores)
}

async fn fetch_task(
    store: &dyn ObjectStore,
    checkpoint: u64,
    task: &TaskPlan,
) -> Result<slot::TaskRestore, Fault> {
    let mut operators = Vec::with_capacity(task.restore.len());
    for operator in &task.restore {
        operators.push(fetch_operator(store, checkpoint, operator).await?);
    }
    Ok(slot::TaskRestore { checkpoint, finished: task.finished, operators })
}

async fn fetch_operator(
    store: &dyn ObjectStore,
    checkpoint: u64,
    operator: &OperatorRestore,
) -> Result<slot::OperatorRestore, Fault> {
    let mut payloads = Vec::with_capacity(operator.states.len());
    let mut schema = 0;
    for state in &operator.states {
        if state.schema != 0 {
            schema = state.schema;
        }
        let payload = fetch_state(store, state).await.map_err(|cause| {
            state_fault(format!("checkpoint {checkpoint}, operator {:016x}: {cause}", operator.operator))
        })?;
        payloads.push(payload);
    }
    Ok(slot::OperatorRestore { operator: operator.operator, schema, payloads })
}

/// One earlier instance's state: the small part as it came, the groups that this task owns from the object.
async fn fetch_state(store: &dyn ObjectStore, state: &StateReference) -> Result<slot::StatePayload, String> {
    let meta = state.inline.clone();
    let groups = group_range(&state.groups)?;
    let (Some(file), Some(groups)) = (&state.file, groups) else {
        return Ok(slot::StatePayload { meta, bytes: Bytes::new(), groups: None });
    };
    let mut slices = state.groups.clone();
    slices.sort_unstable_by_key(|slice| slice.offset);
    let bytes = read(store, file, &pieces(&slices)?).await?;
    let mut rest = &bytes[..];
    for GroupSlice { group, len, hash, .. } in slices {
        let slice =
            rest.split_off(..len as usize).expect("invariant: as many bytes as the slices have were read");
        let found = xxh3_64(slice);
        if found != hash {
            return Err(format!(
                "{}: key group {group} has hash {found:016x}, expected {hash:016x}; it is damaged",
                file.path
            ));
        }
    }
    Ok(slot::StatePayload { meta, bytes, groups: Some(groups) })
}

/// First and last group of the slices, which must ascend by group.
fn group_range(slices: &[GroupSlice]) -> Result<Option<(u32, u32)>, String> {
    let (Some(first), Some(last)) = (slices.first(), slices.last()) else { return Ok(None) };
    match slices.windows(2).find(|pair| pair[0].group >= pair[1].group) {
        Some(pair) => Err(format!("key group {} is named behind key group {}", pair[1].group, pair[0].group)),
        None => Ok(Some((first.group, last.group))),
    }
}

/// The parts of an object that hold these slices and nothing else; `slices` ascend by offset. A task that owns what the
/// writer owned gets one part. One that owns some of it gets more, because groups lie in the order they were written in.
fn pieces(slices: &[GroupSlice]) -> Result<Vec<Range<u64>>, String> {
    let mut pieces: Vec<Range<u64>> = Vec::new();
    let mut bytes = 0u64;
    for slice in slices {
        let end = slice.offset.checked_add(slice.len);
        bytes = bytes.saturating_add(slice.len);
        let end = end
            .filter(|_| bytes <= STATE_OBJECT_BYTES_MAX)
            .ok_or_else(|| format!("the state is larger than {STATE_OBJECT_BYTES_MAX} bytes"))?;
        match pieces.last_mut() {
            Some(piece) if slice.offset < piece.end => {
                return Err(format!(
                    "key group {} overlaps another one at byte {}",
                    slice.group, slice.offset
                ));
            }
            Some(piece) if slice.offset == piece.end => piece.end = end,
            _ => pieces.push(slice.offset..end),
        }
    }
    Ok(pieces)
}

/// Reads `pieces`, which ascend, of a file that must be as long as its receipt says.
async fn read(store: &dyn ObjectStore, file: &FileReceipt, pieces: &[Range<u64>]) -> Result<Bytes, String> {
    let path = ObjectPath::parse(&file.path).map_err(|error| format!("{}: {error}", file.path))?;
    let found = store.head(&path).await.map_err(|error| format!("{}: {error}", file.path))?.size;
    if found != file.len {
        return Err(format!("{} has {found} bytes, expected {}; it is damaged", file.path, file.len));
    }
    if let Some(last) = pieces.last().filter(|last| last.end > file.len) {
        return Err(format!("{} has {found} bytes, its slices end at {}", file.path, last.end));
    }
    let read = store.get_ranges(&path, pieces).await.map_err(|error| format!("{}: {error}", file.path))?;
    let bytes = match <[Bytes; 1]>::try_from(read) {
        Ok([whole]) => whole,
        Err(parts) => parts.concat().into(),
    };
    let wanted: u64 = pieces.iter().map(|piece| piece.end - piece.start).sum();
    if bytes.len() as u64 != wanted {
        return Err(format!("{} gave {} bytes where it has {wanted}", file.path, bytes.len()));
    }
    if wanted == file.len {
        let found = xxh3_64(&bytes);
        if found != file.hash {
            return Err(format!(
                "{} has hash {found:016x}, expected {:016x}; it is damaged",
                file.path, file.hash
            ));
        }
    }
    Ok(bytes)
}

fn state_fault(cause: String) -> Fault {
    Fault { kind: FaultKind::State, cause }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidegate_record::Key as _;
    use tidegate_rpc::TaskId;
    use tidegate_stream::files::FileTarget;
    use tidegate_stream::limits::SNAPSHOT_STEP_BYTES;
    use tidegate_stream::router::{GroupRange, Groups};
    use tidegate_stream::state::{Kept, KeyedState, Progress, Restore};
    use tidegate_stream::testing::{MemoryFiles, seek};

    use super::*;

    const STATE: &[u8] = b"aaabbbbcc";
    const SLICES: [(u32, u64, u64); 3] = [(4, 0, 3), (5, 3, 4), (9, 7, 2)];

    fn slices(of: &[(u32, u64, u64)]) -> Vec<GroupSlice> {
        let slice = |&(group, offset, len): &(u32, u64, u64)| GroupSlice {
            group,
            offset,
            len,
            hash: xxh3_64(&STATE[offset as usize..(offset + len) as usize]),
        };
        of.iter().map(slice).collect()
    }

    fn plan(groups: Vec<GroupSlice>) -> SlotPlan {
        let file =
            FileReceipt { path: "chk-1/a.state".into(), len: STATE.len() as u64, hash: xxh3_64(STATE) };
        let state = StateReference { subtask: 0, inline: vec![7], file: Some(file), groups, schema: 11 };
        let restore = vec![OperatorRestore { operator: 0xab, states: vec![state] }];
        let id = TaskId { vertex: 0, subtask: 0 };
        let task = TaskPlan { id, task: 0, gate: None, partitions: Vec::new(), restore, finished: true };
        SlotPlan { slot: 0, tasks: vec![task], peers: BTreeMap::new(), memory: Default::default() }
    }

    fn store(bytes: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("chk-1")).expect("writable");
        std::fs::write(folder.path().join("chk-1/a.state"), bytes).expect("writable");
        folder
    }

    fn fetched(root: &Path, plan: &SlotPlan) -> Result<slot::OperatorRestore, Fault> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut restores = runtime.block_on(fetch(root, 1, plan))?;
        let restore = restores.remove(0).expect("the task is restored");
        assert_eq!((restore.checkpoint, restore.finished), (1, true));
        Ok(restore.operators.into_iter().next().expect("one operator"))
    }

    #[test]
    fn a_task_gets_the_groups_it_owns_and_the_small_part() {
        let folder = store(STATE);
        for (own, bytes, groups) in [
            (&SLICES[..], STATE, Some((4, 9))),
            (&SLICES[1..2], b"bbbb", Some((5, 5))),
            (&SLICES[1..], b"bbbbcc", Some((5, 9))),
            (&[], b"", None),
        ] {
            let operator = fetched(folder.path(), &plan(slices(own))).expect("whole");
            assert_eq!((operator.operator, operator.schema), (0xab, 11));
            let payload = &operator.payloads[0];
            assert_eq!((&payload.bytes[..], payload.groups, &payload.meta[..]), (bytes, groups, &[7][..]));
        }
    }

    #[test]
    fn damage_is_named_before_a_slot_sees_a_byte() {
        let fault = |folder: &Path, own: &[GroupSlice]| {
            let fault = fetched(folder, &plan(own.to_vec())).expect_err("damaged");
            assert_eq!(fault.kind, FaultKind::State);
            assert!(fault.cause.starts_with("checkpoint 1, operator 00000000000000ab: "), "{fault}");
            fault.cause
        };
        let all = slices(&SLICES);
        let truncated = store(&STATE[..5]);
        assert!(fault(truncated.path(), &all).contains("has 5 bytes, expected 9"));
        let flipped = store(b"aaabbbXcc");
        assert!(fault(flipped.path(), &all).contains("hash"));
        assert!(fault(flipped.path(), &slices(&SLICES[1..2])).contains("key group 5 has hash"));
        assert!(
            fetched(flipped.path(), &plan(slices(&SLICES[2..]))).is_ok(),
            "a whole group of a damaged object is whole"
        );
        let missing = tempfile::tempdir().expect("a folder");
        assert!(fault(missing.path(), &all).contains("chk-1/a.state"));
    }

    #[test]
    fn slices_are_read_wherever_they_lie() {
        let folder = store(STATE);
        // Written as records wanted them: group 9 first, then 4, then 5.
        let out_of_order = [(4, 3, 4), (5, 7, 2), (9, 0, 3)];
        for (own, bytes, groups) in [
            (&out_of_order[..], STATE, (4, 9)),
            (&out_of_order[..2], b"bbbbcc", (4, 5)),
            (&out_of_order[1..], b"aaacc", (5, 9)),
            (&out_of_order[2..], b"aaa", (9, 9)),
        ] {
            let operator = fetched(folder.path(), &plan(slices(own))).expect("whole");
            let payload = &operator.payloads[0];
            assert_eq!((&payload.bytes[..], payload.groups), (bytes, Some(groups)));
        }
    }

    #[test]
    fn slices_that_contradict_each_other_are_refused() {
        let folder = store(STATE);
        for (wrong, says) in [
            ([(5, 3, 4), (4, 0, 3)], "key group 4 is named behind key group 5"),
            ([(4, 0, 3), (4, 3, 4)], "key group 4 is named behind key group 4"),
            ([(4, 0, 5), (5, 3, 4)], "key group 5 overlaps another one at byte 3"),
        ] {
            let fault = fetched(folder.path(), &plan(slices(&wrong))).expect_err("refused");
            assert!(fault.cause.contains(says), "{fault}");
        }
        let mut beyond = slices(&SLICES);
        beyond[2].len = u64::MAX;
        let fault = fetched(folder.path(), &plan(beyond)).expect_err("refused");
        assert!(fault.cause.contains("the state is larger than"), "{fault}");
    }

    const GROUPS: u32 = 128;
    type State = KeyedState<u64, Kept<Vec<u8>>>;

    fn state_of(subtask: u32, parallelism: u32) -> State {
        State::new(GroupRange::of(subtask, parallelism, GROUPS), Groups::new(GROUPS))
    }

    /// Adds one to every byte of a key's value.
    fn change(state: &mut State, key: u64, files: &mut MemoryFiles) {
        let hash = key.hash();
        let spot = seek(state, hash).expect("all groups are owned");
        assert!(state.admit(spot.group(), files).expect("it can be written"), "there are buffers");
        let entry = state.find(spot, |known| *known == key).expect("it is there");
        entry.1.0.iter_mut().for_each(|byte| *byte += 1);
    }

    /// A state that is changed while its snapshot is written goes through the store into one task and into three.
    #[test]
    fn a_snapshot_written_while_it_changed_is_read_back_by_any_owner() {
        const KEYS: u64 = 4_000;
        let mut files = MemoryFiles::new(64);
        let mut state = state_of(0, 1);
        for key in 0..KEYS {
            let hash = key.hash();
            let spot = seek(&state, hash).expect("all groups are owned");
            state.insert(spot, key, Kept(vec![0; 300])).expect("nothing limits it");
        }
        let target =
            FileTarget::Snapshot { job: 1, checkpoint: 1, attempt: 1, vertex: 0, subtask: 0, operator: 0xab };
        state.cut(target, &mut files);
        let mut key = 0;
        while state.step(SNAPSHOT_STEP_BYTES, &mut files).expect("it can be written") != Progress::Done {
            for event in files.pump(usize::MAX) {
                state.file_event(&event);
            }
            change(&mut state, key % KEYS, &mut files);
            key += 1;
        }
        let snapshot = state.take();
        let by_place = snapshot.groups.is_sorted_by_key(|slice| slice.offset);
        assert!(!by_place && snapshot.bytes() > 2 * SNAPSHOT_STEP_BYTES, "as it must be for this test");

        let receipt = snapshot.file.expect("there is state");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(&receipt.path);
        std::fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("writable");
        std::fs::write(path, files.store().read(&receipt.path).expect("written")).expect("writable");
        let slices = snapshot.groups.iter().map(|&slice| {
            let slot::GroupSlice { group, offset, len, hash } = slice;
            GroupSlice { group, offset, len, hash }
        });
        let slices: Vec<_> = slices.collect();
        for owners in [1, 3] {
            let mut read = 0;
            for owner in 0..owners {
                let range = GroupRange::of(owner, owners, GROUPS);
                let own = slices.iter().filter(|slice| range.index(slice.group).is_some()).copied();
                let mut plan = plan(own.collect());
                plan.tasks[0].restore[0].states[0].file =
                    Some(FileReceipt { path: receipt.path.clone(), len: receipt.len, hash: receipt.hash });
                let operator = fetched(folder.path(), &plan).expect("whole");
                let (mut state, mut restore) = (state_of(owner, owners), Restore::new(operator.payloads));
                assert!(state.restore(&mut restore, u64::MAX).expect("it is this state"));
                for group in 0..state.groups() {
                    let table = state.table(group);
                    assert!(table.iter().all(|(_, value)| value.0 == [0; 300]), "as it was at the cut");
                    read += table.len() as u64;
                }
            }
            assert_eq!(read, KEYS, "{owners} owners");
        }
    }
}
