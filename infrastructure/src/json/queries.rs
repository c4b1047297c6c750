//! Answers questions about the books.

use super::{JsonLedger, state::Row};
use application::ports::{
    FlushRecord, GroupBy, LedgerPage, LedgerRow, PortError, UsageFilter, UsageQueries, WindowSum,
};
use async_trait::async_trait;
use domain::{HourWindow, ProductSku, TenantId, Timestamp, UsageKey, UsageTotal, UsageUnit};
use std::{cmp::Reverse, collections::BTreeMap};

/// A window, a tenant, a product and a unit.
type Group<'a> = (usize, Option<&'a TenantId>, Option<&'a ProductSku>, &'a UsageUnit);

const OPERATION: &str = "ask the books of the JSON ledger";

#[async_trait]
impl UsageQueries for JsonLedger {
    async fn page(&self, filter: &UsageFilter, skip: u64, limit: u32) -> Result<LedgerPage, PortError> {
        let filter = filter.clone();
        let (skip, limit) = (usize::try_from(skip).unwrap_or(usize::MAX), limit as usize);
        self.look(OPERATION, move |state| {
            let wanted = || state.usage.iter().filter(|(key, _)| filter.wants(key));
            let rows = wanted().skip(skip).take(limit).map(|(key, row)| ledger_row(key, *row)).collect();
            Ok(LedgerPage { rows, total: wanted().count() as u64 })
        })
        .await
    }

    async fn row(&self, id: i64) -> Result<Option<LedgerRow>, PortError> {
        self.look(OPERATION, move |state| {
            Ok(state.usage.iter().find(|(_, row)| row.id == id).map(|(key, row)| ledger_row(key, *row)))
        })
        .await
    }

    async fn span(&self, filter: &UsageFilter) -> Result<Option<(HourWindow, HourWindow)>, PortError> {
        let filter = filter.clone();
        self.look(OPERATION, move |state| {
            let hours = || state.usage.keys().filter(|key| filter.wants(key)).map(|key| key.hour);
            Ok(hours().min().zip(hours().max()))
        })
        .await
    }

    async fn sums(
        &self,
        filter: &UsageFilter,
        bounds: &[HourWindow],
        group_by: GroupBy,
        limit: u32,
    ) -> Result<Vec<WindowSum>, PortError> {
        let (filter, bounds) = (filter.clone(), bounds.to_vec());
        self.look(OPERATION, move |state| {
            let mut sums: BTreeMap<Group<'_>, UsageTotal> = BTreeMap::new();
            for (key, row) in state.usage.iter().filter(|(key, _)| filter.wants(key)) {
                let after = bounds.partition_point(|bound| *bound <= key.hour);
                if after == 0 || after == bounds.len() {
                    continue;
                }
                let tenant = group_by.tenant.then_some(&key.tenant);
                let product_sku = group_by.product_sku.then_some(&key.product_sku);
                let sum = sums.entry((after - 1, tenant, product_sku, &key.use_unity)).or_default();
                let more = sum.checked_add(row.total);
                *sum = more.ok_or_else(|| PortError::permanent(OPERATION, "a sum is beyond 2^128 nanos"))?;
            }
            let sums = sums.into_iter().take(limit as usize);
            let sums = sums.map(|((window, tenant, product_sku, unit), total)| WindowSum {
                window,
                tenant: tenant.cloned(),
                product_sku: product_sku.cloned(),
                use_unity: unit.clone(),
                total,
            });
            Ok(sums.collect())
        })
        .await
    }

    /// Of each shard at most as many as the state keeps.
    async fn flushes(&self, limit: u32) -> Result<Vec<FlushRecord>, PortError> {
        self.look(OPERATION, move |state| {
            let mut flushes: Vec<FlushRecord> = state.flushes.into_values().collect();
            flushes.sort_by_key(|record| Reverse((record.flushed_at, record.shard, record.generation)));
            flushes.truncate(limit as usize);
            Ok(flushes)
        })
        .await
    }
}

fn ledger_row(key: &UsageKey, row: Row) -> LedgerRow {
    LedgerRow {
        id: row.id,
        key: key.clone(),
        total: row.total,
        created_at: Timestamp::new(row.created, 0),
        updated_at: Timestamp::new(row.updated, 0),
    }
}
