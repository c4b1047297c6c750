//! `CloudEvents` 1.0 in JSON: structured and batch mode in the body, binary mode in the headers.

use super::{
    Decoder, Reading,
    fields::{amount, check_age, id_text, invalid, name, name_text, required, shortened, string, time_text},
    object,
    pulse::WirePulse,
};
use crate::ports::Envelope;
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{PulseIdentity, Reason, Rejection, TenantId, Timestamp};
use std::{borrow::Cow, collections::HashMap};

const VERSION: &str = "1.0";
/// What the names of attributes begin with in headers: HTTP, Kafka, and AMQP with either of its separators.
const PREFIXES: [&str; 4] = ["ce-", "ce_", "cloudEvents:", "cloudEvents_"];
/// The attributes that the specification gives the type of a string (section 3.1), so that no other JSON type will do.
const TEXT_ATTRIBUTES: [&str; 8] =
    ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"];

/// Where a message has its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// It is no `CloudEvent`.
    Plain,
    /// In the body, beside the data: one event, an array of them, or one a line.
    Structured,
    /// In the headers; the body is the data.
    Binary,
}

impl Form {
    /// What the message itself says that it is.
    pub(super) fn announced(envelope: &Envelope) -> Result<Self, Rejection> {
        if let Some(content_type) = &envelope.content_type {
            let media_type = content_type.split(';').next().unwrap_or_default().trim();
            if is_either(media_type, "application/cloudevents+json", "application/cloudevents-batch+json") {
                return Ok(Self::Structured);
            }
            if starts_with(media_type, "application/cloudevents") {
                return Err(Rejection::new(
                    Reason::Malformed,
                    format!(
                        "the content type {} is not supported; send CloudEvents as application/cloudevents+json",
                        shortened(media_type)
                    ),
                ));
            }
        }
        let binary = envelope
            .headers
            .iter()
            .any(|(name, _)| attribute(name).is_some_and(|name| name.eq_ignore_ascii_case("specversion")));
        Ok(if binary { Self::Binary } else { Self::Plain })
    }

    /// The event, where the message is one.
    pub(super) fn event<'a>(
        self,
        envelope: &'a Envelope,
        text: &'a str,
    ) -> Result<Option<Event<'a>>, Rejection> {
        match self {
            Self::Plain => Ok(None),
            Self::Structured => Event::structured(text).map(Some),
            Self::Binary => Event::binary(envelope, text).map(Some),
        }
    }
}

fn is_either(text: &str, one: &str, other: &str) -> bool {
    text.eq_ignore_ascii_case(one) || text.eq_ignore_ascii_case(other)
}

fn starts_with(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// The name of the attribute that a header holds. The names of HTTP headers have no case.
fn attribute(header: &str) -> Option<&str> {
    PREFIXES.iter().find(|prefix| starts_with(header, prefix)).map(|prefix| &header[prefix.len()..])
}

/// An event whose required attributes are there and whose version is known.
pub(super) struct Event<'a> {
    attributes: HashMap<Cow<'a, str>, Cow<'a, str>>,
    data: Option<Cow<'a, str>>,
}

impl<'a> Event<'a> {
    fn structured(text: &'a str) -> Result<Self, Rejection> {
        let mut fields = object::fields("a CloudEvent", text)?;
        let mut take = |name: &str| fields.remove(name).filter(|value| *value != "null");
        let data = match (take("data"), take("data_base64")) {
            (Some(_), Some(_)) => {
                return Err(Rejection::new(
                    Reason::Malformed,
                    "data and data_base64 are both there; send one",
                ));
            }
            (Some(data), None) => Some(Cow::Borrowed(data)),
            (None, Some(encoded)) => Some(Cow::Owned(decoded(encoded)?)),
            (None, None) => None,
        };
        let mut attributes = HashMap::new();
        for (name, value) in fields {
            match value.as_bytes().first() {
                Some(b'"') => {
                    let value = string(&shortened(&name), value)?;
                    attributes.insert(name, value);
                }
                Some(b'n') => {}
                _ if TEXT_ATTRIBUTES.contains(&&*name) => {
                    return Err(invalid(&name, "must be a JSON string"));
                }
                // An attribute is a text, a whole number or a boolean; what is nested is no attribute.
                Some(b'{' | b'[') => {}
                _ => {
                    attributes.insert(name, Cow::Borrowed(value));
                }
            }
        }
        Self { attributes, data }.checked()
    }

