//! How connections come to be: one listener per process, and dialing, both off the slot threads.
//!
//! A consumer's slot asks to dial; a dial thread connects, says hello, reads the reply and hands the connection over. On the
//! other side an accept thread reads the hello and hands it to the slot it names; that slot compares it with its plan and
//! answers. So no slot thread ever waits for a stranger, and a slow or silent stranger costs a bounded thread for a bounded
//! time.
//!
//! Processes of one host may share memory instead, if both want to: see `neighbours`. A dial tries that first.
//!
//! Inequalities: connections being accepted ≤ `ACCEPTING_MAX`, dial threads ≤ `DIALING_MAX`.

mod neighbours;

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_arena::Arena;
use tidegate_ring::socket::{self, SocketOptions};
use tidegate_ring::{ShmError, ShmStream, Stream};
use tidegate_wire::{HELLO_LEN, HELLO_REPLY_LEN, Hello, HelloReply, Refusal, RefusalCode};

use self::neighbours::{Declined, Neighbours};
use crate::error::{EndpointError, LinkError};
use crate::limits::{ACCEPTING_MAX, DIALING_MAX, HANDSHAKE_WAIT, HELLO_WAIT, UNREAD_MAX};
use crate::local::Bell;
use crate::plan::SlotId;
use crate::turned_away::{Cause, TurnedAway, Watcher};

/// A socket that a handshake can be answered on. The answer is a few bytes on a fresh connection and never blocks.
pub trait Greet {
    /// Writes the answer.
    ///
    /// # Errors
    /// The connection is gone.
    fn answer(&mut self, reply: &HelloReply) -> std::io::Result<()>;

    /// Where it comes from, for people.
    fn from(&self) -> Option<SocketAddr>;

    /// True if both ends certainly read the same clock: they are on one host.
    fn one_clock(&self) -> bool;

    /// True if nothing but memory of this host is between the ends: then payloads carry no checksum (W-21).
    fn in_memory(&self) -> bool;
}

impl Greet for TcpStream {
    fn answer(&mut self, reply: &HelloReply) -> std::io::Result<()> {
        let mut bytes = [0; HELLO_REPLY_LEN];
        reply.write(&mut bytes);
        self.write_all(&bytes)
    }

    fn from(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }

    fn one_clock(&self) -> bool {
        // A connection within a host has the same address at both ends, whether that is loopback or not.
        matches!((self.local_addr(), self.peer_addr()), (Ok(own), Ok(peer)) if own.ip() == peer.ip())
    }

    fn in_memory(&self) -> bool {
        false
    }
}

impl Greet for Stream {
    fn answer(&mut self, reply: &HelloReply) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.answer(reply),
            Self::Shm(stream) => {
                let mut bytes = [0; HELLO_REPLY_LEN];
                reply.write(&mut bytes);
                ShmStream::answer(stream, &bytes)
            }
        }
    }

    fn from(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => Greet::from(stream),
            Self::Shm(_) => None,
        }
    }

    fn one_clock(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.one_clock(),
            Self::Shm(_) => true,
        }
    }

    fn in_memory(&self) -> bool {
        matches!(self, Self::Shm(_))
    }
}

/// A connection for a slot.
#[derive(Debug)]
pub enum Incoming<S> {
    /// A consumer dialed this slot and said hello; it waits for the answer.
    Accepted {
        /// The connection.
        socket: S,
        /// What it said.
        hello: Hello,
        /// What the answer must echo.
        echo: u32,
    },
    /// A dial of this slot ended.
    Dialed {
        /// The link it was for.
        link: u32,
        /// What was said.
        hello: Hello,
        /// The connection, with the handshake done; or why not.
        result: Result<S, LinkError>,
    },
}

/// What to dial.
#[derive(Debug, Clone, Copy)]
pub struct DialRequest {
    /// The slot that asks.
    pub slot: SlotId,
    /// Its link.
    pub link: u32,
    /// The producer's data address.
    pub address: SocketAddr,
    /// What to say.
    pub hello: Hello,
}

/// Who dials for a slot.
pub trait Connector: Send {
    /// Starts to dial; the answer comes to the slot's mailbox as [`Incoming::Dialed`].
    fn dial(&self, request: DialRequest);

    /// The slot refused a consumer's hello; whoever watches the endpoint hears of it.
    fn refused(&self, from: Option<SocketAddr>, hello: &Hello, refusal: Refusal) {
        let _ = (from, hello, refusal);
    }
}

