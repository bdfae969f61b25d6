//! The other end of a plan: a worker takes final values and derives nothing. Stateless.
//!
//! Always: what is accepted has every component configured, and adds up to the totals where those are configured too.

use super::component::Name;
use super::error::{PlanError, Reason};
use super::keys;
use super::reader::{Reader, sum};
use super::{Part, Plan, Process, Request, reader, resolve};

/// Keys that a final plan of a TaskManager must have.
const REQUIRED: [&str; 7] = [
    keys::TM_FRAMEWORK_HEAP,
    keys::TM_FRAMEWORK_OFF_HEAP,
    keys::TM_TASK_HEAP,
    keys::TM_TASK_OFF_HEAP,
    keys::TM_MANAGED,
    keys::TM_NETWORK_MIN,
    keys::TM_NETWORK_MAX,
];

/// Resolves the final values that a TaskManager was started with.
///
/// # Errors
/// E10 if they are not final; E8 if a configured total is not the sum of the parts; otherwise as [`resolve`].
pub fn accept_final(request: &Request<'_>) -> Result<Plan, PlanError> {
    if request.process == Process::TaskManager {
        let reader = reader(request);
        check_final(&reader)?;
        check_totals(&reader)?;
    }
    resolve(request)
}

fn check_final(reader: &Reader<'_>) -> Result<(), PlanError> {
    let missing = REQUIRED.into_iter().find(|key| !reader.is_set(key));
    if missing.is_some() {
        return Err(reader.refuse(Reason::NotResolved { missing }, Vec::new()));
    }
    let (min, max) = (reader.size(keys::TM_NETWORK_MIN)?, reader.size(keys::TM_NETWORK_MAX)?);
    if min.bytes == max.bytes {
        return Ok(());
    }
    Err(reader.refuse(Reason::NotResolved { missing: None }, vec![min.input, max.input]))
}

fn check_totals(reader: &Reader<'_>) -> Result<(), PlanError> {
    if !reader.is_set(keys::TM_FLINK) {
        return Ok(());
    }
    let configured = reader.size(keys::TM_FLINK)?;
    let part = |component: Name, key: &'static str| -> Result<Part, PlanError> {
        Ok(Part { component, bytes: reader.size(key)?.bytes })
    };
    let parts = vec![
        part(Name::FrameworkHeap, keys::TM_FRAMEWORK_HEAP)?,
        part(Name::TaskHeap, keys::TM_TASK_HEAP)?,
        part(Name::FrameworkOffHeap, keys::TM_FRAMEWORK_OFF_HEAP)?,
        part(Name::TaskOffHeap, keys::TM_TASK_OFF_HEAP)?,
        part(Name::NetworkMemory, keys::TM_NETWORK_MIN)?,
        part(Name::ManagedMemory, keys::TM_MANAGED)?,
    ];
    if sum(&parts) == u128::from(configured.bytes) {
        return Ok(());
    }
    let reason = Reason::PartsDoNotAddUp {
        sum: sum(&parts),
        total: Name::TotalFlinkMemory,
        configured: configured.bytes,
    };
    Err(reader.refuse_sum(reason, parts, vec![configured.input]))
}
