//! The rules of a channel over time, by the referee: lawful histories pass, each breach is named by its clause.

mod common;

use proptest::prelude::*;
use tidegate_wire::referee::{Breach, Referee, end_of_file};
use tidegate_wire::{Body, Data, End, Entry, ErrorCode};

const CHANNEL: u32 = 7;
const ATTEMPT: u32 = 3;
const SEGMENT: u32 = 4096;

fn referee(at: End) -> Referee {
    Referee::new(at, CHANNEL, ATTEMPT, SEGMENT)
}

fn grant(credits: u32, barriers: u32) -> Entry {
    Entry::control(CHANNEL, ATTEMPT, Body::Grant { credits, barriers })
}

fn resume(checkpoint: u64, credits: u32) -> Entry {
    Entry::control(CHANNEL, ATTEMPT, Body::Resume { checkpoint, credits, barriers: 0 })
}

fn data(sequence: u32) -> Entry {
    Entry::data(CHANNEL, ATTEMPT, sequence, 0, Data::whole(100, 0))
}

fn slice(sequence: u32, offset: u32, len: u32, total: u32) -> Entry {
    Entry::data(CHANNEL, ATTEMPT, sequence, 0, Data { len, total, offset, crc: 0 })
}

fn ask(total: u32) -> Entry {
    Entry::control(CHANNEL, ATTEMPT, Body::Ask { total })
}

fn admit(total: u32) -> Entry {
    Entry::control(CHANNEL, ATTEMPT, Body::Admit { total })
}

fn event(sequence: u32, body: Body) -> Entry {
    Entry::sequenced(CHANNEL, ATTEMPT, sequence, body)
}

fn barrier(sequence: u32, checkpoint: u64) -> Entry {
    event(sequence, Body::Barrier { checkpoint })
}

fn abort(sequence: u32, checkpoint: u64) -> Entry {
    event(sequence, Body::AbortMarker { checkpoint })
}

fn close() -> Entry {
    Entry::control(CHANNEL, ATTEMPT, Body::Close)
}

fn lawful_at(end: End, history: &[Entry]) -> Referee {
    let mut referee = referee(end);
    for (index, entry) in history.iter().enumerate() {
        referee.observe(entry).unwrap_or_else(|breach| panic!("entry {index}, {entry:?}: {breach}"));
    }
    referee
}

/// Every entry but the last is lawful, at both ends; the last breaks this clause.
fn breaks(clause: u16, code: ErrorCode, history: &[Entry]) {
    let (last, before) = history.split_last().unwrap();
    for end in [End::Producer, End::Consumer] {
        let mut referee = lawful_at(end, before);
        assert_eq!(referee.observe(last), Err(Breach { clause, code }), "at the {end:?}: {last:?}");
    }
}

/// W-36, W-37, W-38, W-40: the whole life of a channel.
#[test]
fn a_whole_life() {
    let history = [
        Entry::backlog(CHANNEL, ATTEMPT, 3),
        grant(2, 0),
        data(0),
        event(1, Body::Watermark { value: 10 }),
        data(2),
        barrier(3, 1),
        resume(1, 1),
        data(4),
        event(5, Body::EndOfData),
        barrier(6, 2),
        resume(2, 0),
        event(7, Body::EndOfPartition),
        close(),
        event(8, Body::CloseAck),
    ];
    for end in [End::Producer, End::Consumer] {
        assert!(lawful_at(end, &history).is_over());
    }
}

/// W-35: an entry of another generation, older or newer.
#[test]
fn generations() {
    for generation in [0, ATTEMPT - 1, ATTEMPT + 1] {
        let stale = Entry { generation, ..event(0, Body::EndOfData) };
        breaks(35, ErrorCode::Generation, &[stale]);
    }
}

/// W-19: a channel that is not this one.
#[test]
fn other_channels() {
    breaks(19, ErrorCode::Channel, &[Entry { channel: CHANNEL + 1, ..close() }]);
}

