//! Holding on while a part of the world is away: retries with jittered backoff, told once and not once a try.
//!
//! The only file that knows the `backoff` crate.

use crate::ports::PortError;
use backoff::{ExponentialBackoff, backoff::Backoff};
use std::{sync::Mutex, time::Duration};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// One part of the world that calls go to, shared by all who call it, so that its absence is told once.
#[derive(Debug)]
pub struct Dependency {
    name: String,
    away_since: Mutex<Option<Instant>>,
}

impl Dependency {
    /// Names the dependency as operators know it.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), away_since: Mutex::new(None) }
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
        let mut waits: Option<ExponentialBackoff> = None;
        loop {
            match call().await {
                Ok(value) => {
                    self.came_back();
                    return Ok(value);
                }
                Err(error) if error.is_transient() => self.went_away(&error),
                Err(error) => return Err(error),
            }
            let wait = waits.get_or_insert_with(backoff).next_backoff().unwrap_or(LONGEST_WAIT);
            sleep(wait).await;
        }
    }

    /// Whether the last call failed and none has succeeded since.
    ///
    /// # Panics
    /// Never: no holder of its lock can panic.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.away_since.lock().expect("no holder of this lock can panic").is_some()
    }

    fn went_away(&self, error: &PortError) {
        let mut away_since = self.away_since.lock().expect("no holder of this lock can panic");
        if away_since.is_none() {
            *away_since = Some(Instant::now());
            warn!(dependency = self.name, %error, "dependency is away; holding and trying again");
        }
    }

    fn came_back(&self) {
        let since = self.away_since.lock().expect("no holder of this lock can panic").take();
        if let Some(since) = since {
            let away_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            info!(dependency = self.name, away_ms, "dependency is back");
        }
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
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_transient_fault_is_waited_out() {
        let (calls, start) = (AtomicU32::new(0), Instant::now());
        let result = Dependency::new("test")
            .hold(|| async {
                match calls.fetch_add(1, Ordering::Relaxed) {
                    0..20 => Err(PortError::transient("ask", "away")),
                    _ => Ok(7),
                }
            })
            .await;
        assert_eq!(result.ok(), Some(7));
        let waited = start.elapsed();
        assert!(waited > Duration::from_secs(15) && waited < Duration::from_secs(90), "{waited:?}");
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
