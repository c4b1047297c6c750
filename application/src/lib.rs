//! What the ingestor does, and the ports it does it through. No driver crate is used here.
//!
//! [`ingest`] counts pulses, [`flush_usage`] moves the counts into the books, [`open_shards`] notices lost storage, [`recover`] goes on after it,
//! [`report_usage`] tells what was used, [`overview`] how it goes, [`api_keys`] lets services in, [`dead_letters`] sends back,
//! [`populate`] makes up load.

pub mod accept_pulses;
pub mod api_keys;
pub mod audit;
pub mod crash_point;
pub mod dead_letters;
pub mod decode;
pub mod explain;
pub mod flush_tally;
pub mod flush_usage;
pub mod histogram;
pub mod ingest;
pub mod mutation;
pub mod open_log;
pub mod open_shards;
pub mod overview;
pub mod populate;
pub mod ports;
pub mod query_usage;
pub mod recover;
pub mod report_usage;
pub mod retry;
pub mod trace;
pub mod usage_windows;

#[cfg(any(test, feature = "test-support"))]
pub mod contract;
#[cfg(any(test, feature = "test-support"))]
pub mod fakes;
