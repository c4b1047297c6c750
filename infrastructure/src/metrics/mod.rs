//! What Prometheus is told: the counts of this process, and how everything that it depends on stands.
//!
//! Every name is explained in `docs/telemetry.md`; a test compares the two.

mod archive;
mod conserved;
mod families;
mod letters;
#[cfg(test)]
mod tests;

use application::{
    audit::{AuditTally, AuditTallySnapshot},
    dead_letters::Wish,
    flush_tally::{FlushTally, FlushTallySnapshot},
    ingest::{Tally, TallySnapshot},
    overview::{GatherOverview, Named, Overview, Unavailable},
    ports::{LogAccounts, PortError, ShardCounts},
    retry::Dependency,
};
pub use archive::ArchiveMetricSources;
use domain::{Reason, Timestamp};
use families::{Families, Sample};
use letters::HandledLetters;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

/// The media type of the answer.
pub const MEDIA_TYPE: &str = prometheus::TEXT_FORMAT;
/// For how long an answer is good for others too, so that the parts are not asked more often.
const GOOD_FOR: Duration = Duration::from_secs(1);
const MICROS_PER_SECOND: u64 = 1_000_000;
const MILLIS_PER_SECOND: u64 = 1_000;

/// The metrics of a process, and the health of what it depends on.
pub struct Metrics {
    process: Process,
    letters: HandledLetters,
    last: Mutex<Option<(Instant, Arc<Answer>)>>,
}

enum Process {
    Counting(MetricSources),
    Archiving(ArchiveMetricSources),
}

/// What one look comes to.
struct Answer {
    text: String,
    /// Whether each dependency is up.
    up: BTreeMap<String, bool>,
}

/// Where the numbers come from.
pub struct MetricSources {
    /// Asks the stores and the sources.
    pub overview: GatherOverview,
    /// What was received of logs.
    pub accounts: Arc<dyn LogAccounts>,
    /// What the engine has done, where it runs in this process.
    pub tally: Option<Arc<Tally>>,
    /// What flushes have done, where this process flushes.
    pub flushes: Option<Arc<FlushTally>>,
    /// What audits have found, where this process audits.
    pub audits: Option<Arc<AuditTally>>,
    /// Dependencies of this process beside those of the engine.
    pub dependencies: Vec<Arc<Dependency>>,
    /// Whether this process counts in any Redis, however it is set; `None` without Redis.
    pub redis_at_risk: Option<bool>,
    /// The version of the program.
    pub version: &'static str,
    /// The clock.
    pub now: fn() -> Timestamp,
}

impl Metrics {
    /// Of a process that counts, flushes or answers questions. Nothing is asked yet.
    #[must_use]
    pub fn new(sources: MetricSources) -> Self {
        Self::of(Process::Counting(sources))
    }

    /// Of a process that archives. Nothing is asked yet.
    #[must_use]
    pub fn of_archive(sources: ArchiveMetricSources) -> Self {
        Self::of(Process::Archiving(sources))
    }

    fn of(process: Process) -> Self {
        Self { process, letters: HandledLetters::default(), last: Mutex::default() }
    }

    /// So many letters of a place were sent back or discarded; also none, so that the place is told of before the first.
    pub fn note_letters(&self, place: &'static str, wish: Wish, done: u64) {
        self.letters.add(place, wish, done);
    }

    /// All of them in the text format of Prometheus, no older than a second. A part that does not answer is `0` in
    /// `pulse_dependency_up`, and what it would have told is left out.
    ///
    /// # Errors
    /// Permanent where the text cannot be made: a defect.
    pub async fn text(&self) -> Result<String, PortError> {
        Ok(self.answer().await?.text.clone())
    }

    /// Each dependency, and whether it answers and no call to it is being made again; no older than a second.
    ///
    /// # Errors
    /// As [`Metrics::text`].
    pub async fn dependencies(&self) -> Result<BTreeMap<String, bool>, PortError> {
        Ok(self.answer().await?.up.clone())
    }

    async fn answer(&self) -> Result<Arc<Answer>, PortError> {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < GOOD_FOR
        {
            return Ok(Arc::clone(answer));
        }
        let (families, up) = self.look().await;
        let text = families.text().map_err(|error| PortError::permanent("write the metrics", error))?;
        let answer = Arc::new(Answer { text, up });
        *last = Some((Instant::now(), Arc::clone(&answer)));
        Ok(answer)
    }

