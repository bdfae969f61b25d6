//! Plain records: types whose archive is themselves. Nothing here owns state.
//!
//! Always true for every `T: Plain`: `size_of::<T>()` = sum of the sizes of its fields > 0 (no padding), every bit pattern
//! is a value, `align_of::<T>()` ≤ 64, and a host is little-endian, so bytes in memory are bytes on the wire.

use std::mem::{align_of, size_of};
use std::{fmt, slice};

use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Fallible;
use rkyv::traits::NoUndef;
use rkyv::{Deserialize, Portable};

use crate::archive::{clamp, payload_too_long, position_error, truncated};
use crate::error::{ReadError, WriteError};
use crate::field::Field;
use crate::limits::PLAIN_ALIGN_MAX;
use crate::record::Record;
use crate::slot::Slot;

/// A record that travels as its own bytes: written with one store, read by pointing at it.
///
/// Derive it; the derive refuses a type it does not hold for while compiling. Integers and floats are plain, and so are
/// arrays of plain types.
///
/// ```
/// use tidegate_record::{Plain, Record, Slot};
///
/// #[derive(Clone, Copy, Debug, PartialEq, Plain)]
/// #[repr(C)]
/// struct Trade { instrument: u32, size: u32, price: f64 }
///
/// #[repr(align(64))]
/// struct Buffer([u8; 64]);
/// let mut buffer = Buffer([0; 64]);
/// let mut slot = Slot::new(&mut buffer.0, 0);
/// let trade = Trade { instrument: 3, size: 100, price: 7.5 };
/// trade.write(&mut slot).unwrap();
/// trade.write(&mut slot).unwrap();
/// assert_eq!(slot.len(), 32);
/// assert_eq!(Trade::as_slice(slot.bytes()).unwrap(), [trade, trade]);
/// ```
///
/// A gap between two fields is refused:
///
/// ```compile_fail
/// #[derive(Clone, Copy, tidegate_record::Plain)]
/// #[repr(C)]
/// struct Gap { a: u8, b: u32 }
/// ```
///
/// # Safety
/// The type is `repr(C)` or `repr(transparent)`, has no padding and at least one byte, every bit pattern of that length
/// is a value of it (no `bool`, `char`, references, pointers, enums), its alignment is at most 64, and its meaning does not
/// depend on the process (no addresses, no `usize`).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not plain",
    note = "only integers, floats, arrays of them and structs that derive `Plain` are; derive `Record` for anything else"
)]
pub unsafe trait Plain: Copy + Field + Record<Archived = Self> {
    /// All records of a payload at once.
    ///
    /// # Errors
    /// [`ReadError::Ragged`] when the length is not a whole number of records, [`ReadError::Misaligned`].
    #[inline]
    fn as_slice(bytes: &[u8]) -> Result<&[Self], ReadError> {
        let size = const { checked_size::<Self>() };
        if !bytes.len().is_multiple_of(size) {
            return Err(ragged::<Self>(bytes.len()));
        }
        if !bytes.as_ptr().cast::<Self>().is_aligned() {
            return Err(misaligned::<Self>());
        }
        // SAFETY: S-3. Alignment and a whole number of records were checked just above; the lifetime is that of `bytes`.
        Ok(unsafe { slice::from_raw_parts(bytes.as_ptr().cast::<Self>(), bytes.len() / size) })
    }

    /// The bytes of several records, as they travel.
    #[inline]
    fn as_bytes(records: &[Self]) -> &[u8] {
        // SAFETY: S-2. No padding, so every one of these bytes is initialised.
        unsafe { slice::from_raw_parts(records.as_ptr().cast::<u8>(), size_of_val(records)) }
    }
}

/// The size of a plain record, with what a derive cannot know checked while compiling.
pub(crate) const fn checked_size<T>() -> usize {
    assert!(size_of::<T>() > 0, "a plain record takes at least one byte");
    assert!(size_of::<T>() <= u32::MAX as usize, "a plain record is addressed with 32 bits");
    assert!(align_of::<T>() <= PLAIN_ALIGN_MAX, "a plain record's alignment is at most 64");
    size_of::<T>()
}

/// Appends a plain record: a bounds check and a store.
///
/// # Errors
/// [`WriteError::Full`]; the slot is unchanged.
#[inline(always)]
pub fn write<T: Plain>(record: &T, out: &mut Slot<'_>) -> Result<(), WriteError> {
    let size = const { checked_size::<T>() };
    if out.append_words(T::as_bytes(slice::from_ref(record))) {
        Ok(())
    } else {
        Err(WriteError::Full { needed: size as u32 })
    }
}

