//! Dialling and accepting in a simulated network: what the endpoint's threads do, as a state machine with events.
//!
//! [`SimSwitch`] owns the handshakes under way. The bytes of hello and reply are those of the wire, and travel over the
//! stream like all others. Always: each dial is answered once, unless its slot is gone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_ring::sim::{SimNet, SimSocket};
use tidegate_wire::{HELLO_LEN, HELLO_REPLY_LEN, Hello, HelloReply, Refusal, RefusalCode};

use crate::endpoint::{Connector, DialRequest, Greet, Incoming, Mailbox};
use crate::error::LinkError;
use crate::limits::{HANDSHAKE_WAIT, HELLO_WAIT};
use crate::plan::SlotId;

impl Greet for SimSocket {
    fn answer(&mut self, reply: &HelloReply) -> std::io::Result<()> {
        let mut bytes = [0; HELLO_REPLY_LEN];
        reply.write(&mut bytes);
        self.write_now(&bytes)
    }

    fn from(&self) -> Option<SocketAddr> {
        None
    }

    fn one_clock(&self) -> bool {
        true
    }

    fn in_memory(&self) -> bool {
        false
    }
}

/// A consumer that waits for the answer to its hello.
struct Dialing {
    request: DialRequest,
    socket: SimSocket,
    reply: Vec<u8>,
    until_ns: u64,
    /// Nobody listens there.
    refused: bool,
}

/// A connection that was accepted and has not said hello.
struct Greeting {
    socket: SimSocket,
    hello: Vec<u8>,
    until_ns: u64,
}

#[derive(Default)]
struct State {
    /// Data addresses of hosts that are up.
    hosts: BTreeMap<SocketAddr, u64>,
    slots: BTreeMap<SlotId, (u64, Mailbox<SimSocket>)>,
    dialing: Vec<Dialing>,
    greeting: Vec<Greeting>,
    refused: u64,
    /// Some handshake got bytes in this round.
    moved: bool,
}

/// Every endpoint of a simulated network. Clones are the same.
#[derive(Clone)]
pub struct SimSwitch {
    net: SimNet,
    state: Arc<Mutex<State>>,
}

