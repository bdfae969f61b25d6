//! One connection: what it has in flight, and what each completion makes of that.
//!
//! Owned by the ring's slab, at an address of its own. Always:
//! - at most one send and one receive operation in flight; parts in a slot belong to exactly one send;
//! - notifications reserved = outstanding ones + one if a zero-copy operation is in flight ≤ [`NOTIFICATIONS_MAX`], so
//!   a slot for the next send is always free;
//! - nothing is finished (`finished`) while the kernel can still name the connection in a completion.

use std::{
    net::{Shutdown, TcpStream},
    os::fd::AsRawFd,
};

use io_uring::{cqueue, squeue, types::Fd};

use super::{
    choice::{Choice, Way},
    driver::Driver,
    ops,
    stable::Gather,
    token::Token,
};
use crate::{
    fault::{IoFault, RingError, stop},
    limits::{NOTIFICATIONS_MAX, RETRIES_MAX, SEND_SLOTS},
    parts,
    report::SendMode,
    ring::{Completion, ConnId, ReceiveParts, SendParts},
    socket,
};

/// A send whose parts are here: the current one, or one that waits for notifications.
#[derive(Default)]
struct SendSlot {
    parts: SendParts,
    total: u64,
    done: u64,
    /// Zero-copy operations of this send that the kernel has yet to let go of.
    notifications: u8,
    /// How it shall go.
    way: Way,
    /// When its last operation was submitted, for zero copy.
    submitted_ns: u64,
}

pub(super) struct Connection {
    id: ConnId,
    /// Taken away early only when aborting with nothing but notifications outstanding.
    socket: Option<TcpStream>,
    fd: Fd,
    closing: bool,
    cancelling: bool,
    shutdown_wanted: bool,
    write_shut: bool,

    slots: [SendSlot; SEND_SLOTS],
    /// The slot of the send in flight, and its operation.
    sending: Option<(u8, Way)>,
    send_list: Gather,
    send_retries: u8,
    notifications_reserved: usize,
    choice: Choice,
    /// Registered receives are possible as far as we know.
    fixed_receive: bool,

    receiving: Option<ReceiveParts>,
    receive_room: u64,
    receive_fixed: bool,
    receive_list: Gather,
    receive_retries: u8,
}

impl Connection {
    /// Memory for one connection; [`open`](Self::open) puts one in.
    pub(super) fn vacant() -> Box<Self> {
        Box::new(Self {
            id: ConnId::new(0, 0),
            socket: None,
            fd: Fd(-1),
            closing: true,
            cancelling: false,
            shutdown_wanted: false,
            write_shut: false,
            slots: Default::default(),
            sending: None,
            send_list: Gather::new(),
            send_retries: 0,
            notifications_reserved: 0,
            choice: Choice::forced(Way::Plain),
            fixed_receive: false,
            receiving: None,
            receive_room: 0,
            receive_fixed: false,
            receive_list: Gather::new(),
            receive_retries: 0,
        })
    }

    /// Takes over `stream` under `id`.
    pub(super) fn open(&mut self, id: ConnId, stream: TcpStream, driver: &Driver) -> Result<(), RingError> {
        assert!(self.finished() && self.socket.is_none(), "the place is vacant");
        // Older kernels answer EAGAIN instead of waiting if the socket itself does not block.
        stream.set_nonblocking(false).map_err(RingError::os("fcntl(O_NONBLOCK)"))?;
        // A socket that is not connected is refused here, and not by its first operation.
        stream.peer_addr().map_err(RingError::os("getpeername"))?;
        self.id = id;
        self.fd = Fd(stream.as_raw_fd());
        self.socket = Some(stream);
        (self.closing, self.shutdown_wanted, self.write_shut) = (false, false, false);
        (self.send_retries, self.receive_retries) = (0, 0);
        let fixed = driver.send_mode == SendMode::Fixed;
        self.choice = match driver.config.send {
            SendMode::Auto => Choice::measured(fixed, driver.may_zero_copy()),
            SendMode::Zc if driver.may_zero_copy() => Choice::forced(Way::ZeroCopy),
            _ => Choice::forced(if fixed { Way::Fixed } else { Way::Plain }),
        };
        self.fixed_receive = fixed;
        Ok(())
    }

