//! Our end consumes; the stranger sends trains.
//!
//! The stranger keeps the books of a producer ([`Book`]) to know what would be lawful. [`Judge`] reads the bytes that were
//! sent, with the wire crate's parser and referee, and says what has to become of them.
//!
//! Two things it cannot know from outside, and so lets pass either way: whether credit, or the resume of a barrier, was
//! given before the data arrived that was sent without having heard of it.

use std::collections::VecDeque;

use tidegate_exchange::{Buffer, GateItem, GatePlan, TaskPorts};
use tidegate_wire::referee::Referee;
use tidegate_wire::{Body, Data, End, Entry, LINK, Parsed, parse, payload_crc};

use super::bench::{ATTEMPT, Bench, CHANNELS, SEGMENT, channel_plans, referees};
use crate::script::Script;

/// What the stranger knows of a channel.
#[derive(Default)]
struct Book {
    sequence: u32,
    credits: u64,
    checkpoint: u64,
    blocked: bool,
    data_ended: bool,
    ended: bool,
    closed: bool,
    acked: bool,
}

/// What has to become of the bytes that were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// They are taken.
    Lawful,
    /// They may be taken or refused.
    Either,
    /// They are refused.
    Offence,
}

/// What is to be delivered of the open train, in order.
enum Due {
    /// A payload of a channel.
    Payload(usize, Data),
    /// An entry that ends the link when its turn comes.
    LastWords,
}

struct Judge {
    referees: [Referee; 2],
    verdict: Verdict,
    /// Nothing behind `at` counts: the link has ended there.
    over: bool,
    /// Bytes of `sent` that were judged.
    at: usize,
    trains: u64,
    due: VecDeque<Due>,
    /// What the task must read, by channel.
    expected: [Vec<u8>; 2],
}

impl Judge {
    /// The first verdict that is not lawful stands: what follows a doubt is doubtful.
    fn worsen(&mut self, verdict: Verdict) {
        if self.verdict == Verdict::Lawful {
            self.verdict = verdict;
        }
    }

    fn refuse(&mut self) {
        self.worsen(Verdict::Offence);
        self.over = true;
    }

    /// Our end granted, resumed or closed.
    fn heard(&mut self, entry: &Entry) {
        if let Some(at) = CHANNELS.iter().position(|channel| *channel == entry.channel) {
            let observed = self.referees[at].observe(entry);
            assert!(
                observed.is_ok() || self.verdict != Verdict::Lawful,
                "our end: {observed:?} at {entry:?}"
            );
        }
    }

    /// Reads on in what was sent, as far as it goes.
    fn read(&mut self, sent: &[u8]) {
        while !self.over {
            let rest = &sent[self.at..];
            match self.due.front() {
                Some(Due::LastWords) => self.refuse(),
                Some(&Due::Payload(channel, data)) => {
                    let Some(payload) = rest.get(..data.len as usize) else { return };
                    if payload_crc(payload) != data.crc {
                        return self.refuse();
                    }
                    self.expected[channel].extend_from_slice(payload);
                    self.due.pop_front();
                    self.at += payload.len();
                }
                None => match parse(rest) {
                    Ok(Parsed::Incomplete { .. }) => return,
                    Ok(Parsed::Complete(manifest))
                        if manifest.check_train(self.trains).is_ok()
                            && manifest.check_sender(End::Producer).is_ok() =>
                    {
                        self.at += manifest.len();
                        self.trains += 1;
                        manifest.entries().for_each(|entry| self.entry(&entry));
                    }
                    _ => self.refuse(),
                },
            }
        }
    }

    fn entry(&mut self, entry: &Entry) {
        if let Body::Error { .. } = entry.body {
            return self.due.push_back(Due::LastWords);
        }
        let Some(at) = CHANNELS.iter().position(|channel| *channel == entry.channel) else {
            return self.refuse();
        };
        if self.verdict == Verdict::Lawful {
            let doubtful = self.referees[at].open_barrier().is_some();
            match self.referees[at].observe(entry) {
                Ok(()) => {}
                Err(breach) if breach.clause == 38 || (breach.clause == 37 && doubtful) => {
                    self.worsen(Verdict::Either);
                }
                // Our end refuses a watermark when its turn comes, without asking whether it ascends.
                Err(breach) if breach.clause == 28 => {}
                Err(_) => return self.refuse(),
            }
        }
        match entry.body {
            // Without a region: a record in slices, and asking for one; not of this version: event time.
            Body::Data(data) if data != Data::whole(data.len, data.crc) || data.len > SEGMENT => {
                self.refuse()
            }
            Body::Ask { .. } => self.refuse(),
            Body::Data(data) => self.due.push_back(Due::Payload(at, data)),
            Body::Watermark { .. } => self.due.push_back(Due::LastWords),
            _ => {}
        }
    }
}

