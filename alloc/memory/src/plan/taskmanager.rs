//! The derivation of a TaskManager's components. Stateless.
//!
//! Order of authority: task heap and managed memory together, then total flink memory, then total process memory.
//!
//! Always: flink = framework heap + task heap + framework off-heap + task off-heap + network + managed.

use super::Profile;
use super::component::{Component, Name, Part, Rule};
use super::error::{PlanError, Reason};
use super::frame::{Frame, around_flink, inside_process, part, size};
use super::keys;
use super::reader::{Range, Reader, SIZE_MAX, inputs_of, sum};

/// All components.
pub(super) struct Derived {
    pub(super) framework_heap: Component,
    pub(super) task_heap: Component,
    pub(super) framework_off_heap: Component,
    pub(super) task_off_heap: Component,
    pub(super) network: Component,
    pub(super) managed: Component,
    pub(super) frame: Frame,
}

/// Everything inside flink memory.
struct Inside {
    framework_heap: Component,
    task_heap: Component,
    framework_off_heap: Component,
    task_off_heap: Component,
    network: Component,
    managed: Component,
}

impl Inside {
    fn parts(&self) -> Vec<Part> {
        vec![
            part(Name::FrameworkHeap, &self.framework_heap),
            part(Name::TaskHeap, &self.task_heap),
            part(Name::FrameworkOffHeap, &self.framework_off_heap),
            part(Name::TaskOffHeap, &self.task_off_heap),
            part(Name::NetworkMemory, &self.network),
            part(Name::ManagedMemory, &self.managed),
        ]
    }
}

/// `network_unit`: what the network memory is rounded down to where it is not an exact remainder; 1 leaves it as it is.
pub(super) fn derive(reader: &Reader<'_>, network_unit: u64) -> Result<Derived, PlanError> {
    let (inside, frame) = if reader.is_set(keys::TM_TASK_HEAP) && reader.is_set(keys::TM_MANAGED) {
        let (inside, flink) = from_parts(reader, network_unit)?;
        (inside, around_flink(reader, flink)?)
    } else if reader.is_set(keys::TM_FLINK) {
        let flink = reader.size(keys::TM_FLINK)?.component();
        let inside = from_flink(reader, &flink, network_unit)?;
        (inside, around_flink(reader, flink)?)
    } else if reader.is_set(keys::TM_PROCESS) || reader.profile == Profile::Native {
        let frame = inside_process(reader)?;
        (from_flink(reader, &frame.flink, network_unit)?, frame)
    } else {
        return Err(reader.refuse(Reason::NothingConfigured, Vec::new()));
    };
    if reader.profile == Profile::Native {
        check_task_heap(reader, &inside, &frame)?;
    }
    let Inside { framework_heap, task_heap, framework_off_heap, task_off_heap, network, managed } = inside;
    Ok(Derived { framework_heap, task_heap, framework_off_heap, task_off_heap, network, managed, frame })
}

/// Task heap and managed memory are configured: the network is what a configured total leaves, or a fraction of a total
/// that is still to be found.
fn from_parts(reader: &Reader<'_>, network_unit: u64) -> Result<(Inside, Component), PlanError> {
    let task_heap = reader.size(keys::TM_TASK_HEAP)?.component();
    let managed = reader.size(keys::TM_MANAGED)?.component();
    let framework_heap = reader.size(keys::TM_FRAMEWORK_HEAP)?.component();
    let framework_off_heap = reader.size(keys::TM_FRAMEWORK_OFF_HEAP)?.component();
    let task_off_heap = reader.size(keys::TM_TASK_OFF_HEAP)?.component();
    let others = [
        (Name::FrameworkHeap, &framework_heap),
        (Name::FrameworkOffHeap, &framework_off_heap),
        (Name::TaskHeap, &task_heap),
        (Name::TaskOffHeap, &task_off_heap),
        (Name::ManagedMemory, &managed),
    ];
    if reader.is_set(keys::TM_FLINK) {
        let flink = reader.size(keys::TM_FLINK)?.component();
        let network = network_remainder(reader, &others, &flink)?;
        let inside =
            Inside { framework_heap, task_heap, framework_off_heap, task_off_heap, network, managed };
        return Ok((inside, flink));
    }
    let parts = parts_of(&others);
    let Some(base) = size(sum(&parts)) else {
        return Err(exceed(reader, &others, SIZE_MAX, Vec::new()));
    };
    let range = network_range(reader)?;
    let Some(mut network) = range.beside(base) else {
        let reason = Reason::NetworkOutOfRange { derived: SIZE_MAX, min: range.min, max: range.max };
        return Err(reader.refuse_sum(reason, parts, range.inputs));
    };
    range.round(&mut network, network_unit);
    let inside = Inside { framework_heap, task_heap, framework_off_heap, task_off_heap, network, managed };
    let parts = inside.parts();
    let Some(bytes) = size(sum(&parts)) else {
        let reason = Reason::PartsExceedFlink { sum: sum(&parts), flink: SIZE_MAX };
        return Err(reader.refuse_sum(reason, parts, range.inputs));
    };
    let flink = Component { bytes, rule: Rule::Sum { of: parts }, inputs: Vec::new() };
    Ok((inside, flink))
}

