//! What a hostile producer can say on a channel, against the wire crate's referee, which shares no code with this one: data
//! without credit, twice, out of order, behind a barrier or an end, slices that overlap, leave gaps or were not admitted, old
//! entries again, checkpoints that fall. Both must take
//! the same entries, and hold the same credit after each.

use tidegate_flow::{ReceiveCredit, ReceiveLarge, ReceiveOrder, Violation};
use tidegate_wire::referee::Referee;
use tidegate_wire::{Body, Data, End, Entry};

const CHANNEL: u32 = 7;
const ATTEMPT: u32 = 3;
const SEGMENT: u32 = 4096;
const SEQUENCES: u32 = 100_000;
/// Entries of one sequence, at most: it ends with the first that is refused.
const ENTRIES: u32 = 40;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The consumer's books of one channel, as a link keeps them, and the referee's.
struct Channel {
    order: ReceiveOrder,
    credit: ReceiveCredit,
    large: ReceiveLarge,
    referee: Referee,
    closed: bool,
    /// Total and next offset of the record that was asked for.
    asked: Option<(u32, u32)>,
}

impl Channel {
    fn new() -> Self {
        Self {
            order: ReceiveOrder::default(),
            credit: ReceiveCredit::new(CHANNEL),
            large: ReceiveLarge::new(CHANNEL, SEGMENT, 1 << 20),
            referee: Referee::new(End::Consumer, CHANNEL, ATTEMPT, SEGMENT),
            closed: false,
            asked: None,
        }
    }

    fn accept(&mut self, entry: &Entry) -> Result<(), Violation> {
        self.order.handle(entry)?;
        self.large.handle(entry, self.credit.blocked())?;
        match entry.body {
            Body::Ask { total } => {
                self.asked = Some((total, 0));
                Ok(())
            }
            Body::Data(data) if data.is_slice(SEGMENT) => {
                self.asked = (!data.is_last()).then_some((data.total, data.offset + data.len));
                self.credit.handle_slice(entry.sequence, entry.backlog)
            }
            Body::Data(_) => self.credit.handle_data(entry.sequence, entry.backlog),
            Body::Barrier { checkpoint } => {
                self.credit.handle_sequence(entry.sequence)?;
                self.credit.handle_barrier(checkpoint);
                Ok(())
            }
            Body::Backlog => {
                self.credit.handle_backlog(entry.backlog);
                Ok(())
            }
            _ => self.credit.handle_sequence(entry.sequence),
        }
    }

    /// The consumer's own words; lawful always.
    fn say(&mut self, body: Body) {
        let said = self.referee.observe(&Entry::control(CHANNEL, ATTEMPT, body));
        assert_eq!(said, Ok(()), "{body:?}");
    }

    fn grant(&mut self, credits: u32) {
        if !self.credit.blocked() && !self.closed {
            self.credit.grant(credits);
            self.say(Body::Grant { credits, barriers: self.credit.barriers() });
        }
    }

    fn resume(&mut self, credits: u32) {
        let open = self.referee.open_barrier().filter(|_| !self.closed);
        if let Some(checkpoint) = open.and_then(|open| self.credit.resume(open)) {
            self.credit.grant(credits);
            self.say(Body::Resume { checkpoint, credits, barriers: self.credit.barriers() });
        }
    }

    fn admit(&mut self) {
        if self.asked.is_some() && !self.large.admitted() && !self.closed {
            let total = self.large.admit();
            self.say(Body::Admit { total });
        }
    }

    fn close(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            self.order.close_sent();
            self.say(Body::Close);
        }
    }
}

/// The next thing the producer says; mostly lawful, or nothing but refusals would be seen.
fn spoken(
    random: &mut Random,
    channel: &Channel,
    next: u32,
    checkpoint: &mut u64,
    history: &[Entry],
) -> Entry {
    let sequence = match random.below(96) {
        0 => next.wrapping_sub(1),
        1 => next.wrapping_add(1),
        2 => [0, u32::MAX, 1 << 31][random.below(3) as usize],
        _ => next,
    };
    let event = |body| Entry::sequenced(CHANNEL, ATTEMPT, sequence, body);
    let may_send = channel.credit.outstanding() > 0 || random.below(24) == 0;
    match random.below(56) {
        48..=50 => Entry::control(CHANNEL, ATTEMPT, Body::Ask { total: 4090 + random.below(9000) as u32 }),
        51..=55 => {
            let (total, offset) = channel.asked.unwrap_or((5000, 0));
            let skewed = |value: u32, random: &mut Random| value + (random.below(24) / 23) as u32;
            let (total, offset) = (skewed(total, random), skewed(offset, random));
            let left = total.saturating_sub(offset).max(1);
            let len = [left, left.min(3000)][random.below(2) as usize];
            let data = Data { len, total, offset: offset.min(total - len), crc: 0 };
            Entry::data(CHANNEL, ATTEMPT, sequence, 1, data)
        }
        0..=31 if may_send => {
            Entry::data(CHANNEL, ATTEMPT, sequence, random.below(4) as u16, Data::whole(8, 0))
        }
        0..=33 => Entry::backlog(CHANNEL, ATTEMPT, 3),
        34..=38 => {
            *checkpoint = (*checkpoint + 1).saturating_sub(random.below(16) / 15);
            event(Body::Barrier { checkpoint: *checkpoint })
        }
        39 | 40 => {
            *checkpoint += random.below(8).min(1);
            event(Body::AbortMarker { checkpoint: *checkpoint })
        }
        41 if random.below(4) == 0 => event(Body::EndOfData),
        42 if random.below(4) == 0 => event(Body::EndOfPartition),
        43 if channel.closed || random.below(16) == 0 => event(Body::CloseAck),
        44 if !history.is_empty() => history[random.below(history.len() as u64) as usize],
        _ => Entry::backlog(CHANNEL, ATTEMPT, 1),
    }
}

/// W-25 to W-27, W-31 to W-33, W-36 to W-40, W-46, W-47: whatever the producer says, what one refuses the other does, too.
#[test]
fn credit_and_order_agree_with_the_referee() {
    let mut random = Random(0x7469_6465);
    let (mut refused, mut taken) = (0, 0_u64);
    for _ in 0..SEQUENCES {
        let mut channel = Channel::new();
        let (mut next, mut checkpoint, mut history) = (0, 0, Vec::new());
        for _ in 0..ENTRIES {
            match random.below(8) {
                0 | 1 => channel.grant(1 + random.below(4) as u32),
                2 => channel.resume(random.below(3) as u32),
                3 if random.below(8) == 0 => channel.close(),
                4 | 5 => channel.admit(),
                _ => {}
            }
            let entry = spoken(&mut random, &channel, next, &mut checkpoint, &history);
            let ours = channel.accept(&entry);
            let theirs = channel.referee.observe(&entry);
            assert_eq!(ours.is_ok(), theirs.is_ok(), "{entry:?} after {history:?}: {ours:?}, {theirs:?}");
            if ours.is_err() {
                refused += 1;
                break;
            }
            assert_eq!(u64::from(channel.credit.outstanding()), channel.referee.credits(), "{history:?}");
            next = next.wrapping_add(u32::from(entry.kind().is_sequenced()));
            history.push(entry);
            taken += 1;
        }
    }
    assert!(refused > SEQUENCES / 2 && taken > u64::from(SEQUENCES) * 4, "{refused} refused, {taken} taken");
}
