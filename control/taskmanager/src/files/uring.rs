//! File operations on tokio-uring, written from buffers that the kernel knows.
//!
//! Owner of the state: the files thread. The table of open files and the staging buffers never leave it.
//!
//! Always true:
//! - a staging buffer belongs to one write from the moment its permit is taken until the write's completion;
//! - `permits out + permits available = STAGING_BUFFERS`;
//! - only this thread's one runtime registers buffers (the crate takes a single registration per runtime).

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_arena::file_buffer::FileBuffer;
use tidegate_arena::{Arena, ArenaConfig, ArenaError, Holder, HolderKind, HugePages, SegmentSize};
use tidegate_rpc::caught;
use tokio::sync::Semaphore;
use tokio_uring::buf::BoundedBuf as _;
use tokio_uring::buf::fixed::FixedBufRegistry;
use tokio_uring::fs::{File, OpenOptions};

use super::core::{Chunk, Done, FileKey, Operation};
use super::directories::{Directories, OwnFolders, parent_of};
use crate::limits::{STAGING_BUFFER_BYTES, STAGING_BUFFERS};

/// How buffers reach the kernel.
enum Staging {
    /// Registered once; an operation names them by index.
    Registered(FixedBufRegistry<FileBuffer>),
    /// Locked memory was refused: the kernel maps them at each write.
    Plain(RefCell<Vec<FileBuffer>>),
}

/// The open files and the staging buffers.
pub(super) struct UringEngine {
    files: RefCell<HashMap<FileKey, Rc<File>>>,
    directories: Arc<Directories>,
    staging: Staging,
    /// Registered buffers that nobody uses.
    idle: RefCell<Vec<usize>>,
    permits: Semaphore,
}

impl UringEngine {
    /// Maps and registers the staging buffers. Must run inside a tokio-uring runtime. Gives the engine and, if the
    /// buffers stayed unregistered, why.
    ///
    /// # Errors
    /// The arena's, if there is no memory for the buffers.
    pub(super) fn new() -> Result<(Self, Option<io::Error>), ArenaError> {
        let registry = FixedBufRegistry::new(staging_buffers()?);
        let (staging, refused) = match registry.register() {
            Ok(()) => (Staging::Registered(registry), None),
            Err(error) => (Staging::Plain(RefCell::new(staging_buffers()?)), Some(error)),
        };
        let engine = Self {
            files: RefCell::default(),
            directories: Arc::default(),
            staging,
            idle: RefCell::new((0..STAGING_BUFFERS).collect()),
            permits: Semaphore::new(STAGING_BUFFERS),
        };
        Ok((engine, refused))
    }

    /// Runs one operation to its end.
    pub(super) async fn run<B: Chunk>(&self, operation: Operation<B>) -> Done<B> {
        let (key, result, buffer) = match operation {
            Operation::Open { key, path } => (key, self.open(key, &path).await, None),
            Operation::Write { key, offset, buffer } => {
                let result = self.write(key, offset, buffer.filled()).await;
                (key, result, Some(buffer))
            }
            Operation::Sync { key } => (key, self.file(key).sync_all().await, None),
            Operation::Close { key } => (key, self.close(key).await, None),
            Operation::SyncDirectory { key, directory } => (key, sync_directory(&directory).await, None),
            Operation::Remove { key, path } => (key, remove(&path).await, None),
        };
        Done { key, result, buffer }
    }

    async fn open(&self, key: FileKey, path: &Path) -> io::Result<()> {
        let directory = parent_of(path);
        if !self.directories.know(directory) {
            self.make(directory).await?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let file = match options.open(path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make(directory).await?; // It was there and is gone.
                options.open(path).await?
            }
            opened => opened?,
        };
        self.files.borrow_mut().insert(key, Rc::new(file));
        Ok(())
    }

