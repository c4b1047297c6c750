//! Questions about usage: a page of hourly totals, one of them, and sums over windows of time.

use crate::{
    ports::{FlushRecord, GroupBy, LedgerRow, PortError, UsageFilter, UsageQueries, UsageRow, WindowSum},
    report_usage::{PendingUsage, ReportError},
    usage_windows::{WindowError, WindowLength, first_window_bounds},
};
use chrono_tz::Tz;
use domain::{HourWindow, Timestamp};
use std::{iter::once, sync::Arc};

/// The most totals that are not yet flushed in one answer.
pub const PENDING_KEYS_MAX: usize = 50_000;
/// The most sums in one answer.
pub const SUMS_MAX: u32 = 100_000;
/// The most parts of a span that are summed up for one answer, each of [`crate::usage_windows::WINDOWS_MAX`] windows: more
/// than seventy years of hours without a gap.
const PARTS_MAX: usize = 64;
/// How many flushes are looked through for the last one of a shard.
const FLUSHES_READ: u32 = 4_096;

/// The use case.
pub struct QueryUsage {
    /// The books.
    pub queries: Arc<dyn UsageQueries>,
    /// What is not in the books yet.
    pub pending: Arc<PendingUsage>,
}

/// An hourly total.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It is counted and not yet in the books.
    Pending(UsageRow),
    /// It is in the books.
    Billed(LedgerRow),
}

/// Some hourly totals, and how many there are in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The totals.
    pub entries: Vec<Entry>,
    /// How many the filter wants.
    pub total: u64,
}

/// Sums over windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Where each window begins, and where the last one ends. A long span of windows that hold nothing stands as one.
    pub bounds: Vec<HourWindow>,
    /// The sums, by window and group.
    pub sums: Vec<WindowSum>,
    /// Everything that was counted before this moment is in the books; `None` where nothing was ever flushed.
    pub complete_until: Option<Timestamp>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The windows cannot be had.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// There are too many sums.
    #[error(
        "the answer has more than {SUMS_MAX} sums: ask for a shorter span, longer windows or fewer groups"
    )]
    TooManySums,
    /// What is pending is unknown, or too much.
    #[error(transparent)]
    Pending(#[from] ReportError),
}

impl From<PortError> for QueryError {
    fn from(error: PortError) -> Self {
        Self::Pending(error.into())
    }
}

