//! 600 configurations and what Flink 2.2's own code made of them (`data/`), against the profile `flink`.

use serde_json::{Map, Value};
use tidegate_memory::plan::{Plan, Process, Profile, Request, Settings, resolve};

const VECTORS: &str = include_str!("data/flink-2.2-memory.jsonl");

struct Vector {
    process: Process,
    settings: Settings,
    /// `None`: refused.
    expect: Option<Map<String, Value>>,
    text: &'static str,
}

fn vectors() -> Vec<Vector> {
    let read = |text: &'static str| {
        let vector: Value = serde_json::from_str(text).expect("a line is an object");
        let process = vector["process"].as_str().expect("a process").parse().expect("a known process");
        let mut settings = Settings::new();
        for (key, value) in vector["config"].as_object().expect("a configuration") {
            settings.add_define(&format!("{key}={}", value.as_str().expect("a text"))).expect("a key once");
        }
        settings.refuse_unknown().expect("every key of the vectors is known");
        let expect = vector.get("expect").map(|expect| expect.as_object().expect("components").clone());
        assert_ne!(expect.is_some(), vector.get("error").is_some(), "{text}");
        Vector { process, settings, expect, text }
    };
    VECTORS.lines().map(read).collect()
}

#[test]
fn every_component_and_every_refusal_matches() {
    let (mut plans, mut refusals) = (0, 0);
    for Vector { process, settings, expect, text } in vectors() {
        let resolved = resolve(&Request::new(process, Profile::Flink, &settings));
        match (resolved, expect) {
            (Ok(plan), Some(expect)) => {
                let json = serde_json::to_value(&plan).expect("a plan is JSON");
                for (name, bytes) in &expect {
                    assert_eq!(&json[name], bytes, "{name} of {text}");
                }
                assert_eq!(expect.len(), plan.components().len(), "{text}");
                plans += 1;
            }
            (Err(refusal), None) => {
                assert!(refusal.code().starts_with('E'), "{text}");
                refusals += 1;
            }
            (Ok(_), None) => panic!("should be refused: {text}"),
            (Err(refusal), Some(_)) => panic!("{refusal}: {text}"),
        }
    }
    println!("{} configurations: {plans} plans and {refusals} refusals match", plans + refusals);
    assert_eq!((plans, refusals), (425, 175));
}

#[test]
fn plans_give_themselves_again() {
    for Vector { process, settings, expect, text } in vectors() {
        for profile in [Profile::Flink, Profile::Native] {
            let Ok(plan) = resolve(&Request::new(process, profile, &settings)) else {
                assert!(profile == Profile::Native || expect.is_none(), "{text}");
                continue;
            };
            let again = plan.final_settings();
            let again = resolve(&Request::new(process, profile, &again)).expect(text);
            let bytes = |plan: &Plan| {
                plan.components()
                    .into_iter()
                    .map(|(name, component)| (name, component.bytes))
                    .collect::<Vec<_>>()
            };
            assert_eq!(bytes(&again), bytes(&plan), "{profile}: {text}");
        }
    }
}

#[test]
fn every_offered_change_helps() {
    let mut offered = 0;
    for Vector { process, settings, text, .. } in vectors() {
        for profile in [Profile::Flink, Profile::Native] {
            let Err(refusal) = resolve(&Request::new(process, profile, &settings)) else { continue };
            for change in &refusal.changes {
                let changed = settings.changed(change);
                let resolved = resolve(&Request::new(process, profile, &changed));
                assert!(resolved.is_ok(), "{change} does not help {text}");
            }
            let both =
                refusal.together.iter().fold(settings.clone(), |settings, change| settings.changed(change));
            assert!(
                !refusal.changes.is_empty() || resolve(&Request::new(process, profile, &both)).is_ok(),
                "nothing helps {text}"
            );
            offered += 1;
        }
    }
    println!("{offered} refusals offer a change");
    assert!(offered > 150);
}
