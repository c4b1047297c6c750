//! `/api/v1/pulses/populate`: made-up pulses as load, in the background.

use super::{HttpState, Problem, filter::moment, problem::ProblemDetails};
use application::populate::{NotStarted, PopulateOrder, Progress, RunState};
use axum::{
    Json,
    extract::{
        Path, State,
        rejection::{JsonRejection, PathRejection},
    },
    http::{HeaderName, StatusCode, header},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// For how many seconds a client is asked to wait while another run is under way.
const RETRY_AFTER: u64 = 5;
const WORKERS: u64 = 2;
const BUFFER: u64 = 100;

/// What a run is to do.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RunWish {
    /// How many messages, of one pulse each.
    #[schema(value_type = u64, minimum = 1, maximum = 1_000_000, required = true)]
    total_messages: Option<Value>,
    /// How many workers send at the same time; 2 where it is left out.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 16)]
    workers_number: Option<Value>,
    /// How many messages a worker makes durable in one step; 100 where it is left out.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 1_000)]
    buffer_size: Option<Value>,
}

impl RunWish {
    fn order(self) -> Result<PopulateOrder, Problem> {
        let total = whole("total_messages", self.total_messages, None, PopulateOrder::MESSAGES_MAX)?;
        let workers =
            whole("workers_number", self.workers_number, Some(WORKERS), PopulateOrder::WORKERS_MAX)?;
        let buffer = whole("buffer_size", self.buffer_size, Some(BUFFER), PopulateOrder::BUFFER_MAX)?;
        Ok(PopulateOrder { total_messages: total, workers_number: workers, buffer_size: buffer })
    }
}

/// The field as a whole number from 1 to `max`.
fn whole(field: &str, value: Option<Value>, default: Option<u64>, max: u64) -> Result<u64, Problem> {
    let number = match value {
        None => default,
        Some(value) => value.as_u64(),
    };
    number
        .filter(|number| (1..=max).contains(number))
        .ok_or_else(|| Problem::invalid(field, format!("{field} must be a whole number from 1 to {max}")))
}

/// A run, and how far it is.
#[derive(Serialize, ToSchema)]
pub(super) struct PopulateRun {
    id: String,
    /// `running`, `done` or `failed`.
    state: &'static str,
    /// How many messages are durable.
    published: u64,
    /// How many there are to be.
    total: u64,
    /// Whole messages per second, from its start until its end or now.
    rate: u64,
    started_at: String,
    /// Null while it runs.
    ended_at: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<Progress> for PopulateRun {
    fn from(progress: Progress) -> Self {
        Self {
            id: progress.id,
            state: match progress.state {
                RunState::Running => "running",
                RunState::Done => "done",
                RunState::Failed => "failed",
            },
            published: progress.published,
            total: progress.order.total_messages,
            rate: progress.rate,
            started_at: moment(progress.started_at),
            ended_at: progress.ended_at.map(moment),
            error: progress.error,
        }
    }
}

impl From<NotStarted> for Problem {
    fn from(fault: NotStarted) -> Self {
        let detail = fault.to_string();
        match fault {
            NotStarted::Busy => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail).retry_after(RETRY_AFTER)
            }
            NotStarted::Refused(_) => Self::new(StatusCode::CONFLICT, "refused", detail),
            NotStarted::Stopping => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).retry_after(1)
            }
        }
    }
}

/// Starts to send made-up native pulses, the same way as pulses that are posted; their times lie in the hour before this
/// one, their tenants are called `tenant_00000` to `tenant_00099`.
///
/// They count as all others do: this is for tests and demonstrations. One run at a time; it ends with the service.
#[utoipa::path(
    post,
    path = "/api/v1/pulses/populate",
    tag = "pulses",
    security(("bearer" = ["ingest"])),
    responses(
        (status = 202, description = "The run has begun; Location says where its progress is.", body = PopulateRun,
         headers(("Location" = String, description = "Where the progress of the run is."))),
        (status = 400, description = "Not JSON.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "The key has another scope.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "Native pulses of these times are refused here (PULSE_FORMAT, PULSE_AGE_MAX).", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 413, description = "Too many bytes.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 415, description = "Not application/json.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "A field is missing, wrong or out of its bounds: `field` says which.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 429, description = "Another run is under way; see Retry-After.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The service is stopping.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn start(
    State(state): State<HttpState>,
    body: Result<Json<RunWish>, JsonRejection>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<PopulateRun>), Problem> {
    let Json(wish) = body?;
    let progress = state.populate.start(wish.order()?, Uuid::new_v4().to_string(), rand::random())?;
    let location = format!("/api/v1/pulses/populate/{}", progress.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(progress.into())))
}

/// How far a run is; the latest sixteen are remembered, by the process that runs them.
#[utoipa::path(
    get,
    path = "/api/v1/pulses/populate/{id}",
    tag = "pulses",
    security(("bearer" = ["ingest"])),
    params(("id" = String, Path, description = "The `id` of a run.")),
    responses(
        (status = 200, description = "The run.", body = PopulateRun),
        (status = 400, description = "Not an id.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "The key has another scope.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn progress(
    State(state): State<HttpState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<PopulateRun>, Problem> {
    let Path(id) = id?;
    let progress = state.populate.progress(&id);
    progress.map(|progress| Json(progress.into())).ok_or_else(|| Problem::not_found("there is no such run"))
}
