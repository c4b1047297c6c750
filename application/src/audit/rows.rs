//! Whether the rows of the generations sum to their totals.

use super::{
    AuditBooks, CheckKind, CheckReport, Cut, Failure, Finding,
    report::{Findings, shown},
};
use crate::ports::{FoundRow, PortError, RowCount, ShardCut};
use domain::{Shard, Timestamp, UsageKey, UsageTotal};

/// The rows of a generation as they were found.
struct Read {
    sum: UsageTotal,
    bad: Vec<(Option<UsageKey>, String)>,
}

/// What the rows of a generation must come to: something between the two.
struct Bounds {
    least: UsageTotal,
    most: UsageTotal,
}

/// What all generations came to.
#[derive(Default)]
struct Sums {
    rows: UsageTotal,
    totals: UsageTotal,
    generations: u64,
    findings: Findings,
}

impl AuditBooks {
    pub(super) async fn check_rows(&self, cut: &Cut) -> CheckReport {
        let shards = match &cut.shards {
            Ok(shards) => shards,
            Err(why) => return why.leaves(CheckKind::Rows),
        };
        let mut sums = Sums::default();
        for (shard, found) in shards {
            if let Err(error) = self.check_shard_rows(cut, *shard, found, &mut sums).await {
                return Failure::of(&self.accumulator_name, &error).fails(CheckKind::Rows);
            }
        }
        let left = format!("{} in the rows of {} generations", shown(sums.rows), sums.generations);
        let right = format!("{} in their totals", shown(sums.totals));
        sums.findings.report(CheckKind::Rows, left, right)
    }

    async fn check_shard_rows(
        &self,
        cut: &Cut,
        shard: Shard,
        found: &ShardCut,
        sums: &mut Sums,
    ) -> Result<(), PortError> {
        for sealed in &found.sealed {
            // What is in the books may be deleted at any moment.
            if sealed.generation <= cut.flushed(shard) {
                continue;
            }
            let Some(total) = sealed.total else {
                let gone = Finding::new("the total of a sealed generation is gone");
                sums.findings.push(gone.in_shard(shard).in_generation(sealed.generation));
                continue;
            };
            let bounds = Bounds { least: total, most: total };
            self.check_generation(shard, sealed.generation, bounds, sealed.rows, sums).await?;
        }
        let active = found.state.active;
        let bounds = Bounds { least: active, most: active };
        self.check_generation(shard, found.state.generation, bounds, found.active_rows, sums).await
    }

    async fn check_generation(
        &self,
        shard: Shard,
        generation: u64,
        mut bounds: Bounds,
        count: RowCount,
        sums: &mut Sums,
    ) -> Result<(), PortError> {
        let read = self.read(shard, generation).await?;
        let lacks_rows = count.recorded.is_some_and(|recorded| recorded != count.stored);
        if read.sum != bounds.least || !read.bad.is_empty() || lacks_rows {
            match self.most(shard, generation).await? {
                Some(most) => bounds.most = most,
                // In the books meanwhile: its rows are no longer what counts.
                None => return Ok(()),
            }
        }
        sums.generations += 1;
        sums.rows = sums.rows.checked_add(read.sum).unwrap_or(sums.rows);
        // Of the active generation the total is one of the moment that its rows are of, if they are of any.
        let total = if within(read.sum, &bounds) { read.sum } else { bounds.least };
        sums.totals = sums.totals.checked_add(total).unwrap_or(sums.totals);
        let finding = |what: &str| Finding::new(what).in_shard(shard).in_generation(generation);
        for (key, fault) in read.bad {
            sums.findings.push(Finding { key: key.map(|key| names(&key)), ..finding(&fault) });
        }
        if let (true, Some(recorded)) = (lacks_rows, count.recorded) {
            sums.findings.push(
                finding("the generation does not have the rows that were made in it")
                    .counts(count.stored, recorded),
            );
        }
        if !within(read.sum, &bounds) {
            let nearest = if below(read.sum, bounds.least) { bounds.least } else { bounds.most };
            sums.findings.push(finding("the rows do not sum to the total").between(read.sum, nearest));
        }
        Ok(())
    }

    async fn read(&self, shard: Shard, generation: u64) -> Result<Read, PortError> {
        let mut read = Read { sum: UsageTotal::default(), bad: Vec::new() };
        let mut part = Some(0);
        while let Some(number) = part {
            let (rows, next) = self.accumulator.rows(shard, generation, number).await?;
            for row in rows {
                match row {
                    FoundRow::Good(row) => match read.sum.checked_add(row.total) {
                        Some(sum) => read.sum = sum,
                        None => read.bad.push((Some(row.key), "the sum is beyond 2^128 nanos".to_owned())),
                    },
                    FoundRow::Bad { key, fault } => read.bad.push((key, fault)),
                }
            }
            part = next;
        }
        Ok(read)
    }

    /// What the generation comes to by now; `None` where it is in the books.
    async fn most(&self, shard: Shard, generation: u64) -> Result<Option<UsageTotal>, PortError> {
        let cut = self.accumulator.cut(shard).await?;
        // After the shard: a generation that it deletes is in the books before.
        let known = self.registry.registration().await?;
        let flushed = known
            .and_then(|known| known.records.get(usize::from(shard.0)).map(|record| record.flushed))
            .unwrap_or_default();
        if generation <= flushed {
            return Ok(None);
        }
        let Some(cut) = cut else { return Ok(Some(UsageTotal::default())) };
        if generation == cut.state.generation {
            return Ok(Some(cut.state.active));
        }
        let sealed = cut.sealed.iter().find(|sealed| sealed.generation == generation);
        Ok(Some(sealed.and_then(|sealed| sealed.total).unwrap_or_default()))
    }
}

fn within(sum: UsageTotal, bounds: &Bounds) -> bool {
    !below(sum, bounds.least) && !below(bounds.most, sum)
}

/// Whether a part of it is less.
fn below(sum: UsageTotal, other: UsageTotal) -> bool {
    sum.amount < other.amount || sum.pulses < other.pulses
}

/// Tenant, product, unit and hour as they are told.
pub(super) fn names(key: &UsageKey) -> [String; 4] {
    [
        key.tenant.as_str().to_owned(),
        key.product_sku.as_str().to_owned(),
        key.use_unity.as_str().to_owned(),
        hour_name(Timestamp::new(key.hour.start_seconds(), 0)),
    ]
}

/// A full hour in RFC 3339.
fn hour_name(time: Timestamp) -> String {
    chrono::DateTime::from_timestamp(time.seconds(), 0)
        .map_or_else(|| time.seconds().to_string(), |time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}
