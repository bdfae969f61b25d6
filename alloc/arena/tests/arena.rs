//! The arena's promises one by one: configuration, regions, misuse, lifetime, ledger, export.

#![cfg(not(loom))]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use tidegate_arena::{
    Arena, ArenaConfig, ArenaError, Granted, Holder, HolderKind, HugePages, Pages, SegmentSize, Shard, State,
    limits,
};

const HOLDER: Holder = Holder::new(HolderKind::Other, 9);

fn small(shards: &[u32]) -> (Arena, Vec<Shard>) {
    let segment_size = SegmentSize::new(4096).expect("a page is a valid size");
    let config = ArenaConfig { segment_size, shards: shards.to_vec(), huge_pages: HugePages::Never };
    Arena::map(&config).expect("a few pages can be mapped")
}

fn refused<R>(misuse: impl FnOnce() -> R) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| drop(misuse()))).expect_err("misuse is found");
    panic
        .downcast_ref::<String>()
        .cloned()
        .or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .expect("text")
}

#[test]
fn configurations_out_of_bounds_are_refused() {
    assert_eq!(SegmentSize::new(2048), Err(ArenaError::SegmentSize { found: 2048 }));
    assert_eq!(SegmentSize::new(48 << 10), Err(ArenaError::SegmentSize { found: 48 << 10 }));
    assert_eq!(SegmentSize::new(2 << 20), Err(ArenaError::SegmentSize { found: 2 << 20 }));
    let map = |shards: Vec<u32>| {
        let config = ArenaConfig { segment_size: SegmentSize::DEFAULT, shards, huge_pages: HugePages::Never };
        Arena::map(&config).err()
    };
    assert_eq!(map(vec![]), Some(ArenaError::Shards { found: 0 }));
    assert_eq!(map(vec![1; 1025]), Some(ArenaError::Shards { found: 1025 }));
    assert_eq!(map(vec![4, 0]), Some(ArenaError::EmptyShard { shard: 1 }));
    let over = (limits::SHARD_BYTES_MAX >> 15) as u32 + 1;
    let found = u64::from(over) << 15;
    assert_eq!(map(vec![1, over]), Some(ArenaError::ShardTooLarge { shard: 1, found }));
}

#[test]
fn regions_are_the_shards_memory() {
    let (arena, mut shards) = small(&[3, 2]);
    let (first, second) = (arena.region(0), arena.region(1));
    assert_eq!((first.len, second.len), (3 * 4096, 2 * 4096));
    assert_ne!(first.ptr, second.ptr);
    let segment = shards[1].acquire(HOLDER).expect("two are free");
    assert_eq!(arena.shard_of(&segment), 1);
    let posted = arena.post(segment);
    let offset = arena.write_ptr(&posted).addr() - second.ptr.addr();
    assert!(offset < second.len && offset.is_multiple_of(4096));
    shards[1].release(arena.unpost::<tidegate_arena::Filling>(posted));
}

#[test]
#[cfg_attr(miri, ignore = "no pages there")]
fn pages_are_reported() {
    let (arena, _shards) = small(&[1]);
    assert_eq!(arena.pages(), Pages::Small);
    let config =
        ArenaConfig { segment_size: SegmentSize::DEFAULT, shards: vec![128], huge_pages: HugePages::Auto };
    let (arena, _shards) = Arena::map(&config).expect("4 MiB can be mapped");
    if let Pages::Transparent { huge_bytes } = arena.pages() {
        assert!((1..=4 << 20).contains(&huge_bytes), "only what is the arena's: {huge_bytes}");
    }
}

