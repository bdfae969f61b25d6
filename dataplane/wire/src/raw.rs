//! The bytes of header, entry, hello and reply as fixed-layout rkyv archives. No state.
//!
//! Always true: every archive is `repr(C)` with alignment 1 and no padding, so its size is the sum of its fields and
//! its bytes are the tables of `SPEC.md`; the assertions here fail the build when that stops being so (W-2).
//! Every field is an integer, so every byte pattern of the right length is readable; meaning is checked by the callers.

use core::mem::{align_of, offset_of, size_of};

use rkyv::api::low::{self, LowSerializer, LowValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;
use rkyv::ser::allocator::SubAllocator;
use rkyv::ser::writer::Buffer;
use rkyv::{Archive, Portable, Serialize};

use crate::limits::{ENTRY_LEN, HEADER_LEN, HELLO_LEN, HELLO_REPLY_LEN};

/// Header of a train (W-14).
#[derive(Archive, Serialize)]
pub(crate) struct Header {
    pub magic: u32,
    pub version: u16,
    pub entries: u16,
    pub payloads: u16,
    pub flags: u16,
    pub manifest_bytes: u32,
    pub payload_bytes: u64,
    pub birth_ns: u64,
    pub train: u64,
    pub sent_ns: u64,
    pub reserved: u64,
    pub entries_checksum: u32,
    pub header_checksum: u32,
}

/// Manifest entry (W-22).
#[derive(Archive, Serialize)]
pub(crate) struct Entry {
    pub channel: u32,
    pub generation: u32,
    pub kind: u8,
    pub flags: u8,
    pub backlog: u16,
    pub sequence: u32,
    pub words: [u32; 4],
}

/// The consumer's first bytes (W-5).
#[derive(Archive, Serialize)]
pub(crate) struct Hello {
    pub magic: u32,
    pub version: u16,
    pub flags: u16,
    pub segment_size: u32,
    pub channels: u32,
    pub cluster: u128,
    pub job: u128,
    pub epoch: u64,
    pub from_tm: u64,
    pub to_tm: u64,
    pub from_slot: u32,
    pub to_slot: u32,
    pub attempt: u32,
    pub reserved_a: u32,
    pub record_format: u64,
    pub channels_hash: u64,
    pub reserved_b: [u32; 5],
    pub checksum: u32,
}

/// The producer's answer (W-8).
#[derive(Archive, Serialize)]
pub(crate) struct HelloReply {
    pub magic: u32,
    pub version: u16,
    pub code: u16,
    pub expected: u64,
    pub found: u64,
    pub echo: u32,
    pub checksum: u32,
}

/// Where the header's own checksum stands; it covers everything before (W-16).
pub(crate) const HEADER_CHECKSUM_AT: usize = offset_of!(ArchivedHeader, header_checksum);
/// Where a hello's checksum stands; it covers everything before (W-5).
pub(crate) const HELLO_CHECKSUM_AT: usize = offset_of!(ArchivedHello, checksum);
/// Where a reply's checksum stands; it covers everything before (W-8).
pub(crate) const REPLY_CHECKSUM_AT: usize = offset_of!(ArchivedHelloReply, checksum);

const _: () = assert!(size_of::<ArchivedHeader>() == HEADER_LEN && align_of::<ArchivedHeader>() == 1);
const _: () = assert!(size_of::<ArchivedEntry>() == ENTRY_LEN && align_of::<ArchivedEntry>() == 1);
const _: () = assert!(size_of::<ArchivedHello>() == HELLO_LEN && align_of::<ArchivedHello>() == 1);
const _: () =
    assert!(size_of::<ArchivedHelloReply>() == HELLO_REPLY_LEN && align_of::<ArchivedHelloReply>() == 1);
const _: () = assert!(HEADER_CHECKSUM_AT == HEADER_LEN - 4);
const _: () = assert!(HELLO_CHECKSUM_AT == HELLO_LEN - 4);
const _: () = assert!(REPLY_CHECKSUM_AT == HELLO_REPLY_LEN - 4);
const _: () =
    assert!(offset_of!(ArchivedHeader, payload_bytes) == 16 && offset_of!(ArchivedHeader, sent_ns) == 40);
const _: () = assert!(offset_of!(ArchivedEntry, kind) == 8 && offset_of!(ArchivedEntry, words) == 16);
const _: () =
    assert!(offset_of!(ArchivedHello, cluster) == 16 && offset_of!(ArchivedHello, record_format) == 88);

/// Reads one archive in place, checked by rkyv. `bytes` is exactly as long as the archive: the callers slice by the
/// same constants that are asserted above.
pub(crate) fn view<T>(bytes: &[u8]) -> &T
where
    T: Portable + for<'a> CheckBytes<LowValidator<'a, Failure>>,
{
    assert_eq!(bytes.len(), size_of::<T>(), "invariant: an archive is read from exactly its bytes");
    low::access::<T, Failure>(bytes)
        .expect("invariant: an archive of integers with alignment 1 is readable from any bytes")
}

/// Writes one archive over all of `bytes`, which is exactly as long as the archive.
pub(crate) fn store<T>(value: &T, bytes: &mut [u8])
where
    T: for<'a> Serialize<LowSerializer<Buffer<'a>, SubAllocator<'a>, Failure>>,
{
    assert_eq!(
        bytes.len(),
        size_of::<T::Archived>(),
        "invariant: an archive is written to exactly its bytes"
    );
    low::to_bytes_in_with_alloc::<_, _, Failure>(value, Buffer::from(bytes), SubAllocator::new(&mut []))
        .expect("invariant: an archive of integers needs no scratch and fills exactly its bytes");
}
