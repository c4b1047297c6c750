//! What was used: what is in the books, and what is counted but not yet flushed, told apart and never both.

use crate::{
    flush_usage::read_all,
    open_shards::{StorageFault, check_books, check_shard},
    ports::{AccumulatorShards, GenerationStore, PortError, ShardRegistry, UsageFilter, UsageReader},
};
use domain::{Shard, UsageKey, UsageTotal, UsageTotals};
use futures_util::TryStreamExt;
use std::{collections::BTreeMap, sync::Arc};

/// The use case.
pub struct ReportUsage {
    /// The books.
    pub reader: Arc<dyn UsageReader>,
    /// What is not in the books yet; `None` to report the books alone.
    pub pending: Option<PendingUsage>,
}

/// Where what is not flushed is found.
pub struct PendingUsage {
    /// What the books know of the shards.
    pub registry: Arc<dyn ShardRegistry>,
    /// The shards.
    pub shards: Arc<dyn AccumulatorShards>,
    /// Their generations.
    pub generations: Arc<dyn GenerationStore>,
}

/// Why there is no report. Reading changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A port failed.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The accumulator is not what the ledger knows it to be, so what is pending is unknown.
    #[error(transparent)]
    Storage(#[from] StorageFault),
}

/// What was used under one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportedUsage {
    /// In the books.
    pub billed: UsageTotal,
    /// Counted, and not in the books as of the same moment.
    pub pending: UsageTotal,
}

impl ReportUsage {
    /// The wanted totals by their keys.
    ///
    /// What is pending is read before the books, and what the books hold by then is left out of it, so that a flush that
    /// runs meanwhile doubles and hides nothing.
    ///
    /// # Errors
    /// See [`ReportError`].
    pub async fn run(&self, filter: &UsageFilter) -> Result<BTreeMap<UsageKey, ReportedUsage>, ReportError> {
        let (generations, deleted) = match &self.pending {
            Some(pending) => pending.read(filter).await?,
            None => (Vec::new(), Vec::new()),
        };
        let mut snapshot = self.reader.usage(filter).await?;
        for (shard, deleted) in deleted {
            check_books(shard, deleted, snapshot.flushed.get(usize::from(shard.0)).copied().unwrap_or(0))?;
        }
        let mut report: BTreeMap<UsageKey, ReportedUsage> = BTreeMap::new();
        while let Some(rows) = snapshot.rows.try_next().await? {
            report.extend(
                rows.into_iter().map(|row| {
                    (row.key, ReportedUsage { billed: row.total, pending: UsageTotal::default() })
                }),
            );
        }
        for PendingGeneration { shard, generation, totals } in generations {
            if generation > snapshot.flushed.get(shard).copied().unwrap_or(0) {
                for (key, total) in totals {
                    let pending = &mut report.entry(key).or_default().pending;
                    *pending = pending.checked_add(total).ok_or_else(|| {
                        PortError::permanent("add up pending totals", "they are beyond 2^128 nanos")
                    })?;
                }
            }
        }
        Ok(report)
    }
}

struct PendingGeneration {
    shard: usize,
    generation: u64,
    totals: UsageTotals,
}

impl PendingUsage {
    /// What each generation holds that is not deleted, and up to which each shard has deleted them.
    async fn read(
        &self,
        filter: &UsageFilter,
    ) -> Result<(Vec<PendingGeneration>, Vec<(Shard, u64)>), ReportError> {
        let (mut pending, mut deleted) = (Vec::new(), Vec::new());
        let Some(registration) = self.registry.registration().await? else { return Ok((pending, deleted)) };
        for record in &registration.records {
            let state = self.shards.inspect(record.shard).await?;
            check_shard(&registration, record, state.as_ref())?;
            let Some(state) = state else { continue };
            deleted.push((record.shard, state.deleted));
            for generation in state.deleted + 1..=state.generation {
                let mut totals = UsageTotals::default();
                let mut rows = read_all(&self.generations, record.shard, generation);
                while let Some(rows) = rows.try_next().await? {
                    for row in rows.into_iter().filter(|row| filter.wants(&row.key)) {
                        totals.add_total(row.key, row.total);
                    }
                }
                pending.push(PendingGeneration { shard: usize::from(record.shard.0), generation, totals });
            }
        }
        Ok((pending, deleted))
    }
}
