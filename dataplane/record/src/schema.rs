//! The fingerprint of a record type: what two processes compare before they exchange bytes. Nothing here owns state.
//!
//! Always true: equal fingerprints mean equal class, type name, field names, field types in order, layout of plain types
//! and archive format. The path of a type is left out, so moving it between modules changes nothing; renaming a field does.

/// The archive format, as it enters every fingerprint.
pub const FORMAT: &str = "rkyv-0.8 little_endian unaligned pointer_width_32";

/// Fingerprint of [`FORMAT`] alone: what the handshake of two processes compares before any edge's schema.
pub const RECORD_FORMAT: u64 = Fingerprint::new(FORMAT).value();

/// A 64-bit FNV-1a hash that can be computed while compiling. Parts are length-prefixed, so no two lists of parts
/// run together into the same bytes.
///
/// ```
/// use tidegate_record::Fingerprint;
/// const F: u64 = Fingerprint::new("struct").text("Flight").number(3).value();
/// assert_eq!(F, Fingerprint::new("struct").text("Flight").number(3).value());
/// assert_ne!(Fingerprint::new("ab").text("c").value(), Fingerprint::new("a").text("bc").value());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    /// Starts with one text.
    pub const fn new(text: &str) -> Self {
        Self(Self::OFFSET).text(text)
    }

    /// Adds a text and its length.
    pub const fn text(self, text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut hash = self.number(bytes.len() as u64).0;
        let mut i = 0;
        while i < bytes.len() {
            hash = (hash ^ bytes[i] as u64).wrapping_mul(Self::PRIME);
            i += 1;
        }
        Self(hash)
    }

    /// Adds a number as eight bytes.
    pub const fn number(self, number: u64) -> Self {
        let bytes = number.to_le_bytes();
        let mut hash = self.0;
        let mut i = 0;
        while i < bytes.len() {
            hash = (hash ^ bytes[i] as u64).wrapping_mul(Self::PRIME);
            i += 1;
        }
        Self(hash)
    }

    /// The hash of everything added.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// What a [`Field`](crate::Field) looks like: its name, the fingerprint of its structure, and whether every value of it
/// takes the same number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    name: &'static str,
    fingerprint: Fingerprint,
    fixed: bool,
}

impl Shape {
    /// A type without parts: an integer, a float, `bool`, `char`.
    pub const fn scalar(name: &'static str) -> Self {
        Self::of("scalar", name)
    }

    /// Text, whose archive has a part of varying length.
    pub const fn text(name: &'static str) -> Self {
        Self { fixed: false, ..Self::of("text", name) }
    }

    /// A list of any length of one element type.
    pub const fn list(name: &'static str, element: Self) -> Self {
        Self { fixed: false, ..Self::of("list", name).field("element", element) }
    }

    /// A structure; add its fields in order with [`field`](Self::field).
    pub const fn structure(name: &'static str) -> Self {
        Self::of("struct", name)
    }

    /// A structure whose archive is itself; add its fields in order with [`field`](Self::field). Sizes are bytes.
    pub const fn plain(name: &'static str, size: usize, align: usize) -> Self {
        let shape = Self::of("plain", name);
        Self { fingerprint: shape.fingerprint.number(size as u64).number(align as u64), ..shape }
    }

    /// One of several variants; add each with [`variant`](Self::variant), followed by its fields.
    pub const fn choice(name: &'static str) -> Self {
        Self::of("enum", name)
    }

    /// `len` elements in a row.
    pub const fn array(element: Self, len: usize) -> Self {
        let shape = Self::of("array", "array").field("element", element);
        Self { fingerprint: shape.fingerprint.number(len as u64), ..shape }
    }

    const fn of(class: &str, name: &'static str) -> Self {
        Self { name, fingerprint: Fingerprint::new(class).text(name), fixed: true }
    }

    /// Adds a field.
    pub const fn field(self, name: &str, shape: Self) -> Self {
        let fingerprint = self.fingerprint.text(name).number(shape.fingerprint.value());
        Self { name: self.name, fingerprint, fixed: self.fixed && shape.fixed }
    }

    /// Opens a variant.
    pub const fn variant(self, name: &str) -> Self {
        Self { fingerprint: self.fingerprint.text("variant").text(name), ..self }
    }

    /// The type's name, without its path.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The hash of the structure.
    pub const fn fingerprint(&self) -> u64 {
        self.fingerprint.value()
    }

    /// Whether all values take the same number of bytes.
    pub const fn is_fixed(&self) -> bool {
        self.fixed
    }
}

/// Size and alignment of a plain record, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainLayout {
    /// Bytes of one record; also the distance between two in a payload.
    pub size: u32,
    /// Where in memory a payload of them must start.
    pub align: u32,
}

/// What travels on an edge, as its two ends compare it.
///
/// ```
/// use tidegate_record::Record;
/// assert_eq!(<u64 as Record>::SCHEMA.plain.unwrap().size, 8);
/// assert_eq!(<String as Record>::SCHEMA.plain, None);
/// assert_ne!(<u64 as Record>::SCHEMA.fingerprint, <i64 as Record>::SCHEMA.fingerprint);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// The type's name, without its path; for people.
    pub name: &'static str,
    /// Equal on both ends of an edge, or the edge is refused.
    pub fingerprint: u64,
    /// The layout, where a payload is an array of the records themselves.
    pub plain: Option<PlainLayout>,
}

impl Schema {
    /// The schema of a plain record. Sizes are bytes.
    pub const fn plain(shape: Shape, size: usize, align: usize) -> Self {
        let fingerprint = Fingerprint::new("plain record")
            .text(FORMAT)
            .number(shape.fingerprint())
            .number(size as u64)
            .number(align as u64);
        let plain = Some(PlainLayout { size: size as u32, align: align as u32 });
        Self { name: shape.name(), fingerprint: fingerprint.value(), plain }
    }

    /// The schema of a record that travels as a length and an archive.
    pub const fn archive(shape: Shape) -> Self {
        let fingerprint = Fingerprint::new("archived record").text(FORMAT).number(shape.fingerprint());
        Self { name: shape.name(), fingerprint: fingerprint.value(), plain: None }
    }

    /// The schema of a record that travels together with its key.
    pub const fn carried(key: Shape, record: Shape) -> Self {
        let fingerprint = Fingerprint::new("carried key")
            .text(FORMAT)
            .number(key.fingerprint())
            .number(record.fingerprint());
        Self { name: record.name(), fingerprint: fingerprint.value(), plain: None }
    }
}
