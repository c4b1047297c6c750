//! What was done in a run, by kind, and what its outcome bounds.

use std::collections::BTreeMap;

/// Counts deeds by their names; those that end a process at once are kills.
#[derive(Default)]
pub(crate) struct Tally {
    deeds: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(crate) fn done(&mut self, kind: &'static str) {
        *self.deeds.entry(kind).or_default() += 1;
    }

    /// How many processes or servers were killed.
    pub(crate) fn kills(&self) -> u64 {
        self.deeds.iter().filter(|(kind, _)| is_kill(kind)).map(|(_, count)| count).sum()
    }

    /// All other faults.
    pub(crate) fn others(&self) -> u64 {
        self.deeds.values().sum::<u64>() - self.kills()
    }

    pub(crate) fn print(&self) {
        for (kind, count) in &self.deeds {
            let word = if is_kill(kind) { "kill" } else { "" };
            println!("  {kind:<24}{count:>7}  {word}");
        }
        println!("  {:<24}{:>7}  kills, {} other faults", "together", self.kills(), self.others());
    }
}

fn is_kill(kind: &str) -> bool {
    kind.starts_with("SIGKILL") || kind == "crash point"
}
