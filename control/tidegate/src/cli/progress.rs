//! What a command says while it waits: one line that changes on a terminal, a line now and then elsewhere.
//!
//! Owner of the state: the command.
//!
//! Always true: nothing goes to stdout; on a terminal the line is gone or ended before anything else is printed.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use super::out;

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
            out::part(format_args!("\r{line}{:pad$}", ""));
            self.shown = width;
        } else if self.last.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last = Some(Instant::now());
            out::say(line);
        }
    }

    /// Prints a line that stays.
    pub(crate) fn say(&mut self, line: &str) {
        self.clear();
        if !self.quiet {
            out::say(line);
        }
    }

    /// Takes the changing line away.
    pub(crate) fn clear(&mut self) {
        if self.shown > 0 {
            out::part(format_args!("\r{:width$}\r", "", width = self.shown));
            self.shown = 0;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
