//! What a store promises about claims and no caller can bring about at will.

use super::*;
use application::ports::{Envelope, InboxStatus};
use std::{collections::BTreeMap, time::Duration};
use tables::Claimant;
use tokio::time::{Instant, sleep};

const OWNER: &str = "worker";

/// Claims as a worker that holds nothing, for a moment only, until there is something.
async fn claim(claims: &dyn InboxClaims) -> Vec<Claimed> {
    let claim = Claim {
        owner: OWNER,
        events: 10,
        bytes: 1_000,
        lease: Duration::from_millis(1),
        may_be_alone: true,
        attempts_max: 10,
        retry_after: Duration::from_millis(1),
    };
    let start = Instant::now();
    loop {
        let claimed = claims.claim(claim).await.unwrap();
        if !claimed.is_empty() {
            return claimed;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "the lease ends");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn store(inbox: &StoredInbox) {
    let event = InboxEvent {
        source: "pulses".to_owned(),
        event_id: "1".to_owned(),
        original: None,
        body: b"{}".to_vec(),
        envelope: Envelope::default(),
        received_at: Timestamp::new(0, 0),
    };
    inbox.store(&[event]).await.unwrap();
}

async fn status(inbox: &StoredInbox) -> InboxStatus {
    let filter = InboxFilter { status: None, source: None, before: None, limit: 1 };
    inbox.list(&filter).await.unwrap()[0].status
}

/// What was refused by the first claim is not written down for the second one yet.
async fn an_older_claim_of_the_same_owner_settles_nothing(inbox: StoredInbox) {
    store(&inbox).await;
    let claims = inbox.claims.as_ref();
    let first = claim(claims).await;
    claims.refuse(&BTreeMap::from([(first[0].id, vec!["no".to_owned()])]), &[]).await.unwrap();
    let second = claim(claims).await;
    assert_eq!((first[0].id, first[0].attempt), (second[0].id, 1));
    assert_eq!(second[0].attempt, 2);
    let claimant = |claimed: &[Claimed]| Claimant { id: claimed[0].id, attempt: claimed[0].attempt };
    claims.settle(OWNER, &[claimant(&first)]).await.unwrap();
    assert_eq!(status(&inbox).await, InboxStatus::Processing);
    claims.settle(OWNER, &[claimant(&first), claimant(&second)]).await.unwrap();
    assert_eq!(status(&inbox).await, InboxStatus::Done);
}

#[tokio::test]
async fn in_a_file_an_older_claim_of_the_same_owner_settles_nothing() {
    use crate::sqlite::{EmbeddedSettings, EmbeddedStore};
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&EmbeddedSettings::new(folder.path().join("pulse.db"))).await.unwrap();
    an_older_claim_of_the_same_owner_settles_nothing(Arc::new(store).inbox()).await;
}

#[cfg(feature = "servers")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_postgres_an_older_claim_of_the_same_owner_settles_nothing() {
    use crate::{
        postgres::{PostgresLedger, PostgresSettings},
        test_servers::postgres::PostgresServer,
    };
    let server = PostgresServer::start();
    let settings =
        PostgresSettings { url: server.url().into(), max_connections: 2, allow_unsafe_durability: false };
    let ledger = PostgresLedger::connect(&settings).await.unwrap();
    ledger.migrate().await.unwrap();
    an_older_claim_of_the_same_owner_settles_nothing(ledger.inbox()).await;
}
