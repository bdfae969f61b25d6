//! The stream over loopback, and what happens to bytes that are not ours.

use proptest::prelude::*;
use std::net::SocketAddr;
use std::time::Duration;
use tidegate_rpc::client::connect_within;
use tidegate_rpc::envelope::MAGIC;
use tidegate_rpc::limits::{KEEPALIVE_INTERVAL_MS, KEEPALIVE_TIMEOUT_MS, PROTOCOL_VERSION};
use tidegate_rpc::server::{Incoming, serve};
use tidegate_rpc::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

struct Running {
    address: SocketAddr,
    accepted: mpsc::Receiver<Incoming>,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

async fn start() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (to, accepted) = mpsc::channel(4);
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(async move {
        serve(listener, to, async {
            let _ = stopped.await;
        })
        .await
        .unwrap();
    });
    Running { address, accepted, stop, served }
}

fn bye(text: &str) -> ToJobManager {
    ToJobManager::Goodbye { reason: text.into() }
}

/// Carries bytes between one client and `to` until it is told to carry nothing any more; both connections stay open.
async fn carry(listener: TcpListener, to: SocketAddr, silent: oneshot::Receiver<()>) {
    let (mut client, _) = listener.accept().await.unwrap();
    let mut server = tokio::net::TcpStream::connect(to).await.unwrap();
    let mut bytes = ([0; 4096], [0; 4096]);
    tokio::pin!(silent);
    loop {
        tokio::select! {
            _ = &mut silent => break,
            n = client.read(&mut bytes.0) => server.write_all(&bytes.0[..n.unwrap()]).await.unwrap(),
            n = server.read(&mut bytes.1) => client.write_all(&bytes.1[..n.unwrap()]).await.unwrap(),
        }
    }
    std::future::pending::<()>().await;
}

/// A host that loses power, or a cut cable: nothing ends the connection, nothing comes any more.
#[tokio::test]
async fn either_end_notices_that_the_other_is_silent() {
    let mut running = start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (silence, silent) = oneshot::channel();
    let carrier = tokio::spawn(carry(listener, running.address, silent));
    let (out, mut inbound) = connect(address).await.unwrap().split();
    let mut peer = running.accepted.recv().await.unwrap();
    out.send(Envelope::new(0, bye("one"))).await.unwrap();
    assert_eq!(peer.from.message().await.unwrap().unwrap().body, bye("one"));

    silence.send(()).unwrap();
    // Ten times as long as it should take, and a hundredth of what the kernel would.
    let long = Duration::from_millis(10 * (KEEPALIVE_INTERVAL_MS + KEEPALIVE_TIMEOUT_MS));
    let (there, here) = tokio::join!(
        tokio::time::timeout(long, peer.from.message()),
        tokio::time::timeout(long, inbound.message())
    );
    assert!(!matches!(there.expect("the JobManager notices"), Ok(Some(_))));
    assert!(!matches!(here.expect("the TaskManager notices"), Ok(Some(_))));
    carrier.abort();
}

#[tokio::test]
async fn messages_flow_both_ways_and_the_end_is_seen() {
    let mut running = start().await;
    let (out, mut inbound) = connect(running.address).await.unwrap().split();
    let mut peer = running.accepted.recv().await.unwrap();
    assert!(peer.peer.unwrap().ip().is_loopback());
    out.send(Envelope::new(0, bye("one"))).await.unwrap();
    out.send(Envelope::new(0, bye("two"))).await.unwrap();
    assert_eq!(peer.from.message().await.unwrap().unwrap().body, bye("one"));
    assert_eq!(peer.from.message().await.unwrap().unwrap().body, bye("two"));
    let start = ToTaskManager::Start { job: JobId(7), attempt: 3 };
    peer.to.send(Envelope::new(9, start.clone())).await.unwrap();
    let got = inbound.message().await.unwrap().unwrap();
    assert_eq!((got.epoch, got.body), (9, start));
    drop(out);
    drop(inbound);
    assert!(!matches!(peer.from.message().await, Ok(Some(_))));
    drop(peer);
    running.stop.send(()).unwrap();
    running.served.await.unwrap();
}

