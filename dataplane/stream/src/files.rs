//! The files thread, seen from a slot: bounded buffers out, receipts back; and `Appender`, which fills buffers.
//!
//! The implementation owns every file and every buffer; a slot holds a buffer only between `try_buffer` and
//! `append`/`give_back`. Nothing here blocks: having no buffer is an answer, and the task parks on it.
//! Always: bytes appended to one file arrive in order; after `finish` or `abandon` its id is never used again
//! by the slot; each `finish` is answered by exactly one `FileEvent` for that id.

use std::any::Any;
use std::fmt;

use tidegate_memory::outside_accounts;

use crate::error::{Fault, TaskError};
use crate::limits::FILE_BUFFER_MIN;

/// One open file of the files thread, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// What a file is for; the implementation knows which path that is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileTarget {
    /// The snapshot of one operator instance: `<checkpoints>/chk-<checkpoint>/<attempt>-<vertex>-<subtask>-<operator>.state`.
    Snapshot {
        /// Job id.
        job: u128,
        /// Checkpoint number.
        checkpoint: u64,
        /// Attempt of the job.
        attempt: u32,
        /// Vertex of the task.
        vertex: u32,
        /// Subtask of the task.
        subtask: u32,
        /// Operator id.
        operator: u64,
    },
    /// A sink's file, by path; missing folders are made. An existing file is an error.
    Output {
        /// Where to write.
        path: String,
    },
}

/// What a finished file turned out to be; the file and its directory entry are on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReceipt {
    /// Where the file is.
    pub path: String,
    /// Its length in bytes.
    pub len: u64,
    /// xxh3 (64 bit) of all its bytes.
    pub hash: u64,
}

/// What the files thread tells a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileEvent {
    /// The file is complete and synced.
    Finished {
        /// Which file.
        file: FileId,
        /// What it is now.
        receipt: FileReceipt,
    },
    /// The file could not be created, written or synced; it is gone, and its id with it.
    Failed {
        /// Which file.
        file: FileId,
        /// The operating system's words, with the path.
        cause: String,
    },
    /// Buffers are free again after `try_buffer` had none.
    BuffersFree,
}

impl FileEvent {
    /// The file the event is about.
    pub fn file(&self) -> Option<FileId> {
        match self {
            FileEvent::Finished { file, .. } | FileEvent::Failed { file, .. } => Some(*file),
            FileEvent::BuffersFree => None,
        }
    }
}

/// Memory behind a `FileBuffer`: a fixed buffer of a ring, or a plain vector.
pub trait FileMemory: Send + Any {
    /// All of it.
    fn bytes(&self) -> &[u8];
    /// All of it, to write.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// For the implementation of `Files`, to get its own type back.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

impl FileMemory for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// A buffer on loan from the files thread: fixed capacity, filled from the front.
pub struct FileBuffer {
    memory: Box<dyn FileMemory>,
    len: u32,
    /// Length of the memory, kept here because it is asked for per record.
    capacity: u32,
}

impl FileBuffer {
    /// An empty buffer over `memory`, which must have at least `FILE_BUFFER_MIN` bytes.
    pub fn new(memory: Box<dyn FileMemory>) -> Self {
        let capacity = memory.bytes().len();
        assert!(
            capacity >= FILE_BUFFER_MIN,
            "file buffers have {FILE_BUFFER_MIN} bytes at least, got {capacity}"
        );
        let capacity = u32::try_from(capacity).expect("invariant: file buffers have less than 4 GiB");
        FileBuffer { memory, len: 0, capacity }
    }

    /// Bytes filled.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether nothing was filled.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes still free.
    pub fn spare(&self) -> usize {
        (self.capacity - self.len) as usize
    }

    /// The filled bytes.
    pub fn filled(&self) -> &[u8] {
        &self.memory.bytes()[..self.len()]
    }

    /// The free bytes behind the filled ones; count what you fill with `advance`.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let len = self.len();
        &mut self.memory.bytes_mut()[len..]
    }

    /// Counts `n` of the spare bytes as filled.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.spare(), "{n} bytes filled, {} were free", self.spare());
        self.len += n as u32;
    }

    /// Overwrites filled bytes at `at`; for lengths that are known only afterwards.
    pub fn patch(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len(), "only filled bytes can be patched");
        self.memory.bytes_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Memory and filled length, for the implementation of `Files`.
    pub fn into_parts(self) -> (Box<dyn FileMemory>, u32) {
        (self.memory, self.len)
    }
}

impl fmt::Debug for FileBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBuffer").field("len", &self.len).field("spare", &self.spare()).finish()
    }
}

/// The files thread, seen from a slot. All calls return at once; failures come as `FileEvent::Failed`, and calls for a
/// file that has failed do nothing but take their buffer back. A `FileBuffer` that is dropped instead of given back (its
/// task panicked) returns through the drop of its `FileMemory`.
pub trait Files: Send {
    /// How many buffers this slot can have on loan at once. Each open file of a task holds at most one.
    fn buffers(&self) -> u32;
    /// Starts a file. Opening happens later, so an error of it comes back as an event.
    fn create(&mut self, target: FileTarget) -> FileId;
    /// A buffer, or none: then a `FileEvent::BuffersFree` follows as soon as one is free.
    fn try_buffer(&mut self) -> Option<FileBuffer>;
    /// Writes the filled bytes behind what the file has; the buffer goes back to the pool afterwards.
    fn append(&mut self, file: FileId, buffer: FileBuffer);
    /// Returns a buffer unused.
    fn give_back(&mut self, buffer: FileBuffer);
    /// Syncs and closes the file and its directory; answered by `Finished` or `Failed`.
    fn finish(&mut self, file: FileId);
    /// Closes and removes the file; not answered.
    fn abandon(&mut self, file: FileId);
    /// Files of this slot that may still be touched: created, and neither safe nor gone. When it falls to none a
    /// `FileEvent` follows. An attempt is not over before: whoever cleans up behind it must not meet a late file.
    fn open_files(&self) -> u32;
}

