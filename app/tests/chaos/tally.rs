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

    /// What nothing found in so many kills says of the next one.
    #[expect(clippy::cast_precision_loss, reason = "a bound of two digits")]
    pub(crate) fn print_bound(&self) {
        let kills = self.kills();
        let bound = 300.0 / kills as f64;
        println!(
            "0 of {kills} kills put the books out: the rate per kill is below {bound:.2} % with 95 % confidence"
        );
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
