//! Is there the memory that the plan divides: the control group's, the machine's, locked memory, pages, swap. Stateless.
//!
//! Always: a refusal for want of memory carries the sum, and the sum adds up.

use tidegate_memory::plan::{Name, Plan};
use tidegate_memory::{CgroupLimit, CgroupVersion, Limit};
use tidegate_ring::limits::ring_bytes;
use tidegate_ring::{Obstacle, Registration};
use tidegate_taskmanager::limits::{CONNECTIONS_MIN, STAGING_BUFFER_BYTES, STAGING_BUFFERS};
use tidegate_taskmanager::{Driver, Transport};

use super::Needs;
use super::check::{Check, Item, size};
use super::readings::Readings;

/// Name of the check whose ladder the network itself climbs down and reports.
pub(super) const LOCKED: &str = "locked memory";

/// Total process memory within the control group's limit.
pub(super) fn cgroup(host: &Readings, needs: &Needs<'_>) -> Check {
    let total = needs.plan.total_process();
    let expected = format!("at least {}, which is total process memory", size(total));
    let check = |found: String| Check::ok("cgroup memory", found, expected);
    let Some(group) = &host.cgroup_memory else { return check("no memory controller".to_owned()) };
    let Some(limit) = group.limit else { return check(format!("no limit (cgroup {})", version(group))) };
    let check = check(format!("{} (cgroup {})", size(limit), version(group)));
    if total <= limit {
        return check;
    }
    let file = group.file.as_deref().map(|file| file.display().to_string()).unwrap_or_default();
    check.because(sum_over(needs.plan, "the control group has", limit)).error(format!(
        "set {} to {limit}b or less, or let {file} be {total} or more",
        process_key(needs.plan)
    ))
}

/// Total process memory within what the machine has, and has free.
pub(super) fn machine(host: &Readings, needs: &Needs<'_>) -> Check {
    let total = needs.plan.total_process();
    let expected = format!("at least {}, which is total process memory", size(total));
    let (Some(machine), available) = (host.memory_total, host.memory_available) else {
        return Check::ok("machine memory", "cannot be read", expected);
    };
    let free = available.map(|bytes| format!(", available {}", size(bytes))).unwrap_or_default();
    let check = Check::ok("machine memory", format!("{}{free}", size(machine)), expected);
    let key = process_key(needs.plan);
    if total > machine {
        check
            .because(sum_over(needs.plan, "the machine has", machine))
            .error(format!("set {key} to {machine}b or less, or use a larger machine"))
    } else if available.is_some_and(|bytes| bytes < total) {
        check.warning(format!("end other processes, or set {key} to what is available"))
    } else {
        check
    }
}

/// The kernel promises as much as the plan will ask for.
pub(super) fn overcommit(host: &Readings, needs: &Needs<'_>) -> Check {
    let total = needs.plan.total_process();
    let (Some(2), Some(limit)) = (host.overcommit, host.commit_limit) else {
        let found = match host.overcommit {
            Some(mode) => format!("vm.overcommit_memory = {mode}"),
            None => "cannot be read".to_owned(),
        };
        return Check::ok("overcommit", found, "0 or 1");
    };
    let left = limit.saturating_sub(host.committed);
    let found = format!("vm.overcommit_memory = 2, and {} of {} left to promise", size(left), size(limit));
    let check = Check::ok("overcommit", found, format!("{} left, or 0 or 1", size(total)));
    let advice = "set vm.overcommit_memory to 0, or raise vm.overcommit_ratio";
    match (limit < total, left < total) {
        (true, _) => check.because(sum_over(needs.plan, "the kernel promises", limit)).error(advice),
        (_, true) => check.warning(advice),
        _ => check,
    }
}

/// No page of a slot is fetched from a disk.
pub(super) fn swap(host: &Readings) -> Check {
    let expected = "none, or vm.swappiness at most 1";
    let of_group = host.cgroup_swap.as_ref().and_then(|group| group.limit);
    let found = match (host.swap_total, of_group, host.swappiness) {
        (0, _, _) => "none".to_owned(),
        (_, Some(0), _) => "none for this control group".to_owned(),
        (bytes, _, Some(0 | 1)) => format!("{}, in need only", size(bytes)),
        (bytes, _, swappiness) => {
            let swappiness = swappiness.map(|value| format!(", vm.swappiness = {value}")).unwrap_or_default();
            let advice = "swapoff -a, or vm.swappiness = 1, or MemorySwapMax=0 for the unit: a slot that waits for \
                          its pages holds up whole jobs";
            return Check::ok("swap", format!("{}{swappiness}", size(bytes)), expected).warning(advice);
        }
    };
    Check::ok("swap", found, expected)
}

