//! Bytes as what a JobManager finds in its directory: metadata and lists of outputs of checkpoints, records of epochs.
//!
//! As they are, and as the body of a frame with the right hashes, since a file that was written with intent has those.
//! Oracle: what is read can be written and read again, equal; every check of it ends in a sentence.

use tidegate_checkpoint::frame::{FrameKind, HEADER_BYTES, kind_of, seal};
use tidegate_checkpoint::{EpochRecord, Metadata, Outputs, layout};
use tidegate_graph::{PendingFolder, is_plain_path, normal_path};

/// The job, the checkpoint and the epoch under whose names the bytes are read.
pub(crate) const JOB: u128 = 7;
pub(crate) const ID: u64 = 5;
pub(crate) const EPOCH: u64 = 2;

/// Any bytes as any of these objects.
pub fn checkpoint(bytes: &[u8]) {
    one(bytes);
    let body = bytes.get(HEADER_BYTES..).unwrap_or(bytes);
    for kind in [FrameKind::Metadata, FrameKind::Outputs, FrameKind::Epoch] {
        let sealed = seal(kind, body);
        assert_eq!(kind_of(&sealed), Ok(kind as u32));
        one(&sealed);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        names(text);
    }
}

fn one(bytes: &[u8]) {
    if let Ok(metadata) = Metadata::decode(JOB, ID, bytes) {
        let again = metadata.encode().expect("what was read can be written");
        assert_eq!(Metadata::decode(JOB, ID, &again).as_ref(), Ok(&metadata));
        assert!(Metadata::decode(JOB, ID + 1, bytes).is_err(), "a swapped file is noticed");
        assert!(metadata.objects().count() <= bytes.len());
        metadata.bytes();
        for file in metadata.committables() {
            if file.check(JOB).is_ok() {
                let root = file.root().expect("a file that is in order has a root");
                assert!(file.target.starts_with(root) && is_plain_path(&file.target));
            }
        }
        for part in &metadata.tasks {
            if part.check(JOB, ID, &metadata.operators).is_ok() {
                let own = format!("{}/", layout::checkpoint_dir(JOB, ID));
                let objects = part.operators.iter().filter_map(|part| part.object.as_ref());
                objects.for_each(|object| assert!(object.path.starts_with(&own)));
            }
        }
    }
    if let Ok(outputs) = Outputs::decode(JOB, ID, bytes) {
        let again = outputs.encode().expect("what was read can be written");
        assert_eq!(Outputs::decode(JOB, ID, &again).as_ref(), Ok(&outputs));
    }
    if let Ok(record) = EpochRecord::decode(EPOCH, bytes) {
        let again = record.encode().expect("what was read can be written");
        assert_eq!(EpochRecord::decode(EPOCH, &again).as_ref(), Ok(&record));
        let newest = record.legal(JOB).iter().map(|legal| legal.id).max();
        assert_eq!(record.base(JOB), newest);
    }
}

/// Names of files and folders: reading is the inverse of printing.
fn names(text: &str) {
    if let Some((epoch, settled)) = layout::parse_epoch(text) {
        let name = if settled { layout::settled(epoch) } else { layout::epoch(epoch) };
        assert_eq!(name.rsplit('/').next(), Some(text));
    }
    if let Some((id, damaged)) = layout::parse_checkpoint(text) {
        let name = if damaged { layout::damaged_dir(JOB, id) } else { layout::checkpoint_dir(JOB, id) };
        assert_eq!(name.rsplit('/').next(), Some(text));
    }
    if let Some(folder) = PendingFolder::parse(text) {
        assert_eq!(folder.to_string(), text);
    }
    let normal = normal_path(text);
    assert_eq!(normal_path(&normal), normal, "a normal path is its own");
}
