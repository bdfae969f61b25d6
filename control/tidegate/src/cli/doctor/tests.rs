//! Every check is provoked on a host made of files and answers, one thing wrong at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use tidegate_memory::Limit;
use tidegate_memory::plan::{Process, Profile, Settings};
use tidegate_ring::{Capabilities, Obstacle};

use super::*;

/// A host, and what is wanted of it.
struct Case {
    files: BTreeMap<&'static str, String>,
    asked: Asked,
    wishes: Wishes,
    process: Process,
}

const CGROUP_V2: &str = "0::/pod\n";
const MEMINFO: &str = "proc/meminfo";
const STATUS: &str = "proc/thread-self/status";

impl Case {
    /// A host without fault, and a TaskManager of 4 GiB with two slots.
    fn sound() -> Self {
        let memory = "MemTotal: 67108864 kB\nMemAvailable: 60000000 kB\nSwapTotal: 0 kB\nCommitLimit: 33554432 kB\n\
                      Committed_AS: 1000 kB\nHugePages_Free: 0\nHugepagesize: 2048 kB\n";
        let files = [
            ("proc/self/cgroup", CGROUP_V2),
            ("proc/self/uid_map", "         0          0 4294967295\n"),
            (STATUS, "Name:\tx\nCapEff:\t0000000000000000\nSeccomp:\t0\n"),
            (MEMINFO, memory),
            ("sys/fs/cgroup/pod/memory.max", "8589934592\n"),
            ("sys/fs/cgroup/pod/cpu.max", "200000 100000\n"),
            ("sys/fs/cgroup/pod/pids.max", "500\n"),
            ("proc/sys/kernel/osrelease", "6.12.0-3-amd64\n"),
            ("proc/sys/kernel/io_uring_disabled", "0\n"),
            ("proc/sys/vm/overcommit_memory", "0\n"),
            ("proc/sys/vm/swappiness", "60\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
            ("proc/sys/net/ipv4/tcp_congestion_control", "cubic\n"),
            ("proc/sys/net/core/default_qdisc", "fq_codel\n"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
        ];
        let capabilities = Capabilities { setup: "submit_all", fixed_vectors: true, zero_copy: true };
        let all = |limit| Some(Limit { soft: Some(limit), hard: Some(limit) });
        Self {
            files: files.map(|(path, text)| (path, text.to_owned())).into(),
            asked: Asked {
                io_uring: Ok(capabilities),
                memlock: all(1 << 30),
                nofile: all(4096),
                cores: Some(2),
                tick_ns: 1,
                user: 1000,
                sealed_memory: Ok(()),
            },
            wishes: Wishes::default(),
            process: Process::TaskManager,
        }
    }

    fn file(mut self, path: &'static str, text: &str) -> Self {
        self.files.insert(path, text.to_owned());
        self
    }

    /// Without a file, for what a kernel or a container does not show.
    fn without(mut self, path: &'static str) -> Self {
        self.files.remove(path);
        self
    }

    /// With another number in the table of memory.
    fn memory(mut self, name: &str, value: &str) -> Self {
        let table = self.files.get_mut(MEMINFO).expect("every host has it");
        let before = table.clone();
        *table = before
            .lines()
            .map(|line| match line.split_once(':') {
                Some((found, _)) if found == name => format!("{name}: {value}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        assert_ne!(*table, before, "{name}");
        self
    }

    fn memlock(mut self, soft: u64) -> Self {
        self.asked.memlock = Some(Limit { soft: Some(soft), hard: None });
        self
    }

    fn nofile(mut self, soft: u64) -> Self {
        self.asked.nofile = Some(Limit { soft: Some(soft), hard: None });
        self
    }

    fn forbidden(mut self, obstacle: Obstacle) -> Self {
        self.asked.io_uring = Err(obstacle);
        self
    }

    fn transport(mut self, transport: Transport) -> Self {
        self.wishes.transport = transport;
        self
    }

    fn wishes(mut self, driver: Driver, registration: Registration) -> Self {
        self.wishes = Wishes { driver, registration, ..Wishes::default() };
        self
    }

    fn jobmanager(mut self) -> Self {
        self.process = Process::JobManager;
        self
    }

    fn plan(&self) -> Plan {
        let settings = Settings::new()
            .with("taskmanager.memory.process.size", "4g")
            .with("taskmanager.numberOfTaskSlots", "2")
            .with("jobmanager.memory.process.size", "1g");
        resolve(&Request::new(self.process, Profile::Native, &settings)).expect("it holds")
    }

    fn judge(&self) -> Vec<Check> {
        let root = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in &self.files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        let host = Readings::below(root.path(), self.asked.clone());
        judge(&host, &Needs { plan: &self.plan(), wishes: self.wishes })
    }

    /// The one check that is not `ok`.
    #[track_caller]
    fn fault(&self) -> Check {
        let mut faults = self.judge();
        faults.retain(|check| check.level != Level::Ok);
        let [fault] = faults.try_into().expect("one thing is wrong");
        fault
    }

    /// The one check that is not `ok` has this name and level, and says each of `words`.
    #[track_caller]
    fn provokes(&self, name: &str, level: Level, words: &[&str]) {
        let fault = self.fault();
        assert_eq!((fault.name, fault.level), (name, level), "{}", fault.line());
        for word in words {
            assert!(fault.line().contains(word), "{word:?} in {}", fault.line());
        }
    }

    #[track_caller]
    fn found(&self, name: &str) -> String {
        let checks = self.judge();
        let check = checks.iter().find(|check| check.name == name).expect("there is such a check");
        assert_eq!(check.level, Level::Ok, "{}", check.line());
        check.found.clone()
    }
}

#[test]
fn a_sound_host_has_no_fault() {
    let both = [Case::sound(), Case::sound().jobmanager()];
    for checks in both.map(|case| case.judge()) {
        assert!(checks.iter().all(|check| check.level == Level::Ok && check.advice.is_none()), "{checks:?}");
        assert!(refusal(&checks).is_none());
    }
}

#[test]
fn a_host_that_shows_nothing_is_no_reason_to_refuse() {
    let mut case = Case::sound();
    case.files.clear();
    (case.asked.memlock, case.asked.nofile, case.asked.cores) = (None, None, None);
    let checks = case.judge();
    assert!(checks.iter().all(|check| check.level != Level::Error), "{checks:?}");
}

#[test]
fn a_plan_over_the_control_group_is_refused_with_the_arithmetic() {
    let unified = Case::sound().file("sys/fs/cgroup/pod/memory.max", "1073741824\n");
    let first = Case::sound()
        .file("proc/self/cgroup", "4:memory:/pod\n0::/\n")
        .file("sys/fs/cgroup/memory/pod/memory.limit_in_bytes", "1073741824\n");
    for (case, version) in [(unified, "cgroup v2"), (first, "cgroup v1")] {
        let words = [version, "1024.000mb (1073741824 bytes)", "4.000gb (4294967296 bytes)"];
        case.provokes("cgroup memory", Level::Error, &words);
        case.provokes("cgroup memory", Level::Error, &["taskmanager.memory.process.size", "sys/fs/cgroup"]);
        let sum = case.fault().sum;
        let [leaves @ .., total, there, missing] = sum.as_slice() else { panic!("{sum:?}") };
        assert_eq!(leaves.iter().map(|item| item.bytes).sum::<u64>(), total.bytes);
        assert_eq!((there.bytes, missing.bytes), (1 << 30, 3 << 30));
        let failure = refusal(&case.judge()).expect("it is refused");
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.line.starts_with("cgroup memory: "), "{}", failure.line);
        assert!(failure.details.last().is_some_and(|line| line.starts_with("missing")), "{failure:?}");
    }
    let exact = Case::sound().file("sys/fs/cgroup/pod/memory.max", "4294967296\n");
    assert!(exact.found("cgroup memory").starts_with("4.000gb (4294967296 bytes)"));
    let jobmanager = Case::sound().jobmanager().file("sys/fs/cgroup/pod/memory.max", "536870912\n");
    jobmanager.provokes("cgroup memory", Level::Error, &["jobmanager.memory.process.size"]);
}

#[test]
fn a_plan_over_the_machine_is_refused_and_one_over_what_is_available_told() {
    let small = Case::sound().memory("MemTotal", "2097152 kB");
    small.provokes("machine memory", Level::Error, &["2.000gb", "larger machine"]);
    assert_eq!(small.fault().sum.last().map(|item| item.bytes), Some(2 << 30));
    let full = Case::sound().memory("MemAvailable", "1048576 kB");
    full.provokes("machine memory", Level::Warning, &["available 1024.000mb", "end other processes"]);
}

#[test]
fn locked_memory_is_a_ladder() {
    let locked = |limit, driver, registration| Case::sound().memlock(limit).wishes(driver, registration);
    let auto = |limit| locked(limit, Driver::Auto, Registration::Auto);
    assert!(auto(1 << 30).found(memory::LOCKED).contains("user 1000 together: segments are registered"));
    let words = ["segments stay unregistered", "CAP_IPC_LOCK", "all processes of user 1000"];
    auto(8 << 20).provokes(memory::LOCKED, Level::Warning, &words);
    // Two rings for four connections each have 20 KiB in all, with room for 32 they have 32 KiB.
    auto(28 << 10).provokes(memory::LOCKED, Level::Warning, &["fewer connections"]);
    auto(8 << 10).provokes(memory::LOCKED, Level::Warning, &["runs on epoll"]);
    let rows = auto(8 << 20).fault().sum;
    let [parts @ .., total, _] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(parts.iter().map(|item| item.bytes).sum::<u64>(), total.bytes);

    // Refused only where the configuration demands it.
    let required = |limit| locked(limit, Driver::Auto, Registration::Required);
    assert!(required(1 << 30).found(memory::LOCKED).contains("registered"));
    required(8 << 20).provokes(memory::LOCKED, Level::Error, &["registration is required"]);
    required(8 << 10).provokes(memory::LOCKED, Level::Error, &["not enough for io_uring"]);
    let uring = |limit| locked(limit, Driver::IoUring, Registration::Auto);
    uring(8 << 20).provokes(memory::LOCKED, Level::Warning, &["segments stay unregistered"]);
    uring(8 << 10).provokes(memory::LOCKED, Level::Error, &["not enough for io_uring"]);

    assert!(locked(0, Driver::Epoll, Registration::Auto).found(memory::LOCKED).contains("epoll"));
    let never = locked(8 << 20, Driver::Auto, Registration::Never);
    assert!(never.found(memory::LOCKED).contains("together"), "only rings and staging are locked");
}

#[test]
fn cap_ipc_lock_counts_where_the_host_gave_it() {
    let capable = Case::sound().memlock(0).file(STATUS, "CapEff:\t0000000000004000\n");
    assert!(capable.found(memory::LOCKED).contains("CAP_IPC_LOCK"));
    let inside = capable.file("proc/self/uid_map", "0 1000 1\n");
    inside.provokes(memory::LOCKED, Level::Warning, &["epoll"]);
}

#[test]
fn memory_that_cannot_be_shared_is_refused_only_where_it_is_demanded() {
    let refused = || {
        let mut case = Case::sound();
        let errno = libc_eperm();
        case.asked.sealed_memory =
            Err(tidegate_arena::ArenaError::Share { bytes: 4096, call: "memfd_create", errno });
        case
    };
    assert!(
        refused().transport(Transport::Tcp).found(host::SHARED_MEMORY).contains("cannot"),
        "nobody wants it"
    );
    refused().transport(Transport::Auto).provokes(
        host::SHARED_MEMORY,
        Level::Warning,
        &["memfd_create", "TCP"],
    );
    refused().transport(Transport::Shm).provokes(host::SHARED_MEMORY, Level::Error, &["memfd_create"]);
    assert!(Case::sound().transport(Transport::Shm).found(host::SHARED_MEMORY).contains("sealed"));
}

#[test]
fn who_forbids_io_uring_is_named() {
    let sysctl = Obstacle::Sysctl { value: 2, errno: libc_eperm() };
    let disabled = || Case::sound().file("proc/sys/kernel/io_uring_disabled", "2\n").forbidden(sysctl);
    let words = ["kernel.io_uring_disabled: 2", "set it to 0", "epoll"];
    disabled().provokes(host::IO_URING, Level::Warning, &words);
    let filtered =
        Case::sound().file(STATUS, "Seccomp:\t2\n").forbidden(Obstacle::Seccomp { errno: libc_eperm() });
    filtered.provokes(host::IO_URING, Level::Warning, &["seccomp: a filter", "425, 426 and 427"]);
    let demanded = disabled().wishes(Driver::IoUring, Registration::Auto);
    demanded.provokes(host::IO_URING, Level::Error, &["do not require"]);
    let demanded = disabled().wishes(Driver::Auto, Registration::Required);
    demanded.provokes(host::IO_URING, Level::Error, &["do not require"]);
    let epoll = disabled().wishes(Driver::Epoll, Registration::Auto);
    assert!(epoll.found(host::IO_URING).contains("not usable"));
    assert!(!disabled().jobmanager().judge().iter().any(|check| check.name == host::IO_URING));
}

fn libc_eperm() -> i32 {
    rustix::io::Errno::PERM.raw_os_error()
}

#[test]
fn cores_and_their_time() {
    let mut case = Case::sound();
    case.asked.cores = Some(1);
    case.provokes("cores", Level::Warning, &["taskmanager.numberOfTaskSlots to 1"]);
    let quota = Case::sound().file("sys/fs/cgroup/pod/cpu.max", "150000 100000\n");
    quota.provokes("cgroup cpu", Level::Warning, &["1.500 cores", "2 cores"]);
    let first = Case::sound()
        .file("proc/self/cgroup", "4:cpu,cpuacct:/pod\n0::/pod\n")
        .file("sys/fs/cgroup/cpu/pod/cpu.cfs_quota_us", "50000\n")
        .file("sys/fs/cgroup/cpu/pod/cpu.cfs_period_us", "100000\n");
    first.provokes("cgroup cpu", Level::Warning, &["0.500 cores"]);
}

#[test]
fn threads_and_descriptors() {
    let threads = Case::sound().file("sys/fs/cgroup/pod/pids.max", "8\n");
    threads.provokes("cgroup threads", Level::Error, &["at least 14", "pids.max"]);
    let words = ["RLIMIT_NOFILE is 128, at most unlimited", "32 connections", "ulimit -n 208"];
    Case::sound().nofile(128).provokes("file descriptors", Level::Warning, &words);
    Case::sound().nofile(64).provokes("file descriptors", Level::Error, &["ulimit -n 208"]);
    let jobmanager = Case::sound().jobmanager().nofile(256);
    jobmanager.provokes("file descriptors", Level::Warning, &["512"]);
}

#[test]
fn pages_of_every_kind() {
    let transparent = "sys/kernel/mm/transparent_hugepage/enabled";
    let tcp = || Case::sound().transport(Transport::Tcp);
    let never = tcp().file(transparent, "always madvise [never]\n");
    never.provokes("huge pages", Level::Warning, &["transparent ones: never", "write madvise"]);
    let few = tcp().memory("HugePages_Free", "10");
    few.provokes("huge pages", Level::Warning, &["20.000mb", "vm.nr_hugepages"]);
    let enough = tcp().memory("HugePages_Free", "512").file(transparent, "always madvise [never]\n");
    assert!(enough.found("huge pages").starts_with("1024.000mb"));
    let shared = "sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let auto = || Case::sound().file(shared, "always within_size advise [never] deny force\n");
    assert!(auto().found("huge pages").contains("shared: never"));
    auto().memory("HugePages_Free", "512").provokes("huge pages", Level::Warning, &["transport tcp"]);

    let swap = Case::sound().memory("SwapTotal", "1048576 kB");
    swap.provokes("swap", Level::Warning, &["vm.swappiness = 60", "swapoff"]);
    let group =
        Case::sound().memory("SwapTotal", "1048576 kB").file("sys/fs/cgroup/pod/memory.swap.max", "0\n");
    assert_eq!(group.found("swap"), "none for this control group");

    let strict = || Case::sound().file("proc/sys/vm/overcommit_memory", "2\n");
    assert!(strict().found("overcommit").contains("vm.overcommit_memory = 2"));
    let short = strict().memory("CommitLimit", "2097152 kB");
    short.provokes("overcommit", Level::Error, &["vm.overcommit_ratio", "2.000gb"]);
    let taken = strict().memory("Committed_AS", "32505856 kB");
    taken.provokes("overcommit", Level::Warning, &["1024.000mb"]);
}

#[test]
fn kernel_congestion_and_clock() {
    let release = |text| Case::sound().file("proc/sys/kernel/osrelease", text);
    for old in ["5.15.0-91-generic\n", "6.0.9\n", "unheard of\n"] {
        release(old).provokes("kernel", Level::Warning, &[old.trim(), "Linux 6.1"]);
    }
    assert_eq!(release("7.0\n").found("kernel"), "7.0");

    let bbr = || Case::sound().file("proc/sys/net/ipv4/tcp_congestion_control", "bbr\n");
    let words = ["bbr with fq_codel", "cubic"];
    bbr().provokes("congestion control", Level::Warning, &words);
    let in_a_container = bbr().without("proc/sys/net/core/default_qdisc");
    in_a_container.provokes("congestion control", Level::Warning, &["default_qdisc"]);
    assert_eq!(
        bbr().file("proc/sys/net/core/default_qdisc", "fq\n").found("congestion control"),
        "bbr with fq"
    );

    let source = "sys/devices/system/clocksource/clocksource0/current_clocksource";
    Case::sound().file(source, "hpet\n").provokes("clock", Level::Warning, &["hpet", "tsc"]);
    let mut coarse = Case::sound();
    coarse.asked.tick_ns = 4_000_000;
    coarse.provokes("clock", Level::Warning, &["ticks of 4000000 ns", "high-resolution"]);
}

#[test]
fn a_start_says_warnings_once_and_leaves_the_ladder_to_the_network() {
    let checks = Case::sound().memlock(8 << 20).memory("SwapTotal", "1 kB").judge();
    let said: Vec<&str> = to_be_said(&checks).map(|check| check.name).collect();
    assert_eq!(said, ["swap"]);
    assert!(refusal(&checks).is_none());
}

#[test]
fn a_role_that_cannot_fit_this_machine_is_refused_before_anything_else() {
    let settings = Settings::new().with("taskmanager.memory.process.size", "1000t");
    let plan = resolve(&Request::new(Process::TaskManager, Profile::Native, &settings)).expect("it holds");
    let failure = at_start(&plan, Wishes::default()).expect_err("no machine has as much");
    assert_eq!(failure.exit, Exit::Refused);
    assert!(failure.details.iter().any(|line| line.starts_with("missing")), "{failure:?}");
}

#[test]
fn people_and_programs_are_told_the_same() {
    let case = Case::sound().nofile(64);
    let (plan, checks) = (case.plan(), case.judge());
    let table = answer(false, &plan, &checks);
    assert!(table.contains("error    file descriptors    RLIMIT_NOFILE is 64"), "{table}");
    assert!(table.contains("to do: ulimit -n 208") && table.contains("errors: 1, warnings: 0"), "{table}");
    let object: serde_json::Value = serde_json::from_str(&answer(true, &plan, &checks)).expect("JSON");
    assert_eq!((&object["level"], &object["process"]), (&json!("error"), &json!("taskmanager")));
    let told = object["checks"].as_array().expect("a list");
    assert_eq!(told.len(), checks.len());
    for (object, check) in told.iter().zip(&checks) {
        assert_eq!((&object["name"], &object["found"]), (&json!(check.name), &json!(check.found)));
        assert_eq!(object["advice"].as_str(), check.advice.as_deref());
    }
}

#[test]
fn the_guide_names_every_check() {
    let guide = include_str!("../../../../../deploy/guides/troubleshooting.md");
    let section = guide.split("\n## ").find(|section| section.starts_with("What doctor says"));
    let section = section.expect("a section of its own");
    let documented: BTreeSet<&str> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let checks = Case::sound().judge();
    let made: BTreeSet<&str> = checks.iter().map(|check| check.name).collect();
    assert_eq!(documented, made);
}
