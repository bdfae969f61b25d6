//! The files thread: every file a TaskManager writes is written here, on tokio-uring where the host allows it.
//!
//! Owner of the state: the thread owns the files and the staging buffers; each slot owns its buffers while it fills
//! them and lends them to the thread to be written ([`SlotFiles`]).
//!
//! Always true:
//! - requests waiting ≤ slots × `FILE_REQUESTS_PER_SLOT`, so handing one over never blocks and never fails;
//! - buffers of a slot ≤ `FILE_BUFFERS_PER_SLOT`, and each is with the slot, waiting, or being written;
//! - a slot hears `BuffersFree` after every `try_buffer` that had none.

mod blocking;
mod core;
mod directories;
#[cfg(test)]
mod panics;
#[cfg(feature = "sim")]
mod sim;
mod slot;
#[cfg(test)]
mod tests;
mod uring;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use tidegate_stream::files::{FileEvent, FileId, FileReceipt};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

pub use self::core::{Chunk, Core, Done, Event, FileFault, FileKey, Operation, Request, is_permanent};
#[cfg(feature = "sim")]
pub use self::directories::{Directories, Folders, parent_of};
#[cfg(feature = "sim")]
pub use self::sim::SimFilesThread;
use self::slot::Lending;
pub use self::slot::{Loan, Roots, SlotFiles};
use self::uring::UringEngine;
use crate::limits::{BLOCKING_FILE_THREADS, FILE_REQUESTS_PER_SLOT, STAGING_BUFFERS};

/// Exit code of a process whose files thread died: what the operating system refused it (EX_OSERR).
const EXIT_FILES_DIED: i32 = 71;

/// Tells a slot about its files. Called on the files thread; must not block.
pub type Deliver = Arc<dyn Fn(FileEvent) + Send + Sync>;

/// Which implementation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FilesDriver {
    /// tokio-uring, or the blocking one where io_uring cannot be used.
    #[default]
    Auto,
    /// The standard library on a small blocking pool.
    Blocking,
}

/// The running thread.
#[derive(Debug)]
pub struct FilesThread {
    thread: Option<JoinHandle<()>>,
    stop: Option<mpsc::Sender<Request<Loan>>>,
    /// What writes the files, and why it is not something better.
    pub report: String,
    buffers: Arc<AtomicU64>,
}

impl FilesThread {
    /// Starts the thread and gives each slot its side. `deliver` has one entry per slot.
    ///
    /// # Errors
    /// The operating system's, if the thread or its runtime cannot be made.
    pub fn start(
        driver: FilesDriver,
        roots: &Roots,
        deliver: Vec<Deliver>,
    ) -> io::Result<(Self, Vec<SlotFiles>)> {
        let capacity = deliver.len().max(1) * FILE_REQUESTS_PER_SLOT;
        let (requests, inbox) = mpsc::channel(capacity);
        let buffers = Arc::default();
        let mut slots = Vec::with_capacity(deliver.len());
        let mut lendings = Vec::with_capacity(deliver.len());
        for (slot, deliver) in deliver.into_iter().enumerate() {
            let (files, lending) =
                SlotFiles::new(slot as u32, requests.clone(), roots.clone(), Arc::clone(&buffers), deliver);
            slots.push(files);
            lendings.push(lending);
        }
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let builder = std::thread::Builder::new().name("files".to_owned());
        let thread = builder.spawn(move || {
            let _ends = EndsTheProcess;
            run(driver, inbox, &lendings, &ready);
        })?;
        let report = started.recv().expect("invariant: the files thread reports before it serves")?;
        Ok((Self { thread: Some(thread), stop: Some(requests), report, buffers }, slots))
    }

    /// Bytes of the slots' buffers, each of which is made when it is first needed.
    pub fn buffer_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.buffers)
    }

    /// Waits until every slot's side is dropped and every file is written or removed.
    pub fn join(mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("invariant: the files thread does not panic");
        }
    }
}

/// Ends the process if what holds it panics: slots would wait for files that are never safe, and nothing could take the
/// place of who wrote them. Better gone, and started anew by whoever supervises, than half alive.
struct EndsTheProcess;

impl Drop for EndsTheProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the files thread panicked (see above), so this process ends");
            std::process::exit(EXIT_FILES_DIED);
        }
    }
}

type Inbox = mpsc::Receiver<Request<Loan>>;
type Ready = std::sync::mpsc::SyncSender<io::Result<String>>;

