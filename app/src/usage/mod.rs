//! `app usage`: the totals, billed and pending.

mod render;

pub(crate) use render::{Layout, Renderer, Status};

use crate::{
    backends::{Backends, patiently},
    cli::Usage,
    settings::{Settings, Stores},
};
use anyhow::Context;
use application::{
    ports::{UsageFilter, UsageReader},
    report_usage::ReportUsage,
};
use futures_util::TryStreamExt;
use std::{
    io::{self, BufWriter, Write},
    path::Path,
    sync::Arc,
};

/// Prints the wanted totals to standard output.
///
/// # Errors
/// [`crate::settings::Faults`] where a setting is lacking; otherwise why the stores could not be read.
pub(crate) async fn run(arguments: Usage, settings: &Settings) -> anyhow::Result<()> {
    let Usage { json, csv, billed, tenant, product_sku, use_unity, from, to } = arguments;
    let filter = UsageFilter { tenant, product_sku, use_unity, from, to };
    let layout = match (json, csv) {
        (true, _) => Layout::Json,
        (_, true) => Layout::Csv,
        _ => Layout::Table,
    };
    let mut out = Renderer::new(BufWriter::new(io::stdout().lock()), layout, !billed)?;
    if billed {
        let ledger = settings.ledger();
        if there_is(ledger.sign().as_deref())? {
            let books = patiently(ledger.open(&settings.counting, false)).await?;
            print_billed(&books.reader, &filter, &mut out).await?;
        }
    } else {
        let stores =
            settings.stores_or_embedded("app usage", "add --billed to leave out what is not yet flushed")?;
        let is_booked = stores.ledger.sign().is_some_and(|file| file.exists());
        // Books without the accumulator that they are of are for the report to complain about.
        if is_booked || there_is(stores.accumulator.file())? {
            print_all(&stores, settings, &filter, &mut out).await?;
        }
    }
    out.finish()
}

/// Whether there is anything to read: a look at totals makes no file.
fn there_is(file: Option<&Path>) -> anyhow::Result<bool> {
    match file {
        Some(file) if !file.try_exists()? => {
            writeln!(io::stderr(), "{} does not exist: nothing was counted yet", file.display())?;
            Ok(false)
        }
        _ => Ok(true),
    }
}

/// The books as they are read, whatever their size.
async fn print_billed<W: Write>(
    reader: &Arc<dyn UsageReader>,
    filter: &UsageFilter,
    out: &mut Renderer<W>,
) -> anyhow::Result<()> {
    let mut snapshot = patiently(reader.usage(filter)).await?;
    while let Some(rows) = snapshot.rows.try_next().await? {
        for row in rows {
            out.row(&row.key, row.total, Status::Billed)?;
        }
    }
    Ok(())
}

async fn print_all<W: Write>(
    stores: &Stores,
    settings: &Settings,
    filter: &UsageFilter,
    out: &mut Renderer<W>,
) -> anyhow::Result<()> {
    let report = patiently(async {
        let backends = Backends::open(stores, &settings.counting, false);
        let backends = backends.await.with_context(|| format!("cannot open {stores}"))?;
        backends.check_shard_count().await?;
        let (reader, pending) = (Arc::clone(&backends.books.reader), Some(backends.pending()));
        Ok::<_, anyhow::Error>(ReportUsage { reader, pending }.run(filter).await?)
    })
    .await?;
    for (key, usage) in &report {
        for (total, status) in [(usage.billed, Status::Billed), (usage.pending, Status::Pending)] {
            if total.pulses > 0 {
                out.row(key, total, status)?;
            }
        }
    }
    Ok(())
}