    /// Whether new operations are accepted from the user of `id`.
    pub(super) fn is_open(&self, id: ConnId) -> bool {
        self.id == id && !self.closing
    }

    // ---- sending

    pub(super) fn send(&mut self, driver: &mut Driver, parts: SendParts) {
        assert!(self.sending.is_none(), "misuse: a send is in flight on this connection already");
        assert!(!self.write_shut && !self.shutdown_wanted, "misuse: send after shutdown_write");
        let total = parts::send_bytes(&driver.arena, &parts);
        assert!(total > 0, "misuse: a send of no bytes");
        let free = self.slots.iter().position(|slot| slot.notifications == 0);
        let free = free.expect("invariant: fewer sends wait for notifications than there are slots");
        let room = self.notifications_reserved < NOTIFICATIONS_MAX;
        let pick = self.choice.next(total, parts.len(), room, driver.trial.is_none());
        if pick.on_trial {
            driver.begin_trial(self.id);
        }
        let way = pick.way;
        self.slots[free] = SendSlot { parts, total, done: 0, notifications: 0, way, submitted_ns: 0 };
        self.send_retries = 0;
        self.push_send(driver, free as u8);
    }

    /// Submits what is left of the send in `slot`.
    fn push_send(&mut self, driver: &mut Driver, slot: u8) {
        let send = &mut self.slots[usize::from(slot)];
        let pieces = parts::rest(parts::send_pieces(&driver.arena, &send.parts), send.done);
        let registered = self.send_list.fill(pieces, driver.registered.as_ref());

        let room = self.notifications_reserved < NOTIFICATIONS_MAX;
        let op = match send.way {
            Way::ZeroCopy if room => Way::ZeroCopy,
            Way::ZeroCopy => self.choice.with_copy(),
            way => way,
        };
        let outside = op == Way::Fixed && !registered;
        driver.counters.outside_shard += u64::from(outside);
        let op = if outside { Way::Plain } else { op };
        let (entry, completions) = match op {
            Way::Plain => (ops::send_plain(self.fd, &self.send_list), 1),
            Way::Fixed => {
                driver.counters.fixed_sends += 1;
                (ops::send_fixed(self.fd, &self.send_list), 1)
            }
            Way::ZeroCopy => {
                self.notifications_reserved += 1;
                driver.counters.zc_sends += 1;
                send.submitted_ns = crate::monotonic_ns();
                let table = registered && driver.kernel.fixed_vectors;
                (ops::send_zero_copy(self.fd, &self.send_list, table), 2)
            }
        };
        self.sending = Some((slot, op));
        driver.counters.send_ops += 1;
        driver.push(entry, Token::Send(self.id, slot), completions);
    }

    pub(super) fn on_send(
        &mut self,
        driver: &mut Driver,
        slot: u8,
        entry: &cqueue::Entry,
    ) -> Option<Completion> {
        if usize::from(slot) >= SEND_SLOTS {
            stop(format_args!("a completion names send slot {slot}"));
        }
        if cqueue::notif(entry.flags()) {
            return self.on_notification(driver, slot, entry);
        }
        let more = cqueue::more(entry.flags());
        let op = match self.sending {
            Some((current, op)) if current == slot && (op == Way::ZeroCopy || !more) => op,
            other => stop(format_args!("a send completed in slot {slot}, in flight is {other:?}")),
        };
        self.sending = None;
        // Only this flag decides whether a notification follows, not the result.
        driver.kernel.settle(if op == Way::ZeroCopy && !more { 2 } else { 1 });
        if op == Way::ZeroCopy {
            if more {
                self.slots[usize::from(slot)].notifications += 1;
            } else {
                self.notifications_reserved -= 1;
            }
        }
        self.advance_send(driver, slot, op, entry.result())
    }

