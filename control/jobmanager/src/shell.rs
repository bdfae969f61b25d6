//! The shell around the core: one thread with one runtime, sockets, files, the clock.
//!
//! The thread owns the core; everybody else sends it events. Always: the core sees one event at a time; what it
//! asks for is carried out in order per connection and per job; after `shutdown` returns, the thread has ended
//! and the directory is unlocked.

mod actor;
mod metrics;
mod rest;
mod start;
mod worker;

use crate::config::JobManagerConfig;
use crate::directory::{Directory, DirectoryError};
use actor::Event;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use tidegate_checkpoint::{LocalStoreError, OpeningError};
use tokio::sync::{mpsc, watch};

/// Starts JobManagers.
///
/// ```no_run
/// use tidegate_jobmanager::{JobManager, JobManagerConfig};
/// # fn plan(_: &str, _: &[String], _: u32) -> Result<tidegate_graph::JobGraph, String> { Err("none".into()) }
/// let any = "127.0.0.1:0".parse().unwrap();
/// let running = JobManager::start(JobManagerConfig::new(any, any, "/var/lib/tidegate", plan, 42))?;
/// println!("TaskManagers: {}, REST: http://{}", running.rpc_addr, running.rest_addr);
/// running.shutdown();
/// # Ok::<(), tidegate_jobmanager::StartError>(())
/// ```
#[derive(Debug)]
pub struct JobManager;

/// Why a JobManager does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Its checkpoint store cannot be used.
    #[error(transparent)]
    Store(#[from] LocalStoreError),
    /// It cannot listen.
    #[error(
        "cannot listen at {address} for {purpose}: {source}; choose another address or stop what uses it"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What for.
        purpose: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// It cannot lead.
    #[error(transparent)]
    Epoch(#[from] OpeningError),
    /// Numbers that do not fit together.
    #[error("configuration: {0}")]
    Config(String),
    /// The system gives no thread or runtime.
    #[error("the system refuses a thread or runtime: {0}")]
    System(std::io::Error),
}

/// A JobManager at work. Dropping it shuts it down.
#[derive(Debug)]
pub struct RunningJobManager {
    /// Where TaskManagers dial.
    pub rpc_addr: SocketAddr,
    /// Where REST is served.
    pub rest_addr: SocketAddr,
    /// The epoch that it leads.
    pub epoch: u64,
    events: mpsc::Sender<Event>,
    slots: watch::Receiver<u32>,
    ended: watch::Receiver<Option<String>>,
    thread: Option<JoinHandle<()>>,
}

impl JobManager {
    /// Starts a JobManager: locks its directory, binds its ports, opens an epoch, takes up its jobs.
    ///
    /// # Errors
    /// [`StartError`], naming the address or path at fault; nothing is left running then.
    pub fn start(config: JobManagerConfig) -> Result<RunningJobManager, StartError> {
        if config.heartbeat_interval_ms == 0 || config.heartbeat_timeout_ms <= config.heartbeat_interval_ms {
            return Err(StartError::Config(format!(
                "the heartbeat timeout ({} ms) must exceed the interval ({} ms), which must exceed 0",
                config.heartbeat_timeout_ms, config.heartbeat_interval_ms
            )));
        }
        let rpc = listen(config.rpc, "TaskManagers (--rpc)")?;
        let rest = listen(config.rest, "REST (--rest)")?;
        let address = |listener: &TcpListener| listener.local_addr().map_err(StartError::System);
        let (rpc_addr, rest_addr) = (address(&rpc)?, address(&rest)?);
        let directory = Directory::open(&config.dir)?;
        let (events, inbox) = mpsc::channel(crate::limits::INPUT_QUEUE);
        let (slots_to, slots) = watch::channel(0);
        let (ended_to, ended) = watch::channel(None);
        let (ready_to, ready) = std_mpsc::channel();
        let parts = start::Parts {
            config,
            directory,
            rpc,
            rest,
            events: events.clone(),
            inbox,
            slots: slots_to,
            ended: ended_to,
            ready: ready_to,
        };
        let thread = std::thread::Builder::new()
            .name("jobmanager".to_owned())
            .spawn(move || start::run(parts))
            .map_err(StartError::System)?;
        match ready.recv() {
            Ok(Ok(epoch)) => {
                let thread = Some(thread);
                Ok(RunningJobManager { rpc_addr, rest_addr, epoch, events, slots, ended, thread })
            }
            Ok(Err(error)) => {
                let _ = thread.join();
                Err(error)
            }
            Err(_) => {
                let _ = thread.join();
                Err(StartError::System(std::io::Error::other("the JobManager's thread ended at once")))
            }
        }
    }
}

impl RunningJobManager {
    /// Slots of all registered TaskManagers, as they change.
    pub fn slots(&self) -> watch::Receiver<u32> {
        self.slots.clone()
    }

    /// Why it ended by itself (a newer leader exists), if it did.
    pub fn ended(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    /// Says goodbye to TaskManagers, lets store operations under way end, and returns when all is released.
    /// Jobs that are not over stay in the directory and are taken up by the next JobManager there.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // The thread may have ended by itself.
        let mut event = Event::Stop;
        while let Err(mpsc::error::TrySendError::Full(back)) = self.events.try_send(event) {
            event = back;
            std::thread::yield_now();
        }
        let _ = thread.join();
    }
}

impl Drop for RunningJobManager {
    fn drop(&mut self) {
        self.stop();
    }
}

fn listen(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, StartError> {
    let error = |source| StartError::Listen { address, purpose, source };
    let listener = TcpListener::bind(address).map_err(error)?;
    listener.set_nonblocking(true).map_err(error)?;
    Ok(listener)
}
