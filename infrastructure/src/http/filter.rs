//! What the questions have in common: filters in, times out.

use super::{HttpState, Problem};
use application::{
    ports::UsageFilter,
    query_usage::{QueryError, QueryUsage},
    report_usage::ReportError,
    usage_windows::{local_time, parse_bound},
};
use axum::{
    extract::rejection::{PathRejection, QueryRejection},
    http::StatusCode,
};
use chrono::{DateTime, SecondsFormat};
use chrono_tz::Tz;
use domain::{HourWindow, ProductSku, TenantId, Timestamp, UsageUnit};
use std::{fmt::Display, sync::Arc};
use tracing::error;

/// A filter as it is asked for.
pub(super) struct Wanted {
    pub(super) tenant: Option<String>,
    pub(super) product_sku: Option<String>,
    pub(super) use_unity: Option<String>,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
}

impl Wanted {
    pub(super) fn filter(self) -> Result<UsageFilter, Problem> {
        fn checked<T, E: Display>(
            field: &str,
            text: Option<String>,
            check: impl Fn(String) -> Result<T, E>,
        ) -> Result<Option<T>, Problem> {
            let problem = |error| Problem::invalid(field, format!("{field} {error}"));
            text.map(check).transpose().map_err(problem)
        }
        Ok(UsageFilter {
            tenant: checked("tenant", self.tenant, TenantId::new)?,
            product_sku: checked("product_sku", self.product_sku, ProductSku::new)?,
            use_unity: checked("use_unity", self.use_unity, UsageUnit::new)?,
            from: checked("from", self.from, |text| parse_bound(&text))?,
            to: checked("to", self.to, |text| parse_bound(&text))?,
        })
    }
}

pub(super) fn query_usage(state: &HttpState) -> QueryUsage {
    QueryUsage { queries: Arc::clone(&state.ports.queries), pending: Arc::clone(&state.ports.pending) }
}

/// The beginning of the hour by the clocks of a zone, in RFC 3339.
pub(super) fn hour(hour: HourWindow, zone: Tz) -> String {
    // There is no hour in the books that the calendar does not know: years end with four digits on the way in.
    local_time(hour, zone)
        .map_or_else(|| hour.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// A point in time in RFC 3339, UTC.
pub(super) fn moment(time: Timestamp) -> String {
    DateTime::from_timestamp(time.seconds(), time.nanos())
        .map_or_else(|| time.seconds().to_string(), |time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let unprocessable =
            |code, error: &dyn Display| Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, error.to_string());
        match error {
            QueryError::Window(error) => unprocessable("no_such_windows", &error),
            error @ QueryError::TooManySums => unprocessable("too_many_rows", &error),
            QueryError::Pending(ReportError::Port(error)) => error.into(),
            QueryError::Pending(error @ ReportError::TooMany(_)) => unprocessable("too_many_rows", &error),
            QueryError::Pending(ReportError::Storage(fault)) => {
                error!(error = %fault, "a request failed");
                let detail = "what is counted is not what the ledger knows; the log says more";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
            }
        }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), "bad_request", rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), "bad_request", rejection.body_text())
    }
}