impl SimSwitch {
    /// A switch without hosts.
    pub fn new(net: SimNet) -> Self {
        Self { net, state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host listens.
    pub fn listen(&self, host: u64, address: SocketAddr) {
        self.lock().hosts.insert(address, host);
    }

    /// Connections for `slot` go to this mailbox.
    pub fn register(&self, host: u64, slot: SlotId, mailbox: Mailbox<SimSocket>) {
        self.lock().slots.insert(slot, (host, mailbox));
    }

    /// The host is gone, with everything it had under way.
    pub fn crash(&self, host: u64) {
        let mut state = self.lock();
        state.hosts.retain(|_, listening| *listening != host);
        let gone: Vec<SlotId> =
            state.slots.iter().filter(|(_, (at, _))| *at == host).map(|(slot, _)| *slot).collect();
        state.slots.retain(|_, (at, _)| *at != host);
        state.dialing.retain(|dialing| !gone.contains(&dialing.request.slot));
    }

    /// Hellos that were refused.
    pub fn refused(&self) -> u64 {
        self.lock().refused
    }

    /// A dialer for a slot of `host`.
    pub fn connector(&self, host: u64) -> Box<dyn Connector> {
        Box::new(SimDialer { switch: self.clone(), host })
    }

    /// Takes every handshake as far as it has come. False if none moved: then none does before the next alarm.
    pub fn pump(&self) -> bool {
        let now_ns = self.net.now_ns();
        let mut state = self.lock();
        state.moved = false;
        let greeting = std::mem::take(&mut state.greeting);
        for one in greeting {
            state.greet(one, now_ns);
        }
        let dialing = std::mem::take(&mut state.dialing);
        for one in dialing {
            state.hear(one, now_ns);
        }
        state.moved
    }
}

impl State {
    fn greet(&mut self, mut one: Greeting, now_ns: u64) {
        match one.socket.read_now(HELLO_LEN - one.hello.len()) {
            Ok(Some(bytes)) if !bytes.is_empty() => {
                self.moved = true;
                one.hello.extend(bytes);
            }
            Ok(None) if now_ns < one.until_ns => {}
            _ => return, // It went away, or never spoke: the socket closes.
        }
        let Ok(bytes) = <[u8; HELLO_LEN]>::try_from(one.hello.as_slice()) else {
            return self.greeting.push(one);
        };
        let echo = Hello::echo_of(&bytes);
        let refusal = match Hello::parse(&bytes) {
            Err(refusal) => refusal,
            Ok(hello) => {
                let slot = SlotId { taskmanager: hello.to.tm, slot: hello.to.slot };
                let Some((_, mailbox)) = self.slots.get(&slot) else {
                    let found = u64::from(hello.to.slot);
                    return self.refuse(
                        one.socket,
                        echo,
                        Refusal { code: RefusalCode::Slot, expected: 0, found },
                    );
                };
                match mailbox.hand_over(Incoming::Accepted { socket: one.socket, hello, echo }) {
                    Err(Incoming::Accepted { socket, .. }) => {
                        one.socket = socket;
                        Refusal::busy(0, 0)
                    }
                    _ => return,
                }
            }
        };
        self.refuse(one.socket, echo, refusal);
    }

    fn refuse(&mut self, mut socket: SimSocket, echo: u32, refusal: Refusal) {
        self.refused += 1;
        let _ = socket.answer(&HelloReply { echo, refusal: Some(refusal) });
    }

    fn hear(&mut self, mut one: Dialing, now_ns: u64) {
        let address = one.request.address;
        if one.refused {
            let cause = "connection refused".to_owned();
            return self.tell(one, Err(LinkError::Unreachable { address, cause }));
        }
        let read = one.socket.read_now(HELLO_REPLY_LEN - one.reply.len());
        match read {
            Ok(Some(bytes)) if bytes.is_empty() => return self.tell(one, Err(LinkError::HungUp { address })),
            Ok(Some(bytes)) => {
                self.moved = true;
                one.reply.extend(bytes);
            }
            Ok(None) if now_ns < one.until_ns => {}
            Ok(None) => {
                let cause = "no answer to the hello in time".to_owned();
                return self.tell(one, Err(LinkError::Unreachable { address, cause }));
            }
            Err(_) => return self.tell(one, Err(LinkError::HungUp { address })),
        }
        let Ok(bytes) = <[u8; HELLO_REPLY_LEN]>::try_from(one.reply.as_slice()) else {
            return self.dialing.push(one);
        };
        let result = match HelloReply::parse(&bytes) {
            Ok(HelloReply { refusal: Some(refusal), .. }) => Err(LinkError::Refused(refusal)),
            Ok(HelloReply { echo, .. }) if echo == one.request.hello.checksum() => Ok(()),
            Ok(_) => {
                let cause = "the answer belongs to another hello".to_owned();
                Err(LinkError::Unreachable { address, cause })
            }
            Err(cause) => Err(LinkError::Unreachable { address, cause: format!("{cause:?}") }),
        };
        self.tell(one, result);
    }

    fn tell(&self, one: Dialing, result: Result<(), LinkError>) {
        let DialRequest { slot, link, hello, .. } = one.request;
        if let Some((_, mailbox)) = self.slots.get(&slot) {
            let result = result.map(|()| one.socket);
            // A slot with a full mailbox would hear of it later; in a simulation its mailbox is never that full.
            let handed = mailbox.hand_over(Incoming::Dialed { link, hello, result });
            assert!(handed.is_ok(), "a simulated slot takes its mail every turn");
        }
    }
}

struct SimDialer {
    switch: SimSwitch,
    host: u64,
}

impl Connector for SimDialer {
    fn dial(&self, request: DialRequest) {
        let net = &self.switch.net;
        let mut state = self.switch.lock();
        let (near, far) = match state.hosts.get(&request.address) {
            Some(&host) => {
                let (near, far) = net.connect(self.host, host);
                (near, Some(far))
            }
            None => (net.connect(self.host, self.host).0, None),
        };
        let now_ns = net.now_ns();
        let mut dialing = Dialing {
            request,
            socket: near,
            reply: Vec::new(),
            refused: far.is_none(),
            until_ns: now_ns + HANDSHAKE_WAIT.as_nanos() as u64,
        };
        let mut bytes = [0; HELLO_LEN];
        request.hello.write(&mut bytes);
        // If it broke already, the answer that never comes says so.
        let _ = dialing.socket.write_now(&bytes);
        net.alarm(dialing.until_ns);
        state.dialing.push(dialing);
        if let Some(socket) = far {
            let until_ns = now_ns + HELLO_WAIT.as_nanos() as u64;
            state.greeting.push(Greeting { socket, hello: Vec::new(), until_ns });
        }
    }

    fn refused(&self, _from: Option<SocketAddr>, _hello: &Hello, _refusal: Refusal) {
        self.switch.lock().refused += 1;
    }
}
