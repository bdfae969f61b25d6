//! The disk that everybody shares: files and directories, what of them is safe, and what may go wrong.
//!
//! It owns the bytes, and who of them would outlive the loss of power: of a file the bytes up to its last sync, of a
//! directory the names up to its last sync. Names that change together (a rename) become safe together. Always: a file
//! that was renamed is the same file, also for who has it open; when the disk is full nothing new is written and nothing
//! old is lost; what was synced stays as it was.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_checkpoint::local::FileSystem;
use tidegate_ring::sim::Random;

/// What is written or lost at once.
const BLOCK_BYTES: usize = 512;

/// A file or a directory, whatever its names.
pub type Node = usize;

const ROOT: Node = 0;

type Names = BTreeMap<String, Node>;

enum Kind {
    File { bytes: Vec<u8>, safe: usize },
    Dir { now: Names, safe: Names },
}

/// Names that changed together: in which directory, which, and what they stand for now.
struct Change(Vec<(Node, String, Option<Node>)>);

struct Volume {
    nodes: Vec<Kind>,
    /// What is not safe yet, in order.
    pending: Vec<Change>,
    full: bool,
    /// After so many more calls whoever makes them is dead.
    calls_left: Option<u64>,
    /// Calls so far by site, if somebody wants to know; and the one that fails, once: which of a site's.
    sites: Option<BTreeMap<String, u64>>,
    fails: Option<(String, u64)>,
}

/// Clones are the same.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<Volume>>);

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("simulated disk")
    }
}

impl Default for Disk {
    fn default() -> Self {
        let root = Kind::Dir { now: Names::new(), safe: Names::new() };
        let volume = Volume {
            nodes: vec![root],
            pending: Vec::new(),
            full: false,
            calls_left: None,
            sites: None,
            fails: None,
        };
        Self(Arc::new(Mutex::new(volume)))
    }
}

fn words(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|word| !word.is_empty())
}

/// The directory that holds `path`, and the name in it.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// What a path is for.
fn place(path: &str) -> &'static str {
    match path {
        path if path.contains("/epochs") => "epochs",
        path if path.contains(tidegate_graph::PENDING) => "pending output",
        path if path.starts_with("/out") => "output",
        path if path.contains("/chk-") => "checkpoint",
        path if path.contains("/checkpoints") => "checkpoints",
        path if path.contains("/job-") => "record",
        path if path.contains("/jobs/") => "job",
        path if path.ends_with("/jobs") => "jobs",
        "" => "open file",
        _ => "root",
    }
}

impl Volume {
    fn find(&self, path: &str) -> io::Result<Node> {
        words(path).try_fold(ROOT, |at, word| match &self.nodes[at] {
            Kind::File { .. } => Err(ErrorKind::NotADirectory.into()),
            Kind::Dir { now, .. } => now.get(word).copied().ok_or_else(|| ErrorKind::NotFound.into()),
        })
    }

