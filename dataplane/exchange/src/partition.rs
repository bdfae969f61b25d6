//! A partition: all channels out of a task along one edge, and what is written to them.
//!
//! State per channel: the segment that is filled, sealed segments and events in order, credit. A spare segment is held ready,
//! so `writable()` is a comparison and a worst-case record always finds room on any channel. What does not fit a segment is
//! written into the partition's region, whole; until it has left, nothing more is written (`tidegate_flow::large` says why
//! that ends).
//!
//! Inequalities: `used ≤ quota`, where `used` counts the spare, the filling, the queued and the sent but not returned
//! segments; undelivered events per channel ≤ `EVENTS_MAX`; a queue never holds more than `quota + EVENTS_MAX` items.

mod holdup;
mod large;
mod output;
#[cfg(feature = "sim")]
mod state;

pub use holdup::{Cause, Holdup};
pub use output::Output;

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_arena::marks::Marks;
use tidegate_arena::{Arena, Draft, Filling, Holder, HolderKind, Sealed, Segment, Shard};
use tidegate_flow::limits::EVENTS_MAX;
use tidegate_flow::{SendCredit, SendLarge, SendOrder};
use tidegate_wire::{Body, Data, Entry};

use crate::event::Event;
use crate::latency::PartitionLatency;
use crate::limits::places;
use crate::local::{LocalItem, LocalProducer, Parcel};
use crate::ports::{LinkQueues, OutRef};
use crate::report::{ChannelCounters, PartitionReport, PortUsage};

pub(crate) enum OutRoute {
    /// Channel number `channel` of the job, on link `link`.
    Remote {
        link: u32,
        channel: u32,
    },
    Local(LocalProducer),
}

pub(crate) enum Queued {
    Data {
        segment: Segment<Sealed>,
        len: u32,
        born_ns: u64,
    },
    /// A record in the partition's region.
    Large {
        region: Segment<Sealed>,
        len: u32,
        born_ns: u64,
    },
    Event(Event),
}

pub(crate) struct OutChannel {
    pub route: OutRoute,
    pub credit: SendCredit,
    pub large: SendLarge,
    pub order: SendOrder,
    pub queue: VecDeque<Queued>,
    born_ns: u64,
    /// Since when it has had data and no credit, nanoseconds; 0 if it has some.
    pub starved_ns: u64,
    data_queued: u32,
    events: usize,
    /// The channel is in its link's (or the local) list of those that are ready.
    pub listed: bool,
    /// The channel is in its link's list of those that wait for the flush.
    pub waits: bool,
    /// What is filled has waited long enough: it goes as soon as there is credit.
    flush: bool,
    /// The consumer closed it: what is written is dropped.
    pub closed: bool,
    /// An answer to the consumer's close is due.
    pub ack_due: bool,
}

/// What the next item of a channel is, for a train.
pub(crate) enum Taken {
    Data {
        entry: Entry,
        segment: Segment<Sealed>,
        /// Where in the segment the payload starts; more than 0 for slices only.
        offset: u32,
        len: u32,
        born_ns: u64,
    },
    Control(Entry),
    /// Nothing can be sent now.
    Nothing,
}

/// The checksum of a payload, as its link has it.
pub(crate) type Crc = fn(&[u8]) -> u32;

/// When a channel has something for its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Now,
    /// When partly filled segments go.
    AtFlush,
    /// Not before somebody writes, or credit comes.
    Never,
}

pub(crate) struct Partition {
    pub index: u32,
    name: String,
    pub generation: u32,
    pub channels: Vec<OutChannel>,
    /// What is filled for each channel. All that a record touches on its way lies close together here, so that the lines of
    /// ten thousand channels stay in a cache.
    filling: Vec<Option<Draft>>,
    /// Channels of this process to which segments came back; none if there are no such channels.
    returns: Option<Arc<Marks>>,
    quota: u32,
    used: u32,
    spare: Option<Segment<Filling>>,
    /// Where a record of more than a segment is written, while none is on its way. Beside the quota.
    region: Option<Segment<Filling>>,
    /// The largest such record; 0 if there is no region.
    record_max: u32,
    /// Partly filled segments wait for the flush of their link.
    holds_back: bool,
    /// A broadcast partition fills one segment for all channels.
    broadcast: bool,
    shared: Option<Draft>,
    shared_born_ns: u64,
    pub counters: ChannelCounters,
    pub latency: PartitionLatency,
}

