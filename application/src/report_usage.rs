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
    /// More is pending than the caller can bear.
    #[error("more than {0} totals are not yet flushed: ask for fewer, or again after the next flush")]
    TooMany(usize),
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
            Some(pending) => pending.read(filter, usize::MAX).await?,
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

/// How often what is pending is read anew because a flush came in between.
const READINGS_MAX: usize = 3;

impl PendingUsage {
    /// What is pending, and what `books` then reads of the books, given how many totals are pending; both as of one
    /// moment: where a flush came in between, both are read again.
    ///
    /// # Errors
    /// See [`ReportError`]; also transient where flushes come one upon the other.
    pub async fn beside<T, F>(
        &self,
        filter: &UsageFilter,
        keys_max: usize,
        books: impl Fn(usize) -> F,
    ) -> Result<(UsageTotals, T), ReportError>
    where
        F: Future<Output = Result<T, PortError>>,
    {
        for _ in 0..READINGS_MAX {
            let (generations, deleted) = self.read(filter, keys_max).await?;
            let mut totals = UsageTotals::default();
            let shards: Vec<(usize, u64)> =
                generations.iter().map(|generation| (generation.shard, generation.generation)).collect();
            for (key, total) in generations.into_iter().flat_map(|generation| generation.totals) {
                totals.add_total(key, total);
            }
            let read = books(totals.len()).await?;
            let flushed = self.flushed().await?;
            for (shard, deleted) in deleted {
                check_books(shard, deleted, flushed.get(usize::from(shard.0)).copied().unwrap_or(0))?;
            }
            let was_flushed = |(shard, generation): &(usize, u64)| {
                flushed.get(*shard).is_some_and(|flushed| generation <= flushed)
            };
            if !shards.iter().any(was_flushed) {
                return Ok((totals, read));
            }
        }
        let busy = PortError::transient("read what is not yet flushed", "flushes come one upon the other");
        Err(busy.into())
    }

    /// The shards that hold anything that is not in the books.
    ///
    /// # Errors
    /// See [`ReportError`].
    pub async fn waiting(&self) -> Result<Vec<Shard>, ReportError> {
        let mut waiting = Vec::new();
        let Some(registration) = self.registry.registration().await? else { return Ok(waiting) };
        for record in &registration.records {
            let state = self.shards.inspect(record.shard).await?;
            check_shard(&registration, record, state.as_ref())?;
            let Some(state) = state else { continue };
            if state.active.pulses > 0 || state.deleted.max(record.flushed) + 1 < state.generation {
                waiting.push(record.shard);
            }
        }
        Ok(waiting)
    }

    async fn flushed(&self) -> Result<Vec<u64>, PortError> {
        let registration = self.registry.registration().await?;
        let records = registration.into_iter().flat_map(|registration| registration.records);
        Ok(records.map(|record| record.flushed).collect())
    }

    /// What each generation holds that is not in the books, and up to which each shard has deleted them.
    async fn read(
        &self,
        filter: &UsageFilter,
        keys_max: usize,
    ) -> Result<(Vec<PendingGeneration>, Vec<(Shard, u64)>), ReportError> {
        let (mut pending, mut deleted) = (Vec::new(), Vec::new());
        let mut room = keys_max;
        let Some(registration) = self.registry.registration().await? else { return Ok((pending, deleted)) };
        for record in &registration.records {
            let state = self.shards.inspect(record.shard).await?;
            check_shard(&registration, record, state.as_ref())?;
            let Some(state) = state else { continue };
            deleted.push((record.shard, state.deleted));
            for generation in state.deleted.max(record.flushed) + 1..=state.generation {
                let mut totals = UsageTotals::default();
                let mut rows = read_all(&self.generations, record.shard, generation);
                while let Some(rows) = rows.try_next().await? {
                    for row in rows.into_iter().filter(|row| filter.wants(&row.key)) {
                        totals.add_total(row.key, row.total);
                    }
                    if totals.len() > room {
                        return Err(ReportError::TooMany(keys_max));
                    }
                }
                room -= totals.len();
                pending.push(PendingGeneration { shard: usize::from(record.shard.0), generation, totals });
            }
        }
        Ok((pending, deleted))
    }
}
