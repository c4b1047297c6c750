//! The usage page in every state, on books that a mock holds.

use super::{super::usage_query::UsageQuery, *};
use application::ports::MockUsageQueries;
use domain::{ProductSku, TenantId, UsageTotal};

/// Three hours of KB and one of `<b>` for a tenant with markup in its name.
fn books() -> MockUsageQueries {
    let mut queries = MockUsageQueries::new();
    let hour = HourWindow::from_number;
    queries.expect_span().returning(move |_| Ok(Some((hour(100), hour(102)))));
    queries.expect_sums().returning(|_, bounds, groups, _| {
        let sum = |window, unit: &str, units: u64| WindowSum {
            window,
            tenant: groups.tenant.then(|| TenantId::new("<script>alert(1)</script>").unwrap()),
            product_sku: groups.product_sku.then(|| ProductSku::new("SKU, \"997\"").unwrap()),
            use_unity: UsageUnit::new(unit).unwrap(),
            total: UsageTotal { amount: TotalAmount::from_parts(units, 1), pulses: units },
        };
        Ok(match (groups.tenant, bounds.len()) {
            (true, 2) => vec![sum(0, "<b>", 5), sum(0, "KB", 4_321)],
            _ => vec![sum(0, "KB", 4_000), sum(0, "<b>", 5), sum(2, "KB", 321)],
        })
    });
    queries
}

async fn page(queries: &MockUsageQueries, query: &UsageQuery) -> String {
    let wanted = query.wanted().unwrap();
    let answer = usage(queries, &wanted).await;
    content(query, Ok((&wanted, &answer)), Some(1_234)).into_string()
}

#[tokio::test]
async fn usage_is_shown_escaped_and_exact() {
    let page = page(&books(), &UsageQuery::default()).await;
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !page.contains("<script>"), "{page}");
    assert!(page.contains("4,321.000000001") && page.contains("1,234 pulses are counted"), "{page}");
    assert!(
        page.contains("/usage?chart=%3Cb%3E") && page.contains("KB billed, from 1970-01-05 04:00 on"),
        "{page}"
    );
    assert_eq!(page.matches("<svg").count(), 2, "{page}");
}

#[tokio::test]
async fn the_chart_shows_the_unit_that_was_asked_for() {
    let query = UsageQuery { chart: "<b>".to_owned(), ..UsageQuery::default() };
    let page = page(&books(), &query).await;
    assert!(page.contains("&lt;b&gt; billed") && page.contains("5.000000001"), "{page}");
}

#[tokio::test]
async fn empty_books_a_fault_of_the_books_and_of_the_question_are_told_apart() {
    let mut queries = MockUsageQueries::new();
    queries.expect_span().returning(|_| Ok(None));
    assert!(page(&queries, &UsageQuery::default()).await.contains("The books are empty"));
    let query = UsageQuery { tenant: "nobody".to_owned(), ..UsageQuery::default() };
    assert!(page(&queries, &query).await.contains("Nothing matches"));
    let mut queries = MockUsageQueries::new();
    queries.expect_span().returning(|_| Err(PortError::transient("ask the books", "<away>")));
    assert!(page(&queries, &query).await.contains("ask the books: &lt;away&gt;"));
    let query = UsageQuery { from: "\"><script>".to_owned(), ..UsageQuery::default() };
    let faults = query.wanted().unwrap_err();
    let page = content(&query, Err(&faults), None).into_string();
    assert!(page.contains("give a time such as") && page.contains("aria-invalid=\"true\""), "{page}");
    assert!(!page.contains("<script>"), "{page}");
}

#[tokio::test]
async fn the_csv_has_a_row_for_each_window_and_quotes_what_needs_it() {
    let wanted = UsageQuery::default().wanted().unwrap();
    let text = csv(&books(), &wanted).await.unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert_eq!(
        lines[1],
        "1970-01-05T04:00:00Z,<script>alert(1)</script>,\"SKU, \"\"997\"\"\",KB,4000.000000001,4000"
    );
    assert!(lines[3].starts_with("1970-01-05T06:00:00Z,"), "{text}");
}

#[tokio::test]
async fn a_table_that_would_be_too_long_is_no_fault_of_the_books() {
    let hour = HourWindow::from_number;
    let mut queries = MockUsageQueries::new();
    queries.expect_span().returning(move |_| Ok(Some((hour(0), hour(99_999)))));
    let hourly = UsageQuery { window: "hour".to_owned(), ..UsageQuery::default() };
    let wanted = hourly.wanted().unwrap();
    let error = csv(&queries, &wanted).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(error.to_string().contains("ask for a shorter span or longer windows"), "{error}");
    for (error, status) in [
        (PortError::transient("ask", "away"), StatusCode::SERVICE_UNAVAILABLE),
        (PortError::permanent("ask", "no table"), StatusCode::INTERNAL_SERVER_ERROR),
    ] {
        let error = std::sync::Mutex::new(Some(error));
        let mut queries = MockUsageQueries::new();
        queries.expect_span().returning(move |_| Err(error.lock().unwrap().take().unwrap()));
        assert_eq!(csv(&queries, &wanted).await.unwrap_err().status(), status);
    }
}

#[tokio::test]
async fn a_span_of_years_is_cut_to_what_a_chart_can_show() {
    let mut queries = MockUsageQueries::new();
    let hour = HourWindow::from_number;
    queries.expect_span().returning(move |_| Ok(Some((hour(0), hour(99_999)))));
    queries.expect_sums().returning(|_, bounds, _, _| {
        assert!(bounds.len() <= 242, "{}", bounds.len());
        Ok(Vec::new())
    });
    for (window, is_cut) in [("hour", true), ("day", true), ("month", false), ("", false)] {
        let query = UsageQuery { window: window.to_owned(), ..UsageQuery::default() };
        let answer = usage(&queries, &query.wanted().unwrap()).await.unwrap().unwrap();
        assert_eq!(answer.is_cut, is_cut, "{window}");
    }
}
