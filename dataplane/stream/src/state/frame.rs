//! The frames of a snapshot: some entries of one key group. No state.
//!
//! A frame is `magic u32, group u32, entries u32, len u32`, little-endian, and `len` bytes of entries, each the key and the state
//! in snapshot form. Always: what is read back is checked, key by key, before it is believed.

use hashbrown::HashTable;
use tidegate_record::{Field, Key, from_snapshot, to_snapshot};

use super::Cell;
use crate::error::{Fault, TaskError};
use crate::limits::{FRAME_BYTES, STATE_ENTRY_MAX};
use crate::router::Groups;

const MAGIC: u32 = u32::from_le_bytes(*b"TGkg");
const HEADER: usize = 16;

/// Builds one frame of `table` from `bucket` on; gives the bucket to go on from.
pub(super) fn fill_frame<K: Key, C: Cell>(
    frame: &mut Vec<u8>,
    group: u32,
    table: &HashTable<(K, C)>,
    mut bucket: usize,
) -> Result<usize, TaskError> {
    debug_assert!(frame.is_empty(), "a frame is built once the last one is sent");
    frame.extend_from_slice(&[0; HEADER]);
    let mut entries = 0u32;
    while bucket < table.num_buckets() && frame.len() < FRAME_BYTES {
        if let Some((key, cell)) = table.get_bucket(bucket)
            && let Some(value) = cell.value()
        {
            let before = frame.len();
            let written = to_snapshot(key, frame).and_then(|()| to_snapshot(value, frame));
            written.map_err(|error| too_large(key, group, &error.to_string()))?;
            let len = frame.len() - before;
            if len > STATE_ENTRY_MAX {
                return Err(too_large(
                    key,
                    group,
                    &format!("it takes {len} bytes, at most {STATE_ENTRY_MAX} are kept"),
                ));
            }
            entries += 1;
        }
        bucket += 1;
    }
    let len = (frame.len() - HEADER) as u32;
    for (place, word) in frame.chunks_exact_mut(4).zip([MAGIC, group, entries, len]) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    Ok(bucket)
}

/// The state of one key cannot be part of a snapshot, of this one or any other.
#[cold]
fn too_large(key: &impl Key, group: u32, what: &str) -> TaskError {
    let hash = key.hash();
    let message = format!(
        "the state of one key (hash {hash:#018x}, key group {group}): {what}; split it over several keys"
    );
    TaskError::new(Fault::TooLarge, message)
}

/// A frame as it was read: its header is sound, its entries are not looked at yet.
pub(super) struct Frame<'a> {
    pub(super) group: u32,
    pub(super) entries: u32,
    pub(super) bytes: &'a [u8],
    offset: usize,
    pub(super) end: usize,
}

impl<'a> Frame<'a> {
    /// The frame at `offset`, none at the end.
    pub(super) fn parse(bytes: &'a [u8], offset: usize) -> Result<Option<Self>, TaskError> {
        let rest = &bytes[offset..];
        if rest.is_empty() {
            return Ok(None);
        }
        let Some((header, body)) = rest.split_at_checked(HEADER) else {
            return Err(corrupt(offset, "cut header"));
        };
        let mut words = header.chunks_exact(4).map(|word| {
            u32::from_le_bytes(word.try_into().expect("invariant: a chunk of four is four bytes"))
        });
        let mut word = || words.next().expect("invariant: a header has four words");
        let (magic, group, entries, len) = (word(), word(), word(), word());
        if magic != MAGIC {
            return Err(corrupt(offset, "no frame starts here"));
        }
        let Some(bytes) = body.get(..len as usize) else { return Err(corrupt(offset, "cut frame")) };
        Ok(Some(Frame { group, entries, bytes, offset, end: offset + HEADER + len as usize }))
    }

    /// Adds its entries to `table`.
    pub(super) fn read_into<K: Key, C: Cell>(
        &self,
        table: &mut HashTable<(K, C)>,
        grouping: Groups,
    ) -> Result<(), TaskError> {
        let mut rest = self.bytes;
        for _ in 0..self.entries {
            let key: K = take(&mut rest, self.offset)?;
            let value: C::Value = take(&mut rest, self.offset)?;
            let hash = key.hash();
            if grouping.of(hash) != self.group {
                return Err(corrupt(
                    self.offset,
                    "a key of another group: was the max parallelism another one?",
                ));
            }
            if table.find(hash, |(known, _)| *known == key).is_some() {
                return Err(corrupt(self.offset, "a key twice"));
            }
            table.insert_unique(hash, (key, C::with(value)), |(key, _)| key.hash());
        }
        if rest.is_empty() { Ok(()) } else { Err(corrupt(self.offset, "bytes behind the last entry")) }
    }
}

fn take<T: Field>(rest: &mut &[u8], offset: usize) -> Result<T, TaskError> {
    let (value, used) = from_snapshot::<T>(rest).map_err(|error| corrupt(offset, &error.to_string()))?;
    *rest = &rest[used..];
    Ok(value)
}

#[cold]
fn corrupt(offset: usize, what: &str) -> TaskError {
    TaskError::new(Fault::State, format!("snapshot bytes are corrupt in the frame at {offset}: {what}"))
}
