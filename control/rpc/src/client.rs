//! The TaskManager's end: dial, open the stream, send and receive envelopes.
//!
//! The connection owns its two halves; dropping it ends the stream. Always: messages leave in the order of
//! `send`, and at most `limits::QUEUE_MESSAGES_MAX` wait; a try to connect ends within three times its deadline: to
//! dial and open the stream, and to find out who is there if that is no JobManager.

use crate::codec::EnvelopeCodec;
use crate::envelope::Envelope;
use crate::limits::{
    CONNECT_TIMEOUT_MS, KEEPALIVE_INTERVAL_MS, KEEPALIVE_TIMEOUT_MS, MESSAGE_BYTES_MAX, QUEUE_MESSAGES_MAX,
};
use crate::messages::{ToJobManager, ToTaskManager};
use crate::server::{CONNECT_PATH, LEAVING};
use std::error::Error as _;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status, Streaming};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers, or not in time.
    #[error(
        "JobManager at {address}: cannot connect ({reason}); is it running, is the address its --rpc one?"
    )]
    Unreachable {
        /// Address dialled.
        address: SocketAddr,
        /// What the transport says.
        reason: String,
    },
    /// Somebody is there, but it is not a JobManager of this version.
    #[error("what listens at {address} does not speak the JobManager's protocol: {found}")]
    NotAJobManager {
        /// Address dialled.
        address: SocketAddr,
        /// Who is there.
        found: Stranger,
    },
}

/// Who listens where a JobManager was looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// A server of HTTP/1, whatever else it speaks.
    #[error(
        "it is an HTTP/1 server, as a JobManager is at its --rest address; give the --rpc address \
         (--jobmanager HOST:PORT)"
    )]
    Http1,
    /// It takes connections and never answers.
    #[error("it takes connections and says nothing; is the address the JobManager's --rpc one?")]
    Silent,
    /// Anything else.
    #[error("{0}; is the address the JobManager's --rpc one?")]
    Other(String),
}

/// An open stream to a JobManager.
#[derive(Debug)]
pub struct Connection {
    to: mpsc::Sender<Envelope<ToJobManager>>,
    from: Streaming<Envelope<ToTaskManager>>,
}

/// The sending half of a [`Connection`]; clones share the stream.
pub type Outbound = mpsc::Sender<Envelope<ToJobManager>>;

/// The receiving half of a [`Connection`]: `message().await` gives the next one, `None` at the end.
pub type Inbound = Streaming<Envelope<ToTaskManager>>;

impl Connection {
    /// Takes the connection apart so that two tasks can hold the halves. The stream ends when every clone of
    /// the sending half is dropped.
    pub fn split(self) -> (Outbound, Inbound) {
        (self.to, self.from)
    }
}

/// Dials a JobManager and opens the stream. The caller then sends `Register` with epoch 0 and waits for
/// `Registered` or `Refused`.
///
/// # Errors
/// [`ConnectError`], by who is at fault.
pub async fn connect(address: SocketAddr) -> Result<Connection, ConnectError> {
    connect_within(address, Duration::from_millis(CONNECT_TIMEOUT_MS)).await
}

/// As [`connect`], with so long for each step.
///
/// # Errors
/// As [`connect`].
pub async fn connect_within(address: SocketAddr, step: Duration) -> Result<Connection, ConnectError> {
    let unreachable = |reason: String| ConnectError::Unreachable { address, reason };
    let (to, outbound) = mpsc::channel(QUEUE_MESSAGES_MAX);
    // Both together have a deadline beside that of the dialling: what closes on HTTP/2 can keep either waiting.
    let refusal = match timeout(2 * step, open(address, step, outbound)).await {
        Ok(Ok(Ok(from))) => return Ok(Connection { to, from }),
        Ok(Err(reason)) => return Err(unreachable(reason)),
        Ok(Ok(Err(status))) if status.message() == LEAVING => return Err(unreachable(LEAVING.to_owned())),
        Ok(Ok(Err(status))) => Some(said(&status)).filter(|said| !said.contains("keep-alive timed out")),
        Err(_) => None,
    };
    let found = match (timeout(step, speaks_http1(address)).await, refusal) {
        (Ok(Ok(true)), _) => Stranger::Http1,
        (_, Some(refusal)) => Stranger::Other(refusal),
        (_, None) => Stranger::Silent,
    };
    Err(ConnectError::NotAJobManager { address, found })
}

/// Dials and opens the stream. Fails with words if nobody is there, with a status if somebody is who does not open it.
async fn open(
    address: SocketAddr,
    step: Duration,
    outbound: mpsc::Receiver<Envelope<ToJobManager>>,
) -> Result<Result<Inbound, Status>, String> {
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|e| e.to_string())?
        .connect_timeout(step)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_millis(KEEPALIVE_INTERVAL_MS))
        .keep_alive_timeout(Duration::from_millis(KEEPALIVE_TIMEOUT_MS))
        .keep_alive_while_idle(true)
        .connect()
        .await
        .map_err(|e| chain(&e))?;
    let mut grpc = tonic::client::Grpc::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    if let Err(error) = grpc.ready().await {
        return Ok(Err(Status::from_error(Box::new(error))));
    }
    let codec = EnvelopeCodec::<ToJobManager, ToTaskManager>::default();
    let request = Request::new(ReceiverStream::new(outbound));
    let opened = grpc.streaming(request, PathAndQuery::from_static(CONNECT_PATH), codec).await;
    // A server of HTTP/2 that knows no gRPC answers as well, as a JobManager does at its --rest address.
    let is_grpc = |response: &Response<Inbound>| {
        let kind = response.metadata().get("content-type");
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    };
    Ok(opened.and_then(|response| match is_grpc(&response) {
        true => Ok(response.into_inner()),
        false => Err(Status::unknown("it answers in HTTP/2, but not in gRPC")),
    }))
}

/// Whether a question in HTTP/1 is answered in it. Servers that know nothing else often drop what begins as HTTP/2 does.
async fn speaks_http1(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let question = format!("HEAD / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut answer = [0; HTTP1.len()];
    stream.read_exact(&mut answer).await?;
    Ok(&answer == HTTP1)
}

/// How every answer in HTTP/1 begins.
const HTTP1: &[u8; 7] = b"HTTP/1.";

/// A status in words, with what the transport said, on one line.
fn said(status: &Status) -> String {
    match status.source() {
        Some(source) => format!("{} ({})", status.message(), chain(source)),
        None => status.message().to_owned(),
    }
}

/// An error with its sources, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text.push_str(": ");
        text.push_str(&next.to_string());
        source = next.source();
    }
    text
}
