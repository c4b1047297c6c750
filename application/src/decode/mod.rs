//! From the bytes of a message to pulses, or to the reason why not, one verdict for each pulse in it.

mod body;
mod cloud_events;
mod event;
mod fields;
pub mod mapping;
mod object;
mod pulse;

use crate::ports::{Delivery, Envelope};
use cloud_events::Form;
use domain::{Pulse, PulseIdentity, Reason, Rejection, check_file_name};
use event::Reading;
use mapping::{ColumnValue, Mapping, Message};
use std::{ops::Range, sync::Arc, time::Duration};

pub use event::{Event, ReadAs};

/// The header by which a message says what it is, whatever the format of the others: [`NATIVE`] and nothing else.
pub const HEADER_FORMAT: &str = "pulse-format";
/// Native pulses, or `CloudEvents` that say so themselves.
pub const NATIVE: &str = "pulse";
/// The header by which a message says which pulse of another message its first one was, from 0: an item that goes alone
/// keeps the identity that it had among others.
pub const HEADER_ITEM: &str = "pulse-item";

/// Which pulse of its original message the first one of this message is.
#[must_use]
pub fn first_item(envelope: &Envelope) -> u32 {
    let header = envelope.headers.iter().find(|(name, _)| name == HEADER_ITEM);
    header.and_then(|(_, item)| item.parse().ok()).unwrap_or_default()
}

/// What to make of messages.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// What the messages are, where they do not say themselves that they are `CloudEvents`, or native ([`HEADER_FORMAT`]).
    pub format: Format,
    /// Whether pulses count that carry nothing to know them by.
    pub anonymous: Anonymous,
    /// What pulses are known by.
    pub dedupe: Dedupe,
    /// The most pulses in one message; a message with more is refused whole.
    pub items_max: usize,
    /// How far a pulse's own time may lie before its arrival; `None` for any past.
    pub age_max: Option<Duration>,
    /// How far a pulse's own time may lie after its arrival.
    pub ahead_max: Duration,
    /// Which products pulses may be of.
    pub sku_rule: SkuRule,
}

/// Which products pulses may be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkuRule {
    /// Any name.
    Any,
    /// Names that may name a file, for books that keep a file a product; others are refused as `invalid_field`.
    FileName,
}

impl SkuRule {
    fn check(self, reading: Reading) -> Result<Reading, Rejection> {
        match (self, check_file_name(reading.product_sku.as_str())) {
            (Self::FileName, Err(error)) => {
                let detail = format!("product_sku {error} (LEDGER_URL=json:DIR)");
                Err(Rejection::new(Reason::InvalidField, detail))
            }
            _ => Ok(reading),
        }
    }
}

/// What messages are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Native pulses.
    #[default]
    Pulse,
    /// `CloudEvents` 1.0 in JSON, whatever the content type.
    CloudEvents,
    /// Of another shape.
    Mapping(Arc<Mapping>),
}

/// What becomes of pulses without an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// They count, at least once: a copy cannot be known.
    Accept,
    /// They are refused.
    Reject,
}

/// What makes a pulse known where the source is a log. On a queue it is always the id: there are no offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dedupe {
    /// Its id, or that of its message; offsets say nothing.
    Id,
    /// Its place in the log; ids are not remembered.
    Offset,
    /// Its place, and its id where it carries one: the same pulse at two places is one.
    Both,
}

impl Dedupe {
    /// Whether the place in a log makes a pulse known.
    #[must_use]
    pub const fn by_offset(self) -> bool {
        matches!(self, Self::Offset | Self::Both)
    }
}

/// One pulse of a message, or one event of it, read or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<T = Pulse> {
    /// Its place in the message, from 0; `None` where the message could not be taken apart.
    pub index: Option<u32>,
    /// Where its bytes lie in the body.
    pub bytes: Range<usize>,
    /// The pulse, or the event, or why it is refused.
    pub pulse: Result<T, Rejection>,
}

impl<T> Item<T> {
    /// The whole message, refused.
    #[must_use]
    pub fn refused(delivery: &Delivery, rejection: Rejection) -> Self {
        Self { index: None, bytes: 0..delivery.body.len(), pulse: Err(rejection) }
    }
}

