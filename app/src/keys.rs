//! `app keys`: the keys by which services call the API.

use crate::{
    backends::{Books, patiently},
    cli::Keys,
    clock,
    settings::Settings,
    usage::there_is,
};
use anyhow::Context;
use application::{
    api_keys::NewKey,
    ports::{ApiKey, ApiKeys, Scope},
};
use chrono::{DateTime, SecondsFormat};
use comfy_table::{Table, presets};
use domain::Timestamp;
use serde_json::json;
use std::{
    io::{self, Write},
    sync::Arc,
};

/// Runs one of the commands.
///
/// # Errors
/// Why the store of the keys could not be reached, or that there is no such key.
pub(crate) async fn run(command: Keys, settings: &Settings) -> anyhow::Result<()> {
    let ledger = settings.ledger();
    let makes = matches!(command, Keys::Create { .. });
    if !makes && !there_is(ledger.file())? {
        return match command {
            Keys::Revoke { id } => anyhow::bail!("there is no key {id}"),
            _ => Ok(()),
        };
    }
    let books = patiently(ledger.open(&settings.counting, makes)).await?;
    let keys = keys_of(&books)?;
    match command {
        Keys::Create { name, scope } => create(keys, &name, &scope).await,
        Keys::List { json } => print(&patiently(keys.list()).await?, json),
        Keys::Revoke { id } => {
            anyhow::ensure!(patiently(keys.revoke(&id, clock::now())).await?, "there is no key {id}");
            writeln!(io::stdout(), "key {id} is revoked")?;
            Ok(())
        }
    }
}

fn keys_of(books: &Books) -> anyhow::Result<&Arc<dyn ApiKeys>> {
    books.keys.as_ref().context("this ledger keeps no keys: set LEDGER_URL to PostgreSQL or an embedded file")
}

async fn create(keys: &Arc<dyn ApiKeys>, name: &str, scope: &str) -> anyhow::Result<()> {
    let scope = Scope::from_word(scope).context("there is no such scope")?;
    let NewKey { key, text } = NewKey::new(&rand::random(), name, scope, clock::now())?;
    patiently(keys.add(&key)).await?;
    writeln!(io::stdout(), "{text}")?;
    writeln!(io::stderr(), "this is the only time that key {} is shown: keep it safe", key.id)?;
    Ok(())
}

fn print(keys: &[ApiKey], json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        for key in keys {
            let ApiKey { id, name, scope, created_at, revoked_at, .. } = key;
            let (created_at, revoked_at) = (shown(*created_at), revoked_at.map(shown));
            let row = json!({ "id": id, "name": name, "scope": scope.word(), "created_at": created_at,
                "revoked_at": revoked_at });
            writeln!(out, "{row}")?;
        }
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["ID", "NAME", "SCOPE", "CREATED", "REVOKED"]);
    for key in keys {
        let revoked = key.revoked_at.map(shown).unwrap_or_default();
        table.add_row([&key.id, &key.name, key.scope.word(), &shown(key.created_at), &revoked]);
    }
    writeln!(out, "{}", table.trim_fmt())?;
    Ok(())
}

/// A point in time for people and scripts, to the second.
pub(crate) fn shown(time: Timestamp) -> String {
    DateTime::from_timestamp(time.seconds(), 0)
        .map_or_else(|| time.seconds().to_string(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}
