//! `list`, `status`, `cancel` and `jobs`: what there is, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::args::{ClientArgs, JobArgs, JobsArgs, StatusArgs};
use super::client::Client;
use super::exit::{Exit, Failure};
use super::format::{columns, grouped, seconds};
use super::memory;
use super::out;
use crate::Jobs;

/// `list`.
pub(super) fn list(args: &ClientArgs) -> Result<(), Failure> {
    let client = Client::new(&args.jobmanager)?;
    let overview = client.get("/jobs/overview")?;
    if args.json {
        return out::answer(overview);
    }
    let jobs = overview["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
    if jobs.is_empty() {
        return out::answer("no jobs");
    }
    let mut rows = vec![["JOB-ID", "NAME", "STATE", "TIME", "TASKS"].map(str::to_owned)];
    for job in jobs {
        let tasks = &job["tasks"];
        rows.push([
            text(&job["jid"]),
            text(&job["name"]),
            text(&job["state"]),
            millis(&job["duration"]),
            format!("{}/{} running", tasks["running"], tasks["total"]),
        ]);
    }
    out::answer(columns(&rows).trim_end())
}

/// `status`.
pub(super) fn status(args: &StatusArgs) -> Result<(), Failure> {
    if args.memory {
        return memory::status(args);
    }
    let client = Client::new(&args.client.jobmanager)?;
    let id = job_id(&client, args.job.as_deref(), |_| true)?;
    let details = client.get(&format!("/jobs/{id}"))?;
    let checkpoints = client.get(&format!("/jobs/{id}/checkpoints"))?;
    let exceptions = client.get(&format!("/jobs/{id}/exceptions"))?;
    if args.client.json {
        return out::answer(json!({ "job": details, "checkpoints": checkpoints, "exceptions": exceptions }));
    }
    let (name, state) = (text(&details["name"]), text(&details["state"]));
    let duration = millis(&details["duration"]);
    let mut answer = format!("{id}  {name}  {state}  {duration}  attempt {}\n", details["attempt"]);
    if let Some(missing) = details["waiting-for"].as_str() {
        answer.push_str(&format!("waiting for {missing}\n"));
    }
    let head = ["VERTEX", "SUBTASKS", "STATE", "RECORDS IN", "RECORDS OUT", "MALFORMED", "BUSY", "HELD UP"];
    let mut rows = vec![head.map(str::to_owned)];
    for vertex in details["vertices"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let metrics = &vertex["metrics"];
        let count = |name: &str| grouped(metrics[name].as_u64().unwrap_or(0));
        rows.push([
            text(&vertex["name"]),
            vertex["parallelism"].to_string(),
            text(&vertex["status"]),
            count("read-records"),
            count("write-records"),
            count("malformed-records"),
            busy(vertex),
            held_up(vertex),
        ]);
    }
    answer.push_str(&columns(&rows));
    let (counts, latest) = (&checkpoints["counts"], &checkpoints["latest"]);
    answer.push_str(&format!("checkpoints: {} completed, {} failed", counts["completed"], counts["failed"]));
    for (what, entry) in [("newest", &latest["completed"]), ("restored", &latest["restored"])] {
        if let Some(id) = entry["id"].as_u64() {
            answer.push_str(&format!(", {what} {id}"));
        }
    }
    if let Some(cause) = exceptions["root-exception"].as_str() {
        answer.push_str(&format!("\nlast failure: {cause}"));
    }
    out::answer(answer)
}

/// How busy the subtasks of a vertex are, the busiest.
fn busy(vertex: &Value) -> String {
    worst(vertex, "busyTimeMsPerSecond").map_or_else(|| "-".to_owned(), |(share, _)| percent(share))
}

/// How much of its time the subtask has no room in an output that has none the longest, and who holds it up now.
fn held_up(vertex: &Value) -> String {
    let Some((share, metrics)) = worst(vertex, "backPressuredTimeMsPerSecond") else { return "-".to_owned() };
    let held_up = &metrics["backPressure"];
    match (held_up["cause"].as_str(), held_up["to"]["name"].as_str()) {
        (Some(cause), Some(to)) => format!("{} ({cause}, by {to})", percent(share)),
        (Some(cause), None) => format!("{} ({cause})", percent(share)),
        _ => percent(share),
    }
}

/// The subtask with the most of a metric.
fn worst<'a>(vertex: &'a Value, metric: &str) -> Option<(u64, &'a Value)> {
    let subtasks = vertex["subtasks"].as_array()?.iter().map(|subtask| &subtask["metrics"]);
    subtasks.filter_map(|metrics| Some((metrics[metric].as_u64()?, metrics))).max_by_key(|(most, _)| *most)
}

/// Milliseconds per second.
fn percent(share: u64) -> String {
    format!("{} %", (share + 5) / 10)
}

/// `cancel`.
pub(super) fn cancel(args: &JobArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client.jobmanager)?;
    let id =
        job_id(&client, args.job.as_deref(), |state| !["FINISHED", "FAILED", "CANCELED"].contains(&state))?;
    client.patch(&format!("/jobs/{id}"))?;
    match args.client.json {
        true => out::answer(json!({ "jobid": id })),
        false => out::answer(format_args!("cancelling {id}")),
    }
}

/// The job that is meant: the one named, or the only one whose state is `wanted`.
pub(super) fn job_id(
    client: &Client,
    named: Option<&str>,
    wanted: impl Fn(&str) -> bool,
) -> Result<String, Failure> {
    if let Some(id) = named {
        return Ok(id.to_owned());
    }
    let overview = client.get("/jobs/overview")?;
    let jobs = overview["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let jobs: Vec<&Value> = jobs.iter().filter(|job| job["state"].as_str().is_some_and(&wanted)).collect();
    match jobs[..] {
        [job] => Ok(text(&job["jid"])),
        [] => Err(Failure::new(Exit::Refused, "there is no such job")),
        _ => {
            let line = format!("there are {} jobs; name one of them", jobs.len());
            let one = |job: &&Value| {
                format!("{}  {}  {}", text(&job["jid"]), text(&job["name"]), text(&job["state"]))
            };
            Err(Failure { details: jobs.iter().map(one).collect(), ..Failure::new(Exit::Refused, line) })
        }
    }
}

/// `jobs`.
pub(super) fn jobs(jobs: &Jobs, args: &JobsArgs) -> Result<(), Failure> {
    if args.json {
        let one = |entry: &crate::JobEntry| {
            let flags = entry.flags().iter();
            let flags =
                flags.map(|flag| json!({ "name": flag.name, "value": flag.value, "help": flag.help }));
            json!({ "name": entry.name(), "about": entry.description(), "flags": flags.collect::<Vec<_>>() })
        };
        return out::answer(json!({ "jobs": jobs.entries().iter().map(one).collect::<Vec<_>>() }));
    }
    let mut answer = String::new();
    for entry in jobs.entries() {
        answer.push_str(&format!("{}\n    {}\n", entry.name(), entry.description()));
        let flags = entry
            .flags()
            .iter()
            .map(|flag| [format!("      --{} {}", flag.name, flag.value), flag.help.clone()]);
        answer.push_str(&format!("{}\n", columns(&flags.collect::<Vec<_>>())));
    }
    answer.push_str("Flags of a job follow `--`, as in: run JOB -- --input FILE --output DIR");
    out::answer(answer)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("?").to_owned()
}

fn millis(value: &Value) -> String {
    seconds(Duration::from_millis(value.as_u64().unwrap_or(0)))
}