impl Partition {
    pub fn new(
        index: u32,
        name: String,
        generation: u32,
        quota: u32,
        broadcast: bool,
        routes: Vec<OutRoute>,
        holds_back: bool,
    ) -> Self {
        let own = places(quota, routes.len());
        let channels: Vec<OutChannel> = routes
            .into_iter()
            .map(|route| {
                let number = match route {
                    OutRoute::Remote { channel, .. } => channel,
                    OutRoute::Local(_) => 0,
                };
                OutChannel {
                    route,
                    credit: SendCredit::new(number),
                    large: SendLarge::new(number),
                    order: SendOrder::default(),
                    queue: VecDeque::with_capacity(own + EVENTS_MAX),
                    born_ns: 0,
                    starved_ns: 0,
                    data_queued: 0,
                    events: 0,
                    listed: false,
                    waits: false,
                    flush: false,
                    closed: false,
                    ack_due: false,
                }
            })
            .collect();
        Self {
            index,
            name,
            generation,
            filling: channels.iter().map(|_| None).collect(),
            channels,
            returns: None,
            quota,
            used: 0,
            spare: None,
            region: None,
            record_max: 0,
            // One segment of a broadcast is filled for all links, so none of them may hold it back.
            holds_back: holds_back && !broadcast,
            broadcast,
            shared: None,
            shared_born_ns: 0,
            counters: ChannelCounters::default(),
            latency: PartitionLatency::default(),
        }
    }

    /// Gives it the marks of what comes back to it inside the process.
    pub fn with_returns(mut self, returns: Option<Arc<Marks>>) -> Self {
        self.returns = returns;
        self
    }

    pub fn writable(&self) -> bool {
        self.spare.is_some() && self.region_ready()
    }

    /// Bytes of the heap that the channels take while nothing is queued.
    #[cfg(test)]
    pub fn idle_bytes(&self) -> usize {
        let queues: usize = self.channels.iter().map(|channel| channel.queue.capacity()).sum();
        self.channels.capacity() * size_of::<OutChannel>()
            + self.filling.capacity() * size_of::<Option<Draft>>()
            + queues * size_of::<Queued>()
    }

    /// Acquires the spare if the quota and the shard allow it.
    pub fn refill(&mut self, shard: &mut Shard) {
        if self.spare.is_none() && self.used < self.quota {
            self.spare = shard.acquire(Holder::new(HolderKind::Filling, self.index));
            self.used += u32::from(self.spare.is_some());
        }
    }

    /// One reference to a sent segment came back from the link or from the consumer's slot.
    pub fn returned(&mut self, segment: Segment<Sealed>, shard: &mut Shard) {
        let arena = shard.arena().clone();
        match arena.reopen(segment) {
            Ok(last) => {
                if self.is_region(&arena, &last) {
                    self.region = Some(last);
                } else if self.spare.is_none() {
                    arena.set_holder(&last, Holder::new(HolderKind::Filling, self.index));
                    self.spare = Some(last);
                } else {
                    shard.release(last);
                    self.give_back();
                }
            }
            Err(still_shared) => shard.release(still_shared),
        }
    }

    fn give_back(&mut self) {
        assert!(self.used > 0, "partition \"{}\" gets back more segments than it holds", self.name);
        self.used -= 1;
    }

    pub fn event_room(&self) -> bool {
        self.channels.iter().all(|channel| channel.closed || channel.events < EVENTS_MAX)
    }

    /// True if nothing waits to be sent and no segment is out.
    pub fn drained(&self) -> bool {
        // The segments first: while any is out nobody need look through the channels.
        self.used == u32::from(self.spare.is_some())
            && self.region_ready()
            && self.shared.is_none()
            && self
                .channels
                .iter()
                .zip(&self.filling)
                .all(|(channel, filling)| channel.closed || (channel.queue.is_empty() && filling.is_none()))
    }

    /// Something of this channel could leave.
    fn sendable(&self, channel: usize) -> bool {
        !self.channels[channel].queue.is_empty()
            || self.filling[channel].is_some()
            || (self.broadcast && self.shared.is_some())
    }

    /// True if what is filled for this channel waits for the flush of its link.
    fn held_back(&self, channel: &OutChannel) -> bool {
        self.holds_back && !channel.flush
    }

