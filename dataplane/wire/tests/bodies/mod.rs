//! What a fuzz target does with its bytes. The targets in `fuzz/` and the stable tests run this same code.
//!
//! Beside the real decoder runs a naive one that reads byte by byte after the tables of `SPEC.md` and shares no code with
//! it. Both must give the same values, or stop at the same check.
#![allow(dead_code, reason = "each test binary and fuzz target uses its part of it")]

use tidegate_wire::{
    Body, Data, Entry, HELLO_LEN, HELLO_REPLY_LEN, Hello, HelloReply, MANIFEST_MAX, ManifestWriter, Parsed,
    SlotAddress, WireError, parse, payload_crc,
};

/// Any bytes as the start of a train: as they are, and with their checksums put right so that the later checks see them.
pub fn manifest(bytes: &[u8]) {
    one_manifest(bytes);
    let mut sealed = bytes.to_vec();
    if seal_manifest(&mut sealed) {
        one_manifest(&sealed);
    }
}

/// Puts both checksums of a manifest right, as far as its bytes are there.
pub fn seal_manifest(bytes: &mut [u8]) -> bool {
    if bytes.len() < 64 {
        return false;
    }
    let entries = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
    if let Some(body) = bytes.get(64..64 + 32 * entries) {
        let checksum = payload_crc(body).to_le_bytes();
        bytes[56..60].copy_from_slice(&checksum);
    }
    let checksum = payload_crc(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&checksum);
    true
}

fn one_manifest(bytes: &[u8]) {
    let naive = naive_manifest(bytes);
    match parse(bytes) {
        Err(error) => assert_eq!(naive.err(), Some(stage(error)), "{error}"),
        Ok(Parsed::Incomplete { need }) => {
            assert!(need > bytes.len() && need <= MANIFEST_MAX);
            assert_eq!(naive.err(), Some(Stage::Incomplete(need)));
        }
        Ok(Parsed::Complete(manifest)) => {
            let naive = naive.expect("both decoders accept");
            assert_eq!((naive.train, naive.birth_ns), (manifest.train(), manifest.birth_ns()));
            assert_eq!(naive.sent_ns, manifest.sent_ns());
            assert!(manifest.entries().eq(naive.entries.iter().copied()));
            assert_eq!(manifest.payloads() as u64, naive.payloads);
            assert_eq!(manifest.payload_bytes(), naive.payload_bytes);

            // What is accepted has one form only (W-24): writing it again gives the same bytes.
            let mut again = [0; MANIFEST_MAX];
            let mut writer = ManifestWriter::new(&mut again, manifest.train(), manifest.birth_ns());
            writer.sent_at(manifest.sent_ns());
            manifest.entries().for_each(|entry| writer.push(entry).expect("what was parsed fits"));
            let len = writer.finish();
            assert_eq!(again[..len], bytes[..manifest.len()]);

            // Every cut is incomplete (W-20), and never wants more than the whole.
            for cut in 0..manifest.len() {
                let Ok(Parsed::Incomplete { need }) = parse(&bytes[..cut]) else { panic!("cut at {cut}") };
                assert!(cut < need && need <= manifest.len());
            }
        }
    }
}

/// The check at which a decoder stopped, in the order of W-19.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Incomplete(usize),
    Magic,
    Version,
    EntryCount,
    PayloadCount,
    ManifestBytes,
    PayloadBytes,
    HeaderChecksum,
    HeaderReserved,
    EntriesChecksum,
    Entry(u8),
    Sum,
}

fn stage(error: WireError) -> Stage {
    match error {
        WireError::Magic { .. } => Stage::Magic,
        WireError::Version { .. } => Stage::Version,
        WireError::EntryCount { .. } => Stage::EntryCount,
        WireError::PayloadCount { .. } => Stage::PayloadCount,
        WireError::ManifestBytes { .. } => Stage::ManifestBytes,
        WireError::PayloadBytes { .. } => Stage::PayloadBytes,
        WireError::HeaderChecksum { .. } => Stage::HeaderChecksum,
        WireError::HeaderReserved => Stage::HeaderReserved,
        WireError::EntriesChecksum { .. } => Stage::EntriesChecksum,
        WireError::Kind { entry, .. }
        | WireError::Unused { entry, .. }
        | WireError::Channel { entry, .. }
        | WireError::Payload { entry, .. }
        | WireError::Credits { entry, .. }
        | WireError::Code { entry, .. } => Stage::Entry(entry),
        WireError::Sum { .. } => Stage::Sum,
        WireError::Train { .. } | WireError::Direction { .. } => unreachable!("parse knows neither"),
    }
}

struct NaiveManifest {
    train: u64,
    birth_ns: u64,
    sent_ns: u64,
    payloads: u64,
    payload_bytes: u64,
    entries: Vec<Entry>,
}

