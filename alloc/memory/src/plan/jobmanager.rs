//! The derivation of a JobManager's components. Stateless.
//!
//! Order of authority: heap, then total flink memory, then total process memory. Natively the off-heap memory is divided
//! into network and checkpoint metadata; Flink's has no parts.
//!
//! Always: flink = heap + off-heap; natively off-heap = network + checkpoint metadata.

use super::Profile;
use super::component::{Component, Name, Part, Rule};
use super::error::{PlanError, Reason};
use super::frame::{Frame, around_flink, inside_process, part, size};
use super::keys;
use super::reader::{Reader, SIZE_MAX, sum};

/// All components.
pub(super) struct Derived {
    pub(super) heap: Component,
    pub(super) off_heap: Component,
    /// Network and checkpoint metadata, natively.
    pub(super) off_heap_parts: Option<(Component, Component)>,
    pub(super) frame: Frame,
}

pub(super) fn derive(reader: &Reader<'_>) -> Result<Derived, PlanError> {
    let (heap, off_heap, frame) = if reader.is_set(keys::JM_HEAP) {
        let (heap, off_heap, flink) = from_parts(reader)?;
        (heap, off_heap, around_flink(reader, flink)?)
    } else if reader.is_set(keys::JM_FLINK) {
        let flink = reader.size(keys::JM_FLINK)?.component();
        let (heap, off_heap) = from_flink(reader, &flink)?;
        (heap, off_heap, around_flink(reader, flink)?)
    } else if reader.is_set(keys::JM_PROCESS) || reader.profile == Profile::Native {
        let frame = inside_process(reader)?;
        let (heap, off_heap) = from_flink(reader, &frame.flink)?;
        (heap, off_heap, frame)
    } else {
        return Err(reader.refuse(Reason::NothingConfigured, Vec::new()));
    };
    let off_heap_parts = match reader.profile {
        Profile::Flink => None,
        Profile::Native => Some(divide(reader, &off_heap)?),
    };
    Ok(Derived { heap, off_heap, off_heap_parts, frame })
}

/// The heap is configured. With a total beside it, the off-heap memory is what is left, unless it is configured too: then
/// everything must add up.
fn from_parts(reader: &Reader<'_>) -> Result<(Component, Component, Component), PlanError> {
    let heap = reader.size(keys::JM_HEAP)?.component();
    let off_heap = reader.size(keys::JM_OFF_HEAP)?.component();
    if !reader.is_set(keys::JM_FLINK) {
        let parts = parts(&heap, &off_heap);
        let Some(bytes) = size(sum(&parts)) else {
            let reason = Reason::JobManagerParts {
                heap: Some(heap.bytes),
                off_heap: Some(off_heap.bytes),
                flink: SIZE_MAX,
            };
            return Err(reader.refuse_sum(reason, parts, heap.inputs));
        };
        let flink = Component { bytes, rule: Rule::Sum { of: parts }, inputs: Vec::new() };
        return Ok((heap, off_heap, flink));
    }
    let flink = reader.size(keys::JM_FLINK)?.component();
    if reader.is_set(keys::JM_OFF_HEAP) {
        let parts = parts(&heap, &off_heap);
        if sum(&parts) == u128::from(flink.bytes) {
            return Ok((heap, off_heap, flink));
        }
        let reason = Reason::JobManagerParts {
            heap: Some(heap.bytes),
            off_heap: Some(off_heap.bytes),
            flink: flink.bytes,
        };
        let inputs = [heap.inputs, off_heap.inputs, flink.inputs].concat();
        return Err(reader.refuse_sum(reason, parts, inputs));
    }
    let Some(bytes) = flink.bytes.checked_sub(heap.bytes) else {
        let reason = Reason::JobManagerParts { heap: Some(heap.bytes), off_heap: None, flink: flink.bytes };
        let parts = vec![part(Name::Heap, &heap)];
        return Err(reader.refuse_sum(reason, parts, [heap.inputs, flink.inputs].concat()));
    };
    let rule = Rule::Remainder {
        of: Name::TotalFlinkMemory,
        total: flink.bytes,
        minus: vec![part(Name::Heap, &heap)],
    };
    let inputs = [flink.inputs.clone(), heap.inputs.clone()].concat();
    Ok((heap, Component { bytes, rule, inputs }, flink))
}

/// Total flink memory is known: the heap is what the off-heap memory leaves, and that is at least a byte.
fn from_flink(reader: &Reader<'_>, flink: &Component) -> Result<(Component, Component), PlanError> {
    let off_heap = reader.size(keys::JM_OFF_HEAP)?.component();
    let minus = vec![part(Name::OffHeap, &off_heap)];
    match flink.bytes.checked_sub(off_heap.bytes).filter(|left| *left > 0) {
        Some(bytes) => {
            let rule = Rule::Remainder { of: Name::TotalFlinkMemory, total: flink.bytes, minus };
            let inputs = [flink.inputs.clone(), off_heap.inputs.clone()].concat();
            Ok((Component { bytes, rule, inputs }, off_heap))
        }
        None => {
            let reason =
                Reason::JobManagerParts { heap: None, off_heap: Some(off_heap.bytes), flink: flink.bytes };
            let inputs = [flink.inputs.clone(), off_heap.inputs].concat();
            Err(reader.refuse_sum(reason, minus, inputs))
        }
    }
}

/// Network and checkpoint metadata: as configured, or the defaults, or what the other leaves of the off-heap memory.
fn divide(reader: &Reader<'_>, off_heap: &Component) -> Result<(Component, Component), PlanError> {
    let network = reader.size(keys::JM_NETWORK)?.component();
    let metadata = reader.size(keys::JM_METADATA)?.component();
    let both = vec![part(Name::NetworkMemory, &network), part(Name::CheckpointMetadata, &metadata)];
    if sum(&both) == u128::from(off_heap.bytes) {
        return Ok((network, metadata));
    }
    let remainder = |taken: &Component, name: Name| {
        let minus = vec![part(name, taken)];
        let bytes = off_heap.bytes.checked_sub(taken.bytes)?;
        let rule = Rule::Remainder { of: Name::OffHeap, total: off_heap.bytes, minus };
        let inputs = [off_heap.inputs.clone(), taken.inputs.clone()].concat();
        Some(Component { bytes, rule, inputs })
    };
    let divided = match (reader.is_set(keys::JM_NETWORK), reader.is_set(keys::JM_METADATA)) {
        (true, true) => None,
        (true, false) => remainder(&network, Name::NetworkMemory).map(|rest| (network.clone(), rest)),
        (false, true) => remainder(&metadata, Name::CheckpointMetadata).map(|rest| (rest, metadata.clone())),
        (false, false) if network.bytes > off_heap.bytes / 2 => {
            let rule = Rule::Half { of: Name::OffHeap, total: off_heap.bytes };
            let half = Component { bytes: off_heap.bytes / 2, rule, inputs: off_heap.inputs.clone() };
            remainder(&half, Name::NetworkMemory).map(|rest| (half, rest))
        }
        (false, false) => remainder(&network, Name::NetworkMemory).map(|rest| (network.clone(), rest)),
    };
    divided.ok_or_else(|| {
        let reason = Reason::JobManagerOffHeap { sum: sum(&both), off_heap: off_heap.bytes };
        let inputs = [network.inputs, metadata.inputs, off_heap.inputs.clone()].concat();
        reader.refuse_sum(reason, both, inputs)
    })
}

fn parts(heap: &Component, off_heap: &Component) -> Vec<Part> {
    vec![part(Name::Heap, heap), part(Name::OffHeap, off_heap)]
}
