//! Seeds of what the data plane reads: trains, hellos, links, records, state.

use tidegate_record::{Key, KeyedCodec, Record, Slot, to_snapshot};
use tidegate_stream::router::{GroupRange, Groups};
use tidegate_stream::state::{Cell, Kept, KeyedState};
use tidegate_stream::testing::{MemoryFiles, seek};
use tidegate_wire::{
    Body, CREDITS_MAX, Data, Entry, HELLO_LEN, HELLO_REPLY_LEN, Hello, HelloReply, MANIFEST_MAX,
    ManifestWriter, PAYLOAD_MAX, RECORD_FORMAT, RECORD_MAX, Refusal, RefusalCode, SlotAddress, VERSION,
};

use super::Seeds;
use crate::records::{Event, Everything, TextKey, Tick};
use crate::state::{GROUPS, snapshot};

/// One well-formed entry of each kind.
fn one_of_each() -> [Entry; 14] {
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

fn train(number: u64, birth_ns: u64, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = vec![0; MANIFEST_MAX];
    let mut writer = ManifestWriter::new(&mut bytes, number, birth_ns);
    entries.iter().for_each(|entry| writer.push(*entry).expect("a seed fits"));
    let len = writer.finish();
    bytes.truncate(len);
    bytes
}

/// One lawful manifest of every shape, and edges.
pub fn manifest(seeds: &mut Seeds) {
    for entry in one_of_each() {
        seeds.put("manifest", format!("kind-{:02}", entry.kind() as u8), train(1, 2, &[entry]));
    }
    let largest = Data { len: PAYLOAD_MAX, total: RECORD_MAX, offset: RECORD_MAX - PAYLOAD_MAX, crc: 1 };
    let data = Entry::data(0, 0, u32::MAX, u16::MAX, largest);
    let grant = Entry::control(0, u32::MAX, Body::Grant { credits: CREDITS_MAX, barriers: u32::MAX });
    let mut all = vec![data; 16];
    all.resize(64, grant);
    let full = train(0, 0, &all);
    seeds.put("manifest", "all-kinds", train(u64::MAX, u64::MAX, &one_of_each()));
    seeds.put("manifest", "cut", &full[..100]);
    seeds.put("manifest", "header-only", &full[..64]);
    seeds.put("manifest", "full", full);
    let mut damaged = train(0, 0, &[data]);
    damaged[70] ^= 1;
    seeds.put("manifest", "damaged", damaged);
}

/// Hellos and replies, ours and others'.
pub fn hello(seeds: &mut Seeds) {
    let hello = Hello {
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
    };
    let bytes = |hello: Hello| {
        let mut bytes = [0; HELLO_LEN];
        hello.write(&mut bytes);
        bytes
    };
    seeds.put("hello", "hello", bytes(hello));
    seeds.put("hello", "hello-newer", bytes(Hello { version: VERSION + 1, ..hello }));
    seeds.put("hello", "hello-older", bytes(Hello { version: 0, ..hello }));
    seeds.put("hello", "hello-cut", &bytes(hello)[..100]);
    seeds.put("hello", "hello-size", bytes(Hello { segment_size: 3 << 20, ..hello }));
    seeds.put("hello", "hello-channels", bytes(Hello { channels: u32::MAX, ..hello }));
    let reply = |refusal| {
        let mut bytes = [0; HELLO_REPLY_LEN];
        HelloReply { echo: hello.checksum(), refusal }.write(&mut bytes);
        bytes
    };
    seeds.put("hello", "reply-accepted", reply(None));
    seeds.put("hello", "reply-refused", reply(Some(Refusal::busy(2, 3))));
    let version = Refusal { code: RefusalCode::Version, expected: 1, found: 2 };
    seeds.put("hello", "reply-version", reply(Some(version)));
}

/// Lives of a link, as `link/consumer.rs` and `link/producer.rs` read their scripts. 0x40 in a step gives our slot a turn
/// after it; 0x80 in the second byte of an entry breaks a rule.
pub fn link(seeds: &mut Seeds) {
    // A consumer's stranger states a backlog, hears of credit, sends data; our task reads and releases.
    let asked: &[u8] = &[0, 0x40, 1, 0x05, 9, 0x85, 9, 0x4F];
    let data: &[u8] = &[0x40, 3, 0, 20, 1, 0x7F, 2, 60, 0x80, 33, 12, 12, 12, 0x4D];
    let barriers: &[u8] = &[0x40, 1, 3, 1, 0x83, 1, 12, 12, 0x4E, 0x4F];
    let ends: &[u8] = &[0x40, 3, 6, 1, 0x86, 1, 7, 0, 0x87, 0, 12, 12, 12, 12, 0x4F, 0x40, 1, 7, 0, 0x87, 0];
    let consumer = |parts: &[&[u8]]| parts.concat();
    seeds.put("link", "consumer-data", consumer(&[asked, data, data]));
    seeds.put("link", "consumer-barriers", consumer(&[asked, data, barriers, data]));
    seeds.put("link", "consumer-whole-life", consumer(&[asked, data, barriers, data, ends, &[0x4F, 0x4F]]));
    seeds.put("link", "consumer-hangs-up", consumer(&[asked, data, &[0xFF]]));
    seeds.put("link", "consumer-marker", consumer(&[asked, &[0x40, 1, 3, 1, 4, 1, 12, 12, 0x4F], data]));
    seeds.put(
        "link",
        "consumer-cut",
        consumer(&[asked, &[0x80, 2, 0, 50, 1, 50, 9, 70, 0x49, 33, 9, 1, 0x4A]]),
    );
    for (name, abuse) in [
        ("no-credit", &[0x40, 0, 0, 0x86][..]),
        ("sequence", &[0x40, 0, 0, 0x80]),
        ("generation", &[0x40, 0, 0, 0x81]),
        ("channel", &[0x40, 0, 0, 0x82]),
        ("too-long", &[0x40, 0, 0, 0xFE]),
        ("checksum", &[0x40, 0, 0, 0x84]),
        ("slice", &[0x40, 0, 0, 0x85]),
        ("watermark", &[0x40, 0, 5, 0x84]),
        ("error", &[0x40, 0, 5, 0x85]),
        ("grant", &[0x40, 0, 5, 0x86]),
        ("close-ack", &[0x40, 0, 5, 0x87]),
        ("checkpoint", &[0x40, 0, 3, 0x07, 0x40, 0, 3, 0x87]),
        ("garbage", &[6, 80, 1, 2, 3, 4, 0x4A]),
        ("repeated", &[0x40, 0, 0, 9, 7, 0x4A]),
        ("train-left-out", &[8, 1, 0x40, 0, 0, 9]),
        ("flipped-bit", &[0x80, 0, 0, 9, 11, 0x40, 2, 0x4A]),
        ("after-the-end", &[0x40, 1, 7, 0, 0, 0x86]),
    ] {
        seeds.put("link", format!("consumer-{name}"), consumer(&[asked, data, abuse, &[12, 12, 0x4F]]));
    }

    let granted: &[u8] = &[1, 0x0F, 0x40, 1, 0, 8, 0, 3, 0xC0, 0, 0, 15, 0x4E];
    let written: &[u8] = &[8, 200, 0x88, 255, 0x4F, 0x4F];
    seeds.put("link", "producer-data", [granted, written, written].concat());
    seeds.put(
        "link",
        "producer-barriers",
        [granted, written, &[0x4B, 0x4F, 0x40, 0, 4, 9, 0x4E], written].concat(),
    );
    seeds.put("link", "producer-marker", [granted, written, &[0x6B, 0x4F], written].concat());
    seeds.put(
        "link",
        "producer-ends",
        [granted, written, &[0x7C, 0x4F, 0x4F, 0x40, 0, 6, 0, 0xC0, 0, 6, 0, 0x4E]].concat(),
    );
    seeds.put("link", "producer-closed-early", [granted, written, &[0x40, 0, 6, 0, 0x4E], written].concat());
    seeds.put("link", "producer-hangs-up", [granted, written, &[0x7D]].concat());
    for (name, abuse) in [
        ("lavish", &[0x40, 3, 0, 0x80, 0, 0x80, 0, 0x80, 0, 0x80, 0x4E][..]),
        ("stale-grant", &[0x40, 0, 0, 0x83, 0x4E]),
        ("foreign-resume", &[0x40, 0, 4, 0x81, 0x4E]),
        ("channel", &[0x40, 0, 0, 0x8C, 0x4E]),
        ("generation", &[0x40, 0, 0, 0x8D, 0x4E]),
        ("kind", &[0x40, 0, 7, 0x81, 0x4E]),
        ("error", &[0x40, 0, 7, 0x80, 0x4E]),
        ("garbage", &[5, 80, 1, 2, 3, 0x4E]),
        ("repeated", &[6, 0x4E]),
        ("closed-twice", &[0x40, 1, 6, 0, 6, 0, 0x4E]),
    ] {
        seeds.put("link", format!("producer-{name}"), [granted, written, abuse, written].concat());
    }
}

pub(super) fn everything(size: usize) -> Everything {
    Everything {
        flag: size % 2 == 1,
        letter: 'ß',
        wide: u128::MAX - 1,
        name: "Tidegate".repeat(size),
        maybe: (size > 0).then_some(-3),
        list: (0..size).map(|at| "x".repeat(at * 5)).collect(),
        nested: (0..size).map(|at| vec![7; at]).collect(),
        ticks: vec![Tick { price: 1.5, size: 3, venue: *b"XETR" }; size],
        grid: [None, Some(1), Some(u32::MAX)],
        pair: (1, "right".into()),
        events: vec![
            Event::Idle,
            Event::Moved(-1, [1, 2, 3]),
            Event::Renamed { from: "somewhere far away".into(), to: None },
        ],
    }
}

/// Payloads of every type that the target reads.
pub fn records(seeds: &mut Seeds) {
    fn payload<T: Record>(which: u8, records: &[T]) -> Vec<u8> {
        let mut room = vec![0; 4096];
        let mut slot = Slot::new(&mut room, 0);
        records.iter().for_each(|record| record.write(&mut slot).expect("a seed fits"));
        [&[which], slot.bytes()].concat()
    }
    let texts = ["", "a", "eight by", "a text that lies outside of its archive's root"].map(str::to_owned);
    seeds.put("records", "texts", payload(0, &texts));
    seeds.put("records", "everything", payload(1, &[everything(0), everything(3)]));
    let ticks = [f64::NAN, 0.0, f64::INFINITY].map(|price| Tick { price, size: 9, venue: [0xFF; 4] });
    seeds.put("records", "ticks", payload(2, &ticks));
    seeds.put("records", "numbers", payload(3, &[0, 1, u64::MAX]));
    let renamed = Event::Renamed { from: "a".into(), to: Some("another name, and a longer one".into()) };
    seeds.put("records", "events", payload(4, &[Event::Idle, Event::Moved(i32::MIN, [0; 3]), renamed]));
    let mut room = vec![0; 4096];
    let mut slot = Slot::new(&mut room, 0);
    let key: TextKey = ("a key that travels".into(), 9);
    <Everything as Record>::Keyed::<TextKey>::write(&key, &everything(2), &mut slot).expect("a seed fits");
    seeds.put("records", "keyed", [&[5], slot.bytes()].concat());
    let mut bytes = vec![6];
    to_snapshot(&everything(4), &mut bytes).expect("a seed fits");
    seeds.put("records", "snapshot", bytes);
    let mut bytes = vec![7];
    let value = (3_u64, vec![None, Some("value".to_owned()), Some("longer than a pointer".to_owned())]);
    to_snapshot(&value, &mut bytes).expect("a seed fits");
    seeds.put("records", "snapshot-pair", bytes);
}

/// State files of both types, whole and with slices left out or twice.
pub fn state(seeds: &mut Seeds) {
    fn file<K: Key, C: Cell>(which: u8, entries: impl IntoIterator<Item = (K, C)>) -> Vec<u8> {
        let range = GroupRange::of(0, 1, GROUPS);
        let mut state = KeyedState::<K, C>::new(range, Groups::new(GROUPS));
        let mut files = MemoryFiles::new(1);
        for (key, cell) in entries {
            let hash = key.hash();
            let spot = seek(&state, hash).expect("all groups are owned");
            assert!(state.admit(spot.group(), &mut files).expect("nothing is written"));
            state.insert(spot, key, cell).expect("nothing limits it");
        }
        [&[which], &snapshot(&mut state)[..]].concat()
    }
    let numbers = |count: u64| (0..count).map(|key| (key, Kept(format!("value of {key}"))));
    seeds.put("state", "none", file(0, numbers(0)));
    seeds.put("state", "one", file(0, numbers(1)));
    seeds.put("state", "numbers", file(0, numbers(40)));
    seeds.put("state", "half", file(4, numbers(20)));
    let texts = (0..20_u32).map(|at| (format!("key {at}"), Some((at, vec![at as u8; at as usize]))));
    seeds.put("state", "texts", file(1, texts));
    let whole = file(0, numbers(3));
    seeds.put("state", "twice", [&whole[..], &whole[1..]].concat());
    seeds.put("state", "cut", &whole[..whole.len() - 5]);
    let mut lying = whole.clone();
    lying[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
    seeds.put("state", "lies-about-entries", lying);
}
