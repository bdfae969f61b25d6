//! Files in memory, with as few buffers and as slow a disk as a test wants.
//!
//! The `Store` is the disk, shared by all slots and surviving attempts; a `MemoryFiles` is one slot's way to it. Nothing
//! happens before `pump`: appends wait with their buffers, so a small pool really runs dry. Always: buffers on loan ≤ the
//! pool's size.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use crate::files::{FileBuffer, FileEvent, FileId, FileMemory, FileReceipt, FileTarget, Files};
use crate::limits::FILE_BUFFER_MIN;

/// A disk in memory: finished files by path.
#[derive(Clone, Debug, Default)]
pub struct Store {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        // A map of files is whole between any two calls.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a file.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.lock().get(path).cloned()
    }

    /// Puts a file there.
    pub fn write(&self, path: &str, bytes: Vec<u8>) {
        self.lock().insert(path.to_owned(), bytes);
    }

    /// All paths, sorted.
    pub fn paths(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Renames a file; true if it is at `to` in the end, with these contents.
    pub fn rename(&self, from: &str, to: &str, hash: u64) -> bool {
        let mut files = self.lock();
        if let Some(bytes) = files.remove(from) {
            files.insert(to.to_owned(), bytes);
        }
        files.get(to).is_some_and(|bytes| xxh3_64(bytes) == hash)
    }

    /// Removes all files whose path contains `part`.
    pub fn remove_all(&self, part: &str) {
        self.lock().retain(|path, _| !path.contains(part));
    }
}

struct Loan {
    bytes: Vec<u8>,
    out: Arc<AtomicUsize>,
}

impl FileMemory for Loan {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.out.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Op {
    Create(FileId, FileTarget),
    Append(FileId, FileBuffer),
    Finish(FileId),
}

#[derive(Default)]
struct Shared {
    ops: VecDeque<Op>,
    open: BTreeMap<FileId, (String, Vec<u8>)>,
    next: u64,
    starved: bool,
    /// Files whose path contains this cannot be written.
    broken: Option<String>,
}

/// One slot's files. Clones are the same.
#[derive(Clone)]
pub struct MemoryFiles {
    store: Store,
    shared: Arc<Mutex<Shared>>,
    out: Arc<AtomicUsize>,
    buffers: usize,
}

impl MemoryFiles {
    /// Files on a disk of their own, with `buffers` buffers.
    pub fn new(buffers: usize) -> Self {
        Self::on(Store::default(), 0, buffers)
    }

    /// Files on `store`; ids start at `first_id`, so that those of several slots differ.
    pub fn on(store: Store, first_id: u64, buffers: usize) -> Self {
        let shared = Shared { next: first_id, ..Shared::default() };
        MemoryFiles { store, shared: Arc::new(Mutex::new(shared)), out: Arc::default(), buffers }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Buffers that are not in the pool.
    pub fn on_loan(&self) -> usize {
        self.out.load(Ordering::Relaxed)
    }

    /// Files that were created and neither finished nor abandoned.
    pub fn open_files(&self) -> usize {
        self.lock().open.len()
    }

    /// From now on, files whose path contains `part` fail when they are finished.
    pub fn break_paths(&self, part: Option<&str>) {
        self.lock().broken = part.map(str::to_owned);
    }

    /// Whether anything was asked for that is not done yet.
    pub fn busy(&self) -> bool {
        !self.lock().ops.is_empty()
    }

    /// Does up to `ops` of what was asked for; gives what there is to tell.
    pub fn pump(&self, ops: usize) -> Vec<FileEvent> {
        let mut shared = self.lock();
        let mut events = Vec::new();
        for _ in 0..ops {
            let Some(op) = shared.ops.pop_front() else { break };
            match op {
                Op::Create(id, target) => {
                    shared.open.insert(id, (path(&target), Vec::new()));
                }
                Op::Append(id, buffer) => {
                    if let Some((_, bytes)) = shared.open.get_mut(&id) {
                        bytes.extend_from_slice(buffer.filled());
                    }
                }
                Op::Finish(id) => {
                    let Some((path, bytes)) = shared.open.remove(&id) else { continue };
                    let broken = shared.broken.as_ref().is_some_and(|part| path.contains(part.as_str()));
                    events.push(if broken {
                        FileEvent::Failed { file: id, cause: format!("{path}: no space left on device") }
                    } else {
                        let (len, hash) = (bytes.len() as u64, xxh3_64(&bytes));
                        self.store.write(&path, bytes);
                        FileEvent::Finished { file: id, receipt: FileReceipt { path, len, hash } }
                    });
                }
            }
        }
        if shared.starved && self.on_loan() < self.buffers {
            shared.starved = false;
            events.push(FileEvent::BuffersFree);
        }
        events
    }
}

fn path(target: &FileTarget) -> String {
    match target {
        FileTarget::Snapshot { checkpoint, attempt, vertex, subtask, operator, .. } => {
            format!("chk-{checkpoint}/{attempt}-{vertex}-{subtask}-{operator:016x}.state")
        }
        FileTarget::Output { path } => path.clone(),
    }
}

impl Files for MemoryFiles {
    fn buffers(&self) -> u32 {
        self.buffers as u32
    }

    fn create(&mut self, target: FileTarget) -> FileId {
        let mut shared = self.lock();
        let id = FileId(shared.next);
        shared.next += 1;
        shared.ops.push_back(Op::Create(id, target));
        id
    }

    fn try_buffer(&mut self) -> Option<FileBuffer> {
        if self.on_loan() >= self.buffers {
            self.lock().starved = true;
            return None;
        }
        self.out.fetch_add(1, Ordering::Relaxed);
        let bytes = vec![0; FILE_BUFFER_MIN];
        Some(FileBuffer::new(Box::new(Loan { bytes, out: Arc::clone(&self.out) })))
    }

    fn append(&mut self, file: FileId, buffer: FileBuffer) {
        self.lock().ops.push_back(Op::Append(file, buffer));
    }

    fn give_back(&mut self, buffer: FileBuffer) {
        drop(buffer);
    }

    fn finish(&mut self, file: FileId) {
        self.lock().ops.push_back(Op::Finish(file));
    }

    fn abandon(&mut self, file: FileId) {
        let mut shared = self.lock();
        shared.open.remove(&file);
        shared.ops.retain(|op| match op {
            Op::Create(id, _) | Op::Append(id, _) | Op::Finish(id) => *id != file,
        });
    }

    fn open_files(&self) -> u32 {
        let shared = self.lock();
        let created = shared.ops.iter().filter(|op| matches!(op, Op::Create(..))).count();
        (shared.open.len() + created) as u32
    }
}
