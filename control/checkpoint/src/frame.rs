//! The header in front of every small object that the JobManager writes: metadata, epochs, lists of outputs.
//!
//! Layout, little endian: magic `TGATECKP` (8), format version u32, kind u32, body length u64, XXH3-64 of the
//! body u64, XXH3-64 of the 32 bytes before u64; then the rkyv body. Always: a frame that opens was not
//! changed, cut or extended since it was sealed, and is of the kind that was asked for.

use crate::limits::METADATA_BYTES_MAX;
use xxhash_rust::xxh3::xxh3_64;

/// First bytes of every object of ours.
pub const MAGIC: [u8; 8] = *b"TGATECKP";

/// Version of the format of the bodies.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes in front of the body.
pub const HEADER_BYTES: usize = 40;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FrameKind {
    /// Metadata of a checkpoint.
    Metadata = 1,
    /// "This checkpoint will never be": takes the place of metadata.
    Void = 2,
    /// Output files that belong to a checkpoint.
    Outputs = 3,
    /// An epoch, claimed or settled.
    Epoch = 4,
}

/// Why bytes are not the object that was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Fewer bytes than written.
    #[error("truncated: {expected} bytes expected, {found} found")]
    Truncated {
        /// Bytes that the object should have.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// More bytes than written.
    #[error("too long: {expected} bytes expected, {found} found")]
    TooLong {
        /// Bytes that the object should have.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// Not an object of this program.
    #[error("not a checkpoint object of this program (magic {found:02x?})")]
    Magic {
        /// First bytes found.
        found: [u8; 8],
    },
    /// Another format version.
    #[error("format version {found}, this program reads {expected}")]
    Version {
        /// Version that this program reads.
        expected: u32,
        /// Version found.
        found: u32,
    },
    /// Another kind of object under this name.
    #[error("kind {found} where {expected} was expected: the file was swapped")]
    Kind {
        /// Kind expected.
        expected: u32,
        /// Kind found.
        found: u32,
    },
    /// The bytes are not those that were hashed.
    #[error("{what} hash differs: {expected:016x} expected, {found:016x} found")]
    Hash {
        /// Which part.
        what: &'static str,
        /// Hash recorded.
        expected: u64,
        /// Hash of the bytes found.
        found: u64,
    },
    /// The hash is right but the body does not validate, or says something else than its name.
    #[error("invalid content: {0}")]
    Content(String),
}

/// Puts the header in front of `body`.
pub fn seal(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&(kind as u32).to_le_bytes());
    out.extend_from_slice(&(body.len() as u64).to_le_bytes());
    out.extend_from_slice(&xxh3_64(body).to_le_bytes());
    let header = xxh3_64(&out);
    out.extend_from_slice(&header.to_le_bytes());
    debug_assert_eq!(out.len(), HEADER_BYTES);
    out.extend_from_slice(body);
    out
}

/// Kind of a frame whose header is intact; its body may still be damaged.
///
/// # Errors
/// [`Damage`] of the header.
pub fn kind_of(bytes: &[u8]) -> Result<u32, Damage> {
    let found = bytes.len() as u64;
    let header: &[u8; HEADER_BYTES] =
        bytes.first_chunk().ok_or(Damage::Truncated { expected: HEADER_BYTES as u64, found })?;
    let magic: [u8; 8] = array(header, 0);
    if magic != MAGIC {
        return Err(Damage::Magic { found: magic });
    }
    let expected = u64::from_le_bytes(array(header, 32));
    let hash = xxh3_64(&header[..32]);
    if hash != expected {
        return Err(Damage::Hash { what: "header", expected, found: hash });
    }
    let version = u32::from_le_bytes(array(header, 8));
    if version != FORMAT_VERSION {
        return Err(Damage::Version { expected: FORMAT_VERSION, found: version });
    }
    Ok(u32::from_le_bytes(array(header, 12)))
}

/// The body of a frame of this kind.
///
/// # Errors
/// [`Damage`], naming what was expected and what was found.
pub fn open(kind: FrameKind, bytes: &[u8]) -> Result<&[u8], Damage> {
    let found = kind_of(bytes)?;
    if found != kind as u32 {
        return Err(Damage::Kind { expected: kind as u32, found });
    }
    let (header, body) = bytes.split_at(HEADER_BYTES);
    let length = u64::from_le_bytes(array(header, 16));
    if length > METADATA_BYTES_MAX as u64 {
        return Err(Damage::Content(format!("{length} bytes, at most {METADATA_BYTES_MAX} allowed")));
    }
    let have = body.len() as u64;
    if have < length {
        return Err(Damage::Truncated { expected: length, found: have });
    }
    if have > length {
        return Err(Damage::TooLong { expected: length, found: have });
    }
    let expected = u64::from_le_bytes(array(header, 24));
    let hash = xxh3_64(body);
    if hash != expected {
        return Err(Damage::Hash { what: "body", expected, found: hash });
    }
    Ok(body)
}

/// `N` bytes of `bytes` from `at`; the caller knows that they are there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
