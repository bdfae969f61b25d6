//! The body of `POST /jobs`: read, checked, and filled in with defaults.
//!
//! Values only; the REST handler reads one and the core gets what was asked for. Always: every number of a request that
//! comes out of here is within its bounds.

use serde::Deserialize;
use tidegate_checkpoint::CheckpointConfig;
use tidegate_checkpoint::limits::{INTERVAL_MS_MIN, RETAINED_MAX};
use tidegate_rpc::JobId;

use crate::core::Rejection;
use crate::limits::REQUEST_MS_MAX;
use crate::record::JobRequest;

/// What a client may say; anything else is refused by name.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubmitBody {
    /// Name of the job in the binary.
    pub job: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default = "one")]
    parallelism: u32,
    /// Milliseconds.
    checkpoint_interval: Option<u64>,
    /// Milliseconds.
    checkpoint_timeout: Option<u64>,
    /// Milliseconds.
    checkpoint_min_pause: Option<u64>,
    tolerable_failed_checkpoints: Option<u32>,
    retained_checkpoints: Option<usize>,
    /// Chosen by the caller so that a repeated request has its effect once.
    job_id: Option<String>,
}

fn one() -> u32 {
    1
}

/// The id of a job, as paths and bodies name it.
///
/// # Errors
/// It is none.
pub(crate) fn job_id(text: &str) -> Result<JobId, Rejection> {
    text.parse().map_err(|e| Rejection::new(400, format!("{e}")))
}

impl SubmitBody {
    /// Reads it.
    ///
    /// # Errors
    /// It is no JSON of this form: where, and what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        serde_json::from_slice(bytes).map_err(|e| Rejection::new(400, format!("body: {e}")))
    }

    /// The id that the caller chose.
    ///
    /// # Errors
    /// It is none.
    pub fn id(&self) -> Result<Option<JobId>, Rejection> {
        self.job_id.as_deref().map(job_id).transpose()
    }

    /// Checks the numbers and fills in defaults.
    ///
    /// # Errors
    /// A number is out of range: which, and the bounds.
    pub fn request(self) -> Result<JobRequest, Rejection> {
        let defaults = CheckpointConfig::default();
        let ms = |name: &str, value: Option<u64>, min: u64| match value {
            Some(found) if found < min || found > REQUEST_MS_MAX => Err(Rejection::new(
                400,
                format!("{name}: {min} to {REQUEST_MS_MAX} ms allowed, found {found}"),
            )),
            value => Ok(value),
        };
        let retained = self.retained_checkpoints.unwrap_or(defaults.retained);
        if retained == 0 || retained > RETAINED_MAX {
            let text = format!("retainedCheckpoints: 1 to {RETAINED_MAX} allowed, found {retained}");
            return Err(Rejection::new(400, text));
        }
        Ok(JobRequest {
            checkpoint_interval_ms: ms("checkpointInterval", self.checkpoint_interval, INTERVAL_MS_MIN)?,
            min_pause_ms: ms("checkpointMinPause", self.checkpoint_min_pause, 0)?
                .unwrap_or(defaults.min_pause_ms),
            checkpoint_timeout_ms: ms("checkpointTimeout", self.checkpoint_timeout, INTERVAL_MS_MIN)?
                .unwrap_or(defaults.timeout_ms),
            tolerable_failures: self.tolerable_failed_checkpoints.unwrap_or(defaults.tolerable_failures),
            retained,
            job: self.job,
            args: self.args,
            parallelism: self.parallelism,
        })
    }
}