    /// The flush has come: what is filled for `channel` is to go.
    pub fn flush(&mut self, channel: usize) {
        self.channels[channel].flush = self.filling[channel].is_some();
    }

    /// Seals what is being filled for `channel` behind its queue.
    fn seal(&mut self, channel: usize, arena: &Arena) {
        let out = &mut self.channels[channel];
        out.flush = false;
        if let Some(draft) = self.filling[channel].take() {
            let (len, born_ns) = (draft.len(), out.born_ns);
            arena.set_holder(draft.segment(), Holder::new(HolderKind::Queued, self.index));
            out.queue.push_back(Queued::Data { segment: arena.seal_draft(draft), len, born_ns });
            out.data_queued += 1;
            self.counters.segments += 1;
            self.counters.bytes += u64::from(len);
        }
    }

    /// Seals the shared segment behind the queue of each channel: one payload, one reference per channel.
    fn seal_shared(&mut self, shard: &mut Shard) {
        let Some(draft) = self.shared.take() else { return };
        let arena = shard.arena().clone();
        arena.set_holder(draft.segment(), Holder::new(HolderKind::Queued, self.index));
        let (len, born_ns) = (draft.len(), self.shared_born_ns);
        let sealed = arena.seal_draft(draft);
        for out in self.channels.iter_mut().filter(|channel| !channel.closed) {
            out.queue.push_back(Queued::Data { segment: arena.share(&sealed), len, born_ns });
            out.data_queued += 1;
        }
        self.counters.segments += 1;
        self.counters.bytes += u64::from(len);
        // The reference we sealed with; if every channel is closed it is the last one.
        self.returned(sealed, shard);
    }

    /// The next entry of a remote channel for a train with room for payloads. What is said of a payload's bytes, `crc` finds.
    pub fn take(&mut self, channel: usize, payload_room: bool, crc: Crc, shard: &mut Shard) -> Taken {
        let arena = shard.arena().clone();
        let generation = self.generation;
        let OutRoute::Remote { channel: number, .. } = self.channels[channel].route else {
            unreachable!("invariant: only remote channels are in a link's list")
        };
        if std::mem::take(&mut self.channels[channel].ack_due) {
            let sequence = self.channels[channel].credit.next_sequence();
            return Taken::Control(Entry::sequenced(number, generation, sequence, Body::CloseAck));
        }
        if self.channels[channel].closed {
            return Taken::Nothing;
        }
        let held_back = self.held_back(&self.channels[channel]);
        let out = &self.channels[channel];
        if out.queue.is_empty() && out.credit.can_send() && payload_room && !held_back {
            // Seal on take: appends went on until now, so load makes its own batches.
            if self.broadcast { self.seal_shared(shard) } else { self.seal(channel, &arena) }
        }
        // What is held back asks for no credit yet: it would lie idle, and may be of more use elsewhere.
        let filling = self.filling[channel].is_some() || self.shared.is_some();
        let unsealed = u32::from(filling && !self.held_back(&self.channels[channel]));
        let out = &mut self.channels[channel];
        match out.queue.front() {
            // Between a barrier and its resume the consumer reads nothing of this channel: events wait here, counted.
            Some(Queued::Event(_)) if out.credit.blocked_by().is_some() => Taken::Nothing,
            Some(Queued::Event(_)) => self.take_event(channel, number),
            Some(Queued::Large { .. }) => {
                self.take_large(channel, number, payload_room, crc, unsealed, &arena)
            }
            Some(Queued::Data { .. }) if out.credit.can_send() => {
                if !payload_room {
                    return Taken::Nothing;
                }
                let Some(Queued::Data { segment, len, born_ns }) = out.queue.pop_front() else {
                    unreachable!("invariant: the front was data")
                };
                out.data_queued -= 1;
                let backlog = (out.data_queued + unsealed).min(u32::from(u16::MAX)) as u16;
                let sequence = out.credit.take(backlog);
                let crc = crc(arena.bytes(&segment));
                let entry = Entry::data(number, generation, sequence, backlog, Data::whole(len, crc));
                Taken::Data { entry, segment, offset: 0, len, born_ns }
            }
            _ => {
                let queued = (out.data_queued + unsealed).min(u32::from(u16::MAX)) as u16;
                match out.credit.backlog_to_state(queued) {
                    Some(backlog) => {
                        out.credit.backlog_stated(backlog);
                        Taken::Control(Entry::backlog(number, generation, backlog))
                    }
                    None => Taken::Nothing,
                }
            }
        }
    }

