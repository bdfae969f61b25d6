//! Streams trains of 16 payloads between two pinned threads over loopback and prints GB/s for every send mode, and through shared memory.
//!
//! `cargo run --release -p tidegate-ring --example loopback [seconds per mode] [payload bytes] [4k pages: any word]`
//!
//! Wall-clock rates mean little on a busy machine, so the processor time per byte of each thread is printed as well.

use std::{
    env,
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use tidegate_arena::{Arena, ArenaConfig, Granted, Holder, HolderKind, HugePages, SegmentSize, Shard};
use tidegate_ring::{
    AnyRing, Completion, Control, DriverReport, Peer, ReceivePart, ReceiveParts, Registration, Ring,
    SendMode, SendPart, SendParts, ShmStream, Stream, UringConfig, UringRing, probe, socket,
};

const PAYLOADS: usize = 16;
const HEADER: u32 = 576;
const HOLDER: Holder = Holder { kind: HolderKind::Other, id: 0 };

/// What every run has in common.
#[derive(Clone, Copy)]
struct Work {
    seconds: f64,
    payload: u32,
    pages: HugePages,
}

/// What is between the threads, as one of them has it.
enum End {
    Tcp(TcpStream),
    Shm(UnixStream),
}

impl End {
    fn greet(self, arena: &Arena) -> Stream {
        let control = match self {
            Self::Tcp(stream) => return stream.into(),
            Self::Shm(control) => Control::accepted(control).expect("this very process"),
        };
        let words = ShmStream::words(arena).expect("the arena is shared");
        control.say(b"x", Some((&words, arena))).expect("the other thread is there");
        let shown = control.hear(&mut [0], Duration::from_secs(10)).expect("the other thread greets, too");
        Peer::map(shown).and_then(|peer| control.join(words, peer)).expect("both are honest").into()
    }
}

struct Half {
    arena: Arena,
    shard: Shard,
    ring: AnyRing,
}

impl Half {
    fn new(core: usize, work: Work, send: SendMode, end: &End) -> Self {
        pin(core);
        let segment_size =
            SegmentSize::new(work.payload.next_power_of_two().max(4096)).expect("at most 1 MiB");
        let config = ArenaConfig { segment_size, shards: vec![128], huge_pages: work.pages };
        let map = if matches!(end, End::Shm(_)) { Arena::map_shared } else { Arena::map };
        let (arena, mut shards) = map(&config).expect("memory for two small arenas");
        let registration =
            if matches!(send, SendMode::Plain) { Registration::Never } else { Registration::Auto };
        let config = UringConfig { send, registration, connections_max: 4 };
        let ring = UringRing::new(&arena, 0, &config).expect("probed before");
        Self { arena, shard: shards.remove(0), ring: ring.into() }
    }
}

fn send_for(work: Work, send: SendMode, end: End) -> (f64, DriverReport) {
    let Half { arena, mut shard, mut ring } = Half::new(0, work, send, &end);
    let conn = ring.attach(end.greet(&arena)).expect("a connected stream");
    let until = Instant::now() + Duration::from_secs_f64(work.seconds);
    let mut sending = false;
    while Instant::now() < until {
        if !sending && shard.free() as usize > PAYLOADS {
            let mut part = |len| {
                let segment = shard.acquire(HOLDER).expect("counted above");
                SendPart { segment: arena.launch(arena.seal(segment, len)), offset: 0, len }
            };
            let mut parts = SendParts::new();
            parts.push(part(HEADER));
            parts.extend((0..PAYLOADS).map(|_| part(work.payload)));
            ring.send(conn, parts).expect("the connection is open");
            sending = true;
        }
        let reaped = ring.reap(16, &mut |completion| match completion {
            Completion::Sent { result, parts, .. } => {
                result.expect("the peer reads until the end");
                sending = false;
                parts.into_iter().for_each(|part| shard.release(arena.land(part.segment)));
            }
            Completion::Released { parts, .. } => {
                parts.into_iter().for_each(|part| shard.release(arena.land(part.segment)));
            }
            other => unreachable!("only sends are in flight: {other:?}"),
        });
        if reaped == 0 {
            ring.wait(Some(Duration::from_millis(100)));
        }
    }
    (thread_cpu(), ring.report())
}

fn receive_all(work: Work, send: SendMode, end: End) -> (f64, f64, DriverReport) {
    let Half { arena, mut shard, mut ring } = Half::new(1, work, send, &end);
    let conn = ring.attach(end.greet(&arena)).expect("a connected stream");
    let start = Instant::now();
    let (mut open, mut receiving) = (true, false);
    while open {
        if !receiving {
            let part = |_| {
                let segment = shard.acquire_granted(HOLDER).expect("one receive at a time");
                ReceivePart { segment: arena.post(segment), offset: 0, len: work.payload }
            };
            let parts: ReceiveParts = (0..PAYLOADS + 1).map(part).collect();
            ring.receive(conn, parts).expect("the connection is open");
            receiving = true;
        }
        let reaped = ring.reap(16, &mut |completion| match completion {
            Completion::Received { result, parts, .. } => {
                // The sender ends by closing, in the middle of a train as likely as not.
                open = result.is_ok_and(|bytes| bytes > 0);
                receiving = false;
                parts.into_iter().for_each(|part| shard.release(arena.unpost::<Granted>(part.segment)));
            }
            other => unreachable!("only a receive is in flight: {other:?}"),
        });
        if reaped == 0 && open {
            ring.wait(None);
        }
    }
    let report = ring.report();
    (report.counters.bytes_received as f64 / start.elapsed().as_secs_f64() / 1e9, thread_cpu(), report)
}

/// Seconds of processor time this thread has had.
fn thread_cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: rule 7, the pointer is to a live local.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0, "every thread has this clock");
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn pin(core: usize) {
    // SAFETY: rule 7, plain C data for which all zeroes is the empty set.
    let mut cores = unsafe { std::mem::zeroed::<libc::cpu_set_t>() };
    // SAFETY: rule 7, the set is a live local and the core number small.
    unsafe { libc::CPU_SET(core, &mut cores) };
    // SAFETY: rule 7, the pointer is to a live local of the size given.
    let failed = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &cores) };
    if failed != 0 {
        eprintln!("core {core} is not to be had; running unpinned");
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let seconds = args.next().map_or(Ok(2.0), |arg| arg.parse::<f64>())?;
    let payload = args.next().map_or(Ok(32 << 10), |arg| arg.parse::<u32>())?;
    let pages = if args.next().is_some() { HugePages::Never } else { HugePages::Auto };
    let work = Work { seconds, payload, pages };
    println!("{}", probe());
    let modes = [SendMode::Plain, SendMode::Fixed, SendMode::Zc, SendMode::Auto];
    for (send, shared) in modes.map(|send| (send, false)).into_iter().chain([(SendMode::Auto, true)]) {
        let (out, into, by) = if shared {
            let (out, into) = UnixStream::pair()?;
            (End::Shm(out), End::Shm(into), "shared memory".to_owned())
        } else {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let out = TcpStream::connect(listener.local_addr()?)?;
            let by = socket::congestion(&out)?;
            (End::Tcp(out), End::Tcp(listener.accept()?.0), by)
        };
        let receiver = thread::spawn(move || receive_all(work, send, into));
        let sender = thread::spawn(move || send_for(work, send, out));
        let (sender_cpu, sent) = sender.join().map_err(|_| "the sender failed")?;
        let (rate, receiver_cpu, received) = receiver.join().map_err(|_| "the receiver failed")?;
        let (from, to) = (sent.counters, received.counters);
        let per_byte = |cpu: f64| cpu * 1e9 / to.bytes_received as f64;
        let (out, into) = (per_byte(sender_cpu), per_byte(receiver_cpu));
        println!(
            "{send:>6}: {rate:.2} GB/s, {out:.2} + {into:.2} cpu ns/byte ({PAYLOADS} x {payload} bytes, {by}; {sent})"
        );
        println!(
            "        per send op {} KiB, per receive op {} KiB, enters {} + {}, short {}, fixed {}, \
             zc {} of which copied {}, notified after {} us at most",
            from.bytes_sent / from.send_ops.max(1) / 1024,
            to.bytes_received / to.receive_ops.max(1) / 1024,
            from.enters,
            to.enters,
            from.short_sends,
            from.fixed_sends,
            from.zc_sends,
            from.zc_copied,
            from.notification_ns_max / 1000
        );
    }
    Ok(())
}
