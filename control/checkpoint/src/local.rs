//! The shell: executes store operations on a local directory, objects through `object_store` with fsync, output
//! files and renames through the file system on blocking threads.
//!
//! It decides nothing and remembers nothing but its root. Always: `Created` is answered only after the object
//! and its directory were synced; an error that may hide a success is answered `Failed`, never `Done`.

mod files;
mod objects;
mod system;

pub use self::system::{FileSystem, OwnFiles, make_dirs};
use crate::store::{StoreDone, StoreFault, StoreOp};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A store in a local directory. Clones share it.
///
/// ```
/// use tidegate_checkpoint::{LocalStore, StoreDone, StoreOp};
/// # let dir = tempfile::tempdir().unwrap();
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = LocalStore::open(dir.path()).unwrap();
/// assert_eq!(store.execute(StoreOp::NewestEpoch).await, StoreDone::Newest(0));
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct LocalStore {
    root: PathBuf,
    objects: Arc<dyn ObjectStore>,
    disk: Arc<dyn FileSystem>,
}

/// Why a directory cannot be a store.
#[derive(Debug, thiserror::Error)]
pub enum LocalStoreError {
    /// It cannot be created.
    #[error(
        "store directory {path}: cannot be created ({source}); choose a directory this user can write to"
    )]
    Create {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It exists, but nothing can be written there.
    #[error("store directory {path}: cannot be written to ({source}); choose another or change its owner")]
    Write {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It cannot be opened as a store.
    #[error("store directory {path}: {reason}")]
    Open {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl LocalStore {
    /// Opens a directory as a store, creating it if it is absent.
    ///
    /// # Errors
    /// [`LocalStoreError`] if it cannot be created or written to.
    pub fn open(root: &Path) -> Result<Self, LocalStoreError> {
        let path = || root.to_path_buf();
        let root = make_dirs(root).map_err(|source| LocalStoreError::Create { path: path(), source })?;
        let probe = root.join(format!(".probe-{}", std::process::id()));
        std::fs::write(&probe, b"")
            .and_then(|()| std::fs::remove_file(&probe))
            .map_err(|source| LocalStoreError::Write { path: root.clone(), source })?;
        let objects = LocalFileSystem::new_with_prefix(&root)
            .map_err(|e| LocalStoreError::Open { path: root.clone(), reason: e.to_string() })?
            .with_fsync(true);
        Ok(LocalStore { root, objects: Arc::new(objects), disk: Arc::new(OwnFiles) })
    }

    /// A store in a directory that is there, of another file system; `objects` are what lies below that directory.
    pub fn over(root: &Path, objects: Arc<dyn ObjectStore>, disk: Arc<dyn FileSystem>) -> Self {
        LocalStore { root: root.to_path_buf(), objects, disk }
    }

    /// The directory, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Executes one operation. Within a tokio runtime blocking work leaves its threads free; elsewhere it is done in place.
    pub async fn execute(&self, op: StoreOp) -> StoreDone {
        let result = match op {
            StoreOp::ReadEpochs => self.read_epochs().await,
            StoreOp::ClaimEpoch(record) => self.claim_epoch(&record).await,
            StoreOp::SettleEpoch(record) => self.settle_epoch(&record).await,
            StoreOp::NewestEpoch => self.newest_epoch().await,
            StoreOp::Scan { job } => self.scan(job).await,
            StoreOp::PutMetadata { metadata, outputs } => self.put_metadata(&metadata, outputs).await,
            StoreOp::ReadMetadata { job, id } => self.read_metadata(job, id).await,
            StoreOp::VoidMetadata { job, id } => self.void_metadata(job, id).await,
            StoreOp::Verify { job, id } => self.verify(job, id).await,
            StoreOp::ReadOutputs { job, id, expected } => self.read_outputs(job, id, expected).await,
            StoreOp::Quarantine { job, id } => {
                self.blocking(move |disk, root| files::quarantine(disk, root, job, id)).await
            }
            StoreOp::Retain { job, below } => {
                self.blocking(move |disk, root| files::retain(disk, root, job, below)).await
            }
            StoreOp::Discard { job, ids } => self.discard(job, &ids).await,
            StoreOp::Sink(op) => {
                self.blocking(move |disk, _| files::sink(disk, op).map(StoreDone::Sink)).await
            }
        };
        result.unwrap_or_else(StoreDone::Failed)
    }

    async fn blocking(
        &self,
        work: impl FnOnce(&dyn FileSystem, &Path) -> Result<StoreDone, StoreFault> + Send + 'static,
    ) -> Result<StoreDone, StoreFault> {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return work(&*self.disk, &self.root) };
        let (disk, root) = (Arc::clone(&self.disk), self.root.clone());
        runtime
            .spawn_blocking(move || work(&*disk, &root))
            .await
            .map_err(|e| StoreFault::from(format!("a store thread ended: {e}")))?
    }
}
