//! The store as those see it who check: what is in it by the real names and bytes, and operations of the real store.
//!
//! It owns nothing. Always: what is looked at here is read from the disk, not from what anybody believes.

use tidegate_checkpoint::frame::{self, FrameKind};
use tidegate_checkpoint::{EpochRecord, Metadata, StoreDone, StoreOp, layout};
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::Disk;
use crate::host::ready;
use crate::objects::local_store;

/// Where the store is.
pub const STORE: &str = "/store";

/// Who dies in the middle of an operation makes fewer calls than this before.
const CALLS_MAX: u64 = 24;

fn at(name: &str) -> String {
    format!("{STORE}/{name}")
}

/// What lies in metadata's place.
pub enum Found {
    Absent,
    Void,
    Metadata(Box<Metadata>),
    Damaged,
}

/// Reads metadata in a directory of the store.
pub fn find(disk: &Disk, job: u128, id: u64, dir: &str) -> Found {
    let Some(bytes) = disk.read(&at(&format!("{dir}/{}", layout::METADATA))) else { return Found::Absent };
    if frame::open(FrameKind::Void, &bytes).is_ok() {
        return Found::Void;
    }
    match Metadata::decode(job, id, &bytes) {
        Ok(metadata) => Found::Metadata(Box::new(metadata)),
        Err(_) => Found::Damaged,
    }
}

/// The settled record of an epoch.
pub fn settled(disk: &Disk, epoch: u64) -> Option<EpochRecord> {
    EpochRecord::decode(epoch, &disk.read(&at(&layout::settled(epoch)))?).ok()
}

fn epochs(disk: &Disk) -> impl Iterator<Item = (u64, bool)> {
    disk.list(&at(layout::EPOCHS)).into_iter().filter_map(|name| layout::parse_epoch(&name))
}

/// The newest claim.
pub fn newest_epoch(disk: &Disk) -> u64 {
    epochs(disk).map(|(epoch, _)| epoch).max().unwrap_or(0)
}

/// Carries an operation out.
pub fn execute(disk: &Disk, op: &StoreOp) -> StoreDone {
    ready(local_store(disk).execute(op.clone()))
}

/// The process dies in the middle of an operation: some of its calls were made.
pub fn execute_partly(disk: &Disk, op: &StoreOp, part: u64) {
    disk.dying(part % CALLS_MAX, || execute(disk, op));
}

/// What is wrong with the objects of a checkpoint.
pub fn damage(disk: &Disk, metadata: &Metadata) -> Option<String> {
    metadata.objects().find_map(|object| {
        let whole = |bytes: &[u8]| bytes.len() as u64 == object.len && xxh3_64(bytes) == object.hash;
        let found = disk.look(&at(&object.path), whole);
        (found != Some(true)).then(|| format!("{} is {}", object.path, found.map_or("gone", |_| "damaged")))
    })
}
