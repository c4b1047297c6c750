//! `/api/v1/dead-letters`: what was refused, sent back or discarded.

use super::{HttpState, Problem, filter::moment, problem::ProblemDetails};
use application::{
    dead_letters::{Bound, Handled, LetterFilter, NamedPlace, Seen, Wish, find, handle, replays, survey},
    ports::{PortError, StoredLetter},
};
use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::StatusCode,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::DateTime;
use domain::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use utoipa::ToSchema;

const LETTERS_MAX: u32 = 100;
const IDS_MAX: usize = 1_000;

/// Which letters.
#[derive(Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LettersQuery {
    /// Only of this place: `file`, `rabbitmq` or `kafka`.
    #[param(pattern = "^(file|rabbitmq|kafka)$")]
    place: Option<String>,
    /// Only with this code of a reason.
    reason: Option<String>,
    /// Only of this tenant, where the body names one as a native pulse or a `CloudEvent` does.
    tenant: Option<String>,
    /// Only of this source.
    source: Option<String>,
    /// Only those that arrived at this time, in RFC 3339, or later.
    #[param(format = "date-time")]
    since: Option<String>,
    /// How many of each place, the latest: 1 to 100.
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: u32,
}

const fn default_limit() -> u32 {
    20
}

/// The letters, of each place the latest first, and how many there are.
#[derive(Serialize, ToSchema)]
pub(super) struct Letters {
    data: Vec<Letter>,
    places: Vec<PlaceSurvey>,
}

/// A place of dead letters.
#[derive(Serialize, ToSchema)]
pub(super) struct PlaceSurvey {
    place: &'static str,
    /// How many letters fit.
    fitting: u64,
    /// How many of these there are by the code of their reason.
    reasons: BTreeMap<String, u64>,
    /// How many were looked at.
    looked_at: u64,
    /// Whether that is all of them; a request takes a bounded time.
    complete: bool,
}

/// A refused pulse, or a message that none could be read from.
#[derive(Serialize, ToSchema)]
pub(super) struct Letter {
    /// Copies of one letter share it.
    id: String,
    place: &'static str,
    /// The code of the reason.
    reason: String,
    detail: String,
    source: String,
    /// Which pulse of its message, from 0; null for the whole message.
    item: Option<u32>,
    /// Where it can be read.
    tenant: Option<String>,
    /// How often it was sent back before.
    replays: u32,
    received_at: Option<String>,
    /// Why it cannot be sent back, where it cannot.
    obstacle: Option<String>,
    /// How many bytes there are.
    body_bytes: usize,
    /// The beginning of the body as text.
    body: String,
}

impl Letter {
    fn new(place: &'static str, seen: &Seen) -> Self {
        let letter = &seen.letter;
        Self {
            tenant: seen.tenant.clone(),
            replays: replays(&letter.envelope),
            id: letter.id.clone(),
            place,
            reason: letter.reason.clone(),
            detail: letter.detail.clone(),
            source: letter.source.clone(),
            item: letter.item,
            received_at: letter.received_at.map(moment),
            obstacle: letter.obstacle.clone(),
            body_bytes: seen.body_bytes,
            body: String::from_utf8_lossy(&letter.body).into_owned(),
        }
    }
}

/// A letter with everything that is known.
#[derive(Serialize, ToSchema)]
pub(super) struct WholeLetter {
    #[serde(flatten)]
    letter: Letter,
    /// The original bytes, in Base64.
    body_base64: String,
    /// The id of the message; `refused-` and 32 digits where it had none.
    message_id: Option<String>,
    content_type: Option<String>,
    /// The routing key of RabbitMQ, or the key of Kafka.
    routing_key: Option<String>,
    headers: Vec<LetterHeader>,
    /// Where the message is in a log.
    log_place: Option<String>,
}

/// A header of the message.
#[derive(Serialize, ToSchema)]
pub(super) struct LetterHeader {
    name: String,
    value: String,
}

/// Which letters, and how. At least one of `ids`, `reason`, `tenant`, `source`, `since` and `all` must be there; those that
/// are there must all fit.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LettersWish {
    /// Only of this place: `file`, `rabbitmq` or `kafka`.
    #[schema(pattern = "^(file|rabbitmq|kafka)$")]
    place: Option<String>,
    /// These.
    #[serde(default)]
    #[schema(max_items = 1_000)]
    ids: Vec<String>,
    /// Only with this code of a reason.
    reason: Option<String>,
    /// Only of this tenant, where it can be read.
    tenant: Option<String>,
    /// Only of this source.
    source: Option<String>,
    /// Only those that arrived at this time, in RFC 3339, or later.
    #[schema(format = "date-time")]
    since: Option<String>,
    /// All letters, where nothing else is there.
    #[serde(default)]
    all: bool,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// With replay: also those that came back three times.
    #[serde(default)]
    force: bool,
}

