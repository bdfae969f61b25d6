//! A slot that spins sleeps only once there was no work for as long as it was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;

use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize};
use tidegate_exchange::endpoint::{Connector, DialRequest};
use tidegate_exchange::{Exchange, ExchangeConfig, LocalHub, SlotId};
use tidegate_stream::limits::{LUCK_MAX, SPIN_NS, TRIAL_EVERY};
use tidegate_stream::pool::ReaderPool;
use tidegate_stream::slot::{AttemptId, SlotCommand, SlotConfig, SlotMailbox, SlotRunner, Spin};
use tidegate_stream::testing::{MemoryFiles, QuietRing, Store};
use tidegate_stream::{JobEntry, Jobs};

struct NoConnector;

impl Connector for NoConnector {
    fn dial(&self, request: DialRequest) {
        unreachable!("there is nobody to dial at {}", request.address)
    }
}

/// A slot by itself, at a time that the test says.
struct Alone {
    slot: SlotRunner<QuietRing>,
    mailbox: SlotMailbox,
    clock: Arc<AtomicU64>,
    _arena: Arena,
}

impl Alone {
    fn new(spin: Spin) -> Self {
        let clock = Arc::new(AtomicU64::new(1));
        let config = ArenaConfig {
            segment_size: SegmentSize::new(4096).unwrap(),
            shards: vec![8],
            huge_pages: HugePages::Never,
        };
        let (arena, mut shards) = Arena::map(&config).unwrap();
        let me = SlotId { taskmanager: 1, slot: 0 };
        let exchange = Exchange::new(
            QuietRing::new(Arc::clone(&clock)),
            shards.remove(0),
            LocalHub::new(),
            Box::new(NoConnector),
            ExchangeConfig { me, cluster: 1 },
        );
        let (slot, mailbox) = SlotRunner::new(
            exchange,
            Box::new(MemoryFiles::on(Store::default(), 0, 1)),
            Jobs::new::<[JobEntry; 0]>([]),
            ReaderPool::new(0).unwrap(),
            Box::new(sync_channel(64).0),
            SlotConfig { spin, ..SlotConfig::default() },
        );
        Alone { slot, mailbox, clock, _arena: arena }
    }

    /// A turn after so long, with a command or without, and a pause: whether there was work, and whether it slept.
    fn turn(&mut self, pause_ns: u64, command: bool) -> (bool, bool) {
        if command {
            self.mailbox.send(SlotCommand::Cancel(AttemptId { job: 1, attempt: 1 })).unwrap();
        }
        self.clock.fetch_add(pause_ns, Ordering::Relaxed);
        let slept = self.slot.metrics().waits;
        let busy = self.slot.turn();
        self.slot.wait();
        (busy, self.slot.metrics().waits > slept)
    }
}

#[test]
fn a_slot_sleeps_when_it_has_spun_in_vain() {
    const SPIN_NS: u64 = 50_000;
    let mut alone = Alone::new(Spin::For(SPIN_NS));
    assert_eq!(alone.turn(0, true), (true, false), "a command is work");
    assert_eq!(alone.turn(SPIN_NS - 1, false), (false, false), "it still looks");
    assert_eq!(alone.turn(1, false), (false, true), "time is up");
}

/// Unless it is told, a slot spins where that pays: it tries now and then, and goes on while work comes in that time.
#[test]
fn a_slot_spins_where_that_pays() {
    let mut alone = Alone::new(Spin::WhereItPays);
    for _ in 0..TRIAL_EVERY {
        assert_eq!(alone.turn(0, true), (true, true), "it sleeps at once");
    }
    assert_eq!(alone.turn(0, true), (true, false), "a trial");
    assert_eq!(alone.turn(SPIN_NS, false), (false, true), "in vain");
    for _ in 0..TRIAL_EVERY {
        assert_eq!(alone.turn(0, true), (true, true), "so it sleeps at once again");
    }
    assert_eq!(alone.turn(0, true), (true, false), "another trial");
    for _ in 0..100 {
        assert_eq!(alone.turn(SPIN_NS / 2, false), (false, false), "it looks");
        assert_eq!(alone.turn(SPIN_NS / 4, true), (true, false), "and there is work: it goes on");
    }
    let mut vain = 0;
    while !alone.turn(0, true).1 {
        assert_eq!(alone.turn(SPIN_NS, false), (false, true));
        vain += 1;
    }
    assert_eq!(vain, LUCK_MAX, "so many in vain, and it gives up");
}
