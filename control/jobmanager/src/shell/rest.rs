//! REST on Flink's paths. Handlers translate; the actor answers.
//!
//! No state but the way to the actor and the planner. Always: an error is `{"errors": [...]}` with the main
//! reason first and a fitting status; a body is bounded before it is read.

use super::actor::Event;
use crate::config::Planner;
use crate::core::views::Query;
use crate::core::{Rejection, Submission};
use crate::directory::{has_record, random_u128};
use crate::limits::{REQUEST_BODY_BYTES_MAX, REQUEST_TIMEOUT_MS};
use crate::output;
use crate::submit_body::{SubmitBody, job_id};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path as UrlPath, Query as UrlQuery, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidegate_rpc::JobId;
use tokio::sync::{mpsc, oneshot};

/// What handlers share.
#[derive(Clone)]
struct Api {
    events: mpsc::Sender<Event>,
    planner: Arc<dyn Planner>,
    /// The JobManager's directory.
    root: PathBuf,
}

type Answer = Result<Json<Value>, Rejection>;

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(json!({ "errors": self.errors }))).into_response()
    }
}

/// The routes, with and without Flink's `/v1`.
pub(super) fn router(events: mpsc::Sender<Event>, planner: Arc<dyn Planner>, root: PathBuf) -> Router {
    let routes = Router::new()
        .route("/overview", get(|api: State<Api>| api.0.ask(Query::Overview)))
        .route("/jobmanager", get(jobmanager))
        .route("/taskmanagers", get(|api: State<Api>| api.0.ask(Query::TaskManagers)))
        .route("/taskmanagers/{id}", get(taskmanager))
        .route("/jobs", get(|api: State<Api>| api.0.ask(Query::Jobs)).post(submit))
        .route("/jobs/overview", get(|api: State<Api>| api.0.ask(Query::JobsOverview)))
        .route("/jobs/{id}", get(job).patch(cancel))
        .route("/jobs/{id}/checkpoints", get(checkpoints))
        .route("/jobs/{id}/exceptions", get(exceptions))
        .route("/jobs/{id}/latency", get(latency))
        .route("/metrics", get(metrics));
    Router::new()
        .merge(routes.clone())
        .nest("/v1", routes)
        .fallback(|| async { Rejection::new(404, "Not found.") })
        .method_not_allowed_fallback(|| async { Rejection::new(405, "Method not allowed.") })
        .layer(DefaultBodyLimit::max(REQUEST_BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn(bounded))
        .with_state(Api { events, planner, root })
}

/// Refuses what announces too much before it is read, and what takes too long.
async fn bounded(request: Request, next: Next) -> Response {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|value| value.parse::<u64>().ok()).is_some_and(|n| n > REQUEST_BODY_BYTES_MAX as u64) {
        let text = format!("the body may have {REQUEST_BODY_BYTES_MAX} bytes");
        return Rejection::new(413, text).into_response();
    }
    match tokio::time::timeout(Duration::from_millis(REQUEST_TIMEOUT_MS), next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let text = format!("the request took longer than {REQUEST_TIMEOUT_MS} ms");
            Rejection::new(408, text).into_response()
        }
    }
}

impl Api {
    async fn ask(self, query: Query) -> Answer {
        self.send(|reply| Event::Query { query, reply }).await?.map(Json)
    }

