//! Usage over time: what the books hold in a span, by window and by tenant, product and unit.

mod render;

pub(super) use render::content;

use super::usage_query::Wanted;
use application::{
    overview::{Part, Unavailable},
    ports::{GroupBy, PortError, UsageFilter, UsageQueries, WindowSum},
    usage_windows::{WindowError, WindowLength, window_bounds},
};
use axum::http::StatusCode;
use chrono::{DateTime, SecondsFormat};
use chrono_tz::Tz;
use domain::{HourWindow, TotalAmount, UsageUnit};
use std::{borrow::Cow, collections::BTreeMap, time::Duration};
use tokio::time::timeout;

/// The most windows of the chart.
const WINDOWS: i32 = 240;
/// The most sums that the chart is made of.
const CHART_SUMS: u32 = 20_000;
/// The most rows of the table.
const ROWS: usize = 200;
/// The most rows of the CSV.
const CSV_ROWS: u32 = 100_000;
/// How long the books may take to answer.
const LIMIT: Duration = Duration::from_secs(15);

/// What the page shows.
#[derive(Clone, Debug)]
pub(super) struct Usage {
    length: WindowLength,
    /// Where each window begins, and where the last one ends.
    bounds: Vec<HourWindow>,
    /// Whether there is more before the first window.
    is_cut: bool,
    /// For each unit the amount of each window, and the pulses of all.
    units: BTreeMap<UsageUnit, (Vec<TotalAmount>, u64)>,
    /// The sums over all windows, at most [`ROWS`].
    rows: Vec<WindowSum>,
    has_more_rows: bool,
}

/// What is wanted; `None` where the books hold nothing of it.
pub(super) async fn usage(queries: &dyn UsageQueries, wanted: &Wanted) -> Part<Option<Usage>> {
    within(read(queries, wanted)).await
}

async fn within<T>(answer: impl Future<Output = Result<T, PortError>>) -> Part<T> {
    match timeout(LIMIT, answer).await {
        Ok(answer) => answer.map_err(|error| Unavailable(error.to_string())),
        Err(_) => Err(Unavailable(format!("the books took longer than {LIMIT:?}: ask for a shorter span"))),
    }
}

async fn read(queries: &dyn UsageQueries, wanted: &Wanted) -> Result<Option<Usage>, PortError> {
    let filter = &wanted.filter;
    let Some((length, first, end)) = span(queries, wanted).await? else { return Ok(None) };
    let hours = match length {
        WindowLength::Hour => 1,
        WindowLength::Day => 24,
        WindowLength::Month => 31 * 24,
    };
    let earliest = HourWindow::from_number(end.number().saturating_sub(WINDOWS * hours));
    let bounds = bounds(length, first.max(earliest), end)?;
    let (Some(begin), Some(last)) = (bounds.first().copied(), bounds.last().copied()) else {
        return Ok(None);
    };
    let by_unit = queries.sums(filter, &bounds, GroupBy::default(), CHART_SUMS + 1).await?;
    if by_unit.len() > CHART_SUMS as usize {
        return Err(PortError::permanent(
            "draw usage",
            "too many units for one chart: choose a unit or a shorter span",
        ));
    }
    let groups = GroupBy { tenant: true, product_sku: true };
    let more = u32::try_from(ROWS + 1).unwrap_or(u32::MAX);
    let mut rows = queries.sums(filter, &[begin, last], groups, more).await?;
    let has_more_rows = rows.len() > ROWS;
    rows.truncate(ROWS);
    let mut units: BTreeMap<UsageUnit, (Vec<TotalAmount>, u64)> = BTreeMap::new();
    for sum in by_unit {
        let (amounts, pulses) =
            units.entry(sum.use_unity).or_insert_with(|| (vec![TotalAmount::ZERO; bounds.len() - 1], 0));
        if let Some(amount) = amounts.get_mut(sum.window) {
            *amount = sum.total.amount;
            *pulses = pulses.saturating_add(sum.total.pulses);
        }
    }
    Ok(Some(Usage { length, bounds, is_cut: first < earliest, units, rows, has_more_rows }))
}

