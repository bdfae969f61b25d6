//! A slot's side of the files thread: buffers to fill, requests without blocking, and where snapshots belong.
//!
//! Owner of the state: `SlotFiles` belongs to the slot thread, `Lending` to the files thread; they share two counters
//! and the way back for buffers.
//!
//! Always true:
//! - buffers made ≤ `FILE_BUFFERS_PER_SLOT`; a buffer is spare, on loan to a writer, waiting, or being written;
//! - files unfinished ≤ `FILES_OPEN_MAX`; one more fails by name instead of being opened;
//! - `starved` is set before a last look for buffers, and read after each return, so no wake-up is lost.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_stream::files::{FileBuffer, FileEvent, FileId, FileMemory, FileTarget, Files};
use tokio::sync::mpsc;

use super::Deliver;
use super::core::{FileKey, Request};
use crate::limits::{FILE_BUFFER_BYTES, FILE_BUFFERS_PER_SLOT, FILES_OPEN_MAX};

/// Bits of a [`FileId`] that number the files of one slot.
const FILE_BITS: u32 = 48;

/// The id under which a slot knows a file.
pub(super) fn file_id(key: FileKey) -> FileId {
    FileId((u64::from(key.slot) << FILE_BITS) | key.file)
}

fn file_key(id: FileId) -> FileKey {
    FileKey { slot: (id.0 >> FILE_BITS) as u32, file: id.0 & ((1 << FILE_BITS) - 1) }
}

/// Where the snapshots of each running attempt belong. The control thread enters an attempt before any of its slots
/// hears of it and removes it after the last has closed.
#[derive(Debug, Clone, Default)]
pub struct Roots(Arc<Mutex<HashMap<(u128, u32), Root>>>);

#[derive(Debug, Clone)]
struct Root {
    /// Absolute.
    store: PathBuf,
    /// The job's checkpoints, relative to the store.
    checkpoints: String,
}

impl Roots {
    /// Snapshots of this attempt go to `<store>/<checkpoints>/chk-<n>/`.
    pub fn enter(&self, job: u128, attempt: u32, store: PathBuf, checkpoints: String) {
        self.lock().insert((job, attempt), Root { store, checkpoints });
    }

    /// The attempt is over.
    pub fn remove(&self, job: u128, attempt: u32) {
        self.lock().remove(&(job, attempt));
    }

