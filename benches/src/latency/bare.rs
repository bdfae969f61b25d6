//! The same due times through a bare socket: what the kernel and the machine's wake-ups alone cost at a rate.
//!
//! One thread sleeps until shortly before messages are due, as a punctual source does (or spins), and writes all that are;
//! another blocks (or spins) in reads. A message is a stamp, padded to the record's length. Neither keeps anything but its
//! buffer.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::thread;
use std::time::Duration;

use rustix::thread::set_current_timer_slack;
use tidegate_stream::limits::PUNCTUAL_LEAD_NS;

use super::arrivals::{Arrivals, now_ns};
use super::pace::{Due, Pace, Plan};
use crate::calibrate::pair;
use crate::process::pin;

/// Bytes of one write or read at most.
const BATCH_BYTES: usize = 64 << 10;
/// Number and due time.
const STAMP_BYTES: usize = 16;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Bare {
    pub plan: Plan,
    pub warm_up_ns: u64,
    /// The latency of one message in so many is taken.
    pub every: u64,
    /// Bytes of a message, at least a stamp's.
    pub bytes: usize,
    pub cores: [usize; 2],
    /// Both ends look again and again, and never sleep.
    pub spin: bool,
}

/// Runs it.
///
/// # Errors
/// The sockets', or messages are missing.
pub fn measure(bare: Bare) -> Result<Arrivals, Box<dyn Error>> {
    let (here, there) = pair()?;
    let (sent, arrivals) = thread::scope(|scope| {
        let receiver = scope.spawn(move || receive(there, bare).map_err(|error| error.to_string()));
        let sender = scope.spawn(move || send(here, bare).map_err(|error| error.to_string()));
        let died = || "an end of the bare socket panicked".to_owned();
        (sender.join().unwrap_or_else(|_| Err(died())), receiver.join().unwrap_or_else(|_| Err(died())))
    });
    let (sent, arrivals): (u64, Arrivals) = (sent?, arrivals?);
    let received = arrivals.counts().records;
    if received != sent {
        return Err(format!("{sent} messages were sent by a bare socket, {received} arrived").into());
    }
    Ok(arrivals)
}

fn send(mut socket: TcpStream, bare: Bare) -> std::io::Result<u64> {
    pin(bare.cores[0]);
    precise();
    let mut pace = Pace::new(bare.plan);
    let mut sent = 0_u64;
    let mut batch = Vec::with_capacity(BATCH_BYTES);
    loop {
        let now = now_ns();
        let wait = loop {
            if batch.len() + bare.bytes > BATCH_BYTES {
                break Some(now);
            }
            match pace.ask(now) {
                Due::Now(due_ns) => {
                    let end = batch.len() + bare.bytes;
                    batch.extend_from_slice(&sent.to_le_bytes());
                    batch.extend_from_slice(&due_ns.to_le_bytes());
                    batch.resize(end, 0);
                    sent += 1;
                }
                Due::At(at) => break Some(at),
                Due::Over => break None,
            }
        };
        socket.write_all(&batch)?;
        let idle = batch.is_empty();
        batch.clear();
        match wait {
            None => return Ok(sent),
            Some(at) if idle && !bare.spin => {
                thread::sleep(Duration::from_nanos(at.saturating_sub(now_ns() + PUNCTUAL_LEAD_NS)));
            }
            Some(_) => {}
        }
    }
}

fn receive(mut socket: TcpStream, bare: Bare) -> std::io::Result<Arrivals> {
    pin(bare.cores[1]);
    socket.set_nonblocking(bare.spin)?;
    let mut arrivals = Arrivals::new(bare.warm_up_ns, bare.every);
    let mut buffer = vec![0; BATCH_BYTES];
    let mut filled = 0;
    loop {
        match socket.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(arrivals),
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::hint::spin_loop();
                continue;
            }
            Err(error) => return Err(error),
        }
        let whole = filled / bare.bytes * bare.bytes;
        for message in buffer[..whole].chunks_exact(bare.bytes) {
            let (words, _) = message[..STAMP_BYTES].as_chunks::<8>();
            arrivals.take(u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]));
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

/// The kernel would round this thread's timers up by 50 us; the engine's slots have asked for the same.
fn precise() {
    if set_current_timer_slack(NonZeroU64::new(1)).is_err() {
        eprintln!("warning: timers of the bare socket are rounded up by the kernel");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_messages_arrive_whole_whatever_their_length() {
        for (bytes, spin) in [(16, false), (100, true), (40_000, false)] {
            let plan = Plan { rate: 2_000, run_ns: 20_000_000 };
            let bare = Bare { plan, warm_up_ns: 5_000_000, every: 1, bytes, cores: [0, 0], spin };
            let counts = measure(bare).unwrap().counts();
            assert_eq!((counts.records, counts.sum), (40, crate::forms::sum_of_numbers(40)), "{bytes} bytes");
            assert_eq!(counts.measured, 30);
        }
    }
}
