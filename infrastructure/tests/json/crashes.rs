//! What a crash at each point leaves behind, what others find there, and what is no crash but damage.

use crate::fixture::{ACCUMULATOR, Books, booked, write};
use application::ports::{ShardRegistry, UsageFilter, UsageQueries, UsageReader};
use domain::ShardCount;
use std::fs::{self, File};

const ROW: [(&str, &str, &str, i32, &str); 1] = [("user_a", "created", "event", 1, "3")];

#[tokio::test]
async fn a_crash_before_the_rename_leaves_the_books_as_they_were() {
    let books = Books::new();
    let ledger = books.registered().await;
    write(&ledger, 1, &ROW).await.unwrap();
    // Half of a state that was being written, or of a file of a product.
    fs::write(books.path(".pulse-ledger.tmp"), "{\"format\":1,\"accumul").unwrap();
    let other = books.ledger();
    assert_eq!(booked(&other).await, crate::fixture::rows(&ROW));
    assert!(write(&other, 2, &ROW).await.unwrap().written);
    assert_eq!(books.read("created.json"), "{\"user_a\":6}\n");
    assert!(!books.names().contains(&".pulse-ledger.tmp".to_owned()));
}

#[tokio::test]
async fn a_crash_between_the_state_and_the_files_is_made_up_for_at_the_next_start() {
    let books = Books::new();
    let ledger = books.registered().await;
    write(&ledger, 1, &ROW).await.unwrap();
    let before = books.read("created.json");
    write(&ledger, 2, &[ROW[0], ("b", "deleted", "event", 1, "1")]).await.unwrap();
    fs::write(books.path("created.json"), before).unwrap();
    fs::remove_file(books.path("deleted.json")).unwrap();
    books.ledger().refresh().await.unwrap();
    assert_eq!(books.read("created.json"), "{\"user_a\":6}\n");
    assert_eq!(books.read("deleted.json"), "{\"b\":1}\n");
}

#[tokio::test]
async fn a_repeated_flush_doubles_nothing_and_makes_up_for_the_files_too() {
    let books = Books::new();
    let ledger = books.registered().await;
    write(&ledger, 1, &ROW).await.unwrap();
    fs::remove_file(books.path("created.json")).unwrap();
    assert!(!write(&books.ledger(), 1, &ROW).await.unwrap().written);
    assert_eq!(books.read("created.json"), "{\"user_a\":3}\n");
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_told_and_caught_up_with_and_counts_once() {
    let books = Books::new();
    let ledger = books.registered().await;
    fs::create_dir(books.path("created.json")).unwrap();
    let error = write(&ledger, 1, &ROW).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("created.json"), "{error}");
    fs::remove_dir(books.path("created.json")).unwrap();
    assert!(!write(&ledger, 1, &ROW).await.unwrap().written);
    assert_eq!(books.read("created.json"), "{\"user_a\":3}\n");
}

#[tokio::test]
async fn looking_makes_nothing() {
    let books = Books::new();
    let ledger = books.ledger();
    ledger.refresh().await.unwrap();
    assert_eq!(ledger.registration().await.unwrap(), None);
    assert_eq!(ledger.usage(&UsageFilter::default()).await.unwrap().flushed, [0; 0]);
    assert!(!books.path("").exists());
}

#[tokio::test]
async fn totals_whose_state_is_gone_are_not_begun_anew() {
    let books = Books::new();
    let ledger = books.registered().await;
    write(&ledger, 1, &ROW).await.unwrap();
    fs::remove_file(books.path(".pulse-ledger.json")).unwrap();
    let error = books.ledger().register(ACCUMULATOR, ShardCount::ONE).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("created.json"), "{error}");
    assert_eq!(books.read("created.json"), "{\"user_a\":3}\n");
}

#[tokio::test]
async fn a_state_that_was_damaged_or_changed_is_refused_and_left_as_it_is() {
    let books = Books::new();
    let ledger = books.registered().await;
    write(&ledger, 1, &ROW).await.unwrap();
    let state = books.read(".pulse-ledger.json");
    let cases = [
        (state[..state.len() / 2].to_owned(), "is not a state file"),
        (String::new(), "is not a state file"),
        (state.replacen("\"event\",1,\"3\",1", "\"event\",1,\"4\",1", 1), "do not come to"),
        (state.replacen("\"event\",1,\"3\",1", "\"event\",1,\"3\",2", 1), "do not come to"),
        (state.replacen("\"format\":1", "\"format\":2", 1), "newer version"),
        (state.replacen("\"generation\"", "\"generations\"", 1), "is not a state file"),
    ];
    for (damaged, expected) in cases {
        assert_ne!(damaged, state, "{expected}");
        fs::write(books.path(".pulse-ledger.json"), &damaged).unwrap();
        let error = write(&ledger, 2, &ROW).await.unwrap_err();
        assert!(!error.is_transient() && error.to_string().contains(expected), "{error}");
        assert_eq!(books.read(".pulse-ledger.json"), damaged);
    }
    fs::write(books.path(".pulse-ledger.json"), state).unwrap();
    assert!(write(&ledger, 2, &ROW).await.unwrap().written);
}

#[tokio::test]
async fn flush_records_are_bounded_and_the_totals_go_on_adding_up() {
    let books = Books::new();
    let ledger = books.registered().await;
    for generation in 1..=100 {
        assert!(write(&ledger, generation, &ROW).await.unwrap().written);
    }
    assert_eq!(books.read("created.json"), "{\"user_a\":300}\n");
    assert_eq!(ledger.flushes(1_000).await.unwrap().len(), 32);
    assert!(!write(&ledger, 100, &ROW).await.unwrap().written);
    let error = write(&ledger, 1, &ROW).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("long ago"), "{error}");
    assert_eq!(booked(&ledger).await[0].total.amount.to_string(), "300");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_waits_for_whoever_holds_the_folder() {
    let books = Books::new();
    let ledger = books.registered().await;
    let lock = File::options().write(true).open(books.path(".pulse-ledger.lock")).unwrap();
    lock.lock().unwrap();
    let waiting = write(&ledger, 1, &ROW);
    tokio::pin!(waiting);
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "it must not write beside another");
    drop(lock);
    assert!(waiting.await.unwrap().written);
}
