//! `run`: a job in this process, with a JobManager and a TaskManager of its own on loopback.
//!
//! Owner of the state: the command; both are stopped and the JobManager's directory is removed before it returns.
//!
//! Always true: the TaskManager has as many slots as the job needs, and as many segments as it can use; a job that is
//! interrupted is cancelled, since nobody could go on with it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tidegate_graph::{JobGraph, Segments, SlotOffer, place, segment_need};
use tidegate_jobmanager::{JobManager, JobManagerConfig, RunningJobManager, StartError as JobManagerError};
use tidegate_memory::MemorySize;
use tidegate_memory::limits::{
    NATIVE_RECORD_BYTES_MAX, NATIVE_RECORD_FRAME_BYTES, SEGMENTS_PER_EXCHANGE_MIN,
};
use tidegate_memory::plan::{Plan, keys};
use tidegate_taskmanager::plan::plan;
use tidegate_taskmanager::{RunningTaskManager, SegmentSize, TaskManager, TaskManagerConfig, Transport};

use super::args::{NetworkArgs, RunArgs};
use super::client::Client;
use super::config::{Host, settings};
use super::doctor::Wishes;
use super::exit::{Exit, Failure};
use super::plan::of_taskmanager;
use super::progress::Progress;
use super::roles::{self, Planned};
use super::signals::Signals;
use super::submit::{Outcome, Request, cancel_own, finish, watch};
use super::temporary_directory;
use crate::Jobs;
use crate::limits::{SEGMENTS_MIN, SLOTS_MAX, START_MAX};

/// `run`.
pub(super) fn run(jobs: &Jobs, args: &RunArgs) -> Result<(), Failure> {
    let request = Request::new(jobs, &args.launch)?;
    let mut progress = Progress::new(args.json);
    let outcome = run_request(jobs, &request, args, &mut progress)?;
    drop(progress);
    finish(&request.id, outcome, args.json)
}

/// Runs one job from beginning to end.
fn run_request(
    jobs: &Jobs,
    request: &Request,
    args: &RunArgs,
    progress: &mut Progress,
) -> Result<Outcome, Failure> {
    let jobs = &in_this_folder(jobs)?;
    let planned = plan(jobs, &request.job, &request.args, request.parallelism);
    let planned = planned.map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
    let slots = slots_needed(&planned.graph)?;
    let signals = Signals::install()?;
    let directory = temporary_directory("tidegate-run-")?;
    let fingerprint = roles::binary_fingerprint()?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let planner = Planned(jobs.clone());
    let jobmanager = JobManagerConfig::new(any, any, directory.path(), planner, fingerprint);
    let jobmanager = JobManager::start(jobmanager).map_err(own_failure)?;

    roles::check_segments(&args.network)?;
    let network = with_wanted_segments(args, &planned.graph, slots)?;
    let plan = of_taskmanager(&args.sources, Some(slots), &network, &Host::probe());
    let plan = plan.map_err(|refused| refused.failure)?;
    let mut config = TaskManagerConfig::new(jobmanager.rpc_addr.to_string(), jobs.clone(), fingerprint);
    roles::set_network(&mut config, &network)?;
    config.plan = plan;
    if config.transport == Transport::Auto {
        config.transport = Transport::Tcp; // There are no neighbours: nobody is to be shown the arena.
    }
    config.latency_log = args.latency_log.wanted();
    let wishes =
        Wishes { driver: config.driver, registration: config.registration, transport: config.transport };
    // One job in one process: only what forbids it is worth a line.
    roles::begin(&Plan::TaskManager(config.plan.clone()), wishes)?;
    let taskmanager = TaskManager::start(config).map_err(roles::taskmanager_failure)?;
    let outcome = wait_for_slots(&jobmanager, &taskmanager, slots).and_then(|()| {
        let client = Client::new(&format!("http://{}", jobmanager.rest_addr))?;
        request.send(&client)?;
        let ended = || taskmanager.has_ended() || jobmanager.ended().is_some();
        let interrupted = || ended() || signals.wait(Duration::ZERO).is_some();
        match watch(&client, &request.id, progress, interrupted)? {
            Some(outcome) => Ok(outcome),
            None if ended() => Err(Failure::new(Exit::Internal, "the job's own cluster ended before it")),
            None => cancel_own(&client, &request.id, progress),
        }
    });
    if taskmanager.has_ended() {
        return Err(roles::ended_early(taskmanager));
    }
    if let Some(ended) = jobmanager.ended() {
        return Err(roles::jobmanager_ended(&ended));
    }
    taskmanager.stop("the job is over");
    drop(taskmanager);
    jobmanager.shutdown();
    outcome
}

