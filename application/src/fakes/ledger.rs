//! A ledger in memory.

use crate::{
    open_log::Settled,
    ports::{
        FlushReceipt, LogMark, PortError, Recovery, RecoveryBooks, Registration, SealedGeneration,
        ShardHistory, ShardMark, ShardRecord, ShardRecovery, ShardRegistry, ShardStatus, UsageFilter,
        UsageLedger, UsageReader, UsageRow, UsageRows, UsageSnapshot,
    },
};
use async_trait::async_trait;
use domain::{AccumulatorId, LogName, Shard, ShardCount, Timestamp, TotalAmount, UsageTotal, UsageTotals};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

const OPERATION: &str = "write a generation to the ledger in memory";
const ROWS_PER_PART: usize = 100;

/// The books in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryLedger {
    books: Arc<Mutex<Books>>,
}

#[derive(Debug, Default)]
struct Books {
    usage: UsageTotals,
    flushes: BTreeMap<(Shard, u64), (UsageTotal, u64)>,
    /// Of the last generation of each shard: when it was sealed, and how far logs were counted.
    last: BTreeMap<Shard, (Timestamp, Vec<LogMark>)>,
    registration: Option<Registration>,
    /// The latest last, each with whether it has ended.
    recoveries: Vec<(Recovery, bool)>,
}

impl MemoryLedger {
    /// Empty books.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All hourly totals.
    #[must_use]
    pub fn totals(&self) -> UsageTotals {
        self.books().usage.clone()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("no holder of the books panics")
    }
}

impl Books {
    /// The receipt of a generation that is in the books already.
    fn receipt(&self, sealed: &SealedGeneration) -> Result<Option<FlushReceipt>, PortError> {
        let known = self.registration.as_ref().is_some_and(|known| known.accumulator == sealed.accumulator);
        match self.flushes.get(&(sealed.shard, sealed.generation)) {
            Some((total, rows)) if known && *total == sealed.total => {
                Ok(Some(FlushReceipt { total: *total, rows: *rows, written: false }))
            }
            Some(_) if known => Err(PortError::permanent(OPERATION, "the books hold another total")),
            _ => Ok(None),
        }
    }

    fn record(&mut self, accumulator: AccumulatorId, shard: Shard) -> Option<&mut ShardRecord> {
        let known = self.registration.as_mut().filter(|known| known.accumulator == accumulator);
        known?.records.get_mut(usize::from(shard.0))
    }
}

#[async_trait]
impl UsageLedger for MemoryLedger {
    async fn write(
        &self,
        sealed: &SealedGeneration,
        mut rows: UsageRows<'_>,
    ) -> Result<FlushReceipt, PortError> {
        if let Some(receipt) = self.books().receipt(sealed)? {
            return Ok(receipt);
        }
        let (mut read, mut total) = (Vec::new(), UsageTotal::default());
        while let Some(part) = rows.try_next().await? {
            for row in part {
                total = total
                    .checked_add(row.total)
                    .ok_or_else(|| PortError::permanent(OPERATION, "too much"))?;
                read.push(row);
            }
        }
        if total != sealed.total {
            return Err(PortError::permanent(OPERATION, "the rows do not come to the sealed total"));
        }
        let mut books = self.books();
        if let Some(receipt) = books.receipt(sealed)? {
            return Ok(receipt);
        }
        let mut usage = books.usage.clone();
        let rows = u64::try_from(read.len()).map_err(|error| PortError::permanent(OPERATION, error))?;
        for row in read {
            let sum = usage.get(&row.key).checked_add(row.total);
            if sum.is_none_or(|sum| TotalAmount::parse(&sum.amount.to_string()).is_none()) {
                return Err(PortError::permanent(OPERATION, "an hourly total does not fit"));
            }
            usage.add_total(row.key, row.total);
        }
        match books.record(sealed.accumulator, sealed.shard) {
            Some(record) if record.recovery != sealed.recovery => {
                return Err(PortError::permanent(OPERATION, "the shard was recovered since it was read"));
            }
            Some(record) if record.flushed + 1 == sealed.generation => record.flushed = sealed.generation,
            _ => return Err(PortError::permanent(OPERATION, "the generation does not follow the last one")),
        }
        books.usage = usage;
        books.last.insert(sealed.shard, (sealed.sealed_at, sealed.positions.clone()));
        books.flushes.insert((sealed.shard, sealed.generation), (sealed.total, rows));
        Ok(FlushReceipt { total, rows, written: true })
    }
}

#[async_trait]
impl ShardRegistry for MemoryLedger {
    async fn register(
        &self,
        accumulator: AccumulatorId,
        shards: ShardCount,
    ) -> Result<Registration, PortError> {
        let fresh = |shard| ShardRecord {
            shard,
            status: ShardStatus::Creating,
            seen: (0, 0),
            flushed: 0,
            recovery: 0,
        };
        let registration =
            || Registration { accumulator, shards, records: shards.shards().map(fresh).collect() };
        Ok(self.books().registration.get_or_insert_with(registration).clone())
    }

    async fn registration(&self) -> Result<Option<Registration>, PortError> {
        Ok(self.books().registration.clone())
    }

