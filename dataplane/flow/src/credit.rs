//! Credit of one channel, at its producer and at its consumer.
//!
//! One credit is one segment of the consumer. A barrier voids what is left, on both sides at the same place in the channel's
//! order, and blocks data until a resume grants afresh (otherwise credit lying at channels that wait would starve those that
//! still have to deliver their barrier). A grant carries the number of barriers the consumer had seen when it made it; the
//! producer ignores one that is older than its own last barrier.
//!
//! Inequalities: `SendCredit::available ≤ CREDITS_MAX`; at the consumer `outstanding` never exceeds what the gate reserved
//! for the channel, and data is accepted only while `outstanding > 0`.

use tidegate_plant::{Plant, planted};

use crate::error::Violation;
use crate::limits::CREDITS_MAX;

/// The producer's side: what it may send.
#[derive(Debug)]
pub struct SendCredit {
    channel: u32,
    available: u32,
    sequence: u32,
    barriers: u32,
    blocked_by: Option<u64>,
    /// The backlog the consumer believes this channel to have.
    stated: u16,
}

impl SendCredit {
    /// A channel without credit; `channel` is its number in the job, for messages.
    pub fn new(channel: u32) -> Self {
        Self { channel, available: 0, sequence: 0, barriers: 0, blocked_by: None, stated: 0 }
    }

    /// True if a data segment may be sent now.
    pub fn can_send(&self) -> bool {
        self.available > 0 && self.blocked_by.is_none()
    }

    /// Credits left.
    pub fn available(&self) -> u32 {
        self.available
    }

    /// Spends one credit for a data segment; `backlog` is what stays queued behind it. Returns its sequence number.
    ///
    /// # Panics
    /// If [`can_send`](Self::can_send) is false: sending without credit is our own bug, never the peer's.
    pub fn take(&mut self, backlog: u16) -> u32 {
        assert!(self.can_send(), "channel {} sends without credit", self.channel);
        self.available -= 1;
        self.stated = backlog;
        self.next_sequence()
    }

    /// A slice of an admitted record is sent, which spends none; `backlog` is what stays queued behind the record. Returns its
    /// sequence number.
    pub fn slice(&mut self, backlog: u16) -> u32 {
        assert!(self.blocked_by.is_none(), "channel {} sends a slice behind a barrier", self.channel);
        self.stated = backlog;
        self.next_sequence()
    }

    /// The sequence number of the next sequenced entry: data and events share one order (W-36).
    pub fn next_sequence(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        sequence
    }

    /// A barrier was sent: what is left of the credit is void and data waits for the resume of `checkpoint`.
    pub fn barrier_sent(&mut self, checkpoint: u64) {
        if !planted(Plant::KeepCreditAtBarrier) {
            self.available = 0;
        }
        self.stated = 0;
        self.barriers = self.barriers.wrapping_add(1);
        self.blocked_by = Some(checkpoint);
    }

    /// The backlog to state in an entry of its own, if the consumer must hear of it: there is data, no credit, and the
    /// consumer believes there is none. A blocked channel states nothing: the resume asks again.
    pub fn backlog_to_state(&self, queued: u16) -> Option<u16> {
        (queued > 0 && self.available == 0 && self.stated == 0 && self.blocked_by.is_none()).then_some(queued)
    }

    /// The backlog was put into a train.
    pub fn backlog_stated(&mut self, queued: u16) {
        self.stated = queued;
    }

    /// A grant arrived. Returns false if it is older than the last barrier and was ignored.
    ///
    /// # Errors
    /// [`Violation::CreditOverflow`] if the sum passes any sensible bound.
    pub fn handle_grant(&mut self, credits: u32, barriers: u32) -> Result<bool, Violation> {
        if barriers != self.barriers && !planted(Plant::TakeStaleGrant) {
            return Ok(false);
        }
        self.add(credits)?;
        Ok(true)
    }

    /// A resume arrived. Returns false if it answers an older barrier and was ignored.
    ///
    /// # Errors
    /// [`Violation::CreditOverflow`] if the sum passes any sensible bound.
    pub fn handle_resume(&mut self, checkpoint: u64, credits: u32) -> Result<bool, Violation> {
        if self.blocked_by != Some(checkpoint) {
            return Ok(false);
        }
        self.blocked_by = None;
        self.add(credits)?;
        Ok(true)
    }

    /// The checkpoint whose resume this channel waits for.
    pub fn blocked_by(&self) -> Option<u64> {
        self.blocked_by
    }

    fn add(&mut self, credits: u32) -> Result<(), Violation> {
        let sum = u64::from(self.available) + u64::from(credits);
        if sum > u64::from(CREDITS_MAX) {
            return Err(Violation::CreditOverflow { channel: self.channel, found: sum });
        }
        self.available = sum as u32;
        Ok(())
    }
}

