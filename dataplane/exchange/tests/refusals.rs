//! What is refused, by name, and that nothing is lost by it: plans that don't fit, records that don't fit, strangers, and
//! peers that break the protocol.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use common::stranger::*;
use common::*;
use tidegate_exchange::{EmitError, LinkError, PrepareError};
use tidegate_flow::Violation;
use tidegate_wire::{
    Body, Data, Entry, HELLO_LEN, HELLO_REPLY_LEN, Hello, HelloReply, MANIFEST_MAX, ManifestWriter,
    RefusalCode, payload_crc,
};

#[test]
fn a_plan_that_does_not_fit_is_refused_whole() {
    let process = Process::new(1, 3);
    let mut slot = process.slot();
    let plan = plan(vec![producer(0, false, vec![channel(0, slot_id(2))])], &[]);
    let error = slot.prepare(&plan).expect_err("a partition and a link need four segments");
    assert_eq!(error, PrepareError::Segments { needed: 4, available: 3, edge: "edge of 0".into() });
    assert_eq!(slot.ports.segments_free(), 3);
}

#[test]
fn a_record_larger_than_a_segment_is_a_named_error_and_writes_nothing() {
    let process = Process::new(1, 8);
    let mut slot = process.slot();
    let me = process.me;
    let ids = prepare(
        &mut slot,
        &plan(vec![producer(0, false, vec![channel(0, me)]), consumer(1, vec![channel(0, me)])], &[]),
    );
    let mut output = slot.ports.output(ids[0].partitions[0]);
    let text = "x".repeat(40_000);
    match output.write(0, &text) {
        Err(EmitError::TooLarge { size, limit, partition }) => {
            assert!(size > 40_000, "{size}");
            assert_eq!((limit, partition.as_str()), (32 << 10, "edge of 0"));
        }
        other => panic!("{other:?}"),
    }
    assert!(output.writable());
    output.write(0, &"short".to_owned()).expect("a short one still fits");
}

#[test]
fn a_producer_of_another_protocol_is_named() {
    let fault = consumer_of_a_stranger(|mut stream, _| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n0123456789").expect("sent");
        drain(stream);
    });
    assert!(matches!(fault.error, LinkError::Unreachable { .. }), "{fault}");
}

#[test]
fn garbage_after_the_handshake_is_named_and_answered() {
    let fault = consumer_of_a_stranger(|mut stream, hello| {
        welcome(&mut stream, &hello);
        stream.write_all(&[0xA5; 4096]).expect("sent");
        assert!(!drain(stream).is_empty(), "the slot says what is wrong before it closes");
    });
    assert!(matches!(fault.error, LinkError::Garbled(_)), "{fault}");
}

#[test]
fn a_flipped_bit_in_a_manifest_is_found() {
    let fault = consumer_of_a_stranger(|mut stream, hello| {
        welcome(&mut stream, &hello);
        let mut bytes = train(&[Entry::backlog(5, hello.attempt, 1)], &[]);
        bytes[70] ^= 4;
        stream.write_all(&bytes).expect("sent");
        drain(stream);
    });
    assert!(matches!(fault.error, LinkError::Garbled(_)), "{fault}");
}

#[test]
fn data_that_was_never_granted_is_refused() {
    let fault = consumer_of_a_stranger(|mut stream, hello| {
        welcome(&mut stream, &hello);
        let payload = [7; 64];
        let entry = Entry::data(5, hello.attempt, 0, 0, Data::whole(64, payload_crc(&payload)));
        stream.write_all(&train(&[entry], &payload)).expect("sent");
        drain(stream);
    });
    assert_eq!(fault.error, LinkError::Violation(Violation::NoCredit { channel: 5, sequence: 0 }));
}

