//! The command line of every Tidegate binary: roles, clients, and a job in one process.
//!
//! Owner of the state: nobody; each command owns what it starts and stops it before it returns.
//!
//! Always true: one line says what went wrong before anything else is said about it; what programs read is on stdout, what
//! people read on stderr; the exit code is one of [`exit::Exit`].

pub mod args;
mod client;
mod config;
pub mod doctor;
mod embedded;
pub mod exit;
mod format;
mod inspect;
mod latency;
mod logging;
mod memory;
pub(crate) mod out;
mod plan;
mod progress;
mod roles;
mod signals;
mod submit;
pub mod units;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::Jobs;
use crate::demo::{self, DemoData};
use args::{Cli, Command};
use exit::{Exit, Failure};

pub(crate) use client::Client;
pub(crate) use format::{grouped, seconds};
pub(crate) use progress::Progress;
pub(crate) use signals::Signals;
pub(crate) use submit::{Outcome, Request, cancel_own, watch};

/// A binary's commands, before they are run.
#[derive(Debug)]
pub struct App {
    jobs: Jobs,
    demo: Option<DemoData>,
}

impl App {
    /// The commands for these jobs.
    pub fn new(jobs: Jobs) -> Self {
        Self { jobs, demo: None }
    }

    /// Adds the command `demo`, which runs the job `delays` on this data.
    #[must_use]
    pub fn demo(mut self, data: DemoData) -> Self {
        self.demo = Some(data);
        self
    }

    /// Runs the command that the process was started with.
    pub fn run(self) -> ExitCode {
        self.run_with(std::env::args_os()).into()
    }

    /// Runs the command in `line`, whose first word is the name of the program.
    pub fn run_with(&self, line: impl IntoIterator<Item = OsString>) -> Exit {
        let command = Cli::command().mut_subcommand("demo", |demo| demo.hide(self.demo.is_none()));
        let parsed = command.try_get_matches_from(line).and_then(|matches| Cli::from_arg_matches(&matches));
        match parsed {
            Ok(cli) => match self.dispatch(cli.command) {
                Ok(()) => Exit::Ok,
                Err(failure) => failure.end(),
            },
            Err(error) => {
                let asked = !error.use_stderr(); // --help and --version are errors to clap.
                match out::written(error.print()) {
                    Err(failure) if asked => failure.end(),
                    _ if asked => Exit::Ok,
                    _ => Exit::Usage,
                }
            }
        }
    }

    fn dispatch(&self, command: Command) -> Result<(), Failure> {
        logging::start(&command);
        match command {
            Command::Jobmanager(args) => roles::jobmanager(&self.jobs, &args),
            Command::Taskmanager(args) => roles::taskmanager(&self.jobs, &args),
            Command::Submit(args) => submit::submit(&self.jobs, &args),
            Command::Run(args) => embedded::run(&self.jobs, &args),
            Command::List(args) => inspect::list(&args),
            Command::Status(args) => inspect::status(&args),
            Command::Latency(args) => latency::latency(&args),
            Command::Cancel(args) => inspect::cancel(&args),
            Command::Jobs(args) => inspect::jobs(&self.jobs, &args),
            Command::Plan(args) => plan::plan(&args),
            Command::Doctor(args) => doctor::doctor(&args),
            Command::Config(args) => config::config(&args),
            Command::Demo(args) => match &self.demo {
                Some(data) => demo::run(data, &args),
                None => {
                    Err(Failure::new(Exit::Usage, "this binary has no demo; the one called tidegate has"))
                }
            },
        }
    }
}

/// A new directory where the system wants such ones.
pub(crate) fn temporary_directory(prefix: &str) -> Result<tempfile::TempDir, Failure> {
    tempfile::Builder::new().prefix(prefix).tempdir().map_err(|error| {
        let parent = std::env::temp_dir();
        let line = format!(
            "cannot make a temporary directory in {}: {error}; name a directory that can be written with TMPDIR",
            parent.display()
        );
        Failure::new(Exit::Io, line)
    })
}
