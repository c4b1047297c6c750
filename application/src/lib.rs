//! What the ingestor does, and the ports it does it through. No driver crate is used here.

pub mod ports;

#[cfg(any(test, feature = "test-support"))]
pub mod contract;
#[cfg(any(test, feature = "test-support"))]
pub mod fakes;