    async fn send<T>(&self, event: impl FnOnce(oneshot::Sender<T>) -> Event) -> Result<T, Rejection> {
        let gone = || Rejection::new(503, "the JobManager is shutting down");
        let (reply, answer) = oneshot::channel();
        self.events.send(event(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

/// What stands for `{id}` in a path.
struct Id(String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let UrlPath(id) = UrlPath::from_request_parts(parts, state)
            .await
            .map_err(|e| Rejection::new(e.status().as_u16(), e.body_text()))?;
        Ok(Self(id))
    }
}

async fn taskmanager(State(api): State<Api>, Id(id): Id) -> Answer {
    let parsed = Some(&id).filter(|id| id.len() == 16).and_then(|id| u64::from_str_radix(id, 16).ok());
    let refuse =
        || Rejection::new(400, format!("a TaskManager's id has 16 hexadecimal characters, found {id:?}"));
    api.ask(Query::TaskManager(parsed.ok_or_else(refuse)?)).await
}

async fn jobmanager(State(api): State<Api>) -> Answer {
    api.send(|reply| Event::Memory { reply }).await.map(Json)
}

async fn job(State(api): State<Api>, Id(id): Id) -> Answer {
    api.ask(Query::Job(job_id(&id)?)).await
}

async fn checkpoints(State(api): State<Api>, Id(id): Id) -> Answer {
    api.ask(Query::Checkpoints(job_id(&id)?)).await
}

async fn exceptions(State(api): State<Api>, Id(id): Id) -> Answer {
    api.ask(Query::Exceptions(job_id(&id)?)).await
}

async fn latency(State(api): State<Api>, Id(id): Id) -> Answer {
    api.ask(Query::Latency(job_id(&id)?)).await
}

async fn metrics(State(api): State<Api>) -> Result<Response, Rejection> {
    let text = api.send(|reply| Event::Metrics { reply }).await?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// `?mode=cancel`.
#[derive(Deserialize)]
struct Mode {
    mode: Option<String>,
}

async fn cancel(
    State(api): State<Api>,
    Id(id): Id,
    mode: Result<UrlQuery<Mode>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Rejection> {
    let id = job_id(&id)?;
    let UrlQuery(Mode { mode }) = mode.map_err(|e| Rejection::new(400, e.body_text()))?;
    if let Some(other) = mode.filter(|mode| mode != "cancel") {
        return Err(Rejection::new(400, format!("mode: only \"cancel\" is known, found {other:?}")));
    }
    api.send(|reply| Event::Cancel { job: id, reply }).await??;
    Ok((StatusCode::ACCEPTED, Json(json!({}))).into_response())
}

async fn submit(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Rejection> {
    let body = body.map_err(|e| Rejection::new(e.status().as_u16(), e.body_text()))?;
    let json_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(';').next().is_some_and(|kind| kind.trim() == "application/json"));
    if !json_type {
        return Err(Rejection::new(415, "the body must be JSON, with content type application/json"));
    }
    let body = SubmitBody::parse(&body)?;
    let names = api.planner.names();
    if !names.is_empty() && !names.contains(&body.job) {
        let known = names.join(", ");
        return Err(Rejection::new(404, format!("unknown job {:?}; this binary knows: {known}", body.job)));
    }
    let id = match body.id()? {
        Some(id) => id,
        None => JobId(random_u128().map_err(|e| Rejection::new(500, format!("no random number: {e}")))?),
    };
    let request = body.request()?;
    let planner = Arc::clone(&api.planner);
    let (wanted, root) = (request.clone(), api.root.clone());
    let plan = move || {
        let mut planned = planner
            .plan(&wanted.job, &wanted.args, wanted.parallelism)
            .map_err(|reason| Rejection::new(400, reason))?;
        let objection = objection(&root, id, &planned.outputs);
        // Another job may know the same directories by other names.
        let resolved: BTreeSet<String> = planned.outputs.iter().map(|root| output::resolved(root)).collect();
        planned.outputs.extend(resolved);
        planned.outputs.sort_unstable();
        planned.outputs.dedup();
        Ok((planned, objection))
    };
    let (planned, objection) = tokio::task::spawn_blocking(plan)
        .await
        .map_err(|_| Rejection::new(500, "the planner panicked; see the JobManager's log"))??;
    let submission = Box::new(Submission { id, request, planned, objection });
    let id = api.send(|reply| Event::Submit { submission, reply }).await??;
    Ok((StatusCode::CREATED, Json(json!({ "jobid": id.to_string() }))).into_response())
}

/// What lies on disk and is not a new job's. Blocking.
fn objection(root: &Path, id: JobId, outputs: &[String]) -> Option<Rejection> {
    match has_record(root, id) {
        Ok(false) => {}
        Ok(true) => {
            let text = format!(
                "job {id} was submitted here before: its record in {} is kept, but is unreadable or of a job long over; choose another id",
                root.display()
            );
            return Some(Rejection::new(409, text));
        }
        Err(e) => return Some(Rejection::new(507, format!("{}: {e}", root.display()))),
    }
    let refused = outputs.iter().find_map(|root| output::check(root, id).err());
    refused.map(|reason| Rejection::new(422, reason))
}
