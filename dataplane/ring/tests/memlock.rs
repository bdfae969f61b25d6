//! The ladder of registration under RLIMIT_MEMLOCK. A process of its own, because the limit is one of the process.

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
};

use tidegate_arena::{Arena, ArenaConfig, Holder, HolderKind, HugePages, SegmentSize};
use tidegate_ring::{
    Completion, ModeReason, Obstacle, Registration, RegistrationRung, Ring, RingError, SendMode, SendPart,
    SendParts, UringConfig, UringRing, probe,
};

const SHARD: usize = 4 << 20;
const LIMIT: u64 = 1 << 20;

/// False if this process may not even have that much.
fn set_limit(bytes: u64) -> bool {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: LIMIT };
    // SAFETY: the pointer is to a live local.
    let failed = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) };
    failed == 0
}

/// Gives up the capability that lifts the limit, for this thread.
fn drop_cap_ipc_lock() {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_IPC_LOCK: u32 = 14;
    let header = [VERSION_3, 0];
    // Effective, permitted, inheritable; low words, then high words.
    let mut sets = [0u32; 6];
    // SAFETY: header and sets are live locals of the layout that version 3 asks for.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    assert_eq!(got, 0, "reading one's own capabilities is always allowed");
    sets[0] &= !(1 << CAP_IPC_LOCK);
    // SAFETY: as above.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(set, 0, "giving a capability up is always allowed");
}

fn config(registration: Registration) -> UringConfig {
    UringConfig { registration, connections_max: 4, send: SendMode::Auto }
}

#[test]
fn a_refused_registration_is_a_rung_or_an_error_that_says_what_to_change() {
    if let Err(obstacle) = probe().io_uring {
        println!("skipped: {obstacle}");
        return;
    }
    drop_cap_ipc_lock();
    if !set_limit(LIMIT) {
        println!("skipped: RLIMIT_MEMLOCK is below {LIMIT} and may not be raised");
        return;
    }
    let segment_size = SegmentSize::DEFAULT;
    let shards = vec![(SHARD / segment_size.bytes()) as u32];
    let (arena, mut shards) =
        Arena::map(&ArenaConfig { segment_size, shards, huge_pages: HugePages::Never }).unwrap();

    let mut ring = UringRing::new(&arena, 0, &config(Registration::Auto)).unwrap();
    let report = ring.report();
    if matches!(report.registration, RegistrationRung::Registered { .. }) {
        println!("skipped: this kernel does not charge registered buffers to RLIMIT_MEMLOCK");
        return;
    }
    let refused = RegistrationRung::Refused { bytes: SHARD, limit: Some(LIMIT), errno: libc::ENOMEM };
    assert_eq!(report.registration, refused);
    assert_eq!(
        (report.send_mode, report.send_mode_reason),
        (SendMode::Plain, Some(ModeReason::Unregistered))
    );
    assert!(report.to_string().contains("RLIMIT_MEMLOCK is 1048576 bytes"), "{report}");

    // It works all the same.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let conn = ring.attach(TcpStream::connect(listener.local_addr().unwrap()).unwrap()).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let segment = shards[0].acquire(Holder { kind: HolderKind::Other, id: 0 }).unwrap();
    let segment = arena.launch(arena.seal(segment, 1000));
    ring.send(conn, SendParts::from_iter([SendPart { segment, offset: 0, len: 1000 }])).unwrap();
    let mut sent = false;
    while !sent {
        ring.wait(None);
        ring.reap(1, &mut |completion| match completion {
            Completion::Sent { result: Ok(1000), parts, .. } => {
                parts.into_iter().for_each(|part| arena.release(arena.land(part.segment)));
                sent = true;
            }
            other => unreachable!("{other:?}"),
        });
    }
    peer.read_exact(&mut [0; 1000]).unwrap();
    drop(ring);

    let error = UringRing::new(&arena, 0, &config(Registration::Required)).unwrap_err();
    let expected =
        RingError::RegistrationRefused { shard: 0, needed: SHARD, limit: Some(LIMIT), errno: libc::ENOMEM };
    assert_eq!(error, expected);

    assert!(set_limit(0), "lowering a limit is always allowed");
    let error = UringRing::new(&arena, 0, &config(Registration::Never)).unwrap_err();
    assert!(matches!(error, RingError::RingMemory { connections: 4, limit: Some(0), .. }), "{error}");
    assert_eq!(probe().io_uring, Err(Obstacle::Memlock { limit: Some(0), errno: libc::ENOMEM }));
}
