//! Memory of a running cluster: as tables for people (`status --memory`), and as the peaks that `plan --fit` starts from.
//!
//! Owner of the state: nobody; each answer is asked for anew.
//!
//! Always true: what is shown is what the processes said last; a number that nobody said is not shown.

use serde_json::{Value, json};
use tidegate_memory::plan::fit::Peaks;
use tidegate_memory::plan::{Name, Process, Settings, keys};

use super::args::StatusArgs;
use super::client::Client;
use super::config::Refused;
use super::exit::{Exit, Failure};
use super::format::{columns, mebibytes};
use super::out;

/// Widest bar of a component, in characters.
const BAR: u64 = 20;

/// Components of a TaskManager in the order of the plan, with their names for people.
const COMPONENTS: [Name; 8] = [
    Name::FrameworkHeap,
    Name::TaskHeap,
    Name::FrameworkOffHeap,
    Name::TaskOffHeap,
    Name::NetworkMemory,
    Name::ManagedMemory,
    Name::JvmOverhead,
    Name::TotalProcessMemory,
];

/// `status --memory`.
pub(super) fn status(args: &StatusArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client.jobmanager)?;
    let jobmanager = client.get("/jobmanager")?;
    let taskmanagers = taskmanagers(&client)?;
    if args.client.json {
        return out::answer(json!({ "jobmanager": jobmanager, "taskmanagers": taskmanagers }));
    }
    let mut answer = "JobManager\n".to_owned();
    let parts = [Name::TotalFlinkMemory, Name::JvmOverhead, Name::TotalProcessMemory];
    answer.push_str(&table(&jobmanager["metrics"]["memory"], &parts));
    for one in &taskmanagers {
        let word = |name: &str| one[name].as_str().unwrap_or("?").to_owned();
        answer.push_str(&format!(
            "\nTaskManager {}  {}  {} slots\n",
            word("id"),
            word("path"),
            one["slotsNumber"]
        ));
        answer.push_str(&table(&one["metrics"]["memory"], &COMPONENTS));
        answer.push_str(&holders(one));
    }
    answer.push_str("\nresident is the process's share of the machine's memory, as the kernel counts it");
    out::answer(answer)
}

