//! The contract of every accumulator.

use super::{WINDOW, settings};
use application::{
    accumulator_contract,
    contract::{accumulator::AccumulatorFixture, recovery::FragileStore, suspects::FreshMarks},
    storage_contract, suspects_contract,
};
use async_trait::async_trait;
use domain::ShardCount;
use infrastructure::{redis::RedisAccumulator, test_servers::redis::RedisServer};
use std::{sync::Arc, time::Duration};

struct OnRedis {
    server: RedisServer,
    shards: u16,
}

impl OnRedis {
    fn with_shards(shards: u16) -> Self {
        Self { server: RedisServer::start(), shards }
    }

    async fn connect(&self) -> Arc<RedisAccumulator> {
        Arc::new(RedisAccumulator::connect(&settings(&self.server, self.shards)).await.unwrap())
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

impl FreshMarks for OnRedis {
    type Marks = RedisAccumulator;

    async fn open(&self) -> RedisAccumulator {
        RedisAccumulator::connect(&settings(&self.server, self.shards)).await.unwrap()
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
        RedisAccumulator::connect(&settings(&self.server, self.shards)).await.unwrap()
    }

    fn lose(&self) {
        let () = self.server.command(&["FLUSHALL"]);
    }

    fn lose_by_half(&self) {
        let () = self.server.command(&["DEL", "pulse:{0}:meta"]);
    }
}

storage_contract!(OnRedis::with_shards(1));