/// `count` bytes at `at` as a little-endian number, one byte after the other.
fn number(bytes: &[u8], at: usize, count: usize) -> u128 {
    let mut value = 0;
    for index in (0..count).rev() {
        value = value * 256 + u128::from(bytes[at + index]);
    }
    value
}

/// What dividing one byte leaves, bit by bit, straight from W-4.
const NAIVE_CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut register = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            let odd = register & 1 == 1;
            register >>= 1;
            if odd {
                register ^= 0x1EDC_6F41_u32.reverse_bits();
            }
            bit += 1;
        }
        table[byte] = register;
        byte += 1;
    }
    table
};

/// CRC32C byte by byte.
fn naive_crc(bytes: &[u8]) -> u128 {
    let mut register = u32::MAX;
    for byte in bytes {
        register = (register >> 8) ^ NAIVE_CRC[usize::from(register as u8 ^ byte)];
    }
    u128::from(!register)
}

fn naive_manifest(bytes: &[u8]) -> Result<NaiveManifest, Stage> {
    let check = |ok: bool, stage| if ok { Ok(()) } else { Err(stage) };
    check(bytes.len() >= 64, Stage::Incomplete(64))?;
    check(&bytes[..4] == b"TGTR", Stage::Magic)?;
    check(number(bytes, 4, 2) == 2, Stage::Version)?;
    let (entries, payloads) = (number(bytes, 6, 2), number(bytes, 8, 2));
    check((1..=64).contains(&entries), Stage::EntryCount)?;
    check(payloads <= 16 && payloads <= entries, Stage::PayloadCount)?;
    let size = (64 + 32 * entries) as usize;
    check(number(bytes, 12, 4) == size as u128, Stage::ManifestBytes)?;
    let payload_bytes = number(bytes, 16, 8);
    check(payload_bytes >= payloads && payload_bytes <= payloads * 1024 * 1024, Stage::PayloadBytes)?;
    check(number(bytes, 60, 4) == naive_crc(&bytes[..60]), Stage::HeaderChecksum)?;
    check(number(bytes, 10, 2) == 0 && number(bytes, 48, 8) == 0, Stage::HeaderReserved)?;
    check(bytes.len() >= size, Stage::Incomplete(size))?;
    check(number(bytes, 56, 4) == naive_crc(&bytes[64..size]), Stage::EntriesChecksum)?;

    let mut decoded = Vec::new();
    for index in 0..entries as usize {
        let entry = naive_entry(&bytes[64 + 32 * index..96 + 32 * index]);
        decoded.push(entry.ok_or(Stage::Entry(index as u8))?);
    }
    let lens: Vec<u64> = decoded
        .iter()
        .filter_map(|entry| if let Body::Data(data) = entry.body { Some(data.len.into()) } else { None })
        .collect();
    let sum: u64 = lens.iter().sum();
    check(lens.len() as u128 == payloads && u128::from(sum) == payload_bytes, Stage::Sum)?;
    Ok(NaiveManifest {
        train: number(bytes, 32, 8) as u64,
        birth_ns: number(bytes, 24, 8) as u64,
        sent_ns: number(bytes, 40, 8) as u64,
        payloads: lens.len() as u64,
        payload_bytes: sum,
        entries: decoded,
    })
}

fn naive_entry(bytes: &[u8]) -> Option<Entry> {
    let word = |index: usize| number(bytes, 16 + 4 * index, 4) as u32;
    let wide = |index: usize| number(bytes, 16 + 4 * index, 8) as u64;
    let zero = |from: usize| number(bytes, from, 32 - from) == 0;
    let (body, used) = match bytes[8] {
        1 => (Body::Data(Data { len: word(0), total: word(1), offset: word(2), crc: word(3) }), 32),
        2 => (Body::Barrier { checkpoint: wide(0) }, 24),
        3 => (Body::AbortMarker { checkpoint: wide(0) }, 24),
        4 => (Body::Watermark { value: wide(0) as i64 }, 24),
        5 => (Body::Backlog, 16),
        6 => (Body::Grant { credits: word(0), barriers: word(1) }, 24),
        7 => (Body::Resume { checkpoint: wide(0), credits: word(2), barriers: word(3) }, 32),
        8 => (Body::EndOfData, 16),
        9 => (Body::EndOfPartition, 16),
        10 => (Body::Close, 16),
        11 => (Body::CloseAck, 16),
        13 => (Body::Ask { total: word(0) }, 20),
        14 => (Body::Admit { total: word(0) }, 20),
        12 if word(1) == 0 => (Body::Error { code: u16::try_from(word(0)).ok()?, detail: wide(2) }, 32),
        _ => return None,
    };
    let entry = Entry {
        channel: number(bytes, 0, 4) as u32,
        generation: number(bytes, 4, 4) as u32,
        backlog: number(bytes, 10, 2) as u16,
        sequence: number(bytes, 12, 4) as u32,
        body,
    };
    let in_limits = match body {
        Body::Data(Data { len, total, offset, .. }) => {
            let end = u64::from(offset) + u64::from(len);
            (1..=1 << 20).contains(&len) && total <= (16 << 20) + 4096 && end <= total.into()
        }
        Body::Grant { credits, .. } => (1..=262_144).contains(&credits),
        Body::Resume { credits, .. } => credits <= 262_144,
        Body::Error { code, .. } => code != 0,
        Body::Ask { total } | Body::Admit { total } => (1..=(16 << 20) + 4096).contains(&total),
        _ => true,
    };
    let has_backlog = matches!(bytes[8], 1 | 5);
    let has_sequence = matches!(bytes[8], 1..=4 | 8 | 9 | 11);
    let unused_are_zero = zero(used)
        && bytes[9] == 0
        && (has_backlog || entry.backlog == 0)
        && (has_sequence || entry.sequence == 0);
    let channel_ok = entry.channel != u32::MAX || (bytes[8] == 12 && entry.generation == 0);
    (in_limits && unused_are_zero && channel_ok).then_some(entry)
}

