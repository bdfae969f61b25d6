//! Shared memory with processes of the same host and user: who listens for them, and who dials them.
//!
//! A neighbour is found under a name made of its data address; the greeting is the one of TCP, after the memory of who
//! listens and with the memory of who dials. Whatever stands in the way is no fault of the link, which then goes over TCP:
//! both sides have mapped what they need before the slot hears of it. A refusal by the slot is final as it is there.

use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate_arena::Arena;
use tidegate_ring::{Control, Peer, ShmError, ShmStream, listen_shm};
use tidegate_wire::{HELLO_LEN, HELLO_REPLY_LEN, Hello, HelloReply, Refusal};

use super::{DialRequest, Greet, Shared, admit, route};
use crate::limits::{HANDSHAKE_WAIT, HELLO_WAIT};
use crate::turned_away::Cause;

/// What an endpoint needs for them.
pub(super) struct Neighbours {
    arena: Arena,
    instead: Box<dyn Fn(&ShmError) + Send + Sync>,
    /// The first reason was told.
    told: AtomicBool,
}

/// Why a dial did not end with shared memory.
pub(super) enum Declined {
    /// The slot refused the link, however it comes.
    Refused(Refusal),
    /// They do not share memory.
    Shm(ShmError),
}

impl From<ShmError> for Declined {
    fn from(error: ShmError) -> Self {
        Self::Shm(error)
    }
}

/// Starts to listen for neighbours that dial `address`.
pub(super) fn listen(
    address: SocketAddr,
    arena: &Arena,
    instead: impl Fn(&ShmError) + Send + Sync + 'static,
    shared: &Arc<Shared>,
) -> Result<JoinHandle<()>, ShmError> {
    // Fails here rather than at the first dial.
    drop(ShmStream::words(arena)?);
    let listener = listen_shm(address)?;
    let neighbours =
        Neighbours { arena: arena.clone(), instead: Box::new(instead), told: AtomicBool::new(false) };
    let first = shared.neighbours.set(neighbours).is_ok();
    assert!(first, "an endpoint shares one arena");
    let shared = shared.clone();
    let acceptor = std::thread::Builder::new().name("data-neighbours".into());
    acceptor
        .spawn(move || accept_loop(&listener, &shared))
        .map_err(|error| ShmError::Os { call: "clone", errno: error.raw_os_error().unwrap_or(0) })
}

/// Makes the accept thread look at the flag that stops it. False: it cannot be reached.
pub(super) fn knock(address: SocketAddr) -> bool {
    Control::connect(address).is_ok()
}

fn accept_loop(listener: &UnixListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        match accepted {
            Ok((stream, _)) => admit(shared, None, move |shared| greet(stream, shared)),
            // Out of descriptors: give others time to free some, do not spin.
            Err(_) => std::thread::park_timeout(Duration::from_millis(100)),
        }
    }
}

/// Reads the hello of an accepted neighbour, maps what it shows, and hands it to the slot it names.
fn greet(stream: UnixStream, shared: &Shared) -> Result<(), Cause> {
    let neighbours = shared.neighbours.get().expect("invariant: set before anybody listens");
    let control = Control::accepted(stream).map_err(Cause::Memory)?;
    let own = ShmStream::words(&neighbours.arena).map_err(Cause::Memory)?;
    control.offer(&own, &neighbours.arena).map_err(Cause::Silent)?;
    let mut bytes = [0; HELLO_LEN];
    let shown = control.hear(&mut bytes, HELLO_WAIT).map_err(Cause::Silent)?;
    let echo = Hello::echo_of(&bytes);
    let hello = match Hello::parse(&bytes) {
        Ok(hello) => hello,
        Err(refusal) => {
            let mut bytes = [0; HELLO_REPLY_LEN];
            HelloReply { echo, refusal: Some(refusal) }.write(&mut bytes);
            // If the stranger is gone there is nobody to tell.
            let _ = control.say(&bytes, None);
            return Err(Cause::Refused(refusal, None));
        }
    };
    // On an error the peer hears nothing, and takes TCP.
    let stream = Peer::map(shown).and_then(|peer| control.join(own, peer)).map_err(Cause::Memory)?;
    match route(stream.into(), shared, hello, echo) {
        Ok(()) => Ok(()),
        Err((mut stream, refusal)) => {
            let _ = stream.answer(&HelloReply { echo, refusal: Some(refusal) });
            Err(Cause::Refused(refusal, Some(hello)))
        }
    }
}

impl Neighbours {
    /// Dials the neighbour behind a data address, if there is one.
    pub(super) fn dial(&self, request: &DialRequest) -> Result<ShmStream, Declined> {
        let control = Control::connect(request.address)?;
        // Before the hello: from there on the slot counts on us.
        let peer = control.offered(HANDSHAKE_WAIT)?;
        let own = ShmStream::words(&self.arena)?;
        let mut bytes = [0; HELLO_LEN];
        request.hello.write(&mut bytes);
        let broken = |call| {
            move |error: std::io::Error| ShmError::Os { call, errno: error.raw_os_error().unwrap_or(0) }
        };
        control.say(&bytes, Some((&own, &self.arena))).map_err(broken("sendmsg(hello)"))?;
        let mut reply = [0; HELLO_REPLY_LEN];
        control.hear(&mut reply, HANDSHAKE_WAIT).map_err(broken("recvmsg(answer)"))?;
        let ours = Hello::echo_of(&bytes);
        match HelloReply::parse(&reply) {
            Ok(HelloReply { refusal: Some(refusal), .. }) => Err(Declined::Refused(refusal)),
            Ok(HelloReply { echo, .. }) if echo == ours => Ok(control.join(own, peer)?),
            _ => Err(ShmError::Os { call: "recvmsg(answer)", errno: 0 }.into()),
        }
    }

    /// Tells the first reason for TCP in spite of all. A peer on another host is none.
    pub(super) fn note(&self, error: &ShmError) {
        if *error != ShmError::Elsewhere && !self.told.swap(true, Ordering::Relaxed) {
            (self.instead)(error);
        }
    }
}
