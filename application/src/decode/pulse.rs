//! Reading one native pulse: a JSON object with known fields.

use super::{
    Anonymous, Decoder, Reading,
    body::Raw,
    fields::{
        DEPTH_MAX, amount, check_age, id_text, is_too_deep, name, required, shortened, stand_in_identity,
        string, time,
    },
};
use crate::ports::Envelope;
use domain::{PulseIdentity, Reason, Rejection, Timestamp};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use std::{borrow::Cow, collections::BTreeSet, fmt};

/// Reads the text of one pulse; `index` is its place in the message.
pub(super) fn read(
    text: &str,
    index: u32,
    envelope: &Envelope,
    received_at: Timestamp,
    decoder: &Decoder,
    anonymous: Anonymous,
) -> Result<Reading, Rejection> {
    let wire = WirePulse::parse("a pulse", text)?;
    let occurred_at = wire.occurred_at.map(|value| time("occurred_at", value)).transpose()?;
    if let Some(time) = occurred_at {
        check_age("occurred_at", time, received_at, decoder)?;
    }
    Ok(Reading {
        tenant: name("tenant", wire.tenant)?,
        product_sku: name("product_sku", wire.product_sku)?,
        use_unity: name("use_unity", wire.use_unity)?,
        amount: amount("used_amount", required("used_amount", wire.used_amount)?)?,
        identity: match wire.id {
            Some(id) => Some(PulseIdentity::Id(id_text("id", &string("id", id)?)?)),
            None => stand_in_identity(index, envelope, anonymous)?,
        },
        occurred_at,
    })
}

/// The known fields of a pulse as they are written; `null` counts as absent.
#[derive(Default)]
pub(super) struct WirePulse<'a> {
    id: Option<&'a str>,
    tenant: Option<&'a str>,
    pub(super) product_sku: Option<&'a str>,
    pub(super) used_amount: Option<&'a str>,
    pub(super) use_unity: Option<&'a str>,
    occurred_at: Option<&'a str>,
}

impl<'a> WirePulse<'a> {
    /// Takes the object apart; `what` is what it should have been.
    pub(super) fn parse(what: &str, text: &'a str) -> Result<Self, Rejection> {
        serde_json::from_str(text)
            .map_err(|error| Rejection::new(Reason::Malformed, shortened(&format!("not {what}: {error}"))))
    }
}

enum Field<'a> {
    Known(usize),
    Unknown(Cow<'a, str>),
}

const FIELDS: [&str; 6] = ["id", "tenant", "product_sku", "used_amount", "use_unity", "occurred_at"];

impl<'a> Field<'a> {
    fn of(name: Cow<'a, str>) -> Self {
        let known = if name == "unit" { "use_unity" } else { &name };
        match FIELDS.iter().position(|field| *field == known) {
            Some(place) => Self::Known(place),
            None => Self::Unknown(name),
        }
    }
}

impl<'de> Deserialize<'de> for Field<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;
        impl<'de> Visitor<'de> for FieldVisitor {
            type Value = Field<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name of a field")
            }

            fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Field<'de>, E> {
                Ok(Field::of(Cow::Borrowed(name)))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Field<'de>, E> {
                Ok(Field::of(Cow::Owned(name.to_owned())))
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
        let mut unknown = BTreeSet::new();
        while let Some(field) = map.next_key::<Field<'de>>()? {
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
