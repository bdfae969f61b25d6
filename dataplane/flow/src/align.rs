//! Which channels of a gate wait for a barrier, and when an alignment ends.
//!
//! The gate is aligned when each live channel delivered the barrier. Per channel the wait ends on the barrier, an abort
//! marker, a newer barrier or the end of the partition. A channel that delivered its barrier is not read until the task
//! resumes the gate; a barrier that comes late (its checkpoint is over here) is answered at once, or its producer would
//! wait for ever.
//!
//! State: `over` is the newest checkpoint that ended at this gate; `current > over` while one is being aligned;
//! `arrived ≤ live`, and not 0 while one is.

use tidegate_plant::{Plant, planted};

/// What a gate must do after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet; a channel that delivered its barrier is blocked now.
    Wait,
    /// Every live channel delivered barrier `checkpoint`: the task snapshots, then resumes.
    Aligned {
        /// The checkpoint.
        checkpoint: u64,
    },
    /// The checkpoint can't be aligned here: tell the task, and resume the channels that waited for it.
    Aborted {
        /// The checkpoint.
        checkpoint: u64,
    },
    /// The barrier belongs to a checkpoint that is over: resume this one channel.
    Late,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Open,
    Blocked,
    Ended,
}

/// The alignment state of one gate.
#[derive(Debug)]
pub struct Alignment {
    channels: Vec<Channel>,
    live: u32,
    arrived: u32,
    current: Option<u64>,
    over: u64,
    /// A newer barrier ended the alignment before it: what to do next, after the abort was told.
    next: Option<Outcome>,
}

impl Alignment {
    /// A gate of `channels` channels, none ended.
    pub fn new(channels: u32) -> Self {
        Self {
            channels: vec![Channel::Open; channels as usize],
            live: channels,
            arrived: 0,
            current: None,
            over: 0,
            next: None,
        }
    }

    /// Bytes of the heap that it takes.
    pub fn idle_bytes(&self) -> usize {
        self.channels.capacity() * size_of::<Channel>()
    }

    /// True if this channel may be read.
    pub fn open(&self, channel: u32) -> bool {
        self.channels[channel as usize] == Channel::Open
    }

    /// The checkpoint that is being aligned.
    pub fn current(&self) -> Option<u64> {
        self.current
    }

    /// Channels that have not ended.
    pub fn live(&self) -> u32 {
        self.live
    }

    /// A barrier reached the front of a channel.
    ///
    /// After [`Outcome::Aborted`] call [`follow_up`](Self::follow_up): the barrier that ended the older alignment starts
    /// its own.
    pub fn barrier(&mut self, channel: u32, checkpoint: u64) -> Outcome {
        assert_eq!(self.channels[channel as usize], Channel::Open, "a blocked channel was read");
        if checkpoint <= self.over || self.current.is_some_and(|current| checkpoint < current) {
            return Outcome::Late;
        }
        match self.current {
            Some(older) if older < checkpoint => {
                self.end(older);
                let started = self.arrive(channel, checkpoint);
                self.next = Some(started);
                Outcome::Aborted { checkpoint: older }
            }
            _ => self.arrive(channel, checkpoint),
        }
    }

    /// What follows an [`Outcome::Aborted`], once.
    pub fn follow_up(&mut self) -> Option<Outcome> {
        self.next.take()
    }

    /// An abort marker reached the front of a channel: the checkpoint ends here.
    pub fn abort_marker(&mut self, checkpoint: u64) -> Outcome {
        if checkpoint <= self.over {
            return Outcome::Wait;
        }
        if self.current.is_some_and(|current| current > checkpoint) {
            return Outcome::Wait;
        }
        self.end(checkpoint);
        Outcome::Aborted { checkpoint }
    }

    /// A channel ended: it owes no barrier any more.
    pub fn ended(&mut self, channel: u32) -> Outcome {
        let state = &mut self.channels[channel as usize];
        assert_eq!(*state, Channel::Open, "a channel ends once, and not while it is blocked");
        *state = Channel::Ended;
        self.live -= 1;
        match self.current {
            Some(checkpoint) if self.arrived == self.live => Outcome::Aligned { checkpoint },
            _ => Outcome::Wait,
        }
    }

