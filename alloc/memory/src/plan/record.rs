//! The largest record of a slot, and whether its network memory can hold regions for it. Stateless.
//!
//! Always: the result is zero (records fit a segment) or above the segment size and at most `NATIVE_RECORD_BYTES_MAX`.

use super::Shape;
use super::error::{PlanError, Reason};
use super::keys;
use super::reader::Reader;
use crate::limits::{
    NATIVE_RECORD_BYTES_MAX, NATIVE_RECORD_FRAME_BYTES, RECORD_SHARE, SEGMENTS_PER_EXCHANGE_MIN,
};

/// Bytes of the largest record; zero if that fits a segment.
///
/// By default it is so small a part of a slot that the regions of a job with a dozen edges leave most of the slot to its
/// ordinary segments; where that part is no more than a segment, there are none.
///
/// # Errors
/// A configured size is no size, or more than a slot can have: with less than one region for a way in and one for a way out,
/// no job could start.
pub(super) fn record_max(reader: &Reader<'_>, shape: &Shape, network: u64) -> Result<u64, PlanError> {
    let segment = shape.segment;
    let slot = network / u64::from(shape.slots.max(1));
    if !reader.is_set(keys::TM_RECORD) {
        let share = (slot / RECORD_SHARE).min(NATIVE_RECORD_BYTES_MAX);
        let default = share.checked_ilog2().map_or(0, |power| 1 << power);
        return Ok(if default > segment { default } else { 0 });
    }
    let value = reader.size(keys::TM_RECORD)?;
    let found = value.bytes;
    if found <= segment {
        return Ok(0);
    }
    if found > NATIVE_RECORD_BYTES_MAX {
        return Err(reader.refuse(Reason::RecordSize { found, room: None }, vec![value.input]));
    }
    let region = (found + NATIVE_RECORD_FRAME_BYTES).div_ceil(segment);
    let buffers = slot / segment;
    if 2 * region + SEGMENTS_PER_EXCHANGE_MIN > buffers {
        let reason = Reason::RecordSize { found, room: Some((region, buffers)) };
        let inputs = [keys::TM_NETWORK_MIN, keys::TM_NETWORK_MAX, keys::TM_SLOTS];
        let inputs = inputs.into_iter().filter_map(|key| reader.settings.input(key));
        return Err(reader.refuse(reason, std::iter::once(value.input).chain(inputs).collect()));
    }
    Ok(found)
}
