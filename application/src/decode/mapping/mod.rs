//! Messages of any shape as pulses: a mapping says where each part of a pulse is found.

mod column;
mod message;
mod pick;
#[cfg(test)]
mod tests;

pub use column::{Column, ColumnKind, ColumnValue, TimeFormat};
pub use pick::{Pick, PickError, Pointer, Template};

pub(super) use message::Message;

use super::{
    Anonymous, Decoder, Reading,
    fields::{
        amount, amount_text, check_age, id_text, invalid, name_text, required, shortened, stand_in_identity,
    },
};
use domain::{PulseIdentity, Reason, Rejection, Timestamp};
use std::borrow::Cow;

/// Where the parts of a pulse are found in messages of one shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// What it is called.
    pub name: Box<str>,
    /// Whether the messages are `CloudEvents`; pointers then lead into their data.
    pub reads_cloud_events: bool,
    /// Values that must be there, with their [`Value::one_of`], for a message to be of this shape at all.
    pub checks: Vec<Value>,
    /// Who is billed.
    pub tenant: Value,
    /// What was used.
    pub product_sku: Value,
    /// What the amount is counted in.
    pub use_unity: Value,
    /// How much.
    pub used_amount: Value,
    /// What makes a pulse this one and no other.
    pub identity: Identity,
    /// When it was used; the time of arrival where it is `None`.
    pub occurred_at: Option<(Value, TimeFormat)>,
    /// What the archive keeps beside these.
    pub columns: Vec<Column>,
}

/// What makes a pulse this one and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Nothing in the message: its place in a log, or its message id, or nothing at all.
    None,
    /// `source` and `id` of the `CloudEvent`.
    CloudEvent,
    /// A value of the message.
    Value(Value),
}

/// A value of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Where it is found.
    pub pick: Pick,
    /// Whether it may be absent.
    pub optional: bool,
    /// What it may be; anything where it is empty.
    pub one_of: Vec<Box<str>>,
    /// How a refusal names it.
    label: Box<str>,
}

impl Value {
    /// A value that must be there; `field` is what a refusal calls it.
    #[must_use]
    pub fn new(field: &str, pick: Pick) -> Self {
        let label = format!("{field} ({pick})").into();
        Self { pick, optional: false, one_of: Vec::new(), label }
    }

    fn present<T>(&self, value: Option<T>) -> Result<Option<T>, Rejection> {
        match value {
            None if !self.optional => {
                Err(Rejection::new(Reason::MissingField, format!("{} is missing", self.label)))
            }
            value => Ok(value),
        }
    }

    fn text<'a>(&'a self, message: &mut Message<'a>) -> Result<Option<Cow<'a, str>>, Rejection> {
        let text = message.text(&self.pick, &self.label)?;
        if let Some(text) = &text
            && !self.one_of.is_empty()
            && !self.one_of.iter().any(|allowed| **allowed == **text)
        {
            let allowed = self.one_of.join(", ");
            return Err(invalid(&self.label, format_args!("must be one of {allowed}: {}", shortened(text))));
        }
        self.present(text)
    }

    fn required<'a>(&'a self, message: &mut Message<'a>) -> Result<Cow<'a, str>, Rejection> {
        let text = self.text(message)?;
        text.ok_or_else(|| Rejection::new(Reason::MissingField, format!("{} is missing", self.label)))
    }
}

impl Mapping {
    /// What a message says; `index` is its place among others.
    pub(super) fn read<'a>(
        &'a self,
        message: &mut Message<'a>,
        index: u32,
        received_at: Timestamp,
        decoder: &Decoder,
        anonymous: Anonymous,
    ) -> Result<Reading, Rejection> {
        self.check(message)?;
        let occurred_at = match &self.occurred_at {
            None => None,
            Some((value, format)) => match value.text(message)? {
                Some(text) => {
                    let time = format.read(&value.label, &text)?;
                    check_age(&value.label, time, received_at, decoder)?;
                    Some(time)
                }
                None => None,
            },
        };
        let identity = match &self.identity {
            Identity::None => stand_in_identity(index, message.envelope(), anonymous)?,
            Identity::Value(value) => {
                Some(PulseIdentity::Id(id_text(&value.label, &value.required(message)?)?))
            }
            Identity::CloudEvent => Some(required("a CloudEvent", message.as_event())?.identity()?),
        };
        Ok(Reading {
            tenant: name_text(&self.tenant.label, &self.tenant.required(message)?)?,
            product_sku: name_text(&self.product_sku.label, &self.product_sku.required(message)?)?,
            use_unity: name_text(&self.use_unity.label, &self.use_unity.required(message)?)?,
            amount: {
                let Value { pick, label, .. } = &self.used_amount;
                match pick {
                    Pick::Pointer(pointer) => amount(label, required(label, message.json(pointer)?)?)?,
                    _ => amount_text(label, &self.used_amount.required(message)?)?,
                }
            },
            identity,
            occurred_at,
        })
    }

    /// The extra columns of a message, in their order. They may be there where it is no pulse that counts: an amount of
    /// zero, for example.
    pub(super) fn read_columns<'a>(
        &'a self,
        message: &mut Message<'a>,
    ) -> Result<Vec<ColumnValue>, Rejection> {
        self.check(message)?;
        self.columns.iter().map(|column| column.read(message)).collect()
    }

    fn check<'a>(&'a self, message: &mut Message<'a>) -> Result<(), Rejection> {
        self.checks.iter().try_for_each(|value| value.text(message).map(|_| ()))
    }
}
