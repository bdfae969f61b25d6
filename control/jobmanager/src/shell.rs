//! The shell around the core: one thread with one runtime, sockets, files, the clock.
//!
//! The thread owns the core; everybody else sends it events. Always: the core sees one event at a time; what it
//! asks for is carried out in order per connection and per job; after `shutdown` returns, the thread has ended
//! and the directory is unlocked.

mod actor;
mod histograms;
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
    #[error("cannot listen at {address} for {purpose}: {source}; {}", listen_advice(source))]
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

/// Why a JobManager ended that nobody had told to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// A newer leader exists.
    #[error("this JobManager no longer leads: {0}")]
    Deposed(String),
    /// Its thread is gone without a word of its own.
    #[error("the JobManager's thread died; its panic is on stderr")]
    Died,
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

    /// Why it ended by itself, if it did.
    pub fn ended(&self) -> Option<Ended> {
        // Looked at first: a thread that has a reason gives it before it ends.
        let over = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        let reason = self.ended.borrow().clone();
        reason.map(Ended::Deposed).or(over.then_some(Ended::Died))
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

/// What to change, by what the system says: only some of it is the address's fault.
fn listen_advice(source: &std::io::Error) -> &'static str {
    match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::MFILE) => "raise this process's limit of open files (ulimit -n)",
        Some(rustix::io::Errno::NFILE) => "raise the system's limit of open files (fs.file-max)",
        _ => "choose another address or stop what uses it",
    }
}

fn listen(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, StartError> {
    let error = |source| StartError::Listen { address, purpose, source };
    let listener = TcpListener::bind(address).map_err(error)?;
    listener.set_nonblocking(true).map_err(error)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_thread_that_dies_is_an_end_and_stopping_it_returns() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (events, inbox) = mpsc::channel(1);
        let (slots_to, slots) = watch::channel(0);
        let (ended_to, ended) = watch::channel(None);
        let thread = std::thread::spawn(move || {
            let _owned = (inbox, slots_to, ended_to);
            panic!("as any bug would");
        });
        let thread = Some(thread);
        let running =
            RunningJobManager { rpc_addr: any, rest_addr: any, epoch: 1, events, slots, ended, thread };
        while running.ended().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(running.ended(), Some(Ended::Died));
        running.shutdown();
    }

    #[test]
    fn an_address_is_blamed_only_for_its_own_faults() {
        let said = |errno: Errno| {
            let source = std::io::Error::from(errno);
            let address = SocketAddr::from(([127, 0, 0, 1], 6123));
            StartError::Listen { address, purpose: "TaskManagers (--rpc)", source }.to_string()
        };
        assert!(said(Errno::ADDRINUSE).contains("choose another address"));
        for (errno, advice) in [(Errno::MFILE, "ulimit -n"), (Errno::NFILE, "fs.file-max")] {
            let said = said(errno);
            assert!(said.contains(advice) && !said.contains("another address"), "{said}");
        }
    }
}
