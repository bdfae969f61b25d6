//! A store and a file system in memory that execute operations whole, not at all, or without an answer.
//!
//! Owned by one test. Always: what it answers is what it did, except when it is told to lose the answer.

#![allow(dead_code)]

pub mod job;
pub mod rules;

use std::collections::{BTreeMap, BTreeSet};
use tidegate_checkpoint::sink::Moved;
use tidegate_checkpoint::*;

/// A file of the sink: the rows it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows(pub Vec<u64>);

impl Rows {
    pub fn len(&self) -> u64 {
        self.0.len() as u64 * 8
    }

    pub fn hash(&self) -> u64 {
        self.0.iter().fold(17, |hash: u64, row| hash.wrapping_mul(1_000_003).wrapping_add(row + 1))
    }
}

#[derive(Clone, Debug, Default)]
pub struct Chk {
    pub metadata: Option<Stored>,
    pub outputs: Option<Outputs>,
    /// A state object of it is damaged.
    pub object_damaged: bool,
}

#[derive(Clone, Debug)]
pub enum Stored {
    Void,
    Metadata(Box<Metadata>),
    Damaged,
}

/// Everything that outlives a process.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub claims: BTreeMap<u64, EpochRecord>,
    pub settled: BTreeMap<u64, EpochRecord>,
    /// By id and "set aside".
    pub chks: BTreeMap<(u64, bool), Chk>,
    pub files: BTreeMap<String, Rows>,
    /// Directories within `_pending`.
    pub dirs: BTreeSet<String>,
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').unwrap().0
}

impl World {
    /// A task writes a pending file: only if its attempt's directory is where the attempt made it.
    pub fn write(&mut self, path: &str, rows: Rows) -> bool {
        let there = self.dirs.contains(parent(path));
        if there {
            self.files.insert(path.to_owned(), rows);
        }
        there
    }

    pub fn make_dir(&mut self, path: &str) {
        self.dirs.insert(path.to_owned());
    }

    /// Rows that a reader sees, file by file.
    pub fn visible(&self) -> Vec<u64> {
        let visible = self.files.iter().filter(|(path, _)| !path.contains("/_pending/"));
        let mut rows: Vec<u64> = visible.flat_map(|(_, rows)| rows.0.iter().copied()).collect();
        rows.sort_unstable();
        rows
    }

    /// Directories and files within `_pending`, and the epochs that they are of.
    pub fn pending(&self) -> impl Iterator<Item = (&str, Option<u64>)> {
        let all = self.dirs.iter().chain(self.files.keys());
        all.filter_map(|path| {
            let (_, inside) = path.split_once("/_pending/")?;
            let name = inside.split_once('/').map_or(inside, |(name, _)| name);
            Some((path.as_str(), layout::owner(name).map(|owner| owner.epoch)))
        })
    }

    pub fn execute(&mut self, op: StoreOp) -> StoreDone {
        match op {
            StoreOp::ReadEpochs => StoreDone::Epochs {
                claims: self.claims.keys().copied().collect(),
                settled: self.settled.values().next_back().cloned().map(Ok),
            },
            StoreOp::ClaimEpoch(record) => create(&mut self.claims, record.epoch, record),
            StoreOp::SettleEpoch(record) => create(&mut self.settled, record.epoch, record),
            StoreOp::NewestEpoch => StoreDone::Newest(self.claims.keys().next_back().copied().unwrap_or(0)),
            StoreOp::Scan { .. } => StoreDone::Scanned(self.scan()),
            StoreOp::PutMetadata { metadata, outputs } => self.put(metadata, outputs),
            StoreOp::ReadMetadata { id, .. } => self.read(id),
            StoreOp::VoidMetadata { id, .. } => {
                let chk = self.chks.entry((id, false)).or_default();
                if chk.metadata.is_some() {
                    return StoreDone::Exists;
                }
                chk.metadata = Some(Stored::Void);
                StoreDone::Created
            }
            StoreOp::Verify { id, .. } => match self.chks.get(&(id, false)) {
                Some(chk) if chk.object_damaged => StoreDone::Damaged("an object".into()),
                _ => self.read(id),
            },
            StoreOp::Quarantine { id, .. } => {
                if let Some(chk) = self.chks.remove(&(id, false)) {
                    self.chks.insert((id, true), chk);
                }
                StoreDone::Done
            }
            StoreOp::ReadOutputs { id, expected, .. } => self.outputs(id, expected),
            StoreOp::Retain { below, .. } => {
                self.chks.retain(|(id, _), _| *id >= below);
                StoreDone::Done
            }
            StoreOp::Discard { ids, .. } => {
                for id in ids {
                    self.execute(StoreOp::VoidMetadata { job: 0, id });
                }
                StoreDone::Done
            }
            StoreOp::Sink(op) => StoreDone::Sink(self.sink(op)),
        }
    }

    fn scan(&self) -> Vec<Scanned> {
        let scan = self.chks.iter().map(|((id, quarantined), chk)| Scanned {
            id: *id,
            quarantined: *quarantined,
            state: match &chk.metadata {
                None => ScannedState::Absent,
                Some(Stored::Void) => ScannedState::Void,
                Some(Stored::Metadata(metadata)) => ScannedState::Present { epoch: metadata.epoch },
                Some(Stored::Damaged) => ScannedState::Damaged("it was cut".into()),
            },
            outputs: chk.outputs.is_some(),
        });
        scan.collect()
    }

