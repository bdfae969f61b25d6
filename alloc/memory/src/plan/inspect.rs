//! Looks over a plan that holds for what is odd. Stateless.

use super::component::{Component, Name, Rule};
use super::keys::{self, Scope};
use super::reader::Reader;
use super::taskmanager::network_range;
use super::warning::Warning;
use super::{JobManagerPlan, Profile, Request, TaskManagerPlan, fraction};
use crate::limits::{NATIVE_SHARD_BYTES_MAX, SEGMENTS_PER_EXCHANGE_MIN};

const MIB: u64 = 1 << 20;

pub(super) fn taskmanager(
    request: &Request<'_>,
    reader: &Reader<'_>,
    plan: &TaskManagerPlan,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let native = request.profile == Profile::Native;
    let recommended = request.costs.task_heap_min(&plan.shape).bytes;
    if plan.task_heap.bytes < recommended {
        warnings.push(Warning::TinyTaskHeap { bytes: plan.task_heap.bytes, recommended });
    }
    if let Rule::Remainder { total, .. } = plan.network.rule
        && let Ok(range) = network_range(reader)
    {
        let (bytes, by_fraction) = (plan.network.bytes, range.of(Name::TotalFlinkMemory, total).bytes);
        if bytes != by_fraction {
            warnings.push(Warning::NetworkIsRemainder { bytes, by_fraction });
        }
    }
    overhead(reader, keys::TM_OVERHEAD_FRACTION, &plan.overhead, &mut warnings);
    let (slot, needed) = (plan.per_slot(), SEGMENTS_PER_EXCHANGE_MIN);
    if slot.network_buffers < needed {
        warnings.push(Warning::FewBuffers { buffers: slot.network_buffers, needed });
    }
    if native {
        if slot.network_memory > NATIVE_SHARD_BYTES_MAX {
            let (bytes, most) = (slot.network_memory, NATIVE_SHARD_BYTES_MAX);
            warnings.push(Warning::LargeShard { bytes, most });
        }
        let needs = [
            ("framework off-heap", &plan.framework_off_heap, keys::TM_FRAMEWORK_OFF_HEAP),
            ("overhead", &plan.overhead, keys::TM_OVERHEAD_MIN),
        ];
        below_stated(reader, &needs, &mut warnings);
    } else if let Ok(shuffle) = reader.size(keys::TM_BATCH_SHUFFLE)
        && shuffle.bytes >= plan.framework_off_heap.bytes
    {
        let (bytes, framework_off_heap) = (shuffle.bytes, plan.framework_off_heap.bytes);
        warnings.push(Warning::BatchShuffleTooLarge { bytes, framework_off_heap });
    }
    warnings.extend(plan.weights.unknown.iter().map(|name| Warning::UnknownConsumer { name: name.clone() }));
    if reader.is_set(keys::TM_MANAGED)
        && let Some(setting) = reader.settings.get(keys::TM_MANAGED_FRACTION)
    {
        let (key, origin) = (setting.key, setting.origin.clone());
        warnings.push(Warning::WithoutEffect {
            key,
            origin,
            why: "the size of managed memory is configured",
        });
    }
    settings(request, &mut warnings);
    warnings
}

pub(super) fn jobmanager(request: &Request<'_>, reader: &Reader<'_>, plan: &JobManagerPlan) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let recommended = match request.profile {
        Profile::Flink => 128 * MIB,
        Profile::Native => 32 * MIB,
    };
    if plan.heap.bytes < recommended {
        warnings.push(Warning::TinyHeap { bytes: plan.heap.bytes, recommended });
    }
    overhead(reader, keys::JM_OVERHEAD_FRACTION, &plan.overhead, &mut warnings);
    if request.profile == Profile::Native {
        below_stated(reader, &[("overhead", &plan.overhead, keys::JM_OVERHEAD_MIN)], &mut warnings);
    }
    settings(request, &mut warnings);
    warnings
}

fn overhead(reader: &Reader<'_>, key: &'static str, overhead: &Component, warnings: &mut Vec<Warning>) {
    let Rule::Remainder { total, .. } = overhead.rule else { return };
    let configured = reader.settings.get(key).and_then(|setting| fraction::parse(&setting.value));
    if let Some(by_fraction) = configured.and_then(|fraction| fraction::multiply(total, fraction))
        && by_fraction != overhead.bytes
    {
        warnings.push(Warning::OverheadIsRemainder { bytes: overhead.bytes, by_fraction });
    }
}

fn below_stated(
    reader: &Reader<'_>,
    needs: &[(&'static str, &Component, &'static str)],
    warnings: &mut Vec<Warning>,
) {
    for (component, found, key) in needs {
        if let Some(stated) = reader.stated.get(key)
            && found.bytes < stated.needed
        {
            warnings.push(Warning::BelowStated { component, bytes: found.bytes, stated: stated.needed });
        }
    }
}

/// Keys that mean nothing in this profile, and values that nobody could have read.
fn settings(request: &Request<'_>, warnings: &mut Vec<Warning>) {
    for setting in request.settings.of_process(request.process) {
        let Some(known) = keys::known(setting.key) else { continue };
        let (key, origin) = (setting.key, setting.origin.clone());
        let metaspace = matches!(key, keys::TM_METASPACE | keys::JM_METASPACE);
        match (request.profile, known.scope) {
            (Profile::Native, Scope::Flink) if metaspace => {
                let value = setting.value.clone();
                warnings.push(Warning::MetaspaceWithoutJvm { value, origin });
                continue;
            }
            (Profile::Native, Scope::Flink) => {
                warnings.push(Warning::WithoutEffect {
                    key,
                    origin,
                    why: "the native profile has no such thing",
                });
                continue;
            }
            (Profile::Flink, Scope::Native) => {
                warnings.push(Warning::WithoutEffect { key, origin, why: "Flink has no such key" });
                continue;
            }
            _ => {}
        }
        if !known.kind.accepts(&setting.value) {
            warnings.push(Warning::Malformed { key, origin, expected: known.kind.name() });
        }
    }
}
