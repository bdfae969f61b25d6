//! The JobManager seen over REST: small, blocking, one request at a time.
//!
//! Owner of the state: the caller; a client holds an address and an agent.
//!
//! Always true: a request ends within `REQUEST_TIMEOUT`; an answer larger than `ANSWER_BYTES_MAX` is refused; "nobody
//! there" and "refused" are different errors, because only the first is worth waiting for.

use std::sync::mpsc::sync_channel;

use serde_json::Value;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::Duration;
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::exit::{Exit, Failure};
use crate::limits::{ANSWER_BYTES_MAX, REQUEST_TIMEOUT};

/// Talks to one JobManager.
pub struct Client {
    agent: ureq::Agent,
    base: String,
}

/// Why a request did not give its answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there now; a JobManager that restarts looks like this for a while.
    #[error("no JobManager answers at {base}: {reason}; is it running, and is this its --rest address?")]
    Unreachable {
        /// The address asked.
        base: String,
        /// The transport's words.
        reason: String,
    },
    /// Something answers, but not as a JobManager does.
    #[error("what answers at {base} is not a Tidegate JobManager: {reason}")]
    Stranger {
        /// The address asked.
        base: String,
        /// What was wrong with the answer.
        reason: String,
    },
    /// This host gives no thread to look a name up on.
    #[error(
        "cannot start a thread to look up {base}: {reason}; raise this user's limit of processes (ulimit -u)"
    )]
    NoThread {
        /// The address asked.
        base: String,
        /// What the system says.
        reason: String,
    },
    /// The JobManager refused.
    #[error("{}", errors.first().map_or("refused without a reason", String::as_str))]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its reasons, the main one first.
        errors: Vec<String>,
    },
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused { errors, .. } => {
                let mut lines = errors.iter().flat_map(|text| text.lines()).map(str::to_owned);
                let line = lines.next().unwrap_or_else(|| "refused without a reason".to_owned());
                Self { exit: Exit::Refused, line, details: lines.collect() }
            }
            ClientError::NoThread { .. } => Self::new(Exit::System, error.to_string()),
            ClientError::Unreachable { .. } | ClientError::Stranger { .. } => {
                Self::new(Exit::Unreachable, error.to_string())
            }
        }
    }
}

impl Client {
    /// A client for the JobManager at `url`: `http://host:port`, with or without a trailing slash.
    ///
    /// # Errors
    /// [`Exit::Usage`] if that is not a plain `http://` address.
    pub fn new(url: &str) -> Result<Self, Failure> {
        let base = url.trim_end_matches('/').to_owned();
        let authority = base.strip_prefix("http://").unwrap_or_default();
        if authority.is_empty() || authority.contains('/') {
            let line = format!("--jobmanager must be http://HOST:PORT, found {url:?}");
            return Err(Failure::new(Exit::Usage, line));
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST_TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), ThreadResolver);
        Ok(Self { agent, base })
    }

    /// The address asked.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET path`, as JSON.
    ///
    /// # Errors
    /// [`ClientError`], by who is at fault.
    pub fn get(&self, path: &str) -> Result<Value, ClientError> {
        let url = format!("{}{path}", self.base);
        self.answer(self.agent.get(&url).call())
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// [`ClientError`], by who is at fault.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        let url = format!("{}{path}", self.base);
        self.answer(self.agent.post(&url).send_json(body))
    }

    /// `PATCH path` without a body.
    ///
    /// # Errors
    /// [`ClientError`], by who is at fault.
    pub fn patch(&self, path: &str) -> Result<Value, ClientError> {
        let url = format!("{}{path}", self.base);
        self.answer(self.agent.patch(&url).send_empty())
    }

    fn answer(
        &self,
        sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, ClientError> {
        let mut response = sent.map_err(|error| self.transport(&error))?;
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let text = text.map_err(|error| self.transport(&error))?;
        let body = match text.is_empty() {
            true => Ok(Value::Null),
            false => serde_json::from_str(&text),
        };
        match (status, body) {
            (200..=299, Ok(body)) => Ok(body),
            (_, Ok(body)) if body.get("errors").is_some() => {
                Err(ClientError::Refused { status, errors: reasons(&body) })
            }
            (_, Ok(_)) => Err(self.stranger(format!("status {status} without a reason"))),
            (_, Err(error)) => Err(self.stranger(format!("status {status} and no JSON ({error})"))),
        }
    }

    fn transport(&self, error: &ureq::Error) -> ClientError {
        let base = self.base.clone();
        match error {
            ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed => ClientError::Unreachable { base, reason: error.to_string() },
            ureq::Error::Other(other) if other.is::<NoThread>() => {
                ClientError::NoThread { base, reason: other.to_string() }
            }
            other => self.stranger(other.to_string()),
        }
    }

    fn stranger(&self, reason: String) -> ClientError {
        ClientError::Stranger { base: self.base.clone(), reason }
    }
}

/// The default resolver on a thread of its own, so that it ends in time. It would start one itself, but panic where there
/// is none to be had.
#[derive(Debug)]
struct ThreadResolver;

/// The operating system gives no thread.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct NoThread(std::io::Error);

impl Resolver for ThreadResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let (sender, answer) = sync_channel(1);
        let (uri, config) = (uri.clone(), config.clone());
        let untimed = NextTimeout { after: Duration::NotHappening, ..timeout };
        let look_up = move || {
            let _ = sender.send(DefaultResolver::default().resolve(&uri, &config, untimed)); // It may be too late.
        };
        let thread = std::thread::Builder::new().name("resolve".to_owned()).spawn(look_up);
        thread.map_err(|error| ureq::Error::Other(Box::new(NoThread(error))))?;
        answer.recv_timeout(*timeout.after).unwrap_or(Err(ureq::Error::Timeout(timeout.reason)))
    }
}

/// The texts of Flink's `{"errors": [...]}`.
fn reasons(body: &Value) -> Vec<String> {
    let list = body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
