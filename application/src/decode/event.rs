//! What an item of a message says, before it is known whether it counts.

use super::{ColumnValue, fields::Quantity};
use domain::{
    Amount, HourWindow, ProductSku, Pulse, PulseIdentity, Reason, Rejection, TenantId, Timestamp, UsageUnit,
};
use std::ops::RangeInclusive;

/// What an item says: all that makes a pulse, and an amount that may be zero.
pub(super) struct Reading {
    pub(super) tenant: TenantId,
    pub(super) product_sku: ProductSku,
    pub(super) use_unity: UsageUnit,
    pub(super) amount: Quantity,
    pub(super) identity: Option<PulseIdentity>,
    pub(super) occurred_at: Option<Timestamp>,
}

/// What an event was read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAs {
    /// A native pulse.
    Pulse,
    /// A `CloudEvent` whose data has the fields of a pulse.
    CloudEvent,
    /// A message of the mapping's shape.
    Mapping,
}

/// One event as the archive keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it was read as: where that is not the mapping, it has none of its columns.
    pub read_as: ReadAs,
    /// Who is billed.
    pub tenant: TenantId,
    /// What was used.
    pub product_sku: ProductSku,
    /// What the amount is counted in.
    pub use_unity: UsageUnit,
    /// How much; `None` where it is zero, which counts nothing and is kept all the same.
    pub amount: Option<Amount>,
    /// What makes it this event and no other; `None` where it carries nothing to know it by.
    pub identity: Option<PulseIdentity>,
    /// Its own time, or else that of its arrival: within [`Self::SECONDS`].
    pub occurred_at: Timestamp,
    /// What the mapping keeps beside these, in the order of its columns; times are within [`Self::SECONDS`].
    pub columns: Vec<ColumnValue>,
}

impl Event {
    /// The seconds since 1970 that the archive can hold to the nanosecond: the years 1900 to 2261.
    pub const SECONDS: RangeInclusive<i64> = -2_208_988_800..=9_214_646_399;
}

impl Reading {
    /// The pulse, where it counts.
    pub(super) fn into_pulse(self, received_at: Timestamp) -> Result<Pulse, Rejection> {
        Ok(Pulse {
            tenant: self.tenant,
            product_sku: self.product_sku,
            use_unity: self.use_unity,
            amount: match self.amount {
                Quantity::Some(amount) => amount,
                Quantity::Zero(rejection) => return Err(rejection),
            },
            identity: self.identity,
            occurred_at: self.occurred_at,
            hour: HourWindow::of(self.occurred_at.unwrap_or(received_at)),
        })
    }

    /// The event, where the archive can hold it.
    pub(super) fn into_event(
        self,
        read_as: ReadAs,
        columns: Vec<ColumnValue>,
        received_at: Timestamp,
    ) -> Result<Event, Rejection> {
        let occurred_at = self.occurred_at.unwrap_or(received_at);
        let times = columns.iter().filter_map(|column| match column {
            ColumnValue::Time(time) => Some(*time),
            _ => None,
        });
        if times.chain([occurred_at]).any(|time| !Event::SECONDS.contains(&time.seconds())) {
            let detail = "a time lies outside of what the archive can hold: the years 1900 to 2261";
            return Err(Rejection::new(Reason::OutOfRange, detail));
        }
        Ok(Event {
            read_as,
            tenant: self.tenant,
            product_sku: self.product_sku,
            use_unity: self.use_unity,
            amount: match self.amount {
                Quantity::Some(amount) => Some(amount),
                Quantity::Zero(_) => None,
            },
            identity: self.identity,
            occurred_at,
            columns,
        })
    }
}
