//! What TCP on loopback does between the two cores: one way of a small message, and a stream of frames through io_uring.
//!
//! The stream is the floor's, with frames that nobody fills and nobody reads: what is left is the kernel, the driver and, if
//! asked for, the checksum on both sides.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use rustix::time::{ClockId, clock_gettime};

use super::{Figure, Setting, sample, time};
use crate::floor::frames::{Fill, Layout, SEGMENT, Take};
use crate::floor::ring::{self, TRAIN};
use crate::meter::{self, Meter, Side, Totals};
use crate::pairs::Sample;
use crate::process::pin;
use crate::work::Work;

const MESSAGE: usize = 64;
/// Frames of the first, short stream, from which the length of the measured one is chosen.
const FRAMES_FIRST: u64 = 512;
/// Most frames of a stream: 32 GB, more than any loopback carries in a figure's time.
const FRAMES_MAX: u64 = 1 << 20;

pub(crate) fn pair() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let dialled = TcpStream::connect(listener.local_addr()?)?;
    let (accepted, _) = listener.accept()?;
    dialled.set_nodelay(true)?;
    accepted.set_nodelay(true)?;
    Ok((dialled, accepted))
}

/// A message to a thread that sleeps on the other core, and back; half of that.
pub fn ping_pong(setting: Setting) -> Result<Figure, Box<dyn Error>> {
    time("TCP, 64 bytes, one way (half a round trip)", &ping_pong_samples(setting)?)
}

pub(super) fn ping_pong_samples(setting: Setting) -> std::io::Result<Vec<f64>> {
    let (mut here, mut there) = pair()?;
    let mut failed = None;
    let samples = thread::scope(|scope| {
        scope.spawn(move || {
            pin(setting.cores[1]);
            let mut message = [0; MESSAGE];
            // Ends when the other side has closed.
            while there.read_exact(&mut message).and_then(|()| there.write_all(&message)).is_ok() {}
        });
        let mut message = [0; MESSAGE];
        let samples = sample(setting.budget, 2, || {
            if failed.is_none() {
                failed = here.write_all(&message).and_then(|()| here.read_exact(&mut message)).err();
            }
        });
        drop(here);
        samples
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(samples),
    }
}

/// One frame an operation.
pub fn single(setting: Setting) -> Result<Figure, Box<dyn Error>> {
    stream(setting, "TCP stream by io_uring, 32 KiB an operation", 1, false)
}

/// One frame an operation, with a checksum.
pub fn single_with_checksum(setting: Setting) -> Result<Figure, Box<dyn Error>> {
    stream(setting, "TCP stream by io_uring, 32 KiB an operation, CRC32C", 1, true)
}

/// As many as in the engine's trains.
pub fn train(setting: Setting) -> Result<Figure, Box<dyn Error>> {
    stream(setting, "TCP stream by io_uring, 16 x 32 KiB an operation", TRAIN, false)
}

/// As many, with checksums.
pub fn train_with_checksum(setting: Setting) -> Result<Figure, Box<dyn Error>> {
    stream(setting, "TCP stream by io_uring, 16 x 32 KiB an operation, CRC32C", TRAIN, true)
}

/// Bytes that nobody made.
struct Nothing;

impl Fill for Nothing {
    fn fill(&mut self, _frame: &mut [u8]) {}
}

impl Take for Nothing {
    fn take(&mut self, _frame: &[u8]) {}

    fn totals(&self) -> Totals {
        Totals::default()
    }
}

/// What a stream took: seconds, and processor time of sender and receiver in seconds.
struct Streamed {
    seconds: f64,
    cpu: [f64; 2],
}

fn stream(
    setting: Setting,
    what: &'static str,
    train: usize,
    checksum: bool,
) -> Result<Figure, Box<dyn Error>> {
    let layout = Layout::new(SEGMENT, checksum);
    let first = frames(setting.cores, layout, train, [train as u64, FRAMES_FIRST])?;
    let wanted = FRAMES_FIRST as f64 * setting.budget.as_secs_f64() / first.seconds;
    let count = (wanted as u64).clamp(FRAMES_FIRST, FRAMES_MAX);
    let Streamed { seconds, cpu: [sender, receiver] } =
        frames(setting.cores, layout, train, [train as u64, count])?;
    let bytes = (count * SEGMENT as u64) as f64;
    let per_byte = |cpu: f64| cpu * 1e9 / bytes;
    Ok(Figure {
        what,
        value: bytes / seconds / 1e9,
        unit: "GB/s",
        note: format!("CPU {:.2} + {:.2} ns/byte", per_byte(sender), per_byte(receiver)),
    })
}

/// The stream with checksums beside a benchmark of records: frames as that work has them, in the engine's trains, which nobody
/// fills and nobody reads.
///
/// # Errors
/// There is no io_uring here, or the connection broke.
pub fn raw(work: &Work) -> Result<Sample, Box<dyn Error>> {
    let layout = Layout::new(work.wire_bytes() as usize, true);
    let (cores, records) = (work.cores, [work.warm_up(), work.measured()]);
    let streamed = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            pin(cores[0]);
            frames(cores, layout, TRAIN, records).map_err(|error| error.to_string())
        });
        sender.join().unwrap_or_else(|_| Err("the sender of a stream panicked".to_owned()))
    })?;
    let rate = work.measured() as f64 / streamed.seconds;
    let ends_ns = streamed.cpu.map(|seconds| seconds * 1e9 / work.all() as f64);
    Ok(Sample {
        records_per_second: rate,
        bytes_per_second: rate * work.wire_bytes(),
        cpu_ns_per_record: ends_ns.iter().sum(),
        ends_ns,
        ..Sample::default()
    })
}

/// Sends so many records in frames, after so many others.
fn frames(
    cores: [usize; 2],
    layout: Layout,
    train: usize,
    [warm_up, count]: [u64; 2],
) -> Result<Streamed, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let meter = |name: &str| Meter::new(dir.path().join(name), warm_up, count);
    let (mut sent, mut received) = (meter("sent"), meter("received"));
    let (here, there) = pair()?;
    let before = cpu_seconds();
    let (sender, receiver) = thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            pin(cores[1]);
            ring::receive(there, layout, train, &mut Nothing, &mut received).map(|()| cpu_seconds())
        });
        let sender = ring::send(here, layout, train, &mut Nothing, &mut sent);
        let sender = sender.map(|()| cpu_seconds() - before);
        let receiver = receiver.join().unwrap_or_else(|_| Err("the receiver panicked".to_owned()));
        (sender, receiver)
    });
    let side: Side = meter::read(&dir.path().join("received"))?;
    Ok(Streamed { seconds: side.seconds, cpu: [sender?, receiver?] })
}

/// Processor time of this thread, seconds.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
