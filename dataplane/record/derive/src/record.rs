//! `derive(Record)`: an rkyv archive, its shape, and the `Record` implementation over both. Nothing here owns state.
//!
//! A derive cannot add derives to the type it stands on. So rkyv's own derives are put on a twin of the type, as a remote
//! definition, and the type's implementations go through the twin. Nobody ever holds a value of the twin but the
//! deserializer, which turns it into the type at once.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Fields, Ident, LitStr, Path, Result};

use crate::input::{Options, plain_name, refuse, shape_of_fields};

pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let options = Options::read(input, "Record")?;
    if options.fixed_layout {
        return refuse(
            &input.ident,
            "a type with a fixed layout derives `Plain`; `Record` never sends the type's own bytes, so remove the `repr` \
             or derive `Plain` instead",
        );
    }
    let archive = archive(input, &options)?;
    let shape = shape(input, &options.krate)?;
    let record = record(&input.ident, &options.krate);
    Ok(quote!(#archive #shape #record))
}

/// The twin with rkyv's derives, and the type's archive implementations through it.
fn archive(input: &DeriveInput, options: &Options) -> Result<TokenStream> {
    let name = &input.ident;
    let base = plain_name(name);
    let twin = format_ident!("__{base}Twin");
    let archived = format_ident!("Archived{base}", span = name.span());
    let resolver = format_ident!("__{base}Resolver");
    let twin_item = twin_item(input, &twin)?;
    let from_twin = from_twin(input, &twin);
    let view_derives = &options.view_derives;
    let krate = &options.krate;
    let rkyv = quote!(#krate::rkyv);
    Ok(quote! {
        #[doc(hidden)]
        #[allow(dead_code, missing_docs, missing_debug_implementations)]
        #[derive(#rkyv::Archive, #rkyv::Serialize, #rkyv::Deserialize)]
        #[rkyv(
            crate = #rkyv,
            remote = #name,
            archived = #archived,
            resolver = #resolver,
            derive(#(#view_derives),*)
        )]
        #twin_item

        #[automatically_derived]
        impl ::core::convert::From<#twin> for #name {
            #[inline]
            fn from(twin: #twin) -> Self {
                #from_twin
            }
        }

        #[automatically_derived]
        impl #rkyv::Archive for #name {
            type Archived = #archived;
            type Resolver = #resolver;

            #[inline]
            fn resolve(&self, resolver: Self::Resolver, out: #rkyv::Place<Self::Archived>) {
                <#twin as #rkyv::with::ArchiveWith<#name>>::resolve_with(self, resolver, out);
            }
        }

        #[automatically_derived]
        impl<__S: #rkyv::rancor::Fallible + ?Sized> #rkyv::Serialize<__S> for #name
        where
            #twin: #rkyv::with::SerializeWith<#name, __S, Archived = #archived, Resolver = #resolver>,
        {
            #[inline]
            fn serialize(&self, serializer: &mut __S) -> ::core::result::Result<#resolver, __S::Error> {
                <#twin as #rkyv::with::SerializeWith<#name, __S>>::serialize_with(self, serializer)
            }
        }

        #[automatically_derived]
        impl<__D: #rkyv::rancor::Fallible + ?Sized> #rkyv::Deserialize<#name, __D> for #archived
        where
            #twin: #rkyv::with::DeserializeWith<#archived, #name, __D>,
        {
            #[inline]
            fn deserialize(&self, deserializer: &mut __D) -> ::core::result::Result<#name, __D::Error> {
                <#twin as #rkyv::with::DeserializeWith<#archived, #name, __D>>::deserialize_with(self, deserializer)
            }
        }
    })
}

