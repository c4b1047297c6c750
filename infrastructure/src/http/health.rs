//! `/healthz` and `/readyz`: whether the process is alive, and whether it can do its work.

use super::HttpState;
use application::ports::PortError;
use axum::{Json, extract::State, http::StatusCode};
use domain::{Shard, Timestamp};
use serde::Serialize;
use std::time::Duration;
use tokio::{join, time::timeout};
use utoipa::ToSchema;

/// How long a dependency may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// For how long an accepted event may wait before somebody should look.
const WAIT_LIMIT_SECONDS: i64 = 60;

/// That the process is alive.
#[derive(Serialize, ToSchema)]
pub(super) struct Alive {
    /// `alive`.
    status: &'static str,
}

/// What the service depends on.
#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    /// Whether everything is as it must be.
    ready: bool,
    dependencies: Vec<DependencyState>,
}

/// How one part is.
#[derive(Serialize, ToSchema)]
pub(super) struct DependencyState {
    name: String,
    /// `up`, `down`, or `stuck` where accepted events that are due wait for a minute and none was done in it.
    state: &'static str,
}

/// Whether the process is alive. Asks nobody else.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "service",
    security(()),
    responses((status = 200, description = "It is alive.", body = Alive))
)]
pub(super) async fn alive() -> Json<Alive> {
    Json(Alive { status: "alive" })
}

/// Whether every dependency answers, and accepted events are being counted.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "service",
    security(()),
    responses(
        (status = 200, description = "It can do its work.", body = Ready),
        (status = 503, description = "Something is away.", body = Ready),
    )
)]
pub(super) async fn ready(State(state): State<HttpState>) -> (StatusCode, Json<Ready>) {
    let ports = &state.ports;
    let (ledger, accumulator, intake, inbox) = join!(
        answer(ports.pending.registry.registration()),
        answer(ports.pending.shards.inspect(Shard(0))),
        answer(ports.intake.check()),
        answer(ports.inbox.depth()),
    );
    let now = (ports.now)();
    let long_ago = |moment: Timestamp| now.seconds() - moment.seconds() > WAIT_LIMIT_SECONDS;
    let inbox = match inbox {
        // A backlog that somebody works at is none of a broken service.
        Some(depth) if depth.oldest.is_some_and(long_ago) && depth.last_done.is_none_or(long_ago) => {
            DependencyState { name: "inbox".to_owned(), state: "stuck" }
        }
        inbox => DependencyState::up("inbox", inbox.is_some()),
    };
    told(vec![
        DependencyState::up("ledger", ledger.is_some()),
        DependencyState::up("accumulator", accumulator.is_some()),
        DependencyState::up("intake", intake.is_some()),
        inbox,
    ])
}

impl DependencyState {
    /// A part that answers, or does not.
    pub(super) fn up(name: impl Into<String>, is_up: bool) -> Self {
        Self { name: name.into(), state: if is_up { "up" } else { "down" } }
    }
}

/// The answer: 503 where a part is not up.
pub(super) fn told(dependencies: Vec<DependencyState>) -> (StatusCode, Json<Ready>) {
    let ready = dependencies.iter().all(|dependency| dependency.state == "up");
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, dependencies }))
}

/// The answer, if it comes in time.
async fn answer<T>(call: impl Future<Output = Result<T, PortError>>) -> Option<T> {
    timeout(ANSWER_LIMIT, call).await.ok()?.ok()
}