    fn put(&mut self, metadata: Box<Metadata>, outputs: bool) -> StoreDone {
        let (job, epoch, id) = (metadata.job, metadata.epoch, metadata.id);
        let chk = self.chks.entry((id, false)).or_default();
        if outputs {
            if chk.outputs.is_some() {
                return StoreDone::Damaged("a list of outputs exists".into());
            }
            chk.outputs = Some(Outputs { job, epoch, id, files: metadata.committables() });
        }
        if chk.metadata.is_some() {
            return StoreDone::Exists;
        }
        chk.metadata = Some(Stored::Metadata(metadata));
        StoreDone::Created
    }

    fn read(&self, id: u64) -> StoreDone {
        match self.chks.get(&(id, false)).and_then(|chk| chk.metadata.as_ref()) {
            None => StoreDone::Absent,
            Some(Stored::Void) => StoreDone::Void,
            Some(Stored::Metadata(metadata)) => StoreDone::Metadata(metadata.clone()),
            Some(Stored::Damaged) => StoreDone::Damaged("it was cut".into()),
        }
    }

    fn outputs(&self, id: u64, expected: bool) -> StoreDone {
        for aside in [false, true] {
            let Some(chk) = self.chks.get(&(id, aside)) else { continue };
            if let Some(outputs) = &chk.outputs {
                return StoreDone::Outputs(outputs.clone());
            }
            if let Some(Stored::Metadata(metadata)) = &chk.metadata {
                let (job, epoch, files) = (metadata.job, metadata.epoch, metadata.committables());
                return StoreDone::Outputs(Outputs { job, epoch, id, files });
            }
        }
        if expected { StoreDone::Damaged("no list".into()) } else { StoreDone::Absent }
    }

    fn sink(&mut self, op: SinkOp) -> SinkDone {
        match op {
            SinkOp::ListPending { root } => {
                let prefix = format!("{root}/_pending/");
                let names = self.dirs.iter().filter_map(|dir| dir.strip_prefix(&prefix));
                SinkDone::Listed(names.map(str::to_owned).collect())
            }
            SinkOp::MoveDir { root, from, to } => {
                let (from, to) = (format!("{root}/_pending/{from}"), format!("{root}/_pending/{to}"));
                if self.dirs.contains(&to) {
                    return SinkDone::Moved(Moved::TargetExists);
                }
                if !self.dirs.remove(&from) {
                    return SinkDone::Moved(Moved::SourceAbsent);
                }
                self.dirs.insert(to.clone());
                let inside: Vec<String> =
                    self.files.keys().filter(|path| parent(path) == from).cloned().collect();
                for path in inside {
                    let rows = self.files.remove(&path).unwrap();
                    self.files.insert(path.replacen(&from, &to, 1), rows);
                }
                SinkDone::Moved(Moved::Done)
            }
            SinkOp::RemoveTree { root, name } => {
                let dir = format!("{root}/_pending/{name}");
                self.dirs.remove(&dir);
                self.files.retain(|path, _| parent(path) != dir);
                SinkDone::Done
            }
            SinkOp::RemovePending { .. } | SinkOp::SyncParents { .. } => SinkDone::Done,
            SinkOp::Rename { files } => {
                SinkDone::Renamed(files.into_iter().map(|file| self.rename(&file)).collect())
            }
            SinkOp::Probe { paths } => SinkDone::Probed(
                paths.iter().map(|path| self.files.get(path).map(|rows| (rows.len(), rows.hash()))).collect(),
            ),
            SinkOp::Remove { paths } => {
                for path in paths {
                    self.files.remove(&path);
                }
                SinkDone::Done
            }
        }
    }

    fn rename(&mut self, file: &tidegate_checkpoint::sink::Move) -> Moved {
        let Some(rows) = self.files.get(&file.from) else { return Moved::SourceAbsent };
        if rows.len() != file.len {
            return Moved::WrongLength(rows.len());
        }
        if self.files.contains_key(&file.to) {
            return Moved::TargetExists;
        }
        let rows = self.files.remove(&file.from).unwrap();
        self.files.insert(file.to.clone(), rows);
        Moved::Done
    }

    /// A part of an operation, as if the process died in it.
    pub fn execute_partly(&mut self, op: StoreOp, part: usize) {
        match op {
            StoreOp::PutMetadata { metadata, outputs: true } => {
                let id = metadata.id;
                if self.chks.get(&(id, false)).is_none_or(|chk| chk.outputs.is_none()) {
                    let (job, epoch, files) = (metadata.job, metadata.epoch, metadata.committables());
                    self.chks.entry((id, false)).or_default().outputs =
                        Some(Outputs { job, epoch, id, files });
                }
            }
            StoreOp::Sink(SinkOp::Rename { mut files }) => {
                files.truncate(part % (files.len() + 1));
                self.sink(SinkOp::Rename { files });
            }
            StoreOp::Sink(SinkOp::Remove { mut paths }) => {
                paths.truncate(part % (paths.len() + 1));
                self.sink(SinkOp::Remove { paths });
            }
            op => {
                self.execute(op);
            }
        }
    }
}

fn create<T>(map: &mut BTreeMap<u64, T>, key: u64, value: T) -> StoreDone {
    if map.contains_key(&key) {
        return StoreDone::Exists;
    }
    map.insert(key, value);
    StoreDone::Created
}
