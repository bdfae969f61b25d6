//! The rules of one channel over time, section 5 of `SPEC.md`, in executable form: an oracle for tests, simulators and
//! fuzzers, and the second opinion on `flow`. It owns the history of one channel as one end sees it.
//!
//! Always true: `credits` is what the consumer promised and neither data spent nor a barrier voided, as this end knows it;
//! after `acked` nothing is accepted any more.

use core::fmt;

use crate::entry::{Body, Data, End, Entry, Kind};
use crate::error::ErrorCode;

/// A rule of the protocol that an entry broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Number of the clause in `SPEC.md`.
    pub clause: u16,
    /// The code that the offender is told (W-34).
    pub code: ErrorCode,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an entry broke W-{} ({:?})", self.clause, self.code)
    }
}

impl core::error::Error for Breach {}

/// Watches the entries of one channel in the order in which one end sends and receives them.
///
/// ```
/// use tidegate_wire::{referee::Referee, Body, Data, End, Entry};
/// let mut referee = Referee::new(End::Consumer, 7, 1, 32 * 1024);
/// let data = Entry::data(7, 1, 0, 0, Data::whole(100, 0));
/// assert_eq!(referee.clone().observe(&data).unwrap_err().clause, 38); // never granted
/// referee.observe(&Entry::control(7, 1, Body::Grant { credits: 1, barriers: 0 })).unwrap();
/// referee.observe(&data).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Referee {
    at: End,
    channel: u32,
    generation: u32,
    segment_size: u32,
    sequence: u32,
    credits: u64,
    barriers: u32,
    /// The barrier that waits for its resume.
    open_barrier: Option<u64>,
    /// The newest checkpoint, and whether it was aborted.
    checkpoint: Option<(u64, bool)>,
    watermark: Option<i64>,
    /// Total and next offset of a record that was asked for and of which slices are missing.
    slices: Option<(u32, u32)>,
    /// Whether those may come.
    admitted: bool,
    data_ended: bool,
    partition_ended: bool,
    closed: bool,
    acked: bool,
}

impl Referee {
    /// A channel before its first entry, seen from the end `at`.
    #[must_use]
    pub fn new(at: End, channel: u32, generation: u32, segment_size: u32) -> Self {
        Self {
            at,
            channel,
            generation,
            segment_size,
            sequence: 0,
            credits: 0,
            barriers: 0,
            open_barrier: None,
            checkpoint: None,
            watermark: None,
            slices: None,
            admitted: false,
            data_ended: false,
            partition_ended: false,
            closed: false,
            acked: false,
        }
    }

    /// Credits that are neither spent nor void.
    #[must_use]
    pub fn credits(&self) -> u64 {
        self.credits
    }

    /// The barrier whose resume is awaited, by checkpoint.
    #[must_use]
    pub fn open_barrier(&self) -> Option<u64> {
        self.open_barrier
    }

