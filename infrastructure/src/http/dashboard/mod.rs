//! The pages for people. Whoever has no session is sent to `/login`.
//!
//! Server-rendered; the one script fetches the live part again every two seconds. Assets are our own files, and the
//! policy of each answer allows nothing else.
//!
//! - `look`: one look at all parts, shared by all who look at the same time.
//! - `live`, `usage`, `letters` with `letter_actions`, `login`: the pages; `page`: what they have in common.
//! - `chart`: SVG; `format`: numbers and times.

mod chart;
mod format;
mod letter_actions;
mod letters;
mod live;
mod login;
mod look;
mod page;
mod usage;
mod usage_query;

pub use look::Dashboard;

use super::{
    HttpState,
    auth::{session_token, verify},
    router::SMALL_BODY_MAX,
};
use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, Query, Request, State},
    http::{HeaderName, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Redirect, Response},
    routing::{MethodRouter, get, post},
};
use letter_actions::Told;
use page::{Place, answer, page};
use usage_query::UsageQuery;

/// Where the live part is fetched from.
const LIVE: &str = "/live";
/// Assets change with the program only.
const ASSET_CACHE: (HeaderName, &str) = (header::CACHE_CONTROL, "max-age=300");

/// The routes of the pages, each with its own check of the session.
pub(super) fn routes(state: &HttpState) -> Router<HttpState> {
    let pages = Router::new()
        .route("/", get(overview))
        .route(LIVE, get(live_part))
        .route("/usage", get(usage_page))
        .route("/usage.csv", get(usage_csv))
        .route("/dead-letters", get(dead_letters).post(letter_actions::act))
        .route("/dead-letters/confirm", get(letter_actions::confirm))
        .layer(DefaultBodyLimit::max(SMALL_BODY_MAX))
        .route_layer(from_fn_with_state(state.clone(), logged_in));
    Router::new()
        .route("/login", get(login::show).post(login::enter).layer(DefaultBodyLimit::max(SMALL_BODY_MAX)))
        .route("/logout", post(login::leave))
        .route("/assets/dashboard.css", asset("text/css", include_str!("assets/dashboard.css")))
        .route("/assets/dashboard.js", asset("text/javascript", include_str!("assets/dashboard.js")))
        .route("/assets/icon.svg", asset("image/svg+xml", include_str!("assets/icon.svg")))
        .merge(pages)
}

fn asset(kind: &'static str, text: &'static str) -> MethodRouter<HttpState> {
    get(move || async move { ([(header::CONTENT_TYPE, kind), ASSET_CACHE], text) })
}

/// Who is logged in.
#[derive(Clone)]
struct User(String);

/// Whether a request that changes something comes from a page of ours: the cookie alone would come from any page of the same
/// site, other ports among them. Without both headers it is no browser's.
fn is_ours(request: &Request) -> bool {
    let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    if request.method().is_safe() {
        return true;
    }
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return site == "same-origin";
    }
    let host = text(header::HOST);
    text(header::ORIGIN).is_none_or(|origin| origin.split_once("://").map(|(_, rest)| rest) == host)
}

/// Lets those in who have a session. The script is told by 401, which it can see, and a browser is sent to log in.
async fn logged_in(State(state): State<HttpState>, mut request: Request, next: Next) -> Response {
    if !is_ours(&request) {
        return StatusCode::FORBIDDEN.into_response();
    }
    match session_token(request.headers()).map(|token| verify(&state, token)) {
        Some(Ok(user)) => {
            request.extensions_mut().insert(User(user));
            next.run(request).await
        }
        _ if request.uri().path() == LIVE => StatusCode::UNAUTHORIZED.into_response(),
        _ => Redirect::to("/login").into_response(),
    }
}

async fn overview(State(state): State<HttpState>, Extension(User(user)): Extension<User>) -> Response {
    let look = state.ports.dashboard.look().await;
    answer(StatusCode::OK, page(Place::Overview, &user, &live::content(&look, (state.ports.now)())))
}

async fn live_part(State(state): State<HttpState>) -> Response {
    let look = state.ports.dashboard.look().await;
    answer(StatusCode::OK, live::fragment(&look, (state.ports.now)()))
}

async fn usage_page(
    State(state): State<HttpState>,
    Extension(User(user)): Extension<User>,
    Query(query): Query<UsageQuery>,
) -> Response {
    let look = async { state.ports.dashboard.look().await.overview.counting.answer.clone().ok() };
    let (status, content) = match query.wanted() {
        Err(faults) => (StatusCode::UNPROCESSABLE_ENTITY, usage::content(&query, Err(&faults), None)),
        Ok(wanted) => {
            let (found, counting) = tokio::join!(usage::usage(&*state.ports.queries, &wanted), look);
            let status = if found.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let pending = counting.map(|counting| counting.pending);
            (status, usage::content(&query, Ok((&wanted, &found)), pending))
        }
    };
    answer(status, page(Place::Usage, &user, &content))
}

async fn usage_csv(State(state): State<HttpState>, Query(query): Query<UsageQuery>) -> Response {
    let Ok(wanted) = query.wanted() else {
        return Redirect::to(&format!("/usage?{}", query.link(&[]))).into_response();
    };
    match usage::csv(&*state.ports.queries, &wanted).await {
        Ok(text) => {
            let name = "attachment; filename=\"usage.csv\"";
            ([(header::CONTENT_TYPE, "text/csv; charset=utf-8"), (header::CONTENT_DISPOSITION, name)], text)
                .into_response()
        }
        Err(error) => (error.status(), error.to_string()).into_response(),
    }
}

async fn dead_letters(
    State(state): State<HttpState>,
    Extension(User(user)): Extension<User>,
    Query(told): Query<Told>,
) -> Response {
    let places = letters::letters(&state.ports.letters).await;
    answer(StatusCode::OK, page(Place::DeadLetters, &user, &letters::content(&told.shown(), &places)))
}

#[cfg(test)]
mod tests;
