//! The contract of every accumulator.

use super::{WINDOW, settings_at};
use application::{accumulator_contract, contract::accumulator::AccumulatorFixture};
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

    async fn connect(&self) -> Arc<RedisAccumulator> {
        let url = match &self.servers {
            Servers::One(server) => server.url(),
            Servers::Cluster(cluster) => cluster.url(),
        };
        Arc::new(RedisAccumulator::connect(&settings_at(&url, self.shards)).await.unwrap())
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
        self.connect().await
    }

    async fn second(&self) -> Option<Arc<RedisAccumulator>> {
        Some(self.connect().await)
    }
}

mod of_three_shards {
    use super::*;
    accumulator_contract!(OnRedis::with_shards(3));
}

mod of_one_shard {
    use super::*;
    accumulator_contract!(OnRedis::with_shards(1));
}

mod of_four_shards_in_a_cluster {
    use super::*;
    accumulator_contract!(OnRedis::in_a_cluster(4));
}
