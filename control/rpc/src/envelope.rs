//! The bytes of a message: a fixed header that every version can read, then a postcard body.
//!
//! Layout: magic `TGC1` (4 bytes), protocol version (u16), epoch (u64), both little endian, then the body.
//! The version is outside the body so that a peer of another version is refused by name, never misread.
//! Always: a decoded frame was consumed to its last byte.

use crate::limits::{FRAME_HEADER_BYTES, MESSAGE_BYTES_MAX, PROTOCOL_VERSION};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// First bytes of every message.
pub const MAGIC: [u8; 4] = *b"TGC1";

/// A message with the leadership it belongs to.
///
/// ```
/// use tidegate_rpc::{Envelope, ToJobManager};
/// let sent = Envelope::new(3, ToJobManager::Goodbye { reason: "rolling restart".into() });
/// let bytes = sent.encode().unwrap();
/// assert_eq!(Envelope::<ToJobManager>::decode(&bytes).unwrap(), sent);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope<T> {
    /// Protocol version of the sender.
    pub version: u16,
    /// Epoch the sender believes in; 0 in the first message of a TaskManager.
    pub epoch: u64,
    /// The message.
    pub body: T,
}

/// Bytes that are not a message of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than the header, or the magic is another.
    #[error("control message: the peer does not speak this protocol (magic {found:02x?})")]
    Garbage {
        /// First bytes found.
        found: Vec<u8>,
    },
    /// Another protocol version.
    #[error("control message: protocol version {expected} expected, {found} found; run the same binary")]
    Version {
        /// Ours.
        expected: u16,
        /// The peer's.
        found: u16,
    },
    /// More than a message may have.
    #[error("control message: {found} bytes, at most {limit} allowed")]
    TooLarge {
        /// Bytes found.
        found: usize,
        /// The bound.
        limit: usize,
    },
    /// The header is ours, the body is not.
    #[error("control message: damaged body ({0})")]
    Body(String),
}

impl<T> Envelope<T> {
    /// A message of this binary's protocol version.
    pub fn new(epoch: u64, body: T) -> Self {
        Envelope { version: PROTOCOL_VERSION, epoch, body }
    }
}

impl<T: Serialize> Envelope<T> {
    /// The bytes of the message.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] if it exceeds [`MESSAGE_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        let out = postcard::to_extend(&self.body, out).map_err(|e| FrameError::Body(e.to_string()))?;
        if out.len() > MESSAGE_BYTES_MAX {
            return Err(FrameError::TooLarge { found: out.len(), limit: MESSAGE_BYTES_MAX });
        }
        Ok(out)
    }
}

impl<T: DeserializeOwned> Envelope<T> {
    /// Reads one message.
    ///
    /// # Errors
    /// By fault, see [`FrameError`]. Trailing bytes are an error too.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(FrameError::TooLarge { found: bytes.len(), limit: MESSAGE_BYTES_MAX });
        }
        let garbage = || FrameError::Garbage { found: bytes[..bytes.len().min(4)].to_vec() };
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or_else(garbage)?;
        if *magic != MAGIC {
            return Err(garbage());
        }
        let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(garbage)?;
        let version = u16::from_le_bytes(*version);
        if version != PROTOCOL_VERSION {
            return Err(FrameError::Version { expected: PROTOCOL_VERSION, found: version });
        }
        let (epoch, rest) = rest.split_first_chunk::<8>().ok_or_else(garbage)?;
        debug_assert_eq!(bytes.len() - rest.len(), FRAME_HEADER_BYTES);
        let (body, left) =
            postcard::take_from_bytes::<T>(rest).map_err(|e| FrameError::Body(e.to_string()))?;
        if !left.is_empty() {
            return Err(FrameError::Body(format!("{} bytes after the end", left.len())));
        }
        Ok(Envelope { version, epoch: u64::from_le_bytes(*epoch), body })
    }
}
