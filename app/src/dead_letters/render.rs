//! Dead letters as text and as JSON.

use crate::keys::shown;
use application::{
    dead_letters::{Handled, REPLAYS_MAX, Seen, Survey, Wish, replays, tenant_of},
    ports::StoredLetter,
};
use comfy_table::{Table, presets};
use serde_json::{Value, json};
use std::{fmt::Write as _, io::Write};

/// How many bytes a line of a dump shows.
const DUMP_BYTES: usize = 16;

/// One letter a row, the latest first, then the counts.
pub(super) fn table(surveys: &[(&'static str, Survey)], out: &mut impl Write) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "ID", "PLACE", "REASON", "SOURCE", "ITEM", "TENANT", "REPLAYS", "RECEIVED", "BYTES", "DETAIL",
    ]);
    for (place, survey) in surveys {
        for Seen { letter, body_bytes, tenant } in survey.letters.iter().rev() {
            table.add_row([
                escaped(&letter.id),
                (*place).to_owned(),
                escaped(&letter.reason),
                escaped(&letter.source),
                letter.item.map(|item| item.to_string()).unwrap_or_default(),
                tenant.as_deref().map(escaped).unwrap_or_default(),
                replays(&letter.envelope).to_string(),
                letter.received_at.map(shown).unwrap_or_default(),
                body_bytes.to_string(),
                escaped(&letter.detail),
            ]);
        }
    }
    if table.row_count() > 0 {
        writeln!(out, "{}\n", table.trim_fmt())?;
    }
    for (place, survey) in surveys {
        let reasons: Vec<String> = survey
            .reasons
            .iter()
            .map(|(reason, count)| {
                let reason = if reason.is_empty() { "no reason given" } else { reason };
                format!("{} {count}", escaped(reason))
            })
            .collect();
        let list = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
        let plural = if survey.fitting == 1 { "letter" } else { "letters" };
        writeln!(out, "{place}: {} {plural}{list}", survey.fitting)?;
    }
    Ok(())
}

