//! Pools, queues and sleep flags of several slots together, under many interleavings: more than loom can take in.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test -p tidegate-arena --test interleaved
//! ```
//!
//! Each slot sends segments to every other and gets them back by the return stack of its pool, which others push on while it
//! is drained. `TIDEGATE_INTERLEAVINGS` says how many interleavings are tried with each scheduler. Orders of weak memory are
//! loom's to find (`loom_pool`, `loom_sleep`, `loom_spsc`); what is found here is what accesses in an unlucky order do.
//!
//! Each of these, put into the code, makes it fail: `return_home` or `collect_returned` as load and store instead of an
//! exchange; `try_push` that moves the tail before it writes the place; `wake` with a store instead of the exchange.
#![cfg(shuttle)]

use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::{Condvar, Mutex};
use shuttle::{Config, Runner, thread};
use tidegate_arena::{
    Arena, ArenaConfig, Holder, HolderKind, HugePages, Segment, SegmentSize, Shard, Shared, sleep::SleepFlag,
    spsc,
};

const SLOTS: usize = 4;
/// Segments of each slot: fewer than it sends, so that it waits for its own to come home.
const SEGMENTS: u32 = 2;
/// Segments from each slot to each other.
const SENT: u8 = 3;
const INTERLEAVINGS: usize = 5_000;
/// Preemptions that are placed by [`PctScheduler`].
const PREEMPTIONS: usize = 3;

fn interleavings() -> usize {
    let wanted = std::env::var("TIDEGATE_INTERLEAVINGS").ok();
    wanted.map_or(INTERLEAVINGS, |wanted| wanted.parse().expect("TIDEGATE_INTERLEAVINGS is a number"))
}

fn run(scheduler: impl Scheduler + 'static) {
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(slots);
}

#[test]
fn segments_go_round_between_slots() {
    run(RandomScheduler::new(interleavings()));
    run(PctScheduler::new(PREEMPTIONS, interleavings()));
}

/// An eventfd, or a ring's completion queue.
#[derive(Default)]
struct Doorbell {
    flag: SleepFlag,
    pending: Mutex<u32>,
    rung: Condvar,
}

impl Doorbell {
    fn ring(&self) {
        if self.flag.wake() {
            let mut pending = self.pending.lock().expect("no panic");
            *pending += 1;
            assert_eq!(*pending, 1, "at most one doorbell is pending");
            self.rung.notify_one();
        }
    }

    fn sleep_unless(&self, work: impl FnOnce() -> bool) {
        self.flag.prepare_sleep();
        if !work() && self.flag.commit() {
            let mut pending = self.pending.lock().expect("no panic");
            while *pending == 0 {
                pending = self.rung.wait(pending).expect("no panic");
            }
        }
        self.flag.awake();
        if std::mem::take(&mut *self.pending.lock().expect("no panic")) > 0 {
            self.flag.heard();
        }
    }
}

type Queue = (spsc::Producer<Segment<Shared>>, spsc::Consumer<Segment<Shared>>);

struct Slot {
    me: usize,
    arena: Arena,
    shard: Shard,
    bells: Arc<[Doorbell; SLOTS]>,
    /// To the others, by their number, and how many have been sent.
    out: Vec<(usize, spsc::Producer<Segment<Shared>>, u8)>,
    /// From them, and how many have been read.
    from: Vec<(usize, spsc::Consumer<Segment<Shared>>, u8)>,
}

impl Slot {
    fn send(&mut self) -> bool {
        let mut moved = false;
        for (to, queue, sent) in &mut self.out {
            if *sent == SENT || !queue.has_room() {
                continue;
            }
            let Some(mut filling) = self.shard.acquire(Holder::new(HolderKind::Filling, 0)) else { break };
            self.arena.bytes_mut(&mut filling)[..3].copy_from_slice(&[self.me as u8, *to as u8, *sent]);
            let segment = self.arena.deliver(self.arena.seal(filling, 3));
            assert!(queue.try_push(segment).is_ok(), "there was room");
            (*sent, moved) = (*sent + 1, true);
            self.bells[*to].ring();
        }
        moved
    }

    fn receive(&mut self) -> bool {
        let mut moved = false;
        for (from, queue, read) in &mut self.from {
            let Some(segment) = queue.try_pop() else { continue };
            // Its home may do what it likes meanwhile, but not write it.
            thread::yield_now();
            assert_eq!(self.arena.bytes(&segment), [*from as u8, self.me as u8, *read]);
            self.arena.release(segment);
            (*read, moved) = (*read + 1, true);
            self.bells[*from].ring();
        }
        moved
    }

    fn run(mut self) {
        loop {
            let moved = self.send() | self.receive();
            let (sent, read) =
                (self.out.iter().all(|out| out.2 == SENT), self.from.iter().all(|from| from.2 == SENT));
            if sent && read && self.shard.free() == SEGMENTS {
                return;
            }
            if !moved {
                let Slot { shard, out, from, bells, me, .. } = &mut self;
                bells[*me].sleep_unless(|| {
                    let room = out.iter_mut().any(|(_, queue, sent)| *sent < SENT && queue.has_room());
                    let free = shard.free();
                    from.iter().any(|(_, queue, _)| !queue.is_empty())
                        || (room && free > 0)
                        || (sent && read && free == SEGMENTS)
                });
            }
        }
    }
}

fn slots() {
    let segment_size = SegmentSize::new(4096).expect("a page is a valid size");
    let config = ArenaConfig { segment_size, shards: vec![SEGMENTS; SLOTS], huge_pages: HugePages::Never };
    let (arena, shards) = Arena::map(&config).expect("a few pages");
    let bells = Arc::new(std::array::from_fn(|_| Doorbell::default()));
    let mut slots: Vec<Slot> = (0..)
        .zip(shards)
        .map(|(me, shard)| {
            let (arena, bells) = (arena.clone(), Arc::clone(&bells));
            Slot { me, arena, shard, bells, out: Vec::new(), from: Vec::new() }
        })
        .collect();
    for from in 0..SLOTS {
        for to in (0..SLOTS).filter(|to| *to != from) {
            let (producer, consumer): Queue = spsc::channel(1);
            slots[from].out.push((to, producer, 0));
            slots[to].from.push((from, consumer, 0));
        }
    }
    let threads: Vec<_> = slots.into_iter().map(|slot| thread::spawn(move || slot.run())).collect();
    for thread in threads {
        thread.join().expect("its assertions hold");
    }
    assert!(arena.ledger().balanced());
}
