//! The roles: a process that is a JobManager or a TaskManager until it is told to stop.
//!
//! Owner of the state: the role's own threads; this thread waits for signals.
//!
//! Always true: `ready` is printed once the role takes work, and only then; SIGTERM drains and ends with 0;
//! a role whose threads have died ends with a code of its own.

use std::time::Duration;

use tidegate_arena::limits::SHARD_BYTES_MAX;
use tidegate_jobmanager::{
    Ended as JobManagerEnded, JobManager, JobManagerConfig, Planner, StartError as JobManagerError,
};
use tidegate_memory::plan::Plan;
use tidegate_taskmanager::agent::End;
use tidegate_taskmanager::plan::plan;
use tidegate_taskmanager::{
    Ended, RunningTaskManager, SegmentSize, SendMode, Spin, StartError as TaskManagerError, TaskManager,
    TaskManagerConfig,
};
use xxhash_rust::xxh3::Xxh3;

use super::args::{JobManagerArgs, NetworkArgs, Send, TaskManagerArgs};
use super::config::Host;
use super::doctor::{self, Wishes};
use super::exit::{Exit, Failure};
use super::format::mebibytes;
use super::out;
use super::plan::{of_jobmanager, of_taskmanager};
use super::signals::Signals;
use crate::Jobs;

/// Longest time between two looks at whether a role has ended by itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The jobs of a binary, as the JobManager plans them.
pub(super) struct Planned(pub Jobs);

impl Planner for Planned {
    fn plan(
        &self,
        name: &str,
        args: &[String],
        parallelism: u32,
    ) -> Result<tidegate_jobmanager::Planned, String> {
        let plan = plan(&self.0, name, args, parallelism).map_err(|error| error.to_string())?;
        Ok(tidegate_jobmanager::Planned { graph: plan.graph, outputs: plan.outputs })
    }

    fn names(&self) -> Vec<String> {
        self.0.entries().iter().map(|entry| entry.name().to_owned()).collect()
    }
}

/// `jobmanager`.
pub(super) fn jobmanager(jobs: &Jobs, args: &JobManagerArgs) -> Result<(), Failure> {
    follow_parent(args.parent)?;
    let signals = Signals::install()?;
    let plan = of_jobmanager(&args.sources, &Host::probe()).map_err(|refused| refused.failure)?;
    let begun = begin(&Plan::JobManager(plan.clone()), Wishes::default())?;
    let planner = Planned(jobs.clone());
    let mut config = JobManagerConfig::new(args.rpc, args.rest, &args.dir, planner, binary_fingerprint()?);
    config.plan = plan;
    let running = JobManager::start(config).map_err(jobmanager_failure)?;
    begun.say();
    ready(format_args!("rpc={} rest=http://{} epoch={}", running.rpc_addr, running.rest_addr, running.epoch));
    loop {
        if let Some(stop) = signals.wait(LOOK_EVERY) {
            tracing::info!("{}: leaving", stop.reason());
            running.shutdown();
            return Ok(());
        }
        if let Some(ended) = running.ended() {
            return Err(jobmanager_ended(&ended));
        }
    }
}

/// `taskmanager`.
pub(super) fn taskmanager(jobs: &Jobs, args: &TaskManagerArgs) -> Result<(), Failure> {
    follow_parent(args.parent)?;
    let signals = Signals::install()?;
    let mut config = TaskManagerConfig::new(&args.jobmanager, jobs.clone(), binary_fingerprint()?);
    set_network(&mut config, &args.network)?;
    config.plan = of_taskmanager(&args.sources, args.slots, &args.network, &Host::probe())
        .map_err(|refused| refused.failure)?;
    let slots = config.plan.shape.slots;
    let begun = begin(
        &Plan::TaskManager(config.plan.clone()),
        Wishes { driver: config.driver, registration: config.registration, transport: config.transport },
    )?;
    config.data = args.data;
    config.pin = args.pin;
    config.latency_log = args.latency_log.wanted();
    config.cancel_max = args.cancel_max.unwrap_or(config.cancel_max);
    let running = TaskManager::start(config).map_err(taskmanager_failure)?;
    begun.say();
    tracing::info!("network: {}", running.network);
    tracing::info!("files: {}", running.files);
    let RunningTaskManager { data_address, id, driver, .. } = &running;
    ready(format_args!("data={data_address} slots={slots} id={id:016x} driver={driver}"));
    while !running.has_ended() {
        if let Some(stop) = signals.wait(LOOK_EVERY) {
            running.stop(stop.reason());
        }
    }
    end_of(running.wait())
}

/// Says that the role takes work. One that does is worth more than the line.
fn ready(what: std::fmt::Arguments<'_>) {
    if let Err(failure) = out::answer(format_args!("ready {what}")) {
        tracing::warn!("ready {what}, but {}", failure.line);
    }
}

/// A role begins: its host is judged by its plan before anything is allocated, and from then on a single allocation that
/// would outgrow the plan ends the process. What is to be said of host and plan is said once the role has started: if it does
/// not, the first line is why.
pub(super) fn begin(plan: &Plan, wishes: Wishes) -> Result<Begun, Failure> {
    let warnings = doctor::at_start(plan, wishes)?;
    tidegate_memory::limit_process(Some(plan.total_process()));
    let parts = plan.leaves().into_iter().filter(|part| part.bytes > 0);
    let parts: Vec<String> =
        parts.map(|part| format!("{} {}", part.component.title(), mebibytes(part.bytes))).collect();
    let memory = format!("memory: {} = {}", mebibytes(plan.total_process()), parts.join(" + "));
    Ok(Begun { warnings, memory })
}