#[test]
fn a_corrupted_payload_is_found() {
    let fault = consumer_of_a_stranger(|mut stream, hello| {
        welcome(&mut stream, &hello);
        stream.write_all(&train(&[Entry::backlog(5, hello.attempt, 1)], &[])).expect("sent");
        // The grant: one manifest with one entry.
        let mut grant = [0; 96];
        stream.read_exact(&mut grant).expect("a grant");
        let mut payload = [7; 64];
        let entry = Entry::data(5, hello.attempt, 0, 0, Data::whole(64, payload_crc(&payload)));
        payload[13] ^= 1;
        let mut bytes = [0; MANIFEST_MAX];
        let mut writer = ManifestWriter::new(&mut bytes, 1, 0);
        writer.push(entry).expect("room");
        let len = writer.finish();
        stream.write_all(&bytes[..len]).expect("sent");
        stream.write_all(&payload).expect("sent");
        drain(stream);
    });
    assert!(matches!(fault.error, LinkError::Violation(Violation::Checksum { channel: 5, .. })), "{fault}");
}

#[test]
fn strange_channels_and_generations_are_refused() {
    let channel = consumer_of_a_stranger(|mut stream, hello| {
        welcome(&mut stream, &hello);
        stream.write_all(&train(&[Entry::backlog(7, hello.attempt, 1)], &[])).expect("sent");
        drain(stream);
    });
    assert_eq!(channel.error, LinkError::Violation(Violation::UnknownChannel { channel: 7, channels: 2 }));
    let generation = consumer_of_a_stranger(|mut stream, hello| {
        welcome(&mut stream, &hello);
        stream.write_all(&train(&[Entry::backlog(5, hello.attempt + 1, 1)], &[])).expect("sent");
        drain(stream);
    });
    assert_eq!(
        generation.error,
        LinkError::Violation(Violation::Generation { channel: 5, expected: 1, found: 2 })
    );
}

#[test]
fn a_consumer_may_not_send_what_only_producers_send() {
    let fault = consumer_of_a_stranger(|mut stream, hello| {
        welcome(&mut stream, &hello);
        let entry = Entry::control(5, hello.attempt, Body::Grant { credits: 1, barriers: 0 });
        stream.write_all(&train(&[entry], &[])).expect("sent");
        drain(stream);
    });
    assert!(matches!(fault.error, LinkError::Violation(Violation::Unexpected { .. })), "{fault}");
}

/// W-33, W-37: a peer that says its last word out of turn is named; it must not look like an end.
#[test]
fn a_close_ack_without_a_close_is_refused() {
    let fault = consumer_of_a_stranger(|mut stream, hello| {
        welcome(&mut stream, &hello);
        let entry = Entry::sequenced(5, hello.attempt, 0, Body::CloseAck);
        stream.write_all(&train(&[entry], &[])).expect("sent");
        drain(stream);
    });
    let kind = tidegate_wire::Kind::CloseAck as u8;
    assert_eq!(fault.error, LinkError::Violation(Violation::Unexpected { channel: 5, kind }));
}

/// W-10: a producer that is not prepared yet, or hangs up in a crowd, is dialled again.
#[test]
fn a_refusal_that_may_pass_is_dialled_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    let process = Process::new(2, 64);
    std::thread::scope(|scope| {
        let stranger = scope.spawn(|| {
            let accept = || {
                let (mut stream, _) = listener.accept().expect("the slot dials");
                let mut bytes = [0; HELLO_LEN];
                stream.read_exact(&mut bytes).expect("a hello");
                (stream, Hello::parse(&bytes).expect("a valid hello"))
            };
            for code in [RefusalCode::Job, RefusalCode::Attempt, RefusalCode::Busy] {
                let (mut stream, hello) = accept();
                let refusal = Some(tidegate_wire::Refusal { code, expected: 0, found: 1 });
                let mut reply = [0; HELLO_REPLY_LEN];
                HelloReply { echo: hello.checksum(), refusal }.write(&mut reply);
                stream.write_all(&reply).expect("the dialer reads");
            }
            drop(accept());
            let (mut stream, hello) = accept();
            welcome(&mut stream, &hello);
            stream
        });
        let mut slot = process.slot();
        prepare(&mut slot, &plan(vec![consumer(0, vec![channel(5, slot_id(1))])], &[(slot_id(1), address)]));
        drop(stranger.join().expect("no panic"));
        slot.cancel(JOB, 1);
        run(&mut slot, |slot| (false, slot.closed(JOB, 1)));
    });
}

