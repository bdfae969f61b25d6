//! `cargo xtask fuzz`: every fuzz target for some seconds each, and a table of what it did.
//!
//! It owns no state but the folder `fuzz` of the target directory: what a fuzzer finds and learns goes there, so that the
//! tree stays as it is. Always: the first target with a finding ends the run, with the line that repeats it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::nightly;

/// Seconds for each target, if nothing else is said: enough to see that all of them still run.
const SECONDS_DEFAULT: u32 = 60;
/// Most memory of a fuzzer and of one of its allocations, MiB; an input has 4 KiB, so a parser that wants more is broken.
const MEMORY_MAX: u32 = 2048;
const ALLOCATION_MAX: u32 = 64;
/// Seconds after which an input counts as a hang.
const HANG: u32 = 5;
/// The targets that need the data plane only. They are built without the rest of the system: a fuzzer looks at all branches of
/// its binary after each execution.
const DATA_PLANE: [&str; 4] = ["hello", "link", "manifest", "records"];
/// What is left out for volume: the sanitizer, and comparisons, which are looked at for what to try next. Debug assertions and
/// overflow checks stay.
const VOLUME: [&str; 3] = ["--sanitizer", "none", "--no-trace-compares"];
/// Tells the C library to keep what is freed, for a process that allocates the same thousands of times a second.
const KEPT: [(&str, &str); 2] =
    [("MALLOC_TRIM_THRESHOLD_", "268435456"), ("MALLOC_MMAP_THRESHOLD_", "67108864")];

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub struct Wanted {
    seconds: u32,
    target: Option<String>,
    bootstrap: bool,
    volume: bool,
}

/// Reads the arguments behind `fuzz`.
pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut wanted = Wanted { seconds: SECONDS_DEFAULT, target: None, bootstrap: false, volume: false };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--seconds" => {
                let text = value()?;
                let seconds = text.parse().ok().filter(|seconds| *seconds > 0);
                wanted.seconds = seconds.ok_or(format!("--seconds needs a number from 1, found `{text}`"))?;
            }
            "--target" => wanted.target = Some(value()?),
            "--bootstrap" => wanted.bootstrap = true,
            "--volume" => wanted.volume = true,
            other => return Err(format!("unexpected argument `{other}`")),
        }
    }
    Ok(wanted)
}

/// Runs the targets. Gives the table of what they did.
pub fn run(wanted: &Wanted, root: &Path) -> Result<String, String> {
    // The fuzzer runs in another folder.
    let root = &root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
    let all = targets(root).map_err(|error| format!("fuzz/fuzz_targets: {error}"))?;
    let chosen: Vec<&String> =
        all.iter().filter(|name| wanted.target.as_ref().is_none_or(|wanted| wanted == *name)).collect();
    if chosen.is_empty() {
        return Err(format!(
            "there is no target `{}`; there are {}",
            wanted.target.as_deref().unwrap_or_default(),
            all.join(", ")
        ));
    }
    let toolchain = toolchain(wanted.bootstrap)?;
    let folder = folder(root);
    let mut table =
        format!("{:<12} {:>12} {:>8} {:>10} {:>8}\n", "target", "executions", "seconds", "a second", "edges");
    for name in chosen {
        println!("\n==> fuzz {name} for {} s", wanted.seconds);
        let log = folder.join(format!("{name}.log"));
        let outcome = execute(name, wanted, toolchain, root, &folder, &log);
        let text = fs::read_to_string(&log).unwrap_or_default();
        outcome.map_err(|complaint| format!("{complaint}\n{}", findings(&text, &log)))?;
        let row = Row::read(&text);
        table.push_str(&row.line(name));
    }
    Ok(table)
}

