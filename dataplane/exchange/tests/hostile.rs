//! What a hostile producer can do with slices of records larger than a segment: each refused by name, with nothing lost.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::stranger::*;
use tidegate_exchange::{LinkError, LinkFault};
use tidegate_flow::Violation;
use tidegate_wire::{
    Body, Data, Entry, Hello, Kind, MANIFEST_MAX, ManifestWriter, Parsed, parse, payload_crc,
};

const TOTAL: u32 = 100_000;

/// A producer that keeps the rules until the test breaks one.
struct Stranger {
    stream: TcpStream,
    attempt: u32,
    trains: u64,
    sequence: u32,
}

impl Stranger {
    fn send(&mut self, entries: &[Entry], payload: &[u8]) {
        let mut bytes = [0; MANIFEST_MAX];
        let mut writer = ManifestWriter::new(&mut bytes, self.trains, 0);
        entries.iter().for_each(|entry| writer.push(*entry).expect("room"));
        let len = writer.finish();
        self.trains += 1;
        self.stream.write_all(&[&bytes[..len], payload].concat()).expect("the slot listens");
    }

    fn ask(&mut self, channel: u32, total: u32) {
        self.send(&[Entry::control(channel, self.attempt, Body::Ask { total })], &[]);
    }

    fn slice(&mut self, channel: u32, offset: u32, len: u32, total: u32) -> (Entry, Vec<u8>) {
        let payload = vec![offset as u8; len as usize];
        let data = Data { len, total, offset, crc: payload_crc(&payload) };
        self.sequence += 1;
        (Entry::data(channel, self.attempt, self.sequence - 1, 0, data), payload)
    }

    fn send_slice(&mut self, offset: u32, len: u32, total: u32) {
        let (entry, payload) = self.slice(5, offset, len, total);
        self.send(&[entry], &payload);
    }

    fn event(&mut self, body: Body) {
        self.send(&[Entry::sequenced(5, self.attempt, self.sequence, body)], &[]);
    }

    /// The entries of the consumer's next train.
    fn hear(&mut self) -> Vec<Entry> {
        let mut bytes = vec![0; 64];
        self.stream.read_exact(&mut bytes).expect("a header");
        let Ok(Parsed::Incomplete { need }) = parse(&bytes) else { panic!("a header is no manifest") };
        bytes.resize(need, 0);
        self.stream.read_exact(&mut bytes[64..]).expect("the entries");
        let Ok(Parsed::Complete(manifest)) = parse(&bytes) else { panic!("a whole manifest") };
        manifest.entries().collect()
    }

    fn admitted(&mut self) {
        self.ask(5, TOTAL);
        assert_eq!(self.hear(), [Entry::control(5, self.attempt, Body::Admit { total: TOTAL })]);
    }
}

fn stranger(act: impl FnOnce(&mut Stranger) + Send) -> LinkFault {
    consumer_of_a_stranger(|mut stream, hello: Hello| {
        welcome(&mut stream, &hello);
        let mut stranger = Stranger { stream, attempt: hello.attempt, trains: 0, sequence: 0 };
        act(&mut stranger);
        drain(stranger.stream);
    })
}

fn violation(act: impl FnOnce(&mut Stranger) + Send) -> Violation {
    match stranger(act).error {
        LinkError::Violation(violation) => violation,
        other => panic!("{other}"),
    }
}

fn unexpected(kind: Kind) -> Violation {
    Violation::Unexpected { channel: 5, kind: kind as u8 }
}

#[test]
fn a_slice_that_was_not_admitted_is_refused() {
    let refused = Violation::NotAdmitted { channel: 5, found: TOTAL };
    assert_eq!(violation(|peer| peer.send_slice(0, 50_000, TOTAL)), refused);
    let asked = |peer: &mut Stranger| {
        // The region is channel 6's.
        peer.ask(6, TOTAL);
        peer.ask(5, TOTAL);
        assert_eq!(peer.hear(), [Entry::control(6, peer.attempt, Body::Admit { total: TOTAL })]);
        peer.send_slice(0, 50_000, TOTAL);
    };
    assert_eq!(violation(asked), refused, "a second record while one is open");
}

#[test]
fn asks_beyond_the_limit_or_for_what_fits_a_segment_are_refused() {
    for found in [1, 32 << 10, RECORD_MAX + 1, 16 << 20] {
        let refused = Violation::RecordTooLarge { channel: 5, limit: RECORD_MAX, found };
        assert_eq!(violation(|peer| peer.ask(5, found)), refused);
    }
}

