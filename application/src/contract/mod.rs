//! The contract suites: one for each port, passed by every adapter on its real server and by every fake.

pub mod accumulator;
pub mod api_keys;
pub mod inbox;
pub mod ledger;
pub mod letters;
pub mod queries;
pub mod recovery;
pub mod source;
pub mod suspects;
