//! The files thread's decisions, without I/O: requests of slots and completions in, operations and events out.
//!
//! Owner of the state: the files thread, one `Core` for all slots of the TaskManager.
//!
//! Always true:
//! - at most one operation per file is in flight, so a file's bytes are written in the order they were handed in;
//! - every buffer that came in goes out exactly once as [`Event::Recycle`];
//! - every created file ends in exactly one [`Event::Finished`] or [`Event::Failed`], or in none if it was abandoned first;
//!   what comes for it afterwards is ignored;
//! - a receipt is given only after the bytes, the file's length and every directory entry on the way to it are synced.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;

use tidegate_exchange::plant::{Plant, planted};
use xxhash_rust::xxh3::Xxh3;

use super::directories::parent_of;

/// A buffer of bytes to append: the core reads it for the hash, the engine writes it.
pub trait Chunk: Send + 'static {
    /// The bytes to write.
    fn filled(&self) -> &[u8];
}

/// One file of one slot. Never used twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// The slot that owns the file.
    pub slot: u32,
    /// The slot's own number for it.
    pub file: u64,
}

/// What a slot asks for.
#[derive(Debug)]
pub enum Request<B> {
    /// Make a new file; its directories are made, and their entries synced, as needed.
    Create {
        /// Name for the requests to come.
        key: FileKey,
        /// Where. A file that exists is a fault: nothing is ever overwritten.
        path: PathBuf,
        /// What its receipt calls it.
        name: String,
    },
    /// Append the buffer's bytes.
    Append {
        /// The file.
        key: FileKey,
        /// The bytes; the buffer comes back.
        buffer: B,
    },
    /// Sync and close; the receipt follows.
    Finish {
        /// The file.
        key: FileKey,
    },
    /// Close and remove; nothing follows.
    Abandon {
        /// The file.
        key: FileKey,
    },
    /// Abandon every file of a slot that is gone.
    AbandonSlot {
        /// The slot.
        slot: u32,
    },
}

/// One operation for the engine. Each is answered by one [`Done`].
#[derive(Debug)]
pub enum Operation<B> {
    /// Open a new file, making missing directories and syncing their entries first.
    Open {
        /// The file.
        key: FileKey,
        /// Its path.
        path: PathBuf,
    },
    /// Write all bytes of the buffer at the offset.
    Write {
        /// The file.
        key: FileKey,
        /// Where in the file, in bytes.
        offset: u64,
        /// The bytes.
        buffer: B,
    },
    /// Flush data and metadata of the file.
    Sync {
        /// The file.
        key: FileKey,
    },
    /// Close it.
    Close {
        /// The file.
        key: FileKey,
    },
    /// Flush the entries of the file's directory.
    SyncDirectory {
        /// On behalf of this file.
        key: FileKey,
        /// The directory.
        directory: PathBuf,
    },
    /// Remove the file; one that is not there is fine.
    Remove {
        /// The file.
        key: FileKey,
        /// Its path.
        path: PathBuf,
    },
}

/// The engine's answer to one [`Operation`].
#[derive(Debug)]
pub struct Done<B> {
    /// The file.
    pub key: FileKey,
    /// How it went.
    pub result: io::Result<()>,
    /// For `Write`: the buffer.
    pub buffer: Option<B>,
}

/// What the slot hears.
#[derive(Debug)]
pub enum Event<B> {
    /// The buffer is free again.
    Recycle {
        /// Whose it is.
        slot: u32,
        /// The buffer.
        buffer: B,
    },
    /// The file is on the disk.
    Finished {
        /// The file.
        key: FileKey,
        /// What `Create` called it.
        name: String,
        /// Length in bytes.
        len: u64,
        /// xxh3-64 of all bytes.
        hash: u64,
    },
    /// The file could not be written; what there was of it is removed.
    Failed {
        /// The file.
        key: FileKey,
        /// What went wrong, where.
        fault: FileFault,
    },
    /// The file is forgotten; the last event of each file, abandoned ones included.
    Over {
        /// The file.
        key: FileKey,
    },
}

/// What an operation on a file failed with.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}{}", path.display(), advice(source))]
pub struct FileFault {
    /// What was being done.
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The operating system's answer.
    #[source]
    pub source: io::Error,
}

