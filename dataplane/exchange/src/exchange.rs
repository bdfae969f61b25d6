//! One slot's exchange: its ring, its links, its ports.
//!
//! State: links and attempts in slabs; `conns` maps a connection of the ring to its link. `reserved` is the sum of the quotas
//! of the attempts that live here, and never more than the shard has: a plan is reserved whole or refused whole (R3).
//!
//! Order of a turn: connections handed over, completions, grants, local hand-over, sends. It is bounded by
//! `COMPLETIONS_PER_TURN` and by one train per link, so a slot's tasks always have their turn.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tidegate_arena::Shard;
use tidegate_ring::{Completion, Doorbell, DriverReport, Ring};
use tidegate_wire::{
    End, Hello, HelloReply, RECORD_FORMAT, Refusal, RefusalCode, SlotAddress, VERSION, channels_hash,
};

use crate::endpoint::{Connector, DialRequest, Greet, Incoming, Mailbox};
use crate::error::{LinkError, LinkFault, PrepareError};
use crate::gate::{Gate, InRoute};
use crate::limits::{
    COMPLETIONS_PER_TURN, EARLY_MAX, EARLY_WAIT, GATE_SEGMENTS_MIN, INCOMING_MAX, INCOMING_PER_TURN,
    LINK_SEGMENTS, PARTITION_SEGMENTS_MIN,
};
use crate::link::{Link, LinkState, LinkTableEntry};
use crate::local::{Bell, LocalHub, LocalKey};
use crate::partition::{OutRoute, Partition};
use crate::plan::{
    AttemptPlan, ChannelPlan, GateId, LinkChannel, PartitionId, SlotId, TaskIds, gate_wanted, links,
    partition_wanted, remote_channels, segments_min,
};
use crate::ports::{LinkQueues, Ports};

/// Who a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeConfig {
    /// This slot.
    pub me: SlotId,
    /// The cluster; a peer of another one is refused.
    pub cluster: u128,
}

/// How far the links of an attempt are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// Some links are not open yet.
    Pending,
    /// All are open: the attempt may start.
    Ready,
    /// One can't be opened; see [`Exchange::take_fault`].
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Running,
    /// Ends gracefully; its faults are nobody's business any more.
    Retiring,
    /// Ends now.
    Cancelled,
}

struct Attempt {
    job: u128,
    epoch: u64,
    number: u32,
    life: Life,
    failed: bool,
    reserved: u32,
    partitions: Vec<u32>,
    gates: Vec<u32>,
    links: Vec<u32>,
}

struct Early<S> {
    socket: S,
    hello: Hello,
    echo: u32,
    since_ns: u64,
}

/// The exchange of one slot. See the crate's page.
pub struct Exchange<R: Ring> {
    /// What the slot's tasks see.
    pub ports: Ports,
    ring: R,
    config: ExchangeConfig,
    hub: LocalHub,
    bell: Bell,
    connector: Box<dyn Connector>,
    mailbox: SyncSender<Incoming<R::Socket>>,
    incoming: Receiver<Incoming<R::Socket>>,
    early: Vec<Early<R::Socket>>,
    attempts: Vec<Attempt>,
    links: Vec<Option<Link>>,
    /// Link of each connection place of the ring.
    conns: Vec<Option<u32>>,
    /// When the next link is dialled again.
    redial_ns: Option<u64>,
    faults: std::collections::VecDeque<LinkFault>,
    completions: Vec<Completion>,
}

