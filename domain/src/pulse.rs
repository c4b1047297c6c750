//! One report of usage.

use crate::{Amount, HourWindow, ProductSku, PulseIdentity, TenantId, Timestamp, UsageKey, UsageUnit};

/// One report of usage, checked: "tenant X used 307 KB of SKU-997".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Who is billed.
    pub tenant: TenantId,
    /// What was used.
    pub product_sku: ProductSku,
    /// What the amount is counted in.
    pub use_unity: UsageUnit,
    /// How much.
    pub amount: Amount,
    /// What makes it this pulse and no other; `None` where it carries nothing to know it by.
    pub identity: Option<PulseIdentity>,
    /// Its own time, where it carries one.
    pub occurred_at: Option<Timestamp>,
    /// The hour that it counts for: of its own time, else of its arrival.
    pub hour: HourWindow,
}

impl Pulse {
    /// Where the pulse counts.
    #[must_use]
    pub fn key(&self) -> UsageKey {
        UsageKey {
            tenant: self.tenant.clone(),
            product_sku: self.product_sku.clone(),
            use_unity: self.use_unity.clone(),
            hour: self.hour,
        }
    }
}