impl QueryUsage {
    /// The wanted totals from the `skip`-th on: first those that are pending, where they are asked for, then the books,
    /// both in the order of their keys. A key that has both stands in both.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn page(
        &self,
        filter: &UsageFilter,
        skip: u64,
        limit: u32,
        with_pending: bool,
    ) -> Result<Page, QueryError> {
        if !with_pending {
            let page = self.queries.page(filter, skip, limit).await?;
            return Ok(Page {
                entries: page.rows.into_iter().map(Entry::Billed).collect(),
                total: page.total,
            });
        }
        let books = |pending: usize| {
            let pending = pending as u64;
            let of_pending = u32::try_from(pending.saturating_sub(skip)).unwrap_or(u32::MAX).min(limit);
            self.queries.page(filter, skip.saturating_sub(pending), limit - of_pending)
        };
        let (pending, billed) = self.pending.beside(filter, PENDING_KEYS_MAX, books).await?;
        let total = billed.total + pending.len() as u64;
        let pending = pending.into_iter().map(|(key, total)| Entry::Pending(UsageRow { key, total }));
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let entries =
            pending.skip(skip).take(limit as usize).chain(billed.rows.into_iter().map(Entry::Billed));
        Ok(Page { entries: entries.collect(), total })
    }

    /// Sums of the books over the windows of a span; where the filter leaves an end open, the wanted rows make it. It may be
    /// of any length: gaps in which nothing was used cost nothing.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn sums(
        &self,
        filter: &UsageFilter,
        length: WindowLength,
        zone: Tz,
        group_by: GroupBy,
        now: Timestamp,
    ) -> Result<Sums, QueryError> {
        // Before the sums: what is complete by now is in them.
        let complete_until = self.complete_until(now).await?;
        let mut sums = Sums { bounds: Vec::new(), sums: Vec::new(), complete_until };
        let Some((mut first, last)) = self.span(filter).await? else { return Ok(sums) };
        for _ in 0..PARTS_MAX {
            let bounds = first_window_bounds(length, zone, first, last)?;
            let Some(end) = bounds.last().copied() else { return Ok(sums) };
            let part = self.queries.sums(filter, &bounds, group_by, SUMS_MAX + 1).await?;
            let before = sums.bounds.len();
            sums.sums.extend(part.into_iter().map(|sum| WindowSum { window: before + sum.window, ..sum }));
            sums.bounds.extend(bounds);
            if sums.sums.len() > SUMS_MAX as usize {
                return Err(QueryError::TooManySums);
            }
            if end >= last {
                return Ok(sums);
            }
            let rest = UsageFilter { from: filter.from.max(Some(end)), ..filter.clone() };
            let Some((next, _)) = self.queries.span(&rest).await? else { return Ok(sums) };
            first = next;
        }
        Err(WindowError::TooMany.into())
    }

    /// From where up to before where the sums reach.
    async fn span(&self, filter: &UsageFilter) -> Result<Option<(HourWindow, HourWindow)>, PortError> {
        if let (Some(from), Some(to)) = (filter.from, filter.to) {
            return Ok(Some((from, to)));
        }
        let span = self.queries.span(filter).await?;
        let after = |hour: HourWindow| HourWindow::from_number(hour.number().saturating_add(1));
        Ok(span.map(|(first, last)| (filter.from.unwrap_or(first), filter.to.unwrap_or(after(last)))))
    }

    /// Up to when everything that was counted is in the books: now, but for shards that hold more, which are complete up
    /// to their last flush.
    async fn complete_until(&self, now: Timestamp) -> Result<Option<Timestamp>, QueryError> {
        let waiting = self.pending.waiting().await?;
        if waiting.is_empty() {
            return Ok(Some(now));
        }
        let flushes = self.queries.flushes(FLUSHES_READ).await?;
        let last = |shard| flushes.iter().find(|flush: &&FlushRecord| flush.shard == shard);
        let each: Option<Vec<Timestamp>> =
            waiting.into_iter().map(|shard| last(shard).map(|flush| flush.sealed_at)).collect();
        Ok(each.and_then(|each| each.into_iter().chain(once(now)).min()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{MockAccumulatorShards, MockGenerationStore, MockShardRegistry, MockUsageQueries};
    use domain::{UsageTotal, UsageUnit};

    const NOW: Timestamp = Timestamp::new(1_768_046_400, 0);

    /// Sums by the hour over books that hold something in these hours only; the hours in which the windows of the sums begin.
    async fn hours_with_sums(holding: &'static [i32], filter: UsageFilter) -> Result<Vec<i32>, QueryError> {
        let hour = HourWindow::from_number;
        let wanted = move |filter: &UsageFilter| {
            let (from, to) = (filter.from, filter.to);
            let is_wanted =
                move |it: &HourWindow| from.is_none_or(|from| from <= *it) && to.is_none_or(|to| *it < to);
            holding.iter().copied().map(hour).filter(is_wanted)
        };
        let mut queries = MockUsageQueries::new();
        queries.expect_span().returning(move |filter| Ok(wanted(filter).min().zip(wanted(filter).max())));
        queries.expect_sums().returning(move |filter, bounds, _, _| {
            let window = |it: HourWindow| bounds.windows(2).position(|pair| pair[0] <= it && it < pair[1]);
            let sum = |window| WindowSum {
                window,
                tenant: None,
                product_sku: None,
                use_unity: UsageUnit::new("KB").unwrap(),
                total: UsageTotal::default(),
            };
            Ok(wanted(filter).filter_map(window).map(sum).collect())
        });
        let mut registry = MockShardRegistry::new();
        registry.expect_registration().returning(|| Ok(None));
        let pending = PendingUsage {
            registry: Arc::new(registry),
            shards: Arc::new(MockAccumulatorShards::new()),
            generations: Arc::new(MockGenerationStore::new()),
        };
        let query = QueryUsage { queries: Arc::new(queries), pending: Arc::new(pending) };
        let sums = query.sums(&filter, WindowLength::Hour, Tz::UTC, GroupBy::default(), NOW).await?;
        assert!(sums.sums.iter().all(|sum| sum.window + 1 < sums.bounds.len()), "each window has an end");
        Ok(sums.sums.iter().map(|sum| sums.bounds[sum.window].number()).collect())
    }

    #[tokio::test]
    async fn a_pulse_of_long_ago_is_summed_up_beside_those_of_today() {
        const HOURS: [i32; 5] = [-600_000, 0, 9_999, 490_000, 490_001];
        let hour = |number| Some(HourWindow::from_number(number));
        let all = hours_with_sums(&HOURS, UsageFilter::default()).await.unwrap();
        assert_eq!(all, HOURS);
        let filter = UsageFilter { from: hour(-900_000), to: hour(490_001), ..UsageFilter::default() };
        assert_eq!(hours_with_sums(&HOURS, filter).await.unwrap(), HOURS[..4]);
        let filter = UsageFilter { from: hour(1), ..UsageFilter::default() };
        assert_eq!(hours_with_sums(&HOURS, filter).await.unwrap(), HOURS[2..]);
        let filter = UsageFilter { from: hour(1), to: hour(5), ..UsageFilter::default() };
        assert_eq!(hours_with_sums(&HOURS, filter).await.unwrap(), [0; 0]);
    }

    #[tokio::test]
    async fn the_work_for_one_answer_is_bounded() {
        let hours: Vec<i32> = (0..70).map(|number| number * 20_000).collect();
        let refused = hours_with_sums(hours.leak(), UsageFilter::default()).await;
        assert!(matches!(refused, Err(QueryError::Window(WindowError::TooMany))));
    }
}
