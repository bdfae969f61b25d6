//! Logs: tracing to stderr, filtered by `TIDEGATE_LOG`.
//!
//! Always true: a line that cannot be written is lost, and nothing else happens.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::args::Command;
use super::out;

/// Starts logging for this process; a second start in one process changes nothing.
pub(super) fn start(command: &Command) {
    let default = match command {
        // A role tells what it does; a command speaks for itself.
        Command::Jobmanager(_) | Command::Taskmanager(_) => "info",
        // Both roles are in this process; what becomes of the job is said by the command. Rows are news.
        Command::Run(_) => "error,tidegate_stream=warn",
        _ => "warn",
    };
    let filter = std::env::var("TIDEGATE_LOG").unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|error| {
        out::say(format_args!("warning: TIDEGATE_LOG={filter:?} is not a filter ({error}); using {default}"));
        EnvFilter::new(default)
    });
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false) // It would tell stderr that stderr cannot be written, and panic.
        .with_ansi(std::io::stderr().is_terminal());
    let _ = subscriber.try_init(); // Somebody else's subscriber is as good.
}