/// The arena on huge pages. One that is shared lies in a memory file, which explicit pages are not for.
pub(super) fn huge_pages(host: &Readings, needs: &Needs<'_>, arena: u64) -> Check {
    if needs.wishes.transport != Transport::Tcp && host.asked.sealed_memory.is_ok() {
        let shared = host.transparent_shared.as_deref().unwrap_or("not to be had");
        let found = format!("for the memory that is shared: {shared}; reserved: {}", size(host.huge_free));
        let check = Check::ok("huge pages", found, "advise, or small pages; none reserved for nothing");
        let for_nothing = arena > 0 && host.huge_free >= arena;
        return if for_nothing {
            check.warning(
                "use the transport tcp to have the arena on reserved huge pages, or set vm.nr_hugepages to 0",
            )
        } else {
            check
        };
    }
    let transparent = host.transparent.as_deref().unwrap_or("not to be had");
    let found = format!("{} reserved and free; transparent ones: {transparent}", size(host.huge_free));
    let expected = format!("{} reserved for the arena, or transparent ones", size(arena));
    let check = Check::ok("huge pages", found, expected);
    let enough = host.huge_free >= arena && arena > 0;
    match transparent {
        _ if enough => check,
        _ if host.huge_free > 0 => check
            .warning("raise vm.nr_hugepages so that the arena fits, or set it to 0: too few are of no use to it"),
        "always" | "madvise" => check,
        _ => check.warning(
            "write madvise to /sys/kernel/mm/transparent_hugepage/enabled: on pages of 4 KiB the arena takes longer to \
             map and to register",
        ),
    }
}

/// On which rung of the ladder (registered, unregistered, epoll) locked memory lets the network be.
pub(super) fn locked(host: &Readings, needs: &Needs<'_>, slots: u32, links: u32, arena: u64) -> Check {
    let required = needs.wishes.registration == Registration::Required;
    let uring_only = required || needs.wishes.driver == Driver::IoUring;
    let ring = |connections| u64::from(slots).saturating_mul(ring_bytes(connections));
    let (rings, least) = (ring(links.max(CONNECTIONS_MIN)), ring(CONNECTIONS_MIN));
    let staging = (STAGING_BUFFERS * STAGING_BUFFER_BYTES) as u64;
    let mut sum =
        vec![Item { what: "rings", bytes: rings }, Item { what: "staging of files", bytes: staging }];
    if needs.wishes.registration != Registration::Never {
        sum.insert(0, Item { what: "network", bytes: arena });
    }
    let wanted: u64 = sum.iter().fold(0, |sum, item| sum.saturating_add(item.bytes));
    sum.push(Item { what: "locked in all", bytes: wanted });
    let check = |found: String| Check::ok(LOCKED, found, format!("{} for this process", size(wanted)));
    match host.asked.io_uring {
        _ if needs.wishes.driver == Driver::Epoll => return check("not needed by epoll".to_owned()),
        Ok(_) | Err(Obstacle::Memlock { .. }) => {}
        Err(_) => return check("not needed, as io_uring cannot be used".to_owned()),
    }
    if host.locks_freely {
        return check("not limited, by CAP_IPC_LOCK".to_owned());
    }
    let Some(Limit { soft: Some(limit), .. }) = host.asked.memlock else {
        return check("not limited".to_owned());
    };
    let who = host.asked.user;
    sum.push(Item { what: "RLIMIT_MEMLOCK", bytes: limit });
    let check = |rung: &str| {
        let all = format!("{} for all processes of user {who} together: {rung}", size(limit));
        check(all).because(sum.clone())
    };
    let advice = format!(
        "raise RLIMIT_MEMLOCK to {wanted} for each process of the user (LimitMEMLOCK= of a unit, memlock in \
         /etc/security/limits.conf), or grant CAP_IPC_LOCK"
    );
    if wanted <= limit {
        check("segments are registered")
    } else if rings <= limit && !required {
        let unregistered = arena > limit.saturating_sub(rings);
        let rung = if unregistered && needs.wishes.registration != Registration::Never {
            "segments stay unregistered, all or some"
        } else {
            "buffers for files stay unregistered"
        };
        check(rung).warning(advice)
    } else if rings <= limit {
        check("segments stay unregistered, and registration is required")
            .error(format!("{advice}, or do not require it"))
    } else if least <= limit && !required {
        check("fewer connections for each slot and segments unregistered, or epoll").warning(advice)
    } else if uring_only {
        check("not enough for io_uring, which is required").error(format!("{advice}, or do not require it"))
    } else {
        check("the network runs on epoll").warning(advice)
    }
}

/// The leaves of a plan, their total, what there is, and what is missing.
fn sum_over(plan: &Plan, there: &'static str, limit: u64) -> Vec<Item> {
    let total = plan.total_process();
    let leaves = plan.leaves().into_iter().filter(|part| part.bytes > 0);
    let mut sum: Vec<Item> =
        leaves.map(|part| Item { what: part.component.title(), bytes: part.bytes }).collect();
    sum.push(Item { what: Name::TotalProcessMemory.title(), bytes: total });
    sum.push(Item { what: there, bytes: limit });
    sum.push(Item { what: "missing", bytes: total.saturating_sub(limit) });
    sum
}

fn process_key(plan: &Plan) -> &'static str {
    Name::TotalProcessMemory.key(plan.process()).expect("invariant: both processes have a size")
}

fn version(group: &CgroupLimit) -> &'static str {
    match group.version {
        CgroupVersion::V1 => "v1",
        CgroupVersion::V2 => "v2",
    }
}
