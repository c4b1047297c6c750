//! The dead letters' part of the source's contract suite; there is no source.

use crate::open;
use application::{
    contract::source::{Message, SourceFixture},
    ports::{DeadLetter, DeadLetters, Envelope, MockPulseSource},
};
use async_trait::async_trait;
use domain::{Reason, Rejection, Timestamp};
use infrastructure::sqlite::EmbeddedStore;
use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions, types::chrono::DateTime};
use std::path::PathBuf;
use tempfile::TempDir;

struct Letters(TempDir);

impl Letters {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("pulse.db")
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    reason: String,
    detail: String,
    item: Option<u32>,
    source: String,
    message_id: Option<String>,
    content_type: Option<String>,
    routing_key: Option<String>,
    headers: String,
    body: Vec<u8>,
    received_at: String,
}

impl From<Row> for DeadLetter {
    fn from(row: Row) -> Self {
        let received_at = DateTime::parse_from_rfc3339(&row.received_at).unwrap();
        Self {
            id: row.id,
            rejection: Rejection::new(Reason::from_code(&row.reason).unwrap(), row.detail),
            body: row.body,
            item: row.item,
            source: row.source,
            place: None,
            envelope: Envelope {
                message_id: row.message_id,
                content_type: row.content_type,
                routing_key: row.routing_key,
                headers: serde_json::from_str(&row.headers).unwrap(),
            },
            received_at: Timestamp::new(received_at.timestamp(), received_at.timestamp_subsec_nanos()),
        }
    }
}

#[async_trait]
impl SourceFixture for Letters {
    type Source = MockPulseSource;
    type DeadLetters = EmbeddedStore;

    async fn source(&self) -> MockPulseSource {
        MockPulseSource::new()
    }

    async fn dead_letters(&self) -> EmbeddedStore {
        open(&self.path()).await
    }

    async fn put(&self, _: Vec<Message>) {}

    async fn cut(&self) {}

    async fn stored_letters(&self) -> Vec<DeadLetter> {
        let options = SqliteConnectOptions::new().filename(self.path()).create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        let rows: Vec<Row> =
            sqlx::query_as("SELECT * FROM dead_letters").fetch_all(&mut connection).await.unwrap();
        rows.into_iter().map(DeadLetter::from).collect()
    }
}

application::source_contract! { std::future::ready(Letters::new()) =>
    a_dead_letter_keeps_its_bytes_and_its_reason
    a_dead_letter_keeps_what_its_message_said
    many_dead_letters_are_stored_by_one_call
    no_dead_letters_at_all_succeed
    dead_letters_survive_a_cut
}

#[tokio::test]
async fn a_letter_that_is_published_again_is_stored_once() {
    let letters = Letters::new();
    let letter = DeadLetter {
        id: "0".repeat(32),
        rejection: Rejection::new(Reason::Conflict, "another amount"),
        body: b"x".to_vec(),
        item: Some(3),
        source: "ingest".to_owned(),
        place: None,
        envelope: Envelope::default(),
        received_at: Timestamp::new(7, 0),
    };
    for _ in 0..2 {
        letters.dead_letters().await.publish(&[letter.clone(), letter.clone()]).await.unwrap();
    }
    assert_eq!(letters.stored_letters().await, [letter]);
}
