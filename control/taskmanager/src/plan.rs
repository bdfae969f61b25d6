//! A job as this binary knows it: its graph, and where its sinks write.
//!
//! Stateless. Always true: the same name, arguments and parallelism give the same plan in every process.

use tidegate_graph::JobGraph;
use tidegate_stream::{Args, BuildError, Jobs};

/// The value name that marks a flag of a job as an output directory, in [`tidegate_stream::jobs::FlagHelp`].
pub const OUTPUT_VALUE: &str = "DIR";

/// A planned job.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its graph.
    pub graph: JobGraph,
    /// Output directories of its sinks: the values of its flags that take a `DIR`.
    pub outputs: Vec<String>,
}

/// Plans job `name` of `jobs`.
///
/// # Errors
/// [`BuildError`]: an unknown job, wrong arguments, or what the job describes is not possible.
pub fn plan(jobs: &Jobs, name: &str, args: &[String], parallelism: u32) -> Result<Plan, BuildError> {
    let graph = jobs.build(name, args, parallelism)?.graph;
    let entry = jobs.entries().iter().find(|entry| entry.name() == name);
    let given = Args::parse(args.iter().cloned())?;
    let mut outputs = Vec::new();
    for flag in entry.iter().flat_map(|entry| entry.flags()).filter(|flag| flag.value == OUTPUT_VALUE) {
        outputs.extend(given.optional::<String>(&flag.name)?);
    }
    Ok(Plan { graph, outputs })
}
