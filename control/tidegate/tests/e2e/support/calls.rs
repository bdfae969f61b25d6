//! System calls of real processes, seen one by one before they are made, of which one can be made to fail.
//!
//! The kernel asks a thread of the test before each call that is listed here (seccomp's user notification). It counts the
//! call at its site, and either lets it go on or gives the process an error in its place. The product knows nothing of it, and
//! what its libraries call is seen as well.
//!
//! Watched is one thread, and all processes that it starts. Of those, the calls of the ones that were [aimed](Calls::aim) at
//! are counted. Always: what is answered to the test's own process is decided without a lock, because who holds it may wait
//! for that answer.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};

use libc::{c_int, c_long};

/// What the kernel asks about.
const WATCHED: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_connect,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_eventfd2,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_listen,
    libc::SYS_madvise,
    libc::SYS_memfd_create,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_pipe2,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sched_setaffinity,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
];

/// What the C library reserves for a heap of its own, by kind, bytes.
const HEAPS: [u64; 2] = [64 << 20, 128 << 20];
/// A thread's stack, bytes.
const STACK: u64 = 2 << 20;
/// The arena of the thread that writes files, bytes.
const SMALLEST_ARENA: u64 = 1 << 20;

/// What is seen of the processes that were aimed at.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// In the command line or the environment of who is aimed at; nobody is while it is empty.
    target: String,
    /// The call that is to fail, and which one of its site.
    strike: Option<(String, u32)>,
    /// The error that it was given.
    struck: Option<c_int>,
    counts: BTreeMap<String, u32>,
    /// By process, whether it is aimed at.
    aimed: HashMap<u32, bool>,
}

/// Runs `test` on a thread whose processes are watched.
pub fn watched(test: impl FnOnce(&Calls) + Send + 'static) {
    let calls = Calls::default();
    let (give, take) = mpsc::channel();
    // It is not watched itself: it must not wait for its own answers.
    let supervisor = std::thread::spawn({
        let calls = calls.clone();
        move || take.into_iter().for_each(|listener| calls.supervise(&listener))
    });
    let test = std::thread::spawn(move || {
        give.send(install()).expect("the supervisor waits for it");
        drop(give);
        test(&calls);
    });
    if let Err(panic) = test.join() {
        std::panic::resume_unwind(panic);
    }
    supervisor.join().expect("the supervisor ends with the last process that is watched");
}

impl Calls {
    /// From now on, the calls of processes that have `target` in their environment are counted anew, and the given call of a
    /// site fails.
    pub fn aim(&self, target: &str, strike: Option<(&str, u32)>) {
        let strike = strike.map(|(site, which)| (site.to_owned(), which));
        *self.lock() = Seen { target: target.to_owned(), strike, ..Seen::default() };
    }

    /// Nobody is aimed at any more. Gives the calls that were seen, and the error of the one that failed.
    pub fn rest(&self) -> (BTreeMap<String, u32>, Option<c_int>) {
        let seen = std::mem::take(&mut *self.lock());
        (seen.counts, seen.struck)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("nobody panics with it")
    }

    /// Answers until the last thread under the filter is gone.
    fn supervise(&self, listener: &OwnedFd) {
        loop {
            let mut ready = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one such struct, a live local.
            let _woken = unsafe { libc::poll(&raw mut ready, 1, -1) };
            if ready.revents & libc::POLLHUP != 0 {
                return;
            }
            let Some(asked) = receive(listener) else { continue };
            let process = process_of(asked.pid);
            let own = process.is_none_or(|process| process == std::process::id());
            let errno = process.filter(|_| !own).and_then(|process| self.answer(process, &asked));
            answer(listener, asked.id, errno);
        }
    }

