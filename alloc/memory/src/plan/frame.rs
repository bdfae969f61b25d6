//! What both processes have in common: from total flink memory to the process and back. Stateless.
//!
//! Always: process = flink + metaspace + overhead, and the overhead is within its range.

use super::component::{Component, Name, Part, Rule};
use super::error::{PlanError, Reason};
use super::keys;
use super::reader::{Reader, SIZE_MAX, sum};
use super::{Process, Profile};

/// What is outside of flink memory, and the totals.
pub(super) struct Frame {
    pub(super) metaspace: Component,
    pub(super) overhead: Component,
    pub(super) flink: Component,
    pub(super) process: Component,
}

struct Keys {
    process: &'static str,
    metaspace: &'static str,
    overhead: (&'static str, &'static str),
    overhead_fraction: &'static str,
}

const fn keys_of(process: Process) -> Keys {
    match process {
        Process::TaskManager => Keys {
            process: keys::TM_PROCESS,
            metaspace: keys::TM_METASPACE,
            overhead: (keys::TM_OVERHEAD_MIN, keys::TM_OVERHEAD_MAX),
            overhead_fraction: keys::TM_OVERHEAD_FRACTION,
        },
        Process::JobManager => Keys {
            process: keys::JM_PROCESS,
            metaspace: keys::JM_METASPACE,
            overhead: (keys::JM_OVERHEAD_MIN, keys::JM_OVERHEAD_MAX),
            overhead_fraction: keys::JM_OVERHEAD_FRACTION,
        },
    }
}

/// Adds metaspace and overhead to a known total of flink memory: the overhead is what a configured process leaves, or a
/// fraction of the process that is still to be found.
pub(super) fn around_flink(reader: &Reader<'_>, flink: Component) -> Result<Frame, PlanError> {
    let keys = keys_of(reader.process);
    let metaspace = metaspace(reader, keys.metaspace)?;
    let inside = [part(Name::TotalFlinkMemory, &flink), part(Name::JvmMetaspace, &metaspace)];
    let base = sum(&inside);
    let too_small = |process: u64, mut inputs: Vec<_>| {
        inputs.extend(flink.inputs.iter().chain(&metaspace.inputs).cloned());
        reader.refuse_sum(Reason::ProcessTooSmall { sum: base, process }, inside.to_vec(), inputs)
    };
    let Some(base_bytes) = size(base) else { return Err(too_small(SIZE_MAX, Vec::new())) };
    if reader.is_set(keys.process) {
        let process = reader.size(keys.process)?;
        let Some(left) = process.bytes.checked_sub(base_bytes) else {
            return Err(too_small(process.bytes, vec![process.input]));
        };
        let range = reader.range(Name::JvmOverhead, Some(keys.overhead), keys.overhead_fraction)?;
        if !range.contains(left) {
            let mut inputs = vec![process.input];
            inputs.extend(flink.inputs.iter().chain(&range.inputs).cloned());
            let reason = Reason::OverheadOutOfRange { derived: left, min: range.min, max: range.max };
            return Err(reader.refuse_sum(reason, inside.to_vec(), inputs));
        }
        let process = process.component();
        let rule =
            Rule::Remainder { of: Name::TotalProcessMemory, total: process.bytes, minus: inside.to_vec() };
        let mut inputs = process.inputs.clone();
        inputs.extend(range.inputs);
        let overhead = Component { bytes: left, rule, inputs };
        return Ok(Frame { metaspace, overhead, flink, process });
    }
    let range = reader.range(Name::JvmOverhead, Some(keys.overhead), keys.overhead_fraction)?;
    let Some(overhead) = range.beside(base_bytes) else {
        let reason = Reason::OverheadOutOfRange { derived: SIZE_MAX, min: range.min, max: range.max };
        return Err(reader.refuse_sum(reason, inside.to_vec(), range.inputs));
    };
    let parts = [inside.as_slice(), &[part(Name::JvmOverhead, &overhead)]].concat();
    let Some(bytes) = size(sum(&parts)) else {
        let reason = Reason::ProcessTooSmall { sum: sum(&parts), process: SIZE_MAX };
        return Err(reader.refuse_sum(reason, parts, flink.inputs));
    };
    let process = Component { bytes, rule: Rule::Sum { of: parts }, inputs: Vec::new() };
    Ok(Frame { metaspace, overhead, flink, process })
}

/// Takes metaspace and overhead out of a known total of the process; the rest is flink memory.
pub(super) fn inside_process(reader: &Reader<'_>) -> Result<Frame, PlanError> {
    let keys = keys_of(reader.process);
    let process = reader.size(keys.process)?.component();
    let metaspace = metaspace(reader, keys.metaspace)?;
    let range = reader.range(Name::JvmOverhead, Some(keys.overhead), keys.overhead_fraction)?;
    let overhead = range.of(Name::TotalProcessMemory, process.bytes);
    let outside = [part(Name::JvmMetaspace, &metaspace), part(Name::JvmOverhead, &overhead)];
    let left = size(sum(&outside)).and_then(|outside| process.bytes.checked_sub(outside));
    let Some(bytes) = left else {
        let inputs = [process.inputs, metaspace.inputs, overhead.inputs].concat();
        let reason = Reason::NoRoomForFlink { sum: sum(&outside), process: process.bytes };
        return Err(reader.refuse_sum(reason, outside.to_vec(), inputs));
    };
    let rule =
        Rule::Remainder { of: Name::TotalProcessMemory, total: process.bytes, minus: outside.to_vec() };
    let flink = Component { bytes, rule, inputs: process.inputs.clone() };
    Ok(Frame { metaspace, overhead, flink, process })
}

/// Natively there is none, whatever is configured; the plan warns about it.
fn metaspace(reader: &Reader<'_>, key: &'static str) -> Result<Component, PlanError> {
    match reader.profile {
        Profile::Flink => Ok(reader.size(key)?.component()),
        Profile::Native => Ok(Component { bytes: 0, rule: Rule::NoJvm, inputs: Vec::new() }),
    }
}

pub(super) fn part(component: Name, of: &Component) -> Part {
    Part { component, bytes: of.bytes }
}

/// A sum, if it is a size.
pub(super) fn size(sum: u128) -> Option<u64> {
    u64::try_from(sum).ok().filter(|bytes| *bytes <= SIZE_MAX)
}
