//! `app explain`: what became of one pulse.

use crate::{
    archive,
    backends::{Backends, patiently},
    cli::Explain,
    dead_letters,
    keys::shown,
    settings::Settings,
    usage::there_is,
};
use anyhow::Context;
use application::{
    explain::{Counted, ExplainPulse, Explanation, Question},
    ports::{FoundEvent, Inbox, InboxEntry, StoredLetter},
};
use domain::{PulseIdentity, Timestamp};
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

/// How many events of the archive are shown.
const EVENTS_SHOWN: u32 = 20;

/// Prints what is known of the pulse.
///
/// # Errors
/// [`crate::settings::Faults`] where a setting is lacking; otherwise why the stores could not be asked.
pub(crate) async fn run(arguments: Explain, settings: &Settings) -> anyhow::Result<()> {
    let Explain { id, tenant, source, json } = arguments;
    let question = Question { id, tenant, source };
    let stores = settings.stores_or_embedded("app explain", "set neither, to ask the embedded file")?;
    let is_booked = stores.ledger.sign().is_some_and(|file| file.exists());
    let (mut explanation, refused) = (Explanation::default(), dead_letters::opened(settings).await?);
    if is_booked || there_is(stores.accumulator.file())? {
        explanation = patiently(async {
            let opened = Backends::open(&stores, &settings.counting, false).await;
            let backends = opened.with_context(|| format!("cannot open {stores}"))?;
            let explain = ExplainPulse {
                registry: Arc::clone(&backends.books.registry),
                identities: Arc::clone(&backends.identities),
                books: Arc::clone(&backends.books.audit),
                inbox: backends.books.inbox.as_ref().map(|inbox| Arc::clone(inbox) as Arc<dyn Inbox>),
                items_max: u32::try_from(settings.intake.items_max).unwrap_or(u32::MAX),
            };
            Ok::<_, anyhow::Error>(explain.run(&question).await?)
        })
        .await?;
    }
    explanation.add_letters(&refused, &question).await;
    let archived = match archive::questions(settings)? {
        Some(archive) => {
            patiently(archive.events(&question.id, question.tenant.clone(), EVENTS_SHOWN)).await?
        }
        None => Vec::new(),
    };
    let window = settings.counting.dedupe_window;
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", as_json(&question, &explanation, &archived))?;
    } else {
        out.write_all(as_text(&question, &explanation, window).as_bytes())?;
        for event in &archived {
            writeln!(out, "archived  {}", event_line(event))?;
        }
    }
    Ok(())
}

fn as_text(question: &Question, explanation: &Explanation, window: Duration) -> String {
    let mut text = String::new();
    for counted in &explanation.counted {
        let _ = writeln!(
            text,
            "counted   tenant {:?}, by {}, {}; a copy is recognised and not counted, and whether any came is not kept",
            counted.tenant.as_str(),
            kind(&counted.identity),
            when(counted),
        );
    }
    for (place, letter) in &explanation.refused {
        let StoredLetter { id, reason, detail, source, received_at, item, .. } = letter;
        let item = item.map(|item| format!(", pulse {item} of its message")).unwrap_or_default();
        let at = received_at.map(shown).unwrap_or_default();
        let _ =
            writeln!(text, "rejected  {reason}: {detail}; letter {id} in {place}, from {source}{item}, {at}");
    }
    for event in &explanation.inbox {
        let InboxEntry { id, source, status, attempts, last_error, received_at, .. } = event;
        let error = last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "inbox     {}{error}; event {id} of {source}, {attempts} attempts, received {}",
            status.word(),
            shown(*received_at)
        );
    }
    if explanation.is_unknown() {
        let whose = match &question.tenant {
            Some(tenant) => format!("tenant {:?}", tenant.as_str()),
            None => format!("{} tenants", explanation.tenants),
        };
        let _ = writeln!(
            text,
            "unknown   {:?} of {whose}: not counted within the last {}, not among the dead letters, and not in the inbox",
            question.id,
            humantime::format_duration(window)
        );
    }
    for limit in &explanation.limits {
        let _ = writeln!(text, "note      {limit}");
    }
    text
}

