//! `/metrics`: what Prometheus asks for, beside the API or on a listener of its own.

use super::{HttpState, Problem, problem::ProblemDetails};
use crate::metrics::{MEDIA_TYPE, Metrics};
use axum::{
    Router,
    extract::State,
    http::{HeaderName, header},
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
        .fallback(async || Problem::not_found("there is nothing but /metrics here"))
        .with_state(metrics)
}

async fn answer(metrics: &Metrics) -> Answer {
    let text = metrics.text().await?;
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], text.to_string()))
}
