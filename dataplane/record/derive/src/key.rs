//! `derive(Key)`: the hash and the comparison of a struct of keys, field by field, on the value and on its archive.
//! Nothing here owns state.
//!
//! A type with a fixed layout is plain, so its archive is itself at any address; any other derives `Record`, so its
//! archive has the same fields in archived form. `derive(Record)` refuses a fixed layout, so the two never mix.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Result};

use crate::input::{Options, refuse};

pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let options = Options::read(input, "Key")?;
    let Data::Struct(data) = &input.data else {
        return refuse(
            &input.ident,
            "derive(Key) takes a struct of keys; make the enum's number or name a field of one",
        );
    };
    let mut members = data.fields.members().zip(data.fields.iter().map(|field| &field.ty));
    let Some((first, first_type)) = members.next() else {
        return refuse(&input.ident, "a key without fields puts everything into one group; give it a field");
    };
    let (rest, rest_types): (Vec<_>, Vec<_>) = members.unzip();
    let krate = &options.krate;
    let name = &input.ident;
    let nested = if options.fixed_layout {
        quote! {
            #[inline]
            fn hash_nested(nested: &#krate::Nested<Self>) -> u64 {
                <Self as #krate::Key>::hash(&nested.get())
            }

            #[inline]
            fn matches(&self, nested: &#krate::Nested<Self>) -> bool {
                *self == nested.get()
            }
        }
    } else {
        quote! {
            #[inline]
            fn hash_nested(nested: &#krate::Nested<Self>) -> u64 {
                let hash = <#first_type as #krate::Key>::hash_nested(&nested.#first);
                #(let hash = #krate::hash::combine(hash, <#rest_types as #krate::Key>::hash_nested(&nested.#rest));)*
                hash
            }

            #[inline]
            fn matches(&self, nested: &#krate::Nested<Self>) -> bool {
                <#first_type as #krate::Key>::matches(&self.#first, &nested.#first)
                    #(&& <#rest_types as #krate::Key>::matches(&self.#rest, &nested.#rest))*
            }
        }
    };
    Ok(quote! {
        #[automatically_derived]
        impl #krate::Key for #name {
            #[inline]
            fn hash(&self) -> u64 {
                let hash = <#first_type as #krate::Key>::hash(&self.#first);
                #(let hash = #krate::hash::combine(hash, <#rest_types as #krate::Key>::hash(&self.#rest));)*
                hash
            }

            #nested
        }
    })
}
