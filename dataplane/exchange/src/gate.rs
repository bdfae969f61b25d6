//! A gate: all channels into a task, what arrived on them, and what was promised to them.
//!
//! State per channel: the segments granted and not used, what arrived in order, credit. The gate reads channels round robin,
//! a segment each, except those that wait in an alignment.
//!
//! A record that is larger than a segment arrives in the gate's region, one at a time, when it was asked for and admitted
//! (`tidegate_flow::large`). The region is in the gate while it is idle or between two slices; else with the link that
//! receives into it, in the channel's queue, or with the task that reads it.
//!
//! Inequalities: promised + queued + held by the task ≤ `quota` over the remote channels ([`GrantPolicy`]); each promised
//! segment lies in its channel's `granted`, so a receive never lacks a place; at most `EVENTS_MAX` events wait per channel.

mod input;
mod large;
#[cfg(feature = "sim")]
mod state;

pub use input::Input;

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_arena::marks::Marks;
use tidegate_arena::{Arena, Granted, Holder, HolderKind, Segment, Shard, Shared};
use tidegate_flow::limits::EVENTS_MAX;
use tidegate_flow::{Alignment, GrantPolicy, Outcome, ReceiveCredit, ReceiveLarge, ReceiveOrder, Violation};
use tidegate_plant::{Plant, Rare, planted, rare};
use tidegate_wire::{Body, Entry};

use crate::event::Event;
use crate::latency::{GateLatency, Stamp};
use crate::limits::places;
use crate::local::{LocalConsumer, LocalItem};
use crate::ports::{InRef, LinkQueues};
use crate::report::{ChannelCounters, GateReport, PortUsage};
pub(crate) use large::Region;

pub(crate) enum InRoute {
    /// Channel number `channel` of the job, on link `link`.
    Remote {
        link: u32,
        channel: u32,
    },
    Local(LocalConsumer),
}

/// How far a channel has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Phase {
    Open,
    /// End of partition was read; a remote channel's close is on its way.
    Closing,
    /// The producer had its last word.
    Closed,
}

pub(crate) struct InChannel {
    pub route: InRoute,
    input: u8,
    pub credit: ReceiveCredit,
    pub large: ReceiveLarge,
    pub order: ReceiveOrder,
    pub granted: VecDeque<Segment<Granted>>,
    queue: VecDeque<Arrived>,
    /// The channel is in the gate's ready list.
    ready: bool,
    /// The channel is in the gate's hungry list.
    hungry: bool,
    voided: u32,
    pending_grant: u32,
    pending_resume: Option<(u64, u32)>,
    pending_close: bool,
    pending_admit: Option<u32>,
    /// The channel is in its link's control list.
    listed: bool,
    pub phase: Phase,
    data_ended: bool,
}

enum Arrived {
    Data(Segment<Shared>, Stamp),
    Event(Event),
}

/// What a gate hands to its task.
#[derive(Debug)]
pub enum GateItem {
    /// Records.
    Data(Buffer),
    /// Every live channel delivered the barrier: forward it, mark the state, then [`Input::resume`].
    Aligned {
        /// The checkpoint.
        checkpoint: u64,
        /// Nanoseconds from the first channel's barrier to the last one's.
        alignment_ns: u64,
    },
    /// The checkpoint is void here: forward an abort marker.
    Aborted {
        /// The checkpoint.
        checkpoint: u64,
    },
    /// No channel has another record; barriers may still come.
    EndOfData,
    /// Every channel has ended.
    EndOfPartition,
}

/// A segment of received records. Give it back with [`Input::release`]; dropping it releases the segment, but the gate then
/// misses it in its quota, so that is for tasks that end.
#[derive(Debug)]
pub struct Buffer {
    arena: Arena,
    segment: Option<Segment<Shared>>,
    channel: u32,
    /// Which input of the task it came in by.
    pub input: u8,
    /// When its oldest record was written, nanoseconds of the slot's clock; 0 where the producer has another one.
    pub birth_ns: u64,
}

