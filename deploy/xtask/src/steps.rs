//! The steps of each command, as data: a name and one `cargo` call each.
//!
//! The calls select packages the same way wherever they can (`--workspace`), because another selection means
//! other feature sets and a second build of every dependency.

use std::process::{Command, Stdio};

/// One `cargo` call.
#[derive(Debug, PartialEq)]
pub struct Step {
    pub name: &'static str,
    pub arguments: Vec<String>,
    pub environment: Vec<(&'static str, String)>,
}

impl Step {
    fn new(name: &'static str, line: &str) -> Self {
        let mut arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        // Automation must build what is committed; a person may be in the middle of a change.
        if std::env::var_os("CI").is_some() && name != "format" {
            arguments.insert(1, "--locked".into());
        }
        Self { name, arguments, environment: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// The step as a line for a shell, to be run in the workspace's folder.
    pub fn command_line(&self) -> String {
        let environment = self.environment.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
        let arguments = self.arguments.iter().map(|argument| quoted(argument));
        environment.chain(["cargo".to_owned()]).chain(arguments).collect::<Vec<_>>().join(" ")
    }
}

/// The steps of `cargo xtask test`: no root, no nightly, nothing beyond the toolchain.
pub fn test() -> Vec<Step> {
    vec![
        Step::new("format", "fmt --all -- --check"),
        Step::new("clippy", "clippy --workspace --all-targets -- -D warnings"),
        // What comes from outside may be anything. Tests may take it for granted, and are not looked at here.
        Step::new("no unwrap", "clippy --workspace --lib --bins -- -D warnings -D clippy::unwrap_used"),
        Step::new("build", "test --workspace --no-run"),
        Step::new("unit", "test --workspace --lib --bins --examples"),
        Step::new("e2e", "test --workspace --test *"),
        // What those leave at its defaults, in every combination: a minute and a half.
        Step::new("matrix", "run --quiet --package tidegate-xtask -- e2e --all matrix"),
        // Ignored there, so that what is skipped for want of a program is seen here.
        Step::new("manifests", "test --workspace --test manifests -- --ignored --nocapture"),
        Step::new("doc", "test --workspace --doc"),
        // Optimised, or the seeds would take minutes; with bugs planted, to see that they are found.
        Step::new("simulate", "run --release --package tidegate-sim --features plant -- --seeds 2000"),
        Step::new(
            "simulate again",
            &format!(
                "run --release --package tidegate-sim --features plant -- {} --seeds 200 --twice",
                drawn_seed()
            ),
        ),
        Step::new("plants", "test --release --package tidegate-sim --features plant -- --nocapture"),
        // Every order of what two producers and a gate can do, and of what leaders and their store can; one test at a time,
        // because some of them plant bugs.
        Step::new(
            "model",
            "test --release --package tidegate-exchange --package tidegate-checkpoint \
             --features tidegate-exchange/sim,tidegate-exchange/plant,tidegate-checkpoint/plant \
             --test model --test takeover -- --include-ignored --test-threads=1",
        ),
        // Loom replaces the atomics of everything it is compiled into: its own folder, only the crate with
        // models, and optimised, because it runs each model through all its interleavings.
        Step::new("loom", "test --release --package tidegate-arena --lib --tests")
            .with("RUSTFLAGS", "--cfg loom")
            // The models' stated bound: complete under it in seconds; without it the sleep flag's takes hours.
            .with("LOOM_MAX_PREEMPTIONS", "3")
            .with("CARGO_TARGET_DIR", own_folder("loom")),
        // Shuttle does the same, for more of them together than loom can take in.
        Step::new("shuttle", "test --package tidegate-arena --package tidegate-exchange --test interleaved")
            .with("RUSTFLAGS", "--cfg shuttle")
            .with("CARGO_TARGET_DIR", own_folder("shuttle")),
    ]
}

/// The steps of `cargo xtask faults`: the ignored tests in modules called `needs_root` and `faults`, one at a time. Each asks
/// for what it needs (root, a tool, a kernel facility) and prints `skipped: …` where it is missing.
pub fn faults(long: bool) -> Vec<Step> {
    let line = "test --workspace --test * -- needs_root faults:: --ignored --nocapture --test-threads=1";
    let step = Step::new("faults", line);
    vec![if long { step.with("TIDEGATE_FAULTS_LONG", "1") } else { step }]
}

/// Where the seeds that nobody chose begin: drawn by what is committed, so that each change gets others and a failure is there
/// again in the next run. Where that is not known, any.
fn drawn_seed() -> String {
    let git = Command::new("git").args(["rev-parse", "HEAD^{tree}"]).stderr(Stdio::null()).output();
    let tree = git.ok().and_then(|git| String::from_utf8(git.stdout).ok());
    // Twelve digits, so that adding to it never wraps.
    let seed = tree.as_deref().and_then(|tree| u64::from_str_radix(tree.get(..12)?, 16).ok());
    seed.map_or_else(|| "--random".to_owned(), |seed| format!("--seed {seed}"))
}

fn own_folder(name: &str) -> String {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    format!("{target}/{name}")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