    fn binary(envelope: &'a Envelope, body: &'a str) -> Result<Self, Rejection> {
        let mut attributes = HashMap::new();
        for (header, value) in &envelope.headers {
            let Some(name) = attribute(header) else { continue };
            let value =
                if starts_with(header, "ce-") { percent_decoded(value)? } else { Cow::Borrowed(&**value) };
            if attributes.insert(Cow::Owned(name.to_ascii_lowercase()), value).is_some() {
                let detail = format!("attribute {} appears twice in the headers", shortened(name));
                return Err(Rejection::new(Reason::Malformed, detail));
            }
        }
        let data = Some(body).filter(|body| !body.trim_ascii().is_empty()).map(Cow::Borrowed);
        Self { attributes, data }.checked()
    }

    fn checked(self) -> Result<Self, Rejection> {
        let version = self.required("specversion")?;
        if version != VERSION {
            return Err(invalid("specversion", format_args!("must be {VERSION}: {}", shortened(version))));
        }
        for name in ["id", "source", "type"] {
            id_text(name, self.required(name)?)?;
        }
        Ok(self)
    }

    /// A context attribute, required or optional, or of an extension.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(|value| &**value)
    }

    fn required(&self, name: &str) -> Result<&str, Rejection> {
        required(name, self.attribute(name))
    }

    /// The text of the data: JSON where its sender is right.
    pub(super) fn data(&self) -> Result<&str, Rejection> {
        required("data", self.data.as_deref())
    }

    /// What no two events share (section 3.1.1).
    pub(super) fn identity(&self) -> Result<PulseIdentity, Rejection> {
        let text = |name| self.required(name).and_then(|value| id_text(name, value));
        Ok(PulseIdentity::CloudEvent { source: text("source")?, id: text("id")? })
    }
}

fn decoded(encoded: &str) -> Result<String, Rejection> {
    let bytes = STANDARD
        .decode(&*string("data_base64", encoded)?)
        .map_err(|error| invalid("data_base64", format_args!("is not Base64: {error}")))?;
    String::from_utf8(bytes).map_err(|_| invalid("data_base64", "does not hold UTF-8"))
}

/// The value of an HTTP header (HTTP protocol binding, section 3.1.3.2).
fn percent_decoded(value: &str) -> Result<Cow<'_, str>, Rejection> {
    if !value.contains('%') {
        return Ok(Cow::Borrowed(value));
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let byte = match after {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| {
        let detail = format!("a header is not UTF-8 once decoded: {}", shortened(value));
        Rejection::new(Reason::InvalidField, detail)
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The pulse of an event whose data has the fields of one.
pub(super) fn read(
    event: &Event<'_>,
    received_at: Timestamp,
    decoder: &Decoder,
) -> Result<Reading, Rejection> {
    let tenant: TenantId = name_text("subject", event.required("subject")?)?;
    let occurred_at = event.attribute("time").map(|text| time_text("time", text)).transpose()?;
    if let Some(time) = occurred_at {
        check_age("time", time, received_at, decoder)?;
    }
    let wire = WirePulse::parse("the data of a pulse", event.data()?)?;
    Ok(Reading {
        tenant,
        product_sku: name("data.product_sku", wire.product_sku)?,
        use_unity: name("data.use_unity", wire.use_unity)?,
        amount: amount("data.used_amount", required("data.used_amount", wire.used_amount)?)?,
        identity: Some(event.identity()?),
        occurred_at,
    })
}

#[cfg(test)]
mod tests;
