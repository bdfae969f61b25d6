//! The two ends of the floor, each the whole of a process: roles of this binary that only its parent starts.
//!
//! The receiving end listens and prints where; the source dials. Each owns its meter and leaves its result in a file.

use std::error::Error;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

use clap::Args;

use super::frames::{Fill, KeyedSum, Layout, Opaque, Pairs, Take, WordSum};
use super::{Checksum, Io, ring, stream};
use crate::meter::{self, Meter, SOURCE_FILE, SUM_FILE, TOTALS_FILE};
use crate::work::{Shape, Work};

/// Flags of both ends.
#[derive(Debug, Args)]
pub struct EndArgs {
    #[command(flatten)]
    work: Work,
    #[arg(long)]
    warm_up: u64,
    #[arg(long, value_enum)]
    checksum: Checksum,
    #[arg(long, value_enum)]
    io: Io,
    #[arg(long)]
    dir: PathBuf,
    /// Where the receiving end listens; without it this is that end
    #[arg(long)]
    to: Option<SocketAddr>,
}

/// Is that end.
///
/// # Errors
/// It could not finish.
pub fn run(args: &EndArgs) -> Result<(), Box<dyn Error>> {
    let layout = Layout::new(args.work.wire_bytes() as usize, args.checksum == Checksum::Crc);
    let meter = |file| Meter::new(args.dir.join(file), args.warm_up, args.work.measured());
    let Some(address) = args.to else {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        ready(&format!("data={}", listener.local_addr()?))?;
        let (socket, _) = listener.accept()?;
        let meter = meter(SUM_FILE);
        return match args.work.shape {
            Shape::Keyed => receive(args, socket, layout, KeyedSum::new(args.work.keys), meter),
            Shape::Bytes => receive(args, socket, layout, WordSum::default(), meter),
            Shape::Bid => Err(super::NO_BIDS.into()),
        };
    };
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    ready("")?;
    let meter = meter(SOURCE_FILE);
    match args.work.shape {
        Shape::Keyed => send(args, socket, layout, Pairs::new(args.work.keys), meter),
        Shape::Bytes => send(args, socket, layout, Opaque::new(args.work.record_bytes as usize), meter),
        Shape::Bid => Err(super::NO_BIDS.into()),
    }
}

fn ready(what: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "ready {what}")?;
    out.flush()
}

fn send(
    args: &EndArgs,
    socket: TcpStream,
    layout: Layout,
    mut fill: impl Fill,
    mut meter: Meter,
) -> Result<(), Box<dyn Error>> {
    match args.io {
        Io::Blocking => stream::send(socket, layout, &mut fill, &mut meter)?,
        Io::Ring => ring::send(socket, layout, ring::TRAIN, &mut fill, &mut meter)?,
    }
    Ok(())
}

fn receive(
    args: &EndArgs,
    socket: TcpStream,
    layout: Layout,
    mut take: impl Take,
    mut meter: Meter,
) -> Result<(), Box<dyn Error>> {
    match args.io {
        Io::Blocking => stream::receive(socket, layout, &mut take, &mut meter)?,
        Io::Ring => ring::receive(socket, layout, ring::TRAIN, &mut take, &mut meter)?,
    }
    meter::write(&args.dir.join(TOTALS_FILE), &take.totals());
    Ok(())
}
