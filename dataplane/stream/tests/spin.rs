//! A slot that spins sleeps only once there was no work for as long as it was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;

use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize};
use tidegate_exchange::endpoint::{Connector, DialRequest};
use tidegate_exchange::{Exchange, ExchangeConfig, LocalHub, SlotId};
use tidegate_stream::pool::ReaderPool;
use tidegate_stream::slot::{AttemptId, SlotCommand, SlotConfig, SlotRunner, Spin};
use tidegate_stream::testing::{MemoryFiles, QuietRing, Store};
use tidegate_stream::{JobEntry, Jobs};

struct NoConnector;

impl Connector for NoConnector {
    fn dial(&self, request: DialRequest) {
        unreachable!("there is nobody to dial at {}", request.address)
    }
}

#[test]
fn a_slot_sleeps_when_it_has_spun_in_vain() {
    const SPIN_NS: u64 = 50_000;
    let clock = Arc::new(AtomicU64::new(1));
    let config = ArenaConfig {
        segment_size: SegmentSize::new(4096).unwrap(),
        shards: vec![8],
        huge_pages: HugePages::Never,
    };
    let (_arena, mut shards) = Arena::map(&config).unwrap();
    let me = SlotId { taskmanager: 1, slot: 0 };
    let exchange = Exchange::new(
        QuietRing::new(Arc::clone(&clock)),
        shards.remove(0),
        LocalHub::new(),
        Box::new(NoConnector),
        ExchangeConfig { me, cluster: 1 },
    );
    let (mut slot, mailbox) = SlotRunner::new(
        exchange,
        Box::new(MemoryFiles::on(Store::default(), 0, 1)),
        Jobs::new::<[JobEntry; 0]>([]),
        ReaderPool::new(0).unwrap(),
        Box::new(sync_channel(8).0),
        SlotConfig { spin: Spin::For(SPIN_NS), ..SlotConfig::default() },
    );
    let mut slept_after = |pause_ns: u64| {
        clock.fetch_add(pause_ns, Ordering::Relaxed);
        let busy = slot.turn();
        slot.wait();
        (busy, slot.metrics().waits)
    };
    mailbox.send(SlotCommand::Cancel(AttemptId { job: 1, attempt: 1 })).unwrap();
    assert_eq!(slept_after(0), (true, 0), "a command is work");
    assert_eq!(slept_after(SPIN_NS - 1), (false, 0), "it still looks");
    assert_eq!(slept_after(1), (false, 1), "time is up");
}
