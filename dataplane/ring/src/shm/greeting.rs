//! How two processes of one host and user come to share memory: a Unix socket that the kernel vouches for, and two files
//! shown through it.
//!
//! The endpoint listens on an abstract name made of the data address, so there is nothing in a file system to be left
//! behind, and a name lives as long as its listener and is seen in one network namespace, as a loopback address is. Each
//! side asks the kernel for the user of the other before it says anything.
//!
//! Who accepts shows its files first, who dials answers with its own, and with what the caller has to say. So both have
//! mapped what there is to be mapped before anything is agreed: what fails until then is as if nobody had dialled.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as Name, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg, socket_with,
    sockopt,
};
use tidegate_arena::foreign::{Foreign, ForeignError};
use tidegate_arena::shared::Words;
use tidegate_arena::{Arena, ArenaError};

use super::words;
use crate::fault::errno_of;
use crate::limits::{FOREIGN_ARENA_BYTES_MAX, OVERFLOW_USER, SHOWN_FILES, WORDS_BYTES};

/// Why two processes do not share memory. What the caller does then is to use TCP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShmError {
    /// The peer is on another host. No reason to tell anybody.
    #[error("the peer is on another host")]
    Elsewhere,
    /// Nobody of this host, or of this network namespace, offers memory under that address.
    #[error(
        "peer: offers no shared memory at {address} (errno {errno}); set its transport to auto or shm, too"
    )]
    NotOffered {
        /// The data address.
        address: SocketAddr,
        /// What the kernel said.
        errno: i32,
    },
    /// The kernel says that the peer belongs to somebody else.
    #[error("peer: runs as user {found}, expected {expected}; run both as one user, or let them use TCP")]
    OtherUser {
        /// This process.
        expected: u32,
        /// The peer.
        found: u32,
    },
    /// The peer may be anybody whom this process's user namespace has no name for.
    #[error(
        "peer: runs as user {found}, as all do that this user namespace does not map; map it, or let them use TCP"
    )]
    UnknownUser {
        /// What such users look like, and this process, too.
        found: u32,
    },
    /// The peer greeted without showing its memory.
    #[error("peer: showed {found} files, expected {SHOWN_FILES}; use the same version of the product")]
    NotShown {
        /// Files it showed.
        found: usize,
    },
    /// The peer's files are not what they have to be.
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    /// The peer's words begin with something else.
    #[error(
        "peer: speaks version {found} of shared memory, expected {}; use the same version of the product",
        words::VERSION
    )]
    Version {
        /// What it speaks.
        found: u64,
    },
    /// Our own memory cannot be shown.
    #[error("this process: {0}")]
    Memory(#[from] ArenaError),
    /// Our arena is private.
    #[error("this process: its arena is private memory; set the transport to auto or shm")]
    Private,
    /// A system call failed.
    #[error("operating system: {call} failed (errno {errno})")]
    Os {
        /// The call.
        call: &'static str,
        /// What it reported.
        errno: i32,
    },
}

impl ShmError {
    fn os(call: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::Os { call, errno: errno_of(&error) }
    }
}

/// A connected stream: over the network, or through the memory of one host.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Shared memory.
    Shm(Box<ShmStream>),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<ShmStream> for Stream {
    fn from(stream: ShmStream) -> Self {
        Self::Shm(Box::new(stream))
    }
}

/// One end of a connection through shared memory: what we show, what the peer shows, and the socket that wakes it and
/// tells when it is gone.
#[derive(Debug)]
pub struct ShmStream {
    pub(super) control: UnixStream,
    pub(super) own: Words,
    pub(super) peer: Foreign,
    pub(super) peer_arena: Foreign,
}

/// What a peer shows, mapped.
#[derive(Debug)]
pub struct Peer {
    words: Foreign,
    arena: Foreign,
}

/// A Unix socket to a process of the same user, before anything was shown.
#[derive(Debug)]
pub struct Control(UnixStream);

/// Files that a peer has shown, at most as many as it may.
pub type Shown = ArrayVec<OwnedFd, SHOWN_FILES>;

