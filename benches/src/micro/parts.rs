//! The parts of the data plane, one at a time and on one core: what each does per operation. No state.
//!
//! Every part is a function that is given a number of operations and does them; making what it works on comes before. Always:
//! what is computed is used, so that no compiler can leave it out.

use std::hint::black_box;

use tidegate_arena::{Arena, ArenaConfig, Holder, HolderKind, HugePages, SegmentSize, Shard, spsc};
use tidegate_flow::{GrantPolicy, ReceiveCredit, SendCredit};
use tidegate_record::{Key, Record, Records, Slot};
use tidegate_stream::router::KeyRouter;
use tidegate_wire::{Data, Entry, MANIFEST_MAX, ManifestWriter, PAYLOADS_MAX, Parsed, parse, payload_crc};

use crate::forms;
use crate::jobs::bid::{self, Bid, Bids};
use crate::jobs::bytes::Opaque;
use crate::jobs::keyed::{Pair, Pairs};
use crate::jobs::numbered::Numbered;

/// Does a number of operations.
pub type Work = Box<dyn FnMut(u64)>;

/// A part: its name, and how to make what does its operations.
pub struct Part {
    pub name: &'static str,
    pub make: fn() -> Work,
}

/// All of them.
pub const PARTS: [Part; 19] = [
    Part { name: "pool-acquire-release", make: pool },
    Part { name: "queue-push-pop", make: queue },
    Part { name: "sealed-hand-over", make: hand_over },
    Part { name: "partition-write-plain-16", make: || partition_write(Pairs::new(KEYS)) },
    Part { name: "partition-write-bytes-16", make: || partition_write(Opaque::new(16)) },
    Part { name: "partition-write-bytes-100", make: || partition_write(Opaque::new(100)) },
    Part { name: "partition-write-bytes-1000", make: || partition_write(Opaque::new(1_000)) },
    Part { name: "partition-write-bytes-16000", make: || partition_write(Opaque::new(16_000)) },
    Part { name: "partition-write-bid", make: || partition_write(Bids::new()) },
    Part { name: "read-plain-16", make: read_plain },
    Part { name: "validate-read-bytes-100", make: || read_bytes(100) },
    Part { name: "validate-read-bytes-1000", make: || read_bytes(1_000) },
    Part { name: "validate-read-bid", make: read_bids },
    Part { name: "manifest-encode-1", make: || encode(1) },
    Part { name: "manifest-encode-16", make: || encode(PAYLOADS_MAX) },
    Part { name: "manifest-decode-1", make: || decode(1) },
    Part { name: "manifest-decode-16", make: || decode(PAYLOADS_MAX) },
    Part { name: "payload-crc-32k", make: crc },
    Part { name: "credit-10000-channels", make: credit },
];

const SEGMENT: usize = 32 << 10;
/// Channels of a partition: more than one, so that picking one is work; few enough for the caches.
const CHANNELS: u32 = 8;
const KEYS: u64 = 100_000;
const HOLDER: Holder = Holder { kind: HolderKind::Other, id: 0 };

fn arena(segments: u32) -> (Arena, Shard) {
    let config = ArenaConfig {
        segment_size: SegmentSize::DEFAULT,
        shards: vec![segments],
        huge_pages: HugePages::Never,
    };
    let (arena, mut shards) = Arena::map(&config).expect("invariant: a small arena can be mapped");
    (arena, shards.remove(0))
}

/// A segment is taken from the pool and given back by its own slot.
fn pool() -> Work {
    let (_, mut shard) = arena(64);
    Box::new(move |ops| {
        for _ in 0..ops {
            let segment = shard.acquire(HOLDER).expect("invariant: all were given back");
            shard.release(black_box(segment));
        }
    })
}

/// A number goes through a queue between threads, both of whose ends are here: what it costs without the other core.
fn queue() -> Work {
    let (mut producer, mut consumer) = spsc::channel::<u64>(64);
    Box::new(move |ops| {
        for number in 0..ops {
            producer.try_push(number).expect("invariant: it is empty");
            black_box(consumer.try_pop());
        }
    })
}

/// A segment is filled, sealed, handed over by the queue of a local channel, read and given back.
fn hand_over() -> Work {
    let (arena, mut shard) = arena(64);
    let (mut producer, mut consumer) = spsc::channel(64);
    Box::new(move |ops| {
        for _ in 0..ops {
            let mut segment = shard.acquire(HOLDER).expect("invariant: all were given back");
            arena.bytes_mut(&mut segment)[0] = 1;
            let sealed = arena.seal(segment, 1);
            producer.try_push(sealed).expect("invariant: it is empty");
            let shared = arena.deliver(consumer.try_pop().expect("invariant: it was pushed"));
            black_box(arena.bytes(&shared));
            shard.release(shared);
        }
    })
}