/// The thread's body: choose an engine, say which, serve.
fn run(driver: FilesDriver, inbox: Inbox, lendings: &[Lending], ready: &Ready) {
    let blocked = match driver {
        FilesDriver::Blocking => "asked for".to_owned(),
        FilesDriver::Auto => match uring_runtime() {
            Ok(runtime) => return runtime.block_on(run_uring(inbox, lendings, ready)),
            Err(reason) => reason,
        },
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_FILE_THREADS)
        .thread_name("files-pool")
        .build();
    match runtime {
        Ok(runtime) => {
            let _ = ready.send(Ok(format!("blocking calls ({blocked})")));
            let engine = Rc::new(Engine::Blocking(blocking::BlockingEngine::default()));
            LocalSet::new().block_on(&runtime, serve(engine, inbox, lendings));
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    }
}

/// A tokio-uring runtime, or who forbids one. Probed first: the crate's own start panics where io_uring is blocked, and
/// a failed start leaks.
fn uring_runtime() -> Result<tokio_uring::Runtime, String> {
    tidegate_ring::probe().io_uring.map_err(|obstacle| obstacle.to_string())?;
    let mut builder = tokio_uring::builder();
    builder.entries((4 * STAGING_BUFFERS).next_power_of_two() as u32);
    tokio_uring::Runtime::new(&builder).map_err(|error| format!("io_uring: {error}"))
}

async fn run_uring(inbox: Inbox, lendings: &[Lending], ready: &Ready) {
    let (engine, refused) = match UringEngine::new() {
        Ok(made) => made,
        Err(error) => {
            let _ = ready.send(Err(io::Error::other(error)));
            return;
        }
    };
    let rung = match refused {
        None => "registered buffers".to_owned(),
        Some(error) => format!("unregistered buffers: {error}"),
    };
    let _ = ready.send(Ok(format!("io_uring, {rung}")));
    serve(Rc::new(Engine::Uring(engine)), inbox, lendings).await;
}

/// What carries operations out.
enum Engine {
    Uring(UringEngine),
    Blocking(blocking::BlockingEngine),
}

impl Engine {
    async fn run(&self, operation: Operation<Loan>) -> Done<Loan> {
        match self {
            Self::Uring(engine) => engine.run(operation).await,
            Self::Blocking(engine) => engine.run(operation).await,
        }
    }
}

/// The loop: requests and completions into the core, operations and events out, until nobody can ask for more and
/// nothing is open.
async fn serve(engine: Rc<Engine>, mut inbox: Inbox, lendings: &[Lending]) {
    let mut core = Core::default();
    let (done, mut completions) = mpsc::unbounded_channel(); // One operation per open file at most.
    let mut open = true;
    while open || core.files_open() > 0 {
        tokio::select! {
            request = inbox.recv(), if open => match request {
                Some(request) => core.handle_request(request),
                None => {
                    open = false;
                    (0..lendings.len() as u32).for_each(|slot| core.handle_request(Request::AbandonSlot { slot }));
                }
            },
            Some(completion) = completions.recv() => core.handle_done(completion),
        }
        while let Some(operation) = core.poll_operation() {
            let (engine, done) = (Rc::clone(&engine), done.clone());
            tokio::task::spawn_local(async move {
                let _ends = EndsTheProcess; // The runtime would catch the panic, and the file would never be over.
                let _ = done.send(engine.run(operation).await);
            });
        }
        while let Some(event) = core.poll_event() {
            deliver(event, lendings);
        }
    }
}

fn deliver(event: Event<Loan>, lendings: &[Lending]) {
    match event {
        Event::Recycle { slot, buffer } => lendings[slot as usize].take_back(buffer),
        Event::Over { key } => lendings[key.slot as usize].file_over(),
        Event::Finished { key, name, len, hash } => {
            let receipt = FileReceipt { path: name, len, hash };
            lendings[key.slot as usize].tell(FileEvent::Finished { file: slot::file_id(key), receipt });
        }
        Event::Failed { key, fault } => {
            tracing::warn!(slot = key.slot, "{fault}");
            let file: FileId = slot::file_id(key);
            lendings[key.slot as usize].tell(FileEvent::Failed { file, cause: fault.to_string() });
        }
    }
}

impl Chunk for Loan {
    fn filled(&self) -> &[u8] {
        &self.memory.bytes()[..self.len]
    }
}
