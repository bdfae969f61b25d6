//! What writing and reading a record costs, in nanoseconds each, on a segment of 32 KiB that stays in cache.
//!
//! `cargo run --release -p tidegate-record --example speed`

use std::hint::black_box;
use std::time::Instant;

use tidegate_record::{KeyRef, KeyedCodec, Plain, Record, Records, Slot, WriteError};

#[derive(Clone, Copy, Plain)]
#[repr(C)]
struct Pair {
    key: u64,
    value: u64,
}

#[derive(Record)]
struct Flight {
    carrier: String,
    delay: Option<i16>,
    distance: u32,
}

#[repr(align(64))]
struct Segment([u8; 32 * 1024]);

const ROUNDS: u32 = 2_000;

fn measure(name: &str, mut round: impl FnMut() -> (u32, u64, u64)) {
    let (mut records, mut write_ns, mut read_ns) = (0u64, 0, 0);
    for _ in 0..ROUNDS {
        let (count, write, read) = round();
        records += u64::from(count);
        write_ns += write;
        read_ns += read;
    }
    let each = |ns: u64| ns as f64 / records as f64;
    println!("{name:34} write {:6.2} ns   read {:6.2} ns", each(write_ns), each(read_ns));
}

fn fill(
    segment: &mut Segment,
    mut write: impl FnMut(u64, &mut Slot<'_>) -> Result<(), WriteError>,
) -> (u32, u32, u64) {
    let start = Instant::now();
    let mut slot = Slot::new(black_box(&mut segment.0), 0);
    let mut count = 0;
    while write(u64::from(count), &mut slot).is_ok() {
        count += 1;
    }
    let len = slot.len();
    (count, black_box(len), start.elapsed().as_nanos() as u64)
}

fn run<T: Record>(
    name: &str,
    segment: &mut Segment,
    make: impl Fn(u64) -> T,
    sum: impl Fn(&T::Archived) -> u64,
) {
    // Made before the clock starts: only the writing is of interest.
    let values: Vec<T> = (0..4096).map(make).collect();
    measure(name, || {
        let (count, len, write_ns) = fill(segment, |i, slot| values[i as usize & 4095].write(slot));
        let start = Instant::now();
        let bytes = black_box(&segment.0[..len as usize]);
        let total: u64 = Records::<T>::new(bytes)
            .map(|record| sum(record.expect("just written")))
            .fold(0, u64::wrapping_add);
        black_box(total);
        (count, write_ns, start.elapsed().as_nanos() as u64)
    });
}

fn main() {
    let mut segment = Segment([0; 32 * 1024]);
    let pair = |i| Pair { key: i, value: 1 };
    run("plain 16 bytes", &mut segment, pair, |p| p.key ^ p.value);
    run("archived (u64, u64)", &mut segment, |i| (i, 1u64), |p| p.0.to_native() ^ p.1.to_native());
    let flight = |i: u64| Flight { carrier: format!("carrier {i}"), delay: Some(3), distance: i as u32 };
    run("archived string, option, u32", &mut segment, flight, |f| {
        f.carrier.len() as u64 + u64::from(f.distance.to_native())
    });

    measure("plain 16 bytes, keyed", || {
        type Codec = <Pair as Record>::Keyed<u64>;
        let key_of = |p: &Pair| p.key;
        let (count, len, write_ns) = fill(&mut segment, |i, slot| {
            let pair = Pair { key: i, value: 1 };
            Codec::write(&key_of(&pair), &pair, slot)
        });
        let start = Instant::now();
        let bytes = black_box(&segment.0[..len as usize]);
        let (mut position, mut total) = (0, 0u64);
        while let Some((key, pair)) = Codec::read(bytes, &mut position, &key_of).expect("just written") {
            total = total.wrapping_add(key.hash() ^ pair.value);
        }
        black_box(total);
        (count, write_ns, start.elapsed().as_nanos() as u64)
    });

    measure("plain 16 bytes, as a slice", || {
        let (count, len, write_ns) = fill(&mut segment, |i, slot| Pair { key: i, value: 1 }.write(slot));
        let start = Instant::now();
        let pairs = Pair::as_slice(black_box(&segment.0[..len as usize])).expect("just written");
        black_box(pairs.iter().map(|p| p.key ^ p.value).fold(0, u64::wrapping_add));
        (count, write_ns, start.elapsed().as_nanos() as u64)
    });
}
