//! `/api/v1/keys`: the keys of services.

use super::{HttpState, Problem, filter::moment, problem::ProblemDetails};
use application::{
    api_keys::{NewKey, RANDOM_BYTES},
    ports::{ApiKey, Scope},
};
use axum::{
    Json,
    extract::{
        Path, State,
        rejection::{JsonRejection, PathRejection},
    },
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A key as it is kept.
#[derive(Serialize, ToSchema)]
pub(super) struct Key {
    id: String,
    /// What a person called it.
    name: String,
    /// `ingest` or `read`.
    scope: &'static str,
    created_at: String,
    /// From when on it is refused; null while it is in use.
    revoked_at: Option<String>,
}

impl From<ApiKey> for Key {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            name: key.name,
            scope: key.scope.word(),
            created_at: moment(key.created_at),
            revoked_at: key.revoked_at.map(moment),
        }
    }
}

/// All keys.
#[derive(Serialize, ToSchema)]
pub(super) struct Keys {
    data: Vec<Key>,
}

/// What a new key is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyWish {
    /// For people: 1 to 256 bytes.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    name: String,
    /// `ingest` to send pulses, `read` to ask what was used.
    #[schema(pattern = "^(ingest|read)$")]
    scope: String,
}

/// A new key.
#[derive(Serialize, ToSchema)]
pub(super) struct IssuedKey {
    /// The key itself: it is shown now and never again.
    key: String,
    #[serde(flatten)]
    stored: Key,
}

/// The keys, newest first; none of them can be read back.
#[utoipa::path(
    get,
    path = "/api/v1/keys",
    tag = "access",
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "The keys.", body = Keys),
        (status = 401, description = "Nobody is logged in.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "A key may not do this.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The store is away.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(State(state): State<HttpState>) -> Result<Json<Keys>, Problem> {
    let keys = state.ports.keys.list().await?;
    Ok(Json(Keys { data: keys.into_iter().map(Key::from).collect() }))
}

/// Makes a key.
#[utoipa::path(
    post,
    path = "/api/v1/keys",
    tag = "access",
    security(("bearer" = ["admin"])),
    responses(
        (status = 201, description = "The key, shown once.", body = IssuedKey),
        (status = 400, description = "Not JSON.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "A key may not do this.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 415, description = "Not application/json.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "A field is missing or wrong.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The store is away.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn make(
    State(state): State<HttpState>,
    body: Result<Json<KeyWish>, JsonRejection>,
) -> Result<(StatusCode, Json<IssuedKey>), Problem> {
    let Json(KeyWish { name, scope }) = body?;
    let scope =
        Scope::from_word(&scope).ok_or_else(|| Problem::invalid("scope", "scope must be ingest or read"))?;
    let random: [u8; RANDOM_BYTES] = rand::random();
    let NewKey { key, text } = NewKey::new(&random, &name, scope, (state.ports.now)())
        .map_err(|error| Problem::invalid("name", format!("name {error}")))?;
    state.ports.keys.add(&key).await?;
    Ok((StatusCode::CREATED, Json(IssuedKey { key: text, stored: key.into() })))
}

/// Refuses a key from now on.
#[utoipa::path(
    delete,
    path = "/api/v1/keys/{id}",
    tag = "access",
    security(("bearer" = ["admin"])),
    params(("id" = String, Path, description = "The `id` of a key.")),
    responses(
        (status = 204, description = "It is refused from now on, if it was not before."),
        (status = 401, description = "Nobody is logged in.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "A key may not do this.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The store is away.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn revoke(
    State(state): State<HttpState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(id) = id?;
    if state.ports.keys.revoke(&id, (state.ports.now)()).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("there is no such key"))
    }
}
