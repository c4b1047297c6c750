//! Made-up pulses: what they are, and runs that send them through the same way in as everybody's.

mod recipe;
mod runs;

pub use recipe::{Dice, Made, Recipe, origin};
pub use runs::{NotStarted, PopulateOrder, PopulateRuns, Progress, RunState};
