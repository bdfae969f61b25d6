//! A wire that is a program: it takes connections on one host, makes each of them anew on another, and passes bytes on in
//! pieces as it likes, or does not.
//!
//! Sockets belong to the network namespace of the thread that makes them, so one thread listens on the one host and another
//! dials on the other. They end with the test, at the latest.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::hosts::Hosts;
use super::random::Random;

/// Connections to `address`, made on one host, go to the same address on another host.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    near: usize,
}

#[derive(Default)]
struct Shared {
    /// Nothing is read any more from whoever has connected by now.
    stalled: AtomicBool,
    over: AtomicBool,
    bytes: AtomicU64,
    pieces: AtomicU64,
}

/// How bytes are passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pieces {
    /// As they come.
    Whole,
    /// Of one to seven bytes for a while, then whole for a while.
    Crumbs,
}

impl Proxy {
    /// The caller's thread is on `home`, and is again when this returns.
    pub fn start(
        hosts: &Hosts,
        home: usize,
        near: usize,
        far: usize,
        address: SocketAddr,
        pieces: Pieces,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        hosts.impersonate(near, far);
        hosts.enter(near);
        let listener = TcpListener::bind(address).expect("the host has the address");
        hosts.enter(far);
        let (accepted, take) = mpsc::channel::<TcpStream>();
        let dialer = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut seed = 17;
            for near in take {
                let Ok(far) = TcpStream::connect(address) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let shared = Arc::clone(&dialer);
                    seed += 1;
                    let random = Random::new(seed);
                    std::thread::spawn(move || carry(from, to, pieces, random, &shared));
                }
            }
        });
        hosts.enter(home);
        let acceptor = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if acceptor.over.load(Ordering::Relaxed) || accepted.send(stream).is_err() {
                    return;
                }
            }
        });
        Self { shared, address, near }
    }

    /// From now on nothing is read, though every connection stays.
    pub fn stall(&self, stalled: bool) {
        self.shared.stalled.store(stalled, Ordering::Relaxed);
    }

    /// Bytes carried, and in how many pieces.
    pub fn carried(&self) -> (u64, u64) {
        (self.shared.bytes.load(Ordering::Relaxed), self.shared.pieces.load(Ordering::Relaxed))
    }

    /// Ends the threads; the caller's thread is on `home`.
    pub fn stop(self, hosts: &Hosts, home: usize) {
        self.shared.over.store(true, Ordering::Relaxed);
        hosts.enter(self.near);
        let _ = TcpStream::connect(self.address); // Wakes the one that listens.
        hosts.enter(home);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, pieces: Pieces, mut random: Random, shared: &Shared) {
    let _ = to.set_nodelay(true);
    let _ = from.set_read_timeout(Some(Duration::from_millis(100)));
    let mut buffer = vec![0; 1 << 16];
    loop {
        if shared.stalled.load(Ordering::Relaxed) && !shared.over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                if shared.over.load(Ordering::Relaxed) {
                    break;
                }
                continue;
            }
            Err(_) => break,
        };
        let crumbs = pieces == Pieces::Crumbs && random.below(4) > 0;
        let mut rest = &buffer[..length];
        // Crumbs of the first few hundred bytes: where manifests and their payloads meet.
        let mut small = if crumbs { 256.min(length) } else { 0 };
        while !rest.is_empty() {
            let piece = if small > 0 { 1 + random.below(7) as usize } else { rest.len() }.min(rest.len());
            if to.write_all(&rest[..piece]).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
            small = small.saturating_sub(piece);
            rest = &rest[piece..];
            shared.pieces.fetch_add(1, Ordering::Relaxed);
        }
        shared.bytes.fetch_add(length as u64, Ordering::Relaxed);
    }
    let _ = to.shutdown(Shutdown::Write);
}
