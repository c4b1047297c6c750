//! What a store promises about claims and no caller can bring about at will.

use super::*;
use application::ports::{Envelope, InboxStatus};
use std::{collections::BTreeMap, time::Duration};
use tables::Claimant;
use tokio::time::{Instant, sleep};

const OWNER: &str = "worker";
const LIMIT: Duration = Duration::from_secs(30);

/// Claims as a worker that holds nothing, for a moment only.
async fn claim(claims: &dyn InboxClaims, retry_after: Duration) -> Vec<Claimed> {
    let claim = Claim {
        owner: OWNER,
        events: 10,
        bytes: 1_000,
        lease: Duration::from_millis(1),
        may_be_alone: true,
        attempts_max: 10,
        retry_after,
    };
    claims.claim(claim).await.unwrap()
}

/// Until there is something.
async fn claim_one(claims: &dyn InboxClaims) -> Claimed {
    let start = Instant::now();
    loop {
        if let Some(claimed) = claim(claims, Duration::from_millis(1)).await.pop() {
            return claimed;
        }
        assert!(start.elapsed() < LIMIT, "the lease ends");
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
async fn an_older_claim_of_the_same_owner_settles_nothing(inbox: &StoredInbox) {
    store(inbox).await;
    let claims = inbox.claims.as_ref();
    let first = claim_one(claims).await;
    claims.refuse(&BTreeMap::from([(first.id, vec!["no".to_owned()])]), &[]).await.unwrap();
    let second = claim_one(claims).await;
    assert_eq!((first.id, first.attempt, second.attempt), (second.id, 1, 2));
    let claimant = |claimed: &Claimed| Claimant { id: claimed.id, attempt: claimed.attempt };
    claims.settle(OWNER, &[claimant(&first)]).await.unwrap();
    assert_eq!(status(inbox).await, InboxStatus::Processing);
    claims.settle(OWNER, &[claimant(&first), claimant(&second)]).await.unwrap();
    assert_eq!(status(inbox).await, InboxStatus::Done);
}

async fn what_waits_for_its_next_attempt_is_neither_due_nor_drained(inbox: &StoredInbox) {
    store(inbox).await;
    let claims = inbox.claims.as_ref();
    claim_one(claims).await;
    let start = Instant::now();
    while inbox.depth().await.unwrap().received == 0 {
        assert!(claim(claims, Duration::from_hours(1)).await.is_empty());
        assert!(start.elapsed() < LIMIT, "the lease ends");
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(inbox.depth().await.unwrap().oldest, None);
    assert!(!claims.is_drained().await.unwrap());
}

mod in_a_file {
    use super::*;
    use crate::sqlite::{EmbeddedSettings, EmbeddedStore};
    use tempfile::TempDir;

    async fn inbox() -> (StoredInbox, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let settings = EmbeddedSettings::new(folder.path().join("pulse.db"));
        (Arc::new(EmbeddedStore::open(&settings).await.unwrap()).inbox(), folder)
    }

    #[tokio::test]
    async fn an_older_claim_of_the_same_owner_settles_nothing() {
        super::an_older_claim_of_the_same_owner_settles_nothing(&inbox().await.0).await;
    }

    #[tokio::test]
    async fn what_waits_for_its_next_attempt_is_neither_due_nor_drained() {
        super::what_waits_for_its_next_attempt_is_neither_due_nor_drained(&inbox().await.0).await;
    }
}

#[cfg(feature = "servers")]
mod in_postgres {
    use super::*;
    use crate::{
        postgres::{PostgresLedger, PostgresSettings},
        test_servers::postgres::PostgresServer,
    };

    async fn inbox() -> (StoredInbox, PostgresServer) {
        let server = PostgresServer::start();
        let settings =
            PostgresSettings { url: server.url().into(), max_connections: 2, allow_unsafe_durability: false };
        let ledger = PostgresLedger::connect(&settings).await.unwrap();
        ledger.migrate().await.unwrap();
        (ledger.inbox(), server)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_older_claim_of_the_same_owner_settles_nothing() {
        super::an_older_claim_of_the_same_owner_settles_nothing(&inbox().await.0).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_waits_for_its_next_attempt_is_neither_due_nor_drained() {
        super::what_waits_for_its_next_attempt_is_neither_due_nor_drained(&inbox().await.0).await;
    }
}
