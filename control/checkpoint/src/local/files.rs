//! Output files and directories: renames, removals, syncs. Blocking; runs on a thread that may block.
//!
//! Stateless. Always: a rename, and a removal below an output directory, is reported only after the directories it
//! changed were synced; a target that exists is never replaced.

use super::FileSystem;
use crate::layout;
use crate::limits::VERIFY_CHUNK_BYTES;
use crate::sink::{Move, Moved, SinkDone, SinkOp};
use crate::store::{StoreDone, StoreFault};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tidegate_plant::{Plant, planted};
use xxhash_rust::xxh3::Xxh3;

/// Renames `chk-<id>` aside. Done before counts as done.
pub(super) fn quarantine(
    disk: &dyn FileSystem,
    root: &Path,
    job: u128,
    id: u64,
) -> Result<StoreDone, StoreFault> {
    let from = root.join(layout::checkpoint_dir(job, id));
    let to = root.join(layout::damaged_dir(job, id));
    match disk.rename(&from, &to) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(at(&from, e)),
    }
    sync_parent(disk, &to)?;
    Ok(StoreDone::Done)
}

/// Deletes old checkpoints, metadata first, so that no half-deleted one looks complete.
pub(super) fn retain(
    disk: &dyn FileSystem,
    root: &Path,
    job: u128,
    below: u64,
) -> Result<StoreDone, StoreFault> {
    let dir = root.join(layout::checkpoints_dir(job));
    for name in list(disk, &dir)? {
        let old = layout::parse_checkpoint(&name).is_some_and(|(id, _)| id < below);
        if old {
            let path = dir.join(&name);
            // A loss of power must not bring back what names files that are gone: it would look like damage.
            remove_file(disk, &path.join(layout::METADATA))?;
            sync_dir(disk, &path)?;
            remove_tree(disk, &path)?;
        }
    }
    Ok(StoreDone::Done)
}

/// Deletes what a checkpoint that will never be published has beside the mark that says so.
pub(super) fn discard(
    disk: &dyn FileSystem,
    root: &Path,
    job: u128,
    id: u64,
) -> Result<StoreDone, StoreFault> {
    let dir = root.join(layout::checkpoint_dir(job, id));
    for name in list(disk, &dir)?.iter().filter(|name| *name != layout::METADATA) {
        remove_file(disk, &dir.join(name))?;
    }
    Ok(StoreDone::Done)
}

/// Syncs a file of the store and every directory from it up to the root.
pub(super) fn sync_object(disk: &dyn FileSystem, root: &Path, name: &str) -> Result<StoreDone, StoreFault> {
    let path = root.join(name);
    disk.sync(&path).map_err(|e| at(&path, e))?;
    path.ancestors()
        .skip(1)
        .take_while(|dir| dir.starts_with(root))
        .try_for_each(|dir| sync_dir(disk, dir))?;
    Ok(StoreDone::Done)
}

/// Executes an operation on output files.
pub(super) fn sink(disk: &dyn FileSystem, op: SinkOp) -> Result<SinkDone, StoreFault> {
    match op {
        SinkOp::ListPending { root } => list(disk, &pending(&root)).map(SinkDone::Listed),
        SinkOp::MoveDir { root, from, to } => {
            let dir = pending(&root);
            move_dir(disk, &dir.join(from), &dir.join(to)).map(SinkDone::Moved)
        }
        SinkOp::RemoveTree { root, name } => {
            let dir = pending(&root);
            remove_tree(disk, &dir.join(name))?;
            // Whoever hears of it may say that the output is clean, once and for all.
            sync_dir(disk, &dir)?;
            Ok(SinkDone::Done)
        }
        SinkOp::RemovePending { root } => {
            let dir = pending(&root);
            match disk.remove_dir(&dir) {
                Ok(()) => {}
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {}
                Err(e) => return Err(at(&dir, e)),
            }
            sync_parent(disk, &dir)?;
            Ok(SinkDone::Done)
        }
        SinkOp::Rename { files } => rename_all(disk, &files).map(SinkDone::Renamed),
        SinkOp::Probe { paths } => {
            let found: Result<Vec<_>, StoreFault> =
                paths.iter().map(|path| probe(disk, Path::new(path))).collect();
            found.map(SinkDone::Probed)
        }
        SinkOp::Remove { paths } => {
            for path in &paths {
                remove_file(disk, Path::new(path))?;
            }
            sync_parents(disk, paths.iter())?;
            Ok(SinkDone::Done)
        }
        SinkOp::SyncParents { paths } => {
            sync_parents(disk, paths.iter())?;
            Ok(SinkDone::Done)
        }
    }
}

fn pending(root: &str) -> PathBuf {
    Path::new(root).join(tidegate_graph::PENDING)
}

