//! Bytes from a broken or hostile peer: every reader returns records or a `ReadError`, and what it returns can be used.

use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_record::{
    KeyRef, KeyedCodec, Plain, ReadError, Record, Records, Slot, from_snapshot, to_snapshot,
};

#[derive(Clone, Copy, Debug, PartialEq, Plain)]
#[repr(C)]
struct Small(u32, [u8; 3], i8);

#[derive(Clone, Debug, PartialEq, Record)]
enum Body {
    Empty,
    Text(String),
    Parts { list: Vec<(String, Option<char>)>, plain: Vec<Small>, flag: bool },
}

type Row = (u64, Body, Vec<Vec<String>>, Option<String>, [bool; 3]);

/// Reads everything and looks at every byte of it, by making values; true when all of it was readable.
fn drain<T: Record>(bytes: &[u8]) -> bool {
    let mut cursor = Records::<T>::new(bytes);
    let mut last = cursor.position();
    while let Some(view) = cursor.next() {
        let Ok(view) = view else {
            assert_eq!(cursor.position(), last, "an error moves nothing");
            assert!(cursor.next().is_none(), "an error ends the cursor");
            return false;
        };
        let _ = T::to_owned_value(view);
        assert!(cursor.position() > last && cursor.position() as usize <= bytes.len());
        last = cursor.position();
    }
    assert_eq!(last as usize, bytes.len(), "the end is the end of the bytes");
    true
}

fn drain_keyed(bytes: &[u8]) {
    type Key = (String, u8);
    type Codec = <Row as Record>::Keyed<Key>;
    let key_of = |_: &Row| -> Key { unreachable!("the key travels") };
    let mut position = 0;
    while let Ok(Some((key, view))) = Codec::read(bytes, &mut position, &key_of) {
        key.hash();
        let _ = key.to_key();
        let _ = Row::to_owned_value(view);
    }
}

fn row() -> impl Strategy<Value = Row> {
    let body = prop_oneof![
        Just(Body::Empty),
        ".{0,30}".prop_map(Body::Text),
        (vec((".{0,12}", any::<Option<char>>()), 0..5), vec(any::<u32>(), 0..5), any::<bool>()).prop_map(
            |(list, plain, flag)| Body::Parts {
                list,
                plain: plain.into_iter().map(|n| Small(n, [1, 2, 3], -1)).collect(),
                flag
            }
        ),
    ];
    (any::<u64>(), body, vec(vec(".{0,12}", 0..4), 0..4), any::<Option<String>>(), any::<[bool; 3]>())
}

fn payload(rows: &[Row]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in rows {
        to_snapshot(row, &mut bytes).unwrap();
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 10 } else { 2000 }))]

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        drain::<Row>(&bytes);
        drain::<String>(&bytes);
        drain::<Vec<Vec<u8>>>(&bytes);
        drain::<Option<char>>(&bytes);
        drain::<()>(&bytes);
        drain::<u8>(&bytes);
        drain::<u32>(&bytes);
        drain_keyed(&bytes);
        let _ = from_snapshot::<Row>(&bytes);
    }

    #[test]
    fn random_bytes_behind_a_true_length_never_panic(body in vec(any::<u8>(), 0..300)) {
        let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
        bytes.extend(&body);
        drain::<Row>(&bytes);
        drain::<String>(&bytes);
        drain::<Vec<Vec<u8>>>(&bytes);
        drain_keyed(&bytes);
    }

    #[test]
    fn flipped_bits_never_panic(rows in vec(row(), 1..4), flips in vec((any::<prop::sample::Index>(), 0u8..8), 1..6)) {
        let mut bytes = payload(&rows);
        for (index, bit) in flips {
            let at = index.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        drain::<Row>(&bytes);
        drain_keyed(&bytes);
        let _ = from_snapshot::<Row>(&bytes);
    }

    #[test]
    fn a_cut_payload_is_an_error_unless_cut_between_records(rows in vec(row(), 1..4), cut in any::<prop::sample::Index>()) {
        let bytes = payload(&rows);
        let cut = cut.index(bytes.len());
        let mut boundaries = vec![0];
        for n in 1..=rows.len() {
            boundaries.push(payload(&rows[..n]).len());
        }
        prop_assert_eq!(drain::<Row>(&bytes[..cut]), boundaries.contains(&cut));
    }

    #[test]
    fn a_position_anywhere_never_panics(rows in vec(row(), 0..3), position in any::<u32>()) {
        let bytes = payload(&rows);
        for view in Records::<Row>::resume(&bytes, position) {
            let _ = view.map(Row::to_owned_value);
        }
        let _ = u64::read(&bytes, &mut position.clone());
    }
}

