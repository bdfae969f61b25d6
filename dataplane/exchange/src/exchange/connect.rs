//! How links get their connections: dialled here, or accepted from consumers.
//!
//! Both come through the slot's mailbox. Always: a connection that no link waits for is refused by name, after it has waited
//! for its attempt at most `EARLY_WAIT`; a dial that failed in a way that may pass is repeated for `REDIAL_FOR`.

use tidegate_ring::{IoFault, Ring};
use tidegate_wire::{End, Hello, HelloReply, Refusal, RefusalCode};

use super::{Early, Exchange};
use crate::endpoint::{DialRequest, Greet, Incoming};
use crate::error::LinkError;
use crate::limits::{EARLY_MAX, EARLY_WAIT, INCOMING_PER_TURN};
use crate::link::LinkState;
use crate::plan::{AttemptPlan, SlotId};

impl<R: Ring> Exchange<R>
where
    R::Socket: Greet,
{
    pub(super) fn dial(&mut self, plan: &AttemptPlan) {
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
    pub(super) fn redial(&mut self, now_ns: u64) {
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

    pub(super) fn take_incoming(&mut self) -> bool {
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
        if let Err(error) = socket.answer(&HelloReply { echo, refusal: None }) {
            // The peer may be there and wait for it.
            return self.fail(index, LinkError::Io(IoFault::from_errno(error.raw_os_error().unwrap_or(0))));
        }
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
        let (one_clock, in_memory) = (socket.one_clock(), socket.in_memory());
        match self.ring.attach(socket) {
            Ok(conn) => {
                let place = conn.index() as usize;
                if self.conns.len() <= place {
                    self.conns.resize(place + 1, None);
                }
                self.conns[place] = Some(index);
                let link = self.links[index as usize].as_mut().expect("invariant: the link waits");
                (link.one_clock, link.in_memory) = (one_clock, in_memory);
                link.open(conn);
            }
            Err(error) => self.fail(index, LinkError::Ring(error)),
        }
    }

    pub(super) fn match_early(&mut self) {
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
}
