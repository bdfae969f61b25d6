//! Each call to the system that a process makes on its way to memory, rings, sockets, clocks and threads fails once.
//!
//! A site is what is called, and by which thread. The sites are not written down here: a calm run shows them, and each is then
//! struck in a run of its own. Either the process goes on, or it ends with words that give the error it was told; in both cases
//! the job comes out right, and every descriptor and segment is given back. [`CALLS`] sees that it is the right ones that are
//! struck, and [`ENDS`] which of them end a process.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::ledger::{Size, binary, expected};
use super::trial::submit;
use super::{root, skip_unless, times};
use crate::kills::all_segments_free;
use crate::support::calls::{Calls, watched};
use crate::support::cluster::{Cluster, SLOTS};
use crate::support::output::check;
use crate::support::process::Process;
use crate::support::{SOON, WHOLE_JOB, wait_for};

/// What the runs reach together, by whatever thread.
const CALLS: &[&str] = &[
    "accept",
    "bind(inet)",
    "bind(unix)",
    "clone(thread)",
    "connect(inet)",
    "connect(unix)",
    "epoll_create1",
    "epoll_ctl(ADD)",
    "eventfd",
    "fcntl(F_ADD_SEALS)",
    "fcntl(F_GET_SEALS)",
    "ftruncate",
    "getpeername",
    "getsockname",
    "getsockopt(SO_PEERCRED)",
    "io_uring_enter",
    "io_uring_register(BUFFERS)",
    "io_uring_register(PROBE)",
    "io_uring_setup",
    "listen",
    "madvise(DONTFORK)",
    "madvise(POPULATE_WRITE)",
    "memfd_create",
    "mmap(MAP_SHARED)",
    "mmap(PROT_NONE)",
    "mprotect",
    "recv",
    "recvmsg",
    "recvmsg(files)",
    "send",
    "sendmsg",
    "sendmsg(files)",
    "setsockopt(SO_RCVTIMEO)",
    "setsockopt(SO_REUSEADDR)",
    "setsockopt(TCP_KEEPIDLE)",
    "setsockopt(TCP_NODELAY)",
    "setsockopt(TCP_USER_TIMEOUT)",
    "socket(inet)",
    "socket(unix)",
];

/// Where the first call fails, the process ends: what it asks for it can't do without. Everywhere else it goes on.
const ENDS: &[&str] = &[
    "control: epoll_create1",
    "control: epoll_ctl(ADD)",
    "control: eventfd",
    "control: fcntl(F_DUPFD_CLOEXEC)",
    "files: madvise(POPULATE_WRITE)",
    "files: mmap(PROT_NONE)",
    "main: bind(inet)",
    "main: epoll_create1",
    "main: epoll_ctl(ADD)",
    "main: eventfd",
    "main: fcntl(F_DUPFD_CLOEXEC)",
    "main: getsockname",
    "main: listen",
    "main: madvise(POPULATE_WRITE)",
    "main: mmap(PROT_NONE)",
    "main: mprotect",
    "main: setsockopt(SO_REUSEADDR)",
    "main: socket(inet)",
    "main: socketpair",
    "slot: epoll_create1",
    "slot: eventfd",
    "slot: io_uring_enter",
    "slot: io_uring_register(PROBE)",
];

/// As [`ENDS`], of a JobManager.
const ENDS_JOBMANAGER: &[&str] = &[
    "jobmanager: clone(thread)",
    "jobmanager: epoll_create1",
    "jobmanager: epoll_ctl(ADD)",
    "jobmanager: eventfd",
    "jobmanager: fcntl(F_DUPFD_CLOEXEC)",
    "jobmanager: fsync",
    "main: bind(inet)",
    "main: epoll_create1",
    "main: epoll_ctl(ADD)",
    "main: eventfd",
    "main: fcntl(F_DUPFD_CLOEXEC)",
    "main: fsync",
    "main: getsockname",
    "main: listen",
    "main: setsockopt(SO_REUSEADDR)",
    "main: socket(inet)",
    "main: socketpair",
];

