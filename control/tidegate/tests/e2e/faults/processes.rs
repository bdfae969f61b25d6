//! Processes killed, stopped for a while, or told to end, while the ledger runs on them.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::ledger::{Size, binary};
use super::trial::Trial;
use super::{rounds, times};
use crate::support::cluster::Cluster;
use crate::support::random::Random;
use crate::support::{SOON, wait_for};

/// F01: a TaskManager is killed at a random moment.
#[test]
#[ignore = "takes its time; run by cargo xtask faults"]
fn a_taskmanager_dies_at_any_moment() {
    let mut random = Random::announced("F01");
    for strikes in rounds(times(3, 500), 5) {
        let mut trial = Trial::start(Cluster::of(binary, 2, &[]), Size::default());
        for _ in 0..strikes {
            trial.ready();
            std::thread::sleep(random.up_to(Duration::from_millis(400)));
            let before = trial.now();
            trial.cluster.kill_taskmanager(random.below(2) as usize);
            trial.cluster.start_taskmanager();
            println!("back after {:?}", trial.restored(&before));
        }
        trial.finish();
    }
}

/// F03: everything is killed at once, and started again. The last checkpoint that was acknowledged is restored.
#[test]
#[ignore = "takes its time; run by cargo xtask faults"]
fn everything_dies_at_once() {
    let mut random = Random::announced("F03");
    for strikes in rounds(times(3, 50), 5) {
        let mut trial = Trial::start(Cluster::of(binary, 2, &[]), Size::default());
        for _ in 0..strikes {
            trial.ready();
            std::thread::sleep(random.up_to(Duration::from_millis(400)));
            let before = trial.now();
            let cluster = &mut trial.cluster;
            // All are dead before the first of them is waited for.
            cluster.taskmanagers.iter().chain(&cluster.jobmanager).for_each(|one| one.signal(Signal::KILL));
            cluster.taskmanagers.clear();
            cluster.kill_jobmanager();
            cluster.start_jobmanager();
            cluster.start_taskmanager();
            cluster.start_taskmanager();
            println!("back after {:?}", trial.restored(&before));
        }
        trial.finish();
    }
}

/// F04: a TaskManager or the JobManager stands still for longer than silence is borne, and goes on as if nothing had been.
/// What it still sends and writes counts for nothing: rows would come twice, and files vanish.
#[test]
#[ignore = "takes its time; run by cargo xtask faults"]
fn a_process_that_stands_still_and_goes_on_is_fenced() {
    let mut random = Random::announced("F04");
    for strikes in rounds(times(2, 60), 4) {
        // One more than the job needs, so that it goes on without the one that stands still.
        let mut trial = Trial::start(Cluster::of(binary, 3, &[]), Size::default());
        for strike in 0..strikes {
            let before = trial.ready();
            let still = Duration::from_secs(3) + random.up_to(Duration::from_secs(times(1, 57) as u64));
            let start = Instant::now();
            if strike % 2 == 0 {
                // One that the job runs on, wherever that is.
                let busy = busy(&trial);
                let place = trial.cluster.taskmanagers.iter().position(|one| one.id() == busy);
                let stopped = trial.cluster.taskmanagers.remove(place.expect("it is one of them"));
                stopped.signal(Signal::STOP);
                println!("a TaskManager stands still for {still:?}");
                println!("back after {:?}", trial.restored(&before));
                wait_for("the time to pass", still, || (start.elapsed() >= still).then_some(()));
                stopped.signal(Signal::CONT);
                trial.cluster.taskmanagers.push(stopped);
            } else {
                let jobmanager = trial.cluster.jobmanager.as_ref().expect("it runs");
                jobmanager.signal(Signal::STOP);
                println!("the JobManager stands still for {still:?}");
                std::thread::sleep(still);
                jobmanager.signal(Signal::CONT);
            }
            trial.goes_on(SOON);
        }
        trial.finish();
    }
}

/// A TaskManager whose slots are taken.
fn busy(trial: &Trial) -> u32 {
    let list = trial.cluster.get("/taskmanagers").expect("the JobManager is there");
    let taken = |one: &&serde_json::Value| one["freeSlots"].as_u64() < one["slotsNumber"].as_u64();
    let list = list["taskmanagers"].as_array().expect("a list").clone();
    let one = list.iter().find(taken).expect("a job runs").clone();
    one["pid"].as_u64().expect("a number") as u32
}

/// F05: all processes are told to end, one after the other, and replaced, while the job runs. Each ends with success within
/// ten seconds.
#[test]
#[ignore = "takes its time; run by cargo xtask faults"]
fn processes_are_replaced_one_by_one_under_load() {
    const END: Duration = Duration::from_secs(10);
    for strikes in rounds(times(3, 30), 3) {
        let mut trial = Trial::start(Cluster::of(binary, 2, &[]), Size::default());
        for strike in 0..strikes {
            let before = trial.ready();
            let cluster = &mut trial.cluster;
            let mut leaving = if strike % 3 == 2 {
                cluster.jobmanager.take().expect("it runs")
            } else {
                cluster.start_taskmanager();
                cluster.taskmanagers.remove(0)
            };
            leaving.terminate();
            let status = leaving.wait(END);
            assert!(status.success(), "{status}{}", leaving.tail());
            if strike % 3 == 2 {
                cluster.start_jobmanager();
            }
            println!("back after {:?}", trial.restored(&before));
        }
        trial.finish();
    }
}
