//! Hosts that lose their network, all of it, one direction, or one peer, and links that are slow.
//!
//! The JobManager is on the first host, a TaskManager on each of the other two; the job needs the slots of both.

use std::time::{Duration, Instant};

use super::ledger::{Size, binary};
use super::trial::Trial;
use super::{root, rounds, skip_unless, times};
use crate::support::cluster::{Cluster, SLOTS};
use crate::support::hosts::{Hosts, address};
use crate::support::random::Random;
use crate::support::{SOON, wait_for, wait_within};

/// The host of the JobManager, which is where the test is as well.
pub const FIRST: usize = 0;

/// How long a TaskManager may be silent, and a moment for the test to see that it was given up.
const DETECTION: Duration = Duration::from_millis(2_000 + 700);

pub fn hosts() -> Result<Hosts, String> {
    root()?;
    Hosts::new(3)
}

/// A JobManager and two TaskManagers, each on a host of its own.
pub fn cluster(hosts: &Hosts, flags: &[&str]) -> Cluster {
    hosts.enter(FIRST);
    let mut cluster =
        Cluster::of_at(binary, address(FIRST).into(), &[&["--transport", "tcp"], flags].concat());
    for host in [1, 2] {
        hosts.enter(host);
        cluster.start_taskmanager_at(address(host).into());
    }
    hosts.enter(FIRST);
    cluster.wait_slots(2 * SLOTS);
    cluster
}

fn slots(trial: &Trial) -> Option<u64> {
    trial.cluster.get("/overview")?["slots-total"].as_u64()
}

/// F10: a host is off the network for a blink, for as long as silence is borne, and for longer.
#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn a_host_is_cut_off_for_a_while() {
    let hosts = skip_unless!(hosts());
    let mut random = Random::announced("F10");
    for strikes in rounds(times(3, 100), 6) {
        let mut trial = Trial::start(cluster(&hosts, &[]), Size::default());
        for strike in 0..strikes {
            let before = trial.ready();
            let longest = if times(0, 1) == 1 { 60_000 } else { 6_000 };
            let gone = match strike % 3 {
                0 => random.up_to(Duration::from_millis(400)),
                1 => Duration::from_millis(1_500) + random.up_to(Duration::from_secs(1)),
                _ => Duration::from_secs(4) + random.up_to(Duration::from_millis(longest - 4_000)),
            };
            let host = 1 + random.below(2) as usize;
            let start = Instant::now();
            hosts.down(host);
            if gone > DETECTION {
                wait_for("the TaskManager to be given up", DETECTION, || {
                    (slots(&trial)? == SLOTS as u64).then_some(())
                });
            }
            wait_for("the time to pass", gone + SOON, || (start.elapsed() >= gone).then_some(()));
            hosts.up(host);
            let healed = Instant::now();
            if gone > DETECTION {
                trial.restored(&before);
            }
            trial.goes_on(SOON);
            println!("host {host} off for {gone:?}, checkpoints again {:?} after", healed.elapsed());
        }
        trial.finish();
    }
}

/// F11: what one host sends to another is lost, and what comes back is not.
#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn one_direction_is_lost() {
    let hosts = skip_unless!(hosts());
    // From a TaskManager to the JobManager and back, and between TaskManagers.
    let ways = [(1, FIRST), (FIRST, 2), (1, 2), (2, 1)];
    for strikes in rounds(times(4, 50), 4) {
        let mut trial = Trial::start(cluster(&hosts, &[]), Size::default());
        for (from, to) in ways.into_iter().take(strikes) {
            let before = trial.ready();
            hosts.lose(from, to);
            let start = Instant::now();
            let with_jobmanager = from == FIRST || to == FIRST;
            if with_jobmanager {
                wait_for("the TaskManager to be given up", DETECTION, || {
                    (slots(&trial)? == SLOTS as u64).then_some(())
                });
            } else {
                std::thread::sleep(Duration::from_secs(3));
            }
            println!("{from} to {to}: noticed, or borne, for {:?}", start.elapsed());
            hosts.lose_no_more(from, to);
            if with_jobmanager {
                trial.restored(&before);
            }
            trial.goes_on(SOON);
        }
        trial.finish();
    }
}