/// Total flink memory is known: the task heap is what the others leave, or, where it is configured, the network is.
fn from_flink(reader: &Reader<'_>, flink: &Component, network_unit: u64) -> Result<Inside, PlanError> {
    let framework_heap = reader.size(keys::TM_FRAMEWORK_HEAP)?.component();
    let framework_off_heap = reader.size(keys::TM_FRAMEWORK_OFF_HEAP)?.component();
    let task_off_heap = reader.size(keys::TM_TASK_OFF_HEAP)?.component();
    if reader.is_set(keys::TM_TASK_HEAP) {
        let task_heap = reader.size(keys::TM_TASK_HEAP)?.component();
        let managed = managed(reader, flink)?;
        let others = [
            (Name::FrameworkHeap, &framework_heap),
            (Name::FrameworkOffHeap, &framework_off_heap),
            (Name::TaskHeap, &task_heap),
            (Name::TaskOffHeap, &task_off_heap),
            (Name::ManagedMemory, &managed),
        ];
        let network = network_remainder(reader, &others, flink)?;
        return Ok(Inside { framework_heap, task_heap, framework_off_heap, task_off_heap, network, managed });
    }
    let managed = managed(reader, flink)?;
    let range = network_range(reader)?;
    let mut network = range.of(Name::TotalFlinkMemory, flink.bytes);
    range.round(&mut network, network_unit);
    let others = [
        (Name::FrameworkHeap, &framework_heap),
        (Name::FrameworkOffHeap, &framework_off_heap),
        (Name::TaskOffHeap, &task_off_heap),
        (Name::ManagedMemory, &managed),
        (Name::NetworkMemory, &network),
    ];
    let minus = parts_of(&others);
    let left = size(sum(&minus)).and_then(|others| flink.bytes.checked_sub(others));
    let Some(bytes) = left else {
        return Err(exceed(reader, &others, flink.bytes, flink.inputs.clone()));
    };
    let rule = Rule::Remainder { of: Name::TotalFlinkMemory, total: flink.bytes, minus };
    let task_heap = Component { bytes, rule, inputs: flink.inputs.clone() };
    Ok(Inside { framework_heap, task_heap, framework_off_heap, task_off_heap, network, managed })
}

fn managed(reader: &Reader<'_>, flink: &Component) -> Result<Component, PlanError> {
    if reader.is_set(keys::TM_MANAGED) {
        return Ok(reader.size(keys::TM_MANAGED)?.component());
    }
    let range = reader.range(Name::ManagedMemory, None, keys::TM_MANAGED_FRACTION)?;
    Ok(range.of(Name::TotalFlinkMemory, flink.bytes))
}

pub(super) fn network_range(reader: &Reader<'_>) -> Result<Range, PlanError> {
    let bounds = (keys::TM_NETWORK_MIN, keys::TM_NETWORK_MAX);
    reader.range(Name::NetworkMemory, Some(bounds), keys::TM_NETWORK_FRACTION)
}

/// The network as what the other parts leave of flink memory, which must be within its range.
fn network_remainder(
    reader: &Reader<'_>,
    others: &[(Name, &Component)],
    flink: &Component,
) -> Result<Component, PlanError> {
    let minus = parts_of(others);
    let left = size(sum(&minus)).and_then(|others| flink.bytes.checked_sub(others));
    let Some(bytes) = left else {
        return Err(exceed(reader, others, flink.bytes, flink.inputs.clone()));
    };
    let range = network_range(reader)?;
    if !range.contains(bytes) {
        let mut inputs = flink.inputs.clone();
        inputs.extend(inputs_of(others.iter().map(|(_, component)| *component)));
        inputs.extend(range.inputs);
        let reason = Reason::NetworkOutOfRange { derived: bytes, min: range.min, max: range.max };
        return Err(reader.refuse_sum(reason, minus, inputs));
    }
    let rule = Rule::Remainder { of: Name::TotalFlinkMemory, total: flink.bytes, minus };
    let inputs = [flink.inputs.clone(), range.inputs].concat();
    Ok(Component { bytes, rule, inputs })
}

/// What Flink accepts down to nothing: a task heap that cannot hold a job.
fn check_task_heap(reader: &Reader<'_>, inside: &Inside, frame: &Frame) -> Result<(), PlanError> {
    let min = reader.size(keys::TM_TASK_HEAP_MIN)?;
    let found = inside.task_heap.bytes;
    if found >= min.bytes {
        return Ok(());
    }
    let mut inputs = frame.flink.inputs.clone();
    inputs.extend(inside.task_heap.inputs.iter().cloned());
    inputs.push(min.input);
    Err(reader.refuse_sum(Reason::TaskHeapBelowMin { found, min: min.bytes }, inside.parts(), inputs))
}

fn exceed(
    reader: &Reader<'_>,
    others: &[(Name, &Component)],
    flink: u64,
    mut inputs: Vec<super::Input>,
) -> PlanError {
    let parts = parts_of(others);
    inputs.extend(inputs_of(others.iter().map(|(_, component)| *component)));
    reader.refuse_sum(Reason::PartsExceedFlink { sum: sum(&parts), flink }, parts, inputs)
}

fn parts_of(components: &[(Name, &Component)]) -> Vec<Part> {
    components.iter().map(|(name, component)| part(*name, component)).collect()
}
