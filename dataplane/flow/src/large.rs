//! Records larger than a segment: asked for, admitted to a region of the consumer, and sent in slices (W-26, W-46, W-47).
//!
//! Why this cannot deadlock. A region is contiguous, so it is the one thing that a record waits for while it holds another:
//! it lies in the region of its partition until it was sent, and waits for that of a gate. Four rules keep every wait finite:
//!
//! 1. A record is whole in its partition's region before it is asked for, and is asked for only as the next thing of a
//!    channel that no alignment stops. So an admitted record needs nothing more but the link, on which receiving never
//!    depends on sending (R5): no admitted record waits for credit, for a task, or for another channel's barrier.
//! 2. A gate's region is freed by the gate's own task reading the record. The record is the front of its channel, and that
//!    channel is open (1), so the task reads it as soon as it is stepped.
//! 3. A task is stepped when each of its partitions' regions is empty (R4): it never holds a record that was half read while
//!    the room for its outputs depends on that reading. These regions are emptied by gates further down the graph only.
//! 4. Partitions and gates have regions of their own, reserved before the task starts (R3): with one for a whole slot, the
//!    task upstream could fill it while the task downstream, in the same slot, needs it to empty the gate that the first
//!    one waits for. With one for each, waiting follows the edges of the graph, which is acyclic (R2).
//!
//! Other channels go on meanwhile: a train has at most one slice, behind the payloads of the channels that came before, and
//! slices spend no credit. Local channels hand the partition's region over as it is; 2 to 4 hold for them as well.
//!
//! State, at either end: nothing, asked, or admitted up to `next` < `total`; `segment size < total ≤ limit`.

use tidegate_wire::{Body, Data, Entry, Kind};

use crate::error::Violation;

/// How far a channel's record is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// There is none.
    #[default]
    Idle,
    Asked {
        total: u32,
    },
    Admitted {
        total: u32,
        next: u32,
    },
}

/// The producer's side of one channel.
#[derive(Debug)]
pub struct SendLarge {
    channel: u32,
    state: State,
}

impl SendLarge {
    /// A channel that has asked for nothing; `channel` is its number in the job, for messages.
    pub fn new(channel: u32) -> Self {
        Self { channel, state: State::Idle }
    }

    /// True if the record at the front must be asked for.
    pub fn must_ask(&self) -> bool {
        self.state == State::Idle
    }

    /// True if slices may be sent.
    pub fn admitted(&self) -> bool {
        matches!(self.state, State::Admitted { .. })
    }

    /// The record at the front, of `total` bytes, is asked for.
    ///
    /// # Panics
    /// If the one before has not been sent.
    pub fn ask(&mut self, total: u32) -> Body {
        assert_eq!(self.state, State::Idle, "channel {} asks for two records", self.channel);
        self.state = State::Asked { total };
        Body::Ask { total }
    }

    /// The consumer has a region for it.
    ///
    /// # Errors
    /// [`Violation::Unexpected`] if it answers no ask, or another one.
    pub fn handle_admit(&mut self, total: u32) -> Result<(), Violation> {
        if self.state != (State::Asked { total }) {
            return Err(Violation::Unexpected { channel: self.channel, kind: Kind::Admit as u8 });
        }
        self.state = State::Admitted { total, next: 0 };
        Ok(())
    }

    /// Where the next slice starts and how long it is, at most `most` bytes; and whether it is the last.
    ///
    /// # Panics
    /// If [`admitted`](Self::admitted) is false.
    pub fn take(&mut self, most: u32) -> (u32, u32, bool) {
        let State::Admitted { total, next } = self.state else {
            panic!("channel {} sends a slice that was not admitted", self.channel)
        };
        let len = most.min(total - next);
        let last = next + len == total;
        self.state = if last { State::Idle } else { State::Admitted { total, next: next + len } };
        (next, len, last)
    }
}

/// The consumer's side of one channel.
#[derive(Debug)]
pub struct ReceiveLarge {
    channel: u32,
    segment_size: u32,
    limit: u32,
    state: State,
}

impl ReceiveLarge {
    /// A channel that was asked for nothing. Records of more than `segment_size` bytes need a region, which holds `limit`.
    pub fn new(channel: u32, segment_size: u32, limit: u32) -> Self {
        Self { channel, segment_size, limit, state: State::Idle }
    }

    /// True from the admit to the last slice: the region is the channel's.
    pub fn admitted(&self) -> bool {
        matches!(self.state, State::Admitted { .. })
    }

    /// Checks an entry of the channel that was announced; `stopped` between a barrier and its resume.
    ///
    /// # Errors
    /// [`Violation::RecordTooLarge`], [`Violation::NotAdmitted`], [`Violation::OutOfPlace`], or [`Violation::Unexpected`] for
    /// what may not come between ask and last slice.
    pub fn handle(&mut self, entry: &Entry, stopped: bool) -> Result<(), Violation> {
        let unexpected = Violation::Unexpected { channel: self.channel, kind: entry.kind() as u8 };
        match entry.body {
            Body::Ask { total } if total <= self.segment_size || total > self.limit => {
                Err(Violation::RecordTooLarge { channel: self.channel, limit: self.limit, found: total })
            }
            Body::Ask { .. } if stopped || self.state != State::Idle => Err(unexpected),
            Body::Ask { total } => {
                self.state = State::Asked { total };
                Ok(())
            }
            Body::Data(data) if data.is_slice(self.segment_size) => self.handle_slice(data),
            Body::Data(data) => {
                if self.state != State::Idle {
                    return Err(unexpected);
                }
                self.check_place((data.len, 0), data)
            }
            // The last word: what is missing never comes.
            Body::CloseAck => Ok(()),
            _ if entry.kind().is_sequenced() && self.state != State::Idle => Err(unexpected),
            _ => Ok(()),
        }
    }

