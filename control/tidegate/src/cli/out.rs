//! What the process prints: answers on stdout, words on stderr.
//!
//! Always true: no write ends the process. An answer that nobody reads any more is a success, one that cannot be written
//! is an error; words that cannot be written are lost, since a full disk under a log must not stop a job.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};

use super::exit::{Exit, Failure};

/// Writes an answer and ends its line.
///
/// # Errors
/// [`Exit::Io`] if there is a reader and the answer does not reach it.
pub(crate) fn answer(text: impl Display) -> Result<(), Failure> {
    // At once: a line that is written in parts may be read in parts.
    let text = format!("{text}\n");
    let mut stdout = std::io::stdout().lock();
    written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// What becomes of an answer, by what the system said to it.
pub(super) fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        // Whoever read has seen enough.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Io, format!("cannot write the answer to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Says a line to people.
pub(crate) fn say(line: impl Display) {
    part(format_args!("{line}\n"));
}

/// Says something to people that is no line yet, or no line any more.
pub(super) fn part(text: impl Display) {
    let text = text.to_string();
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()); // There is nowhere else to say it.
}
