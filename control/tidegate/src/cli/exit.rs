//! What the process tells its caller, as numbers that never change.
//!
//! Always true: every way out of [`crate::main`] is one of these; 0 means that what was asked for has happened.

use std::process::ExitCode;

use super::out;

/// The exit codes of every Tidegate binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for has happened. For `submit --wait` and `run`: the job is FINISHED.
    Ok = 0,
    /// The job ended FAILED.
    JobFailed = 1,
    /// A plan, a configuration or a request was refused: memory that does not add up or is not there, an unknown key, too
    /// few slots or segments, an unknown job, flags the job does not take.
    Refused = 2,
    /// The job ended CANCELED.
    JobCanceled = 3,
    /// The command line makes no sense (`EX_USAGE`).
    Usage = 64,
    /// Nobody answers at the address, or the answer is not Tidegate's (`EX_UNAVAILABLE`).
    Unreachable = 69,
    /// This process broke one of its own rules (`EX_SOFTWARE`); please report it.
    Internal = 70,
    /// The operating system refused something the role needs: a port in use, no memory (`EX_OSERR`).
    System = 71,
    /// A directory or file cannot be made or read (`EX_IOERR`).
    Io = 74,
    /// Stopped by Ctrl-C before the end.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The table for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done; for `submit --wait` and `run`: the job is FINISHED
  1    the job FAILED
  2    refused: memory that does not add up or is not there, unknown key or job, too few slots or segments,
       wrong job flags
  3    the job was CANCELED
  64   the command line makes no sense
  69   nobody answers at the address
  70   an internal error (please report it)
  71   the operating system refused something, such as a port in use
  74   a file or directory cannot be made, read or written, or the answer not printed
  130  interrupted";

/// Why a command ends without success: one line for people, details below it, and the code.
#[derive(Debug)]
pub struct Failure {
    /// For the caller of the process.
    pub exit: Exit,
    /// One line: who is at fault, what was expected, what to change.
    pub line: String,
    /// What else is known, in the order of importance.
    pub details: Vec<String>,
}

impl Failure {
    /// A failure that one line explains.
    pub fn new(exit: Exit, line: impl Into<String>) -> Self {
        Self { exit, line: line.into(), details: Vec::new() }
    }

    /// Adds the chain of causes below an error as details.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self.details.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// Writes `error: <line>` and the details to stderr.
    pub fn print(&self) {
        out::say(format_args!("error: {}", self.line));
        for line in self.details.iter().flat_map(|detail| detail.lines()) {
            out::say(format_args!("  {line}"));
        }
    }

    /// Writes it to stderr and gives what the caller of the process is told.
    pub(super) fn end(self) -> Exit {
        self.print();
        self.exit
    }
}
