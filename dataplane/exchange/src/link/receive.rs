//! Receiving: scattered into the payloads of the open train and the staging area, checked before anything is believed.

use tidegate_flow::{Place, Step, Violation};
use tidegate_plant::{Plant, planted};
use tidegate_ring::{IoFault, ReceivePart, ReceiveParts, Ring};
use tidegate_wire::{Body, End, Entry, Kind, WireError, payload_crc};

use super::{Link, LinkState, PayloadSlot};
use crate::error::LinkError;
use crate::event::Event;
use crate::latency::Stamp;
use crate::limits::{STAGING_SMALL, STAGING_SWITCH};
use crate::ports::Ports;

impl Link {
    /// Posts the next receive if none is in flight.
    pub fn receive<R: Ring>(&mut self, ring: &mut R, ports: &mut Ports) {
        if !matches!(self.state, LinkState::Open | LinkState::Draining) || self.end_of_file {
            return;
        }
        if !self.posted.is_empty() {
            return;
        }
        let mut staging = self.staging.take().expect("invariant: staging is here between receives");
        let arena = ports.arena.clone();
        let moved = self.rx.compact(arena.bytes_mut(&mut staging));
        ports.counters.payload_bytes_copied += u64::from(moved);
        let offer = if self.train_bytes >= STAGING_SWITCH { STAGING_SMALL } else { self.segment_size };
        self.posted = self.rx.places(self.segment_size, offer);
        let mut staging = Some(staging);
        let mut parts = ReceiveParts::new();
        for place in &self.posted {
            let (segment, offset, len) = match *place {
                Place::Payload { payload, at, len } => {
                    let slot = &mut self.slots[payload];
                    let segment = slot.segment.take().expect("invariant: an open payload has its segment");
                    (arena.post(segment), slot.start + at, len)
                }
                Place::Staging { at, len } => {
                    (arena.post(staging.take().expect("invariant: staging is posted once")), at, len)
                }
            };
            parts.push(ReceivePart { segment, offset, len });
        }
        if let Some(staging) = staging {
            self.staging = Some(staging);
        }
        let conn = self.conn.expect("invariant: an open link has a connection");
        if let Err(parts) = ring.receive(conn, parts) {
            self.restore(ports, parts);
        }
    }

    fn restore(&mut self, ports: &mut Ports, parts: ReceiveParts) {
        for (part, place) in parts.into_iter().zip(self.posted.take()) {
            match place {
                Place::Payload { payload, .. } => {
                    self.slots[payload].segment = Some(ports.arena.unpost(part.segment))
                }
                Place::Staging { .. } => self.staging = Some(ports.arena.unpost(part.segment)),
            }
        }
    }

    /// A receive ended. On an error the link must be failed.
    pub fn received(
        &mut self,
        ports: &mut Ports,
        result: Result<u32, IoFault>,
        parts: ReceiveParts,
    ) -> Result<(), LinkError> {
        self.restore(ports, parts);
        if !matches!(self.state, LinkState::Open | LinkState::Draining) {
            return Ok(());
        }
        match result {
            Ok(0) => {
                self.end_of_file = true;
                if self.rx.at_boundary() && self.finished(ports) { Ok(()) } else { Err(LinkError::Gone) }
            }
            Ok(count) => {
                self.rx.received(count, self.segment_size);
                self.process(ports)
            }
            Err(fault) => Err(LinkError::Io(fault)),
        }
    }

    fn process(&mut self, ports: &mut Ports) -> Result<(), LinkError> {
        let arena = ports.arena.clone();
        loop {
            let staging = self.staging.as_ref().expect("invariant: staging is here between receives");
            match self.rx.poll(arena.bytes(staging)).map_err(garbled)? {
                Step::Receive => return Ok(()),
                Step::Manifest => self.accept(ports).map_err(LinkError::Violation)?,
                Step::Copy { payload, at, from } => {
                    let source = &arena.bytes(staging)[from];
                    ports.counters.payload_bytes_copied += source.len() as u64;
                    let slot = &mut self.slots[payload];
                    let segment = slot.segment.as_mut().expect("invariant: an open payload has its segment");
                    let at = (slot.start + at) as usize;
                    arena.bytes_mut(segment)[at..at + source.len()].copy_from_slice(source);
                }
                Step::Deliver { entry, payload } => self.deliver(ports, entry, payload)?,
            }
        }
    }

    /// Checks a whole manifest before a payload byte is placed, and assigns a segment to each payload (W-40).
    fn accept(&mut self, ports: &mut Ports) -> Result<(), Violation> {
        self.slots.clear();
        self.behind_slice = false;
        ports.counters.trains_received += 1;
        let bytes = self.rx.payload_bytes();
        ports.counters.payload_bytes_received += bytes;
        self.train_bytes = (self.train_bytes * 7 + bytes) / 8;
        for at in 0..self.rx.entries().len() {
            let entry = self.rx.entries()[at];
            self.accept_entry(ports, entry)?;
        }
        Ok(())
    }

