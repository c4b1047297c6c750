//! What is removed once it is old enough.

use crate::clock;
use application::{ports::PortError, retry::Dependency};
use domain::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::{select, time::interval};
use tokio_util::sync::CancellationToken;
use tracing::info;

const REMOVE_EVERY: Duration = Duration::from_hours(1);

/// As [`remove_old`], at the start and every hour, until the stop.
///
/// # Errors
/// As [`remove_old`].
pub(crate) async fn remove_old_hourly<F: Future<Output = Result<u64, PortError>>>(
    what: &'static str,
    retention: Duration,
    dependency: Arc<Dependency>,
    stop: CancellationToken,
    remove: impl Fn(Timestamp) -> F,
) -> anyhow::Result<()> {
    let mut ticks = interval(REMOVE_EVERY);
    let work = async {
        loop {
            ticks.tick().await;
            remove_old(what, retention, &dependency, &remove).await?;
        }
    };
    select! {
        () = stop.cancelled() => Ok(()),
        failed = work => failed,
    }
}

/// Removes what is older than its retention; `remove` takes away a portion of what was before a moment and says how much.
///
/// # Errors
/// Why it cannot be removed, other than that the store is away.
pub(crate) async fn remove_old<F: Future<Output = Result<u64, PortError>>>(
    what: &str,
    retention: Duration,
    dependency: &Dependency,
    remove: impl Fn(Timestamp) -> F,
) -> Result<(), PortError> {
    let now = clock::now();
    let seconds = i64::try_from(retention.as_secs()).unwrap_or(i64::MAX);
    let before = Timestamp::new(now.seconds().saturating_sub(seconds), now.nanos());
    let mut removed = 0;
    loop {
        match dependency.hold(|| remove(before)).await? {
            0 => break,
            some => removed += some,
        }
    }
    if removed > 0 {
        info!(removed, "old {what} were removed");
    }
    Ok(())
}
