//! Whatever call somebody died at: what is acknowledged afterwards by whoever came next outlives the loss of power.
//!
//! The same work is begun by one who dies after so many calls, done by another, and the power fails with the worst outcome.

use std::path::{Path, PathBuf};

use tidegate_checkpoint::local::FileSystem as _;
use tidegate_checkpoint::sink::{Move, Moved};
use tidegate_checkpoint::{EpochRecord, SinkDone, SinkOp, StoreDone, StoreOp, layout};
use tidegate_jobmanager::{JobRecord, JobRequest};
use tidegate_ring::sim::Random;
use tidegate_stream::{JobEntry, Jobs};
use tidegate_taskmanager::files::{Directories, parent_of};

use crate::cluster::{JOB, JOB_ID};
use crate::disk::Disk;
use crate::host::OnDisk;
use crate::ledger::ledger;
use crate::store::{STORE, execute};
use crate::tests::ALONE;

/// Calls after which every work here is over.
const CALLS: u64 = 20;

/// The power fails, and all is lost that may be.
fn worst(disk: &Disk) {
    let random = (0..).map(Random::new).find(|random| random.clone().below(4) == 0);
    disk.cut(&mut random.expect("one in four"));
}

/// A directory of the store in which somebody died after so many calls.
fn after(calls: u64, work: &dyn Fn(&Disk)) -> Disk {
    let disk = Disk::default();
    disk.found(&format!("{STORE}/jobs"));
    disk.found("/out");
    disk.dying(calls, || work(&disk));
    disk
}

#[test]
fn a_record_lasts_whoever_made_its_directory() {
    let _alone = ALONE.lock();
    let jobs = Jobs::new([JobEntry::new(JOB, ledger)]);
    let built =
        jobs.build(JOB, &["--records", "1", "--partitions", "1"].map(str::to_owned), 1).expect("a job");
    let request = JobRequest {
        job: JOB.to_owned(),
        args: Vec::new(),
        parallelism: 1,
        checkpoint_interval_ms: None,
        min_pause_ms: 0,
        checkpoint_timeout_ms: 1_000,
        tolerable_failures: 0,
        retained: 1,
    };
    let record = JobRecord::new(JOB_ID, 1, request, built.graph, 0);
    let save = |disk: &Disk| crate::leader::save(disk, JOB_ID, &record);
    for calls in 0..CALLS {
        let disk = after(calls, &|disk| drop(save(disk)));
        save(&disk).expect("nothing is in the way");
        worst(&disk);
        assert_eq!(crate::leader::records(&disk).len(), 1, "after {calls} calls");
    }
}

#[test]
fn an_epoch_lasts_whoever_made_its_directory() {
    let _alone = ALONE.lock();
    let claim = |epoch| StoreOp::ClaimEpoch(EpochRecord { epoch, jobs: Vec::new() });
    for calls in 0..CALLS {
        let disk = after(calls, &|disk| drop(execute(disk, &claim(1))));
        assert_eq!(execute(&disk, &claim(2)), StoreDone::Created);
        worst(&disk);
        assert_eq!(execute(&disk, &StoreOp::NewestEpoch), StoreDone::Newest(2), "after {calls} calls");
    }
}

#[test]
fn a_committed_file_lasts_whoever_made_its_directory() {
    let _alone = ALONE.lock();
    let pending = Path::new("/out/_pending");
    let moved =
        |name: &str| Move { from: format!("/out/_pending/{name}"), to: format!("/out/a/b/{name}"), len: 1 };
    let rename = |name: &str| StoreOp::Sink(SinkOp::Rename { files: vec![moved(name)] });
    for calls in 0..CALLS {
        let disk = after(0, &|_| ());
        disk.create_dir(pending).expect("room");
        for name in ["x", "y"] {
            disk.write(&pending.join(name), b"x").expect("room");
            disk.sync(&pending.join(name)).expect("there");
        }
        [pending, Path::new("/out")].into_iter().for_each(|dir| disk.sync(dir).expect("there"));
        disk.dying(calls, || execute(&disk, &rename("x")));
        let done = execute(&disk, &rename("y"));
        assert_eq!(done, StoreDone::Sink(SinkDone::Renamed(vec![Moved::Done])));
        worst(&disk);
        assert!(disk.read("/out/a/b/y").is_some(), "after {calls} calls");
    }
}

/// A job that is over says once that it is clean, and nobody looks again.
#[test]
fn what_was_removed_does_not_come_back() {
    let _alone = ALONE.lock();
    let disk = after(0, &|_| ());
    let dirs = ["/out/_pending", "/out/_pending/fenced-a"].map(Path::new);
    dirs.into_iter().for_each(|dir| disk.create_dir(dir).expect("room"));
    disk.write(&dirs[1].join("x"), b"x").expect("room");
    disk.sync(&dirs[1].join("x")).expect("there");
    dirs.into_iter().chain([Path::new("/out")]).for_each(|dir| disk.sync(dir).expect("there"));
    let (root, name) = ("/out".to_owned(), "fenced-a".to_owned());
    execute(&disk, &StoreOp::Sink(SinkOp::RemoveTree { root: root.clone(), name }));
    execute(&disk, &StoreOp::Sink(SinkOp::RemovePending { root }));
    worst(&disk);
    assert!(disk.list("/out").is_empty(), "{:?}", disk.below("/out"));
}

/// Whatever the power cut leaves of its deletion.
#[test]
fn a_deleted_checkpoint_is_whole_or_none() {
    let _alone = ALONE.lock();
    let dir = PathBuf::from(STORE).join(layout::checkpoint_dir(JOB_ID.0, 1));
    let names = [layout::METADATA, "a.state", "b.state"];
    for seed in 0..1_000 {
        let disk = after(0, &|_| ());
        Directories::default().make(&dir, &OnDisk(&disk)).expect("room");
        for name in names {
            disk.write(&dir.join(name), b"x").expect("room");
            disk.sync(&dir.join(name)).expect("there");
        }
        disk.sync(&dir).expect("there");
        assert_eq!(execute(&disk, &StoreOp::Retain { job: JOB_ID.0, below: 2 }), StoreDone::Done);
        disk.cut(&mut Random::new(seed));
        let [metadata, states @ ..] = names.map(|name| disk.len(&dir.join(name)).is_ok());
        assert!(!metadata || states == [true; 2], "seed {seed} leaves {:?}", disk.below(STORE));
    }
}

#[test]
fn a_pending_file_lasts_whoever_made_its_directories() {
    let _alone = ALONE.lock();
    let (first, second) =
        (Path::new("/out/counted/_pending/e1-a1/x"), Path::new("/out/counted/_pending/e1-a2/y"));
    let write = |disk: &Disk, path: &Path| {
        Directories::default().make(parent_of(path), &OnDisk(disk))?;
        disk.write(path, b"x")?;
        disk.sync(path)?;
        disk.sync(parent_of(path))
    };
    for calls in 0..CALLS {
        let disk = after(calls, &|disk| drop(write(disk, first)));
        write(&disk, second).expect("nothing is in the way");
        worst(&disk);
        assert!(disk.read("/out/counted/_pending/e1-a2/y").is_some(), "after {calls} calls");
    }
}
