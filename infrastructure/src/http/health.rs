//! `/healthz` and `/readyz`: whether the process is alive, and whether it can do its work.

use super::{HttpPorts, HttpState};
use application::ports::PortError;
use axum::{Json, extract::State, http::StatusCode};
use domain::{Shard, ShardCount, Timestamp};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use std::time::Duration;
use tokio::{
    join,
    sync::Mutex,
    time::{Instant, timeout},
};
use utoipa::ToSchema;

/// How long a dependency may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// For how long an answer is good for others too, so that the parts are not asked more often: nobody needs a login here.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// How many shards are asked at once.
const SHARDS_AT_ONCE: usize = 32;
/// For how long an accepted event may wait before somebody should look.
const WAIT_LIMIT_SECONDS: i64 = 60;

/// What was seen last, and when.
#[derive(Default)]
pub(super) struct Readiness(Mutex<Option<(Instant, Vec<DependencyState>)>>);

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
#[derive(Clone, Serialize, ToSchema)]
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
    let mut last = state.readiness.0.lock().await;
    if let Some((at, dependencies)) = &*last
        && at.elapsed() < GOOD_FOR
    {
        return told(dependencies.clone());
    }
    let dependencies = look(&state.ports).await;
    *last = Some((Instant::now(), dependencies.clone()));
    told(dependencies)
}

async fn look(ports: &HttpPorts) -> Vec<DependencyState> {
    let (ledger, first_shard, intake, inbox) = join!(
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
    let count = ledger.as_ref().and_then(|ledger| ledger.as_ref().map(|known| known.shards));
    let accumulator = first_shard.is_some() && has_all(ports, count).await;
    vec![
        DependencyState::up("ledger", ledger.is_some()),
        DependencyState::up("accumulator", accumulator),
        DependencyState::up("intake", intake.is_some()),
        inbox,
    ]
}

/// Whether all shards but the first answer: in a cluster they are on several servers.
async fn has_all(ports: &HttpPorts, count: Option<ShardCount>) -> bool {
    let others = count.into_iter().flat_map(ShardCount::shards).skip(1);
    let all = stream::iter(others)
        .map(|shard| ports.pending.shards.inspect(shard))
        .buffer_unordered(SHARDS_AT_ONCE)
        .try_for_each(async |_| Ok(()));
    answer(all).await.is_some()
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