#[test]
fn asks_out_of_turn_are_refused() {
    let twice = |peer: &mut Stranger| {
        peer.ask(5, TOTAL);
        peer.ask(5, TOTAL);
    };
    assert_eq!(violation(twice), unexpected(Kind::Ask));
    let behind_a_barrier = |peer: &mut Stranger| {
        peer.event(Body::Barrier { checkpoint: 1 });
        peer.ask(5, TOTAL);
    };
    assert_eq!(violation(behind_a_barrier), unexpected(Kind::Ask));
    let behind_the_end = |peer: &mut Stranger| {
        peer.event(Body::EndOfData);
        peer.ask(5, TOTAL);
    };
    assert_eq!(violation(behind_the_end), unexpected(Kind::Ask));
}

#[test]
fn slices_out_of_place_are_refused() {
    // Overlap, gap, another total, and a part of a record that would fit a segment.
    for (offset, len, total) in [
        (0, 50_000, TOTAL),
        (49_999, 50_000, TOTAL),
        (50_001, 40_000, TOTAL),
        (50_000, 10_000, TOTAL + 1),
        (50_000, 10_000, TOTAL - 1),
    ] {
        let wrong = |peer: &mut Stranger| {
            peer.admitted();
            peer.send_slice(0, 50_000, TOTAL);
            peer.send_slice(offset, len, total);
        };
        let refused = Violation::OutOfPlace { channel: 5, expected: (TOTAL, 50_000), found: (total, offset) };
        assert_eq!(violation(wrong), refused);
    }
    let reordered = |peer: &mut Stranger| {
        peer.admitted();
        peer.send_slice(50_000, 50_000, TOTAL);
    };
    let refused = Violation::OutOfPlace { channel: 5, expected: (TOTAL, 0), found: (TOTAL, 50_000) };
    assert_eq!(violation(reordered), refused);
    let part = Violation::OutOfPlace { channel: 5, expected: (10, 0), found: (20, 10) };
    assert_eq!(violation(|peer| peer.send_slice(10, 10, 20)), part);
}

#[test]
fn nothing_comes_between_the_slices_of_a_record() {
    for body in [Body::Barrier { checkpoint: 1 }, Body::AbortMarker { checkpoint: 1 }, Body::EndOfData] {
        let between = |peer: &mut Stranger| {
            peer.admitted();
            peer.send_slice(0, 50_000, TOTAL);
            peer.event(body);
        };
        assert_eq!(violation(between), unexpected(body.kind()));
    }
    let small = |peer: &mut Stranger| {
        peer.admitted();
        peer.send_slice(0, 50_000, TOTAL);
        peer.send_slice(0, 10, 10);
    };
    assert_eq!(violation(small), unexpected(Kind::Data));
    // The last word answers a close, and there was none.
    let gone = |peer: &mut Stranger| {
        peer.admitted();
        peer.send_slice(0, 50_000, TOTAL);
        peer.event(Body::CloseAck);
    };
    assert_eq!(violation(gone), unexpected(Kind::CloseAck));
}

#[test]
fn a_train_has_one_slice_and_nothing_behind_it() {
    let two = |peer: &mut Stranger| {
        peer.admitted();
        let (first, a) = peer.slice(5, 0, 50_000, TOTAL);
        let (second, b) = peer.slice(5, 50_000, 50_000, TOTAL);
        peer.send(&[first, second], &[a, b].concat());
    };
    assert_eq!(violation(two), unexpected(Kind::Data));
}

#[test]
fn a_corrupted_slice_is_found() {
    let corrupted = |peer: &mut Stranger| {
        peer.admitted();
        peer.send_slice(0, 50_000, TOTAL);
        let (entry, mut payload) = peer.slice(5, 50_000, 50_000, TOTAL);
        payload[49_999] ^= 1;
        peer.send(&[entry], &payload);
    };
    assert!(matches!(violation(corrupted), Violation::Checksum { channel: 5, .. }));
}

/// The segments of the region come back, too: `stranger` looks.
#[test]
fn a_link_lost_in_the_middle_of_a_record_is_a_fault() {
    let lost = |peer: &mut Stranger| {
        peer.admitted();
        peer.send_slice(0, 50_000, TOTAL);
        let (entry, payload) = peer.slice(5, 50_000, 50_000, TOTAL);
        peer.send(&[entry], &payload[..20_000]);
        peer.stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    };
    let fault = stranger(lost);
    assert!(matches!(fault.error, LinkError::Gone | LinkError::Io(_)), "{fault}");
}