impl Buffer {
    /// The records' bytes, aligned to the segment.
    pub fn bytes<'a>(&'a self, arena: &'a Arena) -> &'a [u8] {
        arena.bytes(self.segment.as_ref().expect("invariant: a buffer holds its segment until it is dropped"))
    }

    /// The channel's place in the gate.
    pub fn channel(&self) -> u32 {
        self.channel
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(segment) = self.segment.take() {
            self.arena.release(segment);
        }
    }
}

pub(crate) struct Gate {
    pub index: u32,
    name: String,
    pub generation: u32,
    pub channels: Vec<InChannel>,
    /// Channels of this process in which something arrived; none if there are no such channels.
    arrivals: Option<Arc<Marks>>,
    /// Those whose producers are to be woken, each once.
    owing: Vec<u32>,
    alignment: Alignment,
    /// The newest checkpoint whose alignment began, and when.
    aligning: (u64, u64),
    policy: GrantPolicy,
    quota: u32,
    ready: VecDeque<u32>,
    hungry: VecDeque<u32>,
    region: Region,
    next: Option<GateItem>,
    /// Channels that have a resume or a close to announce, each at most twice: once for each.
    announce: VecDeque<u32>,
    data_ended: u32,
    told_data_end: bool,
    told_partition_end: bool,
    pub counters: ChannelCounters,
    pub latency: GateLatency,
}

impl Gate {
    pub fn new(
        index: u32,
        name: String,
        generation: u32,
        quota: u32,
        region: Region,
        routes: Vec<(InRoute, u8)>,
    ) -> Self {
        let remote =
            routes.iter().filter(|(route, _)| matches!(route, InRoute::Remote { .. })).count() as u32;
        let count = routes.len();
        let own = places(quota, count);
        let channels = routes
            .into_iter()
            .map(|(route, input)| {
                let number = match route {
                    InRoute::Remote { channel, .. } => channel,
                    InRoute::Local(_) => 0,
                };
                InChannel {
                    route,
                    input,
                    credit: ReceiveCredit::new(number),
                    large: region.channel(number),
                    order: ReceiveOrder::default(),
                    granted: VecDeque::with_capacity(own),
                    queue: VecDeque::with_capacity(own + EVENTS_MAX),
                    ready: false,
                    hungry: false,
                    voided: 0,
                    pending_grant: 0,
                    pending_resume: None,
                    pending_close: false,
                    pending_admit: None,
                    listed: false,
                    phase: Phase::Open,
                    data_ended: false,
                }
            })
            .collect();
        Self {
            index,
            name,
            generation,
            channels,
            arrivals: None,
            owing: Vec::with_capacity(count - remote as usize),
            alignment: Alignment::new(count as u32),
            aligning: (0, 0),
            policy: GrantPolicy::new(quota, remote),
            quota,
            ready: VecDeque::with_capacity(count),
            hungry: VecDeque::with_capacity(count),
            region,
            next: None,
            announce: VecDeque::new(),
            data_ended: 0,
            told_data_end: false,
            told_partition_end: false,
            counters: ChannelCounters::default(),
            latency: GateLatency::default(),
        }
    }

    /// Gives it the marks of what arrives in it inside the process.
    pub fn with_arrivals(mut self, arrivals: Option<Arc<Marks>>) -> Self {
        self.arrivals = arrivals;
        self
    }

    /// Bytes of the heap that the channels take while nothing is queued or promised.
    #[cfg(test)]
    pub fn idle_bytes(&self) -> usize {
        let queues: usize = self.channels.iter().map(|channel| channel.queue.capacity()).sum();
        let granted: usize = self.channels.iter().map(|channel| channel.granted.capacity()).sum();
        self.channels.capacity() * size_of::<InChannel>()
            + queues * size_of::<Arrived>()
            + granted * size_of::<Segment<Granted>>()
            + (self.ready.capacity() + self.hungry.capacity()) * size_of::<u32>()
            + self.alignment.idle_bytes()
    }

