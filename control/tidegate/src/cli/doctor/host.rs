//! Is the host one to run on: kernel, io_uring and who forbids it, cores, threads, descriptors, TCP, clock. Stateless.
//!
//! Always: what only costs time is a warning.

use tidegate_memory::plan::{NativeCosts, Process};
use tidegate_ring::Registration;
use tidegate_taskmanager::{Driver, Transport};

use super::Needs;
use super::check::Check;
use super::readings::Readings;
use crate::limits::{
    CLOCK_TICK_MAX_NS, DESCRIPTORS_JOBMANAGER, DESCRIPTORS_LEAST, DESCRIPTORS_PER_SLOT, FILES_PER_SLOT,
};

/// Name of the check whose ladder the network itself climbs down and reports.
pub(super) const IO_URING: &str = "io_uring";
/// Name of the check that the transport itself makes and reports.
pub(super) const SHARED_MEMORY: &str = "shared memory";
/// The oldest kernel to be advised.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Clocks that a process reads without a call into the kernel.
const FAST_CLOCKS: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];

/// A kernel with what io_uring needs.
pub(super) fn kernel(host: &Readings) -> Check {
    let (major, minor) = KERNEL_MIN;
    let found = host.kernel.as_deref().unwrap_or("cannot be read");
    let check = Check::ok("kernel", found, format!("Linux {major}.{minor} or newer"));
    let mut numbers = found.split(|c: char| !c.is_ascii_digit()).map_while(|digits| digits.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= KERNEL_MIN => check,
        _ => check.warning("use a newer kernel; until then the network may run on epoll"),
    }
}

/// io_uring may be used, with which features; or who forbids it.
pub(super) fn io_uring(host: &Readings, needs: &Needs<'_>) -> Check {
    let required = needs.wishes.registration == Registration::Required;
    let needed = required || needs.wishes.driver == Driver::IoUring;
    let sysctl = host.io_uring_disabled.map_or_else(|| "absent".to_owned(), |value| value.to_string());
    let seccomp = if host.seccomp { "a filter" } else { "none" };
    let around = format!("sysctl kernel.io_uring_disabled: {sysctl}, seccomp: {seccomp}");
    let has = |feature| if feature { "yes" } else { "no" };
    match host.asked.io_uring {
        Ok(found) => {
            let (vectors, zero_copy) = (has(found.fixed_vectors), has(found.zero_copy));
            let found =
                format!("usable [{}], fixed vectors {vectors}, zero copy {zero_copy}; {around}", found.setup);
            Check::ok(IO_URING, found, "usable")
        }
        Err(_) if needs.wishes.driver == Driver::Epoll => {
            Check::ok(IO_URING, format!("not usable; {around}"), "nothing, as epoll is wanted")
        }
        Err(obstacle) => {
            let check = Check::ok(IO_URING, format!("not usable; {around}"), "usable");
            if needed {
                check.error(format!("{obstacle}; or do not require io_uring and registered segments"))
            } else {
                check.warning(format!("{obstacle}; until then the network runs on epoll"))
            }
        }
    }
}

/// Memory files can be made and sealed, for TaskManagers of this host to share.
pub(super) fn shared_memory(host: &Readings, needs: &Needs<'_>) -> Check {
    let found = if host.asked.sealed_memory.is_ok() { "can be made and sealed" } else { "cannot be made" };
    let wanted = needs.wishes.transport;
    if wanted == Transport::Tcp {
        return Check::ok(SHARED_MEMORY, found, "nothing, as TCP is wanted within the host");
    }
    let check = Check::ok(SHARED_MEMORY, found, "memory files with seals");
    match &host.asked.sealed_memory {
        Ok(()) => check,
        Err(error) if wanted == Transport::Shm => check.error(error.to_string()),
        Err(error) => check.warning(format!("{error}; until then links within the host go over TCP")),
    }
}

/// A core for each slot.
pub(super) fn cores(host: &Readings, slots: u32) -> Check {
    let Some(cores) = host.asked.cores else {
        return Check::ok("cores", "cannot be read", format!("{slots}, one for each slot"));
    };
    let check = Check::ok("cores", cores.to_string(), format!("{slots}, one for each slot"));
    if cores >= slots as usize {
        check
    } else {
        check
            .warning(format!("set taskmanager.numberOfTaskSlots to {cores}, or give this process more cores"))
    }
}