/// Where a library panics: at the start, or in a task whose panic is an answer like any other.
const PANICS: &[(&str, &str)] =
    &[("clone(thread)", "OS can't spawn worker thread"), ("socketpair", "failed to create UnixStream")];

/// Exit codes of a process that the system, or its disk, refuses what it needs.
const FAILED: [i32; 2] = [71, 74];

const SIZE: Size = Size { partitions: 4, records: 2_000, keys: 20, payload: 160 };

/// Whose calls fail.
#[derive(Clone, Copy)]
enum Victim {
    TaskManager,
    JobManager,
}

impl Victim {
    /// An address of this host that nobody else is at.
    const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

    /// What only its environment has.
    fn mark(self) -> String {
        match self {
            Self::TaskManager => Self::HOST.to_string(),
            Self::JobManager => "=jobmanager".to_owned(),
        }
    }

    /// Starts it; it may not live long.
    fn start(self, cluster: &mut Cluster) {
        match self {
            Self::TaskManager => {
                cluster.start_taskmanager_at(IpAddr::V4(Self::HOST));
            }
            Self::JobManager => cluster.jobmanager = Some(cluster.spawn_jobmanager()),
        }
    }

    fn of(self, cluster: &mut Cluster) -> &mut Process {
        match self {
            Self::TaskManager => cluster.taskmanagers.last_mut(),
            Self::JobManager => cluster.jobmanager.as_mut(),
        }
        .expect("it was started")
    }

    fn take(self, cluster: &mut Cluster) -> Process {
        match self {
            Self::TaskManager => cluster.taskmanagers.pop(),
            Self::JobManager => cluster.jobmanager.take(),
        }
        .expect("it was started")
    }
}

/// What became of one run.
struct Outcome {
    counts: BTreeMap<String, u32>,
    /// The error of the call that failed.
    errno: Option<i32>,
    /// Where the process ended.
    ended: Option<(Option<i32>, String)>,
    errors: String,
    descriptors: usize,
}

/// Starts the victim, runs the job on the cluster, and stops the victim again.
fn run(
    cluster: &mut Cluster,
    victim: Victim,
    calls: &Calls,
    strike: Option<(&str, u32)>,
    most: usize,
) -> Outcome {
    let number = cluster.folder().read_dir().into_iter().flatten().count();
    let (output, until) = (cluster.output(&format!("rows-{number}")), cluster.folder().to_owned());
    let mut ended = None;
    let mut again = |cluster: &mut Cluster| {
        if victim.of(cluster).has_ended() {
            let mut dead = victim.take(cluster);
            assert!(ended.is_none(), "it ended twice: {}", dead.tail());
            ended = Some((dead.wait(SOON).code(), dead.errors()));
            victim.start(cluster);
        }
    };
    calls.aim(&victim.mark(), strike);
    victim.start(cluster);
    let slots = (2 * SLOTS) as u64;
    wait_for("all slots", SOON, || {
        again(cluster);
        (cluster.get("/overview")?["slots-total"].as_u64()? == slots).then_some(())
    });
    let mut job = submit(cluster, SIZE, &output, &until, &[]);
    wait_for("the job to finish", WHOLE_JOB, || {
        again(cluster);
        (job.state(cluster)? == "FINISHED").then_some(())
    });
    job.finish(cluster, WHOLE_JOB);
    let (counts, errno) = calls.rest();
    check(&output, expected(&SIZE));
    all_segments_free(cluster);
    let mut victim = victim.take(cluster);
    let mut descriptors = victim.footprint().descriptors;
    wait_for("descriptors to be closed", SOON, || {
        descriptors = victim.footprint().descriptors;
        (descriptors <= most).then_some(())
    });
    victim.terminate();
    let status = victim.wait(SOON);
    assert!(status.success(), "{status}{}", victim.tail());
    Outcome { counts, errno, ended, errors: victim.errors(), descriptors }
}