/// A key picks a channel, and a record is appended to that one's segment; a full one starts anew.
fn partition_write<N: Numbered>(mut records: N) -> Work
where
    N::Item: Record,
{
    let router = KeyRouter::new(CHANNELS, 128);
    let mut keys = forms::Keys::new(KEYS);
    let mut channels = vec![(vec![0_u8; SEGMENT], 0_u32); CHANNELS as usize];
    Box::new(move |ops| {
        for _ in 0..ops {
            let (segment, filled) = &mut channels[router.channel(keys.step().hash()) as usize];
            let record = records.make();
            let mut slot = Slot::new(segment, *filled);
            if record.write(&mut slot).is_err() {
                slot = Slot::new(segment, 0);
                record.write(&mut slot).expect("invariant: a record fits a segment");
            }
            *filled = slot.len();
        }
        black_box(&channels);
    })
}

/// A segment full of records.
fn full<N: Numbered>(mut records: N) -> Vec<u8>
where
    N::Item: Record,
{
    let mut segment = vec![0; SEGMENT];
    let mut slot = Slot::new(&mut segment, 0);
    while records.make().write(&mut slot).is_ok() {}
    let len = slot.len() as usize;
    segment.truncate(len);
    segment
}

/// Reads records front to back, again and again, and does something with each.
fn read<T: Record>(segment: Vec<u8>, of: fn(&T::Archived) -> u64) -> Work {
    Box::new(move |ops| {
        let (mut left, mut sum) = (ops, 0_u64);
        while left > 0 {
            for record in Records::<T>::new(black_box(&segment)) {
                sum = sum.wrapping_add(of(record.expect("invariant: we wrote it")));
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        black_box(sum);
    })
}

fn read_plain() -> Work {
    read::<Pair>(full(Pairs::new(KEYS)), |pair| pair.key ^ pair.value)
}

/// The first byte of each alone: what every byte costs is the reader's business.
fn read_bytes(len: usize) -> Work {
    read::<Vec<u8>>(full(Opaque::new(len)), |bytes| u64::from(bytes[0]))
}

fn read_bids() -> Work {
    read::<Bid>(full(Bids::new()), bid::sum_of_view)
}

fn manifest(buffer: &mut [u8], train: u64, payloads: usize) -> usize {
    let mut writer = ManifestWriter::new(buffer, train, 1);
    for channel in 0..payloads as u32 {
        let data = Data::whole(SEGMENT as u32, channel);
        writer.push(Entry::data(channel, 0, train as u32, 0, data)).expect("invariant: there is room");
    }
    writer.finish()
}

/// The manifest of a train of so many payloads is written, checksum included.
fn encode(payloads: usize) -> Work {
    let mut buffer = vec![0; MANIFEST_MAX];
    Box::new(move |ops| {
        for train in 0..ops {
            black_box(manifest(&mut buffer, train, payloads));
        }
        black_box(&buffer);
    })
}

/// It is checked whole, and its entries are read.
fn decode(payloads: usize) -> Work {
    let mut buffer = vec![0; MANIFEST_MAX];
    let len = manifest(&mut buffer, 7, payloads);
    buffer.truncate(len);
    Box::new(move |ops| {
        for _ in 0..ops {
            match parse(black_box(&buffer)) {
                Ok(Parsed::Complete(manifest)) => manifest.entries().for_each(|entry| _ = black_box(entry)),
                other => unreachable!("invariant: we wrote it, and it is {other:?}"),
            }
        }
    })
}

fn crc() -> Work {
    let segment = vec![7_u8; SEGMENT];
    Box::new(move |ops| {
        for _ in 0..ops {
            black_box(payload_crc(black_box(&segment)));
        }
    })
}

/// A segment's worth of data on one of many channels, round robin: backlog, grant, data, segment given back.
fn credit() -> Work {
    const MANY: u32 = 10_000;
    let mut policy = GrantPolicy::new(2 * MANY, MANY);
    let mut ends: Vec<_> =
        (0..MANY).map(|channel| (SendCredit::new(channel), ReceiveCredit::new(channel))).collect();
    let mut at = 0;
    Box::new(move |ops| {
        for _ in 0..ops {
            let (send, receive) = &mut ends[at];
            at = (at + 1) % MANY as usize;
            if !send.can_send() {
                receive.handle_backlog(1);
                let grant = policy.wish(receive);
                policy.take(grant);
                receive.grant(grant);
                send.handle_grant(grant, receive.barriers()).expect("invariant: few credits");
            }
            let sequence = send.take(0);
            receive.handle_data(sequence, 0).expect("invariant: it was granted");
            policy.give_back(1);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_works_for_long() {
        for part in &PARTS {
            let mut work = (part.make)();
            work(1);
            work(25_000);
        }
    }

    #[test]
    fn names_are_words_of_their_own() {
        let mut names: Vec<_> = PARTS.iter().map(|part| part.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PARTS.len());
    }
}
