//! The thread's life: runtime, epoch, recovered jobs, servers, the actor, and the way down.
//!
//! Always: nothing is served before the epoch is open; servers end after the last store operation.

use super::actor::{Actor, Event};
use super::{StartError, rest};
use crate::config::JobManagerConfig;
use crate::core::{Core, CoreConfig, Found};
use crate::directory::{Directory, Entry};
use crate::limits::{ACCEPT_QUEUE, DRAIN_TIMEOUT_MS, SERVER_STOP_MS};
use crate::memory::Meter;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_checkpoint::{Leadership, LocalStore, Opening, OpeningStep, StoreOp};
use tidegate_graph::JobGraph;
use tidegate_rpc::server;
use tokio::sync::{mpsc, watch};

/// What the thread is given.
pub(super) struct Parts {
    pub(super) config: JobManagerConfig,
    pub(super) directory: Directory,
    pub(super) rpc: TcpListener,
    pub(super) rest: TcpListener,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) inbox: mpsc::Receiver<Event>,
    pub(super) slots: watch::Sender<u32>,
    pub(super) ended: watch::Sender<Option<String>>,
    pub(super) ready: std_mpsc::Sender<Result<u64, StartError>>,
}

/// Milliseconds since 1970 that never go back: the wall clock at the start, then the monotonic one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    wall_ms: u64,
    start: Instant,
}

impl Clock {
    fn new() -> Self {
        let wall_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        Clock { wall_ms, start: Instant::now() }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.wall_ms + self.start.elapsed().as_millis() as u64
    }

    /// The instant of a time of this clock; far ones are brought nearer.
    pub(super) fn instant(&self, at_ms: u64) -> Instant {
        let since = at_ms.saturating_sub(self.wall_ms).min(u64::from(u32::MAX));
        self.start + Duration::from_millis(since)
    }
}

/// Runs a JobManager to its end.
pub(super) fn run(parts: Parts) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("jm-blocking")
        .thread_keep_alive(Duration::from_secs(2))
        .build();
    match runtime {
        Ok(runtime) => {
            runtime.block_on(live(parts));
            runtime.shutdown_timeout(Duration::from_millis(DRAIN_TIMEOUT_MS));
        }
        Err(error) => {
            let _ = parts.ready.send(Err(StartError::System(error)));
        }
    }
}

async fn live(parts: Parts) {
    let ready = parts.ready.clone();
    let clock = Clock::new();
    let (core, first, store) = match prepare(&parts, clock).await {
        Ok(prepared) => prepared,
        Err(error) => {
            // The lock and the ports must be free before anybody reads the error.
            drop(parts);
            let _ = ready.send(Err(error));
            return;
        }
    };
    let epoch = core.epoch();
    let meter = Meter::new(parts.config.plan.clone());
    let Parts { config, directory, rpc, rest, events, inbox, slots, ended, .. } = parts;
    let (stop, stopped) = watch::channel(false);
    let servers = match serve(&config, directory.root(), rpc, rest, &events, stopped) {
        Ok(servers) => servers,
        Err(error) => {
            drop(directory);
            let _ = ready.send(Err(StartError::System(error)));
            return;
        }
    };
    tracing::info!(epoch, directory = %directory.root().display(), "JobManager leads");
    let _ = ready.send(Ok(epoch));
    let root = directory.root().to_path_buf();
    let mut actor = Actor::new(core, clock, (events, inbox), store, root, slots, meter);
    let reason = actor.run(first).await;
    actor.drain().await;
    let _ = stop.send(true);
    drop(actor);
    for server in servers {
        // Whoever holds a connection open without a word is not waited for.
        let abort = server.abort_handle();
        if tokio::time::timeout(Duration::from_millis(SERVER_STOP_MS), server).await.is_err() {
            abort.abort();
        }
    }
    drop(directory);
    if let Some(reason) = reason {
        tracing::error!("{reason}");
        let _ = ended.send(Some(reason));
    }
}

