//! The file system as this crate uses it: few calls, so that a simulation can stand in for it.
//!
//! Stateless. Always: nothing is durable before [`FileSystem::sync`] (or [`FileSystem::write_durably`]) says so, neither bytes
//! (of a file) nor names (of a directory).

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// Calls on files and directories.
pub trait FileSystem: Debug + Send + Sync + 'static {
    /// Length of what is there, without following a link.
    ///
    /// # Errors
    /// The system's; `NotFound` says that nothing is there.
    fn len(&self, path: &Path) -> io::Result<u64>;

    /// Opens a file to read it from its beginning.
    ///
    /// # Errors
    /// The system's.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>>;

    /// Names in a directory, in any order; those that are no text are left out, for none of ours is.
    ///
    /// # Errors
    /// The system's.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a file of these bytes; one that is there loses its own.
    ///
    /// # Errors
    /// The system's.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// The same, and makes the bytes durable.
    ///
    /// # Errors
    /// The system's.
    fn write_durably(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.write(path, bytes)?;
        self.sync(path)
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// The system's.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Renames a file or a directory.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The system's.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Removes a directory with all it holds.
    ///
    /// # Errors
    /// The system's.
    fn remove_tree(&self, dir: &Path) -> io::Result<()>;

    /// Makes a file's bytes, or a directory's names, durable.
    ///
    /// # Errors
    /// The system's.
    fn sync(&self, path: &Path) -> io::Result<()>;
}

/// Makes a directory of the machine's and those above it as far as they are missing, all their names durable, and says where
/// it is. Those that were there are synced, too: who made them may have died before that. One above it that this user may not
/// open, or whose file system knows no such sync, is somebody else's.
///
/// # Errors
/// The system's.
pub fn make_dirs(dir: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let dir = dir.canonicalize()?;
    OwnFiles.sync(&dir)?;
    for above in dir.ancestors().skip(1) {
        match OwnFiles.sync(above) {
            Ok(()) => {}
            Err(error) if is_elsewhere(error.kind()) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(dir)
}

fn is_elsewhere(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported)
        || kind == ErrorKind::ReadOnlyFilesystem
}

/// The machine's own.
#[derive(Clone, Copy, Debug)]
pub struct OwnFiles;

impl FileSystem for OwnFiles {
    fn len(&self, path: &Path) -> io::Result<u64> {
        fs::symlink_metadata(path).map(|meta| meta.len())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(File::open(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        File::create(path)?.write_all(bytes)
    }

    fn write_durably(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // By one descriptor: what went wrong with its bytes is told to who holds it.
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn remove_tree(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}
