//! What Prometheus is told: the counts of this process, and how everything that it depends on stands.
//!
//! Every name is explained in `docs/telemetry.md`; a test compares the two.

mod families;
#[cfg(test)]
mod tests;

use application::{
    audit::{AuditTally, AuditTallySnapshot},
    flush_tally::{FlushTally, FlushTallySnapshot},
    ingest::{Tally, TallySnapshot},
    overview::{GatherOverview, Named, Overview},
    ports::{PortError, ShardCounts},
    retry::Dependency,
};
use domain::{Reason, Timestamp};
use families::{Families, Sample};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::Instant};

/// The media type of the answer.
pub const MEDIA_TYPE: &str = prometheus::TEXT_FORMAT;
/// For how long an answer is good for others too, so that the parts are not asked more often.
const GOOD_FOR: Duration = Duration::from_secs(1);
const MICROS_PER_SECOND: u64 = 1_000_000;
const MILLIS_PER_SECOND: u64 = 1_000;

/// The metrics of a process.
pub struct Metrics {
    sources: MetricSources,
    last: Mutex<Option<(Instant, Arc<str>)>>,
}

/// Where the numbers come from.
pub struct MetricSources {
    /// Asks the stores and the sources.
    pub overview: GatherOverview,
    /// What the engine has done, where it runs in this process.
    pub tally: Option<Arc<Tally>>,
    /// What flushes have done, where this process flushes.
    pub flushes: Option<Arc<FlushTally>>,
    /// What audits have found, where this process audits.
    pub audits: Option<Arc<AuditTally>>,
    /// Dependencies of this process beside those of the engine.
    pub dependencies: Vec<Arc<Dependency>>,
    /// The version of the program.
    pub version: &'static str,
    /// The clock.
    pub now: fn() -> Timestamp,
}

impl Metrics {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(sources: MetricSources) -> Self {
        Self { sources, last: Mutex::default() }
    }

    /// All of them in the text format of Prometheus, no older than a second. A part that does not answer is `0` in
    /// `pulse_dependency_up`, and what it would have told is left out.
    ///
    /// # Errors
    /// Permanent where the text cannot be made: a defect.
    pub async fn text(&self) -> Result<Arc<str>, PortError> {
        let mut last = self.last.lock().await;
        if let Some((at, text)) = &*last
            && at.elapsed() < GOOD_FOR
        {
            return Ok(Arc::clone(text));
        }
        let families = self.families().await;
        let text = families.text().map_err(|error| PortError::permanent("write the metrics", error))?;
        let text = Arc::<str>::from(text);
        *last = Some((Instant::now(), Arc::clone(&text)));
        Ok(text)
    }

    async fn families(&self) -> Families {
        let sources = &self.sources;
        let overview = sources.overview.run().await;
        let mut families = Families::default();
        families.gauge(
            "pulse_build_info",
            "1; the label says which version runs.",
            [(Some(("version", sources.version.to_owned())), 1)],
        );
        let mut retries = BTreeMap::new();
        for dependency in &sources.dependencies {
            *retries.entry(dependency.name().to_owned()).or_insert(0) += dependency.retries();
        }
        if let Some(tally) = &sources.tally {
            let tally = tally.snapshot();
            for (name, tries) in &tally.retries {
                *retries.entry(name.clone()).or_insert(0) += tries;
            }
            add_engine(&mut families, &tally);
        }
        families.counter(
            "pulse_dependency_retries_total",
            "Calls that failed because a dependency was away, and were made again.",
            retries.into_iter().map(|(name, tries)| (Some(("dependency", name)), tries)),
        );
        if let Some(flushes) = &sources.flushes {
            add_flushes(&mut families, &flushes.snapshot());
        }
        if let Some(audits) = &sources.audits {
            add_audits(&mut families, &audits.snapshot());
        }
        add_overview(&mut families, &overview, (sources.now)());
        families
    }
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
    let rejected = |reason: Reason| {
        let count = tally.rejected.get(&reason).copied().unwrap_or_default();
        (Some(("reason", reason.code().to_owned())), count)
    };
    families.counter(
        "pulse_pulses_rejected_total",
        "Pulses, or whole messages, that are in the dead letters, by reason.",
        Reason::ALL.map(rejected),
    );
    families.histogram("pulse_batch_size_pulses", "Pulses in a batch.", &tally.batch_sizes, 1);
    families.histogram(
        "pulse_apply_duration_seconds",
        "How long a batch took to become durable, waiting for the accumulator included.",
        &tally.apply_micros,
        MICROS_PER_SECOND,
    );
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
    let up = |(name, fault): (&str, Option<_>)| {
        (Some(("dependency", name.to_owned())), u64::from(fault.is_none()))
    };
    families.gauge(
        "pulse_dependency_up",
        "1 where a dependency answers, 0 where it does not.",
        overview.health().map(up),
    );
}

fn answered(parts: &[Named<u64>], label: &'static str) -> Vec<Sample> {
    let sample = |part: &Named<u64>| Some((Some((label, part.name.clone())), *part.answer.as_ref().ok()?));
    parts.iter().filter_map(sample).collect()
}

fn age(since: Option<Timestamp>, now: Timestamp) -> u64 {
    since.map_or(0, |since| u64::try_from(now.seconds() - since.seconds()).unwrap_or(0))
}
