//! The Redis accumulator on a real Redis.
#![cfg(feature = "servers")]

#[path = "redis/contract.rs"]
mod contract;

use domain::ShardCount;
use infrastructure::{redis::RedisSettings, test_servers::redis::RedisServer};
use std::time::Duration;

const WINDOW: Duration = Duration::from_hours(48);

fn settings(server: &RedisServer, shards: u16) -> RedisSettings {
    RedisSettings::new(server.url().into(), ShardCount::new(shards).unwrap(), WINDOW)
}
