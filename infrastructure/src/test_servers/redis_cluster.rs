//! A real Redis Cluster for tests.

use super::{free_port, redis::RedisServer};
use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

const SLOTS: u16 = 16_384;
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Masters that share the slots in equal ranges; each may have replicas.
#[derive(Debug)]
pub struct RedisCluster {
    /// The masters.
    pub masters: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts one with so many masters, none of which is replaced where it is away.
    ///
    /// # Panics
    /// Where a server does not become ready, or they do not find each other.
    #[must_use]
    pub fn start(masters: u16) -> Self {
        let cluster = Self { masters: (0..masters).map(|_| start_server(&[])).collect() };
        let share = SLOTS / masters;
        for (number, master) in (0..masters).zip(&cluster.masters) {
            let last = if number + 1 == masters { SLOTS - 1 } else { share * (number + 1) - 1 };
            let () = master.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            let () = master.command(&[
                "CLUSTER",
                "ADDSLOTSRANGE",
                &(share * number).to_string(),
                &last.to_string(),
            ]);
            if number > 0 {
                cluster.introduce(master);
            }
        }
        cluster.wait_until_known(usize::from(masters));
        cluster
    }

    /// Starts a replica of a master, and waits until it has what the master has.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_replica(&self, master: usize, options: &[(&str, &str)]) -> RedisServer {
        let known = info(&self.masters[0]).remove("cluster_known_nodes").unwrap_or_default();
        let replica = start_server(options);
        self.introduce(&replica);
        self.wait_until_known(known.parse::<usize>().expect("a number") + 1);
        let id = id(&self.masters[master]);
        wait_until("the replica knows its master", || {
            let nodes: String = replica.command(&["CLUSTER", "NODES"]);
            nodes.contains(&id)
        });
        let () = replica.command(&["CLUSTER", "REPLICATE", &id]);
        wait_until("the replica has what its master has", || {
            replica.command::<String>(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let end = format!("port={}", replica.port());
        wait_until("the master knows its replica", || {
            self.masters[0]
                .command::<String>(&["CLUSTER", "NODES"])
                .lines()
                .any(|line| line.contains(&format!(":{}@", replica.port())) && line.contains("slave"))
                && self.masters[master].command::<String>(&["INFO", "replication"]).contains(&end)
        });
        replica
    }

    /// Starts a master again on its data, and waits until all of them serve their slots.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn restart(&mut self, master: usize) {
        self.masters[master].restart();
        let known = info(&self.masters[master]).remove("cluster_known_nodes").unwrap_or_default();
        self.wait_until_known(known.parse().expect("a number"));
    }

    /// Where clients connect: to the first master.
    #[must_use]
    pub fn url(&self) -> String {
        self.masters[0].url()
    }

    /// The master that has the slot of a key.
    ///
    /// # Panics
    /// Where a server does not answer.
    #[must_use]
    pub fn owner_of(&self, key: &str) -> usize {
        let slot = self.masters[0].command(&["CLUSTER", "KEYSLOT", key]);
        let owner = owner_seen_by(&self.masters[0], slot);
        let has = |master| owner.as_ref() == Some(&id(master));
        self.masters.iter().position(has).expect("a master has the slot")
    }

    /// Moves the slot of a key to another master, key by key as `redis-cli --cluster reshard` does; `between` is called
    /// with how many keys were moved, before each of them and after the last.
    ///
    /// # Panics
    /// Where a server refuses a step.
    pub fn move_slot(&self, key: &str, to: usize, mut between: impl FnMut(usize)) {
        let (source, target) = (&self.masters[self.owner_of(key)], &self.masters[to]);
        let number: u16 = source.command(&["CLUSTER", "KEYSLOT", key]);
        let slot = number.to_string();
        let (from_id, to_id) = (id(source), id(target));
        let () = target.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        let () = source.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        let port = target.port().to_string();
        let mut moved = 0;
        loop {
            between(moved);
            let keys: Vec<String> = source.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]);
            let [key] = &keys[..] else { break };
            let () = source.command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
            moved += 1;
        }
        let () = target.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        for master in self.masters.iter().filter(|master| master.port() != target.port()) {
            let () = master.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        }
        // Who takes the next slot before all have heard of this one may get the same epoch, and take this one back.
        wait_until("all servers know who has the slot", || {
            let seen: Vec<_> = self
                .masters
                .iter()
                .map(|master| (owner_seen_by(master, number), info(master).remove("cluster_current_epoch")))
                .collect();
            seen[0].0.as_ref() == Some(&to_id) && seen.iter().all(|each| *each == seen[0])
        });
    }

    fn introduce(&self, server: &RedisServer) {
        let bus: HashMap<String, String> = server.command(&["CONFIG", "GET", "cluster-port"]);
        let () = self.masters[0].command(&[
            "CLUSTER",
            "MEET",
            "127.0.0.1",
            &server.port().to_string(),
            &bus["cluster-port"],
        ]);
    }

    fn wait_until_known(&self, servers: usize) {
        wait_until("all servers know each other", || {
            self.masters.iter().all(|master| {
                let info = info(master);
                info.get("cluster_state").is_some_and(|state| state == "ok")
                    && info.get("cluster_known_nodes").is_some_and(|known| *known == servers.to_string())
            })
        });
    }
}

fn start_server(options: &[(&str, &str)]) -> RedisServer {
    let bus = free_port().to_string();
    let defaults = [
        ("cluster-enabled", "yes"),
        ("cluster-config-file", "nodes.conf"),
        ("cluster-port", bus.as_str()),
        ("cluster-node-timeout", "2000"),
        ("cluster-require-full-coverage", "no"),
        ("cluster-replica-no-failover", "yes"),
    ];
    RedisServer::start_with(&[&defaults[..], options].concat())
}

fn owner_seen_by(server: &RedisServer, slot: u16) -> Option<String> {
    let nodes: String = server.command(&["CLUSTER", "NODES"]);
    let has = |line: &&str| {
        line.split(' ').skip(8).filter(|range| !range.starts_with('[')).any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let bound = |text: &str| text.parse::<u16>().expect("a slot");
            (bound(first)..=bound(last)).contains(&slot)
        })
    };
    nodes.lines().find(has)?.split(' ').next().map(str::to_owned)
}

fn id(server: &RedisServer) -> String {
    server.command(&["CLUSTER", "MYID"])
}

fn info(server: &RedisServer) -> HashMap<String, String> {
    let info: String = server.command(&["CLUSTER", "INFO"]);
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < READY_LIMIT, "{what}: not within {READY_LIMIT:?}");
        thread::sleep(Duration::from_millis(50));
    }
}
