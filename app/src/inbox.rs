//! `app webhooks`: the inbox as operators see it.

use crate::{
    backends::patiently,
    cli::{Webhooks, WebhooksList},
    dead_letters::confirmed,
    keys::shown,
    settings::Settings,
    usage::there_is,
};
use anyhow::Context;
use application::ports::{Dealt, Inbox, InboxEntry, InboxFilter, InboxStatus, PortError};
use comfy_table::{Table, presets};
use serde_json::json;
use std::io::{self, Write};

/// How many events are looked at at once: each comes with its bytes.
const PAGE: u32 = 100;

/// Runs one of the commands.
///
/// # Errors
/// Why the inbox could not be reached, or that an event cannot be sent round again.
pub(crate) async fn run(command: Webhooks, settings: &Settings) -> anyhow::Result<()> {
    let ledger = settings.ledger();
    if !there_is(ledger.file())? {
        return match command {
            Webhooks::Retry { id: Some(id), .. } | Webhooks::Discard { id: Some(id), .. } => {
                anyhow::bail!("there is no event {id}")
            }
            _ => Ok(()),
        };
    }
    let books = patiently(ledger.open(&settings.counting, false)).await?;
    let inbox = books.inbox.as_ref();
    let inbox =
        inbox.context("this ledger has no inbox: set LEDGER_URL to PostgreSQL or an embedded file")?;
    match command {
        Webhooks::List(arguments) => list(inbox.as_ref(), arguments).await,
        Webhooks::Retry { id: Some(id), .. } => retry(inbox.as_ref(), id).await,
        Webhooks::Retry { id: None, .. } => {
            let failed = failed(inbox.as_ref()).await?;
            let again = with_each(failed, |id| inbox.retry(id)).await?;
            Ok(writeln!(io::stdout(), "{again} events wait again")?)
        }
        Webhooks::Discard { id: Some(id), .. } => discard(inbox.as_ref(), id).await,
        Webhooks::Discard { id: None, yes, .. } => {
            // What fails while somebody thinks about it was not asked about.
            let failed = failed(inbox.as_ref()).await?;
            let number = failed.len();
            if number > 0 && !yes && !confirmed(&format!("discard {number} failed events?"))? {
                return Ok(());
            }
            let gone = with_each(failed, |id| inbox.discard(id)).await?;
            Ok(writeln!(io::stdout(), "{gone} events are gone")?)
        }
    }
}

/// Page by page, so that memory does not grow with what was sent.
async fn list(inbox: &dyn Inbox, arguments: WebhooksList) -> anyhow::Result<()> {
    let WebhooksList { status, source, limit, json } = arguments;
    let status = status.as_deref().and_then(InboxStatus::from_word);
    let mut filter = InboxFilter { status, source, before: None, limit: limit.min(PAGE) };
    let (mut left, mut out) = (limit, io::stdout());
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["ID", "SOURCE", "EVENT", "STATUS", "ATTEMPTS", "RECEIVED", "LAST ERROR"]);
    loop {
        let page = patiently(inbox.list(&filter)).await?;
        for entry in &page {
            if json {
                writeln!(out, "{}", json_row(entry))?;
            } else {
                table.add_row(table_row(entry));
            }
        }
        left -= u32::try_from(page.len()).unwrap_or(left).min(left);
        let full = page.len() == filter.limit as usize;
        let Some(last) = page.last().filter(|_| full && left > 0) else { break };
        (filter.before, filter.limit) = (Some(last.id), left.min(PAGE));
    }
    if !json {
        writeln!(out, "{}", table.trim_fmt())?;
    }
    Ok(())
}

fn table_row(entry: &InboxEntry) -> [String; 7] {
    let InboxEntry { id, source, event_id, status, attempts, last_error, received_at, .. } = entry;
    [
        id.to_string(),
        source.clone(),
        event_id.clone(),
        status.word().to_owned(),
        attempts.to_string(),
        shown(*received_at),
        last_error.clone().unwrap_or_default(),
    ]
}

fn json_row(entry: &InboxEntry) -> serde_json::Value {
    let InboxEntry {
        id,
        source,
        event_id,
        status,
        attempts,
        last_error,
        received_at,
        processed_at,
        original,
    } = entry;
    json!({
        "id": id, "source": source, "event_id": event_id, "status": status.word(), "attempts": attempts,
        "last_error": last_error, "received_at": shown(*received_at), "processed_at": processed_at.map(shown),
        "original": String::from_utf8_lossy(original),
    })
}

async fn retry(inbox: &dyn Inbox, id: i64) -> anyhow::Result<()> {
    match patiently(inbox.retry(id)).await? {
        Dealt::Done => Ok(writeln!(io::stdout(), "event {id} waits again")?),
        Dealt::NotFailed(status) => anyhow::bail!("event {id} is {} and has not failed", status.word()),
        Dealt::Unknown => anyhow::bail!("there is no event {id}"),
    }
}

async fn discard(inbox: &dyn Inbox, id: i64) -> anyhow::Result<()> {
    match patiently(inbox.discard(id)).await? {
        Dealt::Done => Ok(writeln!(io::stdout(), "event {id} is gone")?),
        Dealt::NotFailed(status) => anyhow::bail!("event {id} is {} and has not failed", status.word()),
        Dealt::Unknown => anyhow::bail!("there is no event {id}"),
    }
}

/// The ids of those that have failed, the newest first.
async fn failed(inbox: &dyn Inbox) -> anyhow::Result<Vec<i64>> {
    let mut filter =
        InboxFilter { status: Some(InboxStatus::Failed), source: None, before: None, limit: PAGE };
    let mut failed = Vec::new();
    loop {
        let page = patiently(inbox.list(&filter)).await?;
        failed.extend(page.iter().map(|entry| entry.id));
        let Some(last) = page.last() else { return Ok(failed) };
        filter.before = Some(last.id);
    }
}

/// Deals with each; with how many it was done.
async fn with_each<F: Future<Output = Result<Dealt, PortError>>>(
    ids: Vec<i64>,
    deal: impl Fn(i64) -> F,
) -> anyhow::Result<u64> {
    let mut done = 0_u64;
    for id in ids {
        if patiently(deal(id)).await? == Dealt::Done {
            done += 1;
        }
    }
    Ok(done)
}
