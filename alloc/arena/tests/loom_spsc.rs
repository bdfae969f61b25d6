//! The bounded queue under every interleaving (up to the bound on preemptions): order, capacity, and closing from
//! either end.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release -p tidegate-arena --test loom_spsc
//! ```
//!
//! The places of the queue are tracked cells: a place that both ends reach without an edge fails as "Causality violation".
//!
//! Each of these, put into the code, makes a model fail: any store or load of `head`, `tail`, `producer_gone` or
//! `consumer_gone` with `Relaxed` where it is `Release` or `Acquire` (those in `try_push`, `try_pop`, `closed` and the
//! two drops; one at a time), and `finished` looking at the items before it looks at the producer.

#![cfg(loom)]

use loom::sync::Arc;
use loom::thread;
use tidegate_arena::{Arena, ArenaConfig, Holder, HolderKind, HugePages, SegmentSize, spsc};

/// (e) Everything pushed is popped once and in order, over more items than places; then the end is seen.
#[test]
fn items_arrive_in_order_and_then_the_end() {
    const ITEMS: u64 = 3;
    loom::model(|| {
        let (mut producer, mut consumer) = spsc::channel(2);
        let pushing = thread::spawn(move || {
            for item in 0..ITEMS {
                while producer.try_push(item).is_err() {
                    assert!(!producer.closed());
                    thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while !consumer.finished() {
            match consumer.try_pop() {
                Some(item) => {
                    assert_eq!(item, expected);
                    expected += 1;
                }
                None => thread::yield_now(),
            }
        }
        assert_eq!(expected, ITEMS, "finished means that everything was popped");
        pushing.join().expect("the producer's assertions hold");
    });
}

/// (e) The consumer goes at any moment: each item is popped, reclaimed, or was refused, exactly once and in order.
#[test]
fn a_producer_reclaims_what_the_consumer_left() {
    const ITEMS: u64 = 3;
    loom::model(|| {
        let (mut producer, mut consumer) = spsc::channel(2);
        let popping = thread::spawn(move || {
            let first = consumer.try_pop();
            let second = consumer.try_pop();
            drop(consumer);
            first.into_iter().chain(second).collect::<Vec<u64>>()
        });
        let mut refused = Vec::new();
        for item in 0..ITEMS {
            refused.extend(producer.try_push(item).err());
        }
        while !producer.closed() {
            thread::yield_now();
        }
        let reclaimed: Vec<_> = std::iter::from_fn(|| producer.reclaim()).collect();
        let mut all = popping.join().expect("no panic");
        all.extend(reclaimed);
        assert!(all.is_sorted(), "in order");
        all.extend(refused);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
    });
}

/// (e) Both ends go at any moment: what was left is dropped exactly once (loom finds a leaked or doubly dropped `Arc`).
#[test]
fn items_left_by_both_ends_are_dropped_once() {
    loom::model(|| {
        let item = Arc::new(());
        let (mut producer, mut consumer) = spsc::channel(2);
        let other = {
            let item = Arc::clone(&item);
            thread::spawn(move || drop((producer.try_push(Arc::clone(&item)), producer.try_push(item))))
        };
        drop(consumer.try_pop());
        drop(consumer);
        other.join().expect("no panic");
        assert_eq!(Arc::strong_count(&item), 1);
    });
}

/// (e) with what it carries: the bytes behind a handle are seen by the consumer, and reused by the producer's home.
#[test]
fn a_segment_s_bytes_arrive_with_its_handle() {
    loom::model(|| {
        let segment_size = SegmentSize::new(4096).expect("a page is a valid size");
        let config = ArenaConfig { segment_size, shards: vec![1], huge_pages: HugePages::Never };
        let (arena, mut shards) = Arena::map(&config).expect("the heap has a page");
        let (mut producer, mut consumer) = spsc::channel(1);
        let reader = {
            let arena = arena.clone();
            thread::spawn(move || {
                let mut seen = 0;
                while !consumer.finished() {
                    match consumer.try_pop() {
                        Some(segment) => {
                            seen += 1;
                            assert_eq!(arena.bytes(&segment), [seen]);
                            arena.release(segment);
                        }
                        None => thread::yield_now(),
                    }
                }
                seen
            })
        };
        for value in 1..=2 {
            let mut filling = loop {
                match shards[0].acquire(Holder::new(HolderKind::Filling, 0)) {
                    Some(filling) => break filling,
                    None => thread::yield_now(),
                }
            };
            arena.bytes_mut(&mut filling)[0] = value;
            let segment = arena.deliver(arena.seal(filling, 1));
            assert!(producer.try_push(segment).is_ok(), "the reader released only after it popped");
        }
        drop(producer);
        assert_eq!(reader.join().expect("the reader's assertions hold"), 2);
        assert_eq!(shards[0].free(), 1);
    });
}
