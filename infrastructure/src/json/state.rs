//! What the state file holds: totals, flush records, watermarks and the registry, of one moment.
//!
//! Of each shard the last 32 flush records are kept and earlier ones added up, so that the records always
//! come to the totals and their number is bounded. Reading checks that: a state that does not add up is refused.

mod wire;

use application::ports::{FlushRecord, Registration, ShardRecord};
use domain::{AccumulatorId, ProductSku, Shard, Timestamp, TotalAmount, UsageKey, UsageTotal, UsageUnit};
use std::collections::BTreeMap;

/// How many flush records of a shard are kept. A flush that is repeated is one of the last few: what was written is
/// deleted right after.
pub(super) const FLUSHES_KEPT: usize = 32;
/// The first sum that `NUMERIC(38,9)` would not hold, in nanos.
const NANOS_LIMIT: u128 = 10_u128.pow(38);

/// The state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) registration: Option<Registration>,
    /// The last flushes of each shard.
    pub(super) flushes: BTreeMap<(Shard, u64), FlushRecord>,
    /// What the flushes before those came to.
    earlier: BTreeMap<Shard, UsageTotal>,
    /// How far the logs of each shard were counted by its last flush, for a recovery: see [`crate::positions`].
    pub(super) positions: BTreeMap<Shard, String>,
    /// The unit of a product's own file: that in which it was booked first.
    pub(super) first_units: BTreeMap<ProductSku, UsageUnit>,
    pub(super) usage: BTreeMap<UsageKey, Row>,
}

/// An hourly total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) total: UsageTotal,
    pub(super) id: i64,
    /// When a flush made it, and when the last one added to it: seconds since 1970.
    pub(super) created: i64,
    pub(super) updated: i64,
}

/// Why a state is not taken, or not changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    #[error("is not a state file of this ledger ({0}): restore a copy, and its folder with it")]
    Unreadable(#[from] serde_json::Error),
    #[error("a newer version of this program wrote it (format {0}): use that one")]
    Newer(u32),
    #[error("holds {0} that no program wrote: restore a copy, and its folder with it")]
    Nonsense(&'static str),
    #[error(
        "its totals do not come to what its flushes wrote: it was changed by hand or is damaged; restore a copy, and its \
         folder with it"
    )]
    Unbalanced,
    #[error("a total would be larger than 38 digits, nine of them decimals, hold exactly")]
    TooLarge,
}

impl State {
    /// What is known of a shard, where it is one of this accumulator.
    pub(super) fn record(&mut self, accumulator: AccumulatorId, shard: Shard) -> Option<&mut ShardRecord> {
        let known = self.registration.as_mut().filter(|known| known.accumulator == accumulator)?;
        known.records.get_mut(usize::from(shard.0))
    }

    /// What the flushes came to whose records are not kept one by one; `None` while all are.
    pub(super) fn earlier(&self, shard: Shard) -> Option<UsageTotal> {
        self.earlier.get(&shard).copied()
    }

    /// The last generation in the books of each shard.
    pub(super) fn flushed(&self) -> Vec<u64> {
        let records = self.registration.iter().flat_map(|known| &known.records);
        records.map(|record| record.flushed).collect()
    }

    /// Adds the rows of a flush and its record. The watermark is the caller's.
    pub(super) fn book(
        &mut self,
        record: FlushRecord,
        rows: BTreeMap<UsageKey, UsageTotal>,
    ) -> Result<(), StateError> {
        let now = record.flushed_at.seconds();
        for (key, total) in rows {
            self.first_units.entry(key.product_sku.clone()).or_insert_with(|| key.use_unity.clone());
            let id = i64::try_from(self.usage.len()).unwrap_or(i64::MAX).saturating_add(1);
            let fresh = Row { total: UsageTotal::default(), id, created: now, updated: now };
            let row = self.usage.entry(key).or_insert(fresh);
            row.total = row.total.checked_add(total).filter(holds).ok_or(StateError::TooLarge)?;
            row.updated = now;
        }
        self.flushes.insert((record.shard, record.generation), record);
        self.compact(record.shard)?;
        // All of it together must stay exact too: what is written is checked by it when it is read.
        self.flushed_total().map(drop)
    }

    fn compact(&mut self, shard: Shard) -> Result<(), StateError> {
        let of_shard = (shard, 0)..=(shard, u64::MAX);
        while self.flushes.range(of_shard.clone()).count() > FLUSHES_KEPT {
            let Some(oldest) = self.flushes.range(of_shard.clone()).next().map(|(place, _)| *place) else {
                break;
            };
            if let Some(record) = self.flushes.remove(&oldest) {
                let earlier = self.earlier.entry(shard).or_default();
                *earlier = earlier.checked_add(record.total).ok_or(StateError::TooLarge)?;
            }
        }
        Ok(())
    }

    fn flushed_total(&self) -> Result<UsageTotal, StateError> {
        let totals = self.flushes.values().map(|record| record.total).chain(self.earlier.values().copied());
        added_up(totals)
    }

    fn check(&self) -> Result<(), StateError> {
        let booked = added_up(self.usage.values().map(|row| row.total))?;
        let has_units = self.usage.keys().all(|key| self.first_units.contains_key(&key.product_sku));
        if booked == self.flushed_total()? && has_units { Ok(()) } else { Err(StateError::Unbalanced) }
    }
}

fn holds(total: &UsageTotal) -> bool {
    total.amount.nanos() < NANOS_LIMIT
}

fn added_up(totals: impl IntoIterator<Item = UsageTotal>) -> Result<UsageTotal, StateError> {
    let mut totals = totals.into_iter();
    totals.try_fold(UsageTotal::default(), UsageTotal::checked_add).ok_or(StateError::TooLarge)
}

/// A total from its parts as they are written.
fn total(amount: &str, pulses: u64) -> Result<UsageTotal, StateError> {
    let amount = TotalAmount::parse(amount).ok_or(StateError::Nonsense("an amount"))?;
    Ok(UsageTotal { amount, pulses })
}

/// A point in time as it is written: seconds and nanoseconds since 1970.
fn time((seconds, nanos): (i64, u32)) -> Timestamp {
    Timestamp::new(seconds, nanos)
}