    async fn confirm_created(&self, accumulator: AccumulatorId, shard: Shard) -> Result<(), PortError> {
        let mut books = self.books();
        let record = books.record(accumulator, shard);
        record.ok_or_else(|| unknown("record that a shard was made"))?.status = ShardStatus::Created;
        Ok(())
    }

    async fn mark_seen(&self, accumulator: AccumulatorId, marks: &[ShardMark]) -> Result<(), PortError> {
        let mut books = self.books();
        if marks.iter().any(|mark| books.record(accumulator, mark.shard).is_none()) {
            return Err(unknown("record how far the shards were seen"));
        }
        for mark in marks {
            let record = books.record(accumulator, mark.shard);
            if let Some(record) = record.filter(|record| record.recovery == mark.recovery) {
                record.seen = record.seen.max((mark.generation, mark.sequence));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl RecoveryBooks for MemoryLedger {
    async fn histories(&self, accumulator: AccumulatorId) -> Result<Vec<ShardHistory>, PortError> {
        let books = self.books();
        let known = books.registration.iter().filter(|known| known.accumulator == accumulator);
        let history = |record: &ShardRecord| {
            let shard = record.shard;
            let of_shard = books.flushes.range((shard, 0)..=(shard, u64::MAX));
            let steps = books.recoveries.iter().flat_map(|(recovery, _)| &recovery.shards);
            let done = steps.filter(|(step, done)| step.shard == shard && *done).map(|(step, _)| step.number);
            let (sealed_at, positions) = books.last.get(&shard).cloned().unzip();
            ShardHistory {
                shard,
                recovered: done.max().unwrap_or_default(),
                pulses: of_shard.map(|(_, (total, _))| total.pulses).sum(),
                sealed_at,
                positions: positions.unwrap_or_default(),
                seen_at: None,
            }
        };
        Ok(known.flat_map(|known| &known.records).map(history).collect())
    }

    async fn latest(&self, _: AccumulatorId) -> Result<Option<(Recovery, bool)>, PortError> {
        Ok(self.books().recoveries.last().cloned())
    }

    async fn begin(&self, accumulator: AccumulatorId, recovery: &Recovery) -> Result<bool, PortError> {
        let mut books = self.books();
        if books.recoveries.iter().any(|(known, _)| known.number == recovery.number) {
            return Ok(false);
        }
        for (step, _) in &recovery.shards {
            let record = books.record(accumulator, step.shard);
            let record = record.ok_or_else(|| unknown("begin a recovery"))?;
            if (record.flushed, record.seen) != (step.flushed, step.seen) {
                return Ok(false);
            }
        }
        for (step, _) in &recovery.shards {
            if let Some(record) = books.record(accumulator, step.shard) {
                record.recovery = recovery.number;
            }
        }
        books.recoveries.push((recovery.clone(), false));
        Ok(true)
    }

    async fn restored(&self, recovery: &ShardRecovery) -> Result<(), PortError> {
        let mut books = self.books();
        let steps = books.recoveries.iter_mut().filter(|(known, _)| known.number == recovery.number);
        let mut steps = steps.flat_map(|(known, _)| &mut known.shards);
        let step = steps.find(|(step, done)| step.shard == recovery.shard && !done);
        if let Some((_, done)) = step {
            *done = true;
            let record = books.record(recovery.accumulator, recovery.shard);
            if let Some(record) = record.filter(|record| record.recovery == recovery.number) {
                record.seen = (recovery.generation, recovery.sequence);
            }
        }
        Ok(())
    }

    async fn moving(&self, _: AccumulatorId, _: u64, _: &[(LogName, Settled)]) -> Result<(), PortError> {
        Ok(())
    }

    async fn ended(&self, _: AccumulatorId, number: u64) -> Result<(), PortError> {
        let mut books = self.books();
        if let Some((_, ended)) = books.recoveries.iter_mut().find(|(known, _)| known.number == number) {
            *ended = true;
        }
        Ok(())
    }
}

#[async_trait]
impl UsageReader for MemoryLedger {
    async fn usage(&self, filter: &UsageFilter) -> Result<UsageSnapshot, PortError> {
        let books = self.books();
        let records = books.registration.iter().flat_map(|known| &known.records);
        let flushed = records.map(|record| record.flushed).collect();
        let wanted = books.usage.iter().filter(|(key, _)| filter.wants(key));
        let rows: Vec<UsageRow> =
            wanted.map(|(key, total)| UsageRow { key: key.clone(), total: *total }).collect();
        let rows = stream::iter(rows).chunks(ROWS_PER_PART).map(Ok).boxed();
        Ok(UsageSnapshot { flushed, rows })
    }
}

fn unknown(operation: &'static str) -> PortError {
    PortError::permanent(operation, "the ledger does not know the shard")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::ledger::FreshBooks;

    impl FreshBooks for MemoryLedger {
        type Ledger = Self;

        async fn open(&self) -> Self {
            self.clone()
        }
    }

    crate::ledger_contract!(async { MemoryLedger::new() });
    crate::recovery_books_contract!(async { MemoryLedger::new() });
}