    async fn look(&self) -> (Families, BTreeMap<String, bool>) {
        let mut families = Families::default();
        let mut calls = Calls::default();
        let up = match &self.process {
            Process::Counting(sources) => {
                let limit = sources.overview.part_limit;
                let balances = timeout(limit, sources.accounts.balances());
                let (overview, balances) = tokio::join!(sources.overview.run(), balances);
                add_build(&mut families, sources.version);
                // Where the store is away, the overview says so.
                conserved::add(&mut families, &balances.ok().and_then(Result::ok).unwrap_or_default());
                families.gauge(
                    "pulse_redis_at_risk",
                    "1 where REDIS_DURABILITY lets this process use a Redis that may lose what it confirms.",
                    sources.redis_at_risk.map(|at_risk| (None, u64::from(at_risk))),
                );
                for dependency in &sources.dependencies {
                    calls.add(dependency.name(), dependency.retries(), dependency.is_away());
                }
                if let Some(tally) = &sources.tally {
                    let tally = tally.snapshot();
                    calls.add_all(&tally);
                    add_engine(&mut families, &tally);
                }
                if let Some(flushes) = &sources.flushes {
                    add_flushes(&mut families, &flushes.snapshot());
                }
                if let Some(audits) = &sources.audits {
                    add_audits(&mut families, &audits.snapshot());
                }
                add_overview(&mut families, &overview, (sources.now)());
                calls.up(overview.health())
            }
            Process::Archiving(sources) => {
                let overview = sources.overview.run().await;
                let tally = sources.tally.snapshot();
                add_build(&mut families, sources.version);
                calls.add_all(&tally);
                archive::add(&mut families, &tally, &overview);
                calls.up(overview.health())
            }
        };
        self.letters.tell(&mut families);
        families.counter(
            "pulse_dependency_retries_total",
            "Calls that failed because a dependency was away, and were made again.",
            calls.retries.into_iter().map(|(name, tries)| (Some(("dependency", name)), tries)),
        );
        families.gauge(
            "pulse_dependency_up",
            "1 where a dependency answers and no call to it is being made again, 0 where not.",
            up.iter().map(|(name, up)| (Some(("dependency", name.clone())), u64::from(*up))),
        );
        (families, up)
    }
}

/// What became of the calls to each dependency of this process.
#[derive(Default)]
struct Calls {
    retries: BTreeMap<String, u64>,
    away: BTreeSet<String>,
}

impl Calls {
    fn add(&mut self, name: &str, retries: u64, is_away: bool) {
        *self.retries.entry(name.to_owned()).or_default() += retries;
        if is_away {
            self.away.insert(name.to_owned());
        }
    }

    fn add_all(&mut self, tally: &TallySnapshot) {
        for (name, retries) in &tally.retries {
            self.add(name, *retries, tally.away.contains(name));
        }
    }

    /// Every dependency, called or asked, by its name.
    fn up<'a>(
        &self,
        asked: impl Iterator<Item = (&'a str, Option<&'a Unavailable>)>,
    ) -> BTreeMap<String, bool> {
        let called = self.retries.keys().map(|name| (name.clone(), !self.away.contains(name)));
        let mut up: BTreeMap<String, bool> = called.collect();
        for (name, fault) in asked {
            *up.entry(name.to_owned()).or_insert(true) &= fault.is_none();
        }
        up
    }
}

fn add_build(families: &mut Families, version: &str) {
    families.gauge(
        "pulse_build_info",
        "1; the label says which version runs.",
        [(Some(("version", version.to_owned())), 1)],
    );
}

/// A value without a label.
const fn one(value: u64) -> [Sample; 1] {
    [(None, value)]
}

fn add_engine(families: &mut Families, tally: &TallySnapshot) {
    families.counter(
        "pulse_messages_received_total",
        "Messages received from the sources, those that came again included.",
        one(tally.messages),
    );
    families.counter("pulse_pulses_counted_total", "Pulses counted.", one(tally.counted));
    families.counter(
        "pulse_pulses_duplicate_total",
        "Pulses that were known with the same content, and not counted again.",
        one(tally.duplicates),
    );
    families.counter(
        "pulse_pulses_anonymous_total",
        "Pulses that nothing identifies, and that are counted.",
        one(tally.anonymous),
    );
    families.counter(
        "pulse_pulses_rejected_total",
        "Pulses, or whole messages, that are in the dead letters, by reason.",
        rejected(tally),
    );
    families.histogram("pulse_batch_size_pulses", "Pulses in a batch.", &tally.batch_sizes, 1);
    families.histogram(
        "pulse_apply_duration_seconds",
        "How long a batch took to become durable, waiting for the accumulator included.",
        &tally.apply_micros,
        MICROS_PER_SECOND,
    );
}

/// Every reason, also those that nothing was refused for.
fn rejected(tally: &TallySnapshot) -> impl Iterator<Item = Sample> {
    Reason::ALL.into_iter().map(|reason| {
        let count = tally.rejected.get(&reason).copied().unwrap_or_default();
        (Some(("reason", reason.code().to_owned())), count)
    })
}

