//! Slots of one process that send to each other, under many interleavings: bells, queues, pools and quotas together, more of
//! them than loom can take in.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test -p tidegate-exchange --test interleaved
//! ```
//!
//! The exchange, the queues, the pool and the doorbell are the real ones. Each access to what two threads share is a point
//! where shuttle may go on with another; it takes all of them for sequentially consistent (what weak memory does to each
//! piece is in the models of `tidegate-arena`, for loom). `TIDEGATE_INTERLEAVINGS` says how many are tried with each
//! scheduler: a random one, and one that preempts a few times at the worst of places (PCT).
//!
//! A wait ends by a ring alone, so that a lost one is a deadlock, unless another slot rings for something else: each sends to
//! all, so one ring that is left out is often made up for.
#![cfg(shuttle)]

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner, thread};
use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize, Shard};
use tidegate_exchange::endpoint::{Connector, DialRequest};
use tidegate_exchange::{
    AttemptPlan, ChannelPlan, Event, Exchange, ExchangeConfig, GateItem, GatePlan, LocalHub, PartitionPlan,
    Prepared, SlotId, TaskIds, TaskPorts,
};
use tidegate_record::Record;
use tidegate_ring::interleaved::BellRing;

const JOB: u128 = 7;
const SLOTS: u32 = 3;
/// Records of each producer for each consumer, and where among them the barrier is.
const RECORDS: u64 = 5;
const CUT: u64 = 2;
/// Fewer than would hold all that is sent.
const SEGMENTS: u32 = 8;
/// A record that leaves no room for a second one in its segment.
type Long = [u64; 400];
type Slot = Exchange<BellRing>;

const INTERLEAVINGS: usize = 5_000;
/// Preemptions that are placed by [`PctScheduler`].
const PREEMPTIONS: usize = 3;
const STACK_BYTES: usize = 1 << 20;

fn interleavings() -> usize {
    let wanted = std::env::var("TIDEGATE_INTERLEAVINGS").ok();
    wanted.map_or(INTERLEAVINGS, |wanted| wanted.parse().expect("TIDEGATE_INTERLEAVINGS is a number"))
}

fn explore(model: fn()) {
    fn run(scheduler: impl Scheduler + 'static, model: fn()) {
        let mut config = Config::new();
        config.stack_size = STACK_BYTES;
        config.silence_warnings = true;
        Runner::new(scheduler, config).run(model);
    }
    run(RandomScheduler::new(interleavings()), model);
    run(PctScheduler::new(PREEMPTIONS, interleavings()), model);
}

struct NoConnector;

impl Connector for NoConnector {
    fn dial(&self, _: DialRequest) {
        panic!("all slots are in one process");
    }
}

fn slot_id(slot: u32) -> SlotId {
    SlotId { taskmanager: 1, slot }
}

/// A producer for all slots, and a consumer from all.
fn plan(me: u32) -> AttemptPlan {
    let channel = |from: u32, to: u32, peer: u32| ChannelPlan {
        channel: from * SLOTS + to,
        peer: slot_id(peer),
        input: 0,
        schema: 42,
    };
    let channels = (0..SLOTS).map(|to| channel(me, to, to)).collect();
    let partition = PartitionPlan { name: "out".to_owned(), broadcast: false, channels };
    let gate = GatePlan {
        name: "in".to_owned(),
        channels: (0..SLOTS).map(|from| channel(from, me, from)).collect(),
    };
    let tasks = vec![
        TaskPorts { task: 0, gate: None, partitions: vec![partition] },
        TaskPorts { task: 1, gate: Some(gate), partitions: Vec::new() },
    ];
    AttemptPlan { job: JOB, epoch: 1, attempt: 1, record_max: 0, tasks, peers: Default::default() }
}

struct Tasks {
    ids: Vec<TaskIds>,
    written: u64,
    barrier: bool,
    ended: bool,
    read: [u64; SLOTS as usize],
    aligned: bool,
    done: bool,
}

