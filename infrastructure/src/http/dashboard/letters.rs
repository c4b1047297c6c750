//! What was refused, and why.

use super::{
    format::{grouped, moment},
    page::{empty, unavailable},
};
use application::{
    overview::{GatherOverview, Named, Unavailable},
    ports::{RefusedPulses, StoredLetter},
};
use futures_util::future::join_all;
use maud::{Markup, html};
use std::fmt::Write;
use tokio::time::timeout;

/// How many letters of each place are shown.
const LETTERS: u32 = 50;

/// The letters of one place, and how many there are in all.
pub(super) type Letters = Named<(Vec<StoredLetter>, u64)>;

/// Asks all places at the same time.
pub(super) async fn letters(gather: &GatherOverview) -> Vec<Letters> {
    let ask = async |(name, refused): &(String, std::sync::Arc<dyn RefusedPulses>)| {
        let both = async { Ok((refused.letters(LETTERS).await?, refused.count().await?)) };
        let answer = match timeout(gather.part_limit * 2, both).await {
            Ok(answer) => {
                answer.map_err(|error: application::ports::PortError| Unavailable(error.to_string()))
            }
            Err(_) => Err(Unavailable("it does not answer".to_owned())),
        };
        Letters { name: name.clone(), answer }
    };
    join_all(gather.refused.iter().map(ask)).await
}

pub(super) fn content(places: &[Letters]) -> Markup {
    html! {
        p.soft {
            "Pulses that no retry can save. Mend the sender by the reason, and send them again."
        }
        @for place in places {
            h2 { (place.name) }
            @match &place.answer {
                Err(error) => (unavailable("The dead letters", error)),
                Ok((letters, _)) if letters.is_empty() => {
                    (empty("Nothing was refused", &html! { "Every pulse so far could be read and counted." }))
                }
                Ok((letters, count)) => {
                    p.soft { (letters.len()) " of " (grouped(count)) " shown" }
                    ol.letters { @for letter in letters { (article(letter)) } }
                }
            }
        }
    }
}

fn article(letter: &StoredLetter) -> Markup {
    let reason = if letter.reason.is_empty() { "no reason given" } else { &letter.reason };
    html! {
        li.card {
            div.head {
                span.reason { (reason) }
                @if let Some(time) = letter.received_at { (moment(time)) }
                @if !letter.source.is_empty() { span.soft { "from " (letter.source) } }
                @if let Some(item) = letter.item { span.soft { "item " (item) } }
            }
            p { (letter.detail) }
            details {
                summary { (grouped(letter.body_bytes)) " bytes" }
                pre tabindex="0" { (shown(letter)) }
                @if !letter.id.is_empty() { small { "id " (letter.id) } }
            }
        }
    }
}

/// The beginning of the body as text; what is no text, and what would act on the page or a terminal, by its number.
fn shown(letter: &StoredLetter) -> String {
    let mut out = String::with_capacity(letter.body.len());
    for chunk in letter.body.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\n' || character == '\t' || !(character.is_control() || is_direction(character))
            {
                out.push(character);
            } else {
                out.extend(character.escape_unicode());
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    let cut = letter.body_bytes.saturating_sub(u64::try_from(letter.body.len()).unwrap_or(u64::MAX));
    if cut > 0 {
        let _ = write!(out, "\u{2026} and {} more bytes", grouped(cut));
    }
    out
}

/// Marks that let text read otherwise than it is.
fn is_direction(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(body: &[u8]) -> StoredLetter {
        StoredLetter {
            id: "0f".repeat(16),
            reason: "malformed".to_owned(),
            detail: "not JSON: <img src=x>".to_owned(),
            body: body.to_vec(),
            body_bytes: body.len() as u64,
            item: Some(3),
            source: "rabbitmq".to_owned(),
            received_at: None,
        }
    }

    #[test]
    fn letters_are_escaped_and_cut() {
        let cut = StoredLetter { body_bytes: 5_000, ..letter(b"<script>\xff\x1b[2J") };
        let places = [Letters { name: "pulses.dead".to_owned(), answer: Ok((vec![cut], 1_234)) }];
        let page = content(&places).into_string();
        assert!(page.contains("&lt;script&gt;\\xff\\u{1b}[2J\u{2026} and 4,987 more bytes"), "{page}");
        assert!(page.contains("not JSON: &lt;img src=x&gt;") && page.contains("1 of 1,234 shown"), "{page}");
        assert!(!page.contains("<script>") && !page.contains("<img"));
    }

    #[test]
    fn a_place_that_is_away_leaves_the_others() {
        let away = Letters { name: "queue".to_owned(), answer: Err(Unavailable("refused".to_owned())) };
        let none = Letters { name: "file".to_owned(), answer: Ok((Vec::new(), 0)) };
        let page = content(&[away, none]).into_string();
        assert!(
            page.contains("cannot be shown.</strong> refused") && page.contains("Nothing was refused"),
            "{page}"
        );
    }
}
