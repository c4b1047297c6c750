//! What a ledger promises about reading.

use super::{FreshBooks, SHARD, assert_books, key, read, registered, row, sealed, total, write};
use crate::ports::{UsageFilter, UsageReader, UsageRow};
use domain::{HourWindow, Shard};
use futures_util::TryStreamExt;

/// Texts by their bytes, whatever any language thinks of them, then hours by time.
pub async fn totals_come_in_the_order_of_their_keys(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let names = ["a", "B", "ab", "a b", "a-b", "\u{e9}", "z", "Z", "_", "10", "9", "\u{10ffff}", "\u{ffff}"];
    let mut rows: Vec<UsageRow> = Vec::new();
    for name in names {
        for hour in [5, -5, 0] {
            rows.push(UsageRow { key: key(name, "b", "c", hour), total: total("1", 1) });
            rows.push(UsageRow { key: key("a", name, "c", hour + 100), total: total("1", 1) });
            rows.push(UsageRow { key: key("a", "b", name, hour + 200), total: total("1", 1) });
        }
    }
    write(&ledger, &sealed(SHARD, 1, &rows), &rows).await;
    rows.sort_by(|left, right| left.key.cmp(&right.key));
    assert_eq!(read(&ledger, &UsageFilter::default()).await, rows);
}

/// One by one and together.
pub async fn every_filter_holds(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let mut rows: Vec<UsageRow> = Vec::new();
    for tenant in ["a", "b", "b "] {
        for sku in ["x", "X"] {
            for unit in ["KB", "kB"] {
                for hour in [-1, 0, 1, 2] {
                    rows.push(UsageRow { key: key(tenant, sku, unit, hour), total: total("2", 1) });
                }
            }
        }
    }
    write(&ledger, &sealed(SHARD, 1, &rows), &rows).await;
    rows.sort_by(|left, right| left.key.cmp(&right.key));
    let wanted = key("b", "X", "kB", 0);
    let (tenant, product_sku, use_unity) =
        (Some(wanted.tenant), Some(wanted.product_sku), Some(wanted.use_unity));
    let (from, to) = (Some(HourWindow::from_number(0)), Some(HourWindow::from_number(2)));
    let all = UsageFilter::default();
    let filters = [
        (UsageFilter { tenant: tenant.clone(), ..all.clone() }, 16),
        (UsageFilter { product_sku: product_sku.clone(), ..all.clone() }, 24),
        (UsageFilter { use_unity: use_unity.clone(), ..all.clone() }, 24),
        (UsageFilter { from, ..all.clone() }, 36),
        (UsageFilter { to, ..all.clone() }, 36),
        (UsageFilter { from, to, ..all.clone() }, 24),
        (UsageFilter { from: Some(HourWindow::from_number(i32::MIN)), ..all.clone() }, 48),
        (UsageFilter { to: Some(HourWindow::from_number(i32::MAX)), ..all.clone() }, 48),
        (UsageFilter { tenant, product_sku, use_unity, from, to }, 2),
        (all, 48),
    ];
    for (filter, count) in filters {
        let expected: Vec<UsageRow> = rows.iter().filter(|row| filter.wants(&row.key)).cloned().collect();
        assert_eq!(read(&ledger, &filter).await, expected, "{filter:?}");
        assert_eq!(expected.len(), count, "{filter:?}");
    }
}

/// Nothing is no error, and the watermarks come all the same.
pub async fn a_filter_that_nothing_passes_gives_nothing(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let rows = [row(1, "1", 1)];
    write(&ledger, &sealed(SHARD, 1, &rows), &rows).await;
    let hour = |number| Some(HourWindow::from_number(number));
    let filters = [
        UsageFilter { tenant: Some(key("nobody", "s", "u", 1).tenant), ..UsageFilter::default() },
        UsageFilter { from: hour(2), ..UsageFilter::default() },
        UsageFilter { to: hour(1), ..UsageFilter::default() },
        UsageFilter { from: hour(1), to: hour(1), ..UsageFilter::default() },
        UsageFilter { to: hour(i32::MIN), ..UsageFilter::default() },
        UsageFilter { from: hour(i32::MAX), ..UsageFilter::default() },
    ];
    for filter in filters {
        let snapshot = ledger.usage(&filter).await.expect("the books can be read");
        assert_eq!(snapshot.flushed, [0, 0, 1, 0]);
        assert_eq!(snapshot.rows.try_concat().await.expect("they read"), [], "{filter:?}");
    }
}

/// What is written while it is read is not in it: rows and watermarks are of one moment.
pub async fn a_snapshot_does_not_move(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let rows: Vec<UsageRow> = (0..10_000).map(|hour| row(hour, "1", 1)).collect();
    write(&ledger, &sealed(SHARD, 1, &rows), &rows).await;
    let mut before = ledger.usage(&UsageFilter::default()).await.expect("the books can be read");
    let first = before.rows.try_next().await.expect("it reads").expect("there are rows");
    let other = books.open().await;
    write(&other, &sealed(SHARD, 2, &rows), &rows).await;
    let more = [UsageRow { key: key("u", "s", "u", 1), total: total("5", 1) }];
    write(&other, &sealed(Shard(0), 1, &more), &more).await;
    let rest = before.rows.try_concat().await.expect("they read");
    assert_eq!(before.flushed, [0, 0, 1, 0]);
    assert_eq!([first, rest].concat(), rows);
    let now: Vec<UsageRow> = (0..10_000).map(|hour| row(hour, "2", 2)).chain(more).collect();
    assert_books(&ledger, &[1, 0, 2, 0], &now).await;
}

/// There is nothing to read, and that is no error.
pub async fn books_without_a_registration_are_empty(books: &impl FreshBooks) {
    assert_books(&books.open().await, &[], &[]).await;
}
