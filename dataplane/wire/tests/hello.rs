//! The handshake: bytes, order of checks, named refusals.

mod bodies;
mod common;

use common::{config, hello};
use proptest::prelude::*;
use tidegate_wire::{
    HELLO_LEN, HELLO_MAGIC, HELLO_REPLY_LEN, Hello, HelloReply, RECORD_FORMAT, Refusal, RefusalCode,
    ReplyError, SlotAddress, VERSION, channels_hash, payload_crc,
};

fn bytes_of(hello: &Hello) -> [u8; HELLO_LEN] {
    let mut bytes = [0xAA; HELLO_LEN];
    hello.write(&mut bytes);
    bytes
}

fn reply_bytes(reply: &HelloReply) -> [u8; HELLO_REPLY_LEN] {
    let mut bytes = [0xAA; HELLO_REPLY_LEN];
    reply.write(&mut bytes);
    bytes
}

/// The sample hello's bytes, changed by `change`, with the checksum right again.
fn resealed(change: impl FnOnce(&mut [u8])) -> [u8; HELLO_LEN] {
    let mut bytes = bytes_of(&hello());
    change(&mut bytes);
    let checksum = payload_crc(&bytes[..124]).to_le_bytes();
    bytes[124..].copy_from_slice(&checksum);
    bytes
}

