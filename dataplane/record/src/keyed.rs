//! How a record travels on a keyed edge. Nothing here owns state.
//!
//! Always true: the key a consumer sees equals the key the producer partitioned by. Plain records achieve it by running the
//! same function again, which is cheaper than eight more bytes; others carry the key, because their consumer sees a view
//! that the function does not take.

use std::fmt;

use rkyv::bytecheck::CheckBytes;
use rkyv::munge::munge;
use rkyv::{Archive, Place, Portable, Serialize};

use crate::archive::{read_root, to_owned, write_root};
use crate::batch::{CarriedBatch, KeyedBatch, PlainBatch};
use crate::error::{ReadError, WriteError};
use crate::field::{Field, Nested};
use crate::hash::hash32;
use crate::key::Key;
use crate::pack::Packer;
use crate::plain::Plain;
use crate::record::Record;
use crate::schema::{Schema, Shape};
use crate::slot::Slot;

/// What one step of a keyed reader finds: a key and the record it belongs to, or the end of the payload.
pub type KeyedItem<'a, R, T> = Option<(R, &'a <T as Record>::Archived)>;

/// A way to write and read records of `T` keyed by `K`. [`Record::Keyed`] names the one of a type.
///
/// ```
/// use tidegate_record::{KeyRef, KeyedCodec, Record, Slot};
/// type Codec = <String as Record>::Keyed<u32>;
///
/// let mut buffer = [0u8; 64];
/// let mut slot = Slot::new(&mut buffer, 0);
/// let length = |text: &String| text.len() as u32;
/// let text = "harbour".to_string();
/// Codec::write(&length(&text), &text, &mut slot).unwrap();
///
/// let mut position = 0;
/// let (key, record) = Codec::read(slot.bytes(), &mut position, &length).unwrap().unwrap();
/// assert!(key.is(&7));
/// assert_eq!(record, "harbour");
/// ```
pub trait KeyedCodec<K: Key, T: Record> {
    /// What both ends of the edge compare.
    const SCHEMA: Schema;

    /// Whether the key is part of the bytes.
    const CARRIES_KEY: bool;

    /// A key as a reader meets it.
    type Key<'a>: KeyRef<K>;

    /// Records that were read before their turn.
    type Batch<'a>: KeyedBatch<'a, K, T, Key = Self::Key<'a>>;

    /// Appends a record and, where it travels, its key.
    ///
    /// # Errors
    /// As [`Record::write`].
    fn write(key: &K, record: &T, out: &mut Slot<'_>) -> Result<(), WriteError>;

    /// The next record and its key; `None` at the end of the payload. `key_of` is the function the producer used.
    ///
    /// # Errors
    /// As [`Record::read`].
    fn read<'a>(
        bytes: &'a [u8],
        position: &mut u32,
        key_of: &impl Fn(&T) -> K,
    ) -> Result<KeyedItem<'a, Self::Key<'a>, T>, ReadError>;
}

/// A key as a reader meets it: computed just now, or in place in the payload.
pub trait KeyRef<K: Key> {
    /// The hash of the key.
    fn hash(&self) -> u64;

    /// Whether it is this key.
    fn is(&self, key: &K) -> bool;

    /// The key itself. Allocates when the key owns memory.
    ///
    /// # Errors
    /// [`ReadError::Invalid`], for a key type whose own conversion refuses the value.
    fn to_key(&self) -> Result<K, ReadError>;

    /// The hash folded to the 32 bits that key groups start from.
    #[inline]
    fn hash32(&self) -> i32 {
        hash32(self.hash())
    }
}

/// A key that was computed from its record.
#[derive(Clone, Copy, Debug)]
pub struct Computed<K>(K);

impl<K> Computed<K> {
    #[inline]
    pub(crate) fn new(key: K) -> Self {
        Self(key)
    }
}

impl<K: Key> KeyRef<K> for Computed<K> {
    #[inline]
    fn hash(&self) -> u64 {
        self.0.hash()
    }

    #[inline]
    fn is(&self, key: &K) -> bool {
        self.0 == *key
    }

    fn to_key(&self) -> Result<K, ReadError> {
        Ok(self.0.clone())
    }
}

