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
    let mut restores = Vec::with_capacity(plan.tasks.len());
    for task in &plan.tasks {
        restores.push(Some(fetch_task(&store, checkpoint, task).await?));
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
    // Whether the task had finished is not part of a plan. Nothing is said twice for it: what a task emitted at the end of
    // its input has left its state, and a source goes on from a position at the end.
    Ok(slot::TaskRestore { checkpoint, finished: false, operators })
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
    let span = span(&state.groups)?;
    let (Some(file), Some(span)) = (&state.file, span) else {
        return Ok(slot::StatePayload { meta, bytes: Bytes::new(), groups: None });
    };
    let bytes = read(store, file, span.bytes.clone()).await?;
    for slice in &state.groups {
        let from = (slice.offset - span.bytes.start) as usize;
        let found = xxh3_64(&bytes[from..from + slice.len as usize]);
        if found != slice.hash {
            let GroupSlice { group, hash, .. } = slice;
            return Err(format!(
                "{}: key group {group} has hash {found:016x}, expected {hash:016x}; it is damaged",
                file.path
            ));
        }
    }
    Ok(slot::StatePayload { meta, bytes, groups: Some(span.groups) })
}

/// What a task owns of an object.
struct Span {
    groups: (u32, u32),
    bytes: Range<u64>,
}

/// The smallest range that holds all slices, which lie one behind the other.
fn span(slices: &[GroupSlice]) -> Result<Option<Span>, String> {
    let (Some(first), Some(last)) = (slices.first(), slices.last()) else { return Ok(None) };
    for pair in slices.windows(2) {
        let end = pair[0].offset.checked_add(pair[0].len);
        if pair[0].group >= pair[1].group || end != Some(pair[1].offset) {
            let groups = (pair[0].group, pair[1].group);
            return Err(format!(
                "the slices of key groups {} and {} do not follow each other",
                groups.0, groups.1
            ));
        }
    }
    let end = last.offset.checked_add(last.len).filter(|end| end - first.offset <= STATE_OBJECT_BYTES_MAX);
    let end = end.ok_or_else(|| format!("the state is larger than {STATE_OBJECT_BYTES_MAX} bytes"))?;
    Ok(Some(Span { groups: (first.group, last.group), bytes: first.offset..end }))
}

async fn read(store: &dyn ObjectStore, file: &FileReceipt, range: Range<u64>) -> Result<Bytes, String> {
    let path = ObjectPath::parse(&file.path).map_err(|error| format!("{}: {error}", file.path))?;
    let found = store.head(&path).await.map_err(|error| format!("{}: {error}", file.path))?.size;
    if found != file.len {
        return Err(format!("{} has {found} bytes, expected {}; it is damaged", file.path, file.len));
    }
    if range.end > file.len {
        return Err(format!("{} has {found} bytes, its slices end at {}", file.path, range.end));
    }
    let whole = range == (0..file.len);
    let bytes = store.get_range(&path, range).await.map_err(|error| format!("{}: {error}", file.path))?;
    if whole {
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

    use tidegate_rpc::TaskId;

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
        let task = TaskPlan { id, task: 0, gate: None, partitions: Vec::new(), restore };
        SlotPlan { slot: 0, tasks: vec![task], peers: BTreeMap::new() }
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
        assert_eq!(restore.checkpoint, 1);
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
    fn slices_that_do_not_follow_each_other_are_refused() {
        let folder = store(STATE);
        let mut gap = slices(&SLICES);
        gap.remove(1);
        let mut reversed = slices(&SLICES);
        reversed.reverse();
        for wrong in [gap, reversed] {
            let fault = fetched(folder.path(), &plan(wrong)).expect_err("refused");
            assert!(fault.cause.contains("do not follow each other"), "{fault}");
        }
    }
}
