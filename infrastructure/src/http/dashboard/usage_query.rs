//! What a person asks of the usage page, as it is typed, and what it comes to.

use application::{ports::UsageFilter, usage_windows::WindowLength};
use chrono::{DateTime, NaiveDateTime};
use domain::{HourWindow, ProductSku, TenantId, TextError, Timestamp, UsageUnit};
use serde::Deserialize;

const SECONDS_PER_HOUR: i64 = 3_600;

/// The fields of the form, empty where nothing was typed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct UsageQuery {
    pub(super) tenant: String,
    pub(super) product_sku: String,
    pub(super) use_unity: String,
    /// `hour`, `day` or `month`; anything else lets the page choose.
    pub(super) window: String,
    pub(super) from: String,
    pub(super) to: String,
    /// The unit of the chart; the filter is `use_unity`.
    pub(super) chart: String,
}

/// What the fields come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) filter: UsageFilter,
    pub(super) length: Option<WindowLength>,
}

/// What is wrong with a field, by its name.
pub(super) type Faults = Vec<(&'static str, String)>;

impl UsageQuery {
    /// Reads the fields; all faults at once.
    pub(super) fn wanted(&self) -> Result<Wanted, Faults> {
        let mut faults = Faults::new();
        let filter = UsageFilter {
            tenant: name("tenant", &self.tenant, TenantId::new, &mut faults),
            product_sku: name("product_sku", &self.product_sku, ProductSku::new, &mut faults),
            use_unity: name("use_unity", &self.use_unity, UsageUnit::new, &mut faults),
            from: hour("from", &self.from, 0, &mut faults),
            to: hour("to", &self.to, SECONDS_PER_HOUR - 1, &mut faults),
        };
        if let (Some(from), Some(to)) = (filter.from, filter.to)
            && from >= to
        {
            faults.push(("to", "it is not after the beginning".to_owned()));
        }
        if faults.is_empty() { Ok(Wanted { filter, length: self.length() }) } else { Err(faults) }
    }

    fn length(&self) -> Option<WindowLength> {
        match self.window.as_str() {
            "hour" => Some(WindowLength::Hour),
            "day" => Some(WindowLength::Day),
            "month" => Some(WindowLength::Month),
            _ => None,
        }
    }

    /// The same question with another unit in the chart, as the query of a link.
    pub(super) fn with_chart(&self, unit: &str) -> String {
        self.link(&[("chart", unit)])
    }

    /// The same question as the query of a link; fields in `more` take the place of these.
    pub(super) fn link(&self, more: &[(&str, &str)]) -> String {
        let fields = [
            ("tenant", &self.tenant),
            ("product_sku", &self.product_sku),
            ("use_unity", &self.use_unity),
            ("window", &self.window),
            ("from", &self.from),
            ("to", &self.to),
            ("chart", &self.chart),
        ];
        let replaced = |name: &str| more.iter().any(|(other, _)| *other == name);
        let kept = fields.into_iter().filter(|(name, value)| !value.is_empty() && !replaced(name));
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).extend_pairs(more).finish()
    }
}

fn name<'a, T>(
    field: &'static str,
    text: &'a str,
    parse: impl Fn(&'a str) -> Result<T, TextError>,
    faults: &mut Faults,
) -> Option<T> {
    if text.is_empty() {
        return None;
    }
    parse(text).map_err(|error| faults.push((field, error.to_string()))).ok()
}

/// The hour that holds the moment, after so many seconds were added; a moment without an offset is in UTC.
fn hour(field: &'static str, text: &str, add_seconds: i64, faults: &mut Faults) -> Option<HourWindow> {
    if text.is_empty() {
        return None;
    }
    let utc = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
        .into_iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .map(|time| time.and_utc().timestamp());
    let seconds = utc.or_else(|| DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp()));
    if seconds.is_none() {
        faults.push((field, "give a time such as 2026-01-10T12:00".to_owned()));
    }
    seconds.map(|seconds| HourWindow::of(Timestamp::new(seconds.saturating_add(add_seconds), 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_take_in_the_whole_hours_that_they_name() {
        let query = UsageQuery {
            from: "1970-01-01T01:30".to_owned(),
            to: "1970-01-01T03:00:01+00:00".to_owned(),
            window: "day".to_owned(),
            ..UsageQuery::default()
        };
        let wanted = query.wanted().unwrap();
        let hours = (wanted.filter.from.map(HourWindow::number), wanted.filter.to.map(HourWindow::number));
        assert_eq!(hours, (Some(1), Some(4)));
        assert_eq!(wanted.length, Some(WindowLength::Day));
        let whole = UsageQuery { to: "1970-01-01T03:00".to_owned(), ..query };
        assert_eq!(whole.wanted().unwrap().filter.to.map(HourWindow::number), Some(3));
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let query =
            UsageQuery { tenant: "x".repeat(1_000), from: "yesterday".to_owned(), ..UsageQuery::default() };
        let fields: Vec<&str> = query.wanted().unwrap_err().into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["tenant", "from"]);
        let backwards = UsageQuery {
            from: "2026-01-10T12:00".to_owned(),
            to: "2026-01-10T12:00".to_owned(),
            ..UsageQuery::default()
        };
        assert_eq!(backwards.wanted().unwrap_err()[0].0, "to");
    }

    #[test]
    fn links_keep_the_question() {
        let query =
            UsageQuery { tenant: "a&b=c".to_owned(), chart: "KB".to_owned(), ..UsageQuery::default() };
        assert_eq!(query.with_chart("MB/\u{e9}"), "tenant=a%26b%3Dc&chart=MB%2F%C3%A9");
    }
}
