//! What travels on an edge, and the cursor over a payload. A [`Records`] borrows its payload and owns its position.
//!
//! Always true: the position lies on a record's start or at the payload's end; after an error the cursor is exhausted.

use std::marker::PhantomData;

use crate::error::{ReadError, WriteError};
use crate::field::{Field, Nested};
use crate::key::Key;
use crate::keyed::{Carried, KeyedCodec, Recomputed};
use crate::schema::{Schema, Shape};
use crate::slot::Slot;
use crate::{archive, plain};

/// A value that an operator emits and the next one reads in place.
///
/// Derive it: `#[derive(Record)]` for any struct or enum of [`Field`]s, `#[derive(Plain)]` for `repr(C)` structs of
/// numbers.
///
/// ```
/// use tidegate_record::{Record, Records, Slot};
///
/// #[derive(Record)]
/// struct Flight { carrier: String, delay: Option<i16> }
///
/// let mut buffer = [0u8; 256];
/// let mut slot = Slot::new(&mut buffer, 0);
/// Flight { carrier: "TG".into(), delay: Some(12) }.write(&mut slot).unwrap();
/// Flight { carrier: "a long name".into(), delay: None }.write(&mut slot).unwrap();
///
/// let carriers: Vec<&str> =
///     Records::<Flight>::new(slot.bytes()).map(|f| f.unwrap().carrier.as_str()).collect();
/// assert_eq!(carriers, ["TG", "a long name"]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a record",
    note = "derive `Record` for it, or `Plain` when it is a `repr(C)` struct of numbers"
)]
pub trait Record: Sized + Send + 'static {
    /// What a consumer sees, in place: the record itself when it is plain, its archived view otherwise.
    type Archived: 'static;

    /// How the record travels on an edge keyed by `K`.
    type Keyed<K: Key>: KeyedCodec<K, Self>;

    /// What both ends of an edge compare.
    const SCHEMA: Schema;

    /// Appends the record.
    ///
    /// # Errors
    /// [`WriteError::Full`] with the bytes it needs; the slot is then unchanged. For archived records also the others.
    fn write(&self, out: &mut Slot<'_>) -> Result<(), WriteError>;

    /// The next record, in place and checked; `None` at the end of the payload. `position` is in bytes, starts at zero,
    /// and moves only on success.
    ///
    /// # Errors
    /// A [`ReadError`] for any bytes that are not records of this type.
    fn read<'a>(bytes: &'a [u8], position: &mut u32) -> Result<Option<&'a Self::Archived>, ReadError>;

    /// The value behind a view. Allocates what the value owns.
    ///
    /// # Errors
    /// [`ReadError::Invalid`], for a type whose own conversion refuses the value.
    fn to_owned_value(archived: &Self::Archived) -> Result<Self, ReadError>;
}

/// The records of one payload, front to back. It can be dropped and taken up again at [`position`](Self::position).
///
/// ```
/// use tidegate_record::{Record, Records, Slot};
/// let mut buffer = [0u8; 64];
/// let mut slot = Slot::new(&mut buffer, 0);
/// for text in ["one", "two", "three"] { text.to_string().write(&mut slot).unwrap(); }
///
/// let mut first = Records::<String>::new(slot.bytes());
/// assert_eq!(first.next().unwrap().unwrap(), "one");
/// let position = first.position();
/// let rest: Vec<_> = Records::<String>::resume(slot.bytes(), position).map(|s| s.unwrap().to_string()).collect();
/// assert_eq!(rest, ["two", "three"]);
/// ```
#[derive(Debug)]
pub struct Records<'a, T> {
    bytes: &'a [u8],
    position: u32,
    failed: bool,
    _record: PhantomData<fn() -> T>,
}

impl<'a, T: Record> Records<'a, T> {
    /// From the start of a payload.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::resume(bytes, 0)
    }

    /// From a [`position`](Self::position) of an earlier cursor over the same payload.
    #[inline]
    pub fn resume(bytes: &'a [u8], position: u32) -> Self {
        Self { bytes, position, failed: false, _record: PhantomData }
    }

    /// Bytes consumed so far.
    #[inline]
    pub fn position(&self) -> u32 {
        self.position
    }
}

impl<'a, T: Record> Iterator for Records<'a, T> {
    type Item = Result<&'a T::Archived, ReadError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = T::read(self.bytes, &mut self.position).transpose();
        self.failed = matches!(item, Some(Err(_)));
        item
    }
}

impl<T: Record> std::iter::FusedIterator for Records<'_, T> {}

/// Implements [`Record`] for types that travel as archives. The derive writes the same by hand.
macro_rules! archived {
    ($([$($g:tt)*] $t:ty;)*) => { $(
        impl<$($g)*> Record for $t {
            type Archived = Nested<Self>;
            type Keyed<Key_: Key> = Carried;
            const SCHEMA: Schema = Schema::archive(<Self as Field>::SHAPE);

            #[inline]
            fn write(&self, out: &mut Slot<'_>) -> Result<(), WriteError> {
                archive::write(self, out)
            }

            #[inline]
            fn read<'a>(bytes: &'a [u8], position: &mut u32) -> Result<Option<&'a Self::Archived>, ReadError> {
                archive::read::<Self>(bytes, position)
            }

            #[inline]
            fn to_owned_value(archived: &Self::Archived) -> Result<Self, ReadError> {
                archive::to_owned(archived)
            }
        }
    )* };
}
archived! {
    [] ();
    [] bool;
    [] char;
    [] String;
    [T: Field] Option<T>;
    [T: Field] Vec<T>;
    [A: Field] (A,);
    [A: Field, B: Field] (A, B);
    [A: Field, B: Field, C: Field] (A, B, C);
    [A: Field, B: Field, C: Field, D: Field] (A, B, C, D);
    [A: Field, B: Field, C: Field, D: Field, E: Field] (A, B, C, D, E);
    [A: Field, B: Field, C: Field, D: Field, E: Field, F: Field] (A, B, C, D, E, F);
    [A: Field, B: Field, C: Field, D: Field, E: Field, F: Field, G: Field] (A, B, C, D, E, F, G);
    [A: Field, B: Field, C: Field, D: Field, E: Field, F: Field, G: Field, H: Field] (A, B, C, D, E, F, G, H);
}

/// Implements [`Record`] for plain types. The derive writes the same by hand.
macro_rules! plain {
    ($([$($g:tt)*] $t:ty;)*) => { $(
        impl<$($g)*> Record for $t {
            type Archived = Self;
            type Keyed<Key_: Key> = Recomputed;
            const SCHEMA: Schema = {
                let shape: Shape = <Self as Field>::SHAPE;
                Schema::plain(shape, size_of::<Self>(), align_of::<Self>())
            };

            #[inline(always)]
            fn write(&self, out: &mut Slot<'_>) -> Result<(), WriteError> {
                plain::write(self, out)
            }

            #[inline(always)]
            fn read<'a>(bytes: &'a [u8], position: &mut u32) -> Result<Option<&'a Self>, ReadError> {
                plain::read(bytes, position)
            }

            #[inline(always)]
            fn to_owned_value(archived: &Self) -> Result<Self, ReadError> {
                Ok(*archived)
            }
        }
    )* };
}
plain! {
    [] u8; [] u16; [] u32; [] u64; [] u128;
    [] i8; [] i16; [] i32; [] i64; [] i128;
    [] f32; [] f64;
    [T: plain::Plain, const N: usize] [T; N];
}
