//! Reading one native pulse: a JSON object with known fields.

use super::{Anonymous, Decoder, body::Raw};
use crate::ports::Envelope;
use chrono::DateTime;
use domain::{
    Amount, AmountError, HourWindow, ProductSku, Pulse, PulseIdentity, Reason, Rejection, TenantId,
    TextError, Timestamp, UsageUnit,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use std::{borrow::Cow, collections::HashSet, fmt, time::Duration};

/// Nesting beyond this is refused, in fields that are ignored as well: the same bound that `serde_json` has.
const DEPTH_MAX: usize = 128;
const DETAIL_CHARS_MAX: usize = 200;

/// Reads the text of one pulse; `index` is its place in the message.
pub(super) fn read(
    text: &str,
    index: u32,
    envelope: &Envelope,
    received_at: Timestamp,
    decoder: &Decoder,
    anonymous: Anonymous,
) -> Result<Pulse, Rejection> {
    let wire: WirePulse<'_> = serde_json::from_str(text)
        .map_err(|error| Rejection::new(Reason::Malformed, shortened(&format!("not a pulse: {error}"))))?;
    let occurred_at = wire.occurred_at.map(time).transpose()?;
    if let Some(time) = occurred_at {
        check_age(time, received_at, decoder)?;
    }
    Ok(Pulse {
        tenant: name("tenant", wire.tenant, TenantId::new)?,
        product_sku: name("product_sku", wire.product_sku, ProductSku::new)?,
        use_unity: name("use_unity", wire.use_unity, UsageUnit::new)?,
        amount: amount(required("used_amount", wire.used_amount)?)?,
        identity: identity(wire.id, index, envelope, anonymous)?,
        occurred_at,
        hour: HourWindow::of(occurred_at.unwrap_or(received_at)),
    })
}

/// The known fields of a pulse as they are written; `null` counts as absent.
#[derive(Default)]
struct WirePulse<'a> {
    id: Option<&'a str>,
    tenant: Option<&'a str>,
    product_sku: Option<&'a str>,
    used_amount: Option<&'a str>,
    use_unity: Option<&'a str>,
    occurred_at: Option<&'a str>,
}

enum Field {
    Known(usize),
    Unknown(Box<str>),
}

const FIELDS: [&str; 6] = ["id", "tenant", "product_sku", "used_amount", "use_unity", "occurred_at"];

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;
        impl Visitor<'_> for FieldVisitor {
            type Value = Field;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name of a field")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Field, E> {
                let known = if name == "unit" { "use_unity" } else { name };
                let place = FIELDS.iter().position(|field| *field == known);
                Ok(place.map_or_else(|| Field::Unknown(name.into()), Field::Known))
            }
        }
        deserializer.deserialize_identifier(FieldVisitor)
    }
}

impl<'de> Deserialize<'de> for WirePulse<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PulseVisitor)
    }
}

struct PulseVisitor;

impl<'de> Visitor<'de> for PulseVisitor {
    type Value = WirePulse<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with tenant, product_sku, used_amount and use_unity")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut known: [Option<&'de str>; FIELDS.len()] = [None; FIELDS.len()];
        let mut unknown = HashSet::new();
        while let Some(field) = map.next_key::<Field>()? {
            let Raw(value) = map.next_value()?;
            match field {
                Field::Known(place) if known[place].replace(value).is_some() => {
                    return Err(A::Error::custom(format!("field {} appears twice", FIELDS[place])));
                }
                Field::Known(_) => {}
                Field::Unknown(_) if is_too_deep(value) => {
                    return Err(A::Error::custom(format!("nested more than {DEPTH_MAX} deep")));
                }
                Field::Unknown(name) => {
                    if let Some(name) = unknown.replace(name) {
                        return Err(A::Error::custom(format!("field {} appears twice", shortened(&name))));
                    }
                }
            }
        }
        let [id, tenant, product_sku, used_amount, use_unity, occurred_at] =
            known.map(|value| value.filter(|value| *value != "null"));
        Ok(WirePulse { id, tenant, product_sku, used_amount, use_unity, occurred_at })
    }
}

/// Counts brackets outside of strings: the value is valid JSON, it only may be deep.
fn is_too_deep(value: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in value.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth -= 1,
            _ => {}
        }
        if depth > DEPTH_MAX {
            return true;
        }
    }
    false
}

fn required<'a>(field: &str, value: Option<&'a str>) -> Result<&'a str, Rejection> {
    value.ok_or_else(|| Rejection::new(Reason::MissingField, format!("{field} is missing")))
}

