//! File operations with the standard library, for hosts where io_uring is blocked.
//!
//! Owner of the state: the files thread holds the table of open files; each operation runs on a thread of the runtime's
//! small blocking pool, so a slow flush of one file does not hold up the writes of another.
//!
//! Always true: the core never has two operations of one file in flight, so a file is used by one thread at a time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use super::core::{Chunk, Done, FileKey, Operation};
use super::directories::{Directories, OwnFolders, parent_of, sync};

/// The open files of this engine.
#[derive(Default)]
pub(super) struct BlockingEngine {
    files: RefCell<HashMap<FileKey, Arc<File>>>,
    directories: Arc<Directories>,
}

impl BlockingEngine {
    /// Runs one operation to its end.
    pub(super) async fn run<B: Chunk>(&self, operation: Operation<B>) -> Done<B> {
        match operation {
            Operation::Open { key, path } => {
                let directories = Arc::clone(&self.directories);
                let opened = on_pool(move || create_new(&path, &directories)).await;
                let result = opened.map(|file| {
                    self.files.borrow_mut().insert(key, Arc::new(file));
                });
                Done { key, result, buffer: None }
            }
            Operation::Write { key, offset, buffer } => {
                let file = self.file(key);
                let work = tokio::task::spawn_blocking(move || {
                    let result = file.write_all_at(buffer.filled(), offset);
                    (result, buffer)
                });
                let (result, buffer) = work.await.expect("invariant: file operations do not panic");
                Done { key, result, buffer: Some(buffer) }
            }
            Operation::Sync { key } => {
                let file = self.file(key);
                done(key, on_pool(move || file.sync_all()).await)
            }
            Operation::Close { key } => {
                // The standard library does not tell whether closing failed; the flush before it did.
                let file = self.files.borrow_mut().remove(&key);
                done(
                    key,
                    on_pool(move || {
                        drop(file);
                        Ok(())
                    })
                    .await,
                )
            }
            Operation::SyncDirectory { key, directory } => done(key, on_pool(move || sync(&directory)).await),
            Operation::Remove { key, path } => done(key, on_pool(move || remove(&path)).await),
        }
    }

    fn file(&self, key: FileKey) -> Arc<File> {
        let files = self.files.borrow();
        files.get(&key).expect("invariant: the core opens a file before it uses it").clone()
    }
}

async fn on_pool<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.expect("invariant: file operations do not panic")
}

fn done<B>(key: FileKey, result: io::Result<()>) -> Done<B> {
    Done { key, result, buffer: None }
}

fn create_new(path: &Path, directories: &Directories) -> io::Result<File> {
    let directory = parent_of(path);
    if !directories.know(directory) {
        directories.make(directory, &OwnFolders)?;
    }
    let open = || OpenOptions::new().write(true).create_new(true).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            directories.make(directory, &OwnFolders)?; // It was there and is gone.
            open()
        }
        opened => opened,
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