fn add_flushes(families: &mut Families, flushes: &FlushTallySnapshot) {
    families.histogram(
        "pulse_flush_duration_seconds",
        "How long a flush of all shards took, waiting for the stores included.",
        &flushes.millis,
        MILLIS_PER_SECOND,
    );
    families.counter(
        "pulse_flushed_generations_total",
        "Generations of counts that flushes wrote.",
        one(flushes.generations),
    );
    families.counter("pulse_flushed_rows_total", "Hourly totals that flushes added to.", one(flushes.rows));
    families.counter("pulse_flushed_pulses_total", "Pulses that flushes moved.", one(flushes.pulses));
    families.gauge(
        "pulse_flush_last_success_timestamp_seconds",
        "When the last flush of this process succeeded, also one with nothing to move.",
        flushes.last.map(|seconds| (None, seconds.unsigned_abs())),
    );
}

fn add_audits(families: &mut Families, audits: &AuditTallySnapshot) {
    let outcomes = [("holds", audits.holds), ("broken", audits.broken), ("unknown", audits.unknown)];
    families.counter(
        "pulse_audits_total",
        "Audits of the books, by what they came to.",
        outcomes.map(|(outcome, audits)| (Some(("outcome", outcome.to_owned())), audits)),
    );
    let last = |value: fn(&application::audit::LastAudit) -> u64| {
        audits.last.as_ref().map(|last| (None, value(last)))
    };
    families.gauge(
        "pulse_books_hold",
        "1 where the last audit that could tell found that the books balance, 0 where it did not.",
        last(|last| u64::from(last.broken == 0)),
    );
    families.gauge(
        "pulse_audit_broken_checks",
        "Checks that were broken in that audit.",
        last(|last| last.broken),
    );
    families.gauge(
        "pulse_audit_last_timestamp_seconds",
        "When that audit began.",
        last(|last| last.at.unsigned_abs()),
    );
}

fn add_overview(families: &mut Families, overview: &Overview, now: Timestamp) {
    let counting = overview.counting.answer.as_ref().ok();
    let pending =
        |value: fn(&application::overview::Counting) -> u64| counting.map(|counting| (None, value(counting)));
    let life = |value: fn(&ShardCounts) -> u64| counting.map(|counting| (None, value(&counting.counts)));
    families.counter(
        "pulse_accumulator_counted_pulses_total",
        "Pulses counted in the life of the accumulator.",
        life(|counts| counts.counted),
    );
    families.counter(
        "pulse_accumulator_duplicate_pulses_total",
        "Pulses known and not counted in the life of the accumulator, conflicts among them.",
        life(|counts| counts.duplicates),
    );
    families.counter(
        "pulse_accumulator_anonymous_pulses_total",
        "Counted pulses without an id in the life of the accumulator.",
        life(|counts| counts.anonymous),
    );
    families.gauge(
        "pulse_pending_pulses",
        "Pulses that are counted and not yet in the books.",
        pending(|counting| counting.pending),
    );
    families.gauge(
        "pulse_pending_generations",
        "Sealed generations of counts that are not yet in the books and deleted.",
        pending(|counting| counting.sealed),
    );
    families.gauge(
        "pulse_pending_generation_age_seconds",
        "How long ago the oldest of them was sealed; 0 where there is none.",
        counting.map(|counting| (None, age(counting.oldest_sealed_at, now))),
    );
    let last = overview
        .flushes
        .answer
        .as_ref()
        .ok()
        .and_then(|flushes| flushes.iter().map(|flush| flush.flushed_at.seconds()).max());
    families.gauge(
        "pulse_ledger_last_flush_timestamp_seconds",
        "When anybody last wrote counts to the books.",
        last.map(|seconds| (None, seconds.unsigned_abs())),
    );
    families.gauge(
        "pulse_backlog_messages",
        "Messages that wait in a source.",
        answered(&overview.waiting, "source"),
    );
    families.gauge(
        "pulse_dead_letters_messages",
        "Letters that a place of dead letters holds.",
        answered(&overview.rejected, "place"),
    );
}

fn answered(parts: &[Named<u64>], label: &'static str) -> Vec<Sample> {
    let sample = |part: &Named<u64>| Some((Some((label, part.name.clone())), *part.answer.as_ref().ok()?));
    parts.iter().filter_map(sample).collect()
}

fn age(since: Option<Timestamp>, now: Timestamp) -> u64 {
    since.map_or(0, |since| u64::try_from(now.seconds() - since.seconds()).unwrap_or(0))
}
