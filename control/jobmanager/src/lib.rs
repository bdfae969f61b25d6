//! The JobManager: it takes jobs, gives them slots, takes their checkpoints, restarts them, and says how they are.
//!
//! The core decides and does nothing ([`core`]): inputs and a time in, actions out. The shell around it
//! ([`JobManager`]) owns one thread with one runtime, the gRPC server for TaskManagers, the REST interface, the
//! workers of each job's store, and the clock.
//!
//! Reading order: [`config`], [`record`] (what is kept of a job), [`core`] with its parts (`registry`, `submit`,
//! `job`, `deploy`, `finish`, `views`), `convert`, `memory`, then the shell (`directory`, `output`, `shell`). Limits are in
//! [`limits`].
//!
//! Inequalities: one JobManager per directory (a lock) and one acting leader per epoch (the store); a job's
//! attempt number never falls; FINISHED is on disk before anybody is told.
#![forbid(unsafe_code)]

pub mod config;
mod convert;
pub mod core;
pub mod directory;
pub mod limits;
mod memory;
mod output;
pub mod record;
mod shell;
pub mod submit_body;

pub use config::{JobManagerConfig, Planned, Planner, RestartPolicy};
pub use directory::DirectoryError;
pub use record::{JobRecord, JobRequest, JobState};
pub use shell::{Ended, JobManager, RunningJobManager, StartError};
