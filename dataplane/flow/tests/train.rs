//! Where the bytes of a train are received: a part of its payloads at a time, and the next manifest behind the last of them.

use tidegate_flow::limits::RECEIVE_BYTES;
use tidegate_flow::{Place, Step, TrainReceiver};
use tidegate_wire::{Body, Data, Entry, MANIFEST_MAX, ManifestWriter, PAYLOADS_MAX};

const PAYLOAD: u32 = 32 << 10;
const STAGING: u32 = 32 << 10;

/// A receiver that has just taken in the manifest of a full train, and delivers no payload yet.
fn opened() -> TrainReceiver {
    let mut staging = vec![0; STAGING as usize];
    let mut writer = ManifestWriter::new(&mut staging[..MANIFEST_MAX], 0, 0);
    for sequence in 0..PAYLOADS_MAX as u32 {
        writer.push(Entry::data(0, 1, sequence, 0, Data::whole(PAYLOAD, 7))).unwrap();
    }
    let len = writer.finish() as u32;
    let mut receiver = TrainReceiver::new();
    receiver.received(len, STAGING);
    assert_eq!(receiver.poll(&staging), Ok(Step::Manifest));
    assert_eq!(receiver.poll(&staging), Ok(Step::Receive));
    receiver.compact(&mut staging);
    receiver
}

/// Bytes of payloads that the next receive is posted for, of which payloads, and whether staging lies behind them.
fn posted(receiver: &TrainReceiver) -> (u32, Vec<usize>, bool) {
    let (mut bytes, mut payloads, mut staging) = (0, Vec::new(), false);
    for place in receiver.places(STAGING, 0) {
        match place {
            Place::Payload { payload, len, .. } => {
                assert!(!staging, "bytes arrive in the order of places");
                bytes += len;
                payloads.push(payload);
            }
            Place::Staging { .. } => staging = true,
        }
    }
    (bytes, payloads, staging)
}

#[test]
fn a_receive_takes_as_much_of_a_train_as_stays_in_the_cache() {
    let mut receiver = opened();
    let at_once = (RECEIVE_BYTES / PAYLOAD) as usize;
    let mut delivered = 0;
    for op in 0..PAYLOADS_MAX / at_once {
        let (bytes, payloads, staging) = posted(&receiver);
        assert_eq!(payloads, (op * at_once..(op + 1) * at_once).collect::<Vec<_>>());
        assert_eq!(staging, op == PAYLOADS_MAX / at_once - 1, "the next manifest follows the last payload");
        receiver.received(bytes, STAGING);
        while let Ok(Step::Deliver { payload, .. }) = receiver.poll(&[0; STAGING as usize]) {
            assert_eq!(payload, Some(delivered));
            delivered += 1;
        }
        assert_eq!(delivered, (op + 1) * at_once);
    }
    assert!(receiver.at_boundary());
}

#[test]
fn what_an_op_left_is_the_first_thing_of_the_next() {
    let mut receiver = opened();
    receiver.received(PAYLOAD + 1, STAGING);
    let (bytes, payloads, staging) = posted(&receiver);
    assert_eq!(payloads, [1, 2, 3, 4, 5], "one byte less than the bound, so one more");
    assert_eq!((bytes, staging), (5 * PAYLOAD - 1, false));
}

/// A train as it was sent: its manifest's bytes, its entries, and their payloads.
struct Train {
    manifest: Vec<u8>,
    entries: Vec<Entry>,
    payloads: Vec<Vec<u8>>,
    birth_ns: u64,
    sent_ns: u64,
}

impl Train {
    /// Train `number`, of so many payloads with a backlog between each two. No two payloads of a stream begin alike.
    fn new(number: u64, payloads: usize, random: &mut impl FnMut(u32) -> u32) -> Self {
        let mut manifest = vec![0; MANIFEST_MAX];
        let (birth_ns, sent_ns) = (1_000 + number, 2_000 + number);
        let mut writer = ManifestWriter::new(&mut manifest, number, birth_ns);
        writer.sent_at(sent_ns);
        let (mut entries, mut bytes) = (Vec::new(), Vec::new());
        for payload in 0..payloads as u32 {
            let len = 1 + random(if payload % 3 == 0 { 40 } else { 3 * RECEIVE_BYTES / 2 });
            entries.push(Entry::data(0, 1, payload, 0, Data::whole(len, 7)));
            entries.push(Entry::control(0, 1, Body::Grant { credits: 1 + payload, barriers: 0 }));
            let first = number as u32 * 1_000 + payload;
            bytes.push((0..len).map(|at| (first.wrapping_mul(31) + at * 7) as u8).collect());
        }
        entries.push(Entry::control(0, 1, Body::Grant { credits: 99, barriers: 0 }));
        entries.iter().for_each(|entry| writer.push(*entry).unwrap());
        let len = writer.finish();
        manifest.truncate(len);
        Self { manifest, entries, payloads: bytes, birth_ns, sent_ns }
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        self.manifest.iter().chain(self.payloads.iter().flatten()).copied()
    }
}

