//! The parts of sends and receives as drivers need them: checked against their segments, as addresses, and given back.
//! No state.
//!
//! Addresses are only computed here; that what they point to stays is the business of whoever hands them to the kernel
//! (rule 1).

use tidegate_arena::{Arena, Granted};

use crate::ring::{Completion, ReceiveParts, SendParts};

/// Bytes of a send. Every part lies within what its segment was sealed with, or the caller misuses the ring.
pub(crate) fn send_bytes(arena: &Arena, parts: &SendParts) -> u64 {
    let check = |part: &crate::SendPart| check(part.offset, part.len, u64::from(arena.len_of(&part.segment)));
    parts.iter().map(check).sum()
}

/// Room of a receive. Every part lies within its segment, or the caller misuses the ring.
pub(crate) fn receive_bytes(arena: &Arena, parts: &ReceiveParts) -> u64 {
    let check =
        |part: &crate::ReceivePart| check(part.offset, part.len, u64::from(arena.capacity_of(&part.segment)));
    parts.iter().map(check).sum()
}

fn check(offset: u32, len: u32, limit: u64) -> u64 {
    let end = u64::from(offset) + u64::from(len);
    assert!(end <= limit, "misuse: a part ends at byte {end} of a segment that has {limit}");
    u64::from(len)
}

/// Where the parts of a send lie (rule 1).
pub(crate) fn send_pieces(arena: &Arena, parts: &SendParts) -> impl Iterator<Item = (*mut u8, u32)> {
    parts
        .iter()
        .map(|part| (arena.read_ptr(&part.segment).cast_mut().wrapping_add(part.offset as usize), part.len))
}

/// Where the parts of a receive lie (rule 1).
pub(crate) fn receive_pieces(arena: &Arena, parts: &ReceiveParts) -> impl Iterator<Item = (*mut u8, u32)> {
    parts.iter().map(|part| (arena.write_ptr(&part.segment).wrapping_add(part.offset as usize), part.len))
}

/// `pieces` without their first `skip` bytes, and without empty ones: the kernel refuses those of registered buffers.
pub(crate) fn rest(
    pieces: impl Iterator<Item = (*mut u8, u32)>,
    mut skip: u64,
) -> impl Iterator<Item = (*mut u8, usize)> {
    pieces.filter_map(move |(base, bytes)| {
        let skipped = skip.min(u64::from(bytes));
        skip -= skipped;
        let left = bytes as usize - skipped as usize;
        (left > 0).then(|| (base.wrapping_add(skipped as usize), left))
    })
}

/// Returns the parts of a completion that nobody will look at to the arena.
pub(crate) fn give_back(arena: &Arena, completion: Completion) {
    match completion {
        Completion::Sent { parts, .. } | Completion::Released { parts, .. } => {
            parts.into_iter().for_each(|part| arena.release(arena.land(part.segment)));
        }
        Completion::Received { parts, .. } => {
            parts.into_iter().for_each(|part| arena.release(arena.unpost::<Granted>(part.segment)));
        }
        Completion::Closed { .. } => {}
    }
}
