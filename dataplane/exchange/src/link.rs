//! A link: one TCP connection for one ordered pair of slots, producer to consumer, of one attempt.
//!
//! One send and one receive are in flight at most. A send is one train, assembled when the link is ready: control entries
//! first, then what the ready channels have. A receive is scattered into the payload slots of the open train and the staging
//! area. Receiving depends on granted segments and staging only, never on being able to send (R5).
//!
//! State: `manifest` is here exactly when nothing is being sent, `staging` exactly when nothing is being received. The slots
//! of the open train hold granted segments, or their parts are with the ring.
//!
//! End, in order: end of partition on each channel, close, close-ack, then the consumer shuts its side, the producer reads
//! the end of file and closes. Losing a link in any other way fails the attempt: links never resume.

use std::net::SocketAddr;

use arrayvec::ArrayVec;
use tidegate_arena::{Filling, Granted, Holder, HolderKind, Sealed, Segment, Shard};
use tidegate_flow::limits::PLACES_MAX;
use tidegate_flow::{Place, Step, TrainReceiver, Violation};
use tidegate_ring::{ConnId, IoFault, ReceivePart, ReceiveParts, Ring, SendPart, SendParts};
use tidegate_wire::plant::{Plant, planted};
use tidegate_wire::{
    Body, End, Entry, Hello, Kind, MANIFEST_MAX, ManifestWriter, PAYLOADS_MAX, WireError, payload_crc,
};

use crate::error::LinkError;
use crate::event::Event;
use crate::gate::Phase;
use crate::limits::{
    PAYLOADS_PER_VISIT, REDIAL_FOR, REDIAL_WAIT_MAX, REDIAL_WAIT_MIN, STAGING_SMALL, STAGING_SWITCH,
};
use crate::partition::Taken;
use crate::plan::SlotId;
use crate::ports::Ports;

/// How far a link has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// No connection yet: dialed, or waiting to be dialed.
    Connecting,
    Open,
    /// All channels are closed and our side is shut: reading to the end of file.
    Draining,
    /// An error entry is on its way; then the connection is closed.
    Accusing,
    /// The ring was told to close it.
    Closing,
    /// Nothing of it is left in the kernel.
    Gone,
}

/// A channel of the link: its number in the job, and where it ends on this side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkTableEntry {
    pub number: u32,
    /// Partition or gate, by the role.
    pub port: u32,
    /// The channel's place in it.
    pub place: u32,
}

struct PayloadSlot {
    segment: Option<Segment<Granted>>,
    gate: u32,
    channel: u32,
}

pub(crate) struct Link {
    pub index: u32,
    pub attempt: u32,
    pub peer: SlotId,
    /// Which end we are.
    pub end: End,
    pub state: LinkState,
    pub conn: Option<ConnId>,
    /// What the consumer says, and the producer expects.
    pub hello: Hello,
    table: Vec<LinkTableEntry>,
    generation: u32,
    segment_size: u32,
    rx: TrainReceiver,
    staging: Option<Segment<Filling>>,
    train_bytes: u64,
    slots: ArrayVec<PayloadSlot, PAYLOADS_MAX>,
    posted: ArrayVec<Place, PLACES_MAX>,
    manifest: Option<Segment<Filling>>,
    tx_partitions: ArrayVec<u32, PAYLOADS_MAX>,
    trains_sent: u64,
    end_of_file: bool,
    /// For the end that dials.
    pub dialing: Dialing,
}

/// How the dialling of a link goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialing {
    /// The producer's data address, for the end that dials.
    pub address: Option<SocketAddr>,
    /// When the first dial began.
    pub since_ns: u64,
    /// When the next one is due; `None` while one is under way.
    pub again_ns: Option<u64>,
    /// The wait before the next one.
    pub wait_ns: u64,
}

impl Dialing {
    fn new() -> Self {
        let wait_ns = REDIAL_WAIT_MIN.as_nanos() as u64;
        Self { address: None, since_ns: 0, again_ns: None, wait_ns }
    }

    /// The last dial failed in a way that may pass: says whether there is another one.
    pub fn defer(&mut self, now_ns: u64) -> bool {
        if now_ns.saturating_sub(self.since_ns) >= REDIAL_FOR.as_nanos() as u64 {
            return false;
        }
        self.again_ns = Some(now_ns + self.wait_ns);
        self.wait_ns = (self.wait_ns * 2).min(REDIAL_WAIT_MAX.as_nanos() as u64);
        true
    }
}