impl Default for Decoder {
    /// The defaults of the settings: anonymous pulses count, places and ids identify, 1,000 pulses a message, any past, one hour ahead.
    fn default() -> Self {
        Self {
            format: Format::Pulse,
            anonymous: Anonymous::Accept,
            dedupe: Dedupe::Both,
            items_max: 1_000,
            age_max: None,
            ahead_max: Duration::from_hours(1),
            sku_rule: SkuRule::Any,
        }
    }
}

impl Decoder {
    /// Reads a message and appends a verdict for each pulse in it: at least one.
    pub fn decode(&self, delivery: &Delivery, out: &mut Vec<Item>) {
        self.each(delivery, out, |reading, _, _| reading.into_pulse(delivery.received_at));
    }

    /// Reads a message for the archive and appends a verdict for each event in it: at least one.
    ///
    /// Events are what pulses are, with what the archive keeps beside it, and their amount may be zero.
    pub fn decode_events(&self, delivery: &Delivery, out: &mut Vec<Item<Event>>) {
        self.each(delivery, out, |reading, form, text| {
            let (read_as, columns) = match (self.format(&delivery.envelope), form) {
                (Format::Mapping(mapping), _) if form == Form::Plain || mapping.reads_cloud_events => {
                    (ReadAs::Mapping, self.columns_of(delivery, form, text)?)
                }
                (_, Form::Plain) => (ReadAs::Pulse, Vec::new()),
                _ => (ReadAs::CloudEvent, Vec::new()),
            };
            reading.into_event(read_as, columns, delivery.received_at)
        });
    }

    /// The mapping, where messages are of another shape.
    #[must_use]
    pub fn mapping(&self) -> Option<&Arc<Mapping>> {
        match &self.format {
            Format::Mapping(mapping) => Some(mapping),
            Format::Pulse | Format::CloudEvents => None,
        }
    }

    /// What an item is called, for people: the column `id` of its mapping, or else its own id or that of its message,
    /// also where ids are not remembered.
    #[must_use]
    pub fn label(&self, delivery: &Delivery, bytes: &Range<usize>, index: u32) -> Option<String> {
        let text = body::text(delivery.body.get(bytes.clone())?).ok()?;
        let form = self.form(delivery).ok()?;
        let column = || {
            let Format::Mapping(mapping) = self.format(&delivery.envelope) else { return None };
            let place = mapping.columns.iter().position(|column| &*column.name == "id")?;
            match self.columns_of(delivery, form, text).ok()?.swap_remove(place) {
                ColumnValue::Text(id) => Some(id),
                ColumnValue::Integer(id) => Some(id.to_string()),
                _ => None,
            }
        };
        let identity = || {
            let reading = self.read(delivery, form, text, index, Anonymous::Accept).ok()?;
            Some(match reading.identity? {
                PulseIdentity::Id(id)
                | PulseIdentity::Message { id, .. }
                | PulseIdentity::CloudEvent { id, .. } => id.into_string(),
            })
        };
        column().or_else(identity)
    }

    /// A verdict for each item, made from what it says.
    fn each<T>(
        &self,
        delivery: &Delivery,
        out: &mut Vec<Item<T>>,
        finish: impl Fn(Reading, Form, &str) -> Result<T, Rejection>,
    ) {
        let item = |form, text: &str, index| {
            let reading = self.reading(delivery, form, text, index);
            let start = text.as_ptr() as usize - delivery.body.as_ptr() as usize;
            Item {
                index: Some(index),
                bytes: start..start + text.len(),
                pulse: reading.and_then(|reading| finish(reading, form, text)),
            }
        };
        match self.take_apart(delivery) {
            Ok((form, body::Items::One(text))) => out.push(item(form, text, 0)),
            Ok((form, body::Items::Many(texts))) => {
                out.extend((0..).zip(texts).map(|(index, text)| item(form, text, index)));
            }
            Err(rejection) => out.push(Item::refused(delivery, rejection)),
        }
    }

