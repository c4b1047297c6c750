//! Which Redis is accepted.

use super::{batch, opened, pulse, settings};
use application::ports::PulseSink;
use infrastructure::{
    redis::{RedisAccumulator, RedisDurability, RedisSettings},
    test_servers::{free_port, redis::RedisServer},
};

#[tokio::test]
async fn an_unsafe_redis_is_refused_with_the_lines_to_set() {
    let cases = [
        ("appendfsync", "everysec", "\n    appendfsync always\n"),
        ("appendonly", "no", "\n    appendonly yes\n"),
        ("maxmemory-policy", "allkeys-lru", "\n    maxmemory-policy noeviction\n"),
        ("no-appendfsync-on-rewrite", "yes", "\n    no-appendfsync-on-rewrite no\n"),
    ];
    for (name, value, line) in cases {
        let server = RedisServer::start_with(&[(name, value)]);
        let error = RedisAccumulator::connect(&settings(&server, 1)).await.unwrap_err();
        assert!(!error.is_transient(), "{error}");
        let text = error.to_string();
        assert!(text.contains(line) && text.contains("REDIS_DURABILITY=at-risk"), "{text}");
        let at_risk = RedisSettings { durability: RedisDurability::AtRisk, ..settings(&server, 1) };
        RedisAccumulator::connect(&at_risk).await.unwrap();
    }
}

#[tokio::test]
async fn a_redis_that_hides_its_settings_must_be_vouched_for() {
    let server = RedisServer::start();
    let () = server.command(&["ACL", "SETUSER", "worker", "on", ">secret", "~*", "+@all", "-config"]);
    let url = format!("redis://worker:secret@127.0.0.1:{}/", server.port());
    let strict = RedisSettings { url: url.into(), ..settings(&server, 1) };
    let error = RedisAccumulator::connect(&strict).await.unwrap_err();
    let text = error.to_string();
    assert!(!error.is_transient() && text.contains("vouch for it with REDIS_DURABILITY=at-risk"), "{text}");
    assert!(text.contains("\n    appendfsync always") && !text.contains("secret"), "{text}");
    RedisAccumulator::connect(&RedisSettings { durability: RedisDurability::AtRisk, ..strict })
        .await
        .unwrap();
}

#[tokio::test]
async fn wrong_credentials_are_permanent() {
    let server = RedisServer::start();
    let url = format!("redis://:wrong@127.0.0.1:{}/", server.port());
    let error = RedisAccumulator::connect(&RedisSettings { url: url.into(), ..settings(&server, 1) })
        .await
        .unwrap_err();
    assert!(!error.is_transient() && !error.to_string().contains("wrong@"), "{error}");
}

#[tokio::test]
async fn a_missing_password_is_permanent() {
    let server = RedisServer::start();
    server.config_set("requirepass", "secret");
    let error = RedisAccumulator::connect(&settings(&server, 1)).await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_redis_that_is_away_is_transient() {
    let server = RedisServer::start();
    let url = format!("redis://127.0.0.1:{}/", free_port());
    let error = RedisAccumulator::connect(&RedisSettings { url: url.into(), ..settings(&server, 1) })
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error}");
    server.pause();
    let error = RedisAccumulator::connect(&settings(&server, 1)).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_redis_that_came_back_unsafe_is_refused() {
    let mut server = RedisServer::start();
    let store = opened(&server, 1).await;
    server.config_set("appendfsync", "everysec");
    let _: u64 = server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    let batch = batch(0, 1, vec![pulse(None, "s", "1")]);
    let error = loop {
        match store.apply(&batch).await {
            Err(error) if error.is_transient() => {}
            answer => break answer.unwrap_err(),
        }
    };
    assert!(error.to_string().contains("appendfsync is everysec"), "{error}");
    server.restart();
    store.apply(&batch).await.unwrap();
}
