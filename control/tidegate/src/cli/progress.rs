//! What a command says while it waits: one line that changes on a terminal, a line now and then elsewhere.
//!
//! Owner of the state: the command.
//!
//! Always true: nothing goes to stdout; on a terminal the line is gone or ended before anything else is printed.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Time between lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The line.
pub(crate) struct Progress {
    terminal: bool,
    quiet: bool,
    shown: usize,
    last: Option<Instant>,
}

impl Progress {
    /// Shows on stderr; nothing at all if `quiet`.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { terminal: std::io::stderr().is_terminal(), quiet, shown: 0, last: None }
    }

    /// Replaces the line, or prints it if the last one was long ago.
    pub(crate) fn show(&mut self, line: &str) {
        if self.quiet {
            return;
        }
        if self.terminal {
            let width = line.chars().count();
            let pad = self.shown.saturating_sub(width);
            eprint!("\r{line}{:pad$}", "");
            let _ = std::io::stderr().flush();
            self.shown = width;
        } else if self.last.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last = Some(Instant::now());
            eprintln!("{line}");
        }
    }

    /// Prints a line that stays.
    pub(crate) fn say(&mut self, line: &str) {
        self.clear();
        if !self.quiet {
            eprintln!("{line}");
        }
    }

    /// Takes the changing line away.
    pub(crate) fn clear(&mut self) {
        if self.shown > 0 {
            eprint!("\r{:width$}\r", "", width = self.shown);
            let _ = std::io::stderr().flush();
            self.shown = 0;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
