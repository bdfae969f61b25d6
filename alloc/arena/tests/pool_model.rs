//! Any sequence of moves, against an oracle that keeps each segment's contents, references and place.

#![cfg(not(loom))]

use proptest::prelude::*;
use tidegate_arena::{
    Arena, ArenaConfig, Filling, Granted, Holder, HolderKind, HugePages, InFlight, Receiving, Sealed,
    Segment, SegmentSize, Shard, Shared, State,
};

const SHARDS: [u32; 2] = [3, 2];

/// A handle of any state.
enum Handle {
    Filling(Segment<Filling>),
    Sealed(Segment<Sealed>),
    InFlight(Segment<InFlight>),
    Granted(Segment<Granted>),
    Receiving(Segment<Receiving>),
    Shared(Segment<Shared>),
    Exported(bytes::Bytes, u32),
}

impl Handle {
    fn index(&self) -> u32 {
        match self {
            Self::Filling(segment) => segment.index(),
            Self::Sealed(segment) => segment.index(),
            Self::InFlight(segment) => segment.index(),
            Self::Granted(segment) => segment.index(),
            Self::Receiving(segment) => segment.index(),
            Self::Shared(segment) => segment.index(),
            Self::Exported(_, index) => *index,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Acquire {
        shard: usize,
    },
    Grant {
        shard: usize,
    },
    /// Moves a handle on, in the way of its state; `choice` decides where there are several.
    Move {
        handle: usize,
        choice: u8,
    },
    Share {
        handle: usize,
    },
    /// Gives a handle back: through shard 0 or 1, or through the arena.
    Release {
        handle: usize,
        through: usize,
    },
    Free {
        shard: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let handle = 0..64usize;
    prop_oneof![
        4 => (0..2usize).prop_map(|shard| Step::Acquire { shard }),
        2 => (0..2usize).prop_map(|shard| Step::Grant { shard }),
        8 => (handle.clone(), any::<u8>()).prop_map(|(handle, choice)| Step::Move { handle, choice }),
        2 => handle.clone().prop_map(|handle| Step::Share { handle }),
        4 => (handle, 0..3usize).prop_map(|(handle, through)| Step::Release { handle, through }),
        1 => (0..2usize).prop_map(|shard| Step::Free { shard }),
    ]
}

/// What the oracle knows of a segment.
#[derive(Clone, Copy, Default)]
struct Known {
    references: u32,
    in_flight: u32,
    /// Every byte of the sealed or received length.
    fill: u8,
    len: u32,
}

struct World {
    arena: Arena,
    shards: Vec<Shard>,
    handles: Vec<Handle>,
    known: Vec<Known>,
    next_fill: u8,
}

impl World {
    fn new() -> Self {
        let segment_size = SegmentSize::new(4096).expect("a page is a valid size");
        let config = ArenaConfig { segment_size, shards: SHARDS.to_vec(), huge_pages: HugePages::Never };
        let (arena, shards) = Arena::map(&config).expect("a few pages can be mapped");
        let known = vec![Known::default(); arena.segments() as usize];
        Self { arena, shards, handles: Vec::new(), known, next_fill: 0 }
    }

    fn expected_free(&self, shard: usize) -> u32 {
        let range = if shard == 0 { 0..3 } else { 3..5 };
        self.known[range].iter().filter(|known| known.references == 0).count() as u32
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Acquire { shard } => {
                let expected = self.expected_free(shard);
                let segment = self.shards[shard].acquire(Holder::new(HolderKind::Filling, shard as u32));
                self.acquired(shard, expected, segment.map(Handle::Filling));
            }
            Step::Grant { shard } => {
                let expected = self.expected_free(shard);
                let segment =
                    self.shards[shard].acquire_granted(Holder::new(HolderKind::Granted, shard as u32));
                self.acquired(shard, expected, segment.map(Handle::Granted));
            }
            Step::Free { shard } => assert_eq!(self.shards[shard].free(), self.expected_free(shard)),
            Step::Move { handle, choice } => {
                if let Some(handle) = self.pick(handle) {
                    let moved = self.moved(handle, choice);
                    self.handles.push(moved);
                }
            }
            Step::Share { handle } => {
                let Some(handle) = self.pick(handle) else { return };
                let index = handle.index() as usize;
                let shared = match &handle {
                    Handle::Sealed(segment) => Some(Handle::Sealed(self.arena.share(segment))),
                    Handle::Shared(segment) => Some(Handle::Shared(self.arena.share_received(segment))),
                    _ => None,
                };
                self.known[index].references += u32::from(shared.is_some());
                self.handles.extend(shared);
                self.handles.push(handle);
            }
            Step::Release { handle, through } => {
                if let Some(handle) = self.pick(handle)
                    && let Some(kept) = self.released(handle, through)
                {
                    self.handles.push(kept);
                }
            }
        }
    }

    fn pick(&mut self, handle: usize) -> Option<Handle> {
        let count = self.handles.len();
        (count > 0).then(|| self.handles.swap_remove(handle % count))
    }

    fn acquired(&mut self, shard: usize, free: u32, handle: Option<Handle>) {
        assert_eq!(handle.is_some(), free > 0, "acquire succeeds exactly if one is free");
        let Some(handle) = handle else { return };
        let known = &mut self.known[handle.index() as usize];
        assert_eq!(known.references, 0, "only a free segment is given out");
        *known = Known { references: 1, ..Known::default() };
        assert_eq!(handle.index() >= SHARDS[0], shard == 1, "from its home");
        self.handles.push(handle);
    }

    fn moved(&mut self, handle: Handle, choice: u8) -> Handle {
        let arena = &self.arena;
        let known = &mut self.known[handle.index() as usize];
        match handle {
            Handle::Filling(mut segment) if !choice.is_multiple_of(4) => {
                self.next_fill = self.next_fill.wrapping_add(1);
                let len = u32::from(choice) * 16;
                (known.fill, known.len) = (self.next_fill, len);
                arena.bytes_mut(&mut segment)[..len as usize].fill(known.fill);
                Handle::Sealed(arena.seal(segment, len))
            }
            Handle::Filling(segment) => Handle::Receiving(arena.post(segment)),
            Handle::Granted(segment) if !choice.is_multiple_of(3) => Handle::Receiving(arena.post(segment)),
            Handle::Granted(mut segment) => {
                self.next_fill = self.next_fill.wrapping_add(1);
                (known.fill, known.len) = (self.next_fill, 4096);
                arena.bytes_mut(&mut segment).fill(known.fill);
                Handle::Shared(arena.received(segment, 4096))
            }
            Handle::Receiving(segment) if choice.is_multiple_of(2) => Handle::Filling(arena.unpost(segment)),
            Handle::Receiving(segment) => Handle::Granted(arena.unpost(segment)),
            Handle::Sealed(segment) => match choice % 3 {
                0 => {
                    known.in_flight += 1;
                    Handle::InFlight(arena.launch(segment))
                }
                1 => Handle::Shared(arena.deliver(segment)),
                _ => match arena.reopen(segment) {
                    Ok(segment) => {
                        assert_eq!(known.references, 1, "only the sole holder may write again");
                        Handle::Filling(segment)
                    }
                    Err(segment) => {
                        assert!(known.references > 1, "refused only because it is shared");
                        Handle::Sealed(segment)
                    }
                },
            },
            Handle::InFlight(segment) => {
                known.in_flight -= 1;
                Handle::Sealed(arena.land(segment))
            }
            Handle::Shared(segment) if choice.is_multiple_of(5) => {
                let index = segment.index();
                Handle::Exported(arena.export(segment), index)
            }
            other => other,
        }
    }

    /// Releases what may be released; gives back what is in the kernel's hands.
    fn released(&mut self, handle: Handle, through: usize) -> Option<Handle> {
        let index = handle.index() as usize;
        macro_rules! release {
            ($segment:expr) => {
                match through {
                    2 => self.arena.release($segment),
                    shard => self.shards[shard].release($segment),
                }
            };
        }
        match handle {
            Handle::Filling(segment) => release!(segment),
            Handle::Sealed(segment) => release!(segment),
            Handle::Granted(segment) => release!(segment),
            Handle::Shared(segment) => release!(segment),
            Handle::Exported(bytes, _) => drop(bytes),
            kept @ (Handle::InFlight(_) | Handle::Receiving(_)) => return Some(kept),
        }
        self.known[index].references -= 1;
        None
    }

    fn check(&self) {
        let ledger = self.arena.ledger();
        for (known, entry) in self.known.iter().zip(ledger.entries()) {
            assert_eq!((entry.references, entry.in_flight), (known.references, known.in_flight), "{entry:?}");
            assert_eq!(entry.state == State::Free, known.references == 0, "{entry:?}");
            assert_eq!(entry.state == State::InFlight, known.in_flight > 0, "{entry:?}");
        }
        for handle in &self.handles {
            let known = self.known[handle.index() as usize];
            let bytes: &[u8] = match handle {
                Handle::Sealed(segment) => self.arena.bytes(segment),
                Handle::Shared(segment) => self.arena.bytes(segment),
                Handle::Exported(bytes, _) => bytes,
                _ => continue,
            };
            assert_eq!(bytes.len(), known.len as usize);
            assert!(bytes.iter().all(|byte| *byte == known.fill), "nobody wrote a frozen segment");
        }
        let totals = ledger.totals();
        let held = self.known.iter().filter(|known| known.references > 0).count() as u32;
        assert_eq!((totals.segments, totals.free()), (5, 5 - held));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_moves_agrees_with_the_oracle(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
            world.check();
        }
        // Everything the kernel holds comes back, everything is released, and all of it is home again.
        while let Some(handle) = world.handles.pop() {
            let handle = match handle {
                Handle::InFlight(_) | Handle::Receiving(_) => world.moved(handle, 0),
                other => other,
            };
            prop_assert!(world.released(handle, 2).is_none());
        }
        prop_assert!(world.arena.ledger().balanced());
        prop_assert_eq!((world.shards[0].free(), world.shards[1].free()), (3, 2));
    }
}
