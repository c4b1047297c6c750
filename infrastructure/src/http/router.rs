//! Every route with its guard, and what all answers have in common.

use super::{
    HttpState, Problem, auth, dashboard, dead_letters,
    docs::{self, Description},
    health, keys, login, metrics, populate,
    problem::MEDIA_TYPE,
    pulses, totals, trace, usage, webhooks,
};
use axum::{
    Router,
    body::to_bytes,
    extract::{DefaultBodyLimit, Request, rejection::JsonRejection},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use tower::ServiceBuilder;
use tower_http::{ServiceBuilderExt, request_id::MakeRequestUuid, timeout::TimeoutLayer};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

/// How much of a plain text of the framework is read to be told as a problem.
const TEXT_BYTES_MAX: usize = 4_096;

/// The whole service.
pub(super) fn router(state: HttpState) -> Router {
    let limits = state.settings.limits;
    let (api, document) = api(&state).split_for_parts();
    let common = ServiceBuilder::new()
        .set_x_request_id(MakeRequestUuid)
        .propagate_x_request_id()
        .layer(from_fn(common_to_all))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, limits.timeout));
    api.merge(docs::routes(&document))
        .merge(dashboard::routes(&state))
        .fallback(async || Problem::not_found("there is no such page"))
        .layer(DefaultBodyLimit::max(limits.body_max))
        .layer(common)
        .with_state(state)
}

/// The most bytes of a body that anybody may send, or that is small by its nature.
pub(super) const SMALL_BODY_MAX: usize = 64 * 1024;

/// The routes for programs, and their document.
pub(super) fn api(state: &HttpState) -> OpenApiRouter<HttpState> {
    let public = OpenApiRouter::new()
        .routes(routes!(login::login))
        .routes(routes!(webhooks::take))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .layer(DefaultBodyLimit::max(SMALL_BODY_MAX));
    let populate = OpenApiRouter::new()
        .routes(routes!(populate::start))
        .routes(routes!(populate::progress))
        .layer(DefaultBodyLimit::max(SMALL_BODY_MAX));
    let ingest = OpenApiRouter::new()
        .routes(routes!(pulses::post))
        .merge(populate)
        .route_layer(from_fn_with_state(state.clone(), auth::ingest));
    let read = OpenApiRouter::new()
        .routes(routes!(totals::list))
        .routes(routes!(totals::one))
        .routes(routes!(usage::sums))
        .route_layer(from_fn_with_state(state.clone(), auth::read));
    let admin = OpenApiRouter::new()
        .routes(routes!(webhooks::list))
        .routes(routes!(webhooks::retry))
        .routes(routes!(webhooks::discard))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::one))
        .routes(routes!(dead_letters::replay))
        .routes(routes!(dead_letters::discard))
        .routes(routes!(keys::list, keys::make))
        .routes(routes!(keys::revoke))
        .layer(DefaultBodyLimit::max(SMALL_BODY_MAX))
        .route_layer(from_fn_with_state(state.clone(), auth::admin));
    OpenApiRouter::with_openapi(Description::openapi()).merge(public).merge(ingest).merge(read).merge(admin)
}

/// A span around it, and an answer that is safe in a browser and says problems as problems.
async fn common_to_all(request: Request, next: Next) -> Response {
    trace::trace(request, async move |request| secure(told(next.run(request).await).await)).await
}

/// Headers by which browsers keep pages from being framed, sniffed or fed from elsewhere.
fn secure(mut response: Response) -> Response {
    const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                          object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'";
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Says as a problem what the framework says as plain text, or not at all.
async fn told(response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let content_type = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let told = [MEDIA_TYPE.as_bytes(), b"application/json", b"text/html"];
    if content_type.is_some_and(|kind| told.iter().any(|told| kind.starts_with(told))) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, TEXT_BYTES_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let (code, words) = words(status);
    let detail = if text.trim().is_empty() { words } else { text.trim() };
    let mut problem = Problem::new(status, code, detail);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        problem = problem.retry_after(1);
    }
    let mut told = problem.into_response();
    for (name, value) in &parts.headers {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            told.headers_mut().append(name, value.clone());
        }
    }
    told
}

fn words(status: StatusCode) -> (&'static str, &'static str) {
    match status {
        StatusCode::BAD_REQUEST => ("bad_request", "the request cannot be read"),
        StatusCode::METHOD_NOT_ALLOWED => {
            ("method_not_allowed", "this page does not know the method; Allow says which it knows")
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            ("too_large", "the body has more bytes than HTTP_BODY_MAX allows: send it in parts")
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            ("unsupported_media_type", "the body is of a kind that is not read here")
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            ("timeout", "it took too long, and nothing is known about the effect: try again")
        }
        status if status.is_server_error() => ("internal", "the service has a fault"),
        _ => ("refused", "the request is refused"),
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let status = rejection.status();
        let code = if status == StatusCode::UNPROCESSABLE_ENTITY { "invalid_field" } else { words(status).0 };
        Self::new(status, code, rejection.body_text())
    }
}
