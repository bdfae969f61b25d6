//! Handing a job to a JobManager and waiting for its end.
//!
//! Owner of the state: the JobManager; this side holds the job's id, which it drew itself, so that a request repeated after
//! a broken connection has its effect once.
//!
//! Always true: success is said only after the JobManager said FINISHED; a JobManager that went away is looked for until
//! `RECONNECT_MAX` has passed.

use std::hash::{BuildHasher as _, Hasher as _};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_graph::normal_path;

use super::args::{LaunchArgs, SubmitArgs};
use super::client::{Client, ClientError};
use super::exit::{Exit, Failure};
use super::format::{grouped, seconds};
use super::out;
use super::progress::Progress;
use super::signals::Signals;
use crate::limits::{CANCEL_MAX, POLL_INTERVAL, RECONNECT_MAX};
use crate::{Args, Jobs};

/// The value name that marks a flag of a job as an input file.
const INPUT_VALUE: &str = "FILE";

/// The value name that marks a flag of a job as an output folder.
const OUTPUT_VALUE: &str = "DIR";

/// A submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// The job's id.
    pub id: String,
    /// Its name in the binary.
    pub job: String,
    /// Its own flags; paths are absolute.
    pub args: Vec<String>,
    /// Default parallelism.
    pub parallelism: u32,
    /// Time between checkpoints.
    pub interval: Option<Duration>,
}

impl Request {
    /// What the command line asks for. Values of flags that are files or folders become absolute, because the processes
    /// of the cluster have other working directories.
    pub(crate) fn new(jobs: &Jobs, launch: &LaunchArgs) -> Result<Self, Failure> {
        Ok(Self {
            id: random_id(),
            job: launch.job.clone(),
            args: absolute_paths(jobs, &launch.job, &launch.flags)?,
            parallelism: launch.parallelism.unwrap_or(1),
            interval: launch.checkpoint_interval,
        })
    }

    /// A job with no flags yet.
    pub(crate) fn of(job: &str, parallelism: u32, interval: Duration) -> Self {
        Self { id: random_id(), job: job.to_owned(), args: Vec::new(), parallelism, interval: Some(interval) }
    }

    fn body(&self) -> Value {
        let mut body = json!({
            "job": self.job,
            "args": self.args,
            "parallelism": self.parallelism,
            "jobId": self.id,
        });
        if let Some(interval) = self.interval {
            body["checkpointInterval"] = json!(interval.as_millis() as u64);
        }
        body
    }