    /// The error that the call gets, if it is to fail.
    fn answer(&self, process: u32, asked: &libc::seccomp_notif) -> Option<c_int> {
        let mut seen = self.lock();
        let seen = &mut *seen;
        if seen.target.is_empty() {
            return None;
        }
        let target = seen.target.as_bytes();
        let environment = || std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let has = |text: Vec<u8>| text.windows(target.len()).any(|part| part == target);
        if !*seen.aimed.entry(process).or_insert_with(|| has(environment())) {
            return None;
        }
        let thread = thread(process, asked.pid);
        let (call, errno) = call(asked, &thread)?;
        let site = format!("{thread}: {call}");
        let count = seen.counts.entry(site.clone()).or_default();
        *count += 1;
        let due = seen.strike.as_ref().is_some_and(|(struck, which)| *struck == site && which == count);
        let error = due.then_some(errno);
        seen.struck = seen.struck.or(error);
        error
    }
}

/// The process that a thread is of; nothing if it is gone.
fn process_of(thread: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// What a thread does, by its name without a number. `main` is the one that the program began with, which in a test program
/// is the one of the test.
fn thread(process: u32, thread: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{thread}/comm")).unwrap_or_default();
    let name = name.trim_end().trim_end_matches(|last: char| last.is_ascii_digit() || last == '-');
    if process == thread || name.starts_with("faults:") { "main".to_owned() } else { name.to_owned() }
}

/// Whether a descriptor is a socket within this host.
fn is_unix(thread: u32, descriptor: u64) -> bool {
    let link = std::fs::read_link(format!("/proc/{thread}/fd/{descriptor}")).unwrap_or_default();
    let number = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']'));
    let all = std::fs::read_to_string(format!("/proc/{thread}/net/unix")).unwrap_or_default();
    number.is_some_and(|number| all.lines().any(|line| line.split_whitespace().nth(6) == Some(number)))
}