#[test]
fn a_cut_in_the_middle_of_a_train_is_a_fault() {
    let fault = consumer_of_a_stranger(|mut stream, hello| {
        welcome(&mut stream, &hello);
        stream.write_all(&train(&[Entry::backlog(5, hello.attempt, 1)], &[])[..50]).expect("sent");
    });
    assert!(matches!(fault.error, LinkError::Gone | LinkError::Io(_)), "{fault}");
}

/// Dials the process as a consumer would, and returns the refusal.
fn refusal(process: &Process, hello: &Hello) -> Option<RefusalCode> {
    let mut stream = TcpStream::connect(process.address()).expect("it listens");
    let mut bytes = [0; HELLO_LEN];
    hello.write(&mut bytes);
    stream.write_all(&bytes).expect("it reads");
    let mut reply = [0; HELLO_REPLY_LEN];
    stream.read_exact(&mut reply).expect("it answers");
    HelloReply::parse(&reply).expect("by the protocol").refusal.map(|refusal| refusal.code)
}

#[test]
fn strangers_are_refused_by_name() {
    let process = Process::new(1, 64);
    let peer = slot_id(2);
    let plan = plan(vec![producer(0, false, vec![channel(5, peer)])], &[]);
    let (done, stop) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let (ready, started) = std::sync::mpsc::channel();
        scope.spawn(|| {
            let stop = stop;
            let ready = ready;
            let mut slot = process.slot();
            slot.prepare(&plan).expect("fits");
            ready.send(()).expect("the test waits");
            while stop.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                slot.turn();
                slot.wait(Some(std::time::Duration::from_millis(20)));
            }
            slot.cancel(JOB, 1);
            run(&mut slot, |slot| (false, slot.closed(JOB, 1)));
        });
        started.recv().expect("the slot starts");
        let right = hello();
        let cases = [
            (Hello { cluster: 12, ..right }, RefusalCode::Cluster),
            (Hello { epoch: 2, ..right }, RefusalCode::Epoch),
            (Hello { segment_size: 64 << 10, ..right }, RefusalCode::SegmentSize),
            (Hello { record_format: 9, ..right }, RefusalCode::RecordFormat),
            (Hello { channels: 2, ..right }, RefusalCode::Channels),
            (Hello { channels_hash: 1, ..right }, RefusalCode::Channels),
            (Hello { version: tidegate_wire::VERSION + 1, ..right }, RefusalCode::Version),
            (Hello { to: tidegate_wire::SlotAddress { tm: 1, slot: 9 }, ..right }, RefusalCode::Slot),
            (Hello { from: tidegate_wire::SlotAddress { tm: 3, slot: 0 }, ..right }, RefusalCode::Slot),
        ];
        for (hello, code) in cases {
            assert_eq!(refusal(&process, &hello), Some(code), "{hello:?}");
        }
        // Something that is no hello at all is refused too, and the right one still gets in.
        let mut stream = TcpStream::connect(process.address()).expect("it listens");
        stream.write_all(&[b'x'; HELLO_LEN]).expect("it reads");
        let mut reply = [0; HELLO_REPLY_LEN];
        stream.read_exact(&mut reply).expect("it answers");
        let reply = HelloReply::parse(&reply).expect("by the protocol");
        assert_eq!(reply.refusal.map(|refusal| refusal.code), Some(RefusalCode::Garbage));
        // Also if it goes on talking: a reset must not swallow the answer.
        let mut stream = TcpStream::connect(process.address()).expect("it listens");
        stream.write_all(&[b'x'; 20_000]).expect("it reads");
        let mut reply = [0; HELLO_REPLY_LEN];
        stream.read_exact(&mut reply).expect("it answers");
        drop(stream);
        assert_eq!(refusal(&process, &right), None);
        assert_eq!(refusal(&process, &right), Some(RefusalCode::Busy), "a second one for the same link");
        done.send(()).expect("the slot runs");
    });
}
