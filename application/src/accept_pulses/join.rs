//! Pulses of many callers in one message: it costs its broker, its readers and their stores as much as one pulse alone.

use crate::ports::IntakeMessage;
use domain::HourWindow;

/// The most bytes of a message that others are joined to.
const BYTES_MAX: usize = 256 * 1024;
const JSON: &str = "application/json";

/// The messages, those that may be joined in as few as possible, of at most so many pulses each. A joined message has the
/// name, the trace and the time of its first. The pulses stay in their order, but for those of the messages that stay as
/// they are.
pub(super) fn joined<'a>(
    messages: impl Iterator<Item = &'a IntakeMessage>,
    pulses_max: usize,
) -> Vec<IntakeMessage> {
    let mut parcels: Vec<IntakeMessage> = Vec::new();
    // The place of the one that takes more.
    let mut open: Option<usize> = None;
    for message in messages {
        if let Some(parcel) = open.map(|place| &mut parcels[place])
            && fits(parcel, message, pulses_max)
        {
            append(parcel, message);
            continue;
        }
        if message.joins.is_some() {
            open = Some(parcels.len());
        }
        parcels.push(message.clone());
    }
    parcels
}

fn fits(parcel: &IntakeMessage, message: &IntakeMessage, pulses_max: usize) -> bool {
    // What arrives later may belong to another hour, and nothing else of a pulse without a time of its own says so.
    let hour = |message: &IntakeMessage| HourWindow::of(message.received_at);
    matches!((parcel.joins, message.joins), (Some(there), Some(more)) if there + more <= pulses_max)
        && parcel.body.len() + message.body.len() < BYTES_MAX
        && hour(parcel) == hour(message)
}

/// Makes the parcel an array, if it is none yet, and puts the pulses of the message behind its own.
fn append(parcel: &mut IntakeMessage, message: &IntakeMessage) {
    let more = elements(&message.body);
    let own = elements(&parcel.body);
    if own.len() == parcel.body.len() {
        parcel.body.insert(0, b'[');
    } else {
        let end = parcel.body.trim_ascii_end().len();
        parcel.body.truncate(end - 1);
    }
    parcel.body.push(b',');
    parcel.body.extend_from_slice(more);
    parcel.body.push(b']');
    parcel.envelope.content_type = Some(JSON.to_owned());
    parcel.joins = parcel.joins.zip(message.joins).map(|(there, more)| there + more);
}

/// The pulses of a body, with the commas between them and without the brackets around them.
fn elements(body: &[u8]) -> &[u8] {
    let body = body.trim_ascii();
    body.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).unwrap_or(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Envelope;
    use domain::Timestamp;

    fn message(body: &str, joins: Option<usize>) -> IntakeMessage {
        let (id, envelope) = (body.to_owned(), Envelope::default());
        IntakeMessage { id, body: body.into(), envelope, received_at: Timestamp::new(0, 0), joins }
    }

    fn bodies(messages: &[IntakeMessage], pulses_max: usize) -> Vec<String> {
        let joined = joined(messages.iter(), pulses_max);
        joined.into_iter().map(|message| String::from_utf8(message.body).unwrap()).collect()
    }

    #[test]
    fn objects_and_arrays_become_one_array_and_what_does_not_join_stays() {
        let messages = [
            message("{\"a\":[1]}", Some(1)),
            message("alone", None),
            message(" [ {\"b\":2}, {} ]\n", Some(2)),
            message("{} ", Some(1)),
            message("[{}]", Some(1)),
        ];
        assert_eq!(bodies(&messages, 100), ["[{\"a\":[1]}, {\"b\":2}, {} ,{},{}]", "alone"]);
        assert_eq!(bodies(&messages[2..4], 100), [" [ {\"b\":2}, {} ,{}]"]);
        assert_eq!(bodies(&messages[..1], 100), ["{\"a\":[1]}"]);
        assert_eq!(joined(messages.iter(), 100)[0].joins, Some(5));
        assert_eq!(joined(messages.iter(), 100)[0].id, messages[0].id);
    }

    #[test]
    fn a_message_is_full_at_its_pulses_its_bytes_and_the_end_of_the_hour() {
        let many = vec![message("{}", Some(2)); 5];
        assert_eq!(bodies(&many, 5), ["[{},{}]", "[{},{}]", "{}"]);
        let large = vec![message(&format!("{{{}}}", " ".repeat(BYTES_MAX / 3)), Some(1)); 3];
        assert_eq!(bodies(&large, 1_000).len(), 2);
        let later = IntakeMessage { received_at: Timestamp::new(3_600, 0), ..message("{}", Some(1)) };
        assert_eq!(bodies(&[message("{}", Some(1)), later.clone(), later], 1_000), ["{}", "[{},{}]"]);
    }
}