/// The type's definition again, under the twin's name, without its attributes.
fn twin_item(input: &DeriveInput, twin: &Ident) -> Result<TokenStream> {
    let vis = &input.vis;
    match &input.data {
        Data::Struct(data) => {
            let fields = field_list(&data.fields);
            let end = if matches!(data.fields, Fields::Named(_)) { quote!() } else { quote!(;) };
            Ok(quote!(#vis struct #twin #fields #end))
        }
        Data::Enum(data) if data.variants.is_empty() => {
            refuse(&input.ident, "an enum without variants has no values, so no record of it can exist")
        }
        Data::Enum(data) => {
            let variants = data.variants.iter().map(|variant| {
                let (name, fields) = (&variant.ident, field_list(&variant.fields));
                quote!(#name #fields)
            });
            Ok(quote!(#vis enum #twin { #(#variants),* }))
        }
        Data::Union(_) => refuse(&input.ident, "a union does not say which of its fields holds; use an enum"),
    }
}

fn field_list(fields: &Fields) -> TokenStream {
    match fields {
        Fields::Named(fields) => {
            let fields = fields.named.iter().map(|field| {
                let (vis, name, ty) = (&field.vis, &field.ident, &field.ty);
                quote!(#vis #name: #ty)
            });
            quote!({ #(#fields),* })
        }
        Fields::Unnamed(fields) => {
            let fields = fields.unnamed.iter().map(|field| {
                let (vis, ty) = (&field.vis, &field.ty);
                quote!(#vis #ty)
            });
            quote!((#(#fields),*))
        }
        Fields::Unit => quote!(),
    }
}

/// The expression that moves a twin's fields into the type.
fn from_twin(input: &DeriveInput, twin: &Ident) -> TokenStream {
    let name = &input.ident;
    let moved = |from: TokenStream, to: TokenStream, fields: &Fields| {
        let members: Vec<_> = fields.members().collect();
        let locals: Vec<_> = (0..members.len()).map(|index| format_ident!("field_{index}")).collect();
        quote!(#from { #(#members: #locals),* } => #to { #(#members: #locals),* })
    };
    match &input.data {
        Data::Struct(data) => {
            let arm = moved(quote!(#twin), quote!(#name), &data.fields);
            quote!(match twin { #arm })
        }
        Data::Enum(data) => {
            let arms = data.variants.iter().map(|variant| {
                let label = &variant.ident;
                moved(quote!(#twin::#label), quote!(#name::#label), &variant.fields)
            });
            quote!(match twin { #(#arms),* })
        }
        Data::Union(_) => quote!(),
    }
}

fn shape(input: &DeriveInput, krate: &Path) -> Result<TokenStream> {
    let name = &input.ident;
    let label = LitStr::new(&plain_name(name), name.span());
    let shape = match &input.data {
        Data::Struct(data) => {
            let fields = shape_of_fields(krate, &data.fields);
            quote!(#krate::Shape::structure(#label)#fields)
        }
        Data::Enum(data) => {
            let variants = data.variants.iter().map(|variant| {
                let label = LitStr::new(&plain_name(&variant.ident), variant.ident.span());
                let fields = shape_of_fields(krate, &variant.fields);
                quote!(.variant(#label)#fields)
            });
            quote!(#krate::Shape::choice(#label)#(#variants)*)
        }
        Data::Union(_) => quote!(),
    };
    Ok(quote! {
        #[automatically_derived]
        impl #krate::Field for #name {
            const SHAPE: #krate::Shape = #shape;
        }
    })
}

fn record(name: &Ident, krate: &Path) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl #krate::Record for #name {
            type Archived = #krate::Nested<Self>;
            type Keyed<__K: #krate::Key> = #krate::Carried;
            const SCHEMA: #krate::Schema = #krate::Schema::archive(<Self as #krate::Field>::SHAPE);

            #[inline]
            fn write(&self, out: &mut #krate::Slot<'_>) -> ::core::result::Result<(), #krate::WriteError> {
                #krate::archive::write(self, out)
            }

            #[inline]
            fn read<'a>(
                bytes: &'a [u8],
                position: &mut u32,
            ) -> ::core::result::Result<::core::option::Option<&'a Self::Archived>, #krate::ReadError> {
                #krate::archive::read::<Self>(bytes, position)
            }

            #[inline]
            fn to_owned_value(archived: &Self::Archived) -> ::core::result::Result<Self, #krate::ReadError> {
                #krate::archive::to_owned::<Self>(archived)
            }
        }
    }
}
