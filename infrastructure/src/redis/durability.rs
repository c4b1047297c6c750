//! Whether Redis is set so that it keeps what it confirms.

use super::{RedisDurability, fault::Fault};
use redis::{RedisError, aio::MultiplexedConnection};
use std::collections::HashMap;

/// What the scripts and the AOF need.
const VERSION_MIN: u64 = 7;

/// A setting's name, the value that is needed, and what happens without it.
type Needed = (&'static str, &'static str, &'static str);

/// Needed of every server.
const NEEDED: [Needed; 4] = [
    ("maxmemory-policy", "noeviction", "a full Redis would throw counts away"),
    ("appendonly", "yes", "what was confirmed would be gone after a restart"),
    ("appendfsync", "always", "what was confirmed in the last second would be gone after a crash"),
    (
        "no-appendfsync-on-rewrite",
        "no",
        "what was confirmed during a rewrite of the AOF would be gone after a crash",
    ),
];

/// A failover of a cluster is asynchronous: the replica that takes over may lack what was confirmed. Needed of every
/// server of a cluster, because a master that has lost its last slot becomes a replica by itself.
const NEEDED_IN_CLUSTER: Needed = (
    "cluster-replica-no-failover",
    "yes",
    "what was confirmed and not replicated yet would be gone after a failover",
);

/// What was found of a server that is accepted.
#[derive(Debug)]
pub(super) struct Findings {
    /// Whether it is one of a cluster.
    pub(super) in_cluster: bool,
    /// What an operator should know of it.
    pub(super) remarks: Vec<String>,
}

/// Asks Redis for its version and settings, and refuses one that could lose what it confirms unless that is allowed.
/// The name says which server it is.
pub(super) async fn check(
    connection: &mut MultiplexedConnection,
    name: &str,
    durability: RedisDurability,
) -> Result<Findings, Fault> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
    check_version(&info)?;
    let in_cluster = field(&info, "redis_mode:") == "cluster";
    let needed = needed(in_cluster);
    let mut ask = redis::cmd("CONFIG");
    ask.arg("GET").arg("aof-load-truncated");
    for (name, ..) in &needed {
        ask.arg(*name);
    }
    let answer: Result<HashMap<String, String>, RedisError> = ask.query_async(connection).await;
    let mut remarks = Vec::new();
    let verdict = match answer {
        Ok(settings) => {
            remarks.extend(remark_on_truncation(&settings));
            check_settings(&needed, &settings)
        }
        // A server that is away or not ready may answer later; any other refusal is one to be asked about its settings.
        Err(error) => match Fault::from(error) {
            fault if fault.is_transient() => return Err(fault),
            fault => Err(forbidden(&needed, &fault)),
        },
    };
    match (verdict, durability) {
        (Ok(()), _) => {}
        (Err(reason), RedisDurability::Strict) if in_cluster => {
            return Err(Fault::Unsafe(format!("{name}: {reason}")));
        }
        (Err(reason), RedisDurability::Strict) => return Err(Fault::Unsafe(reason)),
        (Err(reason), RedisDurability::AtRisk) => remarks.push(reason),
    }
    Ok(Findings { in_cluster, remarks })
}

fn needed(in_cluster: bool) -> Vec<Needed> {
    NEEDED.into_iter().chain(in_cluster.then_some(NEEDED_IN_CLUSTER)).collect()
}

fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}

fn check_version(info: &str) -> Result<(), Fault> {
    let version = field(info, "redis_version:");
    let major: Option<u64> = version.split('.').next().and_then(|major| major.parse().ok());
    match major {
        Some(major) if major >= VERSION_MIN => Ok(()),
        _ => Err(Fault::Unsafe(format!("Redis {VERSION_MIN} or later is needed, and this is {version:?}"))),
    }
}

fn check_settings(needed: &[Needed], settings: &HashMap<String, String>) -> Result<(), String> {
    let found = |name: &str| settings.get(name).map_or("unknown", String::as_str);
    let wrong: Vec<_> = needed.iter().filter(|(name, value, _)| found(name) != *value).collect();
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

fn forbidden(needed: &[Needed], fault: &Fault) -> String {
    let lines: Vec<String> = needed.iter().map(|(name, value, _)| format!("\n    {name} {value}")).collect();
    format!(
        "Redis does not say how it is set ({fault}); see that it is set to{}\nand vouch for it with \
         REDIS_DURABILITY=at-risk",
        lines.concat()
    )
}

/// Redis 7.0 counts twice after a torn AOF and two restarts: the transaction that the tear has left open swallows those
/// that follow it. Whether a script prevents that before the start cannot be told from here.
fn remark_on_truncation(settings: &HashMap<String, String>) -> Option<String> {
    let loads_torn_files = settings.get("aof-load-truncated").is_some_and(|value| value == "yes");
    loads_torn_files.then(|| {
        "Redis loads a torn AOF as it is, and may count twice after a crash; set in redis.conf\n    \
         aof-load-truncated no\nand run `redis-check-aof --fix` before every start, as deploy/redis/start.sh does"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safe() -> HashMap<String, String> {
        let pairs = NEEDED.map(|(name, value, _)| (name.to_owned(), value.to_owned()));
        pairs.into_iter().collect()
    }

    fn check_settings(settings: &HashMap<String, String>) -> Result<(), String> {
        super::check_settings(&needed(false), settings)
    }

    #[test]
    fn servers_of_a_cluster_that_may_fail_over_by_themselves_are_refused() {
        let mut found = safe();
        let refusal = super::check_settings(&needed(true), &found).unwrap_err();
        assert!(refusal.contains("\n    cluster-replica-no-failover yes\n"), "{refusal}");
        found.insert("cluster-replica-no-failover".to_owned(), "yes".to_owned());
        assert_eq!(super::check_settings(&needed(true), &found), Ok(()));
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
    fn a_redis_that_loads_torn_files_is_remarked_on() {
        let remark =
            |value: &str| remark_on_truncation(&[("aof-load-truncated".into(), value.into())].into());
        assert!(remark("yes").is_some_and(|remark| remark.contains("\n    aof-load-truncated no\n")));
        assert_eq!(remark("no"), None);
    }

    #[test]
    fn versions_before_7_are_refused() {
        assert!(check_version("redis_version:6.2.14\r\n").is_err());
        assert!(check_version("redis_version:7.0.15\r\n").is_ok());
        assert!(check_version("# Server\r\nredis_version:10.1.0\r\n").is_ok());
        assert!(check_version("").is_err());
    }
}
