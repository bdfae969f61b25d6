//! Finding and cutting the connections between two processes: over TCP, and the sockets beside shared memory.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, Shutdown, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// One end of an established connection: a descriptor of a process, and the addresses as the kernel prints them; those that
/// share memory have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub descriptor: i32,
    pub local: String,
    pub remote: String,
}

impl End {
    /// Both addresses as `ADDRESS:PORT`, for tools.
    pub fn addresses(&self) -> (String, String) {
        (readable(&self.local), readable(&self.remote))
    }
}

/// `0100007F:1F90` of `/proc/net/tcp` as `127.0.0.1:8080`.
fn readable(address: &str) -> String {
    let (host, port) = address.split_once(':').unwrap_or((address, "0"));
    let host =
        u32::from_str_radix(host, 16).map_or(Ipv4Addr::UNSPECIFIED, |host| Ipv4Addr::from(host.to_be()));
    format!("{host}:{}", u16::from_str_radix(port, 16).unwrap_or(0))
}

/// The ends in `from` of all connections between the two processes.
pub fn between(from: u32, to: u32) -> Vec<End> {
    let theirs = established(to);
    let meets = |end: &End| theirs.iter().any(|other| other.local == end.remote && other.remote == end.local);
    established(from).into_iter().filter(meets).chain(neighbours(from, to)).collect()
}

/// The Unix sockets of `from` whose other end `to` made or accepted.
fn neighbours(from: u32, to: u32) -> impl Iterator<Item = End> {
    let is_one = move |descriptor: &i32| {
        let Ok(socket) = take(from, *descriptor) else { return false };
        let unix = sockopt::socket_domain(&socket) == Ok(AddressFamily::UNIX);
        unix && sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.pid.as_raw_pid() as u32 == to)
    };
    let end = |descriptor| End { descriptor, local: String::new(), remote: String::new() };
    sockets(from).map(|(descriptor, _)| descriptor).filter(is_one).map(end)
}

/// Shuts one end down in both directions, as a broken network would, from outside of its process. Needs no root
/// for a child of ours; an error where the kernel or a sandbox refuses.
pub fn cut(process: u32, end: &End) -> Result<(), String> {
    let socket = take(process, end.descriptor)?;
    rustix::net::shutdown(socket, Shutdown::Both).map_err(|error| format!("shutdown: {error}"))
}

/// A descriptor of another process, as one of ours.
fn take(process: u32, descriptor: i32) -> Result<OwnedFd, String> {
    let id = Pid::from_raw(process as i32).ok_or("no such process")?;
    let handle = pidfd_open(id, PidfdFlags::empty()).map_err(|error| format!("pidfd_open: {error}"))?;
    pidfd_getfd(handle.as_fd(), descriptor, PidfdGetfdFlags::empty())
        .map_err(|error| format!("pidfd_getfd: {error}"))
}

/// The sockets of a process: descriptors and inodes.
fn sockets(process: u32) -> impl Iterator<Item = (i32, String)> {
    let entries = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let link = std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
        let inode = link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
        Some((entry.file_name().to_str()?.parse().ok()?, inode))
    })
}

fn established(process: u32) -> Vec<End> {
    let mut addresses = HashMap::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields.len() > 9 && fields[3] == "01" {
                addresses.insert(fields[9].to_owned(), (fields[1].to_owned(), fields[2].to_owned()));
            }
        }
    }
    let end = |(descriptor, inode): (i32, String)| {
        let (local, remote) = addresses.remove(&inode)?;
        Some(End { descriptor, local, remote })
    };
    sockets(process).filter_map(end).collect()
}
