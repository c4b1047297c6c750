//! Writes sealed generations to the books.

use super::{JsonLedger, Step, state::State};
use crate::positions;
use application::ports::{FlushReceipt, FlushRecord, PortError, SealedGeneration, UsageLedger, UsageRows};
use async_trait::async_trait;
use domain::{Timestamp, UsageKey, UsageTotal, check_file_name};
use futures_util::TryStreamExt;
use std::{collections::BTreeMap, time::SystemTime};

const OPERATION: &str = "write a generation to the JSON ledger";

#[async_trait]
impl UsageLedger for JsonLedger {
    async fn write(&self, sealed: &SealedGeneration, rows: UsageRows<'_>) -> Result<FlushReceipt, PortError> {
        let (sealed, looked_for) = (sealed.clone(), sealed.clone());
        // The rows are read before the lock is taken, so that nobody waits for the accumulator; and not at all where the
        // generation is there already.
        let known = self.look(OPERATION, move |mut state| place(&mut state, &looked_for)).await?;
        let rows = if known.is_some() { None } else { Some(collect(&sealed, rows).await?) };
        let started_at = now();
        self.step(OPERATION, true, move |state| {
            if let Some(receipt) = place(state, &sealed)? {
                return Ok(Step::Kept(receipt));
            }
            let Some((rows, number)) = rows else {
                return Err(PortError::permanent(OPERATION, "a generation that was in the books is gone"));
            };
            let record = FlushRecord {
                shard: sealed.shard,
                generation: sealed.generation,
                total: sealed.total,
                rows: number,
                sealed_at: sealed.sealed_at,
                started_at,
                flushed_at: now(),
            };
            state.book(record, rows).map_err(|error| PortError::permanent(OPERATION, error))?;
            if let Some(known) = state.record(sealed.accumulator, sealed.shard) {
                known.flushed = sealed.generation;
            }
            state.positions.insert(sealed.shard, positions::to_json(&sealed.positions));
            Ok(Step::Changed(FlushReceipt { total: sealed.total, rows: number, written: true }))
        })
        .await
    }
}

/// The receipt where the generation is in the books; an error where it may not come next.
fn place(state: &mut State, sealed: &SealedGeneration) -> Result<Option<FlushReceipt>, PortError> {
    let &SealedGeneration { accumulator, shard, generation, total, .. } = sealed;
    let refused = |reason: String| Err(PortError::permanent(OPERATION, reason));
    let Some(flushed) = state.record(accumulator, shard).map(|known| known.flushed) else {
        return refused(format!(
            "shard {shard} of accumulator {accumulator} is not registered with these books"
        ));
    };
    match state.flushes.get(&(shard, generation)) {
        Some(record) if record.total == total => {
            Ok(Some(FlushReceipt { total, rows: record.rows, written: false }))
        }
        Some(record) => refused(format!(
            "generation {generation} of shard {shard} is in the books with {:?}, not {total:?}",
            record.total
        )),
        None if flushed.checked_add(1) == Some(generation) => Ok(None),
        None if (1..=flushed).contains(&generation) => refused(format!(
            "generation {generation} of shard {shard} was written so long ago that its record is not kept any more"
        )),
        None => refused(format!(
            "generation {generation} of shard {shard} does not follow the last one in the books, {flushed}"
        )),
    }
}

/// The rows, each key once, and how many they were; they must come to the sealed total.
async fn collect(
    sealed: &SealedGeneration,
    mut rows: UsageRows<'_>,
) -> Result<(BTreeMap<UsageKey, UsageTotal>, u64), PortError> {
    let too_large = || PortError::permanent(OPERATION, "the rows are beyond 2^128 nanos");
    let (mut read, mut total, mut number) = (BTreeMap::new(), UsageTotal::default(), 0);
    while let Some(part) = rows.try_next().await? {
        for row in part {
            let sku = row.key.product_sku.as_str();
            if let Err(error) = check_file_name(sku) {
                return Err(PortError::permanent(OPERATION, format!("the product {sku:?} {error}")));
            }
            total = total.checked_add(row.total).ok_or_else(too_large)?;
            number += 1;
            let sum: &mut UsageTotal = read.entry(row.key).or_default();
            *sum = sum.checked_add(row.total).ok_or_else(too_large)?;
        }
    }
    if total == sealed.total {
        return Ok((read, number));
    }
    let reason = format!("the rows come to {total:?}, the sealed total is {:?}", sealed.total);
    Err(PortError::permanent(OPERATION, reason))
}

#[expect(clippy::disallowed_methods, reason = "other ledgers read the clock of their server")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::new(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
}
