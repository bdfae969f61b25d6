//! What the host allows this process: locked memory, open files, and the memory of its control group. Read when asked,
//! kept nowhere, decided nowhere here.
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
    /// The memory controller of the first version.
    V1,
    /// The unified hierarchy.
    V2,
}

/// The memory limit of this process's control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupMemory {
    /// The hierarchy.
    pub version: CgroupVersion,
    /// Bytes; the lowest limit on the way to the root. `None`: unlimited.
    pub limit_bytes: Option<u64>,
    /// The file the limit was read from, if there is one.
    pub file: Option<PathBuf>,
}

/// All readings at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLimits {
    /// RLIMIT_MEMLOCK in bytes: charged per user for registered buffers and rings together.
    pub memlock: Limit,
    /// RLIMIT_NOFILE in descriptors.
    pub nofile: Limit,
    /// The control group's memory limit; `None` outside any memory controller.
    pub cgroup_memory: Option<CgroupMemory>,
}

impl HostLimits {
    /// Reads them.
    ///
    /// # Errors
    /// The kernel refused to tell a resource limit, which no sane host does.
    pub fn probe() -> io::Result<Self> {
        Ok(Self { memlock: memlock()?, nofile: nofile()?, cgroup_memory: cgroup_memory(Path::new("/")) })
    }
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

/// The memory limit of this process's control group, with the file system rooted at `root` (`/`, but for tests). `None`
/// if no memory controller is to be found.
pub fn cgroup_memory(root: &Path) -> Option<CgroupMemory> {
    let membership = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    // With both hierarchies mounted, the first version's controller is the one that counts if it is there at all.
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if controllers.split(',').any(|controller| controller == "memory") {
            let mount = root.join("sys/fs/cgroup/memory");
            return lowest(&mount, group, "memory.limit_in_bytes", CgroupVersion::V1);
        }
    }
    let group = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    // A hybrid host has the unified hierarchy one level down, without the memory controller in it.
    lowest(&root.join("sys/fs/cgroup"), group, "memory.max", CgroupVersion::V2)
}

/// The memory that this process can have: its control group's limit, or what the machine has where that is less. `None`
/// where neither can be read. `root` as for [`cgroup_memory`].
pub fn host_memory(root: &Path) -> Option<u64> {
    let limit = cgroup_memory(root).and_then(|found| found.limit_bytes);
    let table = fs::read_to_string(root.join("proc/meminfo")).ok();
    let total =
        table.as_deref().and_then(|table| table.lines().find_map(|line| line.strip_prefix("MemTotal:")));
    let kibibytes = total.and_then(|total| total.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    let machine = kibibytes.and_then(|kibibytes| kibibytes.checked_mul(1 << 10));
    limit.into_iter().chain(machine).min()
}

/// The lowest limit from `group` up to `mount`. In a container without a namespace for control groups, the path is the
/// host's and does not exist below our mount; then the mount itself is our group.
fn lowest(mount: &Path, group: &str, name: &str, version: CgroupVersion) -> Option<CgroupMemory> {
    if !mount.is_dir() {
        return None;
    }
    let inside: PathBuf =
        Path::new(group).components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let mut found = CgroupMemory { version, limit_bytes: None, file: None };
    for level in inside.ancestors().take(CGROUP_DEPTH_MAX) {
        let file = mount.join(level).join(name);
        let limit = fs::read_to_string(&file).ok().and_then(|text| finite_limit(text.trim()));
        if let Some(limit) = limit
            && found.limit_bytes.is_none_or(|lowest| limit < lowest)
        {
            found.limit_bytes = Some(limit);
            found.file = Some(file);
        }
    }
    Some(found)
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
        cgroup_memory(host(files).path()).map(|found| (found.version, found.limit_bytes))
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
    fn this_host_answers() {
        let limits = HostLimits::probe().expect("the kernel tells its limits");
        let soft = limits.nofile.soft.unwrap_or(u64::MAX);
        assert!(soft > 0 && soft <= limits.nofile.hard.unwrap_or(u64::MAX));
    }
}
