//! The process as a whole: what is resident, and the one thing the allocator does forbid. A single large allocation that
//! would take the process beyond its plan ends it here, by name, rather than a moment later by the kernel, without one.
//!
//! Owner of the state: the process-wide limit, set once by the role.
//!
//! Always: nothing here allocates, takes a lock or panics; what cannot be read is no reason to end.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::account::with_running;

/// How a process ends that would outgrow its plan: as any other for which the operating system has no more (`EX_OSERR`).
pub const EXIT_OUTGROWN: i32 = 71;

static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);

/// From now on, a single large allocation that takes this process beyond `bytes` resident ends it with [`EXIT_OUTGROWN`]
/// and one line on standard error. `None`: nothing does.
pub fn limit_process(bytes: Option<u64>) {
    LIMIT.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Memory of this process that lies in the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Bytes now.
    pub bytes: u64,
    /// The most there ever was; as large as now where the kernel does not tell.
    pub peak_bytes: u64,
}

/// What is resident, from the kernel; `None` where it does not tell.
pub fn resident() -> Option<Resident> {
    let bytes = resident_bytes()?;
    let status = std::fs::read_to_string("/proc/self/status").ok();
    let peak = status.as_deref().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1 << 10)
    });
    Some(Resident { bytes, peak_bytes: peak.unwrap_or(bytes).max(bytes) })
}

/// Called before an allocation of `size` bytes, if that is large.
#[cold]
pub(crate) fn check(size: usize) {
    let limit = LIMIT.load(Ordering::Relaxed);
    if limit == u64::MAX {
        return;
    }
    let Some(resident) = resident_bytes() else { return };
    if resident.saturating_add(size as u64) <= limit {
        return;
    }
    with_running(|task| {
        let mut line = Line { text: [0; 512], len: 0 };
        let who = task.unwrap_or("the runtime");
        // A line too long is cut; that is no reason to say nothing.
        let _ = writeln!(
            line,
            "error: out of memory: {who} asks for {size} bytes at once, {resident} are resident, and the plan of this \
             process has {limit}; give it more (its memory.process.size) or let it hold less",
        );
        line.print();
    });
    // SAFETY: rule 3, no pointer is passed. Nothing of the process is needed any more.
    unsafe { libc::_exit(EXIT_OUTGROWN) }
}

fn resident_bytes() -> Option<u64> {
    let mut text = [0u8; 128];
    let path = c"/proc/self/statm";
    // SAFETY: rule 3, the path is a constant with its end.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return None;
    }
    // SAFETY: rule 3, the bytes are a local's, with its length.
    let read = unsafe { libc::read(file, text.as_mut_ptr().cast(), text.len()) };
    // SAFETY: rule 3, no pointer is passed; the descriptor was opened here.
    unsafe { libc::close(file) };
    let text = std::str::from_utf8(text.get(..usize::try_from(read).ok()?)?).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: rule 3, no pointer is passed.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.checked_mul(u64::try_from(page).ok()?)
}

/// A line of text on the stack.
struct Line {
    text: [u8; 512],
    len: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.text.len() - self.len;
        let fits = text.len().min(room);
        self.text[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        Ok(())
    }
}

impl Line {
    fn print(&self) {
        // SAFETY: rule 3, the bytes are a local's, with the length that is filled.
        let _ = unsafe { libc::write(2, self.text.as_ptr().cast(), self.len) };
    }
}