/// What is called, and the error that is usual where it fails. Nothing for a call of no interest.
///
/// Not here are calls that never fail for a live object: the end of a connection's writes, and of a watch.
fn call(asked: &libc::seccomp_notif, thread: &str) -> Option<(String, c_int)> {
    let [first, second, third, fourth, ..] = asked.data.args;
    let word = |at: u64| -> Option<u64> {
        let mut bytes = [0; 8];
        let memory = File::open(format!("/proc/{}/mem", asked.pid)).ok()?;
        memory.read_exact_at(&mut bytes, at).ok()?;
        Some(u64::from_ne_bytes(bytes))
    };
    // A message's control data, and its length, come behind four words.
    let files = || word(second + 40).is_some_and(|length| length > 0);
    let family = |of: u64| match of as i32 {
        libc::AF_UNIX => "unix",
        _ => "inet",
    };
    let address = || word(second).map_or("gone", |word| family(word & 0xffff));
    let option = || option(second as c_int, third as c_int);
    // Runtimes and signals knock at themselves through a pair of sockets, which nobody else can break.
    let pipe = thread != "slot" && is_unix(asked.pid, first);
    let plain = |name: &str, errno| (name.to_owned(), errno);
    Some(match c_long::from(asked.data.nr) {
        libc::SYS_accept4 => plain("accept", libc::ECONNABORTED),
        libc::SYS_bind => (format!("bind({})", address()), libc::EADDRINUSE),
        // Only threads: both say so in their first flags.
        libc::SYS_clone | libc::SYS_clone3 => {
            let clone3 = c_long::from(asked.data.nr) == libc::SYS_clone3;
            let flags = if clone3 { word(first)? } else { first };
            (flags & libc::CLONE_THREAD as u64 != 0).then_some(())?;
            plain("clone(thread)", libc::EAGAIN)
        }
        libc::SYS_connect => match address() {
            "unix" => plain("connect(unix)", libc::EAGAIN),
            other => (format!("connect({other})"), libc::ENETUNREACH),
        },
        libc::SYS_epoll_create1 => plain("epoll_create1", libc::EMFILE),
        // The others can't fail for what was added.
        libc::SYS_epoll_ctl => {
            (second as c_int == libc::EPOLL_CTL_ADD).then_some(())?;
            plain("epoll_ctl(ADD)", libc::ENOSPC)
        }
        libc::SYS_eventfd2 => plain("eventfd", libc::EMFILE),
        libc::SYS_fcntl => match second as c_int {
            libc::F_ADD_SEALS => plain("fcntl(F_ADD_SEALS)", libc::EBUSY),
            libc::F_GET_SEALS => plain("fcntl(F_GET_SEALS)", libc::EINVAL),
            libc::F_DUPFD_CLOEXEC => plain("fcntl(F_DUPFD_CLOEXEC)", libc::EMFILE),
            libc::F_SETFL => plain("fcntl(F_SETFL)", libc::EPERM),
            _ => return None,
        },
        libc::SYS_fdatasync => plain("fdatasync", libc::EIO),
        libc::SYS_fsync => plain("fsync", libc::EIO),
        libc::SYS_ftruncate => plain("ftruncate", libc::ENOSPC),
        libc::SYS_getpeername => plain("getpeername", libc::ENOTCONN),
        libc::SYS_getsockname => plain("getsockname", libc::ENOBUFS),
        libc::SYS_getsockopt => (format!("getsockopt({})", option()), libc::ENOMEM),
        libc::SYS_io_uring_enter => plain("io_uring_enter", libc::EAGAIN),
        libc::SYS_io_uring_register => (format!("io_uring_register({})", register(second)), libc::ENOMEM),
        libc::SYS_io_uring_setup => plain("io_uring_setup", libc::ENOMEM),
        libc::SYS_listen => plain("listen", libc::EADDRINUSE),
        libc::SYS_madvise => (format!("madvise({})", advice(third as c_int)?), libc::ENOMEM),
        libc::SYS_memfd_create => plain("memfd_create", libc::EMFILE),
        // Private memory is the heap, stacks and programs.
        libc::SYS_mmap if fourth as c_int & libc::MAP_SHARED != 0 => plain("mmap(MAP_SHARED)", libc::ENOMEM),
        libc::SYS_mmap if third as c_int == libc::PROT_NONE && !HEAPS.contains(&second) => {
            (fourth as c_int & libc::MAP_STACK == 0).then_some(())?;
            plain("mmap(PROT_NONE)", libc::ENOMEM)
        }
        libc::SYS_mprotect if third as c_int & libc::PROT_WRITE != 0 => {
            (second >= SMALLEST_ARENA && second != STACK).then_some(())?;
            plain("mprotect", libc::ENOMEM)
        }
        libc::SYS_mmap | libc::SYS_mprotect => return None,
        libc::SYS_pipe2 => plain("pipe", libc::EMFILE),
        libc::SYS_recvfrom | libc::SYS_sendto if pipe => return None,
        libc::SYS_recvfrom => plain("recv", libc::ECONNRESET),
        libc::SYS_recvmsg if files() => plain("recvmsg(files)", libc::ENOMEM),
        libc::SYS_recvmsg => plain("recvmsg", libc::ENOMEM),
        libc::SYS_sched_setaffinity => plain("sched_setaffinity", libc::EINVAL),
        libc::SYS_sendmsg if files() => plain("sendmsg(files)", libc::ETOOMANYREFS),
        libc::SYS_sendmsg => plain("sendmsg", libc::ENOBUFS),
        libc::SYS_sendto => plain("send", libc::ENOBUFS),
        libc::SYS_setsockopt => (format!("setsockopt({})", option()), libc::ENOPROTOOPT),
        libc::SYS_socket => (format!("socket({})", family(first)), libc::EMFILE),
        libc::SYS_socketpair => plain("socketpair", libc::EMFILE),
        libc::SYS_timerfd_create => plain("timerfd_create", libc::EMFILE),
        libc::SYS_timerfd_settime => plain("timerfd_settime", libc::EINVAL),
        other => unreachable!("call {other} was not asked for"),
    })
}

