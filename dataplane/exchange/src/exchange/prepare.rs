//! Preparing an attempt: its need is checked, its quotas are reserved, its ports and links are made.
//!
//! All or nothing: whatever can be refused is refused before the first segment is taken (R3).

use std::sync::Arc;

use tidegate_arena::marks::Marks;
use tidegate_arena::{Filling, Granted, Holder, HolderKind, Segment};
use tidegate_ring::Ring;
use tidegate_wire::{End, Hello, RECORD_FORMAT, SlotAddress, VERSION, channels_hash};

use super::{Attempt, Exchange, Life};
use crate::endpoint::Greet;
use crate::error::PrepareError;
use crate::gate::{Gate, InRoute, Region};
use crate::limits::{GATE_SEGMENTS_MIN, LINK_SEGMENTS, MANIFESTS_MAX, PARTITION_SEGMENTS_MIN};
use crate::link::{Link, LinkTableEntry};
use crate::local::{Knock, LocalKey};
use crate::partition::{OutRoute, Partition};
use crate::plan::{
    AttemptPlan, ChannelPlan, GateId, LinkChannel, PartitionId, SlotId, TaskIds, TaskPorts, gate_wanted,
    links, partition_wanted, region_segments, remote_channels, segments_min,
};
use crate::ports::LinkQueues;
use crate::ready::ReadyList;

