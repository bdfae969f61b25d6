//! One connection through shared memory: what it has in flight, how far the peer is, and what it has to tell.
//!
//! A send is a list of pieces of our arena, published in our words; it is over when the peer says that it took them all.
//! A receive copies pieces of the peer's arena into our segments: one copy, no call into the kernel. So the ledger of what
//! a peer may read is this side's `sending`, in memory that no peer reaches, and it is empty when the peer is gone.
//!
//! Owned by the table. Always:
//! - sends published - sends that the peer has taken ∈ {0, 1}; it is 1 exactly while `sending` has no result, or once a send
//!   has failed: then the state says ABORTED, from before its segments were given back;
//! - what the peer says is loaded once, checked, and kept here; `pieces` lie within its arena.
//!
//! A peer that stops, lies or writes while we read costs this connection only: numbers are checked, and the bytes are
//! judged above, in our copy, as bytes from a network are. The last check of a receive is whether the peer has aborted: it
//! says so before it uses the memory of a send for something else, so a copy made before is whole.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{Ordering, fence};

use arrayvec::ArrayVec;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tidegate_arena::Arena;

use super::greeting::ShmStream;
use super::words;
use crate::{
    fault::IoFault,
    limits::{PARTS_MAX, WAKES_MAX},
    parts,
    report::Counters,
    ring::{Completion, ConnId, ReceiveParts, SendParts},
};

struct Sending {
    parts: SendParts,
    total: u64,
    result: Option<Result<u64, IoFault>>,
}

struct Receiving {
    parts: ReceiveParts,
    result: Option<Result<u32, IoFault>>,
}

/// A piece of the peer's send that is not copied yet.
struct Piece {
    offset: u64,
    len: u32,
}

pub(super) struct Connection {
    id: ConnId,
    stream: Option<ShmStream>,
    closing: bool,
    shutdown_wanted: bool,
    write_shut: bool,
    /// The control socket is at its end.
    hung_up: bool,
    /// A send of ours failed: the peer may still look at it, and what it copies from now on is not to be believed.
    aborted: bool,

    sending: Option<Sending>,
    receiving: Option<Receiving>,
    /// Sends published, and sends of the peer taken whole.
    sends: u64,
    takes: u64,
    /// What is left of the peer's send; not empty exactly while it is being taken.
    pieces: ArrayVec<Piece, PARTS_MAX>,
    /// Our sleeps so far: odd while we sleep.
    sleep: u64,
    /// The sleep of the peer for which it was woken.
    woken: u64,
}

impl Connection {
    /// Memory for one connection; [`open`](Self::open) puts one in.
    pub(super) fn vacant() -> Box<Self> {
        Box::new(Self {
            id: ConnId::new(0, 0),
            stream: None,
            closing: true,
            shutdown_wanted: false,
            write_shut: false,
            hung_up: false,
            aborted: false,
            sending: None,
            receiving: None,
            sends: 0,
            takes: 0,
            pieces: ArrayVec::new(),
            sleep: 0,
            woken: 0,
        })
    }

    /// Takes over `stream`; its control socket is to be watched then.
    pub(super) fn open(&mut self, id: ConnId, stream: ShmStream) -> RawFd {
        assert!(self.stream.is_none(), "the place is vacant");
        let fd = stream.control.as_raw_fd();
        *self = Self { id, stream: Some(stream), closing: false, ..*Self::vacant() };
        fd
    }

    /// Whether new operations are accepted from the user of `id`.
    pub(super) fn is_open(&self, id: ConnId) -> bool {
        self.id == id && !self.closing
    }

    pub(super) fn closing(&self) -> bool {
        self.closing
    }

