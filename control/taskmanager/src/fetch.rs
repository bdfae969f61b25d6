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
use tidegate_rpc::{Fault, FaultKind, FileReceipt, GroupSlice, OperatorRestore, SlotPlan, StateReference, TaskPlan};
use tidegate_stream::slot;
use xxhash_rust::xxh3::xxh3_64;

use crate::limits::STATE_OBJECT_BYTES_MAX;

/// Reads and checks what the tasks of a slot restore from checkpoint `checkpoint`; one entry per task.
///
/// # Errors
/// A [`FaultKind::State`] fault that names the object, what was expected and what was found: an older checkpoint may
/// still be whole.
pub async fn fetch(root: &Path, checkpoint: u64, plan: &SlotPlan) -> Result<Vec<Option<slot::TaskRestore>>, Fault> {
    let store = LocalFileSystem::new_with_prefix(root)
        .map_err(|error| state_fault(format!("checkpoint store {}: {error}", root.display())))?;
    let mut restores = Vec::with_capacity(plan.tasks.len());
    for task in &plan.tasks {
        restores.push(Some(fetch_task(&store, checkpoint, task).await?));
    }
    Ok(restores)
}

async fn fetch_task(store: &dyn ObjectStore, checkpoint: u64, task: &TaskPlan) -> Result<slot::TaskRestore, Fault> {
    let mut operators = Vec::with_capacity(task.restore.len());
    for operator in &task.restore {
        operators.push(fetch_operator(store, checkpoint, operator).await?);
    }
    Ok(slot::TaskRestore { checkpoint, finished: was_finished(task), operators })
}

/// TODO: the protocol does not say it yet.
fn was_finished(_task: &TaskPlan) -> bool {
    false
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
            return Err(format!("{}: key group {group} has hash {found:016x}, expected {hash:016x}; it is damaged", file.path));
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
            return Err(format!("the slices of key groups {} and {} do not follow each other", groups.0, groups.1));
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
            return Err(format!("{} has hash {found:016x}, expected {:016x}; it is damaged", file.path, file.hash));
        }
    }
    Ok(bytes)
}

fn state_fault(cause: String) -> Fault {
    Fault { kind: FaultKind::State, cause }
}