impl<R: Ring> Exchange<R>
where
    R::Socket: Greet,
{
    /// Reserves all that `plan` needs on this slot, or nothing, and starts to dial.
    ///
    /// # Errors
    /// [`PrepareError`]; nothing is reserved then.
    pub fn prepare(&mut self, plan: &AttemptPlan) -> Result<Vec<TaskIds>, PrepareError> {
        if self.find_attempt(plan.job, plan.attempt).is_some() {
            return Err(PrepareError::Duplicate { attempt: plan.attempt });
        }
        let segment_size = self.ports.arena.segment_size() as u32;
        let need = segments_min(plan, self.config.me, segment_size);
        let reserved: u32 = self.attempts.iter().map(|attempt| attempt.reserved).sum();
        let available = (self.ports.shard.capacity() - reserved).min(self.ports.shard.free());
        if need.min > available {
            return Err(PrepareError::Segments { needed: need.min, available, edge: need.edge });
        }
        let pairs = links(plan, self.config.me);
        for peer in pairs.producers.keys() {
            if !plan.peers.contains_key(&peer.taskmanager) {
                return Err(PrepareError::NoAddress(*peer));
            }
        }
        let mut regions = self.regions(plan, region_segments(plan.record_max, segment_size), available)?;
        // Where sends wait for notifications a link wants manifests for those as well.
        let links = (pairs.producers.len() + pairs.consumers.len()) as u32;
        let link_wanted = LINK_SEGMENTS + self.ring.notifications_max().min(MANIFESTS_MAX as u32 - 1);
        let wanted = need.wanted + links * (link_wanted - LINK_SEGMENTS);
        let share = Share { extra: available - need.min, wish: wanted - need.min };
        let link_segments = share.quota(LINK_SEGMENTS, link_wanted);
        let mut attempt = Attempt {
            job: plan.job,
            epoch: plan.epoch,
            number: plan.attempt,
            life: Life::Running,
            failed: false,
            reserved: 0,
            partitions: Vec::new(),
            gates: Vec::new(),
            links: Vec::new(),
        };
        let first_link = self.links.iter().position(Option::is_none).unwrap_or(self.links.len());
        let mut places = Places { next: first_link, taken: Vec::new() };
        let consumers: Vec<_> =
            pairs.consumers.iter().map(|(peer, list)| (*peer, list.clone(), End::Producer)).collect();
        let producers: Vec<_> =
            pairs.producers.iter().map(|(peer, list)| (*peer, list.clone(), End::Consumer)).collect();
        for (peer, channels, end) in consumers.into_iter().chain(producers) {
            let index = places.place(&self.links);
            attempt.links.push(index);
            attempt.reserved += link_segments;
            places.taken.push((peer, end, channels, index));
        }
        let ids = self.make_ports(plan, &places, &share, &mut regions, &mut attempt);
        self.make_links(plan, places, &attempt, link_segments);
        self.attempts.push(attempt);
        self.dial(plan);
        self.match_early();
        Ok(ids)
    }

    /// Takes a region for each partition, and each gate that data of other TaskManagers enters. Before anything else: neighbours
    /// get rare.
    fn regions(
        &mut self,
        plan: &AttemptPlan,
        segments: u32,
        available: u32,
    ) -> Result<Regions, PrepareError> {
        let mut regions = Regions { partitions: Vec::new(), gates: Vec::new() };
        if segments == 0 {
            return Ok(regions);
        }
        let partitions = plan.tasks.iter().map(|task| task.partitions.len()).sum();
        let entered = |task: &&TaskPorts| {
            task.gate.as_ref().is_some_and(|gate| remote_channels(gate, self.config.me) > 0)
        };
        let gates = plan.tasks.iter().filter(entered).count();
        let shard = &mut self.ports.shard;
        let holder = Holder::new(HolderKind::Region, plan.attempt);
        regions.partitions.extend((0..partitions).map_while(|_| shard.acquire_run(segments, holder)));
        regions.gates.extend((0..gates).map_while(|_| shard.acquire_granted_run(segments, holder)));
        if regions.partitions.len() == partitions && regions.gates.len() == gates {
            return Ok(regions);
        }
        regions.partitions.into_iter().for_each(|region| shard.release(region));
        regions.gates.into_iter().for_each(|region| shard.release(region));
        Err(PrepareError::Region { segments, available, record_max: plan.record_max })
    }

    /// How to tell this slot of a port's channel inside the process. The port's marks are made with the first.
    fn knock(&self, marks: &mut Option<Arc<Marks>>, channels: usize, place: u32) -> Knock {
        let marks = marks.get_or_insert_with(|| Arc::new(Marks::new(channels as u32)));
        Knock { bell: self.bell.clone(), marks: Arc::clone(marks), place }
    }

    fn make_ports(
        &mut self,
        plan: &AttemptPlan,
        places: &Places,
        share: &Share,
        regions: &mut Regions,
        attempt: &mut Attempt,
    ) -> Vec<TaskIds> {
        let segment_size = self.ports.arena.segment_size() as u32;
        let region = region_segments(plan.record_max, segment_size);
        let mut ids = Vec::with_capacity(plan.tasks.len());
        for task in &plan.tasks {
            let mut partitions = Vec::new();
            for partition in &task.partitions {
                let index = vacancy(&mut self.ports.partitions);
                let mut returns = None;
                let routes = (0..)
                    .zip(&partition.channels)
                    .map(|(place, channel)| match places.link(channel.peer, End::Producer) {
                        Some(link) => OutRoute::Remote { link, channel: channel.channel },
                        None => {
                            let me = self.knock(&mut returns, partition.channels.len(), place);
                            OutRoute::Local(self.hub.producer(local_key(plan, channel), me))
                        }
                    })
                    .collect();
                let quota = share.quota(PARTITION_SEGMENTS_MIN, partition_wanted(partition.channels.len()));
                attempt.reserved += quota + region;
                attempt.partitions.push(index);
                self.ports.local.reserve(partition.channels.len());
                let made = Partition::new(
                    index,
                    partition.name.clone(),
                    plan.attempt,
                    quota,
                    partition.broadcast,
                    routes,
                    self.flush_ns > 0,
                );
                let own = regions.partitions.pop().map(|region| (region, plan.record_max));
                self.ports.partitions[index as usize] = Some(made.with_region(own).with_returns(returns));
                partitions.push(PartitionId(index));
            }
            let gate = task.gate.as_ref().map(|gate| {
                let index = vacancy(&mut self.ports.gates);
                let mut arrivals = None;
                let routes = (0..)
                    .zip(&gate.channels)
                    .map(|(place, channel)| {
                        let route = match places.link(channel.peer, End::Consumer) {
                            Some(link) => InRoute::Remote { link, channel: channel.channel },
                            None => {
                                let me = self.knock(&mut arrivals, gate.channels.len(), place);
                                InRoute::Local(self.hub.consumer(local_key(plan, channel), me))
                            }
                        };
                        (route, channel.input)
                    })
                    .collect();
                let remote = remote_channels(gate, self.config.me);
                let quota = if remote > 0 { share.quota(GATE_SEGMENTS_MIN, gate_wanted(remote)) } else { 0 };
                let own = if remote > 0 { regions.gates.pop() } else { None };
                attempt.reserved += quota + if own.is_some() { region } else { 0 };
                attempt.gates.push(index);
                let own = Region::new(own, segment_size, plan.record_max, remote);
                let made = Gate::new(index, gate.name.clone(), plan.attempt, quota, own, routes);
                self.ports.gates[index as usize] = Some(made.with_arrivals(arrivals));
                GateId(index)
            });
            ids.push(TaskIds { task: task.task, gate, partitions });
        }
        ids
    }

    fn make_links(&mut self, plan: &AttemptPlan, places: Places, attempt: &Attempt, segments: u32) {
        for (peer, end, channels, index) in places.taken {
            let table = self.link_table(end, &channels, attempt);
            let hello = self.hello(plan, peer, end, &channels);
            let (staging, manifests) = Link::reserve(&mut self.ports.shard, index, segments)
                .expect("invariant: the plan's need was checked against the free segments");
            let at = index as usize;
            if self.links.len() <= at {
                self.links.resize_with(at + 1, || None);
                self.ports.links.resize_with(at + 1, LinkQueues::default);
            }
            let control = std::collections::VecDeque::with_capacity(channels.len());
            let out = ReadyList::new(channels.len(), self.flush_ns);
            self.ports.links[at] = match end {
                End::Producer => LinkQueues { out, ..LinkQueues::default() },
                End::Consumer => LinkQueues { control, ..LinkQueues::default() },
            };
            self.links[at] = Some(Link::new(index, peer, end, hello, table, staging, manifests));
        }
    }

    /// Where each channel of a link ends on this side, by channel number.
    fn link_table(&self, end: End, channels: &[LinkChannel], attempt: &Attempt) -> Vec<LinkTableEntry> {
        let mut all = Vec::new();
        match end {
            End::Producer => {
                for &port in &attempt.partitions {
                    let partition =
                        self.ports.partitions[port as usize].as_ref().expect("invariant: just made");
                    for (place, channel) in partition.channels.iter().enumerate() {
                        if let OutRoute::Remote { channel: number, .. } = channel.route {
                            all.push(LinkTableEntry { number, port, place: place as u32 });
                        }
                    }
                }
            }
            End::Consumer => {
                for &port in &attempt.gates {
                    let gate = self.ports.gates[port as usize].as_ref().expect("invariant: just made");
                    for (place, channel) in gate.channels.iter().enumerate() {
                        if let InRoute::Remote { channel: number, .. } = channel.route {
                            all.push(LinkTableEntry { number, port, place: place as u32 });
                        }
                    }
                }
            }
        }
        all.sort_unstable_by_key(|entry| entry.number);
        all.retain(|entry| channels.binary_search_by_key(&entry.number, |channel| channel.channel).is_ok());
        assert_eq!(all.len(), channels.len(), "each channel of a link ends at one port");
        all
    }

    fn hello(&self, plan: &AttemptPlan, peer: SlotId, end: End, channels: &[LinkChannel]) -> Hello {
        let address = |slot: SlotId| SlotAddress { tm: slot.taskmanager, slot: slot.slot };
        let (consumer, producer) = match end {
            End::Consumer => (self.config.me, peer),
            End::Producer => (peer, self.config.me),
        };
        Hello {
            version: VERSION,
            cluster: self.config.cluster,
            job: plan.job,
            epoch: plan.epoch,
            attempt: plan.attempt,
            from: address(consumer),
            to: address(producer),
            segment_size: self.ports.arena.segment_size() as u32,
            record_format: RECORD_FORMAT,
            channels: channels.len() as u32,
            channels_hash: channels_hash(channels.iter().map(|channel| (channel.channel, channel.schema))),
        }
    }
}

