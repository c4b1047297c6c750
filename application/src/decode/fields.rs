//! Checks that every format shares: texts, amounts, times, identities, and how they are refused.

use super::{Anonymous, Decoder, first_item};
use crate::ports::Envelope;
use chrono::DateTime;
use domain::{Amount, AmountError, PulseIdentity, Reason, Rejection, TextError, Timestamp};
use std::{borrow::Cow, fmt, time::Duration};

/// Nesting beyond this is refused, in fields that are ignored as well: the same bound that `serde_json` has.
pub(super) const DEPTH_MAX: usize = 128;
const DETAIL_CHARS_MAX: usize = 200;

/// Counts brackets outside of strings: the value is valid JSON, it only may be deep.
pub(super) fn is_too_deep(value: &str) -> bool {
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

pub(super) fn required<T>(field: &str, value: Option<T>) -> Result<T, Rejection> {
    value.ok_or_else(|| Rejection::new(Reason::MissingField, format!("{field} is missing")))
}

pub(super) fn invalid(field: &str, detail: impl fmt::Display) -> Rejection {
    Rejection::new(Reason::InvalidField, format!("{field} {detail}"))
}

/// The text of a JSON string; without escapes it is a slice of the message.
pub(super) fn string<'a>(field: &str, value: &'a str) -> Result<Cow<'a, str>, Rejection> {
    match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        None => Err(invalid(field, "must be a JSON string")),
        Some(text) if !text.contains('\\') => Ok(Cow::Borrowed(text)),
        Some(_) => serde_json::from_str(value)
            .map(Cow::Owned)
            .map_err(|error| invalid(field, format_args!("is not a valid JSON string: {error}"))),
    }
}

pub(super) fn name<T>(field: &str, value: Option<&str>) -> Result<T, Rejection>
where
    T: for<'a> TryFrom<&'a str, Error = TextError>,
{
    name_text(field, &string(field, required(field, value)?)?)
}

pub(super) fn name_text<T>(field: &str, text: &str) -> Result<T, Rejection>
where
    T: for<'a> TryFrom<&'a str, Error = TextError>,
{
    T::try_from(text).map_err(|error| invalid(field, error))
}

pub(super) fn id_text(field: &str, text: &str) -> Result<Box<str>, Rejection> {
    domain::check_text(text).map_err(|error| invalid(field, error))?;
    Ok(text.into())
}

/// How much an item says: what counts nothing may be told all the same.
pub(super) enum Quantity {
    /// More than nothing.
    Some(Amount),
    /// Zero, and the refusal of a pulse that says so.
    Zero(Rejection),
}

pub(super) fn amount(field: &str, value: &str) -> Result<Quantity, Rejection> {
    match value.as_bytes().first() {
        Some(b'"') => amount_text(field, &string(field, value)?),
        Some(b'-' | b'0'..=b'9') => amount_text(field, value),
        _ => Err(invalid(field, "must be a number or a decimal string")),
    }
}

pub(super) fn amount_text(field: &str, text: &str) -> Result<Quantity, Rejection> {
    let refusal = |error| {
        let reason = match error {
            AmountError::Malformed => Reason::InvalidField,
            AmountError::NotPositive => Reason::NotPositive,
            AmountError::OutOfRange => Reason::OutOfRange,
            AmountError::TooPrecise => Reason::TooPrecise,
        };
        Rejection::new(reason, format!("{field} {error}: {}", shortened(text)))
    };
    match Amount::parse(text) {
        Ok(amount) => Ok(Quantity::Some(amount)),
        Err(error @ AmountError::NotPositive) if !text.starts_with('-') => Ok(Quantity::Zero(refusal(error))),
        Err(error) => Err(refusal(error)),
    }
}

pub(super) fn time(field: &str, value: &str) -> Result<Timestamp, Rejection> {
    time_text(field, &string(field, value)?)
}

pub(super) fn time_text(field: &str, text: &str) -> Result<Timestamp, Rejection> {
    let time = DateTime::parse_from_rfc3339(text).map_err(|error| {
        let shown = shortened(text);
        invalid(
            field,
            format_args!("must be RFC 3339 with an offset, like 2026-01-10T12:00:00Z: {error}: {shown}"),
        )
    })?;
    Ok(Timestamp::new(time.timestamp(), time.timestamp_subsec_nanos()))
}

pub(super) fn check_age(
    field: &str,
    time: Timestamp,
    received_at: Timestamp,
    decoder: &Decoder,
) -> Result<(), Rejection> {
    let distance = |from: Timestamp, to: Timestamp| {
        let nanos = |time: Timestamp| i128::from(time.seconds()) * 1_000_000_000 + i128::from(time.nanos());
        nanos(to) - nanos(from)
    };
    let limit = |limit: Duration| i128::try_from(limit.as_nanos()).unwrap_or(i128::MAX);
    if distance(received_at, time) > limit(decoder.ahead_max) {
        return Err(Rejection::new(
            Reason::TooFarAhead,
            format!("{field} is more than {} s ahead (PULSE_AHEAD_MAX)", decoder.ahead_max.as_secs()),
        ));
    }
    match decoder.age_max {
        Some(age_max) if distance(time, received_at) > limit(age_max) => Err(Rejection::new(
            Reason::TooOld,
            format!("{field} is more than {} s ago (PULSE_AGE_MAX)", age_max.as_secs()),
        )),
        _ => Ok(()),
    }
}

/// What a pulse is known by that carries no identity of its own: its message's id and its place in the message.
pub(super) fn stand_in_identity(
    index: u32,
    envelope: &Envelope,
    anonymous: Anonymous,
) -> Result<Option<PulseIdentity>, Rejection> {
    match (&envelope.message_id, anonymous) {
        (Some(id), _) if !id.is_empty() => {
            let item = first_item(envelope).saturating_add(index);
            Ok(Some(PulseIdentity::Message { id: id_text("message_id", id)?, item }))
        }
        (_, Anonymous::Accept) => Ok(None),
        (_, Anonymous::Reject) => Err(Rejection::new(
            Reason::Anonymous,
            "the pulse has no id, and neither has its message; send one (PULSE_ANONYMOUS=reject)",
        )),
    }
}

/// At most a short piece of a text that came from outside.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(DETAIL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