/// W-2, W-5: the bytes of a hello, one by one.
#[test]
fn golden_hello() {
    #[rustfmt::skip]
    let expected: [u8; 124] = [
        b'T', b'G', b'H', b'I', 2, 0, 0, 0, 0, 0x80, 0, 0, 4, 0, 0, 0,
        0xFF, 0xEE, 0xDD, 0xCC, 0xBB, 0xAA, 0x99, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00,
        0x88, 0x88, 0x77, 0x77, 0x66, 0x66, 0x55, 0x55, 0x44, 0x44, 0x33, 0x33, 0x22, 0x22, 0x11, 0x11,
        5, 0, 0, 0, 0, 0, 0, 0, 0xA1, 0, 0, 0, 0, 0, 0, 0,
        0xB2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0,
        3, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 32, 0, 0, 0,
        0xFE, 0xCA, 0xAD, 0x0B, 0x0D, 0xF0, 0xED, 0xFE, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let bytes = bytes_of(&hello());
    assert_eq!(bytes[..124], expected);
    assert_eq!(bytes[124..], payload_crc(&expected).to_le_bytes());
    assert_eq!(Hello::parse(&bytes), Ok(hello()));
    assert_eq!(hello().checksum(), u32::from_le_bytes([bytes[124], bytes[125], bytes[126], bytes[127]]));
}

/// W-8, W-9: the bytes of a reply, one by one.
#[test]
fn golden_reply() {
    let refusal = Refusal { code: RefusalCode::Epoch, expected: 0x0807_0605_0403_0201, found: 9 };
    #[rustfmt::skip]
    let expected: [u8; 28] = [
        b'T', b'G', b'R', b'E', 2, 0, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8,
        9, 0, 0, 0, 0, 0, 0, 0, 0x44, 0x33, 0x22, 0x11,
    ];
    let bytes = reply_bytes(&HelloReply { echo: 0x1122_3344, refusal: Some(refusal) });
    assert_eq!(bytes[..28], expected);
    assert_eq!(bytes[28..], payload_crc(&expected).to_le_bytes());
    let accepted = HelloReply { echo: 7, refusal: None };
    assert_eq!(HelloReply::parse(&reply_bytes(&accepted)), Ok(accepted));
}

/// W-12: the record format of this version.
#[test]
fn golden_record_format() {
    assert_eq!(RECORD_FORMAT.to_le_bytes(), [0, 8, 0, 0, 32, 0, 0, 0]);
}

/// W-11: FNV-1a over number and schema of each channel, ascending.
#[test]
fn golden_channels_hash() {
    // FNV-1a's own vector: the hash of "a" is 0xaf63dc4c8601ec8c; ours sees 12 bytes per channel, here 97, 0 × 11.
    let after_a = 0xaf63_dc4c_8601_ec8c_u64;
    let zeros = (0..11).fold(after_a, |hash, _| hash.wrapping_mul(0x0000_0100_0000_01b3));
    assert_eq!(channels_hash([(97, 0)]), zeros);
    assert_ne!(channels_hash([(1, 0), (2, 0)]), channels_hash([(1, 0), (3, 0)]));
    assert_ne!(channels_hash([(1, 5)]), channels_hash([(5, 1)]));
}

#[test]
#[should_panic(expected = "ascending order")]
fn channels_are_hashed_in_ascending_order() {
    let _ = channels_hash([(2, 0), (1, 0)]);
}

/// W-3, W-6, W-7: what needs no plan: magic, checksum, version, reserved fields, limits, in this order.
#[test]
fn hellos_are_refused_by_name() {
    let refusal = |bytes| Hello::parse(&bytes).unwrap_err();
    let garbage = refusal([0; HELLO_LEN]);
    assert_eq!(
        (garbage.code, garbage.expected, garbage.found),
        (RefusalCode::Garbage, HELLO_MAGIC.into(), 0)
    );

    let mut damaged = bytes_of(&hello());
    damaged[4] = 3;
    assert_eq!(refusal(damaged).code, RefusalCode::Garbage, "the checksum comes before the version");

    let newer = resealed(|bytes| {
        bytes[4] = 3;
        bytes[6] = 1;
        bytes[8] = 1;
    });
    let expected = Refusal { code: RefusalCode::Version, expected: 2, found: 3 };
    assert_eq!(refusal(newer), expected, "another version is told so, whatever else it says");

    for at in [6, 7, 84, 87, 104, 115, 123] {
        assert_eq!(refusal(resealed(|bytes| bytes[at] = 1)).code, RefusalCode::Garbage, "reserved byte {at}");
    }
    for pair in [[6, 84], [84, 104], [104, 108]] {
        let both = resealed(|bytes| pair.iter().for_each(|at| bytes[*at] = 1));
        assert_eq!(refusal(both).code, RefusalCode::Garbage, "reserved bytes {pair:?}");
    }
    for size in [0, 1, 2048, 4095, 4097, 2 << 20, 1 << 31, u32::MAX] {
        let refusal = refusal(bytes_of(&Hello { segment_size: size, ..hello() }));
        assert_eq!((refusal.code, refusal.found), (RefusalCode::SegmentSize, size.into()));
    }
    for channels in [0, 65_537, u32::MAX] {
        let refusal = refusal(bytes_of(&Hello { channels, ..hello() }));
        assert_eq!((refusal.code, refusal.found), (RefusalCode::Channels, channels.into()));
    }
    for size in [4096, 1 << 20] {
        assert!(Hello::parse(&bytes_of(&Hello { segment_size: size, channels: 65_536, ..hello() })).is_ok());
    }
}

/// W-7, W-9: each difference from the plan has its name, and the first in the order counts.
#[test]
fn differences_from_the_plan_are_named_in_order() {
    use RefusalCode as Code;
    let other = SlotAddress { tm: 0x1_0000_00C3, slot: 9 };
    type Change = fn(&mut Hello, SlotAddress);
    let steps: [(Change, Code, u64, u64); 10] = [
        (|h, _| h.channels_hash = 1, Code::Channels, 0xFEED_F00D_0BAD_CAFE, 1),
        (|h, _| h.channels = 5, Code::Channels, 4, 5),
        (|h, _| h.record_format = 0, Code::RecordFormat, RECORD_FORMAT, 0),
        (|h, _| h.segment_size = 4096, Code::SegmentSize, 32_768, 4096),
        (|h, other| h.from = other, Code::Slot, 0xA1_0000_0001, 0xC3_0000_0009),
        (|h, other| h.to = other, Code::Slot, 0xB2_0000_0002, 0xC3_0000_0009),
        (|h, _| h.attempt = 2, Code::Attempt, 3, 2),
        (|h, _| h.job = 6, Code::Job, 0x5555_6666_7777_8888, 6),
        (|h, _| h.epoch = 6, Code::Epoch, 5, 6),
        (|h, _| h.cluster = 7, Code::Cluster, 0x8899_AABB_CCDD_EEFF, 7),
    ];
    let mut dialled = hello();
    assert_eq!(dialled.check(&hello()), Ok(()));
    // Each step adds a difference that is checked before all others so far.
    for (change, code, expected, found) in steps {
        change(&mut dialled, other);
        assert_eq!(dialled.check(&hello()), Err(Refusal { code, expected, found }));
    }
}

/// W-9, W-10: the numbers of the codes, and which of them may pass with time.
#[test]
fn refusal_codes() {
    for (number, code) in (1..).zip(RefusalCode::ALL) {
        assert_eq!((code as u16, RefusalCode::from_number(number)), (number, Some(code)));
        let refusal = Refusal { code, expected: 1, found: 2 };
        assert!(refusal.to_string().contains(&format!("{code:?}")), "{refusal}");
        let reply = HelloReply { echo: 3, refusal: Some(refusal) };
        assert_eq!(HelloReply::parse(&reply_bytes(&reply)), Ok(reply));
    }
    assert_eq!((RefusalCode::from_number(0), RefusalCode::from_number(12)), (None, None));
    let transient: Vec<_> = RefusalCode::ALL.into_iter().filter(|code| code.is_transient()).collect();
    assert_eq!(transient, [RefusalCode::Job, RefusalCode::Attempt, RefusalCode::Slot, RefusalCode::Busy]);
    assert_eq!(Refusal::busy(4, 4).code, RefusalCode::Busy);
}

/// W-6, W-8, W-44: a producer of another version can refuse, and cannot accept.
#[test]
fn replies_of_other_versions() {
    let other_version = |refusal| {
        let mut bytes = reply_bytes(&HelloReply { echo: 3, refusal });
        bytes[4] = 9;
        let checksum = payload_crc(&bytes[..28]).to_le_bytes();
        bytes[28..].copy_from_slice(&checksum);
        HelloReply::parse(&bytes)
    };
    let refusal = Refusal { code: RefusalCode::Version, expected: 9, found: VERSION.into() };
    assert_eq!(other_version(Some(refusal)).unwrap().refusal, Some(refusal));
    assert_eq!(other_version(None), Err(ReplyError::Version { found: 9 }));
}

/// W-8, W-9: replies that are none.
#[test]
fn replies_are_refused_by_name() {
    assert_eq!(HelloReply::parse(&[0; HELLO_REPLY_LEN]), Err(ReplyError::Magic { found: 0 }));
    let mut bytes = reply_bytes(&HelloReply { echo: 3, refusal: None });
    bytes[24] ^= 1;
    assert!(matches!(HelloReply::parse(&bytes), Err(ReplyError::Checksum { .. })));
    for (at, value, found) in [(6, 12, 12), (8, 1, 0), (16, 1, 0)] {
        let mut bytes = reply_bytes(&HelloReply { echo: 3, refusal: None });
        bytes[at] = value;
        let checksum = payload_crc(&bytes[..28]).to_le_bytes();
        bytes[28..].copy_from_slice(&checksum);
        assert_eq!(HelloReply::parse(&bytes), Err(ReplyError::Code { found }));
    }
}

/// W-4, W-5, W-8: no bit of hello or reply flips unseen.
#[test]
fn every_bit_flip_is_detected() {
    let bytes = bytes_of(&hello());
    for bit in 0..HELLO_LEN * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Hello::parse(&flipped).is_err(), "bit {bit}");
    }
    let bytes = reply_bytes(&HelloReply { echo: 3, refusal: Some(Refusal::busy(1, 1)) });
    for bit in 0..HELLO_REPLY_LEN * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(HelloReply::parse(&flipped).is_err(), "bit {bit}");
    }
}

proptest! {
    #![proptest_config(config(512))]

    /// W-5, W-8: arbitrary bytes and changed hellos; the naive decoder agrees.
    #[test]
    fn the_naive_decoder_agrees(
        noise in proptest::collection::vec(any::<u8>(), 128),
        changes in proptest::collection::vec((0..HELLO_LEN, any::<u8>()), 0..4),
    ) {
        bodies::hello(&noise);
        let mut bytes = bytes_of(&hello());
        changes.iter().for_each(|&(at, value)| bytes[at] = value);
        bodies::hello(&bytes);
        let mut bytes = reply_bytes(&HelloReply { echo: 3, refusal: Some(Refusal::busy(1, 1)) });
        changes.iter().for_each(|&(at, value)| bytes[at % HELLO_REPLY_LEN] = value);
        bodies::hello(&bytes);
    }
}
