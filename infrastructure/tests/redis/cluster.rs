//! A Redis Cluster whose servers are killed, wiped, replaced, and hand slots over.

use super::{
    START, batch, in_both_layouts,
    load::{Load, persist},
    opened_at, opened_with, pulse, settings_at,
};
use application::ports::{AccumulatorAudit, AccumulatorShards, GenerationStore, Outcome, PulseSink};
use domain::Shard;
use infrastructure::{
    redis::{IdentityLayout, RedisAccumulator, RedisDurability, RedisSettings},
    test_servers::{redis::RedisServer, redis_cluster::RedisCluster},
};
use std::time::{Duration, Instant};
use tokio::{runtime::Handle, task::block_in_place};

/// Their slots are spread over all three masters.
const SHARDS: u16 = 8;
const LIMIT: Duration = Duration::from_mins(1);

fn meta(shard: u16) -> String {
    format!("pulse:{{{shard}}}:meta")
}

fn owners(cluster: &RedisCluster) -> Vec<usize> {
    (0..SHARDS).map(|shard| cluster.owner_of(&meta(shard))).collect()
}

/// Waits until batches of all the shards are applied that were not at the beginning.
async fn goes_on(load: &Load, shards: impl IntoIterator<Item = u16>) {
    let before: Vec<(u16, u64)> = shards.into_iter().map(|shard| (shard, load.batches(shard) + 3)).collect();
    let start = Instant::now();
    while before.iter().any(|(shard, batches)| load.batches(*shard) < *batches) {
        assert!(start.elapsed() < LIMIT, "a shard does not go on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn shards_are_spread_over_the_masters_and_audited_on_all_of_them() {
    let cluster = RedisCluster::start(3);
    let store = opened_at(&cluster.url(), SHARDS).await;
    for shard in 0..SHARDS {
        store.apply(&batch(shard, 1, vec![pulse(Some("a".into()), "s", "1")])).await.unwrap();
    }
    for (master, server) in cluster.masters.iter().enumerate() {
        let keys: Vec<String> = server.command(&["KEYS", "pulse:*:meta"]);
        let expected = owners(&cluster).into_iter().filter(|owner| *owner == master).count();
        assert!(expected > 0 && keys.len() == expected, "master {master} has {keys:?}");
    }
    assert_eq!(store.strays().await.unwrap(), []);
    let stray = "pulse:{3}:ids:99";
    let () = cluster.masters[cluster.owner_of(stray)].command(&["HSET", stray, "a", "b"]);
    let strays = store.strays().await.unwrap();
    assert_eq!(strays.iter().map(|stray| stray.name.as_str()).collect::<Vec<_>>(), [stray]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_holds_up_its_own_shards_and_changes_no_count() {
    let mut cluster = RedisCluster::start(3);
    let owners = owners(&cluster);
    let load = Load::start(&cluster.url(), SHARDS).await;
    for killed in 0..3 {
        goes_on(&load, 0..SHARDS).await;
        let before = load.retries();
        cluster.masters[killed].kill();
        while load.retries() == before {
            tokio::task::yield_now().await;
        }
        goes_on(&load, (0..SHARDS).filter(|shard| owners[usize::from(*shard)] != killed)).await;
        cluster.masters[killed].restart();
    }
    goes_on(&load, 0..SHARDS).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_from_master_to_master_under_load_change_no_count() {
    let cluster = RedisCluster::start(3);
    let load = Load::start(&cluster.url(), SHARDS).await;
    goes_on(&load, 0..SHARDS).await;
    for step in [1, 2, 1] {
        for shard in 0..SHARDS {
            let to = (cluster.owner_of(&meta(shard)) + step) % 3;
            // Long enough between the keys that batches meet each half of a shard.
            block_in_place(|| {
                cluster.move_slot(&meta(shard), to, |_| std::thread::sleep(Duration::from_millis(5)));
            });
        }
        goes_on(&load, 0..SHARDS).await;
    }
    load.end().await;
}

in_both_layouts! { nothing_is_counted_on_half_of_a_shard }

async fn nothing_is_counted_on_half_of_a_shard(identities: IdentityLayout) {
    let cluster = RedisCluster::start(3);
    let store = opened_with(&RedisSettings { identities, ..settings_at(&cluster.url(), SHARDS) }).await;
    let known = pulse(Some("known".into()), "s", "1");
    store.apply(&batch(0, 1, vec![known.clone()])).await.unwrap();
    store.seal(Shard(0), 1, START).await.unwrap();
    let again = batch(0, 2, vec![known.clone(), pulse(Some("new".into()), "s", "1")]);
    let to = (cluster.owner_of(&meta(0)) + 1) % 3;
    let mut steps = 0;
    block_in_place(|| {
        cluster.move_slot(&meta(0), to, |_| {
            steps += 1;
            let error = Handle::current().block_on(store.apply(&again)).unwrap_err();
            assert!(error.is_transient(), "step {steps}: {error}");
        });
    });
    assert!(steps > 4, "the shard has only {steps} keys");
    assert_eq!(cluster.owner_of(&meta(0)), to);
    assert_eq!(persist!(store.apply(&again)), [Outcome::Duplicate, Outcome::Counted]);
    let state = store.inspect(Shard(0)).await.unwrap().unwrap();
    assert_eq!((state.counts.counted, state.counts.duplicates), (2, 1));
    let sealed = store.sealed(Shard(0), 1).await.unwrap().unwrap();
    assert_eq!(sealed.total.pulses, 1);
    assert_eq!(store.strays().await.unwrap(), []);
}

#[tokio::test]
async fn a_wiped_master_halts_its_own_shards_as_lost() {
    let cluster = RedisCluster::start(3);
    let store = opened_at(&cluster.url(), SHARDS).await;
    let wiped = cluster.owner_of(&meta(0));
    let () = cluster.masters[wiped].command(&["FLUSHALL"]);
    for (shard, owner) in (0..SHARDS).zip(owners(&cluster)) {
        let answer = store.apply(&batch(shard, 1, vec![pulse(None, "s", "1")])).await;
        if owner == wiped {
            let error = answer.unwrap_err();
            let missing = format!("shard {shard} is missing ({})", meta(shard));
            assert!(!error.is_transient() && error.to_string().contains(&missing), "{error}");
        } else {
            answer.unwrap();
        }
    }
}

/// Waits until the master has heard of its replica that it has everything.
async fn is_fed(master: &RedisServer) {
    let start = Instant::now();
    loop {
        let info: String = master.command(&["INFO", "replication"]);
        let end = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:")).unwrap().trim();
        if info.contains(&format!(",offset={end},")) {
            return;
        }
        assert!(start.elapsed() < LIMIT, "the replica is not fed: {info}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_replica_that_takes_over_behind_its_master_halts_as_rolled_back() {
    let mut cluster = RedisCluster::start(3);
    let master = cluster.owner_of(&meta(0));
    let replica = cluster.start_replica(master, &[]);
    let store = opened_at(&cluster.url(), SHARDS).await;
    store.apply(&batch(0, 1, vec![pulse(None, "s", "1")])).await.unwrap();
    is_fed(&cluster.masters[master]).await;
    replica.pause();
    // What waits in a socket for the replica would still reach it.
    let _: u64 = cluster.masters[master].command(&["CLIENT", "KILL", "TYPE", "replica"]);
    for number in 2..=4 {
        store.apply(&batch(0, number, vec![pulse(None, "s", "1")])).await.unwrap();
    }
    cluster.masters[master].kill();
    replica.resume();
    let () = replica.command(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
    let again = batch(0, 5, vec![pulse(None, "s", "1")]);
    let start = Instant::now();
    let error = loop {
        match store.apply(&again).await {
            Err(error) if error.is_transient() => assert!(start.elapsed() < LIMIT, "{error}"),
            answer => break answer.unwrap_err(),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(error.to_string().contains("was rolled back, 0 generations and 3 changes are gone"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_waits_for_the_replica_changes_no_count() {
    let cluster = RedisCluster::start(3);
    let replica = cluster.start_replica(cluster.owner_of(&meta(0)), &[]);
    let load = Load::start(&cluster.url(), SHARDS).await;
    goes_on(&load, 0..SHARDS).await;
    let () = replica.command(&["CLUSTER", "FAILOVER"]);
    let start = Instant::now();
    while !replica.command::<String>(&["INFO", "replication"]).contains("role:master") {
        assert!(start.elapsed() < LIMIT, "the replica does not take over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    goes_on(&load, 0..SHARDS).await;
    load.end().await;
}

#[tokio::test]
async fn every_server_must_be_set_to_keep_what_is_confirmed() {
    let cluster = RedisCluster::start(3);
    let strict = settings_at(&cluster.url(), SHARDS);
    let at_risk = RedisSettings { durability: RedisDurability::AtRisk, ..strict.clone() };
    cluster.masters[2].config_set("appendfsync", "everysec");
    let error = RedisAccumulator::connect(&strict).await.unwrap_err();
    let text = error.to_string();
    let named = format!("127.0.0.1:{}: ", cluster.masters[2].port());
    assert!(!error.is_transient() && text.contains(&named), "{text}");
    assert!(text.contains("\n    appendfsync always\n"), "{text}");
    RedisAccumulator::connect(&at_risk).await.unwrap();
    cluster.masters[2].config_set("appendfsync", "always");
    RedisAccumulator::connect(&strict).await.unwrap();

    let replica = cluster.start_replica(1, &[("cluster-replica-no-failover", "no")]);
    let text = RedisAccumulator::connect(&strict).await.unwrap_err().to_string();
    assert!(text.contains(&format!("127.0.0.1:{}: ", replica.port())), "{text}");
    assert!(text.contains("\n    cluster-replica-no-failover yes\n"), "{text}");
    replica.config_set("cluster-replica-no-failover", "yes");
    RedisAccumulator::connect(&strict).await.unwrap();
}

#[tokio::test]
async fn a_slot_that_nobody_has_is_waited_for() {
    let cluster = RedisCluster::start(3);
    let store = opened_at(&cluster.url(), SHARDS).await;
    let owner = &cluster.masters[cluster.owner_of(&meta(0))];
    let slot: u16 = owner.command(&["CLUSTER", "KEYSLOT", &meta(0)]);
    let () = owner.command(&["CLUSTER", "DELSLOTS", &slot.to_string()]);
    let batch = batch(0, 1, vec![pulse(None, "s", "1")]);
    for _ in 0..2 {
        let error = store.apply(&batch).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
    }
    let () = owner.command(&["CLUSTER", "ADDSLOTS", &slot.to_string()]);
    assert_eq!(persist!(store.apply(&batch)), [Outcome::Counted]);
}
