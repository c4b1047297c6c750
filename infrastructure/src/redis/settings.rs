//! What the accumulator is told about its Redis.

use domain::ShardCount;
use secrecy::SecretString;
use std::time::Duration;

/// How sure it must be that Redis keeps what it has confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisDurability {
    /// Redis is asked how it is set, and refused where it could lose what it confirmed.
    Strict,
    /// Somebody vouches for it, or does not mind: what is found is only logged.
    AtRisk,
}

/// How the identities of a bucket are kept. A bucket stays as it was opened, and each says so: programs of either setting
/// count on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityLayout {
    /// One table for all of them: the least work for Redis.
    Fast,
    /// Many small hashes: a third of the memory, for about three times the work.
    Compact,
}

impl IdentityLayout {
    /// What the scripts call it (see `buckets.lua`).
    pub(super) const fn letter(self) -> &'static str {
        match self {
            Self::Fast => "",
            Self::Compact => "c",
        }
    }
}

/// The accumulator's settings. They are the same for every program on one accumulator.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// `redis://` or `rediss://`, with credentials where they are needed.
    pub url: SecretString,
    /// Whether an unsafe Redis is refused.
    pub durability: RedisDurability,
    /// How many shards the accumulator has; a shard that was made for another number is refused.
    pub shards: ShardCount,
    /// How long identities are remembered at least: a second or more. It costs the memory of up to two windows where
    /// there is a flush in each quarter of it, and of more where flushes are rarer.
    pub dedupe_window: Duration,
    /// How the next bucket keeps its identities that this program opens, with a new shard or a flush.
    pub identities: IdentityLayout,
    /// The most that connecting may take.
    pub connect_timeout: Duration,
    /// The most that an answer may take. What was asked may still happen after that.
    pub response_timeout: Duration,
}

impl RedisSettings {
    /// The default of `connect_timeout`.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// The default of `response_timeout`: long enough for an `fsync` on a busy disk.
    pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

    /// The shortest `dedupe_window`: its quarters are counted in milliseconds.
    pub const DEDUPE_WINDOW_MIN: Duration = Duration::from_secs(1);

    /// The usual settings for a Redis.
    #[must_use]
    pub const fn new(url: SecretString, shards: ShardCount, dedupe_window: Duration) -> Self {
        Self {
            url,
            durability: RedisDurability::Strict,
            shards,
            dedupe_window,
            identities: IdentityLayout::Fast,
            connect_timeout: Self::CONNECT_TIMEOUT,
            response_timeout: Self::RESPONSE_TIMEOUT,
        }
    }
}
