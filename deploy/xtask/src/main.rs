//! The project's own commands, run as `cargo xtask COMMAND` (an alias in `.cargo/config.toml`).
//!
//! It owns no state: every step is a child process whose output goes straight to the terminal. What always
//! holds: steps run in the order of [`steps`]; the first that fails ends the run; the last line printed is
//! `N passed, N failed` and the exit status is 0 exactly when the second number is 0.
#![forbid(unsafe_code)]

mod e2e;
mod faults;
mod fuzz;
#[cfg(test)]
mod links;
mod nightly;
mod sanitize;
mod steps;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use steps::Step;

const USAGE: &str = "\
usage: cargo xtask test [--only STEP]
       cargo xtask faults [--long] [--list]
       cargo xtask e2e [--all] [--driver D] [--transport T] [--send S] [FILTER]
       cargo xtask fuzz [--seconds N] [--target NAME] [--volume] [--bootstrap]
       cargo xtask sanitize [--valgrind] [--bootstrap]
       cargo xtask steps

  test      format, clippy, no `unwrap` outside of tests, build, unit tests, end-to-end tests, the most important of them on
            every driver, transport and send mode, manifests, doc tests, seeds of the simulation,
            models of loom and shuttle
  faults    real processes hurt in every way of a catalogue, which --list shows: namespaces, killed sockets,
            full disks, power cuts; as root (skips say why). --long: as often as a release needs, for hours
  e2e       the end-to-end tests, or those whose names contain FILTER, on every driver (io_uring,
            epoll), transport (tcp, shm, auto) and send mode (auto, fixed, plain, zc), or on the
            combinations that are named; forced modes need what `tidegate doctor` asks for
  fuzz      every fuzz target for N seconds each (60), with a nightly toolchain and cargo-fuzz
  sanitize  the tests of the crates with unsafe code, and of what drives them, under AddressSanitizer,
            with a nightly toolchain, which looks for leaks as well; or those on epoll, under valgrind
  steps     the steps of test and faults, with their command lines