    pub(super) fn send(&mut self, arena: &Arena, parts: SendParts, counters: &mut Counters) {
        assert!(self.sending.is_none(), "misuse: a send is in flight on this connection already");
        assert!(!self.write_shut && !self.shutdown_wanted, "misuse: send after shutdown_write");
        let total = parts::send_bytes(arena, &parts);
        assert!(total > 0, "misuse: a send of no bytes");
        let stream = self.stream.as_ref().expect("invariant: an open connection has its stream");
        let pieces = parts.iter().filter(|part| part.len > 0);
        let mut count = 0;
        for (at, part) in pieces.enumerate() {
            stream.own.set(words::LIST + 2 * at, arena.file_offset(&part.segment) + u64::from(part.offset));
            stream.own.set(words::LIST + 2 * at + 1, u64::from(part.len));
            count = at + 1;
        }
        stream.own.set(words::PIECES, count as u64);
        self.sends += 1;
        stream.own.publish(words::SENDS, self.sends);
        self.sending = Some(Sending { parts, total, result: None });
        counters.send_ops += 1;
        self.wake(counters);
    }

    pub(super) fn receive(&mut self, arena: &Arena, parts: ReceiveParts, counters: &mut Counters) {
        assert!(self.receiving.is_none(), "misuse: a receive is in flight on this connection already");
        assert!(parts::receive_bytes(arena, &parts) > 0, "misuse: a receive without room");
        counters.receive_ops += 1;
        self.receiving = Some(Receiving { parts, result: None });
    }

