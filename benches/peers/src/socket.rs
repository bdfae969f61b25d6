//! The one TCP connection between the two ends of a peer of this binary. No state.
//!
//! Always: the receiver listens and the source dials, whoever is the server above; both sockets send at once.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use socket2::SockRef;

/// The congestion control that leaves a socket as it is.
pub const SYSTEM: &str = "system";

/// The receiver's end: prints where it listens, and waits for the source.
///
/// # Errors
/// The kernel's, with what was asked of it.
pub fn accept(congestion: &str) -> Result<TcpStream, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| format!("can't listen: {error}"))?;
    let address = listener.local_addr().map_err(|error| format!("can't listen: {error}"))?;
    ready(&format!("data={address}")).map_err(|error| format!("can't print: {error}"))?;
    let (socket, _) = listener.accept().map_err(|error| format!("can't accept: {error}"))?;
    set(&socket, congestion)?;
    Ok(socket)
}

/// The source's end.
///
/// # Errors
/// The kernel's, with what was asked of it.
pub fn dial(address: SocketAddr, congestion: &str) -> Result<TcpStream, String> {
    let socket = TcpStream::connect(address).map_err(|error| format!("can't reach {address}: {error}"))?;
    set(&socket, congestion)?;
    ready("").map_err(|error| format!("can't print: {error}"))?;
    Ok(socket)
}

fn ready(what: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "ready {what}")?;
    out.flush()
}

fn set(socket: &TcpStream, congestion: &str) -> Result<(), String> {
    socket.set_nodelay(true).map_err(|error| format!("can't set TCP_NODELAY: {error}"))?;
    if congestion == SYSTEM {
        return Ok(());
    }
    SockRef::from(socket).set_tcp_congestion(congestion.as_bytes()).map_err(|error| {
        format!(
            "can't set congestion control {congestion}: {error}; what there is stands in \
             /proc/sys/net/ipv4/tcp_available_congestion_control, and --congestion {SYSTEM} leaves it alone"
        )
    })
}

/// The congestion control of a socket.
pub fn congestion(socket: &TcpStream) -> Option<String> {
    let name = SockRef::from(socket).tcp_congestion().ok()?;
    Some(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned())
}

/// That of sockets nobody has set.
pub fn system_congestion() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}
