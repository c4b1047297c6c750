//! What people have done with dead letters through this process.

use super::families::{Families, Sample};
use application::dead_letters::Wish;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Letters sent back and discarded, by their place.
#[derive(Default)]
pub(super) struct HandledLetters(Mutex<BTreeMap<&'static str, Counts>>);

#[derive(Default)]
struct Counts {
    replayed: u64,
    discarded: u64,
}

impl HandledLetters {
    /// So many more; also none, so that the place is told of before the first.
    pub(super) fn add(&self, place: &'static str, wish: Wish, done: u64) {
        let mut places = self.places();
        let counts = places.entry(place).or_default();
        match wish {
            Wish::Replay { .. } => counts.replayed += done,
            Wish::Discard => counts.discarded += done,
        }
    }

    pub(super) fn tell(&self, families: &mut Families) {
        let samples = |count: fn(&Counts) -> u64| -> Vec<Sample> {
            let sample =
                |(place, counts): (&&str, &Counts)| (Some(("place", (*place).to_owned())), count(counts));
            self.places().iter().map(sample).collect()
        };
        families.counter(
            "pulse_dead_letters_replayed_total",
            "Letters that were sent back through this process.",
            samples(|counts| counts.replayed),
        );
        families.counter(
            "pulse_dead_letters_discarded_total",
            "Letters that were discarded through this process.",
            samples(|counts| counts.discarded),
        );
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<&'static str, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
