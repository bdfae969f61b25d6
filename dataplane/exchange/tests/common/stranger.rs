//! A peer that is no Tidegate: it listens in the place of a producer and says what the test likes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use tidegate_exchange::LinkFault;
use tidegate_wire::{Entry, HELLO_LEN, HELLO_REPLY_LEN, Hello, HelloReply, MANIFEST_MAX, ManifestWriter};

use super::*;

/// The largest record of a plan with a stranger.
pub const RECORD_MAX: u32 = 1 << 20;

/// A listener in the place of the producer, and the slot that dials it.
/// The consumer has the channels 5 and 6, and a region.
pub fn consumer_of_a_stranger(act: impl FnOnce(TcpStream, Hello) + Send) -> LinkFault {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    let process = Process::new(2, 128);
    std::thread::scope(|scope| {
        let stranger = scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("the slot dials");
            let mut bytes = [0; HELLO_LEN];
            stream.read_exact(&mut bytes).expect("a hello");
            let hello = Hello::parse(&bytes).expect("a valid hello");
            act(stream, hello);
        });
        let mut slot = process.slot();
        let channels = vec![channel(5, slot_id(1)), channel(6, slot_id(1))];
        let mut plan = plan(vec![consumer(0, channels)], &[(slot_id(1), address)]);
        plan.record_max = RECORD_MAX;
        slot.prepare(&plan).expect("fits");
        let fault = loop {
            slot.turn();
            if let Some(fault) = slot.take_fault() {
                break fault;
            }
            slot.wait(Some(DEADLINE));
        };
        // The last words go out before the attempt is cancelled.
        while !stranger.is_finished() {
            slot.turn();
            slot.wait(Some(std::time::Duration::from_millis(10)));
        }
        slot.cancel(JOB, 1);
        run(&mut slot, |slot| (false, slot.closed(JOB, 1)));
        assert_eq!(slot.ports.segments_free(), slot.ports.segments());
        fault
    })
}

pub fn welcome(stream: &mut TcpStream, hello: &Hello) {
    let mut reply = [0; HELLO_REPLY_LEN];
    HelloReply { echo: hello.checksum(), refusal: None }.write(&mut reply);
    stream.write_all(&reply).expect("the slot listens");
}

pub fn train(entries: &[Entry], payload: &[u8]) -> Vec<u8> {
    let mut bytes = [0; MANIFEST_MAX];
    let mut writer = ManifestWriter::new(&mut bytes, 0, 0);
    for entry in entries {
        writer.push(*entry).expect("room");
    }
    let len = writer.finish();
    [&bytes[..len], payload].concat()
}

/// Reads to the end, so that the slot's last words do not meet a reset.
pub fn drain(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    rest
}
