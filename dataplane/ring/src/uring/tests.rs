//! What cannot be provoked from outside: a kernel that says too much, and one that does not answer.

use std::{process::Command, time::Duration};

use io_uring::opcode;
use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize};

use super::*;

fn ring() -> Option<(Arena, UringRing)> {
    let config =
        ArenaConfig { segment_size: SegmentSize::DEFAULT, shards: vec![4], huge_pages: HugePages::Never };
    let (arena, _shards) = Arena::map(&config).unwrap();
    let made = UringRing::new(&arena, 0, &UringConfig { connections_max: 1, ..UringConfig::default() });
    made.map(|ring| (arena, ring)).map_err(|error| println!("skipped: {error}")).ok()
}

/// Completions that nothing in flight explains, each by the name under which a child process provokes it.
fn lies() -> [(&'static str, u64, &'static str); 8] {
    // One connection is attached, with nothing in flight.
    let (open, gone, stranger) = (ConnId::new(0, 0), ConnId::new(0, 9), ConnId::new(77, 0));
    [
        ("no token", u64::MAX, "nothing that was submitted"),
        ("stranger", Token::Receive(stranger).encode(), "which is not in use"),
        ("generation", Token::Cancel(gone).encode(), "which is not in use"),
        ("receive", Token::Receive(open).encode(), "a receive completed that is not in flight"),
        ("send", Token::Send(open, 3).encode(), "a send completed in slot 3"),
        ("slot", Token::Send(open, 15).encode(), "names send slot 15"),
        ("cancel", Token::Cancel(open).encode(), "was not asked for"),
        ("bell", Token::BellCancel.encode(), "was not asked for"),
    ]
}
const LIE: &str = "TIDEGATE_RING_TEST_LIE";

#[test]
fn a_completion_that_nothing_explains_stops_the_process() {
    if let Ok(name) = std::env::var(LIE) {
        let (_arena, mut ring) = ring().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        ring.attach(TcpStream::connect(listener.local_addr().unwrap()).unwrap()).unwrap();
        let bits = lies().into_iter().find(|lie| lie.0 == name).map(|lie| lie.1).unwrap();
        ring.driver.kernel.push(&opcode::Nop::new().build().user_data(bits), 1);
        ring.reap(9, &mut |_| {});
        println!("survived");
        std::process::exit(0);
    }
    if ring().is_none() {
        return;
    }
    for (name, _, text) in lies() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let test = "uring::tests::a_completion_that_nothing_explains_stops_the_process";
        let output = child.args(["--exact", test, "--nocapture"]).env(LIE, name).output().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&output.status),
            Some(libc::SIGABRT),
            "{name}"
        );
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(text), "{name}: {stderr}");
    }
}

fn mapped(address: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let hex = |text| usize::from_str_radix(text, 16).unwrap();
        (hex(start)..hex(end)).contains(&address)
    })
}

#[test]
fn an_arena_that_the_kernel_does_not_return_is_leaked() {
    let Some((arena, mut ring)) = ring() else { return };
    let address = arena.region(0).ptr.addr();
    ring.drain_timeout = Duration::ZERO;
    ring.driver.kernel.owe_for_ever();
    drop(ring);
    drop(arena);
    assert!(mapped(address), "the kernel may still write here");
}
