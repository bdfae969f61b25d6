//! Sending: one train at a time, assembled when the link is ready. The kernel may still have some of those before it.

use arrayvec::ArrayVec;
use tidegate_arena::{Sealed, Segment};
use tidegate_plant::{Rare, rare};
use tidegate_ring::{Ring, SendPart, SendParts};
use tidegate_wire::{Entry, MANIFEST_MAX, ManifestWriter, PAYLOADS_MAX, payload_crc};

use super::{Link, LinkState, Train};
use crate::limits::PAYLOADS_PER_VISIT;
use crate::partition::{Crc, Taken, list};
use crate::ports::Ports;
use crate::ready::Visit;

/// A payload of the train that is being made.
struct SendPayload {
    segment: Segment<Sealed>,
    offset: u32,
    len: u32,
}

impl Link {
    /// Sends a train if the link is ready and somebody has something to say.
    pub fn send<R: Ring>(&mut self, ring: &mut R, ports: &mut Ports) -> bool {
        if self.state != LinkState::Open {
            return false;
        }
        let now_ns = ports.now_ns;
        let queues = &mut ports.links[self.index as usize];
        if !queues.out.any(now_ns) && queues.control.is_empty() {
            return false;
        }
        if self.sending {
            return false;
        }
        let Some(mut manifest) = self.manifests.pop() else { return false };
        let arena = ports.arena.clone();
        let mut train = Train { manifest: manifest.index(), partitions: ArrayVec::new() };
        let mut payloads: ArrayVec<SendPayload, PAYLOADS_MAX> = ArrayVec::new();
        let buffer = &mut arena.bytes_mut(&mut manifest)[..MANIFEST_MAX];
        let mut writer = ManifestWriter::new(buffer, self.trains_sent, 0);
        writer.sent_at(ports.now_ns);
        self.collect_control(&mut writer, ports);
        self.collect_channels(&mut writer, &mut payloads, &mut train, ports);
        let payload_bytes = writer.payload_bytes();
        let len = writer.finish() as u32;
        if len == 0 {
            self.manifests.push(manifest);
            return false;
        }
        self.trains_sent += 1;
        ports.counters.trains_sent += 1;
        ports.counters.payload_bytes_sent += payload_bytes;
        let mut parts = SendParts::new();
        parts.push(SendPart { segment: arena.launch(arena.seal(manifest, len)), offset: 0, len });
        for SendPayload { segment, offset, len } in payloads {
            parts.push(SendPart { segment: arena.launch(segment), offset, len });
        }
        self.hand_to_ring(ring, ports, train, parts);
        true
    }

    fn hand_to_ring<R: Ring>(&mut self, ring: &mut R, ports: &mut Ports, train: Train, parts: SendParts) {
        let conn = self.conn.expect("invariant: an open link has a connection");
        self.away.push(train);
        self.sending = true;
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
        payloads: &mut ArrayVec<SendPayload, PAYLOADS_MAX>,
        train: &mut Train,
        ports: &mut Ports,
    ) {
        let mut slice = false;
        let crc: Crc = if self.in_memory { |_: &[u8]| 0 } else { payload_crc };
        // Nothing follows a slice (W-26): its channel goes to the end of the list, so the others' payloads come next.
        while !slice
            && writer.entries_left() > 0
            && writer.payloads_left() > 0
            && let Some(visit) = ports.links[self.index as usize].out.pop(ports.now_ns)
        {
            let (Visit::Now(at) | Visit::Flush(at)) = visit;
            let Some(partition) = ports.partitions[at.partition as usize].as_mut() else { continue };
            let channel = at.channel as usize;
            match visit {
                Visit::Now(_) => partition.channels[channel].listed = false,
                Visit::Flush(_) => {
                    partition.channels[channel].waits = false;
                    partition.flush(channel);
                    // Its turn may have come in the meantime for another reason.
                    if partition.channels[channel].listed {
                        continue;
                    }
                }
            }
            let mut taken = 0;
            let visit_max = if rare(Rare::OnePayload) { 1 } else { PAYLOADS_PER_VISIT };
            while !slice && writer.entries_left() > 0 && taken < visit_max {
                match partition.take(channel, writer.payloads_left() > 0, crc, &mut ports.shard) {
                    Taken::Data { entry, segment, offset, len, born_ns } => {
                        slice = entry.payload().is_some_and(|data| data.is_slice(self.segment_size));
                        slice |= rare(Rare::ShortTrain);
                        writer.push(entry).expect("invariant: there was room for a payload");
                        writer.note_birth(born_ns);
                        let starved_ns = &mut partition.channels[channel].starved_ns;
                        partition.latency.departed(born_ns, starved_ns, ports.now_ns);
                        payloads.push(SendPayload { segment, offset, len });
                        train.partitions.push(at.partition);
                        taken += 1;
                    }
                    Taken::Control(entry) => {
                        writer.push(entry).expect("invariant: there was room for an entry")
                    }
                    Taken::Nothing => break,
                }
            }
            partition.note_starved(channel, ports.now_ns);
            list(partition, at.channel, &mut ports.links, &mut ports.local, ports.now_ns);
        }
    }

    /// A send ended. Without parts, the kernel still reads them.
    pub fn sent(&mut self, ports: &mut Ports, parts: SendParts) {
        self.sending = false;
        self.released(ports, parts);
    }

    /// The ring gave the parts of a send back.
    pub fn released(&mut self, ports: &mut Ports, parts: SendParts) {
        let arena = ports.arena.clone();
        let mut parts = parts.into_iter();
        let Some(first) = parts.next() else { return };
        let manifest = match arena.reopen(arena.land(first.segment)) {
            Ok(manifest) => manifest,
            Err(_) => unreachable!("invariant: a manifest is never shared"),
        };
        let at = self.away.iter().position(|train| train.manifest == manifest.index());
        let train = self.away.swap_remove(at.expect("invariant: the ring gives back what it was given"));
        self.manifests.push(manifest);
        for (part, partition) in parts.zip(train.partitions) {
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
        if self.sending {
            return false;
        }
        let Some(mut manifest) = self.manifests.pop() else { return false };
        let arena = ports.arena.clone();
        let train = Train { manifest: manifest.index(), partitions: ArrayVec::new() };
        let buffer = &mut arena.bytes_mut(&mut manifest)[..MANIFEST_MAX];
        let mut writer = ManifestWriter::new(buffer, self.trains_sent, 0);
        writer.push(Entry::link_error(code, detail)).expect("invariant: an empty manifest takes an entry");
        let len = writer.finish() as u32;
        let mut parts = SendParts::new();
        parts.push(SendPart { segment: arena.launch(arena.seal(manifest, len)), offset: 0, len });
        self.state = LinkState::Accusing;
        self.hand_to_ring(ring, ports, train, parts);
        self.sending
    }
}
