//! The derives of tidegate-record: `Record`, `Plain` and `Key`. They read one type definition and own nothing.
//!
//! Always true: what they emit for a type that should not have the trait is a compile error naming the field or the
//! reason, never an implementation that is wrong at run time.

mod input;
mod key;
mod plain;
mod record;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements `Record` for a struct or enum of `Field`s: it travels as a length and an rkyv archive.
///
/// For `Flight` it also makes the struct `ArchivedFlight`, the view that consumers see, with the same fields in their
/// archived form. `#[record(derive(Debug, PartialEq))]` adds derives to that view, `#[record(crate = path)]` names the
/// crate when it is re-exported under another path.
#[proc_macro_derive(Record, attributes(record))]
pub fn derive_record(tokens: TokenStream) -> TokenStream {
    let input = parse_macro_input!(tokens as DeriveInput);
    record::expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Implements `Plain` and `Record` for a `repr(C)` struct of plain fields: its archive is itself.
///
/// Refuses, while compiling, a struct with padding, with a field that is not plain, without `repr(C)` or
/// `repr(transparent)`, with generic parameters, or without bytes.
#[proc_macro_derive(Plain, attributes(record))]
pub fn derive_plain(tokens: TokenStream) -> TokenStream {
    let input = parse_macro_input!(tokens as DeriveInput);
    plain::expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Implements `Key` for a struct of keys that derives `Record` or `Plain`, field by field.
///
/// The type must be `Clone` and `Eq`, and its `Eq` must compare all fields, as the derived one does.
#[proc_macro_derive(Key, attributes(record))]
pub fn derive_key(tokens: TokenStream) -> TokenStream {
    let input = parse_macro_input!(tokens as DeriveInput);
    key::expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}
