//! The doors of the routes: 401 for nobody, 403 for somebody who may not.

use super::super::{HttpState, Problem};
use application::{
    api_keys::{PresentedKey, recognise},
    ports::Scope,
};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Caller {
    /// The user, by a token: may do everything.
    User(String),
    /// A service, by its key: may do what its scope says.
    Service {
        /// The id of the key.
        key: String,
        /// What it may do.
        scope: Scope,
    },
}

impl Caller {
    /// A name that no other caller has.
    pub(in super::super) fn name(&self) -> String {
        match self {
            Self::User(name) => format!("user {name}"),
            Self::Service { key, .. } => format!("key {key}"),
        }
    }
}

/// Lets those in who may send pulses.
pub(in super::super) async fn ingest(
    State(state): State<HttpState>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    enter(&state, Some(Scope::Ingest), request, next).await
}

/// Lets those in who may ask what was used.
pub(in super::super) async fn read(
    State(state): State<HttpState>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    enter(&state, Some(Scope::Read), request, next).await
}

/// Lets the user in alone.
pub(in super::super) async fn admin(
    State(state): State<HttpState>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    enter(&state, None, request, next).await
}

async fn enter(
    state: &HttpState,
    needed: Option<Scope>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = caller(state, request.headers()).await?;
    if let Caller::Service { scope, .. } = &caller
        && Some(*scope) != needed
    {
        let detail = match needed {
            Some(needed) => format!("this key has the scope {}, not {}", scope.word(), needed.word()),
            None => "a key may not do this: log in".to_owned(),
        };
        return Err(Problem::forbidden(detail));
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

async fn caller(state: &HttpState, headers: &HeaderMap) -> Result<Caller, Problem> {
    let bearer = bearer(headers).ok_or_else(|| {
        Problem::unauthorized("send `Authorization: Bearer` with a token of /api/v1/login, or an API key")
    })?;
    if PresentedKey::parse(bearer).is_some() {
        let key = recognise(state.ports.keys.as_ref(), bearer).await?;
        return key
            .map(|key| Caller::Service { key: key.id, scope: key.scope })
            .ok_or_else(|| Problem::unauthorized("the key is not known, or was revoked"));
    }
    super::verify(state, bearer).map(Caller::User).map_err(|error| Problem::unauthorized(error.to_string()))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