impl Tasks {
    fn produce(&mut self, slot: &mut Slot, me: u32) -> bool {
        let mut output = slot.ports.output(self.ids[0].partitions[0]);
        let all = RECORDS * u64::from(SLOTS);
        if !self.barrier && self.written == CUT * u64::from(SLOTS) && output.event_room() {
            output.event(Event::Barrier { checkpoint: 1 });
            self.barrier = true;
        } else if self.written < all
            && output.writable()
            && (self.barrier || self.written < CUT * u64::from(SLOTS))
        {
            let (to, number) = (self.written % u64::from(SLOTS), self.written / u64::from(SLOTS));
            let record: Long = [u64::from(me) << 32 | number; 400];
            output.write(to as u32, &record).expect("it fits");
            self.written += 1;
        } else if self.written == all && !self.ended && output.drained() && output.event_room() {
            output.event(Event::EndOfPartition);
            self.ended = true;
        } else {
            return false;
        }
        true
    }

    fn consume(&mut self, slot: &mut Slot) -> bool {
        let arena = slot.ports.arena().clone();
        let mut input = slot.ports.input(self.ids[1].gate.expect("it has a gate"));
        match input.poll() {
            None => return false,
            Some(GateItem::Data(buffer)) => {
                let from = buffer.channel() as usize;
                let mut position = 0;
                while let Some(record) = Long::read(buffer.bytes(&arena), &mut position).expect("it is whole")
                {
                    let next = (from as u64) << 32 | self.read[from];
                    assert!(record.iter().all(|word| *word == next), "channel {from} is in order");
                    self.read[from] += 1;
                }
                // Whoever wrote it may do so again from now on, and not before.
                thread::yield_now();
                input.release(buffer);
            }
            Some(GateItem::Aligned { checkpoint, .. }) => {
                assert_eq!(self.read, [CUT; SLOTS as usize], "the cut is the same at both ends");
                assert!(!std::mem::replace(&mut self.aligned, true), "it aligns once");
                input.resume(checkpoint);
            }
            Some(GateItem::EndOfPartition) => self.done = true,
            Some(_) => {}
        }
        true
    }
}

fn run_slot(me: u32, shard: Shard, hub: LocalHub) {
    let config = ExchangeConfig { me: slot_id(me), cluster: 11 };
    let ring = BellRing::new().expect("there is nothing to fail");
    let mut slot = Exchange::new(ring, shard, hub, Box::new(NoConnector), config);
    let ids = slot.prepare(&plan(me)).expect("it fits");
    assert_eq!(slot.prepared(JOB, 1), Prepared::Ready, "nobody dials");
    let (read, [barrier, ended, aligned, done]) = ([0; SLOTS as usize], [false; 4]);
    let mut tasks = Tasks { ids, written: 0, barrier, ended, read, aligned, done };
    loop {
        let busy = slot.turn();
        let moved = tasks.produce(&mut slot, me) | tasks.consume(&mut slot);
        if tasks.done && tasks.ended && slot.ports.output(tasks.ids[0].partitions[0]).drained() {
            break;
        }
        if !busy && !moved {
            slot.wait(None);
        }
    }
    assert!(tasks.aligned && tasks.read == [RECORDS; SLOTS as usize], "all has arrived: {:?}", tasks.read);
    slot.retire(JOB, 1);
    while !slot.closed(JOB, 1) {
        if !slot.turn() && !slot.closed(JOB, 1) {
            slot.wait(None);
        }
    }
    assert_eq!(slot.ports.segments_free(), slot.ports.segments(), "every segment is back");
}

fn shuffle() {
    let (arena, shards) = Arena::map(&ArenaConfig {
        segment_size: SegmentSize::new(4096).expect("a power of two"),
        shards: vec![SEGMENTS; SLOTS as usize],
        huge_pages: HugePages::Never,
    })
    .expect("a small arena");
    let hub = LocalHub::new();
    let shards = (0..).zip(shards);
    let slots = shards.map(|(me, shard)| {
        let hub = hub.clone();
        thread::spawn(move || run_slot(me, shard, hub))
    });
    for slot in slots.collect::<Vec<_>>() {
        slot.join().expect("its assertions hold");
    }
    assert!(arena.ledger().balanced());
}

#[test]
fn slots_that_send_to_each_other() {
    explore(shuffle);
}