/// A core's time for each slot.
pub(super) fn cgroup_cpu(host: &Readings, slots: u32) -> Check {
    let expected = format!("{slots} cores' time, one for each slot");
    let Some(limit) = host.cgroup_cpu.as_ref().and_then(|group| group.limit) else {
        return Check::ok("cgroup cpu", "no limit", expected);
    };
    let check =
        Check::ok("cgroup cpu", format!("{}.{:03} cores' time", limit / 1000, limit % 1000), expected);
    if limit >= u64::from(slots) * 1000 {
        check
    } else {
        let advice = "give the control group more time, or the process fewer slots: slots are stopped in the middle of their \
             work until the next period";
        check.warning(advice)
    }
}

/// Threads that the control group lets this process have.
pub(super) fn threads(host: &Readings, process: Process, slots: u32) -> Check {
    let costs = NativeCosts::default();
    let needed = match process {
        Process::TaskManager => costs.taskmanager_threads + u64::from(slots),
        Process::JobManager => costs.jobmanager_threads,
    };
    let expected = format!("at least {needed}");
    let Some(limit) = host.cgroup_threads.as_ref().and_then(|group| group.limit) else {
        return Check::ok("cgroup threads", "no limit", expected);
    };
    let check = Check::ok("cgroup threads", limit.to_string(), expected);
    if limit >= needed {
        check
    } else {
        check.error(format!("raise pids.max of the control group to {needed} or more (TasksMax= of a unit)"))
    }
}

/// Descriptors for sockets and files.
pub(super) fn descriptors(host: &Readings, process: Process, slots: u32, links: u32) -> Check {
    let slots = u64::from(slots);
    let (least, needed, expected) = match process {
        Process::TaskManager => {
            let each = DESCRIPTORS_PER_SLOT + u64::from(links) + FILES_PER_SLOT;
            let needed = DESCRIPTORS_LEAST + slots * each;
            let expected = format!(
                "{needed}: {DESCRIPTORS_LEAST} and for each of {slots} slots {DESCRIPTORS_PER_SLOT}, {links} \
                 connections, {FILES_PER_SLOT} files"
            );
            (DESCRIPTORS_LEAST + slots * DESCRIPTORS_PER_SLOT, needed, expected)
        }
        Process::JobManager => {
            let expected = format!("{DESCRIPTORS_JOBMANAGER}, for TaskManagers, clients and files");
            (DESCRIPTORS_LEAST, DESCRIPTORS_JOBMANAGER, expected)
        }
    };
    let name = "file descriptors";
    let Some(limits) = host.asked.nofile else { return Check::ok(name, "cannot be read", expected) };
    let Some(limit) = limits.soft else { return Check::ok(name, "no limit", expected) };
    let most = limits.hard.map_or_else(|| "unlimited".to_owned(), |hard| hard.to_string());
    let check = Check::ok(name, format!("RLIMIT_NOFILE is {limit}, at most {most}"), expected);
    let advice = format!("ulimit -n {needed} (LimitNOFILE= of a unit)");
    if limit < least {
        check.error(advice)
    } else if limit < needed {
        check.warning(format!("{advice}: jobs fail when they run out"))
    } else {
        check
    }
}

/// Congestion control that does not slow short paths down.
pub(super) fn congestion(host: &Readings) -> Check {
    let (control, qdisc) = (host.congestion.as_deref(), host.qdisc.as_deref());
    let with = qdisc.map(|qdisc| format!(" with {qdisc}")).unwrap_or_default();
    let found = format!("{}{with}", control.unwrap_or("cannot be read"));
    let check = Check::ok("congestion control", found, "cubic, or bbr with fq");
    match (control, qdisc) {
        (Some(name), qdisc) if name.starts_with("bbr") && qdisc != Some("fq") => check.warning(
            "set net.ipv4.tcp_congestion_control to cubic, or net.core.default_qdisc to fq: without fq, bbr paces by \
             timers, which costs throughput on short paths",
        ),
        _ => check,
    }
}

/// A clock that is read without a call into the kernel, and fine enough for timers.
pub(super) fn clock(host: &Readings) -> Check {
    let source = host.clocksource.as_deref().unwrap_or("cannot be read");
    let tick = host.asked.tick_ns;
    let expected = format!("tsc or the like, ticks of at most {CLOCK_TICK_MAX_NS} ns");
    let check = Check::ok("clock", format!("{source}, ticks of {tick} ns"), expected);
    if tick > CLOCK_TICK_MAX_NS {
        check.warning("use a kernel with high-resolution timers: waits last for whole ticks")
    } else if host.clocksource.is_some() && !FAST_CLOCKS.contains(&source) {
        check.warning(
            "boot with a clock source of the processor (tsc; see available_clocksource below \
             /sys/devices/system/clocksource): each look at this one is a call into the kernel",
        )
    } else {
        check
    }
}