fn move_dir(disk: &dyn FileSystem, from: &Path, to: &Path) -> Result<Moved, StoreFault> {
    if exists(disk, to)? {
        return Ok(if exists(disk, from)? { Moved::TargetExists } else { Moved::SourceAbsent });
    }
    match disk.rename(from, to) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Moved::SourceAbsent),
        Err(e) => return Err(at(from, e)),
    }
    sync_parent(disk, to)?;
    Ok(Moved::Done)
}

fn rename_all(disk: &dyn FileSystem, files: &[Move]) -> Result<Vec<Moved>, StoreFault> {
    let (mut moved, mut ready) = (Vec::with_capacity(files.len()), BTreeSet::new());
    for file in files {
        moved.push(rename(disk, Path::new(&file.from), Path::new(&file.to), file.len, &mut ready)?);
    }
    let done = files.iter().zip(&moved).filter(|(_, moved)| **moved == Moved::Done);
    sync_parents(disk, done.map(|(file, _)| &file.to))?;
    Ok(moved)
}

fn rename<'a>(
    disk: &dyn FileSystem,
    from: &Path,
    to: &'a Path,
    len: u64,
    ready: &mut BTreeSet<&'a Path>,
) -> Result<Moved, StoreFault> {
    match disk.len(from) {
        Ok(found) if found != len => return Ok(Moved::WrongLength(found)),
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Moved::SourceAbsent),
        Err(e) => return Err(at(from, e)),
    }
    if exists(disk, to)? {
        return Ok(Moved::TargetExists);
    }
    if let Some(dir) = to.parent().filter(|dir| !ready.contains(dir)) {
        create_dirs(disk, dir)?;
        ready.insert(dir);
    }
    match disk.rename(from, to) {
        Ok(()) => Ok(Moved::Done),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Moved::SourceAbsent),
        Err(e) => Err(at(to, e)),
    }
}

/// Creates a directory and those above it as far as they are missing, each synced into its parent. So is the one that was
/// there: who made it may have died before that.
fn create_dirs(disk: &dyn FileSystem, dir: &Path) -> Result<(), StoreFault> {
    let mut missing: Vec<&Path> = Vec::new();
    for dir in dir.ancestors() {
        if dir.as_os_str().is_empty() {
            break;
        }
        if exists(disk, dir)? {
            sync_made(disk, dir)?;
            break;
        }
        missing.push(dir);
    }
    for dir in missing.into_iter().rev() {
        match disk.create_dir(dir) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(at(dir, e)),
        }
        sync_parent(disk, dir)?;
    }
    Ok(())
}

/// Makes the name of a directory durable that is there. One whose parent this user may not open was made by somebody else.
fn sync_made(disk: &dyn FileSystem, dir: &Path) -> Result<(), StoreFault> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    match disk.sync(parent) {
        Ok(()) => Ok(()),
        Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound) => Ok(()),
        Err(e) => Err(at(parent, e)),
    }
}

fn probe(disk: &dyn FileSystem, path: &Path) -> Result<Option<(u64, u64)>, StoreFault> {
    let mut file = match disk.open(path) {
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

fn list(disk: &dyn FileSystem, dir: &Path) -> Result<Vec<String>, StoreFault> {
    match disk.list(dir) {
        Ok(mut names) => {
            names.sort_unstable();
            Ok(names)
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(at(dir, e)),
    }
}

fn exists(disk: &dyn FileSystem, path: &Path) -> Result<bool, StoreFault> {
    match disk.len(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(at(path, e)),
    }
}

fn remove_file(disk: &dyn FileSystem, path: &Path) -> Result<(), StoreFault> {
    match disk.remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(at(path, e)),
    }
}

fn remove_tree(disk: &dyn FileSystem, path: &Path) -> Result<(), StoreFault> {
    match disk.remove_tree(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(at(path, e)),
    }
}

fn sync_parents<'a>(
    disk: &dyn FileSystem,
    paths: impl Iterator<Item = &'a String>,
) -> Result<(), StoreFault> {
    let parents: BTreeSet<&Path> = paths.filter_map(|path| Path::new(path).parent()).collect();
    parents.into_iter().try_for_each(|dir| sync_dir(disk, dir))
}

fn sync_parent(disk: &dyn FileSystem, path: &Path) -> Result<(), StoreFault> {
    path.parent().map_or(Ok(()), |dir| sync_dir(disk, dir))
}

fn sync_dir(disk: &dyn FileSystem, dir: &Path) -> Result<(), StoreFault> {
    if planted(Plant::SkipDirectoryFsync) {
        return Ok(());
    }
    match disk.sync(dir) {
        Ok(()) => Ok(()),
        // Everything below it is gone with it.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(at(dir, e)),
    }
}

fn at(path: &Path, error: std::io::Error) -> StoreFault {
    StoreFault::io(path.display(), &error)
}
