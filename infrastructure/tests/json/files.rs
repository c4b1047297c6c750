//! The files that people and scripts read.

use crate::fixture::{Books, Used, write};
use application::ports::{GroupBy, UsageFilter, UsageQueries};
use domain::HourWindow;

#[tokio::test]
async fn each_product_has_a_file_of_its_tenants_that_adds_up_over_hours_and_flushes() {
    let books = Books::new();
    let ledger = books.registered().await;
    write(&ledger, 1, &[("user_a", "created", "event", 1, "2"), ("user_b", "created", "event", 1, "1")])
        .await
        .unwrap();
    write(&ledger, 2, &[("user_a", "created", "event", 2, "1"), ("a.b", "deleted", "event", 2, "1")])
        .await
        .unwrap();
    assert_eq!(books.read("created.json"), "{\"user_a\":3,\"user_b\":1}\n");
    assert_eq!(books.read("deleted.json"), "{\"a.b\":1}\n");
    let names = [".pulse-ledger.json", ".pulse-ledger.lock", "created.json", "deleted.json"];
    assert_eq!(books.names(), names);
}

#[tokio::test]
async fn amounts_are_exact_and_names_are_escaped() {
    let books = Books::new();
    let ledger = books.registered().await;
    let used: [Used<'_>; 5] = [
        ("big", "s", "u", 1, "9007199254740993"),
        ("big", "s", "u", 2, "0.000000001"),
        ("small", "s", "u", 1, "0.1"),
        ("small", "s", "u", 2, "0.2"),
        ("\"\\\u{e9}", "s", "u", 1, "1"),
    ];
    write(&ledger, 1, &used).await.unwrap();
    let expected = "{\"\\\"\\\\\u{e9}\":1,\"big\":9007199254740993.000000001,\"small\":0.3}\n";
    assert_eq!(books.read("s.json"), expected);
}

#[tokio::test]
async fn units_of_one_product_are_never_added_up_and_its_own_file_keeps_the_first() {
    let books = Books::new();
    let ledger = books.registered().await;
    write(&ledger, 1, &[("t", "s", "s", 1, "5")]).await.unwrap();
    write(&ledger, 2, &[("t", "s", "KB/s", 1, "7"), ("a", "s", "KB", 1, "9")]).await.unwrap();
    write(&ledger, 3, &[("t", "s", "KB", 2, "0.5"), ("t", "s", "s", 2, "1")]).await.unwrap();
    assert_eq!(books.read("s.json"), "{\"t\":6}\n");
    assert_eq!(books.read("units/s.json"), "{\"KB\":{\"a\":9,\"t\":0.5},\"KB/s\":{\"t\":7}}\n");
}

#[tokio::test]
async fn a_product_that_may_not_name_a_file_is_refused_and_nothing_of_its_generation_stays() {
    let books = Books::new();
    let ledger = books.registered().await;
    let long = "x".repeat(201);
    for name in ["../escaped", "a/b", "..", ".hidden", &long] {
        let used = [("t", "fine", "u", 1, "1"), ("t", name, "u", 1, "1")];
        let error = write(&ledger, 1, &used).await.unwrap_err();
        assert!(!error.is_transient() && error.to_string().contains("names a file"), "{error}");
    }
    assert_eq!(books.names(), [".pulse-ledger.json", ".pulse-ledger.lock"]);
    assert!(write(&ledger, 1, &[("t", "fine", "u", 1, "1")]).await.unwrap().written);
}

#[tokio::test]
async fn questions_are_answered_as_by_any_other_ledger() {
    let books = Books::new();
    let ledger = books.registered().await;
    write(&ledger, 1, &[("a", "s", "KB", 1, "1"), ("b", "s", "KB", 2, "2"), ("a", "s", "s", 5, "4")])
        .await
        .unwrap();
    write(&ledger, 2, &[("a", "s", "KB", 1, "0.5"), ("c", "s", "KB", 9, "8")]).await.unwrap();
    let all = UsageFilter::default();
    let page = ledger.page(&all, 1, 2).await.unwrap();
    let tenants: Vec<&str> = page.rows.iter().map(|row| row.key.tenant.as_str()).collect();
    assert_eq!((page.total, tenants), (4, vec!["a", "b"]));
    let row = &page.rows[1];
    assert_eq!(ledger.row(row.id).await.unwrap().as_ref(), Some(row));
    assert_eq!(ledger.row(99).await.unwrap(), None);
    let hour = HourWindow::from_number;
    assert_eq!(ledger.span(&all).await.unwrap(), Some((hour(1), hour(9))));
    let by_tenant = GroupBy { tenant: true, product_sku: false };
    let sums = ledger.sums(&all, &[hour(1), hour(3), hour(9)], by_tenant, 10).await.unwrap();
    let told: Vec<(usize, String, String)> = sums
        .iter()
        .map(|sum| {
            (
                sum.window,
                format!("{} {}", sum.tenant.as_ref().unwrap(), sum.use_unity),
                sum.total.amount.to_string(),
            )
        })
        .collect();
    let expected = [(0, "a KB", "1.5"), (0, "b KB", "2"), (1, "a s", "4")];
    assert_eq!(told, expected.map(|(window, group, amount)| (window, group.to_owned(), amount.to_owned())));
    let flushes = ledger.flushes(1).await.unwrap();
    assert_eq!((flushes.len(), flushes[0].generation, flushes[0].rows), (1, 2, 2));
}
