//! Disks that are full, fail, or lose their power, under the JobManager's directory and the output of the ledger.

use std::path::Path;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use super::ledger::{Size, binary};
use super::trial::Trial;
use super::{root, rounds, skip_unless, times};
use crate::support::cluster::Cluster;
use crate::support::namespaces::run;
use crate::support::random::Random;
use crate::support::volume::{Disk, Memory, with_own_mounts};
use crate::support::{SOON, wait_for};

const ENOUGH: u64 = 256 << 20;
const PAGE: u64 = 4096;

/// State of some hundred kilobytes: a checkpoint has to write it in several pieces.
const BULKY: Size = Size { partitions: 4, records: 40_000, keys: 4_000, payload: 40 };

impl Trial {
    /// How many checkpoints have failed since the JobManager started.
    fn failed(&self) -> u64 {
        let failed =
            || self.cluster.get(&format!("/jobs/{}/checkpoints", self.job.id))?["counts"]["failed"].as_u64();
        wait_for("the JobManager", SOON, failed)
    }

    /// Why the last of them failed.
    fn why(&self) -> String {
        let why = || {
            let all = self.cluster.get(&format!("/jobs/{}/checkpoints", self.job.id))?;
            Some(all["latest"]["failed"]["failure_message"].as_str().unwrap_or_default().to_owned())
        };
        wait_for("the JobManager", SOON, why)
    }
}

/// F55: at each page, and each file, that a checkpoint needs, there is no room for one more. That checkpoint does not count;
/// the job goes on, and once there is room checkpoints complete again. Where it is the output that has no room, rows can't be
/// kept for later, so the job begins anew, from the last checkpoint that counts.
#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn a_disk_is_full_at_each_write_of_a_checkpoint() {
    skip_unless!(root());
    with_own_mounts(|| {
        for (place, what, unit, points) in [
            ("jobmanager", "size", PAGE, times(5, 100)),
            ("jobmanager", "nr_inodes", 1, times(3, 20)),
            ("output", "size", PAGE, times(2, 60)),
            ("output", "nr_inodes", 1, times(2, 20)),
        ] {
            // Fewer points than a checkpoint writes, or nothing would be refused.
            let mut room = 0..points as u64;
            // Each refused write of a sink restarts the job, later each time.
            for strikes in rounds(points, 5) {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let memory = Memory::mount(&folder.path().join(place), ENOUGH);
                let mut trial = Trial::start(Cluster::of_in(binary, folder.path(), 2, &[]), BULKY);
                for room in room.by_ref().take(strikes) {
                    trial.ready();
                    let (failed, before) = (trial.failed(), trial.now());
                    // What is in use changes all the time; less than that is refused.
                    wait_for("a limit above what is in use", SOON, || {
                        let used = if what == "size" { memory.used() } else { memory.files() };
                        memory.limit(what, used + room * unit).ok()
                    });
                    wait_for("a checkpoint to fail", SOON, || (trial.failed() > failed).then_some(()));
                    memory.limit(what, if what == "size" { ENOUGH } else { 100_000 }).expect("root may");
                    trial.goes_on(SOON);
                    let restarts = trial.now().attempt - before.attempt;
                    println!("{place}, {what}: room for {room} more: {restarts} restarts: {}", trial.why());
                    assert!(place == "output" || restarts == 0, "{}", trial.job.exceptions(&trial.cluster));
                }
                trial.finish();
            }
        }
    });
}

/// F57: the disk fails a sync, once and for what has been written, and takes everything after that. What was to be synced
/// does not count: what a checkpoint consists of is on the disk, not only in memory that was never written.
#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn a_disk_fails_a_sync_and_works_again() {
    skip_unless!(
        root().and_then(|()| run(&["mkfs.ext4", "-V"])).and_then(|()| run(&["fstrim", "--version"]))
    );
    with_own_mounts(|| {
        let mut random = Random::announced("F57");
        let mut failures = 0;
        for strikes in rounds(times(3, 60), 3) {
            let folder = tempfile::tempdir().expect("a temporary folder");
            // The disk is a file in memory with holes: where memory is full, the flush of a hole fails (EIO or ENOSPC), for the
            // file system on the disk has given the block away long before.
            let memory = Memory::mount(&folder.path().join("memory"), ENOUGH);
            let disk = memory.place().join("disk");
            let disk = Disk::mount(&disk, &folder.path().join("disk"), 2 * ENOUGH, "^has_journal");
            let disk = skip_unless!(disk);
            let mut trial = Trial::start(Cluster::of_in(binary, disk.place(), 2, &[]), BULKY);
            for _ in 0..strikes {
                trial.ready();
                let failed = trial.failed();
                let room = random.below(8) * PAGE;
                wait_for("a checkpoint to fail", SOON, || {
                    // What the file system has freed must be holes again, or it would write there. What is in use changes
                    // all the time; a limit below it is refused.
                    run(&["fstrim", disk.place().to_str().expect("UTF-8")]).expect("it worked a moment ago");
                    let _ = memory.limit("size", memory.used() + room);
                    (trial.failed() > failed).then_some(())
                });
                failures += trial.failed() - failed;
                println!("{}", trial.why());
                memory.limit("size", ENOUGH).expect("root may");
                trial.goes_on(SOON);
                // What was never written is forgotten, and what counts is read from the disk.
                let before = trial.now();
                let cluster = &mut trial.cluster;
                cluster.taskmanagers.clear();
                cluster.kill_jobmanager();
                forget(&cluster.directory());
                cluster.start_jobmanager();
                cluster.start_taskmanager();
                cluster.start_taskmanager();
                trial.restored(&before);
                let log = trial.cluster.jobmanager.as_ref().expect("it runs").errors();
                assert!(!log.contains("damaged"), "{log}");
            }
            trial.finish();
        }
        println!("{failures} checkpoints failed");
    });
}

/// Lets the kernel forget the contents of all files below a folder, as far as they are written.
fn forget(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            forget(&path);
        } else {
            let file = std::fs::File::open(&path).expect("nobody removes it");
            fadvise(&file, 0, None, Advice::DontNeed).expect("a file");
        }
    }
}

/// F58: the power fails at a random moment, for every process and the disk. What was acknowledged is there when it returns.
#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn the_power_fails() {
    skip_unless!(root().and_then(|()| run(&["mkfs.ext4", "-V"])));
    with_own_mounts(|| {
        let mut random = Random::announced("F58");
        for strikes in rounds(times(4, 100), 10) {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let disk =
                Disk::mount(&folder.path().join("image"), &folder.path().join("disk"), ENOUGH, "has_journal");
            let disk = skip_unless!(disk);
            // Rows are visible before the rename that makes them so is on the disk.
            let mut trial = Trial::start(Cluster::of_in(binary, disk.place(), 2, &[]), BULKY).unwatched();
            for _ in 0..strikes {
                trial.ready();
                std::thread::sleep(random.up_to(Duration::from_millis(400)));
                let before = trial.now();
                disk.lose_power();
                let cluster = &mut trial.cluster;
                cluster.taskmanagers.clear();
                cluster.kill_jobmanager();
                disk.attach_again();
                cluster.start_jobmanager();
                cluster.start_taskmanager();
                cluster.start_taskmanager();
                println!("back after {:?}", trial.restored(&before));
            }
            trial.finish();
        }
    });
}
