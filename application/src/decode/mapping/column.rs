//! The extra columns that the archive keeps of a message.

use super::{Value, message::Message, pick::Pick};
use crate::decode::fields::{invalid, shortened, string, time_text};
use chrono::NaiveDate;
use domain::{Amount, AmountError, Rejection, Timestamp};
use std::borrow::Cow;

/// One extra column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name: lower-case letters, digits and `_`, a letter first.
    pub name: Box<str>,
    /// What it holds.
    pub kind: ColumnKind,
    /// Where that is found. Optional values may be [`ColumnValue::Null`].
    pub value: Value,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Text: a string, a whole number or a boolean.
    Text,
    /// A whole number of 64 bits.
    Integer,
    /// A number exact to nine decimals, below 10^16 on both sides of zero.
    Decimal,
    /// `true` or `false`.
    Boolean,
    /// A point in time; a date alone is its first moment in UTC.
    Time(TimeFormat),
    /// A piece of JSON as it is written.
    Json,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeFormat {
    /// RFC 3339 with an offset.
    #[default]
    Rfc3339,
    /// Whole seconds since 1970-01-01T00:00:00Z.
    UnixSeconds,
    /// Whole milliseconds since then.
    UnixMilliseconds,
}

/// What a message has in a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnValue {
    /// Nothing, where the column is optional.
    Null,
    /// See [`ColumnKind::Text`].
    Text(String),
    /// See [`ColumnKind::Integer`].
    Integer(i64),
    /// See [`ColumnKind::Decimal`], in 10^-9.
    Decimal(i128),
    /// See [`ColumnKind::Boolean`].
    Boolean(bool),
    /// See [`ColumnKind::Time`].
    Time(Timestamp),
    /// See [`ColumnKind::Json`].
    Json(String),
}

impl Column {
    pub(super) fn read<'a>(&'a self, message: &mut Message<'a>) -> Result<ColumnValue, Rejection> {
        let label = &self.value.label;
        if let (ColumnKind::Json, Pick::Pointer(pointer)) = (self.kind, &self.value.pick) {
            let value = message.json(pointer)?;
            return Ok(self
                .value
                .present(value)?
                .map_or(ColumnValue::Null, |json| ColumnValue::Json(json.to_owned())));
        }
        let text = match (self.kind, &self.value.pick) {
            // The other kinds of numbers are not texts, and not refused here.
            (ColumnKind::Decimal, Pick::Pointer(pointer)) => {
                let value = message.json(pointer)?;
                match self.value.present(value)? {
                    Some(value) if value.starts_with('"') => Some(string(label, value)?),
                    value => value.map(Cow::Borrowed),
                }
            }
            _ => self.value.text(message)?,
        };
        let Some(text) = text else { return Ok(ColumnValue::Null) };
        Ok(match self.kind {
            ColumnKind::Text => ColumnValue::Text(text.into_owned()),
            ColumnKind::Json => ColumnValue::Json(text.into_owned()),
            ColumnKind::Integer => ColumnValue::Integer(integer(label, &text)?),
            ColumnKind::Decimal => ColumnValue::Decimal(decimal(label, &text)?),
            ColumnKind::Boolean => match &*text {
                "true" => ColumnValue::Boolean(true),
                "false" => ColumnValue::Boolean(false),
                _ => return Err(invalid(label, "must be true or false")),
            },
            ColumnKind::Time(format) => ColumnValue::Time(match text.parse::<NaiveDate>() {
                Ok(date) if format == TimeFormat::Rfc3339 => {
                    Timestamp::new(date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp(), 0)
                }
                _ => format.read(label, &text)?,
            }),
        })
    }
}

impl TimeFormat {
    /// Reads a time that is written like this.
    pub(super) fn read(self, label: &str, text: &str) -> Result<Timestamp, Rejection> {
        match self {
            Self::Rfc3339 => time_text(label, text),
            Self::UnixSeconds => integer(label, text).map(|seconds| Timestamp::new(seconds, 0)),
            Self::UnixMilliseconds => integer(label, text).map(|milliseconds| {
                let nanos = milliseconds.rem_euclid(1_000) * 1_000_000;
                Timestamp::new(milliseconds.div_euclid(1_000), u32::try_from(nanos).unwrap_or_default())
            }),
        }
    }
}

fn integer(label: &str, text: &str) -> Result<i64, Rejection> {
    text.parse()
        .map_err(|_| invalid(label, format_args!("must be a whole number of 64 bits: {}", shortened(text))))
}

fn decimal(label: &str, text: &str) -> Result<i128, Rejection> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) if !digits.starts_with('-') => (true, digits),
        _ => (false, text),
    };
    let nanos = match Amount::parse(digits) {
        Ok(amount) => i128::try_from(amount.nanos()).unwrap_or_default(),
        Err(AmountError::NotPositive) if !digits.starts_with('-') => 0,
        Err(AmountError::NotPositive) => return Err(invalid(label, AmountError::Malformed)),
        Err(error) => return Err(invalid(label, format_args!("{error}: {}", shortened(text)))),
    };
    Ok(if negative { -nanos } else { nanos })
}
