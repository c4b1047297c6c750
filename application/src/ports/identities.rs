//! What a store of counts remembers of single pulses.

use super::PortError;
use async_trait::async_trait;
use domain::{Fingerprint, PulseDigest, Shard, Timestamp};

/// A pulse that was counted and is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Its content.
    pub content: Fingerprint,
    /// It was not counted before; `None` where nobody knows. By the clock of the flushes: exact to about one of them.
    pub after: Option<Timestamp>,
    /// It was counted by then; `None` where it may have been counted a moment ago.
    pub until: Option<Timestamp>,
}

/// Knows which pulses were counted within the dedupe window.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait RememberedIdentities: Send + Sync + 'static {
    /// Those of the identities that the shard remembers, by their place in the list; nothing for a shard that was not
    /// made. At most [`IDENTITIES_MAX`] at once. Changes nothing.
    async fn remembered(
        &self,
        shard: Shard,
        identities: &[PulseDigest],
    ) -> Result<Vec<(usize, Remembered)>, PortError>;
}

/// How many identities are asked for at once.
pub const IDENTITIES_MAX: usize = 4_000;
