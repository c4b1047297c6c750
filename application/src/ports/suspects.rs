//! Messages that may be what ends their workers.

use super::PortError;
use async_trait::async_trait;

/// Names a message by what it is: the same whenever it comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SuspectId(pub [u8; 16]);

/// Marks of messages that are taken alone, kept where they outlive a worker.
///
/// A mark that nobody removed is forgotten a week after it was last touched: its message begins anew.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait Suspects: Send + Sync + 'static {
    /// Marks the message, which its source has had back so often, as taken alone; durable when it returns. Says how
    /// often it was taken alone before and came back from that.
    ///
    /// Idempotent: one that has not come back since it was marked is not taken once more.
    async fn take(&self, suspect: SuspectId, returns: u32) -> Result<u32, PortError>;

    /// Removes the mark: the message had its answer, or nobody died of it.
    async fn clear(&self, suspect: SuspectId) -> Result<(), PortError>;
}