/// The names of the targets, sorted.
fn targets(root: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for file in fs::read_dir(root.join("fuzz/fuzz_targets"))? {
        let path = file?.path();
        if path.extension() == Some(OsStr::new("rs")) {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Where what is learned and found goes.
fn folder(root: &Path) -> PathBuf {
    nightly::target(root).join("fuzz")
}

fn toolchain(bootstrap: bool) -> Result<Option<&'static str>, String> {
    if !nightly::works("cargo-fuzz", &["fuzz", "--version"]) {
        return Err("cargo-fuzz is missing. To install it:\n\n    cargo install --locked cargo-fuzz".into());
    }
    nightly::toolchain(bootstrap, "cargo xtask fuzz")
}

fn execute(
    name: &str,
    wanted: &Wanted,
    toolchain: Option<&str>,
    root: &Path,
    folder: &Path,
    log: &Path,
) -> Result<(), String> {
    let (learned, found) = (folder.join("corpus").join(name), folder.join("found").join(name));
    let made = [&learned, &found].into_iter().try_for_each(fs::create_dir_all);
    let output =
        made.and_then(|()| fs::File::create(log)).map_err(|error| format!("{}: {error}", log.display()))?;

    let mut command = nightly::cargo(toolchain, true);
    command.args(["fuzz", "run", name, "--target-dir"]).arg(folder.join("build"));
    if DATA_PLANE.contains(&name) {
        command.args(["--no-default-features", "--features", "fuzzer"]);
    }
    if wanted.volume {
        command.args(VOLUME).envs(KEPT);
    }
    command.arg(&learned).arg(root.join("fuzz/corpus").join(name)).arg("--");
    command.arg(format!("-max_total_time={}", wanted.seconds));
    command.arg(format!("-rss_limit_mb={MEMORY_MAX}")).arg(format!("-malloc_limit_mb={ALLOCATION_MAX}"));
    command.arg(format!("-timeout={HANG}")).arg("-print_final_stats=1");
    command.arg(format!("-artifact_prefix={}/", found.display()));
    let words = root.join("fuzz/dictionaries").join(format!("{name}.dict"));
    if words.exists() {
        command.arg(format!("-dict={}", words.display()));
    }
    let errors = output.try_clone().map_err(|error| format!("{}: {error}", log.display()))?;
    command.current_dir(root.join("fuzz")).stdin(Stdio::null()).stdout(output).stderr(errors);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("target {name} ended with {status}")),
        Err(error) => Err(format!("target {name} could not be started: {error}")),
    }
}

/// The lines of a log that say what happened.
fn findings(text: &str, log: &Path) -> String {
    let telling = |line: &&str| {
        ["panicked at", "ERROR:", "error:", "SUMMARY:", "Test unit written", "does not exist", "exiting"]
            .iter()
            .any(|word| line.contains(word))
    };
    let lines: Vec<&str> = text.lines().filter(telling).take(12).collect();
    format!("{}\nall of it is in {}", lines.join("\n"), log.display())
}

/// What a fuzzer says of itself at its end.
#[derive(Debug, Default, PartialEq)]
struct Row {
    executions: u64,
    seconds: u64,
    edges: u64,
}

impl Row {
    /// Out of a log of libFuzzer: `Done N runs in M second(s)`, and the last `cov: E`.
    fn read(text: &str) -> Self {
        let mut row = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["Done", runs, "runs", "in", seconds, ..] = words.as_slice() {
                row.executions = runs.parse().unwrap_or(0);
                row.seconds = seconds.parse().unwrap_or(0);
            }
            if let Some(at) = words.iter().position(|word| *word == "cov:") {
                row.edges = words.get(at + 1).and_then(|edges| edges.parse().ok()).unwrap_or(row.edges);
            }
        }
        row
    }

    fn line(&self, name: &str) -> String {
        let rate = self.executions / self.seconds.max(1);
        format!("{name:<12} {:>12} {:>8} {rate:>10} {:>8}\n", self.executions, self.seconds, self.edges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(line: &str) -> Result<Wanted, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_are_read() {
        let all = Wanted { seconds: 7, target: Some("link".into()), bootstrap: true, volume: true };
        assert_eq!(wanted("--target link --seconds 7 --bootstrap --volume"), Ok(all));
        let defaults = Wanted { seconds: SECONDS_DEFAULT, target: None, bootstrap: false, volume: false };
        assert_eq!(wanted(""), Ok(defaults));
        for wrong in ["--seconds", "--seconds 0", "--seconds soon", "--target", "link"] {
            assert!(wanted(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_target_that_there_is_not_is_refused_by_name() {
        let root = crate::workspace_root();
        let refused = run(&wanted("--target nonsense").unwrap(), &root).unwrap_err();
        assert!(refused.contains("nonsense") && refused.contains("manifest"), "{refused}");
    }

    #[test]
    fn a_log_is_read() {
        let text = "#2\tINITED cov: 7 ft: 8 corp: 1/1b exec/s: 0\n#9\tNEW    cov: 12 ft: 31 corp: 2/2b\n\
                    Done 500 runs in 3 second(s)\nstat::number_of_executed_units: 500\n";
        assert_eq!(Row::read(text), Row { executions: 500, seconds: 3, edges: 12 });
        assert_eq!(Row::read("error: nothing was built"), Row::default());
    }
}
