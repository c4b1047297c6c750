//! `POST /api/v1/login`.

use super::{HttpState, Problem, auth, problem::ProblemDetails};
use axum::{
    Json,
    extract::{ConnectInfo, State, rejection::JsonRejection},
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use utoipa::ToSchema;

/// Who wants to log in.
#[derive(Deserialize, ToSchema)]
pub(super) struct Login {
    username: String,
    password: String,
}

/// That somebody is logged in.
#[derive(Serialize, ToSchema)]
pub(super) struct LoggedIn {
    #[serde(rename = "Auth")]
    auth: IssuedToken,
}

/// What later requests carry.
#[derive(Serialize, ToSchema)]
pub(super) struct IssuedToken {
    /// For `Authorization: Bearer`.
    #[serde(rename = "Token")]
    token: String,
    /// From when on it is refused, in seconds since 1970.
    #[serde(rename = "ExpiresAt")]
    expires_at: i64,
}

/// Gives a token, good for four hours, for the name and password of the user.
#[utoipa::path(
    post,
    path = "/api/v1/login",
    tag = "access",
    security(()),
    responses(
        (status = 200, description = "A token.", body = LoggedIn),
        (status = 400, description = "Not JSON.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "Wrong name or password.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 413, description = "Too many bytes.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 415, description = "Not application/json.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "A field is missing or wrong.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 429, description = "Too many attempts; see Retry-After.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "Too many logins at once, or no answer in time; see Retry-After.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn login(
    State(state): State<HttpState>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    body: Result<Json<Login>, JsonRejection>,
) -> Result<Json<LoggedIn>, Problem> {
    let Json(Login { username, password }) = body?;
    let token = auth::login(&state, client.ip(), &username, &password).await?;
    let auth = IssuedToken { token: token.text, expires_at: token.expires_at };
    Ok(Json(LoggedIn { auth }))
}
