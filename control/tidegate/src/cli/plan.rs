//! `plan`: how a process would divide its memory and why, or why it cannot. Nothing is allocated or started.
//!
//! Owner of the state: nobody; a plan is resolved, printed and forgotten.
//!
//! Always true: every number printed is of a plan that holds; one that does not exits with 2.

use std::path::Path;

use tidegate_memory::plan::fit::{Headroom, Peaks, fit};
use tidegate_memory::plan::sizing::{LoadCosts, jobmanager};
use tidegate_memory::plan::{
    JobManagerPlan, Plan, Process, Profile, Request, Settings, TaskManagerPlan, keys, render, resolve,
};

use super::args::{NetworkArgs, PlanArgs, SettingsArgs, SourcesArgs};
use super::config::{Host, Refused, finish, read, settings, text, value};
use super::exit::{Exit, Failure};
use super::memory;

/// `plan`.
pub(super) fn plan(args: &PlanArgs) -> Result<(), Failure> {
    finish(args.json, answer(args, &Host::probe()))
}

/// The settings of a process, with the number of its slots over every layer.
pub(super) fn settings_for(
    process: Process,
    slots: Option<u32>,
    args: &SettingsArgs,
    host: &Host,
) -> Result<Settings, Refused> {
    let mut settings = settings(&args.sources, host)?;
    if let Some(slots) = slots {
        if process == Process::JobManager {
            let line = "--slots is for taskmanager, a JobManager has none; remove it";
            return Err(Refused::new(Exit::Usage, "usage", line));
        }
        settings.add_flag("--slots", keys::TM_SLOTS, &slots.to_string())?;
    }
    Ok(settings)
}

/// The plan that a TaskManager starts from: the native one of its configuration, with its flags over every layer.
pub(super) fn of_taskmanager(
    sources: &SourcesArgs,
    slots: Option<u32>,
    network: &NetworkArgs,
    host: &Host,
) -> Result<TaskManagerPlan, Refused> {
    let mut settings = settings(sources, host)?;
    if let Some(slots) = slots {
        settings.add_flag("--slots", keys::TM_SLOTS, &slots.to_string())?;
    }
    if let Some(bytes) = network.segment_size {
        settings.add_flag("--segment-size", keys::TM_SEGMENT, &format!("{bytes}b"))?;
    }
    if let Some(bytes) = network.max_record_size {
        settings.add_flag("--max-record-size", keys::TM_RECORD, &format!("{bytes}b"))?;
    }
    if let Some(segments) = network.segments {
        let shape = resolved(Process::TaskManager, &settings, host).map(|plan| match plan {
            Plan::TaskManager(plan) => plan.shape,
            Plan::JobManager(_) => unreachable!("a plan is of the process it was asked for"),
        })?;
        let size = format!("{}b", u64::from(segments) * shape.segment * u64::from(shape.slots));
        for key in [keys::TM_NETWORK_MIN, keys::TM_NETWORK_MAX] {
            settings.add_flag("--segments", key, &size)?;
        }
    }
    match resolved(Process::TaskManager, &settings, host)? {
        Plan::TaskManager(plan) => Ok(plan),
        Plan::JobManager(_) => unreachable!("a plan is of the process it was asked for"),
    }
}

/// The plan that a JobManager starts from.
pub(super) fn of_jobmanager(sources: &SourcesArgs, host: &Host) -> Result<JobManagerPlan, Refused> {
    match resolved(Process::JobManager, &settings(sources, host)?, host)? {
        Plan::JobManager(plan) => Ok(plan),
        Plan::TaskManager(_) => unreachable!("a plan is of the process it was asked for"),
    }
}

fn resolved(process: Process, settings: &Settings, host: &Host) -> Result<Plan, Refused> {
    let mut request = Request::new(process, Profile::Native, settings);
    request.host_bytes = host.memory;
    Ok(resolve(&request)?)
}