/// W-36: data and events share one order; repeats, gaps and swaps are seen.
#[test]
fn sequences() {
    breaks(36, ErrorCode::Sequence, &[grant(9, 0), data(0), data(0)]);
    breaks(36, ErrorCode::Sequence, &[grant(9, 0), data(0), data(2)]);
    breaks(36, ErrorCode::Sequence, &[grant(9, 0), data(0), event(0, Body::EndOfData)]);
    breaks(36, ErrorCode::Sequence, &[data(1)]);
}

/// W-38: data spends a credit each; events spend none.
#[test]
fn credit() {
    breaks(38, ErrorCode::Credit, &[data(0)]);
    breaks(38, ErrorCode::Credit, &[grant(2, 0), data(0), data(1), data(2)]);
    assert_eq!(lawful_at(End::Consumer, &[grant(2, 0), data(0), grant(3, 0), barrier(1, 1)]).credits(), 0);
    assert_eq!(lawful_at(End::Consumer, &[grant(2, 0), data(0), grant(3, 0)]).credits(), 4);
}

/// W-25, W-47: a payload longer than the agreed segment is a slice, and no credit pays for it; a part of a record that would
/// fit is nothing at all.
#[test]
fn payloads_fit_the_agreed_segment() {
    breaks(47, ErrorCode::Credit, &[grant(1, 0), slice(0, 0, SEGMENT + 1, SEGMENT + 1)]);
    breaks(25, ErrorCode::Length, &[grant(1, 0), slice(0, 0, SEGMENT - 1, SEGMENT)]);
    lawful_at(End::Consumer, &[ask(SEGMENT + 1), admit(SEGMENT + 1), slice(0, 0, SEGMENT + 1, SEGMENT + 1)]);
}

/// W-27, W-37, W-39: a barrier voids what was granted and stops data until its own resume.
#[test]
fn barriers_void_credit() {
    breaks(37, ErrorCode::Order, &[grant(9, 0), barrier(0, 1), data(1)]);
    breaks(37, ErrorCode::Order, &[grant(9, 0), barrier(0, 2), resume(1, 5), data(1)]);
    breaks(38, ErrorCode::Credit, &[grant(9, 0), barrier(0, 1), resume(1, 0), data(1)]);
    breaks(38, ErrorCode::Credit, &[grant(9, 0), barrier(0, 1), resume(1, 1), data(1), data(2)]);
    // A newer barrier before the resume of the older: only the newer's resume counts (W-31).
    breaks(37, ErrorCode::Order, &[barrier(0, 1), barrier(1, 2), resume(1, 5), data(2)]);
    lawful_at(End::Producer, &[barrier(0, 1), barrier(1, 2), resume(1, 5), resume(2, 1), data(2)]);
    // An abort-marker voids nothing and stops nothing.
    lawful_at(End::Producer, &[grant(2, 0), abort(0, 1), data(1)]);
}

/// W-30, W-39: a grant that crossed a barrier is ignored by the producer; the consumer must not make one that late.
#[test]
fn grants_that_crossed_a_barrier() {
    let mut producer = lawful_at(End::Producer, &[barrier(0, 1), grant(5, 0), resume(1, 1)]);
    assert_eq!(producer.credits(), 1);
    producer.observe(&grant(5, 0)).unwrap();
    assert_eq!(producer.credits(), 1, "its count is that of before the barrier");
    producer.observe(&grant(5, 1)).unwrap();
    assert_eq!(producer.credits(), 6);

    let breach = Err(Breach { clause: 39, code: ErrorCode::Credit });
    assert_eq!(lawful_at(End::Consumer, &[barrier(0, 1)]).observe(&grant(5, 1)), breach);
    assert_eq!(lawful_at(End::Consumer, &[barrier(0, 1), resume(1, 0)]).observe(&grant(5, 0)), breach);
}

