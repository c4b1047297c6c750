//! Books in a folder: needs no server.
#![expect(clippy::unwrap_used, reason = "a test without its ground panics")]

#[path = "json/contract.rs"]
mod contract;
#[path = "json/crashes.rs"]
mod crashes;
#[path = "json/files.rs"]
mod files;
#[path = "json/fixture.rs"]
mod fixture;
