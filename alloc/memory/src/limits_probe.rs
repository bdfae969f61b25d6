//! What the host allows this process: locked memory, open files, the limits of its control group, and what memory there
//! is. Read when asked, kept nowhere, decided nowhere here.
//!
//! Always: `None` as a limit means that there is none. A control group's limit is the lowest on the way to the root.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::limits::CGROUP_DEPTH_MAX;

/// A resource limit of the process, in the resource's unit. `None`: unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is enforced now.
    pub soft: Option<u64>,
    /// How far the process may raise it.
    pub hard: Option<u64>,
}

/// Which hierarchy a control group's limit was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// A controller of the first version.
    V1,
    /// The unified hierarchy.
    V2,
}

/// A limit of this process's control group, in the unit of the function that found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupLimit {
    /// The hierarchy.
    pub version: CgroupVersion,
    /// The lowest limit on the way to the root. `None`: unlimited.
    pub limit: Option<u64>,
    /// The file the limit was read from, if there is one.
    pub file: Option<PathBuf>,
}

/// RLIMIT_MEMLOCK, in bytes.
///
/// # Errors
/// The kernel refused to tell.
pub fn memlock() -> io::Result<Limit> {
    resource(libc::RLIMIT_MEMLOCK)
}

/// RLIMIT_NOFILE, in descriptors.
///
/// # Errors
/// The kernel refused to tell.
pub fn nofile() -> io::Result<Limit> {
    resource(libc::RLIMIT_NOFILE)
}

#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

fn resource(resource: Resource) -> io::Result<Limit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: rule 3, the pointer is to a local of the type that the call fills.
    let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let finite = |value| (value != libc::RLIM_INFINITY).then_some(value);
    Ok(Limit { soft: finite(limit.rlim_cur), hard: finite(limit.rlim_max) })
}

/// The memory limit of this process's control group in bytes, with the file system rooted at `root` (`/`, but for tests).
/// `None` if no memory controller is to be found.
pub fn cgroup_memory(root: &Path) -> Option<CgroupLimit> {
    cgroup(root, "memory", "memory.limit_in_bytes", "memory.max", whole)
}

/// The limit of swap in bytes, which only the second version has apart from memory. `root` as for [`cgroup_memory`].
pub fn cgroup_swap(root: &Path) -> Option<CgroupLimit> {
    cgroup(root, "memory", "", "memory.swap.max", whole)
}

/// The limit of processor time in thousandths of a core. `root` as for [`cgroup_memory`].
pub fn cgroup_cpu(root: &Path) -> Option<CgroupLimit> {
    cgroup(root, "cpu", "cpu.cfs_quota_us", "cpu.max", |file| {
        let text = fs::read_to_string(file).ok()?;
        // The second version has both numbers in one file. Without a limit, the first number is `max` or -1.
        let (quota, period) = match text.trim().split_once(' ') {
            Some((quota, period)) => (quota.to_owned(), period.to_owned()),
            None => (text, fs::read_to_string(file.with_file_name("cpu.cfs_period_us")).ok()?),
        };
        let (quota, period): (u64, u64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
        quota.saturating_mul(1000).checked_div(period)
    })
}

/// The limit of threads of all processes in the group. `root` as for [`cgroup_memory`].
pub fn cgroup_threads(root: &Path) -> Option<CgroupLimit> {
    cgroup(root, "pids", "pids.max", "pids.max", whole)
}

/// The memory that this process can have: its control group's limit, or what the machine has where that is less. `None`
/// where neither can be read. `root` as for [`cgroup_memory`].
pub fn host_memory(root: &Path) -> Option<u64> {
    let limit = cgroup_memory(root).and_then(|found| found.limit);
    limit.into_iter().chain(meminfo(root, "MemTotal")).min()
}

/// What `/proc/meminfo` says under `name`: bytes, or a count of pages where it is one. `root` as for [`cgroup_memory`].
pub fn meminfo(root: &Path, name: &str) -> Option<u64> {
    let table = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let value = table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim();
    match value.strip_suffix(" kB") {
        Some(kibibytes) => kibibytes.trim().parse::<u64>().ok()?.checked_mul(1 << 10),
        None => value.parse().ok(),
    }
}

/// The limit that `controller` has in the file `v1` or `v2` of this process's group.
fn cgroup(
    root: &Path,
    controller: &str,
    v1: &str,
    v2: &str,
    read: impl Fn(&Path) -> Option<u64>,
) -> Option<CgroupLimit> {
    let membership = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = root.join("sys/fs/cgroup");
    // With both hierarchies mounted, the first version's controller is the one that counts if it is there at all.
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if controllers.split(',').any(|name| name == controller) {
            // Controllers that are mounted together have one folder, and most hosts a link to it for each of them.
            let own = lowest(&mounts.join(controller), group, v1, CgroupVersion::V1, &read);
            return own.or_else(|| lowest(&mounts.join(controllers), group, v1, CgroupVersion::V1, &read));
        }
    }
    let group = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    // A hybrid host has the unified hierarchy one level down, without the controllers of the first version in it.
    lowest(&mounts, group, v2, CgroupVersion::V2, &read)
}

