//! The committer of file sinks as a state machine without I/O: fence, take back, commit, clean.
//!
//! It owns a list of things to do and nothing else. The rules it keeps:
//! - before a restore the directory of every older attempt of the job in `_pending` is renamed away, so a zombie's rename by
//!   path fails, and files of the restored checkpoint are committed from the renamed place;
//! - a commit is idempotent: a target with the same length and hash is done, another content is a conflict,
//!   and a file that is neither pending nor committed is corruption, never skipped;
//! - nothing that no completed checkpoint lists is ever renamed to a target;
//! - after the last attempt nothing pending is removed unless every file of the last checkpoint is in place.
//!
//! Always: every operation can be repeated; after [`SinkStep::Done`] of a commit all its targets are durable.

use crate::layout;
use crate::limits::SINK_BATCH_FILES;
use crate::metadata::Committable;
use std::collections::VecDeque;
use tidegate_graph::PendingFolder;
use tidegate_plant::{Plant, planted};

/// An operation on output files; paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkOp {
    /// Names in `<root>/_pending` → `Listed`; none when it is absent.
    ListPending {
        /// Output directory.
        root: String,
    },
    /// Rename a directory within `<root>/_pending`, durably → `Moved`.
    MoveDir {
        /// Output directory.
        root: String,
        /// Name now.
        from: String,
        /// Name then.
        to: String,
    },
    /// Delete a directory within `<root>/_pending` with all it holds → `Done`.
    RemoveTree {
        /// Output directory.
        root: String,
        /// Its name.
        name: String,
    },
    /// Delete `<root>/_pending` if it is empty → `Done`.
    RemovePending {
        /// Output directory.
        root: String,
    },
    /// Rename files to their targets, creating parents, never replacing one; then sync the parents →
    /// `Renamed`.
    Rename {
        /// The files.
        files: Vec<Move>,
    },
    /// Length and hash of files → `Probed`.
    Probe {
        /// The files.
        paths: Vec<String>,
    },
    /// Delete files that exist and sync their parents → `Done`.
    Remove {
        /// The files.
        paths: Vec<String>,
    },
    /// Sync the parents of these files → `Done`.
    SyncParents {
        /// The files.
        paths: Vec<String>,
    },
}

/// One file to rename.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where it lies.
    pub from: String,
    /// Where it belongs.
    pub to: String,
    /// Length that it must have, in bytes.
    pub len: u64,
}

/// What became of a [`Move`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Renamed.
    Done,
    /// Nothing at the source.
    SourceAbsent,
    /// Something is at the target already.
    TargetExists,
    /// The source has another length.
    WrongLength(u64),
}

/// Answer to a [`SinkOp`]; I/O errors are the store's `Failed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkDone {
    /// Names of directories.
    Listed(Vec<String>),
    /// What became of a directory.
    Moved(Moved),
    /// What became of each file, in order.
    Renamed(Vec<Moved>),
    /// Length and hash of each file, in order; `None` for one that is absent.
    Probed(Vec<Option<(u64, u64)>>),
    /// Done.
    Done,
}

/// Why output cannot be committed. Retrying does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// A file of a completed checkpoint is nowhere.
    #[error(
        "output file {target} of a completed checkpoint is lost: it is neither there nor at {pending}; \
         somebody removed it"
    )]
    Missing {
        /// Where it should be pending.
        pending: String,
        /// Where it should be in the end.
        target: String,
    },
    /// The pending file has another length than was acknowledged.
    #[error("pending output file {path} has {found} bytes, {expected} were acknowledged")]
    Corrupt {
        /// The file.
        path: String,
        /// Bytes acknowledged.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// Somebody else's file is in the way.
    #[error(
        "output file {target} exists with other content, so {pending} stays where it is; choose an output \
         directory that no other job writes to"
    )]
    Conflict {
        /// Where it is pending.
        pending: String,
        /// The file.
        target: String,
    },
}

/// What the machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkStep {
    /// Execute this and pass the answer to [`SinkCommit::handle`].
    Op(SinkOp),
    /// All is done; so many visible files were taken back.
    Done {
        /// Files that were visible and are no longer.
        taken_back: u32,
    },
}

#[derive(Clone, Debug, PartialEq)]
enum Todo {
    FenceRoot(String),
    FenceDir { root: String, name: String },
    DropDir { root: String, name: String },
    TakeBack(Vec<Committable>),
    Remove(Vec<String>),
    Commit(Vec<Committable>),
    Check(Vec<Committable>),
    Sync(Vec<String>),
    CleanRoot(String),
    RemovePending(String),
}

/// The machine. Ask [`SinkCommit::step`], execute, tell [`SinkCommit::handle`], until `Done` or an error.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkCommit {
    job: u128,
    /// Attempts up to this one, itself included, are fenced.
    upto: (u64, u32),
    /// Files come from fenced directories.
    fenced: bool,
    /// It is the last commit: one file's error does not hold up the others, but then nothing is cleaned.
    last: bool,
    failed: Vec<SinkError>,
    todo: VecDeque<Todo>,
    taken_back: u32,
}

