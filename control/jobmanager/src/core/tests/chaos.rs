//! Random lives: TaskManagers die, go silent, refuse, come back; the JobManager dies; jobs come and are
//! cancelled. The rules are checked inside the simulation; in the end every job must be over.

use super::sim::{Sim, graph, request};
use proptest::prelude::*;
use tidegate_rpc::{FaultKind, JobId, TaskState};

fn over(state: &str) -> bool {
    ["FINISHED", "CANCELED", "FAILED"].contains(&state)
}

fn jobs(sim: &Sim) -> Vec<u128> {
    sim.records.keys().map(|id| id.0).collect()
}

fn step(sim: &mut Sim, action: u8, choice: u64) {
    let pick = choice as usize;
    let some_job = jobs(sim).get(pick % jobs(sim).len().max(1)).copied();
    let running = some_job.filter(|id| sim.state(*id) == "RUNNING");
    match action % 16 {
        0 if jobs(sim).len() < 5 => {
            let parallelism = 1 + choice as u32 % 4;
            let id = 100 + jobs(sim).len() as u128;
            let _ = sim.submit(id, request(parallelism, Some(700)), graph(parallelism));
        }
        1 if sim.tms.len() > 1 => sim.kill(pick % sim.tms.len()),
        2 if sim.tms.len() < 4 => sim.join(choice | 1 << 32, 1 + choice as u32 % 3),
        3 if !sim.tms.is_empty() => sim.rejoin(pick % sim.tms.len()),
        4 => {
            if let Some(id) = running {
                let kinds = [FaultKind::Task, FaultKind::Link, FaultKind::State, FaultKind::Resources];
                sim.fail(id, kinds[pick % kinds.len()], "chaos");
            }
        }
        5 if choice.is_multiple_of(8) => {
            if let Some(id) = some_job {
                let _ = sim.cancel(id);
            }
        }
        6 if choice.is_multiple_of(3) => {
            sim.restart_jobmanager();
            for index in 0..sim.tms.len() {
                sim.rejoin(index);
            }
        }
        7 => {
            if let Some(tm) = sim.tms.get_mut(pick % 4) {
                tm.lazy.acknowledge = !tm.lazy.acknowledge;
            }
        }
        8 => {
            if let Some(tm) = sim.tms.get_mut(pick % 4) {
                tm.lazy.close = !tm.lazy.close;
            }
        }
        9 => {
            if let Some(tm) = sim.tms.get_mut(pick % 4) {
                tm.lazy.prepare = !tm.lazy.prepare;
            }
        }
        10 => sim.disk_full = choice.is_multiple_of(4),
        11 => sim.pass(30_000),
        _ => sim.pass(100 + choice % 2_000),
    }
}

/// Everybody behaves from now on.
fn heal(sim: &mut Sim) {
    sim.disk_full = false;
    for index in 0..sim.tms.len() {
        sim.tms[index].lazy = Default::default();
        let held: Vec<_> = sim.tms[index].slots.iter().flatten().cloned().collect();
        for held in held {
            // What was told to end and did not, ends now.
            let told = sim.tms[index].told.iter().any(|told| {
                matches!(told, tidegate_rpc::ToTaskManager::Cancel { job, attempt }
                    if (*job, *attempt) == (held.job, held.attempt))
            });
            if told {
                sim.finish_closing(index, held.job, held.attempt);
            }
        }
    }
    while sim.tms.len() < 4 {
        let id = 1 << 40 | sim.now_ms << 4 | sim.tms.len() as u64;
        sim.join(id, 3);
    }
    for _ in 0..40 {
        sim.pass(10_000);
        for id in jobs(sim) {
            if sim.state(id) == "RUNNING" {
                sim.end_of_data(id);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_job_comes_to_an_end(steps in proptest::collection::vec((any::<u8>(), any::<u64>()), 0..80)) {
        let mut sim = Sim::with(2);
        sim.submit(100, request(2, Some(700)), graph(2)).unwrap();
        for (action, choice) in steps {
            step(&mut sim, action, choice >> 8);
        }
        heal(&mut sim);
        for id in jobs(&sim) {
            let state = sim.state(id);
            prop_assert!(over(&state), "job {id} is {state}: {} {:?}", sim.job(id), sim.exceptions(id));
            let record = &sim.records[&JobId(id)];
            prop_assert!(record.cleaned && record.state.name() == state);
        }
        for tm in &sim.tms {
            prop_assert!(tm.slots.iter().all(Option::is_none), "slots are left: {tm:?}");
        }
    }
}

impl Sim {
    fn finish_closing(&mut self, index: usize, job: JobId, attempt: u32) {
        let actions = self.end(index, job, attempt, TaskState::Canceled);
        self.carry_on(actions);
    }
}