--only STEP runs one step; give it again for more.
--volume fuzzes without a sanitizer, many times as fast: for counts, beside runs with one.
--bootstrap fuzzes and sanitizes with the present toolchain and RUSTC_BOOTSTRAP=1 where there is no nightly one.";

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(Call::Run { all, only }) => run(all, &only),
        Ok(Call::ListFaults) => {
            print!("{}", faults::table());
            ExitCode::SUCCESS
        }
        Ok(Call::E2e(wanted)) => show(e2e::run(&wanted, &workspace_root())),
        Ok(Call::Fuzz(wanted)) => show(fuzz::run(&wanted, &workspace_root())),
        Ok(Call::Sanitize(wanted)) => show(sanitize::run(&wanted, &workspace_root())),
        Ok(Call::List) => {
            for step in steps::test().iter().chain(&steps::faults(false)) {
                println!("{:<14} {}", step.name, step.command_line());
            }
            ExitCode::SUCCESS
        }
        Ok(Call::Help) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(complaint) => {
            eprintln!("xtask: {complaint}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Prints a table, or why there is none.
fn show(table: Result<String, String>) -> ExitCode {
    match table {
        Ok(table) => {
            println!("\n{table}");
            ExitCode::SUCCESS
        }
        Err(complaint) => {
            eprintln!("\nxtask: {complaint}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for.
#[derive(Debug, PartialEq)]
enum Call {
    Run { all: Vec<Step>, only: Vec<String> },
    ListFaults,
    E2e(e2e::Wanted),
    Fuzz(fuzz::Wanted),
    Sanitize(sanitize::Wanted),
    List,
    Help,
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Call, String> {
    let mut arguments = arguments;
    let all = match arguments.next().as_deref() {
        Some("test") => steps::test(),
        Some("faults") => {
            let (mut long, mut list) = (false, false);
            for argument in arguments {
                match argument.as_str() {
                    "--long" => long = true,
                    "--list" => list = true,
                    other => return Err(format!("unexpected argument `{other}`")),
                }
            }
            let run = Call::Run { all: steps::faults(long), only: Vec::new() };
            return Ok(if list { Call::ListFaults } else { run });
        }
        Some("e2e") => return e2e::parse(arguments).map(Call::E2e),
        Some("fuzz") => return fuzz::parse(arguments).map(Call::Fuzz),
        Some("sanitize") => return sanitize::parse(arguments).map(Call::Sanitize),
        Some("steps") => return Ok(Call::List),
        None | Some("help" | "--help" | "-h") => return Ok(Call::Help),
        Some(other) => return Err(format!("there is no command `{other}`")),
    };
    let mut only = Vec::new();
    while let Some(argument) = arguments.next() {
        if argument != "--only" {
            return Err(format!("unexpected argument `{argument}`"));
        }
        let name = arguments.next().ok_or("--only needs the name of a step")?;
        if !all.iter().any(|step| step.name == name) {
            let names: Vec<&str> = all.iter().map(|step| step.name).collect();
            return Err(format!("there is no step `{name}`; there are {}", names.join(", ")));
        }
        only.push(name);
    }
    Ok(Call::Run { all, only })
}

/// One finished step.
struct Outcome {
    name: &'static str,
    took: Duration,
    passed: bool,
}

fn run(all: Vec<Step>, only: &[String]) -> ExitCode {
    let root = workspace_root();
    let wanted = |step: &Step| only.is_empty() || only.iter().any(|name| name == step.name);
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut failed: Option<String> = None;
    for step in all.iter().filter(|step| wanted(step)) {
        println!("\n==> {}: {}", step.name, step.command_line());
        let start = Instant::now();
        let result = execute(step, &root);
        outcomes.push(Outcome { name: step.name, took: start.elapsed(), passed: result.is_ok() });
        if let Err(complaint) = result {
            failed = Some(format!("{}: {complaint}\nto run it again: {}", step.name, step.command_line()));
            break;
        }
    }
    let skipped = all.iter().filter(|step| wanted(step)).count() - outcomes.len();
    println!("\n{}", table(&outcomes, skipped));
    if let Some(complaint) = &failed {
        println!("{complaint}\n");
    }
    let (passed, failures) =
        (outcomes.iter().filter(|step| step.passed).count(), usize::from(failed.is_some()));
    println!("{passed} passed, {failures} failed");
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one step to its end with the terminal as its output and no input.
fn execute(step: &Step, root: &Path) -> Result<(), String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(&step.arguments).current_dir(root).stdin(Stdio::null());
    for (name, value) in &step.environment {
        command.env(name, value);
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("failed with {status}")),
        Err(error) => Err(format!("could not be started: {error}")),
    }
}

fn table(outcomes: &[Outcome], not_run: usize) -> String {
    let mut text = String::from("step       result     seconds\n");
    for step in outcomes {
        let result = if step.passed { "passed" } else { "FAILED" };
        let _ = writeln!(text, "{:<14} {result:<8} {:>9.1}", step.name, step.took.as_secs_f64());
    }
    let total: Duration = outcomes.iter().map(|step| step.took).sum();
    let _ = writeln!(text, "{:<14} {:<8} {:>9.1}", "all", "", total.as_secs_f64());
    if not_run > 0 {
        let _ = writeln!(text, "{not_run} more not run after the failure");
    }
    text
}

/// The folder of the workspace: two above this crate's own.
fn workspace_root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    here.ancestors().nth(2).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Result<Call, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn only_takes_names_of_steps() {
        let Ok(Call::Run { only, .. }) = call("test --only clippy --only loom") else {
            panic!("a good line was refused")
        };
        assert_eq!(only, ["clippy", "loom"]);
        assert!(call("test --only nonsense").unwrap_err().contains("format, clippy"));
        assert!(call("test --only").is_err());
        assert!(call("test clippy").is_err());
        assert!(call("tset").is_err());
        assert_eq!(call("faults --list"), Ok(Call::ListFaults));
        assert!(call("faults --short").is_err());
        let Ok(Call::Run { all, .. }) = call("faults --long") else { panic!("a good line was refused") };
        assert!(all[0].command_line().starts_with("TIDEGATE_FAULTS_LONG=1 cargo test "));
        assert_eq!(call(""), Ok(Call::Help));
    }

    #[test]
    fn step_names_are_unique() {
        for steps in [steps::test(), steps::faults(false)] {
            for (at, step) in steps.iter().enumerate() {
                assert!(steps[..at].iter().all(|other| other.name != step.name), "{} twice", step.name);
            }
        }
    }

    #[test]
    fn command_lines_can_be_pasted_into_a_shell() {
        let loom = steps::test().into_iter().find(|step| step.name == "loom").unwrap();
        let line = loom.command_line();
        assert!(line.contains("RUSTFLAGS='--cfg loom'") && line.contains(" cargo test "), "{line}");
    }
}