/// The regions of a plan that is being prepared.
struct Regions {
    partitions: Vec<Segment<Filling>>,
    gates: Vec<Segment<Granted>>,
}

/// Divides what the shard has beyond the plan's minimum.
struct Share {
    extra: u32,
    wish: u32,
}

impl Share {
    fn quota(&self, min: u32, wanted: u32) -> u32 {
        let wish = wanted - min;
        if self.extra >= self.wish {
            return wanted;
        }
        min + (u64::from(wish) * u64::from(self.extra) / u64::from(self.wish.max(1))) as u32
    }
}

/// Links of a plan that is being prepared.
struct Places {
    next: usize,
    taken: Vec<(SlotId, End, Vec<LinkChannel>, u32)>,
}

impl Places {
    fn place(&mut self, links: &[Option<Link>]) -> u32 {
        while links.get(self.next).is_some_and(Option::is_some) {
            self.next += 1;
        }
        self.next += 1;
        (self.next - 1) as u32
    }

    fn link(&self, peer: SlotId, end: End) -> Option<u32> {
        self.taken.iter().find(|(p, e, ..)| *p == peer && *e == end).map(|&(.., index)| index)
    }
}

fn vacancy<T>(slab: &mut Vec<Option<T>>) -> u32 {
    let index = slab.iter().position(Option::is_none).unwrap_or_else(|| {
        slab.push(None);
        slab.len() - 1
    });
    index as u32
}

fn local_key(plan: &AttemptPlan, channel: &ChannelPlan) -> LocalKey {
    LocalKey { job: plan.job, epoch: plan.epoch, attempt: plan.attempt, channel: channel.channel }
}
