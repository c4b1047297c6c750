//! In-memory stand-ins that hold state, for tests of the use cases. They pass the contract suites.

pub mod accumulator;
pub mod ledger;
pub mod suspects;
