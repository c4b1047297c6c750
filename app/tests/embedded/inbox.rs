//! What waits in the inbox of the file, and the keys of those who may send it.

use crate::folder::{Folder, wait_until};
use application::ports::{Envelope, Inbox, InboxEvent, Stored};
use domain::Timestamp;
use infrastructure::sqlite::{EmbeddedSettings, EmbeddedStore};
use std::sync::Arc;

/// Stores events as the API does, in a process beside the service.
fn store(folder: &Folder, bodies: &[&str]) {
    let events: Vec<InboxEvent> = (1..)
        .zip(bodies)
        .map(|(number, body)| InboxEvent {
            source: "payments".to_owned(),
            event_id: format!("evt_{number}"),
            original: None,
            body: (*body).into(),
            envelope: Envelope::default(),
            received_at: Timestamp::new(1_768_046_400, 0),
        })
        .collect();
    let stored = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = EmbeddedStore::open(&EmbeddedSettings::new(folder.path("pulse.db"))).await.unwrap();
        Arc::new(store).inbox().store(&events).await.unwrap()
    });
    assert_eq!(stored, vec![Stored::New; bodies.len()]);
}

fn pulse(tenant: &str, amount: u32) -> String {
    format!(r#"{{"tenant":"{tenant}","product_sku":"s","use_unity":"u","used_amount":{amount}}}"#)
}

#[test]
fn the_service_counts_what_waits_and_failed_events_can_be_sent_round_again() {
    let folder = Folder::new();
    let mut service = folder.start("service.log", &["--standalone"], &[]);
    service.wait_for_log("ready");
    let partly_bad = format!("[{},{},{}]", pulse("a", 2), pulse("a", 0), pulse("b", 4));
    store(&folder, &[&pulse("a", 1), &partly_bad, "nothing that can be read"]);
    let list = |arguments: &[&str]| folder.succeed(&[&["webhooks", "list"], arguments].concat());
    wait_until("everything was dealt with", || {
        let all = list(&[]);
        all.matches("done").count() == 1 && all.matches("failed").count() == 2
    });
    let failed = list(&["--status", "failed", "--json"]);
    let failed: Vec<serde_json::Value> =
        failed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&failed[0]["event_id"], &failed[1]["event_id"]), (&"evt_3".into(), &"evt_2".into()));
    let error = |place: usize| failed[place]["last_error"].as_str().unwrap();
    assert!(error(0).starts_with("item 0: malformed: "), "{}", error(0));
    assert!(error(1).starts_with("item 1: not_positive: "), "{}", error(1));
    let billed = "tenant,product_sku,use_unity,window_start,used_amount,pulse_count\n\
        a,s,u,2026-01-10T12:00:00Z,3,2\nb,s,u,2026-01-10T12:00:00Z,4,1\n";
    assert_eq!(folder.billed(), billed);

    assert_eq!(folder.succeed(&["webhooks", "retry", "--all-failed"]), "2 events wait again\n");
    wait_until("they have failed again", || list(&["--status", "failed"]).matches("failed").count() == 2);
    assert_eq!(folder.billed(), billed, "what was counted is recognised");
    let id = failed[0]["id"].to_string();
    assert_eq!(folder.succeed(&["webhooks", "retry", &id]), format!("event {id} waits again\n"));
    for (id, reason) in [("1", "event 1 is done and has not failed"), ("99", "there is no event 99")] {
        let refused = folder.run(&["webhooks", "retry", id]);
        assert!(refused.code == Some(1) && refused.errors.contains(reason), "{refused:?}");
    }
    assert_eq!(service.terminate(), Some(0), "{}", service.log());
    assert_eq!(list(&["--status", "processing", "--json"]), "");
}

#[test]
fn a_key_is_shown_once_and_can_be_revoked() {
    let folder = Folder::new();
    assert_eq!(folder.succeed(&["keys", "list"]), "");
    let key = folder.succeed(&["keys", "create", "--name", "billing", "--scope", "ingest"]);
    let (id, secret) = key.trim_end().strip_prefix("pk_").unwrap().split_once('_').unwrap();
    assert_eq!((id.len(), secret.len()), (16, 64));
    let other = folder.succeed(&["keys", "create", "--name", "reports", "--scope", "read"]);
    assert_ne!(key, other);
    let listed = folder.succeed(&["keys", "list"]);
    assert!(listed.contains(id) && listed.contains("billing") && listed.contains("reports"), "{listed}");
    assert!(!listed.contains(secret));
    assert_eq!(folder.succeed(&["keys", "revoke", id]), format!("key {id} is revoked\n"));
    let rows = folder.succeed(&["keys", "list", "--json"]);
    let revoked = rows.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let revoked: Vec<bool> = revoked.map(|row| !row["revoked_at"].is_null()).collect();
    assert_eq!(revoked, [false, true], "the newest first: {rows}");
    assert_eq!(folder.run(&["keys", "revoke", "nobody"]).code, Some(1));
    assert_eq!(folder.run(&["keys", "create", "--name", "x", "--scope", "all"]).code, Some(2));
}