/// The way into a slot for connections.
pub struct Mailbox<S> {
    sender: SyncSender<Incoming<S>>,
    bell: Bell,
}

impl<S> Clone for Mailbox<S> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), bell: self.bell.clone() }
    }
}

impl<S> Mailbox<S> {
    pub(crate) fn new(sender: SyncSender<Incoming<S>>, bell: Bell) -> Self {
        Self { sender, bell }
    }

    /// Hands a connection over and wakes the slot.
    ///
    /// # Errors
    /// The slot is gone, or has too many waiting: the connection comes back.
    pub fn hand_over(&self, incoming: Incoming<S>) -> Result<(), Incoming<S>> {
        match self.sender.try_send(incoming) {
            Ok(()) => {
                (self.bell)();
                Ok(())
            }
            Err(TrySendError::Full(incoming) | TrySendError::Disconnected(incoming)) => Err(incoming),
        }
    }

    /// Hands over what the slot asked for, and waits while it has too many others waiting: an answer that was lost would
    /// never be asked for again. A slot that is gone needs none.
    fn deliver(&self, incoming: Incoming<S>) {
        (self.bell)();
        if self.sender.send(incoming).is_ok() {
            (self.bell)();
        }
    }
}

struct Shared {
    slots: Mutex<HashMap<SlotId, Mailbox<Stream>>>,
    neighbours: OnceLock<Neighbours>,
    options: SocketOptions,
    watcher: Watcher,
    accepting: AtomicUsize,
    stop: AtomicBool,
    dials: Mutex<Dials>,
}

#[derive(Default)]
struct Dials {
    queue: VecDeque<DialRequest>,
    workers: usize,
}

/// The data endpoint of a process: a listener that routes connections to slots, and the dialer of all of them.
///
/// Dropping it stops the listener and joins its thread; handshakes under way end by their own deadlines.
pub struct Endpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    /// Once memory is shared.
    neighbour_acceptor: OnceLock<JoinHandle<()>>,
}

impl Endpoint {
    /// Listens on `address`; port 0 takes any free one.
    ///
    /// # Errors
    /// [`EndpointError`] with the address, e.g. if the port is in use.
    pub fn bind(address: SocketAddr, options: SocketOptions) -> Result<Self, EndpointError> {
        Self::bind_watched(address, options, Arc::new(|_| ()))
    }