    /// Puts a channel that has something to read into the ready list, once.
    fn mark_ready(&mut self, channel: u32) {
        let entry = &mut self.channels[channel as usize];
        if !entry.ready && self.alignment.open(channel) {
            entry.ready = true;
            self.ready.push_back(channel);
        }
    }

    fn mark_hungry(&mut self, channel: u32) {
        let entry = &mut self.channels[channel as usize];
        if !entry.hungry {
            entry.hungry = true;
            self.hungry.push_back(channel);
        }
    }

    /// Lists local channels in which something arrived.
    pub fn look_local(&mut self) -> bool {
        if let Some(arrivals) = self.arrivals.take() {
            arrivals.take(|channel| self.look_into(channel));
            self.arrivals = Some(arrivals);
        }
        !self.ready.is_empty()
    }

    fn look_into(&mut self, channel: u32) {
        if let InRoute::Local(local) = &self.channels[channel as usize].route
            && !local.is_empty()
        {
            self.mark_ready(channel);
        }
    }

    /// The producer of a local channel is to be woken: it got a segment back, or may be waiting for the queue to be empty or
    /// to have room.
    fn owe_ring(&mut self, channel: u32) {
        if let InRoute::Local(local) = &mut self.channels[channel as usize].route
            && local.owe_ring()
        {
            self.owing.push(channel);
        }
    }

    /// Wakes the producers of local channels.
    pub fn ring_local(&mut self) {
        for channel in self.owing.drain(..) {
            if let InRoute::Local(local) = &mut self.channels[channel as usize].route {
                local.ring();
            }
        }
    }

    pub fn has_input(&self) -> bool {
        !self.ready.is_empty() || self.next.is_some() || self.end_due()
    }

    fn end_due(&self) -> bool {
        let all = self.channels.len() as u32;
        (self.data_ended == all && !self.told_data_end)
            || (self.alignment.live() == 0 && !self.told_partition_end)
    }

    // ---- from the link ----

    /// Data was announced: checks it and hands out the segment it will be placed in.
    pub fn expect_data(
        &mut self,
        channel: usize,
        sequence: u32,
        backlog: u16,
    ) -> Result<Segment<Granted>, Violation> {
        let entry = &mut self.channels[channel];
        entry.credit.handle_data(sequence, backlog)?;
        let segment = entry.granted.pop_front();
        // Without a backlog, too: its next data must find credit.
        self.mark_hungry(channel as u32);
        Ok(segment.expect("invariant: outstanding credit is backed by granted segments"))
    }

    /// A barrier was announced: the promises are void, here and at the producer.
    pub fn expect_barrier(&mut self, channel: usize, checkpoint: u64, shard: &mut Shard) {
        let entry = &mut self.channels[channel];
        let voided = entry.credit.handle_barrier(checkpoint);
        entry.voided = voided;
        (entry.pending_grant, entry.pending_resume) = (0, None);
        for segment in entry.granted.drain(..) {
            shard.release(segment);
        }
        if !planted(Plant::KeepPromisesAtBarrier) {
            self.policy.give_back(voided);
        }
    }

    pub fn expect_backlog(&mut self, channel: usize, backlog: u16) {
        self.channels[channel].credit.handle_backlog(backlog);
        self.mark_hungry(channel as u32);
    }

    /// A payload is complete and its checksum is right.
    pub fn arrived(
        &mut self,
        channel: usize,
        segment: Segment<Granted>,
        len: u32,
        stamp: Stamp,
        shard: &mut Shard,
    ) {
        let entry = &mut self.channels[channel];
        if entry.phase != Phase::Open {
            // A lease swallows late payloads unread.
            shard.release(segment);
            self.policy.give_back(1);
            return;
        }
        let arena = shard.arena();
        arena.set_holder(&segment, Holder::new(HolderKind::Queued, self.index));
        let shared = arena.received(segment, len);
        entry.queue.push_back(Arrived::Data(shared, stamp));
        self.mark_ready(channel as u32);
    }

