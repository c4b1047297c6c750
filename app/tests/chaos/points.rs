//! The named crash points: which process may die at which, when, and how often they did.

use crate::action::Process;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// A point, and how many passes it may let go by before it kills: about as many as there are in the life of a process.
type Point = (&'static str, u32);

const WORKER: [Point; 10] = [
    ("decode_done", 60),
    ("dead_letter_before", 4),
    ("dead_letter_after_publish", 4),
    ("dead_letter_after_confirm", 4),
    ("apply_before_send", 20),
    ("apply_sent_no_reply", 20),
    ("apply_after", 20),
    ("ack_before", 20),
    ("ack_mid", 20),
    ("ack_after", 20),
];
/// Passed only by those that come to new stores.
const FIRST_WORKER: [Point; 2] = [("meta_creating", 4), ("script_load", 2)];
const CRON: [Point; 13] = [
    ("seal_before", 4),
    ("seal_after", 4),
    ("read_mid", 4),
    ("read_done", 4),
    ("ledger_inserted", 4),
    ("upsert_mid", 4),
    ("watermark_advanced", 4),
    ("commit_before", 4),
    ("commit_sent_no_reply", 4),
    ("commit_after", 4),
    ("delete_before", 4),
    ("delete_after", 4),
    // Only of the JSON ledger.
    ("state_file_written", 3),
];
/// Of the archive.
const ARCHIVE: [Point; 7] = [
    ("decode_done", 60),
    ("dead_letter_before", 2),
    ("dead_letter_after_publish", 2),
    ("dead_letter_after_confirm", 2),
    ("ack_before", 8),
    ("ack_mid", 8),
    ("ack_after", 8),
];
/// Of a worker that reads a log.
const OF_LOG: [Point; 4] =
    [("offset_commit", 2), ("apply_sent_no_reply", 20), ("apply_after", 20), ("decode_done", 60)];
/// Of the service on the embedded file, and of `app ingest`.
const EMBEDDED: [Point; 20] = [
    ("decode_done", 60),
    ("apply_before_send", 20),
    ("apply_sent_no_reply", 20),
    ("apply_after", 20),
    ("ack_before", 20),
    ("ack_mid", 20),
    ("ack_after", 20),
    ("meta_creating", 1),
    ("seal_before", 3),
    ("seal_after", 3),
    ("read_mid", 3),
    ("read_done", 3),
    ("upsert_mid", 3),
    ("ledger_inserted", 3),
    ("watermark_advanced", 3),
    ("commit_before", 3),
    ("commit_sent_no_reply", 3),
    ("commit_after", 3),
    ("delete_before", 3),
    ("delete_after", 3),
];
/// Where no process of a round comes by, and what kills there instead.
pub(crate) const ELSEWHERE: [(&str, &str); 2] = [
    (
        "bucket_drop",
        "only after the dedupe window of an hour: a test of app/tests/embedded dies there, one of infrastructure/tests/redis between two steps",
    ),
    ("those of app recover", "a test of app/tests/servers dies at each, with Kafka"),
];

/// Arms each start of a process: the n-th start of one is always armed alike.
pub(crate) struct Points {
    draws: BTreeMap<u64, (StdRng, usize)>,
    seed: u64,
    log: PathBuf,
}

impl Points {
    /// Deaths are written to `log`.
    pub(crate) fn new(seed: u64, log: &Path) -> Self {
        Self { draws: BTreeMap::new(), seed, log: log.to_owned() }
    }

    /// The settings of the next start of a process: four of five die at some point, if they come by often enough.
    pub(crate) fn arm(&mut self, process: Process, is_log: bool) -> Vec<(&'static str, String)> {
        let number = match process {
            Process::Worker(number) => number,
            Process::Cron(number) => 100 + number,
            Process::Archive => 200,
        };
        let number = u64::try_from(number).unwrap();
        let points: &[Point] = match process {
            Process::Worker(_) if !self.draws.contains_key(&number) => &FIRST_WORKER,
            Process::Worker(_) if is_log => &OF_LOG,
            Process::Worker(_) => &WORKER,
            Process::Cron(_) => &CRON,
            Process::Archive => &ARCHIVE,
        };
        self.arm_with(number, points)
    }

    /// As [`Self::arm`], of a process on the embedded file.
    pub(crate) fn arm_embedded(&mut self, number: u64) -> Vec<(&'static str, String)> {
        self.arm_with(number, &EMBEDDED)
    }

    fn arm_with(&mut self, number: u64, points: &[Point]) -> Vec<(&'static str, String)> {
        let seed = self.seed ^ number;
        let (random, turn) = self.draws.entry(number).or_insert_with(|| {
            let mut random = StdRng::seed_from_u64(seed);
            let turn = random.random_range(0..1_000);
            (random, turn)
        });
        // One after the other, so that all have their turn.
        *turn += 1;
        let (name, passes) = points[*turn % points.len()];
        let let_go = random.random_range(0..passes);
        let mut settings = vec![("PULSE_CRASH_LOG", self.log.display().to_string())];
        if random.random_ratio(4, 5) {
            settings.push(("FAILPOINTS", format!("{name}={let_go}*off->return")));
        }
        settings
    }
}

/// How often processes died at each point.
pub(crate) struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    pub(crate) fn read(log: &Path) -> Self {
        let text = fs::read_to_string(log).unwrap_or_default();
        let all = WORKER.iter().chain(&FIRST_WORKER).chain(&CRON).chain(&OF_LOG[..1]);
        let deaths = |name| u64::try_from(text.lines().filter(|line| *line == name).count()).unwrap();
        Self(all.map(|(name, _)| (*name, deaths(*name))).collect())
    }

    pub(crate) fn missing(&self) -> Vec<&'static str> {
        self.0.iter().filter(|(_, deaths)| **deaths == 0).map(|(name, _)| *name).collect()
    }

    pub(crate) fn print(&self) {
        println!("deaths at the named crash points:");
        for (name, deaths) in &self.0 {
            println!("  {name:<28}{deaths:>5}");
        }
        for (name, why) in ELSEWHERE {
            println!("  {name:<28}    -  {why}");
        }
    }
}
