//! The names of things: where epochs, checkpoints and pending output files lie.
//!
//! Pure functions. Always: names of the store are relative and use `/`; parsing is the inverse of printing.

/// Directory of the epochs, relative to the store.
pub const EPOCHS: &str = "epochs";

/// Name of the metadata object in a checkpoint's directory; written last.
pub const METADATA: &str = "_metadata";

/// Name of the list of output files in a checkpoint's directory.
pub const OUTPUTS: &str = "_outputs";

/// Directory of uncommitted files within an output directory.
pub const PENDING: &str = "_pending";

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

/// Directory of an attempt within `_pending`.
pub fn attempt_dir(epoch: u64, attempt: u32) -> String {
    format!("e{epoch}-a{attempt}")
}

/// Reads an attempt's directory name: epoch and attempt.
pub fn parse_attempt_dir(name: &str) -> Option<(u64, u32)> {
    let (epoch, attempt) = name.strip_prefix('e')?.split_once("-a")?;
    Some((parse_number(epoch)?, u32::try_from(parse_number(attempt)?).ok()?))
}

/// Name under which a job's attempt directory lies once it is fenced.
pub fn fenced_dir(job: u128, name: &str) -> String {
    format!("{}{name}", fenced_prefix(job))
}

/// Beginning of the names of a job's fenced directories.
pub fn fenced_prefix(job: u128) -> String {
    format!("fenced-{job:032x}-")
}

/// Where a pending file lies after its attempt was fenced.
pub fn fenced_path(job: u128, pending: &str) -> Option<String> {
    let (root, rest) = pending.rsplit_once("/_pending/")?;
    let (dir, file) = rest.split_once('/')?;
    Some(format!("{root}/{PENDING}/{}/{file}", fenced_dir(job, dir)))
}

/// Digits only, no sign, no leading zero: one name for one number.
fn parse_number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
