//! `cargo xtask sanitize`: the tests of the crates with unsafe code, and of the one that drives them, under tools that watch
//! every access to memory.
//!
//! AddressSanitizer, which also looks for leaks at the end of each test program, on a nightly toolchain; or with `--valgrind`
//! memcheck, which needs none and knows bytes that were never written, too. It owns no state but the folder `sanitize` of the
//! target directory. Always: a finding fails the run, and what is not run is said here, with the
//! reason.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{fs, io};

use crate::nightly;

/// Those with unsafe code, and the last, which puts them all to work.
const CRATES: &[&str] =
    &["tidegate-arena", "tidegate-memory", "tidegate-record", "tidegate-ring", "tidegate-exchange"];

/// Tests that are left out, and why.
const LEFT_OUT: &[(&str, &str)] = &[(
    "an_arena_that_the_kernel_does_not_return_is_leaked",
    "it leaks, as it should: what the kernel may still write is never freed",
)];

/// Both at once is one build: leaks are looked for by the runtime of AddressSanitizer.
const ADDRESS_FLAGS: &str = "-Zsanitizer=address -Cdebuginfo=line-tables-only";
const ADDRESS_OPTIONS: &str = "detect_leaks=1:detect_stack_use_after_return=1:strict_init_order=1";

/// A block that nothing points to any more is a leak; one that something points into may be a queue of the runtime's.
const VALGRIND: &str = "valgrind --quiet --error-exitcode=99 --leak-check=full --show-leak-kinds=definite \
                        --errors-for-leak-kinds=definite --fair-sched=yes";

/// What drives epoll. The others do hours of work there, or are about a kernel whose answers valgrind changes.
const VALGRIND_CRATES: &[&str] = &["tidegate-ring", "tidegate-exchange"];
/// Likewise; io_uring, which the tests of the drivers try first, loses its wake-ups under valgrind.
const VALGRIND_TESTS: &[&str] = &["decoding", "hostile", "local", "neighbours", "refusals"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    Address,
    Valgrind,
}

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub struct Wanted {
    tool: Tool,
    bootstrap: bool,
}

/// Reads the arguments behind `sanitize`.
pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut wanted = Wanted { tool: Tool::Address, bootstrap: false };
    for argument in arguments {
        match argument.as_str() {
            "--valgrind" => wanted.tool = Tool::Valgrind,
            "--bootstrap" => wanted.bootstrap = true,
            other => return Err(format!("unexpected argument `{other}`")),
        }
    }
    Ok(wanted)
}

/// Runs the tests. Gives the table of what ran.
pub fn run(wanted: &Wanted, root: &Path) -> Result<String, String> {
    let toolchain = match wanted.tool {
        Tool::Address => nightly::toolchain(wanted.bootstrap, "cargo xtask sanitize")?,
        Tool::Valgrind if nightly::works("valgrind", &["--version"]) => None,
        Tool::Valgrind => return Err("valgrind is missing. To install it: apt-get install valgrind".into()),
    };
    let folder = nightly::target(root).join("sanitize");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    println!("\n==> {:?}: its log is in {}", wanted.tool, folder.display());
    let (log, start) = (folder.join("log"), Instant::now());
    let ended = execute(wanted, toolchain, root, &folder, &log);
    let text = fs::read_to_string(&log).unwrap_or_default();
    ended.map_err(|complaint| format!("{complaint}\n{}", findings(&text, &log)))?;
    let ((programs, tests), seconds) = (counts(&text), start.elapsed().as_secs());
    Ok(format!("{programs} test programs, {tests} tests, no findings, {seconds} s\n{}", left_out()))
}

/// The tests that did not run.
fn left_out() -> String {
    LEFT_OUT.iter().map(|(test, why)| format!("left out: {test}: {why}\n")).collect()
}

