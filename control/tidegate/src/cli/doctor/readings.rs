//! What a host says about itself, read once. Decides nothing.
//!
//! Owner of the state: nobody. Files are read below a root, which is `/` but for tests; what only calls can tell is
//! [`Asked`].
//!
//! Always: what cannot be read is `None`, and no reading ends the process.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use tidegate_memory::{
    CgroupLimit, Limit, cgroup_cpu, cgroup_memory, cgroup_swap, cgroup_threads, meminfo, memlock, nofile,
};
use tidegate_ring::{Capabilities, Obstacle};

/// Bit of CAP_IPC_LOCK among a thread's capabilities.
const CAP_IPC_LOCK: u32 = 14;

/// What calls tell.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub io_uring: Result<Capabilities, Obstacle>,
    pub memlock: Option<Limit>,
    pub nofile: Option<Limit>,
    /// Cores this process may run on.
    pub cores: Option<usize>,
    /// Nanoseconds between two times that the monotonic clock tells apart.
    pub tick_ns: u64,
    /// The user that locked memory is counted for.
    pub user: u32,
    /// Whether memory files can be made and sealed.
    pub sealed_memory: Result<(), tidegate_arena::ArenaError>,
}

impl Asked {
    /// Asks the kernel; makes a small ring and drops it.
    pub(super) fn kernel() -> Self {
        let tick = rustix::time::clock_getres(rustix::time::ClockId::Monotonic);
        let second = u64::try_from(tick.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000);
        Self {
            io_uring: tidegate_ring::probe().io_uring,
            memlock: memlock().ok(),
            nofile: nofile().ok(),
            cores: rustix::thread::sched_getaffinity(None).ok().map(|set| set.count() as usize),
            tick_ns: second.saturating_add(u64::try_from(tick.tv_nsec).unwrap_or(0)),
            user: rustix::process::getuid().as_raw(),
            sealed_memory: tidegate_arena::shared::Words::new().map(drop),
        }
    }
}

/// Everything that is judged.
#[derive(Debug, Clone)]
pub(super) struct Readings {
    pub asked: Asked,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// `kernel.io_uring_disabled`; older kernels have none.
    pub io_uring_disabled: Option<u32>,
    /// Whether a seccomp filter is in force.
    pub seccomp: bool,
    /// Whether RLIMIT_MEMLOCK does not bind: CAP_IPC_LOCK, and in the host's namespace of users.
    pub locks_freely: bool,
    pub cgroup_memory: Option<CgroupLimit>,
    /// Thousandths of a core.
    pub cgroup_cpu: Option<CgroupLimit>,
    pub cgroup_threads: Option<CgroupLimit>,
    pub cgroup_swap: Option<CgroupLimit>,
    pub memory_total: Option<u64>,
    pub memory_available: Option<u64>,
    pub swap_total: u64,
    pub swappiness: Option<u32>,
    /// 0 guesses, 1 always says yes, 2 adds up.
    pub overcommit: Option<u32>,
    pub commit_limit: Option<u64>,
    pub committed: u64,
    /// Bytes of explicit huge pages that nobody has.
    pub huge_free: u64,
    /// `always`, `madvise` or `never`.
    pub transparent: Option<String>,
    /// The same for memory files: `always`, `advise`, `never` and others.
    pub transparent_shared: Option<String>,
    pub congestion: Option<String>,
    /// Queueing discipline of new interfaces; told on the host only.
    pub qdisc: Option<String>,
    pub clocksource: Option<String>,
}

impl Readings {
    /// Reads the files below `root`.
    pub(super) fn below(root: &Path, asked: Asked) -> Self {
        let text = |path: &str| text(root, path);
        let memory = |name| meminfo(root, name);
        let status = text("proc/thread-self/status").unwrap_or_default();
        let huge_pages = memory("HugePages_Free").unwrap_or(0);
        Self {
            kernel: text("proc/sys/kernel/osrelease"),
            io_uring_disabled: number(root, "proc/sys/kernel/io_uring_disabled"),
            seccomp: field(&status, "Seccomp:") == Some("2"),
            locks_freely: locks_freely(&status, text("proc/self/uid_map").as_deref()),
            cgroup_memory: cgroup_memory(root),
            cgroup_cpu: cgroup_cpu(root),
            cgroup_threads: cgroup_threads(root),
            cgroup_swap: cgroup_swap(root),
            memory_total: memory("MemTotal"),
            memory_available: memory("MemAvailable"),
            swap_total: memory("SwapTotal").unwrap_or(0),
            swappiness: number(root, "proc/sys/vm/swappiness"),
            overcommit: number(root, "proc/sys/vm/overcommit_memory"),
            commit_limit: memory("CommitLimit"),
            committed: memory("Committed_AS").unwrap_or(0),
            huge_free: huge_pages.saturating_mul(memory("Hugepagesize").unwrap_or(0)),
            transparent: text("sys/kernel/mm/transparent_hugepage/enabled").and_then(chosen),
            transparent_shared: text("sys/kernel/mm/transparent_hugepage/shmem_enabled").and_then(chosen),
            congestion: text("proc/sys/net/ipv4/tcp_congestion_control"),
            qdisc: text("proc/sys/net/core/default_qdisc"),
            clocksource: text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            asked,
        }
    }
}

fn text(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned())
}

fn number<T: FromStr>(root: &Path, path: &str) -> Option<T> {
    text(root, path)?.parse().ok()
}

/// What stands behind `name` in a status file.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The kernel wants the capability from the host's point of view; root in a namespace of users has it from its own only.
fn locks_freely(status: &str, uid_map: Option<&str>) -> bool {
    let effective = field(status, "CapEff:").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    let everybody = u32::MAX.to_string();
    let of_the_host = uid_map.is_none_or(|map| map.split_whitespace().eq(["0", "0", &everybody]));
    effective.is_some_and(|mask| mask >> CAP_IPC_LOCK & 1 == 1) && of_the_host
}

/// The word in brackets, which is the one that holds.
fn chosen(text: String) -> Option<String> {
    let (_, chosen) = text.split_once('[')?;
    chosen.split_once(']').map(|(chosen, _)| chosen.to_owned())
}
