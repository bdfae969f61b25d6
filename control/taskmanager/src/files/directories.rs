//! The directories that files are made in: there, and on the disk, before the first file in them is.
//!
//! Owner of the state: the engine; the lock is held while a directory is made.
//!
//! Always true:
//! - a directory is made only when the entries of all above it are synced, so one that is seen has a path that lasts;
//! - no file of this process is opened in a directory before its own entry is synced, whoever made it: a file that is
//!   acknowledged does not depend on another one, in this process or the next, getting as far.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::limits::DIRECTORIES_KNOWN_MAX;

/// The directories whose entries are known to be on the disk.
#[derive(Debug, Default)]
pub(super) struct Directories {
    known: Mutex<HashSet<PathBuf>>,
}

impl Directories {
    /// Whether files can be made in `directory` without more ado. Never waits: no while another one is being made.
    pub(super) fn know(&self, directory: &Path) -> bool {
        self.known.try_lock().is_ok_and(|known| known.contains(directory))
    }

    /// Makes `directory` and what is missing above it, and has `sync` flush each new entry before anything is put below.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn make(
        &self,
        directory: &Path,
        mut sync: impl FnMut(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        // A set is whole between any two calls.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(directory) && directory.exists() {
            return Ok(());
        }
        let missing: Vec<&Path> = directory.ancestors().take_while(missing).collect();
        for missing in missing.iter().rev() {
            match std::fs::create_dir(missing) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => sync(parent_of(missing))?,
            }
        }
        if missing.is_empty() {
            // Another process may have made it and not have synced it yet.
            sync(parent_of(directory))?;
        }
        if known.len() >= DIRECTORIES_KNOWN_MAX {
            known.clear(); // Those in use are synced once more.
        }
        known.insert(directory.to_path_buf());
        Ok(())
    }
}

/// Flushes a directory's entries.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    std::fs::File::open(directory)?.sync_all()
}

/// Whether it has to be made; what stands above a bare name has no name, and is there.
fn missing(directory: &&Path) -> bool {
    !directory.as_os_str().is_empty() && !directory.exists()
}

/// The directory that holds `path`; the current one for a bare name.
pub(super) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_new_entry_is_synced_before_anything_is_put_below_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (outer, inner) = (folder.path().join("out"), folder.path().join("out/_pending"));
        let attempt = inner.join("e1-a1");
        let directories = Directories::default();
        let mut synced = Vec::new();
        let made = directories.make(&attempt, |directory| {
            synced.push((directory.to_path_buf(), outer.exists(), inner.exists(), attempt.exists()));
            Ok(())
        });
        made.expect("it can be made");
        let expected = [
            (folder.path().to_path_buf(), true, false, false),
            (outer.clone(), true, true, false),
            (inner.clone(), true, true, true),
        ];
        assert_eq!(synced, expected);
        assert!(directories.know(&attempt));
    }

    #[test]
    fn a_directory_that_somebody_else_made_is_synced_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let attempt = folder.path().join("e1-a1");
        std::fs::create_dir(&attempt).expect("writable");
        let directories = Directories::default();
        assert!(!directories.know(&attempt));
        let mut synced = Vec::new();
        let made = directories.make(&attempt, |directory| {
            synced.push(directory.to_path_buf());
            Ok(())
        });
        made.expect("it is there");
        assert_eq!(synced, [folder.path()]);
    }

    #[test]
    fn a_directory_whose_entry_cannot_be_synced_is_not_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let attempt = folder.path().join("e1-a1");
        let directories = Directories::default();
        let failed = directories.make(&attempt, |_| Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(failed.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
        assert!(!directories.know(&attempt), "the next file tries again");
    }
}