/// Any bytes as a hello and as a reply: as they are, and with their checksum put right.
pub fn hello(bytes: &[u8]) {
    if let Some(bytes) = bytes.first_chunk::<HELLO_LEN>() {
        let mut sealed = *bytes;
        let checksum = payload_crc(&sealed[..124]).to_le_bytes();
        sealed[124..].copy_from_slice(&checksum);
        [*bytes, sealed].iter().for_each(one_hello);
    }
    if let Some(bytes) = bytes.first_chunk::<HELLO_REPLY_LEN>() {
        let mut sealed = *bytes;
        let checksum = payload_crc(&sealed[..28]).to_le_bytes();
        sealed[28..].copy_from_slice(&checksum);
        [*bytes, sealed].iter().for_each(one_reply);
    }
}

fn one_hello(bytes: &[u8; HELLO_LEN]) {
    let naive = naive_hello(bytes);
    let parsed = Hello::parse(bytes);
    assert_eq!(parsed.ok(), naive, "{parsed:?}");
    if let Ok(hello) = parsed {
        let mut again = [0xAA; HELLO_LEN];
        hello.write(&mut again);
        assert_eq!(again, *bytes, "a hello has one form");
        assert_eq!(hello.check(&hello), Ok(()));
        assert_eq!(hello.checksum(), Hello::echo_of(bytes));
    }
}

fn naive_hello(bytes: &[u8; HELLO_LEN]) -> Option<Hello> {
    let reserved =
        number(bytes, 6, 2) | number(bytes, 84, 4) | number(bytes, 104, 8) | number(bytes, 112, 12);
    let segment_size = number(bytes, 8, 4) as u32;
    let channels = number(bytes, 12, 4) as u32;
    let good = &bytes[..4] == b"TGHI"
        && number(bytes, 4, 2) == 2
        && number(bytes, 124, 4) == naive_crc(&bytes[..124])
        && reserved == 0
        && (12..=20).any(|power| segment_size == 1 << power)
        && (1..=65_536).contains(&channels);
    good.then(|| Hello {
        version: 2,
        cluster: number(bytes, 16, 16),
        job: number(bytes, 32, 16),
        epoch: number(bytes, 48, 8) as u64,
        attempt: number(bytes, 80, 4) as u32,
        from: SlotAddress { tm: number(bytes, 56, 8) as u64, slot: number(bytes, 72, 4) as u32 },
        to: SlotAddress { tm: number(bytes, 64, 8) as u64, slot: number(bytes, 76, 4) as u32 },
        segment_size,
        record_format: number(bytes, 88, 8) as u64,
        channels,
        channels_hash: number(bytes, 96, 8) as u64,
    })
}

fn one_reply(bytes: &[u8; HELLO_REPLY_LEN]) {
    let code = number(bytes, 6, 2);
    let values_are_zero = number(bytes, 8, 16) == 0;
    let version_is_ours = number(bytes, 4, 2) == 2;
    let good = &bytes[..4] == b"TGRE"
        && number(bytes, 28, 4) == naive_crc(&bytes[..28])
        && (if code == 0 { values_are_zero && version_is_ours } else { code <= 11 });
    let parsed = HelloReply::parse(bytes);
    assert_eq!(parsed.is_ok(), good, "{parsed:?}");
    if let Ok(reply) = parsed {
        assert_eq!(reply.refusal.map_or(0, |refusal| refusal.code as u128), code);
        let mut again = [0xAA; HELLO_REPLY_LEN];
        reply.write(&mut again);
        if version_is_ours {
            assert_eq!(again, *bytes, "a reply has one form");
        }
    }
}
