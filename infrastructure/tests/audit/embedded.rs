//! Everything that somebody may break in the embedded file and in the books of a folder.

use super::{Stores, says};
use application::ports::GenerationStore;
use domain::{Shard, ShardCount};
use infrastructure::{
    json::JsonLedger,
    sqlite::{EmbeddedSettings, EmbeddedStore},
};
use sqlx::{Connection, Executor, SqliteConnection};
use std::sync::Arc;

async fn sql(path: &std::path::Path, statement: &'static str) {
    let mut connection = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
    assert!(connection.execute(statement).await.unwrap().rows_affected() > 0, "{statement}");
    connection.close().await.unwrap();
}

#[tokio::test]
async fn what_is_broken_in_the_embedded_file_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pulse.db");
    let store = Arc::new(EmbeddedStore::open(&EmbeddedSettings::new(&path)).await.unwrap());
    let stores = Stores::open(Arc::clone(&store), Arc::clone(&store), ShardCount::ONE).await;
    for number in 1..=2 {
        stores.count(number, 50).await;
        stores.flush().await;
    }
    stores.count(3, 50).await;
    store.seal(Shard(0), 3, super::START).await.unwrap();
    stores.count(4, 50).await;
    stores.assert_holds().await;
    let hour = "product \"SKU-3\", unit \"KB\", hour 2026-01-";
    let cases: [(&'static str, &'static str, &[u8], &[&str]); 8] = [
        (
            "UPDATE hourly_usage SET nanos_low = nanos_low + 5 WHERE product_sku = 'SKU-3'",
            "UPDATE hourly_usage SET nanos_low = nanos_low - 5 WHERE product_sku = 'SKU-3'",
            &[9, 10],
            &[hour, "difference +0.000000005 in +0 pulses"],
        ),
        (
            "UPDATE counting_usage SET nanos_low = nanos_low + 7000000000 WHERE generation = 3 AND slot = (SELECT min(slot) FROM counting_usage)",
            "UPDATE counting_usage SET nanos_low = nanos_low - 7000000000 WHERE generation = 3 AND slot = (SELECT min(slot) FROM counting_usage)",
            &[4],
            &["shard 0, generation 3", "difference +7 in +0 pulses"],
        ),
        (
            "UPDATE counting_usage SET pulses = pulses + 1 WHERE generation = 4 AND slot = (SELECT max(slot) FROM counting_usage)",
            "UPDATE counting_usage SET pulses = pulses - 1 WHERE generation = 4 AND slot = (SELECT max(slot) FROM counting_usage)",
            &[4],
            &["shard 0, generation 4", "in +1 pulses"],
        ),
        (
            "UPDATE counting_identities SET bucket = bucket + 100 WHERE digest = (SELECT min(digest) FROM counting_identities)",
            "UPDATE counting_identities SET bucket = bucket - 100 WHERE bucket > 100",
            &[7, 8],
            &["difference -1"],
        ),
        (
            "UPDATE counting_shards SET counted = counted + 2",
            "UPDATE counting_shards SET counted = counted - 2",
            &[6, 7],
            &["shard 0", "difference -2"],
        ),
        (
            "UPDATE flushes SET generation = 12 WHERE generation = 1",
            "UPDATE flushes SET generation = 1 WHERE generation = 12",
            &[3, 6],
            &["generation 1", "missing in flushes"],
        ),
        (
            "UPDATE flushes SET pulse_count = pulse_count + 1 WHERE generation = 2",
            "UPDATE flushes SET pulse_count = pulse_count - 1 WHERE generation = 2",
            &[6, 9],
            &["in -1 pulses"],
        ),
        (
            "UPDATE accumulator_shards SET seen_sequence = seen_sequence + 1000, seen_generation = 4",
            "UPDATE accumulator_shards SET seen_sequence = 1, seen_generation = 4",
            &[1],
            &["shard 0", "rolled back"],
        ),
    ];
    for (breaks, mends, checks, words) in cases {
        sql(&path, breaks).await;
        let (numbers, findings) = stores.broken().await;
        assert_eq!(numbers, checks, "{breaks}: {findings:#?}");
        assert!(says(&findings, words), "{breaks}: {words:?} in {findings:#?}");
        sql(&path, mends).await;
        stores.assert_holds().await;
    }
}

#[tokio::test]
async fn books_in_a_folder_hold_and_are_told_to_be_broken_when_they_were_changed() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&EmbeddedSettings::new(folder.path().join("pulse.db"))).await.unwrap();
    let books = folder.path().join("books");
    let ledger = JsonLedger::new(&books).unwrap();
    let stores = Stores::open(Arc::new(store), Arc::new(ledger), ShardCount::ONE).await;
    for number in 1..=40 {
        stores.count(number, 5).await;
        stores.flush().await;
    }
    stores.count(41, 5).await;
    stores.assert_holds().await;
    let state = JsonLedger::state_file(&books);
    let whole = std::fs::read_to_string(&state).unwrap();
    let changed = whole.replacen("\"SKU-3\",\"KB\",491124,\"", "\"SKU-3\",\"KB\",491124,\"9", 1);
    assert_ne!(changed, whole);
    std::fs::write(&state, changed).unwrap();
    let report = stores.audit().await;
    assert_eq!(report.outcome(), application::audit::Outcome::Broken, "{report:#?}");
    assert!(format!("{report:?}").contains("do not come to what its flushes wrote"), "{report:#?}");
    std::fs::write(&state, whole).unwrap();
    stores.assert_holds().await;
}