fn kind(identity: &PulseIdentity) -> String {
    match identity {
        PulseIdentity::Id(_) => "its own id".to_owned(),
        PulseIdentity::Message { item, .. } => format!("the id of its message, as pulse {item} of it"),
        PulseIdentity::CloudEvent { source, .. } => format!("the id of its event from {source}"),
    }
}

fn when(counted: &Counted) -> String {
    match (counted.remembered.after, counted.remembered.until) {
        (Some(after), Some(until)) => format!("between about {} and {}", shown(after), shown(until)),
        (Some(after), None) => format!("after about {}", shown(after)),
        (None, Some(until)) => format!("before about {}", shown(until)),
        (None, None) => "at a time that is not known".to_owned(),
    }
}

fn as_json(question: &Question, explanation: &Explanation, archived: &[FoundEvent]) -> Value {
    let time = |time: Option<Timestamp>| time.map(shown);
    let counted = |counted: &Counted| {
        let (kind, item, source) = match &counted.identity {
            PulseIdentity::Id(_) => ("id", None, None),
            PulseIdentity::Message { item, .. } => ("message", Some(*item), None),
            PulseIdentity::CloudEvent { source, .. } => ("cloudevent", None, Some(source.to_string())),
        };
        json!({
            "tenant": counted.tenant.as_str(), "identity": kind, "item": item, "source": source,
            "counted_after": time(counted.remembered.after), "counted_until": time(counted.remembered.until),
        })
    };
    let refused = |(place, letter): &(String, StoredLetter)| {
        json!({
            "place": place, "letter": letter.id, "reason": letter.reason, "detail": letter.detail,
            "source": letter.source, "item": letter.item, "received_at": time(letter.received_at),
        })
    };
    let event = |event: &InboxEntry| {
        json!({
            "event": event.id, "source": event.source, "status": event.status.word(), "attempts": event.attempts,
            "last_error": event.last_error, "received_at": shown(event.received_at),
            "processed_at": time(event.processed_at),
        })
    };
    json!({
        "id": question.id,
        "fate": fate(explanation),
        "counted": explanation.counted.iter().map(counted).collect::<Vec<_>>(),
        "rejected": explanation.refused.iter().map(refused).collect::<Vec<_>>(),
        "inbox": explanation.inbox.iter().map(event).collect::<Vec<_>>(),
        "archived": archived.iter().map(event_json).collect::<Vec<_>>(),
        "tenants_asked": explanation.tenants,
        "notes": explanation.limits,
    })
}

fn event_line(event: &FoundEvent) -> String {
    let [tenant, sku, unit] = &event.key;
    let place =
        event.place.as_ref().map(|(log, offset)| format!(", {log} offset {offset}")).unwrap_or_default();
    format!(
        "tenant {tenant:?}, product {sku:?}, {} {unit}, at {}, known by {} {:?}, received {} from {}{place}: {}",
        event.amount,
        shown(event.occurred_at),
        event.identity.0,
        event.identity.1,
        shown(event.received_at),
        event.source,
        String::from_utf8_lossy(&event.body).escape_debug(),
    )
}

fn event_json(event: &FoundEvent) -> Value {
    let [tenant, sku, unit] = &event.key;
    json!({
        "tenant": tenant, "product_sku": sku, "use_unity": unit, "used_amount": event.amount,
        "occurred_at": shown(event.occurred_at), "received_at": shown(event.received_at),
        "identity_kind": event.identity.0, "identity": event.identity.1, "source": event.source,
        "log": event.place.as_ref().map(|(log, _)| log), "offset": event.place.as_ref().map(|(_, offset)| offset),
        "item": event.item, "message_id": event.message_id, "body": String::from_utf8_lossy(&event.body),
    })
}

/// In one word; a pulse may have been counted, and another one of the same id refused.
const fn fate(explanation: &Explanation) -> &'static str {
    if !explanation.counted.is_empty() {
        "counted"
    } else if !explanation.refused.is_empty() {
        "rejected"
    } else if !explanation.inbox.is_empty() {
        "inbox"
    } else {
        "unknown"
    }
}
