//! Webhooks: events of payments in, and a look after the inbox.

use super::{HttpState, Problem, filter::moment, problem::ProblemDetails};
use application::decode::{Decoder, Format};
use application::ports::{
    Dealt, Delivery, Envelope, InboxEntry, InboxEvent, InboxFilter, InboxStatus, PartitionId, Stored,
};
use application::trace::TraceContext;
use axum::{
    Extension, Json,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode},
};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::Sha256;
use utoipa::ToSchema;

/// The one source, which is the tenant of its pulses too.
const PAYMENTS: &str = "payments";
const SIGNATURE: &str = "x-webhook-signature";
const EVENTS_MAX: u32 = 100;
/// What the fields of a payment are called in the pulse that it becomes.
const NAMES: [(&str, &str); 4] =
    [("id", "event_id"), ("product_sku", "type"), ("used_amount", "amount"), ("use_unity", "currency")];

/// A payment, as its sender describes it. Fields beside these are allowed and kept.
#[derive(Deserialize, ToSchema)]
pub(super) struct Payment<'a> {
    /// Names the event: the same event may be sent again.
    #[serde(borrow)]
    #[schema(value_type = String)]
    event_id: Option<&'a RawValue>,
    /// What was paid for.
    #[serde(borrow, rename = "type")]
    #[schema(value_type = String)]
    kind: Option<&'a RawValue>,
    /// A decimal string greater than zero.
    #[serde(borrow)]
    #[schema(value_type = String)]
    amount: Option<&'a RawValue>,
    /// In what it was paid.
    #[serde(borrow)]
    #[schema(value_type = String)]
    currency: Option<&'a RawValue>,
    /// When, in RFC 3339.
    #[serde(borrow)]
    #[schema(value_type = String)]
    occurred_at: Option<&'a RawValue>,
}

/// The native pulse that a payment becomes; its values are the bytes of the payment's own.
#[derive(Serialize)]
struct PaymentPulse<'a> {
    id: &'a RawValue,
    tenant: &'static str,
    product_sku: &'a RawValue,
    used_amount: &'a RawValue,
    use_unity: &'a RawValue,
    occurred_at: &'a RawValue,
}

/// That an event is stored.
#[derive(Serialize, ToSchema)]
pub(super) struct Taken {
    ok: bool,
}

