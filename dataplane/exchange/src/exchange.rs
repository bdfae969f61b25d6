//! One slot's exchange: its ring, its links, its ports.
//!
//! State: links and attempts in slabs; `conns` maps a connection of the ring to its link. `reserved` is the sum of the quotas
//! of the attempts that live here, and never more than the shard has: a plan is reserved whole or refused whole (R3).
//!
//! Order of a turn: connections handed over, completions, grants, local hand-over, sends. It is bounded by
//! `COMPLETIONS_PER_TURN` and by one train per link, so a slot's tasks always have their turn.

mod connect;
mod prepare;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tidegate_arena::Shard;
use tidegate_ring::{Completion, Doorbell, DriverReport, Ring};
use tidegate_wire::{Hello, PAYLOADS_MAX};

use crate::endpoint::{Connector, Greet, Incoming, Mailbox};
use crate::error::{LinkError, LinkFault};
use crate::limits::{COMPLETIONS_PER_TURN, EARLY_MAX, EARLY_WAIT, FLUSH_MAX, INCOMING_MAX};
use crate::link::{Link, LinkState};
use crate::local::{Bell, LocalHub};
use crate::plan::SlotId;
use crate::ports::{LinkQueues, Ports};
use crate::ready::ReadyList;

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
    /// How long the links of attempts yet to come hold partly filled segments back.
    flush_ns: u64,
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
            flush_ns: 0,
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

    /// How long a partly filled segment waits for more before it goes to another TaskManager, at most [`FLUSH_MAX`]; on a
    /// busy link it waits as long again. Zero, unless set: what there is goes whenever its link is idle. Before the first
    /// plan.
    pub fn set_flush(&mut self, interval: Duration) {
        self.flush_ns = interval.min(FLUSH_MAX).as_nanos() as u64;
    }

    /// Nanoseconds of the ring's clock.
    pub fn now_ns(&self) -> u64 {
        self.ring.now()
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
        if std::mem::take(&mut self.ports.pressed) {
            // A task waits for a segment, and links hold some back: a train of the oldest goes.
            for queues in &mut self.ports.links {
                queues.out.press(PAYLOADS_MAX, self.ports.now_ns);
            }
        }
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
        // A link that ends flushes nothing any more.
        let open = || self.links.iter().flatten().filter(|link| link.state == LinkState::Open);
        let links = || open().map(|link| &self.ports.links[link.index as usize].out);
        let flush_ns = links().filter_map(ReadyList::next_flush_ns).min();
        let pressed = self.ports.pressed && links().any(|out| out.would_yield(PAYLOADS_MAX));
        let pressed_ns = pressed.then_some(self.ports.now_ns);
        early_ns.into_iter().chain(self.redial_ns).chain(flush_ns).chain(pressed_ns).min()
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
            Completion::Released { parts, .. } => link.released(&mut self.ports, parts),
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

    // ---- moving ----

    fn move_local(&mut self) -> bool {
        let mut busy = false;
        let ports = &mut self.ports;
        for partition in ports.partitions.iter_mut().flatten() {
            busy |= partition.look_returns(&mut ports.shard);
        }
        for _ in 0..ports.local.len() {
            let Some(at) = ports.local.pop_front() else { break };
            let Some(partition) = ports.partitions[at.partition as usize].as_mut() else { continue };
            let channel = at.channel as usize;
            partition.channels[channel].listed = false;
            let handed = partition.hand_over(channel, &mut ports.shard, ports.now_ns);
            ports.counters.local_handovers += handed;
            busy |= handed > 0;
            if partition.waits_locally(channel) {
                crate::partition::list(
                    partition,
                    at.channel,
                    &mut ports.links,
                    &mut ports.local,
                    ports.now_ns,
                );
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
