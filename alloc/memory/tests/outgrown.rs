//! A process that would outgrow its plan at one stroke ends by name; one that stays inside does not.

use std::process::Command;

use tidegate_memory::{Account, Accounted, EXIT_OUTGROWN, limit_process, resident};

#[global_allocator]
static HEAP: Accounted = Accounted::new();

const ASKED: usize = 512 << 20;

/// Runs in a process of its own: this test binary again, told to do the deed.
#[test]
fn deed() {
    let Ok(limit) = std::env::var("OUTGROWN_LIMIT") else { return };
    let resident = resident().expect("the kernel tells").bytes;
    limit_process(Some(resident + limit.parse::<u64>().expect("a number")));
    let task = Account::new("task `leaky` (1/2)");
    let kept = task.run(|| vec![1u8; ASKED]);
    assert_eq!(kept.len(), ASKED);
}

fn child(limit: u64) -> std::process::Output {
    let me = std::env::current_exe().expect("this test has a file");
    let mut command = Command::new(me);
    command.args(["--exact", "deed", "--nocapture"]).env("OUTGROWN_LIMIT", limit.to_string());
    command.output().expect("it starts")
}

#[test]
fn one_stroke_too_many_ends_the_process_by_name() {
    let output = child(64 << 20);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(EXIT_OUTGROWN), "{said}");
    assert!(said.contains("task `leaky` (1/2) asks for 536870912 bytes at once"), "{said}");
}

#[test]
fn what_fits_is_let_be() {
    let output = child(1 << 30);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