/// W-27: checkpoints ascend; a barrier may be followed by its own abort-marker.
#[test]
fn checkpoints_ascend() {
    lawful_at(End::Consumer, &[barrier(0, 1), abort(1, 1), abort(2, 4), barrier(3, 9)]);
    breaks(27, ErrorCode::Order, &[barrier(0, 5), barrier(1, 5)]);
    breaks(27, ErrorCode::Order, &[barrier(0, 5), abort(1, 4)]);
    breaks(27, ErrorCode::Order, &[abort(0, 5), barrier(1, 5)]);
    breaks(27, ErrorCode::Order, &[abort(0, 5), abort(1, 5)]);
}

/// W-28: watermarks never go back.
#[test]
fn watermarks_ascend() {
    let watermark = |sequence, value| event(sequence, Body::Watermark { value });
    lawful_at(End::Consumer, &[watermark(0, i64::MIN), watermark(1, -1), watermark(2, -1), watermark(3, 7)]);
    breaks(28, ErrorCode::Order, &[watermark(0, 7), watermark(1, 6)]);
}

/// W-29: a backlog is a statement, in no order, and costs nothing.
#[test]
fn backlogs_change_nothing() {
    let backlog = Entry::backlog(CHANNEL, ATTEMPT, u16::MAX);
    lawful_at(End::Consumer, &[backlog, barrier(0, 1), backlog, backlog, barrier(1, 2)]);
}

/// W-26: the slices of a record follow each other and fill it.
#[test]
fn slices() {
    let asked = [grant(1, 0), ask(9000), admit(9000)];
    let first = [&asked[..], &[slice(0, 0, 4000, 9000), slice(1, 4000, 4000, 9000)]].concat();
    let whole = [&first[..], &[slice(2, 8000, 1000, 9000), data(3)]].concat();
    assert_eq!(lawful_at(End::Consumer, &whole).credits(), 0, "slices spend none");

    // Another total, an overlap, a gap, another record in the middle, and a first slice that is none.
    for wrong in [slice(2, 8000, 1000, 9999), slice(2, 4000, 4000, 9000), slice(2, 8500, 500, 9000)] {
        breaks(26, ErrorCode::Length, &[&first[..], &[wrong]].concat());
    }
    breaks(26, ErrorCode::Length, &[&first[..], &[slice(2, 0, 5000, 5000)]].concat());
    breaks(26, ErrorCode::Length, &[&asked[..], &[slice(0, 4000, 4000, 9000)]].concat());
    for other in [data(2), barrier(2, 1), abort(2, 1), event(2, Body::EndOfData)] {
        breaks(26, ErrorCode::Order, &[&first[..], &[other]].concat());
        let other = Entry { sequence: 0, ..other };
        breaks(26, ErrorCode::Order, &[&asked[..2], &[other]].concat());
    }
}

/// W-46: what may be asked for, and when.
#[test]
fn asks() {
    breaks(46, ErrorCode::Length, &[ask(SEGMENT)]);
    breaks(46, ErrorCode::Order, &[ask(9000), ask(9000)]);
    breaks(46, ErrorCode::Order, &[ask(9000), admit(9000), slice(0, 0, 4000, 9000), ask(5000)]);
    breaks(46, ErrorCode::Order, &[barrier(0, 1), ask(9000)]);
    breaks(46, ErrorCode::Order, &[event(0, Body::EndOfData), ask(9000)]);
    breaks(37, ErrorCode::Order, &[event(0, Body::EndOfPartition), ask(9000)]);
    lawful_at(End::Consumer, &[barrier(0, 1), resume(1, 0), ask(9000), close(), event(1, Body::CloseAck)]);
}

/// W-47: an admit answers an ask, once and for its total, and without one no slice comes.
#[test]
fn admits() {
    breaks(47, ErrorCode::Order, &[admit(9000)]);
    breaks(47, ErrorCode::Order, &[ask(9000), admit(9001)]);
    breaks(47, ErrorCode::Order, &[ask(9000), admit(9000), admit(9000)]);
    breaks(37, ErrorCode::Order, &[ask(9000), close(), admit(9000)]);
    breaks(47, ErrorCode::Credit, &[grant(9, 0), slice(0, 0, 4000, 9000)]);
    breaks(47, ErrorCode::Credit, &[grant(9, 0), ask(9000), slice(0, 0, 4000, 9000)]);
    let one = [ask(5000), admit(5000), slice(0, 0, 5000, 5000)];
    breaks(47, ErrorCode::Credit, &[&one[..], &[slice(1, 0, 5000, 5000)]].concat());
}