#[test]
fn an_arena_on_the_heap_is_zeroed_and_aligned_like_any() {
    let segment_size = SegmentSize::new(4096).expect("a page is a valid size");
    let config = ArenaConfig { segment_size, shards: vec![2, 3], huge_pages: HugePages::Never };
    for _ in 0..2 {
        let (arena, mut shards) = Arena::on_heap(&config).expect("a few pages can be had");
        assert_eq!(arena.pages(), Pages::Heap);
        for (index, shard) in shards.iter_mut().enumerate() {
            assert!(arena.region(index).ptr.addr().is_multiple_of(4096));
            let mut held: Vec<_> = std::iter::from_fn(|| shard.acquire(HOLDER)).collect();
            for segment in &mut held {
                let bytes = arena.bytes_mut(segment);
                assert_eq!(bytes, [0; 4096], "nothing of an earlier arena is left");
                bytes.fill(0xA5);
            }
            held.into_iter().for_each(|segment| shard.release(segment));
            assert_eq!(shard.free(), shard.capacity());
        }
    }
}

#[test]
fn the_kernel_s_view_is_the_same_memory() {
    let (arena, mut shards) = small(&[2]);
    let posted = arena.post(shards[0].acquire_granted(HOLDER).expect("two are free"));
    // SAFETY: the segment is in the kernel's hands, which are this test's.
    unsafe { arena.write_ptr(&posted).write_bytes(0xa5, 100) };
    let received = arena.received(arena.unpost(posted), 100);
    assert_eq!(arena.bytes(&received), [0xa5; 100]);
    shards[0].release(received);

    let mut filling = shards[0].acquire(HOLDER).expect("two are free");
    arena.bytes_mut(&mut filling)[..3].copy_from_slice(b"abc");
    let flying = arena.launch(arena.seal(filling, 3));
    assert_eq!(arena.len_of(&flying), 3);
    // SAFETY: three sealed bytes are readable until the segment lands.
    let sent = unsafe { std::slice::from_raw_parts(arena.read_ptr(&flying), 3) };
    assert_eq!(sent, b"abc");
    shards[0].release(arena.land(flying));
    assert_eq!(shards[0].free(), 2);
}

#[test]
fn a_segment_of_another_arena_is_refused() {
    let (arena, mut shards) = small(&[1]);
    let (other, mut others) = small(&[1]);
    assert!(arena.same(&arena.clone()) && !arena.same(&other));
    let segment = shards[0].acquire(HOLDER).expect("one is free");
    assert!(refused(|| other.bytes(&segment).len()).contains("does not belong"));
    assert!(refused(|| others[0].release(segment)).contains("does not belong"));
}

#[test]
fn lengths_beyond_the_segment_are_refused() {
    let (arena, mut shards) = small(&[2]);
    let filling = shards[0].acquire(HOLDER).expect("two are free");
    assert!(refused(|| arena.seal(filling, 4097).index()).contains("4097 bytes"));
    let granted = shards[0].acquire_granted(HOLDER).expect("one is free");
    assert!(refused(|| arena.received(granted, u32::MAX).index()).contains("in a segment of 4096"));
}

#[test]
fn a_broadcast_is_free_after_its_last_reference() {
    let (arena, mut shards) = small(&[1]);
    let mut filling = shards[0].acquire(HOLDER).expect("one is free");
    arena.bytes_mut(&mut filling)[0] = 7;
    let queued = arena.seal(filling, 1);
    let sent = arena.launch(arena.share(&queued));
    let local = arena.deliver(arena.share(&queued));
    assert_eq!(arena.references(&queued), 3);
    let queued = arena.reopen(queued).expect_err("two others read it");
    arena.release(queued);
    assert_eq!((arena.bytes(&local), shards[0].free()), (&[7u8][..], 0));
    shards[0].release(local);
    assert_eq!(shards[0].free(), 0, "the kernel still reads it");
    shards[0].release(arena.land(sent));
    assert_eq!(shards[0].free(), 1);
}

