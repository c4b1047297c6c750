//! `POST /api/v1/pulses`: pulses in.

use super::{HttpState, Problem, auth::Caller, problem::ProblemDetails};
use application::{
    accept_pulses::{AcceptPulses, NotAccepted, Submission, Verdict},
    ports::Envelope,
    trace::TraceContext,
};
use axum::{
    Extension, Json,
    body::Bytes,
    extract::{FromRequestParts, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use domain::{Reason, Rejection};
use flate2::read::MultiGzDecoder;
use serde::Serialize;
use serde_json::json;
use std::{io::Read, sync::Arc};
use tokio::{sync::OwnedSemaphorePermit, task::spawn_blocking};
use utoipa::{
    ToSchema,
    openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type},
};
use uuid::Uuid;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// `CloudEvents` in binary mode has its attributes in headers that begin so.
const ATTRIBUTE: &str = "ce-";
const MEDIA_TYPES: [&str; 7] = [
    "application/json",
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
];

/// One pulse, or an array of them.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what the decoder reads")]
pub(super) enum Pulses {
    One(NativePulse),
    Many(ManyPulses),
}

#[derive(ToSchema)]
#[schema(min_items = 1)]
#[expect(dead_code, reason = "it describes what the decoder reads")]
pub(super) struct ManyPulses(Vec<NativePulse>);

/// How much a tenant used of a product. Fields beside these are allowed and ignored; none may come twice.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what the decoder reads")]
pub(super) struct NativePulse {
    /// Names the pulse: sent again with the same id it counts once. No field and null are the same.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    id: Option<String>,
    /// Who used it: 1 to 256 bytes.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    tenant: String,
    /// What was used: 1 to 256 bytes.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    product_sku: String,
    /// Greater than zero, below 10^16, exact to nine decimals: a number, or its digits as a string.
    #[schema(schema_with = used_amount)]
    used_amount: String,
    /// In what it is measured: 1 to 256 bytes. `unit` is another name of this field.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    use_unity: String,
    /// When, in RFC 3339; otherwise it counts in the hour in which it arrives.
    #[schema(format = DateTime)]
    occurred_at: Option<String>,
}

fn used_amount() -> Schema {
    let number = ObjectBuilder::new()
        .schema_type(Type::Number)
        .exclusive_minimum(Some(0))
        .maximum(Some(9_999_999_999_999_999_i64));
    let digits =
        ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9]{1,16}([.][0-9]{1,9})?$"));
    OneOfBuilder::new().item(number).item(digits).into()
}

/// What became of a body of pulses.
#[derive(Serialize, ToSchema)]
pub(super) struct Verdicts {
    /// How many are durable and will be counted.
    accepted: usize,
    /// How many are refused.
    rejected: usize,
    /// Each of them.
    items: Vec<ItemVerdict>,
}

/// What became of one pulse.
#[derive(Serialize, ToSchema)]
pub(super) struct ItemVerdict {
    /// Its place in the body, from 0.
    index: u32,
    /// `accepted` or `rejected`.
    status: &'static str,
    /// The kind of fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The fault in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl From<Vec<Verdict>> for Verdicts {
    fn from(verdicts: Vec<Verdict>) -> Self {
        let rejected = verdicts.iter().filter(|verdict| verdict.refused.is_some()).count();
        let item = |Verdict { index, refused }| match refused {
            None => ItemVerdict { index, status: "accepted", reason: None, detail: None },
            Some(Rejection { reason, detail }) => {
                ItemVerdict { index, status: "rejected", reason: Some(reason.code()), detail: Some(detail) }
            }
        };
        Self {
            accepted: verdicts.len() - rejected,
            rejected,
            items: verdicts.into_iter().map(item).collect(),
        }
    }
}

/// A place for a body, taken before the body is read, so that all of them together stay bounded.
pub(super) struct Place(#[expect(dead_code, reason = "it is held, not used")] OwnedSemaphorePermit);

impl FromRequestParts<HttpState> for Place {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        Arc::clone(&state.ingests).try_acquire_owned().map(Self).map_err(|_| {
            let detail = "too many bodies of pulses at once: try again";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).retry_after(1)
        })
    }
}