    /// Wakes the peer if it sleeps, once for each sleep.
    fn wake(&mut self, counters: &mut Counters) {
        let stream = self.stream.as_ref().expect("invariant: an open connection has its stream");
        // What was published before our look at its sleep; see `fall_asleep`.
        fence(Ordering::SeqCst);
        let sleep = stream.peer.word(words::SLEEP);
        if sleep & 1 == 0 || sleep == self.woken {
            return;
        }
        self.woken = sleep;
        counters.shared_wakes += 1;
        // Full: it has been woken often enough. Gone: the poll says so.
        let _ = send(&stream.control, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Whether an operation is pending, and the peer awake that has to do something for it.
    pub(super) fn expects(&self) -> bool {
        let pending = self.sending.is_some() || self.receiving.is_some();
        let awake = |stream: &ShmStream| stream.peer.word(words::SLEEP) & 1 == 0;
        pending && !self.hung_up && self.stream.as_ref().is_some_and(awake)
    }

    /// Announces sleep; whether there is something to do after all.
    pub(super) fn fall_asleep(&mut self) -> bool {
        self.sleep += 1;
        self.say_sleep();
        // Our sleep before our look at the peer's words; see `wake`.
        fence(Ordering::SeqCst);
        self.can_advance()
    }

    /// Whether there is something to tell.
    pub(super) fn has_news(&self) -> bool {
        self.closing
            || self.sending.as_ref().is_some_and(|sending| sending.result.is_some())
            || self.receiving.as_ref().is_some_and(|receiving| receiving.result.is_some())
    }

    pub(super) fn awake(&mut self) {
        self.sleep += 1;
        self.say_sleep();
    }

    fn say_sleep(&self) {
        if let Some(stream) = &self.stream {
            stream.own.set(words::SLEEP, self.sleep);
        }
    }

    /// Whether an operation that is pending may have a result. Says yes too often rather than too seldom.
    pub(super) fn can_advance(&self) -> bool {
        let Some(stream) = self.stream.as_ref().filter(|_| !self.closing) else { return false };
        let receiving = self.receiving.as_ref().is_some_and(|receiving| receiving.result.is_none());
        let sending = self.sending.as_ref().is_some_and(|sending| sending.result.is_none());
        let ended = self.hung_up || stream.peer.word(words::STATE) != words::OPEN;
        receiving && (ended || !self.pieces.is_empty() || stream.peer.word(words::SENDS) != self.takes)
            || sending
                && (self.hung_up
                    || ended_for_sends(stream)
                    || stream.peer.word(words::TAKES) != self.sends - 1)
    }

    /// Something happened on the control socket: takes wake-ups off, and notes its end.
    pub(super) fn on_event(&mut self, events: u32) {
        let Some(stream) = &self.stream else { return };
        let mut wakes = [0; WAKES_MAX];
        let heard = recv(&stream.control, &mut wakes, RecvFlags::DONTWAIT).map(|(_, heard)| heard);
        let over = !matches!(heard, Ok(1..) | Err(Errno::AGAIN | Errno::INTR));
        self.hung_up |= over || events & (libc::EPOLLHUP | libc::EPOLLRDHUP | libc::EPOLLERR) as u32 != 0;
    }

    /// Moves what is pending as far as the peer lets it. Whether there is something to tell.
    pub(super) fn advance(&mut self, arena: &Arena, counters: &mut Counters) -> bool {
        if !self.closing {
            self.advance_send(counters);
            if self.shutdown_wanted && self.sending.as_ref().is_none_or(|sending| sending.result.is_some()) {
                self.shut_write_now(counters);
            }
            self.advance_receive(arena, counters);
        }
        self.has_news()
    }

    fn advance_send(&mut self, counters: &mut Counters) {
        let Some(sending) = self.sending.as_mut().filter(|sending| sending.result.is_none()) else { return };
        let stream = self.stream.as_ref().expect("invariant: an open connection has its stream");
        let over = self.hung_up || ended_for_sends(stream);
        // In this order: a peer takes before it ends.
        fence(Ordering::Acquire);
        let takes = stream.peer.word(words::TAKES);
        // The peer's reads of the segments come before their reuse.
        fence(Ordering::Acquire);
        sending.result = if takes == self.sends {
            counters.bytes_sent += sending.total;
            counters.shared_bytes_sent += sending.total;
            Some(Ok(sending.total))
        } else if takes != self.sends - 1 {
            Some(Err(IoFault::Shared { what: "it took what was not sent" }))
        } else if over {
            Some(Err(IoFault::BrokenPipe))
        } else {
            None
        };
        // Before the segments go back: a peer whose socket alone was cut may be half way through them.
        if matches!(sending.result, Some(Err(_))) {
            self.abort(counters);
        }
    }

    fn advance_receive(&mut self, arena: &Arena, counters: &mut Counters) {
        let Some(receiving) = self.receiving.as_mut().filter(|receiving| receiving.result.is_none()) else {
            return;
        };
        let stream = self.stream.as_ref().expect("invariant: an open connection has its stream");
        if self.pieces.is_empty() {
            match look(stream, self.takes, self.hung_up, &mut self.pieces) {
                Ok(true) => {}
                Ok(false) => return,
                Err(ended) => {
                    receiving.result = Some(ended);
                    return;
                }
            }
        }
        let copied = copy(arena, stream, &mut self.pieces, &mut receiving.parts);
        // The copy before the look: see above.
        fence(Ordering::Acquire);
        if stream.peer.word(words::STATE) == words::ABORTED {
            receiving.result = Some(Err(IoFault::Reset));
            return;
        }
        counters.bytes_received += u64::from(copied);
        counters.shared_bytes_received += u64::from(copied);
        receiving.result = Some(Ok(copied));
        if self.pieces.is_empty() {
            self.takes += 1;
            stream.own.publish(words::TAKES, self.takes);
            self.wake(counters);
        }
    }

    pub(super) fn shutdown_write(&mut self, counters: &mut Counters) {
        self.shutdown_wanted = true;
        if self.sending.as_ref().is_none_or(|sending| sending.result.is_some()) {
            self.shut_write_now(counters);
        }
    }

    fn shut_write_now(&mut self, counters: &mut Counters) {
        self.shutdown_wanted = false;
        self.write_shut = true;
        self.say_state(if self.aborted { words::ABORTED } else { words::ENDED }, counters);
    }

    fn abort(&mut self, counters: &mut Counters) {
        self.aborted = true;
        self.say_state(words::ABORTED, counters);
    }

    fn say_state(&mut self, state: u64, counters: &mut Counters) {
        if let Some(stream) = &self.stream {
            stream.own.publish(words::STATE, state);
            // Before any reuse of what was sent, and before the peer is woken to see it.
            fence(Ordering::SeqCst);
            self.wake(counters);
        }
    }

    /// Ends the connection; what is pending is cancelled.
    pub(super) fn close(&mut self, counters: &mut Counters) {
        self.advance_send(counters);
        self.aborted |= self.sending.as_ref().is_some_and(|sending| sending.result.is_none());
        self.closing = true;
        self.shutdown_wanted = false;
        self.say_state(if self.aborted { words::ABORTED } else { words::CLOSED }, counters);
        if let Some(sending) = &mut self.sending {
            sending.result.get_or_insert(Err(IoFault::Cancelled));
        }
        if let Some(receiving) = &mut self.receiving {
            receiving.result.get_or_insert(Err(IoFault::Cancelled));
        }
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

    /// Gives the stream out of a place that is vacant then.
    pub(super) fn vacate(&mut self) -> Option<ShmStream> {
        debug_assert!(self.closing && self.sending.is_none() && self.receiving.is_none());
        self.stream.take()
    }
}

/// Whether the peer takes nothing any more.
fn ended_for_sends(stream: &ShmStream) -> bool {
    stream.peer.word(words::STATE) >= words::CLOSED
}

/// Looks for the peer's next send, after `takes` of them, and takes its list over. False: there is none yet. An error is
/// how the stream ends, for good or bad.
fn look(
    stream: &ShmStream,
    takes: u64,
    hung_up: bool,
    pieces: &mut ArrayVec<Piece, PARTS_MAX>,
) -> Result<bool, Result<u32, IoFault>> {
    let broken = |what| Err(IoFault::Shared { what });
    // In this order: a peer that has ended publishes nothing after that.
    let state = stream.peer.word(words::STATE);
    fence(Ordering::Acquire);
    let sends = stream.peer.word(words::SENDS);
    fence(Ordering::Acquire);
    if state == words::ABORTED {
        return Err(Err(IoFault::Reset));
    }
    if sends == takes {
        return match state {
            words::OPEN if hung_up => Err(Err(IoFault::Reset)),
            words::OPEN => Ok(false),
            words::ENDED | words::CLOSED => Err(Ok(0)),
            _ => Err(broken("a state that there is not")),
        };
    }
    if sends != takes.wrapping_add(1) {
        return Err(broken("it sent before the last send was taken"));
    }
    let count = stream.peer.word(words::PIECES);
    if !(1..=PARTS_MAX as u64).contains(&count) {
        return Err(broken("a send of too many pieces or none"));
    }
    let checked = (0..count as usize).map(|at| {
        let offset = stream.peer.word(words::LIST + 2 * at);
        let len = u32::try_from(stream.peer.word(words::LIST + 2 * at + 1)).unwrap_or(u32::MAX);
        let holds = len > 0 && stream.peer_arena.holds(offset, len);
        if holds { Ok(Piece { offset, len }) } else { Err(broken("a piece outside of its memory")) }
    });
    *pieces = checked.collect::<Result<_, _>>()?;
    Ok(true)
}

/// Copies what there is into what room there is; how much.
fn copy(
    arena: &Arena,
    stream: &ShmStream,
    pieces: &mut ArrayVec<Piece, PARTS_MAX>,
    parts: &mut ReceiveParts,
) -> u32 {
    let (mut copied, mut current) = (0, 0);
    for part in parts {
        let mut filled = 0;
        while filled < part.len && current < pieces.len() {
            let piece = &mut pieces[current];
            let len = piece.len.min(part.len - filled);
            arena.copy_in(&mut part.segment, part.offset + filled, &stream.peer_arena, piece.offset, len);
            (piece.offset, piece.len) = (piece.offset + u64::from(len), piece.len - len);
            filled += len;
            current += usize::from(piece.len == 0);
        }
        copied += filled;
    }
    pieces.drain(..current);
    copied
}
