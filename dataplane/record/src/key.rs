//! Keys: what a stream is partitioned and its state is addressed by. Nothing here owns state.
//!
//! Always true, for all keys `a`, `b` and the archive `n` of `b`: `hash_nested(n) == b.hash()`, `a.matches(n) == (a == b)`,
//! and `a == b` implies `a.hash() == b.hash()`.

use rkyv::string::ArchivedString;
use rkyv::tuple::{ArchivedTuple1, ArchivedTuple2, ArchivedTuple3, ArchivedTuple4};

use crate::field::{Field, Nested};
use crate::hash::{combine, hash_bytes, hash_u64, hash_u128, hash32};

/// A value to partition by. `#[derive(Key)]` works on every struct of keys that derives [`Record`](crate::Record) or
/// [`Plain`](crate::Plain).
///
/// Floats are no keys: `NaN` equals nothing.
///
/// ```
/// use tidegate_record::{Key, Record};
///
/// #[derive(Clone, PartialEq, Eq, Record, Key)]
/// struct Route { from: String, to: String }
///
/// let there = Route { from: "BKK".into(), to: "HND".into() };
/// let back = Route { from: "HND".into(), to: "BKK".into() };
/// assert_ne!(there.hash(), back.hash());
/// assert_eq!(there.hash(), there.clone().hash());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a key",
    note = "integers, `bool`, `char`, `String`, `[u8; N]`, tuples of up to four of them, and structs that derive `Key` can"
)]
pub trait Key: Field + Clone + Eq {
    /// A stable hash, the same in every process and every version. Routes, groups and probes.
    fn hash(&self) -> u64;

    /// The hash of a key from its archive, without building it.
    fn hash_nested(nested: &Nested<Self>) -> u64;

    /// Whether an archived key is this one.
    fn matches(&self, nested: &Nested<Self>) -> bool;

    /// The hash folded to the 32 bits that Flink's key groups start from.
    #[inline]
    fn hash32(&self) -> i32 {
        hash32(self.hash())
    }
}

macro_rules! integers {
    ($($t:ident as $u:ident with $hash:ident;)*) => { $(
        impl Key for $t {
            #[inline]
            fn hash(&self) -> u64 {
                $hash((*self as $u).into())
            }

            #[inline]
            fn hash_nested(nested: &Nested<Self>) -> u64 {
                Self::from(*nested).hash()
            }

            #[inline]
            fn matches(&self, nested: &Nested<Self>) -> bool {
                *self == Self::from(*nested)
            }
        }
    )* };
}
// Through the unsigned type of the same width: -1i8 and 255u8 hash alike, and nothing is sign-extended.
integers! {
    u8 as u8 with hash_u64; u16 as u16 with hash_u64; u32 as u32 with hash_u64; u64 as u64 with hash_u64;
    i8 as u8 with hash_u64; i16 as u16 with hash_u64; i32 as u32 with hash_u64; i64 as u64 with hash_u64;
    u128 as u128 with hash_u128; i128 as u128 with hash_u128;
    bool as u8 with hash_u64; char as u32 with hash_u64;
}

impl Key for String {
    #[inline]
    fn hash(&self) -> u64 {
        hash_bytes(self.as_bytes())
    }

    #[inline]
    fn hash_nested(nested: &ArchivedString) -> u64 {
        hash_bytes(nested.as_bytes())
    }

    #[inline]
    fn matches(&self, nested: &ArchivedString) -> bool {
        self.as_str() == nested.as_str()
    }
}

impl<const N: usize> Key for [u8; N] {
    #[inline]
    fn hash(&self) -> u64 {
        if N <= 8 {
            // Zero-extended like an integer; the length is part of the type, so no two keys of it run together.
            let mut word = [0; 8];
            word[..N].copy_from_slice(self);
            hash_u64(u64::from_le_bytes(word))
        } else {
            hash_bytes(self)
        }
    }

    #[inline]
    fn hash_nested(nested: &[u8; N]) -> u64 {
        nested.hash()
    }

    #[inline]
    fn matches(&self, nested: &[u8; N]) -> bool {
        self == nested
    }
}

macro_rules! tuples {
    ($($archived:ident ($first:ident 0 $(, $t:ident $i:tt)*);)*) => { $(
        impl<$first: Key $(, $t: Key)*> Key for ($first, $($t,)*) {
            #[inline]
            fn hash(&self) -> u64 {
                let hash = self.0.hash();
                $(let hash = combine(hash, self.$i.hash());)*
                hash
            }

            #[inline]
            fn hash_nested(nested: &$archived<Nested<$first>, $(Nested<$t>,)*>) -> u64 {
                let hash = $first::hash_nested(&nested.0);
                $(let hash = combine(hash, $t::hash_nested(&nested.$i));)*
                hash
            }

            #[inline]
            fn matches(&self, nested: &$archived<Nested<$first>, $(Nested<$t>,)*>) -> bool {
                self.0.matches(&nested.0) $(&& self.$i.matches(&nested.$i))*
            }
        }
    )* };
}
tuples! {
    ArchivedTuple1(A 0);
    ArchivedTuple2(A 0, B 1);
    ArchivedTuple3(A 0, B 1, C 2);
    ArchivedTuple4(A 0, B 1, C 2, D 3);
}
