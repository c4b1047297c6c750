//! Whether all that was received of logs is accounted for.

use super::families::{Families, Sample};
use application::ports::LogBalance;

/// Nothing where no log was read: there is nothing to balance.
pub(super) fn add(families: &mut Families, balances: &[LogBalance]) {
    let sum = |value: fn(&LogBalance) -> u64| -> Option<Sample> {
        (!balances.is_empty()).then(|| (None, balances.iter().map(value).fold(0, u64::saturating_add)))
    };
    families.counter(
        "pulse_log_received_pulses_total",
        "Pulses in what was received of logs and is settled, in the life of the accumulator.",
        sum(|balance| balance.account.received),
    );
    families.counter(
        "pulse_log_refused_pulses_total",
        "Of those, the ones that were refused before any shard saw them.",
        sum(|balance| balance.account.refused),
    );
    families.counter(
        "pulse_log_taken_pulses_total",
        "Pulses that the shards have taken from logs by their places: counted, known or in conflict.",
        sum(|balance| balance.taken),
    );
    families.gauge(
        "pulse_log_missing_pulses",
        "Pulses of logs that are settled, and neither taken nor refused.",
        sum(LogBalance::missing),
    );
    families.gauge(
        "pulse_log_ahead_pulses",
        "Pulses of logs that are taken or refused, and not settled: in flight.",
        sum(LogBalance::ahead),
    );
}
