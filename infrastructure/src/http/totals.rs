//! `GET /api/v1/pulses` and `GET /api/v1/pulses/{id}`: the hourly totals.

use super::{
    HttpState, Problem,
    filter::{Wanted, moment, query_usage},
    problem::ProblemDetails,
};
use application::ports::{LedgerRow, UsageRow};
use application::query_usage::Entry;
use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
};
use chrono_tz::Tz;
use domain::{UsageKey, UsageTotal};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const LIMIT_MAX: u32 = 1_000;
/// The last page of the longest list that there can be, and then some.
const PAGE_MAX: u64 = 1_000_000_000_000;

/// Which totals, and how many of them.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Which page, from 1.
    #[serde(default = "first_page")]
    #[param(minimum = 1, maximum = 1_000_000_000_000_i64, default = 1)]
    page: u64,
    /// How many totals a page has: 1 to 1000.
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 1000, default = 10)]
    limit: u32,
    /// Also what is counted and not yet flushed: it comes first, with the status `pending`.
    #[serde(default)]
    pending: bool,
    /// Only this tenant.
    #[param(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    tenant: Option<String>,
    /// Only this product.
    #[param(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    product_sku: Option<String>,
    /// Only this unit.
    #[param(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    use_unity: Option<String>,
    /// Only hours from this one on: a date, or a full hour in RFC 3339.
    #[param(min_length = 10, example = "2026-01-01")]
    from: Option<String>,
    /// Only hours before this one.
    #[param(min_length = 10, example = "2026-01-01")]
    to: Option<String>,
}

const fn first_page() -> u64 {
    1
}

const fn default_limit() -> u32 {
    10
}

/// Hourly totals, in the order of tenant, product, unit and hour.
#[derive(Serialize, ToSchema)]
pub(super) struct TotalsPage {
    data: Vec<HourlyTotal>,
    /// Which page it is.
    page: u64,
    /// How many totals a page has.
    limit: u32,
    /// How many there are on all pages.
    total: u64,
}

/// How much a tenant used of a product in an hour.
#[derive(Serialize, ToSchema)]
pub(super) struct HourlyTotal {
    /// Names the row; null while it is pending.
    id: Option<i64>,
    tenant: String,
    product_sku: String,
    use_unity: String,
    /// The hour, in RFC 3339, UTC.
    window_start: String,
    /// The exact sum in decimal digits: a string, because numbers of JSON lose digits in many clients.
    used_amount: String,
    /// How many pulses are in it.
    pulse_count: u64,
    /// `billed`: it is in the books. `pending`: it is counted and not yet flushed.
    status: &'static str,
    /// When the first flush wrote the row.
    created_at: Option<String>,
    /// When the last flush added to it.
    updated_at: Option<String>,
}

impl HourlyTotal {
    fn new(key: &UsageKey, total: UsageTotal, status: &'static str) -> Self {
        Self {
            id: None,
            tenant: key.tenant.as_str().to_owned(),
            product_sku: key.product_sku.as_str().to_owned(),
            use_unity: key.use_unity.as_str().to_owned(),
            window_start: super::filter::hour(key.hour, Tz::UTC),
            used_amount: total.amount.to_string(),
            pulse_count: total.pulses,
            status,
            created_at: None,
            updated_at: None,
        }
    }

    fn billed(row: &LedgerRow) -> Self {
        Self {
            id: Some(row.id),
            created_at: Some(moment(row.created_at)),
            updated_at: Some(moment(row.updated_at)),
            ..Self::new(&row.key, row.total, "billed")
        }
    }
}

impl From<Entry> for HourlyTotal {
    fn from(entry: Entry) -> Self {
        match entry {
            Entry::Billed(row) => Self::billed(&row),
            Entry::Pending(UsageRow { key, total }) => Self::new(&key, total, "pending"),
        }
    }
}

/// The hourly totals, a page at a time.
#[utoipa::path(
    get,
    path = "/api/v1/pulses",
    tag = "usage",
    security(("bearer" = ["read"])),
    params(PageQuery),
    responses(
        (status = 200, description = "A page.", body = TotalsPage),
        (status = 400, description = "A parameter that is not known or cannot be read.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "The key has another scope.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "A parameter that is out of its range.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "A dependency is away.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(state): State<HttpState>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<TotalsPage>, Problem> {
    let Query(PageQuery { page, limit, pending, tenant, product_sku, use_unity, from, to }) = query?;
    let filter = Wanted { tenant, product_sku, use_unity, from, to }.filter()?;
    if !(1..=PAGE_MAX).contains(&page) {
        return Err(Problem::invalid("page", format!("page must be 1 to {PAGE_MAX}")));
    }
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::invalid("limit", format!("limit must be 1 to {LIMIT_MAX}")));
    }
    let skip = (page - 1) * u64::from(limit);
    let found = query_usage(&state).page(&filter, skip, limit, pending).await?;
    let data = found.entries.into_iter().map(HourlyTotal::from).collect();
    Ok(Json(TotalsPage { data, page, limit, total: found.total }))
}

/// One hourly total of the books.
#[utoipa::path(
    get,
    path = "/api/v1/pulses/{id}",
    tag = "usage",
    security(("bearer" = ["read"])),
    params(("id" = i64, Path, description = "The `id` of a total.")),
    responses(
        (status = 200, description = "The total.", body = HourlyTotal),
        (status = 400, description = "Not a number.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "The key has another scope.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "A dependency is away.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn one(
    State(state): State<HttpState>,
    id: Result<Path<i64>, PathRejection>,
) -> Result<Json<HourlyTotal>, Problem> {
    let Path(id) = id?;
    let row = state.ports.queries.row(id).await?;
    row.map(|row| Json(HourlyTotal::billed(&row)))
        .ok_or_else(|| Problem::not_found(format!("there is no total {id}")))
}
