//! The jobs of the `tidegate` binary. They use nothing that a job of anybody else could not use.
//!
//! Reading order: `wordcount` is the shortest; `delays` has a fork and two exchanges; `flights_clean` writes as it
//! goes; `keyed_sum` makes its own input. `flight` and `figures` are what they share.

mod delays;
mod figures;
mod flight;
mod flights_clean;
mod keyed_sum;
mod wordcount;

pub use figures::{Figures, Hundredths};

use crate::connect::OnError;
use crate::{Args, BuildError, JobEntry, Jobs};

/// Bytes of one block of lines in the jobs over flights: about forty rows, which with their header fit the smallest
/// segment there is.
const FLIGHT_BLOCK_BYTES: usize = 3 * 1024;

/// All of them, for [`crate::main`].
pub fn all() -> Jobs {
    Jobs::new([delays::entry(), flights_clean::entry(), wordcount::entry(), keyed_sum::entry()])
}

/// The flags that every job over a file takes.
struct FileArgs {
    input: String,
    output: String,
    rate: Option<u64>,
}

impl FileArgs {
    fn read(args: &Args) -> Result<Self, BuildError> {
        Ok(Self { input: args.required("input")?, output: args.required("output")?, rate: rate(args)? })
    }

    /// Describes the flags.
    fn describe(entry: JobEntry, input: &str, per_second: &str) -> JobEntry {
        entry
            .flag("input", "FILE", input)
            .flag(
                "output",
                "DIR",
                "folder for the part files; each appears with the checkpoint that covers it",
            )
            .flag("rate", "R", &format!("{per_second} per second, of the whole source; no limit without it"))
    }
}

fn rate(args: &Args) -> Result<Option<u64>, BuildError> {
    match args.optional("rate")? {
        Some(0) => Err("--rate 0 lets nothing pass: give at least 1, or leave it out for no limit".into()),
        rate => Ok(rate),
    }
}

/// `--on-error`.
fn on_error(args: &Args) -> Result<OnError, BuildError> {
    Ok(args.or("on-error", OnError::Skip)?)
}

fn describe_on_error(entry: JobEntry) -> JobEntry {
    entry.flag("on-error", "skip|fail", "what to do with a malformed row; skip counts and reports it")
}
