//! Values for the tests: entries of every kind, and manifests made of them.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tidegate_wire::{
    Body, CREDITS_MAX, Data, ENTRIES_MAX, Entry, Hello, LINK, MANIFEST_MAX, ManifestWriter, PAYLOAD_MAX,
    PAYLOADS_MAX, RECORD_FORMAT, RECORD_MAX, SlotAddress, VERSION,
};

/// The same cases in every run.
pub fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(0x7469_6465),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// One well-formed entry of each kind.
pub fn one_of_each() -> [Entry; 14] {
    [
        Entry::data(7, 3, 0, 2, Data { len: 4096, total: 10_000, offset: 4096, crc: 0xDEAD_BEEF }),
        Entry::sequenced(7, 3, 1, Body::Barrier { checkpoint: 0x0102_0304_0506_0708 }),
        Entry::sequenced(7, 3, 2, Body::AbortMarker { checkpoint: 9 }),
        Entry::sequenced(7, 3, 3, Body::Watermark { value: -5 }),
        Entry::backlog(7, 3, 11),
        Entry::control(7, 3, Body::Grant { credits: 8, barriers: 1 }),
        Entry::control(7, 3, Body::Resume { checkpoint: 9, credits: 4, barriers: 1 }),
        Entry::sequenced(7, 3, 4, Body::EndOfData),
        Entry::sequenced(7, 3, 5, Body::EndOfPartition),
        Entry::control(7, 3, Body::Close),
        Entry::sequenced(7, 3, 6, Body::CloseAck),
        Entry::link_error(6, 99),
        Entry::control(7, 3, Body::Ask { total: 10_000 }),
        Entry::control(7, 3, Body::Admit { total: 10_000 }),
    ]
}

/// A manifest's bytes.
pub fn write(train: u64, birth_ns: u64, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = vec![0xAA; MANIFEST_MAX];
    let mut writer = ManifestWriter::new(&mut bytes, train, birth_ns);
    entries.iter().for_each(|entry| writer.push(*entry).expect("the test's entries fit"));
    let len = writer.finish();
    bytes.truncate(len);
    bytes
}

pub fn hello() -> Hello {
    Hello {
        version: VERSION,
        cluster: 0x0011_2233_4455_6677_8899_AABB_CCDD_EEFF,
        job: 0x1111_2222_3333_4444_5555_6666_7777_8888,
        epoch: 5,
        attempt: 3,
        from: SlotAddress { tm: 0xA1, slot: 1 },
        to: SlotAddress { tm: 0xB2, slot: 2 },
        segment_size: 32 * 1024,
        record_format: RECORD_FORMAT,
        channels: 4,
        channels_hash: 0xFEED_F00D_0BAD_CAFE,
    }
}

pub fn any_data() -> impl Strategy<Value = Data> {
    (1..=PAYLOAD_MAX, any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(len, a, b, crc)| {
        let total = len + a % (RECORD_MAX - len + 1);
        Data { len, total, offset: b % (total - len + 1), crc }
    })
}

/// Every entry that is well formed can come out.
pub fn any_entry() -> impl Strategy<Value = Entry> {
    let body = prop_oneof![
        any_data().prop_map(Body::Data),
        any::<u64>().prop_map(|checkpoint| Body::Barrier { checkpoint }),
        any::<u64>().prop_map(|checkpoint| Body::AbortMarker { checkpoint }),
        any::<i64>().prop_map(|value| Body::Watermark { value }),
        Just(Body::Backlog),
        (1..=CREDITS_MAX, any::<u32>()).prop_map(|(credits, barriers)| Body::Grant { credits, barriers }),
        (any::<u64>(), 0..=CREDITS_MAX, any::<u32>())
            .prop_map(|(checkpoint, credits, barriers)| Body::Resume { checkpoint, credits, barriers }),
        Just(Body::EndOfData),
        Just(Body::EndOfPartition),
        Just(Body::Close),
        Just(Body::CloseAck),
        (1..=u16::MAX, any::<u64>()).prop_map(|(code, detail)| Body::Error { code, detail }),
        (1..=RECORD_MAX).prop_map(|total| Body::Ask { total }),
        (1..=RECORD_MAX).prop_map(|total| Body::Admit { total }),
    ];
    (0..LINK, any::<u32>(), any::<u16>(), any::<u32>(), body).prop_map(
        |(channel, generation, backlog, sequence, body)| {
            let kind = body.kind();
            let backlog = if matches!(body, Body::Data(_) | Body::Backlog) { backlog } else { 0 };
            let sequence = if kind.is_sequenced() { sequence } else { 0 };
            Entry { channel, generation, backlog, sequence, body }
        },
    )
}

/// Entries that fit one manifest.
pub fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
    proptest::collection::vec(any_entry(), 1..=ENTRIES_MAX).prop_map(|mut entries| {
        let mut payloads = 0;
        entries.retain(|entry| {
            payloads += usize::from(entry.payload().is_some());
            entry.payload().is_none() || payloads <= PAYLOADS_MAX
        });
        entries
    })
}