/// Listens for peers that dial `address` from this host.
///
/// # Errors
/// The operating system refused, most often because a process of another user or address has the name.
pub fn listen(address: SocketAddr) -> Result<UnixListener, ShmError> {
    let name = Name::from_abstract_name(name(address)).map_err(ShmError::os("abstract name"))?;
    UnixListener::bind_addr(&name).map_err(ShmError::os("bind(AF_UNIX)"))
}

/// What a listener is called. One for all addresses of a host serves every one of them.
fn name(address: SocketAddr) -> String {
    let port = address.port();
    match address.ip() {
        ip if ip.is_unspecified() => format!("tidegate-data-any:{port}"),
        ip => format!("tidegate-data-{}:{port}", ip.to_canonical()),
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Control {
    /// Dials who listens for `address`, if that is this host.
    ///
    /// # Errors
    /// [`ShmError`], by whom.
    pub fn connect(address: SocketAddr) -> Result<Self, ShmError> {
        if !is_here(address) {
            return Err(ShmError::Elsewhere);
        }
        let anywhere = SocketAddr::from(([0, 0, 0, 0], address.port()));
        // Connecting either works at once or not at all: somebody who has the name and accepts nobody holds nobody up.
        let dial = |address| -> std::io::Result<UnixStream> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            rustix::net::connect(&socket, &SocketAddrUnix::new_abstract_name(name(address).as_bytes())?)?;
            let stream = UnixStream::from(socket);
            stream.set_nonblocking(false)?;
            Ok(stream)
        };
        let stream = dial(address)
            .or_else(|_| dial(anywhere))
            .map_err(|error| ShmError::NotOffered { address, errno: errno_of(&error) })?;
        Self::accepted(stream)
    }

    /// Looks at who it is that was accepted, or that has accepted us.
    ///
    /// # Errors
    /// [`ShmError::OtherUser`], or [`ShmError::UnknownUser`].
    pub fn accepted(stream: UnixStream) -> Result<Self, ShmError> {
        let peer =
            sockopt::socket_peercred(&stream).map_err(|errno| ShmError::os("SO_PEERCRED")(errno.into()))?;
        let (found, expected) = (peer.uid.as_raw(), rustix::process::geteuid().as_raw());
        if found != expected {
            return Err(ShmError::OtherUser { expected, found });
        }
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        if !is_certain(found, &read("/proc/sys/kernel/overflowuid"), &read("/proc/self/uid_map")) {
            return Err(ShmError::UnknownUser { found });
        }
        Ok(Self(stream))
    }

    /// Shows our memory: what who accepts does first.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn offer(&self, own: &Words, arena: &Arena) -> std::io::Result<()> {
        self.say(&words::VERSION.to_le_bytes(), Some((own, arena)))
    }

    /// Maps what is offered within `wait`: what who dials does first.
    ///
    /// # Errors
    /// The peer offers nothing, or by what its files lack.
    pub fn offered(&self, wait: Duration) -> Result<Peer, ShmError> {
        let mut version = [0; size_of::<u64>()];
        let shown = self.hear(&mut version, wait).map_err(ShmError::os("recvmsg(offer)"))?;
        match u64::from_le_bytes(version) {
            words::VERSION => Peer::map(shown),
            found => Err(ShmError::Version { found }),
        }
    }

    /// Says something, and shows our memory with it if there is any to be shown.
    ///
    /// # Errors
    /// The connection is gone, or the peer does not read.
    pub fn say(&self, bytes: &[u8], show: Option<(&Words, &Arena)>) -> std::io::Result<()> {
        say(&self.0, bytes, show)
    }

    /// Reads exactly `bytes`, within `wait`, and takes what files come with them.
    ///
    /// # Errors
    /// The peer is silent, gone, or shows too much.
    pub fn hear(&self, bytes: &mut [u8], wait: Duration) -> std::io::Result<Shown> {
        let deadline = Instant::now() + wait;
        let (mut filled, mut shown) = (0, Shown::new());
        while filled < bytes.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            self.0.set_read_timeout(Some(left))?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SHOWN_FILES))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut rest = [IoSliceMut::new(&mut bytes[filled..])];
            let heard = match recvmsg(&self.0, &mut rest, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => continue,
                heard => heard?,
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(files) = message {
                    for file in files {
                        shown.try_push(file).map_err(|_| std::io::ErrorKind::InvalidData)?;
                    }
                }
            }
            // The kernel has closed what found no place.
            if heard.flags.contains(ReturnFlags::CTRUNC) {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            if heard.bytes == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            filled += heard.bytes;
        }
        Ok(shown)
    }

    /// The stream between what we have shown, `own`, and the peer.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn join(self, own: Words, peer: Peer) -> Result<ShmStream, ShmError> {
        let control = self.0;
        control
            .set_read_timeout(None)
            .and_then(|()| control.set_nonblocking(true))
            .map_err(ShmError::os("fcntl(O_NONBLOCK)"))?;
        Ok(ShmStream { control, own, peer: peer.words, peer_arena: peer.arena })
    }
}

