//! What every ledger does that answers questions. `queries_contract!` makes a test of each promise.
#![expect(
    clippy::missing_panics_doc,
    reason = "a promise that is broken panics: that is what the suite is for"
)]

use super::ledger::{FreshBooks, SHARD, key, registered, sealed, total, write};
use crate::ports::{GroupBy, LedgerPage, UsageFilter, UsageQueries, UsageRow, WindowSum};
use domain::{HourWindow, Shard, UsageKey};

/// Makes a test of each promise of [`UsageQueries`]. The expression is a future of [`FreshBooks`].
#[macro_export]
macro_rules! queries_contract {
    ($fresh:expr) => {
        $crate::queries_contract! { $fresh =>
            pages_together_are_the_books_in_order
            a_row_is_found_by_its_number
            a_span_reaches_over_the_wanted_rows
            sums_are_exact_in_every_window_and_group
            a_limit_holds_back_sums
            the_latest_flushes_come_first
            empty_books_answer_too
        }
    };
    ($fresh:expr => $($promise:ident)*) => {
        $(
            #[tokio::test]
            async fn $promise() {
                let fresh = $fresh.await;
                $crate::contract::queries::$promise(&fresh).await;
            }
        )*
    };
}

/// Two tenants, two products, two units, twelve hours; amounts with all their digits.
fn books_of_a_day() -> Vec<UsageRow> {
    let mut rows = Vec::new();
    for tenant in ["a", "b"] {
        for sku in ["x", "y"] {
            for unit in ["KB", "ms"] {
                for hour in -6..6 {
                    let amount = "99999999999999999999999999.999999999";
                    rows.push(UsageRow { key: key(tenant, sku, unit, hour), total: total(amount, 3) });
                }
            }
        }
    }
    rows
}

async fn booked<B: FreshBooks>(books: &B) -> (B::Ledger, Vec<UsageRow>) {
    let ledger = registered(books).await;
    let rows = books_of_a_day();
    write(&ledger, &sealed(SHARD, 1, &rows), &rows).await;
    (ledger, rows)
}

async fn page(ledger: &impl UsageQueries, filter: &UsageFilter, skip: u64, limit: u32) -> LedgerPage {
    ledger.page(filter, skip, limit).await.expect("a page")
}

fn hour(number: i32) -> HourWindow {
    HourWindow::from_number(number)
}

/// Every page is a piece of the same order, and each tells how many rows there are.
pub async fn pages_together_are_the_books_in_order<B: FreshBooks<Ledger: UsageQueries>>(books: &B) {
    let (ledger, rows) = booked(books).await;
    let filters = [
        UsageFilter::default(),
        UsageFilter { tenant: Some(key("b", "x", "KB", 0).tenant), ..UsageFilter::default() },
        UsageFilter { from: Some(hour(-2)), to: Some(hour(3)), ..UsageFilter::default() },
    ];
    for filter in filters {
        let wanted: Vec<&UsageRow> = rows.iter().filter(|row| filter.wants(&row.key)).collect();
        let mut read = Vec::new();
        for number in 0.. {
            let page = page(&ledger, &filter, number * 7, 7).await;
            assert_eq!(page.total, wanted.len() as u64);
            if page.rows.is_empty() {
                break;
            }
            read.extend(page.rows);
        }
        assert_eq!(read.len(), wanted.len());
        for (row, wanted) in read.iter().zip(wanted) {
            assert_eq!((&row.key, row.total), (&wanted.key, wanted.total));
        }
    }
    let far = page(&ledger, &UsageFilter::default(), u64::MAX, 10).await;
    assert_eq!((far.rows.len(), far.total), (0, rows.len() as u64));
    assert_eq!(page(&ledger, &UsageFilter::default(), 0, 0).await.total, rows.len() as u64);
}

/// And by no other; a later flush leaves the number.
pub async fn a_row_is_found_by_its_number<B: FreshBooks<Ledger: UsageQueries>>(books: &B) {
    let (ledger, rows) = booked(books).await;
    let wanted = page(&ledger, &UsageFilter::default(), 17, 1).await.rows.remove(0);
    assert_eq!(ledger.row(wanted.id).await.expect("it reads"), Some(wanted.clone()));
    for id in [0, -1, i64::MIN, i64::MAX] {
        assert_eq!(ledger.row(id).await.expect("it reads"), None);
    }
    let more = [UsageRow { key: rows[17].key.clone(), total: total("0.000000001", 1) }];
    write(&ledger, &sealed(SHARD, 2, &more), &more).await;
    let row = ledger.row(wanted.id).await.expect("it reads").expect("it is there");
    assert_eq!((row.key, row.total), (wanted.key, total("100000000000000000000000000", 4)));
    assert!(row.created_at == wanted.created_at && row.updated_at >= wanted.updated_at);
}

/// First and last hour that hold a row.
pub async fn a_span_reaches_over_the_wanted_rows<B: FreshBooks<Ledger: UsageQueries>>(books: &B) {
    let (ledger, _) = booked(books).await;
    let span = async |filter: UsageFilter| {
        let span = ledger.span(&filter).await.expect("it reads");
        span.map(|(first, last)| (first.number(), last.number()))
    };
    assert_eq!(span(UsageFilter::default()).await, Some((-6, 5)));
    assert_eq!(span(UsageFilter { from: Some(hour(-2)), ..UsageFilter::default() }).await, Some((-2, 5)));
    let nobody = UsageFilter { tenant: Some(key("c", "x", "KB", 0).tenant), ..UsageFilter::default() };
    assert_eq!(span(nobody).await, None);
}

