//! The pages for people. Whoever has no session is sent to `/login`.

use super::HttpState;
use axum::Router;

/// The routes of the pages, each with its own check of the session.
pub(super) fn routes() -> Router<HttpState> {
    Router::new()
}