    fn take_event(&mut self, channel: usize, number: u32) -> Taken {
        let out = &mut self.channels[channel];
        let Some(Queued::Event(event)) = out.queue.pop_front() else {
            unreachable!("invariant: the front was an event")
        };
        out.events -= 1;
        let sequence = out.credit.next_sequence();
        let body = match event {
            Event::Barrier { checkpoint } => {
                out.credit.barrier_sent(checkpoint);
                Body::Barrier { checkpoint }
            }
            Event::AbortMarker { checkpoint } => Body::AbortMarker { checkpoint },
            Event::EndOfData => Body::EndOfData,
            Event::EndOfPartition => Body::EndOfPartition,
        };
        Taken::Control(Entry::sequenced(number, self.generation, sequence, body))
    }

    /// When a visit of [`take`](Self::take) could find something.
    pub fn turn_of(&self, channel: usize) -> Turn {
        let out = &self.channels[channel];
        let now_if = |now| if now { Turn::Now } else { Turn::Never };
        if out.ack_due || out.closed {
            return now_if(out.ack_due);
        }
        match out.queue.front() {
            Some(Queued::Event(_)) => now_if(out.credit.blocked_by().is_none()),
            Some(Queued::Large { .. }) => now_if(out.large_may_leave()),
            None if self.filling[channel].is_some() && self.held_back(out) => Turn::AtFlush,
            _ if !self.sendable(channel) => Turn::Never,
            _ => now_if(out.credit.can_send() || out.credit.backlog_to_state(1).is_some()),
        }
    }

    /// Moves what a local channel has to its consumer. Returns segments handed over.
    pub fn hand_over(&mut self, channel: usize, shard: &mut Shard, now_ns: u64) -> u64 {
        let arena = shard.arena().clone();
        let OutRoute::Local(local) = &self.channels[channel].route else { return 0 };
        if local.closed() {
            self.close_channel(channel, shard);
            return 0;
        }
        // A half-filled segment goes when the consumer has nothing else to do.
        if self.channels[channel].queue.is_empty() && local.is_empty() {
            if self.broadcast { self.seal_shared(shard) } else { self.seal(channel, &arena) }
        }
        let out = &mut self.channels[channel];
        let OutRoute::Local(local) = &mut out.route else { return 0 };
        let mut handed = 0;
        while local.has_room(!matches!(out.queue.front(), Some(Queued::Event(_)) | None)) {
            let item = match out.queue.pop_front() {
                Some(Queued::Data { segment, born_ns, .. }) => {
                    out.data_queued -= 1;
                    handed += 1;
                    self.latency.departed(born_ns, &mut out.starved_ns, now_ns);
                    LocalItem::Data(Parcel::new(arena.clone(), segment, born_ns, now_ns))
                }
                Some(Queued::Large { region, born_ns, .. }) => {
                    handed += 1;
                    self.latency.departed(born_ns, &mut out.starved_ns, now_ns);
                    LocalItem::Data(Parcel::new(arena.clone(), region, born_ns, now_ns))
                }
                Some(Queued::Event(event)) => {
                    out.events -= 1;
                    LocalItem::Event(event)
                }
                None => break,
            };
            if local.push(item).is_err() {
                break;
            }
        }
        local.ring();
        self.note_starved(channel, now_ns);
        handed
    }

    /// Notes since when a channel that was just looked at has had data and no credit, or inside a process no room.
    pub fn note_starved(&mut self, channel: usize, now_ns: u64) {
        let out = &self.channels[channel];
        if out.starved_ns != 0 {
            return;
        }
        let starved = match (&out.route, out.queue.front()) {
            (OutRoute::Remote { .. }, Some(Queued::Data { .. }) | None) => self.lacks_credit(channel),
            (OutRoute::Remote { .. }, Some(Queued::Large { .. })) => !out.large.admitted(),
            (OutRoute::Local(_), Some(Queued::Data { .. } | Queued::Large { .. })) => true,
            _ => false,
        };
        if starved {
            self.channels[channel].starved_ns = now_ns;
        }
    }

