//! Tells the benchmarks which compiler made them: instruction counts of two compilers cannot be compared.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=RUSTC");
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(compiler).arg("--version").output().ok();
    let version = output.and_then(|output| String::from_utf8(output.stdout).ok());
    println!("cargo::rustc-env=TIDEGATE_RUSTC={}", version.as_deref().unwrap_or("unknown").trim());
}