    pub fn arrived_event(&mut self, channel: usize, event: Event) -> Result<(), Violation> {
        let entry = &mut self.channels[channel];
        if entry.phase != Phase::Open {
            return Ok(());
        }
        if matches!(event, Event::Barrier { .. } | Event::AbortMarker { .. }) {
            // A newer one makes an unread older one moot (W-45): what needs no credit must not pile up.
            let moot = |item: &Arrived| {
                matches!(item, Arrived::Event(Event::Barrier { .. } | Event::AbortMarker { .. }))
            };
            entry.queue.retain(|item| !moot(item));
        }
        let waiting = entry.queue.iter().filter(|item| matches!(item, Arrived::Event(_))).count();
        if waiting >= EVENTS_MAX {
            let channel = entry.credit.channel();
            return Err(Violation::TooManyEvents { channel, limit: EVENTS_MAX as u32 });
        }
        entry.queue.push_back(Arrived::Event(event));
        self.mark_ready(channel as u32);
        Ok(())
    }

    /// The producer's last word: what was promised is free.
    pub fn close_acked(&mut self, channel: usize, shard: &mut Shard) {
        let entry = &mut self.channels[channel];
        entry.phase = Phase::Closed;
        if entry.large.close() {
            self.region.reserved = false;
        }
        let promised = entry.credit.close();
        for segment in entry.granted.drain(..) {
            shard.release(segment);
        }
        self.policy.give_back(promised);
    }

    /// Promises segments to hungry channels, as far as quota and shard go.
    pub fn grant(&mut self, shard: &mut Shard, links: &mut [LinkQueues]) {
        self.admit(links);
        for _ in 0..self.hungry.len() {
            // The others wait in the list for what comes back: looking at each of them in every turn would find nothing.
            if self.policy.free() == 0 {
                break;
            }
            let Some(channel) = self.hungry.pop_front() else { break };
            let entry = &mut self.channels[channel as usize];
            entry.hungry = false;
            // With credit left it comes again with its next data.
            let held = entry.credit.outstanding() > 0 && rare(Rare::GrantHeld);
            if entry.phase != Phase::Open || entry.credit.blocked() || held {
                continue;
            }
            let wish = self.policy.wish(&entry.credit);
            let granted = fill(entry, wish, shard, self.index);
            if granted > 0 {
                self.policy.take(granted);
                let entry = &mut self.channels[channel as usize];
                entry.credit.grant(granted);
                entry.pending_grant += granted - u32::from(planted(Plant::LoseCredit) && granted > 1);
                list(entry, self.index, channel, links);
            }
            let entry = &self.channels[channel as usize];
            // One that has credit left comes again by itself with its next data, which states what is left to grant.
            if entry.credit.backlog() > entry.credit.outstanding()
                && (granted > 0 || entry.credit.outstanding() == 0)
            {
                self.mark_hungry(channel);
            }
        }
    }

    /// The next control entry of a channel for the link's train to the producer.
    pub fn take_control(&mut self, channel: usize) -> Option<Entry> {
        let generation = self.generation;
        let entry = &mut self.channels[channel];
        let InRoute::Remote { channel: number, .. } = entry.route else { return None };
        let barriers = entry.credit.barriers();
        if let Some((checkpoint, credits)) = entry.pending_resume.take() {
            return Some(Entry::control(number, generation, Body::Resume { checkpoint, credits, barriers }));
        }
        if entry.pending_grant > 0 {
            let credits = std::mem::take(&mut entry.pending_grant);
            return Some(Entry::control(number, generation, Body::Grant { credits, barriers }));
        }
        if let Some(total) = entry.pending_admit.take() {
            return Some(Entry::control(number, generation, Body::Admit { total }));
        }
        if std::mem::take(&mut entry.pending_close) {
            entry.order.close_sent();
            return Some(Entry::control(number, generation, Body::Close));
        }
        entry.listed = false;
        None
    }