    /// As [`bind`](Self::bind); `watcher` sees every connection that is turned away.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_watched(
        address: SocketAddr,
        options: SocketOptions,
        watcher: Watcher,
    ) -> Result<Self, EndpointError> {
        let error = |source| EndpointError { address, source };
        let listener = socket::listen(address)
            .map_err(|refused| error(std::io::Error::from_raw_os_error(refused.errno)))?;
        let bound = listener.local_addr().map_err(error)?;
        let shared = Arc::new(Shared {
            slots: Mutex::new(HashMap::new()),
            neighbours: OnceLock::new(),
            options,
            watcher,
            accepting: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            dials: Mutex::new(Dials::default()),
        });
        let acceptor = std::thread::Builder::new()
            .name("data-accept".into())
            .spawn({
                let shared = shared.clone();
                move || accept_loop(&listener, &shared)
            })
            .map_err(error)?;
        Ok(Self { address: bound, shared, acceptor: Some(acceptor), neighbour_acceptor: OnceLock::new() })
    }

    /// From now on, connections with processes of the same host and user go through shared memory where the peer does the
    /// same: they read from `arena`, which all slots of this endpoint have their shards of. Where that is not possible
    /// they go over TCP, and `instead` hears the first reason for it.
    ///
    /// # Errors
    /// [`ShmError`]; then all of them go over TCP.
    ///
    /// # Panics
    /// If it shares an arena already.
    pub fn share(
        &self,
        arena: &Arena,
        instead: impl Fn(&ShmError) + Send + Sync + 'static,
    ) -> Result<(), ShmError> {
        let acceptor = neighbours::listen(self.address, arena, instead, &self.shared)?;
        assert!(self.neighbour_acceptor.set(acceptor).is_ok(), "an endpoint shares one arena");
        Ok(())
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections for `slot` go to this mailbox from now on.
    pub fn register(&self, slot: SlotId, mailbox: Mailbox<Stream>) {
        lock(&self.shared.slots).insert(slot, mailbox);
    }

    /// A dialer for a slot's exchange.
    pub fn connector(&self) -> Box<dyn Connector> {
        Box::new(Dialer { shared: self.shared.clone() })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        lock(&self.shared.slots).clear();
        // The accept thread sits in accept: a connection of our own makes it look at the flag.
        let target = match self.address {
            SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
                (std::net::Ipv6Addr::LOCALHOST, v6.port()).into()
            }
            address => address,
        };
        if let Some(acceptor) = self.neighbour_acceptor.take()
            && neighbours::knock(target)
        {
            let _ = acceptor.join();
        }
        let woken = TcpStream::connect_timeout(&target, Duration::from_secs(1)).is_ok();
        if let Some(acceptor) = self.acceptor.take()
            && woken
        {
            // A panic in the accept thread has been printed; there is nothing to add.
            let _ = acceptor.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept_loop(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let (stream, from) = match accepted {
            Ok((stream, from)) => (stream, from),
            Err(_) => {
                // Out of descriptors or an aborted connection: give others time to free some, do not spin.
                std::thread::park_timeout(Duration::from_millis(100));
                continue;
            }
        };
        admit(shared, Some(from), move |shared| greet(stream, shared));
    }
}

/// Greets a stranger on a thread of its own, if there are not too many.
fn admit(
    shared: &Arc<Shared>,
    from: Option<SocketAddr>,
    greet: impl FnOnce(&Shared) -> Result<(), Cause> + Send + 'static,
) {
    if shared.accepting.fetch_add(1, Ordering::AcqRel) >= ACCEPTING_MAX {
        shared.accepting.fetch_sub(1, Ordering::AcqRel);
        (shared.watcher)(&TurnedAway { from, why: Cause::Crowded });
        return;
    }
    let for_thread = shared.clone();
    let spawned = std::thread::Builder::new().name("data-hello".into()).spawn(move || {
        if let Err(why) = greet(&for_thread) {
            (for_thread.watcher)(&TurnedAway { from, why });
        }
        for_thread.accepting.fetch_sub(1, Ordering::AcqRel);
    });
    if let Err(error) = spawned {
        shared.accepting.fetch_sub(1, Ordering::AcqRel);
        (shared.watcher)(&TurnedAway { from, why: Cause::Local(error.to_string()) });
    }
}

/// Reads the hello of an accepted connection and hands it to the slot it names.
fn greet(mut stream: TcpStream, shared: &Shared) -> Result<(), Cause> {
    let mut bytes = [0; HELLO_LEN];
    read_within(&mut stream, &mut bytes, HELLO_WAIT).map_err(Cause::Silent)?;
    let echo = Hello::echo_of(&bytes);
    let refuse = |mut stream: TcpStream, refusal, hello| {
        // If the stranger is gone there is nobody to tell.
        if stream.answer(&HelloReply { echo, refusal: Some(refusal) }).is_ok() {
            part(stream);
        }
        Err(Cause::Refused(refusal, hello))
    };
    let hello = match Hello::parse(&bytes) {
        Ok(hello) => hello,
        Err(refusal) => return refuse(stream, refusal, None),
    };
    socket::configure(&stream, &shared.options).map_err(|error| Cause::Local(error.to_string()))?;
    stream.set_read_timeout(None).map_err(|error| Cause::Local(error.to_string()))?;
    match route(stream.into(), shared, hello, echo) {
        Err((Stream::Tcp(stream), refusal)) => refuse(stream, refusal, Some(hello)),
        _ => Ok(()),
    }
}

/// Hands a greeted connection to the slot that it names, or gives it back with the reason.
fn route(socket: Stream, shared: &Shared, hello: Hello, echo: u32) -> Result<(), (Stream, Refusal)> {
    let slot = SlotId { taskmanager: hello.to.tm, slot: hello.to.slot };
    let mailbox = lock(&shared.slots).get(&slot).cloned();
    let Some(mailbox) = mailbox else {
        let refusal = Refusal { code: RefusalCode::Slot, expected: 0, found: u64::from(hello.to.slot) };
        return Err((socket, refusal));
    };
    match mailbox.hand_over(Incoming::Accepted { socket, hello, echo }) {
        Err(Incoming::Accepted { socket, .. }) => Err((socket, Refusal::busy(0, 0))),
        _ => Ok(()),
    }
}

/// Lets the last words arrive: closing on unread bytes would reset the connection and lose them.
fn part(mut stream: TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut rest = [0; 4096];
    let deadline = Instant::now() + HELLO_WAIT;
    for _ in 0..UNREAD_MAX / rest.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        let read = !left.is_zero()
            && stream.set_read_timeout(Some(left)).is_ok()
            && matches!(stream.read(&mut rest), Ok(1..));
        if !read {
            return;
        }
    }
}

