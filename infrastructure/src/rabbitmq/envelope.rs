//! AMQP properties as an envelope, and back.

use super::frames::mend_text;
use application::ports::Envelope;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use std::fmt::Write;

/// The longest short string of AMQP 0-9-1, in bytes.
const SHORT_STRING_BYTES_MAX: usize = 255;
/// All properties of a message travel in one frame, of 128 KiB by default and 4 KiB at least. A source's headers beyond
/// this stay behind, so that a message can always be refused.
const HEADER_BYTES_MAX: usize = 65_536;
const PERSISTENT: u8 = 2;
/// The header by which a message that was sent to the queue itself says with which routing key it first came.
pub(super) const ROUTING_KEY: &str = "pulse-routing-key";

/// What an AMQP message says about itself. Headers come in the order of their names, which is how the client keeps them.
pub(super) fn envelope(routing_key: ShortString, properties: &BasicProperties) -> Envelope {
    let text = |value: &Option<ShortString>| value.as_ref().map(|value| value.as_str().to_owned());
    let mut headers: Vec<(String, String)> = properties.headers().as_ref().map_or_else(Vec::new, |headers| {
        headers.into_iter().map(|(name, value)| (name.as_str().to_owned(), as_text(value))).collect()
    });
    let first = headers.iter().position(|(name, _)| name == ROUTING_KEY);
    let first = first.map(|place| headers.remove(place).1);
    Envelope {
        message_id: text(properties.message_id()),
        content_type: text(properties.content_type()),
        routing_key: first.or_else(|| Some(String::from(routing_key))),
        headers,
    }
}

/// The properties of a persistent message.
pub(super) fn properties(
    message_id: Option<&str>,
    content_type: Option<&str>,
    headers: FieldTable,
) -> BasicProperties {
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    if let Some(id) = message_id {
        properties = properties.with_message_id(short_string(id));
    }
    if let Some(content_type) = content_type {
        properties = properties.with_content_type(short_string(content_type));
    }
    if headers.inner().is_empty() { properties } else { properties.with_headers(headers) }
}

/// Headers as a table; of two with one name the first stays, and those that no longer fit are left out.
pub(super) fn header_table<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> FieldTable {
    let mut table = FieldTable::default();
    let mut room = HEADER_BYTES_MAX;
    for (name, value) in headers {
        // One byte for the length of the name, one for the type, four for the length of the value.
        let size = name.len() + value.len() + 6;
        let name = short_string(name);
        if size <= room && !table.contains_key(name.as_str()) {
            room -= size;
            table.insert(name, AMQPValue::LongString(value.into()));
        }
    }
    table
}

/// The text, or as much of its beginning as a short string holds.
pub(super) fn short_string(text: &str) -> ShortString {
    ShortString::from(&text[..text.floor_char_boundary(SHORT_STRING_BYTES_MAX)])
}

fn as_text(value: &AMQPValue) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_value(&mut text, value);
    text
}

fn write_value(out: &mut String, value: &AMQPValue) -> std::fmt::Result {
    match value {
        AMQPValue::LongString(text) => {
            let mut bytes = text.as_bytes().to_vec();
            mend_text(&mut bytes);
            write!(out, "{}", String::from_utf8_lossy(&bytes))
        }
        AMQPValue::ShortString(text) => write!(out, "{text}"),
        AMQPValue::Boolean(value) => write!(out, "{value}"),
        AMQPValue::ShortShortInt(value) => write!(out, "{value}"),
        AMQPValue::ShortShortUInt(value) => write!(out, "{value}"),
        AMQPValue::ShortInt(value) => write!(out, "{value}"),
        AMQPValue::ShortUInt(value) => write!(out, "{value}"),
        AMQPValue::LongInt(value) => write!(out, "{value}"),
        AMQPValue::LongUInt(value) => write!(out, "{value}"),
        AMQPValue::LongLongInt(value) => write!(out, "{value}"),
        AMQPValue::Timestamp(value) => write!(out, "{value}"),
        AMQPValue::Float(value) => write!(out, "{value}"),
        AMQPValue::Double(value) => write!(out, "{value}"),
        AMQPValue::DecimalValue(value) => write!(out, "{}e-{}", value.value, value.scale),
        AMQPValue::ByteArray(bytes) => bytes.as_slice().iter().try_for_each(|byte| write!(out, "{byte:02x}")),
        AMQPValue::FieldArray(values) => {
            out.push('[');
            for (index, value) in values.as_slice().iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                write_value(out, value)?;
            }
            out.push(']');
            Ok(())
        }
        AMQPValue::FieldTable(table) => {
            out.push('{');
            for (index, (name, value)) in table.into_iter().enumerate() {
                write!(out, "{}{name}:", if index == 0 { "" } else { "," })?;
                write_value(out, value)?;
            }
            out.push('}');
            Ok(())
        }
        AMQPValue::Void => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::FieldArray;

    #[test]
    fn header_values_of_every_type_read_as_text() {
        let mut table = FieldTable::default();
        table.insert("count".into(), AMQPValue::LongLongInt(-2));
        let array =
            FieldArray::from(vec![AMQPValue::FieldTable(table), AMQPValue::Boolean(true), AMQPValue::Void]);
        assert_eq!(as_text(&AMQPValue::FieldArray(array)), "[{count:-2},true,]");
        assert_eq!(as_text(&AMQPValue::LongString(vec![0xff, b'a'].into())), "\u{1a}a");
        assert_eq!(as_text(&AMQPValue::ByteArray(vec![0, 0xff].into())), "00ff");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let cut = short_string(&"\u{e9}".repeat(200));
        assert_eq!(cut.as_str().len(), 254);
    }

    #[test]
    fn headers_that_no_longer_fit_are_left_out_and_the_first_of_a_name_stays() {
        let large = "x".repeat(HEADER_BYTES_MAX);
        let table = header_table([("a", "1"), ("large", large.as_str()), ("a", "2"), ("b", "3")]);
        let names: Vec<&str> = table.into_iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(table.inner().get("a").map(as_text).as_deref(), Some("1"));
    }
}