    /// Hands it over.
    pub(crate) fn send(&self, client: &Client) -> Result<(), Failure> {
        let mut tries = 0;
        loop {
            match client.post("/jobs", &self.body()) {
                Ok(_) => return Ok(()),
                // A connection that broke may have carried the request: the same id makes asking again harmless.
                Err(ClientError::Unreachable { .. }) if tries < 2 => {
                    tries += 1;
                    std::thread::sleep(POLL_INTERVAL);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// 128 random bits as the JobManager prints job ids.
fn random_id() -> String {
    // The standard library seeds its hashers from the operating system's random numbers.
    let word = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}

fn absolute_paths(jobs: &Jobs, job: &str, flags: &[String]) -> Result<Vec<String>, Failure> {
    let usage = |error: crate::ArgsError| Failure::new(Exit::Refused, error.to_string());
    let Some(entry) = jobs.entries().iter().find(|entry| entry.name() == job) else {
        return Ok(flags.to_vec()); // The JobManager says what it knows.
    };
    let paths =
        entry.flags().iter().filter(|flag| [INPUT_VALUE, OUTPUT_VALUE].contains(&flag.value.as_str()));
    let paths: Vec<&str> = paths.map(|flag| flag.name.as_str()).collect();
    let mut args = Vec::with_capacity(flags.len());
    let mut is_path = false;
    for word in flags {
        let name = word.strip_prefix("--");
        match name.and_then(|name| name.split_once('=')) {
            Some((name, value)) if paths.contains(&name) => {
                args.push(format!("--{name}={}", absolute(value)?))
            }
            _ if is_path && name.is_none() => args.push(absolute(word)?),
            _ => args.push(word.clone()),
        }
        is_path = name.is_some_and(|name| paths.contains(&name));
    }
    Args::parse(args.iter().cloned()).map_err(usage)?;
    Ok(args)
}

fn absolute(path: &str) -> Result<String, Failure> {
    let absolute = std::path::absolute(Path::new(path));
    let absolute =
        absolute.map_err(|error| Failure::new(Exit::Io, format!("{path:?} is no path: {error}")))?;
    let text = absolute.into_os_string().into_string().map_err(|path| {
        Failure::new(Exit::Io, format!("{} is not UTF-8; job flags are text", Path::new(&path).display()))
    })?;
    Ok(normal_path(&text))
}

/// How a job ended, and what is known of it then.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// `FINISHED`, `FAILED` or `CANCELED`.
    pub state: String,
    /// `/jobs/:id` at the end.
    pub details: Value,
    /// The last exception, if there was one.
    pub exception: Option<String>,
    /// Complete checkpoints.
    pub checkpoints: u64,
}

impl Outcome {
    /// Success only for FINISHED.
    pub(crate) fn into_result(self) -> Result<Self, Failure> {
        let exit = match self.state.as_str() {
            "FINISHED" => return Ok(self),
            "CANCELED" => Exit::JobCanceled,
            _ => Exit::JobFailed,
        };
        let id = self.details["jid"].as_str().unwrap_or_default();
        let mut words = self.exception.iter().flat_map(|text| text.lines());
        let line = match words.next() {
            Some(cause) if exit == Exit::JobFailed => format!("job {id} FAILED: {cause}"),
            _ => format!("job {id} is {}", self.state),
        };
        Err(Failure { exit, line, details: words.map(str::to_owned).collect() })
    }

    /// Time from the first task's start to the last one's end, in seconds; never 0.
    pub(crate) fn running_seconds(&self) -> f64 {
        let vertices = self.details["vertices"].as_array().map(Vec::as_slice).unwrap_or_default();
        let times = |name: &'static str| vertices.iter().filter_map(move |vertex| vertex[name].as_i64());
        let start = times("start-time").filter(|time| *time >= 0).min();
        let end = times("end-time").filter(|time| *time >= 0).max();
        let millis = start.zip(end).map_or(self.duration().as_millis() as i64, |(start, end)| end - start);
        millis.max(1) as f64 / 1000.0
    }

    /// `FINISHED after 12.3 s, 4 checkpoints, 2 malformed lines skipped (see the TaskManagers' logs)`.
    pub(crate) fn summary(&self) -> String {
        let mut line =
            format!("{} after {}, {} checkpoints", self.state, seconds(self.duration()), self.checkpoints);
        match malformed(&self.details) {
            0 => {}
            count => line.push_str(&format!(
                ", {} malformed lines skipped (file and line are in the log of the TaskManager)",
                grouped(count)
            )),
        }
        line
    }

    /// Time from submission to end.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_millis(self.details["duration"].as_u64().unwrap_or(0))
    }
}

/// Waits for the end of a job, showing how it is. `interrupted` is asked between two looks; true ends the wait without an
/// outcome.
pub(crate) fn watch(
    client: &Client,
    id: &str,
    progress: &mut Progress,
    mut interrupted: impl FnMut() -> bool,
) -> Result<Option<Outcome>, Failure> {
    let mut away_since: Option<Instant> = None;
    let mut restarts = 0;
    loop {
        match client.get(&format!("/jobs/{id}")) {
            Ok(details) => {
                if away_since.take().is_some() {
                    progress.say("the JobManager is back");
                }
                let state = details["state"].as_str().unwrap_or_default().to_owned();
                if ["FINISHED", "FAILED", "CANCELED"].contains(&state.as_str()) {
                    progress.clear();
                    return Ok(Some(outcome(client, id, state, details)));
                }
                let now = details["restarts"].as_u64().unwrap_or(0);
                if now > restarts {
                    restarts = now;
                    let cause = exception(client, id).unwrap_or_else(|| "a failure".to_owned());
                    progress
                        .say(&format!("restarting ({now}): {}", cause.lines().next().unwrap_or_default()));
                }
                progress.show(&line(&state, &details));
            }
            // Starting up or shutting down: it knows, but not yet or no longer.
            Err(ClientError::Unreachable { .. } | ClientError::Refused { status: 503, .. }) => {
                let since = *away_since.get_or_insert_with(|| {
                    progress.say("the JobManager does not answer; waiting for it");
                    Instant::now()
                });
                if since.elapsed() > RECONNECT_MAX {
                    let line = format!("no JobManager at {} for {}", client.base(), seconds(RECONNECT_MAX));
                    return Err(Failure::new(Exit::Unreachable, line));
                }
            }
            Err(error) => return Err(error.into()),
        }
        if interrupted() {
            return Ok(None);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Ends a job that cannot go on without this process, so that it leaves nothing behind. Its outcome, if it was over before.
pub(crate) fn cancel_own(client: &Client, id: &str, progress: &mut Progress) -> Result<Outcome, Failure> {
    progress.say("interrupted; cancelling the job");
    match client.patch(&format!("/jobs/{id}")) {
        Ok(_) | Err(ClientError::Refused { status: 409, .. }) => {} // It may have ended a moment ago.
        Err(error) => return Err(error.into()),
    }
    let start = Instant::now();
    let line = match watch(client, id, progress, || start.elapsed() > CANCEL_MAX)? {
        Some(outcome) if outcome.state != "CANCELED" => return Ok(outcome),
        Some(_) => format!("interrupted; job {id} was cancelled"),
        None => format!(
            "interrupted; job {id} was not cancelled within {}: its output folders may hold uncommitted files",
            seconds(CANCEL_MAX)
        ),
    };
    Err(Failure::new(Exit::Interrupted, line))
}

fn outcome(client: &Client, id: &str, state: String, details: Value) -> Outcome {
    let checkpoints = client.get(&format!("/jobs/{id}/checkpoints")).unwrap_or_default();
    let checkpoints = checkpoints["counts"]["completed"].as_u64().unwrap_or(0);
    Outcome { exception: exception(client, id), state, details, checkpoints }
}

/// The newest exception of a job.
fn exception(client: &Client, id: &str) -> Option<String> {
    let exceptions = client.get(&format!("/jobs/{id}/exceptions")).ok()?;
    exceptions["root-exception"].as_str().map(str::to_owned)
}

/// `RUNNING  12.3 s  4/4 tasks  1,234,567 records  attempt 2`.
fn line(state: &str, details: &Value) -> String {
    let time = Duration::from_millis(details["duration"].as_u64().unwrap_or(0));
    let tasks: u64 = details["status-counts"]
        .as_object()
        .map_or(0, |counts| counts.values().filter_map(Value::as_u64).sum());
    let running = details["status-counts"]["RUNNING"].as_u64().unwrap_or(0);
    let mut line =
        format!("{state}  {}  {running}/{tasks} tasks  {} records", seconds(time), grouped(records(details)));
    if let Some(attempt) = details["attempt"].as_u64().filter(|attempt| *attempt > 1) {
        line.push_str(&format!("  attempt {attempt}"));
    }
    if let Some(missing) = details["waiting-for"].as_str() {
        line.push_str(&format!("  waiting for {missing}"));
    }
    line
}

/// Records that the busiest vertex has taken in.
fn records(details: &Value) -> u64 {
    let vertices = details["vertices"].as_array().map(Vec::as_slice).unwrap_or_default();
    let read = vertices.iter().filter_map(|vertex| vertex["metrics"]["read-records"].as_u64());
    read.max().unwrap_or(0)
}

/// Malformed input that was counted and skipped.
fn malformed(details: &Value) -> u64 {
    let vertices = details["vertices"].as_array().map(Vec::as_slice).unwrap_or_default();
    vertices.iter().filter_map(|vertex| vertex["metrics"]["malformed-records"].as_u64()).sum()
}

/// `submit`.
pub(super) fn submit(jobs: &Jobs, args: &SubmitArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client.jobmanager)?;
    let request = Request::new(jobs, &args.launch)?;
    request.send(&client)?;
    let id = &request.id;
    let told = match (args.client.json, args.wait) {
        (false, _) => out::answer(id),
        (true, false) => out::answer(json!({ "jobid": id })),
        (true, true) => Ok(()), // The report at the end names it.
    };
    told.map_err(|failure| Failure {
        details: vec![format!("job {id} was submitted and goes on")],
        ..failure
    })?;
    if !args.wait {
        return Ok(());
    }
    let signals = Signals::install()?;
    let mut progress = Progress::new(args.client.json);
    let outcome = watch(&client, &request.id, &mut progress, || signals.wait(Duration::ZERO).is_some())?;
    drop(progress);
    let Some(outcome) = outcome else {
        return Err(Failure::new(Exit::Interrupted, format!("interrupted; job {} goes on", request.id)));
    };
    finish(&request.id, outcome, args.client.json)
}

/// Says how a job ended. That it failed is worth more than that nobody could be told.
pub(super) fn finish(id: &str, outcome: Outcome, json: bool) -> Result<(), Failure> {
    let told = if json {
        out::answer(report(id, &outcome))
    } else {
        out::say(outcome.summary());
        Ok(())
    };
    outcome.into_result()?;
    told
}

/// What `--json` prints of a job that has ended.
fn report(id: &str, outcome: &Outcome) -> Value {
    json!({
        "jobid": id,
        "state": outcome.state,
        "duration": outcome.duration().as_millis() as u64,
        "checkpoints": outcome.checkpoints,
        "records": records(&outcome.details),
        "malformed": malformed(&outcome.details),
        "exception": outcome.exception,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::JobEntry;

    fn paths(flags: &[&str]) -> Vec<String> {
        let entry = JobEntry::new("copy", |_, _| Ok(()))
            .flag("input", "FILE", "")
            .flag("output", "DIR", "")
            .flag("rate", "R", "");
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        absolute_paths(&Jobs::new([entry]), "copy", &flags).expect("good flags")
    }

    #[test]
    fn paths_become_absolute_and_nothing_else_does() {
        let here = std::env::current_dir().expect("a directory").display().to_string();
        let found = paths(&["--input", "a/b", "--output=c", "--rate", "d", "--other", "e"]);
        let expected =
            ["--input", &format!("{here}/a/b"), &format!("--output={here}/c"), "--rate", "d", "--other", "e"];
        assert_eq!(found, expected);
        assert_eq!(paths(&["--input", "/a/b"]), ["--input", "/a/b"]);
        assert_eq!(paths(&["--input", "/a/../b/./c/"]), ["--input", "/b/c"]);
        assert_eq!(paths(&["--output=//b"]), ["--output=/b"]);
        let above = Path::new(&here).parent().expect("a folder above").join("c").display().to_string();
        assert_eq!(paths(&["--output", "../c"]), ["--output", &above]);
        assert_eq!(paths(&["--input", "--output", "x"]), ["--input", "--output", &format!("{here}/x")]);
    }

    #[test]
    fn ids_are_what_the_jobmanager_prints_and_differ() {
        let (one, two) = (random_id(), random_id());
        assert_eq!(one.len(), 32);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one, two);
    }

    #[test]
    fn only_finished_is_success() {
        let ended = |state: &str, exception: Option<&str>| Outcome {
            state: state.to_owned(),
            details: json!({ "jid": "abc" }),
            exception: exception.map(str::to_owned),
            checkpoints: 0,
        };
        assert!(ended("FINISHED", Some("an old one")).into_result().is_ok());
        let failed = ended("FAILED", Some("why\nmore")).into_result().expect_err("failed");
        assert_eq!((failed.exit, failed.line.as_str()), (Exit::JobFailed, "job abc FAILED: why"));
        assert_eq!(failed.details, ["more"]);
        let canceled = ended("CANCELED", None).into_result().expect_err("canceled");
        assert_eq!(canceled.exit, Exit::JobCanceled);
    }
}
