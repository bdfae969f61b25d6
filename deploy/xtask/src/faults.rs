//! The catalogue of faults that real processes are put to: which test makes each, how often, and what this machine lacks.
//!
//! It owns no state. Always: every test it names exists (a test of ours looks), and every test of
//! `control/tidegate/tests/e2e/faults` that states a fault is named.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a test asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Root,
    /// Network namespaces, pairs of virtual wires, and a switch.
    Namespaces,
    /// A tool that can do this.
    Tool(&'static [&'static str]),
    /// A file of the kernel's.
    Device(&'static str),
}
use Need::{Device, Namespaces, Root, Tool};

impl Need {
    /// What is missing, if anything is.
    fn missing(self) -> Option<String> {
        let works = |line: &[&str]| {
            let mut command = Command::new(line[0]);
            command.args(&line[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let missing = match self {
            Root => !works(&["sh", "-c", "test \"$(id -u)\" = 0"]),
            Namespaces => !works(&["ip", "netns", "list"]),
            Tool(line) => !works(line),
            Device(path) => !Path::new(path).exists(),
        };
        missing.then(|| match self {
            Root => "needs root".to_owned(),
            Namespaces => "needs `ip netns`".to_owned(),
            Tool(line) => format!("needs `{}`", line.join(" ")),
            Device(path) => format!("needs {path}"),
        })
    }
}

/// Where a test is and what runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    /// `cargo xtask faults`.
    Faults(&'static str),
    /// `cargo xtask test`, which has no long counts.
    Always(&'static str),
}
use Where::{Always, Faults};

struct Fault {
    id: &'static str,
    test: &'static str,
    at: Where,
    /// How often it strikes: normally, and with `--long`.
    counts: [&'static str; 2],
    needs: &'static [Need],
}

const fn fault(
    id: &'static str,
    test: &'static str,
    at: Where,
    counts: [&'static str; 2],
    needs: &'static [Need],
) -> Fault {
    Fault { id, test, at, counts, needs }
}

const SS: Need = Tool(&["ss", "-K", "src", "127.255.255.254"]);
const EXT4: Need = Tool(&["mkfs.ext4", "-V"]);
const LOOP: Need = Device("/dev/loop-control");
const GROUPS: Need = Device("/sys/fs/cgroup");

#[rustfmt::skip]
const CATALOGUE: &[Fault] = &[
    fault("F01", "a_taskmanager_dies_at_any_moment", Faults("faults/processes.rs"), ["3", "500"], &[]),
    fault("F01", "wordcount_survives", Always("kills.rs"), ["7 of 20", ""], &[]),
    fault("F01", "delays_survives", Always("kills.rs"), ["6 of 20", ""], &[]),
    fault("F01", "flights_clean_survives", Always("kills.rs"), ["7 of 20", ""], &[]),
    fault("F02", "the_jobmanager_dies_at_each_step_of_a_checkpoint", Faults("faults/steps.rs"), ["14 steps", "14 steps × 20"], &[]),
    fault("F03", "everything_dies_at_once", Faults("faults/processes.rs"), ["3", "50"], &[]),
    fault("F04", "a_process_that_stands_still_and_goes_on_is_fenced", Faults("faults/processes.rs"), ["2, of 3 to 4 s", "60, of 3 to 60 s"], &[]),
    fault("F05", "processes_are_replaced_one_by_one_under_load", Faults("faults/processes.rs"), ["3", "30"], &[]),
    fault("F06", "a_function_fails_beside_a_job_that_is_well", Faults("faults/users.rs"), ["4", "200"], &[]),
    fault("F06", "a_job_that_fails_while_a_slot_hangs_goes_on_on_another_taskmanager", Always("hangs.rs"), ["1", ""], &[]),
    fault("F06", "a_task_that_leaks_fails_alone_while_another_job_runs_beside_it", Always("outgrown.rs"), ["1", ""], &[]),
    fault("F08", "a_job_is_cancelled_in_full_flow", Faults("faults/users.rs"), ["2 × 5", "2 × 500"], &[]),
    fault("F10", "a_host_is_cut_off_for_a_while", Faults("faults/network.rs"), ["3, up to 6 s", "100, up to 60 s"], &[Root, Namespaces]),
    fault("F10", "a_taskmanager_behind_a_silent_network_is_given_up_and_taken_back", Faults("needs_root.rs"), ["1", "1"], &[Root, Namespaces]),
    fault("F11", "one_direction_is_lost", Faults("faults/network.rs"), ["4 ways", "50"], &[Root, Namespaces]),
    fault("F12", "a_pair_of_hosts_is_parted", Faults("faults/network.rs"), ["2, of 5 s", "50, of 70 s"], &[Root, Namespaces]),
    fault("F13", "a_connection_is_reset_in_the_middle", Faults("faults/wires.rs"), ["4", "1,000"], &[Root, SS]),
    fault("F15", "a_link_is_slow_for_a_while", Faults("faults/network.rs"), ["1, of 8 s", "3, of 60 s"], &[Root, Namespaces, Tool(&["tc", "-V"])]),
    fault("F17", "bytes_come_in_crumbs", Faults("faults/wires.rs"), ["50 MB", "1 GB"], &[Root, Namespaces]),
    fault("F18", "a_peer_does_not_read", Faults("faults/wires.rs"), ["1, of 8 s", "3, until given up"], &[Root, Namespaces]),
    fault("F18", "a_blocked_consumer_of_a_thousand_holds_up_nobody_else", Always("dataplane/exchange/tests"), ["1", ""], &[]),
    fault("F42", "no_descriptor_is_left", Faults("faults/limits.rs"), ["3", "60"], &[Root]),
    fault("F43", "a_taskmanager_under_back_pressure_stays_within_a_control_group_of_its_plan", Faults("needs_root.rs"), ["20 s", "2 min"], &[Root, GROUPS]),
    fault("F44", "a_taskmanager_refuses_a_control_group_that_is_too_small", Faults("faults/limits.rs"), ["10 sizes", "10 sizes"], &[Root, GROUPS]),
    fault("F44", "a_plan_over_the_control_group_is_refused_by_doctor", Faults("needs_root.rs"), ["2 sizes", "2 sizes"], &[Root, GROUPS]),
    fault("F45", "an_ordinary_user_with_little_locked_memory_gets_the_same_figures", Faults("needs_root.rs"), ["2 limits", "2 limits"], &[Root, Tool(&["prlimit", "--version"])]),
    fault("F46", "sixty_four_segments_are_enough_for_everything_to_come_out", Always("starved.rs"), ["1", ""], &[]),
    fault("F46", "a_job_starved_of_credit_comes_to_its_end", Always("matrix.rs"), ["9 engines", ""], &[]),
    fault("F47", "where_io_uring_is_forbidden_a_job_runs_on_epoll_and_says_why", Always("driver.rs"), ["EPERM", ""], &[]),
    fault("F47", "where_the_kernel_fails_to_make_a_ring_a_job_runs_on_epoll", Always("driver.rs"), ["ENOSYS, ENOMEM", ""], &[]),
    fault("F47", "where_nothing_may_be_registered_the_demo_and_a_job_run_all_the_same", Always("driver.rs"), ["1", ""], &[]),
    fault("F55", "a_disk_is_full_at_each_write_of_a_checkpoint", Faults("faults/disks.rs"), ["12 points", "200 points"], &[Root]),
    fault("F56", "every_damage_to_a_checkpoint_is_noticed", Faults("faults/damaged.rs"), ["all, 1,000 bits", "all, 10,000 bits"], &[]),
    fault("F56", "a_damaged_checkpoint_gives_way_to_an_older_one", Always("bad_input.rs"), ["3", ""], &[]),
    fault("F57", "a_disk_fails_a_sync_and_works_again", Faults("faults/disks.rs"), ["3", "60"], &[Root, EXT4, LOOP]),
    fault("F58", "the_power_fails", Faults("faults/disks.rs"), ["4", "100"], &[Root, EXT4, LOOP]),
    fault("F62", "folders_that_cannot_be_used_are_refused_at_once", Faults("faults/limits.rs"), ["12 refused, 3 taken", "the same"], &[Root]),
    fault("L04", "each_call_of_a_taskmanager_fails_once", Faults("faults/calls.rs"), ["1 of each site", "3 of each site"], &[Root]),
    fault("L04", "each_call_of_a_jobmanager_fails_once", Faults("faults/calls.rs"), ["1 of each site", "3 of each site"], &[Root]),
    fault("F63", "clocks_run_over_while_a_job_runs", Faults("faults/limits.rs"), ["1", "10"], &[Root, Tool(&["unshare", "--time", "--monotonic", "1", "true"])]),
];

/// What is not tried with real processes, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    ("F48", "full rings and short operations are the simulation's: `cargo run --release -p tidegate-sim`"),
    (
        "F57",
        "the sync fails by a disk whose memory is full, not by FUSE, so the call that fails is not chosen",
    ),
    ("F58", "ext4 only: `mkfs.xfs` is not asked for"),
    ("F63", "the wall clock is the whole machine's; the simulation turns it"),
];

/// The catalogue as a table, with what can't run here.
pub fn table() -> String {
    let mut text = format!("{:<4} {:<72} {:<20} {:<20} here\n", "id", "test", "normal", "--long");
    for Fault { id, test, at, counts: [normal, long], needs } in CATALOGUE {
        let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
        let here = match (at, missing.is_empty()) {
            (_, false) => format!("skipped: {}", missing.join(", ")),
            (Always(_), true) => "in cargo xtask test".to_owned(),
            (Faults(_), true) => "runs".to_owned(),
        };
        let _ = writeln!(text, "{id:<4} {test:<72} {normal:<20} {long:<20} {here}");
    }
    text.push('\n');
    for (id, why) in ELSEWHERE {
        let _ = writeln!(text, "{id:<4} {why}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const E2E: &str = "control/tidegate/tests/e2e";

    fn source(path: &Path) -> String {
        if path.is_dir() {
            let files = std::fs::read_dir(path).expect("it is there").flatten();
            return files.map(|file| source(&file.path())).collect();
        }
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("it is in the repository")
    }

    #[test]
    fn every_test_of_the_catalogue_is_where_it_says() {
        for Fault { test, at, .. } in CATALOGUE {
            let (Faults(file) | Always(file)) = at;
            let inside = root().join(E2E).join(file);
            let path = if inside.exists() { inside } else { root().join(file) };
            let text = source(&path);
            assert!(text.contains(&format!("\nfn {test}() {{")), "there is no {test} in {}", path.display());
            let ignored = text.split("\n\n").find(|part| part.contains(&format!("fn {test}()")));
            let ignored = ignored.is_some_and(|part| part.contains("#[ignore = "));
            assert_eq!(ignored, matches!(at, Faults(_)), "{test}: what runs it?");
        }
    }

    #[test]
    fn every_fault_that_a_test_states_is_in_the_catalogue() {
        let text = source(&root().join(E2E).join("faults"));
        let mut found = 0;
        let stated = |letter: char| {
            let start = format!("\n/// {letter}");
            let parts = text.split(&start).skip(1);
            let numbered = parts.filter(|part| part.starts_with(|first: char| first.is_ascii_digit()));
            numbered.map(move |part| (letter, part)).collect::<Vec<_>>()
        };
        for (letter, part) in [stated('F'), stated('L')].concat() {
            let id = format!("{letter}{}", part.split(':').next().unwrap_or_default());
            let name = part.split("\nfn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap_or_default();
            let known = CATALOGUE.iter().any(|fault| fault.id == id && fault.test == name);
            assert!(known, "{id}: {name} is not in the catalogue");
            found += 1;
        }
        assert!(found > 15, "{found} tests found");
    }
}
