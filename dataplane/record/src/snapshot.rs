//! State values in snapshots: the same archive as on an edge, a u32 length in front, no hash (whoever writes the file
//! hashes whole key groups). Nothing here owns state.
//!
//! Always true: a value is appended whole or the vector is as before.

use std::mem::MaybeUninit;

use crate::archive::{attempt, clamp, read, to_owned, truncated};
use crate::error::{ReadError, WriteError};
use crate::field::Field;
use crate::limits::{ARCHIVE_BYTES_MAX, PREFIX_BYTES, SCRATCH_BYTES_MAX, SNAPSHOT_SCRATCH_BYTES_MAX};
use crate::slot::Slot;

/// Room made for a value before its length is known; one that needs more is written a second time.
const GUESS_BYTES: usize = 64;

/// Appends `value` to `out`.
///
/// ```
/// use tidegate_record::{from_snapshot, to_snapshot};
/// let mut bytes = Vec::new();
/// to_snapshot(&("a key".to_string(), 3u64), &mut bytes).unwrap();
/// to_snapshot(&("another".to_string(), 4u64), &mut bytes).unwrap();
/// let (first, used) = from_snapshot::<(String, u64)>(&bytes).unwrap();
/// let (second, _) = from_snapshot::<(String, u64)>(&bytes[used..]).unwrap();
/// assert_eq!((first.1, second.0.as_str()), (3, "another"));
/// ```
///
/// # Errors
/// [`WriteError::TooLong`] above 1 GiB, [`WriteError::Scratch`] for vectors of many millions of strings.
pub fn to_snapshot<T: Field>(value: &T, out: &mut Vec<u8>) -> Result<(), WriteError> {
    let start = out.len();
    let mut room = GUESS_BYTES;
    let mut scratch = Vec::new();
    loop {
        out.resize(start + room, 0);
        let mut slot = Slot::new(&mut out[start..], 0);
        let outcome = if scratch.is_empty() {
            let mut inline = [const { MaybeUninit::uninit() }; SCRATCH_BYTES_MAX];
            attempt(value, &mut slot, &mut inline)
        } else {
            attempt(value, &mut slot, &mut scratch)
        };
        let written = slot.len() as usize;
        match outcome {
            Ok(Ok(())) => {
                out.truncate(start + written);
                return Ok(());
            }
            Ok(Err(WriteError::Full { needed })) if (needed as usize) <= ARCHIVE_BYTES_MAX => {
                room = needed as usize
            }
            Ok(Err(WriteError::Full { .. })) => {
                out.truncate(start);
                return Err(WriteError::TooLong { limit: ARCHIVE_BYTES_MAX as u32 });
            }
            Ok(Err(error)) => {
                out.truncate(start);
                return Err(error);
            }
            Err(needed) if needed > SNAPSHOT_SCRATCH_BYTES_MAX => {
                out.truncate(start);
                return Err(WriteError::Scratch {
                    needed: clamp(needed),
                    limit: SNAPSHOT_SCRATCH_BYTES_MAX as u32,
                });
            }
            // Twice what was asked for at that point, since the walk was not over.
            Err(needed) => {
                scratch.resize((needed * 2).min(SNAPSHOT_SCRATCH_BYTES_MAX), MaybeUninit::uninit())
            }
        }
    }
}

/// The value at the start of `bytes`, and how many bytes it took.
///
/// # Errors
/// A [`ReadError`] for anything that is not an archive of `T`, an empty slice included.
pub fn from_snapshot<T: Field>(bytes: &[u8]) -> Result<(T, usize), ReadError> {
    // A value is at most 1 GiB and its prefix four bytes, so a longer snapshot is cut to what a position can address.
    let window = &bytes[..bytes.len().min(u32::MAX as usize)];
    let mut position = 0;
    match read::<T>(window, &mut position)? {
        Some(archived) => Ok((to_owned::<T>(archived)?, position as usize)),
        None => Err(truncated(T::SHAPE, 0, PREFIX_BYTES.into(), 0)),
    }
}