#[tokio::test]
async fn a_large_prepare_passes() {
    let mut running = start().await;
    let (_out, mut inbound) = connect(running.address).await.unwrap().split();
    let peer = running.accepted.recv().await.unwrap();
    let args = vec!["x".repeat(1 << 20); 8];
    let prepare = Prepare {
        job: JobId(1),
        job_name: "j".into(),
        args,
        parallelism: 1,
        graph_fingerprint: 0,
        attempt: 1,
        restored: None,
        first_checkpoint: 1,
        checkpoints: "jobs/1/checkpoints".into(),
        record_max: 0,
        slots: Vec::new(),
    };
    let sent = ToTaskManager::Prepare(Box::new(prepare));
    peer.to.send(Envelope::new(1, sent.clone())).await.unwrap();
    assert_eq!(inbound.message().await.unwrap().unwrap().body, sent);
}

#[tokio::test]
async fn nobody_listening_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = connect(address).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()));
}

#[tokio::test]
async fn a_server_that_is_not_ours_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        use tokio::io::AsyncWriteExt;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    assert!(connect(address).await.is_err());
}

/// Long for a busy machine, short enough to wait for.
const STEP: Duration = Duration::from_millis(500);

/// A server that reads a request to its blank line and gives `answer` to those that begin with `known`; it closes on
/// others, as servers of HTTP/1 do on what begins as HTTP/2.
async fn serve_http1(listener: TcpListener, known: &'static [u8], answer: &'static [u8]) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        if request.starts_with(known) {
            stream.write_all(answer).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_http1_server_is_told_from_a_jobmanager_and_the_rpc_address_asked_for() {
    // One that closes on HTTP/2, and one that answers it.
    for known in [&b"HEAD "[..], b""] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        let server = tokio::spawn(serve_http1(listener, known, answer));
        let error = connect_within(address, STEP).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::NotAJobManager { found: Stranger::Http1, .. }),
            "{known:?}: {error}"
        );
        let text = error.to_string();
        assert!(text.contains(&address.to_string()) && text.contains("--rest"), "{text}");
        assert!(text.ends_with("give the --rpc address (--jobmanager HOST:PORT)"), "{text}");
        server.abort();
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_and_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await.unwrap());
        }
    });
    // Once the deadline comes first, and once the pings that nobody answers.
    for step in [STEP, Duration::from_millis(KEEPALIVE_INTERVAL_MS + KEEPALIVE_TIMEOUT_MS)] {
        let error = connect_within(address, step).await.unwrap_err();
        assert!(matches!(error, ConnectError::NotAJobManager { found: Stranger::Silent, .. }), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
    server.abort();
}

/// It is one, so nobody is to be told to look for another address.
#[tokio::test]
async fn a_jobmanager_that_leaves_is_no_stranger() {
    let running = start().await;
    drop(running.accepted);
    let error = connect(running.address).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("the JobManager is shutting down"), "{error}");
}

#[test]
fn another_version_is_refused_by_name() {
    let mut bytes = Envelope::new(1, bye("x")).encode().unwrap();
    bytes[4] = bytes[4].wrapping_add(1);
    assert_eq!(
        Envelope::<ToJobManager>::decode(&bytes).unwrap_err(),
        FrameError::Version { expected: PROTOCOL_VERSION, found: PROTOCOL_VERSION + 1 }
    );
}

#[test]
fn trailing_bytes_and_short_frames_are_refused() {
    let bytes = Envelope::new(1, bye("x")).encode().unwrap();
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(Envelope::<ToJobManager>::decode(&longer), Err(FrameError::Body(_))));
    for end in 0..bytes.len() {
        assert!(Envelope::<ToJobManager>::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn what_is_too_large_is_not_encoded() {
    let text = "x".repeat(limits::MESSAGE_BYTES_MAX);
    assert!(matches!(Envelope::new(1, bye(&text)).encode(), Err(FrameError::TooLarge { .. })));
}

#[test]
fn clip_keeps_characters_whole() {
    let text = limits::clip("é".repeat(limits::TEXT_BYTES_MAX));
    assert!(text.len() <= limits::TEXT_BYTES_MAX && text.chars().all(|c| c == 'é'));
}

proptest! {
    #[test]
    fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..400), ours in any::<bool>()) {
        let mut bytes = Vec::new();
        if ours {
            bytes.extend_from_slice(&MAGIC);
            bytes.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
            bytes.extend_from_slice(&1u64.to_le_bytes());
        }
        bytes.extend_from_slice(&body);
        let _ = Envelope::<ToJobManager>::decode(&bytes);
        let _ = Envelope::<ToTaskManager>::decode(&bytes);
    }
}