/// What was done, by place.
#[derive(Serialize, ToSchema)]
pub(super) struct LettersDone {
    dry_run: bool,
    places: Vec<PlaceDone>,
}

/// What was done in a place.
#[derive(Serialize, ToSchema)]
pub(super) struct PlaceDone {
    place: &'static str,
    /// How many letters were looked at.
    looked_at: u64,
    /// How many fit.
    fitting: u64,
    /// With how many it was done, or would be in a dry run.
    done: u64,
    /// How many came back too often and stay without `force`.
    circling: u64,
    /// How many cannot be sent back and stay, by the obstacle.
    obstructed: BTreeMap<String, u64>,
    /// Whether all letters were looked at: otherwise ask again.
    complete: bool,
}

/// The latest letters that fit.
#[utoipa::path(
    get,
    path = "/api/v1/dead-letters",
    tag = "dead letters",
    security(("bearer" = ["admin"])),
    params(LettersQuery),
    responses(
        (status = 200, description = "Letters.", body = Letters),
        (status = 400, description = "A parameter that is not known or cannot be read.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "A key may not do this.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "A parameter out of its range.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "A place is away.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(state): State<HttpState>,
    query: Result<Query<LettersQuery>, QueryRejection>,
) -> Result<Json<Letters>, Problem> {
    let Query(LettersQuery { place, reason, tenant, source, since, limit }) = query?;
    if !(1..=LETTERS_MAX).contains(&limit) {
        return Err(Problem::invalid("limit", format!("limit must be 1 to {LETTERS_MAX}")));
    }
    let filter = LetterFilter { ids: Vec::new(), reason, tenant, source, since: moment_of(since)? };
    let mut answer = Letters { data: Vec::new(), places: Vec::new() };
    for NamedPlace { name, place, .. } in places(&state, place.as_deref())? {
        let found = survey(place.as_ref(), &filter, limit as usize, bound(&state)).await?;
        answer.data.extend(found.letters.iter().rev().map(|seen| Letter::new(name, seen)));
        let (fitting, looked_at, complete) = (found.fitting, found.looked_at, found.complete);
        answer.places.push(PlaceSurvey { place: name, fitting, reasons: found.reasons, looked_at, complete });
    }
    Ok(Json(answer))
}

/// A letter with its original bytes.
#[utoipa::path(
    get,
    path = "/api/v1/dead-letters/{id}",
    tag = "dead letters",
    security(("bearer" = ["admin"])),
    params(("id" = String, Path, description = "The `id` of a letter.")),
    responses(
        (status = 200, description = "The letter.", body = WholeLetter),
        (status = 400, description = "Not an id.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "A key may not do this.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "A place is away, or holds more than a request can look at.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn one(
    State(state): State<HttpState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<WholeLetter>, Problem> {
    let Path(id) = id?;
    let mut all = true;
    for NamedPlace { name, place, .. } in places(&state, None)? {
        let (found, complete) = find(place.as_ref(), &id, bound(&state)).await?;
        all &= complete;
        if let Some(found) = found {
            let body = found.body.clone();
            let seen = Seen::new(found);
            let letter = Letter::new(name, &seen);
            let StoredLetter { envelope, place, .. } = seen.letter;
            return Ok(Json(WholeLetter {
                letter,
                body_base64: STANDARD.encode(&body),
                message_id: envelope.message_id,
                content_type: envelope.content_type,
                routing_key: envelope.routing_key,
                headers: envelope
                    .headers
                    .into_iter()
                    .map(|(name, value)| LetterHeader { name, value })
                    .collect(),
                log_place: Some(place).filter(|place| !place.is_empty()),
            }));
        }
    }
    if all {
        return Err(Problem::not_found("there is no such letter"));
    }
    let far = "there are more letters than a request can look at: `app dead-letters show` looks at all";
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_all_looked_at", far))
}

/// Sends letters back to where their messages came from.
///
/// Each counts once within the window of copies, however often this is repeated. A request takes a bounded time: where
/// `complete` is false, ask again.
#[utoipa::path(
    post,
    path = "/api/v1/dead-letters/replay",
    tag = "dead letters",
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "What was done.", body = LettersDone),
        (status = 400, description = "Not JSON.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "A key may not do this.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 413, description = "Too many bytes.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 415, description = "Not application/json.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "A field is missing or wrong.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "A place is away; some letters may have gone. Ask again.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn replay(
    State(state): State<HttpState>,
    body: Result<Json<LettersWish>, JsonRejection>,
) -> Result<Json<LettersDone>, Problem> {
    let Json(wished) = body?;
    let wish = Wish::Replay { force: wished.force };
    fulfil(&state, wish, wished).await
}

/// Removes letters for good.
#[utoipa::path(
    post,
    path = "/api/v1/dead-letters/discard",
    tag = "dead letters",
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "What was done.", body = LettersDone),
        (status = 400, description = "Not JSON.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "A key may not do this.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 413, description = "Too many bytes.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 415, description = "Not application/json.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "A field is missing or wrong.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "A place is away; some letters may be gone. Ask again.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn discard(
    State(state): State<HttpState>,
    body: Result<Json<LettersWish>, JsonRejection>,
) -> Result<Json<LettersDone>, Problem> {
    let Json(wished) = body?;
    if wished.force {
        return Err(Problem::invalid("force", "force means nothing where letters are discarded"));
    }
    fulfil(&state, Wish::Discard, wished).await
}

/// As [`handle`], and told in `/metrics`, also what was done before an error.
pub(super) async fn counted(
    state: &HttpState,
    place: &NamedPlace,
    filter: &LetterFilter,
    wish: Wish,
    dry_run: bool,
    bound: Bound,
) -> Result<Handled, PortError> {
    let mut handled = Handled::default();
    let outcome = handle(place.place.as_ref(), filter, wish, dry_run, bound, &mut handled).await;
    if !dry_run {
        state.ports.metrics.note_letters(place.name, wish, handled.done);
    }
    outcome.map(|()| handled)
}

async fn fulfil(state: &HttpState, wish: Wish, wished: LettersWish) -> Result<Json<LettersDone>, Problem> {
    let LettersWish { place, ids, reason, tenant, source, since, all, dry_run, force: _ } = wished;
    if ids.len() > IDS_MAX {
        return Err(Problem::invalid("ids", format!("ids must be at most {IDS_MAX}")));
    }
    let filter = LetterFilter { ids, reason, tenant, source, since: moment_of(since)? };
    if filter.is_all() != all {
        let detail = "say which letters: ids, reason, tenant, source or since; or all, and none of these";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "missing_field", detail).of_field("all"));
    }
    let mut answer = LettersDone { dry_run, places: Vec::new() };
    for named in places(state, place.as_deref())? {
        let name = named.name;
        let handled = counted(state, named, &filter, wish, dry_run, bound(state)).await?;
        let Handled { looked_at, fitting, done, circling, obstructed, complete } = handled;
        answer.places.push(PlaceDone {
            place: name,
            looked_at,
            fitting,
            done,
            circling,
            obstructed,
            complete,
        });
    }
    Ok(Json(answer))
}

/// The one that is asked for, or all.
fn places<'a>(
    state: &'a HttpState,
    wanted: Option<&str>,
) -> Result<impl Iterator<Item = &'a NamedPlace>, Problem> {
    let places = &state.ports.letters;
    if wanted.is_some_and(|wanted| !places.iter().any(|place| place.name == wanted)) {
        let names: Vec<&str> = places.iter().map(|place| place.name).collect();
        return Err(Problem::invalid(
            "place",
            format!("place must be one of those here: {}", names.join(", ")),
        ));
    }
    let wanted = wanted.map(ToOwned::to_owned);
    Ok(places.iter().filter(move |place| wanted.as_ref().is_none_or(|wanted| wanted == place.name)))
}

/// Half of what a request may take, shared by all places: the answer is to come before the request is cut off.
pub(super) fn bound(state: &HttpState) -> Bound {
    let places = u32::try_from(state.ports.letters.len().max(1)).unwrap_or(u32::MAX);
    let time: Duration = state.settings.limits.timeout / 2 / places;
    Bound { letters: None, time: Some(time) }
}

fn moment_of(text: Option<String>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let time = DateTime::parse_from_rfc3339(&text).map_err(|error| {
        Problem::invalid("since", format!("since must be RFC 3339, like 2026-01-10T12:00:00Z: {error}"))
    })?;
    Ok(Some(Timestamp::new(time.timestamp(), time.timestamp_subsec_nanos())))
}
