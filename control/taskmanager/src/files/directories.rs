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

/// Calls on directories, so that a simulated disk can stand in for the machine's own.
pub trait Folders {
    /// Whether it is there.
    fn exists(&self, directory: &Path) -> bool;

    /// Makes it, in one that is there.
    ///
    /// # Errors
    /// The operating system's.
    fn create(&self, directory: &Path) -> io::Result<()>;

    /// Flushes its entries.
    ///
    /// # Errors
    /// The operating system's.
    fn sync(&self, directory: &Path) -> io::Result<()>;
}

/// The machine's own.
pub(super) struct OwnFolders;

impl Folders for OwnFolders {
    fn exists(&self, directory: &Path) -> bool {
        directory.exists()
    }

    fn create(&self, directory: &Path) -> io::Result<()> {
        std::fs::create_dir(directory)
    }

    fn sync(&self, directory: &Path) -> io::Result<()> {
        sync(directory)
    }
}

/// The directories whose entries are known to be on the disk.
#[derive(Debug, Default)]
pub struct Directories {
    known: Mutex<HashSet<PathBuf>>,
}

impl Directories {
    /// Whether files can be made in `directory` without more ado. Never waits: no while another one is being made.
    pub fn know(&self, directory: &Path) -> bool {
        self.known.try_lock().is_ok_and(|known| known.contains(directory))
    }

    /// Makes `directory` and what is missing above it, and flushes each new entry before anything is put below.
    ///
    /// # Errors
    /// The operating system's.
    pub fn make(&self, directory: &Path, folders: &dyn Folders) -> io::Result<()> {
        // A set is whole between any two calls.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(directory) && folders.exists(directory) {
            return Ok(());
        }
        // What stands above a bare name has no name, and is there.
        let absent = |directory: &&Path| !directory.as_os_str().is_empty() && !folders.exists(directory);
        let missing: Vec<&Path> = directory.ancestors().take_while(absent).collect();
        // Who made the one that is there may have died before its own entry was synced.
        let made = missing.last().map_or(directory, |missing| parent_of(missing));
        match folders.sync(parent_of(made)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !missing.is_empty() => {}
            synced => synced?,
        }
        for missing in missing.iter().rev() {
            match folders.create(missing) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => folders.sync(parent_of(missing))?,
            }
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

/// The directory that holds `path`; the current one for a bare name.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Notes what is flushed, and which of `watched` are there by then.
    #[derive(Default)]
    struct Noted {
        watched: Vec<PathBuf>,
        synced: RefCell<Vec<(PathBuf, Vec<bool>)>>,
        refuses: bool,
    }

    impl Folders for Noted {
        fn exists(&self, directory: &Path) -> bool {
            directory.exists()
        }

        fn create(&self, directory: &Path) -> io::Result<()> {
            std::fs::create_dir(directory)
        }

        fn sync(&self, directory: &Path) -> io::Result<()> {
            if self.refuses {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let there = self.watched.iter().map(|path| path.exists()).collect();
            self.synced.borrow_mut().push((directory.to_path_buf(), there));
            Ok(())
        }
    }

    #[test]
    fn each_new_entry_is_synced_before_anything_is_put_below_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (outer, inner) = (folder.path().join("out"), folder.path().join("out/_pending"));
        let attempt = inner.join("e1-a1");
        let directories = Directories::default();
        let noted =
            Noted { watched: vec![outer.clone(), inner.clone(), attempt.clone()], ..Noted::default() };
        directories.make(&attempt, &noted).expect("it can be made");
        let expected = [
            (parent_of(folder.path()).to_path_buf(), vec![false, false, false]),
            (folder.path().to_path_buf(), vec![true, false, false]),
            (outer.clone(), vec![true, true, false]),
            (inner.clone(), vec![true, true, true]),
        ];
        assert_eq!(noted.synced.into_inner(), expected);
        assert!(directories.know(&attempt));
    }

    #[test]
    fn a_directory_that_somebody_else_made_is_synced_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let attempt = folder.path().join("e1-a1");
        std::fs::create_dir(&attempt).expect("writable");
        let directories = Directories::default();
        assert!(!directories.know(&attempt));
        let noted = Noted::default();
        directories.make(&attempt, &noted).expect("it is there");
        assert_eq!(noted.synced.into_inner(), [(folder.path().to_path_buf(), Vec::new())]);
    }

    #[test]
    fn a_directory_whose_entry_cannot_be_synced_is_not_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let attempt = folder.path().join("e1-a1");
        let directories = Directories::default();
        let failed = directories.make(&attempt, &Noted { refuses: true, ..Noted::default() });
        assert_eq!(failed.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
        assert!(!directories.know(&attempt), "the next file tries again");
    }
}