/// F12: the TaskManagers don't reach each other, and both reach the JobManager; then one does not reach the JobManager, and
/// they reach each other. The job does not begin anew all the time meanwhile.
#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn a_pair_of_hosts_is_parted() {
    const RESTARTS_A_MINUTE: u64 = 3;
    let hosts = skip_unless!(hosts());
    for strikes in rounds(times(2, 50), 4) {
        let mut trial = Trial::start(cluster(&hosts, &[]), Size::default());
        for strike in 0..strikes {
            let before = trial.ready();
            let pair = if strike % 2 == 0 { [1, 2] } else { [FIRST, 1] };
            // In the long run they are parted for longer than a link may be silent (45 s).
            let apart = Duration::from_secs(times(5, 70) as u64);
            let start = Instant::now();
            hosts.lose(pair[0], pair[1]);
            hosts.lose(pair[1], pair[0]);
            std::thread::sleep(apart);
            hosts.lose_no_more(pair[0], pair[1]);
            hosts.lose_no_more(pair[1], pair[0]);
            trial.goes_on(2 * SOON);
            let restarts = trial.now().attempt - before.attempt;
            println!("{pair:?} apart for {apart:?}: {restarts} restarts within {:?}", start.elapsed());
            assert!(
                restarts <= RESTARTS_A_MINUTE * (1 + start.elapsed().as_secs() / 60),
                "{restarts} restarts"
            );
        }
        trial.finish();
    }
}

/// F15: a host's link has 1 Mbit/s for a while. The source slows down, memory does not grow, nobody is given up, and ten
/// seconds after the link is free again the rate is what it was.
#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn a_link_is_slow_for_a_while() {
    const RATE: u64 = 3_000;
    // Much more than the link can carry: half of it crosses.
    let size = Size { records: 200_000, payload: 600, ..Size::default() };
    let hosts = skip_unless!(hosts().and_then(|hosts| {
        hosts.shape(1, Some("1gbit"))?;
        hosts.shape(1, None)?;
        Ok(hosts)
    }));
    for _ in 0..times(1, 3) {
        // Little memory for records, or checkpoints would wait until all of it has crossed the link.
        let cluster = cluster(&hosts, &["--segments", "64", "--segment-size", "4k"]);
        let rate = RATE.to_string();
        let mut trial = Trial::start_with(cluster, "ledger", size, &["--rate", &rate]);
        let before = trial.ready();
        let made = |trial: &Trial| trial.job.metric_of(&trial.cluster, "partitions", "write-records");
        let rate_of = |trial: &Trial, span: Duration| {
            let (start, first) = (Instant::now(), made(trial).unwrap_or(0));
            std::thread::sleep(span);
            (made(trial).unwrap_or(0).saturating_sub(first)) as f64 / start.elapsed().as_secs_f64()
        };
        let undisturbed = rate_of(&trial, Duration::from_secs(3));
        let resident = |trial: &Trial| {
            let of = |id: u32| {
                let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
                let line =
                    status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
                line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
            };
            trial.cluster.taskmanagers.iter().map(|one| of(one.id())).max().expect("there are two")
        };
        let memory = resident(&trial);
        hosts.shape(1, Some("1mbit")).expect("it could a moment ago");
        let slow = rate_of(&trial, Duration::from_secs(times(8, 60) as u64));
        let grown = resident(&trial).saturating_sub(memory);
        hosts.shape(1, None).expect("it could a moment ago");
        let start = Instant::now();
        let back = wait_within(Duration::from_secs(10), || {
            rate_of(&trial, Duration::from_secs(2)) >= 0.95 * undisturbed
        });
        println!(
            "{undisturbed:.0} records/s, {slow:.0} through 1 Mbit/s (resident memory + {grown} bytes), back {:?} after",
            start.elapsed()
        );
        assert!(slow < undisturbed / 2.0, "the link is not what limits");
        assert!(grown < 16 << 20, "memory has grown");
        assert!(back, "the rate is not back");
        trial.goes_on(SOON);
        assert_eq!(trial.now().attempt, before.attempt, "{}", trial.job.exceptions(&trial.cluster));
        trial.finish();
    }
}
