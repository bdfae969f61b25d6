//! A gRPC stream: the source calls a method that takes a stream of messages, the receiver is the server.
//!
//! A message is one field of bytes. It holds one record, or a batch of them: pairs one after the other, opaque records each
//! with its length in front. HTTP/2's windows are the back pressure. Both ends have one thread.

use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use ::tonic::body::Body;
use ::tonic::codegen::http::uri::PathAndQuery;
use ::tonic::codegen::{BoxFuture, Service, http};
use ::tonic::transport::{Endpoint, Server};
use ::tonic::{Request, Response, Status, Streaming};
use bytes::{BufMut, Bytes, BytesMut};
use clap::Args;
use futures::{StreamExt, stream};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tonic_prost::ProstCodec;

use super::End;
use crate::forms::PAIR_BYTES;
use crate::meter::Meter;
use crate::records::{Opaque, Pairs, Sum};
use crate::work::{Shape, Work};

/// Path of the one method.
const PATH: &str = "/tidegate.peers.Shuffle/Send";
/// A message is no longer than this.
const MESSAGE_BYTES_MAX: usize = 1 << 24;
/// Address that HTTP/2 is told of; the connection is there already.
const AUTHORITY: &str = "http://shuffle.invalid";

/// How it is set up.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Tuning {
    /// Bytes of a message that holds many records; 0 for a message each
    #[arg(long, value_name = "N", default_value_t = 32 << 10, value_parser = clap::value_parser!(u64).range(0..=1 << 23))]
    pub batch_bytes: u64,
    /// Bytes of HTTP/2's windows, of the stream and of the connection
    #[arg(long, value_name = "N", default_value_t = 16 << 20, value_parser = clap::value_parser!(u32).range(65_535..1 << 31))]
    pub window: u32,
    /// Bytes of HTTP/2's largest frame
    #[arg(long, value_name = "N", default_value_t = 64 << 10, value_parser = clap::value_parser!(u32).range(16_384..1 << 24))]
    pub frame: u32,
}

impl Tuning {
    /// What it is called in tables.
    pub fn name(&self) -> String {
        match self.batch_bytes {
            0 => "tonic, a message each".to_owned(),
            bytes => format!("tonic, {} KiB messages", bytes.div_ceil(1024)),
        }
    }

    /// For people.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("version", "tonic 0.14".to_owned()),
            ("batch bytes", self.batch_bytes.to_string()),
            ("windows", format!("{} bytes", self.window)),
            ("frame", format!("{} bytes", self.frame)),
            ("threads", "1 a process".to_owned()),
        ]
    }
}

/// What travels.
#[derive(Clone, PartialEq, prost::Message)]
struct Batch {
    #[prost(bytes = "bytes", tag = "1")]
    records: Bytes,
}

/// What the receiver answers in the end.
#[derive(Clone, PartialEq, prost::Message)]
struct Done {
    #[prost(uint64, tag = "1")]
    records: u64,
}

/// Is one end.
///
/// # Errors
/// The other end is gone, or records are missing.
pub fn end(tuning: &Tuning, end: End) -> Result<(), Box<dyn Error>> {
    end.socket.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = TcpStream::from_std(end.socket)?;
        match end.is_source {
            true => send(tuning, &end.work, socket, end.meter).await,
            false => receive(tuning, end.work, socket, end.meter).await,
        }
    })
}

async fn send(tuning: &Tuning, work: &Work, socket: TcpStream, meter: Meter) -> Result<(), Box<dyn Error>> {
    let mut socket = Some(TokioIo::new(socket));
    let channel = Endpoint::from_static(AUTHORITY)
        .initial_stream_window_size(tuning.window)
        .initial_connection_window_size(tuning.window)
        .connect_with_connector(tower::service_fn(move |_| {
            let socket = socket.take().ok_or_else(|| std::io::Error::other("the connection broke"));
            async { socket }
        }))
        .await?;
    let mut grpc = ::tonic::client::Grpc::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX);
    grpc.ready().await?;
    // The stream is consumed elsewhere; the meter comes back through this.
    let meter = Arc::new(Mutex::new(meter));
    let mut batches = Batches::new(tuning, work);
    let counted = meter.clone();
    let outbound = stream::iter(std::iter::from_fn(move || batches.next(&mut *counted.lock().ok()?)));
    let codec = ProstCodec::<Batch, Done>::default();
    let done: Response<Done> =
        grpc.client_streaming(Request::new(outbound), PathAndQuery::from_static(PATH), codec).await?;
    drop(grpc);
    if done.get_ref().records != work.all() {
        return Err(format!("{} records came, expected {}", done.get_ref().records, work.all()).into());
    }
    let meter =
        Arc::into_inner(meter).and_then(|meter| meter.into_inner().ok()).ok_or("the stream goes on")?;
    meter.finish(Default::default())
}

/// Makes the messages.
struct Batches {
    shape: Shape,
    pairs: Pairs,
    opaque: Opaque,
    /// Bytes of a record with what is around it, and of a message.
    record: usize,
    message: usize,
}

impl Batches {
    fn new(tuning: &Tuning, work: &Work) -> Self {
        let record = match work.shape {
            Shape::Keyed => PAIR_BYTES,
            Shape::Bytes => 4 + work.record_bytes as usize,
        };
        Self {
            shape: work.shape,
            pairs: Pairs::new(work.keys),
            opaque: Opaque::new(work.record_bytes as usize),
            record,
            message: (tuning.batch_bytes as usize).max(record) / record * record,
        }
    }

