//! Everything that somebody may break in Redis and PostgreSQL, one by one.

use super::{SHARDS, Stores, WINDOW, says};
use application::ports::GenerationStore;
use domain::{Shard, ShardCount};
use infrastructure::{
    postgres::{PostgresLedger, PostgresSettings},
    redis::{IdentityLayout, RedisAccumulator, RedisSettings},
    test_servers::{postgres::PostgresServer, redis::RedisServer},
};
use sqlx::{Connection, Executor, PgConnection};
use std::sync::Arc;

struct OnServers {
    redis: RedisServer,
    _postgres: PostgresServer,
    ledger_url: String,
    accumulator: Arc<RedisAccumulator>,
    stores: Stores,
}

impl OnServers {
    /// Two generations in the books, one that is sealed, and an active one in each shard.
    async fn start() -> Self {
        Self::start_in(IdentityLayout::Fast).await
    }

    async fn start_in(identities: IdentityLayout) -> Self {
        let (redis, postgres) = (RedisServer::start(), PostgresServer::start());
        let ledger_url = postgres.create_database("pulse");
        let shards = ShardCount::new(SHARDS).unwrap();
        let settings = RedisSettings { identities, ..RedisSettings::new(redis.url().into(), shards, WINDOW) };
        let accumulator = Arc::new(RedisAccumulator::connect(&settings).await.unwrap());
        let settings = PostgresSettings {
            url: ledger_url.clone().into(),
            max_connections: 4,
            allow_unsafe_durability: false,
        };
        let ledger = PostgresLedger::connect(&settings).await.unwrap();
        ledger.migrate().await.unwrap();
        let stores = Stores::open(Arc::clone(&accumulator), Arc::new(ledger), shards).await;
        for number in 1..=2 {
            stores.count(number, 50).await;
            stores.flush().await;
        }
        stores.count(3, 50).await;
        for shard in shards.shards() {
            accumulator.seal(shard, 3, super::START).await.unwrap();
        }
        stores.count(4, 50).await;
        stores.assert_holds().await;
        Self { redis, _postgres: postgres, ledger_url, accumulator, stores }
    }

    async fn sql(&self, statement: &'static str) {
        let mut connection = PgConnection::connect(&self.ledger_url).await.unwrap();
        let done = connection.execute(statement).await.unwrap();
        assert!(done.rows_affected() > 0, "{statement}");
    }

    /// Exactly these checks are broken, and one of the findings says all of that.
    async fn assert_broken(&self, checks: &[u8], words: &[&str]) {
        let (numbers, findings) = self.stores.broken().await;
        assert_eq!(numbers, checks, "{findings:#?}");
        assert!(says(&findings, words), "{words:?} in {findings:#?}");
    }

    fn redis(&self, arguments: &[&str]) {
        let _: redis::Value = self.redis.command(arguments);
    }

    /// A field of a hash in Redis, as bytes; the first one that is a row.
    fn row(&self, key: &str) -> (Vec<u8>, Vec<u8>) {
        let fields: std::collections::HashMap<Vec<u8>, Vec<u8>> = self.redis.command(&["HGETALL", key]);
        fields.into_iter().filter(|(name, _)| !name.is_empty()).min().unwrap()
    }

