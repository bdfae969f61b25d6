//! Fingerprints: equal for equal types wherever they live, different for anything that changes meaning or bytes.

use std::collections::HashSet;

use tidegate_record::{KeyedCodec, Plain, RECORD_FORMAT, Record};

mod here {
    #[derive(tidegate_record::Record)]
    pub struct Flight {
        pub carrier: String,
        pub delay: Option<i16>,
    }
}

mod moved {
    #[derive(tidegate_record::Record)]
    pub struct Flight {
        pub carrier: String,
        pub delay: Option<i16>,
    }
}

macro_rules! variations {
    ($($module:ident { $($item:tt)* })*) => {
        $(mod $module { #[derive(tidegate_record::Record)] $($item)* })*
        fn variations() -> Vec<u64> {
            vec![$(<$module::Flight as Record>::SCHEMA.fingerprint),*]
        }
    };
}
variations! {
    as_is { pub struct Flight { pub carrier: String, pub delay: Option<i16> } }
    renamed_field { pub struct Flight { pub carrier: String, pub late: Option<i16> } }
    other_type { pub struct Flight { pub carrier: String, pub delay: Option<u16> } }
    other_order { pub struct Flight { pub delay: Option<i16>, pub carrier: String } }
    fewer { pub struct Flight { pub carrier: String } }
    unnamed { pub struct Flight(pub String, pub Option<i16>); }
    choice { pub enum Flight { Carrier(String), Delay(Option<i16>) } }
    other_choice { pub enum Flight { Carrier(String), Late(Option<i16>) } }
    moved_field { pub enum Flight { Carrier(String, Option<i16>), Delay } }
}

#[test]
fn the_path_does_not_matter_and_everything_else_does() {
    assert_eq!(here::Flight::SCHEMA, moved::Flight::SCHEMA);
    let all = variations();
    assert_eq!(all[0], here::Flight::SCHEMA.fingerprint);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
}

#[derive(Clone, Copy, Plain)]
#[repr(C)]
struct Point {
    x: u32,
    y: u32,
}

mod archived {
    #[derive(tidegate_record::Record)]
    pub struct Point {
        pub x: u32,
        pub y: u32,
    }
}

#[test]
fn class_and_key_are_part_of_it() {
    assert_ne!(Point::SCHEMA.fingerprint, archived::Point::SCHEMA.fingerprint);
    assert_eq!(Point::SCHEMA.plain.map(|layout| (layout.size, layout.align)), Some((8, 4)));
    assert_eq!(archived::Point::SCHEMA.plain, None);
    assert_eq!(Point::SCHEMA.name, "Point");

    type Carried<K> = <String as Record>::Keyed<K>;
    let by_u32 = <Carried<u32> as KeyedCodec<u32, String>>::SCHEMA;
    let by_u64 = <Carried<u64> as KeyedCodec<u64, String>>::SCHEMA;
    assert_ne!(by_u32.fingerprint, by_u64.fingerprint);
    assert_ne!(by_u32.fingerprint, String::SCHEMA.fingerprint);
    type Recomputed = <u64 as Record>::Keyed<u32>;
    assert_eq!(<Recomputed as KeyedCodec<u32, u64>>::SCHEMA, u64::SCHEMA);
}

#[test]
fn types_of_the_standard_library_differ() {
    let all = [
        u8::SCHEMA,
        i8::SCHEMA,
        u16::SCHEMA,
        u32::SCHEMA,
        u64::SCHEMA,
        i64::SCHEMA,
        f64::SCHEMA,
        u128::SCHEMA,
        bool::SCHEMA,
        char::SCHEMA,
        <()>::SCHEMA,
        String::SCHEMA,
        <Vec<u8>>::SCHEMA,
        <Vec<u16>>::SCHEMA,
        <Vec<Vec<u8>>>::SCHEMA,
        <Option<u8>>::SCHEMA,
        <[u8; 2]>::SCHEMA,
        <[u8; 3]>::SCHEMA,
        <[[u8; 3]; 1]>::SCHEMA,
        <(u8,)>::SCHEMA,
        <(u8, u8)>::SCHEMA,
        <((u8,), u8)>::SCHEMA,
        <(u8, (u8,))>::SCHEMA,
    ];
    assert_eq!(all.iter().map(|schema| schema.fingerprint).collect::<HashSet<_>>().len(), all.len());
}

#[test]
fn fingerprints_are_pinned() {
    // They are compared between processes and stored in checkpoints; a change makes all of those strangers.
    let found =
        [RECORD_FORMAT, u64::SCHEMA.fingerprint, here::Flight::SCHEMA.fingerprint, Point::SCHEMA.fingerprint];
    assert_eq!(found, PINNED, "{found:#018x?}");
}

const PINNED: [u64; 4] =
    [0xea8d_d129_d114_e006, 0x83cb_b454_de4c_ae78, 0x3303_69ad_6a7d_442b, 0xbae6_f4b0_d710_74d2];
