//! What the JobManager's shell does to its store, done to the simulated disk: the same names, the same bytes.
//!
//! It owns nothing. Always: an answer says what is so; what `Failed` hides is up to whoever calls.

use tidegate_checkpoint::frame::{self, FrameKind};
use tidegate_checkpoint::metadata::Object;
use tidegate_checkpoint::sink::{Move, Moved};
use tidegate_checkpoint::{
    EpochRecord, Metadata, Outputs, Scanned, ScannedState, SinkDone, SinkOp, StoreDone, StoreOp, layout,
};
use tidegate_graph::PENDING;
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::Disk;

/// Where the store is.
pub const STORE: &str = "/store";

const FULL: &str = "no space left on device";

fn at(name: &str) -> String {
    format!("{STORE}/{name}")
}

/// What lies in metadata's place.
pub enum Found {
    Absent,
    Void,
    Metadata(Box<Metadata>),
    Damaged(String),
}

/// Reads metadata in a directory of the store.
pub fn find(disk: &Disk, job: u128, id: u64, dir: &str) -> Found {
    let Some(file) = disk.file(&at(&format!("{dir}/{}", layout::METADATA))) else { return Found::Absent };
    let bytes = file.borrow();
    if frame::open(FrameKind::Void, &bytes).is_ok() {
        return Found::Void;
    }
    match Metadata::decode(job, id, &bytes) {
        Ok(metadata) => Found::Metadata(Box::new(metadata)),
        Err(damage) => Found::Damaged(damage.to_string()),
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
///
/// # Errors
/// The disk is full.
pub fn execute(disk: &Disk, op: &StoreOp) -> StoreDone {
    done(disk, op).unwrap_or_else(|reason| StoreDone::Failed(reason.into()))
}

fn done(disk: &Disk, op: &StoreOp) -> Result<StoreDone, String> {
    Ok(match op {
        StoreOp::ReadEpochs => {
            let claims = epochs(disk).filter(|(_, settled)| !settled).map(|(epoch, _)| epoch).collect();
            let newest = epochs(disk).filter(|(_, settled)| *settled).map(|(epoch, _)| epoch).max();
            let read =
                |epoch| settled(disk, epoch).ok_or_else(|| format!("epochs/{epoch}.settled is damaged"));
            StoreDone::Epochs { claims, settled: newest.map(read) }
        }
        StoreOp::ClaimEpoch(record) => create(disk, &layout::epoch(record.epoch), encoded(record.encode())?)?,
        StoreOp::SettleEpoch(record) => {
            create(disk, &layout::settled(record.epoch), encoded(record.encode())?)?
        }
        StoreOp::NewestEpoch => StoreDone::Newest(newest_epoch(disk)),
        StoreOp::Scan { job } => StoreDone::Scanned(scan(disk, *job)),
        StoreOp::PutMetadata { metadata, outputs } => put(disk, metadata, *outputs)?,
        StoreOp::ReadMetadata { job, id } => read(disk, *job, *id),
        StoreOp::VoidMetadata { job, id } => void(disk, *job, *id)?,
        StoreOp::Verify { job, id } => match find(disk, *job, *id, &layout::checkpoint_dir(*job, *id)) {
            Found::Metadata(metadata) => {
                let damaged = metadata.objects().find_map(|object| damage(disk, object));
                damaged.map_or(StoreDone::Metadata(metadata), StoreDone::Damaged)
            }
            _ => read(disk, *job, *id),
        },
        StoreOp::Quarantine { job, id } => {
            disk.rename_dir(&at(&layout::checkpoint_dir(*job, *id)), &at(&layout::damaged_dir(*job, *id)));
            StoreDone::Done
        }
        StoreOp::ReadOutputs { job, id, expected } => outputs(disk, *job, *id, *expected),
        StoreOp::Retain { job, below } => {
            for name in old(disk, *job, *below) {
                disk.remove_tree(&name);
            }
            StoreDone::Done
        }
        StoreOp::Discard { job, ids } => {
            for &id in ids {
                let created = void(disk, *job, id)? == StoreDone::Created;
                let dir = layout::checkpoint_dir(*job, id);
                if created || matches!(find(disk, *job, id, &dir), Found::Void) {
                    let names = disk.list(&at(&dir)).into_iter().filter(|name| name != layout::METADATA);
                    names.for_each(|name| disk.remove_file(&at(&format!("{dir}/{name}"))));
                }
            }
            StoreDone::Done
        }
        StoreOp::Sink(op) => StoreDone::Sink(sink(disk, op)),
    })
}

/// The process dies in the middle of an operation, or its disk fills up: some of it was done.
pub fn execute_partly(disk: &Disk, op: &StoreOp, part: u64) {
    let some = |len: usize| (part % (len as u64 + 1)) as usize;
    match op {
        StoreOp::PutMetadata { metadata, outputs: true } if part.is_multiple_of(2) => {
            // The object is put there whole or not at all; but there are two.
            let _ = put_outputs(disk, metadata);
        }
        StoreOp::Retain { job, below } => {
            for name in old(disk, *job, *below).into_iter().take(1) {
                disk.remove_file(&format!("{name}/{}", layout::METADATA));
                let files = disk.below(&name);
                files.iter().take(some(files.len())).for_each(|path| disk.remove_file(path));
            }
        }
        StoreOp::Discard { job, ids } => {
            let ids = ids[..some(ids.len())].to_vec();
            execute(disk, &StoreOp::Discard { job: *job, ids });
        }
        StoreOp::Sink(SinkOp::Rename { files }) => {
            let files = files[..some(files.len())].to_vec();
            sink(disk, &SinkOp::Rename { files });
        }
        StoreOp::Sink(SinkOp::Remove { paths }) => {
            let paths = paths[..some(paths.len())].to_vec();
            sink(disk, &SinkOp::Remove { paths });
        }
        StoreOp::Sink(SinkOp::RemoveTree { root, name }) => {
            let files = disk.below(&format!("{root}/{PENDING}/{name}"));
            files.iter().take(some(files.len())).for_each(|path| disk.remove_file(path));
        }
        // Everything else is one step.
        _ => {}
    }
}

fn encoded<E: ToString>(bytes: Result<Vec<u8>, E>) -> Result<Vec<u8>, String> {
    bytes.map_err(|error| error.to_string())
}

fn create(disk: &Disk, name: &str, bytes: Vec<u8>) -> Result<StoreDone, String> {
    if disk.exists(&at(name)) {
        return Ok(StoreDone::Exists);
    }
    match disk.replace(&at(name), bytes) {
        Ok(()) => Ok(StoreDone::Created),
        Err(_) => Err(format!("{name}: {FULL}")),
    }
}

fn void(disk: &Disk, job: u128, id: u64) -> Result<StoreDone, String> {
    let name = format!("{}/{}", layout::checkpoint_dir(job, id), layout::METADATA);
    create(disk, &name, frame::seal(FrameKind::Void, &[]))
}

fn put_outputs(disk: &Disk, metadata: &Metadata) -> Result<StoreDone, String> {
    let (job, epoch, id) = (metadata.job, metadata.epoch, metadata.id);
    let list = Outputs { job, epoch, id, files: metadata.committables() };
    let name = format!("{}/{}", layout::checkpoint_dir(job, id), layout::OUTPUTS);
    create(disk, &name, encoded(list.encode())?)
}

fn put(disk: &Disk, metadata: &Metadata, outputs: bool) -> Result<StoreDone, String> {
    let dir = layout::checkpoint_dir(metadata.job, metadata.id);
    if outputs && put_outputs(disk, metadata)? == StoreDone::Exists {
        return Ok(StoreDone::Damaged("a list of outputs exists: somebody else uses this id".to_owned()));
    }
    create(disk, &format!("{dir}/{}", layout::METADATA), encoded(metadata.encode())?)
}

fn read(disk: &Disk, job: u128, id: u64) -> StoreDone {
    match find(disk, job, id, &layout::checkpoint_dir(job, id)) {
        Found::Absent => StoreDone::Absent,
        Found::Void => StoreDone::Void,
        Found::Metadata(metadata) => StoreDone::Metadata(metadata),
        Found::Damaged(reason) => StoreDone::Damaged(reason),
    }
}

fn damage(disk: &Disk, object: &Object) -> Option<String> {
    let Some(file) = disk.file(&at(&object.path)) else { return Some("it was removed".to_owned()) };
    let bytes = file.borrow();
    let whole = bytes.len() as u64 == object.len && xxh3_64(&bytes) == object.hash;
    (!whole).then(|| format!("{} is damaged", object.path))
}

fn scan(disk: &Disk, job: u128) -> Vec<Scanned> {
    let dir = layout::checkpoints_dir(job);
    let mut found = Vec::new();
    for name in disk.list(&at(&dir)) {
        let Some((id, quarantined)) = layout::parse_checkpoint(&name) else { continue };
        let dir = format!("{dir}/{name}");
        let state = match find(disk, job, id, &dir) {
            Found::Absent => ScannedState::Absent,
            Found::Void => ScannedState::Void,
            Found::Metadata(metadata) => ScannedState::Present { epoch: metadata.epoch },
            Found::Damaged(reason) => ScannedState::Damaged(reason),
        };
        let outputs = disk.exists(&at(&format!("{dir}/{}", layout::OUTPUTS)));
        // An object store has no empty directories.
        if !disk.below(&at(&dir)).is_empty() {
            found.push(Scanned { id, quarantined, state, outputs });
        }
    }
    found.sort_by_key(|entry| (entry.id, entry.quarantined));
    found
}

fn outputs(disk: &Disk, job: u128, id: u64, expected: bool) -> StoreDone {
    for dir in [layout::checkpoint_dir(job, id), layout::damaged_dir(job, id)] {
        if let Some(bytes) = disk.read(&at(&format!("{dir}/{}", layout::OUTPUTS)))
            && let Ok(outputs) = Outputs::decode(job, id, &bytes)
        {
            return StoreDone::Outputs(outputs);
        }
        if let Found::Metadata(metadata) = find(disk, job, id, &dir) {
            let (epoch, files) = (metadata.epoch, metadata.committables());
            return StoreDone::Outputs(Outputs { job, epoch, id, files });
        }
    }
    if expected { StoreDone::Damaged("nothing of it can be read".to_owned()) } else { StoreDone::Absent }
}

fn old(disk: &Disk, job: u128, below: u64) -> Vec<String> {
    let dir = at(&layout::checkpoints_dir(job));
    let old = |name: &String| layout::parse_checkpoint(name).is_some_and(|(id, _)| id < below);
    disk.list(&dir).into_iter().filter(old).map(|name| format!("{dir}/{name}")).collect()
}

fn sink(disk: &Disk, op: &SinkOp) -> SinkDone {
    match op {
        SinkOp::ListPending { root } => SinkDone::Listed(disk.list(&format!("{root}/{PENDING}"))),
        SinkOp::MoveDir { root, from, to } => {
            let [from, to] = [from, to].map(|name| format!("{root}/{PENDING}/{name}"));
            SinkDone::Moved(match (disk.exists(&to), disk.exists(&from)) {
                (_, false) => Moved::SourceAbsent,
                (true, true) => Moved::TargetExists,
                (false, true) => {
                    disk.rename_dir(&from, &to);
                    Moved::Done
                }
            })
        }
        SinkOp::RemoveTree { root, name } => {
            disk.remove_tree(&format!("{root}/{PENDING}/{name}"));
            SinkDone::Done
        }
        SinkOp::RemovePending { root } => {
            disk.remove_empty(&format!("{root}/{PENDING}"));
            SinkDone::Done
        }
        SinkOp::Rename { files } => SinkDone::Renamed(files.iter().map(|file| rename(disk, file)).collect()),
        SinkOp::Probe { paths } => {
            let probe = |path: &String| {
                let file = disk.file(path)?;
                let bytes = file.borrow();
                Some((bytes.len() as u64, xxh3_64(&bytes)))
            };
            SinkDone::Probed(paths.iter().map(probe).collect())
        }
        SinkOp::Remove { paths } => {
            paths.iter().for_each(|path| disk.remove_file(path));
            SinkDone::Done
        }
        SinkOp::SyncParents { .. } => SinkDone::Done,
    }
}

fn rename(disk: &Disk, file: &Move) -> Moved {
    let Some(found) = disk.file(&file.from) else { return Moved::SourceAbsent };
    let len = found.borrow().len() as u64;
    if len != file.len {
        return Moved::WrongLength(len);
    }
    if disk.exists(&file.to) {
        return Moved::TargetExists;
    }
    disk.rename_file(&file.from, &file.to);
    Moved::Done
}