/// Nothing is rounded, nothing is counted in two windows, and rows outside of all bounds are in none.
pub async fn sums_are_exact_in_every_window_and_group<B: FreshBooks<Ledger: UsageQueries>>(books: &B) {
    let (ledger, rows) = booked(books).await;
    let bounds = [hour(-5), hour(-4), hour(0), hour(0), hour(4)];
    for (tenant, product_sku) in [(false, false), (true, false), (false, true), (true, true)] {
        let group_by = GroupBy { tenant, product_sku };
        for filter in [
            UsageFilter::default(),
            UsageFilter { use_unity: Some(key("a", "x", "ms", 0).use_unity), ..UsageFilter::default() },
            UsageFilter { from: Some(hour(-1)), to: Some(hour(2)), ..UsageFilter::default() },
        ] {
            let sums = ledger.sums(&filter, &bounds, group_by, 1_000).await.expect("they add up");
            assert_eq!(sums, expected(&rows, &filter, &bounds, group_by), "{group_by:?} {filter:?}");
        }
    }
}

fn expected(
    rows: &[UsageRow],
    filter: &UsageFilter,
    bounds: &[HourWindow],
    group_by: GroupBy,
) -> Vec<WindowSum> {
    let mut sums: Vec<WindowSum> = Vec::new();
    for UsageRow { key, total } in rows.iter().filter(|row| filter.wants(&row.key)) {
        let UsageKey { tenant, product_sku, use_unity, hour } = key.clone();
        let Some(window) = bounds.windows(2).position(|pair| pair[0] <= hour && hour < pair[1]) else {
            continue;
        };
        let (tenant, product_sku) =
            (Some(tenant).filter(|_| group_by.tenant), Some(product_sku).filter(|_| group_by.product_sku));
        let same = |sum: &&mut WindowSum| {
            (sum.window, &sum.tenant, &sum.product_sku, &sum.use_unity)
                == (window, &tenant, &product_sku, &use_unity)
        };
        match sums.iter_mut().find(same) {
            Some(sum) => sum.total = sum.total.checked_add(*total).expect("a small sum"),
            None => sums.push(WindowSum { window, tenant, product_sku, use_unity, total: *total }),
        }
    }
    sums.sort_by(|left, right| {
        let order = |sum: &WindowSum| {
            (sum.window, sum.tenant.clone(), sum.product_sku.clone(), sum.use_unity.clone())
        };
        order(left).cmp(&order(right))
    });
    sums
}

/// The first of them in their order.
pub async fn a_limit_holds_back_sums<B: FreshBooks<Ledger: UsageQueries>>(books: &B) {
    let (ledger, _) = booked(books).await;
    let group_by = GroupBy { tenant: true, product_sku: true };
    let bounds = [hour(-6), hour(0), hour(6)];
    let all = ledger.sums(&UsageFilter::default(), &bounds, group_by, 100).await.expect("they add up");
    let some = ledger.sums(&UsageFilter::default(), &bounds, group_by, 5).await.expect("they add up");
    assert_eq!(all.len(), 16);
    assert_eq!(some, all[..5]);
}

/// Of all shards, with what each wrote.
pub async fn the_latest_flushes_come_first<B: FreshBooks<Ledger: UsageQueries>>(books: &B) {
    let (ledger, rows) = booked(books).await;
    write(&ledger, &sealed(Shard(0), 1, &rows[..2]), &rows[..2]).await;
    let last = sealed(SHARD, 2, &rows[..5]);
    write(&ledger, &last, &rows[..5]).await;
    let flushes = ledger.flushes(10).await.expect("they read");
    let mut told: Vec<(Shard, u64, u64)> =
        flushes.iter().map(|flush| (flush.shard, flush.generation, flush.rows)).collect();
    assert!(flushes.is_sorted_by(|left, right| left.flushed_at >= right.flushed_at));
    told.sort_unstable();
    assert_eq!(told, [(Shard(0), 1, 2), (SHARD, 1, 96), (SHARD, 2, 5)]);
    let of_last = flushes.iter().find(|flush| (flush.shard, flush.generation) == (SHARD, 2));
    let of_last = of_last.expect("it is there");
    assert_eq!((of_last.total, of_last.sealed_at), (last.total, last.sealed_at));
    assert!(of_last.started_at <= of_last.flushed_at);
    assert_eq!(ledger.flushes(1).await.expect("it reads").len(), 1);
}

/// Nothing is no error.
pub async fn empty_books_answer_too<B: FreshBooks<Ledger: UsageQueries>>(books: &B) {
    let ledger = books.open().await;
    let all = UsageFilter::default();
    assert_eq!(page(&ledger, &all, 0, 10).await, LedgerPage { rows: Vec::new(), total: 0 });
    assert_eq!(ledger.span(&all).await.expect("it reads"), None);
    let bounds = [hour(i32::MIN), hour(i32::MAX)];
    assert_eq!(ledger.sums(&all, &bounds, GroupBy::default(), 10).await.expect("they add up"), []);
    assert_eq!(ledger.sums(&all, &[], GroupBy::default(), 10).await.expect("they add up"), []);
    assert_eq!(ledger.flushes(10).await.expect("they read"), []);
}
