//! Archived records: a u32 length, then an rkyv archive with its root at the end. Nothing here owns state.
//!
//! Always true: a record is written whole or the slot keeps its length; an archive is handed out only after it was
//! validated within exactly the bytes its length states.

use std::mem::{MaybeUninit, size_of};

use rkyv::api::low::LowValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Failure, Strategy};
use rkyv::ser::WriterExt;
use rkyv::{Portable, Serialize};

use crate::error::{ReadError, WriteError};
use crate::field::{Field, Nested};
use crate::limits::{ARCHIVE_BYTES_MAX, PREFIX_BYTES, SCRATCH_BYTES_MAX, SCRATCH_INLINE_BYTES};
use crate::pack::{PackFault, Packer};
use crate::schema::Shape;
use crate::slot::Slot;

/// Appends `record` as a length and an archive.
///
/// # Errors
/// [`WriteError::Full`] with the bytes needed, [`WriteError::Scratch`], [`WriteError::TooLong`]; the slot is unchanged.
#[inline]
pub fn write<T: Field>(record: &T, out: &mut Slot<'_>) -> Result<(), WriteError> {
    write_root(record, out)
}

/// As [`write`], for anything that can be archived.
#[inline]
pub(crate) fn write_root<T>(value: &T, out: &mut Slot<'_>) -> Result<(), WriteError>
where
    T: for<'a> Serialize<Packer<'a>>,
{
    let mut scratch = [const { MaybeUninit::uninit() }; SCRATCH_INLINE_BYTES];
    match attempt(value, out, &mut scratch) {
        Ok(outcome) => outcome,
        Err(_) => write_with_full_scratch(value, out),
    }
}

/// The second attempt, out of line so that its stack frame costs ordinary records nothing.
#[cold]
#[inline(never)]
fn write_with_full_scratch<T>(value: &T, out: &mut Slot<'_>) -> Result<(), WriteError>
where
    T: for<'a> Serialize<Packer<'a>>,
{
    let mut scratch = [const { MaybeUninit::uninit() }; SCRATCH_BYTES_MAX];
    attempt(value, out, &mut scratch).unwrap_or_else(|needed| {
        Err(WriteError::Scratch { needed: clamp(needed), limit: SCRATCH_BYTES_MAX as u32 })
    })
}

/// Writes with the given scratch. `Err` is the scratch that would have been needed at the point where it ran out.
#[inline]
pub(crate) fn attempt<T>(
    value: &T,
    out: &mut Slot<'_>,
    scratch: &mut [MaybeUninit<u8>],
) -> Result<Result<(), WriteError>, usize>
where
    T: for<'a> Serialize<Packer<'a>>,
{
    let rest = out.rest();
    let (prefix, body) = match rest.split_first_chunk_mut::<{ PREFIX_BYTES as usize }>() {
        Some((prefix, body)) => (Some(prefix), body),
        None => (None, <&mut [u8]>::default()),
    };
    let mut packer = Packer::new(body, scratch);
    match pack_root(value, &mut packer) {
        Ok(()) => {}
        Err(PackFault::Scratch { needed }) => return Err(needed),
        Err(PackFault::TooLong) => return Ok(Err(too_long())),
    }
    let len = packer.position() as u32;
    let fits = packer.fits();
    match prefix {
        Some(prefix) if fits => {
            *prefix = len.to_le_bytes();
            out.advance(PREFIX_BYTES + len);
            Ok(Ok(()))
        }
        _ => Ok(Err(WriteError::Full { needed: PREFIX_BYTES + len })),
    }
}

#[inline]
fn pack_root<'a, T>(value: &T, packer: &mut Packer<'a>) -> Result<(), PackFault>
where
    T: Serialize<Packer<'a>>,
{
    const {
        assert!(
            align_of::<T::Archived>() == 1,
            "an archived type must have alignment 1: enable rkyv's `unaligned`"
        );
    }
    let resolver = value.serialize(packer)?;
    // SAFETY: S-6. The resolver comes from serializing this very value, and alignment 1 holds at every position.
    unsafe { packer.resolve_aligned(value, resolver) }?;
    Ok(())
}

/// The next archive, in place, checked; `None` at the end of the payload. `position` moves only on success.
///
/// # Errors
/// Any [`ReadError`] but `Ragged` and `Misaligned`.
#[inline]
pub fn read<'a, T: Field>(bytes: &'a [u8], position: &mut u32) -> Result<Option<&'a Nested<T>>, ReadError> {
    read_root::<Nested<T>>(bytes, position, T::SHAPE)
}

/// As [`read`], for any archived type. `shape` names it and says whether its length is fixed.
#[inline]
pub(crate) fn read_root<'a, A>(
    bytes: &'a [u8],
    position: &mut u32,
    shape: Shape,
) -> Result<Option<&'a A>, ReadError>
where
    A: Portable + for<'b> CheckBytes<LowValidator<'b, Failure>>,
{
    let start = *position as usize;
    let Some(rest) = bytes.get(start..) else { return Err(position_error(bytes, *position)) };
    let Some((prefix, rest)) = rest.split_first_chunk::<{ PREFIX_BYTES as usize }>() else {
        if rest.is_empty() {
            return Ok(None);
        }
        return Err(truncated(shape, start, PREFIX_BYTES as u64, rest.len()));
    };
    let len = u32::from_le_bytes(*prefix);
    let Some(archive) = rest.get(..len as usize) else {
        return Err(truncated(
            shape,
            start,
            PREFIX_BYTES as u64 + len as u64,
            PREFIX_BYTES as usize + rest.len(),
        ));
    };
    let root = size_of::<A>();
    if archive.len() < root || (shape.is_fixed() && archive.len() != root) {
        let (record, position, expected) = (shape.name(), *position, root as u32);
        return Err(ReadError::Length { record, position, found: len, expected, exact: shape.is_fixed() });
    }
    let end = start + PREFIX_BYTES as usize + archive.len();
    let Ok(end) = u32::try_from(end) else { return Err(payload_too_long(bytes.len())) };
    match rkyv::api::low::access::<A, Failure>(archive) {
        Ok(view) => {
            *position = end;
            Ok(Some(view))
        }
        Err(Failure) => Err(ReadError::Invalid { record: shape.name(), position: *position, len }),
    }
}

/// The value behind a checked archive. Allocates what the value owns.
///
/// # Errors
/// [`ReadError::Invalid`], for a type whose own deserialization refuses the value.
#[inline]
pub fn to_owned<T: Field>(archived: &Nested<T>) -> Result<T, ReadError> {
    use rkyv::Deserialize;
    let result: Result<T, Failure> = archived.deserialize(Strategy::wrap(&mut ()));
    let len = size_of::<Nested<T>>() as u32;
    result.map_err(|Failure| ReadError::Invalid { record: T::SHAPE.name(), position: 0, len })
}

#[cold]
fn too_long() -> WriteError {
    WriteError::TooLong { limit: ARCHIVE_BYTES_MAX as u32 }
}

#[cold]
pub(crate) fn position_error(bytes: &[u8], position: u32) -> ReadError {
    ReadError::Position { position, len: clamp(bytes.len()) }
}

#[cold]
pub(crate) fn payload_too_long(len: usize) -> ReadError {
    ReadError::TooLong { len: len as u64, limit: u32::MAX }
}

#[cold]
pub(crate) fn truncated(shape: Shape, start: usize, needed: u64, available: usize) -> ReadError {
    let record = shape.name();
    ReadError::Truncated { record, position: clamp(start), needed, available: clamp(available) }
}

pub(crate) fn clamp(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