impl SinkCommit {
    /// Commits the files of a checkpoint that has just completed, from its own attempt's directory.
    pub fn complete(job: u128, files: Vec<Committable>) -> Self {
        let mut machine = SinkCommit::new(job, (0, 0), false);
        machine.commit(files);
        machine
    }

    /// Prepares the output for an attempt: fences every attempt up to `upto`, takes back the files of
    /// checkpoints that are not used any more, commits those of the restored one, removes what is left.
    pub fn restore(
        job: u128,
        roots: Vec<String>,
        upto: (u64, u32),
        take_back: Vec<Committable>,
        files: Vec<Committable>,
    ) -> Self {
        let fenced = !planted(Plant::SkipFence);
        let mut machine = SinkCommit::new(job, upto, fenced);
        machine.todo.extend(roots.iter().filter(|_| fenced).cloned().map(Todo::FenceRoot));
        machine.todo.extend(batches(take_back).map(Todo::TakeBack));
        machine.commit(files);
        machine.todo.extend(roots.into_iter().map(Todo::CleanRoot));
        machine
    }

    /// Fences every attempt up to `upto` and removes what is pending.
    pub fn clean(job: u128, roots: Vec<String>, upto: (u64, u32)) -> Self {
        SinkCommit::restore(job, roots, upto, Vec::new(), Vec::new())
    }

    /// Commits `files` after the last attempt, each that can be, and cleans up if all could. Gives no error;
    /// see [`SinkCommit::failed`].
    pub fn end(job: u128, roots: Vec<String>, upto: (u64, u32), files: Vec<Committable>) -> Self {
        let mut machine = SinkCommit::restore(job, roots, upto, Vec::new(), files);
        machine.last = true;
        machine
    }

    /// Why files could not be committed at the end.
    pub fn failed(&self) -> &[SinkError] {
        &self.failed
    }

    fn new(job: u128, upto: (u64, u32), fenced: bool) -> Self {
        SinkCommit {
            job,
            upto,
            fenced,
            last: false,
            failed: Vec::new(),
            todo: VecDeque::new(),
            taken_back: 0,
        }
    }

    fn commit(&mut self, files: Vec<Committable>) {
        self.todo.extend(batches(files).map(Todo::Commit));
    }

    /// Where a pending file is now.
    fn source(&self, file: &Committable) -> String {
        if !self.fenced {
            return file.pending.clone();
        }
        layout::fenced_path(&file.pending).unwrap_or_else(|| file.pending.clone())
    }

    /// The next operation, or the end. Asking twice gives the same answer.
    pub fn step(&self) -> SinkStep {
        let Some(todo) = self.todo.front() else {
            return SinkStep::Done { taken_back: self.taken_back };
        };
        SinkStep::Op(match todo {
            Todo::FenceRoot(root) | Todo::CleanRoot(root) => SinkOp::ListPending { root: root.clone() },
            Todo::FenceDir { root, name } => {
                SinkOp::MoveDir { root: root.clone(), from: name.clone(), to: layout::fenced_dir(name) }
            }
            Todo::DropDir { root, name } => SinkOp::RemoveTree { root: root.clone(), name: name.clone() },
            Todo::TakeBack(files) => {
                SinkOp::Probe { paths: files.iter().map(|file| file.target.clone()).collect() }
            }
            Todo::Remove(paths) => SinkOp::Remove { paths: paths.clone() },
            Todo::Commit(files) => SinkOp::Rename {
                files: files
                    .iter()
                    .map(|file| Move { from: self.source(file), to: file.target.clone(), len: file.len })
                    .collect(),
            },
            Todo::Check(files) => {
                SinkOp::Probe { paths: files.iter().map(|file| file.target.clone()).collect() }
            }
            Todo::Sync(paths) => SinkOp::SyncParents { paths: paths.clone() },
            Todo::RemovePending(root) => SinkOp::RemovePending { root: root.clone() },
        })
    }

