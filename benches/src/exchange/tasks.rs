//! A task that writes numbered records to its channels in turns. Owns its numbers.

use tidegate_exchange::{Event, Exchange, PartitionId};
use tidegate_record::Record;
use tidegate_ring::AnyRing;

use super::Setup;
use crate::jobs::numbered::Numbered;

/// Records that a producer writes before the network has its turn.
const QUANTUM: u64 = 4_096;

/// The task.
pub struct Producer<N> {
    partition: PartitionId,
    records: N,
    number: u64,
    channel: u32,
    channels: u32,
    broadcast: bool,
    /// The part that goes to the first channel, and what of it is owed.
    hot: f64,
    owed: f64,
    ended: bool,
}

impl<N: Numbered> Producer<N>
where
    N::Item: Record,
{
    pub fn new(partition: PartitionId, setup: &Setup, records: N) -> Self {
        let Setup { hot, broadcast, .. } = *setup;
        let channels = setup.outs();
        Self { partition, records, number: 0, channel: 0, channels, broadcast, hot, owed: 0.0, ended: false }
    }

    /// Records written so far.
    pub fn written(&self) -> u64 {
        self.number
    }

    /// A quantum, or the end. False if there was nothing it could do.
    pub fn step(&mut self, slot: &mut Exchange<AnyRing>, over: bool) -> Result<bool, String> {
        let mut output = slot.ports.output(self.partition);
        if over {
            let ends = !self.ended && output.event_room();
            if ends {
                output.event(Event::EndOfPartition);
                self.ended = true;
            }
            return Ok(ends);
        }
        let before = self.number;
        // The usual case by itself, for what is chosen would cost as much as a small record.
        let one = self.channels == 1 && !self.broadcast;
        while one && output.writable() && self.number - before < QUANTUM {
            output.write(0, self.records.make()).map_err(|error| error.to_string())?;
            self.number += 1;
        }
        while !one && output.writable() && self.number - before < QUANTUM {
            let record = self.records.make();
            if self.broadcast {
                output.broadcast(record)
            } else {
                self.owed += self.hot;
                let channel = if self.owed >= 1.0 {
                    self.owed -= 1.0;
                    0
                } else {
                    self.channel = if self.channel + 1 >= self.channels { 0 } else { self.channel + 1 };
                    self.channel
                };
                output.write(channel, record)
            }
            .map_err(|error| error.to_string())?;
            self.number += 1;
        }
        Ok(self.number > before)
    }

    pub fn drained(&self, slot: &mut Exchange<AnyRing>) -> bool {
        self.ended && slot.ports.output(self.partition).drained()
    }
}
