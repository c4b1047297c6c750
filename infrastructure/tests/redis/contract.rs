//! The contract of every accumulator.

use super::{WINDOW, settings_at};
use IdentityLayout::{Compact, Fast};
use application::{
    accumulator_contract,
    contract::{accumulator::AccumulatorFixture, recovery::FragileStore, suspects::FreshMarks},
    storage_contract, suspects_contract,
};
use async_trait::async_trait;
use domain::ShardCount;
use infrastructure::{
    redis::{IdentityLayout, RedisAccumulator, RedisSettings},
    test_servers::{redis::RedisServer, redis_cluster::RedisCluster},
};
use std::{sync::Arc, time::Duration};

struct OnRedis {
    servers: Servers,
    shards: u16,
    /// Of the first handle, and of the second.
    layouts: [IdentityLayout; 2],
}

enum Servers {
    One(RedisServer),
    Cluster(RedisCluster),
}

impl OnRedis {
    fn with_shards(shards: u16) -> Self {
        Self { servers: Servers::One(RedisServer::start()), shards, layouts: [Fast; 2] }
    }

    /// Of three masters.
    fn in_a_cluster(shards: u16) -> Self {
        Self { servers: Servers::Cluster(RedisCluster::start(3)), shards, layouts: [Fast; 2] }
    }

    fn in_layouts(self, first: IdentityLayout, second: IdentityLayout) -> Self {
        Self { layouts: [first, second], ..self }
    }

    async fn connect(&self, identities: IdentityLayout) -> RedisAccumulator {
        let url = match &self.servers {
            Servers::One(server) => server.url(),
            Servers::Cluster(cluster) => cluster.url(),
        };
        let settings = RedisSettings { identities, ..settings_at(&url, self.shards) };
        RedisAccumulator::connect(&settings).await.unwrap()
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
        Arc::new(self.connect(self.layouts[0]).await)
    }

    async fn second(&self) -> Option<Arc<RedisAccumulator>> {
        Some(Arc::new(self.connect(self.layouts[1]).await))
    }
}

impl FreshMarks for OnRedis {
    type Marks = RedisAccumulator;

    async fn open(&self) -> RedisAccumulator {
        self.connect(self.layouts[0]).await
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

mod of_three_compact_shards {
    use super::*;
    accumulator_contract!(OnRedis::with_shards(3).in_layouts(Compact, Compact));
}

mod of_compact_buckets_beside_a_fast_program {
    use super::*;
    accumulator_contract!(OnRedis::with_shards(1).in_layouts(Compact, Fast));
}

mod of_fast_buckets_beside_a_compact_program {
    use super::*;
    accumulator_contract!(OnRedis::with_shards(1).in_layouts(Fast, Compact));
}

impl FragileStore for OnRedis {
    type Store = RedisAccumulator;

    async fn open(&self) -> RedisAccumulator {
        self.connect(self.layouts[0]).await
    }

    fn lose(&self) {
        let () = self.server_of_the_first().command(&["FLUSHALL"]);
    }

    fn lose_by_half(&self) {
        let () = self.server_of_the_first().command(&["DEL", "pulse:{0}:meta"]);
    }
}

storage_contract!(OnRedis::with_shards(1));

mod compact_storage {
    use super::*;
    storage_contract!(OnRedis::with_shards(1).in_layouts(Compact, Compact));
}

mod of_four_shards_in_a_cluster {
    use super::*;
    accumulator_contract!(OnRedis::in_a_cluster(4));
}

mod of_four_compact_shards_in_a_cluster {
    use super::*;
    accumulator_contract!(OnRedis::in_a_cluster(4).in_layouts(Compact, Compact));
}

mod marks_and_recoveries_in_a_cluster {
    use super::*;
    suspects_contract!(std::future::ready(OnRedis::in_a_cluster(1)));
    storage_contract!(OnRedis::in_a_cluster(1));
}

mod compact_recoveries_in_a_cluster {
    use super::*;
    storage_contract!(OnRedis::in_a_cluster(1).in_layouts(Compact, Compact));
}
