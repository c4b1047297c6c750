//! The built program on the embedded file: no server is needed.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod api;
mod audit;
mod folder;
mod inbox;
mod ingesting;
mod json_ledger;
mod letters;
#[cfg(feature = "servers")]
mod metrics;
#[cfg(feature = "servers")]
mod openapi;
mod standalone;
mod usage_and_settings;
