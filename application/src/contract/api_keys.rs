//! What every store of API keys does.
//!
//! `api_keys_contract!` makes a test of each promise.
#![expect(clippy::missing_panics_doc, reason = "tests panic where the contract is broken")]

use crate::ports::{ApiKey, ApiKeys, Scope};
use domain::Timestamp;

/// A store of one test, without any key.
pub trait FreshKeys {
    /// A handle on the store.
    type Keys: ApiKeys;

    /// A handle like that of another process: every call gives one more on the same keys.
    fn open(&self) -> impl Future<Output = Self::Keys> + Send;
}

/// Makes a test of each promise. The expression is a future of [`FreshKeys`], asked for once a test.
#[macro_export]
macro_rules! api_keys_contract {
    ($fresh:expr) => {
        $crate::api_keys_contract! { $fresh =>
            a_key_is_found_as_it_was_added
            adding_a_key_twice_changes_nothing
            keys_are_listed_newest_first
            a_revoked_key_stays_revoked_since_the_first_time
            an_unknown_key_is_neither_found_nor_revoked
        }
    };
    ($fresh:expr => $($promise:ident)*) => {
        $(
            #[tokio::test]
            async fn $promise() {
                let fresh = $fresh.await;
                $crate::contract::api_keys::$promise(&fresh).await;
            }
        )*
    };
}

fn key(id: &str, created_at: Timestamp) -> ApiKey {
    ApiKey {
        id: id.to_owned(),
        name: format!("service \u{fc}ber {id}"),
        scope: Scope::Ingest,
        hash: std::array::from_fn(|place| u8::try_from(place).map_or(0, |byte| byte.wrapping_mul(9))),
        created_at,
        revoked_at: None,
    }
}

fn at(seconds: i64, nanos: u32) -> Timestamp {
    Timestamp::new(1_768_046_400 + seconds, nanos)
}

async fn add(keys: &impl ApiKeys, key: &ApiKey) {
    keys.add(key).await.expect("a key can be added");
}

async fn find(keys: &impl ApiKeys, id: &str) -> Option<ApiKey> {
    keys.find(id).await.expect("keys can be asked for")
}

/// Every part of it, for every scope, also by another process.
pub async fn a_key_is_found_as_it_was_added<F: FreshKeys>(fresh: &F) {
    let keys = fresh.open().await;
    for (id, scope) in ["a", "b"].into_iter().zip(Scope::ALL) {
        let key = ApiKey { scope, ..key(id, at(0, 250_000_000)) };
        add(&keys, &key).await;
        assert_eq!(find(&fresh.open().await, id).await, Some(key));
    }
}

/// A repetition after a lost reply is no fault, and does not bring a revoked key back.
pub async fn adding_a_key_twice_changes_nothing<F: FreshKeys>(fresh: &F) {
    let keys = fresh.open().await;
    let key = key("a", at(0, 0));
    add(&keys, &key).await;
    assert!(keys.revoke("a", at(1, 0)).await.expect("it can be revoked"));
    add(&keys, &key).await;
    assert_eq!(find(&keys, "a").await, Some(ApiKey { revoked_at: Some(at(1, 0)), ..key }));
}

/// Also within a second, and revoked ones among them.
pub async fn keys_are_listed_newest_first<F: FreshKeys>(fresh: &F) {
    let keys = fresh.open().await;
    assert_eq!(keys.list().await.expect("keys can be listed"), []);
    let newest_first =
        [key("b", at(1, 0)), key("c", at(0, 250_000_000)), key("a", at(0, 0)), key("d", at(-9, 0))];
    for place in [2, 0, 3, 1] {
        add(&keys, &newest_first[place]).await;
    }
    assert_eq!(keys.list().await.expect("keys can be listed"), newest_first);
    keys.revoke("c", at(2, 0)).await.expect("it can be revoked");
    let listed = keys.list().await.expect("keys can be listed");
    let revoked: Vec<_> = listed.iter().map(|key| key.revoked_at).collect();
    assert_eq!(revoked, [None, Some(at(2, 0)), None, None]);
}

/// Revoking again is no fault and does not move the time.
pub async fn a_revoked_key_stays_revoked_since_the_first_time<F: FreshKeys>(fresh: &F) {
    let keys = fresh.open().await;
    add(&keys, &key("a", at(0, 0))).await;
    add(&keys, &key("b", at(0, 0))).await;
    for seconds in [5, 3, 9] {
        assert!(keys.revoke("a", at(seconds, 0)).await.expect("it can be revoked"));
        let found = find(&fresh.open().await, "a").await.expect("it is there");
        assert_eq!(found.revoked_at, Some(at(5, 0)));
    }
    let other = find(&keys, "b").await.expect("it is there");
    assert_eq!(other.revoked_at, None, "the other one is in use");
}

/// Both are answers and no faults.
pub async fn an_unknown_key_is_neither_found_nor_revoked<F: FreshKeys>(fresh: &F) {
    let keys = fresh.open().await;
    add(&keys, &key("a", at(0, 0))).await;
    for id in ["b", "", "A", "a "] {
        assert_eq!(find(&keys, id).await, None);
        assert!(!keys.revoke(id, at(1, 0)).await.expect("it can be asked for"));
    }
    assert_eq!(find(&keys, "a").await, Some(key("a", at(0, 0))));
}