    fn handle_slice(&mut self, data: Data) -> Result<(), Violation> {
        let State::Admitted { total, next } = self.state else {
            return Err(Violation::NotAdmitted { channel: self.channel, found: data.total });
        };
        self.check_place((total, next), data)?;
        self.state =
            if data.is_last() { State::Idle } else { State::Admitted { total, next: next + data.len } };
        Ok(())
    }

    fn check_place(&self, expected: (u32, u32), data: Data) -> Result<(), Violation> {
        let found = (data.total, data.offset);
        if found == expected {
            Ok(())
        } else {
            Err(Violation::OutOfPlace { channel: self.channel, expected, found })
        }
    }

    /// A region was set aside for the record that was asked for. Returns its bytes.
    ///
    /// # Panics
    /// If none was.
    pub fn admit(&mut self) -> u32 {
        let State::Asked { total } = self.state else {
            panic!("channel {} is admitted without an ask", self.channel)
        };
        self.state = State::Admitted { total, next: 0 };
        total
    }

    /// The channel is closed: nothing more of a record comes. Returns whether the region was its own.
    pub fn close(&mut self) -> bool {
        matches!(std::mem::take(&mut self.state), State::Admitted { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u32 = 4096;

    fn slice(len: u32, total: u32, offset: u32) -> Entry {
        Entry::data(7, 1, 0, 0, Data { len, total, offset, crc: 0 })
    }

    fn admitted(total: u32) -> ReceiveLarge {
        let mut receive = ReceiveLarge::new(7, SEGMENT, 1 << 20);
        receive.handle(&Entry::control(7, 1, Body::Ask { total }), false).expect("lawful");
        assert_eq!(receive.admit(), total);
        receive
    }

    #[test]
    fn a_record_goes_from_ask_to_last_slice() {
        let (mut send, mut receive) = (SendLarge::new(7), ReceiveLarge::new(7, SEGMENT, 1 << 20));
        for total in [SEGMENT + 1, 9000, 1 << 20] {
            assert!(send.must_ask());
            let ask = send.ask(total);
            receive.handle(&Entry::control(7, 1, ask), false).expect("lawful");
            assert!(!send.admitted() && !receive.admitted());
            send.handle_admit(receive.admit()).expect("it was asked for");
            loop {
                let (offset, len, last) = send.take(5000);
                receive.handle(&slice(len, total, offset), false).expect("lawful");
                assert_eq!(last, !receive.admitted());
                if last {
                    break;
                }
            }
        }
    }

    #[test]
    fn slices_are_refused_by_name() {
        let mut idle = ReceiveLarge::new(7, SEGMENT, 1 << 20);
        let refused = idle.handle(&slice(4000, 9000, 0), false);
        assert_eq!(refused, Err(Violation::NotAdmitted { channel: 7, found: 9000 }));
        for (wrong, found) in [
            (slice(4000, 9001, 4000), (9001, 4000)),
            (slice(4000, 9000, 0), (9000, 0)),
            (slice(1000, 9000, 8000), (9000, 8000)),
        ] {
            let mut receive = admitted(9000);
            receive.handle(&slice(4000, 9000, 0), false).expect("the first slice");
            let expected = (9000, 4000);
            assert_eq!(
                receive.handle(&wrong, false),
                Err(Violation::OutOfPlace { channel: 7, expected, found })
            );
        }
    }

    #[test]
    fn nothing_comes_between_ask_and_last_slice() {
        let small = Entry::data(7, 1, 0, 0, Data::whole(8, 0));
        let barrier = Entry::sequenced(7, 1, 0, Body::Barrier { checkpoint: 1 });
        let ask = Entry::control(7, 1, Body::Ask { total: 5000 });
        for entry in [small, barrier, ask] {
            let unexpected = Err(Violation::Unexpected { channel: 7, kind: entry.kind() as u8 });
            assert_eq!(admitted(9000).handle(&entry, false), unexpected);
        }
        let mut receive = admitted(9000);
        receive.handle(&Entry::backlog(7, 1, 4), false).expect("a backlog has no place in the order");
        receive.handle(&Entry::sequenced(7, 1, 0, Body::CloseAck), false).expect("the last word");
        assert!(receive.close() && !receive.admitted());
    }

    #[test]
    fn asks_have_bounds_and_their_time() {
        let ask = |total| Entry::control(7, 1, Body::Ask { total });
        let mut receive = ReceiveLarge::new(7, SEGMENT, 9000);
        for found in [1, SEGMENT, 9001] {
            let refused = Err(Violation::RecordTooLarge { channel: 7, limit: 9000, found });
            assert_eq!(receive.handle(&ask(found), false), refused);
        }
        let early = receive.handle(&ask(9000), true);
        assert_eq!(early, Err(Violation::Unexpected { channel: 7, kind: Kind::Ask as u8 }));
        receive.handle(&ask(9000), false).expect("the channel flows");
    }

    #[test]
    fn an_admit_answers_its_ask() {
        let unexpected = Err(Violation::Unexpected { channel: 7, kind: Kind::Admit as u8 });
        let mut send = SendLarge::new(7);
        assert_eq!(send.handle_admit(9000), unexpected);
        send.ask(9000);
        assert_eq!(send.handle_admit(9001), unexpected);
        send.handle_admit(9000).expect("it answers");
        assert_eq!(send.handle_admit(9000), unexpected);
    }
}
