//! What the ingestor does, and the ports it does it through. No driver crate is used here.

pub mod ports;
