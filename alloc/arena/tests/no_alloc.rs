//! After `map`, the data path never asks the heap.

#![cfg(not(any(loom, miri)))]

use tidegate_arena::sleep::SleepFlag;
use tidegate_arena::{Arena, ArenaConfig, Filling, Holder, HolderKind, HugePages, SegmentSize, spsc};
use tidegate_memory::{Accounted, Counters, measure};

#[global_allocator]
static HEAP: Accounted = Accounted::new();

#[test]
fn nothing_is_allocated_after_map() {
    let config =
        ArenaConfig { segment_size: SegmentSize::DEFAULT, shards: vec![4, 4], huge_pages: HugePages::Never };
    let (arena, mut shards) = Arena::map(&config).expect("a few pages can be mapped");
    let (mut producer, mut consumer) = spsc::channel(4);
    let (flag, holder) = (SleepFlag::new(), Holder::new(HolderKind::Other, 0));
    let (free, counted) = measure(|| {
        for round in 0..1_000 {
            arena.tick(round);
            while let Some(segment) = shards[0].acquire(holder) {
                let sealed = arena.seal(segment, 8);
                let flying = arena.launch(arena.share(&sealed));
                let pushed = producer.try_push(arena.deliver(sealed));
                assert!(pushed.is_ok() && !flag.wake());
                shards[1].release(arena.land(flying));
            }
            while let Some(segment) = consumer.try_pop() {
                arena.release(segment);
            }
            let posted = arena.post(shards[1].acquire_granted(holder).expect("four are free"));
            shards[1].release(arena.unpost::<Filling>(posted));
            assert!(arena.ledger().balanced());
        }
        shards[0].free()
    });
    assert_eq!((free, counted), (4, Counters::default()));
}
