//! The program as its users run it, against real RabbitMQ, Redis and PostgreSQL.
//!
//! The tests know nothing of the program's inside: they publish with a client of their own, read the ledger with `psql`, and
//! compare with totals that were computed elsewhere or added up here.

#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod api;
#[cfg(feature = "clickhouse")]
mod archive;
mod audit;
mod bad_input;
#[cfg(all(feature = "kafka", feature = "clickhouse", feature = "failpoints"))]
mod conserved;
mod crashes;
mod event_counter;
#[cfg(all(feature = "kafka", feature = "clickhouse"))]
mod kafka;
mod letters;
mod metrics;
mod outages;
#[cfg(feature = "failpoints")]
mod poison;
mod printing;
mod publishing;
mod quorum;
mod recovery;
#[cfg(all(feature = "kafka", feature = "clickhouse"))]
mod recovery_of_kafka;
mod redis_cluster;
mod stopping;
mod streams;
mod system;
mod totals;
mod totals_table;
mod traces;
