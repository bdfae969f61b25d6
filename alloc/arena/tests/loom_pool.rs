//! The pool and the reference counts under every interleaving (up to the bound on preemptions).
//!
//! ```text
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release -p tidegate-arena --test loom_pool
//! ```
//!
//! Under loom every access to a segment's bytes also touches a tracked cell, so bytes that are reused before their
//! readers are done fail as "Causality violation", and handles that do not match their slot fail the arena's own checks.
//!
//! Each of these, put into the code, makes a model fail (a, b, c as named below):
//! - `return_home`: push with `Relaxed` instead of `Release`: a, b, c; with a store instead of the exchange: a, b;
//! - `collect_returned`: take with `Relaxed` instead of `Acquire`: a, b, c; as load and store instead of a swap: a, b;
//! - `drop_reference`: count down with `Relaxed` instead of `Release`, or without the `Acquire` fence: c, reopening;
//! - `reopen`: look at the count with `Relaxed` instead of `Acquire`: reopening.

#![cfg(loom)]

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use tidegate_arena::{
    Arena, ArenaConfig, Holder, HolderKind, HugePages, InFlight, Segment, SegmentSize, Shard,
};

const HOLDER: Holder = Holder::new(HolderKind::Other, 0);

fn arena(segments: u32) -> (Arena, Shard) {
    let segment_size = SegmentSize::new(4096).expect("a page is a valid size");
    let config = ArenaConfig { segment_size, shards: vec![segments], huge_pages: HugePages::Never };
    let (arena, mut shards) = Arena::map(&config).expect("the heap has a few pages");
    (arena, shards.remove(0))
}

fn write(arena: &Arena, shard: &mut Shard, value: u8) -> Option<Segment<tidegate_arena::Shared>> {
    let mut filling = shard.acquire(HOLDER)?;
    arena.bytes_mut(&mut filling)[0] = value;
    Some(arena.deliver(arena.seal(filling, 1)))
}

fn at_rest(arena: &Arena, shard: &mut Shard) {
    assert!(arena.ledger().balanced());
    assert_eq!(shard.free(), shard.capacity());
}

/// (a) Home writes, others read and release, home writes again.
#[test]
fn acquire_and_release_across_threads() {
    loom::model(|| {
        let (arena, mut shard) = arena(2);
        let readers: Vec<_> = (1..=2)
            .map(|value| {
                let segment = write(&arena, &mut shard, value).expect("two are free");
                let arena = arena.clone();
                thread::spawn(move || {
                    assert_eq!(arena.bytes(&segment), [value]);
                    arena.release(segment);
                })
            })
            .collect();
        // Meanwhile home takes whatever has come back, and writes it.
        for _ in 0..2 {
            if let Some(segment) = write(&arena, &mut shard, 9) {
                assert_eq!(arena.bytes(&segment), [9]);
                shard.release(segment);
            }
        }
        for reader in readers {
            reader.join().expect("the reader's assertions hold");
        }
        at_rest(&arena, &mut shard);
    });
}

/// (b) Segments go round: returned by others while home drains the stack, acquires them again and itself returns them by
/// the stack. An ABA on the stack would lose a segment or hand one out twice.
#[test]
fn the_return_path_against_reuse() {
    loom::model(|| {
        let (arena, mut shard) = arena(3);
        let first = write(&arena, &mut shard, 1).expect("three are free");
        let second = write(&arena, &mut shard, 2).expect("two are free");
        let third = write(&arena, &mut shard, 3).expect("one is free");
        let (one, two) = (arena.clone(), arena.clone());
        let one = thread::spawn(move || one.release(first));
        let two = thread::spawn(move || {
            two.release(second);
            two.release(third);
        });
        for _ in 0..2 {
            if let Some(segment) = write(&arena, &mut shard, 4) {
                arena.release(segment);
            }
        }
        one.join().expect("released once");
        two.join().expect("released once");
        at_rest(&arena, &mut shard);
        // Each is there exactly once.
        let all: Vec<_> = std::iter::from_fn(|| shard.acquire(HOLDER)).collect();
        let mut indices: Vec<_> = all.iter().map(Segment::index).collect();
        indices.sort_unstable();
        assert_eq!(indices, [0, 1, 2]);
        all.into_iter().for_each(|segment| shard.release(segment));
    });
}

/// (c) Zero-copy send. Three own the segment: an operator that still reads it, the send in flight, and, after the send
/// has completed, the kernel until its notification. Only after all of them is it free.
#[test]
fn a_zero_copy_send_is_over_with_its_notification() {
    /// What the kernel has told so far.
    #[derive(Default)]
    struct Kernel {
        completed: bool,
        notified: Option<Segment<InFlight>>,
    }

    loom::model(|| {
        let (arena, mut shard) = arena(1);
        let mut filling = shard.acquire(HOLDER).expect("one is free");
        arena.bytes_mut(&mut filling)[0] = 7;
        let sealed = arena.seal(filling, 1);
        let read_by_operator = arena.deliver(arena.share(&sealed));
        let flying = arena.launch(sealed);

        let operator = {
            let arena = arena.clone();
            thread::spawn(move || {
                assert_eq!(arena.bytes(&read_by_operator), [7]);
                arena.release(read_by_operator);
            })
        };
        let told = Arc::new((Mutex::new(Kernel::default()), Condvar::new()));
        let kernel = {
            let (arena, told) = (arena.clone(), Arc::clone(&told));
            thread::spawn(move || {
                let _sent = arena.read_ptr(&flying);
                told.0.lock().expect("no panic").completed = true;
                // The peer's acknowledgement is outstanding: a retransmission reads the bytes again.
                let _sent_again = arena.read_ptr(&flying);
                told.0.lock().expect("no panic").notified = Some(flying);
                told.1.notify_one();
            })
        };

        // The completion alone frees nothing, whatever the operator has done.
        {
            let state = told.0.lock().expect("no panic");
            if state.completed && state.notified.is_none() {
                assert!(shard.acquire(HOLDER).is_none(), "the kernel still reads");
            }
        }
        let mut state = told.0.lock().expect("no panic");
        let flying = loop {
            match state.notified.take() {
                Some(flying) => break flying,
                None => state = told.1.wait(state).expect("no panic"),
            }
        };
        drop(state);
        shard.release(arena.land(flying));
        // Free now, or when the operator is done; if free, then safe to write.
        if let Some(mut reused) = shard.acquire(HOLDER) {
            arena.bytes_mut(&mut reused)[0] = 8;
            shard.release(reused);
        }
        operator.join().expect("the operator read what was sent");
        kernel.join().expect("the kernel is done");
        at_rest(&arena, &mut shard);
    });
}

/// A sole holder that reopens writes only after those who gave up their references have read.
#[test]
fn reopening_comes_after_the_last_reader() {
    loom::model(|| {
        let (arena, mut shard) = arena(1);
        let sealed = arena.seal(shard.acquire(HOLDER).expect("one is free"), 1);
        let other = arena.deliver(arena.share(&sealed));
        let reader = {
            let arena = arena.clone();
            thread::spawn(move || {
                assert_eq!(arena.bytes(&other), [0]);
                arena.release(other);
            })
        };
        match arena.reopen(sealed) {
            Ok(mut filling) => {
                arena.bytes_mut(&mut filling)[0] = 1;
                shard.release(filling);
            }
            Err(sealed) => shard.release(sealed),
        }
        reader.join().expect("the reader's bytes did not change");
        at_rest(&arena, &mut shard);
    });
}
