//! How the ingestor talks to the world: one folder a technology, one file a port that it implements.

#[cfg(feature = "clickhouse")]
pub mod clickhouse;
pub mod file;
pub mod http;
pub mod inbox;
pub mod json;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(test)]
mod kept_log;
pub mod metrics;
mod positions;
pub mod postgres;
pub mod rabbitmq;
pub mod redis;
pub mod schedule;
pub mod sqlite;
pub mod telemetry;

#[cfg(feature = "test-servers")]
pub mod test_servers;