/// What a role has to say of its host and its plan.
pub(super) struct Begun {
    warnings: Vec<String>,
    memory: String,
}

impl Begun {
    fn say(&self) {
        self.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        tracing::info!("{}", self.memory);
    }
}

/// More segments than a shard can hold are a slip of the command line, not a plan that does not hold.
pub(super) fn check_segments(network: &NetworkArgs) -> Result<(), Failure> {
    let size = network.segment_size.unwrap_or(SegmentSize::DEFAULT.bytes() as u32);
    let most = SHARD_BYTES_MAX / size as usize;
    if let Some(found) = network.segments.filter(|segments| *segments as usize > most) {
        let line = format!(
            "--segments: a slot has at most {most} segments of {size} bytes (1 GiB), found {found}; take fewer, or more slots"
        );
        return Err(Failure::new(Exit::Usage, line));
    }
    Ok(())
}

/// Sets what the command line says about the network.
pub(super) fn set_network(config: &mut TaskManagerConfig, network: &NetworkArgs) -> Result<(), Failure> {
    config.driver = network.driver.into();
    check_segments(network)?;
    config.send = match network.send {
        Send::Auto => SendMode::Auto,
        Send::Fixed => SendMode::Fixed,
        Send::Plain => SendMode::Plain,
        Send::Zc => SendMode::Zc,
    };
    config.registration = network.register.into();
    config.flush = network.flush.unwrap_or_default();
    config.spin = network.spin.map_or(Spin::WhereItPays, |micros| Spin::For(u64::from(micros) * 1_000));
    config.transport = network.transport.into();
    Ok(())
}

/// Why a JobManager does not start.
pub(super) fn jobmanager_failure(error: JobManagerError) -> Failure {
    let exit = match &error {
        JobManagerError::Listen { .. } | JobManagerError::System(_) => Exit::System,
        JobManagerError::Directory(_) | JobManagerError::Store(_) | JobManagerError::Epoch(_) => Exit::Io,
        JobManagerError::Config(_) => Exit::Usage,
    };
    Failure::new(exit, error.to_string())
}

/// Why a JobManager ended that nobody had told to.
pub(super) fn jobmanager_ended(ended: &JobManagerEnded) -> Failure {
    let exit = match ended {
        JobManagerEnded::Deposed(_) => Exit::Refused,
        // For supervisors: start it again, it finds its jobs in its directory.
        JobManagerEnded::Died => Exit::System,
    };
    Failure::new(exit, ended.to_string())
}

/// Why a TaskManager does not start.
pub(super) fn taskmanager_failure(error: TaskManagerError) -> Failure {
    let exit = match &error {
        TaskManagerError::Plan(_)
        | TaskManagerError::CancelMax { .. }
        | TaskManagerError::Flush { .. }
        | TaskManagerError::Unregistrable => Exit::Usage,
        TaskManagerError::LatencyInterval { .. } => Exit::Usage,
        TaskManagerError::LatencyLog { .. } => Exit::Io,
        TaskManagerError::Endpoint(_)
        | TaskManagerError::Arena(_)
        | TaskManagerError::Slot(_)
        | TaskManagerError::Share(_)
        | TaskManagerError::Thread { .. } => Exit::System,
    };
    Failure::new(exit, error.to_string())
}

/// Why a TaskManager ended that nobody had told to.
pub(super) fn ended_early(running: RunningTaskManager) -> Failure {
    end_of(running.wait())
        .err()
        .unwrap_or_else(|| Failure::new(Exit::Internal, "the TaskManager left by itself"))
}

fn end_of(ended: Ended) -> Result<(), Failure> {
    let exit = match &ended {
        Ended::Agent(End::Drained) => return Ok(()),
        Ended::Agent(End::Refused(_)) => Exit::Refused,
        Ended::Agent(End::SlotHangs { .. }) | Ended::SlotDied { .. } | Ended::SlotDeaf { .. } => {
            Exit::Internal
        }
        Ended::System(_) => Exit::System,
    };
    Err(Failure::new(exit, ended.to_string()))
}

/// What tells one build of a binary from another: a hash of the executable.
pub(super) fn binary_fingerprint() -> Result<u64, Failure> {
    use std::io::Read as _;
    let failed = |error| Failure::new(Exit::Io, format!("cannot read this program's own file: {error}"));
    // Not by its name: it may have been replaced since this process started.
    let mut file = std::fs::File::open("/proc/self/exe").map_err(failed)?;
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hash.digest()),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// A child of the demo ends with its parent, however that ends.
fn follow_parent(parent: Option<u32>) -> Result<(), Failure> {
    use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
    let Some(parent) = parent else { return Ok(()) };
    let failed = |error| Failure::new(Exit::System, format!("cannot follow the parent process: {error}"));
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(failed)?;
    let alive = getppid().map(Pid::as_raw_nonzero).is_some_and(|now| now.get() as u32 == parent);
    if alive { Ok(()) } else { Err(Failure::new(Exit::Interrupted, "the parent process is gone")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supervisors_see_a_jobmanager_die() {
        assert_eq!(jobmanager_ended(&JobManagerEnded::Died).exit, Exit::System);
        assert_eq!(jobmanager_ended(&JobManagerEnded::Deposed("by 2".to_owned())).exit, Exit::Refused);
    }
}