/// Takes pulses and answers when they are durable: one, an array, one a line, or `CloudEvents` 1.0 (structured, batch, or
/// binary in `ce-` headers), also compressed with gzip.
///
/// A batch has a verdict for each pulse; the good ones of it count. A pulse with an `id` counts once however often it is
/// sent. With the header `Idempotency-Key` that holds for pulses without an id too, as long as the same body is sent
/// with it; such a body is then accepted whole or not at all.
#[utoipa::path(
    post,
    path = "/api/v1/pulses",
    tag = "pulses",
    security(("bearer" = ["ingest"])),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Up to 128 visible characters; names this body for repetitions of it.", min_length = 1, max_length = 128, pattern = "^[!-~]*$"),
    ),
    request_body(
        content_type = "application/json",
        description = "A pulse or an array of them, plain or with `Content-Encoding: gzip`; also one a line as application/x-ndjson, application/cloudevents+json, application/cloudevents-batch+json.",
        content = inline(Pulses),
    ),
    responses(
        (status = 202, description = "Everything accepted is durable.", body = Verdicts),
        (status = 400, description = "Not JSON, or not gzip.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "The key has another scope.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 413, description = "Too many bytes or pulses.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 415, description = "A media type or encoding that is not read here.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "No pulse is accepted: `field`, or `items` for a batch, says why.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "Busy, or a dependency is away; see Retry-After. The same body may be sent again.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn post(
    State(state): State<HttpState>,
    Extension(caller): Extension<Caller>,
    Extension(trace): Extension<TraceContext>,
    headers: HeaderMap,
    _place: Place,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Verdicts>), Problem> {
    let mut envelope = envelope(&caller, &headers)?;
    envelope.headers.extend(trace.headers());
    let encoded = is_gzip(&headers)?;
    let body = body?;
    let body = if encoded { gunzip(body, state.settings.limits.body_max).await? } else { body.into() };
    let (decoder, intake) = (state.ports.decoder.clone(), Arc::clone(&state.ports.intake));
    let submission =
        Submission { body, envelope, id: Uuid::new_v4().to_string(), received_at: (state.ports.now)() };
    let verdicts = AcceptPulses { decoder, intake }.run(submission).await?;
    Ok((StatusCode::ACCEPTED, Json(verdicts.into())))
}

fn envelope(caller: &Caller, headers: &HeaderMap) -> Result<Envelope, Problem> {
    let attributes: Vec<(String, String)> = headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with(ATTRIBUTE))
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect();
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    if let Some(content_type) = content_type {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !MEDIA_TYPES.iter().any(|known| known.eq_ignore_ascii_case(media_type)) {
            let detail = format!("send one of {}", MEDIA_TYPES.join(", "));
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
        }
    }
    Ok(Envelope {
        message_id: idempotency_key(headers)?.map(|key| format!("{}: {key}", caller.name())),
        content_type: content_type.map(str::to_owned),
        routing_key: None,
        headers: attributes,
    })
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let visible = |key: &&str| key.bytes().all(|byte| byte.is_ascii_graphic());
    let short = |key: &&str| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len());
    let key = value.to_str().ok().filter(visible).filter(short);
    key.map(Some).ok_or_else(|| {
        let detail =
            format!("Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible characters of ASCII");
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail).of_field("Idempotency-Key")
    })
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Problem> {
    match headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase()).as_deref()
    {
        None | Some(b"" | b"identity") => Ok(false),
        Some(b"gzip" | b"x-gzip") => Ok(true),
        Some(_) => {
            let detail = "the only encoding that is read here is gzip";
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail))
        }
    }
}

async fn gunzip(body: Bytes, bytes_max: usize) -> Result<Vec<u8>, Problem> {
    let unpacked = spawn_blocking(move || {
        let mut unpacked = Vec::new();
        let limit = bytes_max as u64 + 1;
        MultiGzDecoder::new(body.as_ref()).take(limit).read_to_end(&mut unpacked).map(|_| unpacked)
    });
    match unpacked.await {
        Ok(Ok(unpacked)) if unpacked.len() <= bytes_max => Ok(unpacked),
        Ok(Ok(_)) => {
            let detail = format!("unpacked, the body has more than {bytes_max} bytes (HTTP_BODY_MAX)");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail))
        }
        _ => Err(Problem::new(StatusCode::BAD_REQUEST, "malformed", "the body is not gzip, or is cut off")),
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        let code =
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE { "too_large" } else { "bad_request" };
        Self::new(rejection.status(), code, rejection.body_text())
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let status = match rejection.reason {
            Reason::Malformed => StatusCode::BAD_REQUEST,
            Reason::TooManyItems => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let problem = Self::new(status, rejection.reason.code(), rejection.detail.clone());
        match rejection.field() {
            Some(field) => problem.of_field(field),
            None => problem,
        }
    }
}

impl From<NotAccepted> for Problem {
    fn from(refused: NotAccepted) -> Self {
        match refused {
            NotAccepted::Whole(rejection) => rejection.into(),
            NotAccepted::Port(error) => error.into(),
            NotAccepted::Each(verdicts) => {
                let verdicts = Verdicts::from(verdicts);
                let detail = "none of the pulses is accepted; items says why";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "rejected", detail)
                    .with("accepted", json!(verdicts.accepted))
                    .with("rejected", json!(verdicts.rejected))
                    .with("items", json!(verdicts.items))
            }
        }
    }
}