/// Why the job's own JobManager does not start: its addresses are not for the user to choose.
fn own_failure(error: JobManagerError) -> Failure {
    match error {
        JobManagerError::Listen { source, .. } => {
            let line = format!("cannot listen on loopback for the job's own cluster: {source}");
            Failure::new(Exit::System, line)
        }
        other => roles::jobmanager_failure(other),
    }
}

/// The jobs with outputs relative to the working directory: it is that of every role, since all are this process.
fn in_this_folder(jobs: &Jobs) -> Result<Jobs, Failure> {
    let here = std::env::current_dir()
        .map_err(|error| Failure::new(Exit::Io, format!("no working directory: {error}")))?;
    // Paths of outputs are text; below another one, absolute ones must be given.
    Ok(here.to_str().map_or_else(|| jobs.clone(), |here| jobs.clone().in_folder(here)))
}

fn slots_needed(graph: &JobGraph) -> Result<u32, Failure> {
    let slots: u32 = graph.slots_needed().iter().map(|(_, slots)| slots).sum();
    if slots <= SLOTS_MAX {
        return Ok(slots);
    }
    let line =
        format!("the job needs {slots} slots, a process has {SLOTS_MAX} at most; lower the parallelism");
    Err(Failure::new(Exit::Refused, line))
}

/// Largest record of a job's own cluster unless configured: documents and pictures as they are usual, in regions that a slot
/// with a dozen edges hardly notices.
const RECORD_BYTES_DEFAULT: u32 = 1 << 20;

/// Unless it is configured, a slot of the job's own cluster has as many segments as the job can use: nobody else comes.
fn with_wanted_segments(args: &RunArgs, graph: &JobGraph, slots: u32) -> Result<NetworkArgs, Failure> {
    let mut network = args.network.clone();
    let settings = settings(&args.sources, &Host::probe()).map_err(|refused| refused.failure)?;
    let keys = [keys::TM_NETWORK_MIN, keys::TM_NETWORK_MAX, keys::TM_NETWORK_FRACTION, keys::TM_TASK_HEAP];
    if network.segments.is_none() && keys.iter().all(|key| settings.get(key).is_none()) {
        let configured = |key| settings.get(key).and_then(|setting| setting.value.parse::<MemorySize>().ok());
        let bytes = |size: MemorySize| u32::try_from(size.bytes()).unwrap_or(u32::MAX);
        let segment = network.segment_size.or(configured(keys::TM_SEGMENT).map(bytes));
        let record = network.max_record_size.or(configured(keys::TM_RECORD).map(bytes));
        let record = *network.max_record_size.insert(record.unwrap_or(RECORD_BYTES_DEFAULT));
        let region = region(record, segment.unwrap_or(SegmentSize::DEFAULT.bytes() as u32));
        // A plan has room for one way in and one way out, whatever the job has.
        let least = 2 * region + SEGMENTS_PER_EXCHANGE_MIN as u32;
        network.segments = Some(segments_wanted(graph, slots, region).max(SEGMENTS_MIN).max(least));
    }
    Ok(network)
}

/// Segments of a region for a record of this size.
fn region(record: u32, segment: u32) -> u32 {
    // What is no size of a segment, or too large a record, is refused when the plan is made.
    let record = u64::from(record).min(NATIVE_RECORD_BYTES_MAX);
    let framed = (record + NATIVE_RECORD_FRAME_BYTES) as u32;
    if record <= u64::from(segment) { 0 } else { Segments::of_region(framed, segment.max(1)) }
}

/// Segments with which no slot waits for itself.
fn segments_wanted(graph: &JobGraph, slots: u32, region: u32) -> u32 {
    let offers: Vec<SlotOffer> = (0..slots).map(|slot| SlotOffer { taskmanager: 1, slot }).collect();
    let Ok(placement) = place(graph, &offers) else { return 0 };
    segment_need(graph, &placement, region).iter().map(|need| need.segments.wanted).max().unwrap_or(0)
}

fn wait_for_slots(
    jobmanager: &RunningJobManager,
    taskmanager: &RunningTaskManager,
    slots: u32,
) -> Result<(), Failure> {
    let registered = jobmanager.slots();
    let start = Instant::now();
    while *registered.borrow() < slots {
        if taskmanager.has_ended() {
            return Err(Failure::new(Exit::Internal, "the TaskManager ended before it registered"));
        }
        if let Some(ended) = jobmanager.ended() {
            return Err(roles::jobmanager_ended(&ended));
        }
        if start.elapsed() > START_MAX {
            return Err(Failure::new(Exit::Internal, "the TaskManager did not register in time"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
