//! Output files and directories: renames, removals, syncs. Blocking; runs on a thread that may block.
//!
//! Stateless. Always: a rename is reported only after the directories it changed were synced; a target that
//! exists is never replaced.

use crate::layout;
use crate::limits::VERIFY_CHUNK_BYTES;
use crate::sink::{Move, Moved, SinkDone, SinkOp};
use crate::store::{StoreDone, StoreFault};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Renames `chk-<id>` aside. Done before counts as done.
pub(super) fn quarantine(root: &Path, job: u128, id: u64) -> Result<StoreDone, StoreFault> {
    let from = root.join(layout::checkpoint_dir(job, id));
    let to = root.join(layout::damaged_dir(job, id));
    match fs::rename(&from, &to) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(at(&from, e)),
    }
    sync_parent(&to)?;
    Ok(StoreDone::Done)
}

/// Deletes old checkpoints, metadata first, so that no half-deleted one looks complete.
pub(super) fn retain(root: &Path, job: u128, below: u64) -> Result<StoreDone, StoreFault> {
    let dir = root.join(layout::checkpoints_dir(job));
    for name in list(&dir)? {
        let old = layout::parse_checkpoint(&name).is_some_and(|(id, _)| id < below);
        if old {
            let path = dir.join(&name);
            remove_file(&path.join(layout::METADATA))?;
            remove_tree(&path)?;
        }
    }
    Ok(StoreDone::Done)
}

/// Deletes what a checkpoint that will never be published has beside the mark that says so.
pub(super) fn discard(root: &Path, job: u128, id: u64) -> Result<StoreDone, StoreFault> {
    let dir = root.join(layout::checkpoint_dir(job, id));
    for name in list(&dir)?.iter().filter(|name| *name != layout::METADATA) {
        remove_file(&dir.join(name))?;
    }
    Ok(StoreDone::Done)
}

/// Syncs a file of the store and every directory from it up to the root.
pub(super) fn sync_object(root: &Path, name: &str) -> Result<StoreDone, StoreFault> {
    let path = root.join(name);
    File::open(&path).and_then(|file| file.sync_all()).map_err(|e| at(&path, e))?;
    path.ancestors().skip(1).take_while(|dir| dir.starts_with(root)).try_for_each(sync_dir)?;
    Ok(StoreDone::Done)
}

/// Executes an operation on output files.
pub(super) fn sink(op: SinkOp) -> Result<SinkDone, StoreFault> {
    match op {
        SinkOp::ListPending { root } => list(&pending(&root)).map(SinkDone::Listed),
        SinkOp::MoveDir { root, from, to } => {
            let dir = pending(&root);
            move_dir(&dir.join(from), &dir.join(to)).map(SinkDone::Moved)
        }
        SinkOp::RemoveTree { root, name } => {
            remove_tree(&pending(&root).join(name))?;
            Ok(SinkDone::Done)
        }
        SinkOp::RemovePending { root } => {
            let dir = pending(&root);
            match fs::remove_dir(&dir) {
                Ok(()) => {}
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {}
                Err(e) => return Err(at(&dir, e)),
            }
            Ok(SinkDone::Done)
        }
        SinkOp::Rename { files } => rename_all(&files).map(SinkDone::Renamed),
        SinkOp::Probe { paths } => {
            let found: Result<Vec<_>, StoreFault> = paths.iter().map(|path| probe(Path::new(path))).collect();
            found.map(SinkDone::Probed)
        }
        SinkOp::Remove { paths } => {
            for path in &paths {
                remove_file(Path::new(path))?;
            }
            sync_parents(paths.iter())?;
            Ok(SinkDone::Done)
        }
        SinkOp::SyncParents { paths } => {
            sync_parents(paths.iter())?;
            Ok(SinkDone::Done)
        }
    }
}

fn pending(root: &str) -> PathBuf {
    Path::new(root).join(tidegate_graph::PENDING)
}

fn move_dir(from: &Path, to: &Path) -> Result<Moved, StoreFault> {
    if exists(to)? {
        return Ok(if exists(from)? { Moved::TargetExists } else { Moved::SourceAbsent });
    }
    match fs::rename(from, to) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Moved::SourceAbsent),
        Err(e) => return Err(at(from, e)),
    }
    sync_parent(to)?;
    Ok(Moved::Done)
}

fn rename_all(files: &[Move]) -> Result<Vec<Moved>, StoreFault> {
    let mut moved = Vec::with_capacity(files.len());
    for file in files {
        moved.push(rename(Path::new(&file.from), Path::new(&file.to), file.len)?);
    }
    let done = files.iter().zip(&moved).filter(|(_, moved)| **moved == Moved::Done);
    sync_parents(done.map(|(file, _)| &file.to))?;
    Ok(moved)
}

fn rename(from: &Path, to: &Path, len: u64) -> Result<Moved, StoreFault> {
    match fs::symlink_metadata(from) {
        Ok(meta) if meta.len() != len => return Ok(Moved::WrongLength(meta.len())),
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Moved::SourceAbsent),
        Err(e) => return Err(at(from, e)),
    }
    if exists(to)? {
        return Ok(Moved::TargetExists);
    }
    create_parents(to)?;
    match fs::rename(from, to) {
        Ok(()) => Ok(Moved::Done),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Moved::SourceAbsent),
        Err(e) => Err(at(to, e)),
    }
}

/// Creates the missing directories above `path`, each synced into its parent.
fn create_parents(path: &Path) -> Result<(), StoreFault> {
    let mut missing: Vec<&Path> = Vec::new();
    for dir in path.ancestors().skip(1) {
        if dir.as_os_str().is_empty() || exists(dir)? {
            break;
        }
        missing.push(dir);
    }
    for dir in missing.into_iter().rev() {
        match fs::create_dir(dir) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(at(dir, e)),
        }
        sync_parent(dir)?;
    }
    Ok(())
}

fn probe(path: &Path) -> Result<Option<(u64, u64)>, StoreFault> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(at(path, e)),
    };
    let mut hasher = Xxh3::new();
    let mut buffer = vec![0; VERIFY_CHUNK_BYTES];
    let mut len = 0;
    loop {
        let n = file.read(&mut buffer).map_err(|e| at(path, e))?;
        if n == 0 {
            return Ok(Some((len, hasher.digest())));
        }
        hasher.update(&buffer[..n]);
        len += n as u64;
    }
}

fn list(dir: &Path) -> Result<Vec<String>, StoreFault> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(at(dir, e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| at(dir, e))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

fn exists(path: &Path) -> Result<bool, StoreFault> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(at(path, e)),
    }
}

fn remove_file(path: &Path) -> Result<(), StoreFault> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(at(path, e)),
    }
}

fn remove_tree(path: &Path) -> Result<(), StoreFault> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(at(path, e)),
    }
}

fn sync_parents<'a>(paths: impl Iterator<Item = &'a String>) -> Result<(), StoreFault> {
    let parents: BTreeSet<&Path> = paths.filter_map(|path| Path::new(path).parent()).collect();
    parents.into_iter().try_for_each(sync_dir)
}

fn sync_parent(path: &Path) -> Result<(), StoreFault> {
    path.parent().map_or(Ok(()), sync_dir)
}

fn sync_dir(dir: &Path) -> Result<(), StoreFault> {
    match File::open(dir).and_then(|file| file.sync_all()) {
        Ok(()) => Ok(()),
        // Everything below it is gone with it.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(at(dir, e)),
    }
}

fn at(path: &Path, error: std::io::Error) -> StoreFault {
    StoreFault::io(path.display(), &error)
}