/// The files thread as a task sees it. What it takes and gives is the runtime's: it outlives the task's step and is freed
/// elsewhere, so none of it goes to the task's account.
pub(crate) struct Uncounted<'a>(pub(crate) &'a mut dyn Files);

impl Files for Uncounted<'_> {
    fn buffers(&self) -> u32 {
        self.0.buffers()
    }

    fn create(&mut self, target: FileTarget) -> FileId {
        let files = &mut *self.0;
        outside_accounts(|| files.create(target.clone()))
    }

    fn try_buffer(&mut self) -> Option<FileBuffer> {
        let files = &mut *self.0;
        outside_accounts(|| files.try_buffer())
    }

    fn append(&mut self, file: FileId, buffer: FileBuffer) {
        let files = &mut *self.0;
        outside_accounts(|| files.append(file, buffer));
    }

    fn give_back(&mut self, buffer: FileBuffer) {
        let files = &mut *self.0;
        outside_accounts(|| files.give_back(buffer));
    }

    fn finish(&mut self, file: FileId) {
        let files = &mut *self.0;
        outside_accounts(|| files.finish(file));
    }

    fn abandon(&mut self, file: FileId) {
        let files = &mut *self.0;
        outside_accounts(|| files.abandon(file));
    }

    fn open_files(&self) -> u32 {
        self.0.open_files()
    }
}

/// Fills one file buffer by buffer. Always: `len` counts every byte put in since the file was created.
///
/// ```
/// use tidegate_stream::files::{Appender, FileTarget, Files};
/// use tidegate_stream::testing::MemoryFiles;
/// let mut files = MemoryFiles::new(4);
/// let mut rows = Appender::create(&mut files, FileTarget::Output { path: "out/part-0.csv".into() });
/// assert!(rows.room(&mut files, 6));
/// rows.put(b"a,1\n").unwrap();
/// let (file, len) = rows.finish(&mut files);
/// assert_eq!(len, 4);
/// # let _ = file;
/// ```
#[derive(Debug)]
pub struct Appender {
    file: FileId,
    buffer: Option<FileBuffer>,
    len: u64,
}

impl Appender {
    /// Starts a file.
    pub fn create(files: &mut dyn Files, target: FileTarget) -> Self {
        Appender { file: files.create(target), buffer: None, len: 0 }
    }

    /// The file being filled.
    pub fn file(&self) -> FileId {
        self.file
    }

    /// Bytes put in so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was put in yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `bytes` (at most `FILE_BUFFER_MIN`) fit into one buffer now. Hands a buffer that is too full to the
    /// files thread and takes a fresh one; false means that there is none, and `BuffersFree` will come.
    #[inline]
    pub fn room(&mut self, files: &mut dyn Files, bytes: usize) -> bool {
        match &self.buffer {
            Some(buffer) if buffer.spare() >= bytes => true,
            _ => self.renew(files, bytes),
        }
    }

    #[cold]
    fn renew(&mut self, files: &mut dyn Files, bytes: usize) -> bool {
        assert!(
            bytes <= FILE_BUFFER_MIN,
            "a file buffer may be as small as {FILE_BUFFER_MIN} bytes, {bytes} wanted"
        );
        if let Some(full) = self.buffer.take() {
            files.append(self.file, full);
        }
        self.buffer = files.try_buffer();
        self.buffer.is_some()
    }

    /// The free bytes of the current buffer: at least as many as the last successful `room` asked for.
    pub fn spare(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map_or(&mut [], FileBuffer::spare_mut)
    }

    /// Counts `n` bytes of `spare` as put in.
    pub fn advance(&mut self, n: usize) {
        if n > 0 {
            self.buffer.as_mut().expect("invariant: bytes were put into a buffer that exists").advance(n);
            self.len += n as u64;
        }
    }

    /// Puts `bytes` in. Errors with `Fault::Files` if they do not fit: ask `room` first.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), TaskError> {
        let spare = self.spare();
        let Some(place) = spare.get_mut(..bytes.len()) else {
            let message =
                format!("{} bytes put into a file buffer with room for {}", bytes.len(), spare.len());
            return Err(TaskError::new(Fault::Files, message));
        };
        place.copy_from_slice(bytes);
        self.advance(bytes.len());
        Ok(())
    }

    /// The buffer being filled, if any; for writers that patch lengths into it.
    pub fn buffer_mut(&mut self) -> Option<&mut FileBuffer> {
        self.buffer.as_mut()
    }

    /// Hands over the last buffer and finishes the file; gives its id and length. A `FileEvent` follows.
    pub fn finish(self, files: &mut dyn Files) -> (FileId, u64) {
        match self.buffer {
            Some(buffer) if buffer.is_empty() => files.give_back(buffer),
            Some(buffer) => files.append(self.file, buffer),
            None => {}
        }
        files.finish(self.file);
        (self.file, self.len)
    }

    /// Gives everything up.
    pub fn abandon(self, files: &mut dyn Files) {
        if let Some(buffer) = self.buffer {
            files.give_back(buffer);
        }
        files.abandon(self.file);
    }
}