    // ---- for the task ----

    fn pop(&mut self, channel: u32, arena: &Arena, now_ns: u64) -> Option<GateItem> {
        let entry = &mut self.channels[channel as usize];
        let arrived = match &mut entry.route {
            InRoute::Remote { .. } => entry.queue.pop_front()?,
            InRoute::Local(local) => match local.pop()? {
                LocalItem::Data(parcel) => {
                    let stamp = Stamp { born_ns: parcel.born_ns, arrived_ns: parcel.handed_ns };
                    Arrived::Data(parcel.deliver(), stamp)
                }
                LocalItem::Event(event) => Arrived::Event(event),
            },
        };
        match arrived {
            Arrived::Data(segment, stamp) => {
                self.latency.taken(channel as usize, stamp, now_ns);
                arena.set_holder(&segment, Holder::new(HolderKind::Operator, self.index));
                self.counters.segments += 1;
                self.counters.bytes += u64::from(arena.len_of(&segment));
                let input = self.channels[channel as usize].input;
                Some(GateItem::Data(Buffer {
                    arena: arena.clone(),
                    segment: Some(segment),
                    channel,
                    input,
                    birth_ns: stamp.born_ns,
                }))
            }
            Arrived::Event(event) => {
                if !planted(Plant::LoseWakeUp) {
                    self.owe_ring(channel);
                }
                self.event(channel, event, now_ns)
            }
        }
    }

    fn event(&mut self, channel: u32, event: Event, now_ns: u64) -> Option<GateItem> {
        match event {
            Event::Barrier { checkpoint } => {
                let outcome = self.alignment.barrier(channel, checkpoint);
                if self.aligning.0 < checkpoint {
                    self.aligning = (checkpoint, now_ns);
                }
                self.outcome(channel, outcome, checkpoint, now_ns)
            }
            Event::AbortMarker { checkpoint } => {
                let outcome = self.alignment.abort_marker(checkpoint);
                self.outcome(channel, outcome, checkpoint, now_ns)
            }
            Event::EndOfData => {
                self.end_data(channel);
                None
            }
            Event::EndOfPartition => {
                self.end_data(channel);
                let entry = &mut self.channels[channel as usize];
                match entry.route {
                    InRoute::Remote { .. } => {
                        entry.phase = Phase::Closing;
                        entry.pending_close = true;
                        self.announce.push_back(channel);
                    }
                    InRoute::Local(_) => entry.phase = Phase::Closed,
                }
                let outcome = self.alignment.ended(channel);
                self.outcome(channel, outcome, 0, now_ns)
            }
        }
    }

    fn end_data(&mut self, channel: u32) {
        let entry = &mut self.channels[channel as usize];
        if !std::mem::replace(&mut entry.data_ended, true) {
            self.data_ended += 1;
        }
    }

    fn outcome(&mut self, channel: u32, outcome: Outcome, checkpoint: u64, now_ns: u64) -> Option<GateItem> {
        match outcome {
            Outcome::Wait => None,
            Outcome::Aligned { checkpoint } => Some(self.aligned(checkpoint, now_ns)),
            Outcome::Late => {
                self.resume_channel(channel as usize, checkpoint);
                None
            }
            Outcome::Aborted { checkpoint } => {
                if !planted(Plant::ForgetResume) {
                    self.resume_channels(checkpoint);
                }
                if let Some(Outcome::Aligned { checkpoint }) = self.alignment.follow_up() {
                    self.next = Some(self.aligned(checkpoint, now_ns));
                }
                Some(GateItem::Aborted { checkpoint })
            }
        }
    }

