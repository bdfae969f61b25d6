//! The TaskManager's end: dial, open the stream, send and receive envelopes.
//!
//! The connection owns its two halves; dropping it ends the stream. Always: messages leave in the order of
//! `send`, and at most `limits::QUEUE_MESSAGES_MAX` wait.

use crate::codec::EnvelopeCodec;
use crate::envelope::Envelope;
use crate::limits::{
    CONNECT_TIMEOUT_MS, KEEPALIVE_INTERVAL_MS, KEEPALIVE_TIMEOUT_MS, MESSAGE_BYTES_MAX, QUEUE_MESSAGES_MAX,
};
use crate::messages::{ToJobManager, ToTaskManager};
use crate::server::CONNECT_PATH;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Request, Status, Streaming};

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
    /// Somebody answers, but it is not a JobManager of this version.
    #[error(
        "what listens at {address} does not speak the JobManager's protocol ({}); is the address its --rpc one?",
        status.message()
    )]
    NotAJobManager {
        /// Address dialled.
        address: SocketAddr,
        /// What it answered.
        status: Box<Status>,
    },
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
    let unreachable = |reason: String| ConnectError::Unreachable { address, reason };
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|e| unreachable(e.to_string()))?
        .connect_timeout(Duration::from_millis(CONNECT_TIMEOUT_MS))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_millis(KEEPALIVE_INTERVAL_MS))
        .keep_alive_timeout(Duration::from_millis(KEEPALIVE_TIMEOUT_MS))
        .keep_alive_while_idle(true)
        .connect()
        .await
        .map_err(|e| unreachable(chain(&e)))?;
    let mut grpc = tonic::client::Grpc::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    grpc.ready().await.map_err(|e| unreachable(chain(&e)))?;
    let (to, outbound) = mpsc::channel(QUEUE_MESSAGES_MAX);
    let codec = EnvelopeCodec::<ToJobManager, ToTaskManager>::default();
    let request = Request::new(ReceiverStream::new(outbound));
    let response = grpc
        .streaming(request, PathAndQuery::from_static(CONNECT_PATH), codec)
        .await
        .map_err(|status| ConnectError::NotAJobManager { address, status: Box::new(status) })?;
    Ok(Connection { to, from: response.into_inner() })
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