impl Peer {
    /// Maps what a peer has shown.
    ///
    /// # Errors
    /// By what its files lack.
    pub fn map(shown: Shown) -> Result<Self, ShmError> {
        let [words, arena] = shown.into_inner().map_err(|shown| ShmError::NotShown { found: shown.len() })?;
        let words = Foreign::map(&words, WORDS_BYTES, WORDS_BYTES)?;
        let found = words.word(words::MAGIC);
        if found != words::VERSION {
            return Err(ShmError::Version { found });
        }
        Ok(Self { words, arena: Foreign::map(&arena, 1, FOREIGN_ARENA_BYTES_MAX)? })
    }
}

impl ShmStream {
    /// Words to show to one peer.
    ///
    /// # Errors
    /// The operating system refused, or the arena is private.
    pub fn words(arena: &Arena) -> Result<Words, ShmError> {
        if arena.file().is_none() {
            return Err(ShmError::Private);
        }
        let own = Words::new()?;
        own.set(words::MAGIC, words::VERSION);
        Ok(own)
    }

    /// Answers the greeting.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn answer(&self, bytes: &[u8]) -> std::io::Result<()> {
        say(&self.control, bytes, None)
    }
}

fn say(socket: &UnixStream, bytes: &[u8], show: Option<(&Words, &Arena)>) -> std::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SHOWN_FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let mut files = ArrayVec::<BorrowedFd<'_>, SHOWN_FILES>::new();
    if let Some((words, arena)) = show {
        files.extend([words.file(), arena.file().ok_or(std::io::ErrorKind::Unsupported)?]);
        let fits = control.push(SendAncillaryMessage::ScmRights(&files));
        assert!(fits, "the buffer was made for them");
    }
    // The first message on a fresh socket fits its buffer whole.
    let said = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    if said == bytes.len() { Ok(()) } else { Err(std::io::ErrorKind::WriteZero.into()) }
}

/// Whether all who show themselves as `user` are one user. In a user namespace that does not map them all, those that it
/// does not map look alike: like the overflow user.
fn is_certain(user: u32, overflow: &str, map: &str) -> bool {
    let overflow = overflow.trim().parse().unwrap_or(OVERFLOW_USER);
    let lengths = map.lines().filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok());
    user != overflow || lengths.sum::<u64>() >= u64::from(u32::MAX)
}

/// Whether an address belongs to this host: then the way to it starts where it ends. Sends nothing.
fn is_here(address: SocketAddr) -> bool {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let local = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    address.ip().is_loopback()
        || local.is_ok_and(|local| local.ip().to_canonical() == address.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_without_a_name_are_not_taken_for_each_other() {
        let (whole, few) = ("         0          0 4294967295\n", "0 1000 1\n1 100000 65534\n");
        assert!(is_certain(1000, "65534\n", few));
        assert!(!is_certain(65_534, "65534\n", few));
        assert!(is_certain(65_534, "65534\n", whole), "nobody is a user like any other where all have names");
        assert!(!is_certain(7, "7\n", few));
        assert!(!is_certain(65_534, "", ""), "what cannot be read is not believed");
    }
}
