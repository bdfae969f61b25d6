//! Trains: what is written is read back, what is damaged or out of bounds is refused, and the bytes do not drift.

mod bodies;
mod common;

use common::{any_entries, any_entry, config, one_of_each, write};
use proptest::prelude::*;
use tidegate_wire::{
    Body, CREDITS_MAX, Data, ENTRIES_MAX, End, Entry, ErrorCode, Fault, Full, Kind, LINK, MANIFEST_MAX,
    Manifest, ManifestWriter, PAYLOAD_MAX, PAYLOADS_MAX, Parsed, RECORD_MAX, WireError, parse, payload_crc,
};

fn complete(bytes: &[u8]) -> Manifest<'_> {
    match parse(bytes) {
        Ok(Parsed::Complete(manifest)) => manifest,
        other => panic!("expected a manifest, found {other:?}"),
    }
}

fn refusal(bytes: &[u8]) -> WireError {
    parse(bytes).expect_err("the bytes are to be refused")
}

/// A manifest of one grant, changed by `change`, with its checksums right again.
fn resealed(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = write(0, 0, &[Entry::control(1, 1, Body::Grant { credits: 1, barriers: 0 })]);
    change(&mut bytes);
    bodies::seal_manifest(&mut bytes);
    bytes
}

/// One entry, changed by `change` at its 32 bytes, with the checksums right again.
fn with_entry(entry: Entry, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = write(0, 0, &[entry]);
    change(&mut bytes[64..]);
    bodies::seal_manifest(&mut bytes);
    bytes
}

/// W-2, W-14, W-16, W-22: the bytes of a header and an entry, one by one.
#[test]
fn golden_manifest() {
    let data = Data { len: 0x0001_0203, total: 0x00F3_F4F5, offset: 0x0082_8384, crc: 0x1122_3344 };
    let bytes = write(
        0x0807_0605_0403_0201,
        0x1817_1615_1413_1211,
        &[Entry::data(0xA3A2_A1A0, 0xB3B2_B1B0, 0xC3C2_C1C0, 0xD1D0, data)],
    );
    #[rustfmt::skip]
    let header: [u8; 56] = [
        b'T', b'G', b'T', b'R', 2, 0, 1, 0, 1, 0, 0, 0, 96, 0, 0, 0,
        0x03, 0x02, 0x01, 0, 0, 0, 0, 0, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
        1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
    ];
    #[rustfmt::skip]
    let entry: [u8; 32] = [
        0xA0, 0xA1, 0xA2, 0xA3, 0xB0, 0xB1, 0xB2, 0xB3, 1, 0, 0xD0, 0xD1, 0xC0, 0xC1, 0xC2, 0xC3,
        0x03, 0x02, 0x01, 0x00, 0xF5, 0xF4, 0xF3, 0x00, 0x84, 0x83, 0x82, 0x00, 0x44, 0x33, 0x22, 0x11,
    ];
    assert_eq!(bytes[..56], header);
    assert_eq!(bytes[64..], entry);
    assert_eq!(bytes[56..60], payload_crc(&entry).to_le_bytes());
    assert_eq!(bytes[60..64], payload_crc(&bytes[..60]).to_le_bytes());
    assert_eq!(bytes[56..64], GOLDEN_CHECKSUMS);
}

/// Of entries and header, computed once and kept.
const GOLDEN_CHECKSUMS: [u8; 8] = [201, 245, 250, 92, 185, 125, 148, 18];