/// Takes the event of a payment; it is durable when this answers, and counted soon after.
///
/// Where `WEBHOOK_SECRET` is set, `X-Webhook-Signature: sha256=` and the HMAC-SHA256 of the raw body in hexadecimal digits
/// must be there. The same event again answers the same and counts once.
#[utoipa::path(
    post,
    path = "/webhooks/{source}",
    tag = "webhooks",
    security(()),
    params(
        ("source" = String, Path, description = "Who sends: `payments`.", pattern = "^payments$"),
        ("X-Webhook-Signature" = Option<String>, Header, description = "`sha256=` and the HMAC of the raw body."),
    ),
    request_body(content = inline(Payment<'static>), content_type = "application/json"),
    responses(
        (status = 200, description = "It is stored, now or before.", body = Taken),
        (status = 400, description = "Not JSON.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "The signature is missing or wrong.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "There is no such source.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "Another event with this id was stored before.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 413, description = "Too many bytes.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "A field is missing or wrong.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The store is away; send it again.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn take(
    State(state): State<HttpState>,
    Extension(trace): Extension<TraceContext>,
    source: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Taken>, Problem> {
    let Path(source) = source?;
    if source != PAYMENTS {
        return Err(Problem::not_found("there is no such source of webhooks; known is payments"));
    }
    let body = body?;
    if let Some(secret) = &state.settings.webhook_secret {
        check_signature(secret.expose_secret().as_bytes(), &headers, &body)?;
    }
    let mut event = event(&state, &body)?;
    event.envelope.headers.extend(trace.headers());
    if let Some(Stored::New | Stored::Known) = state.ports.inbox.store(&[event]).await?.first() {
        return Ok(Json(Taken { ok: true }));
    }
    let detail = "another event with this event_id was stored before";
    Err(Problem::new(StatusCode::CONFLICT, "conflict", detail).of_field("event_id"))
}

fn check_signature(secret: &[u8], headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    let wrong =
        || Problem::unauthorized("X-Webhook-Signature must be sha256= and the HMAC-SHA256 of the raw body");
    let text = headers.get(SIGNATURE).and_then(|value| value.to_str().ok()).ok_or_else(wrong)?;
    let signature = text.strip_prefix("sha256=").and_then(bytes_of_hex).ok_or_else(wrong)?;
    let mac = Hmac::<Sha256>::new_from_slice(secret).map_err(|_| wrong())?;
    // Compares in constant time.
    mac.chain_update(body).verify_slice(&signature).map_err(|_| wrong())
}

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    digits
        .filter(|digits| digits.len() == 64)
        .map(|digits| digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect())
}

fn required<'a>(field: &str, value: Option<&'a RawValue>) -> Result<&'a RawValue, Problem> {
    value.filter(|value| value.get() != "null").ok_or_else(|| {
        let detail = format!("{field} is missing");
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "missing_field", detail).of_field(field)
    })
}

fn event(state: &HttpState, body: &[u8]) -> Result<InboxEvent, Problem> {
    let payment: Payment<'_> = serde_json::from_slice(body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "malformed", format!("not the event of a payment: {error}"))
    })?;
    let id = required("event_id", payment.event_id)?;
    let product_sku = required("type", payment.kind)?;
    let used_amount = required("amount", payment.amount)?;
    let use_unity = required("currency", payment.currency)?;
    let occurred_at = required("occurred_at", payment.occurred_at)?;
    if !used_amount.get().starts_with('"') {
        return Err(Problem::invalid("amount", "amount must be a decimal string, such as \"5000\""));
    }
    let pulse = PaymentPulse { id, tenant: PAYMENTS, product_sku, used_amount, use_unity, occurred_at };
    let unwritable =
        |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the event could not be kept");
    let pulse = serde_json::to_vec(&pulse).map_err(unwritable)?;
    let received_at = (state.ports.now)();
    let envelope = Envelope { content_type: Some("application/json".to_owned()), ..Envelope::default() };
    let delivery = Delivery {
        partition: PartitionId(0),
        sequence: 0,
        log: None,
        returns: 0,
        body: pulse,
        envelope,
        received_at,
    };
    check(state, &delivery)?;
    let event_id: String = serde_json::from_str(id.get())
        .map_err(|_| Problem::invalid("event_id", "event_id must be a string"))?;
    Ok(InboxEvent {
        source: PAYMENTS.to_owned(),
        event_id,
        original: Some(body.to_vec()),
        body: delivery.body,
        envelope: delivery.envelope,
        received_at,
    })
}

/// Refuses what the engine would refuse, by the names that the sender knows.
fn check(state: &HttpState, delivery: &Delivery) -> Result<(), Problem> {
    let decoder = Decoder { format: Format::Pulse, ..state.ports.decoder.clone() };
    let mut items = Vec::new();
    decoder.decode(delivery, &mut items);
    let Some(refused) = items.into_iter().find_map(|item| item.pulse.err()) else { return Ok(()) };
    let field = refused.field().unwrap_or_default();
    let name = NAMES.iter().find(|(ours, _)| *ours == field).map_or(field, |(_, theirs)| theirs);
    let detail = refused.detail.strip_prefix(field).map(|rest| format!("{name}{rest}"));
    let detail = detail.unwrap_or_else(|| refused.detail.clone());
    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, refused.reason.code(), detail);
    Err(if name.is_empty() { problem } else { problem.of_field(name) })
}

/// Which events.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Only with this status: `received`, `processing`, `done` or `failed`.
    #[param(pattern = "^(received|processing|done|failed)$")]
    status: Option<String>,
    /// Only of this source: `payments`, or `pulses` for what was posted to the API.
    source: Option<String>,
    /// Only older ones than this: the last `id` of the page before.
    before: Option<i64>,
    /// How many: 1 to 100.
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: u32,
}