impl<R: Ring> Exchange<R>
where
    R::Socket: Greet,
{
    /// An exchange without attempts. `connector` dials for it; its answers and accepted connections come in through
    /// [`mailbox`](Self::mailbox).
    pub fn new(
        ring: R,
        shard: Shard,
        hub: LocalHub,
        connector: Box<dyn Connector>,
        config: ExchangeConfig,
    ) -> Self {
        let (mailbox, incoming) = sync_channel(INCOMING_MAX);
        let doorbell = ring.doorbell();
        Self {
            ports: Ports::new(shard),
            ring,
            config,
            hub,
            bell: Arc::new(move || doorbell.ring()),
            connector,
            mailbox,
            incoming,
            early: Vec::with_capacity(EARLY_MAX),
            attempts: Vec::new(),
            links: Vec::new(),
            conns: Vec::new(),
            redial_ns: None,
            faults: std::collections::VecDeque::new(),
            completions: Vec::with_capacity(COMPLETIONS_PER_TURN as usize),
        }
    }

    /// Where the endpoint puts connections for this slot.
    pub fn mailbox(&self) -> Mailbox<R::Socket> {
        Mailbox::new(self.mailbox.clone(), self.bell.clone())
    }

    /// Wakes this slot from another thread.
    pub fn doorbell(&self) -> R::Doorbell {
        self.ring.doorbell()
    }

    /// What the driver is and did.
    pub fn driver(&self) -> DriverReport {
        self.ring.report()
    }

    /// Sets the cluster's identity, once the JobManager has told it. Before the first plan.
    pub fn set_cluster(&mut self, cluster: u128) {
        self.config.cluster = cluster;
    }

    /// Nanoseconds of the ring's clock.
    pub fn now_ns(&self) -> u64 {
        self.ring.now()
    }

    /// Reserves all that `plan` needs on this slot, or nothing, and starts to dial.
    ///
    /// # Errors
    /// [`PrepareError`]; nothing is reserved then.
    pub fn prepare(&mut self, plan: &AttemptPlan) -> Result<Vec<TaskIds>, PrepareError> {
        if self.find_attempt(plan.job, plan.attempt).is_some() {
            return Err(PrepareError::Duplicate { attempt: plan.attempt });
        }
        let need = segments_min(plan, self.config.me);
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
        let share = Share { extra: available - need.min, wish: need.wanted - need.min };
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
            attempt.reserved += LINK_SEGMENTS;
            places.taken.push((peer, end, channels, index));
        }
        let ids = self.make_ports(plan, &places, &share, &mut attempt);
        self.make_links(plan, places, &attempt);
        self.attempts.push(attempt);
        self.dial(plan);
        self.match_early();
        Ok(ids)
    }

    fn make_ports(
        &mut self,
        plan: &AttemptPlan,
        places: &Places,
        share: &Share,
        attempt: &mut Attempt,
    ) -> Vec<TaskIds> {
        let mut ids = Vec::with_capacity(plan.tasks.len());
        for task in &plan.tasks {
            let mut partitions = Vec::new();
            for partition in &task.partitions {
                let index = vacancy(&mut self.ports.partitions);
                let routes = partition
                    .channels
                    .iter()
                    .map(|channel| match places.link(channel.peer, End::Producer) {
                        Some(link) => OutRoute::Remote { link, channel: channel.channel },
                        None => {
                            OutRoute::Local(self.hub.producer(local_key(plan, channel), self.bell.clone()))
                        }
                    })
                    .collect();
                let quota = share.quota(PARTITION_SEGMENTS_MIN, partition_wanted(partition.channels.len()));
                attempt.reserved += quota;
                attempt.partitions.push(index);
                self.ports.local.reserve(partition.channels.len());
                self.ports.partitions[index as usize] = Some(Partition::new(
                    index,
                    partition.name.clone(),
                    plan.attempt,
                    quota,
                    partition.broadcast,
                    routes,
                ));
                partitions.push(PartitionId(index));
            }
            let gate = task.gate.as_ref().map(|gate| {
                let index = vacancy(&mut self.ports.gates);
                let routes = gate
                    .channels
                    .iter()
                    .map(|channel| {
                        let route = match places.link(channel.peer, End::Consumer) {
                            Some(link) => InRoute::Remote { link, channel: channel.channel },
                            None => {
                                InRoute::Local(self.hub.consumer(local_key(plan, channel), self.bell.clone()))
                            }
                        };
                        (route, channel.input)
                    })
                    .collect();
                let remote = remote_channels(gate, self.config.me);
                let quota = if remote > 0 { share.quota(GATE_SEGMENTS_MIN, gate_wanted(remote)) } else { 0 };
                attempt.reserved += quota;
                attempt.gates.push(index);
                self.ports.gates[index as usize] =
                    Some(Gate::new(index, gate.name.clone(), plan.attempt, quota, routes));
                GateId(index)
            });
            ids.push(TaskIds { task: task.task, gate, partitions });
        }
        ids
    }

    fn make_links(&mut self, plan: &AttemptPlan, places: Places, attempt: &Attempt) {
        for (peer, end, channels, index) in places.taken {
            let table = self.link_table(end, &channels, attempt);
            let hello = self.hello(plan, peer, end, &channels);
            let (staging, manifest) = Link::reserve(&mut self.ports.shard, index)
                .expect("invariant: the plan's need was checked against the free segments");
            let at = index as usize;
            if self.links.len() <= at {
                self.links.resize_with(at + 1, || None);
                self.ports.links.resize_with(at + 1, LinkQueues::default);
            }
            let queues = &mut self.ports.links[at];
            queues.out.clear();
            queues.control.clear();
            queues.out.reserve(channels.len());
            queues.control.reserve(channels.len());
            self.links[at] = Some(Link::new(index, peer, end, hello, table, staging, manifest));
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

    fn dial(&mut self, plan: &AttemptPlan) {
        let now_ns = self.ring.now();
        let attempt = self.attempts.last().expect("invariant: just pushed");
        for &index in &attempt.links {
            let link = self.links[index as usize].as_mut().expect("invariant: just made");
            if link.end == End::Consumer {
                link.dialing.address = Some(plan.peers[&link.peer.taskmanager]);
                (link.dialing.since_ns, link.dialing.again_ns) = (now_ns, Some(now_ns));
            }
        }
        self.redial(now_ns);
    }

    /// Dials the links whose time has come.
    fn redial(&mut self, now_ns: u64) {
        for (index, link) in self.links.iter_mut().enumerate() {
            let Some(link) = link.as_mut().filter(|link| link.state == LinkState::Connecting) else {
                continue;
            };
            let due = link.dialing.again_ns.is_some_and(|at| at <= now_ns);
            if let (true, Some(address)) = (due, link.dialing.address) {
                link.dialing.again_ns = None;
                let (slot, hello) = (self.config.me, link.hello);
                self.connector.dial(DialRequest { slot, link: index as u32, address, hello });
            }
        }
        let waiting = self.links.iter().flatten().filter(|link| link.state == LinkState::Connecting);
        self.redial_ns = waiting.filter_map(|link| link.dialing.again_ns).min();
    }

    /// How far the links of an attempt are.
    pub fn prepared(&self, job: u128, attempt: u32) -> Prepared {
        let Some(attempt) = self.find_attempt(job, attempt) else { return Prepared::Failed };
        if attempt.failed {
            return Prepared::Failed;
        }
        let open = |&index: &u32| {
            self.links[index as usize].as_ref().is_some_and(|link| link.state == LinkState::Open)
        };
        if attempt.links.iter().all(open) { Prepared::Ready } else { Prepared::Pending }
    }

    /// One turn of the exchange. Returns true if anything happened, or a gate holds something unread.
    pub fn turn(&mut self) -> bool {
        self.ports.now_ns = self.ring.now();
        self.ports.arena.tick(self.ports.now_ns / 1_000_000);
        let mut busy = self.take_incoming();
        if self.redial_ns.is_some_and(|at| at <= self.ports.now_ns) {
            self.redial(self.ports.now_ns);
        }
        let completions = &mut self.completions;
        self.ring.reap(COMPLETIONS_PER_TURN, &mut |completion| completions.push(completion));
        let mut completions = std::mem::take(&mut self.completions);
        busy |= !completions.is_empty();
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.completions = completions;
        busy |= self.move_local();
        self.grant();
        for index in 0..self.links.len() {
            let Some(link) = self.links[index].as_mut() else { continue };
            link.receive(&mut self.ring, &mut self.ports);
            busy |= link.send(&mut self.ring, &mut self.ports);
            link.wind_down(&mut self.ring, &self.ports);
        }
        self.sweep();
        busy
    }

    /// Blocks until a completion, the doorbell or `timeout`: the one place where a slot thread may (R1).
    pub fn wait(&mut self, timeout: Option<Duration>) {
        let now_ns = self.ring.now();
        let due = self.next_timer_ns().map(|at| Duration::from_nanos(at.saturating_sub(now_ns)));
        let timeout = due.into_iter().chain(timeout).min();
        self.ring.wait(timeout);
    }

    /// When the exchange has something to do that nothing else brings, nanoseconds of the ring's clock.
    pub fn next_timer_ns(&self) -> Option<u64> {
        let early_ns = self.early.first().map(|early| early.since_ns + EARLY_WAIT.as_nanos() as u64);
        early_ns.into_iter().chain(self.redial_ns).min()
    }

    /// The next link that failed, of an attempt that still needs it.
    pub fn take_fault(&mut self) -> Option<LinkFault> {
        self.faults.pop_front()
    }

    /// Ends an attempt now: its tasks must be gone. Segments come back as the kernel lets go of them.
    pub fn cancel(&mut self, job: u128, attempt: u32) {
        self.end(job, attempt, Life::Cancelled);
    }

    /// Ends an attempt whose tasks have all finished: its links wind down gracefully.
    pub fn retire(&mut self, job: u128, attempt: u32) {
        self.end(job, attempt, Life::Retiring);
    }

    fn end(&mut self, job: u128, number: u32, life: Life) {
        let Some(attempt) = self.attempts.iter_mut().find(|a| a.job == job && a.number == number) else {
            return;
        };
        if attempt.life == Life::Cancelled {
            return;
        }
        attempt.life = life;
        self.faults.retain(|fault| (fault.job, fault.attempt) != (job, number));
        if life == Life::Cancelled {
            for &index in &attempt.links {
                if let Some(link) = self.links[index as usize].as_mut() {
                    link.abort(&mut self.ring);
                }
            }
        }
        self.sweep();
    }

    /// True if nothing of the attempt is left here: links, ports, segments.
    pub fn closed(&self, job: u128, attempt: u32) -> bool {
        self.find_attempt(job, attempt).is_none()
    }

    fn find_attempt(&self, job: u128, attempt: u32) -> Option<&Attempt> {
        self.attempts.iter().find(|a| a.job == job && a.number == attempt)
    }

    // ---- completions ----

    fn complete(&mut self, completion: Completion) {
        let conn = match &completion {
            Completion::Sent { conn, .. }
            | Completion::Released { conn, .. }
            | Completion::Received { conn, .. }
            | Completion::Closed { conn } => *conn,
        };
        let index =
            self.conns[conn.index() as usize].expect("invariant: the ring reports connections we attached");
        let link = self.links[index as usize].as_mut().expect("invariant: a link outlives its connection");
        assert_eq!(link.conn, Some(conn), "the ring reports the connection's present user");
        match completion {
            Completion::Sent { result, parts, .. } => {
                link.sent(&mut self.ports, parts);
                if let Err(fault) = result {
                    self.fail(index, LinkError::Io(fault));
                }
            }
            Completion::Released { parts, .. } => link.sent(&mut self.ports, parts),
            Completion::Received { result, parts, .. } => {
                if let Err(error) = link.received(&mut self.ports, result, parts) {
                    self.fail(index, error);
                }
            }
            Completion::Closed { .. } => {
                link.state = LinkState::Gone;
                link.conn = None;
                self.conns[conn.index() as usize] = None;
            }
        }
    }

    /// Fails a link: tells the attempt, and the peer if it is at fault, and closes.
    fn fail(&mut self, index: u32, error: LinkError) {
        let link = self.links[index as usize].as_mut().expect("invariant: only links that exist fail");
        if matches!(link.state, LinkState::Closing | LinkState::Gone | LinkState::Accusing) {
            return;
        }
        let verdict = match &error {
            LinkError::Violation(violation) => {
                let (code, detail) = violation.code();
                Some((code as u16, detail))
            }
            LinkError::Garbled(error) => {
                let (code, detail) = error.report();
                Some((code as u16, detail))
            }
            _ => None,
        };
        let accused =
            verdict.is_some_and(|(code, detail)| link.accuse(&mut self.ring, &mut self.ports, code, detail));
        if !accused {
            link.abort(&mut self.ring);
        }
        let (number, peer, job) = (link.attempt, link.peer, link.hello.job);
        self.ports.counters.link_faults += 1;
        if let Some(attempt) = self.attempts.iter_mut().find(|a| a.job == job && a.number == number) {
            attempt.failed = true;
            if attempt.life == Life::Running {
                self.faults.push_back(LinkFault { job, attempt: number, peer, error });
            }
        }
    }

    // ---- connections ----

    fn take_incoming(&mut self) -> bool {
        let mut any = false;
        for _ in 0..INCOMING_PER_TURN {
            let Ok(incoming) = self.incoming.try_recv() else { break };
            any = true;
            self.adopt(incoming);
        }
        let deadline = self.ports.now_ns.saturating_sub(EARLY_WAIT.as_nanos() as u64);
        while self.early.first().is_some_and(|early| early.since_ns < deadline) {
            let early = self.early.remove(0);
            let refusal = self.stranger(&early.hello);
            self.refuse(early.socket, early.echo, &early.hello, refusal);
        }
        any
    }

    /// Takes a connection over: an accepted one, or the answer to a dial.
    pub fn adopt(&mut self, incoming: Incoming<R::Socket>) {
        match incoming {
            Incoming::Accepted { socket, hello, echo } => {
                let known = self.attempts.iter().any(|a| a.job == hello.job && a.number == hello.attempt);
                if hello.cluster != self.config.cluster {
                    let (expected, found) = (self.config.cluster as u64, hello.cluster as u64);
                    self.refuse(
                        socket,
                        echo,
                        &hello,
                        Refusal { code: RefusalCode::Cluster, expected, found },
                    );
                } else if known {
                    self.accept(socket, hello, echo);
                } else if self.early.len() < EARLY_MAX {
                    self.early.push(Early { socket, hello, echo, since_ns: self.ports.now_ns });
                } else {
                    let refusal = Refusal::busy(EARLY_MAX as u64, EARLY_MAX as u64);
                    self.refuse(socket, echo, &hello, refusal);
                }
            }
            Incoming::Dialed { link, hello, result } => {
                let wanted = self
                    .links
                    .get(link as usize)
                    .and_then(Option::as_ref)
                    .is_some_and(|link| link.hello == hello && link.state == LinkState::Connecting);
                if wanted {
                    match result {
                        Ok(socket) => self.attach(link, socket),
                        Err(error) => self.dial_failed(link, error),
                    }
                }
            }
        }
    }

    fn accept(&mut self, mut socket: R::Socket, hello: Hello, echo: u32) {
        let from = SlotId { taskmanager: hello.from.tm, slot: hello.from.slot };
        let link = self.links.iter().flatten().find(|link| {
            link.end == End::Producer
                && link.peer == from
                && (link.hello.job, link.hello.attempt) == (hello.job, hello.attempt)
        });
        let Some(link) = link else {
            let refusal = self.stranger(&hello);
            return self.refuse(socket, echo, &hello, refusal);
        };
        if let Err(refusal) = hello.check(&link.hello) {
            return self.refuse(socket, echo, &hello, refusal);
        }
        if link.state != LinkState::Connecting {
            return self.refuse(socket, echo, &hello, Refusal::busy(1, 2));
        }
        let index = link.index;
        // If the answer can't be written the connection is gone already, and the first receive says so.
        let _ = socket.answer(&HelloReply { echo, refusal: None });
        self.attach(index, socket);
    }

    /// Why no link of this slot fits `hello`, in the order of W-7.
    fn stranger(&self, hello: &Hello) -> Refusal {
        let epoch = self.find_attempt(hello.job, hello.attempt).map(|attempt| attempt.epoch);
        let newest = self.attempts.iter().filter(|attempt| attempt.job == hello.job).map(|a| a.number).max();
        let (code, expected, found) = match (epoch, newest) {
            (Some(epoch), _) if epoch != hello.epoch => (RefusalCode::Epoch, epoch, hello.epoch),
            (Some(_), _) => (RefusalCode::Slot, 0, u64::from(hello.from.slot)),
            (None, Some(newest)) => (RefusalCode::Attempt, u64::from(newest), u64::from(hello.attempt)),
            (None, None) => (RefusalCode::Job, 0, hello.job as u64),
        };
        Refusal { code, expected, found }
    }

    /// Refuses by name; the connection ends with it.
    fn refuse(&self, mut socket: R::Socket, echo: u32, hello: &Hello, refusal: Refusal) {
        let from = socket.from();
        // The peer may be gone already; then there is nobody to tell.
        let _ = socket.answer(&HelloReply { echo, refusal: Some(refusal) });
        self.connector.refused(from, hello, refusal);
    }

    /// A dial came to nothing: there is another one, if that can help.
    fn dial_failed(&mut self, index: u32, error: LinkError) {
        let now_ns = self.ports.now_ns;
        let link = self.links[index as usize].as_mut().expect("invariant: the link was dialled");
        if error.is_transient() && link.dialing.defer(now_ns) {
            self.redial_ns = self.redial_ns.into_iter().chain(link.dialing.again_ns).min();
        } else {
            self.fail(index, error);
        }
    }

    fn attach(&mut self, index: u32, socket: R::Socket) {
        match self.ring.attach(socket) {
            Ok(conn) => {
                let place = conn.index() as usize;
                if self.conns.len() <= place {
                    self.conns.resize(place + 1, None);
                }
                self.conns[place] = Some(index);
                self.links[index as usize].as_mut().expect("invariant: the link waits").open(conn);
            }
            Err(_) => self.fail(index, LinkError::Full),
        }
    }

    fn match_early(&mut self) {
        let attempt = self.attempts.last().expect("invariant: just pushed");
        let (job, number) = (attempt.job, attempt.number);
        let mut at = 0;
        while at < self.early.len() {
            let hello = self.early[at].hello;
            if (hello.job, hello.attempt) == (job, number) {
                let early = self.early.remove(at);
                self.accept(early.socket, early.hello, early.echo);
            } else {
                at += 1;
            }
        }
    }

    // ---- moving ----

    fn move_local(&mut self) -> bool {
        let mut busy = false;
        let ports = &mut self.ports;
        for partition in ports.partitions.iter_mut().flatten() {
            for channel in 0..partition.channels.len() {
                busy |= partition.collect_returns(channel, &mut ports.shard);
            }
        }
        for _ in 0..ports.local.len() {
            let Some(at) = ports.local.pop_front() else { break };
            let Some(partition) = ports.partitions[at.partition as usize].as_mut() else { continue };
            let channel = at.channel as usize;
            partition.channels[channel].listed = false;
            let handed = partition.hand_over(channel, &mut ports.shard);
            ports.counters.local_handovers += handed;
            busy |= handed > 0;
            if partition.waits_locally(channel) {
                crate::partition::list(partition, at.channel, &mut ports.links, &mut ports.local);
            }
        }
        for gate in ports.gates.iter_mut().flatten() {
            gate.ring_local();
            busy |= gate.look_local();
        }
        busy
    }

    fn grant(&mut self) {
        let ports = &mut self.ports;
        for gate in ports.gates.iter_mut().flatten() {
            gate.grant(&mut ports.shard, &mut ports.links);
        }
    }

    /// Frees attempts that have ended.
    fn sweep(&mut self) {
        let mut at = 0;
        while at < self.attempts.len() {
            let attempt = &self.attempts[at];
            let gone = |&index: &u32| {
                self.links[index as usize].as_ref().is_none_or(|link| link.state == LinkState::Gone)
            };
            if attempt.life == Life::Running || !attempt.links.iter().all(gone) {
                at += 1;
                continue;
            }
            let attempt = self.attempts.swap_remove(at);
            for index in attempt.links {
                if let Some(mut link) = self.links[index as usize].take() {
                    link.dismantle(&mut self.ports.shard);
                }
                self.ports.links[index as usize] = LinkQueues::default();
            }
            self.ports.local.retain(|entry| !attempt.partitions.contains(&entry.partition));
            for index in attempt.partitions {
                if let Some(partition) = self.ports.partitions[index as usize].take() {
                    partition.dismantle(&mut self.ports.shard);
                }
            }
            for index in attempt.gates {
                if let Some(gate) = self.ports.gates[index as usize].take() {
                    let in_order = attempt.life == Life::Retiring && !attempt.failed;
                    gate.dismantle(&mut self.ports.shard, in_order);
                }
            }
            self.hub.forget(attempt.job, attempt.epoch, attempt.number);
        }
    }
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
