//! What the lanes have counted, told in the order in which they did it.

use super::in_flight::Origin;
use crate::ports::Outcome;
use domain::{Pulse, Shard, TenantId};

/// A pulse that was counted, and which lane counted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedPulse {
    /// The lane, which is the shard of the tenant.
    pub lane: Shard,
    /// Who is billed.
    pub tenant: TenantId,
    /// What it is called, for people; see [`crate::decode::Decoder::label`].
    pub id: Option<String>,
    /// Where its source is a log that has numbered partitions: which of them.
    pub partition: Option<u32>,
    /// Its message's place there.
    pub offset: Option<u64>,
}

/// Those of a batch that were counted by it, in its order.
pub(super) fn counted(
    lane: Shard,
    pulses: &[Pulse],
    origins: &[Origin],
    outcomes: &[Outcome],
) -> Vec<AppliedPulse> {
    let each = pulses.iter().zip(origins).zip(outcomes);
    let counted = each.filter(|(_, outcome)| **outcome == Outcome::Counted);
    counted
        .map(|((pulse, origin), _)| {
            let delivery = &origin.in_flight.delivery;
            AppliedPulse {
                lane,
                tenant: pulse.tenant.clone(),
                id: origin.route().decoder.label(delivery, &origin.bytes, origin.item.unwrap_or_default()),
                partition: delivery.log.as_ref().and_then(|reading| reading.log.partition()),
                offset: delivery.log.as_ref().map(|_| delivery.sequence),
            }
        })
        .collect()
}
