//! The vocabulary of usage metering: values and rules, without input, output, clock or serialisation.
//!
//! A *pulse* says that a tenant used an amount of a product. Everything else here answers one of three questions:
//! what is it ([`Pulse`] and its parts), is it the same as another ([`PulseIdentity`], [`IdentityKey`]), and where
//! does it count ([`UsageKey`], [`UsageTotal`], [`Shard`]).

mod amount;
mod file_name;
mod identity;
mod log;
mod pulse;
mod rejection;
mod shard;
mod text;
mod time;
mod usage;

pub use amount::{Amount, AmountError, NANOS_PER_UNIT, TotalAmount};
pub use file_name::{FileNameError, check_file_name};
pub use identity::{AccumulatorId, Fingerprint, IdentityKey, PulseDigest, PulseIdentity, content_hash};
pub use log::{LogName, LogPosition};
pub use pulse::Pulse;
pub use rejection::{Reason, Rejection};
pub use shard::{Shard, ShardCount};
pub use text::{ProductSku, TEXT_BYTES_MAX, TenantId, TextError, UsageUnit, check_text};
pub use time::{HourWindow, Timestamp};
pub use usage::{UsageKey, UsageKeyError, UsageTotal, UsageTotals};