fn execute(
    wanted: &Wanted,
    toolchain: Option<&str>,
    root: &Path,
    folder: &Path,
    log: &Path,
) -> Result<(), String> {
    let host = host().ok_or("rustc -vV does not say for which host it is")?;
    let mut command = nightly::cargo(toolchain, wanted.tool == Tool::Address);
    command.args(["test", "--no-fail-fast", "--lib"]);
    match wanted.tool {
        Tool::Address => {
            command.arg("--tests").args(CRATES.iter().flat_map(|name| ["--package", name]));
            // With a target, what runs while it is built is built without.
            command.args(["--target", &host, "--target-dir"]).arg(folder);
            command.env("RUSTFLAGS", ADDRESS_FLAGS).env("ASAN_OPTIONS", ADDRESS_OPTIONS);
        }
        Tool::Valgrind => {
            let runner = format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_"));
            command.args(VALGRIND_CRATES.iter().flat_map(|name| ["--package", name]));
            command.args(VALGRIND_TESTS.iter().flat_map(|name| ["--test", name]));
            command.env(runner, VALGRIND).env("TIDEGATE_TEST_DRIVER", "epoll");
        }
    }
    command.arg("--").args(LEFT_OUT.iter().flat_map(|(test, _)| ["--skip", test]));
    let output = fs::File::create(log).and_then(|file| Ok((file.try_clone()?, file)));
    let (output, errors) = output.map_err(|error: io::Error| format!("{}: {error}", log.display()))?;
    command.current_dir(root).stdin(Stdio::null()).stdout(output).stderr(errors);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("ended with {status}")),
        Err(error) => Err(format!("could not be started: {error}")),
    }
}

/// What the compiler compiles for by itself.
fn host() -> Option<String> {
    let said = Command::new("rustc").arg("-vV").output().ok()?.stdout;
    let said = String::from_utf8(said).ok()?;
    said.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned)
}

/// Test programs that passed, and tests in them.
fn counts(text: &str) -> (usize, u64) {
    let passed = text.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    let tests = passed.filter_map(|line| line.split(' ').next()?.parse::<u64>().ok());
    tests.fold((0, 0), |(programs, all), tests| (programs + 1, all + tests))
}

/// The lines of a log that say what happened.
fn findings(text: &str, log: &Path) -> String {
    let words = [
        "ERROR:",
        "SUMMARY:",
        "error",
        "panicked at",
        "FAILED",
        "definitely lost",
        "Invalid ",
        "uninitialised",
    ];
    let telling = |line: &&str| words.iter().any(|word| line.contains(word));
    let lines: Vec<&str> = text.lines().filter(telling).take(12).collect();
    format!("{}\nall of it is in {}", lines.join("\n"), log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(line: &str) -> Result<Wanted, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_are_read() {
        let all = Wanted { tool: Tool::Valgrind, bootstrap: true };
        assert_eq!(wanted("--valgrind --bootstrap"), Ok(all));
        assert_eq!(wanted(""), Ok(Wanted { tool: Tool::Address, bootstrap: false }));
        for wrong in ["--crate", "--leak"] {
            assert!(wanted(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn programs_and_tests_are_counted() {
        let text = "running 3 tests\ntest result: ok. 3 passed; 0 failed; 1 ignored\n\
                    test result: FAILED. 1 passed; 1 failed\ntest result: ok. 4 passed; 0 failed";
        assert_eq!(counts(text), (2, 7));
    }

    /// Everybody with unsafe code is watched.
    #[test]
    fn every_crate_with_unsafe_code_is_run() {
        let root = crate::workspace_root();
        for name in CRATES {
            let path = name.trim_start_matches("tidegate-");
            let found = ["alloc", "dataplane"].iter().any(|folder| root.join(folder).join(path).exists());
            assert!(found, "there is no crate {name}");
        }
        let forbids = |folder: &Path| {
            let text = fs::read_to_string(folder.join("src/lib.rs")).unwrap_or_default();
            text.contains("#![forbid(unsafe_code)]")
        };
        for folder in ["alloc", "dataplane", "control"] {
            for entry in fs::read_dir(root.join(folder)).expect("it is there").flatten() {
                let name = format!("tidegate-{}", entry.file_name().to_string_lossy());
                let code = entry.path().join("src/lib.rs").exists();
                assert!(
                    !code || forbids(&entry.path()) || CRATES.contains(&name.as_str()),
                    "{name} is not run"
                );
            }
        }
    }
}