    /// The task has taken its snapshot (or the alignment was aborted): channels that waited may be read again.
    pub fn resume(&mut self, checkpoint: u64) {
        if self.current == Some(checkpoint) {
            self.end(checkpoint);
        }
    }

    fn arrive(&mut self, channel: u32, checkpoint: u64) -> Outcome {
        self.current = Some(checkpoint);
        self.channels[channel as usize] = Channel::Blocked;
        self.arrived += 1;
        if self.arrived == self.live || planted(Plant::SkipAlignment) {
            Outcome::Aligned { checkpoint }
        } else {
            Outcome::Wait
        }
    }

    fn end(&mut self, checkpoint: u64) {
        self.over = self.over.max(checkpoint);
        self.current = None;
        self.arrived = 0;
        for channel in &mut self.channels {
            if *channel == Channel::Blocked {
                *channel = Channel::Open;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_when_every_live_channel_delivered() {
        let mut gate = Alignment::new(3);
        assert_eq!(gate.barrier(0, 1), Outcome::Wait);
        assert!(!gate.open(0) && gate.open(1));
        assert_eq!((gate.current(), gate.live()), (Some(1), 3));
        assert_eq!(gate.ended(1), Outcome::Wait);
        assert_eq!(gate.live(), 2);
        assert_eq!(gate.barrier(2, 1), Outcome::Aligned { checkpoint: 1 });
        gate.resume(1);
        assert!(gate.open(0) && !gate.open(1));
        assert_eq!(gate.current(), None);
        assert_eq!([0, 2].map(|channel| gate.ended(channel)), [Outcome::Wait; 2]);
        assert_eq!(gate.live(), 0);
    }

    #[test]
    fn an_end_can_complete_an_alignment() {
        let mut gate = Alignment::new(2);
        gate.barrier(0, 5);
        assert_eq!(gate.ended(1), Outcome::Aligned { checkpoint: 5 });
    }

    #[test]
    fn a_newer_barrier_aborts_the_older_alignment_and_starts_its_own() {
        let mut gate = Alignment::new(2);
        gate.barrier(0, 1);
        assert_eq!(gate.barrier(1, 2), Outcome::Aborted { checkpoint: 1 });
        assert_eq!(gate.follow_up(), Some(Outcome::Wait));
        assert!(gate.open(0), "the channel that waited for 1 owes barrier 2");
        assert_eq!(gate.barrier(0, 2), Outcome::Aligned { checkpoint: 2 });
    }

    #[test]
    fn a_late_barrier_is_answered_at_once() {
        let mut gate = Alignment::new(2);
        assert_eq!(gate.abort_marker(3), Outcome::Aborted { checkpoint: 3 });
        assert_eq!(gate.barrier(1, 3), Outcome::Late);
        assert!(gate.open(1));
        assert_eq!(gate.abort_marker(3), Outcome::Wait, "told once");
    }

    #[test]
    fn a_marker_ends_its_own_and_older_alignments_only() {
        let mut gate = Alignment::new(2);
        gate.barrier(0, 5);
        assert_eq!(gate.abort_marker(4), Outcome::Wait, "4 is over since 5 began");
        assert!(!gate.open(0));
        assert_eq!(gate.abort_marker(5), Outcome::Aborted { checkpoint: 5 });
        assert!(gate.open(0));
        gate.barrier(0, 6);
        assert_eq!(gate.abort_marker(7), Outcome::Aborted { checkpoint: 7 });
        assert_eq!((gate.open(0), gate.barrier(1, 6)), (true, Outcome::Late));
    }

    #[test]
    fn one_channel_aligns_by_itself() {
        let mut gate = Alignment::new(1);
        assert_eq!(gate.barrier(0, 1), Outcome::Aligned { checkpoint: 1 });
        gate.resume(1);
        assert_eq!(gate.barrier(0, 2), Outcome::Aligned { checkpoint: 2 });
    }
}
