//! An Arrow Flight stream: the receiver asks for a ticket, the source is the server and answers with record batches.
//!
//! Pairs are two columns of u64; opaque records are one column of binary of a fixed size. The receiver reads every value of
//! every batch. HTTP/2's windows are the back pressure. Both ends have one thread.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use ::tonic::transport::{Endpoint, Server};
use ::tonic::{Request, Response, Status, Streaming};
use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{Array, FixedSizeBinaryArray, RecordBatch, UInt64Array};
use arrow_buffer::{MutableBuffer, ScalarBuffer};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest,
    HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use arrow_schema::{DataType, Field, Schema};
use clap::Args;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::End;
use crate::meter::Meter;
use crate::records::{Opaque, Pairs, Sum};
use crate::work::{Shape, Work};

/// A message is no longer than this.
const MESSAGE_BYTES_MAX: usize = 1 << 26;
/// Address that HTTP/2 is told of; the connection is there already.
const AUTHORITY: &str = "http://flight.invalid";

/// How it is set up.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Tuning {
    /// Payload bytes of a record batch
    #[arg(long, value_name = "N", default_value_t = 256 << 10, value_parser = clap::value_parser!(u64).range(1..=1 << 25))]
    batch_bytes: u64,
    /// Bytes of HTTP/2's windows, of the stream and of the connection
    #[arg(long, value_name = "N", default_value_t = 16 << 20, value_parser = clap::value_parser!(u32).range(65_535..1 << 31))]
    window: u32,
}

impl Tuning {
    /// For people.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("version", "arrow-flight 60".to_owned()),
            ("call", "DoGet, one stream".to_owned()),
            ("batch", format!("{} bytes", self.batch_bytes)),
            ("windows", format!("{} bytes", self.window)),
            ("threads", "1 a process".to_owned()),
        ]
    }
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
            false => receive(tuning, &end.work, socket, end.meter).await,
        }
    })
}

async fn send(tuning: &Tuning, work: &Work, socket: TcpStream, meter: Meter) -> Result<(), Box<dyn Error>> {
    let meter = Arc::new(Mutex::new(meter));
    let source = Source { batches: Batches::new(tuning, work), meter: meter.clone() };
    // The receiver hangs up when it has all: that ends the one connection, and with it the server.
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let service = FlightServiceServer::new(Service { source: Mutex::new(Some((source, ended))) })
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let incoming = stream::iter([Ok::<_, std::io::Error>(socket)]).chain(stream::pending());
    Server::builder()
        .initial_stream_window_size(tuning.window)
        .initial_connection_window_size(tuning.window)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, async {
            // An error is a stream that was dropped before its end: there will be no other.
            let _ = end.await;
        })
        .await?;
    let meter =
        Arc::into_inner(meter).and_then(|meter| meter.into_inner().ok()).ok_or("the stream goes on")?;
    meter.finish(Default::default())
}

async fn receive(
    tuning: &Tuning,
    work: &Work,
    socket: TcpStream,
    mut meter: Meter,
) -> Result<(), Box<dyn Error>> {
    let mut socket = Some(TokioIo::new(socket));
    let channel = Endpoint::from_static(AUTHORITY)
        .initial_stream_window_size(tuning.window)
        .initial_connection_window_size(tuning.window)
        .connect_with_connector(tower::service_fn(move |_| {
            let socket = socket.take().ok_or_else(|| std::io::Error::other("the connection broke"));
            async { socket }
        }))
        .await?;
    let mut client = FlightServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let data = client.do_get(Ticket::new("records")).await?.into_inner();
    let mut batches = FlightRecordBatchStream::new_from_flight_data(data.map_err(FlightError::from));
    let mut sum = Sum::new(work);
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        take(&batch, work.shape, &mut sum)?;
        meter.count(batch.num_rows() as u64);
    }
    meter.finish(sum.totals())
}

fn take(batch: &RecordBatch, shape: Shape, sum: &mut Sum) -> Result<(), String> {
    let column = |at: usize| batch.columns().get(at).ok_or_else(|| format!("a batch has no column {at}"));
    let numbers = |at: usize| {
        let column = column(at)?.as_primitive_opt::<UInt64Type>();
        column.ok_or_else(|| format!("column {at} is not of u64"))
    };
    match shape {
        Shape::Keyed => {
            let (keys, values) = (numbers(0)?.values(), numbers(1)?.values());
            sum.pairs(keys.iter().copied().zip(values.iter().copied()));
        }
        Shape::Bytes => {
            let column =
                column(0)?.as_fixed_size_binary_opt().ok_or("column 0 is not of fixed-size binary")?;
            let len = column.value_length() as usize;
            sum.opaque(column.value_data()[..column.len() * len].chunks_exact(len.max(1)));
        }
    }
    Ok(())
}