#[test]
fn exported_bytes_hold_the_segment_until_the_last_slice() {
    let (arena, mut shards) = small(&[1]);
    let mut granted = shards[0].acquire_granted(Holder::new(HolderKind::Operator, 4)).expect("one is free");
    arena.bytes_mut(&mut granted)[..6].copy_from_slice(b"export");
    let bytes = arena.export(arena.received(granted, 6));
    assert_eq!(arena.ledger().entry(0).holder, Holder::new(HolderKind::Export, 4));
    let slice = bytes.slice(2..);
    drop(bytes);
    let (tail, free) = thread::spawn(move || (slice.to_vec(), shards[0].free())).join().expect("no panic");
    assert_eq!((&tail[..], free), (&b"port"[..], 0));
    assert!(arena.ledger().balanced(), "dropped with its thread");
}

#[test]
fn exported_bytes_outlive_every_other_user_of_the_arena() {
    let (arena, mut shards) = small(&[1]);
    let mut filling = shards[0].acquire(HOLDER).expect("one is free");
    arena.bytes_mut(&mut filling).fill(3);
    let bytes = arena.export(arena.deliver(arena.seal(filling, 4096)));
    drop((arena, shards));
    assert!(bytes.iter().all(|byte| *byte == 3));
}

#[test]
fn what_the_kernel_may_write_is_never_unmapped() {
    let (arena, mut shards) = small(&[1]);
    let posted = arena.post(shards[0].acquire(HOLDER).expect("one is free"));
    let pointer = arena.write_ptr(&posted);
    drop((arena, shards));
    // SAFETY: the segment was in the kernel's hands when the arena went, so its memory stays.
    unsafe { pointer.write(1) };
    let _ = posted;
}

#[test]
fn a_number_is_reused_only_if_nothing_is_outstanding() {
    // More arenas than there are numbers, one after the other: each gives its number back.
    #[cfg(not(miri))]
    for _ in 0..limits::ARENAS_MAX + 1 {
        drop(small(&[1]));
    }
    let (arena, mut shards) = small(&[1]);
    let outstanding = shards[0].acquire(HOLDER).expect("one is free");
    drop((arena, shards));
    let (next, _shards) = small(&[1]);
    assert!(refused(|| next.bytes(&outstanding).len()).contains("does not belong"));
}

#[test]
fn the_ledger_tells_holders_states_and_ages() {
    let (arena, mut shards) = small(&[3, 1]);
    arena.tick(1_000);
    let first = shards[0].acquire(Holder::new(HolderKind::Filling, 1)).expect("three are free");
    arena.tick(1_500);
    let second = shards[0].acquire_granted(Holder::new(HolderKind::Granted, 2)).expect("two are free");
    arena.tick(2_000);
    arena.set_holder(&second, Holder::new(HolderKind::Staging, 77));
    let third = arena.launch(arena.seal(shards[1].acquire(HOLDER).expect("one is free"), 0));

    let ledger = arena.ledger();
    let oldest = ledger.oldest().expect("three are held");
    assert_eq!((oldest.index, oldest.since_ms, oldest.state), (first.index(), 1_000, State::Filling));
    let staged = ledger.entry(second.index());
    assert_eq!((staged.holder, staged.since_ms), (Holder::new(HolderKind::Staging, 77), 2_000));
    assert_eq!(ledger.entry(third.index()).shard, 1);
    let totals = ledger.totals();
    assert_eq!((totals.free(), totals.state(State::InFlight), totals.holder(HolderKind::Staging)), (1, 1, 1));
    assert_eq!(
        totals.to_string(),
        "1 of 4 segments free, 1 Filling, 1 InFlight, 1 Granted; held by Filling 1, Staging 1, Other 1"
    );
    assert!(!ledger.balanced());

    arena.release(first);
    arena.release(second);
    arena.release(arena.land(third));
    assert!(ledger.balanced() && ledger.oldest().is_none());
    assert_eq!(ledger.totals().to_string(), "4 of 4 segments free");
}

#[test]
fn the_warmest_segment_is_given_out_first() {
    let (_arena, mut shards) = small(&[4]);
    let first = shards[0].acquire(HOLDER).expect("four are free");
    let index = first.index();
    shards[0].release(first);
    let again = shards[0].acquire(HOLDER).expect("four are free");
    assert_eq!(again.index(), index);
    shards[0].release(again);
}