/// The consumer's side: what it promised.
#[derive(Debug)]
pub struct ReceiveCredit {
    channel: u32,
    outstanding: u32,
    sequence: u32,
    barriers: u32,
    backlog: u32,
    last_barrier: Option<u64>,
    blocked: bool,
}

impl ReceiveCredit {
    /// A channel that was granted nothing; `channel` is its number in the job, for messages.
    pub fn new(channel: u32) -> Self {
        Self {
            channel,
            outstanding: 0,
            sequence: 0,
            barriers: 0,
            backlog: 0,
            last_barrier: None,
            blocked: false,
        }
    }

    /// The channel's number in the job.
    pub fn channel(&self) -> u32 {
        self.channel
    }

    /// Segments promised and not used yet.
    pub fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// What the producer said it has queued.
    pub fn backlog(&self) -> u32 {
        self.backlog
    }

    /// Barriers seen on this channel; goes into each grant.
    pub fn barriers(&self) -> u32 {
        self.barriers
    }

    /// True between a barrier and its resume: nothing may be granted.
    pub fn blocked(&self) -> bool {
        self.blocked
    }

    /// Promises `credits` more segments.
    ///
    /// # Panics
    /// If the channel is blocked: a grant then would be lost at the producer while we keep its segments.
    pub fn grant(&mut self, credits: u32) {
        assert!(!self.blocked, "grant on channel {} between barrier and resume", self.channel);
        self.outstanding += credits;
        assert!(self.outstanding <= CREDITS_MAX, "channel {} was granted too much", self.channel);
    }

    /// A data entry was announced; `backlog` stays queued behind it.
    ///
    /// # Errors
    /// [`Violation::Sequence`] or [`Violation::NoCredit`].
    pub fn handle_data(&mut self, sequence: u32, backlog: u16) -> Result<(), Violation> {
        self.handle_sequence(sequence)?;
        if self.outstanding == 0 {
            return Err(Violation::NoCredit { channel: self.channel, sequence });
        }
        self.outstanding -= 1;
        self.backlog = u32::from(backlog);
        Ok(())
    }

    /// A slice of an admitted record was announced, which spends no credit; `backlog` stays queued behind the record.
    ///
    /// # Errors
    /// [`Violation::Sequence`].
    pub fn handle_slice(&mut self, sequence: u32, backlog: u16) -> Result<(), Violation> {
        self.handle_sequence(sequence)?;
        self.backlog = u32::from(backlog);
        Ok(())
    }

    /// A sequenced entry was announced (W-36).
    ///
    /// # Errors
    /// [`Violation::Sequence`] if it is not the next.
    pub fn handle_sequence(&mut self, sequence: u32) -> Result<(), Violation> {
        if sequence != self.sequence {
            return Err(Violation::Sequence {
                channel: self.channel,
                expected: self.sequence,
                found: sequence,
            });
        }
        self.sequence = self.sequence.wrapping_add(1);
        Ok(())
    }

    /// The producer stated its backlog.
    pub fn handle_backlog(&mut self, queued: u16) {
        self.backlog = u32::from(queued);
    }

    /// A barrier arrived: returns how many promised segments are void and ours again.
    pub fn handle_barrier(&mut self, checkpoint: u64) -> u32 {
        self.barriers = self.barriers.wrapping_add(1);
        self.last_barrier = Some(checkpoint);
        self.blocked = true;
        self.backlog = 0;
        core::mem::take(&mut self.outstanding)
    }

    /// The gate ended the alignment of `checkpoint`, and with it every older one. Returns the checkpoint to resume, if the
    /// producer waits for one of these; if a newer barrier came already, it waits for that one's resume.
    pub fn resume(&mut self, checkpoint: u64) -> Option<u64> {
        let due = self.last_barrier.filter(|&last| self.blocked && last <= checkpoint);
        if due.is_some() {
            self.blocked = false;
        }
        due
    }

