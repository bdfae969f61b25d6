//! Records: written once into a segment's bytes, read in place out of them.
//!
//! For whoever puts values on an edge or into a snapshot. A [`Record`] is either [`Plain`], then a payload is an array of
//! it, or it travels as a length and an rkyv archive that is checked while it is iterated. [`Key`] is what streams are
//! partitioned by, [`KeyedCodec`] how a keyed record travels, [`to_snapshot`] and [`from_snapshot`] how state is kept.
//! This crate owns no memory: slots, payloads and snapshots belong to the caller.
//!
//! Always true: reading never panics and never reads outside the bytes handed in, whatever they are; a failed write leaves
//! the bytes below the slot's length as they were.
//!
//! Read in this order: `record`, `slot`, `plain`, `archive`, `pack`, `field`, `schema`, `key`, `hash`, `keyed`, `snapshot`,
//! `limits`.
//!
//! # Safety
//!
//! Every `unsafe` in this crate names one of these rules.
//!
//! - **S-1 Plain means any bits.** A `Plain` type is `repr(C)` or `repr(transparent)`, and every bit pattern of its size
//!   is a value of it. Numbers are; arrays of plain types are; the derive accepts structs of plain types only. Hosts are
//!   little-endian (others do not compile), so the bytes mean the same everywhere.
//! - **S-2 Plain means no padding.** The size is the sum of the fields' sizes, checked by the derive while compiling. So
//!   every byte of a value is initialised, and looking at a value as bytes is sound and leaks nothing.
//! - **S-3 A plain reference is checked.** Bytes become `&T` or `&[T]` only after their length and their alignment were
//!   checked, with the lifetime of the bytes, which are borrowed and so not written meanwhile.
//! - **S-4 An archive is checked.** rkyv's checked access is the only way from bytes to an archived view, within exactly
//!   the bytes the length states. There is no unchecked access in this crate, not even for trusted peers.
//! - **S-5 Scratch is a stack.** The serializer's blocks lie inside one borrowed piece of memory, do not overlap while
//!   they live, and are given back in reverse order.
//! - **S-6 A resolver meets its own value.** `resolve_aligned` is called with the resolver that serializing the same value
//!   into the same packer returned, and archived types have alignment 1.

#[cfg(not(target_endian = "little"))]
compile_error!("records are laid out for little-endian hosts");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("positions are computed as 64-bit sums of 32-bit parts");

// The derives name this crate by its own name, here too.
extern crate self as tidegate_record;

pub mod archive;
mod batch;
mod error;
mod field;
pub mod hash;
mod key;
mod keyed;
pub mod limits;
mod pack;
pub mod plain;
mod record;
#[cfg(doctest)]
mod refused;
mod schema;
mod slot;
mod snapshot;

pub use batch::{CarriedBatch, KeyedBatch, PlainBatch};
pub use error::{ReadError, WriteError};
pub use field::{Field, Nested};
pub use hash::hash32;
pub use key::Key;
pub use keyed::{Carried, Computed, InPlace, KeyRef, KeyedCodec, KeyedItem, Recomputed};
pub use pack::{PackFault, Packer};
pub use plain::{Packed, Plain};
pub use record::{Record, Records};
pub use schema::{FORMAT, Fingerprint, PlainLayout, RECORD_FORMAT, Schema, Shape};
pub use slot::Slot;
pub use snapshot::{from_snapshot, to_snapshot};

/// The version of rkyv that archives are made with; the derives refer to it here.
pub use rkyv;
pub use tidegate_record_derive::{Key, Plain, Record};