/// What the operator of the machine can do about an error that waiting does not cure.
const PERMANENT: [(io::ErrorKind, &str); 4] = [
    (io::ErrorKind::PermissionDenied, "; let this user write there or name another directory"),
    (io::ErrorKind::ReadOnlyFilesystem, "; name a directory on a writable filesystem"),
    (io::ErrorKind::AlreadyExists, "; files are never overwritten: remove it or name another directory"),
    (io::ErrorKind::NotADirectory, "; a part of this path is a file: name another directory"),
];

/// The same for errors that may pass.
const PASSING: [(io::ErrorKind, &str); 2] = [
    (io::ErrorKind::StorageFull, "; free space there or name another directory"),
    (io::ErrorKind::QuotaExceeded, "; raise the quota or name another directory"),
];

fn advice(error: &io::Error) -> &'static str {
    let mut known = PERMANENT.iter().chain(&PASSING);
    known.find(|(kind, _)| *kind == error.kind()).map_or("", |(_, advice)| advice)
}

/// Whether a cause, as [`FileFault`] words it, is one that trying again does not cure. Faults travel through the slot
/// as text, so the text is what there is to look at.
pub fn is_permanent(cause: &str) -> bool {
    PERMANENT.iter().any(|(_, advice)| cause.contains(advice))
}

/// What the owner wants to happen to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Write,
    Finish,
    Abandon,
}

/// Where a file is. `true` in `busy` means that the operation named by the step is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    Write,
    Sync,
    Close,
    SyncDirectory,
    Remove,
    /// Nothing left to do.
    Over,
}

struct FileState<B> {
    path: PathBuf,
    name: String,
    step: Step,
    busy: bool,
    opened: bool,
    closed: bool,
    wish: Wish,
    failed: bool,
    queue: VecDeque<B>,
    len: u64,
    hash: Xxh3,
}

/// The state of all files of a TaskManager.
pub struct Core<B> {
    files: BTreeMap<FileKey, FileState<B>>,
    operations: VecDeque<Operation<B>>,
    events: VecDeque<Event<B>>,
}

impl<B: Chunk> Default for Core<B> {
    fn default() -> Self {
        Self { files: BTreeMap::new(), operations: VecDeque::new(), events: VecDeque::new() }
    }
}

impl<B: Chunk> Core<B> {
    /// Takes one request. Requests about files that are gone are answered by giving their buffer back.
    pub fn handle_request(&mut self, request: Request<B>) {
        match request {
            Request::Create { key, path, name } => self.create(key, path, name),
            Request::Append { key, buffer } => {
                match self.files.get_mut(&key) {
                    Some(file) if file.wish == Wish::Write && !file.failed => file.queue.push_back(buffer),
                    _ => self.events.push_back(Event::Recycle { slot: key.slot, buffer }),
                }
                self.advance(key);
            }
            Request::Finish { key } => self.wish(key, Wish::Finish),
            Request::Abandon { key } => self.wish(key, Wish::Abandon),
            Request::AbandonSlot { slot } => {
                let keys: Vec<FileKey> = self.files.keys().filter(|key| key.slot == slot).copied().collect();
                for key in keys {
                    self.wish(key, Wish::Abandon);
                }
            }
        }
    }

    /// Takes the answer to one operation.
    pub fn handle_done(&mut self, done: Done<B>) {
        let Done { key, result, buffer } = done;
        if let Some(buffer) = buffer {
            self.events.push_back(Event::Recycle { slot: key.slot, buffer });
        }
        let file = self
            .files
            .get_mut(&key)
            .expect("invariant: a file stays known while an operation of it is in flight");
        assert!(file.busy, "an answer for {key:?} without an operation");
        file.busy = false;
        match result {
            Ok(()) => file.completed(),
            Err(source) => {
                if let Some(fault) = file.fail(source) {
                    self.events.push_back(Event::Failed { key, fault });
                }
            }
        }
        self.advance(key);
    }

    /// The next operation to start, if any.
    pub fn poll_operation(&mut self) -> Option<Operation<B>> {
        self.operations.pop_front()
    }

    /// The next event to deliver, if any.
    pub fn poll_event(&mut self) -> Option<Event<B>> {
        self.events.pop_front()
    }

    /// Files that are not over yet.
    pub fn files_open(&self) -> usize {
        self.files.len()
    }