impl Link {
    pub fn new(
        index: u32,
        peer: SlotId,
        end: End,
        hello: Hello,
        table: Vec<LinkTableEntry>,
        staging: Segment<Filling>,
        manifest: Segment<Filling>,
    ) -> Self {
        assert!(table.is_sorted_by_key(|entry| entry.number), "a link's table is sorted by channel number");
        Self {
            index,
            attempt: hello.attempt,
            peer,
            end,
            state: LinkState::Connecting,
            conn: None,
            table,
            generation: hello.attempt,
            segment_size: hello.segment_size,
            hello,
            rx: TrainReceiver::new(),
            staging: Some(staging),
            train_bytes: 0,
            slots: ArrayVec::new(),
            posted: ArrayVec::new(),
            manifest: Some(manifest),
            tx_partitions: ArrayVec::new(),
            trains_sent: 0,
            end_of_file: false,
            dialing: Dialing::new(),
        }
    }

    /// Reserves the two segments of a link.
    pub fn reserve(shard: &mut Shard, index: u32) -> Option<(Segment<Filling>, Segment<Filling>)> {
        let staging = shard.acquire(Holder::new(HolderKind::Staging, index))?;
        match shard.acquire(Holder::new(HolderKind::Manifest, index)) {
            Some(manifest) => Some((staging, manifest)),
            None => {
                shard.release(staging);
                None
            }
        }
    }

    pub fn open(&mut self, conn: ConnId) {
        assert_eq!(self.state, LinkState::Connecting, "a link is opened once");
        self.conn = Some(conn);
        self.state = LinkState::Open;
    }

    fn find(&self, channel: u32) -> Result<LinkTableEntry, Violation> {
        match self.table.binary_search_by_key(&channel, |entry| entry.number) {
            Ok(at) => Ok(self.table[at]),
            Err(_) => Err(Violation::UnknownChannel { channel, channels: self.table.len() as u32 }),
        }
    }

    // ---- sending ----

    /// Sends a train if the link is ready and somebody has something to say.
    pub fn send<R: Ring>(&mut self, ring: &mut R, ports: &mut Ports) -> bool {
        if self.state != LinkState::Open {
            return false;
        }
        let queues = &ports.links[self.index as usize];
        if queues.out.is_empty() && queues.control.is_empty() {
            return false;
        }
        let Some(mut manifest) = self.manifest.take() else { return false };
        let arena = ports.arena.clone();
        let mut payloads: ArrayVec<(Segment<Sealed>, u32), PAYLOADS_MAX> = ArrayVec::new();
        let buffer = &mut arena.bytes_mut(&mut manifest)[..MANIFEST_MAX];
        let mut writer = ManifestWriter::new(buffer, self.trains_sent, 0);
        self.collect_control(&mut writer, ports);
        self.collect_channels(&mut writer, &mut payloads, ports);
        let payload_bytes = writer.payload_bytes();
        let len = writer.finish() as u32;
        if len == 0 {
            self.manifest = Some(manifest);
            return false;
        }
        self.trains_sent += 1;
        ports.counters.trains_sent += 1;
        ports.counters.payload_bytes_sent += payload_bytes;
        let mut parts = SendParts::new();
        parts.push(SendPart { segment: arena.launch(arena.seal(manifest, len)), offset: 0, len });
        for (segment, len) in payloads {
            parts.push(SendPart { segment: arena.launch(segment), offset: 0, len });
        }
        self.hand_to_ring(ring, ports, parts);
        true
    }

    fn hand_to_ring<R: Ring>(&mut self, ring: &mut R, ports: &mut Ports, parts: SendParts) {
        let conn = self.conn.expect("invariant: an open link has a connection");
        if let Err(parts) = ring.send(conn, parts) {
            // The connection is gone; its receive will say why.
            self.sent(ports, parts);
        }
    }

