//! The ingestor's one program: flags, settings, wiring, signals, exit codes.

mod cli;
mod hours;
mod logging;
mod populate;
mod progress;
mod settings;
mod signals;
mod usage;

fn main() {}
