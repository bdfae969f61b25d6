//! The wire format of Tidegate's data plane: trains, manifests, handshake, checksums.
//!
//! It is for whoever builds or reads bytes of a link: `flow` and `exchange`, the simulator, fuzzers. It owns no state:
//! everything is a function of bytes. It does no I/O, reads no clock and allocates nothing, and builds without an OS
//! (feature `std` off).
//!
//! Always true: what [`ManifestWriter`] wrote, [`parse`] reads back equal; what [`parse`] accepts, encodes to the same
//! bytes; and no count or length is acted upon before it was checked against its limit.
//!
//! `SPEC.md` beside this crate is the format, in numbered clauses (W-1, W-2, …) that code and tests cite.
//!
//! ```
//! use tidegate_wire::{parse, payload_crc, Data, End, Entry, ManifestWriter, Parsed, MANIFEST_MAX};
//!
//! // The producer: one payload of channel 3, one more waits behind it.
//! let payload = b"records";
//! let mut manifest = [0; MANIFEST_MAX];
//! let mut writer = ManifestWriter::new(&mut manifest, 0, 0);
//! writer.push(Entry::data(3, 1, 0, 1, Data::whole(7, payload_crc(payload))))?;
//! let len = writer.finish();
//!
//! // The consumer: the manifest is checked whole before a payload byte is placed.
//! let Parsed::Complete(received) = parse(&manifest[..len])? else { panic!("all bytes are there") };
//! received.check_train(0)?;
//! received.check_sender(End::Producer)?;
//! for entry in received.entries() {
//!     assert_eq!(entry.payload().map(|data| data.crc), Some(payload_crc(payload)));
//! }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod checksum;
mod entry;
mod error;
mod hello;
mod limits;
mod manifest;
mod raw;
pub mod referee;
mod writer;

pub use checksum::{PayloadCrc, payload_crc};
pub use entry::{Body, Data, End, Entry, Kind, LINK};
pub use error::{ErrorCode, Fault, WireError};
pub use hello::{
    HELLO_MAGIC, HELLO_REPLY_MAGIC, Hello, HelloReply, RECORD_FORMAT, Refusal, RefusalCode, ReplyError,
    SlotAddress, channels_hash,
};
pub use limits::{
    CHANNELS_MAX, CREDITS_MAX, ENTRIES_MAX, ENTRY_LEN, HEADER_LEN, HELLO_LEN, HELLO_REPLY_LEN, MANIFEST_MAX,
    PAYLOAD_MAX, PAYLOADS_MAX, RECORD_MAX, SEGMENT_MAX, SEGMENT_MIN, TRAIN_PAYLOAD_MAX,
};
pub use manifest::{Manifest, Parsed, TRAIN_MAGIC, VERSION, parse};
pub use writer::{Full, ManifestWriter};