    /// Takes the answer to the operation that [`SinkCommit::step`] gave.
    ///
    /// # Errors
    /// [`SinkError`] when committed output cannot be made whole; the machine must not be used after it.
    ///
    /// # Panics
    /// When the answer is of another kind than the operation asked for.
    pub fn handle(&mut self, done: SinkDone) -> Result<(), SinkError> {
        let todo = self.todo.pop_front().expect("invariant: an answer follows an operation");
        match (todo, done) {
            (Todo::FenceRoot(root), SinkDone::Listed(names)) => self.fence(&root, names),
            (Todo::FenceDir { root, name }, SinkDone::Moved(moved)) => {
                // The fenced name is taken: an earlier fence holds all that was acknowledged, so what is
                // under the old name now was made by a zombie after it.
                if moved == Moved::TargetExists {
                    self.todo.push_front(Todo::DropDir { root, name });
                }
            }
            (Todo::TakeBack(files), SinkDone::Probed(found)) => self.take_back(&files, &found),
            (Todo::Commit(files), SinkDone::Renamed(moved)) => self.renamed(files, &moved)?,
            (Todo::Check(files), SinkDone::Probed(found)) => self.check(files, &found)?,
            (Todo::CleanRoot(root), SinkDone::Listed(names)) => self.clean_root(root, names),
            (
                Todo::DropDir { .. } | Todo::Remove(_) | Todo::Sync(_) | Todo::RemovePending(_),
                SinkDone::Done,
            ) => {}
            (todo, done) => panic!("invariant: {done:?} does not answer {todo:?}"),
        }
        Ok(())
    }

    fn fence(&mut self, root: &str, names: Vec<String>) {
        let older = |name: &String| {
            PendingFolder::parse(name)
                .is_some_and(|dir| dir.job == self.job && (dir.epoch, dir.attempt) <= self.upto)
        };
        let todo: Vec<Todo> = names
            .into_iter()
            .filter(older)
            .map(|name| Todo::FenceDir { root: root.to_owned(), name })
            .collect();
        self.front(todo);
    }

    fn take_back(&mut self, files: &[Committable], found: &[Option<(u64, u64)>]) {
        let paths: Vec<String> = files
            .iter()
            .zip(found)
            .filter(|(file, found)| **found == Some((file.len, file.hash)))
            .map(|(file, _)| file.target.clone())
            .collect();
        self.taken_back += paths.len() as u32;
        if !paths.is_empty() {
            self.todo.push_front(Todo::Remove(paths));
        }
    }

    fn renamed(&mut self, files: Vec<Committable>, moved: &[Moved]) -> Result<(), SinkError> {
        assert_eq!(files.len(), moved.len(), "invariant: one answer for each file");
        let mut unclear = Vec::new();
        for (file, moved) in files.into_iter().zip(moved) {
            match *moved {
                Moved::Done => {}
                Moved::SourceAbsent if planted(Plant::CommitOnce) => {
                    let (pending, target) = (self.source(&file), file.target);
                    self.fail(SinkError::Missing { pending, target })?;
                }
                Moved::SourceAbsent | Moved::TargetExists => unclear.push(file),
                Moved::WrongLength(found) => {
                    let path = self.source(&file);
                    self.fail(SinkError::Corrupt { path, expected: file.len, found })?;
                }
            }
        }
        if !unclear.is_empty() {
            self.todo.push_front(Todo::Check(unclear));
        }
        Ok(())
    }

    fn check(&mut self, files: Vec<Committable>, found: &[Option<(u64, u64)>]) -> Result<(), SinkError> {
        assert_eq!(files.len(), found.len(), "invariant: one answer for each file");
        let mut there = Vec::new();
        for (file, found) in files.into_iter().zip(found) {
            let pending = self.source(&file);
            let target = file.target;
            match found {
                Some(content) if *content == (file.len, file.hash) => there.push(target),
                Some(_) => self.fail(SinkError::Conflict { pending, target })?,
                None => self.fail(SinkError::Missing { pending, target })?,
            }
        }
        if !there.is_empty() {
            // They were renamed before somebody crashed, perhaps before the parents were synced.
            self.todo.push_front(Todo::Sync(there));
        }
        Ok(())
    }

    fn fail(&mut self, error: SinkError) -> Result<(), SinkError> {
        if !self.last {
            return Err(error);
        }
        self.failed.push(error);
        self.todo.retain(|todo| !matches!(todo, Todo::CleanRoot(_)));
        Ok(())
    }

    fn clean_root(&mut self, root: String, names: Vec<String>) {
        // What a newer leader has fenced is none of ours, it may be committing from there.
        let ours = |name: &String| {
            let fenced = name.starts_with(layout::FENCED);
            let dir = layout::owner(name).filter(|dir| fenced && dir.job == self.job);
            dir.is_some_and(|dir| (dir.epoch, dir.attempt) <= self.upto)
        };
        let mut todo: Vec<Todo> =
            names.into_iter().filter(ours).map(|name| Todo::DropDir { root: root.clone(), name }).collect();
        todo.push(Todo::RemovePending(root));
        self.front(todo);
    }

    fn front(&mut self, todo: Vec<Todo>) {
        for todo in todo.into_iter().rev() {
            self.todo.push_front(todo);
        }
    }
}

/// The files in pieces of at most [`SINK_BATCH_FILES`].
fn batches(files: Vec<Committable>) -> impl Iterator<Item = Vec<Committable>> {
    let mut files = files.into_iter().peekable();
    std::iter::from_fn(move || {
        files.peek()?;
        Some(files.by_ref().take(SINK_BATCH_FILES).collect())
    })
}