/// Whatever the pieces are in which a stream is received, it arrives as it was sent, and only what fell into staging beyond a
/// manifest is copied.
#[test]
fn a_stream_arrives_as_it_was_sent_in_pieces_of_any_length() {
    for seed in 0..60u64 {
        let mut state = seed;
        let mut random = |below: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % u64::from(below)) as u32
        };
        let trains: Vec<Train> = (0..6)
            .map(|number| {
                let payloads = [0, 1, 5, PAYLOADS_MAX, 2, 0][number as usize];
                Train::new(number, payloads, &mut random)
            })
            .collect();
        let stream: Vec<u8> = trains.iter().flat_map(Train::bytes).collect();
        // From crumbs to all that is there.
        let piece_max = [1 + random(50), 5_000, RECEIVE_BYTES, u32::MAX][seed as usize % 4];
        let stream = if piece_max < 100 { &stream[..stream.len().min(60_000)] } else { &stream[..] };

        let mut receiver = TrainReceiver::new();
        let mut staging = vec![0; STAGING as usize];
        let mut slots: Vec<Vec<u8>> = Vec::new();
        let (mut at, mut opened, mut delivered) = (0, 0, 0);
        // Unread bytes of staging, and whether some before them were read.
        let (mut unread, mut read) = (0, false);
        assert!(receiver.at_boundary());
        while at < stream.len() {
            let moved = receiver.compact(&mut staging);
            assert_eq!(moved, if read { unread } else { 0 }, "seed {seed}: what was read is not moved");
            read = false;
            let places = receiver.places(STAGING, random(2 * STAGING));
            let room: u32 = places
                .iter()
                .map(|place| match *place {
                    Place::Payload { len, .. } | Place::Staging { len, .. } => len,
                })
                .sum();
            let count = (1 + random(piece_max.min(room))).min((stream.len() - at) as u32);
            let mut left = count;
            for place in places {
                let (to, len, staged) = match place {
                    Place::Payload { payload, at, len } => (&mut slots[payload][at as usize..], len, false),
                    Place::Staging { at, len } => {
                        assert_eq!(at, unread, "seed {seed}: staging goes on behind what is unread");
                        (&mut staging[at as usize..], len, true)
                    }
                };
                let taken = len.min(left);
                to[..taken as usize].copy_from_slice(&stream[at..at + taken as usize]);
                (at, left) = (at + taken as usize, left - taken);
                unread += if staged { taken } else { 0 };
            }
            receiver.received(count, STAGING);
            loop {
                match receiver.poll(&staging).unwrap_or_else(|error| panic!("seed {seed}: {error}")) {
                    Step::Receive => break,
                    Step::Manifest => {
                        let train: &Train = &trains[opened];
                        assert_eq!(receiver.entries(), train.entries);
                        assert_eq!(
                            (receiver.birth_ns(), receiver.sent_ns()),
                            (train.birth_ns, train.sent_ns)
                        );
                        let bytes: usize = train.payloads.iter().map(Vec::len).sum();
                        assert_eq!(receiver.payload_bytes(), bytes as u64);
                        slots = train.payloads.iter().map(|payload| vec![0; payload.len()]).collect();
                        unread -= train.manifest.len() as u32;
                        (opened, delivered, read) = (opened + 1, 0, true);
                    }
                    Step::Copy { payload, at, from } => {
                        unread -= from.len() as u32;
                        read = true;
                        slots[payload][at as usize..at as usize + from.len()].copy_from_slice(&staging[from]);
                    }
                    Step::Deliver { entry, payload } => {
                        let train = &trains[opened - 1];
                        assert_eq!(entry, train.entries[delivered], "seed {seed}: entries keep their order");
                        delivered += 1;
                        let expected = entry.payload().is_some().then(|| delivered.div_ceil(2) - 1);
                        assert_eq!(payload, expected);
                        if let Some(payload) = payload {
                            assert!(
                                slots[payload] == train.payloads[payload],
                                "seed {seed}: payload {payload}"
                            );
                        }
                    }
                }
            }
            let whole = opened > 0 && delivered == trains[opened - 1].entries.len();
            assert_eq!(receiver.at_boundary(), whole && unread == 0, "seed {seed}: byte {at}");
        }
        assert!(stream.len() == 60_000 || opened == trains.len() && receiver.at_boundary());
    }
}
