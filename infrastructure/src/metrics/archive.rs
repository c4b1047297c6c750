//! What an archive tells.

use super::{MICROS_PER_SECOND, answered, families::Families, one, rejected};
use application::{
    ingest::{Tally, TallySnapshot},
    overview::{ArchiveOverview, GatherArchive},
};
use std::sync::Arc;

/// Where the numbers of a process come from that archives and does nothing else.
pub struct ArchiveMetricSources {
    /// Asks the archive and its sources.
    pub overview: GatherArchive,
    /// What the engine has done.
    pub tally: Arc<Tally>,
    /// The version of the program.
    pub version: &'static str,
}

pub(super) fn add(families: &mut Families, tally: &TallySnapshot, overview: &ArchiveOverview) {
    families.counter(
        "pulse_archive_messages_received_total",
        "Messages received for the archive, those that came again included.",
        one(tally.messages),
    );
    families.counter(
        "pulse_archive_events_total",
        "Events that ClickHouse has confirmed, copies included.",
        one(tally.counted),
    );
    families.counter(
        "pulse_archive_events_anonymous_total",
        "Events that nothing identifies, and that are archived.",
        one(tally.anonymous),
    );
    families.counter(
        "pulse_archive_events_rejected_total",
        "Events, or whole messages, that the archive has put into the dead letters, by reason.",
        rejected(tally),
    );
    families.histogram("pulse_archive_batch_size_events", "Events in an insert.", &tally.batch_sizes, 1);
    families.histogram(
        "pulse_archive_insert_duration_seconds",
        "How long an insert took to be confirmed, waiting for ClickHouse included.",
        &tally.apply_micros,
        MICROS_PER_SECOND,
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
