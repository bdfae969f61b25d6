//! The process as a whole: what is resident, and the one thing the allocator does forbid. A single large allocation that
//! would take the process beyond its plan ends it here, by name, rather than a moment later by the kernel, without one.
//!
//! Owner of the state: the process-wide limit, set once by the role, and how much of the memory in files is our own.
//!
//! Pages of a peer's memory file that we looked at are resident for us, too, once for each time it is mapped. They are the
//! peer's: its plan has them, and nothing of ours could give them back. So what lies in memory files is ours only up to the
//! size of our own.
//!
//! Always: nothing that the allocator calls allocates, takes a lock or panics; what cannot be read is no reason to end.

use std::ffi::CStr;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::account::with_running;

/// How a process ends that would outgrow its plan: as any other for which the operating system has no more (`EX_OSERR`).
pub const EXIT_OUTGROWN: i32 = 71;

static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);
/// Bytes of memory files that this process made.
static OWN_FILES: AtomicU64 = AtomicU64::new(0);

/// Says that `bytes` of memory in a file, which others may map, are this process's own.
pub fn own_memory_file(bytes: u64) {
    OWN_FILES.fetch_add(bytes, Ordering::Relaxed);
}

/// From now on, a single large allocation that takes this process beyond `bytes` resident ends it with [`EXIT_OUTGROWN`]
/// and one line on standard error. `None`: nothing does.
pub fn limit_process(bytes: Option<u64>) {
    LIMIT.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Memory of this process that lies in the machine's; that of peers, which it looked at, is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Bytes now.
    pub bytes: u64,
    /// The most there ever was; as large as now where the kernel does not tell.
    pub peak_bytes: u64,
}

/// What is resident, from the kernel; `None` where it does not tell.
pub fn resident() -> Option<Resident> {
    let mut text = [0; STATUS_BYTES];
    let status = read(c"/proc/self/status", &mut text)?;
    let others = foreign(status);
    let own = |name| Some(kibibytes(status, name)?.saturating_sub(others));
    let bytes = own("VmRSS:")?;
    // What of the peak was a peer's nobody tells; about as much as now.
    Some(Resident { bytes, peak_bytes: own("VmHWM:").unwrap_or(bytes).max(bytes) })
}

/// Called before an allocation of `size` bytes, if that is large.
#[cold]
pub(crate) fn check(size: usize) {
    let limit = LIMIT.load(Ordering::Relaxed);
    if limit == u64::MAX {
        return;
    }
    let fits = |resident: u64| resident.saturating_add(size as u64) <= limit;
    // Dear only when it matters: what is resident of peers is not asked for where all of it fits.
    let Some(mut resident) = resident_bytes() else { return };
    if fits(resident) {
        return;
    }
    let mut text = [0; STATUS_BYTES];
    resident = resident.saturating_sub(read(c"/proc/self/status", &mut text).map_or(0, foreign));
    if fits(resident) {
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

/// More than the kernel has to say of a process.
const STATUS_BYTES: usize = 4096;

/// Resident bytes of memory files that are not ours.
fn foreign(status: &str) -> u64 {
    kibibytes(status, "RssShmem:").unwrap_or(0).saturating_sub(OWN_FILES.load(Ordering::Relaxed))
}

/// A line of a status, in bytes.
fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1 << 10)
}

fn resident_bytes() -> Option<u64> {
    let mut text = [0; 128];
    let pages: u64 = read(c"/proc/self/statm", &mut text)?.split_ascii_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: rule 3, no pointer is passed.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.checked_mul(u64::try_from(page).ok()?)
}

/// The beginning of a file, without touching the heap.
fn read<'a>(path: &CStr, text: &'a mut [u8]) -> Option<&'a str> {
    // SAFETY: rule 3, the path is a constant with its end.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return None;
    }
    // SAFETY: rule 3, the bytes are the caller's, with their length.
    let read = unsafe { libc::read(file, text.as_mut_ptr().cast(), text.len()) };
    // SAFETY: rule 3, no pointer is passed; the descriptor was opened here.
    unsafe { libc::close(file) };
    std::str::from_utf8(text.get(..usize::try_from(read).ok()?)?).ok()
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
