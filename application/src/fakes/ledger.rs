//! A ledger in memory.

use crate::ports::{
    FlushReceipt, PortError, Registration, SealedGeneration, ShardMark, ShardRecord, ShardRegistry,
    ShardStatus, UsageFilter, UsageLedger, UsageReader, UsageRow, UsageRows, UsageSnapshot,
};
use async_trait::async_trait;
use domain::{AccumulatorId, Shard, ShardCount, TotalAmount, UsageTotal, UsageTotals};
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
    registration: Option<Registration>,
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
            Some(record) if record.flushed + 1 == sealed.generation => record.flushed = sealed.generation,
            _ => return Err(PortError::permanent(OPERATION, "the generation does not follow the last one")),
        }
        books.usage = usage;
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
        let fresh = |shard| ShardRecord { shard, status: ShardStatus::Creating, seen: (0, 0), flushed: 0 };
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
            if let Some(record) = books.record(accumulator, mark.shard) {
                record.seen = record.seen.max((mark.generation, mark.sequence));
            }
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
}