/// The length of the windows, and from where up to before where the books hold something.
async fn span(
    queries: &dyn UsageQueries,
    wanted: &Wanted,
) -> Result<Option<(WindowLength, HourWindow, HourWindow)>, PortError> {
    let Some((first, last)) = queries.span(&wanted.filter).await? else { return Ok(None) };
    let end = HourWindow::from_number(last.number().saturating_add(1));
    let chosen = match end.number().saturating_sub(first.number()) {
        ..=96 => WindowLength::Hour,
        97..=2_880 => WindowLength::Day,
        _ => WindowLength::Month,
    };
    Ok(Some((wanted.length.unwrap_or(chosen), first, end)))
}

fn bounds(length: WindowLength, from: HourWindow, to: HourWindow) -> Result<Vec<HourWindow>, PortError> {
    window_bounds(length, Tz::UTC, from, to)
        .map_err(|error| PortError::permanent("divide the time into windows", error))
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTable {
    /// It would be too long.
    #[error("{0}")]
    TooLong(String),
    /// The books do not answer.
    #[error(transparent)]
    Books(#[from] PortError),
    /// They take too long.
    #[error("the books took longer than {LIMIT:?}: ask for a shorter span")]
    Slow,
}

impl NoTable {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::TooLong(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Books(error) if !error.is_transient() => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Books(_) | Self::Slow => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// The sums of each window by tenant, product and unit, as CSV.
pub(super) async fn csv(queries: &dyn UsageQueries, wanted: &Wanted) -> Result<String, NoTable> {
    let table = async {
        const OPERATION: &str = "write usage as CSV";
        let mut csv = csv::Writer::from_writer(Vec::new());
        let failed = |error: csv::Error| PortError::permanent(OPERATION, error);
        csv.write_record([
            "window_start",
            "tenant",
            "product_sku",
            "use_unity",
            "used_amount",
            "pulse_count",
        ])
        .map_err(failed)?;
        if let Some((length, first, end)) = span(queries, wanted).await? {
            let too_long = |error: WindowError| NoTable::TooLong(error.to_string());
            let bounds = window_bounds(length, Tz::UTC, first, end).map_err(too_long)?;
            let groups = GroupBy { tenant: true, product_sku: true };
            let sums = queries.sums(&wanted.filter, &bounds, groups, CSV_ROWS + 1).await?;
            if sums.len() > CSV_ROWS as usize {
                let reason = format!("more than {CSV_ROWS} rows: choose a shorter span or longer windows");
                return Err(NoTable::TooLong(reason));
            }
            for sum in sums {
                let window = bounds.get(sum.window).copied().map(rfc3339).unwrap_or_default();
                let (amount, pulses) = (sum.total.amount.to_string(), sum.total.pulses.to_string());
                let tenant = sum.tenant.as_ref().map_or("", |tenant| tenant.as_str());
                let sku = sum.product_sku.as_ref().map_or("", |sku| sku.as_str());
                csv.write_record([
                    &window,
                    &*cell(tenant),
                    &*cell(sku),
                    &*cell(sum.use_unity.as_str()),
                    &amount,
                    &pulses,
                ])
                .map_err(failed)?;
            }
        }
        let bytes = csv.into_inner().map_err(|error| PortError::permanent(OPERATION, error.to_string()))?;
        Ok(String::from_utf8(bytes).map_err(|error| PortError::permanent(OPERATION, error))?)
    };
    timeout(LIMIT, table).await.unwrap_or(Err(NoTable::Slow))
}

fn rfc3339(hour: HourWindow) -> String {
    let time = DateTime::from_timestamp(hour.start_seconds(), 0).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Whether nothing at all was asked for.
fn is_all(filter: &UsageFilter) -> bool {
    *filter == UsageFilter::default()
}

/// A name as a spreadsheet takes it for a name: what begins like a formula stands behind an apostrophe.
///
/// For people who open the file; the API gives names as they are.
fn cell(text: &str) -> Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@']) { format!("'{text}").into() } else { text.into() }
}

#[cfg(test)]
mod tests;
