//! Every error of the decoder, made once each by a peer on a real connection: the link ends by its name, the peer is told so,
//! and every segment comes back.

mod common;

use std::io::Write;

use common::stranger::*;
use tidegate_exchange::LinkError;
use tidegate_wire::{Body, Data, Entry, LINK, WireError, payload_crc};

/// Where the entry begins behind the header.
const ENTRY: usize = 64;

/// Which error it is. A new one makes this incomplete, and the test below without its case.
fn number(error: WireError) -> usize {
    match error {
        WireError::Magic { .. } => 0,
        WireError::Version { .. } => 1,
        WireError::EntryCount { .. } => 2,
        WireError::PayloadCount { .. } => 3,
        WireError::ManifestBytes { .. } => 4,
        WireError::PayloadBytes { .. } => 5,
        WireError::HeaderChecksum { .. } => 6,
        WireError::HeaderReserved => 7,
        WireError::EntriesChecksum { .. } => 8,
        WireError::Kind { .. } => 9,
        WireError::Unused { .. } => 10,
        WireError::Channel { .. } => 11,
        WireError::Payload { .. } => 12,
        WireError::Credits { .. } => 13,
        WireError::Code { .. } => 14,
        WireError::Sum { .. } => 15,
        WireError::Train { .. } => 16,
        // The referee's. A link says that as a violation of its channel.
        WireError::Direction { .. } => usize::MAX,
    }
}

/// How a train of one entry is bent, and whether its checksums are put right behind that.
type Case = (fn(u32) -> Entry, fn(&mut [u8]), bool);

/// In the order of their numbers.
const CASES: [Case; 17] = [
    (backlog, |train| train[0] ^= 1, true),
    (backlog, |train| train[4] = 1, true),
    (backlog, |train| train[6] = 0, true),
    (backlog, |train| train[8] = 2, true),
    (backlog, |train| train[12] -= 1, true),
    (backlog, |train| train[16] = 1, true),
    (backlog, |train| train[30] ^= 1, false),
    (backlog, |train| train[10] = 1, true),
    (backlog, |train| train[ENTRY + 6] ^= 4, false),
    (backlog, |train| train[ENTRY + 8] = 0, true),
    (backlog, |train| train[ENTRY + 9] = 0x80, true),
    (backlog, |train| train[ENTRY..ENTRY + 4].copy_from_slice(&LINK.to_le_bytes()), true),
    (|attempt| Entry::control(5, attempt, Body::Ask { total: 1 }), |train| train[ENTRY + 16] = 0, true),
    (grant, |train| train[ENTRY + 16] = 0, true),
    (|_| Entry::link_error(1, 0), |train| train[ENTRY + 16] = 0, true),
    (|attempt| Entry::data(5, attempt, 0, 0, Data::whole(10, 0)), longer, true),
    (backlog, |train| train[32] = 1, true),
];

fn backlog(attempt: u32) -> Entry {
    Entry::backlog(5, attempt, 1)
}

/// What a producer has not to give.
fn grant(attempt: u32) -> Entry {
    Entry::control(5, attempt, Body::Grant { credits: 1, barriers: 0 })
}

/// A payload has a byte more than its train says.
fn longer(train: &mut [u8]) {
    train[ENTRY + 16] += 1;
    train[ENTRY + 20] += 1;
}

#[test]
fn every_error_of_the_decoder_ends_a_link_by_its_name() {
    for (wanted, (entry, bend, seal)) in CASES.into_iter().enumerate() {
        let fault = consumer_of_a_stranger(|mut stream, hello| {
            welcome(&mut stream, &hello);
            let mut bytes = train(&[entry(hello.attempt)], &[]);
            bend(&mut bytes);
            if seal {
                let checksum = payload_crc(&bytes[ENTRY..]).to_le_bytes();
                bytes[56..60].copy_from_slice(&checksum);
                let checksum = payload_crc(&bytes[..60]).to_le_bytes();
                bytes[60..64].copy_from_slice(&checksum);
            }
            stream.write_all(&bytes).expect("the slot listens");
            assert!(!drain(stream).is_empty(), "the slot says what is wrong before it closes");
        });
        match fault.error {
            LinkError::Garbled(error) => assert_eq!(number(error), wanted, "{error}"),
            other => panic!("case {wanted}: {other}"),
        }
    }
}
