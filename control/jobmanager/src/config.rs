//! What a JobManager is given: addresses, a directory, a planner, and the few numbers that may be changed.
//!
//! Values only. Always: the heartbeat timeout exceeds its interval (checked at start).

use crate::limits::{HEARTBEAT_INTERVAL_MS_DEFAULT, HEARTBEAT_TIMEOUT_MS_DEFAULT};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tidegate_graph::JobGraph;
use tidegate_memory::plan::JobManagerPlan;

/// A job as the binary planned it.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Its graph.
    pub graph: JobGraph,
    /// Output directories (roots, absolute) that its sinks write to, as far as they are known now. TaskManagers
    /// may report more when they prepare; naming them here lets leftovers be removed earlier.
    pub outputs: Vec<String>,
}

impl From<JobGraph> for Planned {
    fn from(graph: JobGraph) -> Self {
        Planned { graph, outputs: Vec::new() }
    }
}

/// Turns a job's name and arguments into its graph: the one thing that a JobManager asks of the binary. Called
/// on threads that may block; must be deterministic, because every process plans for itself.
///
/// Any `Fn(&str, &[String], u32) -> Result<impl Into<Planned>, String>` is one; `names` lists what it knows.
pub trait Planner: Send + Sync + 'static {
    /// Plans job `name` with `args` and the default `parallelism`.
    ///
    /// # Errors
    /// A sentence for the person who submitted it.
    fn plan(&self, name: &str, args: &[String], parallelism: u32) -> Result<Planned, String>;

    /// Names of the jobs in the binary; an unknown name is refused with this list. Empty means that the planner
    /// itself refuses unknown names.
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

impl<F, P> Planner for F
where
    F: Fn(&str, &[String], u32) -> Result<P, String> + Send + Sync + 'static,
    P: Into<Planned>,
{
    fn plan(&self, name: &str, args: &[String], parallelism: u32) -> Result<Planned, String> {
        self(name, args, parallelism).map(Into::into)
    }
}

/// How long a job waits before it is restarted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RestartPolicy {
    /// First delay, in milliseconds.
    pub initial_ms: u64,
    /// Factor from one delay to the next, at least 1.
    pub multiplier: f64,
    /// Longest delay, in milliseconds.
    pub cap_ms: u64,
    /// Time of health after which the delay is the first one again, in milliseconds.
    pub reset_ms: u64,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        RestartPolicy { initial_ms: 1_000, multiplier: 1.5, cap_ms: 60_000, reset_ms: 60_000 }
    }
}

impl RestartPolicy {
    /// The delay after `previous` (`None` for the first failure, or the first after enough health).
    ///
    /// ```
    /// use tidegate_jobmanager::RestartPolicy;
    /// let policy = RestartPolicy::default();
    /// assert_eq!(policy.delay_ms(None), 1_000);
    /// assert_eq!(policy.delay_ms(Some(1_000)), 1_500);
    /// assert_eq!(policy.delay_ms(Some(59_000)), 60_000);
    /// ```
    pub fn delay_ms(&self, previous: Option<u64>) -> u64 {
        match previous {
            None => self.initial_ms.min(self.cap_ms),
            Some(previous) => ((previous as f64 * self.multiplier.max(1.0)) as u64).min(self.cap_ms),
        }
    }
}

/// Everything a JobManager is given.
#[derive(Clone)]
pub struct JobManagerConfig {
    /// Where TaskManagers dial; port 0 picks one.
    pub rpc: SocketAddr,
    /// Where people and tools ask; port 0 picks one.
    pub rest: SocketAddr,
    /// Directory of jobs, checkpoints and epochs; created if absent, locked while running.
    pub dir: PathBuf,
    /// Plans jobs.
    pub planner: Arc<dyn Planner>,
    /// Fingerprint of the executable; TaskManagers of another one are refused.
    pub binary_fingerprint: u64,
    /// Time between heartbeats, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Silence after which a TaskManager is given up, in milliseconds.
    pub heartbeat_timeout_ms: u64,
    /// When failed jobs are restarted.
    pub restart: RestartPolicy,
    /// How its memory is divided: shown beside what it holds.
    pub plan: JobManagerPlan,
}

impl JobManagerConfig {
    /// A configuration with default times and the default plan.
    pub fn new(
        rpc: SocketAddr,
        rest: SocketAddr,
        dir: impl Into<PathBuf>,
        planner: impl Planner,
        binary_fingerprint: u64,
    ) -> Self {
        JobManagerConfig {
            rpc,
            rest,
            dir: dir.into(),
            planner: Arc::new(planner),
            binary_fingerprint,
            heartbeat_interval_ms: HEARTBEAT_INTERVAL_MS_DEFAULT,
            heartbeat_timeout_ms: HEARTBEAT_TIMEOUT_MS_DEFAULT,
            restart: RestartPolicy::default(),
            plan: JobManagerPlan::native(&[]).expect("invariant: the defaults are a plan"),
        }
    }
}

impl std::fmt::Debug for JobManagerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobManagerConfig")
            .field("rpc", &self.rpc)
            .field("rest", &self.rest)
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}