/// Every TaskManager with its details.
fn taskmanagers(client: &Client) -> Result<Vec<Value>, Failure> {
    let list = client.get("/taskmanagers")?;
    let ids = list["taskmanagers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ids = ids.iter().filter_map(|one| one["id"].as_str());
    Ok(ids.map(|id| client.get(&format!("/taskmanagers/{id}"))).collect::<Result<_, _>>()?)
}

fn table(memory: &Value, components: &[Name]) -> String {
    let mut rows = vec![["COMPONENT", "CONFIGURED", "USED", "PEAK", ""].map(str::to_owned)];
    for name in components {
        let line = &memory[name.json()];
        let (Some(configured), Some(used), Some(peak)) =
            (line["configured"].as_u64(), line["used"].as_u64(), line["peak"].as_u64())
        else {
            continue;
        };
        let title = if *name == Name::TotalProcessMemory { "process, resident" } else { name.title() };
        let bar = bar(configured, used, peak);
        rows.push([title.to_owned(), mebibytes(configured), mebibytes(used), mebibytes(peak), bar]);
    }
    columns(&rows)
}

/// What is used and what was, as a part of what is configured.
fn bar(configured: u64, used: u64, peak: u64) -> String {
    let cells = |bytes: u64| {
        // More than the whole is shown as such by the numbers.
        let part = u128::from(bytes) * u128::from(BAR) / u128::from(configured.max(1));
        usize::try_from(part).unwrap_or(usize::MAX).min(BAR as usize)
    };
    let (used, peak) = (cells(used), cells(peak.max(used)));
    let over = if peak > 0 && configured == 0 { "!" } else { "" };
    format!("{}{}{}{over}", "█".repeat(used), "▒".repeat(peak - used), "·".repeat(BAR as usize - peak))
}

fn holders(taskmanager: &Value) -> String {
    let holders = taskmanager["metrics"]["segmentHolders"].as_array().map(Vec::as_slice).unwrap_or_default();
    let metrics = &taskmanager["metrics"];
    let mut text = format!("segments: {} of {} free", metrics["segmentsFree"], metrics["segmentsTotal"]);
    for held in holders {
        let holder = held["holder"].as_str().unwrap_or("?");
        text.push_str(&format!(", {} {holder} (oldest {} ms)", held["segments"], held["oldestMs"]));
    }
    text + "\n"
}

/// The plan that processes of a running cluster have, as settings, and the highest peaks of any of them.
pub(super) fn running(url: &str, process: Process) -> Result<(Settings, Peaks), Refused> {
    let said =
        |failure: Failure| Refused { object: json!({ "code": "io", "message": failure.line }), failure };
    let client = Client::new(url).map_err(said)?;
    if process == Process::JobManager {
        let one = client.get("/jobmanager").map_err(|error| said(error.into()))?;
        let of = |name: &str| one["memoryConfiguration"][name].as_u64();
        let settings = with(Settings::new(), keys::JM_HEAP, of("heap"));
        let settings = with(settings, keys::JM_OFF_HEAP, of("offHeap"));
        let settings = with(settings, keys::JM_OVERHEAD_MIN, of("jvmOverhead"));
        let settings = with(settings, keys::JM_OVERHEAD_MAX, of("jvmOverhead"));
        let memory = &one["metrics"]["memory"];
        let peaks = Peaks {
            // Heap and off-heap memory are one pool: what was allocated.
            task_heap: memory["totalFlinkMemory"]["peak"].as_u64(),
            resident: memory["totalProcessMemory"]["peak"].as_u64(),
            ..Peaks::default()
        };
        return Ok((settings, peaks));
    }
    let all = taskmanagers(&client).map_err(said)?;
    let Some(first) = all.first() else {
        return Err(Refused::new(
            Exit::Refused,
            "nobody",
            format!("{url} knows no TaskManager to fit a plan to"),
        ));
    };
    let configuration = &first["memoryConfiguration"];
    if let Some(other) = all.iter().find(|other| other["memoryConfiguration"] != *configuration) {
        let line = format!(
            "the TaskManagers at {url} have different plans ({} and {}), so there is none to fit",
            first["path"], other["path"]
        );
        return Err(Refused::new(Exit::Refused, "different", line));
    }
    let sizes = [
        (keys::TM_FRAMEWORK_HEAP, "frameworkHeap"),
        (keys::TM_TASK_HEAP, "taskHeap"),
        (keys::TM_FRAMEWORK_OFF_HEAP, "frameworkOffHeap"),
        (keys::TM_TASK_OFF_HEAP, "taskOffHeap"),
        (keys::TM_NETWORK_MIN, "networkMemory"),
        (keys::TM_NETWORK_MAX, "networkMemory"),
        (keys::TM_MANAGED, "managedMemory"),
        (keys::TM_OVERHEAD_MIN, "jvmOverhead"),
        (keys::TM_OVERHEAD_MAX, "jvmOverhead"),
    ];
    let mut settings = sizes
        .into_iter()
        .fold(Settings::new(), |settings, (key, name)| with(settings, key, configuration[name].as_u64()));
    settings = with(settings, keys::TM_SEGMENT, first["segmentSize"].as_u64());
    if let Some(slots) = first["slotsNumber"].as_u64() {
        settings = settings.with(keys::TM_SLOTS, slots.to_string());
    }
    if let Some(links) = first["linksPerSlot"].as_u64() {
        settings = settings.with(keys::TM_LINKS, links.to_string());
    }
    if let Some(weights) = first["managedConsumerWeights"].as_str() {
        settings = settings.with(keys::TM_WEIGHTS, weights);
    }
    let peak = |name: Name| {
        all.iter().filter_map(|one| one["metrics"]["memory"][name.json()]["peak"].as_u64()).max()
    };
    let peaks = Peaks {
        framework_heap: peak(Name::FrameworkHeap),
        task_heap: peak(Name::TaskHeap),
        framework_off_heap: peak(Name::FrameworkOffHeap),
        task_off_heap: peak(Name::TaskOffHeap),
        network: peak(Name::NetworkMemory),
        managed: peak(Name::ManagedMemory),
        resident: peak(Name::TotalProcessMemory),
    };
    Ok((settings, peaks))
}

fn with(settings: Settings, key: &'static str, bytes: Option<u64>) -> Settings {
    match bytes {
        Some(bytes) => settings.with(key, format!("{bytes}b")),
        None => settings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        assert_eq!(bar(100, 50, 75), format!("{}{}{}", "█".repeat(10), "▒".repeat(5), "·".repeat(5)));
        assert_eq!(bar(100, 500, 500), "█".repeat(20));
        assert_eq!(bar(0, 0, 0), "·".repeat(20));
    }
}