/// The lowest limit from `group` up to `mount`. In a container without a namespace for control groups, the path is the
/// host's and does not exist below our mount; then the mount itself is our group.
fn lowest(
    mount: &Path,
    group: &str,
    name: &str,
    version: CgroupVersion,
    read: impl Fn(&Path) -> Option<u64>,
) -> Option<CgroupLimit> {
    if !mount.is_dir() {
        return None;
    }
    let inside: PathBuf =
        Path::new(group).components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let mut found = CgroupLimit { version, limit: None, file: None };
    for level in inside.ancestors().take(CGROUP_DEPTH_MAX) {
        let file = mount.join(level).join(name);
        if let Some(limit) = read(&file)
            && found.limit.is_none_or(|lowest| limit < lowest)
        {
            found.limit = Some(limit);
            found.file = Some(file);
        }
    }
    Some(found)
}

/// A file with a number, `max` or nothing.
fn whole(file: &Path) -> Option<u64> {
    finite_limit(fs::read_to_string(file).ok()?.trim())
}

/// `max` means no limit in the second version; the first has a number near 2⁶³ instead.
fn finite_limit(text: &str) -> Option<u64> {
    const V1_UNLIMITED: u64 = i64::MAX as u64 & !0xffff;
    text.parse().ok().filter(|limit| *limit < V1_UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("every file has a directory")).expect("created");
            fs::write(path, text).expect("written");
        }
        root
    }

    fn limit(files: &[(&str, &str)]) -> Option<(CgroupVersion, Option<u64>)> {
        cgroup_memory(host(files).path()).map(|found| (found.version, found.limit))
    }

    #[test]
    fn unified_takes_the_lowest_on_the_way_up() {
        let files = [
            ("proc/self/cgroup", "0::/pods/a\n"),
            ("sys/fs/cgroup/pods/a/memory.max", "max\n"),
            ("sys/fs/cgroup/pods/memory.max", "2147483648\n"),
            ("sys/fs/cgroup/memory.max", "4294967296\n"),
        ];
        assert_eq!(limit(&files), Some((CgroupVersion::V2, Some(2 << 30))));
        let root = host(&files);
        let file = cgroup_memory(root.path()).and_then(|found| found.file).expect("a limit has a file");
        assert!(file.ends_with("sys/fs/cgroup/pods/memory.max"), "{}", file.display());
    }

    #[test]
    fn a_path_of_the_host_falls_back_to_the_mount() {
        let files = [("proc/self/cgroup", "0::/../../host/pod\n"), ("sys/fs/cgroup/memory.max", "1048576\n")];
        assert_eq!(limit(&files), Some((CgroupVersion::V2, Some(1 << 20))));
    }

    #[test]
    fn first_version_and_its_way_to_say_unlimited() {
        let membership = ("proc/self/cgroup", "12:cpu,cpuacct:/x\n9:memory:/docker/y\n0::/z\n");
        let group = "sys/fs/cgroup/memory/docker/y/memory.limit_in_bytes";
        assert_eq!(limit(&[membership, (group, "536870912\n")]), Some((CgroupVersion::V1, Some(512 << 20))));
        assert_eq!(limit(&[membership, (group, "9223372036854771712\n")]), Some((CgroupVersion::V1, None)));
        assert_eq!(
            limit(&[membership, (group, "9223372036854710272\n")]),
            Some((CgroupVersion::V1, None)),
            "64 KiB pages"
        );
    }

    #[test]
    fn a_host_is_its_control_group_or_the_machine() {
        let memory = |files: &[(&str, &str)]| host_memory(host(files).path());
        let machine = ("proc/meminfo", "MemTotal:        2097152 kB\nMemFree: 1 kB\n");
        let group = ("proc/self/cgroup", "0::/\n");
        assert_eq!(memory(&[machine]), Some(2 << 30));
        assert_eq!(memory(&[machine, group, ("sys/fs/cgroup/memory.max", "1048576\n")]), Some(1 << 20));
        assert_eq!(memory(&[machine, group, ("sys/fs/cgroup/memory.max", "4294967296\n")]), Some(2 << 30));
        assert_eq!(memory(&[("proc/meminfo", "MemTotal: much\n")]), None);
    }

    #[test]
    fn nothing_to_read_is_no_limit() {
        assert_eq!(limit(&[]), None);
        assert_eq!(limit(&[("proc/self/cgroup", "0::/\n")]), None, "no mount");
        let garbage = [("proc/self/cgroup", "what\n0::/\n"), ("sys/fs/cgroup/memory.max", "-5 bytes")];
        assert_eq!(limit(&garbage), Some((CgroupVersion::V2, None)));
    }

    #[test]
    fn processor_time_is_a_quota_in_a_period() {
        let cpu =
            |files: &[(&str, &str)]| cgroup_cpu(host(files).path()).map(|found| (found.version, found.limit));
        let unified = |text| cpu(&[("proc/self/cgroup", "0::/a\n"), ("sys/fs/cgroup/a/cpu.max", text)]);
        assert_eq!(unified("150000 100000\n"), Some((CgroupVersion::V2, Some(1500))));
        assert_eq!(unified("max 100000\n"), Some((CgroupVersion::V2, None)));
        assert_eq!(unified("1 0\n"), Some((CgroupVersion::V2, None)), "no period");
        let first = |folder, quota: &str| {
            let at = |name| format!("sys/fs/cgroup/{folder}/{name}");
            let (quota_at, period_at) = (at("cpu.cfs_quota_us"), at("cpu.cfs_period_us"));
            cpu(&[("proc/self/cgroup", "3:cpu,cpuacct:/x\n"), (&quota_at, quota), (&period_at, "100000\n")])
        };
        assert_eq!(first("cpu/x", "50000\n"), Some((CgroupVersion::V1, Some(500))));
        assert_eq!(first("cpu,cpuacct/x", "50000\n"), Some((CgroupVersion::V1, Some(500))));
        assert_eq!(first("cpu/x", "-1\n"), Some((CgroupVersion::V1, None)));
    }

    #[test]
    fn threads_and_swap_have_limits_of_their_own() {
        let root = host(&[
            ("proc/self/cgroup", "0::/a\n"),
            ("sys/fs/cgroup/a/pids.max", "64\n"),
            ("sys/fs/cgroup/a/memory.swap.max", "0\n"),
        ]);
        assert_eq!(cgroup_threads(root.path()).and_then(|found| found.limit), Some(64));
        assert_eq!(cgroup_swap(root.path()).and_then(|found| found.limit), Some(0));
        let root = host(&[("proc/self/cgroup", "9:memory:/y\n"), ("sys/fs/cgroup/memory/y/tasks", "1\n")]);
        let swap = cgroup_swap(root.path()).expect("there is a memory controller");
        assert_eq!((swap.version, swap.limit), (CgroupVersion::V1, None));
    }

    #[test]
    fn this_host_answers() {
        for limit in [memlock(), nofile()] {
            let limit = limit.expect("the kernel tells its limits");
            assert!(limit.soft.unwrap_or(u64::MAX) <= limit.hard.unwrap_or(u64::MAX));
        }
        assert!(meminfo(Path::new("/"), "MemTotal").is_some_and(|bytes| bytes > 1 << 20));
        assert!(meminfo(Path::new("/"), "HugePages_Free").is_none_or(|pages| pages < 1 << 40));
    }
}
