//! The bounded queue: capacity, order, wrap, closing from either end. Its concurrency is checked by `loom_spsc.rs`.

#![cfg(not(loom))]

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;
use tidegate_arena::spsc::channel;

#[test]
fn the_capacity_is_exact() {
    for capacity in [1, 2, 3, 5, 8] {
        let (mut producer, consumer) = channel(capacity);
        for item in 0..capacity {
            assert!(producer.has_room());
            assert_eq!(producer.try_push(item), Ok(()));
        }
        assert_eq!((producer.has_room(), producer.try_push(99)), (false, Err(99)));
        assert_eq!((producer.len(), consumer.len(), consumer.capacity()), (capacity, capacity, capacity));
    }
}

#[test]
#[should_panic(expected = "a queue of 0 items")]
fn a_queue_of_nothing_is_refused() {
    let _ = channel::<u64>(0);
}

#[test]
fn a_consumer_finishes_what_a_gone_producer_left() {
    let (mut producer, mut consumer) = channel(4);
    assert_eq!(producer.try_push(1), Ok(()));
    drop(producer);
    assert!(consumer.closed() && !consumer.finished());
    assert_eq!(consumer.try_pop(), Some(1));
    assert!(consumer.finished());
}

#[test]
fn a_producer_takes_back_what_a_gone_consumer_left() {
    let (mut producer, mut consumer) = channel(4);
    for item in 0..4 {
        assert_eq!(producer.try_push(item), Ok(()));
    }
    assert_eq!(consumer.try_pop(), Some(0));
    assert_eq!(producer.reclaim(), None, "not while the consumer is there");
    drop(consumer);
    assert!(producer.closed());
    assert_eq!(producer.try_push(9), Err(9));
    assert_eq!(std::iter::from_fn(|| producer.reclaim()).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(producer.is_empty());
}

#[test]
fn items_left_by_both_ends_are_dropped() {
    let item = Arc::new(());
    let (mut producer, mut consumer) = channel(4);
    for _ in 0..3 {
        assert!(producer.try_push(Arc::clone(&item)).is_ok());
    }
    drop(consumer.try_pop());
    drop((producer, consumer));
    assert_eq!(Arc::strong_count(&item), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_agrees_with_a_deque(capacity in 1u32..9, pushes in prop::collection::vec(any::<bool>(), 0..200)) {
        let (mut producer, mut consumer) = channel(capacity);
        let mut oracle = VecDeque::new();
        for (item, push) in pushes.into_iter().enumerate() {
            if push {
                let expected = if oracle.len() < capacity as usize { Ok(()) } else { Err(item) };
                prop_assert_eq!(producer.try_push(item), expected);
                if expected.is_ok() {
                    oracle.push_back(item);
                }
            } else {
                prop_assert_eq!(consumer.try_pop(), oracle.pop_front());
            }
            prop_assert_eq!((producer.len(), consumer.len()), (oracle.len() as u32, oracle.len() as u32));
        }
    }
}
