//! A host program that gives SIGPIPE its default action back does not lose its process to a broken connection.
//! A process of its own, because the action is one of the process.

use std::{
    net::{TcpListener, TcpStream},
    time::Duration,
};

use tidegate_arena::{Arena, ArenaConfig, Holder, HolderKind, HugePages, SegmentSize};
use tidegate_ring::{
    Completion, ModeReason, Registration, Ring, SendMode, SendPart, SendParts, UringConfig, UringRing, probe,
};

#[test]
fn registered_sends_are_not_used_where_sigpipe_kills() {
    if let Err(obstacle) = probe().io_uring {
        println!("skipped: {obstacle}");
        return;
    }
    // SAFETY: a call without pointers; nothing else runs in this process yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let config =
        ArenaConfig { segment_size: SegmentSize::DEFAULT, shards: vec![4], huge_pages: HugePages::Never };
    let (arena, mut shards) = Arena::map(&config).unwrap();
    let config = UringConfig { send: SendMode::Fixed, registration: Registration::Auto, connections_max: 1 };
    let mut ring = UringRing::new(&arena, 0, &config).unwrap();
    let report = ring.report();
    assert_eq!(report.send_mode, SendMode::Plain);
    assert_eq!(report.send_mode_reason, Some(ModeReason::SigpipeDeadly), "{report}");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let conn = ring.attach(TcpStream::connect(listener.local_addr().unwrap()).unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    // The first may still report the reset; the second is the one that would raise the signal.
    for _ in 0..2 {
        let segment = shards[0].acquire(Holder { kind: HolderKind::Other, id: 0 }).unwrap();
        let segment = arena.launch(arena.seal(segment, 10));
        ring.send(conn, SendParts::from_iter([SendPart { segment, offset: 0, len: 10 }])).unwrap();
        let mut fault = None;
        while fault.is_none() {
            ring.wait(None);
            ring.reap(1, &mut |completion| match completion {
                Completion::Sent { result, parts, .. } => {
                    parts.into_iter().for_each(|part| arena.release(arena.land(part.segment)));
                    fault = Some(result.unwrap_err());
                }
                other => unreachable!("{other:?}"),
            });
        }
        assert!(fault.is_some_and(|fault| fault.peer_gone()), "{fault:?}");
    }
}
