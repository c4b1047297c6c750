//! How much waits.

use super::PortError;
use async_trait::async_trait;

/// What waits in a source to be received.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait Backlog: Send + Sync + 'static {
    /// How many messages wait, as of a moment ago; those that were received and are not settled are not among them.
    async fn waiting(&self) -> Result<u64, PortError>;
}
