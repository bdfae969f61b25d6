//! Instructions of one part per operation, counted by valgrind. No state.
//!
//! Always: two runs of the same program that differ in their number of operations alone; so start-up, making the part, and
//! the end of the process are in both counts and not in their difference.

use std::error::Error;
use std::process::Command;

/// Operations of the two runs. The smaller one has seen everything that happens once.
const OPS: [u64; 2] = [20_000, 60_000];

/// Counts them.
///
/// # Errors
/// Valgrind is missing, or did not say what was expected.
pub fn instructions(part: &str) -> Result<f64, Box<dyn Error>> {
    let [few, many] = OPS;
    let (first, second) = (count(part, few)?, count(part, many)?);
    let more = second.checked_sub(first).ok_or("valgrind counted less for more operations")?;
    Ok(more as f64 / (many - few) as f64)
}

/// Whether valgrind is there.
pub fn installed() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success())
}

fn count(part: &str, ops: u64) -> Result<u64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["micro", "--only", part, "--ops", &ops.to_string()])
        .output()
        .map_err(|error| {
            format!("valgrind can't be started ({error}): install it, or leave --callgrind out")
        })?;
    let said = String::from_utf8_lossy(&output.stderr);
    match collected(&said) {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(format!("valgrind failed for {part}:\n{said}").into()),
    }
}

/// The total of a line such as `==12== Collected : 345`.
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit_once(':')?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_valgrind_says_is_understood() {
        let said =
            "==7== Events    : Ir\n==7== Collected : 1234567\n==7== \n==7== I   refs:      1,234,567\n";
        assert_eq!(collected(said), Some(1_234_567));
        assert_eq!(collected("valgrind: no such file"), None);
    }
}