    /// Path and reported name of a target; `None` for a snapshot of an attempt that was not entered.
    fn place(&self, target: FileTarget) -> Option<(PathBuf, String)> {
        match target {
            FileTarget::Output { path } => Some((PathBuf::from(&path), path)),
            FileTarget::Snapshot { job, checkpoint, attempt, vertex, subtask, operator } => {
                let roots = self.lock();
                let root = roots.get(&(job, attempt))?;
                let file = format!("{attempt}-{vertex}-{subtask}-{operator:016x}.state");
                let name = format!("{}/chk-{checkpoint}/{file}", root.checkpoints);
                Some((root.store.join(&name), name))
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(u128, u32), Root>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A filled buffer on its way to the disk and back.
pub struct Loan {
    pub(super) memory: Box<dyn FileMemory>,
    pub(super) len: usize,
}

impl std::fmt::Debug for Loan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loan").field("len", &self.len).finish_non_exhaustive()
    }
}

/// What both sides look at.
#[derive(Default)]
struct Shared {
    /// The slot found no buffer and waits to hear of one.
    starved: AtomicBool,
    /// Files created and not over.
    open: AtomicUsize,
}

/// [`Files`] for one slot.
pub struct SlotFiles {
    slot: u32,
    next: u64,
    requests: mpsc::Sender<Request<Loan>>,
    roots: Roots,
    spare: Vec<Box<dyn FileMemory>>,
    returned: Receiver<Box<dyn FileMemory>>,
    made: usize,
    /// Bytes of all buffers of all slots.
    bytes: Arc<AtomicU64>,
    shared: Arc<Shared>,
    deliver: Deliver,
}

/// The files thread's side.
pub(super) struct Lending {
    returned: SyncSender<Box<dyn FileMemory>>,
    shared: Arc<Shared>,
    deliver: Deliver,
}

impl Lending {
    /// A buffer has been written, or is not wanted.
    pub(super) fn take_back(&self, loan: Loan) {
        if self.returned.try_send(loan.memory).is_ok() && self.shared.starved.swap(false, Ordering::SeqCst) {
            self.tell(FileEvent::BuffersFree);
        }
    }

    pub(super) fn file_over(&self) {
        // A slot that ends waits for the last one.
        if self.shared.open.fetch_sub(1, Ordering::Release) == 1 {
            self.tell(FileEvent::BuffersFree);
        }
    }

    pub(super) fn tell(&self, event: FileEvent) {
        (self.deliver)(event);
    }
}

impl SlotFiles {
    pub(super) fn new(
        slot: u32,
        requests: mpsc::Sender<Request<Loan>>,
        roots: Roots,
        bytes: Arc<AtomicU64>,
        deliver: Deliver,
    ) -> (Self, Lending) {
        let (back, returned) = sync_channel(FILE_BUFFERS_PER_SLOT);
        let shared = Arc::new(Shared::default());
        let lending = Lending { returned: back, shared: Arc::clone(&shared), deliver: Arc::clone(&deliver) };
        let spare = Vec::with_capacity(FILE_BUFFERS_PER_SLOT);
        (Self { slot, next: 0, requests, roots, spare, returned, made: 0, bytes, shared, deliver }, lending)
    }

    fn request(&self, request: Request<Loan>) {
        if let Err(error) = self.requests.try_send(request) {
            // Full cannot be: files and buffers are bounded. Closed means that the process is going down.
            assert!(
                matches!(error, mpsc::error::TrySendError::Closed(_)),
                "more file requests than files and buffers"
            );
        }
    }

    fn buffer(&mut self) -> Option<Box<dyn FileMemory>> {
        self.spare.pop().or_else(|| self.returned.try_recv().ok())
    }
}

impl Files for SlotFiles {
    fn buffers(&self) -> u32 {
        FILE_BUFFERS_PER_SLOT as u32
    }

    fn create(&mut self, target: FileTarget) -> FileId {
        let key = FileKey { slot: self.slot, file: self.next };
        self.next += 1;
        let open = self.shared.open.load(Ordering::Relaxed);
        let cause = match self.roots.place(target) {
            _ if open >= FILES_OPEN_MAX => {
                format!(
                    "{open} files of slot {} are unfinished already; lengthen the checkpoint interval",
                    self.slot
                )
            }
            None => "internal: a snapshot of an attempt that this TaskManager does not run".to_owned(),
            Some((path, name)) => {
                self.shared.open.fetch_add(1, Ordering::Relaxed);
                self.request(Request::Create { key, path, name });
                return file_id(key);
            }
        };
        (self.deliver)(FileEvent::Failed { file: file_id(key), cause });
        file_id(key)
    }

    fn try_buffer(&mut self) -> Option<FileBuffer> {
        let memory = match self.buffer() {
            Some(memory) => memory,
            None if self.made < FILE_BUFFERS_PER_SLOT => {
                self.made += 1;
                self.bytes.fetch_add(FILE_BUFFER_BYTES as u64, Ordering::Relaxed);
                // It stays with the slot when the task that needed it first is gone.
                tidegate_memory::outside_accounts(|| Box::new(vec![0; FILE_BUFFER_BYTES]))
            }
            None => {
                self.shared.starved.store(true, Ordering::SeqCst);
                self.buffer()?
            }
        };
        Some(FileBuffer::new(memory))
    }

    fn append(&mut self, file: FileId, buffer: FileBuffer) {
        let (memory, len) = buffer.into_parts();
        self.request(Request::Append { key: file_key(file), buffer: Loan { memory, len: len as usize } });
    }

    fn give_back(&mut self, buffer: FileBuffer) {
        self.spare.push(buffer.into_parts().0);
        if self.shared.starved.swap(false, Ordering::SeqCst) {
            (self.deliver)(FileEvent::BuffersFree); // Another writer of this slot waits for one.
        }
    }

    fn finish(&mut self, file: FileId) {
        self.request(Request::Finish { key: file_key(file) });
    }

    fn abandon(&mut self, file: FileId) {
        self.request(Request::Abandon { key: file_key(file) });
    }

    fn open_files(&self) -> u32 {
        self.shared.open.load(Ordering::Acquire) as u32
    }
}

impl Drop for SlotFiles {
    fn drop(&mut self) {
        self.request(Request::AbandonSlot { slot: self.slot });
    }
}