    /// The next message, if any records are left.
    fn next(&mut self, meter: &mut Meter) -> Option<Batch> {
        let records = meter.left().min((self.message / self.record) as u64);
        meter.count(records);
        let mut out = BytesMut::with_capacity(records as usize * self.record);
        for _ in 0..records {
            match self.shape {
                Shape::Keyed => {
                    let (key, value) = self.pairs.step();
                    let mut pair = [0; PAIR_BYTES];
                    pair[..8].copy_from_slice(&key.to_le_bytes());
                    pair[8..].copy_from_slice(&value.to_le_bytes());
                    out.put_slice(&pair);
                }
                Shape::Bytes => {
                    let record = self.opaque.step();
                    out.put_u32_le(record.len() as u32);
                    out.put_slice(record);
                }
            }
        }
        (records > 0).then(|| Batch { records: out.freeze() })
    }
}

async fn receive(tuning: &Tuning, work: Work, socket: TcpStream, meter: Meter) -> Result<(), Box<dyn Error>> {
    let (stop, stopped) = oneshot::channel::<()>();
    let state = Arc::new(Mutex::new(Some((meter, stop))));
    // The one connection, and nobody after it; the server goes on until it is told to stop.
    let incoming = stream::iter([Ok::<_, std::io::Error>(socket)]).chain(stream::pending());
    Server::builder()
        .initial_stream_window_size(tuning.window)
        .initial_connection_window_size(tuning.window)
        .max_frame_size(tuning.frame)
        .serve_with_incoming_shutdown(Shuffle { work, state: state.clone() }, incoming, async {
            // An error is a call that failed: there will be no other.
            let _ = stopped.await;
        })
        .await?;
    Ok(())
}

/// What the one call takes: its meter, and the end of the server.
type Call = (Meter, oneshot::Sender<()>);

/// The service: one method, once.
#[derive(Clone)]
struct Shuffle {
    work: Work,
    state: Arc<Mutex<Option<Call>>>,
}

impl Service<http::Request<Body>> for Shuffle {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<Done, Batch>::default();
            let mut grpc = ::tonic::server::Grpc::new(codec).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(grpc.client_streaming(service, request).await)
        })
    }
}

impl ::tonic::server::ClientStreamingService<Batch> for Shuffle {
    type Response = Done;
    type Future = BoxFuture<Response<Done>, Status>;

    fn call(&mut self, request: Request<Streaming<Batch>>) -> Self::Future {
        let Self { work, state } = self.clone();
        Box::pin(async move {
            let taken = state.lock().ok().and_then(|mut state| state.take());
            let (mut meter, stop) = taken.ok_or_else(|| Status::already_exists("one call is all"))?;
            let mut batches = request.into_inner();
            let mut sum = Sum::new(&work);
            while let Some(batch) = batches.message().await? {
                let records = take(&batch.records, work.shape, &mut sum)
                    .ok_or_else(|| Status::invalid_argument("a message ends within a record"))?;
                meter.count(records);
            }
            meter.finish(sum.totals()).map_err(|error| Status::data_loss(error.to_string()))?;
            // Nobody waits for it when the server has ended already.
            let _ = stop.send(());
            Ok(Response::new(Done { records: work.all() }))
        })
    }
}

/// Takes the records of a message; `None` if they do not fit it.
fn take(message: &[u8], shape: Shape, sum: &mut Sum) -> Option<u64> {
    if shape == Shape::Keyed {
        let (pairs, rest) = message.as_chunks::<PAIR_BYTES>();
        sum.pairs(pairs.iter().map(|pair| {
            let words = pair.as_chunks::<8>().0;
            (u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]))
        }));
        return rest.is_empty().then_some(pairs.len() as u64);
    }
    let (mut rest, mut records) = (message, 0);
    while let Some((prefix, behind)) = rest.split_first_chunk::<4>() {
        let (record, behind) = behind.split_at_checked(u32::from_le_bytes(*prefix) as usize)?;
        sum.opaque(std::iter::once(record));
        records += 1;
        rest = behind;
    }
    rest.is_empty().then_some(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::{self, SUM_FILE, Side};
    use crate::work::tests::work;

    #[test]
    fn what_a_message_holds_is_what_was_put_in() {
        for (shape, batch_bytes) in
            [(Shape::Keyed, 0), (Shape::Keyed, 1_000), (Shape::Bytes, 0), (Shape::Bytes, 5_000)]
        {
            let work = work(shape, 3_000);
            let tuning = Tuning { batch_bytes, window: 1 << 20, frame: 1 << 14 };
            let dir = tempfile::tempdir().unwrap();
            let mut meter = Meter::new(&work, dir.path(), SUM_FILE, None);
            let (mut batches, mut sum, mut taken) = (Batches::new(&tuning, &work), Sum::new(&work), 0);
            while let Some(batch) = batches.next(&mut meter) {
                assert!(batch.records.len() <= (batch_bytes as usize).max(104));
                taken += take(&batch.records, shape, &mut sum).unwrap();
            }
            assert_eq!((taken, sum.totals()), (work.all(), work.expected()));
            meter.finish(sum.totals()).unwrap();
            assert_eq!(meter::read::<Side>(&dir.path().join(SUM_FILE)).unwrap().totals, work.expected());
        }
    }

    #[test]
    fn a_message_that_ends_within_a_record_is_refused() {
        let mut sum = Sum::new(&work(Shape::Bytes, 1));
        assert_eq!(take(&[9, 0, 0, 0, 1, 2], Shape::Bytes, &mut sum), None);
        assert_eq!(take(&[0; 3], Shape::Bytes, &mut sum), None);
        assert_eq!(take(&[0; 17], Shape::Keyed, &mut Sum::new(&work(Shape::Keyed, 1))), None);
    }
}
