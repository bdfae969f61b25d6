//! One connection: what it has in flight, for what its socket is ready, and what it has to tell.
//!
//! Owned by the ring's slab. Always:
//! - an operation is pending until it has a result, and here with its parts until that is told;
//! - a pending operation is tried only while the socket is believed ready; it is believed not ready only after the kernel
//!   has said so, and then an edge will come.

use std::{
    net::{Shutdown, TcpStream},
    os::fd::{AsRawFd, RawFd},
};

use tidegate_arena::Arena;

use super::calls::{self, Outcome};
use crate::{
    fault::{IoFault, RingError},
    parts,
    report::Counters,
    ring::{Completion, ConnId, ReceiveParts, SendParts},
};

/// Events that a connection wants to hear of; errors and hang-ups are always told.
pub(super) const INTEREST: i32 = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP;
/// The peer has ended the stream or broken it, so that reading never again finds nothing.
const ENDED: i32 = libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR;

struct Sending {
    parts: SendParts,
    total: u64,
    done: u64,
    result: Option<Result<u64, IoFault>>,
}

struct Receiving {
    parts: ReceiveParts,
    room: u64,
    result: Option<Result<u32, IoFault>>,
}

pub(super) struct Connection {
    id: ConnId,
    socket: Option<TcpStream>,
    closing: bool,
    shutdown_wanted: bool,
    write_shut: bool,

    readable: bool,
    writable: bool,
    ended: bool,

    sending: Option<Sending>,
    receiving: Option<Receiving>,

    /// In the ring's queue of connections to try, and in that of those with something to tell.
    pub(super) to_try: bool,
    pub(super) to_tell: bool,
}

impl Connection {
    /// Memory for one connection; [`open`](Self::open) puts one in.
    pub(super) fn vacant() -> Box<Self> {
        Box::new(Self {
            id: ConnId::new(0, 0),
            socket: None,
            closing: true,
            shutdown_wanted: false,
            write_shut: false,
            readable: false,
            writable: false,
            ended: false,
            sending: None,
            receiving: None,
            to_try: false,
            to_tell: false,
        })
    }

    /// Takes over `stream` under `id`; its descriptor is to be watched then.
    pub(super) fn open(&mut self, id: ConnId, stream: TcpStream) -> Result<RawFd, RingError> {
        assert!(self.socket.is_none() && !self.to_try && !self.to_tell, "the place is vacant");
        stream.set_nonblocking(true).map_err(RingError::os("fcntl(O_NONBLOCK)"))?;
        stream.peer_addr().map_err(RingError::os("getpeername"))?;
        let fd = stream.as_raw_fd();
        self.id = id;
        self.socket = Some(stream);
        (self.closing, self.shutdown_wanted, self.write_shut) = (false, false, false);
        (self.readable, self.writable, self.ended) = (true, true, false);
        Ok(fd)
    }

    /// Whether new operations are accepted from the user of `id`.
    pub(super) fn is_open(&self, id: ConnId) -> bool {
        self.id == id && !self.closing
    }

    pub(super) fn send(&mut self, arena: &Arena, parts: SendParts) {
        assert!(self.sending.is_none(), "misuse: a send is in flight on this connection already");
        assert!(!self.write_shut && !self.shutdown_wanted, "misuse: send after shutdown_write");
        let total = parts::send_bytes(arena, &parts);
        assert!(total > 0, "misuse: a send of no bytes");
        self.sending = Some(Sending { parts, total, done: 0, result: None });
    }

    pub(super) fn receive(&mut self, arena: &Arena, parts: ReceiveParts) {
        assert!(self.receiving.is_none(), "misuse: a receive is in flight on this connection already");
        let room = parts::receive_bytes(arena, &parts);
        assert!(room > 0, "misuse: a receive without room");
        self.receiving = Some(Receiving { parts, room, result: None });
    }

    /// The kernel says for what the socket is ready.
    pub(super) fn on_event(&mut self, events: u32) {
        let any = |flags: i32| events & flags as u32 != 0;
        self.ended |= any(ENDED);
        self.readable |= any(libc::EPOLLIN | ENDED);
        // A broken connection is ready to say so.
        self.writable |= any(libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR);
    }