/// Makes the record batches.
struct Batches {
    schema: Arc<Schema>,
    shape: Shape,
    pairs: Pairs,
    opaque: Opaque,
    record_bytes: usize,
    rows: u64,
}

impl Batches {
    fn new(tuning: &Tuning, work: &Work) -> Self {
        let fields = match work.shape {
            Shape::Keyed => ["key", "value"].map(|name| Field::new(name, DataType::UInt64, false)).to_vec(),
            Shape::Bytes => {
                vec![Field::new("record", DataType::FixedSizeBinary(work.record_bytes as i32), false)]
            }
        };
        Self {
            schema: Arc::new(Schema::new(fields)),
            shape: work.shape,
            pairs: Pairs::new(work.keys),
            opaque: Opaque::new(work.record_bytes as usize),
            record_bytes: work.record_bytes as usize,
            rows: (tuning.batch_bytes / work.payload_bytes()).max(1),
        }
    }

    /// The next batch, if any records are left.
    fn next(&mut self, meter: &mut Meter) -> Option<Result<RecordBatch, FlightError>> {
        let rows = meter.left().min(self.rows);
        meter.count(rows);
        (rows > 0).then(|| Ok(self.batch(rows as usize)?))
    }

    fn batch(&mut self, rows: usize) -> Result<RecordBatch, arrow_schema::ArrowError> {
        match self.shape {
            Shape::Keyed => {
                let (keys, values): (Vec<u64>, Vec<u64>) = (0..rows).map(|_| self.pairs.step()).unzip();
                let column =
                    |numbers: Vec<u64>| Arc::new(UInt64Array::new(ScalarBuffer::from(numbers), None));
                RecordBatch::try_new(self.schema.clone(), vec![column(keys), column(values)])
            }
            Shape::Bytes => {
                let mut bytes = MutableBuffer::with_capacity(rows * self.record_bytes);
                (0..rows).for_each(|_| bytes.extend_from_slice(self.opaque.step()));
                let column = FixedSizeBinaryArray::try_new(self.record_bytes as i32, bytes.into(), None)?;
                RecordBatch::try_new(self.schema.clone(), vec![Arc::new(column)])
            }
        }
    }
}

/// The stream that the one call is answered with.
struct Source {
    batches: Batches,
    meter: Arc<Mutex<Meter>>,
}

struct Service {
    source: Mutex<Option<(Source, tokio::sync::oneshot::Sender<()>)>>,
}

type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_here<T>() -> Result<T, Status> {
    Err(Status::unimplemented("only DoGet is served"))
}

#[::tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Answer<HandshakeResponse>;
    type ListFlightsStream = Answer<FlightInfo>;
    type DoGetStream = Answer<FlightData>;
    type DoPutStream = Answer<PutResult>;
    type DoExchangeStream = Answer<FlightData>;
    type DoActionStream = Answer<arrow_flight::Result>;
    type ListActionsStream = Answer<ActionType>;

    async fn do_get(&self, _: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let taken = self.source.lock().ok().and_then(|mut source| source.take());
        let (mut source, ended) = taken.ok_or_else(|| Status::already_exists("one call is all"))?;
        let schema = source.batches.schema.clone();
        let batches = stream::iter(std::iter::from_fn(move || {
            // Lives as long as the stream; its end is the end of the server.
            let _ = &ended;
            source.batches.next(&mut *source.meter.lock().ok()?)
        }));
        let data = FlightDataEncoderBuilder::new()
            .with_schema(schema)
            .with_max_flight_data_size(MESSAGE_BYTES_MAX / 2)
            .build(batches);
        Ok(Response::new(Box::pin(data.map_err(Status::from))))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        not_here()
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        not_here()
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        not_here()
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        not_here()
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        not_here()
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        not_here()
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        not_here()
    }

    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        not_here()
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        not_here()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::SUM_FILE;
    use crate::work::tests::work;

    #[test]
    fn what_a_batch_holds_is_what_was_put_in() {
        for shape in [Shape::Keyed, Shape::Bytes] {
            let work = work(shape, 3_000);
            let tuning = Tuning { batch_bytes: 5_000, window: 1 << 20 };
            let dir = tempfile::tempdir().unwrap();
            let mut meter = Meter::new(&work, dir.path(), SUM_FILE, None);
            let (mut batches, mut sum) = (Batches::new(&tuning, &work), Sum::new(&work));
            while let Some(batch) = batches.next(&mut meter) {
                take(&batch.unwrap(), shape, &mut sum).unwrap();
            }
            assert_eq!(sum.totals(), work.expected());
        }
    }
}