    fn take_apart<'a>(&self, delivery: &'a Delivery) -> Result<(Form, body::Items<'a>), Rejection> {
        let form = self.form(delivery)?;
        let items = match form {
            Form::Plain | Form::Structured => body::items(&delivery.body, self.items_max)?,
            Form::Binary => body::Items::One(body::text(&delivery.body)?),
        };
        Ok((form, items))
    }

    fn format(&self, envelope: &Envelope) -> &Format {
        let is_native = envelope.headers.iter().any(|(name, value)| name == HEADER_FORMAT && value == NATIVE);
        if is_native { &Format::Pulse } else { &self.format }
    }

    fn form(&self, delivery: &Delivery) -> Result<Form, Rejection> {
        Ok(match (Form::announced(&delivery.envelope)?, self.format(&delivery.envelope)) {
            (Form::Plain, Format::CloudEvents) => Form::Structured,
            (Form::Plain, Format::Mapping(mapping)) if mapping.reads_cloud_events => Form::Structured,
            (form, _) => form,
        })
    }

    fn reading(&self, delivery: &Delivery, form: Form, text: &str, index: u32) -> Result<Reading, Rejection> {
        let placed = delivery.log.is_some() && self.dedupe.by_offset();
        let anonymous = if placed { Anonymous::Accept } else { self.anonymous };
        let read = self.read(delivery, form, text, index, anonymous);
        let mut reading = self.sku_rule.check(read?)?;
        if placed && self.dedupe == Dedupe::Offset {
            reading.identity = None;
        }
        Ok(reading)
    }

    fn read(
        &self,
        delivery: &Delivery,
        form: Form,
        text: &str,
        index: u32,
        anonymous: Anonymous,
    ) -> Result<Reading, Rejection> {
        let Delivery { envelope, received_at, .. } = delivery;
        match (form.event(envelope, text)?, self.format(envelope)) {
            (None, Format::Mapping(mapping)) => {
                let mut message = Message::plain(text, envelope)?;
                mapping.read(&mut message, index, *received_at, self, anonymous)
            }
            (None, _) => pulse::read(text, index, envelope, *received_at, self, anonymous),
            (Some(event), Format::Mapping(mapping)) if mapping.reads_cloud_events => {
                let mut message = Message::event(&event, envelope);
                mapping.read(&mut message, index, *received_at, self, anonymous)
            }
            (Some(event), _) => cloud_events::read(&event, *received_at, self),
        }
    }

    /// The extra columns that the archive keeps of an item of this message: those of the mapping, in its order, whether
    /// the item is a pulse that counts or not. Without a mapping there are none.
    ///
    /// # Errors
    /// Why the item cannot be archived: it is not of the mapping's shape, or could not be taken apart.
    pub fn columns(&self, delivery: &Delivery, item: &Item) -> Result<Vec<ColumnValue>, Rejection> {
        let Format::Mapping(mapping) = &self.format else { return Ok(Vec::new()) };
        let native = |name| {
            Rejection::new(Reason::Malformed, format!("a native pulse is no message of the mapping {name}"))
        };
        if *self.format(&delivery.envelope) == Format::Pulse {
            return Err(native(&mapping.name));
        }
        let form = self.form(delivery)?;
        self.columns_of(
            delivery,
            form,
            body::text(delivery.body.get(item.bytes.clone()).unwrap_or_default())?,
        )
    }

    fn columns_of(&self, delivery: &Delivery, form: Form, text: &str) -> Result<Vec<ColumnValue>, Rejection> {
        let Format::Mapping(mapping) = &self.format else { return Ok(Vec::new()) };
        let envelope = &delivery.envelope;
        match form.event(envelope, text)? {
            None => mapping.read_columns(&mut Message::plain(text, envelope)?),
            Some(event) if mapping.reads_cloud_events => {
                mapping.read_columns(&mut Message::event(&event, envelope))
            }
            Some(_) => Err(Rejection::new(
                Reason::Malformed,
                format!("a CloudEvent is no message of the mapping {}", mapping.name),
            )),
        }
    }
}

#[cfg(test)]
mod tests;
