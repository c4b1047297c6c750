//! Holding on while a part of the world is away: retries with jittered backoff, told once and not once a try.
//!
//! The only file that knows the `backoff` crate.

use crate::ports::PortError;
use backoff::{ExponentialBackoff, backoff::Backoff};
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// One part of the world that calls go to, shared by all who call it, so that its absence is told once: with the first
/// call that fails, and again when the last call that had failed succeeds.
#[derive(Debug)]
pub struct Dependency {
    name: String,
    away: Mutex<Away>,
    retries: AtomicU64,
}

#[derive(Debug, Default)]
struct Away {
    calls: usize,
    since: Option<Instant>,
}

impl Dependency {
    /// Names the dependency as operators know it.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), away: Mutex::default(), retries: AtomicU64::default() }
    }

    /// Makes the call until it succeeds or fails for good, waiting 50 ms to 3 s in between, each time half of that more
    /// or less.
    ///
    /// It ends only with the dependency's return: whoever must end sooner drops the future, as the engine does when its
    /// drain timeout is over.
    ///
    /// # Errors
    /// The first error that is not transient.
    pub async fn hold<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, PortError>
    where
        F: Future<Output = Result<T, PortError>>,
    {
        let mut held: Option<(Held<'_>, ExponentialBackoff)> = None;
        loop {
            let error = match call().await {
                Err(error) if error.is_transient() => error,
                result => {
                    if let (Ok(_), Some((held, _))) = (&result, held) {
                        held.succeeded();
                    }
                    return result;
                }
            };
            let (_, waits) = held.get_or_insert_with(|| (Held::new(self, &error), backoff()));
            self.retries.fetch_add(1, Ordering::Relaxed);
            sleep(waits.next_backoff().unwrap_or(LONGEST_WAIT)).await;
        }
    }

    /// Whether a call has failed and is about to be made again.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.away().calls > 0
    }

    /// What operators call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many calls have failed so far and were made again.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    fn away(&self) -> MutexGuard<'_, Away> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that failed and is made again.
struct Held<'a>(&'a Dependency);

impl<'a> Held<'a> {
    fn new(dependency: &'a Dependency, error: &PortError) -> Self {
        let mut away = dependency.away();
        away.calls += 1;
        if away.since.is_none() {
            away.since = Some(Instant::now());
            warn!(dependency = dependency.name, %error, "dependency is away; holding and trying again");
        }
        Self(dependency)
    }

    /// The call has succeeded.
    fn succeeded(self) {
        let mut away = self.0.away();
        if away.calls == 1
            && let Some(since) = away.since.take()
        {
            let away_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            info!(dependency = self.0.name, away_ms, "dependency is back");
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.away().calls -= 1;
    }
}

fn backoff() -> ExponentialBackoff {
    ExponentialBackoff {
        current_interval: FIRST_WAIT,
        initial_interval: FIRST_WAIT,
        randomization_factor: 0.5,
        multiplier: 2.0,
        max_interval: LONGEST_WAIT,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[tokio::test(start_paused = true)]
    async fn a_transient_fault_is_waited_out() {
        let (calls, start) = (AtomicU32::new(0), Instant::now());
        let dependency = Dependency::new("test");
        let result = dependency
            .hold(|| async {
                match calls.fetch_add(1, Ordering::Relaxed) {
                    0..20 => Err(PortError::transient("ask", "away")),
                    _ => Ok(7),
                }
            })
            .await;
        assert_eq!((result.ok(), dependency.retries()), (Some(7), 20));
        let waited = start.elapsed();
        assert!(waited > Duration::from_secs(15) && waited < Duration::from_secs(90), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dependency_is_away_until_the_last_call_that_failed_succeeds_or_is_dropped() {
        let dependency = Dependency::new("test");
        let start = Instant::now();
        let until = |seconds| {
            dependency.hold(move || async move {
                let passed = start.elapsed() >= Duration::from_secs(seconds);
                if passed { Ok(()) } else { Err(PortError::transient("ask", "away")) }
            })
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), until(100)).await;
        assert!(!dependency.is_away(), "the only call was dropped");
        let (short, long) = (until(10), until(30));
        tokio::pin!(long);
        tokio::select! {
            result = short => assert!(result.is_ok()),
            _ = &mut long => panic!("it is away for longer"),
        }
        assert!(dependency.is_away(), "one call still fails");
        assert!(dependency.hold(|| async { Ok(()) }).await.is_ok());
        assert!(dependency.is_away(), "a call that never failed says nothing of those that did");
        assert!(long.await.is_ok());
        assert!(!dependency.is_away());
    }

    #[tokio::test(start_paused = true)]
    async fn a_permanent_fault_is_returned_at_once() {
        let start = Instant::now();
        let result: Result<(), _> =
            Dependency::new("test").hold(|| async { Err(PortError::permanent("ask", "lost")) }).await;
        assert!(result.is_err_and(|error| !error.is_transient()));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