    fn aligned(&self, checkpoint: u64, now_ns: u64) -> GateItem {
        GateItem::Aligned { checkpoint, alignment_ns: now_ns.saturating_sub(self.aligning.1) }
    }

    fn resume_channels(&mut self, checkpoint: u64) {
        for channel in 0..self.channels.len() {
            self.resume_channel(channel, checkpoint);
        }
    }

    /// Ends a channel's wait: its producer hears of it, and what arrived behind the barrier may be read.
    fn resume_channel(&mut self, channel: usize, checkpoint: u64) {
        let entry = &mut self.channels[channel];
        let waiting = match &entry.route {
            InRoute::Local(local) => !local.is_empty(),
            // Nothing of ours may follow the close (W-33).
            InRoute::Remote { .. } if entry.phase != Phase::Open => false,
            InRoute::Remote { .. } => {
                if let Some(barrier) = entry.credit.resume(checkpoint) {
                    entry.pending_resume = Some((barrier, 0));
                    self.announce.push_back(channel as u32);
                }
                !entry.queue.is_empty()
            }
        };
        if waiting && entry.phase == Phase::Open {
            self.mark_ready(channel as u32);
        }
    }

    /// Promises a resumed channel what the barrier took from it, out of the surplus: it was busy a moment ago.
    fn regrant(&mut self, channel: usize, shard: &mut Shard) {
        let entry = &mut self.channels[channel];
        if let Some((_, credits)) = &mut entry.pending_resume
            && *credits == 0
            && entry.phase == Phase::Open
        {
            let wish = std::mem::take(&mut entry.voided).min(self.policy.surplus());
            let granted = fill(entry, wish, shard, self.index);
            let entry = &mut self.channels[channel];
            if let Some((_, credits)) = &mut entry.pending_resume {
                *credits = granted;
            }
            entry.credit.grant(granted);
            self.policy.take(granted);
        }
    }

    /// Gives every segment back. After an end in order none is promised, queued or held: the books must say so.
    ///
    /// # Panics
    /// If they do not: then credit was lost or invented on the way, and nothing that was counted can be believed.
    pub fn dismantle(self, shard: &mut Shard, in_order: bool) {
        let used = self.policy.used();
        assert!(!in_order || used == 0, "gate \"{}\" ends with {used} segments unaccounted for", self.name);
        self.region.dismantle(shard, in_order, &self.name);
        for channel in self.channels {
            for segment in channel.granted {
                if !planted(Plant::LeakGranted) {
                    shard.release(segment);
                }
            }
            for item in channel.queue {
                if let Arrived::Data(segment, _) = item {
                    shard.release(segment);
                }
            }
        }
    }

    pub fn usage(&self) -> PortUsage {
        PortUsage { quota: self.quota, used: self.policy.used(), counters: self.counters }
    }

    pub fn report(&self) -> GateReport {
        GateReport {
            name: self.name.clone(),
            quota: self.quota,
            used: self.policy.used(),
            aligning: self.alignment.current(),
            channels_live: self.alignment.live(),
            channels: self.channels.len() as u32,
            counters: self.counters,
        }
    }
}

/// Moves up to `wish` segments from the shard into the channel's grants.
fn fill(entry: &mut InChannel, wish: u32, shard: &mut Shard, gate: u32) -> u32 {
    let mut granted = 0;
    while granted < wish {
        let Some(segment) = shard.acquire_granted(Holder::new(HolderKind::Granted, gate)) else { break };
        entry.granted.push_back(segment);
        granted += 1;
    }
    granted
}

/// Puts a channel into its link's control list, once.
fn list(entry: &mut InChannel, gate: u32, channel: u32, links: &mut [LinkQueues]) {
    if let InRoute::Remote { link, .. } = entry.route
        && !std::mem::replace(&mut entry.listed, true)
    {
        links[link as usize].control.push_back(InRef { gate, channel });
    }
}