    /// True if a local channel still has something for its consumer.
    pub fn waits_locally(&self, channel: usize) -> bool {
        !self.channels[channel].closed && self.sendable(channel)
    }

    /// Takes back what consumers of this process have released.
    pub fn look_returns(&mut self, shard: &mut Shard) -> bool {
        let Some(returns) = self.returns.take() else { return false };
        let mut any = false;
        returns.take(|channel| any |= self.collect_returns(channel as usize, shard));
        self.returns = Some(returns);
        any
    }

    /// Takes back what the local consumer has released.
    fn collect_returns(&mut self, channel: usize, shard: &mut Shard) -> bool {
        let mut any = false;
        loop {
            let OutRoute::Local(local) = &mut self.channels[channel].route else { return any };
            let Some(returned) = local.take_return() else { return any };
            any = true;
            let segment = returned.open();
            if self.is_region(shard.arena(), &segment) {
                self.region_returned(segment, shard);
                continue;
            }
            // References move only through this thread, so the count can't change between the look and the release.
            let last = shard.arena().references(&segment) == 1;
            shard.release(segment);
            if last {
                self.give_back();
            }
        }
    }

    /// The consumer closed the channel: what is queued for it is dropped.
    pub fn close_channel(&mut self, channel: usize, shard: &mut Shard) {
        let out = &mut self.channels[channel];
        if out.closed {
            return;
        }
        out.closed = true;
        out.flush = false;
        out.events = 0;
        out.data_queued = 0;
        let filling = self.filling[channel].take();
        let queue = std::mem::take(&mut out.queue);
        if let Some(draft) = filling {
            shard.release(draft.into_segment());
            self.give_back();
        }
        for item in queue {
            if let Queued::Data { segment, .. } | Queued::Large { region: segment, .. } = item {
                self.returned(segment, shard);
            }
        }
    }

    /// Gives every segment back; those in flight come back through the ring.
    pub fn dismantle(mut self, shard: &mut Shard) {
        for channel in 0..self.channels.len() {
            self.close_channel(channel, shard);
        }
        let shared = self.shared.take().map(Draft::into_segment);
        for segment in [self.spare.take(), shared, self.region.take()].into_iter().flatten() {
            shard.release(segment);
        }
    }

    pub fn usage(&self) -> PortUsage {
        PortUsage { quota: self.quota, used: self.used, counters: self.counters }
    }

    /// True if this channel could send something if only its consumer had room.
    fn lacks_credit(&self, place: usize) -> bool {
        let channel = &self.channels[place];
        let held_back = channel.queue.is_empty() && self.held_back(channel);
        let remote = matches!(channel.route, OutRoute::Remote { .. });
        remote && !channel.closed && !channel.credit.can_send() && !held_back && self.sendable(place)
    }

    pub fn report(&self) -> PartitionReport {
        let open = || self.channels.iter().filter(|channel| !channel.closed);
        PartitionReport {
            name: self.name.clone(),
            quota: self.quota,
            used: self.used,
            channels_without_credit: (0..self.channels.len())
                .filter(|&place| self.lacks_credit(place))
                .count() as u32,
            channels_blocked: open().filter(|channel| channel.credit.blocked_by().is_some()).count() as u32,
            channels: self.channels.len() as u32,
            counters: self.counters,
        }
    }
}

/// Puts a channel into the list where its turn is, once.
pub(crate) fn list(
    partition: &mut Partition,
    channel: u32,
    links: &mut [LinkQueues],
    local: &mut VecDeque<OutRef>,
    now_ns: u64,
) {
    let entry = OutRef { partition: partition.index, channel };
    let out = &mut partition.channels[channel as usize];
    let OutRoute::Remote { link, .. } = out.route else {
        if !std::mem::replace(&mut out.listed, true) {
            local.push_back(entry);
        }
        return;
    };
    let ready = &mut links[link as usize].out;
    match partition.turn_of(channel as usize) {
        Turn::Never => {}
        Turn::Now => {
            if !std::mem::replace(&mut partition.channels[channel as usize].listed, true) {
                ready.push_now(entry);
            }
        }
        Turn::AtFlush => {
            if !std::mem::replace(&mut partition.channels[channel as usize].waits, true) {
                ready.push_later(entry, now_ns);
            }
        }
    }
}