/// The next plain record, in place; `None` at the end of the payload. `position` moves only on success.
///
/// # Errors
/// [`ReadError::Position`], [`ReadError::Truncated`], [`ReadError::Misaligned`], [`ReadError::TooLong`].
#[inline(always)]
pub fn read<'a, T: Plain>(bytes: &'a [u8], position: &mut u32) -> Result<Option<&'a T>, ReadError> {
    let size = const { checked_size::<T>() };
    let start = *position as usize;
    let Some(record) = bytes.get(start..start + size) else {
        return if start == bytes.len() { Ok(None) } else { Err(not_a_record::<T>(bytes, *position)) };
    };
    let Some(end) = position.checked_add(size as u32) else { return Err(payload_too_long(bytes.len())) };
    let pointer = record.as_ptr().cast::<T>();
    if !pointer.is_aligned() {
        return Err(misaligned::<T>());
    }
    *position = end;
    // SAFETY: S-3. `record` is as long as a `T`, its alignment was checked, and the lifetime is that of `bytes`.
    Ok(Some(unsafe { &*pointer }))
}

/// Up to `most` plain records, in place; none at the end of the payload. `position` moves only on success.
///
/// # Errors
/// As [`read`], for the first of them. What is cut or too far behind others is for the next call to find.
#[inline(always)]
pub(crate) fn read_some<'a, T: Plain>(
    bytes: &'a [u8],
    position: &mut u32,
    most: usize,
) -> Result<&'a [T], ReadError> {
    let size = const { checked_size::<T>() };
    let start = *position as usize;
    let whole = bytes.len().checked_sub(start).map_or(0, |left| left / size);
    // Positions end at 2^32; a payload as long is refused at the record that ends there.
    let count = whole.min(most).min((u32::MAX - *position) as usize / size);
    if count == 0 {
        if most == 0 {
            return Ok(&[]);
        }
        return Ok(read(bytes, position)?.map_or(&[], slice::from_ref));
    }
    let records = T::as_slice(&bytes[start..start + count * size])?;
    *position += (count * size) as u32;
    Ok(records)
}

#[cold]
fn not_a_record<T: Plain>(bytes: &[u8], position: u32) -> ReadError {
    let start = position as usize;
    if start > bytes.len() {
        return position_error(bytes, position);
    }
    truncated(T::SHAPE, start, size_of::<T>() as u64, bytes.len() - start)
}

#[cold]
fn ragged<T: Plain>(len: usize) -> ReadError {
    ReadError::Ragged { record: T::SHAPE.name(), len: clamp(len), size: size_of::<T>() as u32 }
}

#[cold]
fn misaligned<T: Plain>() -> ReadError {
    ReadError::Misaligned { record: T::SHAPE.name(), align: align_of::<T>() as u32 }
}

/// A plain struct inside an archived record: the same bytes, at any address.
///
/// ```
/// use tidegate_record::{Plain, Record, Records, Slot};
///
/// #[derive(Clone, Copy, Debug, PartialEq, Plain)]
/// #[repr(C)]
/// struct Point { x: f64, y: f64 }
/// #[derive(Record)]
/// struct Place { name: String, at: Point }
///
/// let mut buffer = [0u8; 128];
/// let mut slot = Slot::new(&mut buffer, 0);
/// Place { name: "harbour".into(), at: Point { x: 1.0, y: 2.0 } }.write(&mut slot).unwrap();
/// let place = Records::<Place>::new(slot.bytes()).next().unwrap().unwrap();
/// assert_eq!(place.at.get().y, 2.0);
/// ```
#[derive(Clone, Copy)]
#[repr(C, packed)]
pub struct Packed<T>(T);

impl<T: Plain> Packed<T> {
    /// Wraps a record.
    #[inline]
    pub const fn new(record: T) -> Self {
        Self(record)
    }

    /// The record, copied out.
    #[inline]
    pub const fn get(&self) -> T {
        self.0
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for Packed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl<T: Plain + PartialEq> PartialEq for Packed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl<T: Plain + PartialEq> PartialEq<T> for Packed<T> {
    fn eq(&self, other: &T) -> bool {
        self.get() == *other
    }
}

// SAFETY: S-1. A packed plain record has one layout on every host this crate compiles for, and no interior mutability.
unsafe impl<T: Plain> Portable for Packed<T> {}

// SAFETY: S-2. No padding, so no byte of it is ever uninitialised.
unsafe impl<T: Plain> NoUndef for Packed<T> {}

// SAFETY: S-1. Every bit pattern is a value, so there is nothing to check.
unsafe impl<T: Plain, C: Fallible + ?Sized> CheckBytes<C> for Packed<T> {
    #[inline]
    unsafe fn check_bytes(_: *const Self, _: &mut C) -> Result<(), C::Error> {
        Ok(())
    }
}

impl<T: Plain, D: Fallible + ?Sized> Deserialize<T, D> for Packed<T> {
    #[inline]
    fn deserialize(&self, _: &mut D) -> Result<T, D::Error> {
        Ok(self.get())
    }
}

macro_rules! plain {
    ($($t:ident)*) => { $(
        // SAFETY: S-1. An integer or float has no padding, any bits are a value, and hosts are little-endian.
        unsafe impl Plain for $t {}
    )* };
}
plain!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64);

// SAFETY: S-1. An array of types without padding has none, and its bits are its elements' bits.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}
