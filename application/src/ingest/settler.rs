//! Settles deliveries up to the first that is not finished, many with one call.

use super::in_flight::Unsettled;
use crate::{
    ports::{PortError, PulseSource},
    retry::Dependency,
};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub(super) struct Settler {
    pub(super) source: Arc<dyn PulseSource>,
    pub(super) dependency: Arc<Dependency>,
    pub(super) unsettled: Arc<Unsettled>,
    /// Cancelled when nothing is left that could finish a delivery.
    pub(super) drained: CancellationToken,
}

impl Settler {
    /// Settles until all work is done, then closes the source.
    pub(super) async fn run(self) -> Result<(), PortError> {
        let mut last = false;
        while !last {
            tokio::select! {
                () = self.unsettled.changed() => {}
                () = self.drained.cancelled() => last = true,
            }
            for finished in self.unsettled.advance() {
                self.dependency.hold(|| self.source.settle(finished.watermark)).await?;
                self.unsettled.settled(&finished);
            }
        }
        self.dependency.hold(|| self.source.close()).await
    }
}
