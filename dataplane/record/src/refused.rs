//! What the derives refuse, as examples that must not compile. Exists for the documentation tests only.
//!
//! A plain record needs a fixed layout:
//! ```compile_fail
//! #[derive(Clone, Copy, tidegate_record::Plain)]
//! struct Loose { a: u32 }
//! ```
//! and no padding behind its fields either:
//! ```compile_fail
//! #[derive(Clone, Copy, tidegate_record::Plain)]
//! #[repr(C)]
//! struct Tail { a: u32, b: u8 }
//! ```
//! and only fields for which every bit pattern is a value:
//! ```compile_fail
//! #[derive(Clone, Copy, tidegate_record::Plain)]
//! #[repr(C)]
//! struct Flag { a: bool }
//! ```
//! ```compile_fail
//! #[derive(Clone, Copy, tidegate_record::Plain)]
//! #[repr(C)]
//! struct Machine { a: usize }
//! ```
//! and at most the alignment of a cache line:
//! ```compile_fail
//! use tidegate_record::{Plain, Record, Slot};
//! #[derive(Clone, Copy, Plain)]
//! #[repr(C, align(128))]
//! struct Wide { a: [u64; 16] }
//! Wide { a: [0; 16] }.write(&mut Slot::new(&mut [0; 256], 0)).unwrap();
//! ```
//! An enum is not plain:
//! ```compile_fail
//! #[derive(Clone, Copy, tidegate_record::Plain)]
//! #[repr(C)]
//! enum Side { Buy, Sell }
//! ```
//! A record has no fields whose width differs between machines, no hash tables and no shared pointers:
//! ```compile_fail
//! #[derive(tidegate_record::Record)]
//! struct Count { n: usize }
//! ```
//! ```compile_fail
//! #[derive(tidegate_record::Record)]
//! struct Table { n: std::collections::HashMap<u8, u8> }
//! ```
//! ```compile_fail
//! #[derive(tidegate_record::Record)]
//! struct Shared { n: std::sync::Arc<u8> }
//! ```
//! no generic parameters:
//! ```compile_fail
//! #[derive(tidegate_record::Record)]
//! struct Wrapper<T> { inner: T }
//! ```
//! no layout of its own:
//! ```compile_fail
//! #[derive(tidegate_record::Record)]
//! #[repr(C)]
//! struct Fixed { a: u32 }
//! ```
//! and no list of elements without bytes, whose length nothing would bound:
//! ```compile_fail
//! use tidegate_record::Record;
//! let _ = Vec::<()>::read(&[], &mut 0);
//! ```
//! A float is no key:
//! ```compile_fail
//! fn key<K: tidegate_record::Key>() {}
//! key::<f64>();
//! ```