    fn names(&self, node: Node) -> io::Result<&Names> {
        match &self.nodes[node] {
            Kind::Dir { now, .. } => Ok(now),
            Kind::File { .. } => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn bytes(&self, node: Node) -> io::Result<&Vec<u8>> {
        match &self.nodes[node] {
            Kind::File { bytes, .. } => Ok(bytes),
            Kind::Dir { .. } => Err(ErrorKind::IsADirectory.into()),
        }
    }

    /// A call begins; whoever makes it may not live to see it.
    fn call(&mut self, what: &str, path: &str) -> io::Result<()> {
        match &mut self.calls_left {
            Some(0) => return Err(io::Error::other("the process is dead")),
            Some(left) => *left -= 1,
            None => {}
        }
        let Some(sites) = &mut self.sites else { return Ok(()) };
        let site = format!("{what}: {}", place(path));
        let count = sites.entry(site.clone()).or_default();
        *count += 1;
        if self.fails.take_if(|(name, which)| *name == site && which == count).is_some() {
            return Err(io::Error::other("input/output error"));
        }
        Ok(())
    }

    fn room(&self) -> io::Result<()> {
        if self.full { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Where something new belongs.
    fn place(&self, path: &str) -> io::Result<(Node, String)> {
        let (dir, name) = split(path);
        let dir = self.find(dir)?;
        self.names(dir)?;
        Ok((dir, name.to_owned()))
    }

    fn change(&mut self, names: Vec<(Node, String, Option<Node>)>) {
        for (dir, name, node) in &names {
            if let Kind::Dir { now, .. } = &mut self.nodes[*dir] {
                match node {
                    Some(node) => now.insert(name.clone(), *node),
                    None => now.remove(name),
                };
            }
        }
        self.pending.push(Change(names));
    }

    fn add(&mut self, (dir, name): (Node, String), kind: Kind) -> Node {
        let node = self.nodes.len();
        self.nodes.push(kind);
        self.change(vec![(dir, name, Some(node))]);
        node
    }

    fn create_dir(&mut self, path: &str) -> io::Result<()> {
        self.room()?;
        let place = self.place(path)?;
        if self.names(place.0)?.contains_key(&place.1) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.add(place, Kind::Dir { now: Names::new(), safe: Names::new() });
        Ok(())
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        self.find(path)?;
        let (dir, name) = self.place(path)?;
        self.change(vec![(dir, name, None)]);
        Ok(())
    }

    fn apply(&mut self, Change(names): Change) {
        for (dir, name, node) in names {
            // What the same name stood for before does not matter any more.
            for Change(others) in &mut self.pending {
                others.retain(|(other, called, _)| (*other, called) != (dir, &name));
            }
            if let Kind::Dir { safe, .. } = &mut self.nodes[dir] {
                match node {
                    Some(node) => safe.insert(name, node),
                    None => safe.remove(&name),
                };
            }
        }
    }

    fn sync(&mut self, node: Node) {
        if let Kind::File { bytes, safe } = &mut self.nodes[node] {
            *safe = bytes.len();
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        for change in pending {
            if change.0.iter().any(|(dir, ..)| *dir == node) {
                self.apply(change);
            } else {
                self.pending.push(change);
            }
        }
        self.pending.retain(|change| !change.0.is_empty());
    }

    fn below(&self, node: Node, path: &str, found: &mut Vec<String>) {
        match &self.nodes[node] {
            Kind::File { .. } => found.push(path.to_owned()),
            Kind::Dir { now, .. } => {
                now.iter().for_each(|(name, node)| self.below(*node, &format!("{path}/{name}"), found));
            }
        }
    }
}

impl Disk {
    fn volume(&self) -> MutexGuard<'_, Volume> {
        // A panic in between is a finding that ends the run.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for anything new.
    pub fn is_full(&self) -> bool {
        self.volume().full
    }

    /// Fills it up, or makes room again.
    pub fn set_full(&self, full: bool) {
        self.volume().full = full;
    }

    /// Does something as a process that dies after so many calls.
    pub fn dying<T>(&self, calls: u64, work: impl FnOnce() -> T) -> T {
        self.volume().calls_left = Some(calls);
        let done = work();
        self.volume().calls_left = None;
        done
    }

    /// Does something that neither counts nor fails: whoever checks must see.
    pub fn quietly<T>(&self, work: impl FnOnce() -> T) -> T {
        let sites = self.volume().sites.take();
        let done = work();
        self.volume().sites = sites;
        done
    }

    /// From now on calls are counted by site; one of them fails.
    #[cfg(test)]
    pub fn watch(&self, fails: Option<(String, u64)>) {
        let mut volume = self.volume();
        volume.sites = Some(BTreeMap::new());
        volume.fails = fails;
    }

    /// Calls by site, and whether the one that was to fail has not.
    #[cfg(test)]
    pub fn watched(&self) -> (BTreeMap<String, u64>, bool) {
        let volume = self.volume();
        (volume.sites.clone().unwrap_or_default(), volume.fails.is_some())
    }

    /// The bytes of a file.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        let volume = self.volume();
        volume.find(path).and_then(|node| volume.bytes(node).cloned()).ok()
    }

    /// Looks at the bytes of a file.
    pub fn look<T>(&self, path: &str, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let volume = self.volume();
        let node = volume.find(path).ok()?;
        volume.bytes(node).ok().map(|bytes| look(bytes))
    }

    /// Makes a file that nobody has made.
    ///
    /// # Errors
    /// The system's.
    pub fn create_new(&self, path: &Path) -> io::Result<Node> {
        let mut volume = self.volume();
        volume.call("create", text(path))?;
        volume.room()?;
        let place = volume.place(text(path))?;
        if volume.names(place.0)?.contains_key(&place.1) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        Ok(volume.add(place, Kind::File { bytes: Vec::new(), safe: 0 }))
    }

    /// Writes to the end of an open file.
    ///
    /// # Errors
    /// The system's.
    pub fn append(&self, node: Node, offset: u64, more: &[u8]) -> io::Result<()> {
        let mut volume = self.volume();
        volume.call("write", "")?;
        volume.room()?;
        if let Kind::File { bytes, .. } = &mut volume.nodes[node] {
            assert_eq!(bytes.len() as u64, offset, "a file is written from its beginning to its end");
            bytes.extend_from_slice(more);
        }
        Ok(())
    }

    /// Makes the bytes of an open file safe.
    ///
    /// # Errors
    /// The system's.
    pub fn sync_node(&self, node: Node) -> io::Result<()> {
        let mut volume = self.volume();
        volume.call("sync", "")?;
        volume.room()?;
        volume.sync(node);
        Ok(())
    }

    /// Gives a file another name, unless it is taken.
    ///
    /// # Errors
    /// The system's.
    pub fn hard_link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut volume = self.volume();
        volume.call("link", to)?;
        let node = volume.find(from)?;
        let (dir, name) = volume.place(to)?;
        if volume.names(dir)?.contains_key(&name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        volume.change(vec![(dir, name, Some(node))]);
        Ok(())
    }

    /// Makes a directory and those above it, safe at once: what was there before anything began.
    pub fn found(&self, dir: &str) {
        let mut volume = self.volume();
        let mut at = String::new();
        for word in words(dir) {
            at = format!("{at}/{word}");
            let _ = volume.create_dir(&at);
        }
        std::mem::take(&mut volume.pending).into_iter().for_each(|change| volume.apply(change));
    }

    /// Whether a file or directory of this name is there.
    #[cfg(test)]
    pub fn exists(&self, path: &str) -> bool {
        self.volume().find(path).is_ok()
    }

    /// All files below a directory.
    pub fn below(&self, dir: &str) -> Vec<String> {
        let volume = self.volume();
        let mut found = Vec::new();
        if let Ok(node) = volume.find(dir) {
            volume.below(node, dir, &mut found);
        }
        found
    }

    /// Names in a directory.
    pub fn list(&self, dir: &str) -> Vec<String> {
        let volume = self.volume();
        let names = volume.find(dir).and_then(|node| volume.names(node));
        names.map_or_else(|_| Vec::new(), |names| names.keys().cloned().collect())
    }

    /// A bit of a file is wrong from now on.
    pub fn flip(&self, path: &str, bit: u64) {
        let mut volume = self.volume();
        if let Ok(node) = volume.find(path)
            && let Kind::File { bytes, .. } = &mut volume.nodes[node]
        {
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
    }

    /// The machine that had a file open is gone with what it had not handed over: the file is gone, cut or whole.
    pub fn tear(&self, path: &str, node: Node, choice: u64) {
        let mut volume = self.volume();
        let here = volume.find(path).is_ok_and(|found| found == node);
        match choice % 3 {
            0 if here => {
                let _ = volume.remove(path);
            }
            1 => {
                if let Kind::File { bytes, safe } = &mut volume.nodes[node] {
                    let len = *safe + ((choice >> 8) % ((bytes.len() - *safe) as u64 + 1)) as usize;
                    bytes.truncate(len);
                }
            }
            _ => {}
        }
    }

    /// The power fails: of what was not safe, nothing stays, or all, or what was first, or this and that; of bytes, whole
    /// blocks. Gives how many names and files had something to lose.
    pub fn cut(&self, random: &mut Random) -> u64 {
        let mut volume = self.volume();
        let pending = std::mem::take(&mut volume.pending);
        let open = |kind: &Kind| matches!(kind, Kind::File { bytes, safe } if *safe < bytes.len());
        let lost = pending.len() + volume.nodes.iter().filter(|kind| open(kind)).count();
        let how = random.below(4);
        let first = random.below(pending.len() as u64 + 1);
        for (change, index) in pending.into_iter().zip(0..) {
            if [false, true, index < first, random.chance(32_768)][how as usize] {
                volume.apply(change);
            }
        }
        for kind in &mut volume.nodes {
            match kind {
                Kind::Dir { now, safe } => now.clone_from(safe),
                Kind::File { bytes, safe } => {
                    if *safe < bytes.len() {
                        tear_blocks(bytes, *safe, how, random);
                    }
                    *safe = bytes.len();
                }
            }
        }
        lost as u64
    }
}

fn tear_blocks(bytes: &mut Vec<u8>, safe: usize, how: u64, random: &mut Random) {
    match how {
        0 => bytes.truncate(safe),
        1 => {}
        _ => {
            let len = safe + random.below((bytes.len() - safe) as u64 + 1) as usize;
            // The length is written by itself, and each block is.
            for start in (safe..len).step_by(BLOCK_BYTES) {
                if random.chance(16_384) {
                    bytes[start..len.min(start + BLOCK_BYTES)].fill(0);
                }
            }
            bytes.truncate(len);
        }
    }
}

/// A path as the simulation writes it.
fn text(path: &Path) -> &str {
    path.to_str().expect("invariant: paths here are text")
}

impl FileSystem for Disk {
    fn len(&self, path: &Path) -> io::Result<u64> {
        let mut volume = self.volume();
        volume.call("look", text(path))?;
        let node = volume.find(text(path))?;
        Ok(volume.bytes(node).map_or(0, |bytes| bytes.len() as u64))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        let mut volume = self.volume();
        volume.call("open", text(path))?;
        let node = volume.find(text(path))?;
        Ok(Box::new(io::Cursor::new(volume.bytes(node)?.clone())))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut volume = self.volume();
        volume.call("list", text(dir))?;
        let node = volume.find(text(dir))?;
        Ok(volume.names(node)?.keys().cloned().collect())
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let path = text(path);
        let mut volume = self.volume();
        volume.call("write", path)?;
        volume.room()?;
        let node = match volume.find(path) {
            Ok(node) => node,
            Err(_) => {
                let place = volume.place(path)?;
                volume.add(place, Kind::File { bytes: Vec::new(), safe: 0 })
            }
        };
        match &mut volume.nodes[node] {
            Kind::Dir { .. } => Err(ErrorKind::IsADirectory.into()),
            Kind::File { bytes, safe } => {
                *bytes = content.to_vec();
                *safe = 0;
                Ok(())
            }
        }
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut volume = self.volume();
        volume.call("create directory", text(dir))?;
        volume.create_dir(text(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut volume = self.volume();
        volume.call("rename", text(to))?;
        let node = volume.find(text(from))?;
        let (old, name) = volume.place(text(from))?;
        let (dir, new) = volume.place(text(to))?;
        volume.change(vec![(old, name, None), (dir, new, Some(node))]);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut volume = self.volume();
        volume.call("remove", text(path))?;
        volume.remove(text(path))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut volume = self.volume();
        volume.call("remove directory", text(dir))?;
        let node = volume.find(text(dir))?;
        if !volume.names(node)?.is_empty() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        volume.remove(text(dir))
    }

    fn remove_tree(&self, dir: &Path) -> io::Result<()> {
        for name in FileSystem::list(self, dir)? {
            let path = dir.join(name);
            let is_dir = {
                let volume = self.volume();
                let node = volume.find(text(&path))?;
                volume.names(node).is_ok()
            };
            if is_dir { self.remove_tree(&path)? } else { FileSystem::remove_file(self, &path)? }
        }
        self.remove_dir(dir)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let mut volume = self.volume();
        volume.call("sync", text(path))?;
        let node = volume.find(text(path))?;
        volume.sync(node);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is there after a cut in which nothing survives that may not.
    fn worst(disk: &Disk) {
        let mut random =
            (0..).map(Random::new).find(|random| random.clone().below(4) == 0).expect("one in four");
        disk.cut(&mut random);
    }

    #[test]
    fn only_what_was_synced_outlives_a_cut() {
        let path = |name: &str| Path::new("/d").join(name);
        let disk = Disk::default();
        disk.found("/d");
        disk.write(&path("synced"), b"a").expect("room");
        disk.sync(&path("synced")).expect("there");
        disk.sync(Path::new("/d")).expect("there");
        disk.write(&path("named"), b"b").expect("room");
        disk.sync(Path::new("/d")).expect("there");
        disk.write(&path("full"), b"c").expect("room");
        disk.sync(&path("full")).expect("there");
        disk.rename(&path("synced"), &path("moved")).expect("there");
        worst(&disk);
        assert_eq!(disk.list("/d"), ["named", "synced"], "a rename and a name that nobody synced are undone");
        assert_eq!(disk.read("/d/named"), Some(Vec::new()), "bytes that nobody synced are gone");
        assert_eq!(disk.read("/d/synced"), Some(b"a".to_vec()));
    }

    #[test]
    fn a_directory_that_is_not_safe_takes_along_what_is_safe_in_it() {
        let disk = Disk::default();
        disk.create_dir(Path::new("/a")).expect("room");
        disk.create_dir(Path::new("/a/b")).expect("room");
        disk.sync(Path::new("/a")).expect("there");
        worst(&disk);
        assert!(!disk.exists("/a"));
    }

    #[test]
    fn a_rename_is_safe_in_both_directories_at_once() {
        let disk = Disk::default();
        disk.found("/from");
        disk.found("/to");
        disk.write(Path::new("/from/x"), b"x").expect("room");
        disk.sync(Path::new("/from/x")).expect("there");
        disk.sync(Path::new("/from")).expect("there");
        disk.rename(Path::new("/from/x"), Path::new("/to/x")).expect("there");
        disk.sync(Path::new("/to")).expect("there");
        worst(&disk);
        assert_eq!((disk.list("/from").len(), disk.read("/to/x")), (0, Some(b"x".to_vec())));
    }

    #[test]
    fn a_process_may_die_between_any_two_calls() {
        for calls in 0..3 {
            let disk = Disk::default();
            disk.found("/d");
            let made = disk.dying(calls, || {
                disk.create_dir(Path::new("/d/e"))?;
                disk.write(Path::new("/d/e/f"), b"f")?;
                disk.sync(Path::new("/d/e/f"))
            });
            assert!(made.is_err());
            assert_eq!(disk.exists("/d/e"), calls > 0);
            assert_eq!(disk.exists("/d/e/f"), calls > 1);
        }
    }
}