/// W-23, W-24: the body bytes of every kind.
#[test]
fn golden_bodies() {
    #[rustfmt::skip]
    let expected: [(u8, [u8; 16]); 14] = [
        (1, [0, 16, 0, 0, 0x10, 0x27, 0, 0, 0, 16, 0, 0, 0xEF, 0xBE, 0xAD, 0xDE]),
        (2, [8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        (3, [9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (4, [0xFB, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]),
        (5, [0; 16]),
        (6, [8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (7, [9, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0]),
        (8, [0; 16]),
        (9, [0; 16]),
        (10, [0; 16]),
        (11, [0; 16]),
        (12, [6, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0]),
        (13, [0x10, 0x27, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (14, [0x10, 0x27, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (entry, (kind, body)) in one_of_each().into_iter().zip(expected) {
        let bytes = write(0, 0, &[entry]);
        assert_eq!((bytes[64 + 8], &bytes[64 + 16..]), (kind, &body[..]), "{entry:?}");
        assert_eq!(bytes[64 + 9], 0, "flags are reserved");
    }
}

/// W-23: who sends what, what is sequenced, what costs credit.
#[test]
fn the_table_of_kinds() {
    let by_consumer = [Kind::Grant, Kind::Resume, Kind::Close, Kind::Admit];
    let unsequenced =
        [Kind::Backlog, Kind::Grant, Kind::Resume, Kind::Close, Kind::Error, Kind::Ask, Kind::Admit];
    for (number, kind) in (1_u8..).zip(Kind::ALL) {
        assert_eq!((kind as u8, Kind::from_byte(number)), (number, Some(kind)));
        assert_eq!(kind.sent_by(End::Consumer), by_consumer.contains(&kind) || kind == Kind::Error);
        assert_eq!(kind.sent_by(End::Producer), !by_consumer.contains(&kind));
        assert_eq!(kind.is_sequenced(), !unsequenced.contains(&kind));
        assert_eq!(kind.needs_credit(), kind == Kind::Data);
    }
    assert_eq!((Kind::from_byte(0), Kind::from_byte(15)), (None, None));
}

/// W-34: the codes of errors, and the code for each way to be wrong.
#[test]
fn error_codes() {
    for (number, code) in (1..).zip(ErrorCode::ALL) {
        assert_eq!((code as u16, ErrorCode::from_number(number)), (number, Some(code)));
    }
    assert_eq!((ErrorCode::from_number(0), ErrorCode::from_number(13)), (None, None));
    let (entry, kind) = (5, WireError::Kind { entry: 5, found: 77 });
    for (error, report, fault) in [
        (WireError::Magic { found: 9 }, (ErrorCode::Manifest, 9), Fault::PeerForeign),
        (WireError::Version { expected: 2, found: 8 }, (ErrorCode::Manifest, 8), Fault::PeerForeign),
        (WireError::HeaderChecksum { expected: 1, found: 2 }, (ErrorCode::Checksum, 2), Fault::Damaged),
        (WireError::EntriesChecksum { expected: 1, found: 2 }, (ErrorCode::Checksum, 2), Fault::Damaged),
        (WireError::Train { expected: 3, found: 4 }, (ErrorCode::Train, 4), Fault::PeerViolated),
        (
            WireError::Direction { entry, kind: Kind::Grant, from: End::Producer },
            (ErrorCode::Direction, Kind::Grant as u64),
            Fault::PeerViolated,
        ),
        (WireError::HeaderReserved, (ErrorCode::Manifest, 0), Fault::PeerViolated),
        (kind, (ErrorCode::Manifest, 5), Fault::PeerViolated),
    ] {
        assert_eq!((error.report(), error.fault()), (report, fault), "{error}");
    }
    assert!(kind.to_string().contains("W-23"), "{kind}");
}

/// W-13: only data entries have payloads; their order is the order of the entries.
#[test]
fn payloads_follow_the_order_of_their_entries() {
    let data = |channel, len| Entry::data(channel, 1, 0, 0, Data::whole(len, len));
    let barrier = Entry::sequenced(5, 1, 0, Body::Barrier { checkpoint: 1 });
    let bytes = write(0, 0, &[data(9, 100), barrier, data(3, 200), data(9, 300)]);
    let manifest = complete(&bytes);
    let payloads: Vec<_> =
        manifest.entries().filter_map(|e| e.payload().map(|data| (e.channel, data.len))).collect();
    assert_eq!(payloads, [(9, 100), (3, 200), (9, 300)]);
    assert_eq!((manifest.entries().len(), manifest.payloads(), manifest.payload_bytes()), (4, 3, 600));
    assert_eq!(manifest.len(), 64 + 4 * 32);
}

/// W-16: there is no bit of a manifest whose flip goes unseen, and it is seen at once, not after waiting for more bytes.
#[test]
fn every_bit_flip_is_detected() {
    let bytes = write(3, 1234, &one_of_each());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(parse(&flipped).is_err(), "bit {bit} of byte {}", bit / 8);
    }
}

/// W-20: every cut is incomplete, says how much is needed, and is no error.
#[test]
fn every_cut_is_incomplete() {
    let bytes = write(3, 1234, &one_of_each());
    for cut in 0..bytes.len() {
        let Ok(Parsed::Incomplete { need }) = parse(&bytes[..cut]) else { panic!("cut at {cut}") };
        assert_eq!(need, if cut < 64 { 64 } else { bytes.len() });
    }
    let mut longer = bytes.clone();
    longer.extend_from_slice(b"payload bytes");
    assert_eq!(complete(&longer).len(), bytes.len());
}

/// W-15, W-19: counts and lengths at every edge are refused before anything else is believed: the checksum is wrong too,
/// and is not even looked at.
#[test]
fn counts_and_lengths_are_checked_first() {
    let wrong = |at: usize, value: &[u8]| {
        let mut bytes = write(0, 0, &[Entry::control(1, 1, Body::Close)]);
        bytes[at..at + value.len()].copy_from_slice(value);
        refusal(&bytes)
    };
    for found in [0, 65, 0x7FFF, 0x8000, u16::MAX] {
        assert_eq!(wrong(6, &found.to_le_bytes()), WireError::EntryCount { found });
    }
    for found in [2, 16, 17, 0x8000, u16::MAX] {
        assert_eq!(wrong(8, &found.to_le_bytes()), WireError::PayloadCount { found });
    }
    for found in [0, 64, 95, 97, 128, 1 << 31, u32::MAX] {
        assert_eq!(wrong(12, &found.to_le_bytes()), WireError::ManifestBytes { expected: 96, found });
    }
    for found in [1, 1 << 31, u64::from(u32::MAX), 1 << 63, u64::MAX] {
        assert_eq!(wrong(16, &found.to_le_bytes()), WireError::PayloadBytes { found, payloads: 0 });
    }
    let mut bytes = write(0, 0, &[Entry::data(1, 1, 0, 0, Data::whole(1, 0))]);
    for found in [0, u64::from(PAYLOAD_MAX) + 1, u64::MAX] {
        bytes[16..24].copy_from_slice(&found.to_le_bytes());
        assert_eq!(refusal(&bytes), WireError::PayloadBytes { found, payloads: 1 });
    }
}

/// W-3, W-14, W-19: magic, version, header checksum and reserved fields, each by name.
#[test]
fn headers_are_refused_by_name() {
    assert_eq!(refusal(&[0; 64]), WireError::Magic { found: 0 });
    assert_eq!(refusal(&resealed(|bytes| bytes[4] = 1)), WireError::Version { expected: 2, found: 1 });
    let mut bytes = resealed(|_| ());
    bytes[30] ^= 1;
    assert!(matches!(refusal(&bytes), WireError::HeaderChecksum { .. }));
    for at in [10, 11, 48, 55] {
        assert_eq!(refusal(&resealed(|bytes| bytes[at] = 1)), WireError::HeaderReserved, "byte {at}");
    }
}

/// W-14: the header's counts and sums must be those of the entries.
#[test]
fn sums_must_agree() {
    let data = Entry::data(1, 1, 0, 0, Data::whole(10, 0));
    let bytes = with_entry(data, |entry| entry[16..24].copy_from_slice(&[11, 0, 0, 0, 11, 0, 0, 0]));
    assert_eq!(refusal(&bytes), WireError::Sum { expected: (1, 10), found: (1, 11) });
    let bytes = with_entry(data, |entry| {
        entry[8] = Kind::EndOfData as u8;
        entry[16..].fill(0);
    });
    assert_eq!(refusal(&bytes), WireError::Sum { expected: (1, 10), found: (0, 0) });
}

/// W-24: each field that a kind does not use is refused when it is set.
#[test]
fn unused_fields_are_refused() {
    for entry in one_of_each() {
        let kind = entry.kind();
        let unused = WireError::Unused { entry: 0, kind };
        assert_eq!(refusal(&with_entry(entry, |bytes| bytes[9] = 0x80)), unused, "flags of {kind:?}");
        if !matches!(kind, Kind::Data | Kind::Backlog) {
            assert_eq!(refusal(&with_entry(entry, |bytes| bytes[10] = 1)), unused, "backlog of {kind:?}");
        }
        if !kind.is_sequenced() {
            assert_eq!(refusal(&with_entry(entry, |bytes| bytes[15] = 1)), unused, "sequence of {kind:?}");
        }
        let words = match kind {
            Kind::Data | Kind::Resume => 0..0,
            Kind::Error => 1..2,
            Kind::Ask | Kind::Admit => 1..4,
            Kind::Barrier | Kind::AbortMarker | Kind::Watermark | Kind::Grant => 2..4,
            _ => 0..4,
        };
        // Any of them, and any together, with the same bits.
        for set in 1..1 << words.len() {
            let bytes = with_entry(entry, |bytes| {
                words
                    .clone()
                    .filter(|word| set >> (word - words.start) & 1 == 1)
                    .for_each(|word| bytes[16 + 4 * word] = 1);
            });
            assert_eq!(refusal(&bytes), unused, "words {set:b} of {words:?} of {kind:?}");
        }
    }
}

/// W-23: kinds that do not exist.
#[test]
fn unknown_kinds_are_refused() {
    for found in [0, 15, 0x80, 0xFF] {
        let bytes = with_entry(Entry::control(1, 1, Body::Close), |entry| entry[8] = found);
        assert_eq!(refusal(&bytes), WireError::Kind { entry: 0, found });
    }
}

/// W-15, W-25, W-26: lengths, totals and offsets at their edges.
#[test]
fn payload_measures_have_bounds() {
    let fits =
        |len, total, offset| Entry::data(1, 1, 0, 0, Data { len, total, offset, crc: 0 }).is_well_formed();
    assert!(fits(1, 1, 0) && fits(PAYLOAD_MAX, PAYLOAD_MAX, 0));
    assert!(fits(PAYLOAD_MAX, RECORD_MAX, RECORD_MAX - PAYLOAD_MAX), "the last slice of the largest record");
    for (len, total, offset) in [
        (0, 0, 0),
        (0, 10, 5),
        (PAYLOAD_MAX + 1, PAYLOAD_MAX + 1, 0),
        (10, 9, 0),
        (10, 10, 1),
        (1, RECORD_MAX + 1, 0),
        (u32::MAX, u32::MAX, 0),
        (1 << 31, u32::MAX, 1 << 31),
        (2, RECORD_MAX, u32::MAX),
    ] {
        assert!(!fits(len, total, offset), "{len} of {total} at {offset}");
        let bytes = with_entry(Entry::data(1, 1, 0, 0, Data::whole(1, 0)), |entry| {
            [len, total, offset].iter().zip([16, 20, 24]).for_each(|(value, at)| {
                entry[at..at + 4].copy_from_slice(&value.to_le_bytes());
            });
        });
        assert_eq!(refusal(&bytes), WireError::Payload { entry: 0, len, total, offset });
    }
    assert!(!Data::whole(14, 0).is_slice(14) && Data::whole(15, 0).is_slice(14));
    let slice = Data { len: 5, total: 15, offset: 5, crc: 0 };
    assert!(slice.is_slice(14) && !slice.is_last() && Data { offset: 10, ..slice }.is_last());
}

/// W-15, W-46, W-47: the size of a record that is asked for and admitted, at its edges.
#[test]
fn asks_and_admits_have_bounds() {
    for body in [|total| Body::Ask { total }, |total| Body::Admit { total }] {
        let fits = |total| Entry::control(1, 1, body(total)).is_well_formed();
        assert_eq!([0, 1, RECORD_MAX, RECORD_MAX + 1, u32::MAX].map(fits), [false, true, true, false, false]);
        let bytes = with_entry(Entry::control(1, 1, body(1)), |entry| entry[16] = 0);
        assert_eq!(refusal(&bytes), WireError::Payload { entry: 0, len: 0, total: 0, offset: 0 });
    }
}

/// W-15, W-30, W-31: credits at their edges.
#[test]
fn credits_have_bounds() {
    let grant = |credits| Entry::control(1, 1, Body::Grant { credits, barriers: 7 }).is_well_formed();
    let resume =
        |credits| Entry::control(1, 1, Body::Resume { checkpoint: 1, credits, barriers: 7 }).is_well_formed();
    assert_eq!(CREDITS_MAX, 262_144);
    assert_eq!([0, 1, CREDITS_MAX, CREDITS_MAX + 1, u32::MAX].map(grant), [false, true, true, false, false]);
    assert_eq!([0, 1, CREDITS_MAX, CREDITS_MAX + 1, u32::MAX].map(resume), [true, true, true, false, false]);
}

/// W-34: only an error of generation 0 speaks of the whole link, and an error has a code.
#[test]
fn the_whole_link_is_for_errors() {
    assert!(Entry::link_error(1, u64::MAX).is_well_formed());
    for entry in one_of_each().into_iter().filter(|entry| entry.kind() != Kind::Error) {
        let bytes = with_entry(entry, |bytes| bytes[..4].copy_from_slice(&LINK.to_le_bytes()));
        assert_eq!(refusal(&bytes), WireError::Channel { entry: 0, kind: entry.kind() });
    }
    let bytes = with_entry(Entry::link_error(1, 0), |entry| entry[4] = 1);
    assert_eq!(refusal(&bytes), WireError::Channel { entry: 0, kind: Kind::Error });
    for (at, value, found) in [(16, 0, 0), (18, 1, 0x1_0001)] {
        let bytes = with_entry(Entry::link_error(1, 0), |entry| entry[at] = value);
        assert_eq!(refusal(&bytes), WireError::Code { entry: 0, found });
    }
    assert!(
        Entry::control(1, 1, Body::Error { code: 999, detail: 0 }).is_well_formed(),
        "unknown codes pass"
    );
}

/// W-17, W-19: a train that was lost, repeated or moved.
#[test]
fn trains_are_numbered() {
    let bytes = write(41, 0, &[Entry::control(1, 1, Body::Close)]);
    let manifest = complete(&bytes);
    assert_eq!(manifest.check_train(41), Ok(()));
    for expected in [0, 40, 42, u64::MAX] {
        assert_eq!(manifest.check_train(expected), Err(WireError::Train { expected, found: 41 }));
    }
}

/// W-1, W-19, W-23: a kind that only the other end may send.
#[test]
fn each_end_sends_its_own_kinds() {
    for entry in one_of_each() {
        let bytes = write(0, 0, &[Entry::link_error(1, 0), entry]);
        for from in [End::Producer, End::Consumer] {
            let expected = if entry.kind().sent_by(from) {
                Ok(())
            } else {
                Err(WireError::Direction { entry: 1, kind: entry.kind(), from })
            };
            assert_eq!(complete(&bytes).check_sender(from), expected);
        }
    }
}

/// W-18: the oldest birth of the train's records, 0 being none.
#[test]
fn the_oldest_birth_stands_in_the_header() {
    let birth = |first, noted: &[u64]| {
        let mut bytes = [0; MANIFEST_MAX];
        let mut writer = ManifestWriter::new(&mut bytes, 0, first);
        noted.iter().for_each(|birth| writer.note_birth(*birth));
        writer.push(Entry::control(1, 1, Body::Close)).unwrap();
        let len = writer.finish();
        complete(&bytes[..len]).birth_ns()
    };
    assert_eq!((birth(0, &[]), birth(0, &[0, 9, 7, 8]), birth(5, &[0, 9])), (0, 7, 5));
}

/// W-18: the departure of a train, 0 being none, at its place in the header (W-14).
#[test]
fn the_departure_stands_in_the_header() {
    let sent = |said: Option<u64>| {
        let mut bytes = [0; MANIFEST_MAX];
        let mut writer = ManifestWriter::new(&mut bytes, 0, 1);
        said.into_iter().for_each(|at| writer.sent_at(at));
        writer.push(Entry::control(1, 1, Body::Close)).unwrap();
        let len = writer.finish();
        assert_eq!(bytes[40..48], said.unwrap_or(0).to_le_bytes());
        complete(&bytes[..len]).sent_ns()
    };
    assert_eq!((sent(None), sent(Some(77)), sent(Some(u64::MAX))), (0, 77, u64::MAX));
}

/// W-21: a payload's checksum is that of its bytes, in whatever pieces they came.
#[test]
fn payload_checksums_are_seen_to_differ() {
    let payload: Vec<u8> = (0..=255).cycle().take(32 * 1024).collect();
    let data = Data::whole(payload.len() as u32, payload_crc(&payload));
    for at in [0, 1, 16 * 1024, 32 * 1024 - 1] {
        let mut damaged = payload.clone();
        damaged[at] ^= 0x10;
        assert_ne!(payload_crc(&damaged), data.crc);
    }
}

/// W-15: a full manifest takes no more, says so, and stays whole.
#[test]
fn a_full_manifest_says_so() {
    let mut bytes = [0; MANIFEST_MAX];
    let mut writer = ManifestWriter::new(&mut bytes, 0, 0);
    let data = Entry::data(1, 1, 0, 0, Data::whole(PAYLOAD_MAX, 0));
    (0..PAYLOADS_MAX).for_each(|_| writer.push(data).unwrap());
    assert_eq!((writer.push(data), writer.payloads_left(), writer.entries_left()), (Err(Full), 0, 48));
    (PAYLOADS_MAX..ENTRIES_MAX).for_each(|_| writer.push(Entry::control(1, 1, Body::Close)).unwrap());
    assert_eq!((writer.push(Entry::control(1, 1, Body::Close)), writer.len()), (Err(Full), ENTRIES_MAX));
    assert_eq!(writer.payload_bytes(), 16 << 20);
    assert_eq!(writer.finish(), MANIFEST_MAX);
    assert_eq!(complete(&bytes).entries().len(), ENTRIES_MAX);

    let mut small = [0; 64 + 32 + 31];
    let mut writer = ManifestWriter::new(&mut small, 0, 0);
    writer.push(data).unwrap();
    assert_eq!((writer.push(data), writer.entries_left()), (Err(Full), 0));
}

/// W-15: a train without entries does not exist.
#[test]
fn nothing_pushed_is_nothing_to_send() {
    let mut bytes = [0xAA; MANIFEST_MAX];
    let writer = ManifestWriter::new(&mut bytes, 0, 0);
    assert!(writer.is_empty());
    assert_eq!(writer.finish(), 0);
    assert_eq!(bytes, [0xAA; MANIFEST_MAX]);
}

#[test]
#[should_panic(expected = "breaks the wire format")]
fn an_ill_formed_entry_is_the_callers_bug() {
    write(0, 0, &[Entry::data(1, 1, 0, 0, Data::whole(0, 0))]);
}

proptest! {
    #![proptest_config(config(512))]

    /// W-2, W-22, W-24: what is written is read back, wherever it lies, and the naive decoder agrees.
    #[test]
    fn round_trip(entries in any_entries(), train: u64, birth_ns: u64, shift in 0..8_usize) {
        let bytes = write(train, birth_ns, &entries);
        let mut moved = vec![0x55; shift];
        moved.extend_from_slice(&bytes);
        let manifest = complete(&moved[shift..]);
        prop_assert!(manifest.entries().eq(entries.iter().copied()));
        prop_assert_eq!((manifest.train(), manifest.birth_ns()), (train, birth_ns));
        bodies::manifest(&bytes);
    }

    /// W-19, W-24: both decoders stop at the same check, whatever a valid manifest is changed to.
    #[test]
    fn the_naive_decoder_agrees_on_changed_manifests(
        entries in any_entries(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = write(0, 0, &entries[..entries.len().min(4)]);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bodies::manifest(&bytes);
    }

    /// W-24: an entry is well formed exactly if the naive decoder takes its bytes.
    #[test]
    fn any_entry_is_well_formed(entry in any_entry()) {
        prop_assert!(entry.is_well_formed());
    }

    /// W-20: bytes that are no manifest never make the decoder wait beyond the largest manifest.
    #[test]
    fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        bodies::manifest(&bytes);
        let mut started = b"TGTR\x01\x00".to_vec();
        started.extend_from_slice(&bytes);
        bodies::manifest(&started);
    }
}
