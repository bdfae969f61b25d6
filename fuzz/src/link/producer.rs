//! Our end produces; the stranger grants credit, resumes barriers, closes channels.
//!
//! Our task writes numbers, a sequence for each channel, so that whatever arrives can be told to be its beginning. The
//! referee sees what the stranger says as it says it, and our trains as they arrive.

use tidegate_exchange::{Event, PartitionPlan, TaskPorts};
use tidegate_wire::referee::Referee;
use tidegate_wire::{Body, CREDITS_MAX, Data, End, Entry, LINK, payload_crc};

use super::bench::{ATTEMPT, Bench, CHANNELS, channel_plans, referees};
use crate::script::Script;

/// The stranger's view.
struct Stranger {
    referees: [Referee; 2],
    /// Barriers that arrived, by channel: how many, the newest, and the one that waits for its resume.
    barriers: [u32; 2],
    newest: [u64; 2],
    open: [Option<u64>; 2],
    /// The next number of each channel.
    next: [u64; 2],
    closed: [bool; 2],
    acked: [bool; 2],
    /// What it sent was lawful so far, as far as that can be told.
    lawful: bool,
    /// It granted more than a channel can hold: that may be refused.
    lavish: bool,
    promised: [u64; 2],
}

/// What our task has done.
#[derive(Default)]
struct Writer {
    next: [u64; 2],
    checkpoint: u64,
    /// It has said that there is no more data.
    data_ended: bool,
    ended: bool,
}

impl Writer {
    fn write(&mut self, bench: &mut Bench, channel: usize, stranger: &Stranger) {
        let mut output = bench.slot.ports.output(bench.ids.partitions[0]);
        if !self.data_ended && output.writable() && !stranger.closed[channel] {
            output.write(channel as u32, &self.next[channel]).expect("a number fits");
            self.next[channel] += 1;
        }
    }

    fn event(&mut self, bench: &mut Bench, event: Event) -> bool {
        let ids = bench.ids.partitions.clone();
        !self.ended && bench.slot.ports.events(&ids, event)
    }

    /// One after the other, each once: where there is room for the first only, the second waits for another step.
    fn end(&mut self, bench: &mut Bench) {
        self.data_ended = self.data_ended || self.event(bench, Event::EndOfData);
        self.ended = self.ended || self.data_ended && self.event(bench, Event::EndOfPartition);
    }
}

/// Plays the script against our producer, and judges.
pub fn attacked(script: &mut Script<'_>) {
    let partition = PartitionPlan { name: "edge".into(), broadcast: false, channels: channel_plans() };
    let task = TaskPorts { task: 0, gate: None, partitions: vec![partition] };
    let mut bench = Bench::new(task, End::Producer);
    let mut stranger = Stranger {
        referees: referees(End::Consumer),
        barriers: [0; 2],
        newest: [0; 2],
        open: [None; 2],
        next: [0; 2],
        closed: [false; 2],
        acked: [false; 2],
        lawful: true,
        lavish: false,
        promised: [0; 2],
    };
    let mut writer = Writer::default();
    while let Some(step) = script.next() {
        let channel = usize::from(step >> 7);
        match step % 16 {
            0..=4 => {
                stranger.listen(&mut bench);
                stranger.say(script, &mut bench, channel);
            }
            5 => {
                bench.outbox.extend((0..script.byte()).map(|_| script.byte()));
                stranger.lawful = false;
            }
            6 => {
                bench.repeat_train();
                stranger.lawful = false;
            }
            7 => {
                let count = usize::from(script.byte());
                bench.send(count);
            }
            8..=10 => (0..=script.byte()).for_each(|_| writer.write(&mut bench, channel, &stranger)),
            11 => {
                let checkpoint = writer.checkpoint + 1;
                let event = match step & 0x20 {
                    0 => Event::Barrier { checkpoint },
                    _ => Event::AbortMarker { checkpoint },
                };
                if writer.event(&mut bench, event) {
                    writer.checkpoint = checkpoint;
                }
            }
            12 if step & 0x30 == 0x30 => writer.end(&mut bench),
            13 if step & 0x70 == 0x70 => bench.hang_up(),
            14 => bench.send(usize::MAX),
            _ => drop(bench.turn()),
        }
        if step & 0x40 != 0 {
            bench.turn();
        }
    }
    bench.settle(|bench| stranger.listen(bench));
    let fault = bench.fault();
    let over = stranger.acked.iter().all(|acked| *acked);
    if stranger.lawful && !stranger.lavish && (bench.connected() || over) {
        assert!(fault.is_none(), "no rule was broken, but {fault:?}");
    }
    for (arrived, written) in stranger.next.iter().zip(&writer.next) {
        assert!(arrived <= written, "no record out of nothing");
    }
    bench.end();
}