/// What our task holds and has read.
#[derive(Default)]
pub struct Reader {
    held: Vec<Buffer>,
    aligned: Option<u64>,
    /// The bytes, by channel.
    pub read: [Vec<u8>; 2],
}

impl Reader {
    /// Takes an item of the gate. False if there is none.
    pub fn poll(&mut self, bench: &mut Bench) -> bool {
        let gate = bench.ids.gate.expect("the task has a gate");
        let arena = bench.slot.ports.arena().clone();
        match bench.slot.ports.input(gate).poll() {
            None => return false,
            Some(GateItem::Data(buffer)) => {
                self.read[buffer.channel() as usize].extend_from_slice(buffer.bytes(&arena));
                self.held.push(buffer);
            }
            Some(GateItem::Aligned { checkpoint, .. }) => self.aligned = Some(checkpoint),
            Some(GateItem::Aborted { .. } | GateItem::EndOfData | GateItem::EndOfPartition) => {}
        }
        true
    }

    /// Gives back what it holds. False if that is nothing.
    pub fn release(&mut self, bench: &mut Bench) -> bool {
        let gate = bench.ids.gate.expect("the task has a gate");
        let any = !self.held.is_empty();
        for buffer in self.held.drain(..) {
            bench.slot.ports.input(gate).release(buffer);
        }
        any
    }

    fn resume(&mut self, bench: &mut Bench) -> bool {
        let gate = bench.ids.gate.expect("the task has a gate");
        let Some(checkpoint) = self.aligned.take() else { return false };
        bench.slot.ports.input(gate).resume(checkpoint);
        true
    }
}

/// Plays the script against our consumer, and judges.
pub fn attacked(script: &mut Script<'_>) {
    let gate = GatePlan { name: "gate".into(), channels: channel_plans() };
    let mut bench =
        Bench::new(TaskPorts { task: 0, gate: Some(gate), partitions: Vec::new() }, End::Consumer);
    let mut judge = Judge {
        referees: referees(End::Producer),
        verdict: Verdict::Lawful,
        over: false,
        at: 0,
        trains: 0,
        due: VecDeque::new(),
        expected: Default::default(),
    };
    let mut books: [Book; 2] = Default::default();
    let mut reader = Reader::default();
    while let Some(step) = script.next() {
        match step % 16 {
            0..=5 => {
                listen(&mut bench, &mut judge, &mut books);
                build(script, &mut bench, &mut books);
                if step & 0x80 == 0 {
                    bench.send(usize::MAX);
                }
            }
            6 => bench.outbox.extend((0..script.byte()).map(|_| script.byte())),
            7 => bench.repeat_train(),
            8 => bench.train = bench.train.wrapping_add(u64::from(script.byte())),
            9 => {
                let count = usize::from(script.byte());
                bench.send(count);
            }
            10 => bench.send(usize::MAX),
            11 => {
                let at = usize::from(u16::from_le_bytes([script.byte(), script.byte()]));
                if let Some(byte) = bench.outbox.get_mut(at / 8) {
                    *byte ^= 1 << (at % 8);
                }
            }
            12 => drop(reader.poll(&mut bench)),
            13 => drop(reader.release(&mut bench)),
            14 => drop(reader.resume(&mut bench)),
            _ if step & 0xF0 == 0xF0 => bench.hang_up(),
            _ => drop(bench.turn()),
        }
        if step & 0x40 != 0 {
            bench.turn();
        }
        judge.read(&bench.sent);
    }
    bench.settle(|bench| {
        let mut moved = listen(bench, &mut judge, &mut books);
        while reader.poll(bench) {
            moved = true;
        }
        moved | reader.release(bench) | reader.resume(bench)
    });
    judged(&mut bench, &mut judge, &reader);
    bench.end();
}

/// Takes in what our end said. False if that was nothing.
fn listen(bench: &mut Bench, judge: &mut Judge, books: &mut [Book; 2]) -> bool {
    judge.read(&bench.sent);
    let said = bench.hear(End::Consumer);
    for (entry, _) in &said {
        judge.heard(entry);
        let Some(at) = CHANNELS.iter().position(|channel| *channel == entry.channel) else { continue };
        let book = &mut books[at];
        match entry.body {
            Body::Grant { credits, .. } if !book.blocked => book.credits += u64::from(credits),
            Body::Resume { checkpoint, credits, .. } if checkpoint == book.checkpoint && book.blocked => {
                (book.blocked, book.credits) = (false, credits.into());
            }
            Body::Close => book.closed = true,
            _ => {}
        }
    }
    !said.is_empty()
}