fn read_within(stream: &mut TcpStream, bytes: &mut [u8], wait: Duration) -> std::io::Result<()> {
    let deadline = Instant::now() + wait;
    let mut filled = 0;
    while filled < bytes.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

struct Dialer {
    shared: Arc<Shared>,
}

impl Connector for Dialer {
    fn dial(&self, request: DialRequest) {
        let mut dials = lock(&self.shared.dials);
        dials.queue.push_back(request);
        if dials.workers < DIALING_MAX {
            let shared = self.shared.clone();
            let worker =
                std::thread::Builder::new().name("data-dial".into()).spawn(move || dial_loop(&shared));
            dials.workers += usize::from(worker.is_ok());
            if dials.workers == 0
                && let (Err(error), Some(request)) = (worker, dials.queue.pop_back())
            {
                // Nobody is left to dial, and nobody else would tell the slot. If its mailbox is full as well, the attempt
                // ends by the control side's deadline.
                let cause = format!("no thread to dial with: {error}");
                let result = Err(LinkError::Unreachable { address: request.address, cause });
                if let Some(mailbox) = lock(&self.shared.slots).get(&request.slot) {
                    let (link, hello) = (request.link, request.hello);
                    let _ = mailbox.hand_over(Incoming::Dialed { link, hello, result });
                }
            }
        }
    }

    fn refused(&self, from: Option<SocketAddr>, hello: &Hello, refusal: Refusal) {
        (self.shared.watcher)(&TurnedAway { from, why: Cause::Refused(refusal, Some(*hello)) });
    }
}

fn dial_loop(shared: &Shared) {
    loop {
        let request = {
            let mut dials = lock(&shared.dials);
            match dials.queue.pop_front() {
                Some(request) => request,
                None => {
                    dials.workers -= 1;
                    return;
                }
            }
        };
        let result = dial(&request, shared);
        let mailbox = lock(&shared.slots).get(&request.slot).cloned();
        if let Some(mailbox) = mailbox {
            mailbox.deliver(Incoming::Dialed { link: request.link, hello: request.hello, result });
        }
    }
}

/// Through shared memory if the peer is a neighbour that wants to, else over TCP.
fn dial(request: &DialRequest, shared: &Shared) -> Result<Stream, LinkError> {
    if let Some(neighbours) = shared.neighbours.get() {
        match neighbours.dial(request) {
            Ok(stream) => return Ok(stream.into()),
            Err(Declined::Refused(refusal)) => return Err(LinkError::Refused(refusal)),
            Err(Declined::Shm(error)) => neighbours.note(&error),
        }
    }
    Ok(dial_tcp(request, &shared.options)?.into())
}

fn dial_tcp(request: &DialRequest, options: &SocketOptions) -> Result<TcpStream, LinkError> {
    let unreachable = |cause: &dyn std::fmt::Display| LinkError::Unreachable {
        address: request.address,
        cause: cause.to_string(),
    };
    let mut stream =
        TcpStream::connect_timeout(&request.address, HANDSHAKE_WAIT).map_err(|cause| unreachable(&cause))?;
    socket::configure(&stream, options).map_err(|cause| unreachable(&cause))?;
    let mut bytes = [0; HELLO_LEN];
    request.hello.write(&mut bytes);
    stream.write_all(&bytes).map_err(|cause| unreachable(&cause))?;
    let mut reply = [0; HELLO_REPLY_LEN];
    read_within(&mut stream, &mut reply, HANDSHAKE_WAIT).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
            LinkError::HungUp { address: request.address }
        }
        _ => unreachable(&cause),
    })?;
    let reply = HelloReply::parse(&reply).map_err(|cause| unreachable(&format!("{cause:?}")))?;
    if let Some(refusal) = reply.refusal {
        return Err(LinkError::Refused(refusal));
    }
    if reply.echo != Hello::echo_of(&bytes) {
        return Err(unreachable(&"the answer belongs to another hello"));
    }
    stream.set_read_timeout(None).map_err(|cause| unreachable(&cause))?;
    Ok(stream)
}
