//! A job as this binary knows it: its graph, and where its sinks write.
//!
//! Stateless. Always true: the same name, arguments and parallelism give the same plan in every process.

use tidegate_graph::JobGraph;
use tidegate_stream::{BuildError, Jobs};

/// A planned job.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its graph.
    pub graph: JobGraph,
    /// Output directories of its sinks, as they say themselves.
    pub outputs: Vec<String>,
}

/// Plans job `name` of `jobs`.
///
/// # Errors
/// [`BuildError`]: an unknown job, wrong arguments, or what the job describes is not possible.
pub fn plan(jobs: &Jobs, name: &str, args: &[String], parallelism: u32) -> Result<Plan, BuildError> {
    let built = jobs.build(name, args, parallelism)?;
    Ok(Plan { graph: built.graph, outputs: built.outputs })
}
