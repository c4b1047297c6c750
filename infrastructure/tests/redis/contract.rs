//! The contract of every accumulator.

use super::{WINDOW, settings_at};
use application::{
    accumulator_contract,
    contract::{accumulator::AccumulatorFixture, recovery::FragileStore, suspects::FreshMarks},
    storage_contract, suspects_contract,
};
use async_trait::async_trait;
use domain::ShardCount;
use infrastructure::{
    redis::RedisAccumulator,
    test_servers::{redis::RedisServer, redis_cluster::RedisCluster},
};
use std::{sync::Arc, time::Duration};

struct OnRedis {
    servers: Servers,
    shards: u16,
}

enum Servers {
    One(RedisServer),
    Cluster(RedisCluster),
}

impl OnRedis {
    fn with_shards(shards: u16) -> Self {
        Self { servers: Servers::One(RedisServer::start()), shards }
    }

    /// Of three masters.
    fn in_a_cluster(shards: u16) -> Self {
        Self { servers: Servers::Cluster(RedisCluster::start(3)), shards }
    }

    async fn connect(&self) -> RedisAccumulator {
        let url = match &self.servers {
            Servers::One(server) => server.url(),
            Servers::Cluster(cluster) => cluster.url(),
        };
        RedisAccumulator::connect(&settings_at(&url, self.shards)).await.unwrap()
    }

    /// The server that has the first shard.
    fn server_of_the_first(&self) -> &RedisServer {
        match &self.servers {
            Servers::One(server) => server,
            Servers::Cluster(cluster) => &cluster.masters[cluster.owner_of("pulse:{0}:meta")],
        }
    }
}

#[async_trait]
impl AccumulatorFixture for OnRedis {
    type Store = RedisAccumulator;

    fn shards(&self) -> ShardCount {
        ShardCount::new(self.shards).unwrap()
    }

    fn dedupe_window(&self) -> Duration {
        WINDOW
    }

    async fn first(&self) -> Arc<RedisAccumulator> {
        Arc::new(self.connect().await)
    }

    async fn second(&self) -> Option<Arc<RedisAccumulator>> {
        Some(Arc::new(self.connect().await))
    }
}

impl FreshMarks for OnRedis {
    type Marks = RedisAccumulator;

    async fn open(&self) -> RedisAccumulator {
        self.connect().await
    }
}

mod suspects {
    use super::*;
    suspects_contract!(std::future::ready(OnRedis::with_shards(1)));
}

mod of_three_shards {
    use super::*;
    accumulator_contract!(OnRedis::with_shards(3));
}

mod of_one_shard {
    use super::*;
    accumulator_contract!(OnRedis::with_shards(1));
}

impl FragileStore for OnRedis {
    type Store = RedisAccumulator;

    async fn open(&self) -> RedisAccumulator {
        self.connect().await
    }

    fn lose(&self) {
        let () = self.server_of_the_first().command(&["FLUSHALL"]);
    }

    fn lose_by_half(&self) {
        let () = self.server_of_the_first().command(&["DEL", "pulse:{0}:meta"]);
    }
}

storage_contract!(OnRedis::with_shards(1));

mod of_four_shards_in_a_cluster {
    use super::*;
    accumulator_contract!(OnRedis::in_a_cluster(4));
}

mod marks_and_recoveries_in_a_cluster {
    use super::*;
    suspects_contract!(std::future::ready(OnRedis::in_a_cluster(1)));
    storage_contract!(OnRedis::in_a_cluster(1));
}
