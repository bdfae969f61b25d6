//! Nothing is left of shared memory when its connections are gone: no descriptor, no mapping. Alone in its process, which
//! it counts.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize};
use tidegate_ring::{AnyRing, Completion, Control, EpollConfig, EpollRing, Peer, Ring, ShmStream};

/// Descriptors of this process, and mappings of memory files.
fn held() -> (usize, usize) {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (files, maps.lines().filter(|line| line.contains("/memfd:tidegate")).count())
}

#[test]
fn connections_leave_neither_descriptors_nor_mappings() {
    let before = held();
    let config =
        ArenaConfig { segment_size: SegmentSize::DEFAULT, shards: vec![2], huge_pages: HugePages::Never };
    {
        let (arena, _shards) = Arena::map_shared(&config).unwrap();
        let mut ring: AnyRing = EpollRing::new(&arena, &EpollConfig::default()).unwrap().into();
        let mut after_first = None;
        for round in 0..20 {
            let (a, b) = UnixStream::pair().unwrap();
            let (a, b) = (Control::accepted(a).unwrap(), Control::accepted(b).unwrap());
            let words = [ShmStream::words(&arena).unwrap(), ShmStream::words(&arena).unwrap()];
            let [for_a, for_b] = words;
            a.say(b"a", Some((&for_a, &arena))).unwrap();
            b.say(b"b", Some((&for_b, &arena))).unwrap();
            let (for_b_shown, for_a_shown) = (
                b.hear(&mut [0], Duration::from_secs(9)).unwrap(),
                a.hear(&mut [0], Duration::from_secs(9)).unwrap(),
            );
            let a = a.join(for_a, Peer::map(for_a_shown).unwrap()).unwrap();
            let b = b.join(for_b, Peer::map(for_b_shown).unwrap()).unwrap();
            let conn = ring.attach(a.into()).unwrap();
            // Every other time the peer is gone first.
            let mut peer = Some(b);
            if round % 2 == 0 {
                peer = None;
            }
            ring.close(conn);
            let mut closed = 0;
            ring.reap(8, &mut |completion| {
                closed += u32::from(matches!(completion, Completion::Closed { .. }));
            });
            assert_eq!(closed, 1);
            drop(peer);
            assert_eq!(held(), *after_first.get_or_insert_with(held), "round {round}");
        }
    }
    assert_eq!(held(), before);
}
