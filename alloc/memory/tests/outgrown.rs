//! A process that would outgrow its plan at one stroke ends by name; one that stays inside does not.

use std::process::Command;

use tidegate_memory::{Account, Accounted, EXIT_OUTGROWN, limit_process, own_memory_file, resident};

#[global_allocator]
static HEAP: Accounted = Accounted::new();

const ASKED: usize = 512 << 20;

/// Runs in a process of its own: this test binary again, told to do the deed.
#[test]
fn deed() {
    let Ok(limit) = std::env::var("OUTGROWN_LIMIT") else { return };
    let resident = resident().expect("the kernel tells").bytes;
    limit_process(Some(resident + limit.parse::<u64>().expect("a number")));
    if let Ok(whose) = std::env::var("OUTGROWN_FILE") {
        touch_memory_file(ASKED);
        if whose == "own" {
            own_memory_file(ASKED as u64);
        }
    }
    let task = Account::new("task `leaky` (1/2)");
    let kept = task.run(|| vec![1u8; ASKED]);
    assert_eq!(kept.len(), ASKED);
}

/// Has so much of a memory file resident, as somebody has who looked at all of a peer's arena.
fn touch_memory_file(bytes: usize) {
    // SAFETY: rule 3, the name is a constant with its end.
    let file = unsafe { libc::memfd_create(c"of a peer".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(file >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: rule 3, no pointer is passed.
    assert_eq!(unsafe { libc::ftruncate(file, bytes as i64) }, 0, "{}", std::io::Error::last_os_error());
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    // SAFETY: a new mapping, which nothing refers to and nobody unmaps.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, flags, file, 0) };
    assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
}

fn child(limit: u64) -> std::process::Output {
    command(limit).output().expect("it starts")
}

fn command(limit: u64) -> Command {
    let me = std::env::current_exe().expect("this test has a file");
    let mut command = Command::new(me);
    command.args(["--exact", "deed", "--nocapture"]).env("OUTGROWN_LIMIT", limit.to_string());
    command
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

#[test]
fn a_peers_memory_is_not_held_against_us() {
    let peers = command(3 << 28).env("OUTGROWN_FILE", "a peer's").output().expect("it starts");
    let own = command(3 << 28).env("OUTGROWN_FILE", "own").output().expect("it starts");
    assert!(peers.status.success(), "{}", String::from_utf8_lossy(&peers.stderr));
    assert_eq!(own.status.code(), Some(EXIT_OUTGROWN), "{}", String::from_utf8_lossy(&own.stderr));
}
