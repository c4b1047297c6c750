//! The inbox and the keys in PostgreSQL.

use crate::{
    connect,
    contract::{Database, fresh},
    inbox_crashes,
    inbox_events::{Events, OpenInbox},
};
use application::contract::api_keys::FreshKeys;
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use infrastructure::{inbox::StoredInbox, postgres::PostgresLedger};

#[async_trait]
impl OpenInbox for Database {
    async fn inbox(&self) -> StoredInbox {
        connect(&self.url).await.inbox()
    }
}

impl FreshKeys for Database {
    type Keys = PostgresLedger;

    async fn open(&self) -> PostgresLedger {
        connect(&self.url).await
    }
}

async fn events() -> Events<Database> {
    Events::new(fresh().await)
}

mod keys {
    use crate::contract::fresh;
    application::api_keys_contract!(fresh());
}

mod an_inbox {
    use super::events;
    application::inbox_contract!(events());
}

mod a_source {
    use super::events;
    application::source_contract! { events() =>
        everything_is_received_in_order
        a_body_is_received_byte_for_byte
        a_message_says_about_itself_what_it_said
        a_call_that_is_dropped_loses_nothing
        messages_that_come_later_are_received
        closing_a_source_that_was_never_read_succeeds
        what_was_not_settled_comes_again
        what_was_settled_does_not_come_again
        a_watermark_settles_everything_below_it
        settling_twice_or_back_changes_nothing
        settling_nothing_that_was_ever_there_succeeds
        no_dead_letters_at_all_succeed
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_counted_once_however_often_workers_are_killed() {
    let database = fresh().await;
    let folder = tempfile::tempdir().unwrap();
    let url = database.url.clone();
    let inbox = move || -> BoxFuture<'static, StoredInbox> {
        let url = url.clone();
        Box::pin(async move { connect(&url).await.inbox() })
    };
    inbox_crashes::each_event_is_counted_once(inbox, &folder.path().join("counts.db")).await;
}