/// W-32, W-37: what may follow the ends.
#[test]
fn ends() {
    let end_of_data = event(0, Body::EndOfData);
    breaks(37, ErrorCode::Order, &[grant(1, 0), end_of_data, data(1)]);
    breaks(32, ErrorCode::Order, &[end_of_data, event(1, Body::EndOfData)]);
    let end = event(0, Body::EndOfPartition);
    let backlog = Entry::backlog(CHANNEL, ATTEMPT, 1);
    for late in [barrier(1, 1), event(1, Body::EndOfData), event(1, Body::EndOfPartition), data(1), backlog] {
        breaks(37, ErrorCode::Order, &[grant(1, 0), end, late]);
    }
}

/// W-33, W-37, W-40: closing; late data is counted and checked as ever, and close-ack is the last word.
#[test]
fn closing() {
    let history = [grant(2, 0), data(0), close(), data(1), event(2, Body::CloseAck)];
    for end in [End::Producer, End::Consumer] {
        assert!(lawful_at(end, &history).is_over());
    }
    breaks(38, ErrorCode::Credit, &[grant(1, 0), close(), data(0), data(1)]);
    breaks(36, ErrorCode::Sequence, &[grant(1, 0), data(0), close(), event(0, Body::CloseAck)]);
    breaks(33, ErrorCode::Order, &[event(0, Body::CloseAck)]);
    for late in [grant(1, 0), resume(1, 1), close()] {
        breaks(37, ErrorCode::Order, &[close(), late]);
    }
    for late in [
        data(3),
        close(),
        event(3, Body::CloseAck),
        Entry::control(CHANNEL, ATTEMPT, Body::Error { code: 1, detail: 0 }),
    ] {
        breaks(37, ErrorCode::Order, &[&history[..], &[late]].concat());
    }
    // Closing in the middle of a record: its rest never comes.
    lawful_at(
        End::Consumer,
        &[ask(9000), admit(9000), slice(0, 0, 4000, 9000), close(), event(1, Body::CloseAck)],
    );
}

/// W-34, W-42: an error of one channel is no breach, and no last word.
#[test]
fn errors_of_one_channel() {
    let error =
        Entry::control(CHANNEL, ATTEMPT, Body::Error { code: ErrorCode::Cancelled as u16, detail: 0 });
    lawful_at(End::Consumer, &[error, close(), error, event(0, Body::CloseAck)]);
}

/// W-43: a new attempt is a new generation, whose entries the old channel refuses and the new one takes from 0.
#[test]
fn a_new_attempt_starts_afresh() {
    let entry = Entry { generation: ATTEMPT + 1, ..event(0, Body::EndOfData) };
    assert_eq!(referee(End::Consumer).observe(&entry).unwrap_err().clause, 35);
    Referee::new(End::Consumer, CHANNEL, ATTEMPT + 1, SEGMENT).observe(&entry).unwrap();
}

/// W-41: the stream ends when every channel has had its last word, and not before.
#[test]
fn end_of_the_link() {
    let over = lawful_at(End::Consumer, &[close(), event(0, Body::CloseAck)]);
    let closing = lawful_at(End::Consumer, &[close()]);
    assert_eq!(end_of_file(&[over.clone(), over.clone()]), Ok(()));
    assert_eq!(end_of_file(&[over, closing]), Err(Breach { clause: 41, code: ErrorCode::Order }));
}

