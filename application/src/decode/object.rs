//! Any JSON object, one level of it: its fields as they are written, each of them once.

use super::{
    body::Raw,
    fields::{DEPTH_MAX, is_too_deep, shortened},
};
use domain::{Reason, Rejection};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, Visitor},
};
use std::{borrow::Cow, collections::HashMap, fmt};

/// The fields of an object by their names, values as they are written.
pub(super) type Fields<'a> = HashMap<Cow<'a, str>, &'a str>;

/// Reads one level of the object; `what` is what it should have been.
pub(super) fn fields<'a>(what: &str, text: &'a str) -> Result<Fields<'a>, Rejection> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Object { what }
        .deserialize(&mut deserializer)
        .and_then(|fields| deserializer.end().map(|()| fields))
        .map_err(|error| Rejection::new(Reason::Malformed, shortened(&format!("not {what}: {error}"))))
}

struct Object<'w> {
    what: &'w str,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Fields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Fields<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, a JSON object", self.what)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = HashMap::new();
        while let Some(Name(name)) = map.next_key()? {
            let Raw(value) = map.next_value()?;
            if is_too_deep(value) {
                return Err(A::Error::custom(format!("nested more than {DEPTH_MAX} deep")));
            }
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format!("field {} appears twice", shortened(&name))));
            }
            fields.insert(name, value);
        }
        Ok(fields)
    }
}

/// The name of a field; without escapes it is a slice of the message.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name of a field")
            }

            fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}
