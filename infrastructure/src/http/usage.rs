//! `GET /api/v1/usage`: sums over hours, days and months.

use super::{
    HttpState, Problem,
    filter::{Wanted, hour, moment, query_usage},
    problem::ProblemDetails,
};
use application::{ports::GroupBy, query_usage::Sums, usage_windows::WindowLength};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const CSV: &str = "text/csv";

/// Which sums.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UsageQuery {
    /// How long the windows are.
    #[serde(default)]
    #[param(inline)]
    window: Window,
    /// By what the sums are kept apart, separated by commas: `tenant`, `product_sku`, `use_unity`. Units are never added
    /// up, so `use_unity` is always among them.
    #[serde(default)]
    group_by: String,
    /// Days and months begin by the clocks of this zone, as named by the IANA. One that is not whole hours off UTC is
    /// refused: totals are kept by the hour of UTC.
    #[param(default = "UTC")]
    timezone: Option<String>,
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

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Window {
    Hour,
    #[default]
    Day,
    Month,
}

/// Sums of the books; what is not yet flushed is not in them.
#[derive(Serialize, ToSchema)]
pub(super) struct UsageSums {
    data: Vec<UsageSum>,
    /// Everything that was counted before this moment is in the sums; null where nothing was flushed yet.
    complete_until: Option<String>,
}

/// The sum of a group in a window.
#[derive(Serialize, ToSchema)]
pub(super) struct UsageSum {
    /// Where the window begins, by the clocks of the zone.
    window_start: String,
    /// Where the next one begins.
    window_end: String,
    /// The tenant, where they are kept apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// The product, where they are kept apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    product_sku: Option<String>,
    use_unity: String,
    /// The exact sum in decimal digits: a string, because numbers of JSON lose digits in many clients.
    used_amount: String,
    /// How many pulses are in it.
    pulse_count: u64,
}

/// Sums over windows of time; as CSV where `Accept` asks for text/csv.
///
/// Without `from` and `to` they reach over everything that the books hold. Windows that hold nothing are not in the answer
/// and do not count: at most 100,000 sums are given.
#[utoipa::path(
    get,
    path = "/api/v1/usage",
    tag = "usage",
    security(("bearer" = ["read"])),
    params(UsageQuery),
    responses(
        (status = 200, description = "The sums.", content((UsageSums = "application/json"), (String = "text/csv"))),
        (status = 400, description = "A parameter that is not known or cannot be read.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "The key has another scope.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "A parameter out of its range, a zone that is not whole hours off UTC, too many sums.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "A dependency is away.", body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(super) async fn sums(
    State(state): State<HttpState>,
    headers: HeaderMap,
    query: Result<Query<UsageQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let zone: Tz = match &query.timezone {
        None => Tz::UTC,
        Some(name) => name.parse().map_err(|_| {
            Problem::invalid("timezone", "timezone must be a name of the IANA, such as Europe/Berlin")
        })?,
    };
    let length = match query.window {
        Window::Hour => WindowLength::Hour,
        Window::Day => WindowLength::Day,
        Window::Month => WindowLength::Month,
    };
    let group_by = group_by(&query.group_by)?;
    let UsageQuery { tenant, product_sku, use_unity, from, to, .. } = query;
    let filter = Wanted { tenant, product_sku, use_unity, from, to }.filter()?;
    let sums = query_usage(&state).sums(&filter, length, zone, group_by, (state.ports.now)()).await?;
    let sums = UsageSums::new(&sums, zone);
    let wants_csv =
        headers.get_all(header::ACCEPT).iter().any(|value| value.as_bytes().starts_with(CSV.as_bytes()));
    if wants_csv { sums.csv(group_by) } else { Ok(Json(sums).into_response()) }
}

fn group_by(text: &str) -> Result<GroupBy, Problem> {
    let mut group_by = GroupBy::default();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name {
            "tenant" => group_by.tenant = true,
            "product_sku" => group_by.product_sku = true,
            "use_unity" => {}
            _ => {
                let detail = "group_by must be a list of tenant, product_sku and use_unity";
                return Err(Problem::invalid("group_by", detail));
            }
        }
    }
    Ok(group_by)
}

impl UsageSums {
    fn new(sums: &Sums, zone: Tz) -> Self {
        let bound = |place: usize| sums.bounds.get(place).map(|bound| hour(*bound, zone)).unwrap_or_default();
        let data = sums.sums.iter().map(|sum| UsageSum {
            window_start: bound(sum.window),
            window_end: bound(sum.window + 1),
            tenant: sum.tenant.as_ref().map(|tenant| tenant.as_str().to_owned()),
            product_sku: sum.product_sku.as_ref().map(|sku| sku.as_str().to_owned()),
            use_unity: sum.use_unity.as_str().to_owned(),
            used_amount: sum.total.amount.to_string(),
            pulse_count: sum.total.pulses,
        });
        Self { data: data.collect(), complete_until: sums.complete_until.map(moment) }
    }

    /// The same columns, and the moment of completeness as a header.
    fn csv(self, group_by: GroupBy) -> Result<Response, Problem> {
        let broken =
            |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the table could not be written");
        let columns = [
            ("window_start", true),
            ("window_end", true),
            ("tenant", group_by.tenant),
            ("product_sku", group_by.product_sku),
            ("use_unity", true),
            ("used_amount", true),
            ("pulse_count", true),
        ];
        let mut table = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        table.write_record(columns.iter().filter(|(_, kept)| *kept).map(|(name, _)| name)).map_err(broken)?;
        for sum in &self.data {
            table.serialize(sum).map_err(broken)?;
        }
        let table = table.into_inner().map_err(|_| ()).map_err(|()| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the table could not be written")
        })?;
        let complete = self.complete_until.unwrap_or_default();
        Ok((
            [
                (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
                (header::HeaderName::from_static("x-complete-until"), complete),
            ],
            table,
        )
            .into_response())
    }
}
