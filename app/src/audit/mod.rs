//! Whether the books balance: `app audit`, and on a schedule beside the cron.

mod render;
mod scheduled;

pub(crate) use scheduled::on_schedule;

use crate::{
    archive,
    backends::{Backends, PATIENCE},
    cli::Audit,
    clock,
    settings::{Ledger, Settings},
};
use anyhow::Context;
use application::audit::{AuditArchive, AuditReport, Outcome};
use std::{
    fmt,
    io::{self, Write},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;

/// A result that is told already, and only to be handed on as the exit code.
#[derive(Debug)]
pub(crate) struct Exit(pub(crate) u8);

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "exit code {}", self.0)
    }
}

impl std::error::Error for Exit {}

const BROKEN: u8 = 1;
const UNKNOWN: u8 = 2;
/// After how long a total is looked at again that differs from the archive's.
const PAUSE: Duration = Duration::from_secs(5);

/// Prints the audit; ends with [`Exit`] where the books do not hold, or nobody can tell.
///
/// # Errors
/// [`crate::settings::Faults`] where a setting is lacking.
pub(crate) async fn run(arguments: &Audit, settings: &Settings) -> anyhow::Result<()> {
    let stores = settings.stores_or_embedded("app audit", "set neither, to audit the embedded file")?;
    let is_booked = stores.ledger.sign().is_some_and(|file| file.exists());
    if !is_booked && !crate::usage::there_is(stores.accumulator.file())? {
        return Ok(());
    }
    // The books of a folder are read before their files are made anew, and that would refuse what is to be told.
    let migrate = !matches!(stores.ledger, Ledger::Json(_));
    let opened = timeout(PATIENCE, Backends::open(&stores, &settings.counting, migrate)).await;
    let backends = match opened.context("no answer").and_then(|opened| Ok(opened?)) {
        Ok(backends) => backends,
        Err(error) => {
            writeln!(io::stderr(), "app: nothing can be told: {}", crate::told(&error))?;
            return Err(Exit(UNKNOWN).into());
        }
    };
    let mut report = backends.audit_books().run(clock::now()).await;
    if let Some(events) = archive::questions(settings)? {
        let (reader, pending) = (Arc::clone(&backends.books.reader), backends.pending());
        report.checks.push(AuditArchive { events, reader, pending, pause: PAUSE }.check().await);
    }
    print(&report, arguments.json)?;
    match report.outcome() {
        Outcome::Holds => Ok(()),
        Outcome::Broken => Err(Exit(BROKEN).into()),
        Outcome::Unknown => Err(Exit(UNKNOWN).into()),
    }
}

fn print(report: &AuditReport, json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &render::json(report)).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        out.write_all(render::table(report).as_bytes())?;
    }
    Ok(())
}
