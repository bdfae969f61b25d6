//! Where the bytes of a train are received: a part of its payloads at a time, and the next manifest behind the last of them.

use tidegate_flow::limits::RECEIVE_BYTES;
use tidegate_flow::{Place, Step, TrainReceiver};
use tidegate_wire::{Data, Entry, MANIFEST_MAX, ManifestWriter, PAYLOADS_MAX};

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