#[test]
fn segments_travel_between_threads_and_come_home() {
    const ROUNDS: u32 = if cfg!(miri) { 50 } else { 20_000 };
    let (arena, mut shards) = small(&[4]);
    let mut shard = shards.remove(0);
    let (mut producer, mut consumer) = tidegate_arena::spsc::channel(4);
    let reader = arena.clone();
    let consuming = thread::spawn(move || {
        let mut expected = 0u32;
        while !consumer.finished() {
            let Some(segment) = consumer.try_pop() else {
                thread::yield_now();
                continue;
            };
            assert_eq!(reader.bytes(&segment), expected.to_le_bytes());
            expected += 1;
            reader.release(segment);
        }
        expected
    });
    let mut sent = 0u32;
    while sent < ROUNDS {
        let Some(mut filling) = shard.acquire(HOLDER) else {
            thread::yield_now();
            continue;
        };
        arena.bytes_mut(&mut filling)[..4].copy_from_slice(&sent.to_le_bytes());
        let mut segment = arena.deliver(arena.seal(filling, 4));
        while let Err(back) = producer.try_push(segment) {
            segment = back;
            thread::yield_now();
        }
        sent += 1;
    }
    drop(producer);
    assert_eq!(consuming.join().expect("the reader saw every value in order"), ROUNDS);
    assert_eq!(shard.free(), 4);
}

/// Rules 2 and 10: a run is one piece, nobody else reaches its bytes, and its segments come back from whatever thread.
#[test]
fn a_run_is_one_piece_until_its_last_reference_is_gone() {
    let (arena, mut shards) = small(&[8]);
    let shard = &mut shards[0];
    let holder = Holder::new(HolderKind::Region, 1);
    let mut run = shard.acquire_run(3, holder).expect("eight are free");
    let mut others: Vec<_> = std::iter::from_fn(|| shard.acquire(holder)).collect();
    assert_eq!(
        (others.len(), arena.capacity_of(&run), arena.ledger().totals().state(State::Joined)),
        (5, 12_288, 2)
    );
    arena.bytes_mut(&mut run).fill(7);
    others.iter_mut().for_each(|other| arena.bytes_mut(other).fill(1));
    let sealed = arena.seal(run, 12_288);
    assert!(arena.bytes(&sealed).iter().all(|byte| *byte == 7));

    let shared = arena.share(&sealed);
    let received = arena.deliver(sealed);
    let received = arena.reclaim::<Granted>(received).expect_err("there is another reference");
    arena.release(shared);
    let emptied = arena.reclaim::<Granted>(received).expect("the last reference");
    assert_eq!(arena.capacity_of(&emptied), 12_288);

    std::thread::scope(|scope| scope.spawn(|| arena.release(emptied)).join()).expect("the thread ends well");
    others.into_iter().for_each(|other| shard.release(other));
    assert_eq!((shard.free(), arena.ledger().balanced()), (8, true));
    let again = shard.acquire_run(8, holder).expect("all are free, in whatever order they came");
    assert!(shard.acquire_run(1, holder).is_none());
    shard.release(again);
}

#[test]
fn a_run_needs_neighbours() {
    let (_arena, mut shards) = small(&[4]);
    let shard = &mut shards[0];
    let holder = Holder::new(HolderKind::Other, 0);
    let mut all: Vec<_> = std::iter::from_fn(|| shard.acquire(holder)).collect();
    all.sort_by_key(|segment| segment.index());
    for at in [0, 1] {
        shard.release(all.remove(at));
    }
    // 0 and 2 are free.
    assert_eq!((shard.free(), shard.acquire_run(2, holder).is_none()), (2, true));
    let one = shard.acquire_run(1, holder).expect("one is its own neighbour");
    all.drain(..).for_each(|segment| shard.release(segment));
    shard.release(one);
    assert_eq!(shard.free(), 4);
}
