//! `derive(Plain)`: the compile-time proof that a struct's archive is itself, and the implementations that follow from
//! it. Nothing here owns state.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, LitStr, Result};

use crate::input::{Options, plain_name, refuse, shape_of_fields};

pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let options = Options::read(input, "Plain")?;
    let Data::Struct(data) = &input.data else {
        return refuse(
            &input.ident,
            "only structs can be plain: not every bit pattern is a value of an enum; derive `Record` instead",
        );
    };
    if !options.fixed_layout {
        return refuse(
            &input.ident,
            "a plain record needs `#[repr(C)]` (or `#[repr(transparent)]`), so that its layout is the same everywhere",
        );
    }
    if data.fields.is_empty() {
        return refuse(
            &input.ident,
            "a plain record takes at least one byte; add a field or derive `Record`",
        );
    }
    let krate = &options.krate;
    let rkyv = quote!(#krate::rkyv);
    let name = &input.ident;
    let label = LitStr::new(&plain_name(name), name.span());
    let types: Vec<_> = data.fields.iter().map(|field| &field.ty).collect();
    let fields = shape_of_fields(krate, &data.fields);
    let padding = format!(
        "`{name}` has padding between or behind its fields, which would send uninitialised bytes: order the fields from \
         large to small and fill the rest with explicit bytes, such as `_unused: [u8; 4]`"
    );
    Ok(quote! {
        const _: () = {
            const fn plain<__T: #krate::Plain>() {}
            #(plain::<#types>();)*
            assert!(
                ::core::mem::size_of::<#name>() == 0 #(+ ::core::mem::size_of::<#types>())*,
                #padding
            );
        };

        // SAFETY: `repr(C)` or `repr(transparent)`, all fields plain and no padding, all checked just above.
        #[automatically_derived]
        unsafe impl #krate::Plain for #name {}

        #[automatically_derived]
        impl #rkyv::Archive for #name {
            // SAFETY: the archived form is these bytes at any address, and there is no padding among them.
            const COPY_OPTIMIZATION: #rkyv::traits::CopyOptimization<Self> =
                unsafe { #rkyv::traits::CopyOptimization::enable() };
            type Archived = #krate::Packed<Self>;
            type Resolver = ();

            #[inline]
            fn resolve(&self, _: (), out: #rkyv::Place<Self::Archived>) {
                out.write(#krate::Packed::new(*self));
            }
        }

        #[automatically_derived]
        impl<__S: #rkyv::rancor::Fallible + ?Sized> #rkyv::Serialize<__S> for #name {
            #[inline]
            fn serialize(&self, _: &mut __S) -> ::core::result::Result<(), __S::Error> {
                ::core::result::Result::Ok(())
            }
        }

        #[automatically_derived]
        impl #krate::Field for #name {
            const SHAPE: #krate::Shape = #krate::Shape::plain(
                #label,
                ::core::mem::size_of::<Self>(),
                ::core::mem::align_of::<Self>(),
            )#fields;
        }

        #[automatically_derived]
        impl #krate::Record for #name {
            type Archived = Self;
            type Keyed<__K: #krate::Key> = #krate::Recomputed;
            const SCHEMA: #krate::Schema = #krate::Schema::plain(
                <Self as #krate::Field>::SHAPE,
                ::core::mem::size_of::<Self>(),
                ::core::mem::align_of::<Self>(),
            );

            #[inline(always)]
            fn write(&self, out: &mut #krate::Slot<'_>) -> ::core::result::Result<(), #krate::WriteError> {
                #krate::plain::write(self, out)
            }

            #[inline(always)]
            fn read<'a>(
                bytes: &'a [u8],
                position: &mut u32,
            ) -> ::core::result::Result<::core::option::Option<&'a Self>, #krate::ReadError> {
                #krate::plain::read::<Self>(bytes, position)
            }

            #[inline(always)]
            fn to_owned_value(archived: &Self) -> ::core::result::Result<Self, #krate::ReadError> {
                ::core::result::Result::Ok(*archived)
            }
        }
    })
}
