//! The JobManager's directory: the lock, the cluster's id, and the jobs' records.
//!
//! One process owns it while it holds the lock. Layout: `lock`, `cluster`, `jobs/<id>/job.json` (and what the
//! checkpoint store keeps: `epochs/`, `jobs/<id>/checkpoints/`). Always: a record is replaced by rename after a
//! sync, so it is the old one or the new one; a record that cannot be read is reported, never overwritten.

use crate::record::{JobRecord, RECORD_VERSION};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use tidegate_rpc::{ClusterId, JobId};

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be created or written to.
    #[error("directory {path}: {source}; choose one that this user can write to")]
    Unusable {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another JobManager uses it.
    #[error(
        "directory {path} is in use by another JobManager (process {owner}); stop that one or choose another directory"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Process id of the owner, as it wrote it down.
        owner: String,
    },
    /// A file in it is not what was written.
    #[error("{path} is damaged: {reason}; restore it from a copy")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// An open directory. The lock is released when it is dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    cluster: ClusterId,
    _lock: File,
}

/// A job found in the directory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: JobId,
    pub(crate) record: Result<JobRecord, String>,
}

impl Directory {
    /// Opens or creates a directory and takes its lock.
    pub(crate) fn open(root: &Path) -> Result<Self, DirectoryError> {
        fs::create_dir_all(root).map_err(unusable(root))?;
        let root = root.canonicalize().map_err(unusable(root))?;
        let lock = take_lock(&root)?;
        fs::create_dir_all(root.join("jobs")).map_err(unusable(&root))?;
        let cluster = cluster(&root)?;
        Ok(Directory { root, cluster, _lock: lock })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// All jobs, by the time they were submitted.
    pub(crate) fn jobs(&self) -> Result<Vec<Entry>, DirectoryError> {
        let dir = self.root.join("jobs");
        let mut entries = Vec::new();
        for found in fs::read_dir(&dir).map_err(unusable(&dir))? {
            let name = found.map_err(unusable(&dir))?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse::<JobId>().ok()) else { continue };
            let path = record_path(&self.root, id);
            match fs::read(&path) {
                Ok(bytes) => entries.push(Entry { id, record: parse(id, &bytes) }),
                // A submission that was never answered.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => entries.push(Entry { id, record: Err(e.to_string()) }),
            }
        }
        entries
            .sort_by_key(|entry| (entry.record.as_ref().map_or(0, |record| record.submitted_ms), entry.id));
        Ok(entries)
    }
}

/// Writes a record durably: temporary file, sync, rename, sync of the directory. Blocking.
pub(crate) fn save(root: &Path, id: JobId, record: &JobRecord) -> Result<(), String> {
    let path = record_path(root, id);
    let dir = path.parent().expect("invariant: a record lies in its job's directory");
    let write = || -> std::io::Result<()> {
        if !dir.exists() {
            fs::create_dir_all(dir)?;
            sync_dir(&root.join("jobs"))?;
        }
        let bytes = serde_json::to_vec_pretty(record)?;
        let temporary = dir.join("job.json.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_dir(dir)
    };
    write().map_err(|e| format!("{}: {e}", path.display()))
}

/// Whether a job of this id was written down here, readable or not.
pub(crate) fn has_record(root: &Path, id: JobId) -> std::io::Result<bool> {
    record_path(root, id).try_exists()
}

/// A number that nobody can guess or repeat.
pub(crate) fn random_u128() -> std::io::Result<u128> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u128::from_le_bytes(bytes))
}

fn record_path(root: &Path, id: JobId) -> PathBuf {
    root.join("jobs").join(id.to_string()).join("job.json")
}

fn parse(id: JobId, bytes: &[u8]) -> Result<JobRecord, String> {
    let record: JobRecord = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if record.version != RECORD_VERSION {
        return Err(format!("version {}, this program reads {RECORD_VERSION}", record.version));
    }
    if record.id != id.to_string() {
        return Err(format!("it is the record of job {}", record.id));
    }
    record.graph.validate().map_err(|e| format!("its graph is invalid: {e}"))?;
    Ok(record)
}

fn take_lock(root: &Path) -> Result<File, DirectoryError> {
    let path = root.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(unusable(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let _ = file.read_to_string(&mut owner);
            return Err(DirectoryError::Locked { path: root.to_path_buf(), owner: owner.trim().to_owned() });
        }
        Err(TryLockError::Error(source)) => return Err(DirectoryError::Unusable { path, source }),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(unusable(&path))?;
    Ok(file)
}

fn cluster(root: &Path) -> Result<ClusterId, DirectoryError> {
    let path = root.join("cluster");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let id = text
                .trim()
                .parse::<JobId>()
                .map_err(|e| DirectoryError::Damaged { path: path.clone(), reason: e.to_string() })?;
            return Ok(ClusterId(id.0));
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(DirectoryError::Unusable { path, source }),
    }
    let write = || -> std::io::Result<ClusterId> {
        let cluster = ClusterId(random_u128()?.max(1));
        let temporary = root.join("cluster.tmp");
        let mut file = File::create(&temporary)?;
        writeln!(file, "{cluster}")?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_dir(root)?;
        Ok(cluster)
    };
    write().map_err(unusable(&path))
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

fn unusable(path: &Path) -> impl Fn(std::io::Error) -> DirectoryError + use<> {
    let path = path.to_path_buf();
    move |source| DirectoryError::Unusable { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::open(dir.path()).unwrap();
        let error = Directory::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        let cluster = first.cluster();
        drop(first);
        assert_eq!(Directory::open(dir.path()).unwrap().cluster(), cluster);
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in-the-way");
        fs::write(&path, "").unwrap();
        let error = Directory::open(&path.join("below")).unwrap_err().to_string();
        assert!(error.contains("in-the-way"), "{error}");
    }

    #[test]
    fn a_damaged_record_is_reported_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        let id = JobId(7);
        let path = record_path(directory.root(), id);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "{\"version\": 1, \"id\":").unwrap();
        let jobs = directory.jobs().unwrap();
        assert!(jobs[0].record.is_err());
        assert!(has_record(directory.root(), id).unwrap(), "its id is taken");
        assert!(!has_record(directory.root(), JobId(8)).unwrap());
    }
}