fn answer(args: &PlanArgs, host: &Host) -> Result<String, Refused> {
    let mut settings = settings_for(args.process, args.slots, &args.settings, host)?;
    if let Some(load) = &args.load {
        if args.process == Process::TaskManager {
            let line = "--load is for jobmanager; for a taskmanager start from --slots, and see --fit";
            return Err(Refused::new(Exit::Usage, "usage", line));
        }
        for (key, value) in jobmanager(load, &LoadCosts::default()).values() {
            settings.add_flag("--load", key, &value)?;
        }
    }
    let mut peaks = None;
    if let Some(from) = &args.fit {
        if from.starts_with("http://") {
            let (theirs, highest) = memory::running(from, args.process)?;
            (settings, peaks) = (theirs, Some(highest));
        } else {
            let said: Peaks = serde_json::from_str(&read(Path::new(from))?).map_err(|error| {
                Refused::new(Exit::Refused, "syntax", format!("{from}: no peaks as JSON: {error}"))
            })?;
            peaks = Some(said);
        }
    }
    let mut request = Request::new(args.process, args.settings.profile, &settings);
    request.host_bytes = host.memory;
    let plan = resolve(&request)?;
    if let Some(peaks) = peaks {
        let proposal = fit(&request, &plan, &peaks, &Headroom::default())?;
        if args.json {
            let plan = &proposal.plan;
            let mut object = if args.explain { value(&plan.explained()) } else { value(plan) };
            let values: serde_json::Map<_, _> = proposal
                .values
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.as_str().into()))
                .collect();
            let components = value(&proposal.components);
            object["fit"] =
                serde_json::json!({ "components": components, "values": values, "saved": proposal.saved() });
            return Ok(object.to_string());
        }
        let mut text = render::proposal(&proposal);
        if args.explain {
            text.push('\n');
            text.push_str(&render::explain(&proposal.plan, &proposal.plan.final_settings()));
        }
        return Ok(text);
    }
    Ok(match (args.json, args.explain) {
        (true, true) => text(&plan.explained()),
        (true, false) => text(&plan),
        (false, true) => format!("{}\n{}", render::table(&plan), render::explain(&plan, &settings)),
        (false, false) => render::table(&plan),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::Value;

    use super::*;
    use crate::cli::args::{Cli, Command};

    const VECTORS: &str = include_str!("../../../../alloc/memory/tests/data/flink-2.2-memory.jsonl");

    /// What the command line gives on a host without anything of ours in its environment.
    fn run(line: &[String]) -> Result<Value, Refused> {
        let words = ["tidegate", "plan", "--json"].into_iter().map(str::to_owned);
        let cli = Cli::try_parse_from(words.chain(line.iter().cloned())).expect("a line that makes sense");
        let Command::Plan(args) = cli.command else { panic!("another command") };
        let host = Host { variables: Vec::new(), memory: None };
        answer(&args, &host).map(|text| serde_json::from_str(&text).expect("JSON"))
    }

    #[test]
    fn flinks_vectors_through_the_command_line() {
        let mut refused = 0;
        for text in VECTORS.lines() {
            let vector: Value = serde_json::from_str(text).expect("a line is an object");
            let process = vector["process"].as_str().expect("a process").to_owned();
            let mut line = vec!["--process".to_owned(), process, "--profile=flink".to_owned()];
            for (key, value) in vector["config"].as_object().expect("a configuration") {
                line.push(format!("-D{key}={}", value.as_str().expect("a text")));
            }
            match (run(&line), vector["expect"].as_object()) {
                (Ok(plan), Some(expect)) => {
                    for (name, bytes) in expect {
                        assert_eq!(&plan[name], bytes, "{name} of {text}");
                    }
                }
                (Err(Refused { failure, object }), None) => {
                    assert_eq!(failure.exit, Exit::Refused, "{text}");
                    assert!(object["code"].as_str().is_some_and(|code| code.starts_with('E')), "{object}");
                    refused += 1;
                }
                (found, _) => panic!("{found:?} for {text}"),
            }
        }
        assert_eq!(refused, 175);
    }

    #[test]
    fn slots_are_a_flag_over_every_layer() {
        let words = ["--process", "taskmanager", "--slots", "4", "-D", "taskmanager.numberOfTaskSlots=2"];
        let plan = run(&words.map(str::to_owned)).expect("it holds");
        assert_eq!((&plan["slots"], &plan["totalProcessMemory"]), (&4.into(), &(4u64 << 30).into()));
        let words = ["--process", "jobmanager", "--slots", "4"];
        let refused = run(&words.map(str::to_owned)).expect_err("a JobManager has none");
        assert_eq!(refused.failure.exit, Exit::Usage);
    }
}