    fn collect_control(&mut self, writer: &mut ManifestWriter<'_>, ports: &mut Ports) {
        let control = &mut ports.links[self.index as usize].control;
        while writer.entries_left() > 0
            && let Some(&at) = control.front()
        {
            let entry = ports.gates[at.gate as usize]
                .as_mut()
                .and_then(|gate| gate.take_control(at.channel as usize));
            match entry {
                Some(entry) => writer.push(entry).expect("invariant: there was room for an entry"),
                None => {
                    control.pop_front();
                }
            }
        }
    }

    fn collect_channels(
        &mut self,
        writer: &mut ManifestWriter<'_>,
        payloads: &mut ArrayVec<(Segment<Sealed>, u32), PAYLOADS_MAX>,
        ports: &mut Ports,
    ) {
        self.tx_partitions.clear();
        while writer.entries_left() > 0
            && writer.payloads_left() > 0
            && let Some(at) = ports.links[self.index as usize].out.pop_front()
        {
            let Some(partition) = ports.partitions[at.partition as usize].as_mut() else { continue };
            let channel = at.channel as usize;
            partition.channels[channel].listed = false;
            let mut taken = 0;
            while writer.entries_left() > 0 && taken < PAYLOADS_PER_VISIT {
                match partition.take(channel, writer.payloads_left() > 0, &mut ports.shard) {
                    Taken::Data { entry, segment, len, born_ns } => {
                        writer.push(entry).expect("invariant: there was room for a payload");
                        writer.note_birth(born_ns);
                        payloads.push((segment, len));
                        self.tx_partitions.push(at.partition);
                        taken += 1;
                    }
                    Taken::Control(entry) => {
                        writer.push(entry).expect("invariant: there was room for an entry")
                    }
                    Taken::Nothing => break,
                }
            }
            if partition.has_more(channel) {
                crate::partition::list(partition, at.channel, &mut ports.links, &mut ports.local);
            }
        }
    }

    /// The ring gave the parts of a send back.
    pub fn sent(&mut self, ports: &mut Ports, parts: SendParts) {
        let arena = ports.arena.clone();
        let mut parts = parts.into_iter();
        let Some(first) = parts.next() else { return };
        match arena.reopen(arena.land(first.segment)) {
            Ok(manifest) => self.manifest = Some(manifest),
            Err(_) => unreachable!("invariant: a manifest is never shared"),
        }
        for (part, partition) in parts.zip(self.tx_partitions.take()) {
            let segment = arena.land(part.segment);
            match ports.partitions.get_mut(partition as usize).and_then(Option::as_mut) {
                Some(partition) => partition.returned(segment, &mut ports.shard),
                None => ports.shard.release(segment),
            }
        }
    }

    /// Tells the peer what it did wrong, as the last train. False if that is not possible now.
    pub fn accuse<R: Ring>(&mut self, ring: &mut R, ports: &mut Ports, code: u16, detail: u64) -> bool {
        if self.state != LinkState::Open {
            return false;
        }
        let Some(mut manifest) = self.manifest.take() else { return false };
        let arena = ports.arena.clone();
        let buffer = &mut arena.bytes_mut(&mut manifest)[..MANIFEST_MAX];
        let mut writer = ManifestWriter::new(buffer, self.trains_sent, 0);
        writer.push(Entry::link_error(code, detail)).expect("invariant: an empty manifest takes an entry");
        let len = writer.finish() as u32;
        self.tx_partitions.clear();
        let mut parts = SendParts::new();
        parts.push(SendPart { segment: arena.launch(arena.seal(manifest, len)), offset: 0, len });
        self.state = LinkState::Accusing;
        self.hand_to_ring(ring, ports, parts);
        self.manifest.is_none()
    }

    // ---- receiving ----

