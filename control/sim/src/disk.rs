//! The disk that everybody shares: files and directories by absolute path, with what may go wrong.
//!
//! It owns the bytes. Always: a file that was renamed is the same file, also for who has it open; a directory is there
//! exactly if it was made and not removed; when the disk is full nothing new is written and nothing old is lost.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::rc::Rc;

/// A file, open or not.
pub type File = Rc<RefCell<Vec<u8>>>;

#[derive(Default)]
struct Volume {
    files: RefCell<BTreeMap<String, File>>,
    dirs: RefCell<BTreeSet<String>>,
    full: Cell<bool>,
}

/// Clones are the same.
#[derive(Clone, Default)]
pub struct Disk(Rc<Volume>);

/// The directory that holds `path`.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Disk {
    /// Whether there is room for anything new.
    pub fn is_full(&self) -> bool {
        self.0.full.get()
    }

    /// Fills it up, or makes room again.
    pub fn set_full(&self, full: bool) {
        self.0.full.set(full);
    }

    /// The bytes of a file.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.file(path).map(|file| file.borrow().clone())
    }

    /// A file.
    pub fn file(&self, path: &str) -> Option<File> {
        self.0.files.borrow().get(path).cloned()
    }

    /// Makes a file with its directories.
    ///
    /// # Errors
    /// It exists, or the disk is full.
    pub fn create_new(&self, path: &str) -> Result<File, ErrorKind> {
        if self.is_full() {
            return Err(ErrorKind::StorageFull);
        }
        if self.file(path).is_some() {
            return Err(ErrorKind::AlreadyExists);
        }
        self.make_dirs(parent(path));
        let file = File::default();
        self.0.files.borrow_mut().insert(path.to_owned(), Rc::clone(&file));
        Ok(file)
    }

    /// Puts a whole file there, replacing what was there.
    ///
    /// # Errors
    /// The disk is full; then the old one stays.
    pub fn replace(&self, path: &str, bytes: Vec<u8>) -> Result<(), ErrorKind> {
        if self.is_full() {
            return Err(ErrorKind::StorageFull);
        }
        self.make_dirs(parent(path));
        self.0.files.borrow_mut().insert(path.to_owned(), Rc::new(RefCell::new(bytes)));
        Ok(())
    }

    fn make_dirs(&self, dir: &str) {
        let mut dirs = self.0.dirs.borrow_mut();
        let mut dir = dir;
        while !dir.is_empty() && dirs.insert(dir.to_owned()) {
            dir = parent(dir);
        }
    }

    /// Whether a file or directory of this name is there.
    pub fn exists(&self, path: &str) -> bool {
        self.0.files.borrow().contains_key(path) || self.0.dirs.borrow().contains(path)
    }

    /// Renames a file, replacing nothing. False if it is not there.
    pub fn rename_file(&self, from: &str, to: &str) -> bool {
        let Some(file) = self.0.files.borrow_mut().remove(from) else { return false };
        self.make_dirs(parent(to));
        self.0.files.borrow_mut().insert(to.to_owned(), file);
        true
    }

    /// Renames a directory with all it holds. False if it is not there.
    pub fn rename_dir(&self, from: &str, to: &str) -> bool {
        if !self.0.dirs.borrow().contains(from) {
            return false;
        }
        let renamed = |path: &String| path.strip_prefix(from).map(|rest| format!("{to}{rest}"));
        let files = self.below(from);
        for path in files {
            let file = self.0.files.borrow_mut().remove(&path);
            let (Some(file), Some(path)) = (file, renamed(&path)) else { continue };
            self.0.files.borrow_mut().insert(path, file);
        }
        let inside =
            |dir: &&String| *dir == from || dir.strip_prefix(from).is_some_and(|rest| rest.starts_with('/'));
        let dirs: Vec<String> = self.0.dirs.borrow().iter().filter(inside).cloned().collect();
        for dir in dirs {
            self.0.dirs.borrow_mut().remove(&dir);
            self.0.dirs.borrow_mut().extend(renamed(&dir));
        }
        true
    }

    /// Removes a file, if it is there.
    pub fn remove_file(&self, path: &str) {
        self.0.files.borrow_mut().remove(path);
    }

    /// Removes a directory with all it holds.
    pub fn remove_tree(&self, dir: &str) {
        for path in self.below(dir) {
            self.remove_file(&path);
        }
        let prefix = format!("{dir}/");
        self.0.dirs.borrow_mut().retain(|path| path != dir && !path.starts_with(&prefix));
    }

    /// Removes a directory if it is empty.
    pub fn remove_empty(&self, dir: &str) {
        if self.list(dir).is_empty() {
            self.0.dirs.borrow_mut().remove(dir);
        }
    }

    /// All files below a directory.
    pub fn below(&self, dir: &str) -> Vec<String> {
        let prefix = format!("{dir}/");
        let files = self.0.files.borrow();
        let from = files.range(prefix.clone()..).map(|(path, _)| path);
        from.take_while(|path| path.starts_with(&prefix)).cloned().collect()
    }

    /// Names in a directory.
    pub fn list(&self, dir: &str) -> Vec<String> {
        let prefix = format!("{dir}/");
        let name = |path: &String| path[prefix.len()..].split('/').next().map(str::to_owned);
        let mut names: BTreeSet<String> = self.below(dir).iter().filter_map(name).collect();
        let dirs = self.0.dirs.borrow();
        let below = dirs.range(prefix.clone()..).take_while(|path| path.starts_with(&prefix));
        names.extend(below.filter_map(name));
        names.into_iter().collect()
    }

    /// The machine that wrote `file` to `path` lost power before it was safe: it is gone, or cut, or whole.
    pub fn tear(&self, path: &str, file: &File, synced: bool, choice: u64) {
        let here = self.file(path).is_some_and(|found| Rc::ptr_eq(&found, file));
        match choice % 3 {
            0 if here => self.remove_file(path),
            1 if !synced => {
                let len = file.borrow().len() as u64;
                file.borrow_mut().truncate(((choice >> 8) % (len + 1)) as usize);
            }
            _ => {}
        }
    }
}
