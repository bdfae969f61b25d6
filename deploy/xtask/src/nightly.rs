//! The toolchain that sanitizers need: the nightly one, or the present one told to allow what only a nightly one does.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether a program runs and says yes.
pub fn works(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

/// The toolchain to run with; `None`: the present one, as was asked with `--bootstrap`.
pub fn toolchain(bootstrap: bool, who: &str) -> Result<Option<&'static str>, String> {
    if works("rustup", &["run", "nightly", "rustc", "--version"]) {
        return Ok(Some("nightly"));
    }
    if bootstrap {
        println!("no nightly toolchain: going on with the present one and RUSTC_BOOTSTRAP=1, as asked");
        return Ok(None);
    }
    Err(format!(
        "a nightly toolchain is missing, whose sanitizers are needed. To install one:\n\n    \
         rustup toolchain install nightly --profile minimal\n\n\
         or let the present one do, which makes no promise about them: {who} --bootstrap"
    ))
}

/// `cargo` of a toolchain; without one the present one, which is `unlocked` where it has to do what a nightly one does.
pub fn cargo(toolchain: Option<&str>, unlocked: bool) -> Command {
    match toolchain {
        Some(toolchain) => {
            let mut command = Command::new("rustup");
            command.args(["run", toolchain, "cargo"]);
            command
        }
        None => {
            let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            if unlocked {
                command.env("RUSTC_BOOTSTRAP", "1");
            }
            command
        }
    }
}

/// Where everything that is built goes.
pub fn target(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    root.join(target)
}