    /// Posts the next receive if none is in flight.
    pub fn receive<R: Ring>(&mut self, ring: &mut R, ports: &mut Ports) {
        if !matches!(self.state, LinkState::Open | LinkState::Draining) || self.end_of_file {
            return;
        }
        let Some(mut staging) = self.staging.take() else { return };
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
                    let segment = self.slots[payload].segment.take();
                    (arena.post(segment.expect("invariant: an open payload has its segment")), at, len)
                }
                Place::Staging { at, len } => {
                    (arena.post(staging.take().expect("invariant: staging is posted once")), at, len)
                }
            };
            parts.push(ReceivePart { segment, offset, len });
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
                    let segment = self.slots[payload].segment.as_mut();
                    let target =
                        arena.bytes_mut(segment.expect("invariant: an open payload has its segment"));
                    target[at as usize..at as usize + source.len()].copy_from_slice(source);
                }
                Step::Deliver { entry, payload } => self.deliver(ports, entry, payload)?,
            }
        }
    }

    /// Checks a whole manifest before a payload byte is placed, and assigns a segment to each payload (W-40).
    fn accept(&mut self, ports: &mut Ports) -> Result<(), Violation> {
        self.slots.clear();
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
        gate.channels[channel].order.handle(&entry)?;
        match entry.body {
            Body::Data(data) => {
                if data.len > self.segment_size {
                    let (limit, found) = (self.segment_size, data.len);
                    return Err(Violation::PayloadTooLong { channel: entry.channel, limit, found });
                }
                if data.is_slice() {
                    return Err(Violation::Unexpected { channel: entry.channel, kind: Kind::Data as u8 });
                }
                let segment = gate.expect_data(channel, entry.sequence, entry.backlog)?;
                self.slots.push(PayloadSlot { segment: Some(segment), gate: at.port, channel: at.place });
            }
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
            let found = payload_crc(&ports.arena.bytes_mut(&mut segment)[..data.len as usize]);
            if found != data.crc && !planted(Plant::IgnoreChecksum) {
                slot.segment = Some(segment);
                return Err(Violation::Checksum { channel: entry.channel, expected: data.crc, found });
            }
            match ports.gates[slot.gate as usize].as_mut() {
                Some(gate) => {
                    let birth = self.rx.birth_ns();
                    gate.arrived(slot.channel as usize, segment, data.len, birth, &mut ports.shard);
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
            Body::Backlog => Ok(()),
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
            Body::Close => {
                partition.close_channel(channel, &mut ports.shard);
                partition.channels[channel].ack_due = true;
            }
            _ => return Err(Violation::Unexpected { channel: entry.channel, kind: entry.kind() as u8 }),
        }
        if partition.has_more(channel) {
            crate::partition::list(partition, at.place, &mut ports.links, &mut ports.local);
        }
        Ok(())
    }

    // ---- ending ----

    /// True if every channel is closed and its close acknowledged.
    fn finished(&self, ports: &Ports) -> bool {
        self.table.iter().all(|at| match self.end {
            End::Consumer => ports.gates[at.port as usize]
                .as_ref()
                .is_none_or(|gate| gate.channels[at.place as usize].phase == Phase::Closed),
            End::Producer => ports.partitions[at.port as usize].as_ref().is_none_or(|partition| {
                let channel = &partition.channels[at.place as usize];
                channel.closed && !channel.ack_due
            }),
        })
    }

    /// Takes the next step of a graceful end, if its time has come.
    pub fn wind_down<R: Ring>(&mut self, ring: &mut R, ports: &Ports) {
        let Some(conn) = self.conn else { return };
        if self.manifest.is_none() {
            return;
        }
        match self.state {
            LinkState::Open if self.end == End::Consumer && self.finished(ports) => {
                ring.shutdown_write(conn);
                self.state = LinkState::Draining;
            }
            LinkState::Open | LinkState::Draining if self.end_of_file => {
                ring.close(conn);
                self.state = LinkState::Closing;
            }
            LinkState::Accusing => {
                ring.close(conn);
                self.state = LinkState::Closing;
            }
            _ => {}
        }
    }

    /// Ends the link now; what is in the kernel comes back before it is gone.
    pub fn abort<R: Ring>(&mut self, ring: &mut R) {
        match (self.state, self.conn) {
            (LinkState::Gone | LinkState::Closing, _) => {}
            (_, Some(conn)) => {
                ring.close(conn);
                self.state = LinkState::Closing;
            }
            (_, None) => self.state = LinkState::Gone,
        }
    }

    /// Gives every segment back. Only when the ring holds none.
    pub fn dismantle(&mut self, shard: &mut Shard) {
        assert_eq!(self.state, LinkState::Gone, "a link is dismantled when the ring is done with it");
        for segment in [self.staging.take(), self.manifest.take()].into_iter().flatten() {
            shard.release(segment);
        }
        for slot in self.slots.take() {
            if let Some(segment) = slot.segment {
                shard.release(segment);
            }
        }
    }
}

fn garbled(error: WireError) -> LinkError {
    LinkError::Garbled(error)
}