    /// An operation of the send in `slot` gave `result`: finish, or resume what is left.
    fn advance_send(&mut self, driver: &mut Driver, slot: u8, op: Way, result: i32) -> Option<Completion> {
        let send = &mut self.slots[usize::from(slot)];
        let left = send.total - send.done;
        match result {
            sent if sent > 0 => {
                if sent as u64 > left {
                    stop(format_args!("{sent} bytes were sent of {left}"));
                }
                send.done += sent as u64;
                self.send_retries = 0;
                driver.counters.bytes_sent += sent as u64;
                if sent as u64 == left {
                    if let Some(ns) = driver.end_trial(self.id)
                        && left == send.total
                    {
                        self.choice.spent(op, left, ns);
                    }
                    return Some(self.sent(driver, slot, Ok(self.slots[usize::from(slot)].total)));
                }
                driver.counters.short_sends += 1;
            }
            refusal if op != Way::Plain && ops::is_refusal(-refusal) => {
                driver.counters.fallbacks += 1;
                self.choice.refused(op);
                send.way = self.choice.with_copy();
            }
            0 | ops::INTERRUPTED | ops::AGAIN if self.send_retries < RETRIES_MAX => self.send_retries += 1,
            0 => return Some(self.sent(driver, slot, Err(IoFault::BrokenPipe))),
            error => return Some(self.sent(driver, slot, Err(self.fault(error)))),
        }
        if self.closing {
            return Some(self.sent(driver, slot, Err(IoFault::Cancelled)));
        }
        self.push_send(driver, slot);
        None
    }

    fn on_notification(
        &mut self,
        driver: &mut Driver,
        slot: u8,
        entry: &cqueue::Entry,
    ) -> Option<Completion> {
        let send = &mut self.slots[usize::from(slot)];
        if send.notifications == 0 {
            stop(format_args!("a notification for send slot {slot}, which waits for none"));
        }
        send.notifications -= 1;
        self.notifications_reserved -= 1;
        driver.kernel.settle(1);
        let copied = ops::was_copied(entry.result());
        driver.counters.zc_copied += u64::from(copied);
        let waited_ns = crate::monotonic_ns().saturating_sub(send.submitted_ns);
        driver.counters.notifications += 1;
        driver.counters.notification_ns += waited_ns;
        driver.counters.notification_ns_max = driver.counters.notification_ns_max.max(waited_ns);
        self.choice.reported(copied);
        let current = self.sending.is_some_and(|(current, _)| current == slot);
        let released = send.notifications == 0 && !current;
        released.then(|| Completion::Released { conn: self.id, parts: std::mem::take(&mut send.parts) })
    }

    fn sent(&mut self, driver: &mut Driver, slot: u8, result: Result<u64, IoFault>) -> Completion {
        driver.end_trial(self.id);
        if self.shutdown_wanted {
            self.shut_write_now();
        }
        let send = &mut self.slots[usize::from(slot)];
        let parts = if send.notifications == 0 { std::mem::take(&mut send.parts) } else { SendParts::new() };
        Completion::Sent { conn: self.id, result, parts }
    }

    // ---- receiving

    pub(super) fn receive(&mut self, driver: &mut Driver, parts: ReceiveParts) {
        assert!(self.receiving.is_none(), "misuse: a receive is in flight on this connection already");
        self.receive_room = parts::receive_bytes(&driver.arena, &parts);
        assert!(self.receive_room > 0, "misuse: a receive without room");
        let pieces = parts::rest(parts::receive_pieces(&driver.arena, &parts), 0);
        let registered = self.receive_list.fill(pieces, driver.registered.as_ref());
        self.receiving = Some(parts);
        self.receive_fixed = registered && self.fixed_receive;
        self.receive_retries = 0;
        self.push_receive(driver);
    }

    fn push_receive(&mut self, driver: &mut Driver) {
        let list = &self.receive_list;
        let entry = if self.receive_fixed {
            ops::receive_fixed(self.fd, list)
        } else {
            ops::receive_plain(self.fd, list)
        };
        driver.counters.receive_ops += 1;
        driver.push(entry, Token::Receive(self.id), 1);
    }

