//! Whether all that was received of logs is accounted for: two figures that different steps write.
//!
//! What a reader has received is written when it is settled, and what the shards have taken of it when they count. A pulse
//! that is lost between the two shows as a difference.

use super::PortError;
use async_trait::async_trait;
use domain::LogName;

/// What was received of a log and is settled, over its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogAccount {
    /// Every message before this offset is in it, and none after.
    pub next: u64,
    /// The pulses in those messages, and what could not be taken apart to pulses: one for each verdict.
    pub received: u64,
    /// Of those, what was refused before any shard saw it.
    pub refused: u64,
}

/// What comes to an account with the messages from one offset to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStep {
    /// Where the account stands.
    pub from: u64,
    /// Where it stands afterwards.
    pub to: u64,
    /// See [`LogAccount::received`].
    pub received: u64,
    /// See [`LogAccount::refused`].
    pub refused: u64,
}

/// An account beside what the shards say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBalance {
    /// The log.
    pub log: LogName,
    /// What was received of it.
    pub account: LogAccount,
    /// How many pulses all shards together have taken from it by their places: each once, counted, known by its id or in
    /// conflict.
    pub taken: u64,
}

impl LogBalance {
    /// Pulses that were received and settled, and that nobody has counted, known or refused. Never more than zero unless
    /// pulses were lost.
    #[must_use]
    pub const fn missing(&self) -> u64 {
        self.account.received.saturating_sub(self.account.refused.saturating_add(self.taken))
    }

    /// Pulses that were taken and are not settled: in flight; more than zero at rest where pulses were taken twice.
    #[must_use]
    pub const fn ahead(&self) -> u64 {
        self.account.refused.saturating_add(self.taken).saturating_sub(self.account.received)
    }
}

/// Keeps the accounts beside the counts, so that a rollback hits both.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait LogAccounts: Send + Sync + 'static {
    /// Opens an account that begins at the offset, unless there is one; says where it stands.
    ///
    /// `None` where a shard has taken pulses from there on: what comes again to it is received and not taken, so nothing
    /// can be added up, until a later reading finds every shard no further than its beginning.
    async fn open(&self, log: &LogName, from: u64) -> Result<Option<u64>, PortError>;

    /// Takes a step if the account stands where the step begins; says where it stands then. A log without an account is a
    /// permanent error.
    ///
    /// So a repetition changes nothing, and of two readers of one stretch one is heard.
    async fn settle(&self, log: &LogName, step: LogStep) -> Result<u64, PortError>;

    /// Every account. What the shards have taken is read after it, so that nothing seems to be missing that is not.
    async fn balances(&self) -> Result<Vec<LogBalance>, PortError>;
}
