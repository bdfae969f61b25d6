//! One train of 64 KiB at our consumer, damaged in one place: every bit of it flipped, every cut.
//!
//! Asked for one place at a time, so that a test chooses how many it has time for. Always: whatever was done to the train, the
//! task reads whole payloads of it from the front, as they were sent, and nothing else.

use tidegate_exchange::{GatePlan, TaskPorts};
use tidegate_wire::{Body, Data, End, Entry, HEADER_LEN, PAYLOADS_MAX, payload_crc};

use super::bench::{ATTEMPT, Bench, CHANNELS, SEGMENT, channel_plans};
use super::consumer::Reader;

/// Bytes of the manifest, and of the train.
pub const MANIFEST_BYTES: usize = HEADER_LEN + PAYLOADS_MAX * tidegate_wire::ENTRY_LEN;
/// See [`MANIFEST_BYTES`].
pub const TRAIN_BYTES: usize = MANIFEST_BYTES + PAYLOADS_MAX * SEGMENT as usize;
/// Segments of the slot: more than the train takes twice, so that credit for all of it comes at once.
const SEGMENTS: u32 = 80;

/// F25: a flipped bit anywhere is noticed, the link closed, and nothing behind it is believed.
///
/// # Panics
/// If not.
pub fn flip(bit: usize) {
    let (refused, payloads) = received(|train| train[bit / 8] ^= 1 << (bit % 8), false);
    assert!(refused, "bit {bit} went unseen");
    let before = (bit / 8).saturating_sub(MANIFEST_BYTES) / SEGMENT as usize;
    assert_eq!(payloads, before, "bit {bit}: what came before it is whole, nothing behind it counts");
}

/// F26: a train that ends early is waited for; if the peer hangs up, the link is lost. No part of a payload is handed on.
///
/// # Panics
/// If not.
pub fn cut(at: usize, hang_up: bool) {
    let (refused, payloads) = received(|train| train.truncate(at), hang_up);
    // What a closed connection had on its way may be lost with it.
    let whole = at.saturating_sub(MANIFEST_BYTES) / SEGMENT as usize;
    assert_eq!(refused, hang_up, "cut at {at}");
    assert!(
        payloads == whole || (hang_up && payloads < whole),
        "cut at {at}: {payloads} payloads of {whole}"
    );
}

/// Sends the train, changed by `damage`. Gives whether it was refused, and how many payloads the task read.
fn received(damage: impl FnOnce(&mut Vec<u8>), hang_up: bool) -> (bool, usize) {
    let gate = GatePlan { name: "gate".into(), channels: channel_plans() };
    let task = TaskPorts { task: 0, gate: Some(gate), partitions: Vec::new() };
    let mut bench = Bench::with_segments(task, End::Consumer, SEGMENTS);
    let mut credits = 0;
    bench.push_train(&[Entry::backlog(CHANNELS[0], ATTEMPT, PAYLOADS_MAX as u16)], &[]);
    bench.send(usize::MAX);
    bench.settle(|bench| {
        let said = bench.hear(End::Consumer);
        for (entry, _) in &said {
            if let Body::Grant { credits: more, .. } = entry.body {
                credits += more;
            }
        }
        !said.is_empty()
    });
    assert!(credits >= PAYLOADS_MAX as u32, "{credits} credits for {PAYLOADS_MAX} payloads");

    let (mut entries, mut payloads) = (Vec::new(), Vec::new());
    for number in 0..PAYLOADS_MAX as u32 {
        let payload: Vec<u8> = (0..SEGMENT).map(|at| (at.wrapping_mul(31) + number) as u8).collect();
        let data = Data::whole(SEGMENT, payload_crc(&payload));
        entries.push(Entry::data(CHANNELS[0], ATTEMPT, number, 0, data));
        payloads.extend_from_slice(&payload);
    }
    bench.push_train(&entries, &payloads);
    assert_eq!(bench.outbox.len(), TRAIN_BYTES);
    damage(&mut bench.outbox);
    bench.send(usize::MAX);
    let mut reader = Reader::default();
    if hang_up {
        bench.turn();
        bench.hang_up();
    }
    bench.settle(|bench| {
        let mut moved = false;
        while reader.poll(bench) {
            moved = true;
        }
        moved
    });
    reader.release(&mut bench);
    let refused = bench.fault().is_some();
    let read = &reader.read[0];
    assert!(payloads.starts_with(read) && reader.read[1].is_empty(), "what is read is what was sent");
    assert_eq!(read.len() % SEGMENT as usize, 0, "no part of a payload is handed on");
    let whole = read.len() / SEGMENT as usize;
    bench.end();
    (refused, whole)
}
