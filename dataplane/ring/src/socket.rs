//! Options of TCP sockets, set before a connection is attached. No state; the caller owns the sockets.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::{fault::errno_of, limits};

/// Options of a data connection. `None` leaves the kernel's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Send small trains at once instead of waiting for an acknowledgement to fill a packet.
    pub nodelay: bool,
    /// How long sent bytes may stay unacknowledged before the connection is given up. Must exceed the time after which
    /// a slot counts as stuck, because it also ends a connection whose live peer does not read.
    pub user_timeout: Option<Duration>,
    /// How long a connection may be silent before the kernel asks whether the peer is there. A side that only receives
    /// has nothing unacknowledged, and without this never learns that its peer is gone; how long the answer may take,
    /// `user_timeout` says.
    pub keepalive: Option<Duration>,
    /// Send buffer in bytes. Setting it switches the kernel's own tuning off.
    pub sndbuf: Option<u32>,
    /// Receive buffer in bytes. Setting it switches the kernel's own tuning off.
    pub rcvbuf: Option<u32>,
    /// Congestion control by name, `cubic` for instance.
    pub congestion: Option<String>,
}

impl Default for SocketOptions {
    /// No delay, and the kernel's defaults.
    fn default() -> Self {
        Self {
            nodelay: true,
            user_timeout: None,
            keepalive: None,
            sndbuf: None,
            rcvbuf: None,
            congestion: None,
        }
    }
}

/// An option or call the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("socket: {option} = {value} refused (errno {errno}); change the setting or the host's limits")]
pub struct SocketError {
    /// The option or call.
    pub option: &'static str,
    /// What it was to be.
    pub value: String,
    /// What the kernel said.
    pub errno: i32,
}

impl SocketError {
    fn because<T: ToString>(option: &'static str, value: T) -> impl FnOnce(io::Error) -> Self {
        move |error| Self { option, value: value.to_string(), errno: errno_of(&error) }
    }
}

/// Sets `options` on a connected stream.
///
/// ```
/// use std::net::TcpStream;
/// use tidegate_ring::socket::{SocketOptions, configure, congestion, listen};
/// let listener = listen("127.0.0.1:0".parse()?)?;
/// let stream = TcpStream::connect(listener.local_addr()?)?;
/// configure(&stream, &SocketOptions { sndbuf: Some(1 << 20), ..SocketOptions::default() })?;
/// assert!(stream.nodelay()?);
/// println!("congestion control: {}", congestion(&stream)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The first option the kernel refused. Those before it stay set.
pub fn configure(stream: &TcpStream, options: &SocketOptions) -> Result<(), SocketError> {
    let socket = SockRef::from(stream);
    let because = SocketError::because::<String>;
    socket.set_tcp_nodelay(options.nodelay).map_err(because("TCP_NODELAY", options.nodelay.to_string()))?;
    if let Some(timeout) = options.user_timeout {
        let value = format!("{} ms", timeout.as_millis());
        socket.set_tcp_user_timeout(Some(timeout)).map_err(because("TCP_USER_TIMEOUT", value))?;
    }
    if let Some(silence) = options.keepalive {
        let value = format!("{} ms", silence.as_millis());
        let keepalive = TcpKeepalive::new().with_time(silence).with_interval(silence);
        socket.set_tcp_keepalive(&keepalive).map_err(because("TCP_KEEPIDLE", value))?;
    }
    if let Some(bytes) = options.sndbuf {
        socket.set_send_buffer_size(bytes as usize).map_err(because("SO_SNDBUF", bytes.to_string()))?;
    }
    if let Some(bytes) = options.rcvbuf {
        socket.set_recv_buffer_size(bytes as usize).map_err(because("SO_RCVBUF", bytes.to_string()))?;
    }
    if let Some(name) = &options.congestion {
        socket.set_tcp_congestion(name.as_bytes()).map_err(because("TCP_CONGESTION", name.clone()))?;
    }
    Ok(())
}

/// The congestion control of a stream, to be printed with every measurement.
///
/// # Errors
/// The kernel's refusal.
pub fn congestion(stream: &TcpStream) -> Result<String, SocketError> {
    let name =
        SockRef::from(stream).tcp_congestion().map_err(SocketError::because("TCP_CONGESTION", "(read)"))?;
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// A listening socket on `address` (port 0: any free one) whose address may be reused at once after a restart.
///
/// # Errors
/// The call the kernel refused, most often because the port is taken.
pub fn listen(address: SocketAddr) -> Result<TcpListener, SocketError> {
    let made = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP));
    let socket = made.map_err(SocketError::because("socket", address))?;
    socket.set_reuse_address(true).map_err(SocketError::because("SO_REUSEADDR", true))?;
    socket.bind(&address.into()).map_err(SocketError::because("bind", address))?;
    socket.listen(limits::LISTEN_BACKLOG).map_err(SocketError::because("listen", limits::LISTEN_BACKLOG))?;
    Ok(socket.into())
}

/// Makes closing abort: what was not acknowledged is thrown away, so that its buffers come back at once.
pub(crate) fn abort_on_close(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (dialled, listener.accept().unwrap().0)
    }

    #[test]
    fn options_arrive() {
        let (stream, _peer) = pair();
        let cubic = Some("reno".to_owned());
        let timeout = Some(Duration::from_secs(7));
        let keepalive = Some(Duration::from_secs(3));
        let options =
            SocketOptions { congestion: cubic, user_timeout: timeout, keepalive, ..SocketOptions::default() };
        configure(&stream, &options).unwrap();
        assert!(stream.nodelay().unwrap());
        assert_eq!(congestion(&stream).unwrap(), "reno");
        assert_eq!(SockRef::from(&stream).tcp_user_timeout().unwrap(), timeout);
        assert!(SockRef::from(&stream).keepalive().unwrap());
        assert_eq!(SockRef::from(&stream).tcp_keepalive_time().unwrap(), Duration::from_secs(3));
    }

    #[test]
    fn a_refused_option_is_named() {
        let (stream, _peer) = pair();
        let options =
            SocketOptions { congestion: Some("no-such-thing".to_owned()), ..SocketOptions::default() };
        let error = configure(&stream, &options).unwrap_err();
        assert_eq!((error.option, error.value.as_str()), ("TCP_CONGESTION", "no-such-thing"));
        assert_ne!(error.errno, 0);
    }
}
