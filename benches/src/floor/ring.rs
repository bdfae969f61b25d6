//! The floor over io_uring, with the engine's own driver and arena: registered segments, gathered and scattered.
//!
//! This file owns the segments, the caller the numbers and how many frames an operation has (`train`, at most [`TRAIN`]). Always: one send and one receive in flight at most, as in the
//! engine; a train is filled while the one before it is being sent; segments in use ≤ two trains.

use std::net::TcpStream;

use tidegate_arena::{
    Arena, ArenaConfig, Granted, Holder, HolderKind, HugePages, Segment, SegmentSize, Shard,
};
use tidegate_ring::{
    Completion, ConnId, IoFault, ReceivePart, ReceiveParts, Registration, Ring, SendMode, SendPart,
    SendParts, UringConfig, UringRing,
};

use super::frames::{Fill, Layout, Take};
use crate::meter::Meter;

/// Frames of one operation: as many as the engine's trains have payloads.
pub const TRAIN: usize = 16;
const HOLDER: Holder = Holder { kind: HolderKind::Other, id: 0 };

/// One end of the connection.
struct End {
    arena: Arena,
    shard: Shard,
    ring: UringRing,
    conn: ConnId,
}

impl End {
    fn new(socket: TcpStream, layout: Layout, train: usize) -> Result<Self, String> {
        let bytes = layout.frame().next_power_of_two().max(4096) as u32;
        let segment_size = SegmentSize::new(bytes).map_err(|error| error.to_string())?;
        let config =
            ArenaConfig { segment_size, shards: vec![2 * train as u32], huge_pages: HugePages::Auto };
        let (arena, mut shards) = Arena::map(&config).map_err(|error| error.to_string())?;
        let config =
            UringConfig { send: SendMode::Plain, registration: Registration::Auto, connections_max: 1 };
        let mut ring = UringRing::new(&arena, 0, &config).map_err(|error| error.to_string())?;
        let conn = ring.attach(socket).map_err(|error| error.to_string())?;
        Ok(Self { arena, shard: shards.remove(0), ring, conn })
    }

    /// Starts to receive into `segment`, from `at` to `end`, and into empty ones behind it, one for each of `more` lengths.
    fn post(
        &mut self,
        first: Option<(Segment<Granted>, u32, u32)>,
        more: impl Iterator<Item = u32>,
    ) -> Result<(), String> {
        let mut parts = ReceiveParts::new();
        if let Some((segment, at, end)) = first {
            parts.push(ReceivePart { segment: self.arena.post(segment), offset: at, len: end - at });
        }
        for len in more {
            let segment = self.shard.acquire_granted(HOLDER).expect("invariant: room for two trains");
            parts.push(ReceivePart { segment: self.arena.post(segment), offset: 0, len });
        }
        self.ring.receive(self.conn, parts).map_err(|_| "the connection is gone".to_owned())
    }

    /// Waits for the receive.
    fn received(&mut self) -> Result<(u32, ReceiveParts), String> {
        let mut found = None;
        loop {
            self.ring.reap(4, &mut |completion| {
                if let Completion::Received { result, parts, .. } = completion {
                    found = Some((result, parts));
                }
            });
            match found.take() {
                Some((Ok(bytes), parts)) => return Ok((bytes, parts)),
                Some((Err(fault), _)) => return Err(broken(&fault)),
                None => self.ring.wait(None),
            }
        }
    }
}

fn broken(fault: &IoFault) -> String {
    format!("the connection broke: {fault:?}")
}

/// Sends all records that the meter still expects.
///
/// # Errors
/// There is no io_uring here, or the connection broke.
pub fn send(
    socket: TcpStream,
    layout: Layout,
    train: usize,
    fill: &mut impl Fill,
    meter: &mut Meter,
) -> Result<(), String> {
    let mut end = End::new(socket, layout, train)?;
    let mut unfilled = meter.left();
    let mut next = SendParts::new();
    let (mut filled, mut flying) = (0, None);
    while meter.left() > 0 {
        while next.len() < train && unfilled > 0 {
            let records = unfilled.min(layout.per_frame as u64);
            let len = layout.bytes(records) as u32;
            let mut segment = end.shard.acquire(HOLDER).expect("invariant: room for two trains");
            layout.seal(&mut end.arena.bytes_mut(&mut segment)[..len as usize], fill);
            let segment = end.arena.launch(end.arena.seal(segment, len));
            next.push(SendPart { segment, offset: 0, len });
            (unfilled, filled) = (unfilled - records, filled + records);
        }
        if flying.is_none() {
            let parts = std::mem::take(&mut next);
            end.ring.send(end.conn, parts).map_err(|_| "the connection is gone".to_owned())?;
            flying = Some(std::mem::take(&mut filled));
        }
        let mut fault = None;
        let reaped = end.ring.reap(4, &mut |completion| {
            if let Completion::Sent { parts, result, .. } = completion {
                parts.into_iter().for_each(|part| end.shard.release(end.arena.land(part.segment)));
                fault = result.err();
                meter.count(flying.take().unwrap_or_default());
            }
        });
        if let Some(fault) = fault {
            return Err(broken(&fault));
        }
        if reaped == 0 {
            end.ring.wait(None);
        }
    }
    // The end of a ring throws away what the peer has not acknowledged: wait for its end of file.
    end.ring.shutdown_write(end.conn);
    end.post(None, std::iter::once(1))?;
    end.received().map(drop)
}

/// Receives as many, working on each frame as soon as it is whole.
///
/// # Errors
/// There is no io_uring here, the connection broke or ended early, or a checksum is wrong.
pub fn receive(
    socket: TcpStream,
    layout: Layout,
    train: usize,
    take: &mut impl Take,
    meter: &mut Meter,
) -> Result<(), String> {
    let mut end = End::new(socket, layout, train)?;
    let mut begun: Option<(Segment<Granted>, u32)> = None;
    while meter.left() > 0 {
        let all = meter.left();
        let mut lengths = (0..train as u64)
            .map(|frame| all.saturating_sub(frame * layout.per_frame as u64).min(layout.per_frame as u64))
            .take_while(|&records| records > 0)
            .map(|records| layout.bytes(records) as u32);
        let first = match begun.take() {
            Some((segment, at)) => lengths.next().map(|end| (segment, at, end)),
            None => None,
        };
        end.post(first, lengths)?;
        let (mut bytes, parts) = end.received()?;
        if bytes == 0 {
            return Err(format!("the source ended with {} records to come", meter.left()));
        }
        for part in parts {
            let segment = end.arena.unpost::<Granted>(part.segment);
            let received = bytes.min(part.len);
            bytes -= received;
            if received == part.len {
                let segment = end.arena.received(segment, part.offset + part.len);
                let frame = end.arena.bytes(&segment);
                layout.open(frame, take)?;
                meter.count(layout.records(frame.len()));
                end.shard.release(segment);
            } else if part.offset + received > 0 {
                begun = Some((segment, part.offset + received));
            } else {
                end.shard.release(segment);
            }
        }
    }
    Ok(())
}
