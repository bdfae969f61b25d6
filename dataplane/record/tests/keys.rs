//! Keys: hashes are pinned for ever, mix well, and a key in its archive is the key.

use std::collections::HashSet;

use proptest::prelude::*;
use tidegate_record::{InPlace, Key, KeyRef, KeyedBatch, KeyedCodec, Plain, ReadError, Record, Slot, hash32};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Plain, Key)]
#[repr(C)]
struct Code([u8; 3]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Plain, Key)]
#[repr(C)]
struct Seat {
    row: u32,
    code: Code,
    letter: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Record, Key)]
struct Route {
    from: String,
    to: Code,
    leg: (u8, char),
    express: bool,
}

#[derive(Clone, Debug, PartialEq, Record)]
struct Parcel {
    label: String,
    weight: u32,
}

/// Sends a key along with a record and gives `check` what the consumer sees.
fn carried<K: Key>(key: &K, check: impl FnOnce(InPlace<'_, K>)) {
    let parcel = Parcel { label: "a label of some length".into(), weight: 3 };
    let mut buffer = [0u8; 1024];
    let mut slot = Slot::new(&mut buffer, 0);
    <Parcel as Record>::Keyed::<K>::write(key, &parcel, &mut slot).unwrap();
    let mut position = 0;
    let key_of = |_: &Parcel| -> K { panic!("the key travels") };
    let (key, view) =
        <Parcel as Record>::Keyed::<K>::read(slot.bytes(), &mut position, &key_of).unwrap().unwrap();
    assert_eq!(position, slot.len());
    assert_eq!(Parcel::to_owned_value(view).unwrap(), parcel);
    check(key);
}

fn agrees<K: Key + std::fmt::Debug>(key: &K, other: &K) {
    carried(key, |view| {
        assert_eq!(view.hash(), key.hash());
        assert_eq!(view.hash32(), key.hash32());
        assert!(view.is(key));
        assert_eq!(view.is(other), key == other);
        assert_eq!(&view.to_key().unwrap(), key);
    });
    assert_eq!(key.hash() == other.hash(), key == other);
}

fn route() -> impl Strategy<Value = Route> {
    (".{0,12}", any::<[u8; 3]>(), any::<u8>(), any::<char>(), any::<bool>())
        .prop_map(|(from, to, leg, cabin, express)| Route { from, to: Code(to), leg: (leg, cabin), express })
}

proptest! {
    #[test]
    fn a_carried_key_is_the_key(
        (a, b) in (route(), route()),
        ints in any::<((u8, i16, u32, i64), (u8, i16, u32, i64))>(),
        wide in any::<(u128, u128)>(),
        arrays in any::<([u8; 3], [u8; 3], [u8; 20], [u8; 20])>(),
        seats in any::<(u32, u32)>(),
    ) {
        agrees(&a, &b);
        agrees(&a, &a.clone());
        agrees(&ints.0, &ints.1);
        agrees(&wide.0, &wide.1);
        agrees(&arrays.0, &arrays.1);
        agrees(&arrays.2, &arrays.3);
        let seat = |row| Seat { row, code: Code(*b"TGX"), letter: b'A' };
        agrees(&seat(seats.0), &seat(seats.1));
        agrees(&(seat(seats.0), a.from.clone()), &(seat(seats.1), b.from));
    }
}

#[test]
fn a_plain_record_is_keyed_by_the_same_function_again() {
    type Codec = <Seat as Record>::Keyed<u32>;
    const { assert!(!<Codec as KeyedCodec<u32, Seat>>::CARRIES_KEY) }
    #[repr(align(64))]
    struct Buffer([u8; 64]);
    let mut buffer = Buffer([0; 64]);
    let mut slot = Slot::new(&mut buffer.0, 0);
    let seat = Seat { row: 9, code: Code(*b"TGX"), letter: b'C' };
    Codec::write(&9, &seat, &mut slot).unwrap();
    assert_eq!(slot.len() as usize, size_of::<Seat>());
    let (key, view) = Codec::read(slot.bytes(), &mut 0, &|seat: &Seat| seat.row).unwrap().unwrap();
    assert!(key.is(&9) && *view == seat);
}

/// What a batch of at most `most` finds, again and again up to the end, is what is found record by record.
fn batches_agree<K: Key, T: Record>(
    bytes: &[u8],
    most: usize,
    key_of: impl Fn(&T) -> K,
) -> Result<usize, ReadError> {
    let mut batch = <T::Keyed<K> as KeyedCodec<K, T>>::Batch::default();
    let (mut position, mut single, mut count) = (0, 0, 0);
    loop {
        batch.read(bytes, &mut position, most, &key_of)?;
        let hashes = batch.hashes().to_vec();
        assert!(hashes.len() <= most);
        assert_eq!(batch.iter(0).count(), hashes.len());
        assert_eq!(batch.start(hashes.len()), None);
        if hashes.is_empty() {
            assert_eq!((position, position as usize), (single, bytes.len()));
            return Ok(count);
        }
        for (index, ((key, record), hash)) in batch.iter(0).zip(hashes).enumerate() {
            assert_eq!(batch.start(index), Some(single));
            let (own, same) = <T::Keyed<K>>::read(bytes, &mut single, &key_of).unwrap().unwrap();
            assert_eq!((key.hash(), hash), (own.hash(), own.hash()));
            assert!(key.is(&own.to_key().unwrap()));
            assert!(std::ptr::eq(record, same));
            count += 1;
        }
        assert_eq!(position, single);
    }
}

#[test]
fn a_batch_is_the_records_one_by_one() {
    #[repr(align(64))]
    struct Buffer([u8; 4096]);
    let mut buffer = Buffer([0; 4096]);
    for most in [1, 2, 3, 31, 1000] {
        let mut slot = Slot::new(&mut buffer.0, 0);
        for row in 0..100 {
            let seat = Seat { row, code: Code(*b"TGX"), letter: b'C' };
            <Seat as Record>::Keyed::<u32>::write(&row, &seat, &mut slot).unwrap();
        }
        assert_eq!(batches_agree(slot.bytes(), most, |seat: &Seat| seat.row), Ok(100));
        let cut = &slot.bytes()[..slot.len() as usize - 1];
        let error = batches_agree(cut, most, |seat: &Seat| seat.row).unwrap_err();
        assert!(matches!(error, ReadError::Truncated { .. }), "{error}");

        let mut slot = Slot::new(&mut buffer.0, 0);
        for weight in 0..70 {
            let parcel = Parcel { label: "x".repeat(weight as usize % 20), weight };
            <Parcel as Record>::Keyed::<String>::write(&parcel.label, &parcel, &mut slot).unwrap();
        }
        let carried = |_: &Parcel| -> String { panic!("the key travels") };
        assert_eq!(batches_agree(slot.bytes(), most, carried), Ok(70));
        let cut = &slot.bytes()[..slot.len() as usize - 1];
        assert!(batches_agree(cut, most, carried).is_err());
    }
}

#[test]
fn hashes_are_pinned() {
    // Keyed state is addressed by these. A change loses every checkpoint there is.
    let seat = Seat { row: 1, code: Code(*b"TGX"), letter: 2 };
    let found = [
        0u64.hash(),
        1u64.hash(),
        (-1i32).hash(),
        u128::MAX.hash(),
        true.hash(),
        'ß'.hash(),
        String::from("harbour").hash(),
        (*b"BKK").hash(),
        [7u8; 20].hash(),
        (1u8, 2u8).hash(),
        (1u8, 2u8, String::from("c"), 4i64).hash(),
        seat.hash(),
    ];
    assert_eq!(found, PINNED, "{found:#018x?}");
}

const PINNED: [u64; 12] = [
    0x0753_3f5a_7b28_8b2f,
    0x37f5_7c86_750a_ea60,
    0x4a82_fbd0_a6b4_49cc,
    0x5c50_d1ec_a086_a1fe,
    0x37f5_7c86_750a_ea60,
    0x1e18_5853_31be_fe92,
    0x4525_043c_cc4d_c55e,
    0x563e_81bb_b7b0_f7f0,
    0x239f_50d1_6a6a_78f9,
    0xbd9a_ecac_3c31_85b1,
    0xa9e0_5d98_d6e9_2041,
    0x2cae_16fe_4086_15d1,
];

#[test]
fn integers_of_all_widths_and_signs_agree_on_their_low_values() {
    for value in 0..=255u8 {
        assert_eq!(value.hash(), u64::from(value).hash());
        assert_eq!((value as i8).hash(), value.hash());
    }
}

#[test]
fn every_input_bit_changes_about_half_of_the_output() {
    for bit in 0..64 {
        let mut changed = [0u32; 64];
        for sample in 0..2000u64 {
            let key = sample.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let difference = key.hash() ^ (key ^ (1 << bit)).hash();
            for (out, count) in changed.iter_mut().enumerate() {
                *count += (difference >> out & 1) as u32;
            }
        }
        for (out, count) in changed.iter().enumerate() {
            assert!(
                (700..1300).contains(count),
                "input bit {bit} changes output bit {out} in {count} of 2000 cases"
            );
        }
    }
}

/// How far the fullest and the emptiest of `buckets` are from even, as a share.
fn unevenness(hashes: impl Iterator<Item = u64>, buckets: usize, bucket: impl Fn(u64) -> usize) -> f64 {
    let mut counts = vec![0u32; buckets];
    let mut total = 0;
    for hash in hashes {
        counts[bucket(hash)] += 1;
        total += 1;
    }
    let even = f64::from(total) / buckets as f64;
    counts.iter().map(|count| (f64::from(*count) / even - 1.0).abs()).fold(0.0, f64::max)
}

#[test]
fn numbers_in_sequence_spread_evenly_over_low_and_high_bits_and_the_fold() {
    // 1024 in each bucket on average: five standard deviations are 0.16.
    let patterns: [fn(u64) -> u64; 4] = [|i| i, |i| i * 1024, |i| i << 32, |i| (i << 40) | 7];
    for (number, pattern) in patterns.into_iter().enumerate() {
        let hashes = || (0..1u64 << 18).map(|i| pattern(i).hash());
        assert!(unevenness(hashes(), 256, |h| h as usize & 255) < 0.16, "low bits, pattern {number}");
        assert!(unevenness(hashes(), 256, |h| (h >> 56) as usize) < 0.16, "high bits, pattern {number}");
        assert!(unevenness(hashes(), 256, |h| hash32(h) as usize & 255) < 0.16, "fold, pattern {number}");
        let pairs = || (0..1u64 << 18).map(|i| (pattern(i & 511), pattern(i >> 9)).hash());
        assert!(unevenness(pairs(), 256, |h| h as usize & 255) < 0.16, "low bits of pairs, pattern {number}");
        assert_eq!(pairs().collect::<HashSet<_>>().len(), 1 << 18, "pairs, pattern {number}");
    }
}

#[test]
fn order_matters_in_a_tuple() {
    assert_ne!((1u32, 2u32).hash(), (2u32, 1u32).hash());
    assert_ne!((0u32, 0u32).hash(), 0u32.hash());
}
