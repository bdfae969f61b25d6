//! Choices as the settings of a process, resolved into a memory plan.
//!
//! A script (`script.rs`): process, profile, memory of the host, then keys of the table with values of every shape. Oracle:
//! a plan's components add up, and its final values give the plan again; a change that a refusal offers helps.

use tidegate_memory::plan::keys::KEYS;
use tidegate_memory::plan::{Plan, Process, Profile, Request, Settings, accept_final, render, resolve};

use crate::script::Script;

const UNITS: [&str; 10] = ["", "b", "k", "kb", "m", " mb", "g", "gb", "t", "tebibytes"];

/// Any bytes as settings.
pub fn plan(bytes: &[u8]) {
    let script = &mut Script(bytes);
    let process = script.pick(&[Process::TaskManager, Process::JobManager]);
    let profile = script.pick(&[Profile::Native, Profile::Flink]);
    let host_bytes = match script.byte() {
        0 => None,
        bits => Some(script.wide() >> (bits % 64)),
    };
    let mut settings = Settings::new();
    while let Some(at) = script.next() {
        let key = KEYS[usize::from(at) % KEYS.len()].key;
        // A key that is set twice is refused, and stays as it was.
        let _ = settings.add_define(&format!("{key}={}", value(script)));
    }
    let request = Request { host_bytes, ..Request::new(process, profile, &settings) };
    match resolve(&request) {
        Ok(plan) => holds(&plan, &request),
        Err(refusal) => {
            assert!(!refusal.sentence().is_empty() && !refusal.code().is_empty());
            render::refusal(&refusal);
            for change in &refusal.changes {
                let changed = settings.changed(change);
                let helped = resolve(&Request { settings: &changed, ..request.clone() });
                assert!(helped.is_ok(), "{change} does not help against {refusal}");
            }
            if !refusal.together.is_empty() {
                let both = refusal.together.iter().fold(settings.clone(), |all, change| all.changed(change));
                let helped = resolve(&Request { settings: &both, ..request.clone() });
                assert!(helped.is_ok(), "{:?} do not help against {refusal}", refusal.together);
            }
        }
    }
}

/// A value of some shape; the least of them small, so that plans come about.
fn value(script: &mut Script<'_>) -> String {
    match script.byte() % 8 {
        0 | 1 => format!("{}{}", script.byte(), script.pick(&["m", "g", "k", "0m"])),
        2 => format!("0.{}", script.byte()),
        3 => script.byte().to_string(),
        4 => {
            let bits = script.byte() % 64;
            format!("{}{}", script.wide() >> bits, script.pick(&UNITS))
        }
        5 => (1_u64 << (script.byte() % 64)).to_string(),
        6 => f64::from_bits(script.wide()).to_string(),
        _ => {
            let length = script.byte() % 32;
            let bytes = (0..length).map(|_| script.byte()).collect::<Vec<_>>();
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }
}

fn holds(plan: &Plan, request: &Request<'_>) {
    let leaves: u128 = plan.leaves().iter().map(|part| u128::from(part.bytes)).sum();
    assert_eq!(leaves, u128::from(plan.total_process()), "the parts are the whole");
    let (settings, bytes) = (plan.final_settings(), |plan: &Plan| -> Vec<u64> {
        plan.components().iter().map(|(_, component)| component.bytes).collect()
    });
    let finals = Request { settings: &settings, ..request.clone() };
    for again in [resolve(&finals), accept_final(&finals)] {
        let again = again.unwrap_or_else(|refusal| panic!("final values are refused: {refusal}"));
        assert_eq!(bytes(&again), bytes(plan), "final values give the plan");
    }
    render::table(plan);
    render::explain(plan, request.settings);
}