    async fn write(&self, key: &str, field: &[u8], value: Option<&[u8]>) {
        let client = redis::Client::open(self.redis.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd(if value.is_some() { "HSET" } else { "HDEL" });
        command.arg(key).arg(field);
        if let Some(value) = value {
            command.arg(value);
        }
        let _: redis::Value = command.query_async(&mut connection).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_broken_in_redis_is_found_and_named() {
    let on = OnServers::start().await;
    let tenant = on.stores.tenant(Shard(1)).to_string();
    let named = ["shard 1", "tenant \"tenant-", "product \"SKU-", "unit \"KB\"", "hour 2026-01-"];

    for (key, generation) in [("pulse:{1}:agg:3", "generation 3"), ("pulse:{1}:agg:4", "generation 4")] {
        let (field, value) = on.row(key);
        on.write(key, &field, None).await;
        on.assert_broken(&[4], &[&named[..], &[generation, tenant.as_str()]].concat()).await;
        // A sum of the same number of pulses, and ten units more.
        let mut other = value.clone();
        other[7] += 10;
        on.write(key, &field, Some(&other)).await;
        on.assert_broken(&[4], &["shard 1", generation, "difference +10 in +0 pulses"]).await;
        on.write(key, &field, Some(b"307")).await;
        on.assert_broken(&[4], &[&named[..], &[generation]].concat()).await;
        on.write(key, &field, Some(&value)).await;
        on.stores.assert_holds().await;
        on.write(key, b"made up", Some(&value)).await;
        on.assert_broken(&[4], &["shard 1", generation, "difference +1"]).await;
        on.write(key, b"made up", None).await;
        on.stores.assert_holds().await;
    }

    on.redis(&["RENAME", "pulse:{2}:ids:1", "elsewhere"]);
    on.assert_broken(&[7], &["shard 2", "identities", "expected 200", "found 40", "difference -160"]).await;
    on.redis(&["RENAME", "elsewhere", "pulse:{2}:ids:1"]);
    on.redis(&["HSET", "pulse:{2}:ids:1", "0123456789abcdef", "abcdef"]);
    on.assert_broken(&[7], &["shard 2", "difference +1"]).await;
    on.redis(&["HDEL", "pulse:{2}:ids:1", "0123456789abcdef"]);

    on.redis(&["HINCRBY", "pulse:{0}:meta", "counted", "3"]);
    on.assert_broken(&[6, 7], &["shard 0", "expected 203", "found 200", "difference -3"]).await;
    on.redis(&["HINCRBY", "pulse:{0}:meta", "counted", "-3"]);

    for key in
        ["pulse:{3}:agg:1", "pulse:{3}:names:9:0", "pulse:{3}:gen:4", "pulse:{3}:ids:7", "pulse:{9}:meta"]
    {
        on.redis(&["HSET", key, "generation", "x"]);
        if key == "pulse:{9}:meta" {
            // A shard that is none: its own generation is no number.
            let report = on.stores.audit().await;
            assert_ne!(report.outcome(), application::audit::Outcome::Holds);
        } else {
            on.assert_broken(&[8], &[key]).await;
        }
        on.redis(&["DEL", key]);
    }
    on.stores.assert_holds().await;

    on.redis(&["RENAME", "pulse:{1}:gen:3", "elsewhere"]);
    on.assert_broken(&[4, 6], &["shard 1", "generation 3", "is gone"]).await;
    on.redis(&["RENAME", "elsewhere", "pulse:{1}:gen:3"]);

    on.redis(&["HINCRBY", "pulse:{1}:meta", "deleted", "1"]);
    on.assert_broken(&[2, 6, 8], &["shard 1", "older copy"]).await;
    on.redis(&["HINCRBY", "pulse:{1}:meta", "deleted", "-1"]);
    on.stores.assert_holds().await;
}

#[tokio::test]
async fn what_is_broken_in_compact_buckets_is_found_and_named() {
    let on = OnServers::start_in(IdentityLayout::Compact).await;
    on.redis(&["HSET", "pulse:{2}:ids:1:0", "0123456789abcdef", "abcdef"]);
    on.assert_broken(&[7], &["shard 2", "identities", "expected 200", "found 201", "difference +1"]).await;
    on.redis(&["HDEL", "pulse:{2}:ids:1:0", "0123456789abcdef"]);
    on.stores.assert_holds().await;
    on.redis(&["RENAME", "pulse:{2}:ids:1:0", "elsewhere"]);
    on.assert_broken(&[7], &["shard 2", "identities", "expected 200", "difference -"]).await;
    on.redis(&["RENAME", "elsewhere", "pulse:{2}:ids:1:0"]);
    on.redis(&["HSET", "pulse:{3}:ids:1:9", "0123456789abcdef", "abcdef"]);
    on.assert_broken(&[8], &["pulse:{3}:ids:1:9"]).await;
}

#[tokio::test]
async fn what_is_broken_in_postgres_is_found_and_named() {
    let on = OnServers::start().await;
    let row = "tenant = (select min(tenant) from hourly_usage) and product_sku = 'SKU-3'";
    let update = |what: &str| format!("update hourly_usage set {what} where {row}").leak() as &'static str;

    on.sql(update("used_amount = used_amount - 0.5")).await;
    let named = ["tenant \"tenant-", "product \"SKU-3\"", "unit \"KB\"", "hour 2026-01-"];
    on.assert_broken(&[9, 10], &[&named[..], &["difference -0.5 in +0 pulses"]].concat()).await;
    on.assert_broken(&[9, 10], &["tenants of a shard", "shard ", "difference -0.5 in +0 pulses"]).await;
    // Later flushes add to the row, and it stays wrong by as much.
    on.stores.flush().await;
    on.assert_broken(&[9, 10], &[&named[..], &["difference -0.5 in +0 pulses"]].concat()).await;
    on.sql(update("used_amount = used_amount + 0.5")).await;
    on.stores.assert_holds().await;

    on.sql("create table aside as select * from hourly_usage where product_sku = 'SKU-2'").await;
    on.sql("delete from hourly_usage where product_sku = 'SKU-2'").await;
    on.assert_broken(&[9], &["tenants of a shard", "in -"]).await;
    on.sql("insert into hourly_usage overriding system value select * from aside").await;
    on.stores.assert_holds().await;

    on.sql("update hourly_usage set used_amount = -1000000 where product_sku = 'SKU-1'").await;
    on.assert_broken(&[9, 10], &["no usage", "found -"]).await;
    on.sql("update hourly_usage set used_amount = flushed_amount where product_sku = 'SKU-1'").await;
    on.stores.assert_holds().await;

    on.sql("create table kept as select * from flushes where shard = 2 and generation = 2").await;
    on.sql("delete from flushes where shard = 2 and generation = 2").await;
    on.assert_broken(&[3, 6, 9], &["shard 2", "generation 2", "missing in flushes"]).await;
    on.sql("insert into flushes select * from kept").await;
    on.sql("update flushes set pulse_count = pulse_count + 1 where shard = 2 and generation = 1").await;
    on.assert_broken(&[6, 9], &["shard 2", "difference +1"]).await;
    on.sql("update flushes set pulse_count = pulse_count - 1 where shard = 2 and generation = 1").await;
    on.stores.assert_holds().await;

    on.sql("update accumulator_shards set flushed_generation = 9 where shard = 0").await;
    on.assert_broken(&[1, 2, 3], &["shard 0", "rolled back"]).await;
    on.sql("update accumulator_shards set flushed_generation = 4 where shard = 0").await;
    on.sql("update accumulator_shards set seen_sequence = seen_sequence + 100000 where shard = 0").await;
    on.assert_broken(&[1], &["shard 0", "rolled back"]).await;
    on.sql("update accumulator_shards set seen_sequence = seen_sequence - 100000 where shard = 0").await;
    on.stores.assert_holds().await;
}

#[tokio::test]
async fn a_record_that_is_not_what_was_sealed_is_found_before_the_generation_is_deleted() {
    let on = OnServers::start().await;
    // As after a crash between the commit and the deletion.
    let sealed = on.accumulator.sealed(Shard(1), 3).await.unwrap().unwrap();
    let rows = futures_util::stream::unfold(Some(0), |part| {
        let accumulator = Arc::clone(&on.accumulator);
        async move {
            let (rows, next) = accumulator.read(Shard(1), 3, part?).await.unwrap();
            Some((Ok(rows), next))
        }
    });
    on.stores.flush.ledger.write(&sealed, Box::pin(rows)).await.unwrap();
    on.stores.assert_holds().await;
    on.sql("update flushes set used_amount = used_amount + 7 where shard = 1 and generation = 3").await;
    on.assert_broken(&[5, 9], &["shard 1", "generation 3", "difference +7 in +0 pulses"]).await;
}

#[tokio::test]
async fn lost_storage_is_told_shard_by_shard_and_a_store_that_is_away_is_named() {
    let mut on = OnServers::start().await;
    on.redis(&["FLUSHALL"]);
    let (numbers, findings) = on.stores.broken().await;
    assert!(numbers.contains(&1), "{numbers:?}");
    for shard in 0..SHARDS {
        assert!(
            says(&findings, &[&format!("shard {shard} of accumulator"), "is gone", "generation 2"]),
            "{findings:#?}"
        );
    }
    on.redis.kill();
    let report = on.stores.audit().await;
    assert_eq!(report.outcome(), application::audit::Outcome::Unknown, "{report:#?}");
    let unknown = |number: u8| report.checks.iter().find(|check| check.kind.number() == number).unwrap();
    assert!(
        matches!(&unknown(1).verdict, application::audit::Verdict::Unknown(why) if why.starts_with("counts: "))
    );
    assert_eq!(unknown(9).verdict, application::audit::Verdict::Holds, "the books alone can be told");
}