/// One object with all letters and all counts.
pub(super) fn json(surveys: &[(&'static str, Survey)], out: &mut impl Write) -> anyhow::Result<()> {
    let letters: Vec<Value> = surveys
        .iter()
        .flat_map(|(place, survey)| survey.letters.iter().rev().map(|seen| (*place, seen)))
        .map(|(place, seen)| row(place, &seen.letter, seen.body_bytes, seen.tenant.as_deref()))
        .collect();
    let places: Vec<Value> = surveys
        .iter()
        .map(|(place, survey)| {
            json!({"place": place, "letters": survey.fitting, "looked_at": survey.looked_at, "reasons": survey.reasons})
        })
        .collect();
    Ok(writeln!(out, "{}", json!({"letters": letters, "places": places}))?)
}

fn row(place: &str, letter: &StoredLetter, body_bytes: usize, tenant: Option<&str>) -> Value {
    json!({
        "id": letter.id, "place": place, "reason": letter.reason, "detail": letter.detail, "source": letter.source,
        "item": letter.item, "tenant": tenant, "replays": replays(&letter.envelope),
        "received_at": letter.received_at.map(shown), "obstacle": letter.obstacle, "body_bytes": body_bytes,
        "body": String::from_utf8_lossy(&letter.body),
    })
}

/// Everything about a letter; the bytes in hexadecimal digits, as text of JSON holds only some.
pub(super) fn whole_json(place: &str, letter: &StoredLetter, out: &mut impl Write) -> anyhow::Result<()> {
    let mut object = row(place, letter, letter.body.len(), tenant_of(letter).as_deref());
    let hex = letter.body.iter().fold(String::with_capacity(letter.body.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let envelope = &letter.envelope;
    object["body_hex"] = json!(hex);
    object["message_id"] = json!(envelope.message_id);
    object["content_type"] = json!(envelope.content_type);
    object["routing_key"] = json!(envelope.routing_key);
    object["headers"] = json!(envelope.headers);
    object["log_place"] = json!(Some(&letter.place).filter(|place| !place.is_empty()));
    Ok(writeln!(out, "{object}")?)
}

/// Everything about a letter; bytes that are no text as a dump.
pub(super) fn whole(place: &str, letter: &StoredLetter, out: &mut impl Write) -> anyhow::Result<()> {
    let envelope = &letter.envelope;
    let replays = replays(envelope).to_string();
    let lines = [
        ("id", Some(letter.id.clone())),
        ("place", Some(place.to_owned())),
        ("reason", Some(letter.reason.clone())),
        ("detail", Some(letter.detail.clone())),
        ("source", Some(letter.source.clone())),
        ("log place", Some(letter.place.clone()).filter(|place| !place.is_empty())),
        ("item", letter.item.map(|item| item.to_string())),
        ("tenant", tenant_of(letter)),
        ("received", letter.received_at.map(shown)),
        ("replays", Some(replays)),
        ("obstacle", letter.obstacle.clone()),
        ("message id", envelope.message_id.clone()),
        ("content type", envelope.content_type.clone()),
        ("routing key", envelope.routing_key.clone()),
    ];
    for (name, value) in lines {
        if let Some(value) = value {
            writeln!(out, "{name:<14}{}", escaped(&value))?;
        }
    }
    for (name, value) in &envelope.headers {
        writeln!(out, "{:<14}{}: {}", "header", escaped(name), escaped(value))?;
    }
    writeln!(out, "{:<14}{} bytes\n", "body", letter.body.len())?;
    match std::str::from_utf8(&letter.body) {
        Ok(text)
            if !text
                .chars()
                .any(|character| is_unsafe(character) && character != '\n' && character != '\t') =>
        {
            writeln!(out, "{text}")?;
        }
        _ => dump(&letter.body, out)?,
    }
    Ok(())
}

fn dump(bytes: &[u8], out: &mut impl Write) -> anyhow::Result<()> {
    for (line, chunk) in bytes.chunks(DUMP_BYTES).enumerate() {
        let (mut digits, mut text) = (String::new(), String::new());
        for byte in chunk {
            let _ = write!(digits, "{byte:02x} ");
            text.push(if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' });
        }
        writeln!(out, "{:08x}  {digits:<48} {text}", line * DUMP_BYTES)?;
    }
    Ok(())
}

/// What was done, and what stays and why.
pub(super) fn handled(
    title: &str,
    handled: &Handled,
    wish: Wish,
    dry_run: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let Handled { looked_at, done, circling, obstructed, .. } = handled;
    let deed = match (wish, dry_run) {
        (Wish::Replay { .. }, false) => "sent back",
        (Wish::Replay { .. }, true) => "would be sent back",
        (Wish::Discard, false) => "discarded",
        (Wish::Discard, true) => "would be discarded",
    };
    writeln!(out, "{title}: {done} of {looked_at} letters {deed}")?;
    if *circling > 0 {
        writeln!(
            out,
            "{title}: {circling} came back {REPLAYS_MAX} times or more and stay; --force sends them all the same"
        )?;
    }
    for (obstacle, count) in obstructed {
        writeln!(out, "{title}: {count} cannot be sent back and stay: {}", escaped(obstacle))?;
    }
    Ok(())
}

/// What would act on a terminal, or let text read otherwise than it is.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unsafe(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_dumped_and_nothing_acts_on_the_terminal() {
        let letter = StoredLetter {
            id: "a\u{1b}[2J".to_owned(),
            body: b"\xff\x00 text beyond sixteen bytes".to_vec(),
            ..StoredLetter::default()
        };
        let mut out = Vec::new();
        whole("rabbitmq", &letter, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("a\\u{1b}[2J") && !text.contains('\u{1b}'), "{text}");
        assert!(
            text.contains("00000000  ff 00 20 74 65 78 74 20 62 65 79 6f 6e 64 20 73  .. text beyond s\n"),
            "{text}"
        );
        assert!(text.contains("00000010  69 78 74 65 65 6e"), "{text}");
        let plain = StoredLetter { body: b"{\n}".to_vec(), ..StoredLetter::default() };
        let mut out = Vec::new();
        whole("file", &plain, &mut out).unwrap();
        assert!(out.ends_with(b"3 bytes\n\n{\n}\n"));
    }
}