    /// The channel closed: returns the promised segments that nobody will use any more.
    pub fn close(&mut self) -> u32 {
        self.blocked = true;
        self.backlog = 0;
        core::mem::take(&mut self.outstanding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_without_credit_is_the_peers_fault() {
        let mut receive = ReceiveCredit::new(3);
        assert_eq!(receive.handle_data(1, 0), Err(Violation::Sequence { channel: 3, expected: 0, found: 1 }));
        receive.grant(1);
        assert_eq!(receive.handle_data(0, 7), Ok(()));
        assert_eq!((receive.outstanding(), receive.backlog()), (0, 7));
        assert_eq!(receive.handle_data(1, 0), Err(Violation::NoCredit { channel: 3, sequence: 1 }));
    }

    #[test]
    fn a_barrier_voids_credit_on_both_sides_and_old_grants_are_ignored() {
        let (mut send, mut receive) = (SendCredit::new(0), ReceiveCredit::new(0));
        receive.grant(4);
        assert_eq!(send.handle_grant(4, 0), Ok(true));
        assert_eq!(send.take(2), 0);
        receive.handle_data(0, 2).expect("granted");
        send.barrier_sent(9);
        // A grant made before the consumer saw the barrier crosses it on the way.
        receive.grant(2);
        assert_eq!(send.handle_grant(2, 0), Ok(false));
        assert!(!send.can_send());
        assert_eq!(receive.handle_barrier(9), 5, "three left of the first grant, two of the second");
        assert_eq!(receive.resume(8), None);
        assert_eq!(receive.resume(9), Some(9));
        receive.grant(1);
        assert_eq!(send.handle_resume(8, 1), Ok(false));
        assert_eq!(send.handle_resume(9, 1), Ok(true));
        assert!(send.can_send());
        assert_eq!(send.available(), 1, "what was left of the first grant is void");
        assert_eq!(send.take(0), 1);
        receive.handle_data(1, 0).expect("granted by the resume");
    }

    #[test]
    fn a_newer_barrier_behind_the_aligned_one_keeps_the_channel_blocked() {
        let mut receive = ReceiveCredit::new(0);
        receive.handle_barrier(1);
        receive.handle_barrier(2);
        assert_eq!(receive.resume(1), None);
        assert_eq!(receive.resume(2), Some(2));
    }

    #[test]
    fn the_end_of_a_newer_alignment_resumes_an_older_barrier() {
        let mut receive = ReceiveCredit::new(0);
        receive.handle_barrier(4);
        assert_eq!(receive.resume(6), Some(4), "the producer waits for the resume of its own barrier");
        assert_eq!(receive.resume(6), None, "once");
    }

    #[test]
    fn backlog_is_stated_once_and_only_without_credit() {
        let mut send = SendCredit::new(0);
        assert_eq!(send.backlog_to_state(0), None);
        assert_eq!(send.backlog_to_state(3), Some(3));
        send.backlog_stated(3);
        assert_eq!(send.backlog_to_state(5), None);
        send.handle_grant(1, 0).expect("small");
        send.take(0);
        assert_eq!(send.backlog_to_state(1), Some(1));
    }

    #[test]
    fn what_may_be_sent_is_what_was_granted() {
        let mut send = SendCredit::new(0);
        assert!(!send.can_send());
        send.handle_grant(2, 0).expect("small");
        assert_eq!((send.can_send(), send.available()), (true, 2));
        assert_eq!(send.backlog_to_state(3), None, "with credit nobody needs to hear of it");
        send.take(0);
        assert_eq!((send.can_send(), send.available()), (true, 1));
        send.take(0);
        assert!(!send.can_send());
        send.barrier_sent(9);
        assert_eq!((send.blocked_by(), send.backlog_to_state(3)), (Some(9), None));
        // It counts the barrier, and comes before the answer to it.
        assert_eq!(send.handle_grant(1, 1), Ok(true));
        assert!(!send.can_send());
        send.handle_resume(9, 1).expect("small");
        assert_eq!((send.blocked_by(), send.can_send(), send.available()), (None, true, 2));
    }

    #[test]
    fn a_slice_spends_no_credit_and_states_a_backlog() {
        let (mut send, mut receive) = (SendCredit::new(0), ReceiveCredit::new(0));
        assert_eq!([send.slice(2), send.slice(2)], [0, 1]);
        assert_eq!((send.available(), send.backlog_to_state(2)), (0, None), "said already");
        receive.handle_slice(0, 5).expect("the first");
        receive.handle_slice(1, 2).expect("the next");
        assert_eq!((receive.outstanding(), receive.backlog()), (0, 2));
        let again = Violation::Sequence { channel: 0, expected: 2, found: 1 };
        assert_eq!(receive.handle_slice(1, 2), Err(again));
    }

    #[test]
    fn a_channel_that_waits_or_ended_has_no_backlog_and_no_credit() {
        let mut receive = ReceiveCredit::new(6);
        receive.grant(3);
        receive.handle_backlog(4);
        assert_eq!((receive.channel(), receive.backlog(), receive.barriers()), (6, 4, 0));
        assert!(!receive.blocked());
        assert_eq!(receive.handle_barrier(1), 3);
        assert_eq!((receive.backlog(), receive.barriers(), receive.blocked()), (0, 1, true));
        receive.resume(1);
        assert!(!receive.blocked());
        receive.grant(2);
        receive.handle_backlog(4);
        assert_eq!(receive.close(), 2);
        assert_eq!((receive.backlog(), receive.outstanding(), receive.blocked()), (0, 0, true));
    }

    #[test]
    fn absurd_grants_are_refused() {
        let mut send = SendCredit::new(5);
        assert_eq!(send.handle_grant(CREDITS_MAX, 0), Ok(true));
        assert!(send.handle_grant(1, 0).is_err());
        assert_eq!(
            send.handle_grant(u32::MAX, 0),
            Err(Violation::CreditOverflow {
                channel: 5,
                found: u64::from(CREDITS_MAX) + u64::from(u32::MAX)
            })
        );
    }
}