    /// Whether the channel has had its last word (W-40).
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.acked
    }

    /// Takes in the next entry of this channel, sent or received.
    ///
    /// # Errors
    /// The [`Breach`] of the first rule that it breaks; the referee is of no further use then.
    pub fn observe(&mut self, entry: &Entry) -> Result<(), Breach> {
        let kind = entry.kind();
        rule(entry.channel == self.channel, 19, ErrorCode::Channel)?;
        rule(entry.generation == self.generation, 35, ErrorCode::Generation)?;
        rule(!self.acked, 37, ErrorCode::Order)?;
        if kind.sent_by(End::Consumer) && kind != Kind::Error {
            rule(!self.closed, 37, ErrorCode::Order)?;
        }
        if kind.is_sequenced() {
            rule(entry.sequence == self.sequence, 36, ErrorCode::Sequence)?;
            self.sequence = self.sequence.wrapping_add(1);
        }
        if kind.sent_by(End::Producer) && !matches!(kind, Kind::CloseAck | Kind::Error) {
            rule(!self.partition_ended, 37, ErrorCode::Order)?;
            let whole = self.slices.is_none() || !kind.is_sequenced() || kind == Kind::Data;
            rule(whole, 26, ErrorCode::Order)?;
        }
        self.observe_body(entry.body)
    }

    fn observe_body(&mut self, body: Body) -> Result<(), Breach> {
        match body {
            Body::Data(data) => return self.observe_data(data),
            Body::Barrier { checkpoint } => {
                self.observe_checkpoint(checkpoint, false)?;
                self.barriers = self.barriers.wrapping_add(1);
                self.open_barrier = Some(checkpoint);
                self.credits = 0;
            }
            Body::AbortMarker { checkpoint } => return self.observe_checkpoint(checkpoint, true),
            Body::Watermark { value } => {
                rule(self.watermark <= Some(value), 28, ErrorCode::Order)?;
                self.watermark = Some(value);
            }
            Body::Grant { credits, barriers } => return self.observe_grant(credits, barriers),
            Body::Resume { checkpoint, credits, .. } if self.open_barrier == Some(checkpoint) => {
                self.open_barrier = None;
                self.credits = u64::from(credits);
            }
            Body::EndOfData => {
                rule(!self.data_ended, 32, ErrorCode::Order)?;
                self.data_ended = true;
            }
            Body::EndOfPartition => {
                self.data_ended = true;
                self.partition_ended = true;
            }
            Body::Ask { total } => {
                rule(total > self.segment_size, 46, ErrorCode::Length)?;
                let free = self.slices.is_none() && self.open_barrier.is_none() && !self.data_ended;
                rule(free, 46, ErrorCode::Order)?;
                self.slices = Some((total, 0));
            }
            Body::Admit { total } => {
                rule(self.slices == Some((total, 0)) && !self.admitted, 47, ErrorCode::Order)?;
                self.admitted = true;
            }
            Body::Close => self.closed = true,
            Body::CloseAck => {
                rule(self.closed, 33, ErrorCode::Order)?;
                self.acked = true;
            }
            // A resume that answers no open barrier is ignored (W-31); the others change nothing.
            Body::Resume { .. } | Body::Backlog | Body::Error { .. } => {}
        }
        Ok(())
    }

    fn observe_data(&mut self, data: Data) -> Result<(), Breach> {
        rule(!self.data_ended && self.open_barrier.is_none(), 37, ErrorCode::Order)?;
        if data.is_slice(self.segment_size) {
            return self.observe_slice(data);
        }
        rule(self.slices.is_none(), 26, ErrorCode::Order)?;
        rule(self.credits > 0, 38, ErrorCode::Credit)?;
        rule(data == Data::whole(data.len, data.crc), 25, ErrorCode::Length)?;
        self.credits -= 1;
        Ok(())
    }

    /// A slice spends no credit: the region was set aside for all of them (W-47).
    fn observe_slice(&mut self, data: Data) -> Result<(), Breach> {
        rule(self.admitted, 47, ErrorCode::Credit)?;
        rule(self.slices == Some((data.total, data.offset)), 26, ErrorCode::Length)?;
        if data.is_last() {
            (self.slices, self.admitted) = (None, false);
        } else {
            self.slices = Some((data.total, data.offset + data.len));
        }
        Ok(())
    }

    /// Checkpoints ascend, but a barrier may be followed by its own abort-marker (W-27).
    fn observe_checkpoint(&mut self, checkpoint: u64, aborted: bool) -> Result<(), Breach> {
        let ascends = match self.checkpoint {
            None => true,
            Some((newest, was_aborted)) => {
                checkpoint > newest || (checkpoint == newest && aborted && !was_aborted)
            }
        };
        rule(ascends, 27, ErrorCode::Order)?;
        self.checkpoint = Some((checkpoint, aborted));
        Ok(())
    }

    /// At the producer an older grant is ignored; at the consumer, who knows better, it must not be sent (W-39).
    fn observe_grant(&mut self, credits: u32, barriers: u32) -> Result<(), Breach> {
        let counts = barriers == self.barriers && self.open_barrier.is_none();
        match self.at {
            End::Consumer => rule(counts, 39, ErrorCode::Credit)?,
            End::Producer if !counts => return Ok(()),
            End::Producer => {}
        }
        self.credits += u64::from(credits);
        Ok(())
    }
}

/// Whether a stream may end now: every channel of the link has had its last word (W-41).
///
/// # Errors
/// A [`Breach`] of W-41 if a channel is still alive: the link was lost, and the attempts on it fail (W-43).
pub fn end_of_file(channels: &[Referee]) -> Result<(), Breach> {
    rule(channels.iter().all(Referee::is_over), 41, ErrorCode::Order)
}

fn rule(kept: bool, clause: u16, code: ErrorCode) -> Result<(), Breach> {
    if kept { Ok(()) } else { Err(Breach { clause, code }) }
}
