//! The floor over blocking sockets: several frames a call, one buffer, nothing else.
//!
//! The caller owns the numbers. Always: a call moves whole frames, and at most [`GROUP`] of them.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::frames::{Fill, Layout, Take};
use crate::meter::Meter;

/// Frames of one call: 256 KiB, which stay in the second cache between the kernel's copy and our pass. What fewer and more
/// of them cost is in the table of the module above.
const GROUP: usize = 8;

/// Sends all records that the meter still expects.
///
/// # Errors
/// The connection broke.
pub fn send(
    mut socket: TcpStream,
    layout: Layout,
    fill: &mut impl Fill,
    meter: &mut Meter,
) -> Result<(), String> {
    let mut buffer = vec![0; GROUP * layout.frame()];
    while meter.left() > 0 {
        let records = meter.left().min((GROUP * layout.per_frame) as u64);
        let filled = &mut buffer[..layout.bytes(records) as usize];
        filled.chunks_mut(layout.frame()).for_each(|frame| layout.seal(frame, fill));
        socket.write_all(filled).map_err(|error| format!("sending failed: {error}"))?;
        meter.count(records);
    }
    Ok(())
}

/// Receives as many, working on each frame as soon as it is whole.
///
/// # Errors
/// The connection broke or ended early, or a checksum is wrong.
pub fn receive(
    mut socket: TcpStream,
    layout: Layout,
    take: &mut impl Take,
    meter: &mut Meter,
) -> Result<(), String> {
    let mut buffer = vec![0; GROUP * layout.frame()];
    while meter.left() > 0 {
        let records = meter.left().min((GROUP * layout.per_frame) as u64);
        let group = &mut buffer[..layout.bytes(records) as usize];
        let (mut received, mut opened) = (0, 0);
        while opened < group.len() {
            match socket.read(&mut group[received..]) {
                Ok(0) => return Err(format!("the source ended with {} records to come", meter.left())),
                Ok(bytes) => received += bytes,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("receiving failed: {error}")),
            }
            let whole = if received == group.len() { received } else { received - received % layout.frame() };
            for frame in group[opened..whole].chunks(layout.frame()) {
                layout.open(frame, take)?;
                meter.count(layout.records(frame.len()));
            }
            opened = whole;
        }
    }
    Ok(())
}