    fn accept_entry(&mut self, ports: &mut Ports, entry: Entry) -> Result<(), Violation> {
        let peer = if self.end == End::Consumer { End::Producer } else { End::Consumer };
        if !entry.kind().sent_by(peer) {
            return Err(Violation::Unexpected { channel: entry.channel, kind: entry.kind() as u8 });
        }
        if entry.kind() == Kind::Error {
            return Ok(());
        }
        let at = self.find(entry.channel)?;
        if entry.generation != self.generation {
            let (expected, found) = (self.generation, entry.generation);
            return Err(Violation::Generation { channel: entry.channel, expected, found });
        }
        let channel = at.place as usize;
        if self.end == End::Producer {
            let partition = ports.partitions[at.port as usize].as_mut();
            return partition.map_or(Ok(()), |partition| partition.channels[channel].order.handle(&entry));
        }
        let Some(gate) = ports.gates[at.port as usize].as_mut() else { return Ok(()) };
        let state = &mut gate.channels[channel];
        state.order.handle(&entry)?;
        state.large.handle(&entry, state.credit.blocked())?;
        match entry.body {
            Body::Data(data) => {
                // Nothing follows a slice (W-26): a receive has one place in a region, which nobody else holds.
                if self.behind_slice {
                    return Err(Violation::Unexpected { channel: entry.channel, kind: Kind::Data as u8 });
                }
                self.behind_slice = data.is_slice(self.segment_size);
                let segment = if self.behind_slice {
                    gate.expect_slice(channel, entry.sequence, entry.backlog)?
                } else {
                    gate.expect_data(channel, entry.sequence, entry.backlog)?
                };
                let (segment, start) = (Some(segment), data.offset);
                self.slots.push(PayloadSlot { segment, start, gate: at.port, channel: at.place });
            }
            Body::Ask { .. } => gate.expect_ask(at.place),
            Body::Backlog => gate.expect_backlog(channel, entry.backlog),
            Body::Barrier { checkpoint } => {
                gate.channels[channel].credit.handle_sequence(entry.sequence)?;
                gate.expect_barrier(channel, checkpoint, &mut ports.shard);
            }
            _ => gate.channels[channel].credit.handle_sequence(entry.sequence)?,
        }
        Ok(())
    }

    fn deliver(&mut self, ports: &mut Ports, entry: Entry, payload: Option<usize>) -> Result<(), LinkError> {
        if let Body::Error { code, .. } = entry.body {
            return Err(LinkError::Accused { code });
        }
        match self.end {
            End::Consumer => self.deliver_to_gate(ports, entry, payload),
            End::Producer => self.deliver_to_partition(ports, entry),
        }
        .map_err(LinkError::Violation)
    }

    fn deliver_to_gate(
        &mut self,
        ports: &mut Ports,
        entry: Entry,
        payload: Option<usize>,
    ) -> Result<(), Violation> {
        if let (Body::Data(data), Some(payload)) = (entry.body, payload) {
            let slot = &mut self.slots[payload];
            let mut segment = slot.segment.take().expect("invariant: a complete payload has its segment");
            let place = slot.start as usize..(slot.start + data.len) as usize;
            let bytes = &ports.arena.bytes_mut(&mut segment)[place];
            let found = if self.in_memory { 0 } else { payload_crc(bytes) };
            if found != data.crc && !planted(Plant::IgnoreChecksum) {
                slot.segment = Some(segment);
                return Err(Violation::Checksum { channel: entry.channel, expected: data.crc, found });
            }
            match ports.gates[slot.gate as usize].as_mut() {
                Some(gate) => {
                    let (channel, now_ns) = (slot.channel as usize, ports.now_ns);
                    // Times of a clock that is not ours say nothing.
                    let known = u64::from(self.one_clock);
                    let stamp = Stamp { born_ns: known * self.rx.birth_ns(), arrived_ns: now_ns };
                    gate.latency.arrived(channel, known * self.rx.sent_ns(), now_ns);
                    if data.is_slice(self.segment_size) {
                        gate.arrived_slice(channel, segment, data, stamp, &ports.arena);
                    } else {
                        gate.arrived(channel, segment, data.len, stamp, &mut ports.shard);
                    }
                }
                None => ports.shard.release(segment),
            }
            return Ok(());
        }
        let at = self.find(entry.channel)?;
        let Some(gate) = ports.gates[at.port as usize].as_mut() else { return Ok(()) };
        let channel = at.place as usize;
        match entry.body {
            Body::Barrier { checkpoint } => gate.arrived_event(channel, Event::Barrier { checkpoint }),
            Body::AbortMarker { checkpoint } => {
                gate.arrived_event(channel, Event::AbortMarker { checkpoint })
            }
            Body::EndOfData => gate.arrived_event(channel, Event::EndOfData),
            Body::EndOfPartition => gate.arrived_event(channel, Event::EndOfPartition),
            Body::CloseAck => {
                gate.close_acked(channel, &mut ports.shard);
                Ok(())
            }
            Body::Backlog | Body::Ask { .. } => Ok(()),
            // Event time is not carried yet; a peer of this version never sends it.
            _ => Err(Violation::Unexpected { channel: entry.channel, kind: entry.kind() as u8 }),
        }
    }

    fn deliver_to_partition(&mut self, ports: &mut Ports, entry: Entry) -> Result<(), Violation> {
        let at = self.find(entry.channel)?;
        let Some(partition) = ports.partitions[at.port as usize].as_mut() else { return Ok(()) };
        let channel = at.place as usize;
        match entry.body {
            Body::Grant { credits, barriers } => {
                partition.channels[channel].credit.handle_grant(credits, barriers)?;
            }
            Body::Resume { checkpoint, credits, .. } => {
                partition.channels[channel].credit.handle_resume(checkpoint, credits)?;
            }
            Body::Admit { total } => partition.channels[channel].large.handle_admit(total)?,
            Body::Close => {
                partition.close_channel(channel, &mut ports.shard);
                partition.channels[channel].ack_due = true;
            }
            _ => return Err(Violation::Unexpected { channel: entry.channel, kind: entry.kind() as u8 }),
        }
        crate::partition::list(partition, at.place, &mut ports.links, &mut ports.local, ports.now_ns);
        Ok(())
    }
}

fn garbled(error: WireError) -> LinkError {
    LinkError::Garbled(error)
}