const fn default_limit() -> u32 {
    20
}

/// Events, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct Events {
    data: Vec<Event>,
}

/// An event of the inbox.
#[derive(Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the fields are the names of the contract")]
pub(super) struct Event {
    id: i64,
    source: String,
    event_id: String,
    /// `received`, `processing`, `done` or `failed`.
    status: &'static str,
    /// How often a worker has taken it up.
    attempts: u32,
    /// Why the last attempt did not end well.
    last_error: Option<String>,
    received_at: String,
    /// When it was done, or failed for good.
    processed_at: Option<String>,
}

impl From<InboxEntry> for Event {
    fn from(entry: InboxEntry) -> Self {
        Self {
            id: entry.id,
            source: entry.source,
            event_id: entry.event_id,
            status: entry.status.word(),
            attempts: entry.attempts,
            last_error: entry.last_error,
            received_at: moment(entry.received_at),
            processed_at: entry.processed_at.map(moment),
        }
    }
}

/// The events of the inbox, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/webhooks",
    tag = "webhooks",
    security(("bearer" = ["admin"])),
    params(EventsQuery),
    responses(
        (status = 200, description = "Events.", body = Events),
        (status = 400, description = "A parameter that is not known or cannot be read.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "A key may not do this.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "A parameter out of its range.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The store is away.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(state): State<HttpState>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<Events>, Problem> {
    let Query(EventsQuery { status, source, before, limit }) = query?;
    let status = status.map(|word| {
        let problem = || Problem::invalid("status", "status must be received, processing, done or failed");
        InboxStatus::from_word(&word).ok_or_else(problem)
    });
    let status = status.transpose()?;
    if !(1..=EVENTS_MAX).contains(&limit) {
        return Err(Problem::invalid("limit", format!("limit must be 1 to {EVENTS_MAX}")));
    }
    let entries = state.ports.inbox.list(&InboxFilter { status, source, before, limit }).await?;
    Ok(Json(Events { data: entries.into_iter().map(Event::from).collect() }))
}

/// Sends a failed event round again.
#[utoipa::path(
    post,
    path = "/api/v1/webhooks/{id}/retry",
    tag = "webhooks",
    security(("bearer" = ["admin"])),
    params(("id" = i64, Path, description = "The `id` of an event.")),
    responses(
        (status = 202, description = "It waits again.", body = Taken),
        (status = 400, description = "Not a number.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "A key may not do this.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "It has not failed.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The store is away.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn retry(
    State(state): State<HttpState>,
    id: Result<Path<i64>, PathRejection>,
) -> Result<(StatusCode, Json<Taken>), Problem> {
    let Path(id) = id?;
    failed_only(id, state.ports.inbox.retry(id).await?)?;
    Ok((StatusCode::ACCEPTED, Json(Taken { ok: true })))
}

/// Removes a failed event for good. The same event sent again is a new one.
#[utoipa::path(
    post,
    path = "/api/v1/webhooks/{id}/discard",
    tag = "webhooks",
    security(("bearer" = ["admin"])),
    params(("id" = i64, Path, description = "The `id` of an event.")),
    responses(
        (status = 200, description = "It is gone.", body = Taken),
        (status = 400, description = "Not a number.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "A key may not do this.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "It has not failed.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The store is away.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn discard(
    State(state): State<HttpState>,
    id: Result<Path<i64>, PathRejection>,
) -> Result<Json<Taken>, Problem> {
    let Path(id) = id?;
    failed_only(id, state.ports.inbox.discard(id).await?)?;
    Ok(Json(Taken { ok: true }))
}

fn failed_only(id: i64, settled: Dealt) -> Result<(), Problem> {
    match settled {
        Dealt::Done => Ok(()),
        Dealt::NotFailed(status) => {
            let detail = format!(
                "event {id} is {}: only a failed one can be sent round again or discarded",
                status.word()
            );
            Err(Problem::new(StatusCode::CONFLICT, "not_failed", detail))
        }
        Dealt::Unknown => Err(Problem::not_found(format!("there is no event {id}"))),
    }
}
