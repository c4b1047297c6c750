//! What was refused, and why.

use super::{
    format::{grouped, moment},
    page::{empty, unavailable},
};
use application::{
    dead_letters::{Bound, LetterFilter, NamedPlace, Seen, Survey, replays, survey},
    overview::Unavailable,
};
use futures_util::future::join_all;
use maud::{Markup, html};
use std::{fmt::Write, time::Duration};
use tokio::time::timeout;
use url::form_urlencoded;

/// How many letters of each place are shown.
const LETTERS: usize = 50;
/// How long a place may be gone through, and how long it may take to answer beside that.
const LOOK: Duration = Duration::from_secs(3);
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// The letters of one place.
pub(super) struct Letters {
    pub(super) name: &'static str,
    pub(super) title: String,
    pub(super) answer: Result<Survey, Unavailable>,
}

/// Asks all places at the same time.
pub(super) async fn letters(places: &[NamedPlace]) -> Vec<Letters> {
    let ask = async |NamedPlace { name, title, place }: &NamedPlace| {
        let (filter, bound) = (LetterFilter::default(), Bound { letters: None, time: Some(LOOK) });
        let look = survey(place.as_ref(), &filter, LETTERS, bound);
        let answer = match timeout(LOOK + ANSWER_LIMIT, look).await {
            Ok(answer) => answer.map_err(|error| Unavailable(error.to_string())),
            Err(_) => Err(Unavailable("it does not answer".to_owned())),
        };
        Letters { name, title: title.clone(), answer }
    };
    join_all(places.iter().map(ask)).await
}

pub(super) fn content(told: &Markup, places: &[Letters]) -> Markup {
    html! {
        (told)
        p.soft {
            "Pulses that were refused, with the reason. Mend the cause, then send them back; discard what is no pulse."
        }
        @for Letters { name, title, answer } in places {
            h2 { (title) }
            @match answer {
                Err(error) => (unavailable("The dead letters", error)),
                Ok(survey) if survey.fitting == 0 => {
                    (empty("Nothing was refused", &html! { "Every pulse so far could be read and counted." }))
                }
                Ok(survey) => {
                    (reasons(name, survey))
                    p.soft {
                        "The latest " (survey.letters.len()) " of " (grouped(survey.fitting))
                        @if !survey.complete { " and more" }
                    }
                    ol.letters { @for seen in survey.letters.iter().rev() { (article(name, seen)) } }
                }
            }
        }
        @if places.is_empty() {
            (empty("There is no place of dead letters here", &html! {
                "What was refused of the inbox is told by " code { "app webhooks list --status failed" } "."
            }))
        }
    }
}

/// How many there are of each reason, and what can be done with them.
fn reasons(place: &str, survey: &Survey) -> Markup {
    html! {
        ul.reasons {
            @for (reason, count) in &survey.reasons {
                li.card {
                    span { (code(reason)) " " strong { (grouped(count)) } }
                    @if !reason.is_empty() { (buttons(place, ("reason", reason), true, "all")) }
                }
            }
        }
    }
}

/// The word of a reason.
pub(super) fn code(reason: &str) -> Markup {
    html! { span.reason { @if reason.is_empty() { "no reason given" } @else { (reason) } } }
}

/// Links to the page that asks before anything is done.
fn buttons(place: &str, which: (&str, &str), may_go: bool, all: &str) -> Markup {
    let to = |action| link("/dead-letters/confirm", &[("action", action), ("place", place), which]);
    html! {
        span.actions {
            @if may_go { a.button.small href=(to("replay")) { "Replay " (all) } }
            a.button.small href=(to("discard")) { "Discard " (all) }
        }
    }
}

/// A path with a query.
pub(super) fn link(path: &str, query: &[(&str, &str)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{path}?{query}")
}

fn article(place: &str, seen: &Seen) -> Markup {
    let letter = &seen.letter;
    let replays = replays(&letter.envelope);
    html! {
        li.card {
            div.head {
                (code(&letter.reason))
                @if let Some(time) = letter.received_at { (moment(time)) }
                @if !letter.source.is_empty() { span.soft { "from " (letter.source) } }
                @if let Some(item) = letter.item { span.soft { "item " (item) } }
                @if replays > 0 { span.soft { "came back " (replays) @if replays == 1 { " time" } @else { " times" } } }
            }
            p { (letter.detail) }
            @if let Some(obstacle) = &letter.obstacle { p.soft { "It cannot be sent back: " (obstacle) "." } }
            details {
                summary { (grouped(seen.body_bytes)) " bytes" }
                pre tabindex="0" { (shown(seen)) }
                @if !letter.id.is_empty() { small { "id " (letter.id) } }
            }
            @if !letter.id.is_empty() { (buttons(place, ("id", &letter.id), letter.obstacle.is_none(), "")) }
        }
    }
}

/// The beginning of the body as text; what is no text, and what would act on the page or a terminal, by its number.
fn shown(seen: &Seen) -> String {
    let beginning = &seen.letter.body;
    let mut out = String::with_capacity(beginning.len());
    for chunk in beginning.utf8_chunks() {
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
    let cut = seen.body_bytes.saturating_sub(beginning.len());
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
    use application::ports::StoredLetter;
    use std::collections::BTreeMap;

    fn letter(body: &[u8], body_bytes: usize) -> Seen {
        let letter = StoredLetter {
            id: "a b&c".to_owned(),
            reason: "malformed".to_owned(),
            detail: "not JSON: <img src=x>".to_owned(),
            body: body.to_vec(),
            item: Some(3),
            source: "rabbitmq".to_owned(),
            ..StoredLetter::default()
        };
        Seen { letter, body_bytes, tenant: None }
    }

    fn found(letters: Vec<Seen>, fitting: u64, complete: bool) -> Survey {
        let reasons = BTreeMap::from([("malformed".to_owned(), fitting)]);
        Survey { letters, reasons, fitting, looked_at: fitting, complete }
    }

    fn of(answer: Result<Survey, Unavailable>) -> Letters {
        Letters { name: "rabbitmq", title: "pulses.dead".to_owned(), answer }
    }

    #[test]
    fn letters_are_escaped_and_cut() {
        let letter = letter(b"<script>\xff\x1b[2J", 5_000);
        let page = content(&html! {}, &[of(Ok(found(vec![letter], 1_234, false)))]).into_string();
        assert!(page.contains("&lt;script&gt;\\xff\\u{1b}[2J\u{2026} and 4,987 more bytes"), "{page}");
        assert!(page.contains("not JSON: &lt;img src=x&gt;"), "{page}");
        assert!(page.contains("The latest 1 of 1,234 and more"), "{page}");
        assert!(page.contains("action=discard&amp;place=rabbitmq&amp;id=a+b%26c"), "{page}");
        assert!(page.contains("action=replay&amp;place=rabbitmq&amp;reason=malformed"), "{page}");
        assert!(!page.contains("<script>") && !page.contains("<img"));
    }

    #[test]
    fn a_place_that_is_away_leaves_the_others() {
        let away = of(Err(Unavailable("refused".to_owned())));
        let page = content(&html! {}, &[away, of(Ok(Survey::default()))]).into_string();
        assert!(
            page.contains("cannot be shown.</strong> refused") && page.contains("Nothing was refused"),
            "{page}"
        );
    }
}
