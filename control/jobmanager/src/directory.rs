//! The JobManager's directory: the lock, the cluster's id, and the jobs' records.
//!
//! One process owns it while it holds the lock. Layout: `lock`, `cluster`, `jobs/<id>/job-<epoch>.json` (and what the
//! checkpoint store keeps: `epochs/`, `jobs/<id>/checkpoints/`). Always: a record is replaced by rename after a
//! sync, so it is the old one or the new one; a record that cannot be read is reported, never overwritten; a leader
//! writes under the name of its epoch and the newest name counts, so where a lock does not hold (a network file
//! system that lost it) one that was replaced cannot undo what its successor wrote.

use crate::record::{JobRecord, RECORD_VERSION};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use tidegate_checkpoint::local::{FileSystem, OwnFiles, make_dirs};
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
pub struct Entry {
    /// Its name.
    pub id: JobId,
    /// Its record, or why that cannot be read.
    pub record: Result<JobRecord, String>,
}

impl Directory {
    /// Opens or creates a directory and takes its lock.
    pub(crate) fn open(root: &Path) -> Result<Self, DirectoryError> {
        let root = make_dirs(root).map_err(unusable(root))?;
        let lock = take_lock(&root)?;
        make_dirs(&root.join("jobs")).map_err(unusable(&root))?;
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
        jobs(&OwnFiles, &self.root)
    }
}

/// All jobs of a directory, by the time they were submitted.
///
/// # Errors
/// It cannot be listed.
pub fn jobs(disk: &dyn FileSystem, root: &Path) -> Result<Vec<Entry>, DirectoryError> {
    let dir = root.join("jobs");
    let mut entries = Vec::new();
    for name in disk.list(&dir).map_err(unusable(&dir))? {
        let Ok(id) = name.parse::<JobId>() else { continue };
        let dir = job_dir(root, id);
        // Without one it is a submission that was never answered.
        let Some(epoch) = epochs(disk, &dir).map_err(unusable(&dir))?.into_iter().max() else { continue };
        let read = read(disk, &dir.join(record_name(epoch))).map_err(|e| e.to_string());
        entries.push(Entry { id, record: read.and_then(|bytes| parse(id, epoch, &bytes)) });
    }
    entries.sort_by_key(|entry| (entry.record.as_ref().map_or(0, |record| record.submitted_ms), entry.id));
    Ok(entries)
}

/// Writes a record durably: temporary file, sync, rename, sync of the directory; then those of older epochs go.
/// Blocking.
///
/// # Errors
/// What the system says, in words; the record may be there nevertheless.
pub fn save(disk: &dyn FileSystem, root: &Path, id: JobId, record: &JobRecord) -> Result<(), String> {
    let dir = job_dir(root, id);
    let path = dir.join(record_name(record.epoch));
    let write = || -> std::io::Result<()> {
        if disk.len(&path).is_err() {
            if disk.len(&dir).is_err() {
                disk.create_dir(&dir)?;
            }
            // Also if it was there: who made it may have died before this.
            disk.sync(&root.join("jobs"))?;
        }
        let bytes = serde_json::to_vec_pretty(record)?;
        let temporary = path.with_extension("json.tmp");
        disk.write_durably(&temporary, &bytes)?;
        disk.rename(&temporary, &path)?;
        disk.sync(&dir)?;
        let older = epochs(disk, &dir)?.into_iter().filter(|epoch| *epoch < record.epoch);
        // One that stays does not count; the next save tries again.
        older.for_each(|epoch| drop(disk.remove_file(&dir.join(record_name(epoch)))));
        Ok(())
    };
    write().map_err(|e| format!("{}: {e}", path.display()))
}

/// Whether a job of this id was written down here, readable or not.
pub(crate) fn has_record(root: &Path, id: JobId) -> std::io::Result<bool> {
    epochs(&OwnFiles, &job_dir(root, id)).map(|epochs| !epochs.is_empty())
}

/// A number that nobody can guess or repeat.
pub(crate) fn random_u128() -> std::io::Result<u128> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u128::from_le_bytes(bytes))
}

fn job_dir(root: &Path, id: JobId) -> PathBuf {
    root.join("jobs").join(id.to_string())
}

/// Name of the record that the leader of `epoch` writes.
fn record_name(epoch: u64) -> String {
    format!("job-{epoch}.json")
}

/// Epochs whose leaders wrote a record of the job.
fn epochs(disk: &dyn FileSystem, dir: &Path) -> std::io::Result<Vec<u64>> {
    let names = match disk.list(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        names => names?,
    };
    let epoch = |name: &String| name.strip_prefix("job-")?.strip_suffix(".json")?.parse::<u64>().ok();
    Ok(names.iter().filter_map(epoch).collect())
}

fn read(disk: &dyn FileSystem, path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    disk.open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(id: JobId, epoch: u64, bytes: &[u8]) -> Result<JobRecord, String> {
    let record: JobRecord = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if record.version != RECORD_VERSION {
        return Err(format!("version {}, this program reads {RECORD_VERSION}", record.version));
    }
    if record.id != id.to_string() {
        return Err(format!("it is the record of job {}", record.id));
    }
    if record.epoch != epoch {
        return Err(format!("it is the record of epoch {}, its name says {epoch}", record.epoch));
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
    fn a_leader_that_was_replaced_cannot_undo_what_its_successor_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        let id = JobId(7);
        let save = |epoch, attempt| {
            let record = JobRecord { epoch, attempt, ..crate::record::tests::record(id) };
            super::save(&OwnFiles, directory.root(), id, &record).unwrap();
        };
        let read = || directory.jobs().unwrap().remove(0).record.unwrap().attempt;
        save(1, 1);
        save(2, 5);
        assert_eq!(epochs(&OwnFiles, &job_dir(directory.root(), id)).unwrap(), [2], "the older one is gone");
        save(1, 2);
        assert_eq!(read(), 5);
        save(2, 6);
        assert_eq!(read(), 6);
    }

    #[test]
    fn a_damaged_record_is_reported_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        let id = JobId(7);
        let path = job_dir(directory.root(), id).join(record_name(1));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "{\"version\": 1, \"id\":").unwrap();
        let jobs = directory.jobs().unwrap();
        assert!(jobs[0].record.is_err());
        assert!(has_record(directory.root(), id).unwrap(), "its id is taken");
        assert!(!has_record(directory.root(), JobId(8)).unwrap());
    }
}
