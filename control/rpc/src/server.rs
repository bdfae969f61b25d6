//! The JobManager's end: a gRPC server with the one method, handing each new stream to its owner.
//!
//! The server keeps no state of its own. Always: a stream handed over has its sending half open until the
//! owner drops it; unknown paths are answered `Unimplemented`.

use crate::codec::EnvelopeCodec;
use crate::envelope::Envelope;
use crate::limits::{
    ACCEPT_RETRY_MS, KEEPALIVE_INTERVAL_MS, KEEPALIVE_TIMEOUT_MS, MESSAGE_BYTES_MAX, QUEUE_MESSAGES_MAX,
};
use crate::messages::{ToJobManager, ToTaskManager};
use rustix::io::Errno;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// Path of the one method.
pub const CONNECT_PATH: &str = "/tidegate.Control/Connect";

/// What a JobManager says that takes no TaskManager any more.
pub(crate) const LEAVING: &str = "the JobManager is shutting down";

/// A TaskManager that has opened its stream and not yet said anything.
#[derive(Debug)]
pub struct Incoming {
    /// Where it dialled from.
    pub peer: Option<SocketAddr>,
    /// What it says. An error is a broken transport or bytes that are not a message of this version.
    pub from: Streaming<Envelope<ToJobManager>>,
    /// What it is told; the stream ends when this is dropped.
    pub to: mpsc::Sender<Envelope<ToTaskManager>>,
}

/// Serves `listener` until `stop` completes and every stream has ended. New streams go to `accepted`; when
/// nobody receives there any more, TaskManagers are answered `Unavailable`.
///
/// # Errors
/// What the transport says when it cannot go on.
pub async fn serve(
    listener: TcpListener,
    accepted: mpsc::Sender<Incoming>,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_millis(KEEPALIVE_INTERVAL_MS)))
        .http2_keepalive_timeout(Some(Duration::from_millis(KEEPALIVE_TIMEOUT_MS)))
        .serve_with_incoming_shutdown(Control { accepted }, connections(listener), stop)
        .await
}

/// Connections as they come. Where one can't be taken for want of descriptors or memory, the next try waits: the kernel would
/// refuse it again and again for as long as somebody waits at the port, and the server takes no breath between. Ends with its
/// receiver.
fn connections(listener: TcpListener) -> ReceiverStream<io::Result<TcpStream>> {
    let (to, connections) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(next) = tokio::select! {
            next = listener.accept() => Some(next),
            () = to.closed() => None,
        } {
            match next {
                Ok((stream, _)) => {
                    // Without it messages are only later.
                    let _ = stream.set_nodelay(true);
                    if to.send(Ok(stream)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!("a connection cannot be taken: {error}");
                    let want = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
                    if error.raw_os_error().is_some_and(|code| want.map(Errno::raw_os_error).contains(&code))
                    {
                        tokio::select! {
                            () = tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)) => {}
                            () = to.closed() => return,
                        }
                    }
                }
            }
        }
    });
    ReceiverStream::new(connections)
}

/// The service: routes by path, opens streams.
#[derive(Clone)]
struct Control {
    accepted: mpsc::Sender<Incoming>,
}

type Outbound = Pin<Box<dyn tokio_stream::Stream<Item = Result<Envelope<ToTaskManager>, Status>> + Send>>;

impl Service<http::Request<Body>> for Control {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let connect = Connect { accepted: self.accepted.clone() };
        Box::pin(async move {
            if request.uri().path() != CONNECT_PATH {
                return Ok(Status::unimplemented("only /tidegate.Control/Connect is served").into_http());
            }
            let codec = EnvelopeCodec::<ToTaskManager, ToJobManager>::default();
            let mut grpc = tonic::server::Grpc::new(codec)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
            Ok(grpc.streaming(connect, request).await)
        })
    }
}

/// One call of the method.
struct Connect {
    accepted: mpsc::Sender<Incoming>,
}

impl tonic::server::StreamingService<Envelope<ToJobManager>> for Connect {
    type Response = Envelope<ToTaskManager>;
    type ResponseStream = Outbound;
    type Future = BoxFuture<Response<Outbound>, Status>;

    fn call(&mut self, request: Request<Streaming<Envelope<ToJobManager>>>) -> Self::Future {
        let accepted = self.accepted.clone();
        Box::pin(async move {
            let peer = request.remote_addr();
            let (to, outbound) = mpsc::channel(QUEUE_MESSAGES_MAX);
            let incoming = Incoming { peer, from: request.into_inner(), to };
            accepted.send(incoming).await.map_err(|_| Status::unavailable(LEAVING))?;
            let stream: Outbound = Box::pin(ReceiverStream::new(outbound).map(Ok));
            Ok(Response::new(stream))
        })
    }
}
