//! Shows the books to an audit. Reading alone refuses books that do not add up.

use super::{JsonLedger, state::State};
use application::ports::{
    AccumulatorBooks, AlteredRow, BooksAudit, BooksCut, PortError, Registration, ShardBooks, ShardRecord,
    TenantSum,
};
use async_trait::async_trait;
use domain::{TenantId, UsageTotal};
use futures_util::{StreamExt, stream};
use std::collections::BTreeMap;

const OPERATION: &str = "audit the JSON ledger";
const PART_TENANTS: usize = 1_000;

#[async_trait]
impl BooksAudit for JsonLedger {
    /// Earlier records of a shard are kept as one sum: those that are kept one by one must be the last ones.
    async fn cut(&self, after: &[u64]) -> Result<BooksCut, PortError> {
        let after = after.to_vec();
        self.look(OPERATION, move |state| {
            let accumulators = state.registration.as_ref().map(|known| books(&state, known, &after));
            let mut tenants: BTreeMap<TenantId, (UsageTotal, u64)> = BTreeMap::new();
            for (key, row) in &state.usage {
                let (sum, rows) = tenants.entry(key.tenant.clone()).or_default();
                *sum = sum.checked_add(row.total).unwrap_or(*sum);
                *rows += 1;
            }
            let sum = |(tenant, (total, rows))| TenantSum {
                tenant: Ok(tenant),
                total: Ok(total),
                rows,
                altered: 0,
            };
            let sums = stream::iter(tenants.into_iter().map(sum)).chunks(PART_TENANTS).map(Ok).boxed();
            Ok(BooksCut {
                accumulators: accumulators.into_iter().collect(),
                registration: state.registration,
                usage: sums,
            })
        })
        .await
    }

    /// These books keep no second copy of a row.
    async fn altered(&self, _: u32) -> Result<Vec<AlteredRow>, PortError> {
        Ok(Vec::new())
    }
}

fn books(state: &State, known: &Registration, after: &[u64]) -> AccumulatorBooks {
    let shard = |record: &ShardRecord| shard_books(state, record, after);
    AccumulatorBooks {
        accumulator: known.accumulator,
        shards: known.shards,
        active: true,
        books: known.records.iter().map(shard).collect(),
    }
}

fn shard_books(state: &State, record: &ShardRecord, after: &[u64]) -> ShardBooks {
    let shard = record.shard;
    let records: Vec<(u64, UsageTotal)> = state
        .flushes
        .range((shard, 0)..=(shard, u64::MAX))
        .map(|((_, generation), flush)| (*generation, flush.total))
        .collect();
    let earlier = state.earlier(shard);
    let kept = records.len() as u64;
    let first = records.first().map_or(record.flushed + 1, |(generation, _)| *generation);
    let last = records.last().map_or(0, |(generation, _)| *generation);
    // Nothing was added up before as long as the first one is kept.
    let mut next = if earlier.is_some() { first } else { 1 };
    let mut gap = None;
    for (generation, _) in &records {
        if *generation != next && gap.is_none() {
            gap = Some(next);
        }
        next = generation + 1;
    }
    let total =
        records.iter().try_fold(earlier.unwrap_or_default(), |sum, (_, total)| sum.checked_add(*total));
    let wanted = after.get(usize::from(shard.0)).copied().unwrap_or_default();
    ShardBooks {
        shard,
        flushed: record.flushed,
        generations: if earlier.is_some() { first - 1 + kept } else { kept },
        last,
        gap,
        total: total.unwrap_or_default(),
        after: records.into_iter().filter(|(generation, _)| *generation > wanted).collect(),
    }
}