/// W-45: whatever comes while nothing is delivered, events do not pile up, and the newest of each survives.
#[test]
fn undelivered_events_are_replaced() {
    let mut undelivered: Vec<Body> = Vec::new();
    let mut receive = |body: Body| {
        let payload =
            undelivered.iter().rposition(|body| matches!(body, Body::Data(_))).map_or(0, |at| at + 1);
        let reach = if matches!(body, Body::Watermark { .. }) { payload } else { 0 };
        let mut at = 0;
        undelivered.retain(|old| {
            at += 1;
            at <= reach || !body.replaces(old)
        });
        undelivered.push(body);
        undelivered.len()
    };
    for round in 1..100 {
        receive(Body::Watermark { value: round });
        receive(Body::Barrier { checkpoint: round as u64 });
        receive(Body::Watermark { value: round });
        assert!(receive(Body::AbortMarker { checkpoint: round as u64 }) <= 2);
    }
    receive(Body::Data(Data::whole(1, 0)));
    receive(Body::Watermark { value: 100 });
    receive(Body::Watermark { value: 101 });
    receive(Body::AbortMarker { checkpoint: 100 });
    receive(Body::EndOfData);
    receive(Body::Barrier { checkpoint: 101 });
    receive(Body::EndOfPartition);
    let expected = [
        Body::Watermark { value: 99 },
        Body::Data(Data::whole(1, 0)),
        Body::Watermark { value: 101 },
        Body::EndOfData,
        Body::Barrier { checkpoint: 101 },
        Body::EndOfPartition,
    ];
    assert_eq!(undelivered, expected);
}

proptest! {
    #![proptest_config(common::config(256))]

    /// W-31, W-36, W-38, W-39: a producer and a consumer that keep the rules, with entries crossing on the way, are never
    /// called out by a referee at either end, and the producer never believes to have more credit than the consumer holds.
    #[test]
    fn lawful_ends_are_never_called_out(choices in proptest::collection::vec((0..6_u8, 1..5_u32), 1..200)) {
        let mut pair = Pair::new();
        for (choice, amount) in choices {
            match choice {
                0 => pair.grant(amount),
                1 => pair.barrier(),
                2 => pair.resume(amount),
                3 => pair.deliver_to_consumer(),
                4 => pair.deliver_to_producer(),
                _ => pair.data(),
            }
            prop_assert!(pair.producer.credits() <= pair.consumer.credits());
        }
    }
}

/// Two lawful ends and what is on the way between them.
struct Pair {
    producer: Referee,
    consumer: Referee,
    down: std::collections::VecDeque<Entry>,
    up: std::collections::VecDeque<Entry>,
    sequence: u32,
    checkpoint: u64,
    /// Barriers that the consumer has received.
    barriers: u32,
}

impl Pair {
    fn new() -> Self {
        Self {
            producer: referee(End::Producer),
            consumer: referee(End::Consumer),
            down: Default::default(),
            up: Default::default(),
            sequence: 0,
            checkpoint: 0,
            barriers: 0,
        }
    }

    fn send_down(&mut self, entry: Entry) {
        self.producer.observe(&entry).unwrap();
        self.down.push_back(entry);
        self.sequence += 1;
    }

    fn send_up(&mut self, entry: Entry) {
        self.consumer.observe(&entry).unwrap();
        self.up.push_back(entry);
    }

    fn data(&mut self) {
        if self.producer.credits() > 0 && self.producer.open_barrier().is_none() {
            self.send_down(data(self.sequence));
        }
    }

    fn barrier(&mut self) {
        self.checkpoint += 1;
        self.send_down(barrier(self.sequence, self.checkpoint));
    }

    fn grant(&mut self, credits: u32) {
        if self.consumer.open_barrier().is_none() {
            self.send_up(grant(credits, self.barriers));
        }
    }

    fn resume(&mut self, credits: u32) {
        if let Some(checkpoint) = self.consumer.open_barrier() {
            self.send_up(resume(checkpoint, credits));
        }
    }

    fn deliver_to_consumer(&mut self) {
        if let Some(entry) = self.down.pop_front() {
            self.consumer.observe(&entry).unwrap();
            self.barriers += u32::from(matches!(entry.body, Body::Barrier { .. }));
        }
    }

    fn deliver_to_producer(&mut self) {
        if let Some(entry) = self.up.pop_front() {
            self.producer.observe(&entry).unwrap();
        }
    }
}