#[test]
fn each_fault_has_its_name() {
    let text = |bytes: &[u8]| String::read(bytes, &mut 0).map(|view| view.map(|text| text.to_string()));
    assert_eq!(text(&[]), Ok(None));
    assert_eq!(
        text(&[8, 0]),
        Err(ReadError::Truncated { record: "String", position: 0, needed: 4, available: 2 })
    );
    assert_eq!(
        text(&[8, 0, 0, 0, 1]),
        Err(ReadError::Truncated { record: "String", position: 0, needed: 12, available: 5 })
    );
    assert_eq!(
        text(&[255, 255, 255, 255, 1]),
        Err(ReadError::Truncated { record: "String", position: 0, needed: 4 + 0xffff_ffff, available: 5 })
    );
    assert_eq!(
        text(&[1, 0, 0, 0, b'a']),
        Err(ReadError::Length { record: "String", position: 0, found: 1, expected: 8, exact: false })
    );
    assert_eq!(
        text(&[8, 0, 0, 0, 0xbf, 255, 255, 255, 0, 0, 0, 0]),
        Err(ReadError::Invalid { record: "String", position: 0, len: 8 })
    );
    assert_eq!(
        bool::read(&[2, 0, 0, 0, 1, 1], &mut 0).map(|_| ()),
        Err(ReadError::Length { record: "bool", position: 0, found: 2, expected: 1, exact: true })
    );
    assert_eq!(String::read(&[0; 4], &mut 5).map(|_| ()), Err(ReadError::Position { position: 5, len: 4 }));
}

#[test]
fn each_fault_of_a_plain_payload_has_its_name() {
    #[repr(align(8))]
    struct Aligned([u8; 24]);
    let buffer = Aligned([0; 24]);
    let bytes = &buffer.0;
    assert_eq!(u64::read(&bytes[..8], &mut 8).unwrap(), None);
    assert_eq!(
        u64::read(&bytes[..12], &mut 8),
        Err(ReadError::Truncated { record: "u64", position: 8, needed: 8, available: 4 })
    );
    assert_eq!(u64::read(&bytes[..12], &mut 13), Err(ReadError::Position { position: 13, len: 12 }));
    assert_eq!(
        u64::read(&bytes[..12], &mut { u32::MAX }),
        Err(ReadError::Position { position: u32::MAX, len: 12 })
    );
    assert_eq!(u64::read(&bytes[1..], &mut 0), Err(ReadError::Misaligned { record: "u64", align: 8 }));
    assert_eq!(u64::as_slice(&bytes[..12]), Err(ReadError::Ragged { record: "u64", len: 12, size: 8 }));
    assert_eq!(u64::as_slice(&bytes[1..17]), Err(ReadError::Misaligned { record: "u64", align: 8 }));
    assert_eq!(u64::as_slice(bytes).unwrap(), [0, 0, 0]);
}

#[test]
fn a_misaligned_plain_payload_can_still_be_written() {
    #[repr(align(8))]
    struct Aligned([u8; 17]);
    let mut buffer = Aligned([0; 17]);
    let mut slot = Slot::new(&mut buffer.0[1..], 0);
    7u64.write(&mut slot).unwrap();
    assert_eq!(slot.bytes(), 7u64.to_le_bytes());
}
