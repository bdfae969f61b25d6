//! The jobs of a binary, by name.
//!
//! Immutable once made and shared by all slots of a process. Always: names are unique; the folder that relative outputs
//! are relative to is absolute.

use std::sync::Arc;

use crate::args::{Args, nearest};
use crate::job::{BuildError, BuiltJob, Job, JobResult};

/// Describes a stream-processing job.
pub type JobFn = dyn Fn(&mut Job, &Args) -> JobResult + Send + Sync;

/// A flag of a job, for help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagHelp {
    /// Its name, without dashes.
    pub name: String,
    /// What stands for its value, such as `FILE`; empty for a switch.
    pub value: String,
    /// What it is for.
    pub help: String,
}

/// A job of a binary.
#[derive(Clone)]
pub struct JobEntry {
    name: String,
    about: String,
    flags: Vec<FlagHelp>,
    function: Arc<JobFn>,
}

impl JobEntry {
    /// A job called `name`.
    pub fn new(name: &str, function: impl Fn(&mut Job, &Args) -> JobResult + Send + Sync + 'static) -> Self {
        JobEntry {
            name: name.to_owned(),
            about: String::new(),
            flags: Vec::new(),
            function: Arc::new(function),
        }
    }

    /// What it does, in a sentence.
    #[must_use]
    pub fn about(mut self, about: &str) -> Self {
        about.clone_into(&mut self.about);
        self
    }

    /// Describes a flag. Flags that are not described work too; they are missing from the help, and a path among them has
    /// to be absolute on a cluster: only where `value` is `FILE` or `DIR` is it made so when the job is submitted.
    #[must_use]
    pub fn flag(mut self, name: &str, value: &str, help: &str) -> Self {
        self.flags.push(FlagHelp { name: name.to_owned(), value: value.to_owned(), help: help.to_owned() });
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does.
    pub fn description(&self) -> &str {
        &self.about
    }

    /// Its flags.
    pub fn flags(&self) -> &[FlagHelp] {
        &self.flags
    }
}

impl<F: Fn(&mut Job, &Args) -> JobResult + Send + Sync + 'static> From<(&str, F)> for JobEntry {
    fn from((name, function): (&str, F)) -> Self {
        JobEntry::new(name, function)
    }
}

impl std::fmt::Debug for JobEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobEntry")
            .field("name", &self.name)
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

/// The jobs of a binary.
///
/// ```
/// use tidegate_stream::{JobEntry, Jobs, testing};
/// let jobs = Jobs::new([
///     JobEntry::new("copy", |job, args| {
///         let count: u64 = args.or("count", 3)?;
///         job.source("numbers", testing::items(0..count)).sink("out", testing::collect("out"));
///         Ok(())
///     })
///     .about("Copies numbers.")
///     .flag("count", "N", "how many"),
/// ]);
/// let built = jobs.build("copy", &["--count".into(), "5".into()], 2).unwrap();
/// assert_eq!(built.graph.vertices[0].parallelism, 2);
/// let error = jobs.build("cpoy", &[], 1).unwrap_err();
/// assert_eq!(error.to_string(), r#"no job is called "cpoy": did you mean "copy"?"#);
/// let error = jobs.build("copy", &["--cuont".into(), "5".into()], 1).unwrap_err();
/// assert_eq!(error.to_string(), "--cuont is unknown: did you mean --count?");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Jobs {
    entries: Arc<Vec<JobEntry>>,
    folder: Option<Arc<str>>,
}

impl Jobs {
    /// The jobs `entries`.
    ///
    /// # Panics
    /// If two have the same name.
    pub fn new<I>(entries: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<JobEntry>,
    {
        let entries: Vec<JobEntry> = entries.into_iter().map(Into::into).collect();
        for (place, entry) in entries.iter().enumerate() {
            let twice = entries[..place].iter().any(|earlier| earlier.name == entry.name);
            assert!(!twice, "two jobs are called {:?}: rename one", entry.name);
        }
        Jobs { entries: Arc::new(entries), folder: None }
    }

    /// The same jobs, whose relative output folders are relative to `folder`. For a cluster in one process: elsewhere each
    /// process has a working directory of its own, so that relative ones have no meaning.
    ///
    /// # Panics
    /// If `folder` is itself relative.
    #[must_use]
    pub fn in_folder(mut self, folder: &str) -> Self {
        assert!(folder.starts_with('/'), "outputs cannot be relative to the relative folder {folder:?}");
        self.folder = Some(folder.into());
        self
    }

    /// All of them, in the order given.
    pub fn entries(&self) -> &[JobEntry] {
        &self.entries
    }

    /// Builds the job called `name` with its own arguments; `parallelism` is that of operators which do not say.
    ///
    /// # Errors
    /// `BuildError`: an unknown job, wrong arguments, or what the job function describes is not possible.
    pub fn build(&self, name: &str, args: &[String], parallelism: u32) -> Result<BuiltJob, BuildError> {
        let Some(entry) = self.entries.iter().find(|entry| entry.name == name) else {
            let known: Vec<String> = self.entries.iter().map(|entry| entry.name.clone()).collect();
            let nearest = nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
            return Err(BuildError::UnknownJob { name: name.to_owned(), nearest, known });
        };
        let args = Args::parse(args.iter().cloned())?;
        for flag in &entry.flags {
            args.declare(&flag.name);
        }
        let folder = self.folder.as_deref();
        Job::build_in(folder, name, |job, args| (entry.function)(job, args), &args, parallelism)
    }
}