    /// Moves what is pending as far as the socket lets it. Returns how many operations got their result.
    pub(super) fn advance(&mut self, arena: &Arena, counters: &mut Counters) -> u32 {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.closing).map(AsRawFd::as_raw_fd) else {
            return 0;
        };
        let received = self.advance_receive(socket, arena, counters);
        let sent = self.advance_send(socket, arena, counters);
        if sent && self.shutdown_wanted {
            self.shut_write_now();
        }
        u32::from(received) + u32::from(sent)
    }

    fn advance_receive(&mut self, socket: RawFd, arena: &Arena, counters: &mut Counters) -> bool {
        let Some(receiving) = self.receiving.as_mut().filter(|receiving| receiving.result.is_none()) else {
            return false;
        };
        if !self.readable {
            return false;
        }
        counters.receive_ops += 1;
        let pieces = parts::rest(parts::receive_pieces(arena, &receiving.parts), 0);
        receiving.result = match calls::receive(socket, pieces) {
            Outcome::Bytes(bytes) => {
                counters.bytes_received += bytes as u64;
                // Less than there was room for is all there was: what comes later is another edge. But the end of the
                // stream may have been told already.
                self.readable = self.ended || bytes as u64 == receiving.room;
                Some(Ok(bytes as u32))
            }
            Outcome::NotReady => {
                self.readable = false;
                None
            }
            Outcome::Failed(errno) => Some(Err(IoFault::from_errno(errno))),
        };
        receiving.result.is_some()
    }

    fn advance_send(&mut self, socket: RawFd, arena: &Arena, counters: &mut Counters) -> bool {
        let Some(sending) = self.sending.as_mut().filter(|sending| sending.result.is_none()) else {
            return false;
        };
        while self.writable && sending.result.is_none() {
            counters.send_ops += 1;
            let pieces = parts::rest(parts::send_pieces(arena, &sending.parts), sending.done);
            match calls::send(socket, pieces) {
                Outcome::Bytes(0) => sending.result = Some(Err(IoFault::BrokenPipe)),
                Outcome::Bytes(bytes) => {
                    counters.bytes_sent += bytes as u64;
                    sending.done += bytes as u64;
                    if sending.done == sending.total {
                        sending.result = Some(Ok(sending.total));
                    } else {
                        counters.short_sends += 1;
                    }
                }
                Outcome::NotReady => self.writable = false,
                Outcome::Failed(errno) => sending.result = Some(Err(IoFault::from_errno(errno))),
            }
        }
        sending.result.is_some()
    }

    pub(super) fn shutdown_write(&mut self) {
        self.shutdown_wanted = true;
        if self.sending.as_ref().is_none_or(|sending| sending.result.is_some()) {
            self.shut_write_now();
        }
    }

    fn shut_write_now(&mut self) {
        self.shutdown_wanted = false;
        self.write_shut = true;
        // Fails only if the connection is broken, which the next completion tells.
        let _ignored = self.socket.as_ref().map(|socket| socket.shutdown(Shutdown::Write));
    }

    /// Ends the connection; what is pending is cancelled. Returns how many operations that were.
    pub(super) fn close(&mut self) -> u32 {
        self.closing = true;
        self.shutdown_wanted = false;
        let _ignored = self.socket.as_ref().map(|socket| socket.shutdown(Shutdown::Both));
        let mut cancelled = 0;
        if let Some(sending) = &mut self.sending {
            cancelled += u32::from(sending.result.is_none());
            sending.result.get_or_insert(Err(IoFault::Cancelled));
        }
        if let Some(receiving) = &mut self.receiving {
            cancelled += u32::from(receiving.result.is_none());
            receiving.result.get_or_insert(Err(IoFault::Cancelled));
        }
        cancelled
    }

    /// Whether it was closed.
    pub(super) fn closing(&self) -> bool {
        self.closing
    }

    /// The next result to tell.
    pub(super) fn tell(&mut self) -> Option<Completion> {
        let conn = self.id;
        if let Some(sending) = self.sending.take_if(|sending| sending.result.is_some()) {
            let result = sending.result.expect("invariant: checked by the condition");
            return Some(Completion::Sent { conn, result, parts: sending.parts });
        }
        let receiving = self.receiving.take_if(|receiving| receiving.result.is_some())?;
        let result = receiving.result.expect("invariant: checked by the condition");
        Some(Completion::Received { conn, result, parts: receiving.parts })
    }

    /// Gives the socket out of a place that is vacant then.
    pub(super) fn vacate(&mut self) -> Option<TcpStream> {
        debug_assert!(self.closing && self.sending.is_none() && self.receiving.is_none());
        self.socket.take()
    }
}