    /// Makes a directory off this thread, once per attempt or checkpoint: flushing its entry takes as long as a file's.
    async fn make(&self, directory: &Path) -> io::Result<()> {
        let (directories, directory) = (Arc::clone(&self.directories), directory.to_path_buf());
        let made =
            async { tokio::task::spawn_blocking(move || directories.make(&directory, &OwnFolders)).await };
        match caught(made).await {
            Ok(made) => made.expect("invariant: file operations do not panic"),
            Err(panic) => Err(io::Error::other(panic)), // There is no thread for it.
        }
    }

    /// Copies the bytes piece by piece into staging buffers and writes them from there.
    async fn write(&self, key: FileKey, mut offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.file(key);
        for piece in bytes.chunks(STAGING_BUFFER_BYTES) {
            let _permit = self.permits.acquire().await.expect("invariant: the semaphore is never closed");
            match &self.staging {
                Staging::Registered(registry) => {
                    self.write_registered(registry, &file, offset, piece).await?
                }
                Staging::Plain(buffers) => write_plain(buffers, &file, offset, piece).await?,
            }
            offset += piece.len() as u64;
        }
        Ok(())
    }

    async fn write_registered(
        &self,
        registry: &FixedBufRegistry<FileBuffer>,
        file: &File,
        offset: u64,
        piece: &[u8],
    ) -> io::Result<()> {
        let index = self.idle.borrow_mut().pop().expect("invariant: a permit stands for an idle buffer");
        let mut staging = registry.check_out(index).expect("invariant: an idle buffer is checked in");
        staging[..piece.len()].copy_from_slice(piece);
        let (result, slice) = file.write_fixed_all_at(staging.slice(..piece.len()), offset).await;
        drop(slice); // Checks the buffer in before its index is offered again.
        self.idle.borrow_mut().push(index);
        result
    }

    async fn close(&self, key: FileKey) -> io::Result<()> {
        let file = self.files.borrow_mut().remove(&key);
        let file = file.expect("invariant: the core closes a file once, after it opened it");
        let file =
            Rc::into_inner(file).expect("invariant: no operation of a file is in flight when it is closed");
        file.close().await
    }

    fn file(&self, key: FileKey) -> Rc<File> {
        let files = self.files.borrow();
        files.get(&key).expect("invariant: the core opens a file before it uses it").clone()
    }
}

/// The thread's own small arena, all of it handed out: each buffer is one segment, wholly initialised.
fn staging_buffers() -> Result<Vec<FileBuffer>, ArenaError> {
    let config = ArenaConfig {
        segment_size: SegmentSize::new(STAGING_BUFFER_BYTES as u32)?,
        shards: vec![STAGING_BUFFERS as u32],
        huge_pages: HugePages::Never,
    };
    let (arena, mut shards) = Arena::map(&config)?;
    let zeros = vec![0; STAGING_BUFFER_BYTES];
    let buffers = (0..STAGING_BUFFERS).map(|index| {
        let holder = Holder::new(HolderKind::Snapshot, index as u32);
        let segment = shards[0].acquire(holder).expect("invariant: a fresh shard has all its segments");
        let mut buffer = FileBuffer::new(&arena, segment);
        buffer.append(&zeros);
        buffer
    });
    Ok(buffers.collect())
}

async fn write_plain(
    buffers: &RefCell<Vec<FileBuffer>>,
    file: &File,
    offset: u64,
    piece: &[u8],
) -> io::Result<()> {
    let mut staging = buffers.borrow_mut().pop().expect("invariant: a permit stands for an idle buffer");
    staging.clear();
    staging.append(piece);
    let (result, slice) = file.write_all_at(staging.slice(..piece.len()), offset).await;
    buffers.borrow_mut().push(slice.into_inner());
    result
}

async fn sync_directory(directory: &Path) -> io::Result<()> {
    let handle = File::open(directory).await?;
    let synced = handle.sync_all().await;
    handle.close().await?;
    synced
}

async fn remove(path: &Path) -> io::Result<()> {
    match tokio_uring::fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