    pub(super) fn on_receive(&mut self, driver: &mut Driver, entry: &cqueue::Entry) -> Option<Completion> {
        if self.receiving.is_none() || cqueue::more(entry.flags()) {
            stop(format_args!("a receive completed that is not in flight, or will complete again"));
        }
        driver.kernel.settle(1);
        let result = match entry.result() {
            0 if self.closing => Err(IoFault::Cancelled), // the end of file is our own doing
            bytes if bytes >= 0 => {
                if bytes as u64 > self.receive_room {
                    stop(format_args!("{bytes} bytes were received into {}", self.receive_room));
                }
                driver.counters.bytes_received += bytes as u64;
                Ok(bytes as u32)
            }
            refusal if self.receive_fixed && ops::is_refusal(-refusal) && !self.closing => {
                driver.counters.fallbacks += 1;
                (self.fixed_receive, self.receive_fixed) = (false, false);
                self.push_receive(driver);
                return None;
            }
            ops::INTERRUPTED | ops::AGAIN if self.receive_retries < RETRIES_MAX && !self.closing => {
                self.receive_retries += 1;
                self.push_receive(driver);
                return None;
            }
            error => Err(self.fault(error)),
        };
        let parts = self.receiving.take().expect("invariant: checked above");
        Some(Completion::Received { conn: self.id, result, parts })
    }

    // ---- ending

    pub(super) fn shutdown_write(&mut self) {
        self.shutdown_wanted = true;
        if self.sending.is_none() {
            self.shut_write_now();
        }
    }

    fn shut_write_now(&mut self) {
        self.shutdown_wanted = false;
        self.write_shut = true;
        // Fails only if the connection is broken, which the next completion tells.
        let _ignored = self.socket.as_ref().map(|socket| socket.shutdown(Shutdown::Write));
    }

    pub(super) fn close(&mut self, driver: &mut Driver) {
        self.closing = true;
        self.shutdown_wanted = false;
        // Ends operations that wait for the peer, and those still queued here as soon as they are submitted.
        let _ignored = self.socket.as_ref().map(|socket| socket.shutdown(Shutdown::Both));
        if self.sending.is_some() || self.receiving.is_some() {
            self.cancelling = true;
            driver.push(ops::cancel(self.fd), Token::Cancel(self.id), 1);
        }
    }

    pub(super) fn on_cancel(&mut self, driver: &mut Driver) {
        if !self.cancelling {
            stop(format_args!("a cancellation completed that was not asked for"));
        }
        // Its result does not matter: what was found or not found completes by itself.
        self.cancelling = false;
        driver.kernel.settle(1);
    }

    /// Whether the connection was closed and nothing of it is in flight.
    pub(super) fn finished(&self) -> bool {
        self.operations_over() && self.notifications_reserved == 0
    }

    /// If a closing connection has nothing but notifications outstanding, aborts it: the peer may never acknowledge
    /// what they wait for, and then only an abort makes the kernel let go.
    pub(super) fn abort_if_stuck(&mut self) {
        if self.operations_over()
            && self.notifications_reserved > 0
            && let Some(socket) = self.socket.take()
        {
            let _ignored = socket::abort_on_close(&socket);
        }
    }

    fn operations_over(&self) -> bool {
        self.closing && !self.cancelling && self.sending.is_none() && self.receiving.is_none()
    }

    /// Closes the socket; the place is vacant then.
    pub(super) fn vacate(&mut self) {
        debug_assert!(self.finished());
        self.socket = None;
        self.fd = Fd(-1);
    }

    fn fault(&self, result: i32) -> IoFault {
        if self.closing { IoFault::Cancelled } else { IoFault::from_errno(-result) }
    }
}

// What `ops` builds is only pushed here, so that rules 1 and 2 can be seen in one place.
impl Driver {
    fn push(&mut self, entry: squeue::Entry, token: Token, completions: u32) {
        self.kernel.push(&entry.user_data(token.encode()), completions);
    }
}