/// One train of up to eight entries into the outbox.
fn build(script: &mut Script<'_>, bench: &mut Bench, books: &mut [Book; 2]) {
    let (mut entries, mut payloads) = (Vec::new(), Vec::new());
    for _ in 0..1 + script.byte() % 8 {
        let (what, how) = (script.byte(), script.byte());
        let at = usize::from(what >> 7);
        let abuse = how & 0x80 != 0;
        let book = &mut books[at];
        let Some(body) = lawful_body(what % 8, how, book, abuse, &mut payloads) else {
            entries.push(Entry::backlog(CHANNELS[at], ATTEMPT, how.into()));
            continue;
        };
        let mut entry = match body {
            Body::Data(data) => Entry::data(CHANNELS[at], ATTEMPT, book.sequence, how.into(), data),
            Body::Error { code, detail } => Entry::link_error(code, detail),
            Body::Grant { .. } => Entry::control(CHANNELS[at], ATTEMPT, body),
            _ => Entry::sequenced(CHANNELS[at], ATTEMPT, book.sequence, body),
        };
        if entry.kind().is_sequenced() {
            book.sequence = book.sequence.wrapping_add(1);
        }
        if abuse && entry.channel != LINK {
            match how % 8 {
                0 if entry.kind().is_sequenced() => entry.sequence = entry.sequence.wrapping_add(1),
                1 => entry.generation -= 1,
                2 => entry.channel += 1,
                3 if entry.kind().is_sequenced() => entry.sequence = entry.sequence.wrapping_sub(1),
                _ => {}
            }
        }
        entries.push(entry);
    }
    bench.push_train(&entries, &payloads);
}

/// What the stranger says next on a channel; `None` where only a backlog is lawful.
fn lawful_body(what: u8, how: u8, book: &mut Book, abuse: bool, payloads: &mut Vec<u8>) -> Option<Body> {
    if book.acked && !abuse {
        return None;
    }
    if book.ended && !abuse {
        book.acked = book.closed;
        return book.closed.then_some(Body::CloseAck);
    }
    match what {
        0..=2 => {
            let lawful = book.credits > 0 && !book.blocked && !book.data_ended;
            if !lawful && !abuse {
                return None;
            }
            book.credits = book.credits.saturating_sub(1);
            let len = match how & 0x7F {
                0x7F => SEGMENT,
                0x7E if abuse => SEGMENT + 1,
                short => 1 + u32::from(short),
            };
            let first = book.sequence.wrapping_mul(31) as u8;
            let payload: Vec<u8> = (0..len).map(|at| first.wrapping_add(at as u8)).collect();
            let mut data = Data::whole(len, payload_crc(&payload));
            match how % 8 {
                4 if abuse => data.crc ^= 1,
                5 if abuse => data.total += 1,
                _ => {}
            }
            payloads.extend_from_slice(&payload);
            Some(Body::Data(data))
        }
        3 => {
            book.checkpoint = (book.checkpoint + 1).saturating_sub(u64::from(abuse) * u64::from(how & 3));
            (book.blocked, book.credits) = (true, 0);
            Some(Body::Barrier { checkpoint: book.checkpoint })
        }
        4 => {
            // Alone, a marker ascends, too; behind the barrier of its own checkpoint it need not.
            book.checkpoint += u64::from(!abuse && !book.blocked);
            Some(Body::AbortMarker { checkpoint: book.checkpoint })
        }
        5 if abuse => match how % 4 {
            0 => Some(Body::Watermark { value: how.into() }),
            1 => Some(Body::Error { code: u16::from(how) | 1, detail: 0 }),
            2 => Some(Body::Grant { credits: 1, barriers: 0 }),
            _ => Some(Body::CloseAck),
        },
        6 if abuse || !book.data_ended => {
            book.data_ended = true;
            Some(Body::EndOfData)
        }
        7 if abuse || how & 3 == 0 => {
            (book.data_ended, book.ended) = (true, true);
            Some(Body::EndOfPartition)
        }
        _ => None,
    }
}

fn judged(bench: &mut Bench, judge: &mut Judge, reader: &Reader) {
    judge.read(&bench.sent);
    let fault = bench.fault();
    // A stream that ends within a train is lost, even behind the last word of every channel (W-20).
    let whole = judge.at == bench.sent.len() && judge.due.is_empty();
    let over = whole && judge.referees.iter().all(Referee::is_over);
    match judge.verdict {
        Verdict::Lawful if bench.connected() || over => {
            assert!(fault.is_none(), "no rule was broken, but {fault:?}");
        }
        Verdict::Lawful => assert!(fault.is_some(), "the stranger hung up"),
        Verdict::Offence => assert!(fault.is_some(), "a rule was broken, and nobody minds"),
        Verdict::Either => {}
    }
    for (read, expected) in reader.read.iter().zip(&judge.expected) {
        assert!(expected.starts_with(read), "the task reads what was sent, in order");
        let all = judge.verdict == Verdict::Lawful && bench.connected();
        assert!(!all || read.len() == expected.len(), "the task reads all that was sent");
    }
}
