//! A link: one TCP connection for one ordered pair of slots, producer to consumer, of one attempt.
//!
//! One send and one receive are in flight at most. A send is one train, assembled when the link is ready: control entries
//! first, then what the ready channels have. A receive is scattered into some payload slots of the open train and, behind its
//! last, the staging area. Receiving depends on granted segments and staging only, never on being able to send (R5).
//!
//! A zero-copy send leaves its train with the kernel until a notification; the next one goes meanwhile, as long as there is
//! another segment for its manifest.
//!
//! State: `sending` says whether a send is in flight; each manifest is here, or with a train of `away`. `posted` is empty
//! exactly when nothing is being received, and `staging` is here then. The slots of the open train hold granted segments, or
//! their parts are with the ring.
//!
//! End, in order: end of partition on each channel, close, close-ack, then the consumer shuts its side, the producer reads
//! the end of file and closes. Losing a link in any other way fails the attempt: links never resume.

mod receive;
mod send;

use std::net::SocketAddr;

use arrayvec::ArrayVec;
use tidegate_arena::{Filling, Granted, Holder, HolderKind, Segment, Shard};
use tidegate_flow::limits::PLACES_MAX;
use tidegate_flow::{Place, TrainReceiver, Violation};
use tidegate_ring::{ConnId, Ring};
use tidegate_wire::{End, Hello, PAYLOADS_MAX};

use crate::gate::Phase;
use crate::limits::{LINK_SEGMENTS, MANIFESTS_MAX, REDIAL_FOR, REDIAL_WAIT_MAX, REDIAL_WAIT_MIN};
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

/// Segments that manifests are written into.
pub(crate) type Manifests = ArrayVec<Segment<Filling>, MANIFESTS_MAX>;

/// A train that the ring has: the segment of its manifest, and whose its payloads are, in order.
struct Train {
    manifest: u32,
    partitions: ArrayVec<u32, PAYLOADS_MAX>,
}

struct PayloadSlot {
    /// A granted segment, or for a slice the gate's region.
    segment: Option<Segment<Granted>>,
    /// Where the payload starts in it: of a slice its offset, else 0.
    start: u32,
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
    /// The train that is being accepted has had its slice.
    behind_slice: bool,
    posted: ArrayVec<Place, PLACES_MAX>,
    sending: bool,
    manifests: Manifests,
    away: ArrayVec<Train, MANIFESTS_MAX>,
    trains_sent: u64,
    /// Channels of the table, from its start, that are closed and acknowledged: they stay so.
    finished: usize,
    end_of_file: bool,
    /// Both ends read the same clock.
    pub one_clock: bool,
    /// Payloads have no checksum: they only ever lie in memory of this host.
    pub in_memory: bool,
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
        manifests: Manifests,
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
            behind_slice: false,
            posted: ArrayVec::new(),
            sending: false,
            manifests,
            away: ArrayVec::new(),
            trains_sent: 0,
            finished: 0,
            end_of_file: false,
            one_clock: false,
            in_memory: false,
            dialing: Dialing::new(),
        }
    }

    /// Reserves the segments of a link, `count` in all: one for staging, the others for manifests. `None` if the shard has
    /// not as many as [`LINK_SEGMENTS`].
    pub fn reserve(shard: &mut Shard, index: u32, count: u32) -> Option<(Segment<Filling>, Manifests)> {
        let staging = shard.acquire(Holder::new(HolderKind::Staging, index))?;
        let wanted = count.saturating_sub(1).min(MANIFESTS_MAX as u32);
        let manifests: Manifests =
            (0..wanted).map_while(|_| shard.acquire(Holder::new(HolderKind::Manifest, index))).collect();
        if (1 + manifests.len() as u32) < LINK_SEGMENTS {
            manifests.into_iter().for_each(|manifest| shard.release(manifest));
            shard.release(staging);
            return None;
        }
        Some((staging, manifests))
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

    // ---- ending ----

    /// True if every channel is closed and its close acknowledged.
    fn finished(&mut self, ports: &Ports) -> bool {
        let closed = |at: &LinkTableEntry| match self.end {
            End::Consumer => ports.gates[at.port as usize]
                .as_ref()
                .is_none_or(|gate| gate.channels[at.place as usize].phase == Phase::Closed),
            End::Producer => ports.partitions[at.port as usize].as_ref().is_none_or(|partition| {
                let channel = &partition.channels[at.place as usize];
                channel.closed && !channel.ack_due
            }),
        };
        self.finished += self.table[self.finished..].iter().take_while(|at| closed(at)).count();
        self.finished == self.table.len()
    }

    /// Takes the next step of a graceful end, if its time has come.
    pub fn wind_down<R: Ring>(&mut self, ring: &mut R, ports: &Ports) {
        let Some(conn) = self.conn else { return };
        // A train whose notification is awaited may not have left yet, an accusation among them: closing now could throw
        // it away.
        if self.sending || !self.away.is_empty() {
            return;
        }
        let finished = self.state == LinkState::Open && self.end == End::Consumer && self.finished(ports);
        match self.state {
            LinkState::Open if finished => {
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
        for segment in self.staging.take().into_iter().chain(self.manifests.take()) {
            shard.release(segment);
        }
        for slot in self.slots.take() {
            if let Some(segment) = slot.segment {
                shard.release(segment);
            }
        }
    }
}
