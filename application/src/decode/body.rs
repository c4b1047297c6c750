//! Taking a body apart: one object, an array of them, or lines.

use domain::{Reason, Rejection};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::fmt;

/// The texts of the pulses in a body, each a slice of it.
pub(super) enum Items<'a> {
    One(&'a str),
    Many(Vec<&'a str>),
}

/// Takes a body apart. The texts may still be anything: reading them is the next step.
pub(super) fn items(body: &[u8], items_max: usize) -> Result<Items<'_>, Rejection> {
    let text = text(body)?;
    match text.trim_ascii_start().as_bytes().first() {
        None => Err(malformed("the body is empty; send a pulse, an array of pulses or one pulse a line")),
        Some(b'[') => array(text, items_max)
            .or_else(|rejection| if is_lines(text) { lines(text, items_max) } else { Err(rejection) }),
        Some(_) if is_lines(text) => lines(text, items_max),
        Some(_) => Ok(Items::One(text.trim_ascii())),
    }
}

/// The body as text, without a byte order mark, which may be ignored (RFC 8259, section 8.1).
pub(super) fn text(body: &[u8]) -> Result<&str, Rejection> {
    let text = std::str::from_utf8(body).map_err(|error| {
        malformed(format!("the body is not UTF-8 from byte {} on; send JSON in UTF-8", error.valid_up_to()))
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn malformed(detail: impl Into<String>) -> Rejection {
    Rejection::new(Reason::Malformed, detail)
}

fn too_many(count: usize, items_max: usize) -> Rejection {
    Rejection::new(
        Reason::TooManyItems,
        format!("the message holds {count} pulses; send at most {items_max} (PULSE_MESSAGE_ITEMS_MAX)"),
    )
}

fn array(text: &str, items_max: usize) -> Result<Items<'_>, Rejection> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let array = Array { items_max }
        .deserialize(&mut deserializer)
        .and_then(|array| deserializer.end().map(|()| array))
        .map_err(|error| malformed(format!("the body is not a JSON array: {error}")))?;
    if array.count > items_max {
        return Err(too_many(array.count, items_max));
    }
    match array.texts[..] {
        [] => Err(malformed("the array holds no pulse")),
        // Brackets around brackets are no batch with one bad item: the message is refused as it came.
        [only] if only.starts_with('[') => Err(malformed("the array holds another array and no pulse")),
        _ => Ok(Items::Many(array.texts)),
    }
}

/// Whether a body holds one value a line, and not one value on several lines: it is no value as a whole, and a line that
/// starts with `{` in its first column is a whole object by itself.
///
/// The first column counts because a broken value on several lines may hold a whole object on one of them, indented,
/// and that object is not what its sender meant to report.
fn is_lines(text: &str) -> bool {
    let text = text.trim_ascii();
    text.contains('\n')
        && serde_json::from_str::<IgnoredAny>(text).is_err()
        && text.lines().any(|line| {
            line.starts_with('{') && line.ends_with('}') && serde_json::from_str::<IgnoredAny>(line).is_ok()
        })
}

fn lines(text: &str, items_max: usize) -> Result<Items<'_>, Rejection> {
    let lines = || text.lines().map(str::trim_ascii).filter(|line| !line.is_empty());
    let count = lines().count();
    if count > items_max { Err(too_many(count, items_max)) } else { Ok(Items::Many(lines().collect())) }
}

/// The items of an array as they are written, at most `items_max` of them; the rest is only counted.
struct Array {
    items_max: usize,
}

struct ArrayItems<'a> {
    texts: Vec<&'a str>,
    count: usize,
}

impl<'de> DeserializeSeed<'de> for Array {
    type Value = ArrayItems<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Array {
    type Value = ArrayItems<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of pulses")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let (mut texts, mut count) = (Vec::new(), 0);
        while count < self.items_max {
            match sequence.next_element::<Raw<'de>>()? {
                Some(Raw(text)) => texts.push(text),
                None => return Ok(ArrayItems { texts, count }),
            }
            count += 1;
        }
        while sequence.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(ArrayItems { texts, count })
    }
}

/// Any JSON value as it is written.
pub(super) struct Raw<'a>(pub(super) &'a str);

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|raw| Self(raw.get()))
    }
}