/// A key that came with its record.
pub struct InPlace<'a, K: Key>(&'a Nested<K>);

impl<K: Key> fmt::Debug for InPlace<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InPlace({:#018x})", self.hash())
    }
}

impl<K: Key> KeyRef<K> for InPlace<'_, K> {
    #[inline]
    fn hash(&self) -> u64 {
        K::hash_nested(self.0)
    }

    #[inline]
    fn is(&self, key: &K) -> bool {
        key.matches(self.0)
    }

    fn to_key(&self) -> Result<K, ReadError> {
        to_owned::<K>(self.0)
    }
}

/// Plain records: the consumer computes the key again.
#[derive(Debug, Clone, Copy)]
pub struct Recomputed;

impl<K: Key, T: Plain> KeyedCodec<K, T> for Recomputed {
    const SCHEMA: Schema = T::SCHEMA;
    const CARRIES_KEY: bool = false;
    type Key<'a> = Computed<K>;
    type Batch<'a> = PlainBatch<'a, K, T>;

    #[inline(always)]
    fn write(_: &K, record: &T, out: &mut Slot<'_>) -> Result<(), WriteError> {
        crate::plain::write(record, out)
    }

    #[inline(always)]
    fn read<'a>(
        bytes: &'a [u8],
        position: &mut u32,
        key_of: &impl Fn(&T) -> K,
    ) -> Result<KeyedItem<'a, Computed<K>, T>, ReadError> {
        let record = crate::plain::read::<T>(bytes, position)?;
        Ok(record.map(|record| (Computed(key_of(record)), record)))
    }
}

/// Archived records: key and record travel as one archive.
#[derive(Debug, Clone, Copy)]
pub struct Carried;

impl<K: Key, T> KeyedCodec<K, T> for Carried
where
    T: Field + Record<Archived = Nested<T>>,
{
    const SCHEMA: Schema = Schema::carried(K::SHAPE, <T as Field>::SHAPE);
    const CARRIES_KEY: bool = true;
    type Key<'a> = InPlace<'a, K>;
    type Batch<'a> = CarriedBatch<'a, K, T>;

    #[inline]
    fn write(key: &K, record: &T, out: &mut Slot<'_>) -> Result<(), WriteError> {
        write_root(&Pair { key, record }, out)
    }

    #[inline]
    fn read<'a>(
        bytes: &'a [u8],
        position: &mut u32,
        _: &impl Fn(&T) -> K,
    ) -> Result<KeyedItem<'a, InPlace<'a, K>, T>, ReadError> {
        let shape =
            const { Shape::structure("keyed record").field("key", K::SHAPE).field("record", T::SHAPE) };
        let pair = read_root::<ArchivedPair<Nested<K>, Nested<T>>>(bytes, position, shape)?;
        Ok(pair.map(|pair| (InPlace(&pair.key), &pair.record)))
    }
}

/// A key and a record on their way into one archive.
struct Pair<'a, K, T> {
    key: &'a K,
    record: &'a T,
}

/// A key and a record in one archive.
#[derive(Portable, CheckBytes)]
#[rkyv(crate = rkyv)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct ArchivedPair<K, T> {
    key: K,
    record: T,
}

impl<K: Archive, T: Archive> Archive for Pair<'_, K, T> {
    type Archived = ArchivedPair<K::Archived, T::Archived>;
    type Resolver = (K::Resolver, T::Resolver);

    #[inline]
    fn resolve(&self, (key_resolver, record_resolver): Self::Resolver, out: Place<Self::Archived>) {
        munge!(let ArchivedPair { key, record } = out);
        self.key.resolve(key_resolver, key);
        self.record.resolve(record_resolver, record);
    }
}

impl<'p, K, T> Serialize<Packer<'p>> for Pair<'_, K, T>
where
    K: Serialize<Packer<'p>>,
    T: Serialize<Packer<'p>>,
{
    #[inline]
    fn serialize(&self, packer: &mut Packer<'p>) -> Result<Self::Resolver, crate::pack::PackFault> {
        Ok((self.key.serialize(packer)?, self.record.serialize(packer)?))
    }
}
