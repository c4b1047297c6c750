//! The clock, read here and handed on as a value.

use domain::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

/// The time of the system's clock; 1970 where it is set to before that.
#[expect(clippy::disallowed_methods, reason = "the edge is where the clock is read")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::new(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
}
