//! The JobManager killed at each step that a checkpoint, its output, the job's record and a new leadership take.
//!
//! A step is a file that comes, goes or gets its name. The kernel tells of it (inotify), and the process is killed in the same
//! millisecond: before what follows, or within it, as chance has it.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::process::Signal;

use super::ledger::{Size, binary};
use super::times;
use super::trial::Trial;
use crate::support::SOON;
use crate::support::cluster::Cluster;
use crate::support::process::Process;

/// Where the file of a step lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Epochs,
    Job,
    Checkpoints,
    /// The folder of any checkpoint.
    Checkpoint,
    Output,
}
use Place::{Checkpoint, Checkpoints, Epochs, Job, Output};

/// A step: its name, where, what happens there, and to a file of which name (`*` is any text).
type Step = (&'static str, Place, ReadFlags, &'static str);

const COMES: ReadFlags = ReadFlags::CREATE;
const IS_NAMED: ReadFlags = ReadFlags::MOVED_TO;
const GOES: ReadFlags = ReadFlags::DELETE;

const STEPS: [Step; 14] = [
    ("a checkpoint's folder is made", Checkpoints, COMES, "chk-*"),
    ("a task begins to write its state", Checkpoint, COMES, "*.state"),
    ("a task has written its state", Checkpoint, ReadFlags::CLOSE_WRITE, "*.state"),
    ("the list of outputs is being written", Checkpoint, COMES, "_outputs#*"),
    ("the list of outputs is there", Checkpoint, COMES, "_outputs"),
    ("metadata is being written", Checkpoint, COMES, "_metadata#*"),
    ("metadata is published", Checkpoint, COMES, "_metadata"),
    ("metadata has only its own name", Checkpoint, GOES, "_metadata#*"),
    ("a file of output becomes visible", Output, IS_NAMED, "part-*"),
    ("an old checkpoint stops to count", Checkpoint, GOES, "_metadata"),
    ("an old checkpoint is gone", Checkpoints, GOES, "chk-*"),
    ("an epoch is claimed", Epochs, COMES, "*"),
    ("an epoch is settled", Epochs, COMES, "*.settled"),
    ("the job's record gets its name", Job, IS_NAMED, "job-*.json"),
];

/// The steps that a JobManager takes when it starts.
fn at_start(step: &Step) -> bool {
    matches!(step.1, Epochs | Job)
}

/// F02: the JobManager is killed at each named step. The newest checkpoint that is published by then is restored, whole.
#[test]
#[ignore = "takes its time; run by cargo xtask faults"]
fn the_jobmanager_dies_at_each_step_of_a_checkpoint() {
    for _ in 0..times(1, 20) {
        let mut trial = Trial::start(Cluster::of(binary, 2, &[]), Size::default());
        for step in &STEPS {
            let before = trial.ready();
            if at_start(step) {
                trial.cluster.kill_jobmanager();
            }
            let mut watch = Watcher::new(&trial);
            let start = Instant::now();
            let mut jobmanager = if at_start(step) {
                trial.cluster.spawn_jobmanager()
            } else {
                trial.cluster.jobmanager.take().expect("it runs")
            };
            watch.kill_at(step, &mut jobmanager);
            let published = newest(&watch.checkpoints());
            trial.cluster.start_jobmanager();
            trial.restored(&before);
            let restored = trial.job.checkpoints(&trial.cluster).expect("it runs").restored();
            println!("{}: after {:?}, {restored} restored", step.0, start.elapsed());
            assert_eq!(restored, published, "{}: {published} was published", step.0);
        }
        trial.finish();
    }
}

/// The newest checkpoint with metadata.
fn newest(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("it is there").flatten();
    let complete = entries.filter(|entry| entry.path().join("_metadata").exists());
    let number = |name: &str| name.strip_prefix("chk-")?.parse().ok();
    complete.filter_map(|entry| number(entry.file_name().to_str()?)).max().unwrap_or(0)
}

struct Watcher {
    events: OwnedFd,
    folders: HashMap<i32, Place>,
    job: PathBuf,
}

impl Watcher {
    fn new(trial: &Trial) -> Self {
        let directory = trial.cluster.directory();
        let job = directory.join("jobs").join(&trial.job.id);
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("Linux has it");
        let mut made = Self { events, folders: HashMap::new(), job };
        made.watch(&directory.join("epochs"), Epochs);
        made.watch(&made.job.clone(), Job);
        made.watch(&made.checkpoints(), Checkpoints);
        made.watch(&trial.cluster.output("ledger"), Output);
        for entry in std::fs::read_dir(made.checkpoints()).expect("it is there").flatten() {
            made.watch(&entry.path(), Checkpoint);
        }
        made
    }

    fn checkpoints(&self) -> PathBuf {
        self.job.join("checkpoints")
    }

    /// A folder that has gone meanwhile is not watched.
    fn watch(&mut self, folder: &Path, place: Place) {
        let all = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
        if let Ok(number) = inotify::add_watch(&self.events, folder, all) {
            self.folders.insert(number, place);
        }
    }

    fn kill_at(&mut self, step: &Step, process: &mut Process) {
        let (start, mut buffer) = (Instant::now(), [MaybeUninit::uninit(); 4096]);
        loop {
            assert!(start.elapsed() < SOON, "waited {SOON:?} in vain until {}{}", step.0, process.tail());
            let mut new = Vec::new();
            let mut reader = Reader::new(&self.events, &mut buffer);
            while let Ok(event) = reader.next() {
                let name = event.file_name().map_or("", |name| name.to_str().unwrap_or_default());
                let place = self.folders.get(&event.wd()).copied();
                if place == Some(step.1) && event.events().contains(step.2) && fits(step.3, name) {
                    process.signal(Signal::KILL);
                    process.kill();
                    return;
                }
                if place == Some(Checkpoints) && event.events().contains(ReadFlags::CREATE) {
                    new.push(self.job.join("checkpoints").join(name));
                }
            }
            new.iter().for_each(|folder| self.watch(folder, Checkpoint));
            std::thread::yield_now();
        }
    }
}

/// Whether a name is of the pattern, which has one `*` at most.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((start, end)) => {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
    }
}