fn invalid(field: &str, detail: impl fmt::Display) -> Rejection {
    Rejection::new(Reason::InvalidField, format!("{field} {detail}"))
}

/// The text of a JSON string; without escapes it is a slice of the message.
fn string<'a>(field: &str, value: &'a str) -> Result<Cow<'a, str>, Rejection> {
    match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        None => Err(invalid(field, "must be a JSON string")),
        Some(text) if !text.contains('\\') => Ok(Cow::Borrowed(text)),
        Some(_) => serde_json::from_str(value)
            .map(Cow::Owned)
            .map_err(|error| invalid(field, format_args!("is not a valid JSON string: {error}"))),
    }
}

fn name<T>(
    field: &'static str,
    value: Option<&str>,
    check: impl FnOnce(Box<str>) -> Result<T, TextError>,
) -> Result<T, Rejection> {
    let text = string(field, required(field, value)?)?;
    if text.len() > domain::TEXT_BYTES_MAX {
        return Err(invalid(field, TextError::TooLong));
    }
    check(text.into()).map_err(|error| invalid(field, error))
}

fn amount(value: &str) -> Result<Amount, Rejection> {
    let text = match value.as_bytes().first() {
        Some(b'"') => string("used_amount", value)?,
        Some(b'-' | b'0'..=b'9') => Cow::Borrowed(value),
        _ => return Err(invalid("used_amount", "must be a number or a decimal string")),
    };
    Amount::parse(&text).map_err(|error| {
        let reason = match error {
            AmountError::Malformed => Reason::InvalidField,
            AmountError::NotPositive => Reason::NotPositive,
            AmountError::OutOfRange => Reason::OutOfRange,
            AmountError::TooPrecise => Reason::TooPrecise,
        };
        Rejection::new(reason, format!("used_amount {error}: {}", shortened(&text)))
    })
}

fn time(value: &str) -> Result<Timestamp, Rejection> {
    let text = string("occurred_at", value)?;
    let time = DateTime::parse_from_rfc3339(&text).map_err(|error| {
        let shown = shortened(&text);
        invalid(
            "occurred_at",
            format_args!("must be RFC 3339 with an offset, like 2026-01-10T12:00:00Z: {error}: {shown}"),
        )
    })?;
    Ok(Timestamp::new(time.timestamp(), time.timestamp_subsec_nanos()))
}

fn check_age(time: Timestamp, received_at: Timestamp, decoder: &Decoder) -> Result<(), Rejection> {
    let distance = |from: Timestamp, to: Timestamp| {
        let nanos = |time: Timestamp| i128::from(time.seconds()) * 1_000_000_000 + i128::from(time.nanos());
        nanos(to) - nanos(from)
    };
    let limit = |limit: Duration| i128::try_from(limit.as_nanos()).unwrap_or(i128::MAX);
    if distance(received_at, time) > limit(decoder.ahead_max) {
        return Err(Rejection::new(
            Reason::TooFarAhead,
            format!("occurred_at is more than {} s ahead (PULSE_AHEAD_MAX)", decoder.ahead_max.as_secs()),
        ));
    }
    match decoder.age_max {
        Some(age_max) if distance(time, received_at) > limit(age_max) => Err(Rejection::new(
            Reason::TooOld,
            format!("occurred_at is more than {} s ago (PULSE_AGE_MAX)", age_max.as_secs()),
        )),
        _ => Ok(()),
    }
}

fn identity(
    id: Option<&str>,
    index: u32,
    envelope: &Envelope,
    anonymous: Anonymous,
) -> Result<Option<PulseIdentity>, Rejection> {
    if let Some(value) = id {
        let id = string("id", value)?;
        domain::check_text(&id).map_err(|error| invalid("id", error))?;
        return Ok(Some(PulseIdentity::Id(id.into())));
    }
    match (&envelope.message_id, anonymous) {
        (Some(id), _) if !id.is_empty() => {
            domain::check_text(id).map_err(|error| invalid("message_id", error))?;
            Ok(Some(PulseIdentity::Message { id: id.as_str().into(), item: index }))
        }
        (_, Anonymous::Accept) => Ok(None),
        (_, Anonymous::Reject) => Err(Rejection::new(
            Reason::Anonymous,
            "the pulse has no id, and neither has its message; send one (PULSE_ANONYMOUS=reject)",
        )),
    }
}

/// At most a short piece of a text that came from outside.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(DETAIL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