impl Stranger {
    /// Looks at our trains. False if there was none.
    fn listen(&mut self, bench: &mut Bench) -> bool {
        let said = bench.hear(End::Producer);
        for (entry, payload) in &said {
            // Our end's last words, once it was offended.
            if entry.channel == LINK {
                assert!(!self.lawful || self.lavish, "our end accuses a lawful peer: {entry:?}");
                continue;
            }
            let at = CHANNELS.iter().position(|channel| *channel == entry.channel);
            let at = at.unwrap_or_else(|| panic!("our end names a channel that there is not: {entry:?}"));
            if self.lawful {
                let observed = self.referees[at].observe(entry);
                assert!(observed.is_ok(), "our end: {observed:?} at {entry:?}");
            }
            match entry.body {
                Body::Data(data) => self.data(at, data, payload),
                Body::Barrier { checkpoint } => {
                    self.barriers[at] += 1;
                    self.newest[at] = checkpoint;
                    self.open[at] = Some(checkpoint);
                }
                Body::CloseAck => self.acked[at] = true,
                _ => {}
            }
        }
        !said.is_empty()
    }

    fn data(&mut self, at: usize, data: Data, payload: &[u8]) {
        assert_eq!(payload_crc(payload), data.crc);
        for number in payload.chunks_exact(8) {
            let number = u64::from_le_bytes(number.try_into().expect("eight bytes"));
            assert_eq!(number, self.next[at], "channel {at} carries its numbers in order");
            self.next[at] += 1;
        }
    }

    /// A train of a few control entries; the choices say how far they keep the rules.
    fn say(&mut self, script: &mut Script<'_>, bench: &mut Bench, channel: usize) {
        let mut entries = Vec::new();
        for _ in 0..1 + script.byte() % 4 {
            let (what, how) = (script.byte(), script.byte());
            let abuse = how & 0x80 != 0;
            let body = match what % 8 {
                0..=3 if abuse => Body::Grant {
                    credits: if how & 1 == 0 { CREDITS_MAX } else { 1 },
                    barriers: self.barriers[channel].wrapping_add(u32::from(how & 2)),
                },
                0..=3 if self.open[channel].is_none() => {
                    Body::Grant { credits: 1 + u32::from(how & 15), barriers: self.barriers[channel] }
                }
                4 | 5 => {
                    let checkpoint = self.open[channel].unwrap_or(0) + u64::from(abuse && how & 1 != 0);
                    if self.open[channel] == Some(checkpoint) {
                        self.open[channel] = None;
                    }
                    Body::Resume {
                        checkpoint,
                        credits: u32::from(how & 15),
                        barriers: self.barriers[channel],
                    }
                }
                6 if how & 0x30 == 0 => Body::Close,
                7 if abuse => match how % 3 {
                    0 => Body::EndOfData,
                    1 => Body::Backlog,
                    _ => Body::Error { code: 1, detail: 0 },
                },
                _ => continue,
            };
            let mut entry = match body {
                Body::Error { code, detail } => Entry::link_error(code, detail),
                Body::Backlog => Entry::backlog(CHANNELS[channel], ATTEMPT, 1),
                Body::EndOfData => Entry::sequenced(CHANNELS[channel], ATTEMPT, 0, body),
                _ => Entry::control(CHANNELS[channel], ATTEMPT, body),
            };
            if abuse && entry.channel != LINK {
                match how % 16 {
                    12 => entry.channel += 1,
                    13 => entry.generation += 1,
                    _ => {}
                }
            }
            if let Body::Grant { credits, .. } | Body::Resume { credits, .. } = entry.body {
                self.promised[channel] += u64::from(credits);
                self.lavish |= self.promised[channel] > u64::from(CREDITS_MAX);
            }
            // A resume of a barrier that did not come yet may meet it on its way: our end takes it for the answer.
            let early = |checkpoint| checkpoint > self.newest[channel];
            self.lawful &= !matches!(body, Body::Resume { checkpoint, .. } if early(checkpoint));
            self.closed[channel] |= body == Body::Close;
            let ours = entry.kind().sent_by(End::Consumer) && entry.channel != LINK;
            self.lawful &= ours && self.referees[channel].observe(&entry).is_ok();
            entries.push(entry);
        }
        if !entries.is_empty() {
            bench.push_train(&entries, &[]);
        }
    }
}
