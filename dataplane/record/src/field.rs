//! What may stand inside a record, and be kept as state. Nothing here owns state.
//!
//! Always true: a field's archive has alignment 1, no shared pointers and no hash tables, and an element of a list takes
//! at least one byte, so validation is bounded by the bytes there are.

use std::mem::size_of;

use rkyv::api::low::LowValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Failure, Strategy};
use rkyv::{Archive, Deserialize, Portable, Serialize};

use crate::pack::Packer;
use crate::schema::Shape;

/// What a field is inside an archive: `u64_le` for a `u64`, `ArchivedString` for a `String`, [`Packed`](crate::Packed)
/// for a plain struct.
pub type Nested<T> = <T as Archive>::Archived;

/// A type that can be part of an archived record, a key or a value of keyed state: integers, floats, `bool`, `char`,
/// `String`, `Option`, `Vec`, arrays, tuples up to eight, and everything that derives [`Record`](crate::Record) or
/// [`Plain`](crate::Plain).
///
/// There is no reason to implement it by hand. `usize`, hash tables, `Rc` and `Box` are left out on purpose: their width
/// differs between machines, or their archives are costly to check.
///
/// ```
/// use tidegate_record::Field;
/// assert!(<(u32, Option<bool>)>::SHAPE.is_fixed());
/// assert!(!<Vec<u32>>::SHAPE.is_fixed());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a record",
    note = "derive `Record` (or `Plain`) for it; `usize`, hash tables, `Rc` and `Box` are not part of the format"
)]
pub trait Field:
    Archive<
        Archived: Portable
                      + for<'a> CheckBytes<LowValidator<'a, Failure>>
                      + Deserialize<Self, Strategy<(), Failure>>
                      + 'static,
    > + for<'a> Serialize<Packer<'a>>
    + Sized
    + Send
    + 'static
{
    /// Name, structure and whether the length is fixed.
    const SHAPE: Shape;
}

macro_rules! scalars {
    ($($t:ident)*) => { $(impl Field for $t { const SHAPE: Shape = Shape::scalar(stringify!($t)); })* };
}
scalars!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 bool char);

impl Field for () {
    const SHAPE: Shape = Shape::structure("()");
}

impl Field for String {
    const SHAPE: Shape = Shape::text("String");
}

impl<T: Field> Field for Option<T> {
    const SHAPE: Shape = Shape::choice("Option").variant("None").variant("Some").field("0", T::SHAPE);
}

impl<T: Field> Field for Vec<T> {
    const SHAPE: Shape = {
        assert!(
            size_of::<Nested<T>>() > 0,
            "a list of elements without bytes has a length that nothing bounds; use a number instead"
        );
        Shape::list("Vec", T::SHAPE)
    };
}

impl<T: Field, const N: usize> Field for [T; N] {
    const SHAPE: Shape = Shape::array(T::SHAPE, N);
}

macro_rules! tuples {
    ($(($($t:ident)+))*) => { $(
        impl<$($t: Field),+> Field for ($($t,)+) {
            const SHAPE: Shape = Shape::structure("tuple")$(.field(stringify!($t), $t::SHAPE))+;
        }
    )* };
}
tuples!((A)(A B)(A B C)(A B C D)(A B C D E)(A B C D E F)(A B C D E F G)(A B C D E F G H));
