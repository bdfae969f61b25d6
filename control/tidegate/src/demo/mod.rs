//! `demo`: one JobManager and two TaskManagers on this machine, the job `delays` on a year of flights, and what came out.
//!
//! Owner of the state: this process owns its children, which end with it, and the folder that everything lies in.
//!
//! Always true: only processes that were started here are stopped; all ports are free ones on loopback; the table comes
//! from the committed part files and nothing else.

mod children;
mod worst;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::cli::args::DemoArgs;
use crate::cli::exit::{Exit, Failure};
use crate::cli::out;
use crate::cli::{
    Client, Outcome, Progress, Request, Signals, cancel_own, grouped, seconds, temporary_directory, watch,
};
use crate::limits::{DEMO_CHECKPOINT_INTERVAL, POLL_INTERVAL, START_MAX};
use children::Cluster;
use worst::{Route, airport_names, read_routes, table, worst};

/// TaskManagers of the demo.
const TASKMANAGERS: u32 = 2;
/// Slots of each.
const SLOTS: u32 = 2;
/// Known arrivals that a route must have to be ranked.
const ARRIVALS_MIN: u64 = 300;
/// Routes in the table.
const ROUTES: usize = 10;

/// What the demo reads, as parts of the binary.
#[derive(Clone, Copy)]
pub struct DemoData {
    /// Flights: CSV with a header, gzip.
    pub flights: &'static [u8],
    /// Airports: CSV with a header; code and name come first.
    pub airports: &'static str,
}

impl std::fmt::Debug for DemoData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DemoData").field("flights", &self.flights.len()).finish_non_exhaustive()
    }
}

/// Runs the demo.
pub(crate) fn run(data: &DemoData, args: &DemoArgs) -> Result<(), Failure> {
    let signals = Signals::install()?;
    let folder = folder(args.dir.as_deref())?;
    let (input, output) = (folder.join("flights.csv.gz"), folder.join("output"));
    fs::write(&input, data.flights).map_err(|error| cannot("write", &input, &error))?;
    let mut progress = Progress::new(args.json);
    progress.say(&format!(
        "starting 1 JobManager and {TASKMANAGERS} TaskManagers with {SLOTS} slots each on loopback"
    ));
    let mut cluster = Cluster::start(&folder, TASKMANAGERS, SLOTS, &args.engine())?;
    let client = Client::new(&cluster.rest)?;
    wait_for_slots(&client, &mut cluster, &signals)?;

    let request = request(&input, &output, args.rate);
    request.send(&client)?;
    let pids = cluster.pids();
    progress.say(&format!("job delays over {} slots; processes {pids:?}", TASKMANAGERS * SLOTS));
    let mut gone = None;
    let outcome = watch(&client, &request.id, &mut progress, || {
        gone = gone.take().or_else(|| cluster.gone());
        gone.is_some() || signals.wait(Duration::ZERO).is_some()
    });
    if let Some(gone) = gone {
        return Err(Failure::new(Exit::Internal, gone));
    }
    let outcome = match outcome? {
        Some(outcome) => Ok(outcome),
        None => cancel_own(&client, &request.id, &mut progress),
    };
    drop(progress);
    cluster.stop()?;
    let outcome = outcome?.into_result()?;
    report(data, args, &folder, &output, &outcome)
}

fn request(input: &Path, output: &Path, rate: Option<u64>) -> Request {
    let text = |path: &Path| path.display().to_string();
    let mut args = vec!["--input".to_owned(), text(input), "--output".to_owned(), text(output)];
    if let Some(rate) = rate {
        args.extend(["--rate".to_owned(), rate.to_string()]);
    }
    Request { args, ..Request::of("delays", TASKMANAGERS * SLOTS, DEMO_CHECKPOINT_INTERVAL) }
}

/// The folder for everything; what was there from an earlier demo must not be mistaken for this one's.
fn folder(wanted: Option<&Path>) -> Result<PathBuf, Failure> {
    let Some(folder) = wanted else {
        let made = temporary_directory("tidegate-demo-")?;
        return Ok(made.keep()); // The output is what the demo is for: it stays.
    };
    fs::create_dir_all(folder).map_err(|error| cannot("make", folder, &error))?;
    let folder = std::path::absolute(folder).map_err(|error| cannot("find", folder, &error))?;
    let mut entries = fs::read_dir(&folder).map_err(|error| cannot("read", &folder, &error))?;
    if entries.next().is_some() {
        let line = format!("{} is not empty; name a new folder with --dir", folder.display());
        return Err(Failure::new(Exit::Refused, line));
    }
    Ok(folder)
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Io, format!("cannot {what} {}: {error}", path.display()))
}

fn wait_for_slots(client: &Client, cluster: &mut Cluster, signals: &Signals) -> Result<(), Failure> {
    let start = std::time::Instant::now();
    let wanted = u64::from(TASKMANAGERS * SLOTS);
    loop {
        let slots = client.get("/overview").ok().and_then(|overview| overview["slots-total"].as_u64());
        if slots == Some(wanted) {
            return Ok(());
        }
        if let Some(gone) = cluster.gone() {
            return Err(Failure::new(Exit::Internal, gone));
        }
        if start.elapsed() > START_MAX {
            let line = format!("{} of {wanted} slots after {}", slots.unwrap_or(0), seconds(START_MAX));
            return Err(Failure::new(Exit::Internal, line));
        }
        if signals.wait(POLL_INTERVAL / 4).is_some() {
            return Err(Failure::new(Exit::Interrupted, "interrupted"));
        }
    }
}

/// What people came for.
fn report(
    data: &DemoData,
    args: &DemoArgs,
    folder: &Path,
    output: &Path,
    outcome: &Outcome,
) -> Result<(), Failure> {
    let directory = output.join("routes");
    let routes = read_routes(&directory).map_err(|error| cannot("read", &directory, &error))?;
    let flights: u64 = routes.iter().map(|route| route.flights).sum();
    let rate = (flights as f64 / outcome.running_seconds()) as u64;
    let ten = worst(routes, ARRIVALS_MIN, ROUTES);
    if args.json {
        let routes: Vec<_> = ten.iter().map(Route::json).collect();
        return out::answer(json!({
            "routes": routes,
            "flights": flights,
            "seconds": outcome.running_seconds(),
            "flights_per_second": rate,
            "checkpoints": outcome.checkpoints,
            "output": output,
            "folder": folder,
        }));
    }
    out::answer(format_args!(
        "The {ROUTES} routes with the highest mean arrival delay, in minutes, among those with at least {ARRIVALS_MIN} known arrivals:\n"
    ))?;
    out::answer(table(&ten, &airport_names(data.airports)))?;
    out::answer(format_args!(
        "{} flights in {} ({} per second), {} checkpoints",
        grouped(flights),
        seconds(Duration::from_secs_f64(outcome.running_seconds())),
        grouped(rate),
        outcome.checkpoints
    ))?;
    out::answer(format_args!("output: {} and {}", directory.display(), output.join("carriers").display()))?;
    out::answer(format_args!("logs:   {}", folder.display()))
}
