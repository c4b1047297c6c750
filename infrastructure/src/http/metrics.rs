//! `/metrics`: what Prometheus asks for, beside the API or on a listener of its own, where health is told too.

use super::{
    HttpState, Problem,
    health::{self, DependencyState, Ready},
    problem::ProblemDetails,
};
use crate::metrics::{MEDIA_TYPE, Metrics};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderName, StatusCode, header},
    routing::get,
};
use std::sync::Arc;

type Answer = Result<([(HeaderName, &'static str); 1], String), Problem>;

/// Rates, durations, what waits and what is away, in the text format of Prometheus; no older than a second.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "service",
    security(()),
    responses(
        (status = 200, description = "The metrics of this process.", body = String, content_type = "text/plain"),
        (status = 500, description = "A defect.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn metrics(State(state): State<HttpState>) -> Answer {
    answer(&state.ports.metrics).await
}

/// The service of a process without an API.
pub(super) fn router(metrics: Arc<Metrics>) -> Router {
    let own = async |State(metrics): State<Arc<Metrics>>| answer(&metrics).await;
    Router::new()
        .route("/metrics", get(own))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(ready))
        .fallback(async || Problem::not_found("there is nothing but /metrics, /healthz and /readyz here"))
        .with_state(metrics)
}

/// Whether every dependency of this process answers, and none of its calls is being made again.
async fn ready(State(metrics): State<Arc<Metrics>>) -> Result<(StatusCode, Json<Ready>), Problem> {
    let dependencies = metrics.dependencies().await?;
    Ok(health::told(dependencies.into_iter().map(|(name, up)| DependencyState::up(name, up)).collect()))
}

async fn answer(metrics: &Metrics) -> Answer {
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], metrics.text().await?))
}
