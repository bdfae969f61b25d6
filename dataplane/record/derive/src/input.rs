//! What the three derives ask of a type definition: its options, its crate path, its fields. Nothing here owns state.
//!
//! Always true: a definition that passed [`Options::read`] has no generic parameters.

use std::{env, fs, path::Path as FilePath};

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::punctuated::Punctuated;
use syn::{DeriveInput, Error, Fields, Ident, LitStr, Path, Result, Token, parse_quote};

/// The `#[record(…)]` attributes of a type.
pub struct Options {
    /// Where tidegate-record is found from the type's crate.
    pub krate: Path,
    /// Derives for the archived view.
    pub view_derives: Vec<Path>,
    /// Whether the type has `repr(C)` or `repr(transparent)`.
    pub fixed_layout: bool,
}

impl Options {
    pub fn read(input: &DeriveInput, derive: &str) -> Result<Self> {
        if let Some(parameter) = input.generics.params.first() {
            let message = format!(
                "derive({derive}) takes no generic parameters: one name and one fingerprint stand for one layout; \
                 write the concrete type out"
            );
            return Err(Error::new_spanned(parameter, message));
        }
        let mut krate = None;
        let mut view_derives = Vec::new();
        let mut fixed_layout = false;
        for attribute in &input.attrs {
            if attribute.path().is_ident("record") {
                attribute.parse_nested_meta(|meta| {
                    if meta.path.is_ident("crate") {
                        krate = Some(meta.value()?.call(Path::parse_mod_style)?);
                        Ok(())
                    } else if meta.path.is_ident("derive") {
                        let content;
                        syn::parenthesized!(content in meta.input);
                        let paths = Punctuated::<Path, Token![,]>::parse_terminated_with(
                            &content,
                            Path::parse_mod_style,
                        )?;
                        view_derives.extend(paths);
                        Ok(())
                    } else {
                        Err(meta.error("expected `crate = path` or `derive(Trait, …)`"))
                    }
                })?;
            } else if attribute.path().is_ident("repr") {
                attribute.parse_nested_meta(|meta| {
                    if meta.path.is_ident("C") || meta.path.is_ident("transparent") {
                        fixed_layout = true;
                    }
                    // `align(8)`, `packed(2)`: the argument does not matter here.
                    if meta.input.peek(syn::token::Paren) {
                        let content;
                        syn::parenthesized!(content in meta.input);
                        content.parse::<TokenStream>()?;
                    }
                    Ok(())
                })?;
            }
        }
        Ok(Self { krate: krate.unwrap_or_else(default_crate), view_derives, fixed_layout })
    }
}

/// Where tidegate-record is found when the type does not say: as itself, or re-exported by one of its users.
fn default_crate() -> Path {
    let manifest = env::var("CARGO_MANIFEST_DIR")
        .ok()
        .and_then(|folder| fs::read_to_string(FilePath::new(&folder).join("Cargo.toml")).ok())
        .unwrap_or_default();
    let own_name = env::var("CARGO_PKG_NAME").unwrap_or_default();
    let knows = |package: &str| own_name == package || names_dependency(&manifest, package);
    if knows("tidegate-record") {
        parse_quote!(::tidegate_record)
    } else if knows("tidegate") {
        parse_quote!(::tidegate::record)
    } else if knows("tidegate-stream") {
        parse_quote!(::tidegate_stream::record)
    } else {
        parse_quote!(::tidegate_record)
    }
}

/// Whether a manifest has a line or a table that starts with the package's name as a whole key.
fn names_dependency(manifest: &str, package: &str) -> bool {
    manifest.lines().any(|line| {
        let line = line.trim_start();
        let key = match line.strip_prefix('[') {
            Some(table) => {
                table.split(']').next().and_then(|path| path.split_once("dependencies.")).map(|(_, key)| key)
            }
            None => line
                .strip_prefix(package)
                .filter(|rest| rest.starts_with([' ', '=', '.', '\t']))
                .map(|_| package),
        };
        key.is_some_and(|key| key.trim() == package)
    })
}

/// The name of a field for people and fingerprints: its own, or its place.
pub fn field_name(index: usize, field: &syn::Field) -> String {
    field.ident.as_ref().map_or_else(|| index.to_string(), plain_name)
}

/// An identifier without the `r#` of a raw one.
pub fn plain_name(name: &Ident) -> String {
    let name = name.to_string();
    name.strip_prefix("r#").map(str::to_owned).unwrap_or(name)
}

/// `.field("name", <Type as Field>::SHAPE)` for every field, to follow a shape.
pub fn shape_of_fields(krate: &Path, fields: &Fields) -> TokenStream {
    let parts = fields.iter().enumerate().map(|(index, field)| {
        let name = LitStr::new(&field_name(index, field), Span::call_site());
        let ty = &field.ty;
        quote!(.field(#name, <#ty as #krate::Field>::SHAPE))
    });
    quote!(#(#parts)*)
}

/// An error at the whole of `tokens`.
pub fn refuse<T>(tokens: impl ToTokens, message: &str) -> Result<T> {
    Err(Error::new_spanned(tokens, message))
}
