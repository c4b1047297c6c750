//! A message as a mapping looks at it: JSON of any shape, attributes, headers and the routing key.

use super::pick::{Pick, Piece, Pointer};
use crate::{
    decode::{
        body::Raw,
        cloud_events::Event,
        fields::{invalid, shortened, string},
        object::{self, Fields},
    },
    ports::Envelope,
};
use domain::{Reason, Rejection};
use std::borrow::Cow;

/// One message. Each level of its JSON is read once, and only where a value lies below it.
pub(in crate::decode) struct Message<'a> {
    json: Option<&'a str>,
    event: Option<&'a Event<'a>>,
    envelope: &'a Envelope,
    /// The levels that were read, by the address of their text.
    levels: Vec<(*const u8, Level<'a>)>,
}

enum Level<'a> {
    Object(Fields<'a>),
    Array(Vec<Raw<'a>>),
}

impl<'a> Message<'a> {
    /// A message that is a JSON object.
    pub(in crate::decode) fn plain(text: &'a str, envelope: &'a Envelope) -> Result<Self, Rejection> {
        let fields = object::fields("a message", text)?;
        let levels = vec![(text.as_ptr(), Level::Object(fields))];
        Ok(Self { json: Some(text), event: None, envelope, levels })
    }

    /// An event, whose data is looked at only where something is to be found in it.
    pub(in crate::decode) fn event(event: &'a Event<'a>, envelope: &'a Envelope) -> Self {
        let json = event.data().map(str::trim_ascii).ok();
        Self { json, event: Some(event), envelope, levels: Vec::new() }
    }

    /// The event, where the message is one.
    pub(super) fn as_event(&self) -> Option<&'a Event<'a>> {
        self.event
    }

    /// The headers, the routing key and what else is not in the body.
    pub(super) fn envelope(&self) -> &'a Envelope {
        self.envelope
    }

    /// The value as it is written; `null` counts as absent.
    pub(super) fn json(&mut self, pointer: &Pointer) -> Result<Option<&'a str>, Rejection> {
        let mut value = self.json;
        for token in pointer.tokens() {
            let Some(text) = value else { return Ok(None) };
            value = self.child(text, token)?;
        }
        Ok(value.filter(|value| *value != "null"))
    }

    fn child(&mut self, text: &'a str, token: &str) -> Result<Option<&'a str>, Rejection> {
        let read = self.levels.iter().position(|(address, _)| *address == text.as_ptr());
        let place = match read {
            Some(place) => place,
            None => {
                let level = match text.as_bytes().first() {
                    Some(b'[') => Level::Array(serde_json::from_str(text).map_err(|error| {
                        Rejection::new(Reason::Malformed, shortened(&format!("not JSON: {error}")))
                    })?),
                    Some(b'{') => Level::Object(object::fields("JSON", text)?),
                    _ => return Ok(None),
                };
                self.levels.push((text.as_ptr(), level));
                self.levels.len() - 1
            }
        };
        Ok(match &self.levels[place].1 {
            Level::Object(fields) => fields.get(token).copied(),
            Level::Array(values) => index(token).and_then(|index| values.get(index)).map(|Raw(value)| *value),
        })
    }

    /// The value as text. `label` names it where it is refused.
    pub(super) fn text(&mut self, pick: &'a Pick, label: &str) -> Result<Option<Cow<'a, str>>, Rejection> {
        Ok(match pick {
            Pick::Pointer(pointer) => match self.json(pointer)? {
                Some(value) => Some(scalar(label, value)?),
                None => None,
            },
            Pick::Attribute(name) => self.event.and_then(|event| event.attribute(name)).map(Cow::Borrowed),
            Pick::RoutingKeyPart(part) => self.routing_key_part(*part).map(Cow::Borrowed),
            Pick::RoutingKeyWithoutLast(parts) => self.routing_key_without_last(*parts).map(Cow::Borrowed),
            Pick::Header(name) => self.header(name)?.map(Cow::Borrowed),
            Pick::Constant(text) => Some(Cow::Borrowed(&**text)),
            Pick::Template(template) => {
                let mut text = String::new();
                for piece in template.pieces() {
                    match piece {
                        Piece::Text(fixed) => text.push_str(fixed),
                        Piece::Pick(pick) => match self.text(pick, label)? {
                            Some(value) => text.push_str(&value),
                            None => return Ok(None),
                        },
                    }
                }
                Some(Cow::Owned(text))
            }
        })
    }

    fn routing_key_part(&self, part: i16) -> Option<&'a str> {
        let key = self.envelope.routing_key.as_deref()?;
        let nth = usize::from(part.unsigned_abs()).checked_sub(1)?;
        if part > 0 { key.split('.').nth(nth) } else { key.rsplit('.').nth(nth) }
    }

    fn routing_key_without_last(&self, parts: u16) -> Option<&'a str> {
        let key = self.envelope.routing_key.as_deref()?;
        match usize::from(parts).checked_sub(1) {
            None => Some(key),
            Some(nth) => key.rmatch_indices('.').nth(nth).map(|(end, _)| &key[..end]),
        }
    }

    fn header(&self, name: &str) -> Result<Option<&'a str>, Rejection> {
        let mut values = self.envelope.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| &**value);
        if values.next().is_some() {
            return Err(Rejection::new(Reason::Malformed, format!("header {name} appears twice")));
        }
        Ok(value)
    }
}

/// A place in an array (RFC 6901, section 4): digits without leading zeros.
fn index(token: &str) -> Option<usize> {
    let canonical = token == "0" || !token.starts_with(['0', '+']);
    token.parse().ok().filter(|_| canonical)
}

/// A string, a whole number or a boolean as text. Other numbers have more than one spelling, and so are no names.
fn scalar<'a>(label: &str, value: &'a str) -> Result<Cow<'a, str>, Rejection> {
    match value.as_bytes().first() {
        Some(b'"') => string(label, value),
        Some(b't' | b'f') => Ok(Cow::Borrowed(value)),
        Some(b'-' | b'0'..=b'9') if !value.contains(['.', 'e', 'E']) => Ok(Cow::Borrowed(value)),
        _ => Err(invalid(label, "must be a string, a whole number or a boolean")),
    }
}