fn option(level: c_int, option: c_int) -> String {
    let name = match (level, option) {
        (libc::SOL_SOCKET, libc::SO_ERROR) => "SO_ERROR",
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => "SO_KEEPALIVE",
        (libc::SOL_SOCKET, libc::SO_LINGER) => "SO_LINGER",
        (libc::SOL_SOCKET, libc::SO_PEERCRED) => "SO_PEERCRED",
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => "SO_RCVBUF",
        (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => "SO_RCVTIMEO",
        (libc::SOL_SOCKET, libc::SO_REUSEADDR) => "SO_REUSEADDR",
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => "SO_SNDBUF",
        (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => "SO_SNDTIMEO",
        (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => "TCP_CONGESTION",
        (libc::IPPROTO_TCP, libc::TCP_INFO) => "TCP_INFO",
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => "TCP_KEEPCNT",
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => "TCP_KEEPIDLE",
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => "TCP_KEEPINTVL",
        (libc::IPPROTO_TCP, libc::TCP_NODELAY) => "TCP_NODELAY",
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => "TCP_USER_TIMEOUT",
        (level, option) => return format!("{level}, {option}"),
    };
    name.to_owned()
}

/// The first operations of io_uring_register, by the names that the kernel has for them.
fn register(opcode: u64) -> String {
    // The highest bit says that the ring is named by its place in a table.
    match opcode & 0x7fff_ffff {
        0 => "BUFFERS".to_owned(),
        1 => "UNREGISTER_BUFFERS".to_owned(),
        2 => "FILES".to_owned(),
        3 => "UNREGISTER_FILES".to_owned(),
        8 => "PROBE".to_owned(),
        15 => "BUFFERS2".to_owned(),
        20 => "RING_FDS".to_owned(),
        21 => "UNREGISTER_RING_FDS".to_owned(),
        other => other.to_string(),
    }
}

/// Advice about memory that is more than a heap's, which gives pages back.
fn advice(advice: c_int) -> Option<&'static str> {
    Some(match advice {
        libc::MADV_DONTFORK => "DONTFORK",
        libc::MADV_HUGEPAGE => "HUGEPAGE",
        libc::MADV_NOHUGEPAGE => "NOHUGEPAGE",
        libc::MADV_POPULATE_WRITE => "POPULATE_WRITE",
        libc::MADV_DONTDUMP => "DONTDUMP",
        _ => return None,
    })
}

/// Puts this thread, and every process that it starts from now on, under a filter that asks. Gives where it asks.
fn install() -> OwnedFd {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    // The number of a call is its first word. Behind it are one comparison each, then the two answers.
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for (place, number) in WATCHED.iter().enumerate() {
        let code = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        let to_the_last = u8::try_from(WATCHED.len() - place).expect("the list is short");
        program.push(libc::sock_filter { code, jt: to_the_last, jf: 0, k: *number as u32 });
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: a call without pointers.
    let failed = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(failed, 0);
    let (operation, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the filter and the program it points to are live locals; the kernel copies them.
    let listener = unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &raw const filter) };
    assert!(listener >= 0, "seccomp: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor was just made and belongs to nobody else.
    unsafe { OwnedFd::from_raw_fd(listener as c_int) }
}

const MAGIC: u32 = b'!' as u32;

/// The next call that waits; nothing if it does so no more.
fn receive(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    let request = libc::_IOWR::<libc::seccomp_notif>(MAGIC, 0);
    let mut asked = std::mem::MaybeUninit::<libc::seccomp_notif>::zeroed();
    // SAFETY: the request writes one such struct, which is a live local, zeroed as the kernel wants it.
    let failed = unsafe { libc::ioctl(listener.as_raw_fd(), request, asked.as_mut_ptr()) };
    // SAFETY: plain C data, zeroed and then filled.
    (failed == 0).then(|| unsafe { asked.assume_init() })
}

/// Lets a call go on, or fails it.
fn answer(listener: &OwnedFd, id: u64, errno: Option<c_int>) {
    let request = libc::_IOWR::<libc::seccomp_notif_resp>(MAGIC, 1);
    let flags = if errno.is_some() { 0 } else { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 };
    let mut answer = libc::seccomp_notif_resp { id, val: 0, error: -errno.unwrap_or(0), flags };
    // Refused only if the thread was killed meanwhile.
    // SAFETY: the request reads one such struct, which is a live local.
    let _gone = unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw mut answer) };
}