    fn create(&mut self, key: FileKey, path: PathBuf, name: String) {
        let previous = self.files.insert(
            key,
            FileState {
                path,
                name,
                step: Step::Open,
                busy: false,
                opened: false,
                closed: false,
                wish: Wish::Write,
                failed: false,
                queue: VecDeque::new(),
                len: 0,
                hash: Xxh3::new(),
            },
        );
        assert!(previous.is_none(), "file key {key:?} was used twice");
        self.advance(key);
    }

    fn wish(&mut self, key: FileKey, wish: Wish) {
        if let Some(file) = self.files.get_mut(&key) {
            if file.wish != Wish::Abandon {
                file.wish = wish;
            }
            self.advance(key);
        }
    }

    /// Starts the file's next operation if none is in flight, and forgets the file when it is over.
    fn advance(&mut self, key: FileKey) {
        let Some(file) = self.files.get_mut(&key) else { return };
        if file.unwanted() {
            for buffer in file.queue.drain(..) {
                self.events.push_back(Event::Recycle { slot: key.slot, buffer });
            }
        }
        if file.busy {
            return;
        }
        file.choose_step();
        match file.next_operation(key) {
            Some(operation) => {
                file.busy = true;
                self.operations.push_back(operation);
            }
            None if file.step == Step::Over => {
                let file = self.files.remove(&key).expect("invariant: looked up above");
                if !file.unwanted() {
                    let hash = file.hash.digest();
                    self.events.push_back(Event::Finished { key, name: file.name, len: file.len, hash });
                }
                self.events.push_back(Event::Over { key });
            }
            None => {}
        }
    }
}

impl<B: Chunk> FileState<B> {
    /// Nobody waits for this file any more.
    fn unwanted(&self) -> bool {
        self.failed || self.wish == Wish::Abandon
    }

    /// An operation came back well: note what it did and go on to the next step.
    fn completed(&mut self) {
        self.step = match self.step {
            Step::Open => {
                self.opened = true;
                Step::Write
            }
            Step::Write => Step::Write,
            Step::Sync => Step::Close,
            Step::Close => {
                self.closed = true;
                Step::SyncDirectory
            }
            Step::SyncDirectory | Step::Remove => Step::Over,
            Step::Over => unreachable!("nothing is in flight for a file that is over"),
        };
    }

    /// An operation failed. Gives the fault to report, once per file and never for one that was abandoned.
    fn fail(&mut self, source: io::Error) -> Option<FileFault> {
        let (action, path) = match self.step {
            Step::Open => ("create", self.path.clone()),
            Step::Write => ("write", self.path.clone()),
            Step::Sync => ("flush", self.path.clone()),
            Step::Close => {
                self.closed = true; // Linux closes the descriptor whatever it answers.
                ("close", self.path.clone())
            }
            Step::SyncDirectory => ("flush the directory of", self.path.clone()),
            Step::Remove | Step::Over => {
                // What remains is a pending file that no checkpoint names.
                self.step = Step::Over;
                return None;
            }
        };
        let report = !self.unwanted();
        self.failed = true;
        report.then_some(FileFault { action, path, source })
    }

    /// Turns towards the end when the file is unwanted or all is written.
    fn choose_step(&mut self) {
        if self.unwanted() {
            self.step = match (self.opened, self.closed, self.step) {
                (_, _, Step::Over) | (false, _, _) => Step::Over,
                (true, false, _) => Step::Close,
                (true, true, _) => Step::Remove,
            };
        } else if self.step == Step::Write && self.queue.is_empty() && self.wish == Wish::Finish {
            self.step = if planted(Plant::SkipFsync) { Step::Close } else { Step::Sync };
        }
    }

    fn next_operation(&mut self, key: FileKey) -> Option<Operation<B>> {
        match self.step {
            Step::Open => Some(Operation::Open { key, path: self.path.clone() }),
            Step::Write => {
                let buffer = self.queue.pop_front()?;
                let offset = self.len;
                self.hash.update(buffer.filled());
                self.len += buffer.filled().len() as u64;
                Some(Operation::Write { key, offset, buffer })
            }
            Step::Sync => Some(Operation::Sync { key }),
            Step::Close => Some(Operation::Close { key }),
            Step::SyncDirectory => {
                Some(Operation::SyncDirectory { key, directory: parent_of(&self.path).to_path_buf() })
            }
            Step::Remove => Some(Operation::Remove { key, path: self.path.clone() }),
            Step::Over => None,
        }
    }
}
