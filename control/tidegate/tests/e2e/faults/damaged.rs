//! Checkpoints of a real job, damaged in every way a file can be.

use std::fs;
use std::path::{Path, PathBuf};

use tidegate_checkpoint::{LocalStore, StoreDone, StoreOp};

use super::ledger::{Size, binary};
use super::times;
use super::trial::Trial;
use crate::support::SOON;
use crate::support::cluster::Cluster;
use crate::support::random::Random;

/// Tables of some hundred kilobytes.
const BULKY: Size = Size { partitions: 4, records: 40_000, keys: 4_000, payload: 40 };
/// All keys are there after a second, and the job lasts for some more.
const FAST: &str = "6000";
const STEP: usize = 4096;

/// F56: each file of a checkpoint is cut at every 4 KiB and one byte before its end, has bits flipped, is gone, has the name
/// of another one, or that one's content. Whoever reads the checkpoint whole, as everyone does before a restore, is told so;
/// the list of outputs, which is read beside it, is never a different one. (That an older checkpoint takes the place is
/// `a_damaged_checkpoint_gives_way_to_an_older_one`.)
#[test]
#[ignore = "takes its time; run by cargo xtask faults"]
fn every_damage_to_a_checkpoint_is_noticed() {
    let mut random = Random::announced("F56");
    let mut trial = Trial::start_with(Cluster::of(binary, 2, &[]), "ledger", BULKY, &["--rate", FAST]);
    trial.ready();
    trial.goes_on(SOON);
    trial.cluster.taskmanagers.clear();
    trial.cluster.kill_jobmanager();

    let id = u128::from_str_radix(&trial.job.id, 16).expect("the id of a job is a number");
    let subject = Subject::new(&trial.cluster.directory(), id);
    let all: Vec<PathBuf> = subject.files();
    let bytes: u64 = all.iter().map(|file| file.metadata().expect("it is there").len()).sum();
    println!("checkpoint {} of {} files, {bytes} bytes", subject.checkpoint, all.len());
    assert!(all.len() >= 6 && bytes > 10 * STEP as u64, "too little to damage: {all:?}");
    subject.is_intact();

    let mut tried = 0;
    let mut damage = |file: &Path, what: &str, content: Option<&[u8]>| {
        let whole = fs::read(file).expect("it is there");
        match content {
            Some(content) if content == whole => return,
            Some(content) => fs::write(file, content).expect("the folder of the test can be written"),
            None => fs::remove_file(file).expect("it is there"),
        }
        subject.is_damaged(file, what);
        tried += 1;
        fs::write(file, whole).expect("the folder of the test can be written");
    };
    for file in &all {
        let whole = fs::read(file).expect("it is there");
        for end in (0..whole.len()).step_by(STEP).chain([whole.len() - 1]) {
            damage(file, &format!("cut at {end}"), Some(&whole[..end]));
        }
        damage(file, "gone", None);
        damage(file, "one byte longer", Some(&[&whole[..], b"\0"].concat()));
        for other in all.iter().filter(|other| *other != file) {
            let content = fs::read(other).expect("it is there");
            damage(file, &format!("the content of {}", other.display()), Some(&content));
        }
    }
    for _ in 0..times(1_000, 10_000) {
        let file = random.pick(&all);
        let mut content = fs::read(file).expect("it is there");
        let bit = random.below(8 * content.len() as u64) as usize;
        content[bit / 8] ^= 1 << (bit % 8);
        damage(file, &format!("bit {bit} flipped"), Some(&content));
    }
    println!("{tried} kinds of damage");
    subject.is_intact();

    // All of it was read only: the job goes on from there.
    let cluster = &mut trial.cluster;
    cluster.start_jobmanager();
    cluster.start_taskmanager();
    cluster.start_taskmanager();
    trial.ready();
    trial.finish();
}

/// The newest checkpoint of a job that nobody runs.
struct Subject {
    store: LocalStore,
    runtime: tokio::runtime::Runtime,
    folder: PathBuf,
    job: u128,
    checkpoint: u64,
    metadata: StoreDone,
    outputs: StoreDone,
}

impl Subject {
    fn new(directory: &Path, job: u128) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let store = LocalStore::open(directory).expect("it is ours");
        let folder = directory.join(format!("jobs/{job:032x}/checkpoints"));
        let entries = fs::read_dir(&folder).expect("it is there").flatten();
        let complete = entries.filter(|entry| entry.path().join("_metadata").exists());
        let number = |name: &str| name.strip_prefix("chk-")?.parse::<u64>().ok();
        let ids = complete.filter_map(|entry| number(entry.file_name().to_str()?));
        let checkpoint = ids.max().expect("there is a complete checkpoint");
        let folder = folder.join(format!("chk-{checkpoint}"));
        let (metadata, outputs) = (StoreDone::Absent, StoreDone::Absent);
        let mut made = Self { store, runtime, folder, job, checkpoint, metadata, outputs };
        (made.metadata, made.outputs) = made.read();
        made
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).expect("it is there").flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.sort();
        files
    }

    fn read(&self) -> (StoreDone, StoreDone) {
        let (job, id) = (self.job, self.checkpoint);
        let ask = |op| self.runtime.block_on(self.store.execute(op));
        (ask(StoreOp::Verify { job, id }), ask(StoreOp::ReadOutputs { job, id, expected: true }))
    }

    fn is_intact(&self) {
        let (metadata, outputs) = self.read();
        assert!(matches!(metadata, StoreDone::Metadata(_)), "{metadata:?}");
        assert!(matches!(outputs, StoreDone::Outputs(_)), "{outputs:?}");
        assert_eq!((&metadata, &outputs), (&self.metadata, &self.outputs));
    }

    fn is_damaged(&self, file: &Path, what: &str) {
        let (metadata, outputs) = self.read();
        let list = file.file_name().is_some_and(|name| name == "_outputs");
        let noticed = if list {
            metadata == self.metadata
        } else {
            matches!(metadata, StoreDone::Damaged(_) | StoreDone::Absent)
        };
        assert!(noticed, "{}: {what}: {metadata:?}", file.display());
        let same = outputs == self.outputs || matches!(outputs, StoreDone::Damaged(_));
        assert!(same, "{}: {what}: {outputs:?}", file.display());
    }
}
