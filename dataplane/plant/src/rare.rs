//! Rare points: places where something legal that hardly ever happens is made to happen often.
//!
//! Only with the feature `plant`; without it [`rare`] is the constant `false`. A point is on for the thread that called
//! [`begin`], so that several runs can go on side by side; its choices come from the seed given there and from nothing else.

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A point. What happens there must be allowed at any time.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Rare {
            $($(#[$doc])* $point,)*
        }

        impl Rare {
            /// All of them, in words.
            pub const NAMES: &'static [&'static str] = &[$($name,)*];
        }
    };
}

points! {
    /// flow: a channel is granted a single segment.
    OneCredit = "flow: one credit",
    /// flow: nothing is granted ahead of what is stated.
    NoneAhead = "flow: nothing ahead",
    /// flow: a receive takes one payload of its train.
    PartReceive = "flow: a receive of one payload",
    /// exchange: a grant that nobody waits for is put off.
    GrantHeld = "exchange: a grant put off",
    /// exchange: a visit of a channel takes one payload.
    OnePayload = "exchange: one payload a visit",
    /// exchange: a train leaves with the first payload it has.
    ShortTrain = "exchange: a short train",
    /// exchange: a gate says that nothing is there.
    EmptyPoll = "exchange: an empty poll",
    /// exchange: a segment is taken for full.
    SealEarly = "exchange: a segment sealed early",
    /// stream: a quantum is one record.
    OneRecord = "stream: one record a step",
    /// stream: a turn of a slot is one step.
    OneStep = "stream: one step a turn",
    /// stream: a turn of a slot takes one command.
    OneCommand = "stream: one command a turn",
    /// stream: the queue of a slot's events has no room.
    EventsHeld = "stream: a full queue of events",
    /// stream: a task is woken for nothing.
    WokenForNothing = "stream: a step for nothing",
    /// checkpoint: a checkpoint that has not all its acknowledgements is given up.
    ExpireEarly = "checkpoint: given up early",
    /// checkpoint: nobody hears the answer of the store.
    AnswerLost = "checkpoint: an answer lost",
    /// checkpoint: old checkpoints stay a while.
    RetainLate = "checkpoint: deleted later",
    /// jobmanager: a silence is taken for a death early.
    SuspectEarly = "jobmanager: an early suspicion",
    /// taskmanager: it dials again at once.
    DialNow = "taskmanager: dials at once",
    /// taskmanager: a free slot is refused.
    RefuseSlot = "taskmanager: a slot refused",
}

#[cfg(feature = "plant")]
mod active {
    use std::cell::RefCell;

    use super::Rare;

    pub(super) const POINTS: usize = Rare::NAMES.len();

    struct State {
        random: u64,
        /// Of 65,536.
        rates: [u32; POINTS],
        struck: [u64; POINTS],
    }

    std::thread_local! {
        static STATE: RefCell<State> =
            const { RefCell::new(State { random: 0, rates: [0; POINTS], struck: [0; POINTS] }) };
    }

    impl State {
        fn next(&mut self) -> u64 {
            // SplitMix64.
            self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = self.random;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            word ^ (word >> 31)
        }
    }

    /// From now on each point of this thread is struck so often, of 65,536; the seed says when.
    pub fn begin(seed: u64, rates: [u32; POINTS]) {
        STATE.set(State { random: seed, rates, struck: [0; POINTS] });
    }

    /// From now on nothing is rare; gives how often each point was struck.
    pub fn end() -> [u64; POINTS] {
        STATE.with_borrow_mut(|state| {
            state.rates = [0; POINTS];
            std::mem::replace(&mut state.struck, [0; POINTS])
        })
    }

    pub(super) fn strikes(point: Rare) -> bool {
        STATE.with_borrow_mut(|state| {
            let rate = state.rates[point as usize];
            let strikes = rate > 0 && state.next() % 65_536 < u64::from(rate);
            state.struck[point as usize] += u64::from(strikes);
            strikes
        })
    }
}

#[cfg(feature = "plant")]
pub use active::{begin, end};

/// Whether the rare thing is to happen here and now.
#[inline(always)]
#[must_use]
pub fn rare(point: Rare) -> bool {
    #[cfg(feature = "plant")]
    return active::strikes(point);
    #[cfg(not(feature = "plant"))]
    {
        let _ = point;
        false
    }
}
