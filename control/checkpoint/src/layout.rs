//! The names of things: where epochs, checkpoints and pending output files lie.
//!
//! Pure functions. Always: names of the store are relative and use `/`; parsing is the inverse of printing. The name of
//! an attempt's directory within `_pending` is [`PendingFolder`]'s, which sinks write and this side reads.

use tidegate_graph::PendingFolder;

/// Directory of the epochs, relative to the store.
pub const EPOCHS: &str = "epochs";

/// Name of the metadata object in a checkpoint's directory; written last.
pub const METADATA: &str = "_metadata";

/// Name of the list of output files in a checkpoint's directory.
pub const OUTPUTS: &str = "_outputs";

/// Ending of the directory of a checkpoint that was set aside because it is damaged.
pub const DAMAGED: &str = ".damaged";

/// The claim of an epoch.
pub fn epoch(epoch: u64) -> String {
    format!("{EPOCHS}/{epoch}")
}

/// The record that an epoch is settled: its leader may act.
pub fn settled(epoch: u64) -> String {
    format!("{EPOCHS}/{epoch}.settled")
}

/// Reads a name within [`EPOCHS`]: the epoch, and whether it is the settled record.
pub fn parse_epoch(name: &str) -> Option<(u64, bool)> {
    let (number, settled) = match name.strip_suffix(".settled") {
        Some(number) => (number, true),
        None => (name, false),
    };
    parse_number(number).map(|epoch| (epoch, settled))
}

/// Directory of a job's checkpoints.
pub fn checkpoints_dir(job: u128) -> String {
    format!("jobs/{job:032x}/checkpoints")
}

/// Directory of one checkpoint.
pub fn checkpoint_dir(job: u128, id: u64) -> String {
    format!("{}/chk-{id}", checkpoints_dir(job))
}

/// Directory of one checkpoint that was set aside.
pub fn damaged_dir(job: u128, id: u64) -> String {
    format!("{}/chk-{id}{DAMAGED}", checkpoints_dir(job))
}

/// Reads a name within a job's checkpoints: the id, and whether it was set aside.
pub fn parse_checkpoint(name: &str) -> Option<(u64, bool)> {
    let (name, damaged) = match name.strip_suffix(DAMAGED) {
        Some(name) => (name, true),
        None => (name, false),
    };
    parse_number(name.strip_prefix("chk-")?).map(|id| (id, damaged))
}

/// Beginning of the name under which an attempt's directory lies once it is fenced.
pub const FENCED: &str = "fenced-";

/// Name under which an attempt's directory lies once it is fenced.
pub fn fenced_dir(name: &str) -> String {
    format!("{FENCED}{name}")
}

/// The attempt that a directory within `_pending` belongs to, fenced or not.
pub fn owner(name: &str) -> Option<PendingFolder> {
    PendingFolder::parse(name.strip_prefix(FENCED).unwrap_or(name))
}

/// Where a pending file lies after its attempt was fenced.
pub fn fenced_path(pending: &str) -> Option<String> {
    let (root, rest) = pending.rsplit_once("/_pending/")?;
    let (dir, file) = rest.split_once('/')?;
    Some(format!("{root}/_pending/{}/{file}", fenced_dir(dir)))
}

/// Digits only, no sign, no leading zero: one name for one number.
fn parse_number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
