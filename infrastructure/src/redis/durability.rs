//! Whether Redis is set so that it keeps what it confirms.

use super::{RedisDurability, fault::Fault};
use redis::{RedisError, aio::MultiplexedConnection};
use std::collections::HashMap;

/// What the scripts and the AOF need.
const VERSION_MIN: u64 = 7;

/// Names, the value that is needed, and what happens without it.
const NEEDED: [(&str, &str, &str); 4] = [
    ("maxmemory-policy", "noeviction", "a full Redis would throw counts away"),
    ("appendonly", "yes", "what was confirmed would be gone after a restart"),
    ("appendfsync", "always", "what was confirmed in the last second would be gone after a crash"),
    (
        "no-appendfsync-on-rewrite",
        "no",
        "what was confirmed during a rewrite of the AOF would be gone after a crash",
    ),
];

/// Asks Redis for its version and settings, and refuses one that could lose what it confirms unless that is allowed.
pub(super) async fn check(
    connection: &mut MultiplexedConnection,
    durability: RedisDurability,
) -> Result<(), Fault> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
    check_version(&info)?;
    let mut ask = redis::cmd("CONFIG");
    ask.arg("GET").arg("aof-load-truncated");
    for (name, ..) in NEEDED {
        ask.arg(name);
    }
    let answer: Result<HashMap<String, String>, RedisError> = ask.query_async(connection).await;
    let verdict = match answer {
        Ok(settings) => {
            warn_of_truncation(&settings);
            check_settings(&settings)
        }
        // A server that is away or not ready may answer later; any other refusal is one to be asked about its settings.
        Err(error) => match Fault::from(error) {
            fault if fault.is_transient() => return Err(fault),
            fault => Err(forbidden(&fault)),
        },
    };
    match (verdict, durability) {
        (Ok(()), _) => Ok(()),
        (Err(reason), RedisDurability::Strict) => Err(Fault::Unsafe(reason)),
        (Err(reason), RedisDurability::AtRisk) => {
            tracing::warn!(reason, "Redis is used at risk");
            Ok(())
        }
    }
}

fn check_version(info: &str) -> Result<(), Fault> {
    let version =
        info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or_default().trim();
    let major: Option<u64> = version.split('.').next().and_then(|major| major.parse().ok());
    match major {
        Some(major) if major >= VERSION_MIN => Ok(()),
        _ => Err(Fault::Unsafe(format!("Redis {VERSION_MIN} or later is needed, and this is {version:?}"))),
    }
}

fn check_settings(settings: &HashMap<String, String>) -> Result<(), String> {
    let found = |name: &str| settings.get(name).map_or("unknown", String::as_str);
    let wrong: Vec<_> = NEEDED.into_iter().filter(|(name, value, _)| found(name) != *value).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let faults: Vec<String> =
        wrong.iter().map(|(name, _, why)| format!("{name} is {}: {why}", found(name))).collect();
    let lines: Vec<String> = wrong.iter().map(|(name, value, _)| format!("\n    {name} {value}")).collect();
    Err(format!(
        "Redis would not keep every count ({}); set in redis.conf{}\nor accept the loss with REDIS_DURABILITY=at-risk",
        faults.join("; "),
        lines.concat()
    ))
}

fn forbidden(fault: &Fault) -> String {
    let lines: Vec<String> = NEEDED.iter().map(|(name, value, _)| format!("\n    {name} {value}")).collect();
    format!(
        "Redis does not say how it is set ({fault}); see that it is set to{}\nand vouch for it with \
         REDIS_DURABILITY=at-risk",
        lines.concat()
    )
}

/// Redis 7.0 counts twice after a torn AOF and two restarts: the transaction that the tear has left open swallows those
/// that follow it. The remedy is in the start script, so this cannot be told from outside for certain.
fn warn_of_truncation(settings: &HashMap<String, String>) {
    if settings.get("aof-load-truncated").is_some_and(|value| value == "yes") {
        tracing::warn!(
            "Redis loads a torn AOF as it is, which may count twice after a crash: \
             set `aof-load-truncated no`, and run `redis-check-aof --fix` before every start"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safe() -> HashMap<String, String> {
        let pairs = NEEDED.map(|(name, value, _)| (name.to_owned(), value.to_owned()));
        pairs.into_iter().collect()
    }

    #[test]
    fn the_refusal_prints_exactly_the_lines_to_set() {
        let mut found = safe();
        found.insert("maxmemory-policy".to_owned(), "allkeys-lru".to_owned());
        found.insert("appendfsync".to_owned(), "everysec".to_owned());
        let refusal = check_settings(&found).unwrap_err();
        assert!(refusal.contains("\n    maxmemory-policy noeviction\n    appendfsync always\n"), "{refusal}");
        assert!(refusal.contains("maxmemory-policy is allkeys-lru"), "{refusal}");
        assert!(refusal.contains("REDIS_DURABILITY=at-risk"), "{refusal}");
        assert!(!refusal.contains("appendonly"), "{refusal}");
    }

    #[test]
    fn a_safe_redis_is_accepted() {
        assert_eq!(check_settings(&safe()), Ok(()));
    }

    #[test]
    fn versions_before_7_are_refused() {
        assert!(check_version("redis_version:6.2.14\r\n").is_err());
        assert!(check_version("redis_version:7.0.15\r\n").is_ok());
        assert!(check_version("# Server\r\nredis_version:10.1.0\r\n").is_ok());
        assert!(check_version("").is_err());
    }
}
