//! Whether the raw events come to the books and what is pending, key by key.
//!
//! Archive and accumulator take the same messages apart from each other, so one of them may be behind. A key that differs is
//! looked at again a while later: where both sides stand still it is broken, and where one still moves nobody can tell.

use super::{
    CheckKind, CheckReport, FINDINGS_MAX, Failure, Finding,
    report::{Findings, shown},
    rows::names,
};
use crate::{
    ports::{EventQueries, PortError, UsageFilter, UsageReader, UsageRow, UsageRows},
    report_usage::{PendingUsage, ReportError},
};
use domain::{UsageKey, UsageTotal};
use futures_util::TryStreamExt;
use std::{collections::BTreeMap, collections::VecDeque, sync::Arc, time::Duration};
use tokio::time::sleep;

/// How many differing keys are looked at again; of more than that nobody reads the list.
const DIFFERENT_MAX: usize = 10_000;

/// The use case.
pub struct AuditArchive {
    /// The events.
    pub events: Arc<dyn EventQueries>,
    /// The books.
    pub reader: Arc<dyn UsageReader>,
    /// What is not in the books yet.
    pub pending: PendingUsage,
    /// After how long a key that differs is looked at again.
    pub pause: Duration,
}

/// What one look came to.
#[derive(Default)]
struct Look {
    archived: UsageTotal,
    counted: UsageTotal,
    keys: u64,
    /// Archived and counted, where these differ.
    different: BTreeMap<UsageKey, (UsageTotal, UsageTotal)>,
}

impl AuditArchive {
    /// The check. It reads all events and all hourly totals, the latter in the order of their keys.
    pub async fn check(&self) -> CheckReport {
        match self.looks().await {
            Ok(report) => report,
            Err(ReportError::Port(error)) => {
                Failure::of("archive or books", &error).leaves(CheckKind::Archive)
            }
            Err(error) => Failure { why: error.to_string(), stays: false }.leaves(CheckKind::Archive),
        }
    }

    async fn looks(&self) -> Result<CheckReport, ReportError> {
        let kind = CheckKind::Archive;
        let first = self.look().await?;
        let (look, moving) = if first.different.is_empty() {
            (first, 0)
        } else {
            sleep(self.pause).await;
            let mut second = self.look().await?;
            let all = second.different.len();
            second.different.retain(|key, sides| first.different.get(key) == Some(sides));
            let moving = all - second.different.len();
            (second, moving)
        };
        let left = format!("{} in the archive", shown(look.archived));
        let right = format!("{} counted, under {} keys", shown(look.counted), look.keys);
        if look.different.is_empty() && moving > 0 {
            let why = format!("{moving} totals still move: the archive or the workers are behind; ask again");
            return Ok(CheckReport { left, right, ..Failure { why, stays: false }.leaves(kind) });
        }
        let mut findings = Findings::default();
        findings.count_more(look.different.len().saturating_sub(FINDINGS_MAX) as u64);
        for (key, (archived, counted)) in look.different.iter().take(FINDINGS_MAX) {
            let what = if archived.pulses < counted.pulses {
                "the archive holds less than was counted, or is stopped"
            } else {
                "the archive holds more than was counted, or the workers are stopped"
            };
            findings
                .push(Finding { key: Some(names(key)), ..Finding::new(what).between(*counted, *archived) });
        }
        Ok(findings.report(kind, left, right))
    }

    /// Walks over events, books and what is pending in the order of the keys; holds only what is pending.
    async fn look(&self) -> Result<Look, ReportError> {
        let all = UsageFilter::default();
        let (pending, books) = self.pending.beside(&all, usize::MAX, |_| self.reader.usage(&all)).await?;
        let mut pending: VecDeque<(UsageKey, UsageTotal)> =
            pending.iter().map(|(key, total)| (key.clone(), *total)).collect();
        let (mut books, mut events) = (Walk::new(books.rows), Walk::new(self.events.totals().await?));
        let mut look = Look::default();
        loop {
            let next = [books.key().await?, events.key().await?, pending.front().map(|(key, _)| key.clone())];
            let Some(key) = next.into_iter().flatten().min() else { return Ok(look) };
            let waiting =
                pending.pop_front_if(|(next, _)| *next == key).map_or_else(UsageTotal::default, |row| row.1);
            let counted = plus(books.take(&key), waiting)?;
            let archived = events.take(&key);
            look.keys += 1;
            look.archived = plus(look.archived, archived)?;
            look.counted = plus(look.counted, counted)?;
            if archived != counted && look.different.len() < DIFFERENT_MAX {
                look.different.insert(key, (archived, counted));
            }
        }
    }
}

fn plus(sum: UsageTotal, more: UsageTotal) -> Result<UsageTotal, PortError> {
    sum.checked_add(more).ok_or_else(|| PortError::permanent("add up totals", "they are beyond 2^128 nanos"))
}

/// A way through rows in their order.
struct Walk {
    rows: UsageRows<'static>,
    part: VecDeque<UsageRow>,
}

impl Walk {
    const fn new(rows: UsageRows<'static>) -> Self {
        Self { rows, part: VecDeque::new() }
    }

    /// The key that comes next.
    async fn key(&mut self) -> Result<Option<UsageKey>, PortError> {
        while self.part.is_empty() {
            match self.rows.try_next().await? {
                Some(part) => self.part = part.into(),
                None => return Ok(None),
            }
        }
        Ok(self.part.front().map(|row| row.key.clone()))
    }

    /// The total under the key, which is the next one or further on.
    fn take(&mut self, key: &UsageKey) -> UsageTotal {
        self.part.pop_front_if(|row| row.key == *key).map_or_else(UsageTotal::default, |row| row.total)
    }
}

#[cfg(test)]
mod tests;