/// Whether the process ended, after what it said of it was judged.
fn judged(site: &str, outcome: &Outcome) -> bool {
    let Outcome { ended, errors, errno: Some(errno), .. } = outcome else { return false };
    let errors = ended.as_ref().map_or(errors, |(_, errors)| errors);
    let panics = PANICS.iter().find(|(call, words)| site.ends_with(call) && errors.contains(words));
    assert!(panics.is_some() || !errors.contains(" panicked at "), "{site}: {errors}");
    if let (Some((code, errors)), None) = (ended, panics) {
        let named = [format!("os error {errno})"), format!("errno {errno})")];
        assert!(named.iter().any(|error| errors.contains(error)), "{site}: not said why: {errors}");
        assert!(code.is_some_and(|code| FAILED.contains(&code)), "{site}: {code:?}: {errors}");
    }
    ended.is_some()
}

/// Strikes all sites of a victim that a calm run shows and `known` does not have yet.
fn strike_all(
    cluster: &mut Cluster,
    victim: Victim,
    calls: &Calls,
    known: &mut BTreeSet<String>,
    ends: &mut BTreeSet<String>,
) {
    let most = run(cluster, victim, calls, None, usize::MAX).descriptors;
    let calm = run(cluster, victim, calls, None, most);
    for (site, count) in calm.counts {
        if !known.insert(site.clone()) {
            continue;
        }
        let further = [count.div_ceil(2), count];
        for which in BTreeSet::from_iter([1].into_iter().chain(further.into_iter().take(times(0, 2)))) {
            println!("{site}, {which} of {count}");
            let outcome = run(cluster, victim, calls, Some((&site, which)), most);
            // Later ones may not come again: how often something is called depends on who is faster.
            assert!(outcome.errno.is_some() || which > 1, "{site} was not reached again");
            if judged(&site, &outcome) {
                ends.insert(site.clone());
            }
        }
    }
}

/// L04: of a TaskManager, with each engine.
#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn each_call_of_a_taskmanager_fails_once() {
    skip_unless!(root());
    watched(|calls| {
        let engines: [&[&str]; 3] =
            [&[], &["--transport", "tcp"], &["--transport", "tcp", "--driver", "epoll"]];
        let (mut known, mut ends) = (BTreeSet::new(), BTreeSet::new());
        for flags in engines {
            let mut cluster = Cluster::of(binary, 1, flags);
            strike_all(&mut cluster, Victim::TaskManager, calls, &mut known, &mut ends);
            cluster.stop();
        }
        println!("{} sites", known.len());
        let reached = |call: &&&str| {
            !known.iter().any(|site| site.split_once(": ").is_some_and(|site| site.1 == **call))
        };
        let missing: Vec<_> = CALLS.iter().filter(reached).collect();
        assert!(missing.is_empty(), "no run reached {missing:?}");
        let listed: BTreeSet<String> = ENDS.iter().map(|site| (*site).to_owned()).collect();
        assert_eq!(ends, listed);
    });
}

/// L04: of a JobManager.
#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn each_call_of_a_jobmanager_fails_once() {
    skip_unless!(root());
    watched(|calls| {
        let (mut known, mut ends) = (BTreeSet::new(), BTreeSet::new());
        let mut cluster = Cluster::of(binary, 2, &["--transport", "tcp"]);
        let mut first = cluster.jobmanager.take().expect("it was started");
        first.terminate();
        assert!(first.wait(SOON).success());
        strike_all(&mut cluster, Victim::JobManager, calls, &mut known, &mut ends);
        println!("{} sites", known.len());
        cluster.start_jobmanager();
        cluster.stop();
        let listed: BTreeSet<String> = ENDS_JOBMANAGER.iter().map(|site| (*site).to_owned()).collect();
        assert_eq!(ends, listed);
    });
}