/// Opens the epoch and builds the core with the jobs of the directory.
async fn prepare(
    parts: &Parts,
    clock: Clock,
) -> Result<(Core, Vec<crate::core::Action>, LocalStore), StartError> {
    let Parts { config, directory, .. } = parts;
    let store = LocalStore::open(directory.root())?;
    let leadership = open_epoch(&store, directory).await?;
    // Read again: what another leader wrote before it was replaced counts.
    let entries = directory.jobs()?;
    let mut found = Vec::new();
    for entry in entries {
        let Entry { id, record } = entry;
        match record {
            Ok(record) => {
                let planned = if record.state.is_over() { None } else { Some(plan(config, &record).await) };
                let legal = leadership.legal.get(&id.0).cloned().unwrap_or_default();
                found.push(Found { record, id, planned, legal });
            }
            Err(reason) => {
                tracing::error!(job = %id, "its record cannot be read and is left alone: {reason}")
            }
        }
    }
    let core_config = CoreConfig {
        cluster: directory.cluster(),
        epoch: leadership.epoch,
        store: directory.root().display().to_string(),
        binary_fingerprint: config.binary_fingerprint,
        heartbeat_interval_ms: config.heartbeat_interval_ms,
        heartbeat_timeout_ms: config.heartbeat_timeout_ms,
        restart: config.restart,
    };
    let (core, first) = Core::new(core_config, found, clock.now_ms());
    Ok((core, first, store))
}

async fn open_epoch(store: &LocalStore, directory: &Directory) -> Result<Leadership, StartError> {
    let mut opening = Opening::new(Vec::new());
    loop {
        match opening.step() {
            OpeningStep::Op(op) => {
                if op == StoreOp::ReadEpochs {
                    opening.know(concerned(directory)?);
                }
                opening.handle(store.execute(op).await);
            }
            OpeningStep::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            OpeningStep::Opened(leadership) => return Ok(leadership),
            OpeningStep::Failed(error) => return Err(error.into()),
        }
    }
}

/// Jobs whose checkpoints are looked at: nothing of one that is over and clean is ever read again.
fn concerned(directory: &Directory) -> Result<Vec<u128>, StartError> {
    let entries = directory.jobs()?;
    let concerns = |entry: &&Entry| entry.record.as_ref().map_or(true, |r| !r.state.is_over() || !r.cleaned);
    Ok(entries.iter().filter(concerns).map(|entry| entry.id.0).collect())
}

async fn plan(config: &JobManagerConfig, record: &crate::record::JobRecord) -> Result<JobGraph, String> {
    let planner = Arc::clone(&config.planner);
    let request = record.request.clone();
    let plan = move || planner.plan(&request.job, &request.args, request.parallelism);
    match tokio::task::spawn_blocking(plan).await {
        Ok(planned) => planned.map(|planned| planned.graph),
        Err(error) => Err(format!("the planner panicked: {error}")),
    }
}

type Server = tokio::task::JoinHandle<()>;

/// Starts both servers; they end when `stopped` turns true.
fn serve(
    config: &JobManagerConfig,
    root: &Path,
    rpc: TcpListener,
    rest_listener: TcpListener,
    events: &mpsc::Sender<Event>,
    stopped: watch::Receiver<bool>,
) -> std::io::Result<Vec<Server>> {
    let rpc = tokio::net::TcpListener::from_std(rpc)?;
    let rest_listener = tokio::net::TcpListener::from_std(rest_listener)?;
    let (accepted_to, mut accepted) = mpsc::channel(ACCEPT_QUEUE);
    let grpc = server::serve(rpc, accepted_to, stop(stopped.clone()));
    let grpc = tokio::spawn(async move {
        if let Err(error) = grpc.await {
            tracing::error!("the RPC server ended: {error}");
        }
    });
    let to_actor = events.clone();
    let forward = tokio::spawn(async move {
        while let Some(incoming) = accepted.recv().await {
            if to_actor.send(Event::Accepted(Box::new(incoming))).await.is_err() {
                break;
            }
        }
    });
    let app = rest::router(events.clone(), Arc::clone(&config.planner), root.to_path_buf());
    let rest = tokio::spawn(async move {
        let served = axum::serve(rest_listener, app).with_graceful_shutdown(stop(stopped));
        if let Err(error) = served.await {
            tracing::error!("the REST server ended: {error}");
        }
    });
    Ok(vec![grpc, forward, rest])
}

async fn stop(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
